"""Wall time and CPU time of the spectrum of a Hessian of a hundred thousand parameters, compilation included.

    python benchmarks/spectrum.py

prints one JSON line per model and keeps the lines in ``benchmarks/results/spectrum.jsonl``. The networks are not
trained: their Hessians have curvatures of both signs, and the regular part is of no interest.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import models

import slt_jax as slt
from slt_jax import tree

GOAL_SECONDS = 60


def perceptron(key):
    """98.9k parameters, widths 64, 256, 256, 64, on 1000 examples."""
    widths, keys = (64, 256, 256, 64), jax.random.split(key, 5)
    params = [
        {"kernel": jax.random.normal(k, (rows, columns)) / rows**0.5, "bias": jnp.zeros(columns)}
        for k, rows, columns in zip(keys, widths[:-1], widths[1:], strict=False)
    ]
    inputs = jax.random.normal(keys[3], (1000, 64))
    return slt.Problem(models._perceptron_loss, params, (inputs, jax.random.randint(keys[4], (1000,), 0, 64)))


#: Model, the number of its examples that are looked at at a time, probes and steps. The transformer has 16 384 tokens:
#: a sixteenth of the products say what one of them costs.
ROWS = {
    "perceptron, 98.9k": (perceptron, 1000, 8, 64),
    "transformer, 111k, 256 x 64 tokens": (models.transformer, 32, 2, 16),
}


def measure(name):
    """One row: the spectrum once, in a process in which nothing of it was compiled before."""
    make, chunk, probes, steps = ROWS[name]
    problem = make(jax.random.key(0))
    jax.block_until_ready(problem)
    begin, cpu = time.perf_counter(), time.process_time()
    settings = {"probes": probes, "steps": steps, "chunk_size": chunk}
    spectrum = slt.hessian_spectrum(jax.random.key(1), *problem, **settings)
    jax.block_until_ready(spectrum.nodes)
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return {
        "benchmark": "spectrum",
        "model": name,
        "parameters": tree.size(problem.params),
        **settings,
        "seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "cpu_ms_a_product": round(1000 * cpu / (probes * steps), 1),
        "goal_seconds": GOAL_SECONDS,
        "largest": round(float(spectrum.nodes.max()), 4),
        "machine": f"{platform.machine()}, {jax.local_device_count()} {jax.default_backend()} device",
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "slt_jax": slt.__version__},
    }


def main():
    """Measure all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "spectrum.jsonl")
    options = parser.parse_args()
    rows = []
    for name in options.models:
        rows.append(measure(name))
        print(json.dumps(rows[-1]), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
