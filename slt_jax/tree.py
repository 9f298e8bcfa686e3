"""Arithmetic on trees of arrays: the few operations a sampler needs, and nothing that knows what a sampler is."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax.types import Array, Key, PyTree, Scalar


@jax.tree_util.register_static
@dataclass(frozen=True)
class Static:
    """Sizes and names that a program depends on: they travel in the structure of a tree, not in its leaves."""

    value: tuple[Any, ...]


def size(tree: PyTree) -> int:
    """Number of scalar entries in all leaves.

    >>> size({"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)})
    9
    """
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))


def zeros_like(tree: PyTree) -> PyTree:
    """A tree of zeros with the shapes and dtypes of ``tree``."""
    return jax.tree.map(jnp.zeros_like, tree)


def add(left: PyTree, right: PyTree) -> PyTree:
    """Leafwise ``left + right``, in the dtype of ``left``."""
    return jax.tree.map(lambda a, b: (a + b).astype(a.dtype), left, right)


def as_double(values: PyTree) -> PyTree:
    """Floating-point leaves in float64, anything else as it is; to be called where 64 bits are on.

    >>> with jax.enable_x64(True):
    ...     [leaf.dtype.name for leaf in as_double([jnp.ones(2, jnp.float32), jnp.arange(2, dtype=jnp.int32)])]
    ['float64', 'int32']
    """

    def wide(leaf: Any) -> Any:
        floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, jnp.float64) if floating or isinstance(leaf, float) else leaf

    return jax.tree.map(wide, values)


def at_least_float32(values: PyTree) -> PyTree:
    """All leaves in float32, or wider where they are: differences of half precision are taken after, not before.

    >>> [leaf.dtype.name for leaf in at_least_float32([jnp.ones(2, jnp.bfloat16), jnp.ones(2)])]
    ['float32', 'float32']
    """
    return jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), values)


def combine(function: Callable[..., Array], *trees: PyTree) -> PyTree:
    """Apply ``function`` leafwise, keeping the dtype of the first tree's leaves.

    A float64 scalar (a step size, a temperature) must not promote float32 parameters.
    """
    return jax.tree.map(lambda first, *rest: function(first, *rest).astype(first.dtype), *trees)


def dot(left: PyTree, right: PyTree) -> Array:
    """Inner product over all leaves, shape ``()``, accumulated in at least float32."""
    products = _products(left, right)
    return sum(products[1:], products[0])


def dot_by_leaf(left: PyTree, right: PyTree) -> Array:
    """Inner product within each leaf, shape ``(leaf,)``, in the order of ``jax.tree.leaves``.

    >>> ones = {"a": jnp.ones(2), "b": jnp.ones(3)}
    >>> [float(product) for product in dot_by_leaf(ones, ones)]
    [2.0, 3.0]
    """
    return jnp.stack(_products(left, right))


def norm_squared(tree: PyTree) -> Array:
    """Squared Euclidean norm over all leaves, shape ``()``."""
    return dot(tree, tree)


def norm_squared_change(new: PyTree, old: PyTree) -> Array:
    """``|new|² - |old|²`` as ``⟨new - old, new + old⟩``, shape ``()``.

    Two norms of a million entries agree in their first seven digits, and nothing would be left of their difference in
    single precision.

    >>> float(norm_squared_change(jnp.float32(4097.0), jnp.float32(4096.0)))
    8193.0
    """
    return dot(jax.tree.map(jnp.subtract, new, old), add(new, old))


def scale(factor: Scalar, tree: PyTree) -> PyTree:
    """Leafwise ``factor * tree``, in the dtype of ``tree``."""
    return combine(lambda leaf: factor * leaf, tree)


def cut(flat: Array | np.ndarray, like: PyTree) -> PyTree:
    """A vector cut into the shapes of the leaves of ``like``, in its own dtype; what is left over is dropped.

    An array of the host stays there.

    >>> jax.tree.map(jnp.shape, cut(np.arange(5), {"w": jnp.zeros((2, 2)), "b": jnp.zeros(1)}))
    {'b': (1,), 'w': (2, 2)}
    """
    leaves, structure = jax.tree.flatten(like)
    pieces, start = [], 0
    for leaf in leaves:
        end = start + math.prod(jnp.shape(leaf))
        pieces.append(flat[start:end].reshape(jnp.shape(leaf)))
        start = end
    return jax.tree.unflatten(structure, pieces)


def unflatten(flat: Array, like: PyTree) -> PyTree:
    """A vector cut into the shapes of the leaves of ``like``, each in the dtype of its leaf."""
    return jax.tree.map(lambda piece, leaf: piece.astype(leaf.dtype), cut(flat, like), like)


def path_name(path: tuple) -> str:
    """A leaf's path written with slashes, as ``blocks/0/kernel``.

    >>> [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path({"blocks": [{"kernel": 1.0}]})]
    ['blocks/0/kernel']
    """
    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaf_names(tree: PyTree) -> list[str]:
    """The paths of all leaves, in the order of ``jax.tree.leaves``."""
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def check_structure(name: str, found: PyTree, other: str, expected: PyTree, remedy: str) -> None:
    """Refuse a tree of another structure than ``expected``, whose name is ``other``.

    Raises:
      ValueError: naming the leaves of both, and the remedy.
    """
    ours: Any = jax.tree.structure(found)
    theirs: Any = jax.tree.structure(expected)
    if ours != theirs:
        raise ValueError(
            f"{name}: its leaves {leaf_names(found)} do not match those of {other} {leaf_names(expected)}. {remedy}"
        )


def check_key(key: Key) -> None:
    """Refuse anything but one typed key.

    Raises:
      ValueError: naming what was got.
    """
    if not (hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)) or key.ndim:
        raise ValueError(
            f"key: got {type(key).__name__} of dtype {getattr(key, 'dtype', None)} and shape {np.shape(key)}; pass one "
            "typed key, jax.random.key."
        )


def is_traced(tree: PyTree) -> bool:
    """Whether any leaf is a tracer, so that its value cannot be looked at on the host."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def _products(left: PyTree, right: PyTree) -> list[Array]:
    return [
        jnp.sum(at_least_float32(a) * at_least_float32(b))
        for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    ]
