"""Components of a network put out together: labels of their entries, and the loss of many subsets at once."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import loss, tree
from slt_jax.noise import exact_normal
from slt_jax.restriction import Restriction, check
from slt_jax.types import Array, Key, PyTree

#: Subsets evaluated side by side.
TOGETHER = 64


def labelled(params: PyTree, components: Mapping[str, Restriction | PyTree]) -> PyTree:
    """Which component every entry belongs to: a tree like ``params`` of integers, -1 where it belongs to none.

    Args:
      params: The parameters.
      components: By name a restriction that frees single entries (``mask``, ``paths``, ``head``, ``layer``), or a tree
        of boolean arrays like ``params``, as a graft's mask.

    Raises:
      ValueError: a component that fits other parameters, is a subspace and no set of entries, is empty, or shares
        entries with another.

    >>> from slt_jax.restriction import paths
    >>> params = {"a": jnp.ones(2), "b": jnp.ones(1)}
    >>> labelled(params, {"one": paths(params, "b"), "other": {"a": np.array([True, False]), "b": np.array([False])}})
    {'a': array([ 1, -1], dtype=int32), 'b': array([0], dtype=int32)}
    """
    leaves, structure = jax.tree.flatten(params)
    labels = [np.full(np.shape(leaf), -1, np.int32) for leaf in leaves]
    names = list(components)
    for number, (name, component) in enumerate(components.items()):
        marks = _entries(name, component, params)
        if not any(mark.any() for mark in marks):
            raise ValueError(f"component {name!r}: holds no entry; leave it out")
        for label, mark in zip(labels, marks, strict=True):
            shared = label[mark]
            if (shared >= 0).any():
                other = names[int(shared.max())]
                raise ValueError(f"components {other!r} and {name!r} share entries; make them disjoint")
            label[mark] = number
    return jax.tree.unflatten(structure, labels)


def shuffled(key: Key, labels: PyTree) -> PyTree:
    """The same numbers of entries of each component in each leaf, drawn at random from those that belong to any.

    >>> shuffled(jax.random.key(0), [np.array([0, -1, 0, 0])])[0].tolist()
    [0, -1, 0, 0]
    """
    leaves, structure = jax.tree.flatten(labels)
    moved = []
    for one, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True):
        leaf = leaf.copy()
        leaf[leaf >= 0] = np.asarray(jax.random.permutation(one, leaf[leaf >= 0]))
        moved.append(leaf)
    return jax.tree.unflatten(structure, moved)


def losses_without(
    loss_fn: Partial, params: PyTree, reference: PyTree, data: PyTree, labels: PyTree, subsets: np.ndarray
) -> np.ndarray:
    """Mean loss with the entries of each subset of components set to their reference, nats, ``(subset,)``.

    Args:
      subsets: Boolean, ``(subset, component)``.
    """
    # padded to whole batches, so that one compiled program serves any number of subsets
    padded = np.zeros((-(-len(subsets) // TOGETHER) * TOGETHER, subsets.shape[1]), bool)
    padded[: len(subsets)] = subsets
    batches = padded.reshape(-1, TOGETHER, subsets.shape[1])
    found = [np.asarray(_losses(loss_fn, params, reference, data, labels, jnp.asarray(batch))) for batch in batches]
    return np.concatenate(found)[: len(subsets)].astype(float)


@partial(jax.jit)
def _losses(loss_fn: Partial, params: PyTree, reference: PyTree, data: PyTree, labels: PyTree, subsets: Array) -> Array:
    def one(chosen: Array) -> Array:
        # the last entry is that of what belongs to no component: numpy's -1 finds it
        out = jnp.append(chosen, False)
        ablated = jax.tree.map(lambda w, r, label: jnp.where(out[label], r, w), params, reference, labels)
        return jnp.mean(loss.at_center(loss_fn, ablated, data))

    return jax.vmap(one)(subsets)


def _entries(name: str, component: Restriction | PyTree, params: PyTree) -> list[np.ndarray]:
    if isinstance(component, Restriction):
        check(component, params)
        zero = jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), jnp.result_type(leaf, jnp.float32)), params)
        # a random displacement moves every entry that any displacement moves
        z = exact_normal(jax.random.key(0), component.origin(zero))
        marks = [np.asarray(leaf) != 0 for leaf in jax.tree.leaves(component.lift(zero, z))]
        if sum(int(mark.sum()) for mark in marks) != tree.size(z):
            raise ValueError(
                f"component {name!r}: is a subspace, which shares its entries with others; a component is a set of "
                "entries, as of slt_jax.restriction.mask, paths or head"
            )
        return marks
    leaves, given = jax.tree.leaves(params), jax.tree.leaves(component)
    if tree.leaf_names(component) != tree.leaf_names(params) or [np.shape(mark) for mark in given] != [
        np.shape(leaf) for leaf in leaves
    ]:
        raise ValueError(
            f"component {name!r}: got {type(component).__name__}; pass a restriction, or boolean arrays like params"
        )
    if any(np.asarray(mark).dtype != np.bool_ for mark in given):
        raise ValueError(f"component {name!r}: its arrays must be boolean: True where an entry belongs to it")
    return [np.asarray(mark) for mark in given]
