"""The free energy of every phase against the number of examples: which of them a posterior prefers when."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import NullFormatter

from slt_jax.plots import style

#: Nats above the lowest phase that are shown.
_HIGHEST = 12.0


class PhaseEnergy(NamedTuple):
    """A phase: its number, and the two terms of ``F(n) = n L + λ log n``, with the standard error of λ."""

    phase: int
    loss: float
    coefficient: float
    coefficient_error: float


class Turn(NamedTuple):
    """Where two neighbouring phases change places, with its interval; ``high`` may be infinite."""

    phase: int
    n: float
    low: float
    high: float


def free_energies(phases: Sequence[PhaseEnergy], turns: Sequence[Turn]) -> str:
    """Free energies above the lowest, a line for each phase, with two standard errors of λ, and the crossings below.

    Args:
      phases: At least two.
      turns: Crossings of neighbouring phases; at least one.

    Returns:
      The text of an SVG file.
    """
    first = max(min(turn.low for turn in turns) / 20, math.e)
    n = np.geomspace(first, 20 * max(turn.n for turn in turns), 400)
    logs = np.log(n)
    energies = np.array([n * one.loss + one.coefficient * logs for one in phases])
    energies -= energies.min(axis=0)
    with style.look():
        figure = style.new_figure(3.9 + 0.25 * len(turns))
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.5, 0.3 + 0.25 * len(turns)])
        for index, (one, energy) in enumerate(zip(phases, energies, strict=True)):
            color = style.PALETTE[index % len(style.PALETTE)]
            reach = 2 * one.coefficient_error * logs
            upper.plot(n, energy, color=color, linewidth=2, label=_name(one.phase))
            upper.fill_between(n, energy - reach, energy + reach, color=color, alpha=0.12, linewidth=0)
        upper.set_ylim(-1.5, _HIGHEST)
        upper.set_xscale("log")
        style.caption_axis(
            upper, "free energy above that of the preferred phase (nats); shaded: two standard errors of λ̂"
        )
        upper.legend(loc="upper left", bbox_to_anchor=(1.005, 1.02), borderaxespad=0)
        for index, turn in enumerate(turns):
            high = min(turn.high, n[-1])
            lower.plot([max(turn.low, n[0]), high], [index, index], color=style.INK, linewidth=1.4)
            lower.plot([turn.n], [index], "o", color=style.INK, markersize=5)
            if turn.high > n[-1]:
                lower.plot([n[-1]], [index], ">", color=style.INK, markersize=6, clip_on=False)
        lower.set_yticks(range(len(turns)), [f"{_name(t.phase - 1)} → {t.phase}" for t in turns])
        lower.set_ylim(len(turns) - 0.4, -0.6)
        lower.xaxis.set_major_formatter(lambda value, _: style.number(value))
        lower.xaxis.set_minor_formatter(NullFormatter())
        lower.tick_params(axis="y", length=0, labelcolor=style.INK)
        lower.set_xlabel("number of examples n (logarithmic); below, where neighbouring phases change places, 95 %")
        return style.svg(figure)


def _name(phase: int) -> str:
    return f"phase {phase}" if phase else "initial state"
