"""Readings of attention heads, as a map over the architecture for every checkpoint."""

import re

import numpy as np

from slt_jax import plots
from slt_jax.report.content import COEFFICIENT, Content, Row
from slt_jax.report.markup import Html, counted, figure, joined, plain

#: What ``slt_jax.restriction.heads`` calls a head: its attention module and its number there.
_HEAD = re.compile(r"^head (\d+)\.(\d+)$")

#: What the values of a probe are.
_LABELS = {COEFFICIENT: "λ̂", "susceptibility": "nβ⟨ΔL⟩"}


def head_maps(content: Content, probe: str) -> Html | None:
    """For each subloss a grid of all heads at each checkpoint; ``None`` where no heads were read."""
    rows = [row for row in content.rows if row.probe == probe and head_of(row.restriction)]
    pieces = []
    for subloss in dict.fromkeys(row.subloss for row in rows):
        own = [row for row in rows if row.subloss == subloss]
        maps = [_map_at(step, own) for step in sorted({row.step for row in own})]
        pieces.append(_figure(maps, own[0], _LABELS.get(probe, probe)))
    return joined(*pieces) if pieces else None


def response_maps(content: Content, probe: str) -> Html | None:
    """For each observable the same grids of standardised χ; ``None`` where no heads were read."""
    rows = [row for row in content.rows if row.probe == probe and head_of(row.restriction)]
    pieces = []
    for subloss in dict.fromkeys(row.subloss for row in rows):
        own = [row for row in rows if row.subloss == subloss]
        for observable in dict.fromkeys(name for row in own for name in row.arrays.get("observable", ())):
            found = [row._replace(value=along(row, "standardised", observable)) for row in own]
            maps = [_map_at(step, found) for step in sorted({row.step for row in found})]
            pieces.append(_figure(maps, own[0], f"χ on {observable}", signed=True))
    return joined(*pieces) if pieces else None


def head_of(restriction: str) -> tuple[int, int] | None:
    """Attention module and number of a head, or ``None`` for any other restriction."""
    found = _HEAD.match(restriction)
    return (int(found[1]), int(found[2])) if found else None


def along(row: Row, array: str, observable: str) -> float:
    """The entry of a reading's array that belongs to an observable; NaN where there is none."""
    names = [str(name) for name in row.arrays.get("observable", ())]
    if array not in row.arrays or observable not in names:
        return float("nan")
    return float(row.arrays[array][names.index(observable)])


def _map_at(step: int, rows: list[Row]) -> plots.HeadMap:
    places = {place: row for row in rows if row.step == step and (place := head_of(row.restriction))}
    every = [place for row in rows if (place := head_of(row.restriction))]
    shape = tuple(1 + max(place[axis] for place in every) for axis in (0, 1))
    values, healthy = np.full(shape, np.nan), np.zeros(shape, bool)
    for place, row in places.items():
        values[place], healthy[place] = row.value, row.healthy
    return plots.HeadMap(step, values, healthy)


def _figure(maps: list[plots.HeadMap], row: Row, label: str, *, signed: bool = False) -> Html:
    part = "whole loss" if row.subloss == "all" else row.subloss
    last = maps[-1]
    best = (
        np.unravel_index(int(np.nanargmax(last.values)), last.values.shape) if np.isfinite(last.values).any() else None
    )
    most = (
        ""
        if best is None
        else f" The largest at step {last.step} is head {best[0]}.{best[1]}: {plain(last.values[best])}."
    )
    sick = sum(int(np.sum(np.isfinite(one.values) & ~one.healthy)) for one in maps)
    alternative = f"{label} of {last.values.size} heads on {part} at {counted(len(maps), 'checkpoint')}.{most}" + (
        f" {sick} of the readings are unhealthy." if sick else ""
    )
    caption = (
        f"{label} with one attention head free and all else frozen, {part}, at every checkpoint, on one scale.{most} "
        "Framed in red: unhealthy. Grey: no reading."
    )
    return figure(plots.head_maps(maps, f"{label}, {part}", signed=signed), alternative, caption)
