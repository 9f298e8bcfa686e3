"""Phases of training as phases of a posterior: crossings by quadrature, staircases, counterparts, and names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import gammaln

import slt_jax as slt
from slt_jax.ladder import crossing, crossing_at
from slt_jax.problem import Problem
from slt_jax.spectroscopy import (
    Checkpoint,
    CheckpointError,
    Phases,
    Subject,
    Subloss,
    counterparts,
    loss_changes,
    measured_at,
    name_phases,
    staircases,
)
from slt_jax.truths.truth import Truth

# --- two phases whose integrals are known: K = Σ |w|^power in some dimensions over [-1, 1]

#: ``(loss, power, dimensions)``: λ = dimensions / power.
SIMPLE, ACCURATE = (0.06, 4, 4), (0.05, 2, 4)
LOSS_CHANGE, COEFFICIENT_CHANGE = ACCURATE[0] - SIMPLE[0], 4 / 2 - 4 / 4


def log_integral(power, n):
    """``log ½∫ exp(-n |w|^power) dw`` over ``[-1, 1]``."""
    scale = n ** (-1 / power)
    return np.log(scale * quad(lambda v: np.exp(-(v**power)), 0, min(1 / scale, 40))[0])


def free_energy(phase, n):
    loss, power, dims = phase
    return n * loss - dims * log_integral(power, n)


def constant(phase):
    """The term of order 1 of its free energy."""
    return -phase[2] * gammaln(1 + 1 / phase[1])


def exact(before=SIMPLE, after=ACCURATE):
    log_n = brentq(lambda u: free_energy(after, np.exp(u)) - free_energy(before, np.exp(u)), 3.0, 20.0)
    return float(np.exp(log_n))


CONSTANT_CHANGE = constant(ACCURATE) - constant(SIMPLE)
EXACT = exact()


def test_the_crossing_is_that_of_the_integrals_once_the_term_of_order_1_is_in():
    assert crossing_at(LOSS_CHANGE, COEFFICIENT_CHANGE, 0.0, CONSTANT_CHANGE) == pytest.approx(EXACT, rel=1e-4)
    # without it the logarithm of n is off by about the term over n |ΔL|
    rough = crossing_at(LOSS_CHANGE, COEFFICIENT_CHANGE)
    assert rough != pytest.approx(EXACT, rel=0.01)
    assert abs(np.log(rough / EXACT)) < 2 * abs(CONSTANT_CHANGE) / (EXACT * abs(LOSS_CHANGE))


def test_lamberts_branch_and_the_search_agree():
    for loss, coefficient in [(-0.01, 2.0), (0.3, -4.0), (-1e-6, 0.5), (-0.3, 0.9)]:
        n = crossing_at(loss, coefficient)
        assert n * loss + np.log(n) * coefficient == pytest.approx(0.0, abs=1e-9 * n * abs(loss))
        assert crossing_at(loss, coefficient, 0.0, 1e-13) == pytest.approx(n, rel=1e-6)


def test_the_log_log_term_moves_the_crossing_of_a_double_zero_to_where_it_is():
    """K = x²y² (λ = 1/2, m = 2) against four squares (λ = 2, m = 1)."""

    def log_cross(n):
        scale = np.sqrt(n)
        return np.log(quad(lambda v: np.exp(-(v**2)) * np.log(scale / v), 0, min(scale, 40))[0] / scale)

    change = -1e-4
    truth = np.exp(brentq(lambda u: np.exp(u) * change - 4 * log_integral(2, np.exp(u)) + log_cross(np.exp(u)), 3, 20))
    order_1 = constant((0, 2, 4)) + np.log(np.sqrt(np.pi) / 4)
    taken, left = (crossing_at(change, 1.5, multiplicity, order_1) for multiplicity in (-1.0, 0.0))
    assert taken == pytest.approx(truth, rel=0.02)
    assert left < 0.9 * truth


def covered(share_of_errors, draws=400):
    random = np.random.default_rng(0)
    held = 0
    for _ in range(draws):
        losses = LOSS_CHANGE + 0.03 * random.normal(size=300)
        found = crossing(
            losses.mean(),
            COEFFICIENT_CHANGE + 0.2 * random.normal(),
            loss_error=share_of_errors * losses.std(ddof=1) / np.sqrt(300),
            coefficient_error=share_of_errors * 0.2,
            constant_change=CONSTANT_CHANGE,
        )
        held += found.low <= EXACT <= found.high
    return held / draws


def test_the_interval_covers_the_true_crossing_in_95_of_100():
    assert abs(covered(1.0) - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 400)
    assert covered(0.5) < 0.8


SETTINGS = {"nbeta": 1e4, "gamma": 0.05, "chains": 4, "draws": 1500, "burnin": 500}


def well(power, w, batch):
    return jnp.sum(jnp.abs(w) ** power) + batch


def test_two_readings_and_a_sample_of_losses_hold_the_true_crossing():
    random = np.random.default_rng(1)
    noise = [0.03 * random.normal(size=400) for _ in range(2)]
    losses = [SIMPLE[0] + noise[0], ACCURATE[0] + noise[0] + noise[1]]
    keys = jax.random.split(jax.random.key(0))
    # one program for both wells: the power is an argument
    before, after = (
        slt.llc(key, Partial(well, float(power)), jnp.zeros(4), jnp.asarray(each), **SETTINGS)
        for key, power, each in zip(keys, (4, 2), losses, strict=True)
    )
    change = losses[1] - losses[0]
    found = crossing(
        change.mean(),
        float(after.value - before.value),
        loss_error=change.std(ddof=1) / 20,
        coefficient_error=float(np.hypot(before.std_error, after.std_error)),
        constant_change=CONSTANT_CHANGE,
    )
    assert found.low < EXACT < found.high
    assert (found.few, found.many) == ("earlier", "later")


def test_a_phase_that_is_better_in_both_has_no_crossing():
    for loss, coefficient, winner in [(-0.01, -1.5, "later"), (0.01, 1.5, "earlier"), (-0.9, 1.5, "later")]:
        found = crossing(loss, coefficient, loss_error=1e-3, coefficient_error=0.05)
        assert np.isnan(found.n)
        assert found.certainty < 0.01
        assert found.few == found.many == winner


def test_a_loss_that_may_not_have_changed_leaves_the_interval_open():
    found = crossing(-0.01, 2.0, loss_error=0.006, coefficient_error=0.1)
    assert found.high == np.inf
    assert 0.9 < found.certainty < 1.0
    assert found.low < found.n


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_change": np.nan}, "all must be finite"),
        ({"coefficient_error": -1.0}, "errors at least 0"),
        ({"covariance": 1.0}, "covariance: got 1.0"),
    ],
)
def test_a_crossing_of_what_is_no_number_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        crossing(**{"loss_change": -0.1, "coefficient_change": 1.0, **settings})


# --- staircases


NONE = np.zeros(0)
PHASES = Phases(
    np.array([100, 1000]), np.array([80, 800]), np.array([120, 1200]), np.array([30, 300, 5000]), NONE, NONE
)
STEPS = (25, 320, 4000)
PAIRS = ((25, 320), (320, 4000))


def rows_of(coefficients, changes, error=0.1, loss_error=1e-3, **settings):
    readings = {"all": {step: (value, error) for step, value in zip(STEPS, coefficients, strict=True)}}
    losses = {"all": dict(zip(PAIRS, ((change, loss_error) for change in changes), strict=True))}
    return staircases(PHASES, readings, losses, **settings), readings["all"]


def test_staircases_that_oppose_are_told_from_those_that_do_not():
    (first, second), _ = rows_of((4.0, 6.0, 5.0), (-0.2, -0.1))
    assert (first.verdict, second.verdict) == ("opposing", "later at every n")
    assert (first.before, first.after, second.after) == STEPS
    assert first.crossing.low < first.crossing.n < first.crossing.high
    assert np.isnan(second.crossing.n)
    verdicts = [row.verdict for changes in ((0.2, 0.1),) for row in rows_of((4.0, 6.0, 5.0), changes)[0]]
    assert verdicts == ["earlier at every n", "opposing, backwards"]
    assert {row.verdict for row in rows_of((4.0, 4.1, 4.0), (-0.2, -0.1))[0]} == {"undecided"}


def test_where_lambda_stays_the_same_few_staircases_oppose_by_chance():
    random = np.random.default_rng(2)
    draws = [rows_of(4.0 + 0.1 * random.normal(size=3), (-0.2, -0.1))[0] for _ in range(300)]
    alarms = np.mean([rows[0].p <= 0.05 for rows in draws])
    assert abs(alarms - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 300)


def test_exact_values_give_the_exact_crossing_with_their_multiplicity():
    truths = {step: Truth(value, m, "") for step, value, m in zip(STEPS, (4.0, 6.0, 7.0), (1, 2, None), strict=True)}
    (first, second), _ = rows_of((4.1, 5.9, 7.2), (-0.2, -0.1), exact=truths)
    assert first.exact == pytest.approx(crossing_at(-0.2, 2.0, 1.0))
    assert second.exact == pytest.approx(crossing_at(-0.1, 1.0))
    assert first.crossing.low < first.exact < first.crossing.high
    assert rows_of((4.1, 5.9, 7.2), (-0.2, -0.1), exact={})[0][0].exact is None


def test_what_was_not_measured_is_kept_and_says_so():
    readings = {"all": {25: (4.0, 0.1), 4000: (6.0, 0.1)}}
    rows = staircases(PHASES, readings, {"all": {(25, 4000): (-1.0, 0.0)}, "part": {(25, 4000): (-0.5, 0.0)}})
    assert [(row.phase, row.subloss, row.verdict) for row in rows] == [
        (phase, name, "not measured") for phase in (1, 2) for name in ("all", "part")
    ]
    whole = {"all": {step: (4.0, 0.1) for step in STEPS}}
    (_, part, *_) = staircases(PHASES, whole, {"all": {}, "part": dict.fromkeys(PAIRS, (-0.5, 0.1))})
    assert (part.verdict, part.loss_change) == ("not measured", -0.5)


def test_a_phase_is_measured_where_it_is_quiet_and_by_its_own_checkpoints():
    assert measured_at(PHASES, [10, 28, 99, 100, 290, 4000]) == [28, 290, 4000]
    assert measured_at(PHASES, [10, 28, 1000]) == [28, None, 1000]


@pytest.mark.parametrize("case", ["reading", "change", "rate"])
def test_staircases_of_what_is_no_number_are_refused(case):
    arguments = {
        "reading": ((4.0, np.nan, 5.0), (-0.2, -0.1), {}),
        "change": ((4.0, 6.0, 5.0), (-0.2, np.inf), {}),
        "rate": ((4.0, 6.0, 5.0), (-0.2, -0.1), {"rate": 0.0}),
    }[case]
    with pytest.raises(
        ValueError, match={"reading": "readings: 'all'", "change": "changes: 'all'"}.get(case, "rate: ")
    ):
        rows_of(*arguments[:2], **arguments[2])


# --- counterparts


def test_the_preferred_phases_are_those_of_the_least_free_energy():
    random = np.random.default_rng(3)
    for _ in range(20):
        coefficients, changes = np.sort(random.uniform(1, 9, 3)), -random.uniform(0.01, 0.5, 2)
        rows, readings = rows_of(coefficients, changes, error=1e-6)
        found = counterparts(PHASES, rows, readings)
        losses = np.array([0.0, *np.cumsum(changes)])
        n = np.geomspace(np.e * 1.0001, 1e8, 4000)
        best = np.argmin(n[:, None] * losses + coefficients * np.log(n)[:, None], axis=1)
        order = [int(best[0]), *best[1:][np.diff(best) != 0].tolist()]
        assert found.preferred == order
        at = int(best[2000])
        assert counterparts(PHASES, rows, readings, examples=int(n[2000])).at_examples == at


def test_a_plateau_that_no_posterior_prefers_is_named():
    # λ rises by 8 for a fall of 0.1, then by 2 for a fall of 0.5: the middle is never worth it
    rows, readings = rows_of((4.0, 12.0, 14.0), (-0.1, -0.5))
    found = counterparts(PHASES, rows, readings, examples=1000)
    assert (found.transitions, found.skipped, found.preferred) == ([1, 2], [1], [0, 2])
    assert found.certainty > 0.95
    assert found.order.kendall == -1.0
    assert found.order.by_chance == 1.0
    assert found.at_examples == 2
    text = found.describe()
    for part in (
        "2 of 2 transitions",
        "Preferred at no n: phase 1",
        "1000 examples",
        "compared in order, not in value",
    ):
        assert part in text


def test_transitions_without_a_counterpart_and_undecided_ones_are_told_apart():
    rows, readings = rows_of((4.0, 6.0, 5.0), (-0.2, -0.1))
    found = counterparts(PHASES, rows, readings)
    assert (found.transitions, found.without, found.undecided) == ([1], [2], [])
    assert np.isnan(found.order.kendall)
    rows, readings = rows_of((4.0, 4.05, 6.0), (-0.2, -0.1))
    assert counterparts(PHASES, rows, readings).undecided == [1]
    # a fall of the loss that is worth any λ from the first example on
    rows, readings = rows_of((4.0, 6.0, 8.0), (-5.0, -0.1))
    assert counterparts(PHASES, rows, readings).without == [1]


def test_counterparts_of_a_loss_that_is_not_there_are_refused():
    rows, readings = rows_of((4.0, 6.0, 5.0), (-0.2, -0.1))
    with pytest.raises(ValueError, match="subloss: got 'part'; the rows are of"):
        counterparts(PHASES, rows, readings, "part")
    with pytest.raises(ValueError, match="readings: there is none at step 25"):
        counterparts(PHASES, rows, {320: (6.0, 0.1), 4000: (5.0, 0.1)})


# --- names


def test_a_phase_is_named_by_the_one_value_it_agrees_with():
    known = {"6": 6.0, "29/4": 7.25, "17/2": 8.5}
    readings = {1: (6.1, 0.1), 10: (7.25, 1.0), 100: (7.8, 0.1)}
    named = name_phases([1, 10, 100, None], readings, known)
    assert [one.agrees for one in named] == [["6"], ["6", "29/4", "17/2"], [], []]
    assert named[0].text == "λ = 6"
    assert named[1].text == "cannot be told: 6, 29/4, 17/2"
    assert named[2].text == "agrees with no known value"
    assert named[3].text == "no reading"
    assert named[1].by_chance == 1.0
    assert named[0].by_chance == pytest.approx(1.2 / 2.9)
    with pytest.raises(ValueError, match="known: got"):
        name_phases([1], readings, {"bad": np.nan})


# --- changes of the losses


def loss_fn(params, batch):
    return params * batch["x"]


DATA = {"x": jnp.arange(10.0)}


def checkpoints(broken=()):
    def load(step):
        if step in broken:
            raise CheckpointError("truncated")
        return jnp.float32(step)

    return [Checkpoint(step, lambda step=step: load(step)) for step in (1, 3, 7)]


def test_changes_are_paired_over_examples():
    half = Subloss(loss_fn, {"x": DATA["x"][5:]})
    subject = Subject(Problem(loss_fn, jnp.float32(0), DATA), sublosses={"half": half})
    found = loss_changes(subject, checkpoints(), [(1, 3), (3, 7)])
    np.testing.assert_allclose(found["all"][1, 3], (9.0, 2 * np.std(np.arange(10), ddof=1) / np.sqrt(10)), rtol=1e-6)
    assert found["half"][3, 7][0] == pytest.approx(28.0)
    everything = loss_changes(subject, checkpoints(), [(1, 3)], complete=True)["all"][1, 3]
    assert everything == pytest.approx((9.0, 4.5 * np.finfo(np.float32).eps))
    assert loss_changes(subject, checkpoints(broken=(3,)), [(1, 3), (1, 7)])["all"].keys() == {(1, 7)}
    with pytest.raises(ValueError, match=r"pairs: there is no checkpoint of step 5; there are \[1, 3, 7\]"):
        loss_changes(subject, checkpoints(), [(1, 5)])


def test_a_loss_that_is_a_mean_has_the_error_of_rounding_only():
    subject = Subject(Problem(lambda p, b: jnp.mean(p * b["x"]), jnp.float32(0), DATA))
    change, error = loss_changes(subject, checkpoints(), [(1, 3)])["all"][1, 3]
    assert (change, error < 1e-6) == (9.0, True)
