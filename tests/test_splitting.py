"""Volumes by multilevel splitting against quadrature, and without any moves; against a ladder: test_density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, gammainc

from slt_jax.ladder import splitting
from slt_jax.ladder.constrained import FIRST, ROUND, Members, wander
from slt_jax.posterior import full_batch, localise

NOTHING = jnp.zeros((1, 0))
#: One grid in ``log |x|`` serves all quadratures; ``2 φ(x) dx`` on it.
LOGS = np.linspace(-60, 2.5, 100001)
SIDE = np.exp(LOGS)
LAW = 2 / np.sqrt(2 * np.pi) * np.exp(-(SIDE**2) / 2) * SIDE * (LOGS[1] - LOGS[0])


def square(w, _):
    return jnp.sum(w**2)


def family(w, example):
    """One program for three losses: lines that cross, turned by ``example[0]``, and ``x² + y⁴``."""
    turn, unequal = example[..., 0], example[..., 1]
    lines = (w[0] + turn * w[1]) ** 2 * (w[1] - turn * w[0]) ** 2
    return jnp.where(unequal > 0, w[0] ** 2 + w[1] ** 4, lines)


CROSSING, TURNED, CUSP = (jnp.array([case]) for case in ([0.0, 0.0], [0.5, 0.0], [0.0, 1.0]))


def of_interval(epsilon):
    """``P(x² < ε) = erf(√(ε/2))``."""
    return np.log(erf(np.sqrt(epsilon / 2)))


def of_crossing(epsilon):
    """``P(|x y| < √ε) = ∫ φ(x) erf(√ε / √2|x|) dx``."""
    return np.array([np.log(LAW @ erf(np.sqrt(e / 2) / SIDE)) for e in np.atleast_1d(epsilon)])


def of_turned_crossing(epsilon):
    """Both factors are independent and √1.25 as wide as a standard normal one."""
    return of_crossing(epsilon / 1.25**2)


def of_cusp(epsilon):
    return np.array([np.log(LAW @ erf(np.sqrt(np.maximum(e - SIDE**4, 0) / 2))) for e in np.atleast_1d(epsilon)])


def of_ball(epsilon):
    return np.log(gammainc(2.5, epsilon / 2))


def fell(data, seed=0, **settings):
    return splitting(jax.random.key(seed), family, jnp.zeros(2), data, gamma=1.0, **settings)


def fell_to_the_bottom(dimension, seed=0, center=0.0, **settings):
    """On ``|z|²``."""
    center = jnp.full(dimension, center)
    return splitting(jax.random.key(seed), square, center, NOTHING, gamma=1.0, live=128, **settings)


@pytest.fixture(scope="module")
def crossed():
    return fell(CROSSING)


def agrees(found, exact):
    """Within 4.5 reported errors at all points, and not closer than errors are."""
    off = (found.log_volume - exact(np.exp(found.log_epsilon))) / np.maximum(found.log_volume_error, 1e-4)
    assert np.abs(off).max() < 4.5
    assert np.abs(off).max() > 0.1
    assert found.ok, found.explain()


def test_an_interval():
    found = fell_to_the_bottom(1)
    agrees(found, of_interval)
    assert abs(found.conductance[0] - 0.5) < 4 * found.conductance_error[0]
    assert found.log_epsilon[0] == pytest.approx(np.log(1e-12))
    assert (np.diff(found.log_volume) >= 0).all()
    assert found.log_volume[-1] == pytest.approx(0.0, abs=1e-12)
    assert found.evaluations == 16 * 128 * (1 + found.levels * 3 * len(ROUND))


def test_two_lines_that_cross(crossed):
    agrees(crossed, of_crossing)
    epsilon = np.exp(crossed.log_epsilon)
    exact = of_crossing(epsilon * np.exp(0.5)) - of_crossing(epsilon * np.exp(-0.5))
    off = (crossed.conductance - exact)[:40] / crossed.conductance_error[:40]
    assert np.sqrt(np.mean(off**2)) < 1.6
    # the exponent is 1/2 with multiplicity 2: λ - (m - 1) / log(1/ε) and what is constant beside the logarithm
    slope = np.polyfit(
        crossed.log_epsilon[:44:2], crossed.log_volume[:44:2] - np.log(3 - crossed.log_epsilon[:44:2]), 1
    )
    assert slope[0] == pytest.approx(0.5, abs=0.02)


def test_a_wrong_law_is_told_apart(crossed):
    with pytest.raises(AssertionError):
        agrees(crossed, lambda epsilon: of_crossing(1.3 * epsilon))


def test_lines_that_cross_along_no_axis():
    agrees(fell(TURNED), of_turned_crossing)


def test_unequal_orders():
    found = fell(CUSP)
    agrees(found, of_cusp)
    assert abs(found.conductance[0] - 0.75) < 4 * found.conductance_error[0]


def test_a_ball_in_five_dimensions():
    agrees(fell_to_the_bottom(5, depth=1e-2), of_ball)


def test_intervals_hold_what_they_say():
    held = []
    for seed in range(30):
        found = fell_to_the_bottom(1, seed, depth=1e-2)
        low, high = found.interval
        held.append((low[0] <= of_interval(1e-2)) & (of_interval(1e-2) <= high[0]))
    assert 0.85 <= np.mean(held) <= 1.0


def test_without_moves_it_is_wrong_and_says_so():
    found = fell(CROSSING, depth=1e-6, moves=0)
    assert not found.ok
    assert found.collapsed.any() or not found.reached
    assert "UNHEALTHY" in found.explain()
    assert found.depth > 1e-6 or abs(found.log_volume[0] - of_crossing(1e-6)[0]) > 0.1


def test_levels_that_do_not_suffice_are_reported():
    found = fell(CROSSING, levels=4)
    assert not found.reached
    assert "raise levels" in found.explain()
    assert found.depth > 1e-12
    assert np.abs(found.log_volume - of_crossing(np.exp(found.log_epsilon))).max() < 0.2


def test_members_below_the_centre_are_reported():
    found = fell_to_the_bottom(1, center=1.0, depth=1e-3)
    assert not found.ok
    assert "no minimum" in found.explain()


def test_moves_leave_the_law_below_a_level_as_it_is(key):
    """Exact draws of the prior below a level, found by rejection, are such draws after the moves."""
    with jax.enable_x64(True):
        posterior = localise(family, jnp.zeros(2), TURNED, gamma=2.0, nbeta=1.0)
        drawn = jax.random.normal(key, (40000, 2)) / np.sqrt(2.0)
        excess = jax.vmap(lambda w: family(w, TURNED)[0])(drawn)
        inside = np.flatnonzero(np.asarray(excess) < 0.02)[:4096]
        before = Members(drawn[inside], excess[inside], jnp.asarray(FIRST))
        batch = full_batch(posterior, TURNED)
        after = jax.jit(wander)(jax.random.key(1), posterior, batch, before, 0.02, jnp.asarray(ROUND * 8))
    for seen in (lambda w: w[:, 0] ** 2, lambda w: w[:, 1] ** 2, lambda w: np.log(np.abs(w).min(axis=1)), product):
        old, new = (seen(np.asarray(members.position)) for members in (before, after))
        error = np.sqrt((old.var() + new.var()) / len(old))
        assert abs(old.mean() - new.mean()) < 4 * error
    assert (np.asarray(after.excess) < 0.02).all()
    assert np.corrcoef(np.log(before.excess), np.log(after.excess))[0, 1] < 0.2


def product(w):
    return w[:, 0] * w[:, 1]


BAD = [
    ({"depth": 0.0}, "depth"),
    ({"depth": True}, "depth"),
    ({"live": 4}, "live"),
    ({"populations": 1}, "populations"),
    ({"moves": -1}, "moves"),
    ({"levels": 2.0}, "levels"),
    ({"gamma": 0.0}, "gamma"),
]


@pytest.mark.parametrize(("settings", "name"), BAD)
def test_what_is_out_of_range_is_refused_by_name(settings, name):
    with pytest.raises(ValueError, match=f"^{name}:"):
        splitting(jax.random.key(0), square, jnp.zeros(1), NOTHING, **{"gamma": 1.0, **settings})


def test_inside_jit_it_is_refused(key):
    with pytest.raises(ValueError, match="inside jit"):
        jax.jit(lambda w: splitting(key, square, w, NOTHING, gamma=1.0))(jnp.zeros(1))


def test_a_loss_that_is_finite_nowhere_is_refused(key):
    with pytest.raises(ValueError, match="finite at no draw"):
        splitting(key, lambda w, _: jnp.where(w[0] == 0, 0.0, jnp.inf), jnp.zeros(1), NOTHING, gamma=1.0, live=64)


def test_a_flat_loss_has_all_of_the_volume(key):
    found = splitting(key, lambda w, _: 0.0 * w[0], jnp.zeros(1), NOTHING, gamma=1.0, live=64, moves=0)
    assert found.reached
    assert (found.log_volume == 0).all()
