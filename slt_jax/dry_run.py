"""What a scan would do and cost, told before it is done: nothing is measured, and nothing is written."""

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any, NamedTuple

import jax

from slt_jax import sharding, storage
from slt_jax.estimators import Schedule
from slt_jax.estimators.dynamics import sampler_for
from slt_jax.loss import example_count
from slt_jax.posterior import dimension, localise, with_control_variates
from slt_jax.problem import Problem
from slt_jax.restriction import Restriction
from slt_jax.sampling import sample
from slt_jax.spectroscopy import Checkpoint, CheckpointError, Probe, Subject, check_scan, scan, select_restrictions
from slt_jax.spectroscopy.subject import WHOLE_NETWORK, check_subject, parts, problem_at
from slt_jax.storage.folder import CELLS, STUDY_FILE
from slt_jax.storage.running import RUNNING
from slt_jax.types import Key, PyTree

#: Gradients of the program that is timed: many of a small model, so that the call itself is nothing.
_LEAST, _MOST, _WORK = 8, 256, 2**22
#: For how many seconds it is run again and again.
_SECONDS = 0.5


class Cost(NamedTuple):
    """Of one gradient of all chains.

    Attributes:
      seconds: It takes, compilation apart.
      arguments, temporaries: Bytes on a device of what the program is given, and of what it needs meanwhile; ``None``
        where the compiler does not tell.
      dimension: Free directions.
    """

    seconds: float
    arguments: int | None
    temporaries: int | None
    dimension: int


class Planned(NamedTuple):
    """A scan as it would be.

    Attributes:
      readings: In all.
      finished: Of them in the folder already.
      under_way: Chains that are kept of readings that were cut off.
      gradients: Of each chain of a reading, at least and at most, by the name of the probe, where that is known.
      cost: Of a gradient by the name of the probe, on the first subloss of the first checkpoint that can be read.
      hours: Left, at least and at most, of the probes whose cost is known; on each subloss in proportion to its
        examples where a step sees all of them.
      lines: All of this in words.
    """

    readings: int
    finished: int
    under_way: int
    gradients: dict[str, tuple[int, int]]
    cost: dict[str, Cost]
    hours: tuple[float, float]
    lines: list[str]


def plan(
    subject: Subject,
    checkpoints: Sequence[Checkpoint],
    source: str,
    out: Path,
    seed: int,
    probes: Mapping[str, Probe],
    restrictions: Sequence[str] | None = None,
    sublosses: Sequence[str] | None = None,
) -> Planned:
    """What ``run_scan`` with the same arguments would do: how many readings, for how long, in how much memory.

    Checkpoints are loaded only where the folder exists, to find out which of their readings are in it; but the first is
    in any case, and a few gradients are timed there.

    Raises:
      ValueError: as ``run_scan``; no checkpoint can be read; the folder holds a scan of something else.

    Not to be believed where restrictions are much smaller than the first, or other work runs on the machine: a reading
    of few directions takes less, and the time of compilation, of the polish and of the report comes on top.
    """
    check_subject(subject)
    selected, names = select_restrictions(subject, restrictions)
    chosen = list(sublosses or parts(subject))
    check_scan(selected, probes, names, chosen)
    if (out / STUDY_FILE).exists():
        found = storage.read_study(out).get("identity", {})
        for name, value in {"study": "scan", "checkpoints": source, "seed": seed}.items():
            if found.get(name) != value:
                raise storage.FolderError(
                    f"--out: {out} belongs to another study ({name} is {found.get(name)!r} there, {value!r} here); "
                    "choose another folder, or remove it."
                )
    key = jax.random.split(jax.random.key(seed))[1]
    missing = _missing(key, selected, checkpoints, out, probes, names, chosen)
    each = len(probes) * len(names) * len(chosen)
    under_way = len(list((out / RUNNING).glob("[0-9a-f]*.npz")))
    schedules = {name: one for name, probe in probes.items() if (one := _schedule(probe)) is not None}
    gradients = {name: _gradients(one, int(probes[name].settings["budget"] or 0)) for name, one in schedules.items()}
    params = _first(checkpoints)
    problem = problem_at(parts(selected)[chosen[0]], params)
    free = None if names[0] == WHOLE_NETWORK else selected.restrictions[names[0]]
    cost = {name: _cost(key, problem, free, one, probes[name].settings) for name, one in schedules.items()}
    hours = [0.0, 0.0]
    for name, _, _, subloss in missing:
        if name not in cost:
            continue
        share = 1.0
        if schedules[name].batch_size is None:
            share = example_count(parts(selected)[subloss].data) / example_count(problem.data)
        for end in (0, 1):
            hours[end] += cost[name].seconds * gradients[name][end] * share / 3600
    planned = Planned(
        len(checkpoints) * each,
        len(checkpoints) * each - len(missing),
        under_way,
        gradients,
        cost,
        (hours[0], hours[1]),
        [],
    )
    sizes = len(checkpoints), len(names), len(chosen), len(probes)
    return planned._replace(lines=_told(planned, sizes, schedules, sorted(set(probes) - set(cost))))


def _missing(
    key: Key,
    subject: Subject,
    checkpoints: Sequence[Checkpoint],
    out: Path,
    probes: Mapping[str, Probe],
    restrictions: list[str],
    sublosses: list[str],
) -> list[tuple[str, int, str, str]]:
    """Places of the readings that the folder does not hold: the scan itself looks, with probes that refuse."""
    if not (out / CELLS).is_dir():
        return [
            (name, point.step, restriction, subloss)
            for point in checkpoints
            for subloss in sublosses
            for restriction in restrictions
            for name in probes
        ]
    idle = {name: probe._replace(measure=_idle(probe.measure), measure_many=None) for name, probe in probes.items()}
    where: dict[str, Any] = dict(restrictions=restrictions, sublosses=sublosses)
    cells = scan(key, subject, checkpoints, idle, finished=storage.FinishedReadings(out), **where)
    return [cell[:4] for cell in cells if cell.reading is None]


def _idle(measure: Any) -> Any:
    # by name the same function: a reading is looked up by it
    @wraps(measure)
    def refuse(*_: Any, **__: Any) -> Any:
        raise ValueError("planned, not measured.")

    return refuse


def _schedule(probe: Probe) -> Schedule | None:
    """The block that a probe's chains are made of, where its settings tell it."""
    settings = probe.settings | {"thin": 1}
    if not {*Schedule._fields, "budget"} <= set(settings):
        return None
    return Schedule(**{name: settings[name] for name in Schedule._fields})  # type: ignore[arg-type]


def _gradients(schedule: Schedule, budget: int) -> tuple[int, int]:
    return schedule.gradients, max(schedule.gradients, budget // schedule.gradients * schedule.gradients)


def _first(checkpoints: Sequence[Checkpoint]) -> PyTree:
    reasons = []
    for checkpoint in checkpoints:
        try:
            return checkpoint.load()
        except CheckpointError as error:
            reasons.append(str(error))
    raise ValueError(f"checkpoints: none can be read: {'; '.join(reasons) or 'there are none'}")


def _cost(
    key: Key, problem: Problem, restriction: Restriction | None, schedule: Schedule, settings: Mapping[str, Any]
) -> Cost:
    """One program of a few gradients, compiled once and run again and again."""
    chains, batch_size = schedule.chains, schedule.batch_size

    @jax.jit
    def placed(params: PyTree, data: PyTree) -> Any:
        posterior = localise(problem.loss_fn, params, data, settings["nbeta"], settings["gamma"], restriction)
        return posterior if batch_size is None else with_control_variates(posterior, data)

    posterior = placed(problem.params, problem.data)
    # so small a step that the chains stay where they are, whatever the curvature
    sampler = sampler_for(posterior, 1e-9, 1.0, batch_size)
    free = dimension(posterior)
    steps = min(max(_WORK // max(free * chains, 1), _LEAST), _MOST)
    go = partial(sample, draws=steps, chains=chains, batch_size=batch_size)
    program = jax.jit(go).lower(key, sampler, posterior, problem.data).compile()
    memory = program.memory_analysis()
    run = partial(program, key, sampler, posterior, problem.data)
    jax.block_until_ready(run())
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - begin)
    seconds = sorted(times)[len(times) // 2] / steps
    if memory is None:
        return Cost(seconds, None, None, free)
    return Cost(seconds, memory.argument_size_in_bytes, memory.temp_size_in_bytes, free)


def _told(
    planned: Planned, sizes: tuple[int, int, int, int], schedules: Mapping[str, Schedule], unknown: list[str]
) -> list[str]:
    words = ("checkpoints", "restrictions", "sublosses", "probes")
    product = " x ".join(f"{size} {word}" for size, word in zip(sizes, words, strict=True))
    kept = f", chains of {planned.under_way} under way" if planned.under_way else ""
    lines = [
        f"Plan:     {product} = {planned.readings} readings; {planned.finished} finished in the folder{kept}",
        f"Layout:   {_layout()}",
    ]
    for name, cost in planned.cost.items():
        least, most = planned.gradients[name]
        batch = schedules[name].batch_size
        lines += [
            f"{name + ':':<9} {least} to {most} gradients of each of {schedules[name].chains} chains, "
            f"{cost.dimension} free directions, {'all examples' if batch is None else f'{batch} examples'} a step",
            f"          {_time(cost.seconds)} a gradient of all chains; {_bytes(cost.arguments)} given and "
            f"{_bytes(cost.temporaries)} meanwhile, of {_bytes(_capacity())} of {_where()}",
        ]
    if unknown:
        lines.append(
            f"Not told: what {', '.join(unknown)} will cost; their programs are as long as they find necessary"
        )
    if planned.cost:
        least_hours, most_hours = planned.hours
        lines.append(
            f"Left:     {_time(3600 * least_hours)} to {_time(3600 * most_hours)}, compilation and report apart"
        )
    return lines


def _layout() -> str:
    device = jax.devices()[0]
    count = f"{jax.device_count()} {device.device_kind} device{'s' if jax.device_count() > 1 else ''}"
    processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    spread = [f"{name} {size}" for name in sharding.AXES if (size := sharding.size_of(name)) > 1]
    return f"{count}{processes}; {'mesh ' + ', '.join(spread) if spread else 'no mesh is set: one of them is used'}"


def _capacity() -> int:
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return int(limit) if limit else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _where() -> str:
    return "the machine" if jax.default_backend() == "cpu" else "a device"


def _bytes(count: int | None) -> str:
    if count is None:
        return "an unknown amount"
    size, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"


def _time(seconds: float) -> str:
    """In the unit that a person would choose.

    >>> _time(0.0021), _time(90), _time(7 * 3600)
    ('2.1 ms', '1.5 min', '7 h')
    """
    for size, unit in ((3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
