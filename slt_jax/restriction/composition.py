"""Restrictions of restrictions: one inside another, and the part of a subspace that lies in some of the parameters."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from slt_jax import tree
from slt_jax.noise import exact_normal
from slt_jax.restriction.base import Restriction, check
from slt_jax.restriction.gauge import lift_orbit
from slt_jax.restriction.subspace import check_vectors, span
from slt_jax.types import PyTree

#: Directions of which less than this is left in the free parameters, relative to the largest, are left out.
_NEGLIGIBLE = 1e-5


def compose(outer: Restriction, inner: Restriction) -> Restriction:
    """``inner`` restricts the displacements of ``outer``: ``lift(w*, z) = outer.lift(w*, inner.lift(0, z))``.

    Args:
      outer: A restriction of the parameters.
      inner: A restriction built for ``outer.origin(params)`` in place of the parameters.

    Returns:
      A restriction of the parameters with the ``z`` of ``inner``. Works inside jit.

    Raises:
      ValueError: one of them is no restriction, or ``inner`` is a ``rescaling``; where it is used: ``inner`` does not
        fit the displacements of ``outer``.

    >>> from slt_jax.restriction import mask, paths
    >>> params = {"w": jnp.zeros(3), "b": jnp.zeros(2)}
    >>> only_w = paths(params, "w")
    >>> first = mask(only_w.origin(params), {"w": np.array([True, False, False])})
    >>> compose(only_w, first).lift(params, {"w": jnp.ones(1)})["w"].tolist()
    [1.0, 0.0, 0.0]
    """
    for name, one in (("outer", outer), ("inner", inner)):
        if not isinstance(one, Restriction):
            raise ValueError(f"{name}: got a {type(one).__name__}; build one with slt_jax.restriction.")
    if inner.lift.func is lift_orbit:
        raise ValueError("inner: is the orbit of weights that are scaled, and displacements have none; make it outer.")
    return Restriction(Partial(_lift_composed, outer, inner), Partial(_origin_composed, outer, inner))


def within(restriction: Restriction, params: PyTree, basis: PyTree) -> Restriction:
    """The part of a subspace that lies in some of the parameters: a head within a phase subspace.

    The span of ``P b_i``, where P projects on the directions of ``restriction``; orthonormal, in descending order of
    how much of the subspace lies there. Directions of which nothing is left are left out.

    Args:
      restriction: Free directions, orthonormal: a mask, a head, a layer, or the span of an orthonormal basis.
      params: The parameters; only their structure and shapes are used.
      basis: Directions: a tree like ``params`` whose leaves have one more axis, the first, of length k.

    Returns:
      A restriction with ``z`` of shape ``(j,)``, j ≤ k. On the host, not inside jit.

    Raises:
      ValueError: the restriction does not fit, is not orthonormal, or none of the directions lies in it; the basis has
        other leaves or shapes, or an entry that is not finite.

    >>> from slt_jax.restriction import paths
    >>> params = {"w": jnp.zeros(2), "b": jnp.zeros(2)}
    >>> basis = {"w": jnp.array([[1.0, 0.0], [0.0, 0.0]]), "b": jnp.array([[1.0, 1.0], [0.0, 1.0]])}
    >>> within(paths(params, "w"), params, basis).origin(params).shape
    (1,)
    """
    check(restriction, params)
    if restriction.lift.func is lift_orbit:
        raise ValueError("restriction: is the orbit of a scaling, which has one direction; pass a mask or a span.")
    zeros = tree.zeros_like(jax.tree.map(jnp.asarray, params))
    if tree.leaf_names(basis) != tree.leaf_names(params):
        raise ValueError(
            f"basis: its leaves {tree.leaf_names(basis)} do not match those of params {tree.leaf_names(params)}."
        )
    if tree.is_traced((basis, params)):
        raise ValueError("basis: is traced; call within outside of jit, which chooses how many directions are left.")
    check_vectors(basis, zeros)
    # a projection is taken in the precision of the parameters
    basis = jax.tree.map(lambda vectors, leaf: jnp.asarray(vectors, leaf.dtype), basis, zeros)
    origin = restriction.origin(zeros)
    transpose = jax.vjp(lambda z: restriction.lift(zeros, z), origin)[1]
    probe = exact_normal(jax.random.key(0), origin)
    again = transpose(restriction.lift(zeros, probe))[0]
    error = tree.norm_squared(jax.tree.map(jnp.subtract, again, probe)) / tree.norm_squared(probe)
    if not float(error) < 1e-6:
        raise ValueError(
            "restriction: its directions are not orthonormal; build it with span(orthonormal(basis)), or from a mask."
        )
    coordinates = jax.vmap(lambda vector: ravel_pytree(transpose(vector)[0])[0])(basis)
    left, sizes, rows = np.linalg.svd(np.asarray(coordinates, np.float64), full_matrices=False)
    del left
    total = float(np.sqrt(sum(np.sum(np.square(np.asarray(leaf, np.float64))) for leaf in jax.tree.leaves(basis))))
    kept = sizes > _NEGLIGIBLE * total
    if not kept.any():
        raise ValueError("basis: none of its directions moves what the restriction frees.")
    unravel = ravel_pytree(origin)[1]
    dtype = ravel_pytree(origin)[0].dtype
    return compose(restriction, span(jax.vmap(unravel)(jnp.asarray(rows[kept], dtype))))


def _lift_composed(outer: Restriction, inner: Restriction, center: PyTree, z: PyTree) -> PyTree:
    return outer.lift(center, inner.lift(outer.origin(center), z))


def _origin_composed(outer: Restriction, inner: Restriction, center: PyTree) -> PyTree:
    return inner.origin(outer.origin(center))
