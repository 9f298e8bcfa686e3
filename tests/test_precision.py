"""Single precision is enough: an excess of a ten-millionth of the loss is measured as double precision measures it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import deviation

import slt_jax as slt
from slt_jax import posterior as posteriors

RNG = np.random.default_rng(0)
EXAMPLES, PARAMETERS = 2000, 6
#: Over a loss of about 1000 nats, draws have an excess of λ / nβ = 1e-4: a ten-millionth.
BASELINE, NBETA = 1000.0, 3e4
INPUTS = RNG.normal(size=(EXAMPLES, PARAMETERS)).astype(np.float32)
#: What no weights can explain: targets to which the inputs are orthogonal.
TARGETS = RNG.uniform(0.8, 1.2, size=EXAMPLES) * RNG.choice([-1.0, 1.0], size=EXAMPLES)
TARGETS -= INPUTS @ np.linalg.lstsq(INPUTS, TARGETS, rcond=None)[0]
TARGETS = (TARGETS * math.sqrt(2 * BASELINE / np.mean(TARGETS**2))).astype(np.float32)
CURVATURE = np.linalg.eigvalsh(INPUTS.T.astype(np.float64) @ INPUTS / EXAMPLES)
GAMMA = 1e-4 * NBETA
EXACT = float(0.5 * np.sum(NBETA * CURVATURE / (NBETA * CURVATURE + GAMMA)))
#: Where chains are: about draws of the posterior, which is a normal law.
POINTS = (RNG.normal(size=(32, PARAMETERS)) / math.sqrt(NBETA)).astype(np.float32)


def answers(weights, batch):
    return batch["inputs"] @ weights


def loss_fn(weights, batch):
    return 0.5 * (answers(weights, batch) - batch["targets"]) ** 2


def problem(dtype, reference):
    """The same numbers, exactly those of single precision, in either."""
    data = {"inputs": jnp.asarray(INPUTS, dtype), "targets": jnp.asarray(TARGETS, dtype)}
    weights = jnp.zeros(PARAMETERS, dtype)
    if reference == "self":
        return slt.self_reference(answers, weights, data)
    return slt.Problem(loss_fn, weights, data)


def seen(dtype, reference="loss"):
    """Excess, paired as the library does it, and as a difference of two means, at every point."""
    given = problem(dtype, reference)
    posterior = slt.localise(*given, nbeta=NBETA, gamma=GAMMA)
    batch = slt.full_batch(posterior, given.data)
    points = jnp.asarray(POINTS, dtype)
    found = jax.jit(jax.vmap(lambda z: posteriors.evaluate(posterior, z, batch)))(points)
    assert found.excess.dtype == dtype
    return np.asarray(found.excess, np.float64), np.asarray(found.loss - jnp.mean(posterior.center_losses), np.float64)


def in_double(function, *arguments):
    with jax.enable_x64(True):
        return function(jnp.float64, *arguments)


def rounding():
    """Standard deviation of the error of a mean of differences: residuals and losses are off by up to half a unit."""
    unit = lambda size: np.spacing(np.float32(np.abs(size))).astype(np.float64) / math.sqrt(12)  # noqa: E731
    variance = (TARGETS * unit(TARGETS)) ** 2 + 2 * unit(0.5 * TARGETS**2) ** 2
    return math.sqrt(np.mean(variance) / EXAMPLES)


def test_a_draw_keeps_its_excess_though_it_is_a_ten_millionth_of_the_loss():
    exact, _ = in_double(seen)
    paired, apart = seen(jnp.float32)
    assert 5e-8 < exact.mean() / BASELINE < 2e-7
    assert 5 * rounding() < 0.1 * exact.mean()
    assert np.abs(paired - exact).max() < 5 * rounding()
    # the difference of two means, each rounded once more
    assert np.abs(apart - exact).max() > 20 * rounding()


def test_a_draw_measured_against_the_networks_own_answers_keeps_all_of_single_precision():
    exact, _ = in_double(seen, "self")
    paired, _ = seen(jnp.float32, "self")
    np.testing.assert_allclose(paired, exact, rtol=1e-6)
    over_the_baseline, _ = seen(jnp.float32)
    assert np.abs(over_the_baseline / exact - 1).max() > 1e-6


def measured(dtype):
    given = problem(dtype, "loss")
    settings = dict(nbeta=NBETA, gamma=GAMMA, chains=4, draws=2000, burnin=1000)
    estimate = slt.llc(jax.random.key(0), *given, **settings)
    assert estimate.value.dtype == dtype
    assert bool(estimate.health.ok), estimate.explain()
    return float(estimate.value), float(estimate.std_error)


def test_the_coefficient_in_single_precision_is_that_in_double():
    (double, double_error), (single, single_error) = in_double(measured), measured(jnp.float32)
    assert deviation(single, math.hypot(single_error, double_error), double) < 3
    for value, error in ((single, single_error), (double, double_error)):
        assert deviation(value, error, EXACT) < 4


@pytest.mark.parametrize("batch_size", [None, 50])
@pytest.mark.parametrize("weights", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("losses", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_parameters_and_losses_may_be_of_any_precision(weights, losses, batch_size):
    """Traced only: the estimate is in the precision of the loss, or single where that is less."""

    def loss(params, batch):
        return loss_fn(params, batch).astype(losses)

    with jax.enable_x64(True):
        given = problem(jnp.float32, "loss")
        settings = dict(chains=4, draws=20, burnin=20, batch_size=batch_size)
        key, params = jax.random.key(0), given.params.astype(weights)
        estimate = jax.eval_shape(lambda w: slt.llc(key, loss, w, given.data, **settings), params)
        assert estimate.value.dtype == jnp.promote_types(losses, jnp.float32)
