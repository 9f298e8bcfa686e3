"""Sets the signatures of independently trained networks side by side: what is the same in all, beyond chance."""

import itertools
from collections.abc import Sequence

import numpy as np

from slt_jax.spectroscopy.comparison import Agreement, Comparison
from slt_jax.spectroscopy.signatures import Signature

#: So many ways to tell kinds apart are all gone through; of more, as many as there are permutations are drawn.
_ALL = 10_000
#: What is nearer than this is as near: sums in another order differ by rounding.
_ROUNDING = 1e-9
#: Fewer permutations than this cannot reach a p-value of 0.05.
_LEAST = 19


def compare(
    signatures: Sequence[Signature],
    *,
    matched: bool = True,
    permutations: int = 2000,
    level: float = 0.05,
    seed: int = 0,
) -> Comparison:
    """Which readings are the same in networks that were trained independently, and which are not.

    Every reading of a network is taken in units of its own root mean square over the items, so that sizes do not
    count, only what is large where. The distance between two networks is the root mean square difference over all
    readings and items, after the assignment of items (Hungarian) that makes it least; networks with fewer items have
    further ones that brought nothing. Tested against chance are

    - the whole: every reading of every network is shuffled over the items by itself, and the items assigned anew. What
      is left is each reading by itself; what is gone is that they belong to the same items. Without assignment the
      items of every network are shuffled, with all that was read of them: what is gone is their common order;
    - each reading: the items are assigned by all the others, and it alone is shuffled.

    Under the hypothesis that a reading has nothing to do with the items the p-values are exactly uniform, whatever its
    distribution. False discoveries over readings are controlled by Benjamini and Hochberg.

    Args:
      signatures: At least two. Readings that all of them have are compared.
      matched: Whether items are told apart by what was read of them alone (phases, heads, representations). ``False``
        where the first is the first in all (stages).
      permutations: At least 19.
      level: Of the false-discovery rate.
      seed: Of the permutations.

    Raises:
      ValueError: fewer than two networks or readings, fewer than two items, a reading that is not finite or has
        another shape, unequal items that are not to be matched, settings out of range.

    Not to be believed as agreement in size: of two networks one may change by ten times as much. With two or three
    items there are few shuffles: ``p_value`` cannot be small. Stages of training are not independent of their
    neighbours, so that smooth curves agree by chance more often than shuffles do.

    Source: the question: Olah et al. 2020, Zoom In; networks for groups: Chughtai et al. 2023, arXiv:2302.03025.

    >>> random = np.random.default_rng(0)
    >>> table, order = random.normal(size=(6, 3)), random.permutation(6)
    >>> one, other = (Signature(name, tuple("abcdef"), dict(zip("xyz", rows.T))) for name, rows in
    ...               (("one", table), ("other", 5 * table[order])))
    >>> found = compare([one, other], permutations=199)
    >>> round(found.distance, 6), found.p_value, all(row.agrees for row in found.agreements)
    (0.0, 0.005, True)
    """
    from scipy.stats import false_discovery_control

    names, missing = _check(signatures, matched, permutations, level)
    table = _table(signatures, names)
    random = np.random.default_rng(seed)
    pairs = list(itertools.combinations(range(len(table)), 2))
    assignments = _assign(table, pairs, matched)
    squares = _squares(table, pairs, assignments).mean(axis=1)
    counts = [len(signature.items) for signature in signatures]
    shuffle = _shuffled if matched else _reordered
    shuffled = [_distance(shuffle(random, table, counts), pairs, matched) for _ in range(permutations)]
    distance = float(np.sqrt(squares.mean()))
    kinds = [signature.kind for signature in signatures]
    rows = [
        _agreement(random, table, counts, names[which], which, pairs, matched, permutations, kinds)
        for which in range(len(names))
    ]
    adjusted = false_discovery_control([row.p_value for row in rows]).tolist()
    rows = [row._replace(adjusted=q, agrees=q <= level) for row, q in zip(rows, adjusted, strict=True)]
    told = _kinds(random, np.sqrt(squares), pairs, kinds, permutations)
    return Comparison(
        names=[signature.name for signature in signatures],
        agreements=sorted(rows, key=lambda row: (row.p_value, row.distance)),
        distance=distance,
        by_chance=float(np.mean(shuffled)),
        p_value=_share(shuffled, distance),
        pairs=_square(np.sqrt(squares), pairs, len(table)),
        assignments=dict(zip(pairs, assignments, strict=True)),
        kinds=None if told is None else told[0],
        least=None if told is None else told[1],
        missing=missing,
        level=level,
    )


def _table(signatures: Sequence[Signature], names: Sequence[str]) -> np.ndarray:
    """Readings in units of their own size, with empty items up to the most that there are, shape ``(N, P, R)``."""
    most = max(len(signature.items) for signature in signatures)
    table = np.zeros((len(signatures), most, len(names)))
    for network, signature in enumerate(signatures):
        for column, name in enumerate(names):
            table[network, : len(signature.items), column] = signature.readings[name]
    sizes = np.sqrt(np.mean(np.square(table), axis=1, keepdims=True))
    return table / np.where(sizes > 0, sizes, 1.0)


def _assign(table: np.ndarray, pairs: list[tuple[int, int]], matched: bool) -> list[np.ndarray]:
    """For every pair the item of the second that each item of the first is set beside."""
    from scipy.optimize import linear_sum_assignment

    if not matched:
        return [np.arange(table.shape[1])] * len(pairs)
    costs = (np.sum(np.square(table[i][:, None] - table[j][None, :]), axis=-1) for i, j in pairs)
    return [linear_sum_assignment(cost)[1] for cost in costs]


def _squares(table: np.ndarray, pairs: list[tuple[int, int]], assignments: list[np.ndarray]) -> np.ndarray:
    """Mean square differences by pair and reading, shape ``(pairs, R)``."""
    rows = [np.square(table[i] - table[j][order]) for (i, j), order in zip(pairs, assignments, strict=True)]
    return np.mean(rows, axis=1)


def _distance(table: np.ndarray, pairs: list[tuple[int, int]], matched: bool) -> float:
    return float(np.sqrt(_squares(table, pairs, _assign(table, pairs, matched)).mean()))


def _shuffled(random: np.random.Generator, table: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Every reading of every network over its items, each by itself, ``(..., N, P, R)``; further empty ones stay."""
    found = table.copy()
    for network, count in enumerate(counts):
        found[..., network, :count, :] = random.permuted(table[..., network, :count, :], axis=-2)
    return found


def _reordered(random: np.random.Generator, table: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """The items of every network in another order, with all that was read of them."""
    return np.stack([one[random.permutation(count)] for one, count in zip(table, counts, strict=True)])


def _agreement(
    random: np.random.Generator,
    table: np.ndarray,
    counts: Sequence[int],
    name: str,
    which: int,
    pairs: list[tuple[int, int]],
    matched: bool,
    permutations: int,
    kinds: Sequence[str],
) -> Agreement:
    """One reading, on items assigned by all the others; not yet adjusted."""
    assignments = _assign(np.delete(table, which, axis=2), pairs, matched)
    own = table[:, :, which : which + 1]
    copies = _shuffled(random, np.broadcast_to(own, (permutations, *own.shape)), counts)

    def squares(values: np.ndarray) -> np.ndarray:
        found = [
            np.mean(np.square(values[..., i, :, 0] - values[..., j, order, 0]), axis=-1)
            for (i, j), order in zip(pairs, assignments, strict=True)
        ]
        return np.stack(found, axis=-1)

    found = squares(own)
    distance, shuffled = float(np.sqrt(found.mean())), np.sqrt(squares(copies).mean(axis=-1))
    told = _kinds(random, np.sqrt(found), pairs, kinds, permutations)
    p_value = _share(shuffled, distance)
    return Agreement(name, distance, float(shuffled.mean()), p_value, p_value, False, None if told is None else told[0])


def _kinds(
    random: np.random.Generator,
    distances: np.ndarray,
    pairs: list[tuple[int, int]],
    kinds: Sequence[str],
    permutations: int,
) -> tuple[float, float] | None:
    """The share of all labellings that tell the kinds apart as well, and the least that it can be."""
    labels = np.unique(np.asarray(kinds), return_inverse=True)[1]
    counts = np.bincount(labels)
    if len(counts) < 2 or counts.min() < 2:
        return None
    first, second = np.array(pairs).T

    def contrast(one: np.ndarray) -> float:
        apart = one[first] != one[second]
        return float(distances[apart].mean() - distances[~apart].mean())

    orders = list(itertools.islice(itertools.permutations(range(len(labels))), _ALL + 1))
    if len(orders) > _ALL:
        drawn = [contrast(random.permutation(labels)) for _ in range(permutations)]
        return _share([-one for one in drawn], -contrast(labels)), 1 / (1 + permutations)
    every = {tuple(labels[list(order)]) for order in orders}
    found = np.array([contrast(np.array(one)) for one in every])
    # labels are exchanged with no change where kinds are as many
    same = sum(_alike(np.array(one), labels) for one in every)
    return float(np.mean(found >= contrast(labels) - _ROUNDING)), same / len(every)


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(((one[:, None] == one[None, :]) == (other[:, None] == other[None, :])).all())


def _share(shuffled: Sequence[float] | np.ndarray, found: float) -> float:
    """What was found is one of the shuffles, so that no p-value is 0."""
    return float((1 + np.sum(np.asarray(shuffled) <= found + _ROUNDING)) / (1 + len(shuffled)))


def _square(values: np.ndarray, pairs: list[tuple[int, int]], count: int) -> np.ndarray:
    found = np.zeros((count, count))
    for (i, j), value in zip(pairs, values, strict=True):
        found[i, j] = found[j, i] = value
    return found


def _check(
    signatures: Sequence[Signature], matched: bool, permutations: int, level: float
) -> tuple[list[str], list[str]]:
    """The readings that all networks have, and those that only some have."""
    if len(signatures) < 2:
        raise ValueError(f"signatures: got {len(signatures)}; a comparison needs at least two networks.")
    if permutations < _LEAST:
        raise ValueError(f"permutations: got {permutations}; pass at least {_LEAST}, or no p-value can reach 0.05.")
    if not 0 < level < 1:
        raise ValueError(f"level: got {level}; it must lie between 0 and 1.")
    for signature in signatures:
        for name, values in signature.readings.items():
            shape = np.shape(values)
            if shape != (len(signature.items),) or not np.isfinite(values).all():
                raise ValueError(
                    f"signatures: {name!r} of {signature.name!r} must be finite numbers, one for each of its "
                    f"{len(signature.items)} items; got shape {shape}."
                )
    counts = [len(signature.items) for signature in signatures]
    if max(counts) < 2:
        raise ValueError("signatures: every network has a single item, which is like any other; pass stages instead.")
    if not matched and len(set(counts)) > 1:
        raise ValueError(f"signatures: have {counts} items; without matching they must be equally many.")
    names = [name for name in signatures[0].readings if all(name in other.readings for other in signatures)]
    if len(names) < 2:
        raise ValueError(f"signatures: share the readings {names}; a comparison needs at least two.")
    missing = sorted({name for signature in signatures for name in signature.readings} - set(names))
    return names, missing
