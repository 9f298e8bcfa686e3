"""Alignment against chance: p-values that are uniform where nothing is planted, and pairs found where something is."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import kendalltau, kstest

from slt_jax.spectroscopy import (
    History,
    Phases,
    Series,
    align,
    detect_phases,
    events_of_curve,
    events_of_series,
    order_agreement,
    shift_test,
    shuffled,
    stretch_of,
    surrogate,
)
from slt_jax.spectroscopy.controls import noise_transitions

STEPS = np.unique(np.round(np.geomspace(1, 10_000, 600)).astype(int))
LOGS = np.log(STEPS)
ALL = (0.0, float(LOGS[-1]))
#: To which phase a concept belongs is not looked at here.
NONE = Phases(*(np.zeros(0) for _ in range(3)), np.array([1]), np.zeros(0), np.zeros(0))


def rise(times, width=0.04):
    return np.sum([expit((LOGS - time) / width) for time in times], axis=0) + np.zeros(len(LOGS))


def reading(times, random, checkpoints=18, error=0.05):
    """At checkpoints that are even in log step."""
    at = np.unique(np.linspace(0, len(STEPS) - 1, checkpoints).astype(int))
    return Series(STEPS[at], 3 * rise(times)[at] + error * random.normal(size=len(at)), np.full(len(at), error))


def history_of(losses, concepts):
    return History(STEPS, {n: 5 - rise(t) for n, t in losses.items()}, {n: rise([t]) for n, t in concepts.items()})


# --- the null


def independent(random, low, high):
    return random.uniform(low, high, 6), random.uniform(low, high, random.integers(1, 4))


def test_where_events_have_nothing_to_do_with_one_another_p_values_are_uniform():
    random = np.random.default_rng(0)
    single, together = [], []
    for _ in range(500):
        events, transitions = independent(random, *ALL)
        one, all_of_them = shift_test(events, np.zeros(6), transitions, ALL)
        single.append(one[0])
        together.append(all_of_them)
    assert kstest(single, "uniform").pvalue > 0.01
    assert kstest(together, "uniform").pvalue > 0.01


def test_p_values_are_not_uniform_where_the_stretch_claims_more_than_happened():
    random = np.random.default_rng(1)
    claimed, estimated = [], []
    for _ in range(400):
        events, transitions = independent(random, 3.0, 6.0)
        claimed.append(shift_test(events, np.zeros(6), transitions, ALL)[0][0])
        stretch = stretch_of([*events, *transitions], *ALL)
        estimated.append(shift_test(events, np.zeros(6), transitions, stretch)[0][0])
    assert kstest(claimed, "uniform").pvalue < 1e-6
    assert np.mean(np.array(claimed) <= 0.05) > 0.09
    # three binomial errors of 400 draws
    assert np.mean(np.array(estimated) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_events_that_come_together_are_one_accident_not_six():
    events = 4.0 + 0.001 * np.arange(6)
    single, together = shift_test(events, np.zeros(6), [4.1, 7.0], ALL)
    assert np.prod(single) < 1e-6
    assert together > 0.02
    # six events each at a transition of their own are more than an accident
    apart = np.array([1.0, 2.0, 4.5, 5.0, 7.0, 8.7])
    assert shift_test(apart + 0.02, np.zeros(6), apart, ALL)[1] < 0.01


def test_no_event_is_nearer_than_it_is_known():
    exactly, roughly = (shift_test([3.0], [known], [3.0], ALL)[0][0] for known in (0.0, 1.0))
    assert exactly == pytest.approx(1 / 4096)
    assert roughly == pytest.approx(1.0 / ALL[1], rel=0.01)


# --- align


@pytest.fixture(scope="module")
def planted():
    random = np.random.default_rng(2)
    losses = {"early": [4.0], "middle": [6.0], "both": [5.0, 8.0], "flat": []}
    concepts = {"a": 4.005, "b": 6.005, "c": 8.005, "d": 8.6, "never": 99.0}
    history = history_of({n: t for n, t in losses.items() if t}, concepts)
    history.losses["flat"] = np.ones(len(STEPS))
    history.concepts["innate"] = np.ones(len(STEPS))
    readings = {
        "llc, early": reading([2.0], random),
        "llc, middle": reading([4.0], random),
        "noise": reading([], random),
    }
    order = (("a",), ("b", "c"), ("d",), ("never",))
    return align(history, NONE, readings=readings, expected_order=order, belongs={"a": "early", "b": "middle"})


def test_what_was_planted_is_found_and_nothing_else(planted):
    found = {(pair.source, pair.concept) for pair in planted.found}
    assert {("early", "a"), ("middle", "b"), ("both", "c")} <= found
    near = {(pair.source, pair.concept) for pair in planted.pairs if pair.lag is not None and abs(pair.lag) < 0.3}
    assert found <= near


def test_every_source_is_kept_with_every_concept_and_says_why_it_was_not_tested(planted):
    assert len(planted.pairs) == 7 * 6
    reasons = {(pair.source, pair.concept): pair.reason for pair in planted.pairs}
    assert reasons["early", "never"] == "not acquired"
    assert reasons["early", "innate"] == "before the first record"
    assert reasons["flat", "a"] == "the source has no transition"
    assert reasons["noise", "b"] == "the source has no transition"
    assert reasons["early", "a"] == ""
    tested = [pair for pair in planted.pairs if np.isfinite(pair.p)]
    assert all((pair.reason == "") == np.isfinite(pair.q) for pair in planted.pairs)
    assert all(pair.q >= pair.p for pair in tested)
    by_source = {source.source: source for source in planted.sources}
    assert [by_source[name].kind for name in ("flat", "noise")] == ["loss", "reading"]
    assert by_source["flat"].reason == "no transition"


def test_lead_and_lag_are_told_from_within():
    history = history_of({"loss": [3.0, 7.0]}, {"before": 2.5, "at": 3.0, "after": 7.6})
    relations = {pair.concept: (pair.relation, round(pair.lag, 1)) for pair in align(history, NONE).pairs}
    assert relations == {"before": ("leads", -0.5), "at": ("within", 0.0), "after": ("follows", 0.6)}


def test_the_negative_controls_are_always_there_and_find_nothing(planted):
    assert [control.kind for control in planted.controls] == ["random probe", "shuffled concepts"]
    for control in planted.controls:
        assert control.draws == 20
        assert control.pairs > 0
        assert control.draws_with_findings <= 4
        assert control.below < 0.15
    history = history_of({"loss": [3.0]}, {"a": 3.0})
    with pytest.raises(ValueError, match="controls: got 0; they are always run"):
        align(history, NONE, controls=0)


def test_shuffled_concepts_lose_what_the_concepts_have(planted):
    shares = {control.kind: control.found / max(control.draws, 1) for control in planted.controls}
    assert len(planted.found) >= 3
    assert max(shares.values()) < 0.5


def test_the_stricter_adjustment_finds_no_more():
    history = history_of({"one": [3.0], "two": [5.0]}, {"a": 3.01, "b": 5.02, "c": 7.0})
    found = [{(p.source, p.concept) for p in align(history, NONE, method=method).found} for method in ("bh", "by")]
    assert found[1] <= found[0]
    assert ("one", "a") in found[0]


def test_where_everything_happened_at_once_there_is_no_test():
    alignment = align(history_of({"loss": [5.0]}, {"a": 5.0, "b": 5.01}), NONE)
    assert alignment.stretch is None
    assert alignment.found == [] == alignment.controls
    assert {pair.reason for pair in alignment.pairs} == {"everything happened at once"}
    # who knows that it could have happened elsewhere may say so
    assert len(align(history_of({"loss": [5.0]}, {"a": 5.0}), NONE, between=(1, 10_000)).found) == 1


# --- controls


def test_a_random_probe_has_the_spectrum_of_the_reading_and_another_shape():
    even = np.exp(np.linspace(0, 9, 577))
    curve = np.sin(np.linspace(0, 25, 577)) + np.linspace(0, 4, 577)
    noise = surrogate(np.random.default_rng(0), even, curve)
    theirs, own = (np.abs(np.fft.rfft(np.diff(values))) for values in (noise, curve))
    np.testing.assert_allclose(theirs, own, atol=1e-6)
    assert abs(np.corrcoef(np.diff(noise), np.diff(curve))[0, 1]) < 0.5


def test_a_shuffled_concept_begins_and_ends_as_it_was_and_changes_elsewhere():
    concept = rise([4.0])
    moved = [shuffled(np.random.default_rng(seed), STEPS, concept, (2.0, 8.0)) for seed in range(40)]
    for one in moved:
        np.testing.assert_allclose(one[[0, -1]], concept[[0, -1]], atol=1e-6)
    times = [float(LOGS[np.flatnonzero(one >= 0.5)[0]]) for one in moved]
    assert np.std(times) > 1.0
    assert min(times) >= 2.0 - 0.02
    assert max(times) <= 8.0 + 0.02


def test_noise_read_where_somebody_looked_is_near_to_it_no_more_often_than_the_level():
    """Checkpoints on both sides of two events: the transitions of noise lie there, too."""
    random = np.random.default_rng(7)
    events, stretch, known = np.array([5.0, 7.6]), (2.7, 9.1), np.zeros(2)
    at = np.round(np.exp([3.0, 4.8, 5.2, 6.9, 7.5, 7.75])).astype(int)
    series = Series(at, np.array([2.0, 2.1, 4.0, 4.1, 4.0, 9.0]), np.full(6, 0.2))
    noise = noise_transitions(0, series)
    alone, beside = [], []
    for _ in range(400):
        read = events_of_series("noise", series._replace(values=surrogate(random, at, series.values)))
        if len(read.steps):
            alone.append(shift_test(events, known, np.log(read.steps), stretch)[0])
            beside.append(shift_test(events, known, np.log(read.steps), stretch, noise)[0])
    level = 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert np.mean(np.array(beside) <= 0.05, axis=0).max() < level
    assert np.mean(np.array(alone) <= 0.05, axis=0).max() > 2 * level


# --- orders


def test_the_order_agreement_is_kendalls_with_the_chance_of_all_orders():
    random = np.random.default_rng(3)
    for _ in range(5):
        left, right = random.normal(size=(2, 6))
        sides = [{str(i): (value, value) for i, value in enumerate(side)} for side in (left, right)]
        found = order_agreement("", *sides)
        known = kendalltau(left, right, alternative="greater", method="exact")
        assert found.kendall == pytest.approx(known.statistic)
        assert found.by_chance == pytest.approx(known.pvalue)


def test_censored_concepts_are_ordered_where_their_order_is_known(planted):
    theory, own, _ = planted.orders
    # the one that was never acquired comes last, as expected; it is ordered against all four
    assert "never" in theory.names
    assert (theory.agree, theory.disagree) == (9, 0)
    assert theory.unknown == 1  # b and c are expected together
    assert theory.left_out == ["innate"]
    assert own.names == ["a", "b"]
    early, late = (0.0, 1.0), (9.0, np.inf)
    twice = order_agreement("", {"x": late, "y": late, "z": early}, {"x": (1, 1), "y": (2, 2), "z": (0, 0)})
    assert (twice.agree, twice.disagree, twice.unknown) == (2, 0, 1)


def test_readings_and_losses_of_the_same_part_are_set_in_order(planted):
    assert planted.orders[-1].what == "llc and loss, by subloss"
    assert planted.orders[-1].kendall == 1.0
    assert planted.orders[-1].by_chance == 0.5  # two things have two orders


def test_nothing_in_order_is_said_as_that():
    found = order_agreement("", {"x": (0, 5), "y": (3, 8)}, {"x": (1, 1), "y": (2, 2)})
    assert np.isnan(found.kendall)
    assert (found.agree, found.disagree, found.unknown) == (0, 0, 1)


# --- events


def test_noise_of_a_reading_is_no_transition_and_a_change_beyond_its_errors_is():
    random = np.random.default_rng(4)
    counts = [len(events_of_series("r", reading([], random)).steps) for _ in range(50)]
    assert np.mean(counts) < 0.5
    found = events_of_series("r", reading([5.0], random))
    assert len(found.steps) == 1
    assert found.begins[0] < np.exp(5.0) < found.ends[0]


def test_a_loss_of_noise_beside_one_step_keeps_its_step():
    random = np.random.default_rng(5)
    found = events_of_curve("loss", STEPS, 5 - rise([5.0]) + 0.01 * random.normal(size=len(STEPS)))
    assert np.abs(np.log(found.steps) - 5.0).min() < 0.05
    assert len(events_of_curve("loss", STEPS, np.full(len(STEPS), 2.3)).steps) == 0


# --- bad input


def bad(change=None, **settings):
    history = history_of({"loss": [3.0, 6.0]}, {"a": 3.0, "b": 6.0})
    history = history if change is None else change(history)
    return lambda: align(history, NONE, **settings)


def with_value(table, index, value):
    def change(history):
        curves = {name: curve.copy() for name, curve in getattr(history, table).items()}
        next(iter(curves.values()))[index] = value
        return history._replace(**{table: curves})

    return change


def series(steps=(1, 10, 100), values=(0.0, 1.0, 1.0), errors=(0.1, 0.1, 0.1)):
    return {"r": Series(*(np.array(column) for column in (steps, values, errors)))}


BAD = {
    "NaN in a concept": (bad(with_value("concepts", 3, np.nan)), f"concept 'a' is not finite at step {STEPS[3]}"),
    "NaN in a loss": (bad(with_value("losses", 3, np.nan)), f"'loss' is not finite at step {STEPS[3]}"),
    "of another length": (bad(lambda h: h._replace(steps=h.steps[1:])), "loss 'loss' has .* values at .* steps"),
    "too short": (
        bad(lambda h: History(h.steps[:19], *({n: c[:19] for n, c in t.items()} for t in h[1:]))),
        "loss 'loss' has 19 recorded steps; alignment needs at least 20",
    ),
    "steps back": (bad(lambda h: h._replace(steps=h.steps[::-1])), "steps do not increase"),
    "a level outside": (bad(level=7.0), "level: got 7.0; concepts go from 0 to about 1"),
    "a level that is no number": (bad(level=np.nan), "level: got nan"),
    "readings beyond": (
        bad(readings=series(steps=(1, 10, 20_000))),
        "'r' goes to step 20000, beyond the history's last",
    ),
    "readings back": (bad(readings=series(steps=(1, 100, 10))), "steps of 'r' do not increase"),
    "a reading that is NaN": (bad(readings=series(values=(0.0, np.nan, 1.0))), "'r' is nan ± 0.1 at step 10"),
    "an error below 0": (bad(readings=series(errors=(0.1, -1.0, 1.0))), "'r' is 1.0 ± -1.0 at step 10"),
    "one reading": (bad(readings=series((1,), (0.0,), (0.1,))), "at least 2"),
    "readings that are no series": (bad(readings={"r": ([1, 10], [0.0, 1.0])}), "'r' is a tuple; make it a Series"),
    "an order without groups": (bad(expected_order=("a", "b")), "expected_order: got 'a' among the groups"),
    "a name twice": (bad(readings={"loss": series()["r"]}), "'loss' is the name of a loss too"),
    "a rate": (bad(rate=5), "rate: got 5"),
    "a method": (bad(method="bonferroni"), "method: got 'bonferroni'; choose 'bh' or 'by'"),
    "a stretch": (bad(between=(10, 5)), "between: got"),
    "a stretch that is too short": (bad(between=(1, 100)), "'b' was acquired at step 4"),
    "an unknown source": (bad(belongs={"a": "lost"}), "belongs: got the source 'lost'"),
    "an unknown concept": (bad(belongs={"z": "loss"}), "belongs: got the concept 'z'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_aligned_is_refused_in_words(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_level_below_every_concept_is_taken_where_it_lies_between_0_and_1():
    history = history_of({"loss": [3.0]}, {"a": 99.0})
    assert align(history, NONE, level=0.9).acquisitions[0].status == "not acquired"


def test_curves_may_be_lists():
    history = history_of({"loss": [3.0, 6.0]}, {"a": 3.0})
    lists = History(*(history.steps.tolist(), *({n: c.tolist() for n, c in t.items()} for t in history[1:])))
    assert align(lists, NONE).found == align(history, NONE).found != []


def test_a_history_without_concepts_has_nothing_to_align():
    assert align(history_of({"loss": [3.0]}, {}), NONE).pairs == ()
    assert detect_phases(history_of({"loss": [3.0]}, {})).transitions.size == 1
