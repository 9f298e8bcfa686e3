"""From a study or a folder of checkpoints to an output folder: each part is done once, and what is done is kept."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from slt_jax import storage
from slt_jax.account import settings_of
from slt_jax.loss import example_count
from slt_jax.measuring import Outcome, Reporter, Scope, measure_and_report
from slt_jax.spectroscopy import (
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
    select_restrictions,
)
from slt_jax.spectroscopy.recorder import Recorder, joined, row_of
from slt_jax.spectroscopy.subject import WHOLE_LOSS, WHOLE_NETWORK, check_subject, parts
from slt_jax.studies.study import Study, train, training_mark
from slt_jax.truths.truth import Truth
from slt_jax.types import PyTree

#: Checkpoints kept on disk beside each that is measured at first, where a second pass may add some: its gap on one side
#: can be halved twice.
_CANDIDATES = 3
#: Characters of the source in the title of a report: a published model may be named with a hundred revisions.
_TITLE = 60


def run_study(study: Study, out: Path, seed: int, reporter: Reporter, command: str = "") -> Outcome:
    """Train, record, find the phases, measure at chosen checkpoints, and where their readings disagree, and report.

    A folder that holds a part of this study already is gone on with: training is not repeated once its history is
    written, and no reading is taken twice.

    Args:
      study: What to do.
      out: Output folder.
      seed: The only source of randomness.
      reporter: Shows progress.
      command: How to do it again, for the report.

    Raises:
      ValueError: the study's losses break their contract, its budgets are out of range, or the folder is not this
        study's (``FolderError``).
    """
    check_subject(study.subject)
    if study.more < 0:
        raise ValueError(f"more: got {study.more}; it must not be negative.")
    probes = {**study.probes, **study.whole_probes}
    check_scan(study.subject, study.probes, study.restrictions, study.sublosses)
    check_scan(study.subject, study.whole_probes, (WHOLE_NETWORK,), (WHOLE_LOSS,))
    identity = {"study": study.name, "seed": seed, "training": training_mark(study)}
    with storage.claimed(out, {**identity, **content(study.subject, probes)}):
        return _run_study(study, out, seed, probes, reporter, command)


def _run_study(
    study: Study, out: Path, seed: int, probes: Mapping[str, Probe], reporter: Reporter, command: str
) -> Outcome:
    train_key, scan_key = jax.random.split(jax.random.key(seed))
    history = storage.read_history(out)
    if history is None:
        history = _train(train_key, study, out, reporter)
    phases = detect_phases(history)
    folder = out / "checkpoints"
    kept = storage.checkpoints_in(folder, study.subject.problem.params)
    # the first are the same whether they are chosen among all of training or among the candidates on disk
    steps = choose_checkpoints(phases, [checkpoint.step for checkpoint in kept], study.budget)
    checkpoints = [checkpoint for checkpoint in kept if checkpoint.step in steps]
    exact = {}
    if study.exact is not None:
        at_plateaus = {min(steps, key=lambda step: abs(step - wanted)) for wanted in phases.plateaus}
        exact = _exact(study.exact, [point for point in checkpoints if point.step in at_plateaus])
    extra = {
        "title": study.title,
        "summary": study.summary,
        "expected_order": study.expected_order,
        "rankings": study.rankings,
        "complete": study.complete,
        "examples": None if study.complete else example_count(study.subject.problem.data),
        "command": command,
        "settings": settings_of(probes),
    }
    return measure_and_report(
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
        spare=[checkpoint for checkpoint in kept if checkpoint.step not in steps],
        more=study.more,
    )


def run_scan(
    subject: Subject,
    checkpoints: Sequence[Checkpoint],
    source: str,
    out: Path,
    seed: int,
    probes: Mapping[str, Probe],
    restrictions: Sequence[str] | None,
    sublosses: Sequence[str] | None,
    reporter: Reporter,
    command: str = "",
    together: int | None = None,
    elsewhere: Callable[["ScanPlan"], None] | None = None,
) -> Outcome:
    """Measure at every checkpoint of somebody's training run, and report.

    Args:
      subject: What is measured.
      checkpoints: Where, in the order of their steps.
      source: What they are checkpoints of: a folder, or the name of a published model.
      out: Output folder.
      seed: Of the chains.
      probes: By name.
      restrictions: Names, patterns, or groups, as for ``select_restrictions``; default all that the subject has.
      sublosses: Names; default all that the subject has.
      reporter: Shows progress.
      command: How to do it again, for the report.
      together: Restrictions of one shape that are measured side by side, as for ``scan``.
      elsewhere: ``elsewhere(plan)`` is called first, and puts readings into the folder that other processes take.

    Raises:
      ValueError: the subject breaks its contract, a name is unknown, or the folder belongs to another study, another
        process writes to it, or its disk is full (``FolderError``).
    """
    plan = plan_scan(subject, source, seed, probes, restrictions, sublosses, command, together)
    with storage.claimed(out, plan.identity):
        if elsewhere is not None:
            elsewhere(plan)
        return _run_scan(plan, checkpoints, out, reporter, together)


def _run_scan(
    plan: "ScanPlan", checkpoints: Sequence[Checkpoint], out: Path, reporter: Reporter, together: int | None
) -> Outcome:
    rows: dict[int, History] = {}

    def history() -> History | None:
        if not rows:
            return None
        found = joined([rows[step] for step in sorted(rows)])
        storage.write_history(out, found)
        return found

    noted = [_noted(checkpoint, plan.recorder, rows) for checkpoint in checkpoints]
    return measure_and_report(
        plan.key, plan.subject, noted, [plan.scope], out, reporter, history, {}, plan.extra, together
    )


class ScanPlan(NamedTuple):
    """A scan whose input is sound.

    Attributes:
      identity: By which its folder is known.
      key: Of the chains.
      subject: With the restrictions that were selected.
      recorder: Of the losses, concepts and observations at a checkpoint.
      scope: Probes, and where they are pointed.
      extra: Title, summary and other entries of ``study.json``.
    """

    identity: dict[str, Any]
    key: jax.Array
    subject: Subject
    recorder: Recorder
    scope: Scope
    extra: dict[str, Any]


def plan_scan(
    subject: Subject,
    source: str,
    seed: int,
    probes: Mapping[str, Probe],
    restrictions: Sequence[str] | None,
    sublosses: Sequence[str] | None,
    command: str,
    together: int | None,
) -> ScanPlan:
    """Check everything that a scan is given, as for ``run_scan``; nothing is written.

    Raises:
      ValueError: as ``run_scan``.
    """
    check_subject(subject)
    check_together(together)
    selected, restrictions = select_restrictions(subject, restrictions)
    sublosses = list(sublosses or parts(subject))
    check_scan(selected, probes, restrictions, sublosses)
    recorder = recorder_of(subject, np.array([0]))
    identity = {"study": "scan", "checkpoints": source, "seed": seed, **content(subject, probes)}
    extra = {
        "title": f"Readings of {source.rpartition('/')[2][:_TITLE]}",
        "summary": f"Every checkpoint in {source}, measured where it stands.",
        "expected_order": (),
        "command": command,
        "settings": settings_of(probes),
        "examples": example_count(subject.problem.data),
    }
    key = jax.random.split(jax.random.key(seed))[1]
    return ScanPlan(identity, key, selected, recorder, Scope(probes, restrictions, sublosses), extra)


def _noted(checkpoint: Checkpoint, recorder: Recorder, rows: dict[int, History]) -> Checkpoint:
    """The checkpoint, with its losses and concepts put among the rows when it is loaded for the first time."""

    def load() -> PyTree:
        params = checkpoint.load()
        if checkpoint.step not in rows:
            rows[checkpoint.step] = row_of(recorder, checkpoint.step, params)
        return params

    return Checkpoint(checkpoint.step, load)


def _train(key: jax.Array, study: Study, out: Path, reporter: Reporter) -> History:
    kept: dict[int, Any] = {}
    recorder = recorder_of(study.subject, study.record_at)
    history = train(
        key, study, recorder, kept.__setitem__, lambda done, total: reporter("Training", done, total, f"step {done}")
    )
    spare = _CANDIDATES * study.budget if study.more else 0
    chosen = choose_checkpoints(detect_phases(history), list(kept), study.budget, spare)
    storage.remove_leftovers(out / "checkpoints")
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
