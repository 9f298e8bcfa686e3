"""Checkpoints dense around transitions, and a second pass that adds some where readings disagree."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slt_jax import storage
from slt_jax.problem import Problem
from slt_jax.spectroscopy import (
    History,
    Measured,
    Phases,
    Probe,
    Subject,
    choose_checkpoints,
    detect_phases,
    more_checkpoints,
)
from slt_jax.studies.study import Study, log_steps
from slt_jax.workflow import run_study

DATA = jnp.zeros(4)
#: The made-up reading jumps here, far from where the loss falls, and by less at step 2000.
JUMP = 150.0


def staircase(params, batch):
    """A loss that falls at steps 30 and 1000; the only parameter is the step."""
    at = jnp.log1p(params)
    return 3 - jax.nn.sigmoid((at - jnp.log(30.0)) / 0.1) - jax.nn.sigmoid((at - jnp.log(1000.0)) / 0.1) + batch


def read(key, problem, restriction, seen=None, **settings):
    step = float(problem.params)
    CALLS.append(step)
    numbers = {"value": 2.0 * (step > JUMP) + 0.8 * (step > 2000), "std_error": 0.05}
    return {
        **{name: np.asarray(value) for name, value in numbers.items()},
        "healthy": np.asarray(True),
        "explanation": np.asarray("made up"),
    }


CALLS: list[float] = []


def study(**changes):
    subject = Subject(Problem(staircase, jnp.float32(0.0), DATA))
    steps = np.unique(np.concatenate([log_steps(5000, 200), [5000]]))
    made = Study(
        "made-up",
        "Made up",
        "",
        subject,
        init=lambda key: jnp.float32(0.0),
        update=lambda params, step: jnp.float32(step) + 1,
        params_of=lambda state: state,
        record_at=steps,
        keep_at=log_steps(5000, 60),
        probes={"llc": Probe(read, {})},
        budget=6,
        more=2,
    )
    return made._replace(**changes)


def quiet(*_, **__):
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("second") / "out"
    CALLS.clear()
    run_study(study(), folder, 0, quiet)
    return folder, list(CALLS)


def told(folder):
    return json.loads((folder / "study.json").read_text())


def test_the_second_pass_measures_where_readings_disagree_until_its_budget_is_spent(finished):
    folder, calls = finished
    added = told(folder)["added"]
    assert len(calls) == len(set(calls)) == 6 + 2
    assert len(added) == 2
    first = sorted(set(calls) - set(map(float, added)))
    low, high = max(step for step in first if step <= JUMP), min(step for step in first if step > JUMP)
    assert all(low < step < high for step in added)
    # each halves what is left: the jump lies between two checkpoints that are neighbours among the candidates
    narrow = max(step for step in calls if step <= JUMP), min(step for step in calls if step > JUMP)
    assert np.log(narrow[1] / narrow[0]) < 0.3 * np.log(high / low)
    steps = storage.read_readings(folder)["llc"]["step"].values
    assert sorted(steps.tolist()) == steps.tolist() == sorted(calls)
    # no more is kept than may be asked for
    assert len(storage.list_checkpoints(folder / "checkpoints")) <= 6 + 3 * 6
    assert "where neighbouring readings disagreed" in (folder / "report.html").read_text()


def test_run_again_nothing_is_measured_twice(finished):
    folder, _ = finished
    before = told(folder)["added"]
    CALLS.clear()
    run_study(study(), folder, 0, quiet)
    assert CALLS == []
    assert told(folder)["added"] == before


def test_stopped_in_the_second_pass_it_ends_with_the_same_checkpoints(finished, tmp_path):
    class Stop(Exception):
        pass

    def stopping(stage, done, total, detail=""):
        if stage == "Measuring" and done == 7:
            raise Stop

    CALLS.clear()
    with pytest.raises(Stop):
        run_study(study(), tmp_path / "out", 0, stopping)
    assert len(CALLS) == 7
    run_study(study(), tmp_path / "out", 0, quiet)
    assert len(CALLS) == len(set(CALLS)) == 8
    assert told(tmp_path / "out")["added"] == told(finished[0])["added"]
    assert sorted(CALLS) == sorted(finished[1])


def test_without_a_second_pass_only_the_first_checkpoints_are_kept_and_measured(finished, tmp_path):
    CALLS.clear()
    run_study(study(more=0), tmp_path / "out", 0, quiet)
    kept = list(storage.list_checkpoints(tmp_path / "out" / "checkpoints"))
    assert sorted(CALLS) == kept
    # the first of a study that goes on are the same
    assert kept == sorted(set(map(int, finished[1])) - set(told(finished[0])["added"]))


def test_a_larger_second_pass_goes_on_from_a_smaller_one(finished, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(finished[0], folder)
    CALLS.clear()
    run_study(study(more=3), folder, 0, quiet)
    assert len(CALLS) == 1
    assert set(told(folder)["added"]) == {*told(finished[0])["added"], int(CALLS[0])}


def test_a_study_with_another_budget_is_another_and_a_negative_one_is_refused(finished, tmp_path):
    with pytest.raises(storage.FolderError, match="training is"):
        run_study(study(more=0), finished[0], 0, quiet)
    with pytest.raises(ValueError, match="more: got -1"):
        run_study(study(more=-1), tmp_path / "out", 0, quiet)


def test_every_boundary_is_in_the_account_and_in_the_report(finished):
    folder, _ = finished
    phases = told(folder)["phases"]
    assert len(phases["intervals"]) == len(phases["transitions"]) == 2
    for step, (low, high) in zip(phases["transitions"], phases["intervals"], strict=True):
        assert low <= step <= high
    assert phases["curves"]["all"]["steps"] == phases["transitions"]
    rise = told(folder)["critical_points"]["llc"][0]
    assert rise["kind"] == "fastest rise"
    assert rise["low"] <= JUMP <= rise["high"]
    page = (folder / "report.html").read_text()
    assert "Boundaries of the phases" in page
    assert "fastest rise" in page


AVAILABLE = np.unique(np.round(np.geomspace(1, 10_000, 200)).astype(int)).tolist()


def phases_at(*changes):
    at = np.log(AVAILABLE)
    curve = -np.sum([1 / (1 + np.exp(-(at - np.log(change)) / 0.05)) for change in changes], axis=0)
    return detect_phases(History(np.array(AVAILABLE), {"all": curve}, {}))


def test_checkpoints_stand_dense_around_transitions():
    phases = phases_at(100, 2000)
    chosen = np.array(choose_checkpoints(phases, AVAILABLE, 30))
    stretch = np.log(phases.ends / phases.begins).sum()
    inside = sum(
        ((chosen >= low) & (chosen <= high)).sum() for low, high in zip(phases.begins, phases.ends, strict=True)
    )
    # per unit of log step more than five times as many as elsewhere
    assert inside / stretch > 5 * (30 - inside) / (np.log(10_000) - stretch)
    even = np.array(
        choose_checkpoints(phases._replace(begins=phases.transitions, ends=phases.transitions), AVAILABLE, 30)
    )
    assert inside > sum(
        ((even >= low) & (even <= high)).sum() for low, high in zip(phases.begins, phases.ends, strict=True)
    )


def test_a_smaller_budget_chooses_some_of_a_larger_one_and_the_same_among_candidates():
    phases = phases_at(100, 2000)
    many = choose_checkpoints(phases, AVAILABLE, 24)
    for budget in (4, 9, 15):
        few = choose_checkpoints(phases, AVAILABLE, budget)
        assert set(few) <= set(many)
        assert choose_checkpoints(phases, many, budget) == few


def test_without_transitions_checkpoints_are_even_in_log_step():
    none = np.zeros(0)
    phases = Phases(none, none, none, np.array([10_000]), none, none)
    gaps = np.diff(np.log1p(choose_checkpoints(phases, AVAILABLE, 9)))
    assert gaps.max() < 2.3 * gaps.min()


def test_disagreement_counts_beyond_errors_only_and_the_largest_first():
    readings = {1: Measured(0.0, 0.1), 10: Measured(0.2, 0.1), 100: Measured(5.0, 0.1), 1000: Measured(6.0, 0.1)}
    (first,) = more_checkpoints(readings, AVAILABLE, 1)
    assert 10 < first < 100
    # halves count half: the fourth goes into the second largest gap, none between readings that agree
    steps = more_checkpoints(readings, AVAILABLE, 8)
    assert len(steps) == 8
    assert not [step for step in steps if step < 10 or step > 1000]
    assert [step for step in steps if 100 < step < 1000]
    agreeing = {step: one._replace(std_error=10.0) for step, one in readings.items()}
    assert more_checkpoints(agreeing, AVAILABLE, 8) == []


def test_verdicts_that_differ_and_readings_that_are_missing_are_gaps_too():
    steady = {step: Measured(1.0, 0.1) for step in (1, 10, 100, 1000)}
    assert more_checkpoints(steady, AVAILABLE, 3) == []
    for bad in (Measured(1.0, 0.1, healthy=False), Measured(np.nan, np.nan, healthy=False)):
        steps = more_checkpoints({**steady, 100: bad}, AVAILABLE, 2)
        assert sum(10 < step < 100 for step in steps) == sum(100 < step < 1000 for step in steps) == 1
    nothing = {step: Measured(np.nan, np.nan, False) for step in (1, 10)}
    assert more_checkpoints(nothing, AVAILABLE, 2) == []


def test_where_no_checkpoint_lies_between_nothing_is_added():
    readings = {1: Measured(0.0, 0.1), 2: Measured(9.0, 0.1)}
    assert more_checkpoints(readings, [1, 2, 3], 5) == []
    assert more_checkpoints({}, AVAILABLE, 5) == []
    with pytest.raises(ValueError, match="budget: got -1"):
        more_checkpoints(readings, AVAILABLE, -1)
    with pytest.raises(ValueError, match="standard errors must not be negative"):
        more_checkpoints({1: Measured(0.0, -0.1)}, AVAILABLE, 1)
