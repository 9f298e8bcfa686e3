"""Whether events fall together by more than chance: null distributions by shifting one side against the other."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

#: No p-value is less; and shifts of all events at once.
_LEAST, _SHIFTS = 1 / 4096, 999
#: Events within so much of one another, in the logarithm of the step, are one where the stretch of events is measured.
_ONE = 0.05
#: All orders of up to so many things are tried; of more so many orders at random.
_ALL_ORDERS, _ORDERS = 7, 4999


class OrderAgreement(NamedTuple):
    """How far two orders of the same things agree.

    Attributes:
      what: Which orders.
      names: The things that have a place in both.
      kendall: ``(agree - disagree) / (agree + disagree)`` over pairs whose order is known in both (Kendall's τ, or
        Goodman and Kruskal's γ where there are ties); NaN where there is none.
      agree, disagree, unknown: Numbers of pairs; unknown are ties, overlapping intervals, and pairs censored on the
        same side.
      by_chance: Share of the orders of the things that agree as well: all orders of up to 7, else 4999 at random.
      left_out: Things with a place in one order only.
    """

    what: str
    names: list[str]
    kendall: float
    agree: int
    disagree: int
    unknown: int
    by_chance: float
    left_out: list[str]


def stretch_of(events: ArrayLike, low: float, high: float) -> tuple[float, float] | None:
    """The stretch of log steps in which events fall, ``None`` where all of them fall together.

    From the first to the last, and on both sides their mean distance more: without bias for the ends of a uniform
    distribution, and known to about that distance, so that the end of the record is taken where it is no farther off.
    Events within 5 % of a step count as one.

    Args:
      events: Logarithms of steps.
      low, high: The recorded stretch, which is not left.

    >>> stretch_of([3.0, 4.0, 4.01, 5.0], 0.0, 9.0), stretch_of([1.5, 2.5], 0.0, 9.0)
    ((2.0, 6.0), (0.0, 3.5))
    """
    distinct: list[float] = []
    for event in np.sort(np.asarray(events, float)):
        if not distinct or event > distinct[-1] + _ONE:
            distinct.append(float(event))
    if len(distinct) < 2:
        return None
    more = (distinct[-1] - distinct[0]) / (len(distinct) - 1)
    begin, end = distinct[0] - more, distinct[-1] + more
    return low if begin - more < low else begin, high if end + more > high else end


def shift_test(
    events: ArrayLike,
    resolution: ArrayLike,
    transitions: ArrayLike,
    stretch: tuple[float, float],
    noise: np.ndarray | None = None,
) -> tuple[np.ndarray, float]:
    """How often events shifted in log step would be as near to transitions as these are.

    For one event the distance to the nearest transition is compared with that of every place in the stretch: its
    circular shifts, all of them. For all together the statistic is ``Σ log p`` of the single ones, and all are shifted
    by the same amount: events that come in clusters stay in clusters, and the transitions stay where they are, with
    whatever makes them come together.

    That supposes that the transitions could have been found anywhere. Those of a reading are found between its
    checkpoints, which somebody chose, often where the losses change: noise read there has its transitions there too.
    With ``noise``, from ``noise_transitions``, an event counts as near only as far as it is nearer than to the
    transitions of noise read at the same checkpoints: p is the greater of the two.

    Args:
      events: Logarithms of steps, shape ``(C,)``.
      resolution: How well each is known; no distance counts as less than half of it. Shape ``(C,)``.
      transitions: Logarithms of steps, shape ``(K,)``, at least one.
      stretch: Where events could have fallen.
      noise: Transitions of N probes of noise, as from ``stacked``, shape ``(N, J)``.

    Returns:
      p-values of the events, shape ``(C,)``, and of all together (NaN without events). The least are 1/4096 and 1/1000,
      and 1/(N + 1) with noise.

    Not to be believed where events crowd in a part of the stretch for a reason of their own.

    >>> single, together = shift_test([1.01, 2.0], [0.0, 0.0], [1.0], (0.0, 4.0))
    >>> single.round(3).tolist(), bool(together < 0.05)
    ([0.005, 0.5], True)
    """
    low, high = stretch
    places, least = np.asarray(events, float), np.asarray(resolution, float) / 2
    found = _as_near(places[None, :], least, stacked([transitions]), stretch)[0]
    if not places.size:
        return found, float("nan")
    shifts = (high - low) * np.arange(1, _SHIFTS + 1)[:, None] / (_SHIFTS + 1)
    shifted = _as_near(low + (places[None, :] - low + shifts) % (high - low), least, stacked([transitions]), stretch)
    together = _rank(shifted, found)
    if noise is None:
        return found, together
    theirs = _as_near(places[None, :], least, noise, stretch)
    as_near = (1 + (theirs <= found[None, :] + 1e-12).sum(axis=0)) / (len(noise) + 1)
    return np.maximum(found, as_near), max(together, _rank(theirs, found))


def stacked(transitions: Sequence[ArrayLike]) -> np.ndarray:
    """Transitions of several probes in rows, sorted, the last repeated to fill a row: infinite where there is none.

    >>> stacked([[2.0, 1.0], [3.0], []]).tolist()
    [[1.0, 2.0], [3.0, 3.0], [inf, inf]]
    """
    rows = [np.sort(np.asarray(row, float)) for row in transitions]
    longest = max(1, *(len(row) for row in rows))
    filled = [row if row.size else np.full(1, np.inf) for row in rows]
    return np.stack([np.pad(row, (0, longest - len(row)), "edge") for row in filled])


def _rank(scores: np.ndarray, found: np.ndarray) -> float:
    """How many rows of p-values have as small a product, as a p-value."""
    as_good = np.log(scores).sum(axis=1) <= np.log(found).sum() + 1e-12
    return float((1 + as_good.sum()) / (len(scores) + 1))


def _as_near(
    events: np.ndarray, least: np.ndarray, transitions: np.ndarray, stretch: tuple[float, float]
) -> np.ndarray:
    """The share of the stretch that is as near to a transition as an event is, at least 1/4096.

    Args:
      events: Shape ``(R, C)``.
      least: No distance counts as less, shape ``(C,)``.
      transitions: As from ``stacked``, shape ``(R, J)``; one of the two may have a single row.
      stretch: Its ends.
    """
    low, high = stretch
    there = np.isfinite(transitions[:, :1])
    targets = np.where(there, transitions, low)
    distances = np.abs(events[:, :, None] - targets[:, None, :]).min(axis=2)
    reach = np.maximum(distances, least[None, :])[:, :, None]
    # the places that are nearest to each transition end half way to its neighbours
    middles = (targets[:, 1:] + targets[:, :-1]) / 2
    first, last = np.full((len(targets), 1), low), np.full((len(targets), 1), high)
    left = np.clip(np.concatenate([first, middles], axis=1), low, high)[:, None, :]
    right = np.clip(np.concatenate([middles, last], axis=1), low, high)[:, None, :]
    at = targets[:, None, :]
    covered = np.maximum(np.minimum(right, at + reach) - np.maximum(left, at - reach), 0.0).sum(axis=2) / (high - low)
    return np.where(there, np.clip(covered, _LEAST, 1.0), 1.0)


def order_agreement(
    what: str,
    first: Mapping[str, tuple[float, float]],
    second: Mapping[str, tuple[float, float]],
    *,
    seed: int = 0,
) -> OrderAgreement:
    """Whether things come in the same order twice, each known as an interval that may reach to infinity.

    One thing is before another where its interval ends before, or where, the other's begins. What never happened has an
    interval from the last record to infinity: it is after all that did, and not ordered against others that did not.

    Args:
      what: Which orders, for the reader.
      first, second: Intervals by name; in ranks both ends are the same.
      seed: Of the orders at random.

    Raises:
      ValueError: an interval that ends before it begins, or with a NaN.

    Not to be believed as more than ``by_chance`` says: three things have six orders.

    >>> ranks = {"a": (1, 1), "b": (2, 2), "c": (3, 3)}
    >>> found = order_agreement("", ranks, {"a": (10, 12), "b": (12, 20), "c": (99, np.inf)})
    >>> found.kendall, round(found.by_chance, 3), found.unknown
    (1.0, 0.167, 0)
    """
    for side in (first, second):
        for name, (low, high) in side.items():
            if not low <= high:
                raise ValueError(
                    f"order: the interval of {name!r} is ({low}, {high}); it must not end before it begins."
                )
    names = [name for name in first if name in second]
    left_out = [name for name in {**first, **second} if name not in names]
    one, other = (_before([side[name] for name in names]) for side in (first, second))
    product = np.triu(one * other)
    agree, disagree = int((product > 0).sum()), int((product < 0).sum())
    pairs = len(names) * (len(names) - 1) // 2
    if not agree + disagree:
        return OrderAgreement(what, names, float("nan"), 0, 0, pairs, float("nan"), left_out)
    kendall = (agree - disagree) / (agree + disagree)
    by_chance = _chance(one, other, agree - disagree, np.random.default_rng(seed))
    return OrderAgreement(what, names, kendall, agree, disagree, pairs - agree - disagree, by_chance, left_out)


def _before(intervals: Sequence[tuple[float, float]]) -> np.ndarray:
    """1 where the thing of the row is before that of the column, -1 after, 0 where it is not known."""
    low, high = np.array(intervals, float).reshape(-1, 2).T
    earlier = (high[:, None] <= low[None, :]) & ~((low[:, None] == low[None, :]) & (high[:, None] == high[None, :]))
    return earlier.astype(int) - earlier.T.astype(int)


def _chance(one: np.ndarray, other: np.ndarray, found: int, random: np.random.Generator) -> float:
    count = len(one)
    everything = count <= _ALL_ORDERS
    orders = (
        np.array(list(permutations(range(count))))
        if everything
        else random.permuted(np.tile(np.arange(count), (_ORDERS, 1)), axis=1)
    )
    upper = np.triu_indices(count, 1)
    scores = (other[orders[:, upper[0]], orders[:, upper[1]]] * one[upper][None, :]).sum(axis=1)
    as_good = int((scores >= found).sum())
    return as_good / len(orders) if everything else (as_good + 1) / (len(orders) + 1)
