"""The spectrogram of training: how fast the volume of low loss shrinks, by depth and by checkpoint."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slt_jax.plots import style

#: Rows of the map.
_ROWS = 160


class Spectrum(NamedTuple):
    """The density of states at one checkpoint.

    Attributes:
      step: The checkpoint.
      log_epsilon: Natural logarithms of ε in nats, increasing, shape ``(point,)``.
      conductance: ``d log V / d log ε``, shape ``(point,)``; NaN where it was not reached.
      value, error: The fitted exponent λ.
      healthy: Its verdict.
    """

    step: int
    log_epsilon: np.ndarray
    conductance: np.ndarray
    value: float
    error: float
    healthy: bool


def spectrogram(spectra: Sequence[Spectrum], label: str) -> str:
    """Conductance as colour, checkpoints from left to right, ``log10 ε`` upwards; above it the exponent as a line.

    Args:
      spectra: At least one, by step. Columns are equally wide, however far apart their steps are.
      label: What was read.

    Returns:
      The text of an SVG file.
    """
    with style.look():
        figure = style.new_figure(6.4)
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2.2])
        _draw_exponents(top, spectra)
        style.caption_axis(top, f"exponent λ, {label}")
        _draw_map(figure, below, spectra)
        steps = [style.number(one.step) for one in spectra]
        every = max(1, -(-len(steps) // 16))
        below.set_xticks(range(0, len(steps), every), steps[::every])
        below.set_xlim(-0.5, len(spectra) - 0.5)
        below.set_xlabel("checkpoint (training step)")
        below.set_ylabel("log₁₀ ε (nats)")
        return style.svg(figure)


def grid_of(spectra: Sequence[Spectrum]) -> tuple[np.ndarray, np.ndarray]:
    """All spectra on one axis of ``log10 ε``.

    Args:
      spectra: At least one.

    Returns:
      ``log10 ε``, shape ``(row,)``, and the conductance, shape ``(row, checkpoint)``, NaN beyond what each reached.
    """
    known = [np.isfinite(one.log_epsilon) & np.isfinite(one.conductance) for one in spectra]
    depths = [one.log_epsilon[use] / np.log(10) for one, use in zip(spectra, known, strict=True)]
    every = np.concatenate([*depths, np.zeros(0)])
    if not every.size:
        return np.array([-1.0, 0.0]), np.full((2, len(spectra)), np.nan)
    rows = np.linspace(every.min(), every.max(), _ROWS)
    columns = [
        np.interp(rows, depth, one.conductance[use], left=np.nan, right=np.nan) if use.any() else np.full(_ROWS, np.nan)
        for one, use, depth in zip(spectra, known, depths, strict=True)
    ]
    return rows, np.stack(columns, axis=1)


def _draw_exponents(axes: Axes, spectra: Sequence[Spectrum]) -> None:
    place = np.arange(len(spectra))
    values = np.array([one.value for one in spectra], float)
    errors = np.array([one.error for one in spectra], float)
    good = np.array([one.healthy for one in spectra]) & np.isfinite(values)
    bad = ~good & np.isfinite(values)
    axes.plot(place[good], values[good], color=style.PALETTE[0], linewidth=1, alpha=0.5)
    for chosen, color, face in ((good, style.PALETTE[0], style.PALETTE[0]), (bad, style.ALARM, "white")):
        if chosen.any():
            bars = np.where(np.isfinite(errors[chosen]), 2 * errors[chosen], 0.0)
            axes.errorbar(
                place[chosen],
                values[chosen],
                bars,
                fmt="o",
                color=color,
                markerfacecolor=face,
                markersize=5,
                capsize=2.5,
            )
    seen = values[good] if good.any() else values[np.isfinite(values)]
    if seen.size:
        axes.set_ylim(min(0.0, 1.15 * float(seen.min())), 1.2 * max(float(seen.max()), 1e-12))
    axes.tick_params(axis="x", length=0, labelbottom=False)
    axes.plot([], [], "o", color=style.PALETTE[0], label="fitted exponent ± 2 standard errors")
    if bad.any():
        axes.plot([], [], "o", color=style.ALARM, markerfacecolor="white", label="unhealthy reading")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.2, columnspacing=1.6)


def _draw_map(figure: Figure, axes: Axes, spectra: Sequence[Spectrum]) -> None:
    rows, grid = grid_of(spectra)
    finite = grid[np.isfinite(grid)]
    high = float(np.quantile(finite, 0.995)) if finite.size else 1.0
    image = axes.imshow(
        np.ma.masked_invalid(grid),
        cmap=matplotlib.colormaps["viridis"].with_extremes(bad="#eef0f3"),
        vmin=0.0,
        vmax=max(high, 1e-12),
        origin="lower",
        aspect="auto",
        interpolation="none",
        extent=(-0.5, len(spectra) - 0.5, rows[0], rows[-1]),
    )
    for edge in range(1, len(spectra)):
        axes.axvline(edge - 0.5, color="white", linewidth=1.2)
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="x", length=0)
    bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.03)
    bar.outline.set_visible(False)
    bar.set_label("conductance d log V / d log ε")
