"""One scan on many hosts: every process takes part in every reading, and the first one writes."""

import contextlib
import warnings
from collections.abc import Iterator, MutableMapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from slt_jax import sharding, storage
from slt_jax.measuring import Outcome, Reporter
from slt_jax.spectroscopy import Checkpoint, Probe, Subject, scan
from slt_jax.spectroscopy.probes import Reading
from slt_jax.workflow import ScanPlan, plan_scan, run_scan

#: Seconds after which a process that does not answer counts as dead, and the others end.
HEARTBEAT = 20


@contextlib.contextmanager
def joined(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> Iterator[int]:
    """This process as one of several that run the same program: at the start of it, before JAX is used.

    Args:
      coordinator: ``HOST:PORT`` of the first process; default found by JAX, under SLURM, Open MPI, Kubernetes and on
        TPU pods.
      processes: Their number.
      process: Which of them this is, from 0.

    Yields:
      Which of them this is.

    Raises:
      ValueError: one of the three is given without the others, or JAX does not find what was not given.

    Source: the documentation of ``jax.distributed``.
    """
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise ValueError(f"{', '.join(missing)}: got none; pass all of {', '.join(given)}, or leave them to JAX.")
    try:
        jax.distributed.initialize(coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT)
    except (ValueError, RuntimeError) as error:
        message = next(iter(str(error).strip().splitlines()), "")
        raise ValueError(
            f"--distributed: the processes did not find each other ({message}). Start all of them at once, or say "
            "where they are: --coordinator HOST:PORT --processes N --process I."
        ) from error
    yield jax.process_index()
    # a process that fails does not wait for the others: they are told by the silence of its heart
    jax.distributed.shutdown()


def run_jointly(
    subject: Subject,
    checkpoints: Sequence[Checkpoint],
    source: str,
    out: Path,
    seed: int,
    probes: dict[str, Probe],
    restrictions: Sequence[str] | None,
    sublosses: Sequence[str] | None,
    reporter: Reporter,
    command: str = "",
    together: int | None = None,
) -> Outcome | None:
    """``run_scan`` in all processes at once: chains are spread over all of their devices, the first process writes.

    Args:
      subject, checkpoints, source, out, seed, probes, restrictions, sublosses, reporter, command, together: As for
        ``run_scan``; the same in every process. ``out`` is a folder that all of them see.

    Returns:
      What came of it in the first process, ``None`` in the others.

    Raises:
      ValueError: as ``run_scan``; the chains do not fit the devices.

    A reading is that of one process to rounding, and to the last bit where the loss is compiled to the same program on
    one device (XLA makes a product of a division by a broadcast, or not). Chains are not kept inside a reading.
    """
    if jax.process_index() == 0:
        measured = partial(_measure, checkpoints=checkpoints, out=out, together=together, reporter=reporter)
        where = (source, out, seed, probes, restrictions, sublosses, reporter, command, together)
        return run_scan(subject, checkpoints, *where, lambda plan: measured(plan))
    plan = plan_scan(subject, source, seed, probes, restrictions, sublosses, command, together)
    _measure(plan, checkpoints, out, together, reporter)
    return None


def _measure(
    plan: ScanPlan, checkpoints: Sequence[Checkpoint], out: Path, together: int | None, reporter: Reporter
) -> None:
    """Every reading that is missing, by all processes in the same order."""
    finished = _Finished(out, writes=jax.process_index() == 0)
    probes, restrictions, sublosses = plan.scope
    where: dict[str, Any] = {"restrictions": restrictions, "sublosses": sublosses, "together": together}
    total = len(checkpoints) * len(probes) * len(restrictions) * len(sublosses)
    reporter("Measuring", 0, total, f"{jax.process_count()} processes together")
    cells = scan(plan.key, plan.subject, checkpoints, probes, finished=finished, mesh=sharding.mesh(), **where)
    for number, cell in enumerate(cells, start=1):
        place = f"{cell.probe} at step {cell.step}, {cell.restriction}, {cell.subloss}"
        reporter("Measuring", number, total, place)
        if cell.error is not None and jax.process_index() == 0:
            warnings.warn(
                f"{place}: all processes together could not ({cell.error}); the first tries alone.", stacklevel=2
            )


class _Finished(MutableMapping[str, Reading]):
    """Readings that were there when all processes looked, and those since: the same in all of them at any time."""

    def __init__(self, out: Path, *, writes: bool) -> None:
        multihost_utils.sync_global_devices("the folder is there")
        self._store, self._new = storage.FinishedReadings(out), dict[str, Reading]()
        # by looking at each: the first process alone says which are whole
        names = sorted(name for name in self._store if self._store.get(name) is not None) if writes else []
        self._there = set(_told(names))
        self._writes = writes

    def __getitem__(self, fingerprint: str) -> Reading:
        if fingerprint in self._new:
            return self._new[fingerprint]
        if fingerprint[:32] not in self._there:
            raise KeyError(fingerprint)
        return self._store[fingerprint]

    def __setitem__(self, fingerprint: str, reading: Reading) -> None:
        self._new[fingerprint] = reading
        if self._writes:
            self._store[fingerprint] = reading

    def __delitem__(self, fingerprint: str) -> None:
        del self._new[fingerprint]

    def __iter__(self) -> Iterator[str]:
        return iter({*self._there, *self._new})

    def __len__(self) -> int:
        return len({*self._there, *self._new})


def _told(names: list[str]) -> list[str]:
    """The words of the first process, in all of them."""
    text = np.frombuffer(" ".join(names).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(text.size)))
    if not size:
        return []
    padded = text if text.size == size else np.zeros(size, np.uint8)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))).decode().split()
