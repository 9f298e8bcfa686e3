"""Which directions are free: ``lift(center, z) -> params``, with ``z = 0`` at the centre.

One idea serves the whole network, a mask, a layer and a subspace, and the samplers never see which: they move ``z``.
Frozen entries are not part of ``z``, so they cost no dimension, no noise and no gradient.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import tree
from slt_jax.types import Array, PyTree

#: Unit vectors of which a combination of unit size is shorter than this are dependent, in single precision.
_DEPENDENT = 1e-5


class Restriction(NamedTuple):
    """A pair of pure functions; a tree, so that it can be an argument of a jitted function.

    Attributes:
      lift: ``lift(center, z) -> params``; affine in ``z``, with ``lift(center, 0) == center``.
      origin: ``origin(center) -> z``: the zero displacement, which carries the shapes of ``z``.
    """

    lift: Partial
    origin: Partial


def full(params: PyTree | None = None) -> Restriction:
    """Every entry of the parameters is free; ``z`` is a tree like ``params``.

    >>> restriction = full()
    >>> float(restriction.lift(jnp.float32(2.0), jnp.float32(0.5)))
    2.5
    """
    del params  # nothing about the tree has to be known: the argument only mirrors the other constructors
    return Restriction(Partial(_lift_full), Partial(_origin_full))


def mask(params: PyTree, free: PyTree | Callable[[str, Array], bool | np.ndarray]) -> Restriction:
    """Only the entries marked ``True`` are free.

    Args:
      params: The parameters; only their structure and shapes are used.
      free: A tree like ``params`` with boolean arrays (or single booleans) at its leaves, or a predicate
        ``free(path, leaf)`` that returns one, where ``path`` reads like ``"blocks/0/kernel"``.

    Returns:
      A restriction whose ``z`` is a dict from path to the free entries: in the leaf's own shape where all of it is
      free, as a vector of the gathered entries where part of it is. A frozen leaf does not appear.

    Raises:
      ValueError: the mask has another structure or shape than ``params``, is not boolean, or frees nothing; two leaves
        of ``params`` have the same path.

    >>> params = {"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)}
    >>> restriction = mask(params, lambda path, leaf: path == "b")
    >>> jax.tree.map(jnp.shape, restriction.origin(params))
    {'b': (2,)}
    """
    if callable(free):
        predicate = free
        marks = [predicate(tree.path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]
    else:
        if tree.leaf_names(free) != tree.leaf_names(params):
            raise ValueError(
                f"mask: its leaves {tree.leaf_names(free)} do not match those of params {tree.leaf_names(params)}. "
                "Build it with jax.tree.map over params."
            )
        marks = jax.tree.leaves(free)
    names = tree.leaf_names(params)
    shared = sorted({name for name in names if names.count(name) > 1})
    if shared:
        raise ValueError(f"mask: two leaves of params share the path {shared[0]!r}; rename one of them.")
    entries: dict[str, Array | None] = {}
    for name, leaf, mark in zip(names, jax.tree.leaves(params), marks, strict=True):
        marked = _as_boolean(name, np.shape(leaf), mark)
        if marked.size and marked.all():
            entries[name] = None
        elif marked.any():
            entries[name] = jnp.asarray(np.flatnonzero(marked), jnp.int32)
    if not entries:
        raise ValueError(f"mask: frees nothing; mark an entry True. The paths in params are {names}.")
    return Restriction(Partial(_lift_entries, entries), Partial(_origin_entries, entries))


def paths(params: PyTree, *patterns: str) -> Restriction:
    """Only the leaves whose path matches one of the shell-style patterns are free.

    ``*`` matches any run of characters, slashes too: ``"blocks/0/*"``, ``"*/bias"``.

    Raises:
      ValueError: no pattern was given, or a pattern matches no leaf (it is named, with the paths there are).

    >>> params = {"blocks": [{"kernel": jnp.zeros(3)}, {"kernel": jnp.zeros(3)}]}
    >>> list(paths(params, "blocks/1/*").origin(params))
    ['blocks/1/kernel']
    """
    names = tree.leaf_names(params)
    if not patterns:
        raise ValueError(f"patterns: got none; name at least one of {names}.")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"patterns: {pattern!r} matches no leaf; the paths in params are {names}.")
    return mask(params, lambda name, _: any(fnmatchcase(name, pattern) for pattern in patterns))


def span(basis: PyTree) -> Restriction:
    """Only the directions of a basis are free: ``lift(center, z) = center + Σ_i z_i basis_i``.

    The basis is taken as it is, and with it the unit of ``z``: γ holds ``z``, so that ``γ |z|²/2`` is a distance from
    the centre only where the basis is orthonormal. ``span(orthonormal(basis))`` has the same directions and the unit of
    the parameters.

    Args:
      basis: A tree like the parameters whose leaves have one more axis, the first, of length ``k``.

    Returns:
      A restriction whose ``z`` is a vector of shape ``(k,)``. The λ of two spans need not add up to that of both.

    Raises:
      ValueError: the basis has no leaves, or leaves whose first axes differ, or no vectors; a leaf is not floating
        point; and, unless it is traced, where an entry is not finite or the vectors are linearly dependent to single
        precision, of which a vector of zeros is one case.

    >>> diagonal = span({"w": jnp.array([[1.0, 1.0]])})
    >>> diagonal.lift({"w": jnp.array([1.0, 2.0])}, jnp.array([0.5]))["w"].tolist()
    [1.5, 2.5]
    """
    _check_basis(basis)
    basis = jax.tree.map(jnp.asarray, basis)
    return Restriction(Partial(_lift_span, basis), Partial(_origin_span, basis))


def orthonormal(basis: PyTree) -> PyTree:
    """An orthonormal basis of the same directions: ``span(orthonormal(basis))`` moves by ``|z|``.

    Args:
      basis: As for ``span``.

    Returns:
      A tree like ``basis``; the sum over leaves of the products of two vectors is 1 or 0. Works inside jit.

    Raises:
      ValueError: as ``span``.

    >>> bool(jnp.allclose(jnp.abs(orthonormal(jnp.array([[3.0, 4.0]]))), jnp.array([[0.6, 0.8]])))
    True
    """
    count = _check_basis(basis)
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, basis))
    flat = jnp.concatenate([leaf.reshape(count, -1) for leaf in leaves], axis=1)
    flat = flat / jnp.linalg.norm(flat, axis=1, keepdims=True)
    with jax.default_matmul_precision("highest"):
        vectors = jnp.linalg.qr(flat.T)[0].T
    ends = np.cumsum([leaf.size // count for leaf in leaves])[:-1]
    parts = zip(jnp.split(vectors, ends, axis=1), leaves, strict=True)
    return jax.tree.unflatten(structure, [part.reshape(leaf.shape).astype(leaf.dtype) for part, leaf in parts])


def check(restriction: Restriction, params: PyTree) -> None:
    """Refuse a restriction that was built for other parameters, without computing or compiling anything.

    Raises:
      ValueError: naming the first leaf of the restriction that ``params`` lacks, or the shape that differs.
    """
    if not isinstance(restriction, Restriction):
        raise ValueError(f"restriction: got a {type(restriction).__name__}; build one with slt_jax.restriction.")
    # spelled out, because a Python number as a parameter is weakly typed and its lift is not
    expected = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), params)
    lifted = jax.eval_shape(lambda center: restriction.lift(center, restriction.origin(center)), expected)
    if lifted != expected:
        raise ValueError(f"restriction: lifts to {lifted}, but params are {expected}. Build it from these params.")


def _lift_full(center: PyTree, z: PyTree) -> PyTree:
    return tree.add(center, z)


def _origin_full(center: PyTree) -> PyTree:
    return tree.zeros_like(center)


def _lift_entries(entries: dict[str, Array | None], center: PyTree, z: dict[str, Array]) -> PyTree:
    leaves, structure = jax.tree.flatten(center)
    names = tree.leaf_names(center)
    _check_names(entries, names)
    lifted = []
    for name, leaf in zip(names, leaves, strict=True):
        if name not in entries:
            lifted.append(leaf)
        elif entries[name] is None:
            lifted.append(tree.add(leaf, z[name]))
        else:
            moved = leaf.ravel().at[entries[name]].add(z[name].astype(leaf.dtype), unique_indices=True)
            lifted.append(moved.reshape(leaf.shape))
    return jax.tree.unflatten(structure, lifted)


def _origin_entries(entries: dict[str, Array | None], center: PyTree) -> dict[str, Array]:
    names = tree.leaf_names(center)
    _check_names(entries, names)
    leaves = dict(zip(names, jax.tree.leaves(center), strict=True))
    for name, index in entries.items():
        _check_index(name, index, leaves[name])
    return {
        name: jnp.zeros(jnp.shape(leaves[name]) if index is None else index.shape, leaves[name].dtype)
        for name, index in entries.items()
    }


def _lift_span(basis: PyTree, center: PyTree, z: Array) -> PyTree:
    _check_same_shapes(basis, center)

    def moved(leaf: Array, vectors: Array) -> Array:
        change = jnp.tensordot(z.astype(vectors.dtype), vectors, 1, precision=jax.lax.Precision.HIGHEST)
        return (leaf + change).astype(jnp.result_type(leaf))

    return jax.tree.map(moved, center, basis)


def _origin_span(basis: PyTree, center: PyTree) -> Array:
    _check_same_shapes(basis, center)
    leaves = jax.tree.leaves(basis)
    return jnp.zeros(leaves[0].shape[0], jnp.result_type(*leaves))


def _check_same_shapes(basis: PyTree, center: PyTree) -> None:
    found, wanted = jax.tree.map(lambda leaf: jnp.shape(leaf)[1:], basis), jax.tree.map(jnp.shape, center)
    if found != wanted:
        raise ValueError(f"restriction: vectors of shapes {found} do not fit params of shapes {wanted}.")


def _check_basis(basis: PyTree) -> int:
    """The number of vectors, or a ``ValueError`` that says what is wrong with the basis."""
    leaves = jax.tree.leaves(basis)
    lengths = {name: jnp.shape(leaf)[:1] for name, leaf in zip(tree.leaf_names(basis), leaves, strict=True)}
    if not leaves:
        raise ValueError("basis: got a tree without leaves; pass a tree like params with one more axis, the first.")
    if len(set(lengths.values())) > 1 or () in lengths.values():
        raise ValueError(
            f"basis: first axes differ: {lengths}; every leaf needs one vector an entry of its first axis."
        )
    (count,) = jnp.shape(leaves[0])[:1]
    if count == 0:
        raise ValueError("basis: got 0 vectors; pass at least one.")
    for name, leaf in zip(lengths, leaves, strict=True):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(f"basis: leaf {name!r} has dtype {jnp.result_type(leaf)}; it must be floating point.")
    if not tree.is_traced(basis):
        _check_independent(np.concatenate([np.asarray(leaf, np.float64).reshape(count, -1) for leaf in leaves], axis=1))
    return count


def _check_independent(vectors: np.ndarray) -> None:
    if not np.isfinite(vectors).all():
        raise ValueError("basis: has entries that are not finite.")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not norms.all():
        raise ValueError(f"basis: vector {int(np.argmin(norms))} is 0; leave it out.")
    unit = vectors / norms
    least = max(float(np.linalg.eigvalsh(unit @ unit.T)[0]), 0.0) ** 0.5
    if least < _DEPENDENT:
        raise ValueError(
            f"basis: its {len(vectors)} vectors in {vectors.shape[1]} dimensions are linearly dependent: the least "
            f"singular value of unit vectors is {least:.1e}. Leave out the redundant ones."
        )


def _check_names(entries: dict[str, Array | None], names: list[str]) -> None:
    missing = sorted(set(entries) - set(names))
    if missing:
        raise ValueError(f"restriction: frees {missing[0]!r}, which params lack; their paths are {names}.")


def _check_index(name: str, index: Array | None, leaf: Array) -> None:
    # an index beyond the leaf would be dropped without a word
    if index is None or tree.is_traced(index):
        return
    last = int(np.asarray(index).max())
    if last >= leaf.size:
        raise ValueError(
            f"restriction: frees entry {last} of {name!r}, which has {leaf.size} entries in params. "
            "Build it from these params."
        )


def _as_boolean(name: str, shape: tuple[int, ...], mark: object) -> np.ndarray:
    marked = np.asarray(mark)
    if marked.dtype != np.bool_:
        raise ValueError(f"mask: leaf {name!r} has dtype {marked.dtype}; a mask is boolean, True where free.")
    if marked.shape not in ((), shape):
        raise ValueError(f"mask: leaf {name!r} has shape {marked.shape}, params have {shape} there.")
    return np.broadcast_to(marked, shape)
