"""Peaks of the joint speed of curves that neither noise nor a trend makes."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from slt_jax.spectroscopy.change_points import change_points, penalty_of
from slt_jax.spectroscopy.slopes import SMOOTHING, Cells, Noise, noise_of, noise_slopes, slopes

#: A transition stands out from the quiet on both sides by this share of the fastest change.
PROMINENCE = 0.1
#: Share of histories without a transition in which none shall be found.
LEVEL = 0.95
#: Histories of nothing but noise: so many, fewer where a recording is so long that they have more numbers.
_DRAWS = (100, 200)
_MOST_NUMBERS = 2e6
#: Slopes within so many deviations of their noise are quiet.
_QUIET = 2.0


class Curves(NamedTuple):
    """Curves, their slopes, and what noise makes of them.

    Attributes:
      cells: ``G`` cells of log step.
      values: Shape ``(T, C)``.
      noise: Of the values.
      slopes: Shape ``(G, C)``.
      alone: Slopes of nothing but noise, shape ``(G, draws, C)``.
      deviation: Of the noise of the slopes, shape ``(G, C)``.
      extent: Range of each curve, shape ``(C,)``.
    """

    cells: Cells
    values: np.ndarray
    noise: Noise
    slopes: np.ndarray
    alone: np.ndarray
    deviation: np.ndarray
    extent: np.ndarray

    def only(self, index: int) -> "Curves":
        """One curve by itself."""
        own = slice(index, index + 1)
        noise = Noise(self.noise.autocorrelation, self.noise.deviation[own], np.ones((1, 1)))
        first = (self.values[:, own], noise, self.slopes[:, own], self.alone[..., own])
        return Curves(self.cells, *first, self.deviation[:, own], self.extent[own])


class Peak(NamedTuple):
    """A peak of the joint speed.

    Attributes:
      cell: Where it is highest.
      begin, end: Log steps at which it has half of its height over the quiet.
      own: Cells between which it is the fastest: the quiet before it and after it.
      around: Cells between the transitions before and after, which have passed and not begun there.
    """

    cell: int
    begin: float
    end: float
    own: tuple[int, int] = (0, 0)
    around: tuple[int, int] = (0, 0)


def curves_of(cells: Cells, values: np.ndarray, random: np.random.Generator) -> Curves:
    """Slopes of curves of shape ``(T, C)``, none of them constant, and of noise like theirs."""
    noise = noise_of(cells.records, values)
    count = int(np.clip(_MOST_NUMBERS / len(values), *_DRAWS))
    alone = noise_slopes(noise, cells, count, random)
    deviation = np.sqrt((alone**2).mean(axis=1))
    return Curves(cells, values, noise, slopes(cells, values), alone, deviation, np.ptp(values, axis=0))


class Limits(NamedTuple):
    """What noise reaches in no more than 5 % of histories: gain of a change of slope, and excess of a peak."""

    penalty: float
    excess: float


def limits_of(curves: Curves) -> Limits:
    """Limits from histories of nothing but noise; one for every single curve: their noise differs in size only."""
    kept = _kept(curves)
    penalty = penalty_of(curves.alone[kept] / curves.deviation[kept][:, None], LEVEL)
    largest = [_largest(curves, curves.alone[:, draw]) for draw in range(curves.alone.shape[1])]
    return Limits(penalty, float(np.quantile(largest, LEVEL)))


def peaks_of(curves: Curves, limits: Limits) -> tuple[np.ndarray, list[Peak]]:
    """The joint speed, shape ``(G,)``, and its peaks that are transitions, by the rule of ``detect_phases``."""
    from scipy.signal import find_peaks, peak_prominences, peak_widths

    found, deviation = curves.slopes, curves.deviation
    ratio = _QUIET * deviation / np.maximum(np.abs(found), np.finfo(float).tiny)
    speed = np.mean(np.abs(found) / curves.extent * np.maximum(0, 1 - ratio**2), axis=1)
    tops, _ = find_peaks(speed, prominence=max(PROMINENCE * speed.max(), np.finfo(float).tiny))
    _, left, right = peak_prominences(speed, tops)
    kept = _kept(curves)
    pieces = change_points(found[kept] / deviation[kept], limits.penalty)
    changes = (kept[pieces] + kept[pieces - 1]) / 2
    excess = _excess(curves, found, np.sign(found[tops]), tops, left, right)
    _, _, begins, ends = peak_widths(speed, tops, rel_height=0.5)
    near = SMOOTHING / curves.cells.spacing
    places = np.arange(len(speed))
    peaks = []
    for top, low, high, begin, end, size in zip(tops, left, right, begins, ends, excess, strict=True):
        before = (changes >= low - near) & (changes <= top + near)
        after = (changes >= top - near) & (changes <= high + near)
        if size > limits.excess and before.any() and after.any():
            at = np.interp([begin, end], places, curves.cells.centers)
            peaks.append(Peak(int(top), float(at[0]), float(at[1])))
    return speed, _bounded(curves.cells, speed, peaks)


def _bounded(cells: Cells, speed: np.ndarray, peaks: list[Peak]) -> list[Peak]:
    """Each peak with what is its own: from the quiet before it to the quiet after it, and what may be fitted there."""
    last = len(speed) - 1
    quiet = slowest(speed, [peak.cell for peak in peaks])
    found = []
    for index, peak in enumerate(peaks):
        own = (quiet[index] if index else 0, quiet[index + 1] if index + 1 < len(peaks) else last)
        begin, end = (int(np.searchsorted(cells.centers, edge)) for edge in (peak.begin, peak.end))
        low, high = 0, last
        if index:
            # the transition before has passed a width after its end
            before = peaks[index - 1]
            low = int(np.searchsorted(cells.centers, 2 * before.end - before.begin))
        if index + 1 < len(peaks):
            after = peaks[index + 1]
            high = int(np.searchsorted(cells.centers, 2 * after.begin - after.end))
        around = (max(min(low, begin - 1), 0), min(max(high, end + 1), last))
        found.append(peak._replace(own=own, around=around))
    return found


def slowest(speed: np.ndarray, tops: Sequence[int]) -> list[int]:
    """Cells in the middle of the slowest stretch before, between and after peaks; after the last, its end."""
    edges = [0, *tops, len(speed) - 1]
    chosen = []
    for position, (start, stop) in enumerate(itertools.pairwise(edges)):
        stretch = speed[start : stop + 1]
        slow = np.flatnonzero(stretch <= stretch.min() + 0.02 * speed.max())
        # after the last transition the network is finished at the end; between two, in the middle of the quiet
        chosen.append(start + int(slow[-1] if position == len(tops) else slow[len(slow) // 2]))
    return chosen


def _kept(curves: Curves) -> np.ndarray:
    """Cells that are a kernel apart: their slopes are nearly independent."""
    apart = max(1, round(SMOOTHING / curves.cells.spacing))
    return np.arange(apart // 2, len(curves.slopes), apart)


def _excess(
    curves: Curves,
    found: np.ndarray,
    sign: np.ndarray | float,
    tops: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
) -> np.ndarray:
    """By how much each peak is faster than the quiet on both its sides: ``Σ_c (excess_c / deviation_c)²``."""
    over = np.minimum(sign * (found[tops] - found[left]), sign * (found[tops] - found[right]))
    quiet = np.maximum(curves.deviation[left], curves.deviation[right])
    return np.sum((np.maximum(over, 0) / np.hypot(curves.deviation[tops], quiet)) ** 2, axis=1)


def _largest(curves: Curves, alone: np.ndarray) -> float:
    """The largest excess in one history of noise on a steep trend, which keeps every slope from changing its sign."""
    from scipy.signal import find_peaks, peak_prominences

    speed = np.mean(alone / curves.extent, axis=1)
    tops, _ = find_peaks(speed)
    _, left, right = peak_prominences(speed, tops)
    return float(_excess(curves, alone, 1.0, tops, left, right).max(initial=0.0))
