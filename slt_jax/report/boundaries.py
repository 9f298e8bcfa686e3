"""The boundaries of the phases: where each lies, with what certainty, and which curves and readings see it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slt_jax.report.content import Content, phases_between
from slt_jax.report.markup import Html, badge, counted, element, joined, plain, table

#: More curves than this are counted, not named.
_MOST_NAMES = 4
_PROBES = {"llc": "λ̂", "flow": "λ_eff, coldest"}


def boundaries(content: Content) -> Html | None:
    """Every transition with its interval, and the critical points of the readings; ``None`` without transitions."""
    phases = content.study.get("phases") or {}
    intervals = phases.get("intervals") or []
    points = content.study.get("critical_points") or {}
    pieces: list[object] = []
    if intervals:
        pieces.append(_transitions(phases, intervals))
    if any(points.values()):
        pieces += [element("h3", "Critical points of the readings"), _critical(points, content)]
    added = content.study.get("added") or []
    if added:
        steps = ", ".join(plain(step) for step in added)
        pieces.append(element("p", f"Measured besides, where neighbouring readings disagreed: step {steps}."))
    return joined(*pieces) if pieces else None


def _transitions(phases: Mapping[str, Any], intervals: Sequence[Sequence[float]]) -> Html:
    curves = phases.get("curves") or {}
    spread = phases.get("spread") or []
    header = ["phase", "fastest at step", "95 % interval", "transition", "seen by itself in"]
    if spread:
        header.insert(3, "over nβ")
    rows = []
    for index, (low, high) in enumerate(intervals):
        begin, end = phases["begins"][index], phases["ends"][index]
        seen = [name for name, one in curves.items() if any(begin <= step <= end for step in one["steps"])]
        row: list[object] = [
            plain(index + 1),
            plain(phases["transitions"][index]),
            f"{plain(low)} to {plain(high)}",
            f"{plain(begin)} to {plain(end)}",
            _names(seen, len(curves)),
        ]
        if spread:
            moved = spread[index]
            row.insert(3, badge("not seen", "none") if moved is None else f"± {100 * np.expm1(moved):.1f} %")
        rows.append(row)
    caption = (
        "The interval holds the step of fastest change, by a bootstrap of blocks of residuals; the transition runs "
        "from half of its speed to half of its speed. What noise and a trend make in 5 % of recordings is none."
    )
    if spread:
        caption += " Over nβ: the deviation of the boundary of λ_eff, which is part of the interval."
    return table(header, rows, text=(len(header) - 1,), caption=caption)


def _critical(points: Mapping[str, Sequence[Mapping[str, Any]]], content: Content) -> Html:
    rows = [
        [
            _PROBES.get(probe, probe),
            point["kind"],
            plain(round(point["step"])),
            f"{plain(round(point['low']))} to {plain(round(point['high']))}",
            phases_between(content.bands, point["low"], point["high"]),
        ]
        for probe, found in points.items()
        for point in found
    ]
    caption = (
        "Where dλ̂/d log step changes sign or peaks beyond the errors of the readings, between the measured steps that "
        "hold it with 95 %."
    )
    return table(["reading", "kind", "step", "between", "in the transition of"], rows, text=(0, 1, 4), caption=caption)


def _names(seen: Sequence[str], count: int) -> str:
    if not seen:
        return "no curve: in their sum only"
    return ", ".join(seen) if len(seen) <= _MOST_NAMES else f"{len(seen)} of {counted(count, 'curve')}"
