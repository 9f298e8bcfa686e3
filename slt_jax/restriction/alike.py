"""Restrictions of one shape, side by side in one tree: one compiled program serves all of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from slt_jax import sharding
from slt_jax.restriction.base import Restriction

#: Restrictions of one shape that are measured side by side on an accelerator.
_TOGETHER = 8


class Alike(NamedTuple):
    """Restrictions that differ by numbers only.

    Attributes:
      names: Of the restrictions, in order.
      restriction: All of them in one tree, whose leaves have one more axis, the first: map over it with ``jax.vmap``.
    """

    names: list[str]
    restriction: Restriction


def by_shape(restrictions: Mapping[str, Restriction]) -> list[Alike]:
    """Restrictions grouped by shape, so that each group can be mapped over: all heads of a layer at once.

    Two have one shape if they free as many entries of the same leaves; then a jitted function that takes a restriction
    as an argument compiles once for both, mapped or one after the other.

    Args:
      restrictions: By name.

    Returns:
      Groups in the order of their first members.

    >>> from slt_jax.restriction import mask
    >>> params = jnp.zeros(4)
    >>> ends = {name: mask(params, jnp.arange(4) == at) for name, at in (("first", 0), ("last", 3))}
    >>> [group] = by_shape(ends)
    >>> jax.vmap(lambda one: one.lift(params, {"": jnp.ones(1)}))(group.restriction).tolist()
    [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    """
    groups: dict[Any, list[str]] = {}
    for name, restriction in restrictions.items():
        groups.setdefault(shape_of(restriction), []).append(name)
    return [Alike(names, stacked([restrictions[name] for name in names])) for names in groups.values()]


def shape_of(restriction: Restriction) -> Any:
    """What a compiled program depends on: the functions, the leaves that are free, and how many entries of each."""
    leaves, structure = jax.tree.flatten(restriction)
    return structure, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)


def stacked(restrictions: Sequence[Restriction]) -> Restriction:
    """Restrictions of one shape as one tree whose leaves have one more axis, the first."""
    return sharding.spread(jax.tree.map(lambda *leaves: jnp.stack(leaves), *restrictions), sharding.COMPONENTS)


def check_together(together: int | None) -> None:
    """Refuse anything but ``None`` and an integer of at least 1.

    Raises:
      ValueError: naming what was got.
    """
    if together is not None and (isinstance(together, bool) or not hasattr(together, "__index__") or together < 1):
        raise ValueError(f"together: got {together!r}; pass how many restrictions are measured at once, at least 1.")


def together_by_default() -> int:
    """1 on CPU, where one after the other is faster and shares the compiled program too, and 8 elsewhere."""
    return 1 if jax.default_backend() == "cpu" else _TOGETHER
