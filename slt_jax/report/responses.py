"""Susceptibilities of heads: as maps, and beside what can be seen of the same heads from outside."""

import re
from typing import NamedTuple

import numpy as np

from slt_jax.report.architecture import along, head_maps, response_maps
from slt_jax.report.content import Content, Row
from slt_jax.report.markup import Html, badge, element, joined, plain, table, with_error
from slt_jax.spectroscopy import HalfWay, Interval, RankAgreement, half_way, own_transition, rank_agreement
from slt_jax.spectroscopy.subject import WHOLE_LOSS

#: A concept that ends above this was acquired.
_ACQUIRED = 0.5
#: Fewer recorded steps are too few to look for a transition in.
_LEAST_STEPS = 20


class _Head(NamedTuple):
    """A head, its concept over training, and its readings at the checkpoints in order."""

    name: str
    curve: np.ndarray
    rows: list[Row]


def responses(content: Content, probe: str) -> Html:
    """Maps of the heads for every observable, and rankings and transitions beside those of the heads' concepts."""
    said = element(
        "p",
        "nβ⟨ΔL⟩ is nβ times the mean excess of the loss along the chains: λ̂ at their temperature and γ. χ is the "
        "response to a change of the data towards one kind of them, in units of both deviations: near 1 where the loss "
        "on that kind does not feel what is free, near −1 where that kind alone does.",
    )
    pieces: list[Html | None] = [said, head_maps(content, probe), response_maps(content, probe)]
    for family, observable in content.study.get("rankings") or ():
        heads = _heads(content, probe, family)
        if len(heads) > 2 and content.history is not None:
            pieces += [_ranking(content, heads, family, observable), _transitions(content, heads, family, observable)]
    return joined(*pieces)


def _heads(content: Content, probe: str, family: str) -> list[_Head]:
    """Heads of which there is both a concept and a reading of the whole loss at every checkpoint."""
    if content.history is None:
        return []
    found = []
    for concept, curve in content.history.concepts.items():
        named = re.fullmatch(rf"{re.escape(family)} (\d+\.\d+)", concept)
        if not named:
            continue
        name = f"head {named[1]}"
        rows = [row for row in content.rows if (row.probe, row.restriction, row.subloss) == (probe, name, WHOLE_LOSS)]
        rows.sort(key=lambda row: row.step)
        if rows and all(row.measured and "observable" in row.arrays for row in rows):
            found.append(_Head(name, curve, rows))
    return found


def _ranking(content: Content, heads: list[_Head], family: str, observable: str) -> Html | None:
    """Both rankings at the last checkpoint, and how far they agree."""
    assert content.history is not None
    last = [head.rows[-1] for head in heads]
    nearest = int(np.abs(content.history.steps - last[0].step).argmin())
    outside = np.array([head.curve[nearest] for head in heads])
    inside, errors, standardised = (
        np.array([along(row, name, observable) for row in last])
        for name in ("susceptibility", "susceptibility_error", "standardised")
    )
    if not np.isfinite([outside, inside, standardised]).all():
        return None
    found = rank_agreement(outside, inside, 0.0, np.nan_to_num(errors))
    sentence = f"Over {len(heads)} heads the two rankings have the rank correlation {_correlation(found)}."
    prior = np.array([along(row, "prior", observable) for row in last])
    if np.isfinite(prior).all():
        control = rank_agreement(outside, prior)
        sentence += (
            f" Negative control: over the prior alone, at nβ = 0, it is {plain(control.correlation, 2)}; where that is "
            "as high, the response is that of the function around the centre and needs no posterior."
        )
    ranks = [np.argsort(np.argsort(-values)) + 1 for values in (outside, inside)]
    unit = float(np.abs(inside).max()) or 1.0
    rows = [
        [
            heads[at].name,
            plain(float(outside[at]), 2),
            int(ranks[0][at]),
            with_error(float(inside[at] / unit), float(errors[at] / unit)),
            int(ranks[1][at]),
            plain(float(standardised[at]), 2),
            with_error(last[at].value, last[at].std_error),
            _kind(outside[at] >= _ACQUIRED, standardised[at] >= _ACQUIRED),
        ]
        for at in np.argsort(-outside)
    ]
    header = ["head", family, "rank", f"χ on {observable}", "rank", "standardised", "nβ⟨ΔL⟩", "so it is"]
    caption = (
        f"Step {last[0].step}. χ in {unit:.2g} nats², the largest of these heads, which are of one size; standardised "
        f"it is minus the correlation of L with the change of the loss towards {observable}. Above {_ACQUIRED} counts, "
        "by the concept and by the standardised χ."
    )
    title = f"Which heads: {family} beside the response to {observable}"
    return joined(element("h3", title), element("p", sentence), table(header, rows, text=(0, 7), caption=caption))


def _transitions(content: Content, heads: list[_Head], family: str, observable: str) -> Html | None:
    """When each head that acquired its concept did so, and when its readings had gone half of their way."""
    assert content.history is not None
    if len(content.history.steps) < _LEAST_STEPS:
        return None
    rows: list[list[object]] = []
    for head in heads:
        steps = [row.step for row in head.rows]
        if head.curve[-1] < _ACQUIRED or len(steps) < 3:
            continue
        try:
            interval = own_transition(content.history.steps, head.curve)
        except ValueError:
            rows.append([head.name, badge("no transition of its own", "none"), "", ""])
            continue
        value = [row.value for row in head.rows], [row.std_error for row in head.rows]
        names = "susceptibility", "susceptibility_error"
        chi = [[along(row, name, observable) for row in head.rows] for name in names]
        if not np.isfinite([*value, *chi]).all():
            continue
        cells = [_when(half_way(steps, *one), interval) for one in (value, chi)]
        rows.append([head.name, f"{plain(interval.step)} ({plain(interval.begin)} to {plain(interval.end)})", *cells])
    if not rows:
        return None
    header = ["head", f"{family}: fastest (its interval)", "nβ⟨ΔL⟩ half way", f"χ on {observable} half way"]
    caption = (
        "The interval is where the concept changes at over half of its greatest speed. A reading is half way where "
        "it crosses the middle between its first and its last value, interpolated between checkpoints. χ is in nats² "
        "here, not standardised: it is of one head at a time."
    )
    return joined(element("h3", "When"), table(header, rows, text=(0, 1, 2, 3), caption=caption))


def _when(found: HalfWay, interval: Interval) -> object:
    if np.isnan(found.step):
        return badge("does not move", "none")
    verdict = badge("✓ within", "good") if found.within(interval) else badge("✗ outside", "bad")
    return joined(f"{plain(found.step, 3)} ({plain(found.low, 3)} to {plain(found.high, 3)}) ", verdict)


def _correlation(found: RankAgreement) -> str:
    text = f"{plain(found.correlation, 3)} ± {plain(found.std_error, 1)}"
    interval = f"{plain(found.low, 2)} to {plain(found.high, 2)} over 95 % of readings like these"
    return f"{text} ({interval}; as good by chance: {plain(found.by_chance, 2)})"


def _kind(outside: bool, inside: bool) -> object:
    if outside and inside:
        return badge("✓ by both", "good")
    if outside or inside:
        return badge("by χ only" if inside else "by its attention only", "bad")
    return badge("by neither", "none")
