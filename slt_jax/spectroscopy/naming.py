"""Names phases by the exact learning coefficient that their reading agrees with."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

#: A reading agrees with a value within so many of its standard errors.
_ERRORS = 2.0


class PhaseName(NamedTuple):
    """A phase, and the exact values that its reading agrees with.

    Attributes:
      phase: Counted from 1; 0 is the initial state.
      agrees: Names of the values within two standard errors of the reading.
      by_chance: Share of the stretch between the least and the greatest value, two errors wider on both sides, in which
        a reading with this error would agree with any.
      text: The same in words.
    """

    phase: int
    agrees: list[str]
    by_chance: float
    text: str


def name_phases(
    steps: Sequence[int | None], readings: Mapping[int, tuple[float, float]], known: Mapping[str, float]
) -> list[PhaseName]:
    """Phases named by the exact value that their reading agrees with; none and several are said as what they are.

    Args:
      steps: The checkpoint measured for every phase, as from ``measured_at``.
      readings: λ̂ by step, with errors.
      known: Exact values by name.

    Raises:
      ValueError: a value that is not finite.

    >>> named = name_phases([3, 9], {3: (6.1, 0.2), 9: (7.0, 0.1)}, {"6": 6.0, "29/4": 7.25})
    >>> [(one.agrees, round(one.by_chance, 2)) for one in named]
    [(['6'], 0.78), ([], 0.48)]
    """
    values = {name: float(value) for name, value in known.items()}
    if not np.isfinite(list(values.values())).all():
        raise ValueError(f"known: got {values}; every value must be finite.")
    found = []
    for phase, step in enumerate(steps):
        if step is None or step not in readings or not values:
            found.append(PhaseName(phase, [], float("nan"), "no reading" if values else "nothing exact is known"))
            continue
        value, error = readings[step]
        agrees = [name for name, exact in values.items() if abs(value - exact) <= _ERRORS * error]
        text = {0: "agrees with no known value", 1: f"λ = {agrees[0] if agrees else ''}"}.get(
            len(agrees), f"cannot be told: {', '.join(agrees)}"
        )
        found.append(PhaseName(phase, agrees, _covered(list(values.values()), _ERRORS * error), text))
    return found


def _covered(values: Sequence[float], reach: float) -> float:
    """Share of the stretch of values, ``reach`` wider on both sides, that lies within reach of one of them."""
    ends = np.sort(values)
    whole = ends[-1] - ends[0] + 2 * reach
    return float((2 * reach + np.minimum(np.diff(ends), 2 * reach).sum()) / whole) if whole > 0 else 0.0
