"""Phases of training as phases of a posterior: staircases, crossings, and what the two have to do with one another."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from slt_jax import plots
from slt_jax.report.content import Content
from slt_jax.report.markup import Html, badge, counted, element, figure, folded, joined, plain, table, with_error
from slt_jax.spectroscopy.subject import WHOLE_LOSS

_GOOD = ("opposing",)
#: Longer tables are folded.
_OPEN_ROWS = 16


def posterior(content: Content) -> Html | None:
    """The section; ``None`` where no two phases were measured."""
    rows = content.study.get("staircases") or []
    measured = [row for row in rows if row["verdict"] != "not measured"]
    if not measured:
        return None
    found = content.study.get("counterparts")
    return joined(
        element("p", _said(measured)),
        _picture(measured, found) if found else None,
        element("p", found["text"]) if found else None,
        _names(content),
        _table(measured),
        _left_out(len(rows) - len(measured)),
    )


def _said(measured: list[dict[str, Any]]) -> str:
    opposing = sum(row["verdict"] in _GOOD for row in measured)
    return (
        f"Opposing staircases, the loss down and λ̂ up, in {opposing} of {_transitions(len(measured))} (false-discovery "
        "rate 5 %). With n examples a posterior weighs n ΔL against Δλ log n: the later phase has the lower free "
        "energy from the crossing n* on."
    )


def _transitions(count: int) -> str:
    return counted(count, "transition of a loss", "transitions of losses")


def _picture(measured: list[dict[str, Any]], found: Mapping[str, Any]) -> Html | None:
    turns = [
        plots.Turn(
            row["phase"], row["crossing"]["n"], _number(row["crossing"]["low"]), _number(row["crossing"]["high"])
        )
        for row in measured
        if row["subloss"] == found["subloss"] and row["crossing"] and row["crossing"]["n"] is not None
    ]
    ladder = [
        plots.PhaseEnergy(one["phase"], one["loss"], one["coefficient"], one["coefficient_error"])
        for one in found["ladder"]
    ]
    if not turns or len(ladder) < 2:
        return None
    words = "; ".join(f"phase {turn.phase} is preferred to the one before from n = {turn.n:.3g}" for turn in turns)
    caption = "F(n) = n L + λ̂ log n of every phase that was measured, on the whole loss; terms of order 1 are left out."
    return figure(
        plots.free_energies(ladder, turns), f"Free energies of {len(ladder)} phases against n: {words}.", caption
    )


def _names(content: Content) -> Html | None:
    names = content.study.get("phase_names")
    if not names:
        return None
    lines = [
        [
            f"phase {one['phase']}" if one["phase"] else "initial state",
            badge(one["text"], "good" if len(one["agrees"]) == 1 else "none"),
            f"{100 * one['by_chance']:.0f} %" if one["by_chance"] is not None else "",
        ]
        for one in names
    ]
    caption = (
        "Each phase by the one exact value within two standard errors of its reading, of all that are known for this "
        "study. By chance: the share of readings between the least and the greatest value that would agree with any."
    )
    return joined(
        element("h3", "Phases by their exact λ"),
        table(["phase", "name", "by chance"], lines, text=(0, 1), caption=caption),
    )


def _table(measured: list[dict[str, Any]]) -> Html:
    with_exact = any(row["exact"] is not None for row in measured)
    header = ["transition to", "loss", "from step", "to step", "ΔL", "Δλ̂", "q", "staircases", "n*, 95 %", "certainty"]
    if with_exact:
        header.append("n* from exact λ")
    lines = []
    for row in measured:
        crossing = row["crossing"]
        line: list[object] = [
            f"phase {row['phase']}",
            "whole loss" if row["subloss"] == WHOLE_LOSS else row["subloss"],
            plain(row["before"]),
            plain(row["after"]),
            _loss(row),
            with_error(row["coefficient_change"], row["coefficient_error"], sign=True),
            plain(row["q"], 2),
            badge(row["verdict"], "good" if row["verdict"] in _GOOD else "none"),
            interval(crossing),
            f"{100 * crossing['certainty']:.0f} %",
        ]
        if with_exact:
            line.append("" if row["exact"] is None else plain(float(row["exact"]), 3))
        lines.append(line)
    caption = (
        "ΔL in nats for each example, its error over examples where they are a sample. q: of the test that the "
        "staircases do not oppose. n*: where n ΔL + Δλ log n changes sign, at β = 1. Certainty: that there is a "
        "crossing at all, given the errors."
    )
    body = table(header, lines, text=(0, 1, 7), caption=caption)
    return body if len(lines) <= _OPEN_ROWS else folded(_transitions(len(lines)), body)


def interval(crossing: Mapping[str, Any]) -> str:
    """``n* (low to high)``, or why there is none."""
    if crossing["n"] is None:
        return f"none: {crossing['many']} at every n"
    low, high = _number(crossing["low"]), _number(crossing["high"])
    return f"{plain(crossing['n'], 3)} ({plain(low, 3)} to {plain(high, 3)})"


def _loss(row: Mapping[str, Any]) -> str:
    # rounding alone is not worth showing
    if row["loss_error"] > 1e-5 * abs(row["loss_change"]):
        return with_error(row["loss_change"], row["loss_error"], sign=True)
    return f"{row['loss_change']:+.4g}".replace("-", "−")


def _left_out(count: int) -> Html | None:
    if not count:
        return None
    said = f"{_transitions(count)}: no two healthy readings of λ̂ to compare."
    return element("p", said[0].upper() + said[1:], class_="muted")


def _number(value: float | str | None) -> float:
    return np.nan if value is None else np.inf if value == "infinity" else float(value)
