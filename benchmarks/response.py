"""Susceptibilities of every token with every attention head: against devinterp (PyTorch), and a million tokens.

    pip install 'devinterp==2.0.1' 'zarr>=3.1,<3.2'
    python benchmarks/response.py --only peers --peer-python OTHER_ENVIRONMENT/bin/python
    python benchmarks/response.py --only memory

each print one JSON line per row and add it to ``benchmarks/results/response.jsonl``, in place of older rows of the same
part on the same kind of machine. ``--peer no`` leaves devinterp out.

``peers``: all heads of a transformer of two layers of eight heads, attention only, briefly trained on sequences that
repeat themselves. Both libraries get the same weights, tokens, batch size, chains, draws and SGLD settings (Euler
noise, ε, nβ, γ), and both give the susceptibility of every token of the probe sequences in the chain of every head,
with the mean of a free chain. What slt_jax gets: ``slt.susceptibility(..., {"probe": slt.response.each(probe)},
free=True, controls=False)``. What devinterp gets: ``susceptibilities(model, dataset, {"train": ..., "probe": ...},
{"full": None, "head 0.0": masks, ...}, sampling_task="train", ...)`` with a loss on as many positions; its half
(``response_torch.py``) is a process of its own. At each draw either looks at all of the data and of the probe. They are
run in turn, slt_jax first and last, after its programs were compiled: ``compile_s`` is the time of the clock that XLA
took for it. On accelerators ``wall_s`` is what counts: all work there is waited for. The two differ in that devinterp
puts all chains on the same batches, without replacement, and writes every loss to disk; slt_jax has errors, effective
draws and a verdict. ``agreement`` is the correlation of the two tables of numbers, ``ceiling`` that of two runs of
slt_jax.

``memory``: 10⁶ tokens, all of them observables of one head, a model of ten thousand parameters: the largest resident
memory of the process. It hangs on the number of draws only up to sixteen. A free chain would add its own sums, 0.43 GB.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import slt_jax as slt
from slt_jax.models.transformer import Transformer

BLOCKS, HEADS = 2, 8
CHAINS, DRAWS, BURNIN = 4, 200, 40
NBETA, GAMMA, STEP = 30.0, 300.0, 1e-4
#: Width, vocabulary, context, batch size, and how many batches the data are, and the probe.
SIZES = {"small": (128, 256, 64, 4, 2), "large": (256, 512, 128, 32, 3)}
PARTS = ("peers", "memory")


def sequences(key, count, length, vocabulary):
    """Tokens whose second half repeats the first, shape ``(count, length + 1)``."""
    half = jax.random.randint(key, (count, (length + 2) // 2), 0, vocabulary)
    return jnp.concatenate([half, half], axis=1)[:, : length + 1]


def made(width, vocabulary, context, heads, blocks, training, batch_size=8):
    """A loss of tokens, and parameters after so many steps of Adam."""
    network = Transformer(vocabulary, width, blocks, heads, 0, context)

    def loss_fn(params, batch):
        logits = network.apply({"params": params}, batch[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:])

    params = network.init(jax.random.key(0), jnp.zeros((1, context), int))["params"]
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(state, key):
        params, moments = state
        batch = sequences(key, batch_size, context, vocabulary)
        change, moments = optimizer.update(jax.grad(lambda w: loss_fn(w, batch).mean())(params), moments)
        return optax.apply_updates(params, change), moments

    state = params, optimizer.init(params)
    for key in jax.random.split(jax.random.key(1), training):
        state = step(state, key)
    return loss_fn, jax.block_until_ready(state[0])


def timed(run):
    """What ``run`` returned, with seconds of CPU and of the clock, all work of an accelerator done."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = jax.block_until_ready(run())
    return value, {"wall_s": round(time.perf_counter() - wall, 2), "cpu_s": round(time.process_time() - cpu, 2)}


@contextmanager
def compiling():
    """Seconds that XLA compiles for while the context is open, one number for each program."""
    spent = []

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            spent.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield spent
    jax.monitoring.unregister_event_duration_listener(listen)


def peers(options):
    """Rows of slt_jax, of devinterp, and their ratio."""
    width, vocabulary, context, batch_size, batches = SIZES[options.size]
    loss_fn, params = made(width, vocabulary, context, HEADS, BLOCKS, training=options.training)
    count = batches * batch_size
    data, probe = (sequences(jax.random.key(seed), count, context, vocabulary) for seed in (2, 3))
    components = slt.restriction.heads(params)
    settings = {"chains": CHAINS, "draws": options.draws, "burnin": BURNIN, "batch_size": batch_size}
    settings |= {"nbeta": NBETA, "gamma": GAMMA}
    sampler = slt.samplers.sgld(STEP, averaged_noise=False)

    def ours(seed, some):
        found = slt.susceptibility(
            jax.random.key(seed),
            loss_fn,
            params,
            data,
            some,
            {"probe": slt.response.each(probe)},
            sampler=sampler,
            thin=1,
            controls=False,
            free=True,
            together=options.together,
            **settings,
        )
        return found.of("probe", found.against_free.value)

    shape = {"width": width, "vocabulary": vocabulary, "context": context, "heads": len(components)}
    head = {"benchmark": "response", "part": "peers", "sequences": count, **shape, **settings, "step_size": STEP}
    mine, theirs = [], []
    together = options.together or slt.restriction.together_by_default()
    with compiling() as spent:
        # one after the other, all of one shape share the programs of one
        one_each = [group.names[0] for group in slt.restriction.by_shape(components)]
        ours(0, components if together > 1 else {name: components[name] for name in one_each})
    for seed in range(1, options.rounds + 1):
        first, seconds = timed(lambda seed=seed: ours(seed, components))
        mine.append(seconds)
        if options.peer_python is not None:
            other, row = peer(
                options.peer_python, params, (data, probe), components, {**settings, "seed": seed, "batches": batches}
            )
            theirs.append(row)
    if theirs:
        last, seconds = timed(lambda: ours(options.rounds + 1, components))
        mine.append(seconds)
    middle = {name: statistics.median(row[name] for row in mine) for name in ("wall_s", "cpu_s")}
    about = {"compile_s": round(sum(spent), 2), "together": together, **machine()}
    yield {**head, "tool": "slt_jax", **middle, "runs": mine, **about}
    if not theirs:
        return
    missing = next((row for row in theirs if "missing" in row), None)
    if missing is not None:
        yield {**head, "tool": "devinterp", **missing}
        return
    other_middle = {name: statistics.median(row[name] for row in theirs) for name in ("wall_s", "cpu_s")}
    runs = [{name: row[name] for name in ("wall_s", "cpu_s")} for row in theirs]
    about = {name: theirs[-1][name] for name in ("device", "versions")}
    yield {**head, "tool": "devinterp", **other_middle, "runs": runs, **about}
    tables = [np.asarray(table, np.float64).ravel() for table in (first, other, last)]
    agreement, ceiling = (round(float(np.corrcoef(tables[0], table)[0, 1]), 3) for table in tables[1:])
    ratios = {name.replace("_s", "_ratio"): round(other_middle[name] / middle[name], 2) for name in middle}
    yield {**head, "tool": "ratio", **ratios, "goal": 1.5, "agreement": agreement, "ceiling": ceiling, **machine()}


def peer(python, params, tokens, components, settings):
    """The table of numbers of devinterp, ``(head, sequence, token)``, and its times, from a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        arrays = {"/".join(str(part.key) for part in path): leaf for path, leaf in jax.tree.leaves_with_path(params)}
        np.savez(Path(folder) / "params.npz", **{name: np.asarray(leaf) for name, leaf in arrays.items()})
        np.savez(Path(folder) / "tokens.npz", data=np.asarray(tokens[0]), probe=np.asarray(tokens[1]))
        masks = {}
        for name, one in components.items():
            ones = one.lift(jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.ones_like, one.origin(params)))
            free = {"/".join(str(p.key) for p in path): leaf for path, leaf in jax.tree.leaves_with_path(ones)}
            masks |= {f"{name}|{leaf}": np.asarray(mask) != 0 for leaf, mask in free.items() if np.any(mask)}
        np.savez(Path(folder) / "masks.npz", **masks)
        job = {**settings, "step_size": STEP, "heads": HEADS, "blocks": BLOCKS}
        (Path(folder) / "job.json").write_text(json.dumps(job))
        command = [python, str(Path(__file__).with_name("response_torch.py")), folder]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        except OSError as error:
            return None, {"missing": str(error)}
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        row = json.loads(lines[-1]) if lines else {"missing": f"ended with {done.returncode}"}
        if "missing" in row:
            return None, row
        with np.load(Path(folder) / "found.npz", allow_pickle=False) as stored:
            return stored["susceptibilities"], row


def memory(options):
    """One row: the largest resident memory after every token of a million was an observable."""
    context = 64
    count = options.tokens // context
    loss_fn, params = made(32, 64, context, heads=2, blocks=1, training=0)
    data = sequences(jax.random.key(2), count, context, 64)
    components = {"head 0.0": slt.restriction.head(params, 0, 0)}
    settings = {"chains": 4, "draws": 16, "burnin": 4, "batch_size": 32, "nbeta": NBETA, "gamma": GAMMA}

    def run():
        found = slt.susceptibility(
            jax.random.key(0),
            loss_fn,
            params,
            data,
            components,
            {"tokens": slt.response.each(data)},
            sampler=slt.samplers.sgld(STEP),
            thin=1,
            controls=False,
            **settings,
        )
        return found.of("tokens"), found.of("tokens", found.std_error)

    before = peak()
    (own, error), seconds = timed(run)
    assert own.shape == error.shape == (1, count, context)
    assert bool(jnp.isfinite(own).all() & (error > 0).all())
    size = {"tokens": own.size, "parameters": sum(leaf.size for leaf in jax.tree.leaves(params))}
    used = {"before_gb": before, "peak_gb": peak(), "goal_gb": 2.0}
    yield {
        "benchmark": "response",
        "part": "memory",
        "tool": "slt_jax",
        **size,
        **settings,
        **seconds,
        **used,
        **machine(),
    }


def peak():
    """The most memory of the host that this process has held, in 10⁹ bytes."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)


def machine():
    """Where this runs, and what."""
    device = jax.devices()[0]
    name = device.device_kind if device.platform != "cpu" else f"{len(os.sched_getaffinity(0))} cores at hand, cpu"
    versions = {"python": platform.python_version(), "jax": jax.__version__, "slt_jax": slt.__version__}
    return {"device": f"{platform.machine()}, {name}", "versions": versions}


def main():
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, help="one part (default: both)")
    parser.add_argument("--peer", choices=("yes", "no"), default="yes", help="whether to run devinterp too")
    parser.add_argument("--peer-python", default="python", help="the Python that has devinterp (default: python)")
    parser.add_argument("--size", choices=SIZES, default="small", help="of the transformer (default: small)")
    parser.add_argument(
        "--rounds", type=int, default=1, help="runs of each library (default: 1, and one more of slt_jax)"
    )
    parser.add_argument("--draws", type=int, default=DRAWS, help=f"of each chain (default: {DRAWS})")
    parser.add_argument("--training", type=int, default=300, help="steps before anything is measured (default: 300)")
    parser.add_argument("--together", type=int, help="heads side by side (default: the library's)")
    parser.add_argument("--tokens", type=int, default=10**6, help="of the memory part (default: 10⁶)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "response.jsonl")
    options = parser.parse_args()
    # as PyTorch does it: accelerators would round factors to ten bits
    jax.config.update("jax_default_matmul_precision", "highest")
    if options.peer == "no":
        options.peer_python = None
    old = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    for part in [options.only] if options.only else PARTS:
        rows = []
        here = machine()["device"]
        for row in {"peers": peers, "memory": memory}[part](options):
            rows.append({**row, "machine": here})
            print(json.dumps(rows[-1]), flush=True)
        old = [row for row in old if (row["part"], row["machine"]) != (part, here)] + rows
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("".join(json.dumps(row) + "\n" for row in old))


if __name__ == "__main__":
    main()
