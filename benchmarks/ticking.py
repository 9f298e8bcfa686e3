"""CPU time of chains that tell how far they are over that of chains that do not.

    python benchmarks/ticking.py

prints one JSON line per model and a Markdown table, and keeps the lines in ``benchmarks/results/ticking.jsonl``.

Both sides are ``slt_jax.sample`` with the same key and the same draws; one of them is compiled with ``tick=True``, and
somebody listens. They are run in turn, in an order that changes from pair to pair; the ratio is the median over pairs,
with the standard error of a median. On a machine that others use, one core (``taskset -c 1``) is quieter. ``--ticks``
asks for so many ticks in place of those that the work is worth.
"""

import argparse
import json
import os
import platform
import statistics
import time
from functools import partial
from pathlib import Path

import jax
import models

import slt_jax as slt
from slt_jax import ticking, tree

#: Model, batch size, gradients of each chain in a run.
ROWS = {
    "linear network, 260": (models.linear_network, 64, 32_768),
    "perceptron, 9.6k": (models.perceptron, 64, 4096),
}
CHAINS = 8
GOAL = 1.01


def cpu_seconds(function):
    begin = time.process_time()
    jax.block_until_ready(function())
    jax.effects_barrier()
    return time.process_time() - begin


def measure(name, pairs, ticks):
    """One row: seconds of CPU, the ratio and its error."""
    make, batch_size, steps = ROWS[name]
    problem = make(jax.random.key(0))
    posterior = slt.localise(*problem, nbeta=100.0)
    heard = []
    if ticks is not None:
        ticking.LEAST_WORK = steps * CHAINS * tree.size(problem.params) // ticks

    def run(tick):
        return slt.sample(
            jax.random.key(1),
            slt.samplers.sgld(1e-7),
            posterior,
            problem.data,
            draws=steps,
            chains=CHAINS,
            batch_size=batch_size,
            tick=tick,
        ).excess

    times = {False: [], True: []}
    with ticking.listening(lambda done, total: heard.append(done)):
        # the first pair compiles
        for pair in range(-1, pairs):
            for tick in (False, True) if pair % 2 else (True, False):
                seconds = cpu_seconds(partial(run, tick))
                if pair >= 0:
                    times[tick].append(seconds)
    bare = statistics.median(times[False])
    ratios = [b / a for a, b in zip(times[False], times[True], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "benchmark": "ticking",
        "model": name,
        "parameters": tree.size(problem.params),
        "chains": CHAINS,
        "gradients": steps,
        "ticks": len(heard) // (pairs + 1),
        "bare_s": round(bare, 4),
        "ratio": round(statistics.median(ratios), 4),
        # of a median of normal numbers, whose quartiles are 1.35 standard deviations apart
        "ratio_std_error": round(1.25 * (high - low) / 1.35 / pairs**0.5, 4),
        "goal": GOAL,
        "pairs": pairs,
        "cores": len(os.sched_getaffinity(0)),
        "machine": f"{platform.machine()}, {jax.local_device_count()} {jax.default_backend()} device",
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "slt_jax": slt.__version__},
    }


def main():
    """Measure all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12, help="runs of each side (default: 12)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ticking.jsonl")
    parser.add_argument("--ticks", type=int, help="ticks of a run (default: what its work is worth)")
    options = parser.parse_args()
    rows = []
    for name in ROWS:
        rows.append(measure(name, options.pairs, options.ticks))
        print(json.dumps(rows[-1]), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print("\n| model | ticks | ratio | goal |\n|---|---|---|---|")
    for row in rows:
        ratio = f"{row['ratio']} ± {row['ratio_std_error']}"
        print(f"| {row['model']} | {row['ticks']} | {ratio} | ≤ {GOAL} |")


if __name__ == "__main__":
    main()
