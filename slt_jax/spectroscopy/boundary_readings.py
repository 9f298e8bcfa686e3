"""What the readings of a scan say of the boundaries between phases: where they turn, at one temperature or more."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from slt_jax.spectroscopy.checkpoints import Measured
from slt_jax.spectroscopy.critical import critical_points, over_temperatures
from slt_jax.spectroscopy.phases import Phases
from slt_jax.spectroscopy.scan import Cell
from slt_jax.spectroscopy.subject import WHOLE_LOSS, WHOLE_NETWORK

#: Fewer readings than this do not turn.
_LEAST = 4


def whole_readings(cells: Sequence[Cell], probe: str = "llc") -> dict[int, Measured]:
    """What a probe read of the whole loss in the whole network, by step; NaN, and not healthy, where it could not."""
    found = {}
    for cell in _whole(cells, probe):
        read = cell.reading
        found[cell.step] = (
            Measured(float("nan"), float("nan"), False)
            if read is None
            else Measured(float(read["value"]), float(read["std_error"]), bool(read["healthy"]))
        )
    return dict(sorted(found.items()))


def turning_points(cells: Sequence[Cell]) -> dict[str, list[dict[str, Any]]]:
    """Critical points of λ̂ by probe, as plain values, where there are at least 4 healthy readings.

    ``"llc"`` at its one inverse temperature; ``"flow"`` at the coldest of its own, with the spread over the others.
    """
    found = {}
    readings = {step: one for step, one in whole_readings(cells).items() if one.healthy and np.isfinite(one.value)}
    if len(readings) >= _LEAST:
        values, errors = zip(*((one.value, one.std_error) for one in readings.values()), strict=True)
        found["llc"] = critical_points(list(readings), values, errors)
    steps, table, table_errors = at_temperatures(cells)
    if len(steps) >= _LEAST:
        found["flow"] = critical_points(steps, table, table_errors)
    return {name: [_plain(point._asdict()) for point in points] for name, points in found.items()}


def with_temperatures(phases: Phases, cells: Sequence[Cell]) -> Phases:
    """Phases with the spread of their boundaries over inverse temperatures, where a flow was read along training."""
    steps, values, errors = at_temperatures(cells)
    if len(steps) < _LEAST or len(values) < 2:
        return phases
    return over_temperatures(phases, steps, values, errors)


def at_temperatures(cells: Sequence[Cell]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """λ_eff of the whole loss on the rungs that are usable at all checkpoints.

    Returns:
      Steps, shape ``(T,)``; values and errors, shape ``(N, T)``, the coldest first. Empty without a flow; checkpoints
      at which there is no healthy reading, or another ladder, are left out.
    """
    rows = {cell.step: cell.reading for cell in _whole(cells, "flow") if cell.reading and bool(cell.reading["healthy"])}
    lengths = [len(row["nbetas"]) for row in rows.values()]
    usual = max(set(lengths), key=lengths.count, default=0)
    kept = {step: row for step, row in sorted(rows.items()) if len(row["nbetas"]) == usual}
    if not kept:
        return np.zeros(0, int), np.zeros((0, 0)), np.zeros((0, 0))
    values, errors, usable = (
        np.stack([np.asarray(row[name]) for row in kept.values()], axis=1)
        for name in ("lambda_eff", "lambda_eff_error", "usable")
    )
    good = (usable.astype(bool) & np.isfinite(values) & np.isfinite(errors)).all(axis=1)
    if not good.any():
        return np.zeros(0, int), np.zeros((0, 0)), np.zeros((0, 0))
    coldest = np.argsort(-np.asarray(next(iter(kept.values()))["nbetas"])[good])
    return np.array(list(kept)), values[good][coldest], errors[good][coldest]


def _whole(cells: Sequence[Cell], probe: str) -> list[Cell]:
    return [
        cell for cell in cells if (cell.probe, cell.restriction, cell.subloss) == (probe, WHOLE_NETWORK, WHOLE_LOSS)
    ]


def _plain(point: dict[str, Any]) -> dict[str, Any]:
    """Without NaN, which is no JSON, and without the rounding of a logarithm."""
    numbers = {name: value for name, value in point.items() if isinstance(value, float)}
    return point | {name: None if np.isnan(value) else round(value, 6) for name, value in numbers.items()}
