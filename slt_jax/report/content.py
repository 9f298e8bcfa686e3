"""What an output folder holds, as one flat list of readings beside the history and the study's own words."""

import itertools
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slt_jax import storage
from slt_jax.plots import Bands, StepAxis, step_axis
from slt_jax.spectroscopy import History, Transition
from slt_jax.spectroscopy.subject import WHOLE_LOSS, WHOLE_NETWORK

#: The probe that exact learning coefficients are set beside.
COEFFICIENT = "llc"
#: Variables of a probe that have a place of their own in the report.
_KNOWN = ("value", "std_error", "healthy", "measured", "exact", "per_chain", "trace")


class Row(NamedTuple):
    """One reading, or the reason why there is none.

    Attributes:
      probe, step, restriction, subloss: Where it stands.
      measured: Whether there is a reading.
      value, std_error: NaN where there is none.
      healthy: Its verdict; false where there is none.
      reason: The verdict in words, or why there is no reading.
      extra: Other numbers of the reading, by name.
      trace: ``nβ`` times the excess, shape ``(chain, point)``, or ``None``.
      arrays: Other arrays of the reading, by name; where another reading has longer ones they end in NaN, or false.
    """

    probe: str
    step: int
    restriction: str
    subloss: str
    measured: bool
    value: float
    std_error: float
    healthy: bool
    reason: str
    extra: dict[str, float]
    trace: np.ndarray | None
    arrays: dict[str, np.ndarray]

    @property
    def whole(self) -> bool:
        """Whether it is a reading of the whole loss in the whole network."""
        return self.restriction == WHOLE_NETWORK and self.subloss == WHOLE_LOSS

    @property
    def what(self) -> str:
        """The part that was read, in words."""
        return part_name(self.restriction, self.subloss)


class Exact(NamedTuple):
    """An exact value at a checkpoint: as a fraction where it is one, with its source."""

    value: Fraction | float
    multiplicity: int | None
    source: str


class Content(NamedTuple):
    """Everything that a report is made from.

    Attributes:
      study: ``study.json``.
      history: Losses and concepts, or ``None``.
      rows: All readings, and all that are missing.
      exact: Exact values of the whole loss in the whole network, by step.
      bands: The phases.
      axis: The axis of steps that all pictures share.
      transitions: Where each transition lives; empty where nobody looked.
    """

    study: dict[str, Any]
    history: History | None
    rows: list[Row]
    exact: dict[int, Exact]
    bands: Bands
    axis: StepAxis
    transitions: Sequence[Transition] = ()


def read(folder: Path) -> Content:
    """Read an output folder.

    Args:
      folder: Written by a demo or a scan; any part but ``study.json`` may be missing.

    Returns:
      Its content.

    Raises:
      FolderError: there is no ``study.json``, or it is not JSON.
    """
    study = storage.read_study(folder)
    history = storage.read_history(folder)
    readings = storage.read_readings(folder)
    rows: list[Row] = []
    for name, node in (readings.children if readings is not None else {}).items():
        rows += _rows_of(str(name), node)
    phases = study.get("phases") or {}
    bands = Bands(*(list(phases.get(name, ())) for name in Bands._fields))
    recorded = [] if history is None else history.steps.tolist()
    axis = _axis(recorded, [row.step for row in rows], bands)
    transitions = storage.read_transitions(folder) or ()
    return Content(study, history, rows, _exact_of(study), bands, axis, transitions)


def part_name(restriction: str, subloss: str) -> str:
    """A restriction and a subloss in words: ``whole network, level 1``."""
    network = "whole network" if restriction == WHOLE_NETWORK else restriction
    return f"{network}, {'whole loss' if subloss == WHOLE_LOSS else subloss}"


def probes_of(content: Content) -> list[str]:
    """Names of the probes in their order, the learning coefficient first."""
    names = list(dict.fromkeys(row.probe for row in content.rows))
    return sorted(names, key=lambda name: name != COEFFICIENT)


def sublosses_of(content: Content) -> list[str]:
    """Names of all losses in the order in which they were recorded or read, the whole first."""
    recorded = [] if content.history is None else list(content.history.losses)
    names = dict.fromkeys([WHOLE_LOSS, *recorded, *(row.subloss for row in content.rows)])
    return list(names)


def plateaus_of(content: Content) -> dict[int, int]:
    """The checkpoint that was measured for each phase, by phase: the nearest to its plateau, of those in the phase."""
    steps = sorted({row.step for row in content.rows if row.whole and row.measured})
    edges = [-np.inf, *content.bands.transitions, np.inf]
    found = {}
    for phase, wanted in enumerate((content.study.get("phases") or {}).get("plateaus", [])):
        inside = [step for step in steps if edges[phase] <= step < edges[phase + 1]]
        if inside:
            found[phase] = min(inside, key=lambda step: abs(np.log1p(step) - np.log1p(wanted)))
    return found


def phase_at(bands: Bands, step: float) -> int:
    """The phase that a step lies in: the number of transitions before it."""
    return sum(1 for transition in bands.transitions if transition <= step)


def phases_between(bands: Bands, low: float, high: float) -> str:
    """The phases whose transitions run somewhere between two steps, in words."""
    inside = [
        str(index + 1)
        for index, (begin, end) in enumerate(zip(bands.begins, bands.ends, strict=True))
        if low <= end and begin <= high
    ]
    return f"phase {', '.join(inside)}" if inside else "none"


def _axis(recorded: Sequence[float], measured: Sequence[float], bands: Bands) -> StepAxis:
    """All steps; where phases were found, without most of the quiet before the first that nothing was measured in."""
    if bands.begins:
        start = min([bands.begins[0] / 3, *(step / 1.2 for step in measured if step > 0)])
        recorded = [max(start, recorded[0], 1), *(step for step in recorded if step > start)]
    return step_axis([*recorded, *measured])


def _rows_of(probe: str, node: Any) -> list[Row]:
    """The rows of one probe's node, checkpoint by checkpoint."""
    words = {**_table(node, "explanations"), **_table(node, "errors")}
    dims = ("step", "restriction", "subloss")
    columns = {str(name): node[name] for name in node.data_vars}
    longer = [name for name, column in columns.items() if len(column.dims) > len(dims) and name not in _KNOWN]
    scalars = [name for name, column in columns.items() if column.dims == dims and name not in _KNOWN]
    # words that name the points of an axis are the same in all readings
    named = {str(name): node[name].values for name in node.coords if name not in dims}
    places = itertools.product(*(enumerate(node[dim].values.tolist()) for dim in dims))
    rows = []
    for at, (step, restriction, subloss) in (tuple(zip(*place, strict=True)) for place in places):
        measured = bool(_entry(columns, "measured", at, False))
        reason = words.get(f"{step}/{restriction}/{subloss}", "" if measured else "not reached: the scan ended before")
        rows.append(
            Row(
                probe=probe,
                step=int(step),
                restriction=str(restriction),
                subloss=str(subloss),
                measured=measured,
                value=float(_entry(columns, "value", at, np.nan)),
                std_error=float(_entry(columns, "std_error", at, np.nan)),
                healthy=measured and bool(_entry(columns, "healthy", at, True)),
                reason=reason,
                extra={name: float(_entry(columns, name, at, np.nan)) for name in scalars},
                trace=_trace(columns, at) if measured else None,
                arrays={**named, **{name: columns[name].values[at] for name in longer}} if measured else {},
            )
        )
    return rows


def _entry(columns: Mapping[str, Any], name: str, at: tuple[int, ...], missing: Any) -> Any:
    return columns[name].values[at] if name in columns and columns[name].ndim == len(at) else missing


def _trace(columns: Mapping[str, Any], at: tuple[int, ...]) -> np.ndarray | None:
    if "trace" not in columns or columns["trace"].ndim != len(at) + 2:
        return None
    return np.asarray(columns["trace"].values[at], float)


def _table(node: Any, name: str) -> dict[str, str]:
    return json.loads(node.attrs.get(name, "{}"))


def _exact_of(study: Mapping[str, Any]) -> dict[int, Exact]:
    found = {}
    for step, truth in (study.get("exact") or {}).items():
        value = Fraction(truth["learning_coefficient"])
        found[int(step)] = Exact(value, truth.get("multiplicity"), str(truth.get("source", "")))
    return dict(sorted(found.items()))
