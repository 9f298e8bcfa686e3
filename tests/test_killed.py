"""A scan whose process ends inside a reading goes on inside it, whatever ended the process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import MODULE, near

from slt_jax import storage

#: A scan in a process of its own, which keeps its chains after every stage and says so, and waits after so many.
CHILD = """
import sys, time
from slt_jax import measuring
from slt_jax.cli import main
from slt_jax.estimators import block
from slt_jax.storage import running

def page(folder):
    return folder / "report.html"

measuring.write_report = page
running.EVERY = running.SHARE = 0.0
real, save, kept = block.stages, running.save_tree, []

def stages(*given):
    print("stage", flush=True)
    return real(*given)

def slow(path, tree):
    save(path, tree)
    kept.append(path)
    if len(kept) == int(sys.argv[1]):
        print("kept", flush=True)
        time.sleep(600)

block.stages, running.save_tree = stages, slow
sys.exit(main(sys.argv[2:]))
"""
SCAN = [
    "scan",
    "one",
    "--problem",
    "mine:problem",
    "--draws",
    "100",
    "--burnin",
    "100",
    "--nbeta",
    "100",
    "--chains",
    "2",
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    (folder / "mine.py").write_text(MODULE)
    (folder / "child.py").write_text(CHILD)
    storage.save_checkpoints(folder / "one", {1: near(1)})
    return folder


def child(workplace, out, after):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "XLA_FLAGS": ""}
    command = [sys.executable, "child.py", str(after), *SCAN, "--out", out]
    return subprocess.Popen(command, cwd=workplace, env=environment, stdout=subprocess.PIPE, text=True)


def until_kept(process):
    """Stages that were run until the process said that it waits."""
    stages = 0
    for line in process.stdout:
        if line == "kept\n":
            return stages
        stages += line == "stage\n"
    raise AssertionError("the process ended before it was to wait")


def to_the_end(process):
    shown, _ = process.communicate(timeout=300)
    assert process.returncode in (0, 1)  # finished, whatever the verdict
    return shown.splitlines().count("stage")


def readings(workplace, out):
    (cell,) = (workplace / out / "cells").glob("*.npz")
    return cell.name, dict(storage.FinishedReadings(workplace / out)[cell.stem])


def test_ctrl_c_and_sigkill_inside_a_reading_lose_no_stage_of_it(workplace):
    assert to_the_end(child(workplace, "whole", 0)) == 10
    with child(workplace, "cut", 3) as first:
        assert until_kept(first) == 3
        first.send_signal(signal.SIGINT)
    assert first.returncode == 130
    with child(workplace, "cut", 4) as second:
        assert until_kept(second) == 4
        second.kill()
    assert second.returncode == -signal.SIGKILL
    assert len(list((workplace / "cut" / "running").iterdir())) == 1
    assert not list((workplace / "cut" / "cells").glob("*.npz"))
    # what a process leaves that is killed while it writes
    kept = next((workplace / "cut" / "running").iterdir())
    kept.with_name(f".{kept.stem}.0123.npz").write_bytes(b"half")
    assert to_the_end(child(workplace, "cut", 0)) == 3
    assert list((workplace / "cut" / "running").iterdir()) == []
    (name, whole), (again, cut) = readings(workplace, "whole"), readings(workplace, "cut")
    assert name == again
    assert whole.keys() == cut.keys()
    for entry in whole:
        assert whole[entry].tobytes() == cut[entry].tobytes()
