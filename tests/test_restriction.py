"""Every restriction keeps one contract; what is frozen costs no dimension and never moves."""

import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import BASELINE, CURVATURES, GAMMA, NBETA, assert_same, compilations, deviation, quadratic

import slt_jax as slt
from slt_jax import restriction, tree
from slt_jax.noise import normal

PARAMS = {"b": jnp.array([1.0, -2.0]), "w": jnp.array([[0.5, 3.0], [7.0, -1.0]])}
CORNER = {"b": np.array([False, True]), "w": np.array([[True, False], [False, True]])}
EVERYTHING = {"b": np.ones(2, bool), "w": np.ones((2, 2), bool)}
ONLY_W = {"b": np.zeros(2, bool), "w": np.ones((2, 2), bool)}


#: One unit vector for each entry that ``CORNER`` frees.
UNITS = {
    "b": jnp.zeros((3, 2)).at[0, 1].set(1.0),
    "w": jnp.zeros((3, 2, 2)).at[1, 0, 0].set(1.0).at[2, 1, 1].set(1.0),
}
#: Two vectors that are neither orthogonal nor of unit length.
SKEW = {"b": jnp.array([[2.0, 0.0], [1.0, 0.5]]), "w": jnp.array([[[1.0, 0.0], [3.0, 0.0]], [[0.0, 0.0], [1.0, -1.0]]])}


#: Checkpoints that differ by one unit vector after the other.
PASSED = [jax.tree.map(lambda p, u, n=n: p + u[:n].sum(0), PARAMS, UNITS) for n in range(4)]
ONLY = restriction.paths(PARAMS, "w")
CUT = {"b": np.zeros(2, bool), "w": CORNER["w"]}
ZEROS = jnp.zeros(3)
#: Made of masks by the names of the leaves, which ``PARAMS`` does not have: tests/test_architecture.py.
BY_NAME = {"head", "layer", "block"}
#: The one whose lift is not affine: tests/test_directions.py.
CURVED = {"rescaling"}
#: Several in one tree, to be mapped over: tests/test_refined.py.
OF_MANY = {"stacked"}


def steep(params, batch):
    return 10 * tree.norm_squared(params) + batch


class Row(NamedTuple):
    """A restriction of ``PARAMS``, the constructor it comes from and the entries that it frees."""

    constructor: str
    restriction: restriction.Restriction
    free: dict[str, np.ndarray]


ROWS = {
    "full": Row("full", restriction.full(PARAMS), EVERYTHING),
    "mask": Row("mask", restriction.mask(PARAMS, CORNER), CORNER),
    "mask of single booleans": Row("mask", restriction.mask(PARAMS, {"b": False, "w": True}), ONLY_W),
    "mask by predicate": Row(
        "mask",
        restriction.mask(PARAMS, lambda path, leaf: leaf > 0.75),
        {
            "b": np.array([True, False]),
            "w": np.array([[False, True], [True, False]]),
        },
    ),
    "paths": Row("paths", restriction.paths(PARAMS, "w"), ONLY_W),
    "span": Row("span", restriction.span(UNITS), CORNER),
    "differences": Row("differences", restriction.differences(*PASSED), CORNER),
    "largest_changes": Row("largest_changes", restriction.largest_changes(steep, PARAMS, PASSED[-1], ZEROS, 3), CORNER),
    "compose": Row(
        "compose", restriction.compose(ONLY, restriction.mask(ONLY.origin(PARAMS), {"w": CORNER["w"]})), CUT
    ),
    "within": Row("within", restriction.within(restriction.paths(PARAMS, "w"), PARAMS, UNITS), CUT),
    "two paths": Row("paths", restriction.paths(PARAMS, "w*", "?"), EVERYTHING),
}
each = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())


def some(row, seed=0, size=1.0):
    return tree.scale(size, normal(jax.random.key(seed), row.restriction.origin(PARAMS)))


def test_every_constructor_has_a_row():
    constructors = {
        name
        for name, function in inspect.getmembers(restriction, inspect.isfunction)
        if not name.startswith("_") and inspect.signature(function).return_annotation is restriction.Restriction
    }
    assert constructors - BY_NAME - CURVED - OF_MANY == {row.constructor for row in ROWS.values()}


@each
def test_the_origin_lifts_to_the_centre_bit_for_bit(row):
    assert_same(row.restriction.lift(PARAMS, row.restriction.origin(PARAMS)), PARAMS)


@each
def test_z_has_one_number_for_each_free_entry(row):
    assert tree.size(row.restriction.origin(PARAMS)) == sum(int(free.sum()) for free in row.free.values())


@each
def test_lift_is_affine_and_translates(row):
    first, second = some(row, 0), some(row, 1)
    at_once = row.restriction.lift(PARAMS, tree.add(first, second))
    assert_same(at_once, row.restriction.lift(row.restriction.lift(PARAMS, first), second), rtol=1e-5, atol=1e-6)


@each
def test_exactly_the_free_entries_move_and_by_as_much_as_z(row):
    z = some(row)
    lifted = row.restriction.lift(PARAMS, z)
    moved = jax.tree.map(lambda new, old: np.asarray(new) != np.asarray(old), lifted, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, moved, row.free)
    change = jax.tree.map(jnp.subtract, lifted, PARAMS)
    np.testing.assert_allclose(tree.norm_squared(change), tree.norm_squared(z), rtol=1e-5)


@each
def test_dtypes_are_kept_where_z_is_wider(row):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), some(row))
        assert {leaf.dtype for leaf in jax.tree.leaves(row.restriction.lift(PARAMS, wide))} == {np.dtype("float32")}


@each
def test_a_restriction_is_a_tree_that_enters_jit_as_an_argument(row):
    z = some(row)
    inside = jax.jit(lambda r, center, z: (r.origin(center), r.lift(center, z)))
    assert_same(inside(row.restriction, PARAMS, z), (row.restriction.origin(PARAMS), row.restriction.lift(PARAMS, z)))


@each
def test_a_batch_of_centres_and_positions_maps_like_a_loop(row):
    centers = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), PARAMS)
    positions = jax.tree.map(lambda a, b: jnp.stack([a, b]), some(row, 0), some(row, 1))
    mapped = jax.vmap(row.restriction.lift)(centers, positions)
    for i in range(2):
        pick = lambda nest, i=i: jax.tree.map(lambda leaf: leaf[i], nest)  # noqa: E731
        assert_same(pick(mapped), row.restriction.lift(pick(centers), pick(positions)))


@each
def test_frozen_entries_cost_no_dimension_and_no_noise(row, key):
    """On the quadratic the exact answer is the sum over the free modes alone, and frozen entries never move."""
    center = jax.tree.map(jnp.zeros_like, PARAMS)
    posterior = slt.localise(quadratic, center, BASELINE, NBETA, GAMMA, row.restriction)
    trace = slt.sample(
        key, slt.samplers.sgld(5e-4), posterior, BASELINE, draws=6000, chains=8, burnin=500, observe=lambda w: w
    )
    modes = np.concatenate([CURVATURES[name][row.free[name]] for name in CURVATURES])
    exact = 0.5 * np.sum(NBETA * modes / (NBETA * modes + GAMMA))
    estimate = slt.llc_from(trace, posterior)
    assert deviation(estimate.value, estimate.std_error, exact) < 4
    assert deviation(estimate.value, estimate.std_error, exact + 0.5) > 4, "one dimension more would be seen"
    for name, free in row.free.items():
        travelled = np.abs(np.asarray(trace.observables[name])).max(axis=(0, 1))
        np.testing.assert_array_equal(travelled > 0, free)


def test_an_empty_leaf_is_never_free():
    params = {"empty": jnp.zeros((0, 3)), "w": jnp.zeros(2)}
    assert list(restriction.mask(params, lambda path, leaf: True).origin(params)) == ["w"]
    with pytest.raises(ValueError, match="mask: frees nothing"):
        restriction.mask(params, lambda path, leaf: path == "empty")


def flat(basis):
    return np.concatenate([np.asarray(leaf).reshape(len(leaf), -1) for leaf in jax.tree.leaves(basis)], axis=1)


def test_a_span_moves_along_its_vectors_as_they_are():
    z = jnp.array([0.5, -2.0])
    lifted = restriction.span(SKEW).lift(PARAMS, z)
    exact = jax.tree.map(lambda leaf, vectors: leaf + z[0] * vectors[0] + z[1] * vectors[1], PARAMS, SKEW)
    assert_same(lifted, exact, rtol=1e-6)


def test_an_orthonormal_basis_has_the_same_directions_and_the_unit_of_the_parameters():
    vectors, old = flat(restriction.orthonormal(SKEW)), flat(SKEW)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(2), atol=1e-6)
    np.testing.assert_allclose(old @ vectors.T @ vectors, old, atol=1e-5)
    assert abs(old @ old.T - np.eye(2)).max() > 0.5, "the basis that was given is not orthonormal"


@pytest.mark.parametrize("basis", [SKEW, restriction.orthonormal(SKEW)], ids=["as it is", "orthonormal"])
def test_the_llc_of_a_quadratic_in_a_span_is_that_of_its_restricted_hessian(basis, key):
    """``½ tr(nβ A (nβ A + γ)⁻¹)`` with ``A = B H Bᵀ``: γ counts in units of z, which are those of the basis."""
    nbeta, gamma = 100.0, 40.0
    vectors, h = flat(basis), np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(CURVATURES)])
    hessian = nbeta * (vectors * h) @ vectors.T
    exact, other = (0.5 * np.trace(np.linalg.solve(hessian + unit * gamma * np.eye(2), hessian)) for unit in (1, 2))
    center = jax.tree.map(jnp.zeros_like, PARAMS)
    posterior = slt.localise(quadratic, center, BASELINE, nbeta, gamma, restriction.span(basis))
    sampler = slt.samplers.sgld(0.4 / (np.linalg.eigvalsh(hessian)[-1] + gamma))
    trace = slt.sample(key, sampler, posterior, BASELINE, draws=20_000, chains=8, burnin=500)
    estimate = slt.llc_from(trace, posterior)
    assert deviation(estimate.value, estimate.std_error, exact) < 4
    assert deviation(estimate.value, estimate.std_error, other) > 4, "another unit of z would be seen"


def test_a_traced_span_checks_shapes_only():
    move = jax.jit(lambda basis, z: restriction.span(restriction.orthonormal(basis)).lift(PARAMS, z))
    z = jnp.array([1.0, -0.3])
    assert_same(move(SKEW, z), restriction.span(restriction.orthonormal(SKEW)).lift(PARAMS, z), rtol=1e-5, atol=1e-6)


BAD = {
    "empty basis": (lambda: restriction.span({}), "basis: got a tree without leaves"),
    "ragged basis": (lambda: restriction.span({**SKEW, "b": np.ones((3, 2), np.float32)}), "basis: first axes differ"),
    "basis of numbers": (lambda: restriction.span({"b": np.float32(1.0)}), "basis: first axes differ"),
    "no vectors": (lambda: restriction.span(np.zeros((0, 2), np.float32)), "basis: got 0 vectors"),
    "whole numbers": (lambda: restriction.span(np.ones((1, 2), np.int32)), "basis: leaf '' has dtype int32"),
    "not finite": (lambda: restriction.span(np.array([[np.nan, 1.0]], np.float32)), "basis: has entries that are not"),
    "a vector of zeros": (lambda: restriction.span(np.array([[1, 0], [0, 0]], np.float32)), "basis: vector 1 is 0"),
    "dependent": (lambda: restriction.span(np.array([[1, 1], [2, 2]], np.float32)), "linearly dependent"),
    "more than dimensions": (lambda: restriction.orthonormal(np.array([[1.0], [2.0]], np.float32)), "1 dimensions are"),
    "basis of other params": (
        lambda: restriction.check(ROWS["span"].restriction, {"b": jnp.ones(2), "w": jnp.ones(2)}),
        "restriction: vectors of shapes .* do not fit params",
    ),
    "nothing free": (
        lambda: restriction.mask(PARAMS, lambda *_: False),
        r"mask: frees nothing; mark an entry.*'b', 'w'",
    ),
    "other structure": (lambda: restriction.mask(PARAMS, {"w": True}), r"mask: its leaves \['w'\].*Build it"),
    "other shape": (
        lambda: restriction.mask(PARAMS, {"b": np.ones(3, bool), "w": True}),
        r"mask: leaf 'b' has shape \(3,\), params have \(2,\)",
    ),
    "not boolean": (
        lambda: restriction.mask(PARAMS, {"b": np.ones(2), "w": True}),
        r"mask: leaf 'b' has dtype float64; a mask is boolean",
    ),
    "shared path": (
        lambda: restriction.mask({"a/b": jnp.ones(2), "a": {"b": jnp.ones(2)}}, lambda *_: True),
        r"mask: two leaves.*'a/b'; rename",
    ),
    "no pattern": (lambda: restriction.paths(PARAMS), r"patterns: got none; name at least one of \['b', 'w'\]"),
    "pattern without match": (
        lambda: restriction.paths(PARAMS, "w", "blocks/*"),
        r"patterns: 'blocks/\*' matches no leaf; the paths in params are \['b', 'w'\]",
    ),
    "lacking leaf": (
        lambda: restriction.check(restriction.paths(PARAMS, "w"), {"v": jnp.ones(2)}),
        r"restriction: frees 'w', which params lack; their paths are \['v'\]",
    ),
    "smaller leaf": (
        lambda: restriction.check(ROWS["mask"].restriction, {"b": jnp.ones(2), "w": jnp.ones(2)}),
        r"restriction: frees entries of 'w' of shape .*Build it",
    ),
    "not a restriction": (
        lambda: restriction.check(restriction.full, PARAMS),
        r"restriction: got a function; build one",
    ),
    "a lift of another shape": (
        lambda: restriction.check(
            restriction.Restriction(jax.tree_util.Partial(lambda c, z: z), jax.tree_util.Partial(lambda c: c["w"])),
            PARAMS,
        ),
        r"restriction: lifts to .* but params are .*Build it",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_restriction_that_does_not_fit_is_named_before_anything_is_compiled(case):
    build, message = BAD[case]
    with compilations() as compiled, pytest.raises(ValueError, match=message):
        build()
    assert compiled == []


def test_plain_numbers_are_parameters_too():
    numbers = {"a": 0.5, "b": 1.0}
    for choice in (None, restriction.mask(numbers, {"a": True, "b": False})):
        posterior = slt.localise(lambda w, x: (w["a"] * x) ** 2, numbers, jnp.ones(10), restriction=choice)
        assert_same(
            posterior.restriction.lift(posterior.center, posterior.restriction.origin(posterior.center)),
            {
                "a": jnp.asarray(0.5, jnp.float32),
                "b": jnp.asarray(1.0, jnp.float32),
            },
        )
