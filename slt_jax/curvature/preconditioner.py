"""Linear maps that make a basin round: ``z = A y``, with the logarithm of their determinant."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from slt_jax import tree
from slt_jax.types import Array, PyTree, Scalar


class Preconditioner(NamedTuple):
    """A positive definite matrix ``A``; a tree, so that it can be an argument of a jitted function.

    Attributes:
      apply: ``apply(y) -> A y``, flat vectors in the order of ``ravel_pytree(z)``.
      log_determinant: ``log_determinant(d) -> log det A`` in ``d`` dimensions, shape ``()``.
    """

    apply: Partial
    log_determinant: Partial


def isotropic(radius: Scalar = 1.0) -> Preconditioner:
    """``A = radius``: no direction is told from another.

    >>> isotropic(2.0).apply(jnp.ones(2)).tolist()
    [2.0, 2.0]
    """
    _check_positive("radius", radius)
    return stretched(jnp.zeros((0, 0)), jnp.zeros(0), radius)


def diagonal(radii: PyTree) -> Preconditioner:
    """``A = diag(radii)``: a tree like ``z``, how far the basin reaches along every coordinate; the scale is free.

    Raises:
      ValueError: a radius is not positive, unless it is traced.

    >>> diagonal({"w": jnp.array([1.0, 3.0])}).apply(jnp.ones(2)).tolist()
    [1.0, 3.0]
    """
    flat = ravel_pytree(radii)[0]
    _check_positive("radii", flat)
    return Preconditioner(Partial(_apply_diagonal, flat), Partial(_determinant_diagonal, flat))


def stretched(basis: Array, radii: Array, rest: Scalar) -> Preconditioner:
    """``A = Q diag(radii) Qᵀ + rest (1 - Q Qᵀ)``: orthonormal directions of their own radius, one for all others.

    Args:
      basis: ``Qᵀ``, shape ``(k, d)``, orthonormal rows.
      radii: Shape ``(k,)``, in units of ``z``.
      rest: In units of ``z``.

    Raises:
      ValueError: a radius is not positive, unless it is traced.

    >>> stretched(jnp.array([[1.0, 0.0]]), jnp.array([3.0]), 2.0).apply(jnp.ones(2)).tolist()
    [3.0, 2.0]
    """
    _check_positive("radii", radii)
    _check_positive("rest", rest)
    parts = (jnp.asarray(basis), jnp.asarray(radii), jnp.asarray(rest))
    return Preconditioner(Partial(_apply_stretched, *parts), Partial(_determinant_stretched, *parts))


def _apply_diagonal(radii: Array, vector: Array) -> Array:
    return radii * vector


def _determinant_diagonal(radii: Array, size: int) -> Array:
    if len(radii) != size:
        raise ValueError(f"preconditioner: has {len(radii)} radii for {size} free directions; give each its own.")
    return jnp.sum(jnp.log(radii))


def _apply_stretched(basis: Array, radii: Array, rest: Array, vector: Array) -> Array:
    if not len(radii):
        return rest.astype(vector.dtype) * vector
    with jax.default_matmul_precision("highest"):
        return rest * vector + ((basis @ vector) * (radii - rest)) @ basis


def _determinant_stretched(basis: Array, radii: Array, rest: Array, size: int) -> Array:
    if len(radii) and basis.shape != (len(radii), size):
        raise ValueError(
            f"preconditioner: a basis of shape {basis.shape} does not fit {len(radii)} radii in {size} free directions."
        )
    return jnp.sum(jnp.log(radii)) + (size - len(radii)) * jnp.log(rest)


def _check_positive(name: str, values: Array | Scalar) -> None:
    if tree.is_traced(values):
        return
    numbers = np.asarray(values).ravel()
    wrong = numbers[~(np.isfinite(numbers) & (numbers > 0))]
    if wrong.size:
        raise ValueError(f"{name}: got {wrong[0]}; it must be finite and positive.")
