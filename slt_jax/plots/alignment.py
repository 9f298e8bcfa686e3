"""When what was learned, and when each loss and each reading changed, on one axis of steps."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from slt_jax.plots import style
from slt_jax.plots.style import Bands, StepAxis
from slt_jax.plots.training import shortened

#: More rows than this are not drawn, of concepts and of sources each.
MOST_ROWS = 24


class Learned(NamedTuple):
    """A concept: the step at which it was acquired, or ``None``, and the steps between which it must lie."""

    name: str
    step: float | None
    between: tuple[float, float]


class Changed(NamedTuple):
    """A source: the transitions it made, and whether any of them is nearer to a concept than chance explains."""

    name: str
    steps: Sequence[float]
    begins: Sequence[float]
    ends: Sequence[float]
    found: bool


def alignment(concepts: Sequence[Learned], sources: Sequence[Changed], bands: Bands, axis: StepAxis) -> str:
    """Concepts above, a dot where each was acquired; sources below, a bar for each transition.

    Args:
      concepts: In their order; the first 24 are drawn.
      sources: In their order; the first 24 are drawn.
      bands: Phases to shade.
      axis: From ``step_axis``.

    Returns:
      The text of an SVG file.
    """
    above, below = concepts[:MOST_ROWS], sources[:MOST_ROWS]
    names = [row.name for row in above] + [row.name for row in below]
    with style.look():
        figure = style.new_figure(0.9 + 0.25 * max(len(names), 2))
        axes = figure.subplots()
        axes.set_ylim(len(names) - 0.4, -0.6)
        style.draw_step_axis(axes, axis)
        style.draw_bands(axes, bands, axis, numbered=True)
        for index, concept in enumerate(above):
            _draw_concept(axes, index, concept, axis)
        for index, source in enumerate(below):
            _draw_source(axes, len(above) + index, source, axis)
        if above and below:
            axes.axhline(len(above) - 0.5, color=style.EDGE, linewidth=0.8)
        axes.set_yticks(range(len(names)), [shortened(name) for name in names])
        axes.tick_params(axis="y", length=0, labelcolor=style.INK)
        axes.spines["left"].set_visible(False)
        return style.svg(figure)


def _draw_concept(axes: Axes, index: int, row: Learned, axis: StepAxis) -> None:
    left, right = axes.get_xlim()
    low, high = (np.clip(style.place(axis, end), left, right) for end in np.minimum(row.between, axis.last * 10))
    if row.step is not None:
        axes.plot([low, high], [index, index], color=style.INK, linewidth=1.4, solid_capstyle="butt", zorder=2)
        axes.plot([style.place(axis, row.step)], [index], "o", color=style.INK, markersize=5, zorder=3)
        return
    # an arrow towards where it must lie
    late = row.between[1] > axis.last
    words = "not acquired" if late else "there before the first record"
    axes.plot([right if late else left], [index], ">" if late else "<", color=style.MUTED, markersize=6, clip_on=False)
    axes.annotate(
        words,
        (right if late else left, index),
        xytext=(-8 if late else 8, 0),
        textcoords="offset points",
        ha="right" if late else "left",
        va="center",
        color=style.MUTED,
        size=9,
    )


def _draw_source(axes: Axes, index: int, row: Changed, axis: StepAxis) -> None:
    color = style.PALETTE[0] if row.found else style.EDGE
    for step, begin, end in zip(row.steps, row.begins, row.ends, strict=True):
        low, high = style.place(axis, [begin, end])
        axes.barh(index, high - low, left=low, height=0.5, color=color, alpha=0.4, linewidth=0, zorder=2)
        place = style.place(axis, step)
        axes.plot([place, place], [index - 0.32, index + 0.32], color=color, linewidth=2, zorder=3)
