"""Critical points of a reading: where it turns, and where it changes fastest, with the errors of the readings."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from slt_jax.spectroscopy.phases import Phases

#: Copies of the readings with their errors added anew.
_COPIES = 1000
#: A point stands out from both its sides beyond errors with this probability, over all points.
LEVEL = 0.95
_TURNS = {"maximum": 1.0, "minimum": -1.0}
_SLOPES = {"fastest rise": 1.0, "fastest fall": -1.0}


class CriticalPoint(NamedTuple):
    """Where a reading turns, or changes fastest in log step.

    Attributes:
      kind: ``"maximum"``, ``"minimum"``: its slope changes sign; ``"fastest rise"``, ``"fastest fall"``: it peaks.
      step: A measured step for the first two, between two measured steps for the others.
      low, high: The measured steps that hold it with 95 %: no nearer than its neighbours, and wider by the spread.
      support: Share of copies of the readings in which it stands out from both its sides.
      spread: Deviation over inverse temperatures, in log step; NaN where there is one, or others do not see it.
    """

    kind: str
    step: float
    low: float
    high: float
    support: float
    spread: float = float("nan")


def critical_points(steps: ArrayLike, values: ArrayLike, errors: ArrayLike, *, seed: int = 0) -> list[CriticalPoint]:
    """Where ``dλ̂ / d log(1 + step)`` changes sign or peaks, beyond the errors of the readings.

    A point is kept if it stands out from the lowest places on both its sides, before the reading is as high again, by
    more than its errors let happen in 5 % of cases anywhere. What holds it is from copies of the readings, each with
    its error added anew. The first and the last reading are no critical points: what went on before or after is not
    known.

    Args:
      steps: Of the checkpoints, increasing, shape ``(T,)``, at least 4.
      values: Shape ``(T,)``, or ``(N, T)`` at several inverse temperatures; the points are those of the first.
      errors: Standard errors, of the same shape or one for all.
      seed: Of the copies.

    Returns:
      By step.

    Raises:
      ValueError: steps do not increase, fewer than 4, shapes that do not fit, or a value that is not finite.

    Not to be believed finer than the checkpoints are spaced, nor where errors are understated: what is unhealthy is
    better left out.

    Source: boundaries of stages as critical points of λ̂: Hoogland et al. 2024, arXiv:2402.02364.

    >>> found = critical_points([1, 10, 100, 1000, 10000], [0.0, 0.1, 5.0, 5.1, 3.0], 0.05)
    >>> [(point.kind, round(point.step)) for point in found]
    [('fastest rise', 32), ('maximum', 1000)]
    """
    taken = np.asarray(steps, float)
    found = np.atleast_2d(np.asarray(values, float))
    if len(taken) < 4 or (np.diff(taken) <= 0).any() or taken[0] < 0:
        raise ValueError(f"steps: got {taken.tolist()}; pass at least 4, increasing, from 0 on.")
    if found.shape[1] != len(taken) or not np.isfinite(found).all():
        raise ValueError(f"values: got shape {np.shape(values)} for {len(taken)} steps; pass a finite one for each.")
    spreads = np.broadcast_to(np.asarray(errors, float), found.shape)
    if not (np.isfinite(spreads).all() and (spreads >= 0).all()):
        raise ValueError("errors: one is not finite or negative; leave out what has no error.")
    places = np.log1p(taken)
    random = np.random.default_rng(seed)
    each = [_points(places, row, error, random) for row, error in zip(found, spreads, strict=True)]
    widened = [_over_temperatures(point, each[1:]) for point in each[0]]
    points = [
        point._replace(
            step=float(np.expm1(point.step)), low=float(np.expm1(point.low)), high=float(np.expm1(point.high))
        )
        for point in widened
    ]
    return sorted(points, key=lambda point: point.step)


def over_temperatures(
    phases: Phases, steps: ArrayLike, values: ArrayLike, errors: ArrayLike, *, seed: int = 0
) -> Phases:
    """Phases whose intervals hold also how far their boundaries move with the inverse temperature of the readings.

    At each ``nβ`` the boundary is where ``|dλ̂ / d log step|`` peaks between the plateaus on both sides, nearest to the
    transition; what counts is its deviation over ``nβ``, in log step: the interval's halves become
    ``√(half² + (1.96 spread)²)``.

    Args:
      phases: From ``detect_phases``.
      steps: Of the checkpoints, increasing, shape ``(T,)``.
      values: Readings at ``N ≥ 2`` inverse temperatures, shape ``(N, T)``.
      errors: Their standard errors.
      seed: Of the copies.

    Returns:
      The phases with ``spread``; NaN, and the interval as it was, where fewer than two temperatures see the boundary.

    Raises:
      ValueError: as ``critical_points``, or readings at one temperature only.
    """
    found = np.asarray(values, float)
    if found.ndim != 2 or len(found) < 2:
        raise ValueError(f"values: got shape {found.shape}; pass (N, T), at N = 2 or more inverse temperatures.")
    error = np.broadcast_to(np.asarray(errors, float), found.shape)
    seen = [critical_points(steps, row, own, seed=seed) for row, own in zip(found, error, strict=True)]
    spread = np.full(len(phases.transitions), np.nan)
    intervals = np.array(phases.intervals, float)
    for index, (before, after) in enumerate(zip(phases.plateaus[:-1], phases.plateaus[1:], strict=True)):
        place = float(np.log(phases.transitions[index]))
        rows = [[np.log(one.step) for one in row if one.kind in _SLOPES and before < one.step < after] for row in seen]
        places = [min(row, key=lambda at: abs(at - place)) for row in rows if row]
        if len(places) < 2:
            continue
        spread[index] = np.std(places, ddof=1)
        if len(intervals):
            halves = np.hypot(np.log(intervals[index]) - place, 1.96 * spread[index])
            intervals[index] = np.exp(place + np.array([-1.0, 1.0]) * halves)
    return phases._replace(intervals=intervals, spread=spread)


def _points(places: np.ndarray, row: np.ndarray, error: np.ndarray, random: np.random.Generator) -> list[CriticalPoint]:
    copies = row + error * random.standard_normal((_COPIES, len(row)))
    slopes, slope_copies = (np.diff(one, axis=-1) / np.diff(places) for one in (row, copies))
    found = []
    for kind, sign in _TURNS.items():
        for at, picked, support in _standing(sign * row, sign * copies):
            low, high = np.quantile(picked, (0.025, 0.975), method="inverted_cdf").astype(int)
            found.append(CriticalPoint(kind, places[at], places[low - 1], places[high + 1], support))
    for kind, sign in _SLOPES.items():
        for at, picked, support in _standing(sign * slopes, sign * slope_copies, above=0.0):
            low, high = np.quantile(picked, (0.025, 0.975), method="inverted_cdf").astype(int)
            middle = (places[at] + places[at + 1]) / 2
            found.append(CriticalPoint(kind, middle, places[low], places[high + 1], support))
    return found


def _standing(
    series: np.ndarray, copies: np.ndarray, above: float | None = None
) -> list[tuple[int, np.ndarray, float]]:
    """Peaks beyond errors: the index, where the copies have it, and the share of copies in which it stands out."""
    from scipy.signal import find_peaks, peak_prominences
    from scipy.stats import norm

    tops, _ = find_peaks(series)
    _, left, right = peak_prominences(series, tops)
    limit = norm.isf((1 - LEVEL) / max(len(series), 1))
    found = []
    for top, low, high in zip(tops, left, right, strict=True):
        others = [copies[:, low], copies[:, high]]
        if above is not None:
            others.append(np.full(len(copies), above))
        gaps = copies[:, top][:, None] - np.stack(others, axis=1)
        if (gaps.mean(axis=0) > limit * gaps.std(axis=0)).all():
            # the bases are not the peak, whatever the errors
            picked = low + 1 + copies[:, low + 1 : high].argmax(axis=1)
            found.append((int(top), picked, float((gaps > 0).all(axis=1).mean())))
    return found


def _over_temperatures(point: CriticalPoint, others: Sequence[Sequence[CriticalPoint]]) -> CriticalPoint:
    """The point with its spread over the inverse temperatures that see it, within which its interval lies."""
    alike = [[other.step for other in row if other.kind == point.kind] for row in others]
    near = [min(row, key=lambda step: abs(step - point.step)) for row in alike if row]
    if not near:
        return point
    spread = float(np.std([point.step, *near], ddof=1))
    down, up = (float(np.hypot(edge - point.step, 1.96 * spread)) for edge in (point.low, point.high))
    return point._replace(low=point.step - down, high=point.step + up, spread=spread)
