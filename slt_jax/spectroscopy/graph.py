"""Relations between phases as a directed acyclic graph, and the graph as text for people and for programs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from slt_jax.spectroscopy.grafting import Grafts
from slt_jax.spectroscopy.refinement import Refinements, direct

#: The two kinds of edges. They are never mixed: the first is read off answers, the second off interventions.
REFINES, BUILT_ON = "refines", "was built on"
#: What a transition was: the last where nobody looked.
INITIAL, FORMATION, REFINEMENT, DECOMPOSITION, UNKNOWN = (
    "initial state",
    "formation",
    "refinement",
    "decomposition",
    "unknown",
)

#: Concepts that are named in a node.
_MOST_CONCEPTS = 2


class Relation(NamedTuple):
    """One pair of phases that was tested, of one kind.

    Attributes:
      kind: ``"refines"`` or ``"was built on"``.
      later, earlier: Numbers of the phases.
      found: Whether it stands after control of false discoveries.
      direct: Whether it is found and does not follow from two others of its kind: these are drawn.
      strength: The score of a split, or the share of the gain that is lost without the earlier phase; above 1 where it
        is worse than none.
      interval: The middle 95 % of the strength over copies of the examples, or ``None``.
      p_value, adjusted: Against chance, before and after control of false discoveries.
      evidence: One sentence.
    """

    kind: str
    later: int
    earlier: int
    found: bool
    direct: bool
    strength: float
    interval: tuple[float, float] | None
    p_value: float
    adjusted: float
    evidence: str


def relations_of(
    refined: Refinements | None, grafted: Grafts | None, names: Sequence[str] = ()
) -> tuple[Relation, ...]:
    """All pairs that were tested, those that refine first, by the later phase and then the earlier.

    Args:
      refined, grafted: Over the same phases, or ``None``.
      names: Of what stands in the place of phases.
    """
    relations: list[Relation] = []

    def name(number: int) -> str:
        return names[number - 1] if names else f"phase {number}"

    if refined is not None:
        drawn = direct(refined.found)
        for at in map(tuple, np.argwhere(np.isfinite(refined.scores))):
            later, earlier = (int(index) + 1 for index in at)
            found, score, chance = bool(refined.found[at]), float(refined.scores[at]), float(refined.p_values[at])
            said = (
                f"{name(later)} {'splits' if found else 'does not split'} what {name(earlier)} brought: score "
                f"{score:.2f}; a score as high has by chance p = {chance:.2g} ({refined.shuffles} shuffles)."
            )
            known = float(refined.adjusted[at])
            relations.append(
                Relation(REFINES, later, earlier, found, bool(drawn[at]), score, None, chance, known, _capital(said))
            )
    if grafted is not None:
        drawn = direct(grafted.found)
        for at in map(tuple, np.argwhere(np.isfinite(grafted.kept))):
            later, earlier = (int(index) + 1 for index in at)
            found, kept = bool(grafted.found[at]), float(grafted.kept[at])
            low, high = float(grafted.low[at]), float(grafted.high[at])
            known = np.isfinite(low)
            said = (
                f"Of the gain of {name(later)} ({grafted.gains[later - 1]:.3g} nats of {grafted.judged[later - 1]}) "
                f"{kept:.0%} {f'({low:.0%} to {high:.0%}) ' if known else ''}is left without {name(earlier)}."
            )
            relations.append(
                Relation(
                    BUILT_ON,
                    later,
                    earlier,
                    found,
                    bool(drawn[at]),
                    1 - kept,
                    (1 - high, 1 - low) if known else None,
                    float(grafted.p_values[at]),
                    float(grafted.adjusted[at]),
                    said,
                )
            )
    return tuple(relations)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def kind_of(phase: int, refined: Refinements | None) -> str:
    """What the transition to a phase was.

    ``"formation"``: something new, which splits nothing that an earlier phase brought; ``"refinement"``: one cluster of
    items that were treated alike splits; ``"decomposition"``: several do at once. ``"unknown"`` where it was not
    tested.
    """
    if phase == 0:
        return INITIAL
    # the first phase is in no pair where it is the only one
    tested = refined is not None and bool(
        np.isfinite(refined.scores[phase - 1]).any() or np.isfinite(refined.scores[:, phase - 1]).any()
    )
    if refined is None or not tested:
        return UNKNOWN
    return (FORMATION, REFINEMENT, DECOMPOSITION)[min(int(refined.clusters[phase - 1]), 2)]


def layers(count: int, edges: Sequence[Relation]) -> list[int]:
    """The layer of each phase 1 to ``count``: one below the lowest that it has an edge to, 0 without edges.

    >>> edge = Relation("refines", 2, 1, True, True, 1.0, None, 0.001, 0.001, "")
    >>> layers(3, [edge, edge._replace(later=3, earlier=2)])
    [0, 1, 2]
    """
    depth = [0] * (count + 1)
    for phase in range(1, count + 1):
        depth[phase] = max((depth[edge.earlier] + 1 for edge in edges if edge.later == phase), default=0)
    return depth[1:]


def lines(record: Mapping[str, Any]) -> list[str]:
    """What stands in the node of a phase, a line each: its number and step, what it brought, and the change of λ̂.

    >>> lines({"phase": 2, "transition": 90, "concepts": ["a", "b", "c", "d"], "reading_change": (-1.0, 0.2)})
    ['Phase 2', 'step 90', 'a', 'b', 'and 2 more', 'Δλ̂ −1.00 ± 0.20']
    """
    step, concepts = record.get("transition"), [str(name) for name in record.get("concepts") or ()]
    if len(concepts) > _MOST_CONCEPTS:
        concepts = [*concepts[:_MOST_CONCEPTS], f"and {len(concepts) - _MOST_CONCEPTS} more"]
    change = record.get("reading_change")
    last = [] if change is None else [f"Δλ̂ {change[0]:+.2f} ± {change[1]:.2f}".replace("-", "−")]
    return [f"Phase {record['phase']}", *([] if step is None else [f"step {step}"]), *concepts, *last]


def dot(labels: Mapping[int, Sequence[str]], edges: Sequence[Relation]) -> str:
    """The graph in the language of Graphviz: arrows go from the later phase to the earlier.

    Args:
      labels: Lines of each node, by number.
      edges: Solid where a phase refines another, dashed where it was built on it.
    """
    styles = {REFINES: 'style=solid, color="#3f90da"', BUILT_ON: 'style=dashed, color="#e76300", penwidth=2'}
    nodes = [f"  phase_{number} [label={_quoted(lines)}];" for number, lines in labels.items()]
    arrows = [
        f'  phase_{edge.later} -> phase_{edge.earlier} [{styles[edge.kind]}, tooltip="{edge.kind}"];' for edge in edges
    ]
    head = ["digraph construction {", "  rankdir=BT;", '  node [shape=box, style=rounded, fontname="Helvetica"];']
    return "\n".join([*head, *nodes, *arrows, "}"]) + "\n"


def _quoted(lines: Sequence[str]) -> str:
    safe = [line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") for line in lines]
    return '"' + "\\n".join(safe) + '"'
