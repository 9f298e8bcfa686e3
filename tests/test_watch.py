"""A scan that follows a training: the same bits as afterwards, whatever is killed, and nothing read half."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from slt_jax import measuring, storage
from slt_jax.cli import main
from slt_jax.problem import Problem
from slt_jax.spectroscopy import Subject, llc_probe
from slt_jax.watching import run_watch
from slt_jax.workflow import run_scan

#: A user's module: the problem, and a training loop with a keeper that goes on from its newest checkpoint.
MODULE = """
import sys, time
import jax, jax.numpy as jnp
import slt_jax as slt
from slt_jax import storage

X = jnp.linspace(-1.0, 1.0, 16)
PARAMS = {"a": jnp.float32(0.003), "b": jnp.float32(-0.002)}

def loss_fn(params, x):
    return 0.5 * ((params["a"] + params["b"]) * x) ** 2 + 0.1 * params["b"] ** 2

def problem():
    return slt.Problem(loss_fn, PARAMS, X)

@jax.jit
def update(params):
    loss, slope = jax.value_and_grad(lambda p: jnp.mean(loss_fn(p, X)))(params)
    return jax.tree.map(lambda w, g: w - 0.05 * g, params, slope), loss

def train(folder, last, hold):
    keeper = storage.Keeper(folder, 10**7, per_decade=4)
    found = keeper.latest(PARAMS)
    step, params = (0, PARAMS) if found is None else found
    while step <= last:
        params_after, loss = update(params)
        if keeper.offer(step, params, {"all": loss}, keep=step == last):
            print(step, flush=True)
        while step == hold:
            time.sleep(0.1)  # until it is killed
        params, step = params_after, step + 1

if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
"""
LAST = 100
SETTINGS = ["--draws", "200", "--burnin", "50", "--nbeta", "100", "--chains", "2"]


def loss_fn(params, x):
    return 0.5 * (params["w"] * x) ** 2


SUBJECT = Subject(Problem(loss_fn, {"w": jnp.float32(0.0)}, jnp.linspace(-1.0, 1.0, 16)))
PROBES = {"llc": llc_probe(nbeta=100.0, draws=50, burnin=20, chains=2)}


@pytest.fixture
def quick(monkeypatch):
    """No pictures: they take longer than all else here."""

    def page(folder):
        (folder / "report.html").touch()
        return folder / "report.html"

    monkeypatch.setattr(measuring, "write_report", page)


def at(step):
    return {"w": np.float32(1e-4 * step)}


def watch(folder, out, **settings):
    told = []
    outcome = run_watch(
        SUBJECT, folder, out, 0, PROBES, None, None, lambda *stage: told.append(stage), **{"poll": 0.05} | settings
    )
    return outcome, told


def scanned(folder, out):
    checkpoints = storage.checkpoints_in(folder, SUBJECT.problem.params)
    return run_scan(SUBJECT, checkpoints, str(folder.resolve()), out, 0, PROBES, None, None, lambda *stage: None)


def snapshot(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def steps_read(out):
    node = storage.read_readings(out)["/llc"]
    return node["step"].values[node["measured"].values.ravel()].tolist()


class Meanwhile:
    """Something that happens in a thread beside a watch; what goes wrong there is not lost."""

    def __init__(self, function):
        self.errors = []
        self.thread = threading.Thread(target=self._run, args=(function,))

    def _run(self, function):
        try:
            function()
        except BaseException as error:
            self.errors.append(error)
            raise

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.thread.join()
        assert not self.errors


def test_a_watched_training_gives_the_bits_of_a_scan_of_the_finished_folder(tmp_path):
    """Checkpoints come one by one, the folder only after the watch began, and nothing in it is touched."""
    folder, later = tmp_path / "run", {}

    def training():
        for step in (1, 2, 5, 9):
            storage.save_checkpoints(folder, {step: at(step)})
            time.sleep(0.15)
        later.update(snapshot(folder))

    with Meanwhile(training):
        outcome, told = watch(folder, tmp_path / "live", until=9, patience=60)
    assert (outcome.readings, outcome.failed) == (4, [])
    assert snapshot(folder) == later
    assert [stage for stage in told if stage[0] == "Watching"]
    scanned(folder, tmp_path / "after")
    for store in ("readings.zarr", "history.zarr"):
        live, after = (snapshot(tmp_path / out / store) for out in ("live", "after"))
        assert live == after
        # the comparison sees one bit
        name = next(name for name in live if name.endswith("/0.0") or name.endswith("/0"))
        assert live != {**after, name: after[name][:-1] + bytes([after[name][-1] ^ 1])}
    # the same again measures nothing, and one more checkpoint is one more reading
    cells = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "live" / "cells").iterdir()}
    storage.save_checkpoints(folder, {12: at(12)})
    again, _ = watch(folder, tmp_path / "live", until=12, patience=60)
    assert again.readings == 5
    assert cells.items() <= {p.name: p.stat().st_mtime_ns for p in (tmp_path / "live" / "cells").iterdir()}.items()


def test_a_checkpoint_is_read_only_when_it_is_whole(tmp_path, quick):
    """One is copied file by file, another is what Orbax is still writing; both are waited for."""
    source, folder = tmp_path / "source", tmp_path / "run"
    storage.save_checkpoints(source, {3: at(3), 7: at(7)})
    storage.save_checkpoints(folder, {1: at(1)})
    unfinished = folder / "3" / "default.orbax-checkpoint-tmp-17"
    shutil.copytree(source / "3" / "default", unfinished)
    seen = []

    def copy():
        time.sleep(0.4)
        files = [path for path in sorted((source / "7").rglob("*")) if path.is_file()]
        for path in [*files[2:], *files[:2]]:
            target = folder / "7" / path.relative_to(source / "7")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
            time.sleep(0.03)
        seen.append(sorted(int(path.stem) for path in (tmp_path / "out" / "watched").glob("[0-9]*.npz")))
        os.replace(unfinished, folder / "3" / "default")

    with Meanwhile(copy):
        outcome, _ = watch(folder, tmp_path / "out", until=7, patience=60)
    assert seen == [[1]]
    assert outcome.readings == 3
    assert outcome.failed == []
    whole = scanned(folder, tmp_path / "after")
    assert whole.readings == 3
    assert snapshot(tmp_path / "out" / "readings.zarr") == snapshot(tmp_path / "after" / "readings.zarr")


def test_checkpoints_that_are_thinned_while_they_are_watched_keep_their_readings_through_a_restart(tmp_path, quick):
    folder, out = tmp_path / "run", tmp_path / "out"
    storage.save_checkpoints(folder, {1: at(1), 2: at(2)})
    watch(folder, out, patience=0.3)
    assert steps_read(out) == [1, 2]
    shutil.rmtree(folder / "1")
    storage.save_checkpoints(folder, {4: at(4)})
    outcome, _ = watch(folder, out, patience=0.3)
    assert (steps_read(out), outcome.failed) == ([1, 2, 4], [])
    assert storage.read_history(out).steps.tolist() == [1, 2, 4]
    assert storage.read_study(out)["checkpoints removed after they were measured"] == [1]
    # also where all are gone
    shutil.move(folder, tmp_path / "moved")
    watch(folder, out, patience=0.3)
    assert steps_read(out) == [1, 2, 4]
    shutil.move(tmp_path / "moved", folder)
    # what was kept is not believed where it was cut short
    kept = out / "watched" / "1.npz"
    kept.write_bytes(kept.read_bytes()[:200])
    watch(folder, out, patience=0.3)
    assert steps_read(out) == [2, 4]


def test_a_checkpoint_written_anew_is_measured_anew(tmp_path, quick):
    folder, out = tmp_path / "run", tmp_path / "out"
    storage.save_checkpoints(folder, {1: at(1), 2: at(2)})
    before, _ = watch(folder, out, patience=0.3)
    first = storage.read_history(out).losses["all"]
    shutil.rmtree(folder / "2")
    storage.save_checkpoints(folder, {2: at(200)})
    watch(folder, out, patience=0.3)
    assert before.readings == 2
    second = storage.read_history(out).losses["all"]
    assert second[0] == first[0]
    assert second[1] > 100 * first[1]


def test_the_end_says_what_was_not_reached_and_what_never_became_whole(tmp_path, quick):
    folder = tmp_path / "run"
    storage.save_checkpoints(folder, {1: at(1)})
    (folder / "5").mkdir()
    outcome, _ = watch(folder, tmp_path / "out", until=9, patience=0.3)
    failed = dict(outcome.failed)
    assert failed["step 9"] == f"not reached: nothing changed in {folder} for 0.3 s"
    assert failed["llc at step 5, full, all"] == "checkpoint 5: is not whole, and nothing changed in it for 0.3 s."
    assert outcome.exit_code == 1
    assert steps_read(tmp_path / "out") == [1]


def test_ctrl_c_ends_a_watch_with_a_report(tmp_path):
    folder = tmp_path / "run"
    storage.save_checkpoints(folder, {1: at(1)})

    def told(stage, done, total, detail=""):
        if "waiting" in detail and done:
            raise KeyboardInterrupt

    outcome = run_watch(SUBJECT, folder, tmp_path / "out", 0, PROBES, None, None, told, until=5, poll=0.05)
    assert outcome.failed == [("step 5", "stopped before it was reached")]
    assert outcome.report.is_file()


def bad(tmp_path):
    """Wrong calls, each with what it is told."""
    folder = tmp_path / "run"
    storage.save_checkpoints(tmp_path / "other", {1: {"z": np.zeros(2)}, 2: {"z": np.zeros(2)}})
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    storage.save_checkpoints(folder, {1: at(1)})
    return {
        "nothing came": ((tmp_path / "empty", {}), "held no whole checkpoint within 0.2 s"),
        "not there yet, and never": ((tmp_path / "soon", {}), "held no whole checkpoint within 0.2 s"),
        "nowhere": ((tmp_path / "no" / "where", {}), "no does not exist; pass the folder that the training writes to"),
        "a file": ((tmp_path / "file", {}), "is a file; pass the folder"),
        "one checkpoint": ((folder / "1" / "default", {}), "is itself one checkpoint"),
        "another network": ((tmp_path / "other", {}), "another tree than params; it has no leaf 'w'.*Pass the problem"),
        "no patience": ((folder, {"patience": 0.0}), "--patience: got 0.0; it is a number of seconds above 0"),
        "a step below 0": ((folder, {"until": -1}), "--until: got -1"),
    }


def test_bad_input_is_told_in_one_line(tmp_path, quick):
    for name, ((folder, settings), message) in bad(tmp_path).items():
        with pytest.raises(ValueError, match=message):
            watch(folder, tmp_path / f"out {name}", **{"patience": 0.2} | settings)
    with pytest.raises(ValueError, match=r"--out: .* lies in .*, where the training writes"):
        watch(tmp_path / "run", tmp_path / "run" / "out")
    assert not (tmp_path / "run" / "out").exists()


def test_settings_of_a_watch_without_one_are_refused(tmp_path, capsys):
    common = ["scan", str(tmp_path), "--problem", "mine:problem", "--out", str(tmp_path / "out")]
    assert main([*common, "--until", "5"]) == 2
    assert "--until: is for --watch" in capsys.readouterr().err
    assert main(["scan", "hf:x/y", "--out", str(tmp_path / "out"), "--watch"]) == 2
    assert "--watch: hf:x/y is published already" in capsys.readouterr().err


# --- processes that are killed


def started(workplace, *command):
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=workplace,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "",
            "PYTHONPATH": f"{Path(__file__).parents[1]}",
            # what one process has compiled the next need not
            "JAX_COMPILATION_CACHE_DIR": str(workplace / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        },
    )


def scanner(workplace, folder, out, *more):
    arguments = ["scan", folder, "--problem", "mine:problem", "--out", out, *SETTINGS, *more]
    return started(workplace, "-m", "slt_jax.cli", *arguments)


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def killed(process):
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_training_and_its_scanner_both_killed_and_resumed_end_with_the_readings_of_neither(tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    folder, cells = tmp_path / "live", tmp_path / "watched" / "cells"
    watching = ("--watch", "--until", str(LAST), "--patience", "100", "--poll", "0.1")
    begin = scanner(tmp_path, "live", "watched", *watching)
    training = started(tmp_path, "mine.py", "live", str(LAST), str(LAST // 2))
    wait_for(lambda: cells.exists() and len(list(cells.glob("[0-9a-f]*.npz"))) >= 2, begin)
    killed(begin)
    killed(training)
    assert not (folder / str(LAST)).exists()
    read_before = len(list(cells.glob("[0-9a-f]*.npz")))
    resumed = started(tmp_path, "mine.py", "live", str(LAST), "-1")
    again = scanner(tmp_path, "live", "watched", *watching)
    out, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    shown, err = again.communicate(timeout=120)
    assert f"{len(list(cells.glob('[0-9a-f]*.npz')))} readings, " in shown, shown + err
    assert ", 0 missing." in shown
    # neither is killed
    quiet = started(tmp_path, "mine.py", "quiet", str(LAST), "-1")
    out, err = quiet.communicate(timeout=120)
    assert quiet.returncode == 0, err
    kept = [int(line) for line in out.split()]
    assert 2 <= read_before < len(kept)
    assert sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) == kept
    after = scanner(tmp_path, "quiet", "after")
    shown, err = after.communicate(timeout=120)
    assert f"{len(kept)} readings, " in shown, shown + err
    for store in ("readings.zarr", "history.zarr"):
        assert snapshot(tmp_path / "watched" / store) == snapshot(tmp_path / "after" / store)
    assert storage.read_readings(tmp_path / "watched")["/llc"]["step"].values.tolist() == kept
