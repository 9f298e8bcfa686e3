"""Directions at random: what kinds of directions have to be better than."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import tree
from slt_jax.restriction import orthonormal
from slt_jax.spectroscopy.directions import Directions, basis_of, change_of, coordinates
from slt_jax.tree import cut
from slt_jax.types import Array, Key, PyTree

#: Up to so many parameters the null of spans goes up to all of them; beyond, up to the longest span of the kinds.
_SMALL = 512
#: Of the largest ``|Δw|``: what is less has not moved, for the null of those that moved.
_MOVED = 0.01

#: A null: directions drawn from a key.
Null = Callable[[Key], Directions]


def random_coordinates(key: Key, params: PyTree, among: PyTree | None = None) -> Directions:
    """Coordinates in a random order: the null of every kind of coordinates. Works inside jit.

    On a quadratic loss with its minimum at ``after`` and Hessian H, k of d of them explain on average
    ``1 - (q/d) S - q(q-1)/(d(d-1)) (1-S)``, ``q = d - k`` and ``S = Σ H_ii Δ_i² / ΔᵀHΔ``: ``k/d`` where no two
    coordinates act together (S = 1), and up to ``1 - (q/d)²``, about ``2k/d``, where all of them do (S = 0).

    Args:
      key: A typed key.
      params: The parameters; only their structure and shapes are used.
      among: Booleans, a tree like ``params``: those marked come first, in random order, as the ones that moved.
    """
    scores = jax.random.uniform(key, (tree.size(params),))
    if among is not None:
        scores = scores + jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(among)])
    order = jnp.argsort(-scores)
    return coordinates(
        params, jnp.zeros(scores.size, jnp.int32).at[order].set(jnp.arange(scores.size, dtype=jnp.int32))
    )


def random_subspace(key: Key, params: PyTree, count: int) -> Directions:
    """``count`` directions of which the first k span a uniformly random subspace: the null of every kind of span.

    On a quadratic loss with its minimum at ``after`` and Hessian H, k of d of them explain on average
    ``1 - q(q+2)/(d(d+2)) - q(d-q)(dρ-1) / (d(d+2)(d-1))``, ``q = d - k`` and ρ the mean curvature over that along
    Δ, ``ρ = tr H |Δ|² / (d ΔᵀHΔ)``: ``k/d`` where all curvatures are equal, up to about ``2k/d`` where Δ is stiff, and
    less than nothing where it is much softer than other directions.

    It takes ``count`` copies of the parameters. Works inside jit, with ``count`` static.
    """
    size = tree.size(params)
    if not 1 <= count <= size:
        raise ValueError(f"count: got {count!r}; pass 1 to {size}, the number of parameters.")
    vectors = jax.random.normal(key, (count, size))
    return basis_of(orthonormal(jax.vmap(lambda vector: cut(vector, params))(vectors)))


def default_nulls(before: PyTree, after: PyTree, kinds: Mapping[str, Directions]) -> dict[str, Null]:
    """Random coordinates, random ones among those that moved, and random subspaces."""
    change = change_of(before, after)
    least = _MOVED * max(leaf.max(initial=0.0) for leaf in jax.tree.leaves(change))
    size = tree.size(before)
    longest = max((kind.most for kind in kinds.values() if kind.most < size), default=1)
    count = size if size <= _SMALL else longest
    return {
        "random coordinates": Partial(_draw_coordinates, before, jax.tree.map(lambda leaf: leaf < 0, change)),
        "random among the moved": Partial(_draw_coordinates, before, jax.tree.map(lambda leaf: leaf > least, change)),
        "random subspace": Partial(_draw_subspace, before, np.zeros(count, np.float32)),
    }


def _draw_coordinates(params: PyTree, among: PyTree, key: Key) -> Directions:
    return random_coordinates(key, params, among)


def _draw_subspace(params: PyTree, count: Array, key: Key) -> Directions:
    # the number of directions has to be known to the compiler: it rides as a shape
    return random_subspace(key, params, count.shape[0])
