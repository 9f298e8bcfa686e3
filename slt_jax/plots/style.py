"""How every picture looks: colours, the axis of steps, the shading of phases, and SVG as text."""

import io
import re
import warnings
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

#: Inches; at 96 pixels an inch the full width of the page.
WIDTH = 11.0
INK, MUTED, FAINT, EDGE = "#1f2430", "#667085", "#d5d9e0", "#9aa3b2"
#: What is wrong is red and hollow, in every picture.
ALARM = "#c1121f"
#: What is known exactly, in every picture.
EXACT = "#b45309"
#: Ten colours told apart by colour-blind readers (after Petroff 2021, arXiv:2107.02270), its red last.
PALETTE = (
    "#3f90da",
    "#ffa90e",
    "#832db6",
    "#2a9d8f",
    "#a96b59",
    "#717581",
    "#e76300",
    "#b9ac70",
    "#76c5c9",
    "#bd1f01",
)
_PHASE, _TRANSITION = "#f5f7fa", "#e9edf3"
FONTS = "'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
#: What no XML file may hold.
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_SETTINGS = {
    "axes.edgecolor": EDGE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "figure.facecolor": "white",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "slt_jax",
    "text.color": INK,
    # a dollar in somebody's name for a loss is a dollar
    "text.parse_math": False,
    "xtick.color": EDGE,
    "xtick.labelcolor": MUTED,
    "ytick.color": EDGE,
    "ytick.labelcolor": MUTED,
}


class StepAxis(NamedTuple):
    """A logarithmic axis of steps with a place for step 0 at its left edge.

    Attributes:
      origin: What step 0 is drawn at.
      last: The largest step.
      zero: Whether there is a step 0.
    """

    origin: float
    last: float
    zero: bool


class Bands(NamedTuple):
    """Where the phases of training lie; empty lists where none were found.

    Attributes:
      transitions, begins, ends: Steps, one of each per transition.
      intervals: What holds each step of fastest change with 95 %, or empty.
    """

    transitions: Sequence[float] = ()
    begins: Sequence[float] = ()
    ends: Sequence[float] = ()
    intervals: Sequence[Sequence[float]] = ()


def look() -> AbstractContextManager[None]:
    """The settings of all pictures, as a context: nobody else's figures change."""
    return matplotlib.rc_context(_SETTINGS)  # type: ignore[arg-type]


def new_figure(height: float) -> Figure:
    """An empty figure of the page's width, ``height`` inches high, outside of any global state."""
    return Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(hspace=0.06, wspace=0.04))


def svg(figure: Figure) -> str:
    """The figure as the text of an SVG file, its words set in the reader's own sans serif."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # the browser has glyphs that the measuring font lacks
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", buffer.getvalue().replace("'DejaVu Sans'", FONTS))


def step_axis(steps: Iterable[float]) -> StepAxis:
    """The axis that holds all of ``steps``; step 0, where it is among them, stands an octave before the others."""
    numbers = np.asarray([step for step in steps if np.isfinite(step)], float)
    positive = numbers[numbers > 0]
    if not positive.size:
        return StepAxis(0.5, 1.0, bool(numbers.size))
    zero = bool((numbers <= 0).any())
    single = positive.min() == positive.max()
    return StepAxis(positive.min() / (2.0 if zero or single else 1.0), positive.max() * (2.0 if single else 1.0), zero)


def place(axis: StepAxis, steps: Sequence[float] | np.ndarray | float) -> np.ndarray:
    """Where steps stand on the axis: decimal logarithms, shape as ``steps``."""
    return np.log10(np.maximum(np.asarray(steps, float), axis.origin))


def number(value: float) -> str:
    """A step as it is written on an axis: ``20 000``, ``3M``."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value:,.0f}".replace(",", " ") if value >= 10_000 else f"{value:g}"


def draw_step_axis(axes: Axes, axis: StepAxis, label: bool = True) -> None:
    """Limits, ticks and, where asked for, the label of an axis of steps."""
    left, right = place(axis, [axis.origin, axis.last])
    margin = 0.015 * max(right - left, 0.1)
    axes.set_xlim(left - margin, right + margin)
    powers = range(int(np.floor(left)), int(np.ceil(right)) + 1)
    factors = (1,) if right - left > 2.6 else (1, 2, 5) if right - left > 0.9 else range(1, 10)
    steps = [factor * 10.0**power for power in powers for factor in factors]
    lowest = axis.origin * (1.5 if axis.zero else 1)
    inside = [step for step in steps if lowest <= step <= axis.last and step >= 1]
    ticks, names = [*place(axis, inside)], [number(step) for step in inside]
    if axis.zero:
        ticks, names = [left, *ticks], ["0", *names]
    axes.set_xticks(ticks, names)
    if label:
        axes.set_xlabel("training step (logarithmic)")


def draw_bands(axes: Axes, bands: Bands, axis: StepAxis, numbered: bool = False) -> None:
    """Shade every second phase and every transition, number the phases above the axes, and mark intervals at the foot.

    Args:
      axes: With the limits of its x axis set.
      bands: The phases.
      axis: The axis of steps.
      numbered: Whether to write the numbers.
    """
    if not len(bands.transitions):
        return
    left, right = axes.get_xlim()
    edges = [left, *place(axis, bands.transitions), right]
    for phase in range(1, len(edges) - 1, 2):
        axes.axvspan(edges[phase], edges[phase + 1], color=_PHASE, linewidth=0, zorder=0)
    for begin, end in zip(place(axis, bands.begins), place(axis, bands.ends), strict=True):
        axes.axvspan(begin, end, color=_TRANSITION, linewidth=0, zorder=0.1)
    for low, high in bands.intervals:
        # a foot as wide as the interval, and never too narrow to be seen
        low, high = place(axis, [low, high])
        slack = max(0.0, 0.003 * (right - left) - (high - low)) / 2
        axes.axvspan(low - slack, high + slack, ymax=0.03, color=MUTED, alpha=0.75, linewidth=0, zorder=4)
    for transition in edges[1:-1]:
        axes.axvline(transition, color=FAINT, linewidth=0.8, zorder=0.2)
    if numbered:
        for phase in range(len(edges) - 1):
            wide = (edges[phase + 1] - edges[phase]) / (right - left) > 0.075
            text = ("initial state" if phase == 0 else f"phase {phase}") if wide else str(phase)
            middle = (edges[phase] + edges[phase + 1]) / 2
            axes.text(
                middle, 1.015, text, transform=axes.get_xaxis_transform(), ha="center", va="bottom", color=MUTED, size=9
            )


def caption_axis(axes: Axes, text: str, lift: float = 0.0) -> None:
    """What the y axis shows, written level above it: easier to read than a word on its side."""
    axes.annotate(
        text,
        (0, 1),
        xycoords="axes fraction",
        xytext=(-2, 6 + lift),
        textcoords="offset points",
        ha="left",
        va="bottom",
        color=MUTED,
        size=9.5,
    )


def colors(names: Sequence[str], whole: str) -> dict[str, str]:
    """One colour per name, the same in every picture; the whole is dark."""
    others = [name for name in names if name != whole]
    table = {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(others)}
    return {whole: INK, **table}
