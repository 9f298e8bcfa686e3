"""Points probes at checkpoints: one cell for each (probe, step, restriction, subloss), each resumable by itself."""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from slt_jax import sharding
from slt_jax.compiled import make_room
from slt_jax.estimators import RunKeeper
from slt_jax.problem import Problem
from slt_jax.restriction import Restriction, check_together, shape_of, together_by_default
from slt_jax.spectroscopy import fingerprint
from slt_jax.spectroscopy.probes import Probe, Reading
from slt_jax.spectroscopy.subject import WHOLE_NETWORK, Subject, parts, problem_at
from slt_jax.tree import check_key
from slt_jax.types import Key, PyTree


class CheckpointError(ValueError):
    """A checkpoint that cannot be used (truncated, another tree). It is named and skipped; the others finish."""


class Checkpoint(NamedTuple):
    """Parameters at a step, loaded only when they are needed.

    Attributes:
      step: Training step.
      load: ``load() -> params``; raises ``CheckpointError``.
    """

    step: int
    load: Callable[[], PyTree]


class Cell(NamedTuple):
    """One reading, or the reason why there is none.

    Attributes:
      probe, step, restriction, subloss: Where it stands in the table.
      reading: Arrays by name, or ``None``.
      error: Why there is no reading, or ``None``.
    """

    probe: str
    step: int
    restriction: str
    subloss: str
    reading: Reading | None
    error: str | None


def scan(
    key: Key,
    subject: Subject,
    checkpoints: Iterable[Checkpoint],
    probes: Mapping[str, Probe],
    *,
    restrictions: Iterable[str] = (WHOLE_NETWORK,),
    sublosses: Iterable[str] = ("all",),
    finished: MutableMapping[str, Reading] | None = None,
    together: int | None = None,
    running: Callable[[str], RunKeeper] | None = None,
    mesh: Mesh | None = None,
) -> Iterator[Cell]:
    """Every probe at every checkpoint, in every restriction, on every subloss: an iterator of cells.

    A reading that ``finished`` holds already is not computed again. It is looked up by a fingerprint of everything it
    depends on: the bytes of the parameters and the data, the program of the loss, the restriction, the probe's
    settings, the key, and the code of this package. The key of a cell depends on its place alone, so that the order
    does not matter and a scan that was killed and started again gives the same bits.

    Args:
      key: A typed key.
      subject: What is measured.
      checkpoints: Where; each is loaded once, when its turn comes.
      probes: By name.
      restrictions: Names among ``subject.restrictions``, or ``"full"``.
      sublosses: Names among ``subject.sublosses``, or ``"all"``.
      finished: Readings by fingerprint; new ones are put there as soon as they exist. A dict, or a store on disk.
      together: How many restrictions of one shape, such as the heads of a layer, are measured side by side in one
        program, where a probe can. Default 1 on CPU, where one after the other is faster and shares the compiled
        program too, and 8 elsewhere. A reading measured side by side is as right, and not the same to the last bit.
      running: For the fingerprint of a reading that takes hours, a keeper of its chains, where its probe can go on with
        them: the reading is the same to the last bit. Side by side no chains are kept.
      mesh: Devices, those of other processes among them, that each reading is spread over; every process then scans
        the same, with the same readings finished.

    Yields:
      Cells, checkpoint by checkpoint. A checkpoint or a problem that cannot be used yields cells with an ``error``.

    Raises:
      ValueError: as ``check_scan``, or the key is not a typed key.
    """
    check_key(key)
    check_together(together)
    together = together_by_default() if together is None else together
    finished = {} if finished is None else finished
    restrictions, sublosses = list(restrictions), list(sublosses)
    check_scan(subject, probes, restrictions, sublosses)
    free: dict[str, Restriction | None] = {WHOLE_NETWORK: None, **subject.restrictions}
    part_of = parts(subject)
    watching = any(probe.observes for probe in probes.values())
    for checkpoint in checkpoints:
        try:
            params = checkpoint.load()
        except CheckpointError as error:
            yield from _failed(checkpoint.step, probes, restrictions, sublosses, str(error))
            continue
        try:
            observed = _observed(subject, params) if watching else {}
        except ValueError as error:
            yield from _failed(checkpoint.step, probes, restrictions, sublosses, str(error))
            continue
        seen = fingerprint.of_text(*(item for name in observed for item in (name, *_problem_mark(observed[name]))))
        ready = {name: _with_observables(probe, observed) for name, probe in probes.items()}
        for subloss in sublosses:
            try:
                problem = problem_at(part_of[subloss], params)
            except ValueError as error:
                yield from _failed(checkpoint.step, probes, restrictions, [subloss], str(error))
                continue
            content = fingerprint.of_text(
                fingerprint.of_package(),
                jax.__version__,
                fingerprint.of_tree(problem.params),
                *_problem_mark(problem),
                np.asarray(jax.random.key_data(key)).tolist(),
            )
            lift = {restriction: _restriction_mark(free[restriction], problem.params) for restriction in restrictions}
            tasks = {
                name: [
                    _task(
                        (name, checkpoint.step, restriction, subloss),
                        fingerprint.of_text(content, seen) if probe.observes else content,
                        lift,
                        probe,
                        key,
                        free,
                    )
                    for restriction in restrictions
                ]
                for name, probe in probes.items()
            }
            for number in range(len(restrictions)):
                for name, probe in ready.items():
                    task = tasks[name][number]
                    if together > 1 and probe.measure_many is not None and finished.get(task.mark) is None:
                        with _on(mesh):
                            _measure_alike(tasks[name][number:], together, finished, probe, sharding.spread(problem))
                    yield _cell(task, finished, probe, problem, running, mesh)


def check_scan(
    subject: Subject, probes: Mapping[str, Probe], restrictions: Iterable[str], sublosses: Iterable[str]
) -> None:
    """Refuse a scan of which no reading could come, before anything is compiled.

    Raises:
      ValueError: a name that the subject does not have, or a probe's setting out of range.
    """
    part_of, names = parts(subject), list(sublosses)
    _check_names("restrictions", restrictions, {WHOLE_NETWORK: None, **subject.restrictions})
    _check_names("sublosses", names, part_of)
    for name, probe in probes.items():
        if probe.observes and not subject.sublosses:
            raise ValueError(
                f"probes: {name!r} looks at the sublosses, and the subject has none; give it some by name."
            )
        for part in (part_of[name] for name in names):
            if probe.check is not None:
                probe.check(Problem(part.loss_fn, subject.problem.params, part.data), **probe.settings)


class _Task(NamedTuple):
    """A cell to be filled: where it stands, its fingerprint, its key, and what is free."""

    place: tuple[str, int, str, str]
    mark: str
    key: Key
    restriction: Restriction | None


def _task(
    place: tuple[str, int, str, str],
    content: str,
    lift: Mapping[str, str],
    probe: Probe,
    key: Key,
    free: Mapping[str, Restriction | None],
) -> _Task:
    mark = fingerprint.of_text(content, place, lift[place[2]], _function_name(probe), sorted(probe.settings.items()))
    # an integer from the place, so that neither order nor other cells change the key
    return _Task(place, mark, jax.random.fold_in(key, int(fingerprint.of_text(place)[:8], 16)), free[place[2]])


def _cell(
    task: _Task,
    finished: MutableMapping[str, Reading],
    probe: Probe,
    problem: Problem,
    running: Callable[[str], RunKeeper] | None,
    mesh: Mesh | None,
) -> Cell:
    known = finished.get(task.mark)
    if known is not None:
        return Cell(*task.place, known, None)
    make_room()
    keeper = running(task.mark) if running is not None and probe.resumes else None
    kept = {} if keeper is None else {"keeper": keeper}
    try:
        with _on(mesh):
            where = sharding.spread((task.key, problem, task.restriction))
            reading = probe.measure(*where, **probe.settings, **kept)
    except ValueError as error:
        return Cell(*task.place, None, str(error))
    finished[task.mark] = reading
    if keeper is not None:
        keeper.remove()
    return Cell(*task.place, reading, None)


def _measure_alike(
    tasks: list[_Task], most: int, finished: MutableMapping[str, Reading], probe: Probe, problem: Problem
) -> None:
    """Fill the cells whose restriction has the shape of the first, at most so many, in one program."""
    first = tasks[0].restriction
    if first is None or probe.measure_many is None:
        return
    shape = shape_of(first)
    same = [task for task in tasks if task.restriction is not None and shape_of(task.restriction) == shape]
    missing = [task for task in same if finished.get(task.mark) is None][:most]
    if len(missing) < 2:
        return
    make_room()
    keys, restrictions = [task.key for task in missing], [task.restriction for task in missing]
    try:
        readings = probe.measure_many(keys, problem, restrictions, **probe.settings)
    except ValueError:
        return  # each alone will say what is wrong
    for task, reading in zip(missing, readings, strict=True):
        finished[task.mark] = reading


def _on(mesh: Mesh | None) -> AbstractContextManager[Any]:
    return nullcontext() if mesh is None else jax.set_mesh(mesh)


def _observed(subject: Subject, params: PyTree) -> dict[str, Problem]:
    return {name: problem_at(part, params) for name, part in subject.sublosses.items()}


def _with_observables(probe: Probe, observed: Mapping[str, Problem]) -> Probe:
    """The probe as it is called for all others, with what it looks at bound to it."""
    if not probe.observes:
        return probe
    many = None if probe.measure_many is None else partial(probe.measure_many, observables=observed)
    return probe._replace(measure=partial(probe.measure, observables=observed), measure_many=many)


def _problem_mark(problem: Problem) -> tuple[str, str]:
    return fingerprint.of_tree(problem.data), fingerprint.of_loss(*problem)


def _failed(
    step: int, probes: Iterable[str], restrictions: list[str], sublosses: list[str], error: str
) -> Iterator[Cell]:
    for subloss in sublosses:
        for restriction in restrictions:
            for name in probes:
                yield Cell(name, step, restriction, subloss, None, error)


def _restriction_mark(restriction: Restriction | None, params: PyTree) -> str:
    if restriction is None:
        return WHOLE_NETWORK
    return fingerprint.of_function(lambda center: restriction.lift(center, restriction.origin(center)), params)


def _function_name(probe: Probe) -> str:
    return f"{probe.measure.__module__}.{probe.measure.__qualname__}"


def _check_names(argument: str, names: Iterable[str], known: Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{argument}: got {name!r}; the subject has {sorted(known)}.")
