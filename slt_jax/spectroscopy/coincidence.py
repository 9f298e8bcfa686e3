"""Whether events fall together by more than chance: null distributions by shifting one side against the other."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

#: Points at which the distance to the nearest transition is looked up, and shifts of all events at once.
_POINTS, _SHIFTS = 4096, 999
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
    events: ArrayLike, resolution: ArrayLike, transitions: ArrayLike, stretch: tuple[float, float]
) -> tuple[np.ndarray, float]:
    """How often events shifted in log step would be as near to transitions as these are.

    For one event the distance to the nearest transition is compared with that of every place in the stretch: its
    circular shifts, all of them. For all together the statistic is ``Σ log p`` of the single ones, and all are shifted
    by the same amount: events that come in clusters stay in clusters, and the transitions stay where they are, with
    whatever makes them come together.

    Args:
      events: Logarithms of steps, shape ``(C,)``.
      resolution: How well each is known; no distance counts as less than half of it. Shape ``(C,)``.
      transitions: Logarithms of steps, shape ``(K,)``, at least one.
      stretch: Where events could have fallen.

    Returns:
      p-values of the events, shape ``(C,)``, and of all together (NaN without events). The least are 1/4096 and 1/1000.

    Not to be believed where events crowd in a part of the stretch for a reason of their own.

    >>> single, together = shift_test([1.01, 2.0], [0.0, 0.0], [1.0], (0.0, 4.0))
    >>> single.round(3).tolist(), bool(together < 0.05)
    ([0.005, 0.5], True)
    """
    low, high = stretch
    places = np.asarray(events, float)
    targets = np.sort(np.asarray(transitions, float))
    points = low + (high - low) * (np.arange(_POINTS) + 0.5) / _POINTS
    by_chance = np.sort(_distances(points, targets))
    least = np.asarray(resolution, float) / 2

    def single(at: np.ndarray) -> np.ndarray:
        distances = np.maximum(_distances(at, targets), least)
        return np.maximum(np.searchsorted(by_chance, distances, side="right"), 1) / _POINTS

    found = single(places)
    if not places.size:
        return found, float("nan")
    shifts = (high - low) * np.arange(1, _SHIFTS + 1)[:, None] / (_SHIFTS + 1)
    shifted = low + (places[None, :] - low + shifts) % (high - low)
    as_good = np.log(single(shifted)).sum(axis=1) <= np.log(found).sum() + 1e-12
    return found, float((1 + as_good.sum()) / (_SHIFTS + 1))


def _distances(at: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """To the nearest of sorted targets."""
    after = np.clip(np.searchsorted(targets, at), 0, len(targets) - 1)
    before = np.maximum(after - 1, 0)
    return np.minimum(np.abs(at - targets[after]), np.abs(at - targets[before]))


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
