"""CPU time of chains that tell how far they are over that of chains that do not.

    python benchmarks/ticking.py

prints one JSON line per model and a Markdown table, and keeps the lines in ``benchmarks/results/ticking.jsonl``.

Both sides are ``slt_jax.sample`` with the same key and the same draws; one of them is compiled with ``tick=True``, and
somebody listens. They are run in turn, in an order that changes from pair to pair; the ratio is the median over pairs,
with the standard error of a median. Beside it stands what follows from the price of one tick, measured in a loop that
does nothing else: the ticks of the run times that, over the time of the run; and how many instructions more the program
of one gradient has. They are sharper where the machine is not quiet.
"""

import argparse
import json
import platform
import statistics
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import models

import slt_jax as slt
from slt_jax import ticking, tree

#: Model, batch size, gradients of each chain in a run.
ROWS = {
    "linear network, 260": (models.linear_network, 64, 4000),
    "perceptron, 9.6k": (models.perceptron, 64, 500),
}
CHAINS = 8
GOAL = 1.01


@partial(jax.jit, static_argnums=(1, 2))
def empty(total, turns, work):
    """A loop that only tells, if it does."""

    def turn(total, index):
        ticking.tick(index, turns, 1, work)
        return total + index, None

    return jax.lax.scan(turn, total, jnp.arange(turns))[0]


def cpu_seconds(function):
    begin = time.process_time()
    jax.block_until_ready(function())
    jax.effects_barrier()
    return time.process_time() - begin


def price(pairs):
    """Seconds of CPU that one tick takes."""
    sides = [partial(empty, jnp.int32(0), 2000, work) for work in (1, 10**9)]
    with ticking.listening(lambda done, total: None):
        times = [[cpu_seconds(side) for side in sides] for _ in range(pairs + 1)][1:]
    return (statistics.median(told for _, told in times) - statistics.median(bare for bare, _ in times)) / ticking.MOST


def measure(name, pairs):
    """One row: seconds of CPU on both sides, their ratio, and the share that follows from the price of a tick."""
    make, batch_size, steps = ROWS[name]
    problem = make(jax.random.key(0))
    posterior = slt.localise(*problem, nbeta=100.0)
    heard = []

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
    programs = [jax.jit(partial(run, tick)).lower().compile().as_text().count(" = ") for tick in (False, True)]
    ticks, each = len(heard) // (pairs + 1), price(pairs)
    return {
        "benchmark": "ticking",
        "model": name,
        "parameters": tree.size(problem.params),
        "chains": CHAINS,
        "gradients": steps,
        "ticks": ticks,
        "tick_us": round(each * 1e6, 1),
        "bare_s": round(bare, 4),
        "ratio": round(statistics.median(ratios), 4),
        # of a median of normal numbers, whose quartiles are 1.35 standard deviations apart
        "ratio_std_error": round(1.25 * (high - low) / 1.35 / pairs**0.5, 4),
        "instructions": programs,
        "from_price": round(1 + ticks * each / bare, 4),
        "goal": GOAL,
        "pairs": pairs,
        "machine": f"{platform.machine()}, {jax.local_device_count()} {jax.default_backend()} device",
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "slt_jax": slt.__version__},
    }


def main():
    """Measure all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40, help="runs of each side (default: 40)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ticking.jsonl")
    options = parser.parse_args()
    rows = []
    for name in ROWS:
        rows.append(measure(name, options.pairs))
        print(json.dumps(rows[-1]), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print("\n| model | ticks | ratio | from the price of a tick | goal |\n|---|---|---|---|---|")
    for row in rows:
        ratio = f"{row['ratio']} ± {row['ratio_std_error']}"
        print(f"| {row['model']} | {row['ticks']} | {ratio} | {row['from_price']} | ≤ {GOAL} |")


if __name__ == "__main__":
    main()
