"""How long the first ``slt.llc`` of a process takes, and how much of that is compiling.

    python benchmarks/compile_time.py

prints one JSON line per call and keeps them in ``benchmarks/results/compile_time.jsonl``. The model is the perceptron
of 9.6k parameters of ``models.py``. Each fresh process makes it, which compiles what random numbers need, and calls
``llc``; then again with another key and other data of the same shapes, which must compile nothing. The calls are those
of ``CASES``: on all of the data or on batches, a modest number of draws, and the call as it is, whose default budget
is 20 000 gradients for each of eight chains.

Seconds of wall time are told apart by the events of JAX: those in which something was traced, lowered or compiled
(intervals that overlap are counted once), and the rest, which is running. ``first_cpu_s`` is CPU time of all threads.
Where the wall time exceeds it the machine was busy with something else. Medians over processes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import jax
import models
from jax import monitoring
from records import RESULTS, keep

import slt_jax as slt

GOAL = 5.0
#: What ``llc`` is called with, how many processes, and whether it is called again.
CASES = {
    "batches of 64, 500 draws after 500 steps": (dict(draws=500, burnin=500, batch_size=64), 2, True),
    "all data, 50 draws after 50 steps": (dict(draws=50, burnin=50), 3, True),
    "all data, 500 draws after 500 steps": (dict(draws=500, burnin=500), 2, True),
    "as it is": (dict(), 1, False),
}
#: Durations that JAX reports.
PARTS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile",
}


def covered(intervals):
    """Seconds that lie in at least one of the intervals ``(begin, end)``."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def call(problem, key, sizes, intervals):
    """One call: CPU and wall seconds, seconds of its parts, and the programs that it compiled with their seconds."""
    for found in intervals.values():
        found.clear()
    cpu, wall = time.process_time(), time.perf_counter()
    estimate = slt.llc(key, *problem, **sizes)
    value = float(estimate.value)
    healthy = bool(estimate.health.ok)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    spans = {part: [span for span, _ in found] for part, found in intervals.items()}
    parts = {f"{part}_s": covered(found) for part, found in spans.items()}
    parts["run_s"] = wall - covered(span for found in spans.values() for span in found)
    compiled = [(name, end - begin) for (begin, end), name in intervals["compile"]]
    gradients = int(estimate.settings.gradients)
    return (
        {"cpu_s": cpu, "wall_s": wall}
        | parts
        | {
            "programs": len(compiled),
            "dearest": dict(sorted(((n, round(s, 3)) for n, s in compiled), key=lambda item: -item[1])[:6]),
            "value": value,
            "healthy": healthy,
            "gradients": gradients,
        }
    )


def child(name):
    """Print what a fresh process measures."""
    sizes, _, again = CASES[name]
    intervals = {part: [] for part in PARTS.values()}

    def listen(event, seconds, **details):
        if event in PARTS:
            now = time.perf_counter()
            intervals[PARTS[event]].append(((now - seconds, now), details.get("fun_name", "")))

    first, other = (models.perceptron(jax.random.key(seed)) for seed in (0, 1))
    keys = [jax.random.key(seed) for seed in (2, 3)]
    jax.block_until_ready((first.params, first.data, other.params, other.data, keys))
    monitoring.register_event_duration_secs_listener(listen)
    found = {"first": call(first, keys[0], sizes, intervals)}
    if again:
        found["second"] = call(other, keys[1], sizes, intervals)
    print(json.dumps(found))


def measure():
    """A row for each case."""
    for name, (_, processes, again) in CASES.items():
        runs = []
        for _ in range(processes):
            found = subprocess.run(
                [sys.executable, __file__, "--child", name], check=True, capture_output=True, text=True
            )
            runs.append(json.loads(found.stdout))
        row = {"benchmark": "compile_time", "call": name, "processes": processes, "goal": GOAL}
        for which in ("first", "second") if again else ("first",):
            for entry, value in runs[0][which].items():
                many = [run[which][entry] for run in runs]
                seconds = entry.endswith("_s")
                row[f"{which}_{entry}"] = round(statistics.median(many), 2) if seconds else value
        yield row


def main():
    """Measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
    else:
        keep(RESULTS / "compile_time.jsonl", measure())


if __name__ == "__main__":
    main()
