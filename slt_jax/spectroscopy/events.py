"""When a curve changes: the transitions of one loss, concept or reading, each with the stretch in which it ran."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from slt_jax.spectroscopy.phases import detect_phases
from slt_jax.spectroscopy.recorder import History

#: From so many steps on a curve is recorded densely and its transitions are those of ``detect_phases``.
DENSE = 20
#: A reading changes between two checkpoints where it does so by so many standard errors, and by this share of all that
#: it changes.
_ERRORS, _SHARE = 3.0, 0.1


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


def events_of_curve(steps: ArrayLike, curve: ArrayLike) -> Events:
    """Transitions of a curve recorded at 20 steps or more, by the rule of ``detect_phases``.

    Args:
      steps: Increasing, shape ``(T,)``.
      curve: Shape ``(T,)``.

    Raises:
      ValueError: as ``detect_phases``.

    >>> steps = np.arange(1, 400)
    >>> events_of_curve(steps, 1 / (1 + np.exp((100 - steps) / 5))).steps.tolist()
    [100.0]
    """
    at, values = np.asarray(steps), np.asarray(curve, float)
    found = detect_phases(History(at, {"curve": values}, {}))
    times, begins, ends = (np.asarray(getattr(found, name), float) for name in ("transitions", "begins", "ends"))
    return Events(times, begins, ends, np.interp(ends, at, values) - np.interp(begins, at, values))


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


def check_series(name: str, series: Series) -> None:
    """Refuse readings that have no order or no values.

    Raises:
      ValueError: shapes that differ, fewer than two checkpoints, steps that do not increase, a value or an error that
        is not finite, an error below 0.
    """
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
    """The stretch of the largest transition, or ``None`` where there is none."""
    if not len(events.steps):
        return None
    largest = int(np.abs(events.sizes).argmax())
    return float(events.begins[largest]), float(events.ends[largest])
