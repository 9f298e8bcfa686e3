"""A scan whose checkpoints are measured in other processes: any executor runs one plain function for each."""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax

from slt_jax import spectroscopy, storage
from slt_jax.measuring import Outcome, Reporter
from slt_jax.pretrained_scan import pretrained_scan
from slt_jax.spectroscopy import Checkpoint, Probe, Subject, fingerprint, scan
from slt_jax.spectroscopy.subject import as_subject
from slt_jax.user_code import call_user
from slt_jax.workflow import ScanPlan, plan_scan, run_scan

#: Seconds between two looks at what the workers have finished.
_POLL = 0.1
#: The working directory is of the process, threads of a worker share it.
_MAKING = threading.Lock()


class WorkerError(ValueError):
    """Workers that could not do their part: what they finished is kept."""


class Executor(Protocol):
    """``concurrent.futures.Executor``, or what submits in its way: Dask's, submitit's, MPI's."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        """Start ``function(*arguments)`` somewhere; returns what has ``done``, ``result`` and ``cancel``."""
        ...


class ScanRequest(NamedTuple):
    """A scan in plain values, as other processes and other machines can be told it.

    Attributes:
      checkpoints: A folder of Orbax checkpoints by step, or ``hf:MODEL``.
      out: Output folder, which all workers see under this name.
      problem: ``PKG.MOD:FUNC``, whose checkpoints these are, as at the command line; ``None`` for ``hf:MODEL``.
      probes: Their settings by the name of the probe: ``{"llc": {"draws": 500}}`` is ``llc_probe(draws=500)``.
      restrictions, sublosses, seed, together: As for ``run_scan``.
      language: ``text``, ``sequences``, ``context`` and ``tokenizer`` of ``hf:MODEL``.
      directory: Where ``PKG.MOD`` is imported, and where relative names begin; default the current one.
    """

    checkpoints: str
    out: str
    problem: str | None = None
    probes: Mapping[str, Mapping[str, float | int | None]] = {"llc": {}}
    restrictions: Sequence[str] | None = None
    sublosses: Sequence[str] | None = None
    seed: int = 0
    together: int | None = None
    language: Mapping[str, str | int] = {}
    directory: str = ""


def run_request(
    request: ScanRequest, executor: Executor | None = None, reporter: Reporter | None = None, command: str = ""
) -> Outcome:
    """``run_scan`` of a request, with the readings taken by the workers of an executor.

    Each task is one checkpoint. A worker makes the problem from the user's own module, once, and puts every reading
    into the folder by itself, as soon as it exists; nothing but plain text goes over the wire. When all are back the
    readings are put together here. They are those of the same scan in one process on the same hardware, to the last
    bit; none is taken twice, and after the death of any process the same call goes on from what is finished.

    Args:
      request: What is measured, in plain values.
      executor: Of ``concurrent.futures``, or one that submits alike: ``ProcessPoolExecutor`` with the context
        ``"spawn"`` (JAX does not survive a fork), ``distributed.Client(...).get_executor()``,
        ``submitit.AutoExecutor``, ``mpi4py.futures.MPIPoolExecutor``; ``None`` for this process. Workers on other
        machines need the same environment and the same files under the same names.
      reporter: Shows progress.
      command: How to do it again, for the report.

    Raises:
      ValueError: as ``run_scan``; a probe is unknown, or has no such setting.
      WorkerError: a worker died, cannot see the files, or is of another environment; each is named with the remedy.

    Not to be believed where workers have other hardware: readings are then as right, and not the same to the last bit.

    >>> from slt_jax.fanout import ScanRequest, run_request
    >>> run_request(ScanRequest("checkpoints", "readings", "mine.run:problem", {"magic": {}}))
    Traceback (most recent call last):
        ...
    ValueError: probes: got 'magic'; slt_jax.spectroscopy has no magic_probe.
    """
    tell = _silent if reporter is None else reporter
    request = _placed(request)
    probes = _probes(request)
    subject, checkpoints, source = _made(request)
    steps = [point.step for point in checkpoints]
    elsewhere = None if executor is None else partial(_fan_out, executor, request, steps, tell)
    where = (Path(request.out), request.seed, probes, request.restrictions, request.sublosses)
    return run_scan(subject, checkpoints, source, *where, tell, command, request.together, elsewhere)


def measure_checkpoint(work: str, step: int) -> tuple[int, str]:
    """What a worker does: all readings of a scan at one checkpoint, put into its folder.

    Args:
      work: A ``ScanRequest`` with what must be the same here as where it was made, as JSON.
      step: Of the checkpoint.

    Returns:
      How many cells there are, and who this is.

    Raises:
      WorkerError: this process cannot see the files, or would measure something else.
    """
    told = json.loads(work)
    request = ScanRequest(**told["request"])
    here = storage.holder()
    try:
        _check_environment(told)
        with _MAKING:
            plan, checkpoints = _planned(work)
    except ValueError as error:
        raise WorkerError(f"{here}: {error}") from error
    _check_identity(told["identity"], plan, request, here)
    if step not in checkpoints:
        raise WorkerError(f"{here}: sees no checkpoint {step} in {request.checkpoints}; it needs the same files.")
    out = Path(request.out)
    probes, restrictions, sublosses = plan.scope
    where: dict[str, Any] = {"restrictions": restrictions, "sublosses": sublosses, "together": request.together}
    where |= {"running": storage.RunningReadings(out)}
    with storage.at_checkpoint(out, step, lambda holder: None):
        finished = storage.FinishedReadings(out)
        cells = sum(1 for _ in scan(plan.key, plan.subject, [checkpoints[step]], probes, finished=finished, **where))
    return cells, here


def _fan_out(
    executor: Executor, request: ScanRequest, steps: Sequence[int], reporter: Reporter, plan: ScanPlan
) -> None:
    """All checkpoints to the workers, and back."""
    work = json.dumps({"request": request._asdict(), "identity": plan.identity, **_environment()}, sort_keys=True)
    each = len(plan.scope.probes) * len(plan.scope.restrictions) * len(plan.scope.sublosses)
    done, pending = 0, []
    try:
        pending = [executor.submit(measure_checkpoint, work, step) for step in steps]
        reporter("Measuring", 0, each * len(steps), f"{len(steps)} checkpoints, by workers")
        while pending:
            ready = [future for future in pending if future.done()]
            for future in ready:
                cells, worker = future.result()
                pending.remove(future)
                done += cells
                reporter("Measuring", done, each * len(steps), f"by {worker}")
            if not ready:
                time.sleep(_POLL)
    except BrokenExecutor as error:
        raise WorkerError(
            "a worker process ended unexpectedly, killed or out of memory; what is finished is kept: the same command "
            "goes on from there, with fewer workers if memory was short."
        ) from error
    except CancelledError as error:
        raise WorkerError(
            "the workers were lost with what they were at; what is finished is kept: the same command goes on from "
            "there."
        ) from error
    finally:
        for future in pending:
            future.cancel()


def _placed(request: ScanRequest) -> ScanRequest:
    """The request with names that are the same from everywhere."""
    directory = str(Path(request.directory or os.getcwd()).resolve())
    if not os.path.isdir(directory):
        raise ValueError(f"directory: {directory} is not a folder; pass the one where the problem is imported.")
    if request.checkpoints.startswith(storage.PREFIX):
        with contextlib.chdir(directory):
            folder = storage.parse_reference(request.checkpoints).name
    else:
        folder = str(Path(directory, request.checkpoints).resolve())
    placed = request._replace(checkpoints=folder, out=str(Path(directory, request.out).resolve()), directory=directory)
    try:
        return ScanRequest(**json.loads(json.dumps(placed._asdict())))
    except TypeError as error:
        raise ValueError(f"request: {error}; pass plain numbers, words and lists of them.") from error


def _probes(request: ScanRequest) -> dict[str, Probe]:
    found = {}
    for name, settings in request.probes.items():
        make = getattr(spectroscopy, f"{name}_probe", None)
        if make is None:
            raise ValueError(f"probes: got {name!r}; slt_jax.spectroscopy has no {name}_probe.")
        try:
            found[name] = make(**settings)
        except TypeError as error:
            raise ValueError(f"probes: {name}: {error}.") from error
    return found


def _made(request: ScanRequest) -> tuple[Subject, list[Checkpoint], str]:
    """What is measured, where, and what it is called: made by the user's code, in its own directory."""
    with contextlib.chdir(request.directory):
        if request.checkpoints.startswith(storage.PREFIX):
            subject, checkpoints, source = pretrained_scan(request.checkpoints, **request.language)  # type: ignore[arg-type]
            return subject, checkpoints, source
        if request.problem is None:
            raise ValueError("problem: got none; pass PKG.MOD:FUNC, whose checkpoints these are.")
        # also for what the module imports later, from wherever this process stands then
        sys.path[:] = [request.directory, *(entry for entry in sys.path if entry != request.directory)]
        subject = as_subject(call_user(request.problem))
    folder = Path(request.checkpoints)
    return subject, storage.checkpoints_in(folder, subject.problem.params), str(folder)


@lru_cache(maxsize=1)
def _planned(work: str) -> tuple[ScanPlan, dict[int, Checkpoint]]:
    """In a worker: the scan and its checkpoints, made once for all of its tasks."""
    request = ScanRequest(**json.loads(work)["request"])
    for place in (Path(request.out, storage.STUDY_FILE), Path(request.directory)):
        if not place.exists():
            raise ValueError(f"does not see {place}; workers need the same files under the same names.")
    subject, checkpoints, source = _made(request)
    where = (request.seed, _probes(request), request.restrictions, request.sublosses)
    return plan_scan(subject, source, *where, "", request.together), {point.step: point for point in checkpoints}


def _environment() -> dict[str, str]:
    return {"package": fingerprint.of_package(), "jax": jax.__version__}


def _check_environment(told: Mapping[str, Any]) -> None:
    for name, value in _environment().items():
        if told[name] != value:
            what = f"jax {value}, not {told[name]}" if name == "jax" else "another version of slt_jax"
            raise ValueError(f"has {what}; start the workers again, in the environment of the scan.")


def _check_identity(wanted: Mapping[str, Any], plan: ScanPlan, request: ScanRequest, here: str) -> None:
    """Refuse to measure what the scan would not take for its own."""
    found = json.loads(json.dumps(plan.identity))
    different = [name for name in wanted if found.get(name) != wanted[name]]
    if different:
        module = sys.modules.get(str(request.problem).partition(":")[0])
        file = getattr(module, "__file__", None) or "its own files"
        raise WorkerError(
            f"{here}: makes another problem of {request.problem} than the scan does (other {', '.join(different)}), "
            f"from {file}; if that was changed since, start the workers again."
        )


def _silent(stage: str, done: int, total: int, detail: str = "") -> None:
    del stage, done, total, detail
