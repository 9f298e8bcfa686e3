"""Noise is noise: its moments, its independence, and what each kind of it does to the law of a chain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import slt_jax as slt
from slt_jax.noise import compact, exact_normal, normal, signs


@pytest.mark.parametrize(("noise", "kurtosis"), [(normal, 3.0), (signs, 1.0), (exact_normal, 3.0)])
def test_noise_is_standard_and_independent_across_entries_and_leaves(noise, kurtosis):
    keys = jax.random.split(jax.random.key(1), 20_000)
    draws = jax.vmap(lambda k: noise(k, {"x": jnp.zeros(2), "y": jnp.zeros((1, 2))}))(keys)
    flat = np.concatenate([np.asarray(draws["x"]), np.asarray(draws["y"])[:, 0]], axis=1)
    count = len(flat)
    assert np.all(np.abs(flat.mean(axis=0)) < 4 / np.sqrt(count))
    assert np.all(np.abs(flat.T @ flat / count - np.eye(4)) < 4 * np.sqrt((1 + np.eye(4)) / count))
    assert np.all(np.abs((flat**4).mean(axis=0) - kurtosis) < 4 * np.sqrt(96 / count))
    # by squares too: entries that share a word of random bits share nothing
    squares = flat**2 - 1
    across = squares.T @ squares / count
    assert np.all(np.abs(across - np.diag(np.diag(across))) < 4 * 2 / np.sqrt(count))
    # the control: one draw repeated in both leaves fails the same bound
    doubled = np.concatenate([flat[:, :2], flat[:, :2]], axis=1)
    assert not np.all(np.abs(doubled.T @ doubled / count - np.eye(4)) < 4 * np.sqrt((1 + np.eye(4)) / count))


def test_noise_depends_on_the_key_alone():
    shapes = {"x": jnp.zeros((3, 2))}
    first = normal(jax.random.key(3), shapes)["x"]
    again = jax.jit(normal)(jax.random.key(3), shapes)["x"]
    other = normal(jax.random.key(4), shapes)["x"]
    np.testing.assert_allclose(first, again, rtol=1e-6)
    assert not np.any(np.asarray(first) == np.asarray(other))


def test_the_moments_that_weak_order_two_asks_for_are_exact():
    """Over all levels that there are, not over draws."""
    levels = np.unique(np.asarray(normal(jax.random.key(0), jnp.zeros(100_000)), np.float64))
    assert len(levels) == 256
    moments = [np.mean(levels**power) for power in (1, 2, 3, 4, 5)]
    np.testing.assert_allclose(moments, [0, 1, 0, 3, 0], atol=1e-6)
    # the control: signs have the second moment and not the fourth
    assert np.mean(np.array([-1.0, 1.0]) ** 4) != 3


@pytest.mark.parametrize("noise", [normal, signs, exact_normal])
@pytest.mark.parametrize("generator", ["threefry2x32", "rbg"])
def test_any_generator_serves(noise, generator):
    drawn = noise(jax.random.key(0, impl=generator), {"x": jnp.zeros(4001), "y": jnp.zeros((3, 333))})
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(drawn)])
    assert abs(flat.mean()) < 4 / np.sqrt(flat.size)
    assert abs(flat.var() - 1) < 4 * np.sqrt(2 / flat.size)


def loss_fn(weights, batch):
    return 0.5 * jnp.sum(jnp.array([1.0, 0.1]) * weights**2) * jnp.ones_like(batch)


@pytest.fixture(scope="module")
def posterior():
    return slt.localise(loss_fn, jnp.zeros(2), jnp.zeros(100), nbeta=100.0, gamma=0.0)


def chain(posterior, sampler):
    sizes = {"draws": 4000, "chains": 32, "burnin": 400, "thin": 4}
    trace = slt.sample(jax.random.key(1), sampler, posterior, jnp.zeros(100), observe=lambda w: w, **sizes)
    return np.asarray(trace.observables, np.float64)


SAMPLERS = {
    "sgld": lambda noise: slt.samplers.sgld(5e-3, noise=noise),
    "underdamped": lambda noise: slt.samplers.underdamped(0.1, noise=noise),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("noise", [normal, signs])
def test_the_stationary_variance_is_exact_with_either_noise(posterior, name, noise):
    draws = chain(posterior, SAMPLERS[name](noise))
    exact = 1 / (100.0 * np.array([1.0, 0.1]))
    by_chain = (draws**2).mean(axis=1)
    error = by_chain.std(axis=0, ddof=1) / np.sqrt(len(by_chain))
    assert np.all(np.abs(by_chain.mean(axis=0) - exact) < 4 * error)
    # the control: the error bars would notice five per cent of variance in the stiff direction
    assert abs(1.05 * by_chain.mean(axis=0)[0] - exact[0]) > 4 * error[0]


def test_signs_show_in_fourth_moments_at_large_steps_and_normal_noise_does_not(posterior):
    """At ``ε a = 2`` the drift takes ``z`` to 0: it is ``√ε (ξ + ξ') / 2``, of kurtosis 2 with signs and 3 else."""
    for noise, kurtosis in ((signs, 2.0), (normal, 3.0)):
        stiff = chain(posterior, slt.samplers.sgld(2e-2, noise=noise))[..., 0]
        found = (stiff**4).mean(axis=1) / (stiff**2).mean() ** 2
        error = found.std(ddof=1) / np.sqrt(len(found))
        assert abs(found.mean() - kurtosis) < 4 * error
        assert abs(found.mean() - (5 - kurtosis)) > 4 * error


@pytest.mark.parametrize(("noise", "size"), [(normal, 1), (signs, 1), (exact_normal, 4)])
def test_noise_in_two_parts_is_the_noise(noise, size):
    like = {"x": jnp.zeros((3, 5)), "y": jnp.zeros(7, jnp.bfloat16), "z": jnp.zeros(())}
    draw, values = compact(jax.tree_util.Partial(noise))
    kept = draw(jax.random.key(2), like)
    assert kept["x"].dtype.itemsize == size
    for whole, part in zip(
        jax.tree.leaves(noise(jax.random.key(2), like)), jax.tree.leaves(values(kept, like)), strict=True
    ):
        assert part.dtype == whole.dtype
        np.testing.assert_array_equal(np.asarray(part, np.float32), np.asarray(whole, np.float32))
