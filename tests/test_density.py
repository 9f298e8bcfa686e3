"""The density of states of normal crossings: volume, conductance, exponent, multiplicity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import slt_jax as slt

NO_DATA = jnp.zeros((100, 0))


def crossing(weights, batch):
    del batch
    return weights[0] ** 2 * weights[1] ** 2


def exact_log_volume(log_epsilon):
    """``P(x² y² < ε)`` for two standard normal numbers, one of them integrated in its logarithm."""
    from scipy.special import erf

    logs = np.linspace(-40, 2.5, 40_001)
    weight = np.exp(logs - 0.5 * np.exp(2 * logs)) * np.sqrt(2 / np.pi)
    reach = np.exp(0.5 * log_epsilon[:, None] - logs[None, :]) / np.sqrt(2)
    return np.log(np.trapezoid(weight * erf(reach), logs, axis=1))


@pytest.fixture(scope="module")
def measured():
    return slt.density_of_states(
        jax.random.key(0), crossing, jnp.zeros(2), NO_DATA, gamma=1.0, depth=1e-12, draws=1000, budget=4_000_000
    )


def test_the_volume_is_that_of_quadrature_and_its_errors_say_so(measured):
    exact = exact_log_volume(measured.log_epsilon)
    off = np.abs(measured.log_volume - exact) / np.maximum(measured.log_volume_error, 1e-3)
    assert off.max() < 4.5
    assert np.median(off) > 0.05
    assert measured.log_volume_error.max() < 0.2
    low, high = measured.interval
    assert (low <= measured.log_volume).all()
    assert (measured.log_volume <= high).all()


def test_splitting_without_temperatures_finds_the_same(measured):
    other = slt.ladder.splitting(jax.random.key(1), crossing, jnp.zeros(2), NO_DATA, gamma=1.0, live=256)
    at = np.arange(np.log(1e-12), 0.0, 2.0)

    def on(found, values):
        return np.interp(at, found.log_epsilon, values)

    off = on(other, other.log_volume) - on(measured, measured.log_volume)
    error = np.hypot(on(other, other.log_volume_error), on(measured, measured.log_volume_error))
    assert (np.abs(off) < 4.5 * error + 0.01).all()


def test_the_volume_grows_with_the_energy_up_to_all_of_the_prior(measured):
    assert (np.diff(measured.log_volume) >= -1e-12).all()
    assert measured.log_volume[-1] == pytest.approx(0.0, abs=1e-6)
    assert measured.log_epsilon[0] == pytest.approx(np.log(1e-12))
    assert measured.reached


def test_the_conductance_is_the_slope_of_the_volume(measured):
    exact = exact_log_volume(measured.log_epsilon + 0.5) - exact_log_volume(measured.log_epsilon - 0.5)
    off = np.abs(measured.conductance - exact) / np.maximum(measured.conductance_error, 5e-3)
    assert off[:-4].max() < 4.5
    # a double pole: still short of 1/2 at the bottom
    assert 0.43 < measured.conductance[:6].mean() < 0.485


def test_exponent_multiplicity_and_contact(measured):
    found = measured.exponent
    assert abs(found.learning_coefficient / 0.5 - 1) < 0.02
    assert abs(found.learning_coefficient - 0.5) < 4 * found.std_error
    assert found.multiplicity in (2, None)
    assert found.weights[1] > 0.5
    assert abs(measured.contact_ratio - 1) < 0.03
    assert measured.evaluations <= 4_000_000
    assert "m = 2" in measured.explain()


def test_nothing_outside_sees_the_double_precision(measured):
    assert measured.log_volume.dtype == np.float64
    assert not jax.config.jax_enable_x64
    assert (jnp.ones(2) * 2).dtype == jnp.float32


def test_a_depth_that_is_not_reached_is_a_verdict():
    def hole(weights, batch):
        """A well so narrow that no chain finds it."""
        del batch
        return 1 - jnp.exp(-0.5 * jnp.sum((weights / 1e-9) ** 2))

    found = slt.density_of_states(
        jax.random.key(1), hole, jnp.zeros(2), NO_DATA, gamma=1.0, depth=1e-2, draws=96, budget=200_000
    )
    assert not found.reached
    assert not found.ok
    assert "was reached" in found.explain()


def test_a_shallow_volume_is_reached_although_nothing_can_be_fitted():
    found = slt.density_of_states(
        jax.random.key(3), crossing, jnp.zeros(2), NO_DATA, gamma=1.0, depth=0.1, draws=96, budget=200_000
    )
    assert found.reached
    assert found.exponent.multiplicity is None
    assert "fewer than six rungs" in found.explain()
    assert abs(found.log_volume[0] - exact_log_volume(np.log([0.1]))[0]) < 4 * found.log_volume_error[0]


REFUSED = [
    (dict(gamma=0.0), "gamma: got 0"),
    (dict(depth=0.0), "depth: got 0"),
    (dict(depth=True), "depth: got True"),
    (dict(depth="deep"), "depth"),
    (dict(chains=1), "chains: got 1"),
    (dict(budget=-5), "budget"),
    (dict(draws=2), "draws"),
]


@pytest.mark.parametrize(("wrong", "message"), REFUSED)
def test_what_makes_no_sense_is_refused_before_anything_is_compiled(wrong, message):
    with pytest.raises(ValueError, match=message):
        slt.density_of_states(jax.random.key(0), crossing, jnp.zeros(2), NO_DATA, **wrong)


def test_inside_jit_it_says_what_to_call():
    def value(params):
        return slt.density_of_states(jax.random.key(0), crossing, params, NO_DATA).log_volume

    with pytest.raises(ValueError, match="Call flow there"):
        jax.jit(value)(jnp.zeros(2))
