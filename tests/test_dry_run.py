"""A dry run: what a scan would take, told without taking it."""

import re
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from test_cli import MODULE, near

from slt_jax import dry_run, storage
from slt_jax.cli import main
from slt_jax.spectroscopy import Probe, hessian_probe, llc_probe, scan
from slt_jax.spectroscopy.subject import as_subject


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned")
    (folder / "planned_mine.py").write_text(MODULE)
    storage.save_checkpoints(folder / "checkpoints", {step: near(step) for step in (1, 2, 3)})
    return folder


@pytest.fixture
def at_work(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.syspath_prepend(str(workplace))
    monkeypatch.setattr(dry_run, "_SECONDS", 0.01)
    return workplace


SCAN = ["scan", "checkpoints", "--problem", "planned_mine:more", "--draws", "20", "--burnin", "20", "--nbeta", "100"]


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in str(path))


def test_it_says_what_a_scan_would_take_and_leaves_nothing(at_work, capsys):
    before = written(at_work)
    assert main([*SCAN, "--out", "out", "--chains", "2", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "3 checkpoints x 2 restrictions x 2 sublosses x 1 probes = 12 readings; 0 finished" in told
    assert "llc:      40 to 40 gradients of each of 2 chains, 2 free directions, all examples a step" in told
    assert "8 cpu devices; no mesh is set" in told
    assert "Left: " in told
    assert written(at_work) == before


def subject_of(folder):
    import planned_mine

    return as_subject(planned_mine.more()), storage.checkpoints_in(folder / "checkpoints", planned_mine.PARAMS)


def planned(folder, out=Path("nowhere"), **probes):
    subject, checkpoints = subject_of(folder)
    probes = probes or {"llc": llc_probe(nbeta=100.0, draws=20, burnin=20, chains=2, budget=120)}
    return dry_run.plan(subject, checkpoints, "checkpoints", out, 0, probes)


def test_hours_are_readings_times_gradients_times_the_cost_of_one(at_work):
    found = planned(
        at_work, llc=llc_probe(nbeta=100.0, draws=20, burnin=20, chains=2, budget=120), hessian=hessian_probe()
    )
    assert (found.readings, found.finished, found.under_way) == (24, 0, 0)
    assert found.gradients == {"llc": (40, 120)}
    # half of the twelve readings see half of the examples
    expected = found.cost["llc"].seconds * 40 * (6 + 6 / 2) / 3600
    np.testing.assert_allclose(found.hours, (expected, 3 * expected))
    assert 0 < found.cost["llc"].seconds < 0.1
    assert found.cost["llc"].arguments > 16 * 4
    assert any("what hessian will cost" in line for line in found.lines)


def cheap(key, problem, restriction, *, size):
    return {"value": np.float32(size), "std_error": np.float32(0.0), "healthy": np.bool_(True)}


def test_what_the_folder_holds_is_not_counted_again(at_work, tmp_path):
    subject, checkpoints = subject_of(at_work)
    key = jax.random.split(jax.random.key(0))[1]
    go = partial(scan, key, subject, checkpoints[:2], finished=storage.FinishedReadings(tmp_path))
    assert [cell.error for cell in go({"cheap": Probe(cheap, {"size": 1})})] == [None, None]
    (tmp_path / "running").mkdir()
    (tmp_path / "running" / ("0" * 32 + ".npz")).touch()
    before = written(tmp_path)
    found = planned(at_work, tmp_path, cheap=Probe(cheap, {"size": 1}))
    assert (found.readings, found.finished, found.under_way, found.cost) == (12, 2, 1, {})
    assert written(tmp_path) == before
    assert planned(at_work, tmp_path, cheap=Probe(cheap, {"size": 2})).finished == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--watch"], "--dry-run: .*leave out --watch"),
        (["--restrictions", "nonsense"], "nonsense"),
        (["--chains", "0"], "chains: got 0"),
        (["--batch-size", "17"], "batch_size: got 17 with 16 examples"),
    ],
)
def test_what_a_scan_would_refuse_is_refused(at_work, capsys, more, message):
    assert main([*SCAN, "--out", "out", "--dry-run", *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)


def test_a_folder_of_another_scan_is_named(at_work, tmp_path):
    storage.claim(tmp_path, {"study": "scan", "checkpoints": "elsewhere", "seed": 0})
    with pytest.raises(storage.FolderError, match=r"belongs to another study .checkpoints is 'elsewhere'"):
        planned(at_work, tmp_path)
