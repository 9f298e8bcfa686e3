"""Where each phase lives: for every transition the share of its gains that few directions explain, beside chance."""

import numpy as np

from slt_jax import plots
from slt_jax.plots.localities import MOST_PANELS
from slt_jax.report.content import Content
from slt_jax.report.markup import Html, counted, element, figure, folded, joined, plain, table, with_error
from slt_jax.spectroscopy import Locality, Transition
from slt_jax.spectroscopy.locality import LEVEL
from slt_jax.spectroscopy.subject import WHOLE_LOSS

#: Transitions with a picture of their own.
_MOST_PICTURES = 8


def localities(content: Content) -> Html | None:
    """A sentence and a picture per transition, and a table of all; ``None`` where nothing was located."""
    if not content.transitions:
        return None
    level = f"{LEVEL:.0%}".replace("%", " %")
    pieces: list[object] = [
        element(
            "p",
            "The change of the parameters over a transition, put into the network before it along the best k "
            "directions of each kind: how much of the fall in loss does that bring? A ring marks where "
            f"{level} of it is reached; grey is chance. One direction that explains all says that the network moved "
            "along a line, not that few weights took part: weights are the coordinates.",
        )
    ]
    drawn = 0
    for number, one in enumerate(content.transitions, start=1):
        where = f"Phase {number}, transition at step {plain(one.step)}"
        pieces.append(element("h3", where))
        if one.locality is None:
            pieces.append(element("p", f"Not located: {one.reason}", class_="muted"))
            continue
        pieces.append(element("p", _sentence(one, one.locality)))
        if drawn < _MOST_PICTURES:
            drawn += 1
            pieces.append(_picture(one, one.locality))
    located = [one.locality for one in content.transitions if one.locality is not None]
    if located:
        pieces.append(folded(f"How many directions explain {level}", *_tables(content)))
    return joined(*pieces)


def _sentence(one: Transition, found: Locality) -> str:
    """The result of the loss that gained most, in one sentence."""
    name = found.sublosses[0] if found.sublosses[0] == WHOLE_LOSS else found.sublosses[int(np.argmax(found.gains))]
    counts = {kind: found.enough(name, kind) for kind in found.kinds}
    reached = {kind: count for kind, count in counts.items() if count is not None}
    told = [f"{kind} {_amount(count)}" for kind, count in sorted(reached.items(), key=lambda item: item[1])]
    told += [f"{kind} none" for kind in counts if kind not in reached]
    chance = [f"{null} {_amount(found.enough(name, null))}" for null in found.nulls]
    gain = plain(float(found.gains[found.sublosses.index(name)]), 3)
    return (
        f"From step {plain(one.before)} to {plain(one.after)} the {_title(name)} fell by {gain} nats. Of "
        f"{plain(found.dimension)} directions so many explain {LEVEL:.0%} of it: {', '.join(told)}; by chance: "
        f"{', '.join(chance)}."
    ).replace("%", " %")


def _amount(count: int | None) -> str:
    return "none" if count is None else plain(count)


def _picture(one: Transition, found: Locality) -> Html:
    panels = [
        plots.SharePanel(
            f"{_title(name)}, −{plain(float(found.gains[row]), 3)} nats",
            [_curve(found, name, kind) for kind in found.kinds],
            [_curve(found, name, null) for null in found.nulls],
        )
        for row, name in enumerate(found.sublosses)
    ]
    told = "; ".join(_panel_told(panel) for panel in panels[:MOST_PANELS])
    alternative = f"Explained share against k, transition at step {one.step}; k that explain {LEVEL:.0%}: {told}."
    left = f" The first {MOST_PANELS} of {len(panels)} losses." if len(panels) > MOST_PANELS else ""
    caption = (
        f"Share of the fall in each loss that k directions explain, over {counted(one.checkpoints, 'checkpoint')} from "
        f"step {plain(one.before)} to {plain(one.after)}. Bands: ± 2 standard errors over examples; of chance, ± one "
        f"standard deviation over draws. Half of a change can be worse than none: a share may be negative.{left}"
    )
    return figure(plots.shares(panels, found.counts, LEVEL), alternative, caption)


def _panel_told(panel: plots.SharePanel) -> str:
    curves = [f"{curve.label} {_amount(curve.enough)}" for curve in (*panel.kinds, *panel.nulls)]
    return f"{panel.title}: {', '.join(curves)}"


def _curve(found: Locality, subloss: str, kind: str) -> plots.ShareCurve:
    values, errors = found.curve(subloss, kind)
    return plots.ShareCurve(kind, values, errors, found.enough(subloss, kind))


def _tables(content: Content) -> list[Html]:
    """A table per transition: losses by kinds, with what chance needs beside them."""
    tables = []
    for one in content.transitions:
        found = one.locality
        if found is None:
            continue
        names = [*found.kinds, *found.nulls]
        rows = [
            [
                _title(name),
                with_error(float(found.gains[row]), float(found.gain_errors[row])),
                *(_with_interval(found, name, kind) for kind in names),
            ]
            for row, name in enumerate(found.sublosses)
        ]
        caption = f"Transition at step {plain(one.step)}: the smallest k, and in brackets what two errors leave open."
        tables.append(table(["loss", "fell by", *names], rows, caption=caption))
    return tables


def _with_interval(found: Locality, subloss: str, kind: str) -> str:
    best = found.enough(subloss, kind)
    low, high = found.enough_interval(subloss, kind)
    return _amount(best) if low == high == best else f"{_amount(best)} ({_amount(low)} to {_amount(high)})"


def _title(subloss: str) -> str:
    return "whole loss" if subloss == WHOLE_LOSS else subloss
