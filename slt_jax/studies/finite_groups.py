"""Cyclic and dihedral groups: their tables, and what a function on a group holds of each irreducible representation."""

from typing import NamedTuple

import numpy as np


class FiniteGroup(NamedTuple):
    """A group of few elements, which are numbered from 0, the identity.

    Attributes:
      name: What it is called.
      table: ``table[a, b]`` is the number of ``a b``, shape ``(n, n)``.
      inverse: The number of ``a^-1``, shape ``(n,)``.
      characters: By the name of an irreducible representation over the reals, the part of the identity that it is:
        ``e(g) = Σ d χ(g) / n`` over the complex representations in it, shape ``(n,)``.
    """

    name: str
    table: np.ndarray
    inverse: np.ndarray
    characters: dict[str, np.ndarray]


def cyclic(order: int) -> FiniteGroup:
    """Addition modulo ``order``. Representation ``k`` is the frequency k: the waves of ``2π k a / n``.

    Args:
      order: Number of elements, at least 2.

    Raises:
      ValueError: it is no whole number of at least 2.

    >>> cyclic(5).table[3, 4], sorted(cyclic(5).characters)
    (np.int64(2), ['1', '2', 'trivial'])
    """
    _check_order(order, 2)
    elements = np.arange(order)
    characters = {"trivial": np.full(order, 1 / order)}
    for k in range(1, (order - 1) // 2 + 1):
        characters[str(k)] = 2 * np.cos(2 * np.pi * k * elements / order) / order
    if order % 2 == 0:
        characters["sign"] = (1 - 2.0 * (elements % 2)) / order
    table = (elements[:, None] + elements[None, :]) % order
    return FiniteGroup(f"cyclic of order {order}", table, -elements % order, characters)


def dihedral(order: int) -> FiniteGroup:
    """The turns and reflections of a polygon with ``order / 2`` corners: ``a + (order / 2) e`` is ``r^a s^e``.

    Args:
      order: Number of elements, even, at least 6.

    Raises:
      ValueError: it is odd or less than 6.

    >>> group = dihedral(6)
    >>> group.table[1, 3], group.table[3, 1], sorted(group.characters)
    (np.int64(4), np.int64(5), ['1', 'sign', 'trivial'])
    """
    _check_order(order, 6)
    if order % 2:
        raise ValueError(f"order: got {order}; a dihedral group has an even number of elements.")
    corners = order // 2
    turn, flip = np.arange(order) % corners, np.arange(order) // corners
    back = 1 - 2 * flip
    table = (turn[:, None] + back[:, None] * turn[None, :]) % corners + corners * (flip[:, None] ^ flip[None, :])
    characters = {"trivial": np.full(order, 1 / order), "sign": back / order}
    if corners % 2 == 0:
        odd = 1 - 2.0 * (turn % 2)
        characters |= {"alternating": odd / order, "sign alternating": odd * back / order}
    for k in range(1, (corners - 1) // 2 + 1):
        characters[str(k)] = np.where(flip, 0.0, 4 * np.cos(2 * np.pi * k * turn / corners)) / order
    return FiniteGroup(f"dihedral of order {order}", table, table.argmin(axis=1), characters)


def projections(group: FiniteGroup) -> np.ndarray:
    """The projections of functions on the group onto the isotypic parts: symmetric, idempotent, of sum 1.

    ``P_ρ[x, y] = e_ρ(x y^-1)``; ``P_ρ[table][a, b, c]`` is then the character of ``a b c^-1``. The order is that of
    ``group.characters``.

    Returns:
      Shape ``(R, n, n)``.

    >>> parts = projections(dihedral(6))
    >>> np.trace(parts, axis1=1, axis2=2).round().tolist()
    [1.0, 1.0, 4.0]
    """
    quotient = group.table[:, group.inverse]
    return np.stack([function[quotient] for function in group.characters.values()])


def _check_order(order: int, least: int) -> None:
    if isinstance(order, bool) or not isinstance(order, int | np.integer) or order < least:
        raise ValueError(f"order: got {order!r}; it must be a whole number, at least {least}.")
