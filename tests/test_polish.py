"""The minimum next to a centre: found as far as the temperature reaches, told of where it is farther."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import BASELINE, CENTRED, CURVATURES, GAMMA, NBETA, ORIGIN, assert_same, deviation, quadratic, regression

import slt_jax as slt
from slt_jax import posterior as posteriors
from slt_jax.polish import _FIRST_STEP, polish
from slt_jax.spectroscopy import probes

POLISH = jax.jit(polish)
DIMENSION = 6
#: Along every mode, so that both leaves and both decades of curvature take part.
DIRECTION = jax.tree.map(jnp.ones_like, ORIGIN)


def displaced(shift):
    """A centre of the quadratic, and the minimum that the prior leaves, lower by ``shift`` in units of λ."""
    force = jax.tree.map(lambda h: NBETA * h + GAMMA, CURVATURES)
    height = jax.tree.map(lambda h, a: 0.5 * NBETA * h * (1 - (GAMMA / a) ** 2), CURVATURES, force)
    length = math.sqrt(shift / sum(float(leaf.sum()) for leaf in jax.tree.leaves(height)))
    center = jax.tree.map(lambda leaf: length * leaf, DIRECTION)
    return center, jax.tree.map(lambda w, a: w * GAMMA / a, center, force)


def far_apart(left, right):
    """The largest distance in units of the thermal width ``1 / √(nβ h + γ)`` of its mode."""
    widths = jax.tree.map(lambda h, a, b: np.abs(a - b) * np.sqrt(NBETA * h + GAMMA), CURVATURES, left, right)
    return max(leaf.max() for leaf in jax.tree.leaves(widths))


def at(center, **settings):
    return slt.localise(quadratic, center, BASELINE, NBETA, GAMMA, **settings)


# how far


@pytest.mark.parametrize(("share", "moved"), [(0.1, True), (0.49, True), (0.51, False)])
def test_a_centre_within_the_reach_of_the_temperature_goes_to_the_minimum_and_says_how_far(share, moved):
    """The reach is ``d/2``, the energy of all modes; beyond it the height is told, and nothing else is changed."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (displaced(share * DIMENSION), BASELINE))
        (center, minimum), data = wide
        given = slt.localise(quadratic, center, data, NBETA, GAMMA)
        polished = POLISH(given, data)
        np.testing.assert_allclose(polished.shift, share * DIMENSION, rtol=1e-6)
        # over the minimum that the prior leaves, not over that of the loss alone
        assert abs(float(polished.shift) / float(NBETA * quadratic(center, 0.0)) - 1) > 1e-4
        assert bool(polished.moved) is moved
        assert far_apart(center, minimum) > 0.5
        if moved:
            assert far_apart(polished.posterior.center, minimum) < 1e-4
            afresh = slt.localise(quadratic, polished.posterior.center, data, NBETA, GAMMA)
            assert_same(polished.posterior, afresh, rtol=1e-12)
        else:
            assert_same(polished.posterior, given)


def test_a_centre_beyond_the_reach_is_measured_where_it_is_and_flagged():
    center, _ = displaced(4.0 * DIMENSION)
    settings = dict(nbeta=NBETA, gamma=GAMMA, chains=4, draws=200, burnin=200)
    far = slt.llc(jax.random.key(0), quadratic, center, BASELINE, **settings)
    np.testing.assert_allclose(far.settings.shift, 4.0 * DIMENSION, rtol=1e-4)
    assert not bool(far.settings.polished)
    assert not bool(far.health.checks["minimum"])
    assert "24 above the minimum found nearby" in far.health.explain()
    assert "train further" in far.health.explain()
    near = slt.llc(jax.random.key(0), quadratic, displaced(0.1 * DIMENSION)[0], BASELINE, **settings)
    assert bool(near.settings.polished)
    assert bool(near.health.checks["minimum"])
    assert "the centre was moved to the minimum nearby, lower by 0.6" in near.explain()


# nothing to do


def tanh_outputs(params, inputs):
    return jnp.tanh(inputs @ params["first"]) @ params["second"]


def own_answers():
    draw = np.random.default_rng(1).normal
    params = {"first": draw(size=(3, 4)), "second": draw(size=(4, 2))}
    params, inputs = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (params, draw(size=(50, 3))))
    return slt.self_reference(tanh_outputs, params, inputs)


MINIMA = {
    "a quadratic over a baseline": lambda: slt.Problem(quadratic, ORIGIN, BASELINE),
    "examples that disagree": lambda: slt.Problem(regression, jnp.float32(0.0), CENTRED),
    "a mean": lambda: slt.Problem(lambda w, x: jnp.mean(regression(w, x)), jnp.float32(0.0), CENTRED),
    "its own answers": own_answers,
}


@pytest.mark.parametrize("name", MINIMA)
def test_at_an_exact_minimum_nothing_moves_not_even_a_bit(name):
    problem = MINIMA[name]()
    given = slt.localise(*problem)
    polished = POLISH(given, problem.data)
    assert_same(polished.posterior, given)
    assert float(polished.shift) == 0.0
    assert not np.signbit(polished.shift), "a height of -0 would be printed"
    assert not bool(polished.moved)
    beside = slt.localise(problem.loss_fn, jax.tree.map(lambda w: w + 1e-2, problem.params), problem.data)
    assert float(POLISH(beside, problem.data).shift) > 0


def test_a_step_out_of_the_domain_of_the_loss_is_made_shorter():
    """``w - log w`` is least at 1, and not a number where a step too long ends."""
    problem = slt.Problem(lambda w, x: w - jnp.log(w) + x, jnp.float32(1.3), BASELINE)
    assert math.isnan(float(jnp.log(1.3 - _FIRST_STEP * (1 - 1 / 1.3))))
    polished = POLISH(slt.localise(*problem, nbeta=10.0, gamma=0.0), problem.data)
    assert bool(polished.moved)
    np.testing.assert_allclose(polished.posterior.center, 1.0, atol=1e-3)


# the true parameters on sampled data

EXAMPLES, PARAMETERS = 500, 20


def sampled(key):
    """A linear regression with noise of variance 1, and the parameters that made it."""
    key_inputs, key_truth, key_noise = jax.random.split(key, 3)
    inputs = jax.random.normal(key_inputs, (EXAMPLES, PARAMETERS))
    truth = jax.random.normal(key_truth, (PARAMETERS,))
    return truth, (inputs, inputs @ truth + jax.random.normal(key_noise, (EXAMPLES,)))


def squared_error(weights, batch):
    inputs, targets = batch
    return 0.5 * (inputs @ weights - targets) ** 2


def fitted(truth, data):
    """``nβ (L(w0) - L(ŵ))`` by least squares, and the exact λ̂ at ``ŵ``, in double precision."""
    inputs, targets = (np.asarray(leaf, np.float64) for leaf in data)
    best = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    excess = np.mean((inputs @ np.asarray(truth, np.float64) - targets) ** 2 - (inputs @ best - targets) ** 2) / 2
    nbeta = EXAMPLES / math.log(EXAMPLES)
    curvature = np.linalg.eigvalsh(inputs.T @ inputs / EXAMPLES)
    return nbeta * excess, float(0.5 * np.sum(curvature / (curvature + 1e-4)))


def test_true_parameters_are_polished_to_the_exact_value_and_low_by_their_height_without():
    truth, data = sampled(jax.random.key(5))
    height, exact = fitted(truth, data)
    go = partial(slt.llc, jax.random.key(0), squared_error, truth, data, chains=4, draws=4000, burnin=500)
    with_it, without = go(), go(polish=False)
    np.testing.assert_allclose(with_it.settings.shift, height, rtol=1e-3)
    assert deviation(with_it.value, with_it.std_error, exact) < 3
    assert bool(with_it.health.ok), with_it.health.explain()
    assert deviation(without.value, without.std_error, exact - height) < 3
    assert deviation(without.value, without.std_error, exact) > 4
    assert not bool(without.settings.polishing | without.settings.polished)


def test_over_data_sets_the_true_parameters_are_high_by_lambda_over_log_n():
    """``n (L_n(w0) - L_n(ŵ))`` is half a χ² of as many degrees as parameters; also polish under vmap."""

    def shift(key):
        truth, data = sampled(key)
        return polish(slt.localise(squared_error, truth, data), data).shift

    shifts = np.asarray(jax.jit(jax.vmap(shift))(jax.random.split(jax.random.key(6), 64)))
    exact = 0.5 * PARAMETERS / math.log(EXAMPLES)
    error = shifts.std() / 8
    assert deviation(shifts.mean(), error, exact) < 4
    assert deviation(shifts.mean(), error, 0.5 * (PARAMETERS - 4) / math.log(EXAMPLES)) > 4


# composition


def test_frozen_entries_stay_to_the_last_bit_and_the_free_ones_find_their_own_minimum():
    center, minimum = displaced(0.3 * DIMENSION)
    free = {"b": jnp.array([True, False]), "w": jnp.array([[True, False], [False, True]])}
    given = at(center, restriction=slt.restriction.mask(center, free))
    polished = POLISH(given, BASELINE)
    assert bool(polished.moved)
    for mask, now, before in zip(
        *(jax.tree.leaves(tree) for tree in (free, polished.posterior.center, center)), strict=True
    ):
        np.testing.assert_array_equal(now[~mask], before[~mask])
    ideal = jax.tree.map(jnp.where, free, minimum, center)
    assert far_apart(polished.posterior.center, ideal) < 0.05
    assert far_apart(center, ideal) > 0.5
    height = float(NBETA * (quadratic(center, 0.0) - quadratic(ideal, 0.0)))
    # the losses, between 1 and 4, are rounded
    np.testing.assert_allclose(polished.shift, height, atol=NBETA * 4 * np.finfo(np.float32).eps)
    assert height < 0.9 * 0.3 * DIMENSION, "the whole of the height would be another number"
    assert posteriors.dimension(polished.posterior) == 3


def test_a_vmap_over_centres_polishes_each_as_it_would_be_alone():
    centers = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(displaced(share * DIMENSION)[0] for share in (0.2, 0.8))
    )
    go = lambda center: polish(at(center), BASELINE)[1:3]  # noqa: E731
    shifts, moved = jax.jit(jax.vmap(go))(centers)
    assert moved.tolist() == [True, False]
    for index in range(2):
        alone = POLISH(at(jax.tree.map(lambda leaf, i=index: leaf[i], centers)), BASELINE)
        np.testing.assert_allclose(shifts[index], alone.shift, rtol=1e-4)


def test_a_checkpoint_is_measured_where_it_is():
    """A probe compares sublosses at one centre: each would find another minimum."""
    problem = slt.Problem(quadratic, displaced(0.4 * DIMENSION)[0], BASELINE)
    settings = dict(nbeta=NBETA, gamma=GAMMA, chains=4, draws=200, burnin=200, budget=0)
    probe = probes.llc_probe(**settings)
    reading = probe.measure(jax.random.key(0), problem, None, **probe.settings)
    unpolished, polished = (slt.llc(jax.random.key(0), *problem, polish=flag, **settings) for flag in (False, True))
    assert float(reading["value"]) == float(unpolished.value)
    assert float(polished.value) > float(unpolished.value) + 1


# what it costs


def descent(center, **settings):
    return int(polish(at(center), BASELINE, **settings).gradients)


def test_a_minimum_costs_one_gradient_and_a_descent_ends_where_nothing_is_left_to_gain():
    """The centre given is no minimum of the potential unless its prior pulls nowhere; iterations are the most."""
    assert descent(ORIGIN) == 1
    far = displaced(0.3 * DIMENSION)[0]
    enough = descent(far)
    assert 10 < enough < 300
    # what comes after it is not seen: a tenth of a per mille of λ = 1/2
    shifts = [float(polish(at(far), BASELINE, iterations=most).shift) for most in (enough // 4, enough, 3000)]
    np.testing.assert_allclose(shifts[1:], 0.3 * DIMENSION, atol=5e-5 * DIMENSION)
    assert abs(shifts[0] - 0.3 * DIMENSION) > 5e-5 * DIMENSION, "a shorter descent would not have been enough"
    assert descent(far, iterations=7) == 7
