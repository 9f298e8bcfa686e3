"""The picture of flows: λ_eff against temperature, a line per checkpoint, where it stands still and where it fails."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from slt_jax.plots import style

#: More lines than this are not told apart: the first and the last are kept, and others evenly between them.
MOST_LINES = 16


class FlowLine(NamedTuple):
    """λ_eff of one checkpoint over temperatures.

    Attributes:
      step: The checkpoint.
      nbetas, values, errors: Shape ``(rung,)``, in any order.
      plateaus: λ of the plateau that a rung belongs to, shape ``(rung,)``; NaN where there is none.
      ok: Whether a rung is usable and healthy, shape ``(rung,)``.
    """

    step: int
    nbetas: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    plateaus: np.ndarray
    ok: np.ndarray


def flow_curves(lines: Sequence[FlowLine], label: str) -> str:
    """λ_eff against ``log10 nβ``, cold on the right, with bands of two standard errors; at most 16 lines.

    Args:
      lines: At least one, by step.
      label: What was read.

    Returns:
      The text of an SVG file. Plateaus are thick, rungs that are not to be relied on red and hollow.
    """
    shown = [lines[index] for index in kept(len(lines))]
    palette = matplotlib.colormaps["viridis"]
    colors = [palette(0.86 * index / max(1, len(shown) - 1)) for index in range(len(shown))]
    with style.look():
        figure = style.new_figure(5.2)
        axes = figure.subplots()
        for line, color in zip(shown, colors, strict=True):
            _draw(axes, line, color)
        _limit(axes, shown)
        _name_lines(axes, shown, colors)
        axes.set_xlabel("log₁₀ nβ (hot on the left, cold on the right)")
        style.caption_axis(axes, f"λ_eff, {label}")
        _draw_key(axes, shown)
        return style.svg(figure)


def kept(count: int) -> list[int]:
    """Indices of the lines that are drawn.

    >>> kept(3), len(kept(40)), kept(40)[-1]
    ([0, 1, 2], 16, 39)
    """
    return np.unique(np.linspace(0, count - 1, min(count, MOST_LINES)).astype(int)).tolist()


def _draw(axes: Axes, line: FlowLine, color: tuple) -> None:
    order = np.argsort(line.nbetas)
    place, value, error = np.log10(line.nbetas[order]), line.values[order], line.errors[order]
    good, stays = line.ok[order] & np.isfinite(value), line.plateaus[order]
    bad = ~good & np.isfinite(value)
    trusted = np.where(good, value, np.nan)
    spread = np.where(np.isfinite(error), 2 * error, 0.0)
    axes.fill_between(place, trusted - spread, trusted + spread, color=color, alpha=0.2, linewidth=0, zorder=2)
    axes.plot(place, np.where(np.isfinite(value), value, np.nan), color=color, linewidth=0.9, alpha=0.5, zorder=2.5)
    axes.plot(place[good], value[good], "o", color=color, markersize=4, zorder=4)
    for level in np.unique(stays[np.isfinite(stays)]):
        at = np.flatnonzero(stays == level)
        ends = [place[at[0]], place[at[-1]]]
        axes.plot(ends, [level, level], color=color, linewidth=5, alpha=0.45, solid_capstyle="round", zorder=3)
    axes.plot(place[bad], value[bad], "o", color=style.ALARM, markerfacecolor="white", markersize=5, zorder=5)


def _limit(axes: Axes, lines: Sequence[FlowLine]) -> None:
    """What can be relied on fills the picture; what cannot is left out where it lies far outside."""
    every = np.concatenate([line.values for line in lines])
    spread = 2 * np.nan_to_num(np.concatenate([line.errors for line in lines]), nan=0.0, posinf=0.0)
    good = np.concatenate([line.ok for line in lines]) & np.isfinite(every)
    used = good if good.any() else np.isfinite(every)
    if not used.any():
        return
    low, high = float((every - spread)[used].min()), float((every + spread)[used].max())
    margin = 0.08 * max(high - low, 0.1 * abs(high), 1e-12)
    axes.set_ylim(low - margin, high + 1.5 * margin)


def _name_lines(axes: Axes, lines: Sequence[FlowLine], colors: Sequence[tuple]) -> None:
    """The step of each line at its cold end, moved apart where two would overlap."""
    low, high = axes.get_ylim()
    least = 0.05 * (high - low)
    ends = []
    for index, line in enumerate(lines):
        values = line.values[np.argsort(line.nbetas)]
        finite = values[np.isfinite(values)]
        ends.append((float(np.clip(finite[-1], low, high)) if finite.size else low, index))
    # lines that end at one height are named in the order of their steps
    ends.sort(key=lambda end: (round(end[0] / least), end[1]))
    heights = _apart([height for height, _ in ends], least, high)
    for (_, index), height in zip(ends, heights, strict=True):
        axes.annotate(
            f"step {style.number(lines[index].step)}",
            (1.005, (height - low) / (high - low)),
            xycoords="axes fraction",
            color=tuple(0.8 * part for part in colors[index][:3]),
            size=9,
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )


def _apart(heights: Sequence[float], least: float, top: float) -> np.ndarray:
    """Increasing heights, moved as little as a pass up and a pass down need to leave ``least`` between them.

    >>> _apart([1.0, 1.0], 0.5, 2.0).tolist(), _apart([2.0, 2.0], 0.5, 2.0).tolist()
    ([1.0, 1.5], [1.5, 2.0])
    """
    moved = list(heights)
    for index in range(1, len(moved)):
        moved[index] = max(moved[index], moved[index - 1] + least)
    for index in range(len(moved) - 1, -1, -1):
        limit = top if index == len(moved) - 1 else moved[index + 1] - least
        moved[index] = min(moved[index], limit)
    return np.array(moved)


def _draw_key(axes: Axes, lines: Sequence[FlowLine]) -> None:
    axes.plot([], [], "o", color=style.MUTED, markersize=4, label="λ_eff, band ± 2 standard errors")
    if any(np.isfinite(line.plateaus).any() for line in lines):
        axes.plot([], [], color=style.MUTED, linewidth=5, alpha=0.45, label="plateau")
    if any((~line.ok).any() for line in lines):
        axes.plot([], [], "o", color=style.ALARM, markerfacecolor="white", label="too hot, or unhealthy")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderaxespad=0.2, columnspacing=1.6)
