"""From a study or a folder of checkpoints to an output folder: each part is done once, and what is done is kept."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from slt_jax import storage
from slt_jax.account import phases_of, settings_of, write_account
from slt_jax.report import write_report
from slt_jax.spectroscopy import (
    Cell,
    Checkpoint,
    CheckpointError,
    History,
    Probe,
    Subject,
    check_scan,
    check_together,
    choose_checkpoints,
    content,
    detect_phases,
    recorder_of,
    scan,
    select_restrictions,
    transitions,
)
from slt_jax.spectroscopy.recorder import measure
from slt_jax.spectroscopy.subject import WHOLE_LOSS, WHOLE_NETWORK, check_subject, parts
from slt_jax.spectroscopy.transitions import transitions_mark
from slt_jax.studies.study import Study, train, training_mark
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


def run_study(study: Study, out: Path, seed: int, reporter: Reporter, command: str = "") -> Outcome:
    """Train, record, find the phases, measure at chosen checkpoints and report.

    A folder that holds a part of this study already is gone on with: training is not repeated once its history is
    written, and no reading is taken twice.

    Args:
      study: What to do.
      out: Output folder.
      seed: The only source of randomness.
      reporter: Shows progress.
      command: How to do it again, for the report.

    Raises:
      ValueError: the study's losses break their contract, or the folder is not this study's (``FolderError``).
    """
    check_subject(study.subject)
    probes = {**study.probes, **study.whole_probes}
    check_scan(study.subject, study.probes, study.restrictions, study.sublosses)
    check_scan(study.subject, study.whole_probes, (WHOLE_NETWORK,), (WHOLE_LOSS,))
    identity = {"study": study.name, "seed": seed, "training": training_mark(study)}
    storage.claim(out, {**identity, **content(study.subject, probes)})
    train_key, scan_key = jax.random.split(jax.random.key(seed))
    history = storage.read_history(out)
    if history is None:
        history = _train(train_key, study, out, reporter)
    phases = detect_phases(history)
    folder = out / "checkpoints"
    checkpoints = storage.checkpoints_in(folder, study.subject.problem.params)
    steps = [checkpoint.step for checkpoint in checkpoints]
    exact = {}
    if study.exact is not None:
        at_plateaus = {min(steps, key=lambda step: abs(step - wanted)) for wanted in phases.plateaus}
        exact = _exact(study.exact, [point for point in checkpoints if point.step in at_plateaus])
    extra = {
        "title": study.title,
        "summary": study.summary,
        "expected_order": study.expected_order,
        "rankings": study.rankings,
        "command": command,
        "settings": settings_of(probes),
    }
    return _measure(
        scan_key,
        study.subject,
        checkpoints,
        [
            Scope(study.probes, study.restrictions, study.sublosses),
            Scope(study.whole_probes, (WHOLE_NETWORK,), (WHOLE_LOSS,)),
        ],
        out,
        reporter,
        history,
        exact,
        extra,
    )


def run_scan(
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
) -> Outcome:
    """Measure at every checkpoint of somebody's training run, and report.

    Args:
      subject: What is measured.
      folder: Orbax checkpoints, in folders named by their step.
      out: Output folder.
      seed: Of the chains.
      probes: By name.
      restrictions: Names, patterns, or groups, as for ``select_restrictions``; default all that the subject has.
      sublosses: Names; default all that the subject has.
      reporter: Shows progress.
      command: How to do it again, for the report.
      together: Restrictions of one shape that are measured side by side, as for ``scan``.

    Raises:
      ValueError: the subject breaks its contract, a name is unknown, there are no checkpoints, or the folder belongs
        to another study (``FolderError``).
    """
    check_subject(subject)
    check_together(together)
    selected, restrictions = select_restrictions(subject, restrictions)
    sublosses = list(sublosses or parts(subject))
    check_scan(selected, probes, restrictions, sublosses)
    checkpoints = storage.checkpoints_in(folder, subject.problem.params)
    identity = {"study": "scan", "checkpoints": str(folder.resolve()), "seed": seed}
    storage.claim(out, {**identity, **content(subject, probes)})
    history = _history_of(subject, checkpoints, reporter)
    if history is not None:
        storage.write_history(out, history)
    extra = {
        "title": f"Readings of {folder.resolve().name}",
        "summary": f"Every checkpoint in {folder.resolve()}, measured where it stands.",
        "expected_order": (),
        "command": command,
        "settings": settings_of(probes),
    }
    key = jax.random.split(jax.random.key(seed))[1]
    scopes = [Scope(probes, restrictions, sublosses)]
    return _measure(key, selected, checkpoints, scopes, out, reporter, history, {}, extra, together)


def _train(key: jax.Array, study: Study, out: Path, reporter: Reporter) -> History:
    kept: dict[int, Any] = {}
    recorder = recorder_of(study.subject, study.record_at)
    history = train(
        key, study, recorder, kept.__setitem__, lambda done, total: reporter("Training", done, total, f"step {done}")
    )
    chosen = choose_checkpoints(detect_phases(history), list(kept), study.budget)
    storage.save_checkpoints(out / "checkpoints", {step: kept[step] for step in chosen})
    # the history is written last: where it is, the training is complete
    storage.write_history(out, history)
    return history


def _exact(function: Callable[[Any], Truth | None], checkpoints: Sequence[Checkpoint]) -> dict[int, Truth]:
    """Exact values at the checkpoints that can be read."""
    known = {}
    for checkpoint in checkpoints:
        try:
            truth = function(checkpoint.load())
        except CheckpointError:
            continue  # named where its readings would stand
        if truth is not None:
            known[checkpoint.step] = truth
    return known


def _history_of(subject: Subject, checkpoints: Sequence[Checkpoint], reporter: Reporter) -> History | None:
    """Losses and concepts at the checkpoints themselves, where they can be read."""
    steps, losses, concepts = [], [], []
    recorder = recorder_of(subject, np.array([0]))
    measured = jax.jit(lambda params: measure(recorder, params))
    for index, checkpoint in enumerate(checkpoints):
        reporter("Losses", index + 1, len(checkpoints), f"step {checkpoint.step}")
        try:
            params = checkpoint.load()
        except CheckpointError:
            continue  # named where its readings would stand
        loss, concept = measured(params)
        steps.append(checkpoint.step)
        losses.append(loss)
        concepts.append(concept)
    if not steps:
        return None
    return History(np.array(steps), _stacked(losses), _stacked(concepts))


def _stacked(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def _measure(
    key: jax.Array,
    subject: Subject,
    checkpoints: Sequence[Checkpoint],
    scopes: Sequence[Scope],
    out: Path,
    reporter: Reporter,
    history: History | None,
    exact: Mapping[int, Truth],
    extra: Mapping[str, Any],
    together: int | None = None,
) -> Outcome:
    cells: list[Cell] = []
    total = sum(len(checkpoints) * len(one.probes) * len(one.restrictions) * len(one.sublosses) for one in scopes)
    finished = storage.FinishedReadings(out)
    dims = {name: probe.dims for one in scopes for name, probe in one.probes.items()}
    try:
        for probes, restrictions, sublosses in scopes:
            where: dict[str, Any] = dict(restrictions=restrictions, sublosses=sublosses, together=together)
            for cell in scan(key, subject, checkpoints, probes, finished=finished, **where):
                cells.append(cell)
                place = f"{cell.probe} at step {cell.step}, {cell.restriction}, {cell.subloss}"
                reporter("Measuring", len(cells), total, place)
    finally:
        # also after Ctrl-C: what is finished is readable
        if cells:
            storage.write_readings(out, cells, exact, dims)
    _locate(key, subject, checkpoints, out, reporter, history)
    reporter("Reporting", 0, 1)
    write_account(out, history, cells, exact, extra)
    report = write_report(out)
    reporter("Reporting", 1, 1)
    return _outcome(report, cells)


def _locate(
    key: jax.Array,
    subject: Subject,
    checkpoints: Sequence[Checkpoint],
    out: Path,
    reporter: Reporter,
    history: History | None,
) -> None:
    """Where each transition lives, unless the folder says so already."""
    phases = phases_of(history)[1]
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
