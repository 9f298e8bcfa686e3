"""The picture of where a transition lives: the share of a gain that k directions explain, beside what chance gives."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from slt_jax.plots import style
from slt_jax.plots.training import shortened

#: More panels than this are not drawn.
MOST_PANELS = 6
#: How the nulls are told apart: all in grey, with a band for the first.
_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))


class ShareCurve(NamedTuple):
    """Shares of one kind of directions, or of a null.

    Attributes:
      label: Which.
      shares, errors: Shape ``(C,)``; NaN where there are fewer directions. Of a null, mean and spread over draws.
      enough: The smallest k that explains the wanted share, or ``None``.
    """

    label: str
    shares: np.ndarray
    errors: np.ndarray
    enough: int | None


class SharePanel(NamedTuple):
    """One loss: its curves.

    Attributes:
      title: Which loss, and what it gained.
      kinds, nulls: Curves, in the same order in all panels.
    """

    title: str
    kinds: Sequence[ShareCurve]
    nulls: Sequence[ShareCurve]


def shares(panels: Sequence[SharePanel], counts: np.ndarray, level: float) -> str:
    """The explained share against the number of directions, a panel per loss; the first 6.

    Args:
      panels: At least one.
      counts: Numbers of directions, shape ``(C,)``.
      level: The share that counts as explained: a thin line, and a ring where a kind first reaches it.

    Returns:
      The text of an SVG file. Bands are two standard errors of a kind, one standard deviation of a null.
    """
    drawn = panels[:MOST_PANELS]
    columns = min(len(drawn), 2 if len(drawn) in (2, 4) else 3)
    rows = math.ceil(len(drawn) / columns)
    with style.look():
        figure = style.new_figure(2.7 * rows + 0.9)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for index, axes in enumerate(grid.flat):
            if index >= len(drawn):
                axes.set_visible(False)
                continue
            _draw(axes, drawn[index], counts, level)
            if index + columns >= len(drawn):
                axes.set_xlabel("directions k (logarithmic)")
            if index % columns == 0:
                axes.set_ylabel("share explained")
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, columnspacing=1.8)
        return style.svg(figure)


def _draw(axes: Axes, panel: SharePanel, counts: np.ndarray, level: float) -> None:
    axes.axhline(0, color=style.FAINT, linewidth=0.8, zorder=0)
    axes.axhline(1, color=style.FAINT, linewidth=0.8, zorder=0)
    axes.axhline(level, color=style.EDGE, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0.5)
    for curve, dashes in zip(panel.nulls, _DASHES * len(panel.nulls), strict=False):
        _band(axes, counts, curve, 1.0, style.EDGE, 0.22)
        axes.plot(counts, curve.shares, color=style.MUTED, linewidth=1.3, linestyle=dashes, label=curve.label, zorder=2)
    for curve, color in zip(panel.kinds, style.PALETTE, strict=False):
        _band(axes, counts, curve, 2.0, color, 0.18)
        axes.plot(
            counts, curve.shares, color=color, linewidth=1.8, marker="o", markersize=2.8, label=curve.label, zorder=3
        )
        if curve.enough is not None:
            place = int(np.searchsorted(counts, curve.enough))
            axes.plot(
                [curve.enough], [curve.shares[place]], "o", color=color, markerfacecolor="white", markersize=8, zorder=4
            )
    axes.set_xscale("log")
    last = int(counts[-1])
    ticks = [tick for tick in (1, 2, 5, 10, 30, 100, 300, 1000, 10**4, 10**5, 10**6, 10**7) if tick < 0.7 * last]
    axes.set_xticks([*ticks, last], [style.number(tick) for tick in (*ticks, last)])
    axes.minorticks_off()
    # half of a change can be far worse than none: what lies far outside is cut
    axes.set_ylim(-0.25, 1.2)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_title(shortened(panel.title, 44), fontweight="bold")


def _band(axes: Axes, counts: np.ndarray, curve: ShareCurve, times: float, color: str, alpha: float) -> None:
    spread = times * np.nan_to_num(curve.errors, nan=0.0)
    low, high = curve.shares - spread, curve.shares + spread
    axes.fill_between(counts, low, high, color=color, alpha=alpha, linewidth=0, zorder=1)
