"""Readings laid out as the network is built: heads in a grid, a small map for every checkpoint."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.patches import Rectangle

from slt_jax.plots import style

#: Checkpoints that are drawn.
MOST_MAPS = 12
_PER_ROW = 6
#: With more heads than this a map takes the place of two.
_NARROW = 4
_NUMBERS_UP_TO = 96
_SIGNED = "RdBu"


class HeadMap(NamedTuple):
    """Readings of all heads at one checkpoint.

    Attributes:
      step: The checkpoint.
      values: Shape ``(attention module, head)``; NaN where there is no reading.
      healthy: The same shape, boolean.
    """

    step: int
    values: np.ndarray
    healthy: np.ndarray


def head_maps(maps: Sequence[HeadMap], label: str, *, signed: bool = False) -> str:
    """One grid for every checkpoint, on one scale of colour: attention modules downwards, heads to the right.

    Args:
      maps: At least one, by step; of more than 12 as many, evenly from the first to the last.
      label: What the colour shows.
      signed: Whether the sign is what matters: colours of two kinds, equally far on both sides of 0.

    Returns:
      The text of an SVG file.
    """
    chosen = [maps[index] for index in np.unique(np.linspace(0, len(maps) - 1, min(len(maps), MOST_MAPS)).astype(int))]
    rows, heads = chosen[0].values.shape
    columns = min(len(chosen), _PER_ROW if heads <= _NARROW else _PER_ROW // 2)
    lines = math.ceil(len(chosen) / columns)
    finite = np.concatenate([one.values[np.isfinite(one.values)] for one in chosen])
    # negative readings, which are noise or no minimum, must not look like small ones
    low, high = (min(0.0, float(finite.min())), float(finite.max())) if finite.size else (0.0, 1.0)
    if signed:
        high = max(abs(low), abs(high))
        low = -high
    palette = _SIGNED if signed else "viridis"
    height = lines * (0.55 + style.WIDTH / columns * min(1.2, max(rows / heads, 0.25))) + 0.3
    with style.look():
        figure = style.new_figure(min(height, 9.0))
        grid = figure.subplots(lines, columns, squeeze=False)
        for index, axes in enumerate(grid.flat):
            if index >= len(chosen):
                axes.set_visible(False)
                continue
            numbers = rows * heads * columns <= _NUMBERS_UP_TO and heads * columns <= _PER_ROW * _NARROW
            image = _draw(axes, chosen[index], low, max(high, low + 1e-12), numbers, palette)
            axes.set_title(f"step {style.number(chosen[index].step)}", fontweight="bold")
            axes.set_xticks(range(heads), [str(head) for head in range(heads)])
            axes.set_yticks(range(rows), [str(row) for row in range(rows)] if index % columns == 0 else [""] * rows)
            if index % columns == 0:
                axes.set_ylabel("attention module")
            if index + columns >= len(chosen):
                axes.set_xlabel("head")
        bar = figure.colorbar(image, ax=list(grid.flat), pad=0.01, fraction=0.03)
        bar.outline.set_visible(False)
        bar.set_label(label)
        return style.svg(figure)


def _draw(axes: Axes, one: HeadMap, low: float, high: float, numbers: bool, palette: str) -> QuadMesh:
    rows, heads = one.values.shape
    # squares, not pixels: a viewer would blur so few of them
    image = axes.pcolormesh(
        np.arange(heads + 1) - 0.5,
        np.arange(rows + 1) - 0.5,
        np.ma.masked_invalid(one.values),
        cmap=matplotlib.colormaps[palette].with_extremes(bad="#eef0f3"),
        vmin=low,
        vmax=high,
        edgecolors="white",
        linewidth=1.2,
    )
    axes.invert_yaxis()
    axes.set_facecolor("#eef0f3")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for (row, head), value in np.ndenumerate(one.values):
        if not np.isfinite(value):
            continue
        if numbers:
            share = (value - low) / (high - low)
            # light colours lie at the top of the one scale, in the middle of the other
            light = 0.2 < share < 0.8 if palette == _SIGNED else share >= 0.6
            ink = style.INK if light else "white"
            axes.text(
                head,
                row,
                f"{value:.2f}" if palette == _SIGNED else f"{value:.3g}",
                ha="center",
                va="center",
                color=ink,
                size=8,
            )
        if not one.healthy[row, head]:
            frame = Rectangle((head - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=style.ALARM, linewidth=1.6)
            axes.add_patch(frame)
    return image
