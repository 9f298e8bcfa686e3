"""Every source of transitions with every concept: how near they are, and how often chance brings them as near."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from slt_jax.spectroscopy.acquisition import Acquisition, crossing_step
from slt_jax.spectroscopy.coincidence import shift_test
from slt_jax.spectroscopy.events import Events, Series
from slt_jax.spectroscopy.recorder import History


class Pair(NamedTuple):
    """A source and a concept.

    Attributes:
      source, concept: Names.
      transition: Step of the source's transition nearest to the acquisition, or ``None``.
      lag: Natural logarithm of the step of acquisition over it: negative when the concept leads.
      relation: ``"leads"`` before the transition begins, ``"follows"`` after it ends, else ``"within"``; ``""`` where
        there is none.
      p: Probability that an acquisition shifted in log step is as near; NaN where there is nothing to test.
      q: p adjusted for all pairs; the pair is found where it is at most the rate.
      reason: Why there is nothing to test, or ``""``.
    """

    source: str
    concept: str
    transition: float | None
    lag: float | None
    relation: str
    p: float
    q: float
    reason: str


class SourceAlignment(NamedTuple):
    """All concepts against the transitions of one source.

    Attributes:
      source: Name of the loss or the reading.
      kind: ``"loss"`` or ``"reading"``.
      events: Its transitions.
      p: Probability that all acquisitions, shifted together, are as near to transitions; NaN where nothing is tested.
      q: p adjusted for all sources.
      lag: Median over the acquired concepts, or ``None``.
      leads, within, follows: How many concepts do.
      left_out: Readings that were missing or unhealthy.
      reason: Why nothing is tested, or ``""``.
    """

    source: str
    kind: str
    events: Events
    p: float
    q: float
    lag: float | None
    leads: int
    within: int
    follows: int
    left_out: int
    reason: str


class Place(NamedTuple):
    """Where an acquired concept lies: the logarithm of the step at which it crossed, and how well that is known."""

    log_step: float
    resolution: float


class Chance(NamedTuple):
    """What a pair is tested against.

    Attributes:
      stretch: Logarithms of the steps between which events are possible.
      noise: Of every reading the transitions of noise read at its checkpoints, as from ``noise_transitions``.
      rate: The false-discovery rate.
      method: ``"bh"`` or ``"by"``.
    """

    stretch: tuple[float, float]
    noise: Mapping[str, np.ndarray]
    rate: float
    method: str


class PValues(NamedTuple):
    """p-values and adjusted ones, by source and concept, and by source."""

    pairs: dict[tuple[str, str], tuple[float, float]]
    sources: dict[str, tuple[float, float]]


def places_of(history: History, rows: Sequence[Acquisition], level: float) -> dict[str, Place]:
    """Of the concepts that were acquired, by name."""
    found = {}
    for row in rows:
        if row.step is not None:
            step = crossing_step(row.between, history.concepts[row.concept], history.steps, level)
            low, high = np.log(np.maximum(row.between, 1.0))
            found[row.concept] = Place(float(np.log(step)), float(high - low))
    return found


def p_values(sources: Mapping[str, Events], places: Mapping[str, Place], chance: Chance | None) -> PValues:
    """Every source that has transitions against every concept that was acquired; empty where nothing can be tested."""
    if chance is None or not places:
        return PValues({}, {})
    single: dict[tuple[str, str], float] = {}
    together: dict[str, float] = {}
    columns = np.array(list(places.values()))
    for name, events in sources.items():
        if len(events.steps):
            p, together[name] = shift_test(
                columns[:, 0], columns[:, 1], np.log(events.steps), chance.stretch, chance.noise.get(name)
            )
            single.update(zip(((name, concept) for concept in places), p.tolist(), strict=True))
    return PValues(_adjusted(single, chance.method), _adjusted(together, chance.method))


def _adjusted(found: dict, method: str) -> dict:
    from scipy.stats import false_discovery_control

    q = false_discovery_control(list(found.values()), method=method)
    return {name: (p, float(one)) for (name, p), one in zip(found.items(), q, strict=True)}


def pairs_of(
    sources: Mapping[str, Events], rows: Sequence[Acquisition], places: Mapping[str, Place], tests: PValues
) -> list[Pair]:
    """One row for each source and concept, also where there is nothing to test."""
    return [
        _pair(name, events, row, places.get(row.concept), tests) for name, events in sources.items() for row in rows
    ]


def _pair(name: str, events: Events, row: Acquisition, place: Place | None, tests: PValues) -> Pair:
    p, q = tests.pairs.get((name, row.concept), (np.nan, np.nan))
    if place is None:
        return Pair(name, row.concept, None, None, "", p, q, row.status)
    if not len(events.steps):
        return Pair(name, row.concept, None, None, "", p, q, "the source has no transition")
    lags = place.log_step - np.log(events.steps)
    nearest = int(np.abs(lags).argmin())
    step = np.exp(place.log_step)
    relation = "leads" if step < events.begins[nearest] else "follows" if step > events.ends[nearest] else "within"
    reason = "" if np.isfinite(p) else "everything happened at once"
    return Pair(name, row.concept, float(events.steps[nearest]), float(lags[nearest]), relation, p, q, reason)


def sources_of(
    sources: Mapping[str, Events], pairs: Sequence[Pair], readings: Mapping[str, Series], tests: PValues
) -> list[SourceAlignment]:
    """One row for each source, also where there is nothing to test."""
    found = []
    for name, events in sources.items():
        own = [pair for pair in pairs if pair.source == name and pair.lag is not None]
        count = {kind: sum(pair.relation == kind for pair in own) for kind in ("leads", "within", "follows")}
        p, q = tests.sources.get(name, (np.nan, np.nan))
        reason = "" if np.isfinite(p) else _reason(events, own)
        found.append(
            SourceAlignment(
                source=name,
                kind="reading" if name in readings else "loss",
                events=events,
                p=p,
                q=q,
                lag=float(np.median([pair.lag for pair in own])) if own else None,
                left_out=readings[name].left_out if name in readings else 0,
                reason=reason,
                **count,
            )
        )
    return found


def _reason(events: Events, own: Sequence[Pair]) -> str:
    if not len(events.steps):
        return "no transition"
    return "everything happened at once" if own else "no concept was acquired"
