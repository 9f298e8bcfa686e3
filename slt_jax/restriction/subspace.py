"""Subspaces: the span of some directions is free."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import tree
from slt_jax.restriction.base import Restriction
from slt_jax.types import Array, PyTree

#: Unit vectors of which a combination of unit size is shorter than this are dependent, in single precision.
_DEPENDENT = 1e-5


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
    # there is no orthogonalisation in half precision
    flat = flat.astype(jnp.promote_types(flat.dtype, jnp.float32))
    flat = flat / jnp.linalg.norm(flat, axis=1, keepdims=True)
    with jax.default_matmul_precision("highest"):
        vectors = jnp.linalg.qr(flat.T)[0].T
    ends = np.cumsum([leaf.size // count for leaf in leaves])[:-1]
    parts = zip(jnp.split(vectors, ends, axis=1), leaves, strict=True)
    return jax.tree.unflatten(structure, [part.reshape(leaf.shape).astype(leaf.dtype) for part, leaf in parts])


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


def check_vectors(basis: PyTree, center: PyTree) -> None:
    """Refuse vectors of other shapes than the centre, not of floating point, or not finite; they may be dependent.

    Raises:
      ValueError: naming what is wrong.
    """
    _check_shapes(basis)
    _check_same_shapes(basis, center)
    for name, leaf in zip(tree.leaf_names(basis), jax.tree.leaves(basis), strict=True):
        if not np.isfinite(np.asarray(leaf).astype(np.float64)).all():
            raise ValueError(f"basis: leaf {name!r} has entries that are not finite.")


def _check_basis(basis: PyTree) -> int:
    """The number of vectors, or a ``ValueError`` that says what is wrong with the basis."""
    count = _check_shapes(basis)
    leaves = jax.tree.leaves(basis)
    if not tree.is_traced(basis):
        _check_independent(np.concatenate([np.asarray(leaf, np.float64).reshape(count, -1) for leaf in leaves], axis=1))
    return count


def _check_shapes(basis: PyTree) -> int:
    """The number of vectors, which all leaves share, or a ``ValueError``."""
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
