"""Readings of attention heads, as a map over the architecture for every checkpoint."""

import re

import numpy as np

from slt_jax import plots
from slt_jax.report.content import COEFFICIENT, Content, Row
from slt_jax.report.markup import Html, counted, figure, joined, plain

#: What ``slt_jax.restriction.heads`` calls a head: its attention module and its number there.
_HEAD = re.compile(r"^head (\d+)\.(\d+)$")


def head_maps(content: Content, probe: str) -> Html | None:
    """For each subloss a grid of all heads at each checkpoint; ``None`` where no heads were read."""
    rows = [row for row in content.rows if row.probe == probe and _HEAD.match(row.restriction)]
    pieces = []
    for subloss in dict.fromkeys(row.subloss for row in rows):
        own = [row for row in rows if row.subloss == subloss]
        maps = [_map_at(step, own) for step in sorted({row.step for row in own})]
        pieces.append(_figure(maps, own[0], "λ̂" if probe == COEFFICIENT else probe))
    return joined(*pieces) if pieces else None


def _map_at(step: int, rows: list[Row]) -> plots.HeadMap:
    places = {place: row for row in rows if row.step == step and (place := _place(row))}
    every = [place for row in rows if (place := _place(row))]
    shape = tuple(1 + max(place[axis] for place in every) for axis in (0, 1))
    values, healthy = np.full(shape, np.nan), np.zeros(shape, bool)
    for place, row in places.items():
        values[place], healthy[place] = row.value, row.healthy
    return plots.HeadMap(step, values, healthy)


def _place(row: Row) -> tuple[int, int] | None:
    found = _HEAD.match(row.restriction)
    return (int(found[1]), int(found[2])) if found else None


def _figure(maps: list[plots.HeadMap], row: Row, label: str) -> Html:
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
    return figure(plots.head_maps(maps, f"{label}, {part}"), alternative, caption)
