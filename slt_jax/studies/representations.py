"""What a network holds of the irreducible representations of a group: in its weights, and in what it says."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from slt_jax.studies.finite_groups import FiniteGroup, projections
from slt_jax.types import Array

#: A share of the logits below this, in units of an even share, is too little to be present.
FLOOR = 0.1


class Shares(NamedTuple):
    """Of all that the logits vary by, representation by representation, in the order of ``group.characters``.

    Attributes:
      holds: The share that depends on c by this representation, of sum 1, shape ``(R,)``.
      characters: The share that is its character of ``a b c^-1``, at most as much, shape ``(R,)``.
    """

    holds: Array
    characters: Array


class Split(NamedTuple):
    """Logits in two parts, both ``[a, b, c]``, shape ``(n, n, n)``; their mean over all pairs is in both.

    Attributes:
      kept: What depends on the product ``a b`` alone, by the representations chosen.
      rest: All else.
    """

    kept: Array
    rest: Array


def spectrum(group: FiniteGroup, functions: ArrayLike) -> Array:
    """The share of the power of functions on the group that lies in each isotypic part, of sum 1.

    ``|P_ρ W|² / |W|²``: for a cyclic group the Fourier power of each frequency.

    Args:
      group: With ``n`` elements.
      functions: Shape ``(n, d)``, one function a column: an embedding, or a transposed unembedding.

    Returns:
      Shape ``(R,)``, in the order of ``group.characters``.

    Raises:
      ValueError: the first axis is not that of the elements.

    >>> from slt_jax.studies.finite_groups import cyclic
    >>> wave = np.cos(2 * np.pi * 2 * np.arange(5) / 5)[:, None]
    >>> spectrum(cyclic(5), wave).round(3).tolist()
    [0.0, 0.0, 1.0]
    """
    found = jnp.asarray(functions, float)
    if found.ndim != 2 or found.shape[0] != len(group.table):
        raise ValueError(
            f"functions: got shape {found.shape} on a group of {len(group.table)} elements; the first of two axes must "
            "be that of the elements."
        )
    power = _power(projections(group), found)
    return power / jnp.maximum(jnp.sum(power), jnp.finfo(power.dtype).tiny)


def characters_of(group: FiniteGroup, logits: Array) -> Shares:
    """How much of the logits each representation holds, and how much of it is a multiple of its character.

    The logits, less their mean over c, which no probability depends on, split into parts ``P_ρ`` along c. Within each
    the function ``χ_ρ(a b c^-1)`` is one direction; all of these are orthogonal.

    Args:
      group: With ``n`` elements.
      logits: ``[a, b, c]``, shape ``(n, n, n)``.

    Source: Chughtai, Chan & Nanda 2023, arXiv:2302.03025, §5: logits of a network that composes are characters.

    >>> from slt_jax.studies.finite_groups import cyclic, projections
    >>> of_two = jnp.asarray(projections(cyclic(5))[2][cyclic(5).table])
    >>> [part.round(3).tolist() for part in characters_of(cyclic(5), of_two)]
    [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    """
    parts, size = projections(group), len(group.table)
    centred = logits - jnp.mean(logits, axis=-1, keepdims=True)
    by_product = _by_product(group, centred)
    total = jnp.maximum(jnp.sum(jnp.square(centred)), jnp.finfo(centred.dtype).tiny)
    holds = _power(parts, centred.reshape(-1, size).T)
    # P_ρ[g, c] is the character of g c^-1, and every g is the product of n pairs
    along = jnp.sum(parts * by_product[None], axis=(1, 2))
    return Shares(holds / total, size * jnp.square(along) / np.sum(np.square(parts), axis=(1, 2)) / total)


def present(group: FiniteGroup, logits: Array) -> Array:
    """Whether the network uses each representation: 0 before, about 1 after, shape ``(R,)``.

    ``s / (t + 0.1/R)`` with the shares of ``characters_of``: s that of the character, t that of everything which the
    logits hold of the representation. Near 1 where the logits hold more than a tenth of an even share of it, and
    nothing but its character; whether three representations are used or ten.

    Not to be believed for the trivial representation, of which logits less their mean hold nothing.
    """
    shares = characters_of(group, logits)
    return shares.characters / (shares.holds + FLOOR / len(group.characters))


def restricted(group: FiniteGroup, logits: Array, names: list[str]) -> Split:
    """The logits with nothing but some representations of the product, and the logits without these.

    Kept is the projection onto functions of the product ``a b`` in the chosen isotypic parts; its loss is the
    restricted loss, the loss of the rest the excluded one. For a cyclic group the kept functions are ``cos`` and
    ``sin`` of ``2π k (a + b) / n``.

    Args:
      group: With ``n`` elements.
      logits: ``[a, b, c]``, shape ``(n, n, n)``.
      names: Among ``group.characters``.

    Raises:
      ValueError: a name that the group does not have.

    Source: Nanda et al. 2023, arXiv:2301.05217, §5.
    """
    known = list(group.characters)
    for name in names:
        if name not in known:
            raise ValueError(f"names: got {name!r}; the {group.name} has {', '.join(known)}.")
    chosen = np.array([known.index(name) for name in names if name != "trivial"], int)
    found = (projections(group)[chosen].sum(axis=0) @ _by_product(group, logits))[group.table]
    return Split(jnp.mean(logits, axis=(0, 1), keepdims=True) + found, logits - found)


def _power(parts: np.ndarray, functions: Array) -> Array:
    """``|P_ρ W|² = <P_ρ, W Wᵀ>``, for P is a projection, shape ``(R,)``."""
    return jnp.sum(parts * (functions @ functions.T)[None], axis=(1, 2))


def _by_product(group: FiniteGroup, logits: Array) -> Array:
    """The mean over all pairs of each product, ``[g, c]``, shape ``(n, n)``."""
    size = len(group.table)
    if logits.shape != (size, size, size):
        raise ValueError(f"logits: got shape {logits.shape}; pass [a, b, c], shape {(size, size, size)}.")
    # for every g and a the b with a b = g
    partner = group.table[group.inverse[None, :], np.arange(size)[:, None]]
    return jnp.mean(logits[np.arange(size)[None, :], partner], axis=1)
