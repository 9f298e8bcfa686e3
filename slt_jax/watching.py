"""Follows a training that still runs: every checkpoint is measured once it is whole, and the report grows with it."""

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from slt_jax import storage
from slt_jax.measuring import Outcome, Reporter, publish
from slt_jax.spectroscopy import Cell, Checkpoint, CheckpointError, History, Probe, Subject, fingerprint, scan
from slt_jax.spectroscopy.recorder import joined, row_of
from slt_jax.types import PyTree
from slt_jax.workflow import ScanPlan, plan_scan

#: Seconds without a new checkpoint after which a training is taken to have ended.
PATIENCE = 3600.0
#: Seconds between two looks at the folder; a checkpoint is read when it is the same at two of them.
POLL = 2.0
#: The report is written again when measuring has taken so many times what writing it takes.
_SELDOM = 10.0


class _Seen(NamedTuple):
    """What is known so far, by step; written to as it grows.

    Attributes:
      rows: Losses, concepts and observations at each checkpoint.
      cells: Readings, or why there are none.
      states: Of the files of a checkpoint when it was measured.
      glances: The same at the last look.
      foreign: Checkpoints of another tree.
    """

    rows: dict[int, History]
    cells: dict[int, list[Cell]]
    states: dict[int, tuple]
    glances: dict[int, tuple]
    foreign: set[int]


class _Place(NamedTuple):
    """From where, with what, to where."""

    plan: ScanPlan
    subject: Subject
    folder: Path
    out: Path
    mark: str
    together: int | None


def run_watch(
    subject: Subject,
    folder: Path,
    out: Path,
    seed: int,
    probes: Mapping[str, Probe],
    restrictions: Sequence[str] | None,
    sublosses: Sequence[str] | None,
    reporter: Reporter,
    command: str = "",
    together: int | None = None,
    *,
    until: int | None = None,
    patience: float = PATIENCE,
    poll: float = POLL,
) -> Outcome:
    """Measure the checkpoints of a training run while it goes on, and report.

    Nothing is written to the folder of the training and nothing in it is locked. A checkpoint is read when it is whole,
    by Orbax's own marks, and has not changed between two looks; one that changes while it is read is read again.
    Readings are those that ``run_scan`` takes of the finished folder, to the last bit, whenever either process is
    killed and started again. What was measured at a checkpoint that has been removed since is kept.

    Args:
      subject, seed, probes, restrictions, sublosses, reporter, command, together: As for ``run_scan``.
      folder: Where the training writes its checkpoints; it may be empty, or not there yet.
      out: Output folder, outside of it.
      until: Ends when a checkpoint of this step, or a later one, is measured, and all before it; default never.
      patience: Ends when nothing changed in the folder for so many seconds.
      poll: Seconds between two looks.

    Returns:
      What came of it. Ctrl-C ends the watch too, with a report of what there is. Where ``until`` was not reached that
      is named among what failed.

    Raises:
      ValueError: as ``run_scan``; ``out`` lies in the folder; the folder above does not exist; no checkpoint came
        within the patience; all checkpoints are of another network.
    """
    check_watch(folder, out, until, patience, poll)
    plan = plan_scan(subject, str(folder.resolve()), seed, probes, restrictions, sublosses, command, together)
    with storage.claimed(out, plan.identity):
        return _watch(_Place(plan, subject, folder, out, _mark(plan), together), reporter, until, patience, poll)


def _watch(place: _Place, reporter: Reporter, until: int | None, patience: float, poll: float) -> Outcome:
    subject, folder, out = place.subject, place.folder, place.out
    before = storage.read_watched(out, place.mark)
    rows, cells = {step: row for step, (row, _) in before.items()}, {step: cells for step, (_, cells) in before.items()}
    seen = _Seen(rows, cells, {}, {}, set())
    try:
        _follow(place, seen, reporter, until, patience, poll)
    except KeyboardInterrupt:
        if not seen.states:
            raise
        # the reporter would stop this too
        return _with_end(_write(place, seen, [], _silent), until, seen, "stopped before it was reached")
    if not seen.cells:
        raise ValueError(
            f"checkpoints: {folder} held no whole checkpoint within {patience:g} s; look whether the training writes "
            "there, or wait longer with --patience."
        )
    _give_up(place, seen, patience)
    there = storage.checkpoints_in(folder, subject.problem.params) if seen.glances else []
    there = [one for one in there if one.step in seen.states]
    why = f"not reached: nothing changed in {folder} for {patience:g} s"
    return _with_end(_write(place, seen, there, reporter), until, seen, why)


def check_watch(folder: Path, out: Path, until: int | None, patience: float, poll: float) -> None:
    """Refuse a watch that could not begin, could not end, or would disturb.

    Raises:
      ValueError: naming the argument.
    """
    if not folder.exists() and not folder.parent.is_dir():
        raise ValueError(f"checkpoints: {folder.parent} does not exist; pass the folder that the training writes to.")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"checkpoints: {folder} is a file; pass the folder that the training writes to.")
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"--out: {out} lies in {folder}, where the training writes; choose a folder outside.")
    if until is not None and until < 0:
        raise ValueError(f"--until: got {until}; it is a training step, counted from 0.")
    for name, seconds in (("patience", patience), ("poll", poll)):
        if not (seconds > 0 and math.isfinite(seconds)):
            raise ValueError(f"--{name}: got {seconds}; it is a number of seconds above 0.")


def _follow(place: _Place, seen: _Seen, reporter: Reporter, until: int | None, patience: float, poll: float) -> None:
    """Measure what is whole, look again, until the end."""
    idle, looked, measuring, writing = time.monotonic(), -math.inf, 0.0, 0.0
    while True:
        # two looks are never closer: a copy that pauses for less has not ended
        time.sleep(max(0.0, looked + poll - time.monotonic()))
        before, looked = dict(seen.glances), time.monotonic()
        ready = _look(place.folder, seen)
        if seen.glances != before:
            idle = time.monotonic()
        for number, (step, path) in enumerate(ready.items(), start=1):
            reporter("Watching", len(seen.states), len(seen.states) + len(ready) - number + 1, f"step {step}")
            begin = time.monotonic()
            _measure(place, seen, step, path)
            idle = time.monotonic()
            measuring += idle - begin
            if seen.cells and (number == len(ready) or measuring > _SELDOM * writing):
                _write(place, seen, [], _silent)
                measuring, writing = 0.0, time.monotonic() - idle
        if seen.states and set(seen.states) == seen.foreign:
            first = min(seen.foreign)
            raise ValueError(f"{seen.cells[first][0].error} Pass the problem whose checkpoints these are.")
        pending = any(state != seen.states.get(step) for step, state in seen.glances.items())
        reached = until is not None and max(seen.states, default=-1) >= until
        if (reached and not pending) or time.monotonic() - idle > patience:
            return
        if not ready:
            what = "is not there yet" if not place.folder.is_dir() else "has no new checkpoint"
            reporter("Watching", len(seen.states), len(seen.states) + 1, f"waiting: {place.folder} {what}")


def _look(folder: Path, seen: _Seen) -> dict[int, Path]:
    """Checkpoints that are whole, the same as at the last look, and not measured as they are; notes what is there."""
    there = storage.find_checkpoints(folder) if folder.is_dir() else {}
    glances = {step: storage.state_of(path) for step, path in there.items()}
    ready = {
        step: there[step]
        for step, state in glances.items()
        if state == seen.glances.get(step) and state != seen.states.get(step) and storage.is_complete(there[step])
    }
    seen.glances.clear()
    seen.glances.update(glances)
    return ready


def _measure(place: _Place, seen: _Seen, step: int, path: Path) -> None:
    """Read a checkpoint and take all readings; nothing where it changed, or went, while it was read."""
    failure: CheckpointError | None = None
    try:
        params = storage.load_checkpoint(path, place.subject.problem.params)
    except CheckpointError as error:
        failure = error
    if storage.state_of(path) != seen.glances[step] or not path.exists():
        return

    def load() -> PyTree:
        if failure is not None:
            raise failure
        return params

    cells = _scanned(place, Checkpoint(step, load))
    seen.cells[step], seen.states[step] = cells, seen.glances[step]
    seen.foreign.discard(step)
    if failure is None:
        seen.rows[step] = row_of(place.plan.recorder, step, params)
        storage.write_watched(place.out, place.mark, seen.rows[step], cells)
    else:
        seen.rows.pop(step, None)
        if isinstance(failure, storage.OtherTreeError):
            seen.foreign.add(step)


def _give_up(place: _Place, seen: _Seen, patience: float) -> None:
    """Name the checkpoints that never became whole, and forget those that could not be read and are gone."""
    for step in sorted(set(seen.glances) - set(seen.states)):
        error = f"checkpoint {step}: is not whole, and nothing changed in it for {patience:g} s."
        seen.cells[step] = _scanned(place, Checkpoint(step, partial(_refuse, error)))
    for step in sorted(set(seen.cells) - set(seen.glances)):
        if not any(cell.reading is not None for cell in seen.cells[step]):
            del seen.cells[step]


def _refuse(error: str) -> PyTree:
    raise CheckpointError(error)


def _scanned(place: _Place, checkpoint: Checkpoint) -> list[Cell]:
    probes, restrictions, sublosses = place.plan.scope
    where: dict[str, Any] = {"restrictions": restrictions, "sublosses": sublosses, "together": place.together}
    where |= {"finished": storage.FinishedReadings(place.out), "running": storage.RunningReadings(place.out)}
    return list(scan(place.plan.key, place.plan.subject, [checkpoint], probes, **where))


def _write(place: _Place, seen: _Seen, there: Sequence[Checkpoint], reporter: Reporter) -> Outcome:
    """Readings, history and report of all that is known; transitions are located at the checkpoints given."""
    plan, out = place.plan, place.out
    cells = [cell for step in sorted(seen.cells) for cell in seen.cells[step]]
    storage.write_readings(out, cells, {}, {name: probe.dims for name, probe in plan.scope.probes.items()})
    history = joined([seen.rows[step] for step in sorted(seen.rows)]) if seen.rows else None
    if history is not None:
        storage.write_history(out, history)
    gone = sorted(set(seen.rows) - set(seen.glances))
    extra = {**plan.extra, "checkpoints removed after they were measured": gone} if gone else plan.extra
    return publish(plan.key, plan.subject, there, cells, out, reporter, history, {}, extra)


def _with_end(outcome: Outcome, until: int | None, seen: _Seen, why: str) -> Outcome:
    if until is None or max(seen.states, default=-1) >= until:
        return outcome
    return outcome._replace(failed=[*outcome.failed, (f"step {until}", why)])


def _mark(plan: ScanPlan) -> str:
    """What readings depend on beside the study that the folder belongs to: this code, and where probes are pointed."""
    probes, restrictions, sublosses = plan.scope
    return fingerprint.of_text(fingerprint.of_package(), jax.__version__, sorted(probes), restrictions, sublosses)


def _silent(stage: str, done: int, total: int, detail: str = "") -> None:
    del stage, done, total, detail
