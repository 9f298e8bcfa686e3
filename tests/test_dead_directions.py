"""Directions that the Fisher information does not see: their order, and the ones that have none."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import slt_jax as slt
from slt_jax.substructure import dead_directions, double, elimination

NOTHING = jnp.zeros((9, 0))
INPUTS = jnp.linspace(-2.0, 2.0, 20)
POINTS = jnp.asarray(np.random.default_rng(2).normal(size=(12, 2)), jnp.float32)
FRAME = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]


def rotated(w, batch):
    del batch
    x, y, z = jnp.asarray(FRAME, w.dtype).T @ w
    return x**2 + y**4 + z**6


def rotated_outputs(w, batch):
    x, y, z = jnp.asarray(FRAME, w.dtype).T @ w
    return jnp.broadcast_to(jnp.stack([x, y**2, z**3])[None, :], (len(batch), 3))


def tanh_units(w, x):
    return jnp.tanh(x[:, None] * w["b"][None, :]) @ w["a"]


def linear_units(w, x):
    return (x[:, None] * w["b"][None, :]) @ w["a"]


def relu_unit(w, x):
    return w[0] * jax.nn.relu(w[1] * x)


def normalised(w, x):
    hidden = x @ w["in"].T
    hidden = hidden - jnp.mean(hidden, axis=-1, keepdims=True)
    return hidden / jnp.sqrt(jnp.mean(hidden**2, axis=-1, keepdims=True)) @ w["out"]


def units(a, b):
    return {"a": jnp.asarray(a, jnp.float32), "b": jnp.asarray(b, jnp.float32)}


def rows(dead) -> np.ndarray:
    """Directions as rows, ``(d, d)``."""
    leaves = jax.tree.leaves(dead.directions)
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


@pytest.mark.parametrize("divergence", [None, "squared"])
def test_three_orders_in_a_random_frame_are_found_with_their_directions(divergence):
    dead = dead_directions(
        rotated if divergence is None else rotated_outputs, jnp.zeros(3), NOTHING, divergence=divergence
    )
    assert dead.orders.tolist() == [1, 2, 3]
    assert dead.kinds == ("regular", "singular", "singular")
    assert dead.total == Fraction(1, 2) + Fraction(1, 4) + Fraction(1, 6)
    np.testing.assert_allclose(np.abs(rows(dead) @ FRAME), np.eye(3), atol=1e-3)


def test_the_orders_agree_with_the_learning_coefficient_of_a_sum_of_monomials():
    problem = slt.truths.newton_problem([(1, 0, 0), (0, 2, 0), (0, 0, 3)])
    exact = slt.truths.newton([(1, 0, 0), (0, 2, 0), (0, 0, 3)]).learning_coefficient
    assert dead_directions(*problem).total == exact


def test_both_directions_of_a_dead_unit_are_singular_of_order_two():
    dead = dead_directions(tanh_units, units([0.0], [0.0]), INPUTS, divergence="squared")
    assert dead.orders.tolist() == [2, 2]
    assert dead.total == slt.truths.tanh(1).learning_coefficient


@pytest.mark.parametrize(("a", "b", "seen"), [(0.0, 1.0, "a"), (1.0, 0.0, "b")])
def test_a_unit_dead_on_one_side_is_regular_there_and_gauge_on_the_other(a, b, seen):
    dead = dead_directions(tanh_units, units([a], [b]), INPUTS, divergence="squared")
    assert dead.kinds == ("regular", "gauge")
    assert np.abs(dead.directions[seen][0, 0]) == pytest.approx(1.0)
    assert np.isnan(dead.measured[1])
    assert dead.total == Fraction(1, 2)


def test_a_dead_unit_beside_a_live_one_is_singular_in_a_tanh_network_and_gauge_in_a_linear_one():
    """In a linear network the live unit takes over whatever the dead one does."""
    params = units([1.0, 0.0], [0.7, 0.0])
    tanh = dead_directions(tanh_units, params, INPUTS, divergence="squared")
    assert tanh.orders.tolist() == [1, 1, 2, 2]
    assert np.abs(rows(tanh)[2:, [0, 2]]).max() < 1e-6  # nothing of the live unit
    linear = dead_directions(linear_units, params, INPUTS, divergence="squared")
    assert linear.kinds == ("regular", "gauge", "gauge", "gauge")


def test_rescaling_a_relu_is_gauge_although_the_straight_line_reads_order_two():
    params = jnp.array([2.0, 1.5])
    dead = dead_directions(relu_unit, params, INPUTS, divergence="squared")
    assert dead.kinds == ("regular", "gauge")
    np.testing.assert_allclose(np.abs(rows(dead)[1]), [0.8, 0.6], atol=1e-6)
    # the negative control: with nothing to answer, the tangent leaves the orbit
    with jax.enable_x64(True):
        space = double.coordinates(params, None)
        surface = elimination.squared_surface(*_residuals(space), 1.0)
        points = np.array([[0.8], [0.4]]) * np.array([[0.08, -0.06]])
        straight = elimination.reduce_over(surface, points, np.zeros((2, 0)), np.eye(2), 0).excess
    assert np.log2(straight[0] / straight[1]) == pytest.approx(4.0, abs=0.1)


def _residuals(space):
    residual, _ = double.residuals(relu_unit, space, INPUTS, "squared")
    return residual, space.size


def test_a_gauge_orbit_that_bends_within_the_singular_directions_is_gauge():
    dead = dead_directions(lambda w, _: (w[1] - w[0] ** 2) ** 4, jnp.zeros(2), NOTHING)
    assert dead.kinds == ("singular", "gauge")
    assert dead.total == Fraction(1, 4)


def test_scale_and_shift_before_a_normalisation_are_gauge():
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2)), jnp.float32)
    params = {"in": weights, "out": jnp.array([1.0, -2.0, 0.5])}
    dead = dead_directions(normalised, params, POINTS, divergence="squared")
    gauge = rows(dead)[np.array(dead.kinds) == "gauge"]
    scale = np.concatenate([np.asarray(weights).ravel(), np.zeros(3)])
    shift = np.concatenate([np.tile([1.0, 0.0], 3), np.zeros(3)])
    for tangent in (scale, shift):
        tangent = tangent / np.linalg.norm(tangent)
        assert np.linalg.norm(gauge @ tangent) == pytest.approx(1.0, abs=1e-5)
    assert "unresolved" not in dead.kinds


def test_a_shift_of_all_logits_is_gauge_for_the_softmax_and_regular_for_the_square():
    def logits(w, x):
        return x[:, None] * w["k"][None, :] + w["b"][None, :]

    params = {"k": jnp.array([0.5, 0.0, -1.0]), "b": jnp.array([0.0, 1.0, -1.0])}
    dead = dead_directions(logits, params, INPUTS, divergence="categorical")
    assert dead.kinds == ("regular",) * 4 + ("gauge",) * 2
    np.testing.assert_allclose(rows(dead)[4:] @ np.tile(np.array([[1], [-1], [0]]), (2, 1)), 0.0, atol=1e-6)
    assert dead_directions(logits, params, INPUTS, divergence="squared").kinds == ("regular",) * 6


def test_the_sum_is_not_lambda_where_directions_are_not_separate():
    """What the docstring warns of: two linear layers at rank 0."""
    dead = dead_directions(
        lambda w, x: x @ w[0].T @ w[1].T, (jnp.zeros((2, 2)), jnp.zeros((2, 2))), POINTS, divergence="squared"
    )
    assert dead.orders.tolist() == [2] * 8
    assert dead.total == 2 > slt.truths.deep_linear((2, 2, 2), 0).learning_coefficient


def test_two_units_that_coincide_have_one_singular_and_one_gauge_direction():
    """``λ = 5/4``: the pair moves apart at order 2, and shares its outgoing weight at will."""
    dead = dead_directions(tanh_units, units([0.7, 0.4], [0.9, 0.9]), INPUTS, divergence="squared")
    assert dead.orders.tolist() == [1, 1, 2, 0]
    assert dead.total == Fraction(5, 4)


def test_layers_of_rank_one_in_single_precision_have_the_exact_coefficient():
    """Three layers: what is left of them is a product of three numbers, of order 3, and six gauge directions."""
    problem = slt.truths.deep_linear_problem(jax.random.key(1), (2, 2, 2, 2), 1)
    dead = dead_directions(lambda w, x: x @ (w[2] @ w[1] @ w[0]).T, problem.params, POINTS, divergence="squared")
    assert dead.orders.tolist() == [1] * 3 + [3] * 3 + [0] * 6
    assert dead.total == slt.truths.deep_linear((2, 2, 2, 2), 1).learning_coefficient


def test_a_weight_within_the_range_of_displacements_is_unresolved():
    dead = dead_directions(tanh_units, units([1.0, 1e-3], [0.7, -2e-3]), INPUTS, divergence="squared")
    assert "unresolved" in dead.kinds
    assert dead.total is None


def test_an_order_that_is_no_whole_number_is_unresolved():
    dead = dead_directions(lambda w, _: jnp.abs(w[0]) ** 3, jnp.zeros(1), NOTHING)
    assert dead.kinds == ("unresolved",)
    assert dead.total is None
    assert dead.measured[0] == pytest.approx(1.5, abs=1e-3)


def test_a_restriction_leaves_frozen_entries_out():
    params = units([1.0, 0.0], [0.7, 0.0])
    restriction = slt.restriction.mask(params, {"a": np.array([False, True]), "b": np.array([False, True])})
    dead = dead_directions(tanh_units, params, INPUTS, divergence="squared", restriction=restriction)
    assert dead.orders.tolist() == [2, 2]
    assert dead.directions["a"].shape == (2, 2)
    assert not np.any(dead.directions["a"][:, 0])


def test_the_callers_precision_is_left_alone():
    seen = []

    def loss_fn(w, batch):
        seen.append(w.dtype)
        return w**2 + jnp.sum(batch)

    before = jax.config.jax_enable_x64
    dead = dead_directions(loss_fn, jnp.float32(0.0), NOTHING)
    assert jax.config.jax_enable_x64 == before
    assert dead.directions.dtype == np.float32
    assert jnp.ones(2).dtype == jnp.float32
    # the contract is checked in the caller's precision, everything else is computed in double
    assert set(seen) == {jnp.dtype(jnp.float32), jnp.dtype(jnp.float64)}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"divergence": "absolute"}, "divergence"),
        ({"radius": 0.0}, "radius"),
        ({"function": lambda w, x: (w - 1.0) ** 2}, "slope"),
        ({"function": lambda w, x: -(w**2)}, "curvature"),
        ({"function": lambda w, x: w + 0.0, "divergence": "squared"}, "outputs"),
    ],
)
def test_what_makes_no_sense_is_refused(change, word):
    settings = {"function": lambda w, x: w**2, "params": jnp.float32(0.0), "data": NOTHING, **change}
    with pytest.raises(ValueError, match=word):
        dead_directions(**settings)
