"""Whether what was learned is nearer to transitions than chance explains: tests, orders, and negative controls."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from slt_jax import plots
from slt_jax.plots.alignment import MOST_ROWS
from slt_jax.report.content import Content
from slt_jax.report.markup import Html, badge, counted, element, figure, folded, joined, plain, table
from slt_jax.spectroscopy.subject import WHOLE_LOSS

#: Pairs that are listed at once, and at all; ``study.json`` has every one.
_OPEN_PAIRS, _MOST_PAIRS = 16, 400


def against_chance(content: Content) -> Html | None:
    """Every source of transitions against every concept; ``None`` where nothing was tested."""
    tests = content.study.get("alignment_tests")
    if not tests or not tests.get("pairs"):
        return None
    return joined(
        element("h3", "Against chance"),
        element("p", _said(tests)),
        _picture(content, tests),
        _pairs(tests),
        _sources(tests),
        _orders(tests),
        _controls(tests),
    )


def _said(tests: Mapping[str, Any]) -> str:
    pairs = tests["pairs"]
    tried = [pair for pair in pairs if pair["p"] is not None]
    found = [pair for pair in tried if pair["q"] <= tests["rate"]]
    if not tests["stretch"]:
        return "Everything happened at once, or nothing did: there is no test against chance."
    low, high = tests["stretch"]
    rate, untested = 100 * tests["rate"], len(pairs) - len(tried)
    rest = counted(untested, "further pair")
    together = [one for one in tests["sources"] if one["q"] is not None]
    aligned = sum(one["q"] <= tests["rate"] for one in together)
    return (
        f"{len(found)} of {counted(len(tried), 'pair')} of a loss or reading with a concept are nearer than chance "
        f"explains, at a false-discovery rate of {rate:g} % over all pairs; with all concepts at once, {aligned} of "
        f"{counted(len(together), 'loss or reading', 'losses and readings')}. Chance is an acquisition anywhere "
        f"between steps {low:.4g} and {high:.4g}, where something happened, even in log step: the nearer transitions "
        f"are to one another, the less a short distance says.{f' {rest} cannot be tested.' if untested else ''}"
    )


def _picture(content: Content, tests: Mapping[str, Any]) -> Html:
    found = {pair["source"] for pair in tests["pairs"] if pair["q"] is not None and pair["q"] <= tests["rate"]}
    rows = content.study.get("alignment") or ()
    concepts = [plots.Learned(row["concept"], row["step"], _between(row)) for row in rows]
    sources = [
        plots.Changed(_source(one["source"]), events["steps"], events["begins"], events["ends"], one["source"] in found)
        for one in tests["sources"]
        for events in (one["events"],)
    ]
    words = ", ".join(f"{one.name} at {', '.join(f'{step:.4g}' for step in one.steps) or 'no step'}" for one in sources)
    caption = (
        "Above, concepts: a dot where each was acquired. Below, losses and readings: bars over the steps in which each "
        "changed. Blue: at least one concept is nearer than chance explains. A reading is known at its checkpoints "
        "only, and its bars reach from one to the next."
    )
    if max(len(concepts), len(sources)) > MOST_ROWS:
        caption += f" The first {MOST_ROWS} of each are drawn."
    picture = plots.alignment(concepts, sources, content.bands, content.axis)
    return figure(picture, f"Steps of acquisition, and transitions of {words}.", caption)


def _between(row: Mapping[str, Any]) -> tuple[float, float]:
    low, high = row.get("between") or (row["step"] or 0, row["step"] or np.inf)
    return float(low), np.inf if high in (None, "infinity") else float(high)


def _pairs(tests: Mapping[str, Any]) -> Html:
    tried = sorted((pair for pair in tests["pairs"] if pair["p"] is not None), key=lambda pair: (pair["q"], pair["p"]))
    header = ["loss or reading", "concept", "its transition", "lag", "", "p", "q", "verdict"]
    lines = [
        [
            _source(pair["source"]),
            pair["concept"],
            plain(round(pair["transition"])),
            lag(pair["lag"]),
            pair["relation"],
            plain(pair["p"], 2),
            plain(pair["q"], 2),
            badge("✓ aligned", "good") if pair["q"] <= tests["rate"] else badge("as by chance", "none"),
        ]
        for pair in tried[:_MOST_PAIRS]
    ]
    untested = [
        [_source(pair["source"]), pair["concept"], pair["reason"]] for pair in tests["pairs"] if pair["p"] is None
    ]
    caption = (
        "Lag: how much later than the transition the concept was acquired; leads: before it began, follows: after it "
        "ended. q: p adjusted for all pairs (Benjamini and Hochberg)."
    )
    pieces: list[object] = [table(header, lines[:_OPEN_PAIRS], text=(0, 1, 4, 7), caption=caption)] if lines else []
    if len(lines) > _OPEN_PAIRS:
        rest = table(header, lines[_OPEN_PAIRS:], text=(0, 1, 4, 7))
        cut = f" The last {len(tried) - _MOST_PAIRS} are in study.json." if len(tried) > _MOST_PAIRS else ""
        pieces.append(folded(f"{counted(len(lines) - _OPEN_PAIRS, 'further pair')}, by q.{cut}", rest))
    if untested:
        title = f"{counted(len(untested), 'pair')} that cannot be tested, and why"
        listed = table(["loss or reading", "concept", "why"], untested[:_MOST_PAIRS], text=(0, 1, 2))
        pieces.append(folded(title, listed))
    return joined(*pieces)


def _sources(tests: Mapping[str, Any]) -> Html:
    lines = [
        [
            _source(one["source"]),
            len(one["events"]["steps"]),
            lag(one["lag"]) if one["lag"] is not None else "",
            f"{one['leads']} / {one['within']} / {one['follows']}",
            plain(one["p"], 2) if one["p"] is not None else badge(one["reason"], "none"),
            plain(one["q"], 2) if one["q"] is not None else "",
            one["left_out"] or "",
        ]
        for one in tests["sources"]
    ]
    header = [
        "loss or reading",
        "transitions",
        "median lag",
        "concepts lead / within / follow",
        "p of all",
        "q",
        "left out",
    ]
    caption = (
        "All concepts at once against each source: p where all acquisitions are shifted by the same amount, so that "
        "clusters stay clusters. Left out: readings that are missing or unhealthy."
    )
    return folded("Each loss and reading against all concepts at once", table(header, lines, caption=caption))


def _orders(tests: Mapping[str, Any]) -> Html | None:
    if not tests["orders"]:
        return None
    lines = [
        [
            one["what"],
            len(one["names"]),
            plain(one["kendall"], 3) if one["kendall"] is not None else "no pair is told apart",
            f"{one['agree']} / {one['disagree']} / {one['unknown']}",
            plain(one["by_chance"], 2) if one["by_chance"] is not None else "",
            ", ".join(one["left_out"]),
        ]
        for one in tests["orders"]
    ]
    caption = (
        "Kendall's τ over the pairs whose order is known in both; a concept that was never acquired comes after all "
        "that were. By chance: the share of orders that agree as well."
    )
    header = ["orders of", "things", "τ", "pairs that agree / disagree / unknown", "by chance", "in one order only"]
    return joined(element("h3", "Orders"), table(header, lines, text=(0, 5), caption=caption))


def _controls(tests: Mapping[str, Any]) -> Html | None:
    if not tests["controls"]:
        return None
    lines = [
        [
            one["kind"],
            one["draws"],
            one["pairs"],
            f"{100 * one['below']:.1f} %" if one["below"] is not None else "",
            one["found"],
            one["draws_with_findings"],
        ]
        for one in tests["controls"]
    ]
    caption = (
        "The same tests where there is nothing to find: every reading replaced by noise of the same autocorrelation, "
        "and every concept with its changes shuffled in time."
    )
    header = ["negative control", "draws", "pairs tested", "p ≤ 0.05", "pairs found", "draws with any"]
    return joined(element("h3", "Negative controls"), table(header, lines, caption=caption))


def lag(value: float) -> str:
    """A difference of logarithms as a share of the transition's own step, or as a factor."""
    if abs(value) > np.log(2):
        return f"× {np.exp(abs(value)):.3g} {'later' if value > 0 else 'earlier'}"
    share = 100 * (np.exp(value) - 1)
    return f"{abs(share):.1f} % {'later' if share >= 0 else 'earlier'}"


def _source(name: str) -> str:
    return "whole loss" if name == WHOLE_LOSS else name.replace(f", {WHOLE_LOSS}", ", whole loss")
