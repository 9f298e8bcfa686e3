"""What a restriction frees, as a tree to be read."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import tree
from slt_jax.noise import exact_normal
from slt_jax.restriction.attention import natural
from slt_jax.restriction.base import Restriction, check
from slt_jax.types import PyTree


class Free(NamedTuple):
    """What is free of one leaf.

    Attributes:
      path: Of the leaf.
      shape: Of the leaf.
      moving: How many of its entries can move.
      share: Which share of the squared length of a random displacement lies in it.
    """

    path: str
    shape: tuple[int, ...]
    moving: int
    share: float


def freedom(restriction: Restriction, params: PyTree) -> list[Free]:
    """For each leaf of the parameters how much of it can move: one lift of a random displacement, on the host.

    Raises:
      ValueError: the restriction does not fit the parameters.
    """
    check(restriction, params)
    wide = jax.tree.map(lambda leaf: jnp.nan_to_num(jnp.asarray(leaf, jnp.result_type(leaf, jnp.float32))), params)
    # from 0, where no step rounds away; what scales the weights moves none there
    moved = _moved(restriction, tree.zeros_like(wide))
    if not any(leaf.any() for leaf in moved):
        moved = _moved(restriction, wide)
    total = sum(float(np.sum(leaf**2)) for leaf in moved) or 1.0
    return [
        Free(path, leaf.shape, int(np.count_nonzero(leaf)), float(np.sum(leaf**2)) / total)
        for path, leaf in zip(tree.leaf_names(params), moved, strict=True)
    ]


def _moved(restriction: Restriction, center: PyTree) -> list[np.ndarray]:
    # a random displacement moves every entry that any displacement moves
    z = exact_normal(jax.random.key(0), restriction.origin(center))
    ends = zip(*(jax.tree.leaves(end) for end in (restriction.lift(center, z), center)), strict=True)
    return [np.asarray(new, np.float64) - np.asarray(old, np.float64) for new, old in ends]


def preview(restriction: Restriction, params: PyTree) -> str:
    """What is free and in how many dimensions, as a tree to be printed; modules that are all frozen are one line.

    Args:
      restriction: Any.
      params: The parameters that it is meant for.

    Returns:
      Lines: the number of dimensions, then each leaf with its shape and how many of its entries can move. Where the
      entries move together, in fewer dimensions than there are entries, also the share of the squared length of a
      random displacement that lies in the leaf.

    Raises:
      ValueError: the restriction does not fit the parameters.

    >>> from slt_jax.restriction import paths
    >>> hidden = {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}
    >>> params = {"hidden": hidden, "output": {"kernel": jnp.zeros((2, 1))}}
    >>> print(preview(paths(params, "hidden/kernel"), params))
    6 of 10 dimensions are free, in 1 of 3 leaves
    ├─ hidden
    │  ├─ bias (2,)  frozen
    │  └─ kernel (3, 2)  6 of 6
    └─ output  frozen
    """
    leaves = sorted(freedom(restriction, params), key=lambda free: natural(free.path))
    dimensions = tree.size(jax.eval_shape(restriction.origin, params))
    moving = sum(leaf.moving for leaf in leaves)
    together = dimensions < moving
    spread = f", moving {moving} entries together" if together else ""
    free = sum(bool(leaf.moving) for leaf in leaves)
    size = tree.size(params)
    head = f"{dimensions} of {size} dimensions are free, in {free} of {len(leaves)} leaves{spread}"
    return "\n".join([head, *_drawn([(leaf.path.split("/"), leaf) for leaf in leaves], together)])


def _drawn(leaves: list[tuple[list[str], Free]], together: bool) -> list[str]:
    """The lines of a tree whose branches are the first parts of the paths."""
    branches: dict[str, list[tuple[list[str], Free]]] = {}
    for parts, leaf in leaves:
        branches.setdefault(parts[0], []).append((parts[1:], leaf))
    lines = []
    for number, (name, inside) in enumerate(branches.items()):
        last = number == len(branches) - 1
        start, below = ("└─ ", "   ") if last else ("├─ ", "│  ")
        if not inside[0][0]:
            lines.append(f"{start}{name} {_described(inside[0][1], together)}")
        elif not any(leaf.moving for _, leaf in inside):
            lines.append(f"{start}{name}  frozen")
        else:
            lines.append(f"{start}{name}")
            lines += [below + line for line in _drawn(inside, together)]
    return lines


def _described(leaf: Free, together: bool) -> str:
    if not leaf.moving:
        return f"{leaf.shape}  frozen"
    share = f", {leaf.share:.1%} of the motion" if together else ""
    return f"{leaf.shape}  {leaf.moving} of {int(np.prod(leaf.shape))}{share}"
