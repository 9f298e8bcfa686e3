"""Pictures of what was observed over training: the planes in which the outputs moved, and norms against the step."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import FigureBase
from matplotlib.ticker import LogLocator

from slt_jax.plots import style
from slt_jax.plots.style import Bands, StepAxis
from slt_jax.plots.training import MOST_CURVES, shortened, thinned

_POINTS = 300


def dynamics(
    steps: np.ndarray, scores: np.ndarray, errors: np.ndarray, shares: np.ndarray, bands: Bands, axis: StepAxis
) -> str:
    """The path of a network's outputs in the planes of components 1, 2 and 1, 3, and each component against the step.

    Args:
      steps: Shape ``(T,)``.
      scores: Shape ``(T, c)``, ``c`` at least 2.
      errors: Standard errors of the scores, shape ``(T, c)``.
      shares: Shares of the variance, shape ``(c,)``.
      bands: Phases: transitions are numbered on the path, and shaded below.
      axis: From ``step_axis``.

    Returns:
      The text of an SVG file.
    """
    planes = min(scores.shape[1] - 1, 2)
    with style.look():
        figure = style.new_figure(6.9)
        halves: Any = figure.subfigures(2, 1, height_ratios=[4.4, 2.5])
        upper, lower = halves
        panels = upper.subplots(1, 2, squeeze=False)[0]
        kept = thinned(steps, axis, _POINTS)
        for number, axes in enumerate(panels, start=1):
            if number > planes:
                axes.set_axis_off()
                continue
            image = _draw_plane(axes, steps, scores[:, [0, number]], errors[:, [0, number]], kept, bands, axis)
            _name(axes, shares, number)
        _draw_bar(upper, panels, image, axis)
        _draw_scores(lower.subplots(), steps, scores, errors, shares, bands, axis)
        return style.svg(figure)


def norms(
    steps: np.ndarray, families: Mapping[str, Mapping[str, np.ndarray]], bands: Bands, axis: StepAxis, whole: str
) -> str:
    """Norms against the step, both axes logarithmic, one panel for each family.

    Args:
      steps: Shape ``(T,)``.
      families: Curves of shape ``(T,)`` by name, by the title of their panel.
      bands: Phases to shade.
      axis: From ``step_axis``.
      whole: The name of the curve of the whole network, drawn dark.

    Returns:
      The text of an SVG file.
    """
    with style.look():
        figure = style.new_figure(2.1 * len(families) + 0.6)
        grid = figure.subplots(len(families), 1, squeeze=False)[:, 0]
        kept = thinned(steps, axis)
        for index, (axes, (title, curves)) in enumerate(zip(grid, families.items(), strict=True)):
            shown = list(curves)[: MOST_CURVES + 1]
            color = style.colors(shown, whole)
            for name in sorted(shown, key=lambda name: name != whole):
                curve = np.where(curves[name] > 0, curves[name], np.nan)[kept]
                label = "whole network" if name == whole else shortened(name)
                axes.plot(style.place(axis, steps[kept]), curve, color=color[name], linewidth=1.6, label=label)
            if any((np.asarray(curves[name])[kept] > 0).any() for name in shown):
                _draw_powers(axes)
            axes.legend(loc="upper left", bbox_to_anchor=(1.005, 1.02), borderaxespad=0)
            style.caption_axis(axes, title, lift=12 if index == 0 else 0)
            style.draw_step_axis(axes, axis, label=index == len(families) - 1)
            style.draw_bands(axes, bands, axis, numbered=index == 0)
        return style.svg(figure)


def _draw_powers(axes: Axes) -> None:
    """A logarithmic axis: powers of 10, and numbers between them where it holds few."""
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter("")
    low, high = axes.get_ylim()
    if high < 30 * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.yaxis.set_major_formatter(_power)


def _power(value: float, _: float) -> str:
    """A decimal power in characters of its own: signs of mathematics are not set here."""
    return "10" + f"{round(np.log10(value))}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _draw_plane(
    axes: Axes,
    steps: np.ndarray,
    path: np.ndarray,
    errors: np.ndarray,
    kept: np.ndarray,
    bands: Bands,
    axis: StepAxis,
) -> PathCollection:
    axes.plot(*path.T, color=style.FAINT, linewidth=1.2, zorder=1)
    left, right = style.place(axis, [axis.origin, axis.last])
    image = axes.scatter(
        path[kept, 0],
        path[kept, 1],
        c=style.place(axis, steps[kept]),
        cmap="viridis",
        vmin=left,
        vmax=right,
        s=13,
        zorder=2,
    )
    for number, transition in enumerate(bands.transitions, start=1):
        at = int(np.abs(steps - transition).argmin())
        across, up = 2 * errors[at]
        axes.errorbar(
            path[at, 0],
            path[at, 1],
            xerr=across,
            yerr=up,
            fmt="o",
            color=style.INK,
            markerfacecolor="none",
            markersize=9,
            zorder=3,
        )
        axes.annotate(str(number), path[at], xytext=(7, 6), textcoords="offset points", color=style.INK, size=10)
    for at, word in ((0, "begin"), (-1, "end")):
        axes.plot(*path[at], "s", color=style.INK, markersize=4.5, zorder=4)
        axes.annotate(word, path[at], xytext=(6, -12), textcoords="offset points", color=style.MUTED, size=9)
    axes.margins(0.09)
    return image


def _name(axes: Axes, shares: np.ndarray, number: int) -> None:
    axes.set_xlabel(f"component 1 ({100 * shares[0]:.1f} %)")
    style.caption_axis(axes, f"component {number + 1} ({100 * shares[number]:.1f} %)")


def _draw_bar(figure: FigureBase, panels: np.ndarray, image: PathCollection, axis: StepAxis) -> None:
    bar = figure.colorbar(image, ax=list(panels), pad=0.01, fraction=0.02)
    left, right = style.place(axis, [axis.origin, axis.last])
    powers = [power for power in range(int(np.ceil(left)), int(np.floor(right)) + 1)]
    bar.set_ticks(powers, labels=[style.number(10.0**power) for power in powers])
    bar.outline.set_visible(False)
    bar.set_label("training step")


def _draw_scores(
    axes: Axes,
    steps: np.ndarray,
    scores: np.ndarray,
    errors: np.ndarray,
    shares: np.ndarray,
    bands: Bands,
    axis: StepAxis,
) -> None:
    kept = thinned(steps, axis)
    places = style.place(axis, steps[kept])
    for number in range(scores.shape[1]):
        # each over its own range: the third is a hundredth of the first
        size = max(float(np.ptp(scores[:, number])), np.finfo(float).tiny)
        middle, width = scores[kept, number] / size, 2 * errors[kept, number] / size
        color = style.PALETTE[number]
        axes.fill_between(places, middle - width, middle + width, color=color, alpha=0.2, linewidth=0)
        axes.plot(places, middle, color=color, linewidth=1.6, label=f"{number + 1} ({100 * shares[number]:.1f} %)")
    axes.legend(loc="upper left", bbox_to_anchor=(1.005, 1.02), borderaxespad=0)
    style.caption_axis(axes, "components, each over its own range", lift=12)
    style.draw_step_axis(axes, axis)
    style.draw_bands(axes, bands, axis, numbered=True)
