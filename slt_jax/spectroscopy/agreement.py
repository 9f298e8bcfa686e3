"""Whether two ways of looking agree: on the order of heads, and on when something happened."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from slt_jax.spectroscopy.phases import detect_phases
from slt_jax.spectroscopy.recorder import History

#: Copies of the readings with their errors added anew, from which the error of what follows from them is taken.
_COPIES = 2000


class RankAgreement(NamedTuple):
    """How far two quantities put the same things in the same order.

    Attributes:
      correlation: Spearman's rank correlation, between -1 and 1; NaN where one of the two is the same for all.
      std_error: Its deviation over copies of the quantities with their errors added; 0 without errors.
      low, high: The middle 95 % of these copies.
      by_chance: The share of all orders, taken at random, that agree as well or better.
    """

    correlation: float
    std_error: float
    low: float
    high: float
    by_chance: float


class Interval(NamedTuple):
    """When something happened: the step of fastest change, and where the speed is half of it on both sides."""

    begin: float
    step: float
    end: float


class HalfWay(NamedTuple):
    """When a reading had gone half of its way.

    Attributes:
      step: Where it last crosses the middle between its value at the first checkpoint and that at the last; NaN where
        it does not go anywhere beyond its errors.
      low, high: The middle 68 % over copies of the readings with their errors added.
    """

    step: float
    low: float
    high: float

    def within(self, interval: Interval) -> bool:
        """Whether it lies inside an interval, ends included."""
        return bool(interval.begin <= self.step <= interval.end)


def rank_agreement(
    left: ArrayLike, right: ArrayLike, left_errors: ArrayLike = 0.0, right_errors: ArrayLike = 0.0, *, seed: int = 0
) -> RankAgreement:
    """Spearman's correlation of two quantities over the same things, with the error that theirs bring.

    Args:
      left, right: Shape ``(N,)``, ``N ≥ 3``, finite.
      left_errors, right_errors: Standard errors, of the same shape or one for all.
      seed: Of the copies.

    Raises:
      ValueError: shapes that differ, fewer than three things, a value that is not finite.

    Not to be believed as evidence with few things: ``by_chance`` says how many orders would do as well. Errors shuffle
    what is nearly equal, so that the correlation of two true orders is higher than that of their readings.

    >>> rank_agreement([1, 2, 3, 4], [10, 20, 40, 30]).correlation
    0.8
    """
    from scipy.stats import rankdata

    first, second = np.asarray(left, float), np.asarray(right, float)
    if first.shape != second.shape or first.ndim != 1 or len(first) < 3:
        raise ValueError(f"left, right: got shapes {first.shape} and {second.shape}; pass (N,) for both, N at least 3.")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("left, right: a value is not finite; leave out what has no reading.")
    random = np.random.default_rng(seed)

    def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        ranks = [rankdata(one, axis=-1) - (len(first) + 1) / 2 for one in (a, b)]
        size = np.sqrt(np.sum(ranks[0] ** 2, axis=-1) * np.sum(ranks[1] ** 2, axis=-1))
        return np.sum(ranks[0] * ranks[1], axis=-1) / np.where(size > 0, size, np.nan)

    noise = random.standard_normal((2, _COPIES, len(first)))
    copies = correlation(first + noise[0] * np.asarray(left_errors), second + noise[1] * np.asarray(right_errors))
    found = float(correlation(first, second))
    shuffled = random.permuted(np.broadcast_to(second, (_COPIES, len(first))), axis=1)
    # a copy of the order itself is one of those at random
    better = int(np.sum(correlation(np.broadcast_to(first, shuffled.shape), shuffled) >= found - 1e-12))
    low, high = np.quantile(copies, (0.025, 0.975))
    return RankAgreement(round(found, 12), float(copies.std()), float(low), float(high), (better + 1) / (_COPIES + 1))


def own_transition(steps: ArrayLike, curve: ArrayLike) -> Interval:
    """When a curve by itself changes fastest in the logarithm of the step, by the rule of ``detect_phases``.

    Args:
      steps: At least 20, increasing, shape ``(T,)``.
      curve: A concept or a loss, shape ``(T,)``.

    Raises:
      ValueError: as ``detect_phases``; or the curve does not change beyond its noise and its trend.

    >>> steps = np.arange(1, 400)
    >>> own_transition(steps, 1 / (1 + np.exp((100 - steps) / 5))).step
    100.0
    """
    phases = detect_phases(History(np.asarray(steps), {"curve": np.asarray(curve, float)}, {}))
    if not len(phases.transitions):
        raise ValueError("curve: does not change, beyond its noise and its trend; it has no transition.")
    heights = np.interp(np.log(phases.transitions), np.log(phases.grid), phases.speed)
    fastest = int(np.argmax(heights))
    return Interval(*(float(getattr(phases, name)[fastest]) for name in ("begins", "transitions", "ends")))


def half_way(steps: ArrayLike, values: ArrayLike, errors: ArrayLike = 0.0, *, seed: int = 0) -> HalfWay:
    """When a reading passes the middle between its first and its last value, between checkpoints by ``log(1 + step)``.

    Args:
      steps: Of the checkpoints, increasing, shape ``(C,)``.
      values: Readings, shape ``(C,)``, finite.
      errors: Their standard errors.
      seed: Of the copies.

    Returns:
      NaN for all where the last value is within two standard errors of the first.

    Raises:
      ValueError: fewer than two checkpoints, or a value that is not finite.

    >>> round(half_way([0, 10, 100, 1000], [0, 0, 1, 1]).step)
    32
    """
    at, found = np.log1p(np.asarray(steps, float)), np.asarray(values, float)
    if at.shape != found.shape or len(found) < 2 or not np.isfinite(found).all():
        raise ValueError(
            f"values: got {found.tolist()} at {len(at)} steps; pass a finite reading for each, at least 2."
        )
    spread = np.broadcast_to(np.asarray(errors, float), found.shape)
    if abs(found[-1] - found[0]) <= 2 * np.hypot(spread[0], spread[-1]):
        return HalfWay(np.nan, np.nan, np.nan)
    noise = np.random.default_rng(seed).standard_normal((_COPIES, len(found)))
    copies = [_last_crossing(at, one) for one in found + noise * spread]
    low, high = np.quantile(copies, (0.16, 0.84))
    return HalfWay(*(float(np.expm1(place)) for place in (_last_crossing(at, found), low, high)))


def _last_crossing(at: np.ndarray, values: np.ndarray) -> float:
    beyond = (values - (values[0] + values[-1]) / 2) * np.sign(values[-1] - values[0])
    before = int(np.flatnonzero(beyond < 0)[-1]) if (beyond < 0).any() else 0
    if before == len(at) - 1:
        return float(at[-1])
    share = -beyond[before] / (beyond[before + 1] - beyond[before])
    return float(at[before] + np.clip(share, 0, 1) * (at[before + 1] - at[before]))
