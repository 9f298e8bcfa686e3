"""CPU time of one step of one chain over that of the bare gradient on the same batches.

    python benchmarks/cost.py            # on all cores
    python benchmarks/cost.py --cores 1  # on one of them: no thread waits for another
    python benchmarks/cost.py --sweep --cores 1  # against chains, parameters and temperatures: a row for each point

prints one JSON line per model and a Markdown table, and keeps the lines in ``benchmarks/results/cost.jsonl``, those
of the sweep in ``cost_sweep.jsonl``. There temperatures are rungs of ``nβ`` under ``jax.vmap`` of ``slt.sample``, each
with chains of its own, and the bare gradient has as many chains as all rungs together.

Both sides are one compiled scan over the same number of steps, with eight chains, and every chain draws its own batch
of the same size from the same keys. The bare side computes ``jax.value_and_grad`` of the mean loss at parameters that
stay where they are and adds up all of its entries, so that nothing can be left out by the compiler. The two sides are
run in turn; the ratio is the median over pairs. A row for each noise: the samplers' default, and one bit an entry.

CPU time of several cores holds the time for which threads wait for each other at the end of each operation, and a
sampler has more of them, all short. So the ratio by the clock is there too, and the rows of one core, where CPU time is
work and nothing else. The file keeps the rows of other numbers of cores.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import models
from records import keep

import slt_jax as slt
from slt_jax import loss, tree
from slt_jax.sampling import batch_index, step_keys

#: Model, batch size, steps in a run.
ROWS = {
    "linear network, 260": (models.linear_network, 64, 2000),
    "perceptron, 9.6k": (models.perceptron, 64, 300),
    "transformer, 111k": (models.transformer, 8, 12),
}
CHAINS = 8
#: Of the sweep: chains and rungs on the perceptron, with so many chains on each rung; layers of wider linear networks.
SWEEP_CHAINS, SWEEP_RUNGS, RUNG_CHAINS = (1, 2, 4, 8, 16, 32), (1, 2, 4, 8), 2
WIDE = ((100, 130, 100), (320, 500, 320))
#: Pairs of a point of the sweep, and gradients of one run of it on the perceptron.
SWEEP_PAIRS, SWEEP_GRADIENTS = 5, 1600
TARGETS = {"linear network, 260": 1.25, "perceptron, 9.6k": 1.3, "transformer, 111k": 1.03}
NOISES = {"normal": slt.noise.normal, "signs": slt.noise.signs}


def bare_gradient(key, loss_fn, params, data, steps, batch_size, chains=CHAINS):
    """``steps`` gradients for each of the chains, on the batches that the sampler sees."""
    run_keys = jax.vmap(jax.random.split)(jax.random.split(key, chains))[:, 1]
    count = loss.example_count(data)

    def gradient(position, run_key, step):
        batch_key, _ = step_keys(run_key, step)
        batch = loss.take(data, batch_index(batch_key, batch_size, count))
        return jax.value_and_grad(lambda w: jnp.mean(loss_fn(w, batch)))(position)

    def body(carry, step):
        positions, total = carry
        value, slopes = jax.vmap(gradient, in_axes=(0, 0, None))(positions, run_keys, step)
        total = total + jnp.sum(value) + sum(jnp.sum(leaf) for leaf in jax.tree.leaves(slopes))
        # zero, but not known to be: the positions cannot be taken out of the loop
        positions = jax.tree.map(lambda leaf: leaf + 0 * total, positions)
        return (positions, total), None

    positions = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (chains, *leaf.shape)), params)
    return jax.lax.scan(body, (positions, jnp.zeros(())), jnp.arange(steps))[0][1]


def compare(problem, batch_size, steps, pairs, chains=CHAINS, rungs=None, noise="normal"):
    """Microseconds of CPU per chain and step on both sides, the ratio, and what it was measured on.

    With ``rungs`` there are so many temperatures, each with ``chains`` chains.
    """
    posterior = slt.localise(*problem, nbeta=100.0)
    sampler = slt.samplers.sgld(1e-7, noise=NOISES[noise])
    bare = jax.jit(bare_gradient, static_argnums=(1, 4, 5, 6))
    every = chains * (rungs or 1)

    def run_bare(key):
        return bare(key, problem.loss_fn, problem.params, problem.data, steps, batch_size, every)

    def excess(key, nbeta):
        tempered = posterior._replace(nbeta=nbeta)
        sizes = {"draws": steps, "chains": chains, "batch_size": batch_size}
        return slt.sample(key, sampler, tempered, problem.data, **sizes).excess

    def run_sampler(key):
        return excess(key, posterior.nbeta)

    if rungs is not None:
        nbetas = jnp.geomspace(10.0, 100.0, rungs)
        ladder = jax.jit(jax.vmap(excess))
        run_sampler = lambda key: ladder(jax.random.split(key, rungs), nbetas)  # noqa: E731

    times, walls = {"bare": [], "sampler": []}, {"bare": [], "sampler": []}
    for pair in range(-1, pairs):
        for side, run in (("bare", run_bare), ("sampler", run_sampler)):
            begin, begin_wall = time.process_time(), time.perf_counter()
            jax.block_until_ready(run(jax.random.key(pair + 1)))
            # the first pair compiles
            if pair >= 0:
                times[side].append((time.process_time() - begin) / (every * steps) * 1e6)
                walls[side].append(time.perf_counter() - begin_wall)
    ratios = [b / a for a, b in zip(times["bare"], times["sampler"], strict=True)]
    by_clock = [b / a for a, b in zip(walls["bare"], walls["sampler"], strict=True)]
    return {
        "parameters": tree.size(problem.params),
        "chains": every,
        "batch_size": batch_size,
        "bare_us": round(statistics.median(times["bare"]), 2),
        "sampler_us": round(statistics.median(times["sampler"]), 2),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "wall_ratio": round(statistics.median(by_clock), 3),
        "cores": len(os.sched_getaffinity(0)),
        "pairs": pairs,
        "machine": f"{platform.machine()}, {jax.local_device_count()} {jax.default_backend()} device",
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "slt_jax": slt.__version__},
    }


def measure(name, noise, pairs):
    """One row of the table."""
    make, batch_size, steps = ROWS[name]
    found = compare(make(jax.random.key(0)), batch_size, steps, pairs, noise=noise)
    return {"benchmark": "cost", "model": name, "noise": noise} | found | {"goal": TARGETS[name]}


def sweep():
    """The points: cost against chains, parameters and temperatures."""
    perceptron = models.perceptron(jax.random.key(0))
    for chains in SWEEP_CHAINS:
        found = compare(perceptron, 64, max(SWEEP_GRADIENTS // chains, 50), SWEEP_PAIRS, chains)
        yield {"benchmark": "cost_sweep", "against": "chains", "model": "perceptron"} | found
    points = {name.split(",")[0]: (make(jax.random.key(0)), *rest) for name, (make, *rest) in ROWS.items()}
    points |= {f"linear network {widths}": (wide_linear(widths), 64, 2_000_000 // widths[0] ** 2) for widths in WIDE}
    for name, (problem, batch_size, steps) in points.items():
        found = compare(problem, batch_size, steps, SWEEP_PAIRS)
        yield {"benchmark": "cost_sweep", "against": "parameters", "model": name} | found
    for rungs in SWEEP_RUNGS:
        steps = SWEEP_GRADIENTS // (RUNG_CHAINS * rungs)
        found = compare(perceptron, 64, steps, SWEEP_PAIRS, RUNG_CHAINS, rungs)
        yield {"benchmark": "cost_sweep", "against": "temperatures", "model": "perceptron", "rungs": rungs} | found


def wide_linear(widths):
    """A linear network of two layers on 1000 examples, like that of ``models.py``."""
    keys = jax.random.split(jax.random.key(0), 4)
    params = [
        jax.random.normal(key, shape) / shape[0] ** 0.5
        for key, shape in zip(keys[:2], (widths[:2], widths[1:]), strict=True)
    ]
    inputs = jax.random.normal(keys[2], (1000, widths[0]))
    targets = inputs @ params[0] @ params[1] + jax.random.normal(keys[3], (1000, widths[2]))
    return models.linear_network(jax.random.key(0))._replace(params=params, data=(inputs, targets))


def main():
    """Measure all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9, help="runs of each side (default: 9)")
    parser.add_argument("--out", type=Path, help="default: cost.jsonl or cost_sweep.jsonl beside this file, in results")
    parser.add_argument("--sweep", action="store_true", help="cost against chains, parameters and temperatures")
    parser.add_argument("--cores", type=int, help="use so many of them (default: all)")
    options = parser.parse_args()
    if options.cores:
        # before JAX looks at how many there are
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-options.cores :])
    name = "cost_sweep.jsonl" if options.sweep else "cost.jsonl"
    options.out = options.out or Path(__file__).parent / "results" / name
    if options.sweep:
        keep(options.out, sweep())
        return
    rows = []
    for name, noise in itertools.product(ROWS, NOISES):
        rows.append(measure(name, noise, options.pairs))
        print(json.dumps(rows[-1]), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    known = options.out.read_text().splitlines() if options.out.exists() else []
    others = [row for row in map(json.loads, known) if row.get("cores") not in (None, rows[0]["cores"])]
    options.out.write_text("".join(json.dumps(row) + "\n" for row in others + rows))
    print("\n| model | noise | bare gradient, µs | sampler, µs | ratio (min to max) | by the clock | goal |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        spread = f"{row['ratio']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
        sides = f"{row['bare_us']} | {row['sampler_us']} | {spread} | {row['wall_ratio']:.2f}"
        print(f"| {row['model']} | {row['noise']} | {sides} | ≤ {row['goal']} |")


if __name__ == "__main__":
    main()
