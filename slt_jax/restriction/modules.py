"""Layers and blocks of a network as restrictions, found from the paths of its leaves."""

import re
from collections.abc import Mapping

from slt_jax import tree
from slt_jax.restriction.attention import natural
from slt_jax.restriction.base import Restriction
from slt_jax.restriction.entries import mask
from slt_jax.types import PyTree

#: A part of a path that is one of several: a stem and a number, or a number alone.
_NUMBERED = re.compile(r"^(.*?)(\d+)$")


def layer(params: PyTree, path: str) -> Restriction:
    """Only one module is free: every leaf below ``path``.

    Args:
      params: The parameters; only their structure and shapes are used.
      path: Where the module is, as ``"blocks/0/mlp"``: a folder of leaves, not a pattern.

    Raises:
      ValueError: there is no module at this path; it names those there are.

    >>> import jax.numpy as jnp
    >>> params = {"hidden": {"kernel": jnp.zeros(3), "bias": jnp.zeros(3)}, "hidden_2": {"kernel": jnp.zeros(3)}}
    >>> list(layer(params, "hidden").origin(params))
    ['hidden/bias', 'hidden/kernel']
    """
    known = _modules(tree.leaf_names(params))
    if path not in known:
        raise ValueError(f"path: no module {path!r} in params; there are {sorted(known, key=natural)}.")
    return _below(params, path)


def layers(params: PyTree) -> dict[str, Restriction]:
    """Every module that holds arrays itself as a restriction, by name: ``"layer blocks/0/mlp/up"``.

    Where arrays stand at the top of the tree, under no module, each is a layer of its own.

    >>> import jax.numpy as jnp
    >>> list(layers({"hidden": {"kernel": jnp.zeros(3), "bias": jnp.zeros(3)}, "scale": jnp.zeros(3)}))
    ['layer hidden', 'layer scale']
    """
    parents = {name.rpartition("/")[0] or name for name in tree.leaf_names(params)}
    return {f"layer {path}": _below(params, path, own=True) for path in sorted(parents, key=natural)}


def block(params: PyTree, index: int, *, path: str | None = None) -> Restriction:
    """Only one of the blocks that a network repeats is free.

    Blocks are modules side by side whose names differ by a number only and which hold leaves of the same names:
    ``blocks/0``, ``Block_0``, ``layers_0``; the outermost such, where there are blocks within blocks.

    Args:
      params: The parameters; only their structure and shapes are used.
      index: The number in the name of the block.
      path: Where there are several kinds of blocks: that of the one meant, without its number, as ``"encoder/block_"``.

    Raises:
      ValueError: no such blocks are repeated, several kinds are, or none has this number; blocks side by side hold
        leaves of different names.

    >>> import jax.numpy as jnp
    >>> params = {"blocks": [{"kernel": jnp.zeros(3)}, {"kernel": jnp.zeros(3)}], "output": jnp.zeros(3)}
    >>> list(block(params, 1).origin(params))
    ['blocks/1/kernel']
    """
    kinds = _repeated(tree.leaf_names(params))
    if not kinds:
        raise ValueError(
            f"params: no blocks are repeated among {tree.leaf_names(params)}; blocks have one name and a number each. "
            "Pass the path of a module to slt_jax.restriction.layer."
        )
    if path is None and len(kinds) == 1:
        (path,) = kinds
    if path is None or path not in kinds:
        raise ValueError(f"path: got {path!r}; the repeated blocks are {sorted(kinds)}: name one of them.")
    if index not in kinds[path]:
        raise ValueError(f"index: got {index!r}; the blocks {path!r} have the numbers {sorted(kinds[path])}.")
    return _below(params, kinds[path][index])


def blocks(params: PyTree) -> dict[str, Restriction]:
    """Every block that a network repeats as a restriction, by name: ``"block 0"``, or ``"block encoder/block_0"``.

    The second where a network has several kinds of blocks.

    Raises:
      ValueError: no blocks are repeated.
    """
    kinds = _repeated(tree.leaf_names(params))
    if not kinds:
        raise ValueError(
            f"params: no blocks are repeated among {tree.leaf_names(params)}; blocks have one name and a number each."
        )
    return {
        f"block {number if len(kinds) == 1 else path}": _below(params, path)
        for kind in sorted(kinds, key=natural)
        for number, path in sorted(kinds[kind].items())
    }


def _below(params: PyTree, path: str, own: bool = False) -> Restriction:
    """Free are all leaves below a path, or only its own."""

    def free(name: str, leaf: object) -> bool:
        del leaf
        return name == path or (name.rpartition("/")[0] == path if own else name.startswith(f"{path}/"))

    return mask(params, free)


def _modules(names: list[str]) -> set[str]:
    """The paths of all modules, at every depth."""
    found = set()
    for name in names:
        parts = name.split("/")
        found |= {"/".join(parts[:depth]) for depth in range(1, len(parts))}
    return found


def _repeated(names: list[str]) -> Mapping[str, dict[int, str]]:
    """The outermost repeated blocks: path without its number to paths by number."""
    kinds: dict[str, dict[int, str]] = {}
    for path in _modules(names):
        above, _, last = path.rpartition("/")
        numbered = _NUMBERED.match(last)
        if numbered:
            stem = f"{above}/{numbered[1]}" if above else numbered[1]
            kinds.setdefault(stem, {})[int(numbered[2])] = path

    def inside(path: str) -> frozenset[str]:
        return frozenset(name.removeprefix(f"{path}/") for name in names if name.startswith(f"{path}/"))

    several = {stem: found for stem, found in kinds.items() if len(found) > 1}
    members = [path for found in several.values() for path in found.values()]
    outermost = {
        stem: found
        for stem, found in several.items()
        if not any(path.startswith(f"{member}/") for path in found.values() for member in members)
    }
    for found in outermost.values():
        first, *others = found.values()
        for other in others:
            if inside(other) != inside(first):
                raise ValueError(
                    f"params: {first!r} and {other!r} look like blocks of one kind, but differ in the leaves "
                    f"{sorted(inside(first) ^ inside(other))}. Pass the path of each to slt_jax.restriction.layer."
                )
    return outermost
