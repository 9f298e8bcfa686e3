"""Two processes are one scan: the same readings, by one writer, and all that is finished outlives any of them."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from slt_jax import storage
from slt_jax.cli import main

MODULE = """
import jax
import jax.numpy as jnp
import slt_jax as slt

base = slt.truths.deep_linear_problem(jax.random.key(0), (4, 3, 4), 2, examples=2000)


def slow_loss(params, batch):
    matrix = jnp.full((400, 400), 1 / 400)
    start = jnp.full((400, 400), params[0].ravel()[0])
    turned = jax.lax.fori_loop(0, 20, lambda _, x: jnp.tanh(x @ matrix), start)
    return base.loss_fn(params, batch) + 0 * jnp.mean(turned)


def problem():
    return base


def slow():
    return slt.Problem(slow_loss, base.params, base.data)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the user's module and two checkpoints."""
    folder = tmp_path_factory.mktemp("hosts")
    (folder / "mine_of_hosts.py").write_text(MODULE)
    code = (
        "import numpy as np, jax, mine_of_hosts\nfrom pathlib import Path\n"
        "from slt_jax.storage.checkpoints import save_checkpoints\n"
        "params = jax.tree.map(np.asarray, mine_of_hosts.problem().params)\n"
        "save_checkpoints(Path('checkpoints'), {1: params, 10: params})\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment(), check=True)
    return folder


def environment():
    root = str(Path(__file__).parents[1])
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return {**kept, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"}


def begin(place, out, problem, *more):
    """A scan in a process of its own."""
    command = [sys.executable, "-m", "slt_jax.cli", "scan", "checkpoints", "--problem", f"mine_of_hosts:{problem}"]
    command += ["--out", out, "--draws", "100", "--burnin", "100", *more]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=place, env=environment(), **pipe)


def together(place, out, problem="problem"):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        where = f"localhost:{free.getsockname()[1]}"
    shared = ("--distributed", "--coordinator", where, "--processes", "2")
    return [begin(place, out, problem, *shared, "--process", str(number)) for number in range(2)]


def end(processes):
    said = [process.communicate(timeout=300)[0] for process in processes]
    return [process.returncode for process in processes], said


def readings(folder):
    with xr.open_datatree(folder / "readings.zarr", engine="zarr") as tree:
        return {name: np.asarray(values) for name, values in tree["llc"].data_vars.items()}


@pytest.fixture(scope="module")
def alone(place):
    codes, _ = end([begin(place, "alone", "problem")])
    assert codes[0] in (0, 1)
    return readings(place / "alone")


def test_two_processes_take_the_readings_of_one_to_the_last_bit(place, alone):
    codes, said = end(together(place, "both"))
    assert codes[0] in (0, 1)
    assert codes[1] == 0
    assert "2 readings" in said[0]
    assert "readings," not in said[1], "the second one writes and tells nothing"
    # no reading was left to the first process alone
    assert "all processes together could not" not in said[0]
    found = readings(place / "both")
    for name in ("value", "std_error", "per_chain", "healthy"):
        np.testing.assert_array_equal(found[name], alone[name], err_msg=name)
    # the control: another key gives other numbers
    codes, _ = end([begin(place, "other", "problem", "--seed", "1")])
    assert not np.array_equal(readings(place / "other")["value"], alone["value"])


def test_when_one_is_killed_all_end_and_what_is_finished_is_kept(place, alone):
    first, second = together(place, "killed")
    cells = place / "killed" / "cells"
    deadline = time.monotonic() + 240
    while not (finished := list(cells.glob("[0-9a-f]*.npz")) if cells.exists() else []):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.05)
    second.send_signal(signal.SIGKILL)
    codes, said = end([first, second])
    kept = {path.name: path.read_bytes() for path in finished}
    # it may have been through, with nothing left to do together
    assert codes[0] != 0 or len(list(cells.glob("[0-9a-f]*.npz"))) == 2
    assert "If one of them dies all end" in said[0]
    codes, _ = end(together(place, "killed"))
    assert codes[0] in (0, 1)
    assert all((cells / name).read_bytes() == content for name, content in kept.items())
    found = readings(place / "killed")
    np.testing.assert_array_equal(found["value"], alone["value"])


def test_a_process_that_is_killed_inside_a_reading_takes_the_other_with_it(place):
    first, second = together(place, "inside", "slow")
    said = []
    for line in first.stdout:
        said.append(line)
        if "Measuring" in line:
            break
    time.sleep(5)
    second.send_signal(signal.SIGKILL)
    rest, _ = first.communicate(timeout=120)
    second.communicate()
    assert first.returncode not in (0, 1)
    assert "Terminating process because" in rest or "lost the others" in rest
    assert list(storage.FinishedReadings(place / "inside")) == [], "nothing that was not finished counts as finished"
    assert not (place / "inside" / "readings.zarr").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--processes", "2"], "--processes: is for --distributed"),
        (["--distributed", "--watch"], "--distributed: measures in all processes at once; leave out --watch"),
        (["--distributed", "--workers", "2"], "leave out --workers"),
        (["--distributed", "--dry-run"], "leave out --dry-run"),
        (["--distributed", "--processes", "2"], "--coordinator, --process: got none"),
    ],
)
def test_what_does_not_go_together_is_refused(options, said, tmp_path, capsys):
    out = tmp_path / "out"
    code = main(["scan", str(tmp_path), "--problem", "nothing:here", "--out", str(out), *options])
    assert code == 2
    assert said in capsys.readouterr().err
    assert not out.exists()
