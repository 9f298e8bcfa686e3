"""The law of a ladder's replicas, without control variates: moments of a quadratic, and of a crossing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import slt_jax as slt
from slt_jax import diagnostics
from slt_jax.ladder import exchange, measure
from slt_jax.ladder.measure import Size
from slt_jax.ladder.moves import NUMBERS, between_halves, between_rungs, proposed

CURVATURES = np.array([1.0, 0.01])
NO_DATA = jnp.zeros((100, 0))
NBETAS = 1e4 * 2.0 ** -np.arange(5, -1, -1)


def quadratic(weights, batch):
    del batch
    return 0.5 * jnp.sum(jnp.asarray(CURVATURES, jnp.float32) * weights**2)


@pytest.fixture(scope="module")
def record():
    posterior = slt.localise(quadratic, jnp.zeros(2), NO_DATA, gamma=1.0, nbeta=1.0)
    ladder = measure.measure(
        jax.random.key(0), posterior, NO_DATA, jnp.asarray(NBETAS, jnp.float32), Size(16, 3000, 3, 2)
    )
    return jax.tree.map(np.asarray, ladder.record)


def errors_from(draws, exact):
    """By how many of its errors the mean of draws ``(rung, chain, draw)`` misses, on each rung."""
    error = jax.vmap(diagnostics.mcse)(jnp.asarray(draws))
    return np.abs(np.mean(draws, axis=(1, 2)) - exact) / np.asarray(error)


def test_every_direction_has_its_share_on_every_rung(record):
    """Equipartition of each entry alone: a stiff one that is too warm hides behind a soft one in their sum."""
    for entry in (0, 1):
        assert errors_from(record.work[..., entry] + record.pull[..., entry], 1.0).max() < 4


def test_energies_have_their_mean_and_their_spread(record):
    constants = NBETAS[:, None] * CURVATURES[None, :]
    shares = constants / (constants + 1)
    energy = NBETAS[:, None, None] * record.excess
    assert errors_from(energy, 0.5 * shares.sum(axis=1)).max() < 4
    spread = (energy - energy.mean(axis=(1, 2), keepdims=True)) ** 2
    assert errors_from(spread, 0.5 * (shares**2).sum(axis=1)).max() < 4


def test_logarithms_of_the_entries_have_theirs(record):
    # E log |z| of a standard normal number is -(log 2 + Euler's constant) / 2
    exact = -0.5 * np.log(NBETAS[:, None] * CURVATURES[None, :] + 1) - 0.5 * (np.log(2) + np.euler_gamma)
    for entry in (0, 1):
        assert errors_from(record.contact[..., entry], exact[:, entry]).max() < 4


def test_neighbours_change_places_and_never_with_nobody(record):
    rate = np.nanmean(record.swapped[:-1], axis=(1, 2))
    assert ((rate > 0.2) & (rate < 0.95)).all()
    assert np.isnan(record.swapped[-1]).all()


def test_who_leaps_and_whose_difference_it_takes_never_move_together():
    for rungs in (3, 4, 5, 8):
        for time in range(3):
            first, other, allowed = between_rungs(rungs, 2, time)
            moving = np.flatnonzero(np.asarray(allowed[1]))
            sources = {*np.asarray(first[1])[moving].tolist(), *np.asarray(other[1])[moving].tolist()}
            assert moving.size
            assert not sources & set(moving.tolist())
    first, other, allowed = between_halves(jax.random.uniform(jax.random.key(0), (2, 7)))
    for move in (1, 2):
        moving = np.flatnonzero(np.asarray(allowed[move]))
        assert not {*np.asarray(first[move])[moving].tolist()} & set(moving.tolist())


def test_a_leap_goes_either_way_as_often():
    """Were it never proposed backwards it would not leave its law as it is."""
    u = jax.random.uniform(jax.random.key(1), (4000, NUMBERS))
    moved = jax.vmap(lambda u: proposed(jnp.asarray(False), u, jnp.zeros(1), jnp.ones(1), jnp.zeros(1))[0])(u)
    assert abs(np.sign(np.asarray(moved)).mean()) < 4 / 4000**0.5


def test_a_stretch_knows_its_change_of_volume():
    z = {"a": jnp.array([0.5, -2.0]), "b": jnp.array([3.0])}
    for seed in range(20):
        u = jax.random.uniform(jax.random.key(seed), (NUMBERS,))

        def go(flat, u=u):
            there, _ = proposed(jnp.asarray(True), u, {"a": flat[:2], "b": flat[2:]}, z, z)
            return jnp.concatenate([there["a"], there["b"]])

        flat = jnp.array([0.5, -2.0, 3.0])
        _, log_volume = proposed(jnp.asarray(True), u, z, z, z)
        exact = np.linalg.slogdet(np.asarray(jax.jacobian(go)(flat), np.float64))[1]
        assert abs(float(log_volume) - exact) < 1e-4


def test_long_trajectories_come_as_often_as_they_are_counted():
    assert exchange.gradients(20, 3, 2) == sum(3 * int(exchange.length(time)) + 2 for time in range(20))
    assert exchange.gradients(20, 1, 0) == 20 + 4 * 3 + 15
