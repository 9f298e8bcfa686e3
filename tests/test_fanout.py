"""A scan in plain values: what workers are told, what they refuse, and the same readings as without them."""

import json
import pkgutil
import resource
import sys
from concurrent.futures import BrokenExecutor, CancelledError, Future, ThreadPoolExecutor

import numpy as np
import pytest

from slt_jax import fanout, measuring, storage
from slt_jax.cli import main
from slt_jax.fanout import ScanRequest, WorkerError, measure_checkpoint, run_request
from slt_jax.spectroscopy import fingerprint

MODULE = """
from pathlib import Path
import jax.numpy as jnp
import slt_jax as slt

PARAMS = {"a": jnp.float32(0.0), "b": jnp.float32(0.0)}
CALLS = []

def loss_fn(params, x):
    return 0.5 * ((params["a"] + params["b"]) * x) ** 2 + 0.1 * params["b"] ** 2

def problem():
    CALLS.append(Path("data.txt").read_text())
    return slt.Problem(loss_fn, PARAMS, jnp.linspace(-1.0, 1.0, 16))
"""
PROBES = {"llc": {"nbeta": 100.0, "draws": 50, "burnin": 20, "chains": 2}}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "requested.py").write_text(MODULE)
    (folder / "data.txt").write_text("data")
    parameters = {step: {"a": np.float32(1e-4 * step), "b": np.float32(-1e-4 * step)} for step in (1, 2, 3)}
    storage.save_checkpoints(folder / "checkpoints", parameters)
    (folder / "checkpoints" / "4").mkdir()  # cut short
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A page without pictures: they take longer than all else here."""

    def page(folder):
        (folder / "report.html").write_text("page")
        return folder / "report.html"

    monkeypatch.setattr(measuring, "write_report", page)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def request_(workplace, tmp_path):
    """A scan of the workplace, asked for from anywhere."""
    return ScanRequest("checkpoints", str(tmp_path / "out"), "requested:problem", PROBES, directory=str(workplace))


def stores(out):
    return {str(path): path.read_bytes() for path in sorted(out.rglob("*.zarr/**/*")) if path.is_file()}


class Recorded:
    """An executor that notes what it is given, and answers as it is told."""

    def __init__(self, answer=None):
        self.given, self.answer, self.futures = [], answer, []

    def submit(self, function, /, *arguments):
        self.given.append((function, arguments))
        future = Future()
        self.futures.append(future)
        if self.answer is not None:
            future.set_exception(self.answer)
        return future


def given(request):
    """What the workers of a request are told."""
    executor = Recorded(CancelledError())
    with pytest.raises(WorkerError):
        run_request(request, executor)
    return [arguments for _, arguments in executor.given]


def test_threads_give_the_bits_of_no_executor_and_make_the_problem_once(request_, workplace, tmp_path):
    outcome = run_request(request_._replace(out=str(tmp_path / "serial")))
    told, module = [], sys.modules["requested"]
    before = len(module.CALLS)
    with ThreadPoolExecutor(3) as executor:
        other = run_request(request_, executor, lambda *stage: told.append(stage))
    assert len(module.CALLS) == before + 2  # here, and by the workers
    assert (outcome.readings, other.readings) == (3, 3)
    assert outcome.failed == other.failed
    assert [place for place, _ in other.failed] == ["llc at step 4, full, all"]
    one, two = (
        {name.partition("zarr")[2]: data for name, data in stores(tmp_path / at).items()} for at in ("serial", "out")
    )
    assert one == two
    assert ("Measuring", 4, 4, f"by {storage.holder()}") in told
    # what is there is not measured again
    cells = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").iterdir()}
    with ThreadPoolExecutor(1) as executor:
        run_request(request_, executor)
    assert cells == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").iterdir()}


def test_nothing_but_plain_text_and_a_function_by_name_is_sent(request_, tmp_path):
    executor = Recorded(CancelledError())
    with pytest.raises(WorkerError, match="the workers were lost"):
        run_request(request_, executor)
    assert [step for _, (_, step) in executor.given] == [1, 2, 3, 4]
    for function, (work, _) in executor.given:
        assert pkgutil.resolve_name(f"{function.__module__}:{function.__qualname__}") is measure_checkpoint
        assert isinstance(json.loads(work), dict)
    # the command line asks whether workers have it by this name
    assert pkgutil.resolve_name("slt_jax.fanout:measure_checkpoint") is measure_checkpoint
    assert all(future.done() for future in executor.futures)


def test_what_is_not_begun_is_called_back_when_one_fails(request_):
    executor = Recorded()
    submit = executor.submit

    def failing(function, /, *arguments):
        future = submit(function, *arguments)
        if arguments[1] == 2:
            future.set_exception(WorkerError("out of order"))
        return future

    executor.submit = failing
    with pytest.raises(WorkerError, match="out of order"):
        run_request(request_, executor)
    assert [future.cancelled() for future in executor.futures] == [True, False, True, True]


def test_a_pool_that_broke_is_told_in_one_sentence(request_):
    with pytest.raises(WorkerError, match=r"a worker process ended unexpectedly, .* is kept: the same command goes on"):
        run_request(request_, Recorded(BrokenExecutor("broken")))


def test_a_worker_whose_disk_is_full_ends_the_scan_as_if_it_were_here(request_, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2500, limits[1]))
    try:
        with ThreadPoolExecutor(1) as executor, pytest.raises(storage.FolderError) as told:
            run_request(request_, executor)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "a file would be larger than this process may write" in str(told.value)
    assert "the same command goes on from it" in str(told.value)
    assert {path.name for path in (tmp_path / "out").rglob("*")} == {"study.json", "cells"}
    with ThreadPoolExecutor(1) as executor:
        assert run_request(request_, executor).readings == 3


def test_a_worker_of_another_environment_measures_nothing(request_, monkeypatch, tmp_path):
    (work, step), *_ = given(request_)
    told = json.loads(work)
    with pytest.raises(WorkerError, match=r"process \d+ on .*: has jax .*, not 0\.1; start the workers again"):
        measure_checkpoint(json.dumps({**told, "jax": "0.1"}), step)
    monkeypatch.setattr(fingerprint, "of_package", lambda: "another")
    with pytest.raises(WorkerError, match="has another version of slt_jax; start the workers again"):
        measure_checkpoint(work, step)
    assert not list((tmp_path / "out").rglob("*.npz"))


def test_a_worker_that_holds_an_older_module_measures_nothing(request_, workplace, monkeypatch):
    """It imported the user's code before it was changed: its readings would not be those of the scan."""
    (work, step), *_ = given(request_)
    monkeypatch.setattr(sys.modules["requested"], "loss_fn", lambda params, x: 3 * params["a"] ** 2 * x**2)
    fanout._planned.cache_clear()
    message = r"makes another problem of requested:problem than .* \(other losses\), from .*requested.py; if that was"
    with pytest.raises(WorkerError, match=message):
        measure_checkpoint(work, step)
    fanout._planned.cache_clear()


def test_a_worker_that_does_not_see_the_files_says_which(request_, workplace):
    (work, _), *_ = given(request_)

    def moved(**places):
        told = json.loads(work)
        return json.dumps({**told, "request": {**told["request"], **places}})

    for places in ({"out": "/elsewhere/out"}, {"directory": "/elsewhere"}):
        with pytest.raises(WorkerError, match=r"does not see /elsewhere.*; workers need the same files"):
            measure_checkpoint(moved(**places), 1)
    with pytest.raises(WorkerError, match=r"process .*: checkpoints: /elsewhere is not a folder"):
        measure_checkpoint(moved(checkpoints="/elsewhere"), 1)
    with pytest.raises(WorkerError, match=r"sees no checkpoint 9 in .*checkpoints; it needs the same files"):
        measure_checkpoint(work, 9)


BAD = {
    "an unknown probe": ({"probes": {"magic": {}}}, "probes: got 'magic'"),
    "a setting that there is not": ({"probes": {"llc": {"color": 1}}}, "probes: llc: .*'color'"),
    "an array": ({"probes": {"llc": {"draws": np.int64(3)}}}, "request: .*int64.*pass plain numbers"),
    "no problem": ({"problem": None}, "problem: got none"),
    "no folder": ({"checkpoints": "nowhere"}, "nowhere is not a folder"),
    "no model": ({"checkpoints": "hf:./nowhere"}, "./nowhere: no such folder"),
    "no directory": ({"directory": "/nowhere"}, "directory: /nowhere is not a folder"),
    "an unknown restriction": ({"restrictions": ["head"]}, "restrictions: got 'head'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_request_of_which_nothing_could_come_is_refused_before_anything_is_sent(request_, tmp_path, case):
    changed, message = BAD[case]
    executor = Recorded(CancelledError())
    with pytest.raises(ValueError, match=message):
        run_request(request_._replace(**changed), executor)
    assert executor.given == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "--workers: got 0; it is a number of processes, at least 1."),
        (["--workers", "2", "--dask", "tcp://localhost:1"], "--workers: is for this machine, --dask for a cluster"),
        (["--workers", "2", "--watch"], "--workers: measures checkpoints that are there, --watch waits for them"),
        (["--dask", "tcp://localhost:1", "--watch"], "--dask: measures checkpoints that are there"),
        (["--dask", "nonsense"], "--dask: no scheduler answers at 'nonsense' (missing port number"),
        (["--workers", "2", "--text", "here"], "--text: is for hf:MODEL"),
        (["--workers", "2", "--probes", "magic"], "--probes: got 'magic'"),
    ],
)
def test_options_that_do_not_go_together_are_refused_in_one_line(workplace, tmp_path, capsys, options, message):
    if "nonsense" in options:
        pytest.importorskip("distributed")
    command = ["scan", str(workplace / "checkpoints"), "--problem", "requested:problem", "--out", str(tmp_path / "out")]
    assert main([*command, *options]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_dask_what_to_install_is_named(workplace, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    command = ["scan", str(workplace / "checkpoints"), "--problem", "requested:problem", "--out", str(tmp_path / "out")]
    assert main([*command, "--dask", "tcp://localhost:8786"]) == 2
    assert "pip install 'slt_jax[dask]'" in capsys.readouterr().err
