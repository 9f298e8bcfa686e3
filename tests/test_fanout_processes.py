"""Checkpoints measured by other processes: the bits of one process, whoever is killed, and nothing taken twice."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from slt_jax import storage

#: A user's module. Whoever imports it notes every reading that it puts into a folder, and takes its time.
MODULE = """
import os, time
import jax.numpy as jnp
import slt_jax as slt
from slt_jax import storage

X = jnp.linspace(-1.0, 1.0, 16)
PARAMS = {"a": jnp.float32(0.0), "b": jnp.float32(0.0)}

def loss_fn(params, x):
    return 0.5 * ((params["a"] + params["b"]) * x) ** 2 + 0.1 * params["b"] ** 2

def problem():
    open("data.txt").close()  # beside the module, wherever a worker was started
    restrictions = {name: slt.restriction.paths(PARAMS, name) for name in "ab"}
    return slt.Problem(loss_fn, PARAMS, X), {"restrictions": restrictions}

def put(self, mark, reading, before=storage.FinishedReadings.__setitem__):
    before(self, mark, reading)
    with open(os.path.join(os.path.dirname(__file__), "log"), "a") as log:
        log.write(f"{os.getpid()} {self._cells.parent.name} {mark[:32]}\\n")
    time.sleep(0.2)  # so that a signal comes in mid-task

storage.FinishedReadings.__setitem__ = put
"""
SETTINGS = ["--restrictions", "a,b", "--draws", "100", "--burnin", "20", "--nbeta", "100", "--chains", "2"]
STEPS, CELLS = range(1, 7), 12


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "fanned.py").write_text(MODULE)
    (folder / "data.txt").touch()
    (folder / "log").touch()
    checkpoints = {step: {"a": np.float32(1e-4 * step), "b": np.float32(-1e-4 * step)} for step in STEPS}
    storage.save_checkpoints(folder / "checkpoints", checkpoints)
    return folder


def environment(workplace):
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{Path(__file__).parents[1]}",
        # what one process has compiled the next need not
        "JAX_COMPILATION_CACHE_DIR": str(workplace / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


#: A cluster of two processes, in a process of its own: it leaves sockets behind.
CLUSTER = """
from distributed import LocalCluster

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        input()
"""


@pytest.fixture(scope="module")
def cluster(workplace, tmp_path_factory):
    """The address of a cluster whose workers were started elsewhere."""
    pytest.importorskip("distributed")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "cluster.py").write_text(CLUSTER)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(
        [sys.executable, "cluster.py"], cwd=elsewhere, env=environment(workplace), text=True, **pipes
    ) as process:
        yield process.stdout.readline().strip()
        process.communicate("\n")


def command(out, *more):
    return ["scan", "checkpoints", "--problem", "fanned:problem", "--out", out, *SETTINGS, *more]


def start(workplace, out, *more):
    return subprocess.Popen(
        [sys.executable, "-m", "slt_jax.cli", *command(out, *more)],
        cwd=workplace,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(workplace),
    )


def ended(process):
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in out + err
    return process.returncode, out, err


def log(workplace, out):
    """Who put which reading into a folder, in order."""
    lines = (line.split() for line in (workplace / "log").read_text().splitlines())
    return [(int(pid), mark) for pid, where, mark in lines if where == out]


def once(workplace, out):
    """Whether every reading was taken exactly once."""
    counts = Counter(mark for _, mark in log(workplace, out))
    return len(counts) == CELLS and set(counts.values()) == {1}


def wait_until(condition, process):
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def stores(workplace, out):
    files = (path for name in ("readings.zarr", "history.zarr") for path in sorted((workplace / out / name).rglob("*")))
    return {str(path.relative_to(workplace / out)): path.read_bytes() for path in files if path.is_file()}


@pytest.fixture(scope="module")
def serial(workplace):
    """The stores of a scan in one process."""
    _, out, err = ended(start(workplace, "serial"))
    assert f"{CELLS} readings, " in out, out + err
    assert once(workplace, "serial")
    return stores(workplace, "serial")


def test_a_cluster_of_two_processes_gives_the_bits_of_one_process(workplace, serial, cluster):
    _, out, err = ended(start(workplace, "cluster", "--dask", cluster))
    assert f"{CELLS} readings, " in out, out + err
    assert stores(workplace, "cluster") == serial
    assert once(workplace, "cluster")
    assert len({pid for pid, _ in log(workplace, "cluster")}) == 2
    # the comparison sees one bit
    name = next(name for name in serial if "value" in name and name.rpartition("/")[2].startswith("0"))
    assert serial != {**serial, name: serial[name][:-1] + bytes([serial[name][-1] ^ 1])}


def test_a_worker_killed_in_mid_task_is_replaced_and_nothing_is_taken_twice(workplace, serial, cluster):
    process = start(workplace, "bereft", "--dask", cluster)
    # one of the two readings of a checkpoint is there: the next worker goes on from it
    wait_until(lambda: log(workplace, "bereft"), process)
    os.kill(log(workplace, "bereft")[0][0], signal.SIGKILL)
    _, out, err = ended(process)
    assert f"{CELLS} readings, " in out, out + err
    assert stores(workplace, "bereft") == serial
    assert once(workplace, "bereft")


def test_a_client_killed_in_mid_run_and_started_again_ends_with_the_same_bits(workplace, serial, cluster):
    process = start(workplace, "widowed", "--dask", cluster)
    wait_until(lambda: len(log(workplace, "widowed")) >= 2, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(log(workplace, "widowed")) < CELLS
    # workers are still at what it gave them, and hold it
    _, out, err = ended(start(workplace, "widowed", "--dask", cluster))
    assert f"{CELLS} readings, " in out, out + err
    assert stores(workplace, "widowed") == serial
    assert once(workplace, "widowed")


def test_processes_of_this_machine_go_on_after_one_was_killed(workplace, serial):
    process = start(workplace, "local", "--workers", "2")
    wait_until(lambda: log(workplace, "local"), process)
    os.kill(log(workplace, "local")[0][0], signal.SIGKILL)
    code, out, err = ended(process)
    assert code == 2
    assert "a worker process ended unexpectedly" in err
    assert "the same command goes on from there" in err
    assert 1 <= len(log(workplace, "local")) < CELLS
    _, out, err = ended(start(workplace, "local", "--workers", "2"))
    assert f"{CELLS} readings, " in out, out + err
    assert stores(workplace, "local") == serial
    assert once(workplace, "local")


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "Ctrl-C"])
def test_processes_end_with_the_scan_that_started_them(workplace, serial, sent):
    out = f"ended-{sent.name}"
    process = start(workplace, out, "--workers", "2")
    wait_until(lambda: len({pid for pid, _ in log(workplace, out)}) == 2, process)
    workers = {pid for pid, _ in log(workplace, out)}
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if sent == signal.SIGINT else -sent)
    assert "Traceback" not in err
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if sent == signal.SIGKILL:
        # what is missing is taken by this process alone
        _, shown, err = ended(start(workplace, out))
        assert f"{CELLS} readings, " in shown, shown + err
        assert stores(workplace, out) == serial
        assert once(workplace, out)
