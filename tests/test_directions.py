"""Directions that a phase moved, their composition, and λ in some directions only: exact answers throughout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import assert_same, deviation

import slt_jax as slt
from slt_jax import restriction
from slt_jax.noise import normal

KEY = jax.random.key(0)


def quadratic(curvatures, w, batch):
    return 0.5 * jnp.sum(curvatures * w**2) * jnp.ones(batch.shape)


DATA = jnp.zeros(1000)


def estimate(loss_fn, params, free, data=DATA, key=KEY, **settings):
    return slt.llc(key, loss_fn, params, data, restriction=free, **settings)


def near(found, exact, errors=3.0):
    return deviation(found.value, found.std_error, exact) < errors


def test_differences_span_the_steps_in_units_of_the_parameters():
    points = [normal(jax.random.key(i), {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}) for i in range(3)]
    free = restriction.differences(*points)
    assert_same(free, restriction.differences(points))
    flat = [np.concatenate([point["a"], point["b"].ravel()]) for point in points]
    zero = jax.tree.map(jnp.zeros_like, points[0])
    lifted = [free.lift(zero, unit) for unit in jnp.eye(2)]
    vectors = np.stack([np.concatenate([leaf["a"], leaf["b"].ravel()]) for leaf in lifted])
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(2), atol=1e-5)
    steps = np.diff(flat, axis=0)
    np.testing.assert_allclose(steps @ vectors.T @ vectors, steps, atol=1e-5)


def test_principal_directions_are_those_of_the_singular_value_decomposition():
    rng = np.random.default_rng(0)
    path = rng.normal(size=(9, 20)) * np.array([5.0, 2.0, 1.0] + [0.1] * 17)
    trajectory = [
        {"a": jnp.asarray(row[:8], jnp.float32), "b": jnp.asarray(row[8:].reshape(3, 4), jnp.float32)} for row in path
    ]
    found = restriction.principal_directions(trajectory, 3)
    centred = path - path.mean(axis=0)
    _, sizes, rows = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(found.variances, sizes[:3] ** 2 / 9, rtol=1e-5)
    np.testing.assert_allclose(found.explained, np.cumsum(sizes[:3] ** 2) / np.sum(sizes**2), rtol=1e-5)
    basis = np.concatenate([found.basis["a"], np.asarray(found.basis["b"]).reshape(3, -1)], axis=1)
    np.testing.assert_allclose(np.abs(np.sum(basis * rows[:3], axis=1)), 1.0, atol=1e-4)
    assert found.restriction.origin(trajectory[0]).shape == (3,)


def test_the_fisher_diagonal_is_the_mean_square_of_single_gradients():
    inputs = jax.random.normal(KEY, (101, 4))  # not a multiple of the pieces
    targets = jnp.sin(inputs.sum(axis=1))

    def loss_fn(w, batch):
        return 0.5 * (jnp.tanh(batch[0] @ w) - batch[1]) ** 2

    w = jnp.arange(4.0) / 4
    gradients = jax.vmap(lambda x, y: jax.grad(lambda w: loss_fn(w, (x[None], y[None]))[0])(w))(inputs, targets)
    found = restriction.fisher_diagonal(loss_fn, w, (inputs, targets))
    np.testing.assert_allclose(found, jnp.mean(gradients**2, axis=0), rtol=1e-5)
    mean = restriction.fisher_diagonal(lambda w, batch: jnp.mean(loss_fn(w, batch)), w, (inputs, targets))
    np.testing.assert_allclose(mean, found, rtol=1e-5)
    assert not np.allclose(jnp.mean(gradients, axis=0) ** 2, found), "not the square of the mean"


def test_changes_that_matter_are_not_the_largest_ones():
    """Ten coordinates drift far where no example looks, two move a little where all do."""
    inputs = jnp.concatenate([jax.random.normal(KEY, (200, 2)), jnp.zeros((200, 10))], axis=1)
    before, after = jnp.zeros(12), jnp.concatenate([jnp.array([0.3, -0.2]), 5.0 * jnp.ones(10)])
    targets = inputs @ after

    def loss_fn(w, batch):
        return 0.5 * (batch[0] @ w - batch[1]) ** 2

    chosen = restriction.largest_changes(loss_fn, before, after, (inputs, targets), 2)
    moved = chosen.lift(before, {"": jnp.ones(2)})
    np.testing.assert_array_equal(np.asarray(moved) != 0, np.arange(12) < 2)
    with pytest.raises(ValueError, match="2 coordinates have moved and matter"):
        restriction.largest_changes(loss_fn, before, after, (inputs, targets), 3)


def test_a_part_of_a_phase_subspace_is_its_projection():
    params = {"w": jnp.zeros((2, 2)), "b": jnp.zeros(3)}
    basis = normal(KEY, jax.tree.map(lambda leaf: jnp.zeros((3, *leaf.shape)), params))
    head = restriction.mask(params, {"w": np.array([[True, True], [False, True]]), "b": False})
    part = restriction.within(head, params, basis)
    assert part.origin(params).shape == (3,)
    lifted = [part.lift(params, unit) for unit in jnp.eye(3)]
    found = np.stack([np.asarray(leaf["w"]).ravel() for leaf in lifted])
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-5)
    np.testing.assert_array_equal(found[:, 2], 0.0)
    assert all(not np.asarray(leaf["b"]).any() for leaf in lifted)
    # three directions in three dimensions are all of the head; two are not
    projected = np.asarray(basis["w"]).reshape(3, 4) * np.array([1, 1, 0, 1])
    np.testing.assert_allclose(projected @ found.T @ found, projected, atol=1e-5)
    two = jax.tree.map(lambda leaf: leaf[:2], basis)
    assert restriction.within(head, params, two).origin(params).shape == (2,)


def test_half_precision_has_directions_too():
    points = [{"w": normal(jax.random.key(i), jnp.zeros(4)).astype(jnp.bfloat16)} for i in range(4)]
    assert restriction.differences(*points[:3]).origin(points[0]).dtype == jnp.bfloat16
    basis = restriction.principal_directions(points, 2).basis
    assert restriction.within(restriction.paths(points[0], "w"), points[0], basis).origin(points[0]).shape == (2,)


def test_numpy_parameters_are_lifted_like_others():
    w = {"w": np.ones((2, 2), np.float32)}
    half = restriction.mask(w, {"w": np.array([[True, False], [False, False]])})
    assert half.lift(w, half.origin(w))["w"].tolist() == w["w"].tolist()
    assert "1 of 4" in restriction.preview(half, {"w": np.full((2, 2), np.nan, np.float32)})


def test_a_composition_is_one_inside_the_other():
    params = {"w": jnp.arange(4.0), "b": jnp.zeros(2)}
    only = restriction.paths(params, "w")
    inner = restriction.span({"w": jnp.array([[1.0, 0.0, 0.0, 2.0]])})
    both = restriction.compose(only, inner)
    np.testing.assert_array_equal(both.lift(params, jnp.array([0.5]))["w"], [0.5, 1.0, 2.0, 4.0])
    restriction.check(both, params)
    with pytest.raises(ValueError, match="do not fit params"):
        restriction.check(restriction.compose(only, restriction.span({"w": jnp.ones((1, 3))})), params)


PAIR = {"a": jnp.ones(2), "b": jnp.ones(2)}
BAD = {
    "one checkpoint": (lambda: restriction.differences(jnp.zeros(2)), "checkpoints: got 1"),
    "other shapes": (lambda: restriction.differences(jnp.zeros(2), jnp.zeros(3)), "number 1 has shapes"),
    "equal checkpoints": (lambda: restriction.differences(jnp.zeros(2), jnp.zeros(2)), "vector 0 is 0"),
    "on one line": (lambda: restriction.differences(*jnp.arange(6.0).reshape(3, 2)), "linearly dependent"),
    "more than there are": (
        lambda: restriction.principal_directions([jnp.zeros(2), jnp.ones(2)], 2),
        "has 1 directions",
    ),
    "none": (lambda: restriction.principal_directions([jnp.zeros(2), jnp.ones(2)], 0), "count: got 0"),
    "nothing inside": (
        lambda: restriction.within(
            restriction.paths({"a": jnp.zeros(2), "b": jnp.zeros(2)}, "a"),
            {"a": jnp.zeros(2), "b": jnp.zeros(2)},
            {"a": jnp.zeros((1, 2)), "b": jnp.ones((1, 2))},
        ),
        "none of its directions",
    ),
    "a skew span": (
        lambda: restriction.within(restriction.span(jnp.ones((1, 2))), jnp.zeros(2), jnp.ones((1, 2))),
        "not orthonormal",
    ),
    "a basis without a leaf": (
        lambda: restriction.within(restriction.paths(PAIR, "a"), PAIR, {"a": jnp.ones((1, 2))}),
        "basis: its leaves",
    ),
    "a basis without vectors": (
        lambda: restriction.within(restriction.paths(PAIR, "a"), PAIR, PAIR),
        "vectors of shapes",
    ),
    "a basis of whole numbers": (
        lambda: restriction.within(restriction.paths(PAIR, "a"), PAIR, jax.tree.map(lambda x: x[None] > 0, PAIR)),
        "must be floating point",
    ),
    "a basis that is not finite": (
        lambda: restriction.within(restriction.paths(PAIR, "a"), PAIR, jax.tree.map(lambda x: x[None] / 0, PAIR)),
        "not finite",
    ),
    "an orbit inside": (
        lambda: restriction.compose(
            restriction.full(), restriction.rescaling(PAIR, {"a": True, "b": False}, {"a": False, "b": True})
        ),
        "inner: is the orbit",
    ),
    "no restriction": (lambda: restriction.compose(restriction.full(), "a"), "inner: got a str"),
    "growing and shrinking": (
        lambda: restriction.rescaling({"a": jnp.ones(2)}, {"a": True}, {"a": np.array([True, False])}),
        "1 entries are marked as growing too",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_the_coefficient_in_a_span_of_a_quadratic_is_half_its_rank_whatever_its_basis():
    curvatures = jnp.array([3.0, 1.0, 0.5, 2.0, 0.0, 0.0])
    loss_fn = jax.tree_util.Partial(quadratic, curvatures)
    # two stiff directions, one of which is mixed with a flat one, and a flat direction
    basis = jnp.array([[1.0, 0, 0, 0, 0, 0], [0, 0.6, 0, 0, 0.8, 0], [0, 0, 0, 0, 0, 1.0]])
    rotation = jnp.linalg.qr(jax.random.normal(KEY, (3, 3)))[0]
    found = [estimate(loss_fn, jnp.zeros(6), restriction.span(b)) for b in (basis, rotation @ basis)]
    for one in found:
        assert bool(one.health.ok)
        assert near(one, 1.0)
        assert not near(one, 1.5), "a direction more would be seen"
    again = deviation(found[0].value, jnp.hypot(found[0].std_error, found[1].std_error), found[1].value)
    assert again < 3


def network(w, batch):
    """A deep linear network of widths 4, 3, 3 at rank-2 or full-rank layers, with its population loss."""
    product = w["second"] @ w["first"]
    return 0.5 * jnp.sum((product - batch["target"][0]) ** 2) * jnp.ones(len(batch["target"]))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("free", ["first", "second"])
def test_a_frozen_layer_leaves_a_linear_model(free, rank):
    """``K = |B (W - W*)|²/2`` in what is left: half the rank of the frozen layer times the width it acts on."""
    scale = jnp.where(jnp.arange(3) < rank, 1.0, 0.0)
    frame = jnp.linalg.qr(jax.random.normal(KEY, (3, 3)))[0]
    first = jax.random.normal(jax.random.key(1), (3, 4))
    w = {"first": first, "second": (frame * scale[None, :]) @ frame.T}
    if free == "second":
        left, _, right = jnp.linalg.svd(first, full_matrices=False)
        w["first"] = (left * scale[None, :]) @ right
    data = {"target": jnp.broadcast_to(w["second"] @ w["first"], (1000, 3, 4))}
    found = estimate(network, w, restriction.paths(w, free), data)
    exact = rank * (4 if free == "first" else 3) / 2
    assert bool(found.health.ok)
    assert near(found, exact)


def test_the_coefficients_of_separable_blocks_add_up_to_that_of_the_whole():
    def loss_fn(w, batch):
        crossing = 0.5 * jnp.sum(w["a"] ** 2) ** 2
        return (crossing + 0.5 * jnp.sum(w["b"] ** 2) + w["c"][0] ** 4) * jnp.ones(batch.shape)

    w = {"a": jnp.zeros(4), "b": jnp.zeros(3), "c": jnp.zeros(1)}
    settings = {"nbeta": 1e4, "gamma": 0.1, "draws": 2000, "burnin": 1000}
    parts = [estimate(loss_fn, w, restriction.paths(w, name), **settings) for name in w]
    whole = estimate(loss_fn, w, None, **settings)
    # a: 4 homogeneous dimensions of degree 4; b: 3 quadratic; c: degree 4
    for found, exact in zip(parts, (1.0, 1.5, 0.25), strict=True):
        assert near(found, exact, 4)
    total = sum(part.value for part in parts)
    error = jnp.linalg.norm(jnp.stack([part.std_error for part in parts]))
    assert deviation(whole.value, jnp.hypot(whole.std_error, error), total) < 3
    without = total - parts[0].value
    assert deviation(whole.value, jnp.hypot(whole.std_error, error), without) > 3, "a block less would be seen"


def attention(w, tokens):
    """One head of attention over random tokens: its answers are compared with its own at the centre."""
    query, key = tokens @ w["query"], tokens @ w["key"]
    weights = jax.nn.softmax(query @ jnp.swapaxes(key, -1, -2))
    return weights @ (tokens @ w["value"])


def test_the_gauge_of_a_head_has_coefficient_nothing_and_its_tangent_a_quarter():
    """Queries may grow while keys shrink. The orbit is curved: on a straight line the loss grows like z⁴."""
    w = {name: 0.5 * normal(jax.random.key(i), jnp.zeros((4, 2))) for i, name in enumerate(("query", "key", "value"))}
    tokens = jax.random.normal(KEY, (200, 3, 4))
    settings = {"reference": "self", "outputs": attention, "nbeta": 1e6, "gamma": 10.0, "draws": 500, "burnin": 500}
    grow, shrink = ({name: name == which for name in w} for which in ("query", "key"))
    orbit = restriction.rescaling(w, grow, shrink)
    found = slt.llc(KEY, None, w, tokens, restriction=orbit, **settings)
    assert abs(float(found.value)) < max(3 * float(found.std_error), 1e-3)
    tangent = {"query": w["query"][None], "key": -w["key"][None], "value": jnp.zeros((1, 4, 2))}
    line = restriction.span(restriction.orthonormal(tangent))
    straight = slt.llc(KEY, None, w, tokens, restriction=line, **settings)
    assert near(straight, 0.25, 4)
    across = jax.tree.map(jnp.abs, tangent) | {"query": tangent["query"], "key": w["key"][None]}
    stiff = slt.llc(KEY, None, w, tokens, restriction=restriction.span(restriction.orthonormal(across)), **settings)
    assert near(stiff, 0.5, 4), "growing together is no symmetry"
