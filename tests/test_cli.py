"""The command line: exit codes, one line for every mistake, and a scan that survives being killed."""

import gc
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from laws import compilations

from slt_jax import storage
from slt_jax.cli import main
from slt_jax.progress import shown

#: A module as a user writes it: a small problem whose checkpoints lie near its minimum.
MODULE = """
import jax.numpy as jnp
import slt_jax as slt
from slt_jax.spectroscopy import Subloss

X = jnp.linspace(-1.0, 1.0, 16)

def loss_fn(params, x):
    return 0.5 * ((params["a"] + params["b"]) * x) ** 2 + 0.1 * params["b"] ** 2

PARAMS = {"a": jnp.float32(0.0), "b": jnp.float32(0.0)}

def problem():
    return slt.Problem(loss_fn, PARAMS, X)

def more():
    return problem(), {
        "sublosses": {"right": Subloss(loss_fn, X[8:])},
        "concepts": {"sum": lambda params: params["a"] + params["b"]},
        "restrictions": {"only a": slt.restriction.paths(PARAMS, "a")},
    }

def nonsense(): return "nonsense"
def triple(): return problem() + (1,)
def ragged(): return slt.Problem(lambda p, d: d["x"], PARAMS, {"x": jnp.ones(3), "y": jnp.ones(4)})
def wrong_shape(): return slt.Problem(lambda p, d: jnp.ones(3), PARAMS, X)
def wrong_loss(): return slt.Problem(lambda p: 0.0, PARAMS, X)
def whole_numbers(): return slt.Problem(loss_fn, {"a": jnp.int32(0), "b": jnp.int32(0)}, X)
def other_tree(): return slt.Problem(lambda p, d: p["z"] * d, {"z": jnp.float32(0)}, X)
def unknown_entry(): return problem(), {"sublosses ": {}}
def tuples(): return problem(), {"sublosses": {"right": (loss_fn, X)}}
def frees_nothing(): return problem(), {"restrictions": {"r": slt.restriction.mask(PARAMS, lambda *_: False)}}
def needs_an_argument(seed): return problem()
def imports():
    from jax import does_not_exist
def reads(): return open("no-such-data.npy")
number = 3
"""
HEALTHY = ["--draws", "4000", "--burnin", "1000", "--nbeta", "100", "--chains", "4"]
QUICK = ["--draws", "20", "--burnin", "20", "--nbeta", "100", "--chains", "2"]


def near(step):
    return {"a": np.float32(1e-4 * step), "b": np.float32(-1e-4 * step)}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with a user's module and twelve checkpoints."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "mine.py").write_text(MODULE)
    (folder / "broken_syntax.py").write_text("def problem(:\n")
    (folder / "broken_import.py").write_text("from jax import does_not_exist\n")
    (folder / "broken_name.py").write_text("x = 1\nundefined\n")
    storage.save_checkpoints(folder / "checkpoints", {step: near(step) for step in range(1, 13)})
    storage.save_checkpoints(folder / "one", {1: near(1)})
    storage.save_checkpoints(folder / "diverged", {1: near(1), 2: near(np.nan), 3: near(3)})
    storage.save_checkpoints(folder / "mixed", {1: near(1), 2: {"z": np.zeros(2)}, 3: near(3)})
    (folder / "mixed" / "4").mkdir()
    (folder / "empty").mkdir()
    (folder / "file").touch()
    return folder


@pytest.fixture
def at_work(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "path", [str(workplace), *sys.path])
    return workplace


def scan(folder, out, *more, problem="mine:problem", settings=QUICK):
    return ["scan", str(folder), "--problem", problem, "--out", str(out), *settings, *more]


def complaint(capsys):
    """What was said on standard error, stages left out: one line that names the program."""
    lines = [line for line in capsys.readouterr().err.strip().splitlines() if not line.endswith(" ...")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("slt-jax: ")
    return lines[0]


def test_exit_code_0_when_every_reading_is_healthy(at_work, tmp_path, capsys):
    code = main(scan("one", tmp_path / "out", settings=HEALTHY))
    shown = capsys.readouterr().out
    assert code == 0, shown
    assert "1 readings, 0 unhealthy, 0 missing." in shown
    assert str(tmp_path / "out" / "report.html") in shown
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == {
        "cells",
        "history.zarr",
        "readings.zarr",
        "report.html",
        "study.json",
    }


def test_exit_code_1_when_a_reading_is_unhealthy_and_names_it(at_work, tmp_path, capsys):
    assert main(scan("one", tmp_path / "out")) == 1
    shown = capsys.readouterr().out
    assert "1 readings, 1 unhealthy, 0 missing." in shown
    assert "llc at step 1, full, all: UNHEALTHY: " in shown


def test_everything_that_the_problem_names_is_measured_at_every_checkpoint(at_work, tmp_path, capsys):
    main(scan("one", tmp_path / "out", problem="mine:more"))
    assert "4 readings" in capsys.readouterr().out
    values = storage.read_readings(tmp_path / "out")["/llc/value"]
    assert dict(values.sizes) == {"step": 1, "restriction": 2, "subloss": 2}
    history = storage.read_history(tmp_path / "out")
    assert sorted(history.losses) == ["all", "right"]
    assert history.concepts["sum"] == pytest.approx([0.0])
    main(scan("one", tmp_path / "less", "--restrictions", "only a", "--sublosses", "right", problem="mine:more"))
    assert "1 readings" in capsys.readouterr().out


def test_unreadable_checkpoints_are_named_and_the_others_finish(at_work, tmp_path, capsys):
    assert main(scan("mixed", tmp_path / "out", settings=HEALTHY)) == 1
    shown = capsys.readouterr().out
    assert "2 readings, 0 unhealthy, 2 missing." in shown
    assert "llc at step 2, full, all: checkpoint 2: has another tree than params; it has no leaf 'a'" in shown
    assert "llc at step 4, full, all: checkpoint 4: unreadable or truncated" in shown
    node = storage.read_readings(tmp_path / "out")["/llc"]
    assert node["measured"].values.ravel().tolist() == [True, False, True, False]
    assert sorted(json.loads(node.attrs["errors"])) == ["2/full/all", "4/full/all"]


def test_a_nan_at_one_checkpoint_is_named_and_the_others_finish(at_work, tmp_path, capsys):
    assert main(scan("diverged", tmp_path / "out", settings=HEALTHY)) == 1
    shown = capsys.readouterr().out
    assert "2 readings, 0 unhealthy, 1 missing." in shown
    assert "step 2, full, all: loss_fn: 16 of 16 losses at params are not finite" in shown


def test_a_nan_among_many_checkpoints_does_not_end_the_scan(at_work, tmp_path, capsys):
    many = {step: near(step if step != 7 else np.nan) for step in range(1, 24)}
    storage.save_checkpoints(tmp_path / "many", many)
    assert main(scan(tmp_path / "many", tmp_path / "out")) == 1
    assert "22 readings, " in capsys.readouterr().out
    study = storage.read_study(tmp_path / "out")
    assert 7 not in study["phases"]["plateaus"]
    assert study["construction"]


def test_the_same_command_again_computes_nothing_and_gives_the_same_bits(at_work, tmp_path, capsys):
    command = scan("checkpoints", tmp_path / "out")
    main(command)
    before = snapshot(tmp_path / "out" / "readings.zarr")
    cells = times(tmp_path / "out")
    main(command)
    assert snapshot(tmp_path / "out" / "readings.zarr") == before
    assert times(tmp_path / "out") == cells
    assert len(cells) == 12


def test_a_damaged_reading_is_computed_again_to_the_same_bits(at_work, tmp_path):
    command = scan("one", tmp_path / "out")
    main(command)
    before = snapshot(tmp_path / "out" / "readings.zarr")
    (cell,) = (tmp_path / "out" / "cells").iterdir()
    cell.write_bytes(cell.read_bytes()[:100])
    assert main(command) == 1
    assert snapshot(tmp_path / "out" / "readings.zarr") == before
    assert cell.stat().st_size > 100


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--seed", "1"], "seed is 0 there, 1 here"),
        (["--draws", "21"], "settings is .*'draws': 20.* there"),
        (["--problem", "mine:more"], "concepts is '.*' there"),
    ],
)
def test_another_study_in_the_same_folder_is_refused_by_name(at_work, tmp_path, capsys, changed, message):
    main(scan("one", tmp_path / "out"))
    capsys.readouterr()
    before = snapshot(tmp_path / "out")
    assert main(scan("one", tmp_path / "out", *changed)) == 2
    said = complaint(capsys)
    assert "belongs to another study" in said
    assert re.search(message, said), said
    assert snapshot(tmp_path / "out") == before


BAD = {
    "an unknown problem function": ({"problem": "mine:nothing"}, [], "mine has no function 'nothing'"),
    "a problem that is no function": ({"problem": "mine:number"}, [], "mine has no function 'number'"),
    "an unknown module": ({"problem": "no_such_module:f"}, [], "cannot import 'no_such_module'"),
    "no function at all": ({"problem": "mine"}, [], "expected PKG.MOD:FUNC"),
    "a relative module": ({"problem": ".mine:problem"}, [], "TypeError"),
    "a module with a wrong import": ({"problem": "broken_import:f"}, [], "cannot import name 'does_not_exist'"),
    "a module with a wrong syntax": ({"problem": "broken_syntax:f"}, [], "SyntaxError: invalid syntax"),
    "a module with a wrong name": ({"problem": "broken_name:f"}, [], "NameError: .* .broken_name.py, line 2"),
    "a function with a wrong import": ({"problem": "mine:imports"}, [], "ImportError: .* .mine.py, line 3"),
    "a function with an argument": ({"problem": "mine:needs_an_argument"}, [], "TypeError: .*'seed'"),
    "a function that misses a file": ({"problem": "mine:reads"}, [], "No such file .*no-such-data"),
    "nonsense": ({"problem": "mine:nonsense"}, [], "returned a str; it must return a slt_jax.Problem"),
    "four values": ({"problem": "mine:triple"}, [], "returned a tuple"),
    "ragged data": ({"problem": "mine:ragged"}, [], "leading axes differ: {'x': 3, 'y': 4}"),
    "losses of a wrong shape": ({"problem": "mine:wrong_shape"}, [], r"returned shape \(3,\) on data of 16 examples"),
    "a loss of one argument": (
        {"problem": "mine:wrong_loss"},
        [],
        "loss_fn: failed on params of shapes .*TypeError: .*takes 1 positional argument but 2",
    ),
    "whole numbers as parameters": ({"problem": "mine:whole_numbers"}, [], "dtype int32"),
    "an unknown entry": ({"problem": "mine:unknown_entry"}, [], "unknown entry 'sublosses '"),
    "tuples as sublosses": ({"problem": "mine:tuples"}, [], "subloss 'right': is a tuple"),
    "a mask that frees nothing": ({"problem": "mine:frees_nothing"}, [], "mask: frees nothing"),
    "an unknown probe": ({}, ["--probes", "llc,magic"], "--probes: got 'magic'; choose among llc"),
    "no probe": ({}, ["--probes", ""], "--probes: got ''"),
    "an unknown restriction": ({}, ["--restrictions", "head"], "restrictions: got 'head'"),
    "an unknown subloss": ({}, ["--sublosses", "all,digit 3"], "sublosses: got 'digit 3'"),
    "no draws": ({}, ["--draws", "0"], "draws: got 0"),
    "no chains": ({}, ["--chains", "0"], "chains: got 0"),
    "negative burn-in": ({}, ["--burnin", "-1"], "burnin: got -1"),
    "a batch larger than the data": ({}, ["--batch-size", "17"], "batch_size: got 17 with 16 examples"),
    "no temperature": ({}, ["--nbeta", "0"], "nbeta: got 0"),
    "a temperature that is none": ({}, ["--nbeta", "nan"], "nbeta: got nan"),
    "a negative localisation": ({}, ["--gamma", "-1"], "gamma: got -1"),
    "a folder without checkpoints": ({"folder": "empty"}, [], "holds no checkpoint"),
    "no folder": ({"folder": "nowhere"}, [], "is not a folder"),
    "one checkpoint": ({"folder": "one/1/default"}, [], "is itself one checkpoint"),
    "an output folder that is a file": ({"out": "file"}, [], "--out: cannot write to file"),
    "an output folder below a file": ({"out": "file/out"}, [], "--out: cannot write to"),
    "an output folder of the system": ({"out": "/proc/out"}, [], "--out: cannot write to /proc/out"),
    "an output folder with other files": ({"out": "."}, [], "is not empty and holds no study"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2_before_anything_is_compiled_or_written(at_work, tmp_path, capsys, case):
    changed, more, message = BAD[case]
    given = {"folder": "one", "out": tmp_path / "out", "problem": "mine:problem", **changed}
    before = sorted(path.name for path in at_work.iterdir() if path.name != "__pycache__")
    if not given["problem"].startswith(("broken", "no_such", ".")):
        importlib.import_module("mine")  # what the module itself computes is the user's
    with compilations() as seen:
        code = main(scan(given["folder"], given["out"], *more, problem=given["problem"]))
    said = complaint(capsys)
    assert re.search(message, said), said
    assert code == 2
    assert len(said) < 1000
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in at_work.iterdir() if path.name != "__pycache__") == before
    if given["problem"] in ("mine:problem", "mine:nonsense"):
        assert seen == []


def test_checkpoints_of_another_network_are_all_named(at_work, tmp_path, capsys):
    assert main(scan("one", tmp_path / "out", problem="mine:other_tree")) == 1
    shown = capsys.readouterr().out
    assert "0 readings, 0 unhealthy, 1 missing." in shown
    assert "checkpoint 1: has another tree than params; it has no leaf 'z' (its leaves: a, b)" in shown


def test_a_file_in_the_place_of_the_readings_is_one_line(at_work, tmp_path, capsys):
    main(scan("one", tmp_path / "out"))
    capsys.readouterr()
    cells = tmp_path / "out" / "cells"
    for file in cells.iterdir():
        file.unlink()
    cells.rmdir()
    cells.touch()
    assert main(scan("one", tmp_path / "out")) == 2
    assert "cells" in complaint(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["scan"],
        ["scan", "one"],
        ["scan", "one", "--problem", "mine:problem"],
        ["dance"],
        ["truth"],
        ["truth", "dln", "8", "8"],
        ["truth", "dln", "8", "x", "--rank", "1"],
        ["truth", "rrr", "8", "8", "--rank", "1"],
        ["scan", "one", "--problem", "m:f", "--out", "o", "--draws", "many"],
        ["demo", "--seed", "-1"],
        ["demo", "--seed", "99999999999999999999"],
    ],
)
def test_a_command_that_is_none_exits_with_2_and_shows_how_it_goes(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: slt-jax" in capsys.readouterr().err


def test_an_unknown_study_is_named_with_those_there_are(capsys, tmp_path):
    assert main(["demo", "magic", "--out", str(tmp_path / "out")]) == 2
    known = "digits, groups, induction, programs, regression, semantics, superposition"
    assert complaint(capsys) == f"slt-jax: STUDY: got 'magic'; choose one of {known}."
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [[], ["scan"]])
def test_help_has_examples(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "example" in shown
    assert "slt-jax scan " in shown
    assert "--problem mine.run:problem --out readings" in shown


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["dln", "8", "10", "8", "--rank", "3"], "31"),
        (["dln", "8", "8", "15", "--rank", "0"], "32"),
        (["dln", "8", "8", "15", "--rank", "8"], "60"),
        (["rrr", "8", "8", "15", "--rank", "1"], "71/2"),
        (["crossing", "1", "1"], "1/2"),
        (["crossing", "2", "1"], "1/4"),
        (["superposition", "5-"], "7"),
        (["newton", "xy", "x^2 - y^3"], "5/12"),
        (["newton", "v,w", "v", "w^2"], "3/4"),
    ],
)
def test_truth_prints_the_exact_value_and_its_source(capsys, arguments, value):
    assert main(["truth", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[2] == value
    assert [line.split("  ")[0] for line in lines] == ["learning coefficient", "multiplicity", "source"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["dln", "8", "10", "8", "--rank", "9"],
        ["dln", "8", "10", "8", "--rank", "-1"],
        ["dln", "8", "0", "8", "--rank", "0"],
        ["dln", "8", "--rank", "0"],
        ["crossing", "0"],
        ["crossing", "-1"],
        ["rrr", "5", "3", "5", "--rank", "4"],
        ["superposition", "7"],
        ["newton", "xy", "x^2 + 1"],
        ["newton", "xy", "x^z"],
    ],
)
def test_a_truth_that_there_is_not_is_refused_in_one_line(capsys, arguments):
    assert main(["truth", *arguments]) == 2
    assert complaint(capsys)


def test_a_report_is_written_again_from_what_is_in_the_folder(at_work, tmp_path, capsys):
    main(scan("one", tmp_path / "out"))
    page = (tmp_path / "out" / "report.html").read_bytes()
    (tmp_path / "out" / "report.html").unlink()
    capsys.readouterr()
    assert main(["report", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "report.html")
    assert (tmp_path / "out" / "report.html").read_bytes() == page
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "holds no study.json" in complaint(capsys)


# --- processes that are killed


def test_ctrl_c_inside_the_garbage_collector_is_not_lost():
    """Python drops an exception raised there; it is raised by the next report instead."""
    before = signal.getsignal(signal.SIGINT)
    pressed = []

    def callback(phase, info):
        if not pressed:
            pressed.append(phase)
            signal.raise_signal(signal.SIGINT)

    with shown() as report:
        report("Training", 1, 3)
        gc.callbacks.append(callback)
        gc.collect()
        gc.callbacks.remove(callback)
        assert pressed == ["start"]
        with pytest.raises(KeyboardInterrupt):
            report("Training", 2, 3)
    with shown() as report:
        report("Training", 2, 3)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def snapshot(folder):
    """Every file below a folder, byte for byte."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def times(out):
    return {path.name: path.stat().st_mtime_ns for path in (out / "cells").glob("[0-9a-f]*.npz")}


def start(workplace, out, settings):
    """The installed command in a process of its own."""
    program = Path(sys.executable).with_name("slt-jax")
    return subprocess.Popen(
        [str(program), *scan("checkpoints", out, settings=settings)],
        cwd=workplace,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )


def stopped_in_mid_run(workplace, out, sent):
    """Start a scan, wait until two readings are finished, send a signal, and wait for its end."""
    process = start(workplace, out, SLOW)
    deadline = time.monotonic() + 120
    while len(times(out) if (out / "cells").exists() else ()) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(sent)
    out_text, err_text = process.communicate(timeout=60)
    return process.returncode, out_text, err_text


#: Long enough that a signal comes in mid-run, short enough to wait for.
SLOW = ["--draws", "30000", "--burnin", "1000", "--nbeta", "100", "--chains", "4"]


@pytest.fixture(scope="module")
def uninterrupted(workplace):
    process = start(workplace, workplace / "whole", SLOW)
    out_text, err_text = process.communicate(timeout=120)
    assert process.returncode == 0, err_text
    assert "12 readings, 0 unhealthy, 0 missing." in out_text
    return workplace / "whole"


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "Ctrl-C"])
def test_a_scan_stopped_in_mid_run_goes_on_to_the_bits_of_one_that_was_not(workplace, uninterrupted, tmp_path, sent):
    out = tmp_path / "out"
    code, out_text, err_text = stopped_in_mid_run(workplace, out, sent)
    finished = times(out)
    assert 2 <= len(finished) < 12
    if sent == signal.SIGINT:
        assert code == 130
        assert "Traceback" not in err_text + out_text
        assert "interrupted; what is finished is kept" in err_text
        kept = storage.read_readings(out)["/llc"]
        assert int(kept["measured"].sum()) == len(finished)
    else:
        assert code == -signal.SIGKILL
    process = start(workplace, out, SLOW)
    assert process.wait(timeout=120) == 0
    process.communicate()
    after = times(out)
    assert len(after) == 12
    assert {name: after[name] for name in finished} == finished
    assert snapshot(out / "readings.zarr") == snapshot(uninterrupted / "readings.zarr")
    assert snapshot(out / "history.zarr") == snapshot(uninterrupted / "history.zarr")
    # the comparison sees one bit
    other = next(path for path in (out / "readings.zarr" / "llc" / "value").iterdir() if path.name.startswith("0"))
    content = other.read_bytes()
    other.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert snapshot(out / "readings.zarr") != snapshot(uninterrupted / "readings.zarr")
