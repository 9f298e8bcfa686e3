"""When a concept was acquired: the record between which it came to stay above a level, or why there is none."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from slt_jax.spectroscopy.phases import Phases

#: The value of a concept that counts as acquired: they are 0 before and about 1 after.
LEVEL = 0.5


class Acquisition(NamedTuple):
    """When a concept was learned.

    Attributes:
      concept: Its name.
      step: The first recorded step from which it stays above half, or ``None``.
      status: ``"acquired"``, ``"not acquired"`` or ``"before the first record"``.
      phase: The phase it belongs to, counted from 1; 0 is the initial state; ``None`` where there is no step.
      lag: Natural logarithm of its step over that of the nearest transition: negative when the concept leads; ``None``
        without a step or a transition.
      between: Steps between which it was acquired: the last record below and the first above. Without a step it is
        censored: the upper end is infinite where it was not acquired, the lower 0 where it was there before.
    """

    concept: str
    step: int | None
    status: str
    phase: int | None
    lag: float | None
    between: tuple[float, float] = (0.0, float("inf"))


def acquisition(name: str, values: np.ndarray, steps: np.ndarray, phases: Phases, level: float) -> Acquisition:
    """The acquisition of one concept, as ``align`` describes it, from values that are finite."""
    below = np.flatnonzero(values < level)
    if not below.size:
        return Acquisition(name, None, "before the first record", None, None, (0.0, float(steps[0])))
    if below[-1] == len(values) - 1:
        return Acquisition(name, None, "not acquired", None, None, (float(steps[-1]), float("inf")))
    step = int(steps[below[-1] + 1])
    between = (float(steps[below[-1]]), float(step))
    if not len(phases.transitions):
        return Acquisition(name, step, "acquired", 0, None, between)
    lags = np.log(max(step, 1)) - np.log(np.maximum(phases.transitions, 1))
    nearest = int(np.abs(lags).argmin())
    # within a transition the concept belongs to the phase that the transition begins
    begun = int((phases.begins <= step).sum())
    return Acquisition(name, step, "acquired", begun, float(lags[nearest]), between)


def crossing_step(between: tuple[float, float], values: np.ndarray, steps: np.ndarray, level: float) -> float:
    """Where a concept crossed the level, between its last record below and its first above, by the log of the step."""
    first = int(np.searchsorted(steps, between[1]))
    before, after = values[first - 1], values[first]
    low, high = np.log(np.maximum(between, 1.0))
    return float(np.exp(low + (level - before) / (after - before) * (high - low)))


def check_level(level: float, concepts: Mapping[str, np.ndarray]) -> None:
    """Refuse a level that no concept could cross.

    Raises:
      ValueError: the level is not a number, or neither between 0 and 1 nor within the values of a concept.
    """
    inside = any(np.nanmin(values) < level <= np.nanmax(values) for values in concepts.values() if len(values))
    if not (np.isfinite(level) and (0 < level < 1 or inside)):
        raise ValueError(
            f"level: got {level}; concepts go from 0 to about 1, and none of these takes values on both sides of it: "
            "pass a number between 0 and 1."
        )
