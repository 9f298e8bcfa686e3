"""The construction: its graph, what each phase brought, and the evidence for every pair, with an edge or without."""

from collections.abc import Mapping, Sequence
from typing import Any

from slt_jax import plots
from slt_jax.report import development
from slt_jax.report.content import Content
from slt_jax.report.markup import Html, badge, counted, element, figure_of, folded, joined, plain, table
from slt_jax.spectroscopy import Relation
from slt_jax.spectroscopy.graph import BUILT_ON, REFINES, UNKNOWN, lines


def construction(content: Content) -> Html | None:
    """Graph, table and evidence; ``None`` without phases."""
    what_came = development.construction(content)
    if what_came is None:
        return None
    phases = [record for record in content.study["construction"] if record["phase"]]
    if not phases:
        return what_came
    relations = [Relation(**row) for row in content.study.get("relations") or ()]
    edges = [relation for relation in relations if relation.direct]
    return joined(
        element("p", _said(relations, edges)),
        _drawing(phases, edges),
        element("h3", "What each phase brought"),
        what_came,
        *_parts(content),
        element("h3", "Evidence"),
        *(_untested(content)),
        *(_evidence(content, record, relations) for record in phases),
    )


def _said(relations: Sequence[Relation], edges: Sequence[Relation]) -> str:
    """What the graph shows, and what it does not."""
    if not relations:
        return "What came when; no relation between phases was tested."
    told = []
    for kind, words in ((REFINES, "refine what an earlier one brought"), (BUILT_ON, "were built on an earlier one")):
        tested = sum(relation.kind == kind for relation in relations)
        found = len({edge.later for edge in edges if edge.kind == kind})
        told.append(
            f"{counted(found, 'phase')} {words} ({counted(tested, 'pair')} tested)" if tested else f"{kind}: not tested"
        )
    text = "; ".join(told)
    return f"{text[:1].upper()}{text[1:]}." + (
        " The first is read off the network's answers; the second is shown by putting the change of one phase into the "
        "network without that of the other."
    )


def _drawing(phases: Sequence[Mapping[str, Any]], edges: Sequence[Relation]) -> Html:
    nodes = [
        plots.GraphNode(record["phase"], lines(record), record.get("kind", UNKNOWN), f"#phase-{record['phase']}")
        for record in phases
    ]
    caption = (
        "Phases of training, an arrow from each to the earlier ones that it refines (solid) or was built on (dashed). "
        "What follows from two other arrows of a kind is not drawn. A click on a phase leads to its evidence."
    )
    return figure_of(Html(plots.construction_graph(nodes, edges)), caption)


def _parts(content: Content) -> list[Html]:
    """The same for parts of the network over all of training, where the study names them."""
    found = content.study.get("parts") or {}
    relations = [Relation(**row) for row in found.get("part_relations", ())]
    if not relations:
        return []
    names = [str(name) for name in found["parts"]]
    nodes = [plots.GraphNode(number, [name], UNKNOWN, "#parts") for number, name in enumerate(names, start=1)]
    picture = Html(plots.construction_graph(nodes, [relation for relation in relations if relation.direct]))
    said = (
        "What changed over all of training, put into the first checkpoint part by part in the order in which parts "
        "can read one another: an arrow where the gain of one does not survive without the other."
    )
    rows = [[names[relation.later - 1], names[relation.earlier - 1], *_verdict(relation)] for relation in relations]
    header = ["part", "without", "", "evidence", "p", "p, adjusted"]
    return [
        element("h3", "What each part of the network was built on", id="parts"),
        figure_of(picture, said),
        table(header, rows, text=(0, 1, 2, 3)),
    ]


def _untested(content: Content) -> list[Html]:
    return [element("p", f"Not tested: {reason}", class_="muted") for reason in content.study.get("untested") or ()]


def _evidence(content: Content, record: Mapping[str, Any], relations: Sequence[Relation]) -> Html:
    """All pairs that a phase is the later one of, the found ones first."""
    number = record["phase"]
    own = [relation for relation in relations if relation.later == number]
    found = [relation for relation in own if relation.found]
    others = [relation for relation in own if not relation.found]
    kind = record.get("kind", UNKNOWN)
    pieces: list[object] = [
        element("h4", f"Phase {number}{'' if kind == UNKNOWN else f': {kind}'}", id=f"phase-{number}")
    ]
    place = record.get("place")
    if place:
        chance = "none" if place["by_chance"] is None else plain(place["by_chance"])
        where = (
            f"Lives in {plain(place['directions'])} of {plain(place['dimension'])} directions ({place['kind']}, "
            f"95 % of what it gained); by chance: {chance}. "
        )
        pieces.append(element("p", where, element("a", "Where each phase lives", href="#localities"), class_="muted"))
    if found:
        pieces.append(_table(found))
    if others:
        pieces.append(folded(f"{counted(len(others), 'pair')} tested and not found", _table(others)))
    if not own:
        pieces.append(element("p", "No earlier phase to set it beside.", class_="muted"))
    return joined(*pieces)


def _table(relations: Sequence[Relation]) -> Html:
    rows = [[f"{relation.kind} phase {relation.earlier}", *_verdict(relation)] for relation in relations]
    return table(["relation", "", "evidence", "p", "p, adjusted"], rows, text=(0, 1, 2))


def _verdict(relation: Relation) -> list[object]:
    mark = badge("✓ found", "good") if relation.found else badge("not found", "none")
    return [mark, relation.evidence, plain(relation.p_value, 2), plain(relation.adjusted, 2)]
