"""Influence: exact where the posterior is Gaussian, with errors that cover, and nothing where draws were shuffled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import assert_same, compilations
from regression import (
    CENTER,
    DATA,
    FEATURES,
    GAMMA,
    HELD_OUT,
    HESSIAN,
    NBETA,
    OTHERS,
    TARGETS,
    WEIGHTS,
    loss_covariance,
    loss_fn,
    spread,
)

import slt_jax as slt
from slt_jax.response import pairs

KEY = jax.random.key(0)
TRAIN = FEATURES, TARGETS


def covered(value, std_error, exact) -> float:
    """Share of all numbers that lie within 1.96 of their own errors."""
    return float(np.mean(np.abs(np.asarray(value) - exact) <= 1.96 * np.asarray(std_error)))


@pytest.fixture(scope="module")
def found():
    return slt.influence(KEY, loss_fn, CENTER, DATA, HELD_OUT, nbeta=NBETA, gamma=GAMMA)


def test_half_precision_has_influences_too():
    """At the level of its rounding; the moments of the chain are kept in single precision."""
    half = jnp.asarray(CENTER, jnp.bfloat16)
    settings = dict(nbeta=NBETA, gamma=GAMMA, draws=20, burnin=20, chains=2, sampler=slt.samplers.sgld(1e-4))
    seen = slt.influence(KEY, loss_fn, half, DATA, **settings)
    assert seen.losses.dtype == jnp.float32
    assert bool(jnp.isfinite(seen.losses).all())


# exact answers


def test_every_covariance_of_losses_is_the_gaussian_one_and_the_errors_cover(found):
    exact = loss_covariance(TRAIN, OTHERS, spread())
    measured = found.covariance()
    assert measured.covariance.shape == (40, 12)
    variances = [np.diag(loss_covariance(side, side, spread())) for side in (TRAIN, OTHERS)]
    correlation = exact / np.sqrt(np.outer(*variances))
    # the moments of 16 weights make all of these: too few to count intervals by, with one key
    settings = dict(nbeta=NBETA, gamma=GAMMA)
    keys = jax.random.split(KEY, 3)
    all_of = [measured, *(slt.influence(key, loss_fn, CENTER, DATA, HELD_OUT, **settings).covariance() for key in keys)]
    shares = [covered(one.covariance, one.std_error, exact) for one in all_of]
    assert 0.90 <= np.mean(shares) <= 0.98
    shares = [covered(one.correlation, one.correlation_error, correlation) for one in all_of]
    assert 0.90 <= np.mean(shares) <= 0.98
    # the errors are small enough to tell: half of a covariance is not covered
    strong = np.abs(correlation) > 0.2
    assert covered(measured.covariance[strong], measured.std_error[strong], 0.5 * exact[strong]) < 0.2
    np.testing.assert_array_equal(found.bif(), -measured.covariance)
    assert bool(found.ok), found.explain()
    assert "40 losses with 12 queries at nβ = 100" in found.explain()
    assert "The chains are sound" in found.explain()


def test_at_low_temperature_it_is_the_classical_influence_function():
    nbeta = 1e5
    kernel = slt.influence(KEY, loss_fn, CENTER, DATA, HELD_OUT, nbeta=nbeta, gamma=GAMMA)
    slopes = [(x @ WEIGHTS - y)[:, None] * x for x, y in (TRAIN, OTHERS)]
    classical = slopes[0] @ np.linalg.inv(HESSIAN) @ slopes[1].T / nbeta
    measured = kernel.covariance()
    deviations = np.abs(measured.covariance - classical) / measured.std_error
    assert np.mean(deviations < 3) > 0.98
    assert np.corrcoef(measured.covariance.ravel(), classical.ravel())[0, 1] > 0.99


def test_a_restriction_leaves_the_influence_of_its_own_directions():
    free = np.arange(16) < 5
    first = slt.restriction.mask(CENTER, jnp.asarray(free))
    upper = np.triu_indices(40)
    # the mean of z is 0 in any of its directions at the minimum of all
    exact = loss_covariance(TRAIN, TRAIN, spread(free=slice(0, 5)))
    others = loss_covariance(TRAIN, TRAIN, spread())
    # 15 numbers make all of these covariances: too few to count intervals by, with one key
    shares = []
    for key in jax.random.split(KEY, 3):
        found = slt.influence(key, loss_fn, CENTER, DATA, restriction=first, nbeta=NBETA, gamma=GAMMA).covariance()
        value, error = found.covariance[upper], found.std_error[upper]
        shares.append([covered(value, error, exact[upper]), covered(value, error, others[upper])])
    inside, beside = np.mean(shares, axis=0)
    assert inside > 0.85
    assert beside < 0.3


# one answer, in parts


def test_parts_are_parts_of_the_whole(found):
    whole = found.covariance()
    part = found.covariance([3, 0, 7], [1, 2])
    for piece, leaf in zip(part, whole, strict=True):
        np.testing.assert_allclose(piece, np.asarray(leaf)[[3, 0, 7]][:, [1, 2]], rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(found.column(5).covariance, whole.covariance[:, 5], rtol=1e-4, atol=1e-9)
    nearest = found.top(5, 4)
    order = np.argsort(-np.asarray(whole.correlation[:, 5]))
    assert nearest.entries.tolist() == order[:4].tolist()
    np.testing.assert_allclose(nearest.pairs.covariance, whole.covariance[order[:4], 5], rtol=1e-4)


def test_without_queries_an_example_is_not_its_own_neighbour(found):
    kernel = found._replace(queries=None)
    assert 3 not in kernel.top(3, 39).entries.tolist()
    matrix = np.asarray(kernel.covariance().covariance)
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-4, atol=1e-7)
    assert np.linalg.eigvalsh(matrix.astype(float)).min() > -1e-4 * matrix.max()
    np.testing.assert_allclose(np.diag(kernel.covariance().correlation), 1.0, rtol=1e-4)
    np.testing.assert_allclose(np.diag(kernel.covariance().correlation_error), 0.0, atol=1e-3)


def test_inside_jit_and_with_functions_of_its_own_it_is_the_same(found):
    def go(key, center):
        return slt.influence(key, loss_fn, center, DATA, HELD_OUT, query_loss_fn=loss_fn, nbeta=NBETA, gamma=GAMMA)

    inside = jax.jit(go)(KEY, CENTER)
    measured, outside = (one.covariance() for one in (inside, found))
    # rounding grows along four thousand steps: the same law, not the same draws
    both = np.hypot(measured.std_error, outside.std_error)
    assert covered(measured.covariance, both, np.asarray(outside.covariance)) > 0.9
    assert inside.losses.shape == (16, 500, 40)


def test_one_compilation_serves_every_checkpoint(found):
    key, moved = jax.random.key(1), CENTER + 0.01
    with compilations() as compiled:
        other = slt.influence(key, loss_fn, moved, DATA, HELD_OUT, nbeta=90.0, gamma=2.0)
    assert compiled == []
    assert float(other.nbeta) == 90.0


# tokens


def token_losses(weights, batch):
    return 0.5 * (batch[0] @ weights - batch[1]) ** 2


def test_the_influence_of_an_example_is_the_mean_of_that_of_its_tokens():
    tokens = tuple(leaf.reshape(8, 5, *leaf.shape[1:]) for leaf in DATA)
    short = dict(draws=200, burnin=500, nbeta=NBETA, gamma=GAMMA)
    found = slt.influence(KEY, token_losses, CENTER, tokens, **short)
    assert found.losses.shape == (16, 200, 8, 5)
    # entry 13 is the fourth token of the third example
    assert [int(place) for place in found.place(13)] == [2, 3]
    np.testing.assert_array_equal(found.unflatten(jnp.arange(40)), np.arange(40).reshape(8, 5))
    by_token = np.asarray(found.covariance().covariance).reshape(8, 5, 8, 5)
    means = found._replace(losses=found.losses.mean(axis=-1))
    np.testing.assert_allclose(by_token.mean(axis=(1, 3)), means.covariance().covariance, rtol=1e-3, atol=1e-6)
    exact = loss_covariance(TRAIN, TRAIN, spread())
    measured = found.covariance()
    assert 0.88 <= covered(measured.covariance, measured.std_error, exact) <= 0.99


# the covariance function by itself


def correlated(key, chains, draws, series, memory):
    """Stationary autoregressive series of variance 1."""
    first, steps = jax.random.split(key)
    noise = jax.random.normal(steps, (draws, chains, series)) * np.sqrt(1 - memory**2)
    step = lambda z, xi: (memory * z + xi, z)  # noqa: E731
    return jnp.swapaxes(jax.lax.scan(step, jax.random.normal(first, (chains, series)), noise)[1], 0, 1)


def test_errors_count_what_draws_remember_and_those_of_single_draws_do_not():
    draws = correlated(KEY, 8, 1000, 60, 0.9)
    found = pairs(draws, draws)
    upper = np.triu_indices(60)
    exact = np.eye(60)[upper]
    assert 0.92 <= covered(found.covariance[upper], found.std_error[upper], exact) <= 0.97
    independent = np.sqrt((1 + np.eye(60)) / 8000)[upper]
    assert covered(found.covariance[upper], independent, exact) < 0.6


def test_centring_each_chain_takes_nothing_away():
    """Eight draws of each chain: the covariance of centred draws is low by an eighth, and is not reported so."""
    draws = jax.random.normal(KEY, (64, 8, 400))
    variances = np.diag(np.asarray(pairs(draws, draws).covariance))
    error = variances.std() / 20
    assert abs(variances.mean() - 1) < 4 * error
    assert abs(variances.mean() * 7 / 8 - 1) > 10 * error


def test_shuffled_draws_have_no_covariance(found):
    def shares(queries):
        between = pairs(found.losses, queries)
        return covered(between.covariance, between.std_error, 0.0)

    shuffled = jax.random.permutation(jax.random.key(1), found.queries, axis=1)
    assert 0.90 <= shares(shuffled) <= 0.98
    assert shares(found.queries) < 0.6


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.75, 0.95])
def test_between_two_phases_the_covariance_gains_that_of_a_coin(share):
    """``π (1 - π) Δℓ_i Δℓ_j`` on top of what the losses share within a phase: nothing here."""
    changes = jnp.array([2.0, -1.0, 0.5, 0.0])
    phase_key, noise_key = jax.random.split(jax.random.key(2))
    phase = jax.random.uniform(phase_key, (8, 2000, 1)) < share
    losses = phase * changes[None, None, :] + 0.1 * jax.random.normal(noise_key, (8, 2000, 4))
    found = pairs(losses, losses)
    exact = share * (1 - share) * np.outer(changes, changes) + 0.01 * np.eye(4)
    assert (np.abs(found.covariance - exact) < 4 * found.std_error).all()
    # and least so at the peak: the other shares are told from a half
    peak = 0.25 * np.outer(changes, changes) + 0.01 * np.eye(4)
    assert (abs(found.covariance[0, 0] - peak[0, 0]) > 4 * found.std_error[0, 0]) == (share != 0.5)


def test_what_does_not_vary_correlates_with_nothing_and_a_lost_draw_is_never_skipped():
    draws = jax.random.normal(KEY, (4, 100, 3)).at[:, :, 0].set(7.3)
    found = pairs(draws, draws)
    assert float(jnp.abs(found.covariance[0]).max()) == float(jnp.abs(found.correlation[0]).max()) == 0.0
    assert np.isfinite(np.asarray(found)).all()
    lost = pairs(draws.at[1, 5, 1].set(jnp.nan), draws)
    assert np.isnan(lost.covariance[1]).all()
    assert np.isfinite(np.asarray(lost.covariance)[[0, 2]]).all()
    tiny = pairs(1e-12 * draws, 1e-12 * draws)
    np.testing.assert_allclose(tiny.covariance * 1e24, found.covariance, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(tiny.std_error * 1e24, found.std_error, rtol=1e-4, atol=1e-6)


# the verdict


def test_chains_that_are_too_hot_are_said_to_be():
    hot = slt.samplers.sgld(3 / (NBETA * np.linalg.eigvalsh(HESSIAN)[-1]), averaged_noise=False)
    short = dict(chains=4, draws=100, burnin=100, nbeta=NBETA, gamma=GAMMA)
    found = slt.influence(KEY, loss_fn, CENTER, DATA, sampler=hot, **short)
    assert not bool(found.ok)
    assert "not to be believed (" in found.explain()


def anisotropic(weights, inputs):
    return 0.5 * (inputs @ weights) ** 2


@pytest.mark.parametrize(("condition", "good"), [(1e2, True), (1e6, False)])
def test_losses_that_hang_on_the_slowest_directions_are_not_taken_for_known(condition, good):
    """The mean loss hardly knows of the slow directions: its own verdict is green, and errors come out too small."""
    inputs = np.random.default_rng(0).normal(size=(40, 16)) * np.geomspace(1, condition**-0.5, 16)
    found = slt.influence(KEY, anisotropic, jnp.zeros(16), jnp.asarray(inputs, jnp.float32), nbeta=1e4, gamma=1e-3)
    covariance = np.linalg.inv(1e4 * inputs.T @ inputs / 40 + 1e-3 * np.eye(16))
    exact = 0.5 * (inputs @ covariance @ inputs.T) ** 2
    measured = found.covariance()
    upper = np.triu_indices(40)
    assert bool(found.ok) == good, found.explain()
    assert (covered(measured.covariance[upper], measured.std_error[upper], exact[upper]) > 0.9) == good
    assert ("effective draws of the losses (at least 200)" in found.explain()) == (not good)


# bad input

BAD = {
    "key": (dict(key=0), r"key: got int"),
    "mean loss": (dict(loss_fn=lambda w, x: loss_fn(w, x).mean()), r"loss_fn: got a mean loss of shape \(\)"),
    "queries": (dict(queries=HELD_OUT[0]), r"queries: of the queries, loss_fn: returned shape \(16,\) on data of 12"),
    "query loss": (
        dict(query_loss_fn=lambda w, x: w),
        r"query_loss_fn: of the queries, loss_fn: returned shape \(16,\)",
    ),
    "draws": (dict(draws=3), r"draws: got 3; a covariance with an error needs at least 4"),
    "thin": (dict(thin=0), r"thin: got 0; it must be at least 1"),
    "batch_size": (dict(batch_size=41), r"batch_size: got 41 with 40 examples"),
    "sampler": (dict(sampler=slt.samplers.sgld), r"sampler: got a function; make one first"),
    "nbeta": (dict(nbeta=-1.0), r"nbeta: got -1.0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    settings, message = BAD[case]
    given = dict(key=KEY, loss_fn=loss_fn, params=CENTER, data=DATA) | settings
    with pytest.raises(ValueError, match=message):
        slt.influence(**given)


def test_an_entry_that_is_not_there_is_named(found):
    with pytest.raises(ValueError, match=r"rows: got \[40\] of 40; indices must lie between 0 and 39"):
        found.covariance(rows=[40])
    with pytest.raises(ValueError, match=r"columns: got \[-1\] of 12"):
        found.column(-1)
    with pytest.raises(ValueError, match=r"rows: got \[0.5\]; pass a list of whole numbers below 40"):
        found.covariance(rows=[0.5])
    with pytest.raises(ValueError, match=r"k: got 41 with 40 other entries"):
        found.top(0, 41)
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), found)
    with pytest.raises(ValueError, match=r"explain: got influences of shape \(2,\)"):
        both.explain()
    assert_same(jax.tree.map(lambda leaf: leaf[0], both), found)
