"""Reads a final network as a construction: what each phase brought, what it splits, and what it was built on."""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from slt_jax.spectroscopy import graph
from slt_jax.spectroscopy.align import Alignment
from slt_jax.spectroscopy.grafting import Grafts
from slt_jax.spectroscopy.graph import Relation
from slt_jax.spectroscopy.phases import Phases, measured_at
from slt_jax.spectroscopy.plain import plain
from slt_jax.spectroscopy.recorder import History
from slt_jax.spectroscopy.refinement import Refinements
from slt_jax.spectroscopy.subject import WHOLE_LOSS
from slt_jax.spectroscopy.transitions import Transition

#: Kinds of directions that are spanned by the change that they explain.
_OF_STEPS = ("principal directions", "steps between checkpoints")


class Place(NamedTuple):
    """The directions that a phase lives in: the fewest that explain 95 % of what it gained.

    Attributes:
      kind: Of the directions; ``directions`` of ``dimension``.
      subloss: Whose gain they explain.
      by_chance: How many directions at random do the same, of the best null; ``None`` where none do.
    """

    kind: str
    directions: int
    dimension: int
    subloss: str
    by_chance: int | None


class PhaseRecord(NamedTuple):
    """What one phase brought.

    Attributes:
      phase: Counted from 1; 0 is the initial state.
      transition: Step of its fastest change; ``None`` for the initial state.
      interval: Steps between which the transition ran; ``None`` for the initial state.
      plateau: The step at which it is quietest, where losses are compared.
      measured_at: The step of its reading, the checkpoint nearest the plateau, or ``None``.
      concepts: Concepts acquired in it, in their order.
      loss_changes: Change of each loss since the plateau before, nats.
      reading: ``(value, std_error)`` of the learning coefficient at the plateau, or ``None``.
      reading_change: Change since the plateau before, with its standard error, or ``None``.
      kind: What the transition was, as ``graph.kind_of`` says.
      place: The directions that it lives in, or ``None`` where nobody looked or none explain it.
    """

    phase: int
    transition: int | None
    interval: tuple[int, int] | None
    plateau: int
    measured_at: int | None
    concepts: list[str]
    loss_changes: dict[str, float]
    reading: tuple[float, float] | None
    reading_change: tuple[float, float] | None
    kind: str = graph.UNKNOWN
    place: Place | None = None


class Construction(NamedTuple):
    """A directed acyclic graph: phases in their order, and which of them refine, or were built on, which.

    Attributes:
      phases: The nodes, the initial state first.
      relations: Every pair that was tested, found or not.
      untested: Why relations were not tested, as ``"was built on, phase 3: ..."``.
      parts: Names of parts of the network, in the order in which they can read one another.
      part_relations: Which part was built on which over all of training; numbers are those of ``parts``, from 1.
    """

    phases: list[PhaseRecord]
    relations: tuple[Relation, ...] = ()
    untested: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    part_relations: tuple[Relation, ...] = ()

    @property
    def edges(self) -> tuple[Relation, ...]:
        """What is drawn: relations that were found and do not follow from two others of their kind."""
        return tuple(relation for relation in self.relations if relation.direct)

    def to_json(self) -> list[dict[str, Any]]:
        """Plain lists and dicts, one per phase."""
        return [plain(record) for record in self.phases]

    def to_graph(self) -> dict[str, Any]:
        """The whole as plain dicts and lists, as ``construction_schema`` describes it; ``json.dumps`` takes it."""
        relations = [plain(relation) for relation in self.relations]
        parts = {"parts": list(self.parts), "part_relations": [plain(one) for one in self.part_relations]}
        return {"phases": self.to_json(), "relations": relations, "untested": list(self.untested), **parts}

    def to_dot(self) -> str:
        """The graph in the language of Graphviz, without the initial state: ``dot -Tsvg`` draws it."""
        lines = {record.phase: graph.lines(record._asdict()) for record in self.phases[1:]}
        return graph.dot(lines, self.edges)

    def describe(self) -> str:
        """One sentence per phase, and one per part of the network that was built on others."""
        built = [
            f"{self.parts[edge.later - 1]} was built on {self.parts[edge.earlier - 1]}: {edge.evidence}"
            for edge in self.part_relations
            if edge.direct
        ]
        return "\n".join([*(_sentence(record, self.edges) for record in self.phases), *built])


def construction_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of ``Construction.to_graph``."""
    return json.loads((resources.files("slt_jax.spectroscopy") / "construction.schema.json").read_text())


def construct(
    history: History,
    phases: Phases,
    alignment: Alignment,
    readings: Mapping[int, tuple[float, float]],
    *,
    refined: Refinements | None = None,
    grafted: Grafts | None = None,
    located: Sequence[Transition] = (),
    untested: Sequence[str] = (),
    parts: Sequence[str] = (),
    assembled: Grafts | None = None,
) -> Construction:
    """What each phase brought, where it lives, what it splits, and what it was built on.

    A pure function of results: what needs the network (``transitions``, ``refinements`` of its answers, ``grafts``) is
    computed before, and only put together here.

    Args:
      history: Losses are compared between plateaus.
      phases: From ``detect_phases``.
      alignment: From ``align``.
      readings: ``(value, std_error)`` by step; the reading of a phase is the one nearest its plateau in log step, among
        those that lie between its transition and the next.
      refined: From ``refinements``, a row for each transition; ``None``: edges of this kind were not looked for.
      grafted: From ``grafts``, likewise.
      located: From ``transitions``, one for each, or none.
      untested: Why relations were not tested.
      parts, assembled: Names of parts of the network, and ``grafts`` of the states between which each was put in.

    Returns:
      The construction, the initial state first.

    Raises:
      ValueError: a result is of another number of phases, or there are not as many names of parts as parts.

    Not to be believed as causal where an edge says ``"refines"``: it tells what was distinguished, and a network may
    well learn the finer distinction without the coarser. Only ``"was built on"`` is an intervention.
    """
    count = len(phases.transitions)
    rows = {
        "refined": count if refined is None else len(refined.clusters),
        "grafted": count if grafted is None else len(grafted.gains),
        "located": len(located) or count,
    }
    for name, rows_of in rows.items():
        if rows_of != count:
            raise ValueError(f"{name}: has {rows_of} phases, not {count}; compute it for these phases.")
    records: list[PhaseRecord] = []
    steps = measured_at(phases, [step for step, (value, _) in readings.items() if np.isfinite(value)])
    for phase, (plateau, step) in enumerate(zip(phases.plateaus.tolist(), steps, strict=True)):
        reading = None if step is None else readings[step]
        before = records[-1] if records else None
        records.append(
            PhaseRecord(
                phase=phase,
                transition=int(phases.transitions[phase - 1]) if phase else None,
                interval=(int(phases.begins[phase - 1]), int(phases.ends[phase - 1])) if phase else None,
                plateau=int(plateau),
                measured_at=step,
                concepts=[row.concept for row in alignment.acquisitions if row.phase == phase],
                loss_changes=_changes(history, before.plateau, plateau) if before else {},
                reading=reading,
                reading_change=_difference(before.reading, reading) if before else None,
                kind=graph.kind_of(phase, refined),
                place=_place(located[phase - 1]) if phase and located else None,
            )
        )
    left_out = [*untested, *_left_out(grafted)]
    if assembled is not None and len(parts) != len(assembled.gains):
        raise ValueError(f"parts: got {len(parts)} names for {len(assembled.gains)} parts; pass one of each.")
    between_parts = graph.relations_of(None, assembled, parts)
    return Construction(records, graph.relations_of(refined, grafted), tuple(left_out), tuple(parts), between_parts)


def _left_out(grafted: Grafts | None) -> list[str]:
    """Why phases were not grafted, those of one reason together."""
    together: dict[str, list[str]] = {}
    for phase, reason in enumerate(() if grafted is None else grafted.reasons, start=1):
        together.setdefault(reason, []).append(str(phase))
    return [
        f"was built on, phase{'s' * (len(numbers) > 1)} {', '.join(numbers)}: {reason}"
        for reason, numbers in together.items()
        if reason
    ]


def _changes(history: History, before: int, after: int) -> dict[str, float]:
    first, last = np.searchsorted(history.steps, [before, after])
    return {name: float(curve[last] - curve[first]) for name, curve in history.losses.items()}


def _difference(before: tuple[float, float] | None, after: tuple[float, float] | None) -> tuple[float, float] | None:
    if before is None or after is None:
        return None
    return after[0] - before[0], float(np.hypot(before[1], after[1]))


def _place(transition: Transition) -> Place | None:
    """The kind with the fewest directions, for the whole loss or else the one that gained most."""
    found = transition.locality
    if found is None:
        return None
    name = WHOLE_LOSS if WHOLE_LOSS in found.sublosses else found.sublosses[int(np.argmax(found.gains))]
    counts = {kind: found.enough(name, kind) for kind in found.kinds}
    reached = {kind: count for kind, count in counts.items() if count is not None}
    if not reached:
        return None
    # that training went along a line does not say where: spans of its own steps come last
    kind = min(reached, key=lambda kind: (kind in _OF_STEPS, reached[kind]))
    chance = [count for null in found.nulls if (count := found.enough(name, null)) is not None]
    return Place(kind, reached[kind], found.dimension, name, min(chance, default=None))


def _sentence(record: PhaseRecord, edges: Sequence[Relation]) -> str:
    if record.transition is None or record.interval is None:
        start = "Initial state"
    else:
        low, high = record.interval
        kind = "" if record.kind == graph.UNKNOWN else f", a {record.kind},"
        start = f"Phase {record.phase}{kind} begins at step {record.transition} ({low} to {high})"
    brought = f": learned {', '.join(record.concepts)}" if record.concepts else ": no concept learned"
    for kind, words in ((graph.REFINES, "refines"), (graph.BUILT_ON, "was built on")):
        others = [f"{edge.earlier}" for edge in edges if (edge.kind, edge.later) == (kind, record.phase)]
        if others:
            brought += f"; {words} phase{'s' * (len(others) > 1)} {' and '.join(others)}"
    if record.reading is None:
        return f"{start}{brought}; no reading."
    value, error = record.reading
    change = ""
    if record.reading_change is not None:
        change = f", {record.reading_change[0]:+.2f} ± {record.reading_change[1]:.2f} since the phase before"
    where = f"at step {record.measured_at}"
    return f"{start}{brought}; learning coefficient {value:.2f} ± {error:.2f} {where}{change}."
