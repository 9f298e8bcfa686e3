"""Attention heads as restrictions."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np

from slt_jax.restriction.attention import Attention, attentions
from slt_jax.restriction.base import Restriction
from slt_jax.restriction.entries import mask
from slt_jax.types import Array, PyTree

#: Projections of a head.
PARTS = ("query", "key", "value", "out")


def head(
    params: PyTree,
    layer: int | str,
    head: int,
    *,
    num_heads: int | None = None,
    fused: str | None = None,
    parts: Sequence[str] = PARTS,
) -> Restriction:
    """Only one attention head is free: its slices of the query, key, value and output projections, biases included.

    Args:
      params: The parameters; only their structure and shapes are used.
      layer: Which attention module: its number in the order of their paths, with ``blocks_10`` after ``blocks_2``, or a
        pattern that matches one path, as ``"blocks/3/*"``.
      head: Which query head, from 0. Where keys and values are shared by several heads, those that this one uses are
        free as well, and so are they in the other heads.
      num_heads, fused: What shapes may not tell, as for ``slt_jax.restriction.attentions``.
      parts: Which projections: among ``"query"``, ``"key"``, ``"value"``, ``"out"``.

    Returns:
      A restriction; ``slt_jax.restriction.preview`` shows what it frees. The bias of the output projection and the
      scales of normalised queries and keys belong to no single head, and stay frozen.

    Raises:
      ValueError: there is no such module or head, or its heads cannot be told from its shapes.

    Not to be believed where a projection of another kind has the name of one of these: look at the preview.

    >>> import jax.numpy as jnp
    >>> params = {"query": jnp.zeros((6, 2, 3)), "key": jnp.zeros((6, 2, 3)), "value": jnp.zeros((6, 2, 3)),
    ...           "out": jnp.zeros((2, 3, 6))}
    >>> {name: z.shape for name, z in head(params, 0, 1).origin(params).items()}
    {'key': (18,), 'out': (18,), 'query': (18,), 'value': (18,)}
    """
    modules = attentions(params, num_heads=num_heads, fused=fused)
    return _head_of(params, _chosen(modules, layer), head, parts)


def heads(
    params: PyTree, *, num_heads: int | None = None, fused: str | None = None, parts: Sequence[str] = PARTS
) -> dict[str, Restriction]:
    """Every attention head as a restriction, by name: ``"head 0.3"`` is the fourth of the first attention module.

    Args:
      params, num_heads, fused, parts: As for ``head``.

    Raises:
      ValueError: there is no attention module, or its heads cannot be told from its shapes.
    """
    return {
        f"head {number}.{one}": _head_of(params, module, one, parts)
        for number, module in enumerate(attentions(params, num_heads=num_heads, fused=fused))
        for one in range(module.heads)
    }


def _head_of(params: PyTree, module: Attention, head: int, parts: Sequence[str]) -> Restriction:
    if isinstance(parts, str) or not parts or set(parts) - set(PARTS):
        raise ValueError(f"parts: got {parts!r}; pass some of {PARTS}.")
    if isinstance(head, bool) or not hasattr(head, "__index__") or not 0 <= head < module.heads:
        raise ValueError(f"head: got {head!r}; attention {module.path!r} has heads 0 to {module.heads - 1}.")

    def free(path: str, leaf: Array) -> np.ndarray | bool:
        return _marked(module, path, int(head), parts).reshape(np.shape(leaf)) if path in module.leaves else False

    return mask(params, free)


def _marked(module: Attention, path: str, head: int, parts: Sequence[str]) -> np.ndarray:
    """Which entries of a leaf belong to the head, on the axes that the leaf is made of."""
    role, axes = module.leaves[path]
    shape = [axis if isinstance(axis, int) else module.lengths[axis] for axis in axes]
    group = head * module.groups // module.heads
    chosen = {"head": [head], "group": [group], "part": [PARTS.index(part) for part in parts]}
    marked = np.full(shape, role in parts or role == "fused")
    for position, axis in enumerate(axes):
        if axis in chosen:
            kept = np.isin(np.arange(shape[position]), chosen[axis])
            marked &= kept.reshape(-1, *[1] * (len(shape) - position - 1))
    return marked


def _chosen(modules: list[Attention], layer: int | str) -> Attention:
    names = [module.path for module in modules]
    if isinstance(layer, str):
        matching = [module for module in modules if fnmatchcase(module.path, layer)]
        if len(matching) != 1:
            raise ValueError(f"layer: {layer!r} matches {len(matching)} of the attention modules {names}; match one.")
        return matching[0]
    if isinstance(layer, bool) or not hasattr(layer, "__index__") or not 0 <= layer < len(modules):
        raise ValueError(f"layer: got {layer!r}; pass a number below {len(modules)}, or a pattern for one of {names}.")
    return modules[layer]
