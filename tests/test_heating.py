"""The heat of batches where chains are: anchors follow them along flat directions, and only there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import deviation

import slt_jax as slt
from slt_jax.estimators import block, heating, planning
from slt_jax.posterior import full_batch, with_control_variates

DRAW = np.random.default_rng(0)
INPUTS = jnp.asarray(DRAW.normal(size=(200, 3)).astype(np.float32))
NOISY = INPUTS @ jnp.ones(3) + jnp.asarray(DRAW.normal(size=200).astype(np.float32))
DATA = (INPUTS, NOISY)
BATCH = 10
BEST = jnp.linalg.solve(INPUTS.T @ INPUTS, INPUTS.T @ NOISY)
KEYS = jax.random.split(jax.random.key(1), 8)


def stiff(w, batch):
    """A regression: no direction is flat."""
    return 0.5 * (batch[0] @ w - batch[1]) ** 2


def scaled(w, batch):
    """The same with a factor to spare: ``(w s, b / s)`` has one loss for all ``s``, but not one gradient."""
    return 0.5 * (w["b"] * (batch[0] @ w["w"]) - batch[1]) ** 2


def around(loss_fn, center):
    return with_control_variates(slt.localise(loss_fn, center, DATA, 100.0, 0.01), DATA)


def feel(posterior, points, began, follows=True):
    """``heating.feel`` for every chain together, on many pairs of batches."""
    found = jax.vmap(
        lambda key: heating.feel(
            key,
            points,
            began,
            posterior=posterior,
            data=DATA,
            batch=full_batch(posterior, DATA),
            batch_size=BATCH,
            follows=follows,
        )
    )(KEYS)
    return float(found[0].mean()), np.asarray(found[1]), float(found[2].mean())


def test_the_heat_is_the_trace_of_the_covariance_in_units_of_the_coefficient():
    """``(nβ)² tr Σ / 8`` by hand, from the gradients of all examples; per example it would be ten times as much."""
    posterior = around(stiff, BEST)
    z = jnp.array([[0.2, -0.1, 0.3]])
    per_example = INPUTS * jnp.outer(INPUTS @ z[0], jnp.ones(3))  # the residuals at the centre cancel
    exact = 100.0**2 * float(jnp.sum(jnp.var(per_example, axis=0))) / BATCH / 8
    many = jnp.broadcast_to(z, (100, 3))
    found, _, energy = feel(posterior, many, jnp.zeros_like(many), follows=False)
    assert found == pytest.approx(exact, rel=0.1)
    assert found != pytest.approx(BATCH * exact, rel=0.1)
    assert energy == pytest.approx(100.0 * 0.5 * float(jnp.mean((INPUTS @ z[0]) ** 2)), rel=1e-3)


def test_anchors_follow_along_a_flat_direction_and_stay_where_there_is_none():
    posterior = around(scaled, {"w": BEST, "b": jnp.float32(1.0)})
    shifts = jnp.linspace(2.0, 3.0, 4)

    def moved(scale):
        return {"w": jnp.outer(scale - 1, BEST), "b": 1 / scale - 1}

    here, there = moved(shifts), moved(1.02 * shifts)
    followed, follows, _ = feel(posterior, here, there)
    central, never, _ = feel(posterior, here, there, follows=False)
    assert follows.all()
    assert not never.any()
    assert followed < 0.05 * central
    # between equilibrium draws of stiff directions alone an anchor on the chain is noisier than the centre
    posterior = around(stiff, BEST)
    draws = 0.1 * jax.random.normal(jax.random.key(2), (2, 64, 3))
    quiet, follows, _ = feel(posterior, draws[0], draws[1])
    central, _, _ = feel(posterior, draws[0], draws[1], follows=False)
    assert follows.mean() < 0.5
    assert quiet <= central


def test_an_anchor_is_moved_only_where_that_costs_no_more_than_the_steps():
    assert heating.can_follow(1000, 50, 20)
    assert not heating.can_follow(1001, 50, 20)


def test_chains_that_drift_stay_cool_because_their_anchors_follow():
    """Far out along the flat direction; around the centre the same chains ask for much smaller steps."""
    posterior = around(scaled, {"w": BEST, "b": jnp.float32(1.0)})
    out = {"w": jnp.broadcast_to(2 * BEST, (1, 3, 3)), "b": jnp.full((1, 3), -2 / 3)}  # s = 3

    def run(following):
        warm = block.start(jax.random.key(3), posterior, DATA, 3, BATCH)
        begun = jax.tree.map(jnp.copy, out)  # a run uses up the states that it is given
        warm = warm._replace(state=warm.state._replace(position=begun), began=out, fresh=jnp.asarray(False))
        todo = planning.plan(3, 5, 5, 500)
        return block.run(jax.random.key(4), posterior, DATA, warm, todo, 100, 1, BATCH, following)[2]

    followed, central = run(True), run(False)
    assert np.isfinite(followed.heat).all()
    assert (np.asarray(followed.heat)[5:] > 0).all()
    assert float(followed.heat[5:].mean()) < 0.5 * float(central.heat[5:].mean())
    assert float(followed.step_size[-1, 0]) > 1.5 * float(central.step_size[-1, 0])
    # the step of all draws is one
    np.testing.assert_array_equal(followed.step_size[5:], followed.step_size[-1:].repeat(5, axis=0))


def test_a_block_that_goes_on_takes_its_step_from_the_heat_it_is_given():
    used = planning.plan(4, 5, 5, 1000)._replace(step_size=jnp.full((10, 2), 0.5))
    plain, heated = planning.going_on(used, 4), planning.going_on(used, 4, 7.0)
    assert np.isnan(plain.heat).all()
    assert plain.settled.all()
    assert np.isnan(heated.step_size).all()
    assert (heated.heat == 7.0).all()
    assert heated.known.tolist() == [False] + 9 * [True], "the curvature is looked at where the chains are by now"
    assert heated.settled.all(), "draws count from the first on"


def test_on_batches_the_coefficient_of_a_regression_is_exact_beyond_its_heat(key):
    """Eight seeds together: the mean is right to a fraction of the error of one, the uncorrected mean is higher."""
    posterior = slt.localise(stiff, BEST, DATA, 100.0, 0.01)
    curvatures = np.linalg.eigvalsh(np.asarray(INPUTS.T @ INPUTS) / 200)
    exact = 0.5 * np.sum(100 * curvatures / (100 * curvatures + 0.01))
    settings = {"nbeta": posterior.nbeta, "gamma": posterior.gamma, "batch_size": BATCH, "draws": 1000, "burnin": 500}
    found = jax.jit(
        jax.vmap(lambda k: slt.llc(k, stiff, BEST, DATA, **settings)._replace(settings=None)), static_argnums=()
    )(jax.random.split(key, 8))
    error = float(jnp.sqrt(jnp.mean(found.std_error**2) / 8))
    assert deviation(found.value.mean(), error, exact) < 4
    taken = np.asarray(found.health.energy - found.value)
    np.testing.assert_allclose(taken, found.health.heating * found.health.energy, rtol=1e-3)
    assert (taken > 0).all()
