"""Points probes at checkpoints, writes what they read, and reports: the end of every study and scan."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax

from slt_jax import storage, ticking
from slt_jax.account import phases_of, write_account
from slt_jax.development import compared_pairs
from slt_jax.report import write_report
from slt_jax.spectroscopy import (
    Cell,
    Checkpoint,
    History,
    Phases,
    Probe,
    Subject,
    loss_changes,
    more_checkpoints,
    relations,
    scan,
    transitions,
)
from slt_jax.spectroscopy.boundary_readings import whole_readings
from slt_jax.spectroscopy.relations import relations_mark
from slt_jax.spectroscopy.transitions import transitions_mark
from slt_jax.truths.truth import Truth


class Reporter(Protocol):
    """Shows what is being done: ``reporter(stage, done, total, detail)``."""

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None: ...


class Scope(NamedTuple):
    """Probes, and where they are pointed: names of restrictions and of sublosses."""

    probes: Mapping[str, Probe]
    restrictions: Sequence[str]
    sublosses: Sequence[str]


class Outcome(NamedTuple):
    """What came of a run.

    Attributes:
      report: The report that was written.
      unhealthy: Cells whose verdict is not green, as ``(place, explanation)``.
      failed: Cells without a reading, as ``(place, reason)``.
      readings: Number of readings.
    """

    report: Path
    unhealthy: list[tuple[str, str]]
    failed: list[tuple[str, str]]
    readings: int

    @property
    def exit_code(self) -> int:
        """0 when every reading is there and healthy, else 1."""
        return 1 if self.unhealthy or self.failed else 0


def measure_and_report(
    key: jax.Array,
    subject: Subject,
    checkpoints: Sequence[Checkpoint],
    scopes: Sequence[Scope],
    out: Path,
    reporter: Reporter,
    history: History | Callable[[], History | None] | None,
    exact: Mapping[int, Truth],
    extra: Mapping[str, Any],
    together: int | None = None,
    spare: Sequence[Checkpoint] = (),
    more: int = 0,
) -> Outcome:
    """Take every reading that is missing in a folder, find where its transitions live, and write the report.

    A second pass adds checkpoints one by one, each where the readings so far disagree most (``more_checkpoints``).

    Args:
      key: Of the chains.
      subject: What is measured.
      checkpoints: Where.
      scopes: With which probes, in which restrictions, on which sublosses.
      out: The folder, claimed before.
      reporter: Shows progress.
      history: Losses and concepts by step, where there are any; or a function that gives them when all checkpoints have
        been loaded.
      exact: Exactly known values by step.
      extra: Title, summary and other entries of ``study.json``.
      together: As for ``scan``.
      spare: Checkpoints that may be added.
      more: The most that are.
    """
    cells: list[Cell] = []
    taken = list(checkpoints)
    each = sum(len(one.probes) * len(one.restrictions) * len(one.sublosses) for one in scopes)
    finished = storage.FinishedReadings(out)
    dims = {name: probe.dims for one in scopes for name, probe in one.probes.items()}

    def waiting(holder: str) -> None:
        reporter("Measuring", len(cells), len(taken) * each, f"waiting for {holder}, which is at this checkpoint")

    def tell(done: int, of: int) -> None:
        reporter("Measuring", len(cells), len(taken) * each, f"{100 * done // of} % of {of} gradients of the next")

    def measure(points: Sequence[Checkpoint]) -> None:
        for probes, restrictions, sublosses in scopes:
            where: dict[str, Any] = {"restrictions": restrictions, "sublosses": sublosses, "finished": finished}
            where |= {"together": together, "running": storage.RunningReadings(out)}
            for point in points:
                with storage.at_checkpoint(out, point.step, waiting), ticking.listening(tell):
                    for cell in scan(key, subject, [point], probes, **where):
                        cells.append(cell)
                        place = f"{cell.probe} at step {cell.step}, {cell.restriction}, {cell.subloss}"
                        reporter("Measuring", len(cells), len(taken) * each, place)

    try:
        measure(taken)
        for _ in range(more):
            wanted = more_checkpoints(whole_readings(cells), [point.step for point in spare], 1)
            if not wanted:
                break
            added = [point for point in spare if point.step in wanted]
            taken += added
            measure(added)
    finally:
        # also after Ctrl-C: what is finished is readable
        if cells:
            storage.write_readings(out, cells, exact, dims)
        known = history() if callable(history) else history
    points = sorted(taken, key=lambda point: point.step)
    extra = {**extra, "added": sorted(point.step for point in taken[len(checkpoints) :])}
    return publish(key, subject, points, cells, out, reporter, known, exact, extra)


def publish(
    key: jax.Array,
    subject: Subject,
    checkpoints: Sequence[Checkpoint],
    cells: Sequence[Cell],
    out: Path,
    reporter: Reporter,
    history: History | None,
    exact: Mapping[int, Truth],
    extra: Mapping[str, Any],
) -> Outcome:
    """Find where the transitions of a history live, at these checkpoints, and write ``study.json`` and the report.

    Args:
      cells: All readings, written already.
      key, subject, checkpoints, out, reporter, history, exact, extra: As for ``measure_and_report``; with no
        checkpoints nothing is located.
    """
    history, phases = phases_of(history)
    if checkpoints:
        _locate(key, subject, checkpoints, out, reporter, phases)
        _relate(subject, checkpoints, out, reporter, phases)
    changes = _changes(subject, checkpoints, cells, phases, reporter, bool(extra.get("complete", False)))
    reporter("Reporting", 0, 1)
    write_account(out, history, phases, cells, exact, extra, changes)
    report = write_report(out)
    reporter("Reporting", 1, 1)
    return _outcome(report, cells)


def _locate(
    key: jax.Array,
    subject: Subject,
    checkpoints: Sequence[Checkpoint],
    out: Path,
    reporter: Reporter,
    phases: Phases | None,
) -> None:
    """Where each transition lives, unless the folder says so already."""
    if phases is None or not len(phases.transitions):
        return
    mark = transitions_mark(key, subject, phases, checkpoints)
    if storage.read_transitions(out, mark) is not None:
        return
    found = []
    for transition in transitions(key, subject, phases, checkpoints):
        found.append(transition)
        reporter("Locating", len(found), len(phases.transitions), f"transition at step {transition.step}")
    storage.write_transitions(out, found, mark)


def _changes(
    subject: Subject,
    checkpoints: Sequence[Checkpoint],
    cells: Sequence[Cell],
    phases: Phases | None,
    reporter: Reporter,
    complete: bool,
) -> dict[str, dict[tuple[int, int], tuple[float, float]]]:
    """By how much every loss changes between the checkpoints of neighbouring phases, where they are still there."""
    there = {point.step for point in checkpoints}
    pairs = [] if phases is None else [pair for pair in compared_pairs(phases, cells) if set(pair) <= there]
    if not pairs:
        return {}
    return loss_changes(
        subject,
        checkpoints,
        pairs,
        complete=complete,
        progress=lambda done, total: reporter("Comparing", done, total, "losses of neighbouring phases"),
    )


def _relate(
    subject: Subject, checkpoints: Sequence[Checkpoint], out: Path, reporter: Reporter, phases: Phases | None
) -> None:
    """Which phases refine, or were built on, which, unless the folder says so already."""
    if phases is None or not len(phases.transitions):
        return
    mark = relations_mark(subject, phases, checkpoints)
    if storage.read_relations(out, mark) is None:
        reporter("Relating", 0, 1)
        storage.write_relations(out, relations(subject, phases, checkpoints), mark)
        reporter("Relating", 1, 1)


def _outcome(report: Path, cells: Sequence[Cell]) -> Outcome:
    def place(cell: Cell) -> str:
        return f"{cell.probe} at step {cell.step}, {cell.restriction}, {cell.subloss}"

    measured = [(cell, cell.reading) for cell in cells if cell.reading is not None]
    return Outcome(
        report=report,
        unhealthy=[(place(cell), str(reading["explanation"])) for cell, reading in measured if not reading["healthy"]],
        failed=[(place(cell), cell.error) for cell in cells if cell.error is not None],
        readings=len(measured),
    )
