"""A curved direction that a network's symmetry leaves free: some weights grow while others shrink."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax.restriction.base import Restriction
from slt_jax.restriction.entries import mask
from slt_jax.types import Array, PyTree

#: A tree of booleans or a predicate, as ``mask`` takes it.
Marks = PyTree | Callable[[str, Array], bool | np.ndarray]


def rescaling(params: PyTree, growing: Marks, shrinking: Marks) -> Restriction:
    """The orbit of a scaling symmetry: ``w -> e^z w`` on some entries and ``e^-z w`` on others, one number z.

    Queries against keys of a head, values against outputs, the weights into a rectified unit against those out of it:
    the loss is constant along the orbit, and the coefficient 0. The only restriction whose lift is not affine. The
    tangent, ``span`` of ``(w, -w)``, leaves the orbit in second order: there the loss grows like ``z⁴``, and the
    coefficient is 1/4.

    Args:
      params: The parameters.
      growing, shrinking: Which entries: trees of booleans or predicates, as for ``mask``.

    Returns:
      A restriction with ``z`` of shape ``(1,)``: γ holds the logarithm of the scale.

    Raises:
      ValueError: as ``mask``; an entry both grows and shrinks.

    >>> orbit = rescaling({"q": jnp.ones(2), "k": jnp.ones(2)}, {"q": True, "k": False}, {"q": False, "k": True})
    >>> moved = orbit.lift({"q": jnp.ones(2), "k": jnp.ones(2)}, jnp.ones(1))
    >>> (moved["q"] * moved["k"]).round(5).tolist()
    [1.0, 1.0]
    """
    up, down = (_signs(params, marks) for marks in (growing, shrinking))
    both = sum(int(np.sum(one * other)) for one, other in zip(jax.tree.leaves(up), jax.tree.leaves(down), strict=True))
    if both:
        raise ValueError(f"shrinking: {both} entries are marked as growing too; an entry does one of the two.")
    signs = jax.tree.map(lambda one, other: jnp.asarray(one - other), up, down)
    return Restriction(Partial(lift_orbit, signs), Partial(_origin_orbit))


def _signs(params: PyTree, marks: Marks) -> PyTree:
    """1 where an entry is marked, else 0."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf)), params)
    marked = mask(zeros, marks)
    return jax.tree.map(np.asarray, marked.lift(zeros, jax.tree.map(jnp.ones_like, marked.origin(zeros))))


def lift_orbit(signs: PyTree, center: PyTree, z: Array) -> PyTree:
    """The centre, each entry times ``e^z``, ``e^-z`` or 1 by its sign."""
    return jax.tree.map(
        lambda leaf, sign: (leaf * jnp.exp(sign * z[0])).astype(leaf.dtype), jax.tree.map(jnp.asarray, center), signs
    )


def _origin_orbit(center: PyTree) -> Array:
    return jnp.zeros(1, jnp.result_type(*jax.tree.leaves(center)))
