"""Planted transitions in noise: they are found, their intervals hold them, and noise and trends make none."""

import sys
from pathlib import Path

import numpy as np
import pytest

from slt_jax.spectroscopy import History, Phases, cusps, detect_phases, over_temperatures
from slt_jax.spectroscopy.change_points import change_points, penalty_of
from slt_jax.spectroscopy.critical import critical_points
from slt_jax.spectroscopy.slopes import cells_of, noise_of, noise_slopes, slopes

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from phases import RANGE, Score, held, noise, planted

STEPS = np.unique(np.round(np.geomspace(1, 10_000, 600)).astype(int))
AT = np.log(STEPS)


def stairs(changes, width=0.1):
    return 5 - np.sum([1 / (1 + np.exp(-(AT - np.log(change)) / width)) for change in changes], axis=0)


def score(shift=0.0, histories=30):
    """Score and coverage of planted histories; a shift moves the truth."""
    total, inside = Score(), []
    for seed in range(1000, 1000 + histories):
        history, places, _ = planted(seed)
        phases = FOUND.setdefault(seed, detect_phases(history) if seed not in FOUND else None)
        tolerance = RANGE * float(np.log(history.steps[-1] / history.steps[0]))
        total = total.add(places + shift, np.log(phases.transitions), tolerance)
        inside += held(places + shift, phases.transitions, phases.intervals, tolerance)
    return total.shares(), float(np.mean(inside))


FOUND: dict = {}


def test_planted_transitions_are_found_and_their_intervals_hold_them():
    shares, coverage = score()
    # about 45 of them: two binomial deviations below .95 and .925
    assert shares["recall"] >= 0.88
    assert shares["precision"] >= 0.93
    assert coverage >= 0.84
    # elsewhere there is nothing, and intervals that held anything would hold this too
    shares, _ = score(shift=0.9)
    assert max(shares.values()) < 0.2
    assert score(shift=0.1)[1] < 0.2


def test_noise_and_trends_make_no_transition():
    histories = [planted(20_000 + seed, transitions=False).history for seed in range(25)]
    assert sum(len(detect_phases(history).transitions) > 0 for history in histories) <= 3
    # the same noise hides no transition that is there
    history = histories[0]
    step = 2 / (1 + np.exp(-(np.log(history.steps) - np.log(history.steps[-1]) + 2) / 0.1))
    losses = {name: curve - step for name, curve in history.losses.items()}
    assert len(detect_phases(history._replace(losses=losses)).transitions) == 1


def test_a_trend_without_noise_is_no_transition():
    for trend in (AT, np.exp(-0.3 * AT), AT**2, STEPS.astype(float)):
        assert not len(detect_phases(History(STEPS, {"all": trend}, {})).transitions)
        found = detect_phases(History(STEPS, {"all": 3 * stairs([300]) - trend / np.ptp(trend)}, {})).transitions
        np.testing.assert_allclose(np.log(found), [np.log(300)], atol=0.1)


def test_the_same_seed_gives_the_same_bits_and_another_moves_no_boundary_by_more_than_its_interval():
    history, _, _ = planted(3)
    first, again, other = detect_phases(history), detect_phases(history), detect_phases(history, seed=1)
    for one, two in zip(first[:6], again[:6], strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(first.intervals, again.intervals)
    np.testing.assert_array_equal(first.transitions, other.transitions)
    assert not np.array_equal(first.intervals, other.intervals)
    widths = np.diff(np.log(first.intervals), axis=1)
    assert (np.abs(np.log(other.intervals / first.intervals)) < widths).all()


def test_each_curve_has_the_transitions_that_it_takes_itself():
    random = np.random.default_rng(0)
    shaken = 0.02 * noise(random, len(STEPS), 2, 0.5, 0.0)
    losses = {"early": stairs([60]) + shaken[:, 0], "both": stairs([60, 1500]) + shaken[:, 1], "none": 0 * AT}
    phases = detect_phases(History(STEPS, losses, {}))
    assert list(phases.curves) == ["early", "both"]
    assert [len(one.steps) for one in phases.curves.values()] == [1, 2]
    np.testing.assert_allclose(np.log(phases.curves["both"].steps), np.log([60, 1500]), atol=0.1)
    for one in (*phases.curves.values(), phases):
        steps = one.transitions if isinstance(one, Phases) else one.steps
        assert (one.intervals[:, 0] <= steps).all()
        assert (steps <= one.intervals[:, 1]).all()


def test_noise_is_told_from_the_curves_that_it_is_in():
    random = np.random.default_rng(0)
    for memory, shared in ((0.0, 0.0), (0.5, 0.5), (0.9, 0.5)):
        curves = np.stack([stairs([60, 1500]), 2 * stairs([300])], axis=1)
        found = noise_of(AT, curves + np.array([0.03, 0.1]) * noise(random, len(AT), 2, memory, shared))
        assert abs(found.autocorrelation - memory) < 0.12
        # where it remembers long, its size is hard to tell from a drift; what is new in each record is not
        shocks = found.deviation * np.sqrt(1 - found.autocorrelation**2)
        np.testing.assert_allclose(shocks, np.array([0.03, 0.1]) * np.sqrt(1 - memory**2), rtol=0.2)
        assert abs(found.correlation[0, 1] - shared) < 0.15


def test_slopes_are_those_of_the_curve_and_keep_a_straight_line_straight():
    cells = cells_of(STEPS)
    np.testing.assert_allclose(slopes(cells, 3 * AT[:, None]), 3.0, rtol=1e-3)
    bell = slopes(cells, stairs([300])[:, None])[:, 0]
    assert abs(cells.centers[bell.argmin()] - np.log(300)) < 2 * cells.spacing
    np.testing.assert_allclose(bell.sum() * cells.spacing, -1, rtol=0.01)


def test_the_penalty_lets_noise_show_a_change_in_5_percent_of_histories_and_half_of_it_in_many():
    cells, random = cells_of(STEPS), np.random.default_rng(1)
    alike = noise_of(AT, noise(random, len(AT), 1, 0.9, 0.0))
    kept = np.arange(2, 600, 5)
    alone = noise_slopes(alike, cells, 300, random)[kept]
    alone /= np.sqrt((alone**2).mean(axis=1, keepdims=True))
    penalty = penalty_of(alone[:, :200])

    def changed(penalty):
        return sum(len(change_points(alone[:, draw], penalty)) > 0 for draw in range(200, 300))

    assert changed(penalty) <= 5 + 3 * 2.2
    assert changed(penalty / 2) > 30
    places = kept[change_points(alone[:, 0] + 6 * (kept > 300)[:, None], penalty)]
    assert np.abs(places - 300).min() <= 5


def test_a_transition_between_few_records_is_held_by_its_neighbours():
    steps = np.arange(1, 21)
    phases = detect_phases(History(steps, {"all": np.where(steps > 7, 1.0, 2.0)}, {}))
    assert phases.intervals.shape == (len(phases.transitions), 2)
    assert len(phases.transitions) == 1
    assert phases.intervals[0, 0] <= 7.5 <= phases.intervals[0, 1] + 0.5


TAKEN = np.round(np.geomspace(10, 10_000, 12))


def readings(rise=3, fall=8, height=2.0, drop=1.0):
    index = np.arange(len(TAKEN))
    return height * (index > rise) - drop * (index > fall)


def test_readings_turn_where_they_do_and_flat_ones_nowhere():
    random = np.random.default_rng(0)
    found = critical_points(TAKEN, readings() + 0.05 * random.normal(size=12), 0.05)
    by_kind = {point.kind: point for point in found}
    for kind, gap in (("fastest rise", 3), ("fastest fall", 8)):
        point = by_kind[kind]
        assert TAKEN[gap] - 1e-6 <= point.low <= TAKEN[gap]
        assert TAKEN[gap + 1] <= point.high + 1e-6 <= TAKEN[gap + 1] + 1e-3
        assert point.support > 0.99
    assert by_kind["maximum"].low >= TAKEN[3] - 1e-6
    assert by_kind["maximum"].high <= TAKEN[9] + 1e-6
    assert "minimum" not in by_kind
    # errors ten times as large, and nothing stands out
    assert not critical_points(TAKEN, readings(), 2.0)
    assert not critical_points(TAKEN, np.zeros(12), 0.05)


def test_the_spread_over_temperatures_widens_the_interval():
    rows = np.stack([readings(rise=3), readings(rise=4), readings(rise=5)])
    alike = critical_points(TAKEN, np.stack([rows[0]] * 3), 0.05)
    moved = critical_points(TAKEN, rows, 0.05)
    rise, moving = (next(point for point in one if point.kind == "fastest rise") for one in (alike, moved))
    assert rise.spread == 0
    expected = np.std([np.log(np.sqrt((1 + TAKEN[i]) * (1 + TAKEN[i + 1]))) for i in (3, 4, 5)], ddof=1)
    np.testing.assert_allclose(moving.spread, expected, rtol=1e-6)
    assert moving.low < rise.low
    assert moving.high > rise.high


def test_phases_take_the_spread_of_their_boundaries_over_temperatures():
    change = float(np.sqrt(TAKEN[4] * TAKEN[5]))
    phases = detect_phases(History(STEPS, {"all": stairs([change])}, {}))
    alike = over_temperatures(phases, TAKEN, np.stack([readings(rise=4, drop=0.0)] * 2), 0.01)
    moved = over_temperatures(phases, TAKEN, np.stack([readings(rise=3, drop=0.0), readings(rise=5, drop=0.0)]), 0.01)
    blind = over_temperatures(phases, TAKEN, np.zeros((2, 12)), 0.01)
    assert phases.spread.shape == (0,)
    np.testing.assert_allclose(alike.intervals, phases.intervals)
    assert alike.spread[0] == 0
    assert np.isnan(blind.spread).all()
    np.testing.assert_array_equal(blind.intervals, phases.intervals)
    # two gaps apart, each .628 wide
    np.testing.assert_allclose(moved.spread, [2 * 0.628 / np.sqrt(2)], rtol=0.02)
    assert moved.intervals[0, 0] < change * np.exp(-1.9 * moved.spread[0])
    assert moved.intervals[0, 1] > change * np.exp(1.9 * moved.spread[0])
    with pytest.raises(ValueError, match="N = 2 or more inverse temperatures"):
        over_temperatures(phases, TAKEN, np.zeros((1, 12)), 0.01)


def corner(place):
    first, second = (1 / (1 + np.exp(-(AT - np.log(place) - shift) / 0.15)) for shift in (-0.8, 0.8))
    return np.stack([first, second, 0 * AT], axis=1)


def test_a_path_with_a_corner_has_one_cusp_and_an_arc_has_none():
    shaken = 0.01 * noise(np.random.default_rng(0), len(AT), 3, 0.5, 0.0)
    (found,) = cusps(STEPS, corner(200) + shaken)
    assert found.low <= 200 <= found.high
    assert 60 <= found.turn <= 120
    turned = corner(200) @ np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    (other,) = cusps(STEPS, turned)
    assert abs(np.log(other.step / 200)) < 0.2
    # without noise the path all but rests in its corner
    assert other.slowness < 0.1
    angle = np.pi * (AT - AT[0]) / np.ptp(AT)
    assert not cusps(STEPS, np.stack([np.cos(angle), np.sin(angle)], axis=1))
    back = np.stack([np.abs(AT - np.log(200)), 0.01 * AT], axis=1)
    assert cusps(STEPS, back)[0].turn > 140


WRONG = {
    "one component": (lambda: cusps(STEPS, AT[:, None]), r"scores: got shape \(\d+, 1\)"),
    "a path with NaN": (lambda: cusps(STEPS, np.full((len(AT), 2), np.nan)), "scores: not finite at step 1"),
    "a path backwards": (lambda: cusps(STEPS[::-1], corner(200)), "steps: they do not increase"),
    "a short path": (lambda: cusps(STEPS[:10], corner(200)[:10]), "steps: got 10 after step 0"),
    "a wide radius": (lambda: cusps(STEPS, corner(200), radius=0.7), "radius: got 0.7"),
    "three readings": (lambda: critical_points([1, 2, 3], [0, 1, 2], 0.1), "at least 4"),
    "readings backwards": (lambda: critical_points(TAKEN[::-1], readings(), 0.1), "increasing"),
    "a reading that is NaN": (lambda: critical_points(TAKEN, readings() * np.nan, 0.1), "values: got shape"),
    "readings of other steps": (lambda: critical_points(TAKEN, readings()[:-1], 0.1), "for 12 steps"),
    "a negative error": (lambda: critical_points(TAKEN, readings(), -0.1), "errors: one is"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_has_no_boundaries_is_refused_in_words(case):
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call()
