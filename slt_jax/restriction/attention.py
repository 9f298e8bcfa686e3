"""Attention modules found by the names and the shapes of their projections, and how these are cut into heads."""

import re
from collections.abc import Iterator, Mapping
from itertools import accumulate
from math import prod
from operator import mul
from typing import NamedTuple

import jax
import numpy as np

from slt_jax import tree
from slt_jax.types import PyTree

#: What the projections of an attention module are called, by what they are for.
_NAMES = {
    "query": ("query", "q", "q_proj", "query_proj", "wq", "w_q", "to_q"),
    "key": ("key", "k", "k_proj", "key_proj", "wk", "w_k", "to_k"),
    "value": ("value", "v", "v_proj", "value_proj", "wv", "w_v", "to_v"),
    "out": ("out", "o", "o_proj", "out_proj", "output", "proj", "c_proj", "wo", "w_o", "to_out", "dense"),
    "fused": ("qkv", "qkv_proj", "wqkv", "w_qkv", "to_qkv", "c_attn", "in_proj", "query_key_value"),
}
_ROLES = {name: role for role, names in _NAMES.items() for name in names}
#: What the arrays of one projection are called.
_WEIGHTS, _BIASES = ("kernel", "weight", "w"), ("bias", "b")
#: Queries, keys and values in a fused projection.
_PARTS = 3

#: The axes that an array of a projection is made of: a length, or what is counted along it. Several of them are one
#: axis of the array where the projection is flat.
Axes = tuple[int | str, ...]


class Attention(NamedTuple):
    """One attention module, as its shapes tell it.

    Attributes:
      path: Where it is, as ``blocks/0/attention``; ``""`` for the whole tree.
      heads: Number of query heads.
      groups: Number of key and value heads; fewer than ``heads`` where these are shared (grouped-query attention).
      leaves: For each leaf that is cut into heads, by its path: ``"query"``, ``"key"``, ``"value"``, ``"out"`` or
        ``"fused"``, and its axes, of which ``"head"``, ``"group"`` and ``"part"`` (query, key, value) are counted.
    """

    path: str
    heads: int
    groups: int
    leaves: Mapping[str, tuple[str, Axes]]

    @property
    def lengths(self) -> dict[str, int]:
        """How long the axes are that are counted."""
        return {"head": self.heads, "group": self.groups, "part": _PARTS}


class _Leaf(NamedTuple):
    name: str
    role: str
    rank: int
    bias: bool
    shape: tuple[int, ...]


def attentions(params: PyTree, *, num_heads: int | None = None, fused: str | None = None) -> list[Attention]:
    """The attention modules of a network, ``blocks_10`` after ``blocks_2``, with the heads that their shapes tell.

    A module is whatever holds projections that are named as such: ``query``, ``key``, ``value`` and ``out``, or
    ``q_proj``, ``wq``, ``qkv``, ``c_attn`` and the like. Shapes that are understood, for N heads of width d:

    - separate, from the width that comes in to the heads, ``(in, N, d)`` as in Flax, ``(N, in, d)``, or ``(in, N d)``
      with ``num_heads``; biases ``(N, d)``, ``(N d,)``. Where both of the first two fit, the first is meant;
    - out ``(N, d, out)`` or ``(N d, out)``; its bias belongs to no head;
    - fused ``(in, 3, N, d)``, ``(3, in, N, d)``, ``(in, N, 3, d)``, neighbouring axes flattened or not. Where more than
      one of them fits, ``fused`` decides.

    Weights of other libraries that stand the other way round, ``(out, in)``, are to be transposed first: square ones
    cannot be told from these. Layers that are stacked on an axis of their own are not read.

    Separate keys and values may have fewer heads than queries, each then shared by as many queries that follow one
    another (grouped-query attention).

    Args:
      params: The parameters; only their structure and shapes are used.
      num_heads: Number of query heads, where shapes do not tell it: projections onto one flat axis.
      fused: What is outermost in the fused axis: ``"part"`` for all queries, then all keys, then all values;
        ``"head"`` for the query, key and value of the first head, then those of the second.

    Raises:
      ValueError: there is no attention module, or its heads cannot be told from its shapes; it names what would.

    >>> import jax.numpy as jnp
    >>> params = {"qkv": {"kernel": jnp.zeros((8, 24))}, "out": {"kernel": jnp.zeros((8, 8))}}
    >>> [module] = attentions(params, num_heads=2, fused="part")
    >>> module.leaves["qkv/kernel"]
    ('fused', (8, 'part', 'head', 4))
    """
    if fused not in (None, "part", "head"):
        raise ValueError(f"fused: got {fused!r}; pass 'part' or 'head', whichever is outermost in the fused axis.")
    if num_heads is not None and (isinstance(num_heads, bool) or not hasattr(num_heads, "__index__") or num_heads < 1):
        raise ValueError(f"num_heads: got {num_heads!r}; pass the number of query heads, an integer of at least 1.")
    modules: dict[str, list[_Leaf]] = {}
    for name, leaf in zip(tree.leaf_names(params), jax.tree.leaves(params), strict=True):
        path, projection, bias = _read_name(name)
        if projection in _ROLES:
            role = _ROLES[projection]
            rank = _NAMES[role].index(projection)
            modules.setdefault(path, []).append(_Leaf(name, role, rank, bias, np.shape(leaf)))
    # an output projection alone, a value or a query may be anything
    found = {path: leaves for path, leaves in modules.items() if _attends({leaf.role for leaf in leaves})}
    if not found:
        raise ValueError(
            f"params: no attention module in {tree.leaf_names(params)}. One is found by the names of its projections, "
            "such as 'query', 'q_proj' or 'qkv'; for others, mark the entries of a head with slt_jax.restriction.mask."
        )
    return [_understood(path, found[path], num_heads, fused) for path in sorted(found, key=natural)]


def _attends(roles: set[str]) -> bool:
    return "fused" in roles or {"query", "key"} <= roles


def natural(path: str) -> tuple:
    """A key to sort paths by, in which ``blocks_10`` comes after ``blocks_2``."""
    return tuple((int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", path))


def _read_name(name: str) -> tuple[str, str, bool]:
    """Of the path of a leaf: its module, the name of its layer there, and whether it is a bias."""
    parts = name.split("/")
    bias = parts[-1].lower() in _BIASES
    if len(parts) > 1 and parts[-1].lower() in _WEIGHTS + _BIASES:
        parts = parts[:-1]
    return "/".join(parts[:-1]), parts[-1].lower(), bias


def _understood(path: str, leaves: list[_Leaf], num_heads: int | None, fused: str | None) -> Attention:
    # the bias of the output belongs to no head; where two projections could be one, the more telling name is
    best = {role: min(leaf.rank for leaf in leaves if leaf.role == role) for role in {leaf.role for leaf in leaves}}
    cut = [leaf for leaf in leaves if not (leaf.role == "out" and leaf.bias) and leaf.rank == best[leaf.role]]
    roles = {leaf.role for leaf in cut}
    complete = roles in ({"fused", "out"}, {"query", "key", "value", "out"})
    readings = [reading for heads in _counts(cut, num_heads) for reading in _readings(path, cut, heads, fused)]
    distinct = [reading for number, reading in enumerate(readings) if reading not in readings[:number]]
    if complete and distinct and (len(distinct) == 1 or "fused" not in roles):
        return distinct[0]
    shapes = {leaf.name: leaf.shape for leaf in cut}
    if not complete:
        reason = f"it has projections to {sorted(roles)}, not to query, key, value and out"
    elif distinct:
        reason = "more than one reading fits; pass fused='part' or fused='head', whichever is outermost"
    elif num_heads is None:
        reason = "pass num_heads, or keep heads on an axis of their own"
    else:
        reason = f"they do not fit {num_heads} heads"
    raise ValueError(
        f"params: cannot tell the heads of the attention module {path!r} from the shapes {shapes}: {reason}. "
        "Or mark the entries of a head with slt_jax.restriction.mask."
    )


def _counts(leaves: list[_Leaf], num_heads: int | None) -> list[int]:
    """Numbers of heads that the shapes suggest, as Flax lays them out first."""
    if num_heads is not None:
        return [int(num_heads)]
    weights = {leaf.role: leaf.shape for leaf in leaves if not leaf.bias}
    query, out, fused = (weights.get(role, ()) for role in ("query", "out", "fused"))
    suggested = [query[1], query[0]] if len(query) == 3 else []
    if len(out) == 3:
        suggested = [count for count in suggested or [out[0]] if count == out[0]]
    elif len(fused) == 4:
        suggested = [fused[2], fused[1]]
    return list(dict.fromkeys(suggested))


def _readings(path: str, leaves: list[_Leaf], heads: int, fused: str | None) -> Iterator[Attention]:
    """Every way to cut all projections into so many heads."""
    if any(leaf.role == "fused" for leaf in leaves):
        orders = {"part": ["ipn", "pin"], "head": ["inp"], None: ["ipn", "pin", "inp"]}[fused]
    else:
        orders = ["in", "ni"]
    for order in orders:
        groups = _groups(leaves, heads, order)
        axes = {leaf.name: _axes(leaf, order, heads, groups) for leaf in leaves} if groups else {}
        known = {name: found for name, found in axes.items() if found is not None}
        if len(known) == len(leaves) and _agree(leaves, known):
            yield Attention(path, heads, groups, {leaf.name: (leaf.role, known[leaf.name]) for leaf in leaves})


def _groups(leaves: list[_Leaf], heads: int, order: str) -> int:
    """Number of key heads; 0 where there is none that fits."""
    weights = {leaf.role: leaf.shape for leaf in leaves if not leaf.bias}
    query, key = weights.get("query", ()), weights.get("key", ())
    if not key:
        return heads
    if len(key) == 3:
        groups = key[order.index("n")]
    elif len(key) == 2 and len(query) >= 2:
        # queries and keys have heads of one width
        width = query[-1] if len(query) == 3 else query[-1] // heads
        groups = key[-1] // width if width else 0
    else:
        return 0
    return groups if groups and heads % groups == 0 else 0


def _axes(leaf: _Leaf, order: str, heads: int, groups: int) -> Axes | None:
    """The axes of a leaf, if its shape is made of them: neighbours may be one axis, but for the width that comes in."""
    counted = "group" if leaf.role in ("key", "value") else "head"
    if leaf.role == "out":
        coming_in, names = leaf.shape[-1], tuple("ndi")
    else:
        names = tuple(f"{order}d")
        own = names.index("i")
        coming_in = leaf.shape[own] if not leaf.bias and own < len(leaf.shape) else 1
    if leaf.bias:
        names = tuple(name for name in names if name != "i")
    lengths = {"i": coming_in, "n": heads if counted == "head" else groups, "p": _PARTS}
    fixed = int(np.prod([lengths[name] for name in names if name != "d"]))
    size = int(np.prod(leaf.shape))
    if not fixed or size % fixed:
        return None
    lengths["d"] = size // fixed
    along = [lengths[name] for name in names]
    if not _is_flattened(leaf.shape, along):
        return None
    if "i" in names:
        at = names.index("i")
        ends = {1, *accumulate(leaf.shape, mul)}
        # the width that comes in is an axis of its own: joined with others the array stands the other way round
        if not {prod(along[:at]), prod(along[: at + 1])} <= ends:
            return None
        # heads as wide as all that comes in, one after the other, are layers stacked on the first axis
        if at and leaf.role != "out" and lengths["n"] > 1 and lengths["d"] >= lengths["i"]:
            return None
    return tuple({"n": counted, "p": "part"}.get(name, lengths[name]) for name in names)


def _is_flattened(shape: tuple[int, ...], lengths: list[int]) -> bool:
    """Whether a shape comes from these axes by making some neighbours one."""
    wanted, products = (list(accumulate(axes, mul)) for axes in (shape, lengths))
    return bool(wanted) and wanted[-1] == products[-1] and set(wanted) <= set(products)


def _agree(leaves: list[_Leaf], axes: Mapping[str, Axes]) -> bool:
    """Whether queries and keys have heads of one width, and what goes out of a head is as wide as its values."""
    width: dict[str, set[int | str]] = {}
    for leaf in leaves:
        length = axes[leaf.name][1] if leaf.role == "out" else axes[leaf.name][-1]
        width.setdefault(leaf.role, set()).add(length)
    same = [("query", "key"), ("value", "out"), ("fused", "out")]
    return all(len(width.get(a, set()) | width.get(b, set())) <= 1 for a, b in same if a in width)
