"""Points probes at checkpoints: one cell for each (probe, step, restriction, subloss), each resumable by itself."""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import NamedTuple

import jax
import numpy as np

from slt_jax.compiled import make_room
from slt_jax.problem import Problem
from slt_jax.restriction import Restriction
from slt_jax.sampling import check_key
from slt_jax.spectroscopy import fingerprint
from slt_jax.spectroscopy.probes import Probe, Reading
from slt_jax.spectroscopy.subject import WHOLE_NETWORK, Subject, parts, problem_at
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

    Yields:
      Cells, checkpoint by checkpoint. A checkpoint or a problem that cannot be used yields cells with an ``error``.

    Raises:
      ValueError: as ``check_scan``, or the key is not a typed key.
    """
    check_key(key)
    finished = {} if finished is None else finished
    restrictions, sublosses = list(restrictions), list(sublosses)
    check_scan(subject, probes, restrictions, sublosses)
    free: dict[str, Restriction | None] = {WHOLE_NETWORK: None, **subject.restrictions}
    part_of = parts(subject)
    for checkpoint in checkpoints:
        try:
            params = checkpoint.load()
        except CheckpointError as error:
            yield from _failed(checkpoint.step, probes, restrictions, sublosses, str(error))
            continue
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
                fingerprint.of_tree(problem.data),
                fingerprint.of_loss(*problem),
                np.asarray(jax.random.key_data(key)).tolist(),
            )
            for restriction in restrictions:
                for name, probe in probes.items():
                    place = (name, checkpoint.step, restriction, subloss)
                    mark = fingerprint.of_text(
                        content,
                        place,
                        _restriction_mark(free[restriction], problem.params),
                        _function_name(probe),
                        sorted(probe.settings.items()),
                    )
                    yield _cell(place, mark, finished, key, probe, problem, free[restriction])


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
    for probe in probes.values():
        for part in (part_of[name] for name in names):
            if probe.check is not None:
                probe.check(Problem(part.loss_fn, subject.problem.params, part.data), **probe.settings)


def _cell(
    place: tuple[str, int, str, str],
    mark: str,
    finished: MutableMapping[str, Reading],
    key: Key,
    probe: Probe,
    problem: Problem,
    restriction: Restriction | None,
) -> Cell:
    known = finished.get(mark)
    if known is not None:
        return Cell(*place, known, None)
    make_room()
    # an integer from the place, so that neither order nor other cells change the key
    cell_key = jax.random.fold_in(key, int(fingerprint.of_text(place)[:8], 16))
    try:
        reading = probe.measure(cell_key, problem, restriction, **probe.settings)
    except ValueError as error:
        return Cell(*place, None, str(error))
    finished[mark] = reading
    return Cell(*place, reading, None)


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
