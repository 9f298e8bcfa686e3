"""Readings in pictures: values against the step, beside what is known exactly, and the chains behind them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from slt_jax import plots
from slt_jax.plots.spectra import MOST_PANELS, MOST_ROWS
from slt_jax.report import architecture, machines, responses, temperatures
from slt_jax.report.content import (
    COEFFICIENT,
    Content,
    Exact,
    Row,
    phase_at,
    plateaus_of,
    probes_of,
    sublosses_of,
)
from slt_jax.report.markup import Html, badge, change, counted, element, figure, joined, plain, table, with_error
from slt_jax.spectroscopy.subject import WHOLE_LOSS, WHOLE_NETWORK

Item = TypeVar("Item")


class Chapter(NamedTuple):
    """How a probe is shown.

    Attributes:
      title: Its heading, where there are several probes.
      label: Of its values.
      more: Pictures of its arrays, or ``None``.
    """

    title: str
    label: str
    more: Callable[[Content, str], Html | None] | None = None


def _placed(content: Content, probe: str) -> Html | None:
    """Where readings are of heads, a map of them; where they are of programs, what each does."""
    pieces = [draw(content, probe) for draw in (architecture.head_maps, machines.found)]
    return joined(*pieces) if any(pieces) else None


#: Probes that the report knows; any other has its values and its table.
CHAPTERS = {
    COEFFICIENT: Chapter("Local learning coefficient", "λ̂", _placed),
    "flow": Chapter("Flow of the learning coefficient", "λ_eff at the coldest nβ", temperatures.flows),
    "dos": Chapter("Density of states", "exponent λ", temperatures.spectrograms),
    "susceptibility": Chapter("Susceptibility", "nβ⟨ΔL⟩", responses.responses),
    "programs": Chapter("Three programs of one function", "log odds, nats", machines.competition),
    "hessian": Chapter("Curvature", "λ of the quadratic approximation"),
}

#: More series than this are also shown as a map.
_MAP_FROM = 7
_MOST_TRACES = 6
#: A reading agrees with an exact value within so many standard errors, or this share of it.
_ERRORS, _SHARE = 3.0, 0.05
_BARS = "bars are ± 2 standard errors, hidden by the point where they are smaller than it"


def spectroscope(content: Content) -> Html:
    """Every probe's values against the step, and its readings beside the exact values."""
    if not content.rows:
        return element("p", "Nothing has been measured yet.", class_="muted")
    probes = probes_of(content)
    pieces: list[object] = []
    for probe in probes:
        if len(probes) > 1:
            pieces.append(element("h3", _chapter(probe).title))
        pieces.append(_pictures(content, probe))
        more = _chapter(probe).more
        pieces.append(None if more is None else more(content, probe))
        if probe == COEFFICIENT and content.exact:
            pieces += [element("h3", "Reading beside exact value"), _beside(content)]
    return joined(*pieces)


def _chapter(probe: str) -> Chapter:
    return CHAPTERS.get(probe, Chapter(f"Probe {probe}", probe))


def traces(content: Content) -> Html | None:
    """The chains of at most six readings, the unhealthy ones first; ``None`` where no chains were kept."""
    chosen = _chosen(content)
    if not chosen:
        return None
    drawn = [
        plots.ChainTrace(f"step {row.step}, {row.what}".replace("whole network, ", ""), trace, row.value, row.healthy)
        for row, trace in ((row, row.trace) for row in chosen)
        if trace is not None
    ]
    alternative = f"Excess loss times inverse temperature along the draws, for {counted(len(drawn), 'reading')}: " + (
        "; ".join(f"{one.title}, mean {plain(one.value)}, {'' if one.healthy else 'un'}healthy" for one in drawn)
    )
    caption = (
        "nβ times the excess of the loss over the centre, in colour a line per chain, in black the mean of all draws, "
        "which is λ̂. A healthy picture is a level band in which no chain keeps to itself."
    )
    return figure(plots.chain_traces(drawn), alternative, caption)


def series_of(content: Content, probe: str) -> list[plots.Series]:
    """The readings of a probe as one series per part, the whole loss in the whole network first."""
    color = plots.colors(sublosses_of(content), WHOLE_LOSS)
    rows = [row for row in content.rows if row.probe == probe]
    parts = sorted(dict.fromkeys((row.restriction, row.subloss) for row in rows), key=_whole_first)
    several = len({restriction for restriction, _ in parts}) > 1
    found = []
    for restriction, subloss in parts:
        own = [row for row in rows if (row.restriction, row.subloss) == (restriction, subloss)]
        found.append(
            plots.Series(
                label=own[0].what if several or subloss == WHOLE_LOSS else subloss,
                steps=np.array([row.step for row in own]),
                values=np.array([row.value for row in own]),
                errors=np.array([row.std_error for row in own]),
                healthy=np.array([row.healthy for row in own]),
                measured=np.array([row.measured for row in own]),
                color=color[subloss],
            )
        )
    return found


def _pictures(content: Content, probe: str) -> Html:
    """The first series large, the others small, and all as a map where there are many."""
    every = series_of(content, probe)
    label = _chapter(probe).label
    first, others = every[0], every[1:]
    exact = _marks(content) if probe == COEFFICIENT and _has_whole(content, probe) else []
    marks = ", ".join(f"{mark.text} from step {mark.begin:.0f}" for mark in exact)
    alternative = f"{label} of {first.label} against training step: {_listed(first)}." + (
        f" Exact values: {marks}." if exact else ""
    )
    caption = f"{label}, {first.label}, at every measured checkpoint; {_BARS}." + (
        " Horizontal marks are exact values, drawn over the plateau that they belong to." if exact else ""
    )
    axis, bands = content.axis, content.bands
    pieces = [figure(plots.spectrum(first, exact, bands, axis, f"{label}, {first.label}"), alternative, caption)]
    if others and len(others) <= MOST_PANELS:
        names = ", ".join(series.label for series in others)
        text = f"{label} of each part, each from zero on its own scale; {_BARS}."
        panels = plots.small_spectra(others, bands, axis, label)
        pieces.append(figure(panels, f"{label} against training step for {names}.", text))
    if len(every) >= _MAP_FROM:
        cut = f" The first {MOST_ROWS} of {len(every)} are drawn; the table below has all." * (len(every) > MOST_ROWS)
        text = f"{label} by part and checkpoint. Framed in red: unhealthy. Grey: no reading.{cut}"
        picture = plots.spectrum_map(every, label)
        pieces.append(figure(picture, f"Map of {label}: {len(every)} parts by {len(first.steps)} checkpoints.", text))
    return joined(*pieces)


def _beside(content: Content) -> Html:
    """Reading, exact value and their distance at every checkpoint where the exact value is known."""
    measured = {row.step: row for row in content.rows if row.probe == COEFFICIENT and row.whole}
    sources = list(dict.fromkeys(exact.source for exact in content.exact.values()))
    rows = [
        _comparison(content, step, exact, measured.get(step), sources.index(exact.source) + 1)
        for step, exact in content.exact.items()
    ]
    header = [
        "plateau of",
        "step",
        "reading",
        "exact value",
        "multiplicity",
        "difference",
        "in errors",
        "verdict",
        "source",
    ]
    caption = (
        f"A reading agrees when it lies within {_ERRORS:.0f} reported standard errors (SE) of the exact value, "
        f"or within {100 * _SHARE:.0f} % of it."
    )
    notes = (element("p", f"[{index + 1}] {source}", class_="muted") for index, source in enumerate(sources))
    return joined(table(header, rows, text=(0, 7, 8), caption=caption), *notes)


def _comparison(content: Content, step: int, exact: Exact, row: Row | None, source: int) -> list[object]:
    phase = phase_at(content.bands, step)
    name = f"phase {phase}" if phase else "initial state"
    value = float(exact.value)
    written = plain(value) if str(exact.value) == plain(value) else f"{exact.value} = {plain(value, 6)}"
    multiplicity = "unknown" if exact.multiplicity is None else exact.multiplicity
    start: list[object] = [name, plain(step)]
    if row is None or not row.measured:
        return [*start, "no reading", written, multiplicity, "", "", badge("missing", "none"), f"[{source}]"]
    gap = row.value - value
    share = f"{change(100 * gap / value, 10)} %" if value else change(gap, 1)
    errors = gap / row.std_error if row.std_error > 0 else (0.0 if gap == 0 else np.nan)
    close = abs(gap) <= _SHARE * abs(value) or abs(errors) <= _ERRORS
    verdict = badge("✓ agrees", "good") if close else badge("✗ differs", "bad")
    if not row.healthy:
        verdict = joined(verdict, badge("unhealthy", "bad"))
    reading = with_error(row.value, row.std_error)
    return [*start, reading, written, multiplicity, share, f"{change(errors, 10)} SE", verdict, f"[{source}]"]


def _marks(content: Content) -> list[plots.ExactMark]:
    """Exact values over the quiet stretch between the transitions on both sides of their checkpoint."""
    axis, bands = content.axis, content.bands
    begins, ends = [axis.origin, *bands.ends], [*bands.begins, axis.last]
    found = []
    for step, exact in content.exact.items():
        phase = phase_at(bands, step)
        low, high = (begins[phase], ends[phase]) if len(bands.transitions) else (step, step)
        found.append(plots.ExactMark(min(low, step), max(high, step), float(exact.value), str(exact.value)))
    return found


def _chosen(content: Content) -> list[Row]:
    """Unhealthy readings first, then the whole loss at its plateaus, then whatever else has chains."""
    kept = [row for row in content.rows if row.trace is not None and row.probe == COEFFICIENT]
    kept = kept or [row for row in content.rows if row.trace is not None]
    plateaus = {*plateaus_of(content).values(), *content.exact}
    settled = sorted((row for row in kept if row.whole and row.step in plateaus), key=lambda row: row.step)
    sick = [row for row in kept if not row.healthy]
    # a chain that diverged is worse than one that is not yet long enough
    sick.sort(key=lambda row: (bool(np.isfinite(row.value)), not row.whole))
    if not settled:
        settled = _evenly([row for row in kept if row.whole and row.healthy], _MOST_TRACES) or kept
    chosen: list[Row] = []
    for row in [*sick, *settled]:
        if not any(row is other for other in chosen):
            chosen.append(row)
    return chosen[:_MOST_TRACES]


def _has_whole(content: Content, probe: str) -> bool:
    return any(row.whole and row.probe == probe for row in content.rows)


def _whole_first(part: tuple[str, str]) -> tuple[bool, bool]:
    restriction, subloss = part
    return (restriction != WHOLE_NETWORK or subloss != WHOLE_LOSS, restriction != WHOLE_NETWORK)


def _listed(series: plots.Series) -> str:
    """The numbers of a series for those who cannot see the picture."""

    def one(index: int) -> str:
        if not series.measured[index]:
            return f"none at step {series.steps[index]}"
        verdict = "" if series.healthy[index] else " (unhealthy)"
        return f"{plain(float(series.values[index]))} at step {series.steps[index]}{verdict}"

    return ", ".join(one(index) for index in _evenly(range(len(series.steps)), 24))


def _evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of the items, from the first to the last."""
    return [items[index] for index in np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).astype(int))]
