"""The flow of λ over temperatures, held against integrals in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import deviation

import slt_jax as slt

GAP = 1e-2
NBETAS = 10.0 ** np.arange(1, 10)
NO_DATA = jnp.zeros((100, 0))


def crossing(weights, batch):
    """``x² (y² + δ²)``: m = 2 down to ``nβ ~ 1/δ²``, then a smooth valley, λ = 1/2."""
    del batch
    return weights[0] ** 2 * (weights[1] ** 2 + GAP**2)


def exact_energy(nbeta):
    """x by hand, y by the trapezoidal rule in its logarithm."""
    logs = np.linspace(-25, 2.5, 200_001)
    weight, rate = np.exp(logs - 0.5 * np.exp(2 * logs)), nbeta * (np.exp(2 * logs) + GAP**2)
    partition = np.trapezoid(weight / np.sqrt(2 * rate + 1), logs)
    return np.trapezoid(weight * rate / (2 * rate + 1) ** 1.5, logs) / partition


def exact_velocity(nbeta, step=1e-3):
    return (exact_energy(nbeta * np.exp(step)) - exact_energy(nbeta * np.exp(-step))) / (2 * step)


@pytest.fixture(scope="module")
def measured():
    return slt.flow(jax.random.key(0), crossing, jnp.zeros(2), NO_DATA, nbetas=NBETAS, gamma=1.0)


def test_over_eight_decades_the_flow_is_that_of_quadrature(measured):
    exact = np.array([exact_energy(nbeta) for nbeta in NBETAS])
    assert measured.ok.all(), measured.explain()
    assert np.abs(measured.value / exact - 1).max() < 0.02
    assert (np.abs(measured.value - exact) / measured.std_error).max() < 4
    # the errors say something: another temperature's value is not within them
    assert (np.abs(measured.value[:3] - exact[1:4]) / measured.std_error[:3]).min() > 4


def test_the_velocity_at_one_temperature_is_the_slope_of_the_exact_flow(measured):
    exact = np.array([exact_velocity(nbeta) for nbeta in NBETAS])
    assert (np.abs(measured.velocity - exact) / measured.velocity_error).max() < 4.5
    assert measured.velocity[2] > 10 * measured.velocity_error[2]
    np.testing.assert_allclose(measured.velocity, measured.value - measured.heat_capacity, atol=1e-6)


def test_differences_between_rungs_are_the_integral_of_the_velocity(measured):
    steps = np.diff(np.log(NBETAS))[4:]
    slopes = np.diff(measured.value)[4:] / steps
    between = [measured.velocity[5:].min() - 3e-3, measured.velocity[4:-1].max() + 3e-3]
    assert ((slopes > between[0]) & (slopes < between[1])).all()


def test_contact_exponents_add_up_to_the_coefficient_and_name_the_direction(measured):
    assert measured.groups == ("params[0]", "params[1]")
    cold = measured.contact[-1]
    assert abs(cold.sum() / 0.5 - 1) < 0.03
    assert cold[0] > 0.48
    assert abs(cold[1]) < 0.02
    # while y still takes part, it does
    assert measured.contact[0, 1] > 0.1


def test_what_is_measured_in_double_precision_stays_there(measured):
    assert measured.value.dtype == np.float64
    assert (jnp.ones(3) + 1).dtype == jnp.float32
    assert not jax.config.jax_enable_x64


def test_the_order_of_the_temperatures_is_that_of_the_answer(measured):
    turned = slt.flow(jax.random.key(0), crossing, jnp.zeros(2), NO_DATA, nbetas=NBETAS[::-1], gamma=1.0, budget=20_000)
    np.testing.assert_array_equal(turned.value[::-1], measured.value)
    np.testing.assert_array_equal(turned.usable, measured.usable[::-1])


def test_inside_jit_a_quadratic_is_exact_and_a_restriction_leaves_half_of_it():
    curvatures = jnp.array([1.0, 0.1, 10.0, 3.0])

    def quadratic(weights, batch):
        del batch
        return 0.5 * jnp.sum(curvatures * weights**2)

    @jax.jit
    def read(key, free):
        restriction = slt.restriction.mask(free, np.array([True, True, False, False]))
        nbetas = jnp.array([1e3, 1e4])
        found = slt.flow(key, quadratic, free, NO_DATA, nbetas=nbetas, restriction=restriction, gamma=1.0, draws=300)
        return found.value, found.std_error, found.ok, found.swap_rate

    value, error, ok, swapped = read(jax.random.key(1), jnp.zeros(4))
    for nbeta, one, one_error in zip((1e3, 1e4), value, error, strict=True):
        constants = nbeta * curvatures[:2]
        assert deviation(one, one_error + 1e-5, 0.5 * jnp.sum(constants / (constants + 1))) < 4
    assert ok.all()
    assert 0.05 < float(swapped[0]) < 0.9
    assert np.isnan(float(swapped[1]))


def test_rungs_that_boil_are_left_out_and_what_is_colder_is_kept():
    def well(weights, batch):
        """A well of depth 1 in a wide plain: at high temperature the chains leave it."""
        del batch
        return 1 - jnp.exp(-0.5 * jnp.sum(weights**2))

    nbetas = jnp.array([2.0, 4.0, 300.0, 600.0])
    found = slt.flow(jax.random.key(2), well, jnp.zeros(3), NO_DATA, nbetas=nbetas, gamma=1e-4, draws=300)
    assert np.asarray(found.usable).tolist() == [False, False, True, True]
    assert (np.abs(np.asarray(found.value[2:]) - 1.5) < 0.05).all()
    assert "too hot for gamma" in found.explain()


REFUSED = [
    (dict(nbetas=jnp.zeros((2, 2))), "nbetas: got shape"),
    (dict(nbetas=[]), "nbetas: got shape"),
    (dict(nbetas=[1.0, -1.0]), "nbetas: .* positive"),
    (dict(nbetas=[1.0, jnp.inf]), "nbetas: .* finite"),
    (dict(nbetas=[10.0, 10.0]), "the same"),
    (dict(chains=1), "chains: got 1"),
    (dict(draws=3), "draws: got 3"),
    (dict(draws=100.0), "draws: .* integer"),
    (dict(leapfrogs=0), "leapfrogs: got 0"),
    (dict(gamma=-1.0), "gamma"),
    (dict(budget=-1), "budget"),
    (dict(relative_error=2.0), "relative_error"),
    (dict(key=jax.random.PRNGKey(0)), "key"),
]


@pytest.mark.parametrize(("wrong", "message"), REFUSED)
def test_what_makes_no_sense_is_refused_before_anything_is_compiled(wrong, message):
    arguments = {"key": jax.random.key(0)} | wrong
    with pytest.raises(ValueError, match=message):
        slt.flow(loss_fn=crossing, params=jnp.zeros(2), data=NO_DATA, **arguments)
