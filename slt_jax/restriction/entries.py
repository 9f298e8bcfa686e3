"""Masks: some entries of the parameters are free, and gathered, so that the others cost nothing."""

from collections.abc import Callable
from fnmatch import fnmatchcase

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import tree
from slt_jax.restriction.base import Restriction
from slt_jax.tree import Static
from slt_jax.types import Array, PyTree


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
    # of leaves that are free in part: in one of another shape the same entries would be others
    every = zip(names, map(np.shape, jax.tree.leaves(params)), strict=True)
    shapes = Static(tuple((name, shape) for name, shape in every if entries.get(name) is not None))
    return Restriction(Partial(_lift_entries, shapes, entries), Partial(_origin_entries, shapes, entries))


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


def _lift_entries(shapes: Static, entries: dict[str, Array | None], center: PyTree, z: dict[str, Array]) -> PyTree:
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, center))
    names = tree.leaf_names(center)
    _check_fits(shapes, entries, dict(zip(names, leaves, strict=True)))
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


def _origin_entries(shapes: Static, entries: dict[str, Array | None], center: PyTree) -> dict[str, Array]:
    leaves = dict(zip(tree.leaf_names(center), jax.tree.leaves(center), strict=True))
    _check_fits(shapes, entries, leaves)
    return {
        name: jnp.zeros(jnp.shape(leaves[name]) if index is None else index.shape, jnp.result_type(leaves[name]))
        for name, index in entries.items()
    }


def _check_fits(shapes: Static, entries: dict[str, Array | None], leaves: dict[str, Array]) -> None:
    missing = sorted(set(entries) - set(leaves))
    if missing:
        raise ValueError(f"restriction: frees {missing[0]!r}, which params lack; their paths are {list(leaves)}.")
    for name, shape in shapes.value:
        if jnp.shape(leaves[name]) != shape:
            raise ValueError(
                f"restriction: frees entries of {name!r} of shape {shape}, which has shape {jnp.shape(leaves[name])} "
                "in params. Build it from these params."
            )
        index = entries[name]
        if index is not None and jnp.ndim(index) != 1:
            raise ValueError("restriction: holds several, stacked; map over it with jax.vmap, or pass one of them.")


def _as_boolean(name: str, shape: tuple[int, ...], mark: object) -> np.ndarray:
    marked = np.asarray(mark)
    if marked.dtype != np.bool_:
        raise ValueError(f"mask: leaf {name!r} has dtype {marked.dtype}; a mask is boolean, True where free.")
    if marked.shape not in ((), shape):
        raise ValueError(f"mask: leaf {name!r} has shape {marked.shape}, params have {shape} there.")
    return np.broadcast_to(marked, shape)
