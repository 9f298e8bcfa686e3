"""The construction as a layered drawing: earlier phases above, an arrow from each to what it splits or stands on."""

import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from slt_jax.plots import style
from slt_jax.spectroscopy import Relation
from slt_jax.spectroscopy.graph import (
    BUILT_ON,
    DECOMPOSITION,
    FORMATION,
    REFINEMENT,
    REFINES,
    UNKNOWN,
    layers,
)

#: Pixels, on a page of this width.
_WIDTH, _MARGIN, _TOP, _GAP, _LINE = 1056, 8, 44, 54, 16
_WIDEST, _BETWEEN, _CHARACTER = 190, 14, 6.1
#: Narrower nodes have smaller words; the share of the size of a word that a letter is wide.
_NARROW, _SIZES, _LETTER = 150, (12, 11), 0.56
#: Nodes side by side; more of one layer go on in the next row.
_PER_ROW = 8
_EDGES = {REFINES: (style.PALETTE[0], 1.8, "none"), BUILT_ON: (style.PALETTE[6], 2.6, "7 4")}
_FILLS = {FORMATION: "#e3f4f1", REFINEMENT: "#e7f1fb", DECOMPOSITION: "#f2e9f8", UNKNOWN: "#f6f7f9"}


class GraphNode(NamedTuple):
    """A phase as it is drawn.

    Attributes:
      number: Of the phase.
      lines: What stands in it, the first in bold.
      kind: What the transition was.
      target: Where a click leads, as ``#phase-3``.
    """

    number: int
    lines: Sequence[str]
    kind: str
    target: str


def construction_graph(nodes: Sequence[GraphNode], edges: Sequence[Relation]) -> str:
    """The graph of phases, to be set into a page as it is: its nodes are links.

    Args:
      nodes: Phases 1 to K, at least one.
      edges: Between them; solid and thin where a phase refines another, dashed and thick where it was built on it.

    Returns:
      An ``<svg>`` element. No word of it can be anything but a word.
    """
    rows = _rows(len(nodes), edges)
    most = max(len(row) for row in rows)
    width = min(_WIDEST, (_WIDTH - 2 * _MARGIN) / most - _BETWEEN)
    height = 10 + _LINE * max(len(node.lines) for node in nodes)
    places = {
        number: (_MARGIN + (_WIDTH - 2 * _MARGIN) * (at + 0.5) / len(row), _TOP + level * (height + _GAP))
        for level, row in enumerate(rows)
        for at, number in enumerate(row)
    }
    total = _TOP + len(rows) * (height + _GAP) - _GAP + _MARGIN
    # what intervention showed is drawn over what was read off
    drawn = [_arrow(edge, places, height) for edge in sorted(edges, key=lambda edge: edge.kind == BUILT_ON)]
    boxes = [_box(node, *places[node.number], width, height) for node in nodes]
    kinds = {edge.kind for edge in edges}
    markers = "".join(
        f'<marker id="construction-{_slug(kind)}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="{color}"/></marker>'
        for kind, (color, _, _) in _EDGES.items()
    )
    said = f"Graph of {len(nodes)} nodes: {sum(edge.kind == REFINES for edge in edges)} edges that refine, " + (
        f"{sum(edge.kind == BUILT_ON for edge in edges)} that were built on"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {total:.0f}" width="100%" role="group" '
        f'aria-label="{said}" font-family="{style.FONTS}" font-size="12"><defs>{markers}</defs>'
        f"{_legend(kinds, {node.kind for node in nodes})}{''.join(drawn)}{''.join(boxes)}</svg>"
    )


def _rows(count: int, edges: Sequence[Relation]) -> list[list[int]]:
    """Numbers of the phases row by row, each near those that it has an edge to."""
    depth = layers(count, edges)
    rows: list[list[int]] = []
    place = dict.fromkeys(range(1, count + 1), 0.5)
    for level in range(max(depth) + 1):
        layer = [number for number in range(1, count + 1) if depth[number - 1] == level]
        above = {number: [place[edge.earlier] for edge in edges if edge.later == number] or [0.5] for number in layer}
        layer.sort(key=lambda number: (float(np.mean(above[number])), number))
        for begin in range(0, len(layer), _PER_ROW):
            row = layer[begin : begin + _PER_ROW]
            place.update({number: (at + 0.5) / len(row) for at, number in enumerate(row)})
            rows.append(row)
    return rows


def _box(node: GraphNode, middle: float, top: float, width: float, height: float) -> str:
    size = _SIZES[width < _NARROW]
    fits = int((width - 6) / (_LETTER * size))
    lines = [line if len(line) <= fits else line[: max(fits - 1, 1)] + "…" for line in node.lines]
    begin = top + (height - _LINE * len(lines)) / 2 + 12
    inks = [f'fill="{style.INK}" font-weight="600"', *[f'fill="{style.INK}"'] * (len(lines) - 1)]
    words = "".join(
        f'<text x="{middle:.1f}" y="{begin + _LINE * at:.1f}" text-anchor="middle" font-size="{size}" {ink}>'
        f"{_escaped(line)}</text>"
        for at, (line, ink) in enumerate(zip(lines, inks, strict=True))
    )
    return (
        f'<a href="{_escaped(node.target)}"><title>{_escaped("; ".join([*node.lines, node.kind]))}</title>'
        f'<rect x="{middle - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="7" '
        f'fill="{_FILLS.get(node.kind, _FILLS[UNKNOWN])}" stroke="{style.EDGE}"/>{words}</a>'
    )


def _arrow(edge: Relation, places: Mapping[int, tuple[float, float]], height: float) -> str:
    color, width, dashes = _EDGES[edge.kind]
    # the two kinds leave a node side by side, so that neither hides the other
    shift = 9 if edge.kind == BUILT_ON else -9
    (x, y), (to_x, to_y) = places[edge.later], places[edge.earlier]
    x, to_x, to_y = x + shift, to_x + shift, to_y + height + 2
    middle = (y + to_y) / 2
    return (
        f'<path d="M{x:.1f} {y:.1f}C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}" fill="none" '
        f'stroke="{color}" stroke-width="{width}" stroke-dasharray="{dashes}" '
        f'marker-end="url(#construction-{_slug(edge.kind)})"><title>{_escaped(edge.evidence)}</title></path>'
    )


def _legend(edges: set[str], kinds: set[str]) -> str:
    pieces, at = [], float(_MARGIN)
    for kind, (color, width, dashes) in _EDGES.items():
        text = {REFINES: "refines", BUILT_ON: "was built on (grafting)"}[kind] + ("" if kind in edges else ": none")
        pieces.append(
            f'<path d="M{at:.0f} 16H{at + 34:.0f}" stroke="{color}" stroke-width="{width}" '
            f'stroke-dasharray="{dashes}"/>'
            f'<text x="{at + 41:.0f}" y="20" fill="{style.MUTED}">{text}</text>'
        )
        at += 41 + len(text) * _CHARACTER + 24
    for kind, fill in _FILLS.items():
        if kind in kinds and kind != UNKNOWN:
            pieces.append(
                f'<rect x="{at:.0f}" y="9" width="16" height="13" rx="3" fill="{fill}" stroke="{style.EDGE}"/>'
                f'<text x="{at + 23:.0f}" y="20" fill="{style.MUTED}">{kind}</text>'
            )
            at += 23 + len(kind) * _CHARACTER + 24
    return "".join(pieces)


def _slug(kind: str) -> str:
    return kind.replace(" ", "-")


def _escaped(text: str) -> str:
    return html.escape(style.FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text))
