"""What a restriction is, that it fits the parameters, and the one that frees everything."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax import tree
from slt_jax.types import PyTree


class Restriction(NamedTuple):
    """A pair of pure functions; a tree, so that it can be an argument of a jitted function.

    Attributes:
      lift: ``lift(center, z) -> params``; affine in ``z`` (but for ``rescaling``), with ``lift(center, 0) == center``.
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
    return tree.add(jax.tree.map(jnp.asarray, center), z)


def _origin_full(center: PyTree) -> PyTree:
    return tree.zeros_like(center)
