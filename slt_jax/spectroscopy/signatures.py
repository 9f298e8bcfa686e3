"""Signatures: what a study saw of one network, as a table that can be set beside that of another."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from slt_jax.spectroscopy.acquisition import LEVEL, acquisition
from slt_jax.spectroscopy.events import check_curve
from slt_jax.spectroscopy.phases import Phases, measured_at
from slt_jax.spectroscopy.recorder import History

#: ``"prefix matching 1.4"`` is a member of the family ``"prefix matching"``.
_MEMBER = re.compile(r"^(?P<family>.*\S)\s+\d+(\.\d+)*$")

#: Readings by name, each ``(value, standard error)`` by step.
Readings = Mapping[str, Mapping[int, tuple[float, float]]]


class Signature(NamedTuple):
    """A table of what was read of one network, item by item.

    Attributes:
      name: Of the network.
      items: What the rows are: phases, stages of training, heads, representations; shape ``(P,)``.
      readings: Columns by name, each finite, of shape ``(P,)``: 0 where an item brought nothing.
      kind: What kind of network it is, such as its architecture; networks of one kind are told from others by it.
    """

    name: str
    items: tuple[str, ...]
    readings: dict[str, np.ndarray]
    kind: str = ""


def phase_signature(
    name: str, history: History, phases: Phases, readings: Readings | None = None, *, kind: str = ""
) -> Signature:
    """One row for each phase: when it came, by how much losses and readings changed, and what was learned in it.

    - ``"time"``: the share of all log steps between the transition before and its own;
    - ``"Δ loss"`` by name: from the plateau before to its own, nats;
    - ``"Δ"`` and the name of a reading, the same for the values nearest the plateaus, each between its transition and
      the next; a reading that one of the plateaus lacks is left out;
    - ``"learned"`` and a family of concepts: the share of its members that were acquired in the phase. Concepts whose
      names differ by a number alone are a family: which representation or which head it is does not matter.

    Args:
      name: Of the network.
      history: Losses and concepts.
      phases: From ``detect_phases`` on the same history.
      readings: Such as ``{"λ̂": {step: (value, std_error)}}``.
      kind: As in ``Signature``.

    Raises:
      ValueError: there is no phase, or a concept is not finite.

    >>> steps = np.arange(1, 101)
    >>> concepts = {"head 1": steps >= 10.0, "head 2": steps < 0}
    >>> history = History(steps, {"all": np.where(steps < 10, 2.0, 1.0)}, concepts)
    >>> nothing = np.zeros(0)
    >>> phases = Phases(np.array([10]), np.array([9]), np.array([11]), np.array([3, 100]), nothing, nothing)
    >>> found = phase_signature("mine", history, phases, {"λ̂": {4: (1.0, 0.1), 90: (3.5, 0.1)}})
    >>> {name: values.tolist() for name, values in found.readings.items()}
    {'time': [0.5], 'Δ loss all': [-1.0], 'Δ λ̂': [2.5], 'learned head': [0.5]}
    """
    count = len(phases.transitions)
    if not count:
        raise ValueError(f"phases: {name!r} has none, so that there is nothing to compare.")
    times = np.log(np.maximum([1, *phases.transitions], 1))
    end = max(np.log(max(int(history.steps[-1]), 1)), times[-1])
    columns = {"time": np.diff(times) / end}
    at = np.searchsorted(history.steps, phases.plateaus)
    columns |= {f"Δ loss {loss}": np.diff(curve[at]) for loss, curve in history.losses.items()}
    for reading, values in (readings or {}).items():
        steps = measured_at(phases, [step for step, (value, _) in values.items() if np.isfinite(value)])
        heights = [values[step][0] for step in steps if step is not None]
        if len(heights) == len(steps):
            columns[f"Δ {reading}"] = np.diff(heights)
    acquired = {
        concept: acquisition(
            concept, check_curve(f"concept {concept!r}", history.steps, curve)[1], history.steps, phases, LEVEL
        ).phase
        for concept, curve in history.concepts.items()
    }
    for family, members in families(history.concepts).items():
        when = np.array([acquired[member] or 0 for member in members])
        columns[f"learned {family}"] = np.mean(when[None, :] == np.arange(1, count + 1)[:, None], axis=1)
    return Signature(name, tuple(f"phase {number}" for number in range(1, count + 1)), columns, kind)


def stage_signature(
    name: str, history: History, readings: Readings | None = None, *, stages: int = 8, kind: str = ""
) -> Signature:
    """One row for each of so many stages of training, even in the logarithm of the step: how everything changed in it.

    Losses, readings and the mean of every family of concepts, each as its change from the beginning of a stage to its
    end, between the points at which it is known by ``log(1 + step)``.

    Args:
      name: Of the network.
      history: Losses and concepts.
      readings: As for ``phase_signature``; each at two steps or more.
      stages: At least 4.
      kind: As in ``Signature``.

    Raises:
      ValueError: too few stages, or a reading with fewer than two finite values.

    >>> steps = np.arange(0, 100)
    >>> found = stage_signature("mine", History(steps, {"all": np.log1p(steps)}, {}), stages=4)
    >>> found.readings["Δ loss all"].round(2).tolist()
    [1.15, 1.15, 1.15, 1.15]
    """
    if stages < 4:
        raise ValueError(f"stages: got {stages}; fewer than 4 agree by chance too often.")
    clock = np.log1p(history.steps)
    grid = np.linspace(clock[0], clock[-1], stages + 1)
    curves = {f"Δ loss {loss}": curve for loss, curve in history.losses.items()}
    for family, members in families(history.concepts).items():
        curves[f"Δ {family}"] = np.mean([history.concepts[member] for member in members], axis=0)
    columns = {column: np.diff(np.interp(grid, clock, curve)) for column, curve in curves.items()}
    for reading, values in (readings or {}).items():
        known = [step for step in sorted(values) if np.isfinite(values[step][0])]
        if len(known) < 2:
            raise ValueError(f"readings: {reading!r} of {name!r} is known at {len(known)} steps; a change needs 2.")
        heights = [values[step][0] for step in known]
        columns[f"Δ {reading}"] = np.diff(np.interp(grid, np.log1p(known), heights))
    bounds = np.expm1(grid).round().astype(int)
    items = tuple(f"steps {bounds[stage]} to {bounds[stage + 1]}" for stage in range(stages))
    return Signature(name, items, columns, kind)


def families(names: Mapping[str, object]) -> dict[str, list[str]]:
    """Members by family: names that differ by a number at their end alone are one; every other is its own.

    >>> families({"head 1.0": 0, "head 1.1": 0, "with order": 0})
    {'head': ['head 1.0', 'head 1.1'], 'with order': ['with order']}
    """
    found: dict[str, list[str]] = {}
    for name in names:
        match = _MEMBER.match(name)
        found.setdefault(match["family"] if match else name, []).append(name)
    return found
