"""Relations between phases in a folder, as JSON, with what they depend on."""

import json
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from slt_jax.spectroscopy.construct import Construction
from slt_jax.spectroscopy.grafting import Grafts
from slt_jax.spectroscopy.plain import plain
from slt_jax.spectroscopy.refinement import Refinements
from slt_jax.spectroscopy.relations import Relations

RELATIONS, CONSTRUCTION, DOT = "relations.json", "construction.json", "construction.dot"
#: What json and a table of another version raise.
_UNREADABLE = (OSError, ValueError, TypeError, KeyError)


def write_relations(folder: Path, found: Relations, mark: str = "") -> None:
    """Write ``relations.json`` whole.

    Args:
      folder: The study's folder.
      found: Both kinds.
      mark: What they depend on, for ``read_relations``.
    """
    _write(folder / RELATIONS, json.dumps({"mark": mark, **plain(found)}, indent=1) + "\n")


def read_relations(folder: Path, mark: str | None = None) -> Relations | None:
    """The relations in a folder; ``None`` where there are none that can be read, or not those of ``mark``."""
    try:
        stored = json.loads((folder / RELATIONS).read_text())
        if mark is not None and stored["mark"] != mark:
            return None
        refined = None if stored["refined"] is None else Refinements(**_arrays(stored["refined"]))
        grafted, put_together = (
            None if stored[name] is None else Grafts(**_arrays(stored[name])) for name in ("grafted", "assembled")
        )
        return Relations(refined, grafted, tuple(stored["untested"]), tuple(stored["parts"]), put_together)
    except _UNREADABLE:
        return None  # to be computed again


def write_construction(folder: Path, construction: Construction) -> None:
    """Write ``construction.json``, as its schema says, and ``construction.dot`` for Graphviz."""
    _write(folder / CONSTRUCTION, json.dumps(construction.to_graph(), indent=1, ensure_ascii=False) + "\n")
    _write(folder / DOT, construction.to_dot())


def _arrays(entries: dict[str, Any]) -> dict[str, Any]:
    """Lists of numbers as arrays, where none is NaN; lists of words as tuples."""
    made: dict[str, Any] = {}
    for name, entry in entries.items():
        if not isinstance(entry, list):
            made[name] = entry
        elif name in ("judged", "reasons"):
            made[name] = tuple(entry)
        else:
            made[name] = np.array(entry, {"found": bool, "clusters": int}.get(name, float))
    return made


def _write(target: Path, text: str) -> None:
    scratch = target.with_name(f".{uuid.uuid4().hex}{target.suffix}")
    try:
        scratch.write_text(text, encoding="utf-8")
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
