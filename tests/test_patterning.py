"""Patterning: what a change of the data is said to do is what it does, and noise is not followed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from regression import (
    CENTER,
    DATA,
    FEATURES,
    GAMMA,
    HELD_OUT,
    HESSIAN,
    INPUTS,
    NBETA,
    OTHERS,
    TARGETS,
    WEIGHTS,
    loss_fn,
    single,
)

import slt_jax as slt
from slt_jax.response import Measured, measured, retrained
from slt_jax.response.measured import noise
from slt_jax.response.patterning import _pattern

KEY = jax.random.key(0)

# an exact answer: the posterior of a regression on reweighted examples is normal, with known mean

DIRECTIONS = np.random.default_rng(1).normal(size=(3, INPUTS)) / 4


def coordinates(weights):
    """Three linear functions of the mean of the posterior when examples count ``weights``."""
    stiffness = NBETA * (FEATURES.T * weights) @ FEATURES / len(FEATURES) + GAMMA * np.eye(INPUTS)
    # the prior is centred at the least squares solution of all examples alike
    pull = NBETA * (FEATURES.T * weights) @ (TARGETS - FEATURES @ WEIGHTS) / len(FEATURES)
    return DIRECTIONS @ np.linalg.solve(stiffness, pull)


def exact_response():
    """``d coordinates / dh_i`` where a share ``h_i`` of the data is replaced by example i, exactly."""
    count = len(FEATURES)

    def slope(example):
        step = 1e-6 * (count * np.eye(count)[example] - 1)
        return (coordinates(1 + step) - coordinates(1 - step)) / 2e-6

    return np.stack([slope(example) for example in range(count)], axis=1)


RESPONSE = exact_response()
ERROR = 0.1 * np.sqrt(np.mean(RESPONSE**2)) * np.ones_like(RESPONSE)
WANTED = np.array([1.0, -1.0, 0.5]) * 1e-2


def test_the_known_response_is_inverted_and_the_data_follow():
    found = slt.patterning(KEY, single(RESPONSE, np.zeros_like(RESPONSE)), WANTED)
    np.testing.assert_allclose(found.change, np.linalg.pinv(RESPONSE) @ WANTED, rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(found.predicted, WANTED, rtol=1e-4)
    np.testing.assert_allclose(found.unreachable, 0.0, atol=1e-7)
    before = coordinates(np.ones(len(FEATURES)))
    for strength, sign in ((0.01, 1), (-0.01, -1)):
        after = coordinates(np.asarray(found.weights(strength), np.float64))
        np.testing.assert_allclose(after - before, sign * 0.01 * WANTED, rtol=0.03, atol=3e-7)
    # ten times as far and more, the response is no longer linear
    high = found.strengths()[1]
    far = coordinates(np.asarray(found.weights(0.99 * high), np.float64)) - before
    assert np.abs(far / (0.99 * high) - WANTED).max() > 0.03 * np.abs(WANTED).max()


@pytest.fixture(scope="module")
def many():
    """Patterns from the exact response with fresh errors each time, small and three times as large, and from errors."""

    def one(key, value, error):
        value_key, noise_key = jax.random.split(key)
        seen = value + error * jax.random.normal(value_key, value.shape)
        errors = noise(noise_key, Measured(seen, error), 256)
        return _pattern(errors, seen, jnp.asarray(WANTED, jnp.float32), error[:, 0]), seen

    @jax.jit
    def go(value, error):
        return jax.lax.map(lambda key: one(key, value, error), jax.random.split(KEY, 200))

    response, error = single(RESPONSE, ERROR)
    return {"clear": go(response, error), "hazy": go(response, 3 * error), "noise": go(0 * response, error)}


@pytest.mark.parametrize("case", ["clear", "hazy"])
def test_the_predicted_change_is_the_true_one_within_its_error(many, case):
    patterns, seen = many[case]
    true = np.einsum("cd,rd->rc", RESPONSE, patterns.change)
    deviations = (np.asarray(patterns.predicted) - true) / np.asarray(patterns.std_error)
    assert (np.abs(deviations.mean(axis=0)) < 4 / np.sqrt(200)).all()
    assert ((deviations.std(axis=0) > 0.8) & (deviations.std(axis=0) < 1.25)).all()
    # what the fitted response itself promises is too much
    promised = np.einsum("rcd,rd->rc", seen, patterns.change)
    excess = (promised - true) / np.asarray(patterns.std_error)
    assert excess[:, 0].mean() > 4 / np.sqrt(200)


def test_noise_is_not_followed(many):
    patterns, seen = many["noise"]
    change = np.linalg.norm(patterns.change, axis=1)
    assert (change == 0).mean() >= 0.9
    # the plain pseudo-inverse moves the data by as much as a clear response would ask for, or more
    plain = np.array([np.linalg.norm(np.linalg.pinv(one) @ WANTED) for one in np.asarray(seen)])
    clear = np.linalg.norm(many["clear"][0].change, axis=1)
    assert plain.min() > 2 * clear.mean()
    np.testing.assert_array_equal(np.asarray(patterns.predicted)[change == 0], 0.0)
    one = jax.tree.map(lambda leaf: leaf[int(np.argmin(change))], patterns)
    assert "no change of these data is known to move anything" in one.explain()
    np.testing.assert_allclose(one.unreachable, WANTED, rtol=1e-6)
    assert one.strengths() == (-np.inf, np.inf)


def test_a_coordinate_of_large_numbers_does_not_drown_the_others():
    sizes = np.array([1e6, 1.0, 1e-6])
    value, error = single(*(sizes[:, None] * part for part in (RESPONSE, 0.3 * ERROR)))
    found = slt.patterning(KEY, (value, error), sizes * WANTED)
    plain = slt.patterning(KEY, single(RESPONSE, 0.3 * ERROR), WANTED)
    assert int(np.sum(found.singular_values > found.noise)) == 3
    np.testing.assert_allclose(found.change, plain.change, rtol=1e-2, atol=1e-7)


def test_what_cannot_be_reached_is_named():
    # the second coordinate answers to nothing
    value = np.vstack([RESPONSE[:1], np.zeros_like(RESPONSE[:1]), RESPONSE[1:2]])
    found = slt.patterning(KEY, single(value, 0.01 * ERROR), WANTED)
    np.testing.assert_allclose(found.unreachable, [0, WANTED[1], 0], atol=1e-5)
    assert abs(float(found.predicted[1])) < 4 * float(found.std_error[1])
    assert "2 of 3 singular values of χ stand above the noise" in found.explain()
    assert "Out of reach: 67% of what is wanted" in found.explain()


# on a real chain

FREE = {"first": slice(0, 8), "second": slice(8, 16)}
STRETCH = np.where(np.arange(INPUTS) < 8, 1.3, 1.0)
SETS = {
    "stiffer": (FEATURES * STRETCH, FEATURES * STRETCH @ WEIGHTS - (FEATURES @ WEIGHTS - TARGETS)),
    "held out": OTHERS,
    "softer": (0.8 * FEATURES, 0.8 * TARGETS),
}


@pytest.fixture(scope="module")
def susceptibility():
    components = {
        name: slt.restriction.mask(CENTER, (jnp.arange(INPUTS) >= free.start) & (jnp.arange(INPUTS) < free.stop))
        for name, free in FREE.items()
    }
    sets = {name: HELD_OUT if name == "held out" else single(*arrays) for name, arrays in SETS.items()}
    settings = dict(nbeta=NBETA, gamma=GAMMA, chains=16, controls=False)
    return slt.susceptibility(KEY, loss_fn, CENTER, DATA, components, sets, **settings)


def mean_losses(change):
    """``⟨L - L*⟩`` of each component under ``(1 - Σ h) q + Σ h_j q'_j``, exactly."""
    found = []
    for free in FREE.values():
        hessian, gradient = (1 - sum(change)) * HESSIAN, np.zeros(INPUTS)
        for share, (features, targets) in zip(change, SETS.values(), strict=True):
            hessian = hessian + share * features.T @ features / len(features)
            gradient = gradient + share * features.T @ (features @ WEIGHTS - targets) / len(features)
        covariance = np.linalg.inv((NBETA * hessian + GAMMA * np.eye(INPUTS))[free, free])
        shift = -NBETA * covariance @ gradient[free]
        inside = HESSIAN[free, free]
        found.append(0.5 * np.trace(inside @ covariance) + 0.5 * shift @ inside @ shift)
    return np.array(found)


def test_on_a_chain_the_prediction_is_the_change_of_the_posterior(susceptibility):
    wanted = np.array([-1e-4, -1e-4])
    found = slt.patterning(KEY, susceptibility, wanted)
    assert int(np.sum(found.singular_values > found.noise)) == 2
    change = np.asarray(found.change, np.float64)
    slope = (mean_losses(1e-3 * change) - mean_losses(-1e-3 * change)) / 2e-3
    assert (np.abs(found.predicted - slope) < 3 * found.std_error).all()
    # and the errors tell it from nothing, and from its opposite
    assert (np.abs(slope) > 3 * found.std_error).all()
    assert (np.sign(slope) == np.sign(wanted)).all()
    assert (np.sign(mean_losses(-1e-3 * change) - mean_losses(0 * change)) == -np.sign(wanted)).all()


def test_a_pair_and_a_result_say_the_same(susceptibility):
    matrix = measured(susceptibility)
    scaled = Measured(*(NBETA * leaf for leaf in matrix))
    one, other = (slt.patterning(KEY, found, jnp.array([1e-4, 0.0])) for found in (susceptibility, scaled))
    np.testing.assert_allclose(one.change, other.change, rtol=1e-3)
    inside = jax.jit(lambda v, e: slt.patterning(KEY, (v, e), jnp.array([1e-4, 0.0])).change)
    outside = slt.patterning(KEY, tuple(scaled[:2]), jnp.array([1e-4, 0.0]))
    np.testing.assert_allclose(inside(*scaled[:2]), outside.change, rtol=1e-3)


# weights

GROUPS = np.array([0, 0, 0, 1, 1, 2])
DENSITY = np.eye(3)[GROUPS] / np.eye(3)[GROUPS].mean(axis=0)


def test_weights_are_a_distribution_as_far_as_they_are_let():
    found = slt.patterning(KEY, single(RESPONSE, np.zeros_like(RESPONSE)), WANTED)
    low, high = found.strengths()
    for strength in (low, 0.5 * low, 0.0, high):
        weights = np.asarray(found.weights(strength))
        assert weights.min() >= 0
        assert weights.mean() == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_array_equal(found.weights(0.0), 1.0)
    assert np.asarray(found.weights(high)).min() == pytest.approx(0.0, abs=1e-5)
    for beyond in (1.01 * low, 1.01 * high, np.nan):
        with pytest.raises(ValueError, match=r"strength: got .*; weights are negative beyond"):
            found.weights(beyond)


def test_groups_of_examples_move_together():
    value = jnp.array([[1.0, 0.0, -1.0]])
    found = slt.patterning(KEY, (value, jnp.zeros((1, 3))), jnp.array([0.2]))
    np.testing.assert_allclose(found.change, [0.1, 0.0, -0.1], atol=1e-6)
    weights = found.weights(1.0, DENSITY)
    # a tenth more from the first group, of which half are, and a tenth less from the last, of which a sixth is
    np.testing.assert_allclose(weights, [1.2, 1.2, 1.2, 1.0, 1.0, 0.4], atol=1e-5)
    for wrong, message in ((np.eye(3)[GROUPS], "columns must be"), (DENSITY[:, :2], "density: got shape")):
        with pytest.raises(ValueError, match=message):
            found.weights(1.0, wrong)


# retraining


def trained(weights, key):
    """A time that hangs far more on the seed than on the weights."""
    return 200.0 + 100.0 * jax.random.normal(key) - 10.0 * weights + jax.random.normal(jax.random.fold_in(key, 1))


ARMS = {"unchanged": 0.0, "towards": 1.0, "away": -1.0}


def test_paired_seeds_see_what_means_do_not():
    found = retrained(trained, jax.random.split(KEY, 5), ARMS)
    for name, exact in (("towards", -10.0), ("away", 10.0)):
        assert found.mean[name] == pytest.approx(exact, abs=1e-4)
    assert (found.below["towards"], found.above["towards"]) == (5, 0)
    assert (found.below["away"], found.above["away"]) == (0, 5)
    assert "towards: -10 ± " in found.explain()
    spread = found.values["towards"].std(ddof=1) / np.sqrt(5)
    assert spread > 10
    assert found.std_error["towards"] < 1e-3 * spread
    # seeds of its own for each arm: the difference is lost
    fresh = trained(1.0, jax.random.key(7)) - trained(0.0, jax.random.key(8))
    assert abs(float(fresh) + 10.0) > 20


def test_errors_are_those_of_differences_over_seeds():
    def jittery(weights, key):
        return -weights + jax.random.normal(jax.random.fold_in(key, jnp.int32(10 * weights)))

    found = retrained(jittery, jax.random.split(KEY, 400), {"unchanged": 0.0, "towards": 1.0})
    assert found.std_error["towards"] == pytest.approx(np.sqrt(2 / 400), rel=0.15)
    assert abs(found.mean["towards"] + 1) < 4 * found.std_error["towards"]


def test_what_never_comes_is_later_than_anything():
    def never(weights, key):
        del key
        return np.array([np.inf if weights < 0 else 5.0 - weights, np.inf])

    found = retrained(never, jax.random.split(KEY, 3), ARMS)
    assert found.above["away"].tolist() == [3, 0]
    assert found.below["towards"].tolist() == [3, 0]
    assert np.isinf(found.mean["away"][0])
    assert np.isnan(found.mean["away"][1])


# bad input

PAIR = single(RESPONSE, ERROR)
KEYS = jax.random.split(KEY, 3)
BAD = {
    "key": (lambda: slt.patterning(0, PAIR, WANTED), r"key: got int"),
    "wanted": (lambda: slt.patterning(KEY, PAIR, WANTED[:2]), r"wanted: got shape \(2,\) with χ of 3 coordinates"),
    "no errors": (lambda: slt.patterning(KEY, PAIR[0], WANTED), r"found: got a \w+; pass a Susceptibility"),
    "one seed": (lambda: retrained(trained, KEYS[:1], ARMS), r"keys: got 1; differences have an error"),
    "a single key": (lambda: retrained(trained, KEY, ARMS), r"keys: got 0; differences have an error"),
    "no baseline": (
        lambda: retrained(trained, KEYS, {"a": 1.0, "b": 0.0}),
        r"arms: got \['a', 'b'\]; pass 'unchanged'",
    ),
    "no arm": (lambda: retrained(trained, KEYS, {"unchanged": 0.0}), r"and at least one other"),
    "not a number": (lambda: retrained(lambda w, k: np.nan, KEYS, ARMS), r"train: returned NaN in arm 'unchanged'"),
    "a raw key": (lambda: retrained(trained, [1, 2], ARMS), r"key: got int"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
