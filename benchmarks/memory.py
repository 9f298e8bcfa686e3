"""Memory of a chain in copies of the parameters, for single samplers and for ``llc`` as it is called.

    python benchmarks/memory.py

prints one JSON line per row and keeps them in ``benchmarks/results/memory.jsonl``. The model is a linear network of a
million parameters on 16 examples, so that activations and data weigh next to nothing (1.4 % and 1.8 % of a copy for
each chain, counted with the rest).

``copies`` is what the compiler says that a program needs at once, arguments, temporaries and results less what is
shared between them and less the data, over the size of the parameters and over the number of chains; ``shared_copies``
of them are the centre, which all chains share. ``llc`` runs several programs, one after the other: the row is that of
the largest, and ``programs`` has each of them. ``rss_copies`` is what the operating system saw: by how much the
resident memory of a fresh process peaks above what it was before the call, in the calls after the first, which
compiles: what compiling needs is not in it.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from records import RESULTS, keep

import slt_jax as slt
from slt_jax import tree
from slt_jax.estimators import block, llc_from, planning

WIDTH, LAYERS, EXAMPLES = 577, 3, 16
CHAINS = (1, 4, 8)
GOALS = {"sgld": 4.0, "sgld, Euler noise": 4.0, "underdamped": 6.0, "llc": 6.0}
SAMPLERS = {
    "sgld": slt.samplers.sgld(1e-9),
    "sgld, Euler noise": slt.samplers.sgld(1e-9, averaged_noise=False),
    "underdamped": slt.samplers.underdamped(1e-5),
}
DRAWS = 10
#: Calls whose resident memory is looked at; the largest counts.
REPEATS = 3
MIB = 2**20


def loss_fn(params, batch):
    """Squared error of a deep linear network."""
    stream, targets = batch
    for layer in params:
        stream = stream @ layer
    return 0.5 * jnp.sum((stream - targets) ** 2, axis=1)


def problem():
    """A million parameters, in three layers."""
    *keys, inputs, targets = jax.random.split(jax.random.key(0), LAYERS + 2)
    params = [jax.random.normal(key, (WIDTH, WIDTH)) / WIDTH**0.5 for key in keys]
    return slt.Problem(loss_fn, params, tuple(jax.random.normal(key, (EXAMPLES, WIDTH)) for key in (inputs, targets)))


def bytes_of(values):
    """Size of all leaves."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(values))


def peak(lowered):
    """Bytes that a program needs at once, with its arguments and results."""
    said = lowered.compile().memory_analysis()
    return said.argument_size_in_bytes + said.output_size_in_bytes + said.temp_size_in_bytes - said.alias_size_in_bytes


def programs(name, chains):
    """What each program of a row needs at once, in bytes."""
    here = problem()
    key = jax.random.key(1)
    posterior = slt.localise(*here, nbeta=100.0)
    if name != "llc":

        def run(key, posterior, data):
            return slt.sample(key, SAMPLERS[name], posterior, data, draws=DRAWS, chains=chains)

        return {"sample": peak(jax.jit(run).lower(key, posterior, here.data))}
    start = block.start.lower(key, posterior, here.data, chains, None)
    warm = jax.eval_shape(lambda key: block.start(key, posterior, here.data, chains, None), key)
    todo = planning.plan(chains, 5, 5, DRAWS)
    state, rest = warm.state, warm._replace(state=())
    batch_key, stage_keys = block.keys_of(key, len(todo.settled))
    given = batch_key, stage_keys, posterior, here.data, state, rest, todo
    run = block.stages_in_place.lower(*given, DRAWS // 5, 1, None, True, False)
    trace = run.out_info[0]
    return {
        "polish": peak(jax.jit(slt.polish).lower(posterior, here.data)),
        "start": peak(start),
        "run": peak(run),
        "read": peak(jax.jit(llc_from).lower(trace, posterior)),
    }


def resident(name, chains):
    """Bytes by which the resident memory of this process peaks above what it was, when everything is compiled."""
    here = problem()
    posterior = slt.localise(*here, nbeta=100.0)

    def call(seed):
        if name == "llc":
            return slt.llc(jax.random.key(seed), *here, nbeta=100.0, chains=chains, draws=DRAWS, burnin=DRAWS).value
        sizes = dict(draws=DRAWS, chains=chains)
        return slt.sample(jax.random.key(seed), SAMPLERS[name], posterior, here.data, **sizes).excess

    most = 0
    for seed in range(REPEATS + 1):  # the first call compiles
        # what was freed goes back to the operating system, and the peak starts anew
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        jax.block_until_ready(call(seed))
        most = max(most, status("VmHWM") - before) if seed else 0
    return most


def status(entry):
    """Bytes of an entry of this process, as Linux counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{entry}:"))


def measure():
    """A row for each sampler and number of chains, each from a process of its own."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(MIB), "MALLOC_ARENA_MAX": "1"}
    for name, goal in GOALS.items():
        for chains in CHAINS:
            command = [sys.executable, __file__, "--child", name, "--chains", str(chains)]
            found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            yield json.loads(found.stdout) | {"goal": goal}


def child(name, chains):
    """Print what a fresh process measures."""
    here = problem()
    size = bytes_of(here.params)
    needed = programs(name, chains)
    copies = {program: round((bytes_ - bytes_of(here.data)) / size / chains, 2) for program, bytes_ in needed.items()}
    row = {"benchmark": "memory", "what": name, "parameters": tree.size(here.params), "chains": chains}
    row |= {"copies": max(copies.values()), "shared_copies": round(1 / chains, 2), "programs": copies}
    # Linux alone tells, and lets the peak start anew
    if Path("/proc/self/clear_refs").exists():
        row["rss_copies"] = round(resident(name, chains) / size / chains + 1 / chains, 2)
    print(json.dumps(row))


def main():
    """Measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", choices=GOALS, help=argparse.SUPPRESS)
    parser.add_argument("--chains", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.chains)
    else:
        keep(RESULTS / "memory.jsonl", measure())


if __name__ == "__main__":
    main()
