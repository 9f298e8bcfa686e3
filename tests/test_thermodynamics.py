"""Free energies, criteria and competing phases against linear regression, where all of them are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import slt_jax as slt
from slt_jax.ladder import Phase, compete

COUNT, GAMMA = 60, 2.0
_GENERATOR = np.random.default_rng(0)
INPUTS = _GENERATOR.normal(size=(COUNT, 2))
TARGETS = INPUTS @ np.array([1.0, -0.5]) + _GENERATOR.normal(size=COUNT)
BEST = np.linalg.solve(INPUTS.T @ INPUTS, INPUTS.T @ TARGETS)
DATA = (jnp.asarray(INPUTS, jnp.float32), jnp.asarray(TARGETS, jnp.float32))


def loss_fn(weights, batch):
    inputs, targets = batch
    return 0.5 * (inputs @ weights - targets) ** 2


def quadratic(weights, batch):
    del batch
    return 0.5 * jnp.sum(weights**2)


def residuals():
    return INPUTS @ BEST - TARGETS


def precision():
    """Of the posterior at ``β = 1``, whose prior is centred at the minimum."""
    return INPUTS.T @ INPUTS + GAMMA * np.eye(2)


@pytest.fixture(scope="module")
def free():
    return slt.free_energy(jax.random.key(0), loss_fn, jnp.asarray(BEST, jnp.float32), DATA, gamma=GAMMA)


def test_the_free_energy_of_a_regression(free):
    exact = 0.5 * np.sum(residuals() ** 2) + 0.5 * np.linalg.slogdet(precision() / GAMMA)[1]
    assert free.ok
    assert abs(free.value - exact) < 4 * free.std_error
    assert abs(free.integrated - exact) < 4 * free.integrated_error + 0.01
    assert free.std_error < 0.05
    assert free.energy == pytest.approx(0.5 * np.sum(residuals() ** 2), rel=1e-5)
    # the energy alone is not it
    assert abs(free.energy - exact) > 20 * free.std_error


def test_waic_and_the_singular_fluctuation_of_a_regression():
    found = slt.waic(jax.random.key(1), loss_fn, jnp.asarray(BEST, jnp.float32), DATA, gamma=GAMMA)
    spread = np.einsum("ij,jk,ik->i", INPUTS, np.linalg.inv(precision()), INPUTS)
    # ℓ = (r + e)²/2 with e normal of variance s: Var = r² s + s²/2
    variance = np.sum(residuals() ** 2 * spread + 0.5 * spread**2)
    training = np.mean(0.5 * np.log1p(spread) + 0.5 * residuals() ** 2 / (1 + spread))
    assert bool(found.ok)
    assert abs(found.singular_fluctuation - 0.5 * variance) < 4 * found.fluctuation_error
    assert abs(found.training_loss - training) < 4 * found.std_error
    assert abs(found.value - training - variance / COUNT) < 4 * found.std_error
    assert found.fluctuation_error < 0.1 * found.singular_fluctuation
    assert found.value > found.training_loss


def test_wbic_is_the_energy_and_lambda_log_n():
    estimate = slt.wbic(jax.random.key(2), quadratic, jnp.zeros(10), jnp.zeros((1000, 0)))
    exact = 10 / 2 * np.log(1000)
    assert abs(float(estimate.value) - exact) < 4 * float(estimate.std_error)
    assert bool(estimate.health.ok)
    # from a centre off its minimum it is that of the minimum: the same draws, counted from where they are
    moved = slt.wbic(jax.random.key(2), quadratic, jnp.full(10, 0.05), jnp.zeros((1000, 0)))
    assert bool(moved.settings.polished)
    assert abs(float(moved.value) - exact) < 4 * float(moved.std_error)
    with pytest.raises(ValueError, match="reference: given"):
        slt.wbic(jax.random.key(2), quadratic, jnp.zeros(10), jnp.zeros((1000, 0)), reference="self")
    with pytest.raises(ValueError, match="nbeta: given"):
        slt.wbic(jax.random.key(2), quadratic, jnp.zeros(10), jnp.zeros((1000, 0)), nbeta=3.0)


def test_heat_capacity_needs_no_minimum():
    """Two units off the minimum the excess is negative on average, and λ̂ from it useless; C is not."""
    start = jnp.array([0.3, 0.0])
    settings = dict(gamma=1e-3, nbeta=1e4, draws=300)
    found = slt.heat_capacity(jax.random.key(3), quadratic, start, jnp.zeros((1000, 0)), **settings)
    assert abs(found.value - 1.0) < 4 * found.std_error + 0.01
    assert float(jnp.mean(found.per_chain)) < -100
    assert not bool(found.health.checks["minimum"])


def test_two_phases_cross_where_their_free_energies_do():
    simple, accurate = Phase(0.05, 1e-3, 3.0, 0.05), Phase(0.04, 1e-3, 5.0, 0.05)
    found = compete(simple, accurate)
    assert found.winner == "second"
    assert abs(0.01 * found.n - 2 * np.log(found.n)) < 1e-6
    assert found.low < found.n < found.high
    turned = compete(accurate, simple)
    assert turned.winner == "first"
    assert turned.n == pytest.approx(found.n)


def test_a_phase_that_is_simpler_and_more_accurate_never_loses():
    found = compete(Phase(0.05, 0.0, 3.0, 0.0), Phase(0.06, 0.0, 5.0, 0.0))
    assert np.isnan(found.n)
    assert found.winner == "first"
    assert found.certainty == 0


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="finite"):
        compete(Phase(np.nan, 0.0, 3.0, 0.0), Phase(0.06, 0.0, 5.0, 0.0))
    arguments = (jax.random.key(0), quadratic, jnp.zeros(2), jnp.zeros((10, 0)))
    with pytest.raises(ValueError, match="gamma: got 0"):
        slt.free_energy(*arguments, gamma=0.0)
    with pytest.raises(ValueError, match="nbeta"):
        slt.free_energy(*arguments, nbeta=-1.0)
    with pytest.raises(ValueError, match="returns a mean"):
        slt.waic(*arguments)
    with pytest.raises(ValueError, match="inside jit"):
        jax.jit(lambda params: slt.free_energy(arguments[0], quadratic, params, arguments[3]).value)(jnp.zeros(2))
