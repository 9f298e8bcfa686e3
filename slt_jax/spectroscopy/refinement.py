"""Which phase splits what an earlier one brought, read off the network's answers, beside shuffled labels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

#: A score that counts as a split, and the level of false discoveries over all pairs.
SPLIT, LEVEL = 0.9, 0.05
#: Shuffles of the labels.
SHUFFLES = 999
#: Items that a phase changes by less than this share of the most changed, in energy, it leaves alone.
_TOUCHED = 1e-3
#: Items whose changes have at least this cosine belong to one distinction.
_TOGETHER = 0.3
#: A part of a phase counts from this share of its energy.
_PART = 0.05
#: An earlier phase touched the items where its energy on them is at least this share of its mean over all.
_PRESENT = 0.1
#: Singular values below this share of the largest are 0.
_DEPENDENT = 1e-9
#: Share of a change's energy that its leading modes must hold to be all of it.
_ALL = 0.95


class Refinements(NamedTuple):
    """Of every pair of phases, whether the later splits what the earlier brought.

    Attributes:
      scores: From 0 to 1, row the later phase, column the earlier, shape ``(K, K)``; NaN where the row is not later.
      p_values: Share of shuffles with as high a score, of the same shape.
      adjusted: The same after Benjamini and Hochberg over all pairs.
      found: ``score ≥ 0.9`` and ``adjusted ≤ level``.
      clusters: How many clusters of items that an earlier phase had treated alike each phase splits, shape ``(K,)``.
      level: Of false discoveries.
      shuffles: Their number.
    """

    scores: np.ndarray
    p_values: np.ndarray
    adjusted: np.ndarray
    found: np.ndarray
    clusters: np.ndarray
    level: float
    shuffles: int


def refinements(
    changes: Sequence[np.ndarray | None], *, shuffles: int = SHUFFLES, level: float = LEVEL, seed: int = 0
) -> Refinements:
    """Which phase refines which, from what each changed in the network's answers to a list of items.

    ``D_k(x)`` is the change of the answers to item x over phase k. Items with ``D_i(x)`` equal and not 0 are treated
    alike by phase i: what it brought is the distinction between them and the rest. A later phase j refines it where
    the items that j changes lie within one such cluster and j tells them apart. The items of j fall into parts that
    share no direction of change; with weights ``w(x) ∝ |D_j(x)|²`` on a part the score is

        ``|Σ w D_i|² / Σ w |D_i|²  ·  (1 - |Σ D_j|² / (N Σ |D_j|²))``,  ``N = 1 / Σ w²``:

    how far i treats the part alike, times how far j splits it; 0 where i leaves the part alone. The best part counts.

    By chance: properties are dealt to the items anew, each by itself (all changes are added up and every column is
    shuffled), and phases bring the singular modes of what results, the strongest first, each as many as it brought.
    That is what gradient descent in a deep linear network does with shuffled labels.

    Args:
      changes: ``D_1, ..., D_K``, each of shape ``(items, outputs)``: differences of answers between plateaus; ``None``
        where there is none, or nothing changed: such a phase is in no pair.
      shuffles: At least 99.
      level: Of false discoveries over all pairs.
      seed: Of the shuffles.

    Returns:
      Scores, p-values and verdicts of all pairs; ``direct`` leaves out those that follow from others.

    Raises:
      ValueError: changes differ in shape or are not finite, fewer than 3 items, more than 1000, too few shuffles.

    Not to be believed for few items with few outputs: of two by two properties a tree comes out of every third
    shuffle. Distinctions that cross, as colour and shape do, refine neither the other, whatever the order.

    Sources: Saxe, McClelland & Ganguli 2019, arXiv:1810.10531, for hierarchies learned mode after mode; Benjamini &
    Hochberg 1995.

    >>> shared, halves, left = np.ones((4, 1)), np.array([[1.0], [1], [-1], [-1]]), np.array([[1.0], [-1], [0], [0]])
    >>> rows = [np.kron(np.eye(3)[k], change) for k, change in enumerate((9 * shared, 3 * halves, left))]
    >>> refinements(rows, shuffles=99).scores[2].round(3).tolist()
    [1.0, 1.0, nan]
    """
    from scipy.stats import false_discovery_control

    stack = _check(changes, shuffles, level)
    there = [phase for phase, change in enumerate(changes) if change is not None]
    later = np.tril(np.ones((len(there),) * 2, bool), -1)
    total, ranks = stack.sum(axis=0), [_rank(change) for change in stack]
    scores, per_part = _scores(stack, ranks)
    random = np.random.default_rng(seed)
    reached = np.zeros(later.shape, int)
    for _ in range(shuffles):
        reached += _scores(_modes(random.permuted(total, axis=0), ranks), ranks)[0] >= scores - 1e-9
    p_values = np.where(later, (1 + reached) / (1 + shuffles), np.nan)
    adjusted = np.full_like(p_values, np.nan)
    adjusted[later] = false_discovery_control(p_values[later])
    found = later & (scores >= SPLIT) & (adjusted <= level)
    clusters = np.zeros(len(changes), int)
    clusters[there] = [(parts[:, found[row]] >= SPLIT).any(axis=1).sum() for row, parts in enumerate(per_part)]

    def placed(values: np.ndarray, missing: float) -> np.ndarray:
        table = np.full((len(changes),) * 2, missing, values.dtype)
        table[np.ix_(there, there)] = values
        return table

    return Refinements(
        placed(np.where(later, scores, np.nan), np.nan),
        placed(p_values, np.nan),
        placed(adjusted, np.nan),
        placed(found, False),
        clusters,
        level,
        shuffles,
    )


def direct(found: np.ndarray) -> np.ndarray:
    """Those of the pairs that do not follow from two others: the transitive reduction.

    Args:
      found: Row the later phase, column the earlier, shape ``(K, K)``, boolean.

    >>> direct(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0]], bool)).astype(int).tolist()
    [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    """
    reach = found.copy()
    for middle in range(len(found)):
        reach |= reach[:, middle, None] & reach[None, middle]
    return found & ~((reach[:, :, None] & reach[None]).any(axis=1))


def _scores(changes: np.ndarray, ranks: Sequence[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Scores of all pairs, shape ``(K, K)``, and of each phase those of its parts, shape ``(parts, K)``."""
    energies = np.sum(changes**2, axis=2)
    mean = energies.mean(axis=1)
    scores, per_part = np.zeros((len(changes),) * 2), []
    for row, change in enumerate(changes):
        touched = energies[row] >= _TOUCHED * energies[row].max()
        # one mode changes all of its items along one direction
        parts = touched[None] if ranks[row] == 1 else _parts(change, energies[row], touched)
        energy = parts * energies[row]
        weights = energy / energy.sum(axis=1, keepdims=True)
        seen = weights @ energies.T
        alike = np.sum(np.tensordot(weights, changes, (1, 1)) ** 2, axis=2) / np.maximum(seen, 1e-300)
        moved = np.sum((parts.astype(float) @ change) ** 2, axis=1)
        splits = 1 - moved * np.sum(weights**2, axis=1) / energy.sum(axis=1)
        here = np.where(seen >= _PRESENT * mean[None], alike * np.clip(splits, 0, 1)[:, None], 0.0)
        per_part.append(here)
        scores[row] = here.max(axis=0)
    return scores, per_part


def _parts(change: np.ndarray, energy: np.ndarray, touched: np.ndarray) -> np.ndarray:
    """Sets of items that a phase changes along common directions, as masks, shape ``(parts, items)``."""
    from scipy.sparse.csgraph import connected_components

    size = np.sqrt(np.where(touched, energy, 1.0))
    together = (np.abs(change @ change.T) >= _TOGETHER * size[:, None] * size[None]) & touched[:, None] & touched[None]
    _, labels = connected_components(together, directed=False)
    masks = np.array([(labels == label) & touched for label in np.unique(labels[touched])])
    return masks[(masks * energy).sum(axis=1) >= _PART * energy.sum()]


def _rank(change: np.ndarray) -> int:
    """How many modes a phase brought: those that hold 95 % of the energy of its change."""
    energy = np.cumsum(np.linalg.svd(change, compute_uv=False) ** 2)
    return int(np.searchsorted(energy, _ALL * energy[-1]) + 1)


def _modes(total: np.ndarray, ranks: Sequence[int]) -> np.ndarray:
    """The singular modes of a change, the strongest first, dealt to phases by their ranks, ``(K, items, outputs)``."""
    left, sizes, right = np.linalg.svd(total, full_matrices=False)
    there = int(np.sum(sizes > _DEPENDENT * sizes[0]))
    # more modes than there are: the last phases share the weakest
    begins = [min(int(begin), max(there - rank, 0)) for begin, rank in zip(np.cumsum([0, *ranks]), ranks, strict=False)]
    return np.array(
        [
            (left[:, begin : begin + rank] * sizes[begin : begin + rank]) @ right[begin : begin + rank]
            for begin, rank in zip(begins, ranks, strict=True)
        ]
    )


def _check(changes: Sequence[np.ndarray | None], shuffles: int, level: float) -> np.ndarray:
    arrays = [np.asarray(change, float) for change in changes if change is not None]
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1 or len(arrays[0].shape) != 2:
        raise ValueError(f"changes: got shapes {sorted(shapes)}; pass one array (items, outputs) for each phase.")
    stack = np.stack(arrays)
    if not 3 <= stack.shape[1] <= 1000:
        raise ValueError(
            f"changes: are of {stack.shape[1]} items; pass 3 to 1000, classes or means where there are more."
        )
    for phase, change in enumerate(changes, start=1):
        if change is not None and not (np.isfinite(change).all() and np.any(change)):
            raise ValueError(f"changes: that of phase {phase} is 0 or not finite; pass None in its place.")
    if isinstance(shuffles, bool) or not isinstance(shuffles, int | np.integer) or shuffles < 99:
        raise ValueError(f"shuffles: got {shuffles!r}; pass a whole number of at least 99.")
    if not 0 < level < 1:
        raise ValueError(f"level: got {level}; pass a share in (0, 1), as 0.05.")
    return stack
