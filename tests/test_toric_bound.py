"""The upper bound from monomials: exact where a loss is one of monomials, too large where it is not."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import slt_jax as slt
from slt_jax.substructure import toric, toric_bound

NOTHING = jnp.zeros((9, 0))


@pytest.mark.parametrize(
    "exponents",
    [
        [(2, 0), (0, 3)],
        [(1, 0), (0, 2)],
        [(1, 1)],
        [(2, 1)],
        [(1, 1, 0), (1, 0, 1), (0, 1, 1)],
        [(2, 3), (3, 2)],
        [(1, 1, 0, 0), (0, 3, 1, 0), (2, 0, 0, 1), (0, 0, 1, 2)],
    ],
)
def test_it_is_exact_for_sums_of_squares_of_monomials(exponents):
    bound = toric_bound(*slt.truths.newton_problem(exponents))
    assert bound.converged
    assert bound.bound == slt.truths.newton(exponents).learning_coefficient
    # an optimal weighting satisfies every generator, also those that no draw has shown
    assert (2 * np.asarray(exponents) @ bound.weights).min() > 1 - 1e-5


def test_the_cusp_as_one_function_and_as_an_ideal_agree():
    cusp = toric_bound(lambda w, _: (w[0] ** 2 + w[1] ** 3) ** 2, jnp.zeros(2), NOTHING)
    assert cusp.bound == Fraction(5, 12)


def test_two_tanh_units_read_one_which_is_above_the_exact_value():
    problem = slt.truths.tanh_problem(2)
    bound = toric_bound(*problem)
    assert bound.bound == 1 > slt.truths.tanh(2).learning_coefficient
    assert jax.tree.map(np.shape, bound.weights) == {"a": (2,), "b": (2,)}


def test_two_linear_layers_are_bounded_from_above():
    bound = toric_bound(*slt.truths.deep_linear_problem(jax.random.key(0), (2, 2, 2), 0))
    assert bound.bound == 2 > slt.truths.deep_linear((2, 2, 2), 0).learning_coefficient


def test_it_depends_on_the_coordinates():
    assert toric_bound(lambda w, _: w[0] ** 2, jnp.zeros(2), NOTHING).bound == Fraction(1, 2)
    assert toric_bound(lambda w, _: (w[0] - w[1]) ** 2, jnp.zeros(2), NOTHING).bound == 1


def test_a_loss_that_is_not_zero_at_its_minimum_is_read_less_deep():
    bound = toric_bound(lambda w, _: 1.3 + (w[0] * w[1]) ** 2 + w[2] ** 4, jnp.zeros(3), NOTHING)
    assert bound.converged
    assert bound.bound == Fraction(3, 4)


def test_a_weighting_that_is_too_small_is_seen():
    """The negative control: along half of the optimal weights the loss has half of the order."""
    with jax.enable_x64(True):
        look, smallest = toric._looker(lambda w: w[0] ** 4 + w[1] ** 6, 2)
        weights = np.array([0.125, 1 / 12])
        orders = look(0.2 * smallest ** weights[None, :]) @ weights
    assert orders[0] == pytest.approx(0.5, abs=0.02)


def test_frozen_coordinates_are_left_out():
    restriction = slt.restriction.mask(jnp.zeros(2), np.array([True, False]))
    bound = toric_bound(lambda w, _: w[0] ** 4 + w[1] ** 6, jnp.zeros(2), NOTHING, restriction=restriction)
    assert bound.bound == Fraction(1, 4)
    np.testing.assert_allclose(bound.weights, [0.25, 0.0])


def test_a_flat_loss_has_bound_zero_and_the_callers_precision_is_left_alone():
    assert toric_bound(lambda w, _: 0 * w[0], jnp.zeros(2), NOTHING).bound == 0
    assert not jax.config.jax_enable_x64


def test_a_radius_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="radius"):
        toric_bound(lambda w, _: w[0] ** 2, jnp.zeros(2), NOTHING, radius=-1.0)
