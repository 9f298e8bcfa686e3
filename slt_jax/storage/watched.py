"""What was measured at each checkpoint of a training that is followed: checkpoints may be gone by the end."""

import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slt_jax.spectroscopy import Cell, History
from slt_jax.storage.folder import UNREADABLE

WATCHED = "watched"


def write_watched(out: Path, mark: str, row: History, cells: Sequence[Cell]) -> None:
    """Write what was measured at one checkpoint, whole or not at all.

    Args:
      out: The study's folder.
      mark: What else the readings depend on.
      row: A history of the one step.
      cells: All readings there.
    """
    (step,) = row.steps.tolist()
    arrays: dict[str, np.ndarray] = {}
    table = []
    for number, cell in enumerate(cells):
        place = [cell.probe, cell.step, cell.restriction, cell.subloss]
        table.append({"place": place, "error": cell.error, "read": cell.reading is not None})
        arrays |= {f"cell/{number}/{name}": np.asarray(value) for name, value in (cell.reading or {}).items()}
    for field in History._fields[1:]:
        arrays |= {f"{field}/{name}": np.asarray(value) for name, value in getattr(row, field).items()}
    about = json.dumps({"mark": mark, "cells": table})
    folder = out / WATCHED
    folder.mkdir(exist_ok=True)
    scratch = folder / f".{uuid.uuid4().hex}.npz"
    try:
        np.savez(scratch, about=np.asarray(about), **arrays)  # type: ignore[arg-type]
        os.replace(scratch, folder / f"{step}.npz")
    finally:
        scratch.unlink(missing_ok=True)


def read_watched(out: Path, mark: str) -> dict[int, tuple[History, list[Cell]]]:
    """What was measured before, by step; a file that cannot be read, or has another mark, counts as none."""
    found = {}
    for path in sorted((out / WATCHED).glob("*.npz")):
        if not path.stem.isdigit():
            continue
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            about = json.loads(str(arrays.pop("about")))
            if about["mark"] == mark:
                found[int(path.stem)] = _row(int(path.stem), arrays), _cells(about["cells"], arrays)
        except UNREADABLE:
            continue
    return dict(sorted(found.items()))


def _row(step: int, arrays: dict[str, np.ndarray]) -> History:
    return History(np.array([step]), *(_below(f"{field}/", arrays) for field in History._fields[1:]))


def _cells(table: Sequence[dict[str, Any]], arrays: dict[str, np.ndarray]) -> list[Cell]:
    found = []
    for number, entry in enumerate(table):
        probe, step, restriction, subloss = entry["place"]
        reading = _below(f"cell/{number}/", arrays) if entry["read"] else None
        found.append(Cell(probe, step, restriction, subloss, reading, entry["error"]))
    return found


def _below(start: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}
