"""Kinds of directions, each in an order of its own: the first k of them are the k degrees of freedom that it names."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from slt_jax import tree
from slt_jax.restriction import Restriction, check, orthonormal, seen_changes, span
from slt_jax.tree import cut
from slt_jax.types import Array, LossFn, PyTree

#: A basis is filled up with zeros to a power of two of at least so many vectors: spans then share their programs.
_LEAST_ROWS = 8
#: What is left of a step after earlier ones are taken off, relative to it: below, it is a combination of these.
_DEPENDENT = 1e-5
#: Entries of the gradients that are held together.
_ENTRIES = 2**24
#: Products of unit vectors that are this close to 0 and 1 are left as they are.
_ORTHONORMAL = 1e-5


class Directions(NamedTuple):
    """Orthonormal directions, the most telling first: the first k span a subspace, and P_k projects on it.

    A tree of two pure functions, so that it can be an argument of a jitted function. Anything that gives these two is
    a kind of directions.

    Attributes:
      moved: ``moved(before, after, k) -> params``: ``before + P_k (after - before)``; k may be traced.
      restriction: ``restriction(k) -> Restriction``: only these k directions are free; on the host. Those of one kind
        and one k have one shape, and compile once.
      most: How many there are.
    """

    moved: Partial
    restriction: Partial
    most: int


def by_scores(params: PyTree, scores: PyTree) -> Directions:
    """Coordinates in descending order of any score: those of a learned graft, of a circuit, of a user.

    All coordinates are among them, so that with ``k = d`` all of a change is put in place, to the last bit.

    Args:
      params: The parameters; only their structure and shapes are used.
      scores: A tree like ``params`` of numbers. Where two are equal, the first in the order of leaves comes first.

    Raises:
      ValueError: the trees differ, or a score is NaN.

    >>> kind = by_scores(jnp.zeros(3), jnp.array([0.1, 0.3, 0.2]))
    >>> kind.moved(jnp.zeros(3), jnp.ones(3), 2).tolist()
    [0.0, 1.0, 1.0]
    """
    _check_same("scores", params, scores)
    flat = flattened(scores)
    if np.isnan(flat).any():
        raise ValueError("scores: some are NaN; give entries that are not meant the lowest score instead.")
    order = np.argsort(-flat, kind="stable")
    places = np.empty(flat.size, np.int32)
    places[order] = np.arange(flat.size)
    return coordinates(params, places)


def largest_moves(before: PyTree, after: PyTree) -> Directions:
    """Coordinates in descending order of ``|Δw|``, ``Δw = after - before``.

    Not to be believed as those that matter: weights drift that no example sees. ``largest_moves_seen`` weighs them.

    >>> largest_moves(jnp.zeros(2), jnp.array([1.0, -3.0])).moved(jnp.zeros(2), jnp.array([1.0, -3.0]), 1).tolist()
    [0.0, -3.0]
    """
    check_ends(before, after)
    return by_scores(before, change_of(before, after))


def largest_moves_seen(loss_fn: LossFn, before: PyTree, after: PyTree, data: PyTree) -> Directions:
    """Coordinates in descending order of ``|Δw| √F``: those that moved far in units of what the loss sees.

    ``F`` is the diagonal of the empirical Fisher information, mean over both ends, as in
    ``restriction.largest_changes``.

    Raises:
      ValueError: the trees differ or are equal, the loss breaks its contract, or its gradients are NaN.

    Not to be believed next to a saddle, where a weight whose partners are 0 has no gradient, nor for what is fitted:
    the empirical Fisher information goes with the residuals, and is largest where something is not learned yet.
    """
    check_ends(before, after)
    # gradients of single examples are copies of the parameters
    chunk = max(1, min(32, _ENTRIES // tree.size(before)))
    return by_scores(before, seen_changes(loss_fn, before, after, data, chunk_size=chunk))


def along(params: PyTree, restriction: Restriction) -> Directions:
    """The directions of a span in their order: ``top_directions(...).restriction``, ``principal_directions(...)``.

    Each is made orthogonal to those before it, so that the first k span what they spanned.

    Args:
      params: The parameters; only their structure and shapes are used.
      restriction: With a vector of shape ``(k,)`` as ``z``.

    Raises:
      ValueError: the restriction does not fit, or its directions are linearly dependent.

    >>> diagonal = along(jnp.zeros(2), span(jnp.array([[1.0, 1.0]])))
    >>> diagonal.moved(jnp.zeros(2), jnp.array([2.0, 0.0]), 1).round(3).tolist()
    [1.0, 1.0]
    """
    check(restriction, params)
    zeros = tree.zeros_like(jax.tree.map(jnp.asarray, params))
    basis = jax.tree.map(np.asarray, _basis_of(restriction, zeros))
    flat = np.concatenate([leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(basis)], axis=1)
    if np.abs(flat @ flat.T - np.eye(len(flat))).max() > _ORTHONORMAL:
        basis = jax.tree.map(np.asarray, orthonormal(basis))
    return basis_of(basis)


def steps_between(trajectory: Sequence[PyTree]) -> Directions:
    """Differences of checkpoints, the longest step first; steps that are combinations of longer ones are left out.

    Raises:
      ValueError: there are fewer than two checkpoints, they differ in shape, or all are equal.

    Not to be believed as few degrees of freedom where there are two checkpoints only: their difference explains all of
    a change between them by construction.

    >>> steps_between([jnp.zeros(2), jnp.array([1.0, 0.0]), jnp.array([1.0, 5.0])]).most
    2
    """
    if len(trajectory) < 2:
        raise ValueError(f"trajectory: got {len(trajectory)} checkpoints; pass at least two.")
    for params in trajectory[1:]:
        _check_same("trajectory", trajectory[0], params)
    flat = np.diff(np.stack([flattened(params) for params in trajectory]), axis=0)
    kept: list[np.ndarray] = []
    for step in sorted(flat, key=lambda step: -np.linalg.norm(step)):
        left = step
        for _ in range(2):
            left = left - sum((other * (other @ left) for other in kept), np.zeros_like(left))
        if np.linalg.norm(left) > _DEPENDENT * np.linalg.norm(step):
            kept.append(left / np.linalg.norm(left))
    if not kept:
        raise ValueError("trajectory: all checkpoints are equal; pass ones between which something changed.")
    vectors = [cut(vector.astype(np.float32), trajectory[0]) for vector in kept]
    return basis_of(jax.tree.map(lambda *leaves: np.stack(leaves), *vectors))


def check_ends(before: PyTree, after: PyTree) -> None:
    """Refuse ends of a transition between which nothing can be compared, or nothing changed.

    Raises:
      ValueError: they differ in structure or shape, are equal, or hold an entry that is not finite.
    """
    _check_same("after", before, after)
    pairs = list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    for name, (first, last) in zip(tree.leaf_names(before), pairs, strict=True):
        if not (np.isfinite(np.asarray(first, np.float64)) & np.isfinite(np.asarray(last, np.float64))).all():
            raise ValueError(f"before, after: leaf {name!r} has entries that are not finite; choose other checkpoints.")
    if all(np.array_equal(np.asarray(first), np.asarray(last)) for first, last in pairs):
        raise ValueError("after: equals before; pass parameters before and after a transition.")


def default_counts(dimension: int, most: int = 24) -> list[int]:
    """1 to 8, then about equal ratios up to all.

    >>> default_counts(3), default_counts(1000, 12)
    ([1, 2, 3], [1, 2, 3, 4, 5, 6, 7, 8, 27, 89, 299, 1000])
    """
    few = list(range(1, min(dimension, 8) + 1))
    more = np.geomspace(8, max(dimension, 8), most - 7)[1:].tolist()
    return sorted({*few, *(round(count) for count in more if count < dimension), dimension})


def check_counts(counts: Sequence[int] | np.ndarray, dimension: int) -> np.ndarray:
    """Numbers of directions as an array, or a ``ValueError`` that says what is wrong with them."""
    found = np.asarray(counts)
    whole = found.ndim == 1 and found.size and np.issubdtype(found.dtype, np.integer)
    if not whole or (np.diff(found) <= 0).any() or found[0] < 1 or found[-1] > dimension:
        raise ValueError(f"counts: got {found.tolist()}; pass increasing integers from 1 to {dimension} (all of them).")
    return found


def check_kinds(kinds: Mapping[str, Directions], params: PyTree) -> None:
    """Refuse kinds of directions that were made for other parameters, without computing anything."""
    if not isinstance(kinds, Mapping) or not kinds:
        raise ValueError("kinds: got none; pass directions by name, as {'|Δw|': largest_moves(before, after)}.")
    wanted = jax.tree.map(jnp.shape, params)
    for name, kind in kinds.items():
        if not isinstance(kind, Directions):
            raise ValueError(
                f"kinds: {name!r} is a {type(kind).__name__}; make it a Directions, as along(params, span)."
            )
        try:
            found = jax.tree.map(jnp.shape, jax.eval_shape(kind.moved, params, params, 1))
        except (TypeError, ValueError) as error:
            # what a kind raises that was made for a tree of another structure or shape
            raise ValueError(f"kinds: {name!r} does not fit params of shapes {wanted}; make it from them.") from error
        if found != wanted:
            raise ValueError(f"kinds: {name!r} moves params of shapes {found}, not {wanted}; make it from these.")


def coordinates(params: PyTree, places: Array | np.ndarray) -> Directions:
    """Coordinates by the place of each in the order, shape ``(d,)``: with k directions, those at places below k."""
    return Directions(Partial(_graft, cut(places, params)), Partial(_free_entries, places), places.size)


def _graft(places: PyTree, before: PyTree, after: PyTree, count: Array | int) -> PyTree:
    return jax.tree.map(lambda place, old, new: jnp.where(place < count, new, old), places, before, after)


def _free_entries(places: Array, count: int) -> Restriction:
    index = jnp.asarray(np.flatnonzero(np.asarray(places) < count), jnp.int32)
    if not index.size:
        raise ValueError(f"count: the first unit has more than {count} parameters; ask for more.")
    return Restriction(Partial(_lift_entries, index), Partial(_origin_entries, index))


def _lift_entries(index: Array, center: PyTree, z: Array) -> PyTree:
    # one vector for all leaves: k entries have the same shape wherever they lie, and one program serves all of them
    flat = jnp.concatenate([jnp.ravel(leaf).astype(z.dtype) for leaf in jax.tree.leaves(center)])
    moved = cut(flat.at[index].add(z, unique_indices=True, indices_are_sorted=True), center)
    return jax.tree.map(lambda leaf, old: leaf.astype(jnp.result_type(old)), moved, center)


def _origin_entries(index: Array, center: PyTree) -> Array:
    return jnp.zeros(index.shape, jnp.result_type(*jax.tree.leaves(center)))


def basis_of(basis: PyTree) -> Directions:
    """The directions of an orthonormal basis, a tree like the parameters with one more axis, the first."""
    count = jax.tree.leaves(basis)[0].shape[0]
    rows = max(_LEAST_ROWS, 1 << (count - 1).bit_length())
    # arrays on the host stay there: every small operation on a device is one more program to compile
    pad = jnp.pad if tree.is_traced(basis) else np.pad
    filled = jax.tree.map(lambda leaf: pad(leaf, [(0, rows - count)] + [(0, 0)] * (leaf.ndim - 1)), basis)
    return Directions(Partial(_project, filled), Partial(_free_span, filled), count)


@jax.jit
def _basis_of(restriction: Restriction, zeros: PyTree) -> PyTree:
    flat, unravel = ravel_pytree(restriction.origin(zeros))
    return jax.vmap(lambda z: restriction.lift(zeros, unravel(z)))(jnp.eye(flat.size, dtype=flat.dtype))


def _project(basis: PyTree, before: PyTree, after: PyTree, count: Array | int) -> PyTree:
    change = jax.tree.map(lambda new, old: (new - old).astype(jnp.float32), after, before)
    pairs = zip(jax.tree.leaves(basis), jax.tree.leaves(change), strict=True)
    # what each leaf has in each direction
    parts = [jnp.tensordot(vectors, leaf, leaf.ndim, precision=jax.lax.Precision.HIGHEST) for vectors, leaf in pairs]
    shares = jnp.sum(jnp.stack(parts), axis=0)
    kept = jnp.where(jnp.arange(shares.shape[0]) < count, shares, 0.0)

    def moved(leaf: Array, vectors: Array) -> Array:
        return (leaf + jnp.tensordot(kept, vectors, 1, precision=jax.lax.Precision.HIGHEST)).astype(leaf.dtype)

    return jax.tree.map(moved, before, basis)


def _free_span(basis: PyTree, count: int) -> Restriction:
    return span(jax.tree.map(lambda leaf: leaf[:count], basis))


def flattened(values: PyTree) -> np.ndarray:
    """All entries in the order of the leaves, on the host, in double precision."""
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(values)])


def change_of(before: PyTree, after: PyTree) -> PyTree:
    """``|Δw|`` of each entry, on the host, in double precision."""
    return jax.tree.map(lambda new, old: np.abs(np.asarray(new, np.float64) - np.asarray(old)), after, before)


def _check_same(argument: str, first: PyTree, other: PyTree) -> None:
    shapes = [jax.tree.map(jnp.shape, params) for params in (first, other)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{argument}: has shapes {shapes[1]}, not {shapes[0]}; pass trees of one network.")
