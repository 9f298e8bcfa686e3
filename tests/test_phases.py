"""Phases, checkpoints, alignment and construction, on staircases whose steps are known."""

import numpy as np
import pytest

from slt_jax.spectroscopy import (
    Alignment,
    History,
    Phases,
    align,
    choose_checkpoints,
    construct,
    detect_phases,
)

STEPS = np.unique(np.round(np.geomspace(1, 10_000, 800)).astype(int))
CHANGES = [60, 400, 3000]


def staircase(changes=CHANGES, heights=None, width=0.08, steps=STEPS, start=5.0):
    """A loss that falls at the given steps, each fall a logistic function of log step."""
    heights = np.ones(len(changes)) if heights is None else heights
    falls = [h / (1 + np.exp(-np.log(steps / c) / width)) for h, c in zip(heights, changes, strict=True)]
    return start - np.sum(falls, axis=0)


def history_of(steps=STEPS, concepts=None, **losses):
    return History(steps, losses, concepts or {})


def assert_found(phases, changes, within=0.05):
    assert len(phases.transitions) == len(changes)
    np.testing.assert_allclose(np.log(phases.transitions), np.log(changes), atol=within)


@pytest.mark.parametrize("changes", [[300], CHANGES, [20, 60, 200, 700, 2000]])
def test_the_steps_of_a_staircase_are_found_where_they_are(changes):
    phases = detect_phases(history_of(all=staircase(changes)))
    assert_found(phases, changes)
    with pytest.raises(AssertionError):
        assert_found(phases, np.multiply(changes, 1.2))


@pytest.mark.parametrize("seed", range(3))
def test_noise_of_a_thousandth_of_the_loss_moves_no_step(seed):
    noise = 1 + 1e-3 * np.random.default_rng(seed).normal(size=STEPS.shape)
    assert_found(detect_phases(history_of(all=staircase() * noise)), CHANGES, within=0.15)


def test_units_and_an_offset_of_the_loss_do_not_matter():
    plain, other = (detect_phases(history_of(all=curve)) for curve in (staircase(), 1e4 + 1e3 * staircase()))
    np.testing.assert_array_equal(plain.transitions, other.transitions)
    np.testing.assert_array_equal(plain.plateaus, other.plateaus)


def test_a_step_that_only_one_subloss_takes_is_found():
    parts = {f"part {index}": staircase([change]) for index, change in enumerate(CHANGES)}
    assert_found(detect_phases(history_of(**parts)), CHANGES)
    assert_found(detect_phases(history_of(**{"part 0": parts["part 0"]})), CHANGES[:1])


def test_a_loss_that_rises_changes_as_much_as_one_that_falls():
    assert_found(detect_phases(history_of(all=-staircase())), CHANGES)


@pytest.mark.parametrize("curve", ["constant", "zero", "rounded"])
def test_a_flat_curve_has_no_transition(curve):
    rounding = np.random.default_rng(0).integers(-2, 3, STEPS.shape)
    flat = {
        "constant": np.full(STEPS.shape, 2.3),
        "zero": np.zeros(STEPS.shape),
        # a mean over a batch in single precision: the last bit is noise
        "rounded": np.float32(2.3) + np.spacing(np.float32(2.3)) * rounding,
    }[curve]
    phases = detect_phases(history_of(all=flat))
    assert len(phases.transitions) == len(phases.begins) == len(phases.ends) == 0
    assert len(phases.plateaus) == 1
    # beside a curve that does change, the flat one says nothing
    assert_found(detect_phases(history_of(all=staircase(), flat=flat)), CHANGES)


def test_without_losses_there_is_no_transition():
    assert len(detect_phases(history_of()).transitions) == 0


def test_a_transition_lies_between_its_begin_and_its_end_and_plateaus_between_transitions():
    phases = detect_phases(history_of(all=staircase()))
    assert (phases.begins < phases.transitions).all()
    assert (phases.transitions < phases.ends).all()
    assert (phases.plateaus[:-1] < phases.begins).all()
    assert (phases.plateaus[1:] > phases.ends).all()
    assert set(np.concatenate(phases[:4])) <= set(STEPS)
    assert phases.speed.shape == phases.grid.shape
    # the width at half height of a logistic step is 3.53 of its width, smoothed with a normal of 0.07
    expected = np.hypot(3.53 * 0.08, 2.355 * 0.07)
    np.testing.assert_allclose(np.log(phases.ends / phases.begins), expected, rtol=0.1)


def test_step_zero_has_no_logarithm_and_is_left_out():
    with_zero = History(np.append(0, STEPS), {"all": np.append(99.0, staircase())}, {})
    np.testing.assert_array_equal(
        detect_phases(with_zero).transitions, detect_phases(history_of(all=staircase())).transitions
    )


LATER = STEPS[300]
BAD_HISTORIES = {
    "NaN": (history_of(all=np.where(LATER == STEPS, np.nan, staircase())), f"'all' is not finite at step {LATER};"),
    "infinite": (history_of(all=np.where(STEPS > 500, np.inf, staircase())), "is not finite"),
    "short": (History(STEPS[:19], {"all": staircase()[:19]}, {}), "has 19 recorded steps; phases need at least 20"),
    "empty": (History(np.array([], int), {"all": np.array([])}, {}), "has 0 recorded steps"),
    "backwards": (History(STEPS[::-1], {"all": staircase()}, {}), "steps do not increase"),
    "repeated": (
        History(np.sort(np.append(STEPS, LATER)), {"all": np.append(staircase(), 1)}, {}),
        "do not increase",
    ),
    "of another length": (History(STEPS, {"all": staircase()[:-1]}, {}), "loss 'all' has shape"),
    "negative": (History(np.arange(-30, 0), {"all": np.arange(30.0)}, {}), "steps begin at -30"),
}


@pytest.mark.parametrize("case", BAD_HISTORIES)
def test_a_history_that_has_no_phases_is_refused_in_words(case):
    history, message = BAD_HISTORIES[case]
    with pytest.raises(ValueError, match=f"history: .*{message}"):
        detect_phases(history)


def test_twenty_recorded_steps_are_enough():
    steps = np.arange(1, 21)
    assert_found(detect_phases(history_of(steps, all=staircase([7], width=0.03, steps=steps))), [7], within=0.08)


AVAILABLE = [0, 1, 3, 10, 30, 60, 100, 160, 400, 900, 1500, 3000, 5000, 10_000]


def test_checkpoints_are_the_plateaus_first_then_the_transitions():
    phases = detect_phases(history_of(all=staircase()))
    at_plateaus = choose_checkpoints(phases, AVAILABLE, budget=4)
    assert len(at_plateaus) == 4
    for plateau, chosen in zip(phases.plateaus, at_plateaus, strict=True):
        distances = np.abs(np.log1p(AVAILABLE) - np.log1p(plateau))
        assert chosen == AVAILABLE[int(distances.argmin())]
    assert set(choose_checkpoints(phases, AVAILABLE, budget=7)) == set(at_plateaus) | set(CHANGES)


@pytest.mark.parametrize("budget", [1, 4, 7, 10, 14, 99])
def test_checkpoints_increase_exist_and_keep_to_the_budget(budget):
    phases = detect_phases(history_of(all=staircase()))
    chosen = choose_checkpoints(phases, AVAILABLE[::-1], budget)
    assert chosen == sorted(set(chosen) & set(AVAILABLE))
    assert len(chosen) == min(max(budget, 4), len(AVAILABLE))
    assert set(chosen) >= set(choose_checkpoints(phases, AVAILABLE, 1))


def test_there_is_nothing_to_choose_among_no_checkpoints():
    phases = detect_phases(history_of(all=staircase()))
    with pytest.raises(ValueError, match="available: got no checkpoint"):
        choose_checkpoints(phases, [])
    with pytest.raises(ValueError, match="budget: got 0"):
        choose_checkpoints(phases, AVAILABLE, budget=0)


def acquired_at(step, steps=STEPS):
    return np.where(steps >= step, 1.0, 0.0)


def aligned(**concepts):
    history = history_of(concepts=concepts, all=staircase())
    phases = detect_phases(history)
    return history, phases, align(history, phases)


def test_concepts_are_listed_in_the_order_of_their_acquisition_with_phase_and_lag():
    _, phases, alignment = aligned(third=acquired_at(3300), first=acquired_at(60), second=acquired_at(390))
    assert alignment.order == ["first", "second", "third"]
    assert [row.phase for row in alignment.acquisitions] == [1, 2, 3]
    for row, transition in zip(alignment.acquisitions, phases.transitions, strict=True):
        assert row.lag == pytest.approx(np.log(row.step / transition))
    assert alignment.acquisitions[1].lag < 0 < alignment.acquisitions[2].lag


def test_a_concept_is_acquired_when_it_stays():
    flicker = np.where((STEPS > 100) & (STEPS < 200) | (STEPS > 1000), 1.0, 0.0)
    _, _, alignment = aligned(flicker=flicker)
    assert alignment.acquisitions[0].step == STEPS[STEPS > 1000][0]
    assert alignment.acquisitions[0].phase == 2


def test_concepts_without_a_step_are_kept_and_say_why():
    _, _, alignment = aligned(never=acquired_at(np.inf), innate=acquired_at(0), learned=acquired_at(70))
    assert [(row.concept, row.status) for row in alignment.acquisitions] == [
        ("learned", "acquired"),
        ("innate", "before the first record"),
        ("never", "not acquired"),
    ]
    assert alignment.order == ["learned"]
    assert [row.step for row in alignment.acquisitions[1:]] == [None, None]


def test_a_concept_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match=r"concept 'broken' is not finite at step 1\."):
        aligned(broken=np.where(STEPS == 1, np.nan, 0.0))


def test_without_transitions_every_concept_belongs_to_the_initial_state():
    history = history_of(concepts={"c": acquired_at(50)}, all=np.ones(STEPS.shape))
    row = align(history, detect_phases(history)).acquisitions[0]
    assert (row.phase, row.lag, row.status) == (0, None, "acquired")


def test_a_construction_says_what_every_phase_brought():
    history, phases, alignment = aligned(one=acquired_at(60), three=acquired_at(3000))
    plateaus = phases.plateaus.tolist()
    readings = {step: (10.0 * index, 0.3 + 0.1 * index) for index, step in enumerate(plateaus)}
    construction = construct(history, phases, alignment, readings)
    assert [record.phase for record in construction.phases] == [0, 1, 2, 3]
    assert [record.concepts for record in construction.phases] == [[], ["one"], [], ["three"]]
    assert [record.reading for record in construction.phases] == list(readings.values())
    first, second = construction.phases[:2]
    assert (first.transition, first.interval, first.loss_changes, first.reading_change) == (None, None, {}, None)
    assert second.interval == (phases.begins[0], phases.ends[0])
    assert second.reading_change == pytest.approx((10.0, 0.5))
    # the falls of the loss are those of the staircase, of height 1
    assert [record.loss_changes["all"] for record in construction.phases[1:]] == pytest.approx([-1, -1, -1], abs=0.02)
    assert construction.describe().count("\n") == 3
    last = construction.describe().splitlines()[-1]
    for part in ("learned three; learning coefficient 30.00 ± 0.60", "+10.00 ± 0.78 since"):
        assert part in last


def test_a_reading_counts_for_the_phase_it_was_taken_in_only():
    history, phases, alignment = aligned()
    edge = int(phases.transitions[0])
    records = construct(history, phases, alignment, {edge - 1: (1.0, 0.1), 9000: (np.nan, 0.1)}).phases
    assert [record.reading for record in records] == [(1.0, 0.1), None, None, None]
    assert [record.reading_change for record in records] == [None] * 4
    assert "no reading" in construct(history, phases, alignment, {}).describe()


def test_a_construction_without_transitions_is_the_initial_state():
    none = np.zeros(0)
    phases = Phases(none, none, none, np.array([STEPS[10]]), none, none)
    construction = construct(history_of(all=staircase()), phases, Alignment([]), {})
    assert [record["phase"] for record in construction.to_json()] == [0]
    assert construction.describe().startswith("Initial state")
