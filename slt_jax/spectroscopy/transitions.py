"""Every transition of a training run, and where it lives: the usual kinds of directions at the usual numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from slt_jax import loss, tree
from slt_jax.curvature import top_directions
from slt_jax.problem import Problem
from slt_jax.restriction import principal_directions
from slt_jax.spectroscopy import fingerprint
from slt_jax.spectroscopy.directions import Directions, along, largest_moves, largest_moves_seen, steps_between
from slt_jax.spectroscopy.locality import Locality, locality
from slt_jax.spectroscopy.phases import Phases
from slt_jax.spectroscopy.scan import Checkpoint, CheckpointError
from slt_jax.spectroscopy.subject import Subject, parts
from slt_jax.types import Key, PyTree

#: Checkpoints over one transition that are looked at, and examples of each subloss.
MOST_CHECKPOINTS, MOST_EXAMPLES = 12, 2048
#: Up to so many parameters all directions of the Hessian are found, beyond a few, and beyond that none: each takes many
#: copies of the parameters.
_ALL_STIFF, _SOME_STIFF, _STIFF = 256, 100_000, 16


class Transition(NamedTuple):
    """One transition, and how local it is.

    Attributes:
      step: Of its fastest change.
      before, after: Steps of the checkpoints on both sides, those nearest to the plateaus.
      checkpoints: How many there are from one to the other, both counted.
      locality: The shares, or ``None``.
      reason: Why there are none, or ``""``.
    """

    step: int
    before: int
    after: int
    checkpoints: int
    locality: Locality | None
    reason: str = ""


def usual_kinds(key: Key, problem: Problem, trajectory: Sequence[PyTree]) -> dict[str, Directions]:
    """The kinds of directions that a trajectory over a transition gives by itself.

    Args:
      key: A typed key, for the search for stiff directions.
      problem: The loss and the data that Fisher information and Hessian are of; its parameters are not used.
      trajectory: Parameters from before to after the transition, both among them.

    Returns:
      ``"largest |Δw|"``, ``"largest |Δw|√Fisher"``; ``"principal directions"`` of the trajectory and ``"steps between
      checkpoints"`` (where there are more than two: the difference of two is all of the change by construction);
      ``"stiffest directions"`` of the Hessian after it (up to 100 000 parameters).

    Raises:
      ValueError: the ends are equal or not finite, or the loss breaks its contract.
    """
    before, after = trajectory[0], trajectory[-1]
    kinds = {
        "largest |Δw|": largest_moves(before, after),
        "largest |Δw|√Fisher": largest_moves_seen(problem.loss_fn, before, after, problem.data),
    }
    if len(trajectory) > 2:
        kinds["principal directions"] = along(before, principal_directions(trajectory).restriction)
        kinds["steps between checkpoints"] = steps_between(trajectory)
    size = tree.size(before)
    if size <= _SOME_STIFF:
        count = size if size <= _ALL_STIFF else _STIFF
        stiff = top_directions(key, problem.loss_fn, after, problem.data, count)
        kinds["stiffest directions"] = along(before, stiff.restriction)
    return kinds


def transitions(
    key: Key, subject: Subject, phases: Phases, checkpoints: Sequence[Checkpoint], *, examples: int = MOST_EXAMPLES
) -> Iterator[Transition]:
    """Where each transition lives, one after the other.

    Args:
      key: A typed key, for the nulls.
      subject: Its sublosses are looked at as they are recorded, not relabelled.
      phases: From ``detect_phases``.
      checkpoints: Those that cannot be read are passed over.
      examples: At most so many of each subloss, evenly from all.

    Yields:
      A transition for each of ``phases``, with the reason where nothing could be said: no checkpoint on one side of it,
      or no subloss that gained.
    """
    few = with_fewer(subject, examples)
    for index, step in enumerate(phases.transitions.tolist()):
        trajectory = _trajectory(phases, index, checkpoints)
        if not trajectory:
            yield Transition(step, -1, -1, 0, None, "no checkpoint between it and the transition beside it")
            continue
        steps, params = list(trajectory), list(trajectory.values())
        place = Transition(step, steps[0], steps[-1], len(steps), None)
        own = jax.random.fold_in(key, step)
        try:
            kinds = usual_kinds(own, few.problem, params)
            yield place._replace(locality=locality(own, few, params[0], params[-1], kinds))
        except ValueError as error:
            yield place._replace(reason=str(error))


def transitions_mark(key: Key, subject: Subject, phases: Phases, checkpoints: Sequence[Checkpoint]) -> str:
    """A digest of all that the transitions depend on: phases, checkpoints, losses, data, key and this package."""
    params = subject.problem.params
    used: dict[int, str] = {}
    for index in range(len(phases.transitions)):
        for step, value in _trajectory(phases, index, checkpoints).items():
            used[step] = used.get(step) or fingerprint.of_tree(value)
    return fingerprint.of_text(
        fingerprint.of_package(),
        jax.__version__,
        np.asarray(jax.random.key_data(key)).tolist(),
        [phases.transitions.tolist(), phases.plateaus.tolist()],
        sorted(used.items()),
        [
            (name, fingerprint.of_loss(part.loss_fn, params, part.data), fingerprint.of_tree(part.data))
            for name, part in parts(subject).items()
        ],
    )


def _trajectory(phases: Phases, index: int, checkpoints: Sequence[Checkpoint]) -> dict[int, PyTree]:
    """Parameters over a transition by step, from plateau to plateau; those that cannot be read are passed over."""
    points = {point.step: point for point in checkpoints}
    loaded: dict[int, PyTree] = {}
    while True:
        chosen = _around(phases, index, sorted(points))
        fresh = next((step for step in chosen if step not in loaded), None)
        if fresh is None:
            return {step: loaded[step] for step in chosen}
        try:
            loaded[fresh] = points[fresh].load()
        except CheckpointError:
            del points[fresh]  # named where its readings would stand


def _around(phases: Phases, index: int, steps: Sequence[int]) -> list[int]:
    """Steps from the checkpoint nearest to the plateau before a transition to that nearest to the plateau after it.

    None where one of the two is missing.
    """
    edges = [-1, *phases.transitions.tolist(), np.inf]
    ends = []
    for phase in (index, index + 1):
        inside = [step for step in steps if edges[phase] < step <= edges[phase + 1]]
        wanted = np.log1p(phases.plateaus[phase])
        ends += sorted(inside, key=lambda step: abs(np.log1p(step) - wanted))[:1]
    if len(ends) < 2 or ends[0] == ends[1]:
        return []
    between = [step for step in steps if ends[0] <= step <= ends[1]]
    kept = np.unique(np.linspace(0, len(between) - 1, min(len(between), MOST_CHECKPOINTS)).astype(int))
    return [between[position] for position in kept]


def with_fewer(subject: Subject, most: int) -> Subject:
    """The subject with at most so many examples of each subloss, evenly from all."""

    def fewer(data: PyTree) -> PyTree:
        count = loss.example_count(data)
        if count <= most:
            return data
        kept = np.unique(np.linspace(0, count - 1, most).astype(int))
        return jax.tree.map(lambda leaf: leaf[kept], data)

    sublosses: Mapping = {name: part._replace(data=fewer(part.data)) for name, part in subject.sublosses.items()}
    return subject._replace(problem=subject.problem._replace(data=fewer(subject.problem.data)), sublosses=sublosses)
