"""Puts the sections in their order and writes the page, whole or not at all."""

import json
import os
import uuid
from pathlib import Path
from typing import Any

from slt_jax import storage
from slt_jax.report import (
    boundaries,
    constructions,
    development,
    dynamics,
    localities,
    posterior,
    spectroscope,
    verdicts,
)
from slt_jax.report import content as contents
from slt_jax.report.content import Content
from slt_jax.report.markup import Html, element, joined, section, table
from slt_jax.report.page import page

REPORT = "report.html"
#: Entries of study.json that have a section of their own.
_TOLD = (
    "added",
    "alignment",
    "alignment_tests",
    "command",
    "construction",
    "construction_text",
    "counterparts",
    "critical_points",
    "cusps",
    "essential_dynamics",
    "exact",
    "expected_order",
    "identity",
    "parts",
    "phase_names",
    "phases",
    "rankings",
    "relations",
    "staircases",
    "summary",
    "title",
    "untested",
    "versions",
)


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from what is in an output folder, and from nothing else.

    Args:
      folder: Written by a demo or a scan. Any part but ``study.json`` may be missing.

    Returns:
      The path of the page: one file that needs no other and no network.

    Raises:
      FolderError: there is no ``study.json``, it is not JSON, or the page cannot be written.
    """
    text = _document(contents.read(folder))
    scratch, target = folder / f".{uuid.uuid4().hex}.html", folder / REPORT
    try:
        scratch.write_text(text, encoding="utf-8")
        os.replace(scratch, target)
    except OSError as error:
        raise storage.FolderError(f"{target}: cannot be written ({error.strerror}).") from error
    finally:
        scratch.unlink(missing_ok=True)
    return target


def _document(content: Content) -> str:
    study = content.study
    name = (study.get("identity") or {}).get("study", "a study")
    title = str(study.get("title") or f"Readings of {name}")
    summary = element("p", study["summary"], class_="lead") if study.get("summary") else None
    parts = [
        ("training", "Training", development.training(content)),
        ("dynamics", "Essential dynamics", dynamics.dynamics(content)),
        ("boundaries", "Boundaries of the phases", boundaries.boundaries(content)),
        ("spectroscope", "The spectroscope", spectroscope.spectroscope(content)),
        ("learned", "What was learned when", development.learned(content)),
        ("posterior", "Posterior and training", posterior.posterior(content)),
        ("construction", "Construction", constructions.construction(content)),
        ("localities", "Where each phase lives", localities.localities(content)),
        ("chains", "The chains behind the readings", spectroscope.traces(content)),
        ("readings", "All readings", verdicts.readings(content)),
        ("reproduce", "How to reproduce", _reproduction(content)),
    ]
    there = [(anchor, heading, body) for anchor, heading, body in parts if body is not None]
    # numbered as they stand, so that a part that is missing leaves no gap
    numbered = [
        (anchor, f"{index}. {heading}", section(anchor, f"{index}. {heading}", body))
        for index, (anchor, heading, body) in enumerate(there, start=1)
    ]
    return page(title, joined(summary, verdicts.verdict(content)), numbered)


def _reproduction(content: Content) -> Html:
    """What the numbers depend on: the study, its seed and settings, and the versions of what computed them."""
    study = content.study
    command = study.get("command")
    identity = {**(study.get("identity") or {}), **{key: study[key] for key in study if key not in _TOLD}}
    versions = study.get("versions") or {}
    pieces: list[object] = []
    if command:
        pieces.append(element("p", element("code", command if isinstance(command, str) else " ".join(command))))
    tables = [
        element("div", element("h3", heading), _pairs(names, entries))
        for heading, names, entries in (
            ("Study", ("entry", "value"), identity),
            ("Versions", ("package", "version"), versions),
        )
        if entries
    ]
    pieces.append(element("div", *tables, class_="pair"))
    return joined(*pieces)


def _pairs(names: tuple[str, str], entries: dict[str, Any]) -> Html:
    rows = [[name, _value(value)] for name, value in entries.items()]
    return table(names, rows, text=(0, 1))


def _value(value: Any) -> object:
    if isinstance(value, dict | list):
        return element("code", json.dumps(value, ensure_ascii=False))
    text = str(value)
    return element("code", text) if len(text) > 30 else text
