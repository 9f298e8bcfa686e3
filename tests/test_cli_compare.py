"""``slt-jax compare`` on folders as studies leave them."""

import json

import numpy as np
import pytest

from slt_jax import storage
from slt_jax.cli import main
from slt_jax.spectroscopy import Cell, History


def folder_at(path, seed, values=(2.0, 9.0, 4.0)):
    """A finished study whose loss falls twice, at times that the seed shifts a little, with three readings."""
    random = np.random.default_rng(seed)
    steps = np.arange(0, 1000, 5)
    times = np.array([40, 400]) * random.uniform(0.95, 1.05, 2)
    first, second = (1 / (1 + np.exp((steps - time) / (time / 20))) for time in times)
    losses = {"all": 2 * first + second, "early": first, "late": second}
    storage.claim(path, {"seed": seed})
    storage.write_history(path, History(steps, losses, {"head 1": 1 - second, "head 2": 1 - first}))
    cells = [
        Cell("llc", step, "full", "all", reading(value + 0.05 * random.normal()), None)
        for step, value in zip((0, 150, 995), values, strict=True)
    ]
    storage.write_readings(path, cells, {})
    return path


def reading(value, healthy=True):
    return {"value": np.array(value), "std_error": np.array(0.1), "healthy": np.array(healthy)}


@pytest.fixture
def folders(tmp_path):
    return [folder_at(tmp_path / str(seed), seed) for seed in range(3)]


def test_networks_that_developed_alike_agree_in_everything_and_the_numbers_are_kept(folders, tmp_path, capsys):
    out = tmp_path / "comparison.json"
    assert main(["compare", *map(str, folders), "--out", str(out), "--permutations", "199"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("3 networks: distance 0.")
    found = json.loads(out.read_text())
    assert found["names"] == ["0", "1", "2"]
    assert {row["reading"] for row in found["agreements"]} == {
        "Δ loss all",
        "Δ loss early",
        "Δ loss late",
        "Δ llc",
        "Δ head",
    }
    assert all(row["agrees"] for row in found["agreements"])
    assert found["p_value"] == 1 / 200


def test_a_network_that_developed_the_other_way_does_not_agree(folders, tmp_path, capsys):
    other = folder_at(tmp_path / "other", 9, values=(9.0, 2.0, 9.0))
    out = tmp_path / "comparison.json"
    assert main(["compare", str(folders[0]), str(other), "--out", str(out)]) == 0
    rows = {row["reading"]: row for row in json.loads(out.read_text())["agreements"]}
    assert not rows["Δ llc"]["agrees"]
    assert rows["Δ llc"]["distance"] > rows["Δ llc"]["by_chance"]
    assert "Δ llc" in capsys.readouterr().out


def test_phases_are_matched_and_kinds_are_told(folders, tmp_path, capsys):
    more = [folder_at(tmp_path / f"more {seed}", seed) for seed in (3,)]
    arguments = ["compare", *map(str, [*folders, *more]), "--by", "phases", "--kinds", "a,a,b,b"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "time" in shown
    assert "Kinds of networks differ: p = " in shown


def test_unhealthy_readings_are_no_evidence(tmp_path):
    path = folder_at(tmp_path / "one", 0)
    assert "Δ llc" in storage.read_signature(path).readings
    cells = [Cell("llc", step, "full", "all", reading(1.0, step == 0), None) for step in (0, 150)]
    storage.write_readings(path, cells, {})
    assert "Δ llc" not in storage.read_signature(path).readings


def test_what_cannot_be_compared_is_refused_with_the_reason(folders, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    storage.claim(tmp_path / "begun", {"seed": 0})
    one = str(folders[0])
    for arguments, reason in (
        ([one], "at least two networks"),
        ([one, one], "twice"),
        ([one, str(tmp_path / "nowhere")], "holds no study.json"),
        ([one, str(tmp_path / "empty")], "holds no study.json"),
        ([one, str(tmp_path / "begun")], "holds no history"),
        ([one, str(folders[1]), "--kinds", "a"], "--kinds: got 1 for 2"),
        ([one, str(folders[1]), "--stages", "2"], "stages: got 2"),
        ([one, str(folders[1]), "--permutations", "3"], "permutations: got 3"),
    ):
        assert main(["compare", *arguments]) == 2
        assert reason in capsys.readouterr().err
