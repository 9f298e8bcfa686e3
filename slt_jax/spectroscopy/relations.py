"""What a construction needs the network for: answers at every plateau, and phases put in without one another."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax.spectroscopy import fingerprint
from slt_jax.spectroscopy.grafting import Grafts, assembled, grafts
from slt_jax.spectroscopy.phases import Phases
from slt_jax.spectroscopy.refinement import Refinements, refinements
from slt_jax.spectroscopy.scan import Checkpoint, CheckpointError
from slt_jax.spectroscopy.subject import Subject, parts
from slt_jax.spectroscopy.transitions import MOST_EXAMPLES, with_fewer
from slt_jax.types import PyTree

#: A phase that changes answers by less than this, relative to their size, changes nothing.
_ROUNDING = 1e-5


class Relations(NamedTuple):
    """Both kinds of relations between the phases of a run, and why there are none.

    Attributes:
      refined: ``None`` where the subject has no answers, or too few phases changed them.
      grafted: ``None`` where there are checkpoints on both sides of no phase.
      untested: Reasons.
      parts: Names of the parts of the network whose changes over all of training were put in one after the other.
      assembled: Which of these were built on which, or ``None`` where the subject names no stages.
    """

    refined: Refinements | None
    grafted: Grafts | None
    untested: tuple[str, ...]
    parts: tuple[str, ...] = ()
    assembled: Grafts | None = None

    @property
    def phases(self) -> int | None:
        """The number of phases that they are of, or ``None`` where none was tested."""
        if self.grafted is not None:
            return len(self.grafted.gains)
        return None if self.refined is None else len(self.refined.clusters)


def relations(
    subject: Subject, phases: Phases, checkpoints: Sequence[Checkpoint], *, examples: int = MOST_EXAMPLES
) -> Relations:
    """Which phases refine which, and which were built on which, from the checkpoints nearest to their plateaus.

    Args:
      subject: With ``answers`` for the first kind; its losses are looked at as they are recorded, not relabelled. With
        ``stages`` the change of all training is put together part by part, too.
      phases: From ``detect_phases``.
      checkpoints: Those that cannot be read are passed over.
      examples: At most so many of each subloss, evenly from all.

    Returns:
      Both, each ``None`` where it cannot be had, with the reason.
    """
    states = states_at_plateaus(phases, checkpoints)
    refined, untested = None, []
    if subject.answers is None:
        untested.append("refines: the subject has no answers; give it a function of the parameters.")
    else:
        changes = _changes_of_answers(subject, states)
        if sum(change is not None for change in changes) < 2:
            untested.append("refines: fewer than two phases have checkpoints on both sides and changed the answers.")
        else:
            try:
                refined = refinements(changes)
            except ValueError as error:
                untested.append(f"refines: {error}")
    grafted = None
    if sum(state is not None for state in states) < 2:
        untested.append("was built on: no phase has checkpoints on both sides.")
    else:
        try:
            grafted = grafts(with_fewer(subject, examples), states)
        except ValueError as error:
            untested.append(f"was built on: {error}")
    ends = _first_readable(checkpoints), _first_readable(checkpoints[::-1])
    names: list[str] = []
    put_together = None
    if subject.stages and ends[0] is not None:
        try:
            names, between = assembled(*ends, subject.stages)
            put_together = grafts(with_fewer(subject, examples), between)
        except ValueError as error:
            untested.append(f"parts: {error}")
    return Relations(refined, grafted, tuple(untested), tuple(names), put_together)


def states_at_plateaus(phases: Phases, checkpoints: Sequence[Checkpoint]) -> list[PyTree | None]:
    """Parameters nearest to the plateau of the initial state and of each phase, ``None`` where it has no checkpoint."""
    edges = [-1, *phases.transitions.tolist(), np.inf]
    states: list[PyTree | None] = []
    for phase, plateau in enumerate(phases.plateaus.tolist()):
        inside = [point for point in checkpoints if edges[phase] < point.step <= edges[phase + 1]]
        states.append(_first_readable(sorted(inside, key=lambda point: _distance(point.step, plateau))))
    return states


def relations_mark(subject: Subject, phases: Phases, checkpoints: Sequence[Checkpoint]) -> str:
    """A digest of all that the relations depend on: phases, checkpoints, losses, answers, data and this package."""
    params = subject.problem.params
    states = states_at_plateaus(phases, checkpoints)
    ends = _first_readable(checkpoints), _first_readable(checkpoints[::-1])
    return fingerprint.of_text(
        fingerprint.of_package(),
        jax.__version__,
        [phases.transitions.tolist(), phases.plateaus.tolist()],
        ["" if state is None else fingerprint.of_tree(state) for state in [*states, *ends]],
        fingerprint.of_tree(dict(subject.stages)),
        "" if subject.answers is None else fingerprint.of_function(subject.answers, params),
        [
            (name, fingerprint.of_loss(part.loss_fn, params, part.data), fingerprint.of_tree(part.data))
            for name, part in parts(subject).items()
        ],
    )


def _changes_of_answers(subject: Subject, states: Sequence[PyTree | None]) -> list[np.ndarray | None]:
    answers = jax.jit(subject.answers) if subject.answers is not None else None
    said = [
        None if state is None or answers is None else np.asarray(answers(jax.tree.map(jnp.asarray, state)), float)
        for state in states
    ]
    changes: list[np.ndarray | None] = []
    for before, after in itertools.pairwise(said):
        if before is None or after is None or not (np.isfinite(before).all() and np.isfinite(after).all()):
            changes.append(None)
            continue
        moved = np.abs(after - before).max() > _ROUNDING * max(np.abs(after).max(), np.abs(before).max())
        changes.append(after - before if moved else None)
    return changes


def _first_readable(points: Sequence[Checkpoint]) -> PyTree | None:
    for point in points:
        try:
            state = point.load()
        except CheckpointError:
            continue  # named where its readings would stand
        if all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(state)):
            return state
    return None


def _distance(step: int, plateau: float) -> float:
    return float(abs(np.log1p(step) - np.log1p(plateau)))
