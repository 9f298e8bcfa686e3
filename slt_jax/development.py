"""What ``study.json`` says of where outputs went, what was learned when, and of phases as those of a posterior."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from slt_jax.spectroscopy import (
    Alignment,
    Cell,
    Counterparts,
    History,
    PhaseName,
    Phases,
    Series,
    Staircase,
    align,
    counterparts,
    cusps,
    measured_at,
    name_phases,
    staircases,
)
from slt_jax.spectroscopy.dynamics import dynamics_of
from slt_jax.spectroscopy.plain import plain
from slt_jax.spectroscopy.staircases import Changes
from slt_jax.spectroscopy.subject import WHOLE_LOSS, WHOLE_NETWORK
from slt_jax.truths.truth import Truth

#: The probe whose readings are learning coefficients.
COEFFICIENT = "llc"
#: Turns are looked for in so many components, where there are so many steps: further ones are mostly noise.
_COMPONENTS, _LEAST_STEPS = 3, 20


def moved(history: History | None) -> dict[str, Any]:
    """Entries of ``study.json``: ``essential_dynamics``, and ``cusps``, the sharp turns of its first components."""
    found = None if history is None else dynamics_of(history)
    if found is None:
        return {"essential_dynamics": None, "cusps": []}
    enough = (found.steps > 0).sum() >= _LEAST_STEPS and found.scores.shape[1] > 1
    turns = cusps(found.steps, found.scores[:, :_COMPONENTS]) if enough else []
    return {"essential_dynamics": found.to_json(), "cusps": plain(turns)}


def aligned(history: History, phases: Phases, cells: Sequence[Cell], extra: Mapping[str, Any]) -> Alignment:
    """The alignment of a study: all its losses and readings against its concepts, and against the expected order."""
    recorded = int(history.steps[-1])
    readings = series_of(cell for cell in cells if cell.step <= recorded)
    return align(history, phases, readings=readings, expected_order=extra.get("expected_order", ()))


def series_of(cells: Iterable[Cell]) -> dict[str, Series]:
    """Healthy readings by ``"probe, part"``, where there are at least two; the others are counted.

    ``"llc, all"`` is the whole loss in the whole network; elsewhere the restriction is named too.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        part = cell.subloss if cell.restriction == WHOLE_NETWORK else f"{cell.restriction}, {cell.subloss}"
        groups.setdefault(f"{cell.probe}, {part}", []).append(cell)
    found = {}
    for name, group in groups.items():
        good = sorted((cell.step, *numbers) for cell in group if (numbers := _healthy(cell)) is not None)
        if len(good) > 1:
            steps, values, errors = (np.array(column) for column in zip(*good, strict=True))
            found[name] = Series(steps, values, errors, len(group) - len(good))
    return found


def coefficients(cells: Iterable[Cell]) -> dict[str, dict[int, tuple[float, float]]]:
    """Healthy learning coefficients of the whole network by loss and step."""
    found: dict[str, dict[int, tuple[float, float]]] = {}
    for cell in cells:
        if (cell.probe, cell.restriction) == (COEFFICIENT, WHOLE_NETWORK) and (numbers := _healthy(cell)) is not None:
            found.setdefault(cell.subloss, {})[cell.step] = numbers
    return found


def compared_pairs(phases: Phases, cells: Iterable[Cell]) -> list[tuple[int, int]]:
    """The pairs of checkpoints between which losses are compared: those measured for neighbouring plateaus."""
    found = set()
    for own in coefficients(cells).values():
        for before, after in pairwise(measured_at(phases, own)):
            if before is not None and after is not None:
                found.add((before, after))
    return sorted(found)


def posterior(
    phases: Phases,
    cells: Sequence[Cell],
    changes: Mapping[str, Changes],
    exact: Mapping[int, Truth],
    examples: int | None,
) -> tuple[list[Staircase], Counterparts | None, list[PhaseName]]:
    """Staircases, counterparts on the whole loss, and phases by name, from what a study measured."""
    readings = coefficients(cells)
    rows = staircases(phases, readings, changes, whole=WHOLE_LOSS, exact=exact) if changes else []
    whole = readings.get(WHOLE_LOSS, {})
    known = {str(truth.learning_coefficient): float(truth.learning_coefficient) for truth in exact.values()}
    names = name_phases(measured_at(phases, whole), whole, known) if known else []
    if not any(row.subloss == WHOLE_LOSS for row in rows):
        return rows, None, names
    return rows, counterparts(phases, rows, whole, WHOLE_LOSS, examples=examples), names


def account(
    history: History,
    phases: Phases,
    alignment: Alignment,
    cells: Sequence[Cell],
    changes: Mapping[str, Changes] | None,
    exact: Mapping[int, Truth],
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """Entries of ``study.json``: ``alignment_tests``, ``staircases``, ``counterparts`` and ``phase_names``."""
    tests = plain(alignment)
    del tests["acquisitions"]  # they have an entry of their own
    rows, theirs, names = posterior(phases, cells, changes or {}, exact, extra.get("examples"))
    entries: dict[str, Any] = {"alignment_tests": tests, "staircases": plain(rows), "phase_names": plain(names)}
    if theirs is not None:
        entries["counterparts"] = {**plain(theirs), "text": theirs.describe()}
    return entries


def _healthy(cell: Cell) -> tuple[float, float] | None:
    """Value and error of a healthy reading."""
    if cell.reading is None or not bool(cell.reading["healthy"]):
        return None
    numbers = float(cell.reading["value"]), float(cell.reading["std_error"])
    return numbers if np.isfinite(numbers).all() and numbers[1] >= 0 else None
