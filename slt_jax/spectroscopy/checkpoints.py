"""Chooses the checkpoints that are worth measuring: before anything was measured, and after."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from slt_jax.spectroscopy.phases import Phases

#: Share of the room between checkpoints that is given to the transitions, however short they are.
_IN_TRANSITIONS = 0.5
#: Neighbouring readings differ beyond so many standard errors of their difference.
_ERRORS = 3.0


class Measured(NamedTuple):
    """What was read at one checkpoint.

    Attributes:
      value: The reading, NaN where there is none.
      std_error: Its standard error.
      healthy: Its verdict.
    """

    value: float
    std_error: float
    healthy: bool = True


def choose_checkpoints(phases: Phases, available: Sequence[int], budget: int = 16, spare: int = 0) -> list[int]:
    """The plateaus first, then the transitions, then the widest gaps, until the budget is spent.

    Gaps are wide in log step, and wider inside transitions: half of the whole width is shared by the transitions, each
    from where it begins, or the lower end of its interval, to where it ends, or the upper end. So checkpoints stand
    dense around transitions and sparse where nothing happens.

    Args:
      phases: From ``detect_phases``.
      available: Steps of which a checkpoint exists.
      budget: The most checkpoints to choose; never fewer than the plateaus are returned.
      spare: Further ones, in the widest gaps in log step: a reading may turn where no loss does.

    Returns:
      Steps among ``available``, increasing. A smaller budget chooses some of those that a larger one does.

    Raises:
      ValueError: there is no checkpoint, the budget is not positive, or the spare ones are negative.

    >>> none = np.zeros(0)
    >>> phases = Phases(np.array([100]), np.array([90]), np.array([110]), np.array([10, 900]), none, none)
    >>> choose_checkpoints(phases, [1, 10, 80, 100, 300, 900], budget=4)
    [10, 80, 100, 900]
    """
    steps = np.unique(np.asarray(available, dtype=np.int64))
    if not steps.size:
        raise ValueError("available: got no checkpoint; save some while training.")
    if budget < 1:
        raise ValueError(f"budget: got {budget}; it must be at least 1.")
    if spare < 0:
        raise ValueError(f"spare: got {spare}; it must not be negative.")
    chosen = {_nearest(steps, step) for step in phases.plateaus}
    for group in (phases.transitions, phases.begins, phases.ends):
        for step in group:
            if len(chosen) < budget:
                chosen.add(_nearest(steps, step))
    places = _places(phases, steps)
    while len(chosen) < min(budget, len(steps)):
        chosen.add(_widest_gap(steps, places, sorted(chosen)))
    for _ in range(min(spare, len(steps) - len(chosen))):
        chosen.add(_widest_gap(steps, np.log1p(steps), sorted(chosen)))
    return sorted(chosen)


def more_checkpoints(readings: Mapping[int, tuple], available: Sequence[int], budget: int) -> list[int]:
    """Checkpoints that are worth adding: where neighbouring readings disagree, or one is healthy and the other is not.

    A gap between neighbours counts by ``|difference|`` where that is more than 3 standard errors of it, by the largest
    difference of all where their verdicts differ, and not at all else. The widest gets the checkpoint nearest to its
    middle in log step, and both its halves count half from then on.

    Args:
      readings: What was read, by step: ``Measured``, or ``(value, std_error)`` of healthy readings.
      available: Steps of which a checkpoint exists.
      budget: The most checkpoints to add.

    Returns:
      Steps among ``available`` that have no reading, increasing; none where all neighbours agree.

    Raises:
      ValueError: the budget is negative, or an error is.

    >>> readings = {1: Measured(0.0, 0.1), 100: Measured(0.1, 0.1), 10000: Measured(5.0, 0.1)}
    >>> more_checkpoints(readings, [1, 10, 100, 300, 1000, 3000, 10000], budget=2)
    [1000, 3000]
    """
    if budget < 0:
        raise ValueError(f"budget: got {budget}; it must not be negative.")
    read = {step: Measured(*one) for step, one in readings.items()}
    wrong = {step: one.std_error for step, one in read.items() if one.std_error < 0}
    if wrong:
        raise ValueError(f"readings: standard errors must not be negative; got {wrong}.")
    measured = sorted(read)
    gaps = [(_disagreement(read[low], read[high]), low, high) for low, high in itertools.pairwise(measured)]
    most = max((size for size, _, _ in gaps if np.isfinite(size)), default=0.0) or 1.0
    open_gaps = [(min(size, most), low, high) for size, low, high in gaps if size > 0]
    chosen: list[int] = []
    while open_gaps and len(chosen) < budget:
        # the widest of those that count alike
        size, low, high = max(open_gaps, key=lambda gap: (gap[0], np.log1p(gap[2]) - np.log1p(gap[1])))
        open_gaps.remove((size, low, high))
        inside = np.array([step for step in available if low < step < high], dtype=np.int64)
        if inside.size:
            step = _nearest(inside, float(np.expm1((np.log1p(low) + np.log1p(high)) / 2)))
            chosen.append(step)
            open_gaps += [(size / 2, low, step), (size / 2, step, high)]
    return sorted(chosen)


def _disagreement(one: Measured, other: Measured) -> float:
    """In units of the reading; infinite where the verdicts differ or a value is missing beside one that is there."""
    known = np.isfinite(one.value), np.isfinite(other.value)
    if one.healthy != other.healthy or known[0] != known[1]:
        return np.inf
    if not all(known):
        return 0.0
    difference = abs(one.value - other.value)
    return difference if difference > _ERRORS * np.hypot(one.std_error, other.std_error) else 0.0


def _places(phases: Phases, steps: np.ndarray) -> np.ndarray:
    """Where steps stand on an axis on which the transitions have half of the room."""
    at = np.log1p(steps.astype(float))
    # the recording is as long whichever checkpoints there are: what is chosen among few is chosen among many
    ends = np.log1p(phases.grid[[0, -1]]) if len(phases.grid) else at[[0, -1]]
    places = (at - ends[0]) / max(ends[1] - ends[0], np.finfo(float).tiny)
    count = len(phases.transitions)
    if not count:
        return places
    begins, ends = np.asarray(phases.begins, float), np.asarray(phases.ends, float)
    if len(phases.intervals):
        begins, ends = np.minimum(begins, phases.intervals[:, 0]), np.maximum(ends, phases.intervals[:, 1])
    passed = np.zeros(len(steps))
    for begin, end in zip(np.log1p(begins), np.log1p(ends), strict=True):
        passed += np.clip((at - begin) / max(end - begin, 1e-6), 0, 1) / count
    return (1 - _IN_TRANSITIONS) * places + _IN_TRANSITIONS * passed


def _nearest(steps: np.ndarray, wanted: float) -> int:
    return int(steps[np.abs(np.log1p(steps) - np.log1p(wanted)).argmin()])


def _widest_gap(steps: np.ndarray, places: np.ndarray, chosen: list[int]) -> int:
    """The step that is farthest from all that are chosen."""
    taken = places[np.searchsorted(steps, chosen)]
    return int(steps[np.abs(places[:, None] - taken[None]).min(axis=1).argmax()])
