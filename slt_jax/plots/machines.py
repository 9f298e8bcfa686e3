"""Pictures of programs: what a machine does, step by step, and how the posterior odds of programs grow."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from slt_jax.plots import style

_BLANK = "_"
#: Cells' worth of room for the state beside the tape.
_BESIDE = 3.4
#: Decades of temperature over which an exact slope is drawn.
_REACH = 4.5


class MachineRun(NamedTuple):
    """One run of a machine, drawn downwards.

    Attributes:
      title: What is written above it.
      cells: Number of the first cell of the tape that is drawn.
      tapes: What is written on the cells before the first step and after each, strings of one length.
      heads: The cell that the head is on, one for each.
      states: Name of the state, one for each.
      halted: Whether the machine has halted, one for each.
    """

    title: str
    cells: int
    tapes: Sequence[str]
    heads: Sequence[int]
    states: Sequence[str]
    halted: Sequence[bool]


class OddsLine(NamedTuple):
    """Log odds of a program over temperatures.

    Attributes:
      name: Of the program.
      nbetas, log_odds, errors: Shape ``(rung,)``; nats.
      slope: What the learning coefficients say of each factor of e in ``nβ``.
    """

    name: str
    nbetas: np.ndarray
    log_odds: np.ndarray
    errors: np.ndarray
    slope: float


def machine_runs(runs: Sequence[MachineRun]) -> str:
    """Machines side by side, time downwards: the tape, the head in the colour of its state, the state beside it.

    Args:
      runs: At least one; at most six fit the width.

    Returns:
      The text of an SVG file.
    """
    names = list(dict.fromkeys(state for run in runs for state in run.states))
    colors = {name: style.PALETTE[index % len(style.PALETTE)] for index, name in enumerate(names)}
    rows = max(len(run.tapes) for run in runs)
    # cells are squares, and the widest machine fits its share of the page
    side = min(0.36, style.WIDTH / len(runs) / (max(len(run.tapes[0]) for run in runs) + _BESIDE + 1.0))
    with style.look():
        figure = style.new_figure(0.45 + side * (rows + 0.2))
        for axes, run in zip(figure.subplots(1, len(runs), squeeze=False)[0], runs, strict=True):
            _draw_run(axes, run, colors, rows)
        return style.svg(figure)


def odds_lines(lines: Sequence[OddsLine], against: str) -> str:
    """Log odds against ``log10 nβ``, with bars of two errors; dashed what the learning coefficients say.

    Args:
      lines: At least one.
      against: The program that odds are counted against.

    Returns:
      The text of an SVG file. A dashed line passes through the coldest rung with the exact slope.
    """
    with style.look():
        figure = style.new_figure(4.2)
        axes = figure.subplots()
        axes.axhline(0, color=style.EDGE, linewidth=0.8)
        for index, line in enumerate(lines):
            color = style.PALETTE[index % len(style.PALETTE)]
            place = np.log10(line.nbetas)
            label = f"{line.name}; exact slope {line.slope:.3g}"
            axes.errorbar(
                place, line.log_odds, 2 * line.errors, fmt="o-", color=color, markersize=4.5, linewidth=1.4, label=label
            )
            rise = line.log_odds[-1] + line.slope * (place - place[-1]) * np.log(10.0)
            cold = place > place[-1] - _REACH
            axes.plot(place[cold], rise[cold], "--", color=style.EXACT, linewidth=1.4, zorder=4)
        axes.legend(loc="upper left")
        axes.set_xlabel("log₁₀ nβ (the prior on the left)")
        style.caption_axis(axes, f"log odds against the program {against}, nats")
        return style.svg(figure)


def _draw_run(axes: Axes, run: MachineRun, colors: dict[str, str], rows: int) -> None:
    width = len(run.tapes[0])
    for time, (tape, head, state, halted) in enumerate(zip(run.tapes, run.heads, run.states, run.halted, strict=True)):
        for column, symbol in enumerate(tape):
            here = column + run.cells == head
            color = colors[state] if here else "white"
            axes.add_patch(Rectangle((column, time), 1, 1, facecolor=color, edgecolor=style.FAINT, linewidth=0.8))
            if symbol != _BLANK:
                ink = "white" if here else style.INK
                axes.text(column + 0.5, time + 0.53, symbol, ha="center", va="center", color=ink)
        said = f"{state}, halted" if halted else state
        axes.text(width + 0.2, time + 0.53, said, va="center", color=colors[state], size=8.5)
    axes.set_xlim(-0.1, width + _BESIDE)
    axes.set_ylim(rows + 0.1, -0.1)
    axes.set_aspect("equal", anchor="NW")
    axes.set_title(run.title, fontweight="bold")
    axes.set_yticks(np.arange(len(run.tapes)) + 0.5, [str(time) for time in range(len(run.tapes))])
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
