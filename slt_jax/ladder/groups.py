"""What is recorded for parts of the free parameters: for each entry where there are few, else for each leaf."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import tree
from slt_jax.posterior import LocalPosterior
from slt_jax.types import Array, PyTree

#: Free parameters up to which every entry is a group of its own.
ENTRIES = 64
#: An entry at 0 has no logarithm: those at the centre are taken to be so small.
_LEAST = 1e-30


def log_sizes(z: PyTree) -> Array:
    """``log |z_i|`` of each entry where there are at most 64, else its sum over each leaf, shape ``(group,)``."""
    return _grouped(jax.tree.map(lambda leaf: jnp.log(jnp.maximum(jnp.abs(leaf), _LEAST)), z))


def group_sizes(z: PyTree) -> np.ndarray:
    """Number of entries of each group, shape ``(group,)``."""
    sizes = [math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(z)]
    return np.array(sizes if sum(sizes) > ENTRIES else [1] * sum(sizes))


def group_names(z: PyTree) -> list[str]:
    """What the groups of ``log_sizes`` are: ``leaf[index]`` of each entry, or the leaves."""
    names = [name or "params" for name in tree.leaf_names(z)]
    if tree.size(z) > ENTRIES:
        return names
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(z)]
    return [
        f"{name}[{','.join(map(str, index))}]" if shape else name
        for name, shape in zip(names, shapes, strict=True)
        for index in _indices(shape)
    ]


def virial_parts(posterior: LocalPosterior, nbeta: Array, z: PyTree, gradient: PyTree) -> tuple[Array, Array]:
    """``Σ z_i nβ ∂_i L`` and ``Σ γ z_i²`` over each group, two arrays ``(group,)``."""
    work = jax.tree.map(lambda z, g: nbeta * z * g, z, gradient)
    return _grouped(work), posterior.gamma * _grouped(jax.tree.map(jnp.square, z))


def _grouped(values: PyTree) -> Array:
    leaves = jax.tree.leaves(values)
    if tree.size(values) <= ENTRIES:
        return jnp.concatenate([leaf.ravel() for leaf in leaves])
    return jnp.stack([jnp.sum(leaf) for leaf in leaves])


def _indices(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(length) for length in shape)))
