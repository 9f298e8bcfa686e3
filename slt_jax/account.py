"""What ``study.json`` says of a study besides whose it is: phases, alignment, construction, settings and versions."""

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from slt_jax import development, storage
from slt_jax.spectroscopy import Cell, History, Phases, Probe, construct, detect_phases
from slt_jax.spectroscopy.boundary_readings import turning_points, whole_readings, with_temperatures
from slt_jax.spectroscopy.plain import plain
from slt_jax.spectroscopy.recorder import finite
from slt_jax.spectroscopy.staircases import Changes
from slt_jax.truths.truth import Truth

#: Fewer recorded steps than this are too few to look for phases in.
_LEAST_FOR_PHASES = 20


def write_account(
    out: Path,
    history: History | None,
    phases: Phases | None,
    cells: Sequence[Cell],
    exact: Mapping[int, Truth],
    extra: Mapping[str, Any],
    changes: Mapping[str, Changes] | None = None,
) -> None:
    """Add to ``study.json`` what a finished study can say of itself.

    Args:
      out: The study's folder.
      history, phases: From ``phases_of``.
      cells: Readings, for the construction.
      exact: Exactly known values by step.
      extra: Title, summary and other entries that are known beforehand.
      changes: Of the mean losses between the plateaus, as from ``loss_changes``.
    """
    study: dict[str, Any] = {**storage.read_study(out), **extra, "versions": _versions()}
    study["exact"] = {
        str(step): {
            "learning_coefficient": str(truth.learning_coefficient),
            "multiplicity": truth.multiplicity,
            "source": truth.source,
        }
        for step, truth in exact.items()
    }
    study.update(development.moved(history))
    study["critical_points"] = turning_points(cells)
    if history is not None and phases is not None:
        phases = with_temperatures(phases, cells)
        alignment = development.aligned(history, phases, cells, extra)
        read = {step: one[:2] for step, one in whole_readings(cells).items() if np.isfinite(one.value)}
        construction = construct(history, phases, alignment, read, **_found(out, phases))
        study["phases"] = _phases_json(phases)
        study["alignment"] = plain(alignment.acquisitions)
        study.update(development.account(history, phases, alignment, cells, changes, exact, extra))
        study["construction"] = construction.to_json()
        study["construction_text"] = construction.describe()
        study["relations"] = construction.to_graph()["relations"]
        study["untested"] = list(construction.untested)
        study["parts"] = {name: construction.to_graph()[name] for name in ("parts", "part_relations")}
        storage.write_construction(out, construction)
    storage.write_study(out, study)


def _found(out: Path, phases: Phases) -> dict[str, Any]:
    """What a folder says of where these phases live and how they are related, for ``construct``."""
    located, related = storage.read_transitions(out), storage.read_relations(out)
    found: dict[str, Any] = {}
    if located is not None and [one.step for one in located] == phases.transitions.tolist():
        found["located"] = located
    # a run that went on has more phases than it had
    if related is not None and related.phases in (None, len(phases.transitions)):
        found |= related._asdict()
    return found


def phases_of(history: History | None) -> tuple[History | None, Phases | None]:
    """The finite part of a history, and its phases where it has at least 20 steps."""
    # a checkpoint whose loss is NaN has no place in a curve; its readings say what is wrong with it
    history = None if history is None else finite(history)
    enough = history is not None and len(history.steps) >= _LEAST_FOR_PHASES
    return history, detect_phases(history) if history is not None and enough else None


def _phases_json(phases: Phases) -> dict[str, Any]:
    """Steps of every boundary; its 95 % interval, and the transitions of each curve by itself."""
    told: dict[str, Any] = {
        name: getattr(phases, name).astype(int).tolist() for name in ("transitions", "begins", "ends", "plateaus")
    }
    told["intervals"] = np.round(phases.intervals, 2).tolist()
    told["spread"] = [None if np.isnan(one) else float(one) for one in phases.spread]
    told["curves"] = {
        name: {"steps": one.steps.astype(int).tolist(), "intervals": np.round(one.intervals, 2).tolist()}
        for name, one in phases.curves.items()
    }
    return told


def settings_of(probes: Mapping[str, Probe]) -> dict[str, Any]:
    """What was chosen for each probe; what was left to its defaults is not named."""
    return {
        f"{name} {setting}": value
        for name, probe in probes.items()
        for setting, value in probe.settings.items()
        if value is not None
    }


def _versions() -> dict[str, str]:
    packages = ("slt_jax", "jax", "jaxlib", "numpy", "xarray", "zarr", "orbax-checkpoint", "ruptures")
    found: dict[str, str] = {"python": platform.python_version(), "machine": platform.machine()}
    for package in packages:
        found[package] = metadata.version(package)
    return found
