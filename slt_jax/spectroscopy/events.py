"""When a curve changes: the transitions of one loss, concept or reading, each with the stretch in which it ran."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

#: A curve has to be recorded at so many steps.
LEAST = 20
#: Points of the grid in log step, and the width of the smoothing kernel in units of the logarithm of the step.
_GRID, _SMOOTHING = 600, 0.07
#: A peak of the speed stands out by this share of the highest, and the curve changes there by this share of its range
#: and by so many deviations of its noise.
_PROMINENCE, _LEAST_CHANGE, _NOISE = 0.1, 0.03, 4.0
#: A curve that varies by less, relative to its size, is constant: only the rounding of single precision moves it.
_ROUNDING = 1e-6
#: A reading changes between two checkpoints where it does so by so many standard errors, and by this share of all that
#: it changes.
_ERRORS, _SHARE = 3.0, 0.1
#: No transition of a curve is its main one where another has this share of its size.
_RIVAL = 0.8


class Events(NamedTuple):
    """The transitions of a curve, first to last.

    Attributes:
      steps: Of the fastest, or of half of the change; not rounded to recorded steps. Shape ``(K,)``.
      begins, ends: The stretch in which each ran, shape ``(K,)``.
      sizes: By how much the curve changed in it, shape ``(K,)``.
    """

    steps: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    sizes: np.ndarray


class Series(NamedTuple):
    """Readings of one kind along training.

    Attributes:
      steps: Of the checkpoints, increasing, shape ``(C,)``.
      values: Shape ``(C,)``, finite.
      errors: Standard errors, shape ``(C,)``; zeros where nothing is known.
      left_out: Readings that are not among these because they were missing or unhealthy.
    """

    steps: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    left_out: int = 0


def events_of_curve(name: str, steps: ArrayLike, curve: ArrayLike) -> Events:
    """Transitions of one curve by itself: peaks of its speed in log step.

    ``v = |d curve / d log t|``, smoothed over 7 % of the step; a peak that stands out by a tenth of the highest, with
    a change of the curve between its half heights that is 3 % of its range and four deviations of the noise
    about the smoothed curve. It is quicker and ruder than ``detect_phases``, which judges all curves together: a test
    of alignment takes transitions as they are, and is no less valid with too many or too few, only weaker.

    Args:
      name: For messages, such as ``"loss 'all'"``.
      steps: Increasing from 0 or more, shape ``(T,)``, ``T ≥ 20``.
      curve: Shape ``(T,)``, finite.

    Raises:
      ValueError: too few steps, steps that do not increase, shapes that differ, a value that is not finite.

    >>> steps = np.arange(1, 400)
    >>> events_of_curve("loss", steps, 1 / (1 + np.exp((100 - steps) / 5))).steps.round().tolist()
    [100.0]
    """
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import find_peaks, peak_widths

    at, values = check_curve(name, steps, curve)
    logs = np.log(at[at > 0])
    grid = np.linspace(logs[0], logs[-1], _GRID)
    even = np.interp(grid, logs, values[at > 0])
    width = _SMOOTHING / (grid[1] - grid[0])
    smooth = gaussian_filter1d(even, width, mode="nearest")
    noise = 1.4826 * float(np.median(np.abs(values[at > 0] - np.interp(logs, grid, smooth))))
    # quiet ends on both sides let a transition at the very edge of the recording be seen
    speed = np.concatenate([[0.0], np.abs(gaussian_filter1d(even, width, order=1, mode="nearest")), [0.0]])
    extent = float(np.ptp(smooth))
    if extent <= _ROUNDING * float(np.abs(values).max()):
        return Events(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0))
    peaks, _ = find_peaks(speed, prominence=_PROMINENCE * speed.max())
    _, _, left, right = peak_widths(speed, peaks, rel_height=0.5)
    points = np.arange(_GRID)
    begins, ends = np.interp(left - 1, points, grid), np.interp(right - 1, points, grid)
    sizes = np.interp(ends, grid, smooth) - np.interp(begins, grid, smooth)
    kept = np.abs(sizes) > max(_LEAST_CHANGE * extent, _NOISE * noise)
    times, begins, ends = (np.exp(column[kept]) for column in (grid[peaks - 1], begins, ends))
    return Events(times, begins, ends, sizes[kept])


def events_of_series(name: str, series: Series) -> Events:
    """Transitions of readings at few checkpoints: stretches over which the reading goes one way, beyond its errors.

    Neighbouring checkpoints between which the reading goes the same way make one stretch; it is a transition where the
    change over it is more than three standard errors of it and a tenth of the range of all readings. Its step is where
    half of the change is done, between checkpoints by the logarithm of the step.

    Args:
      name: For messages.
      series: The readings.

    Raises:
      ValueError: as ``check_series``.

    Not to be believed between checkpoints that are far apart: where in a stretch the change took place is not known.

    >>> found = events_of_series("llc", Series(np.array([1, 10, 100, 1000]), np.array([0.0, 0, 4, 4]), np.full(4, 0.1)))
    >>> [column.round(1).tolist() for column in found]
    [[31.6], [10.0], [100.0], [4.0]]
    """
    check_series(name, series)
    logs, values = np.log(np.maximum(series.steps, 1.0)), np.asarray(series.values, float)
    errors, changes = np.asarray(series.errors, float), np.diff(values)
    told = np.abs(changes) > 2 * np.hypot(errors[1:], errors[:-1])
    found = []
    begin = 0
    while begin < len(changes):
        end = begin + 1
        if told[begin]:
            while end < len(changes) and told[end] and changes[end] * changes[begin] > 0:
                end += 1
            total = values[end] - values[begin]
            if abs(total) > max(_ERRORS * np.hypot(errors[begin], errors[end]), _SHARE * np.ptp(values)):
                halfway = np.interp(0.5, (values[begin : end + 1] - values[begin]) / total, logs[begin : end + 1])
                found.append((np.exp(halfway), np.exp(logs[begin]), np.exp(logs[end]), total))
        begin = end
    return Events(*np.array(found).reshape(-1, 4).T)


def check_curve(name: str, steps: ArrayLike, curve: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """A curve as numbers, or a refusal.

    Raises:
      ValueError: as ``events_of_curve``.
    """
    at, values = np.asarray(steps, float), np.asarray(curve, float)
    if at.ndim != 1 or at.shape != values.shape:
        raise ValueError(f"history: {name} has {values.shape} values at {at.shape} steps; pass one for each step.")
    if len(at) < LEAST:
        raise ValueError(f"history: {name} has {len(at)} recorded steps; alignment needs at least {LEAST}.")
    if (np.diff(at) <= 0).any() or at[0] < 0:
        raise ValueError("history: its steps do not increase from 0; sort it and drop repeated steps.")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ValueError(f"history: {name} is not finite at step {at[bad[0]]:.0f}. Leave the step out.")
    return at, values


def check_series(name: str, series: Series) -> None:
    """Refuse readings that have no order or no values.

    Raises:
      ValueError: shapes that differ, fewer than two checkpoints, steps that do not increase, a value or an error that
        is not finite, an error below 0.
    """
    if not isinstance(series, Series):
        raise ValueError(f"readings: {name!r} is a {type(series).__name__}; make it a Series(steps, values, errors).")
    steps, values, errors = (np.asarray(column) for column in series[:3])
    if not steps.shape == values.shape == errors.shape or steps.ndim != 1 or len(steps) < 2:
        raise ValueError(
            f"readings: {name!r} has {steps.shape} steps, {values.shape} values and {errors.shape} errors; pass one of "
            "each for every checkpoint, at least 2."
        )
    if (np.diff(steps) <= 0).any() or steps[0] < 0:
        raise ValueError(f"readings: the steps of {name!r} do not increase from 0; sort them and drop repeated ones.")
    bad = np.flatnonzero(~np.isfinite(values) | ~np.isfinite(errors) | (errors < 0))
    if bad.size:
        raise ValueError(
            f"readings: {name!r} is {values[bad[0]]} ± {errors[bad[0]]} at step {steps[bad[0]]}; leave it out and "
            "count it in left_out."
        )


def main_event(events: Events) -> tuple[float, float] | None:
    """The stretch of the largest transition, or ``None`` where there is none, or another is nearly as large."""
    sizes = np.sort(np.abs(events.sizes))[::-1]
    if not len(sizes) or (len(sizes) > 1 and sizes[1] > _RIVAL * sizes[0]):
        return None
    largest = int(np.abs(events.sizes).argmax())
    return float(events.begins[largest]), float(events.ends[largest])
