"""Heads, blocks and layers as a kind of directions: whole units, those that moved most first."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import tree
from slt_jax.restriction import Restriction, check
from slt_jax.spectroscopy.directions import Directions, change_of, check_ends, coordinates, flattened
from slt_jax.types import PyTree


def units(before: PyTree, after: PyTree, parts: Mapping[str, Restriction]) -> Directions:
    """Whole units (heads, blocks, layers), in descending order of their mean squared change.

    ``k`` counts parameters, so that units stand beside other kinds: with k of them, those units are moved that find
    place, the first first. What lies in no unit is never moved.

    Args:
      before, after: Parameters at both ends.
      parts: Masks of parameters that do not overlap, as ``slt_jax.restriction.heads(params)``; where heads share keys
        and values, those of ``parts=("query", "out")`` do not.

    Raises:
      ValueError: there are none, one is not a mask, or two overlap.

    >>> from slt_jax.restriction import layers
    >>> ends = {"a": jnp.zeros(2), "b": jnp.zeros(2)}, {"a": jnp.array([0.0, 1.0]), "b": jnp.array([2.0, 1.0])}
    >>> [leaf.tolist() for leaf in units(*ends, layers(ends[0])).moved(*ends, 3).values()]
    [[0.0, 0.0], [2.0, 1.0]]
    """
    check_ends(before, after)
    marks = {name: marked(name, part, before) for name, part in parts.items()}
    if not marks:
        raise ValueError("parts: got none; pass masks by name, as slt_jax.restriction.heads(params).")
    times = np.sum(list(marks.values()), axis=0)
    if times.max() > 1:
        raise ValueError(f"parts: {list(marks)} overlap; pass units that share no parameter.")
    change = flattened(change_of(before, after))
    place, last = np.full(times.shape, times.size), 0
    for mark in sorted(marks.values(), key=lambda mark: -np.mean(change[mark] ** 2)):
        last += int(mark.sum())
        # a unit comes in when there is place for all of it
        place[mark] = last - 1
    return coordinates(before, place.astype(np.int32))._replace(most=last)


def marked(name: str, part: Restriction, params: PyTree) -> np.ndarray:
    """Which entries a mask frees, shape ``(d,)``."""
    check(part, params)
    zeros = tree.zeros_like(jax.tree.map(jnp.asarray, params))
    lifted = part.lift(zeros, jax.tree.map(jnp.ones_like, part.origin(zeros)))
    found = flattened(lifted)
    # a span of few directions can move many entries by 1 each
    if not np.isin(found, (0, 1)).all() or found.sum() != tree.size(part.origin(zeros)):
        raise ValueError(f"parts: {name!r} is not a mask of parameters; a span has no entries of its own.")
    return found == 1
