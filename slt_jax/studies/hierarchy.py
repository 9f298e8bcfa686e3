"""A binary tree of items and the properties they share, and a deep linear network that learns it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax.types import Array, Key, PyTree

#: The items of the classic semantic network, in the order of their tree.
ITEMS = ("canary", "robin", "salmon", "sunfish", "oak", "pine", "rose", "daisy")
_GROUPS = (("animal", "plant"), ("bird", "fish", "tree", "flower"), ITEMS)


class Hierarchy(NamedTuple):
    """Items, the properties of each, and the distinctions that split them.

    Attributes:
      properties: Targets, shape ``(items, properties)``: 1 where the item has the property of a node of the tree; with
        strengths of their own, how much of it.
      levels: The level of each property's node, 0 at the root, shape ``(properties,)``.
      contrasts: For each distinction a vector over items: ``+1/√k`` on one side, ``-1/√k`` on the other, 0 elsewhere.
      strengths: The singular value of each distinction, by name.
      parents: The distinction that each splits a side of, by name; ``None`` for what all items share.
    """

    properties: np.ndarray
    levels: np.ndarray
    contrasts: dict[str, np.ndarray]
    strengths: dict[str, float]
    parents: dict[str, str | None]


def hierarchy(depth: int = 3, strengths: Sequence[float] | None = None) -> Hierarchy:
    """A binary tree of ``2^depth`` items and ``2^(depth + 1) - 1`` properties, one per node.

    At depth 3 the eight living things. The input-output map then has singular values √15, √7, √3 (twice) and 1 (four
    times): one per level, as many equal ones as the level has splits.

    Args:
      depth: Number of levels of splits, at least 1.
      strengths: Singular values instead of these, of what all items share and then of each split, level by level,
        shape ``(2^depth,)``; items then have properties to a degree. With no two equal every split is learned by
        itself.

    Raises:
      ValueError: a depth below 1 or above 10, or strengths that are too many, too few or not positive.

    Source: Saxe, McClelland & Ganguli 2019, arXiv:1810.10531; the items are those of Rumelhart's semantic network.

    >>> tree = hierarchy()
    >>> tree.properties.shape, [round(value**2) for value in tree.strengths.values()]
    ((8, 15), [15, 7, 3, 3, 1, 1, 1, 1])
    >>> hierarchy(2, [8, 4, 2, 1]).parents
    {'shared': None, 'split 0.0': 'shared', 'split 1.0': 'split 0.0', 'split 1.1': 'split 0.0'}
    """
    if isinstance(depth, bool) or not isinstance(depth, int | np.integer) or not 1 <= depth <= 10:
        raise ValueError(f"depth: got {depth!r}; pass a whole number from 1 to 10.")
    items = 2**depth
    columns, levels = [], []
    for level in range(depth + 1):
        for node in range(2**level):
            columns.append((np.arange(items) * 2**level // items == node).astype(np.float32))
            levels.append(level)
    properties = np.stack(columns, axis=1)
    names = _names(depth)
    contrasts = {names[0]: np.full(items, items**-0.5, np.float32)}
    parents: dict[str, str | None] = {names[0]: None}
    for level in range(depth):
        width = items >> level
        for node in range(2**level):
            contrast = np.zeros(items, np.float32)
            contrast[node * width : node * width + width // 2] = 1
            contrast[node * width + width // 2 : (node + 1) * width] = -1
            name = names[2**level + node]
            contrasts[name] = contrast / np.linalg.norm(contrast)
            # splits stand in the order of a heap
            parents[name] = names[(2**level + node) // 2]
    own = np.array([np.linalg.norm(contrast @ properties) for contrast in contrasts.values()])
    if strengths is not None:
        wanted = np.asarray(strengths, float)
        if wanted.shape != own.shape or not (np.isfinite(wanted) & (wanted > 0)).all():
            raise ValueError(f"strengths: got {strengths}; pass {items} positive numbers for depth {depth}.")
        sides = np.stack(list(contrasts.values()))
        properties = (sides.T @ ((wanted / own)[:, None] * (sides @ properties))).astype(np.float32)
        own = wanted
    return Hierarchy(
        properties, np.array(levels), contrasts, dict(zip(contrasts, map(float, own), strict=True)), parents
    )


def strengths_apart(depth: int, *, ratio: float = 1.35, seed: int = 0) -> list[float]:
    """Strengths of which no two are equal, for ``hierarchy``: powers of a ratio, a split weaker than that above it.

    Args:
      depth: Of the tree.
      ratio: Of each strength over the next, above 1; the last is 1.
      seed: Of the order, drawn among those in which no split comes before that above it.

    >>> strengths_apart(2, ratio=2)  # the second of the two splits is learned first
    [8.0, 4.0, 1.0, 2.0]
    """
    random, count = np.random.default_rng(seed), 2**depth
    ready, order = [0], []
    while ready:
        split = ready.pop(int(random.integers(len(ready))))
        order.append(split)
        # as in a heap; what all items share stands above the first split alone
        below = [1] if split == 0 else [2 * split, 2 * split + 1]
        ready += [one for one in below if one < count]
    strengths = np.empty(count)
    strengths[order] = float(ratio) ** np.arange(count)[::-1]
    return strengths.tolist()


def _names(depth: int) -> list[str]:
    """What all share, and then each split, level by level."""
    if depth == int(math.log2(len(ITEMS))):
        splits = [f"{group[node]} or {group[node + 1]}" for group in _GROUPS for node in range(0, len(group), 2)]
        return ["living thing", *splits]
    return ["shared", *(f"split {level}.{node}" for level in range(depth) for node in range(2**level))]


def initial(key: Key, widths: tuple[int, ...], scale: float) -> PyTree:
    """Layers with small random weights, each of shape ``(inputs, outputs)``."""
    keys = jax.random.split(key, len(widths) - 1)
    shapes = zip(keys, widths[:-1], widths[1:], strict=True)
    return [scale * jax.random.normal(k, (rows, columns)) / rows**0.5 for k, rows, columns in shapes]


def outputs(layers: PyTree, inputs: Array) -> Array:
    """What a deep linear network answers, shape ``(B, outputs)``."""
    for layer in layers:
        inputs = inputs @ layer
    return inputs


def squared_loss(layers: PyTree, batch: PyTree) -> Array:
    """Half the squared distance to the targets, per example: nats of a Gaussian of unit variance, shape ``(B,)``."""
    return 0.5 * jnp.sum((outputs(layers, batch["inputs"]) - batch["targets"]) ** 2, axis=1)
