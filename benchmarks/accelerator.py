"""What a GPU or TPU sustains: steps of a chain against the bare gradient, from one to a hundred million parameters.

    python benchmarks/accelerator.py
    python benchmarks/accelerator.py --only throughput     # or: coefficient, noise
    python benchmarks/accelerator.py --tiny                # does it run? small sizes, on any machine, nothing kept

prints one JSON line per row and keeps them in ``benchmarks/results/accelerator.jsonl``. Where JAX finds only a CPU it
says so and ends.

``throughput``: wall time of a step of one chain, of ``sgld``, of ``underdamped`` (which ``llc`` uses) and of the same
with noise of one bit an entry, and of
``jax.value_and_grad`` on the same batches, as in ``cost.py``; the sides in turn, the ratio is the median over pairs.
Products of matrices are as precise as JAX makes them by default, the same on all sides. Memory is the most that the
process held until then; models come in increasing size.

``coefficient``: λ̂ of a linear network of a hundred million parameters at its most degenerate minimum, one chain of 1000
gradients in single precision, against the theorem, for 1e8 examples. At the ``nβ`` of 1e5 examples the noise of a
matrix of this width, ``2 √(width / nβ)``, is as large as its singular values: the posterior is not yet that of the
singularity, and λ̂ was 5.0 % low on an H200.

``noise``: standard normal entries by the way of the samplers (``normal``) and by ``jax.random.normal``,
for each of JAX's generators, in nanoseconds an entry.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from cost import bare_gradient

import slt_jax as slt
from slt_jax import tree
from slt_jax.models.transformer import Transformer
from slt_jax.noise import normal, signs

RESULTS = Path(__file__).parent / "results" / "accelerator.jsonl"
#: Width of a square linear network of three layers, chains, steps of a run.
LINEAR = ((577, 8, 200), (1826, 4, 100), (5774, 1, 40))
#: Width, blocks, heads, vocabulary, chains, steps of a run.
TRANSFORMERS = ((128, 4, 8, 1024, 8, 40), (320, 7, 8, 4096, 4, 20), (768, 12, 12, 16384, 1, 20))
#: Of the linear networks; sequences and their length of the transformers.
BATCH, SEQUENCES, LENGTH = 1024, 32, 256
#: Inputs, hidden units, outputs, rank; and how many examples the population loss stands for.
COEFFICIENT = (6000, 8334, 6000, 2000)
EXAMPLES = 100_000_000
#: Entries drawn at once, and times in a row.
NOISE = (100_000_000, 10)
TINY = {
    "NOISE": (1000, 2),
    "LINEAR": ((20, 2, 3), (30, 1, 3)),
    "TRANSFORMERS": ((16, 2, 2, 32, 2, 3),),
    "BATCH": 16,
    "SEQUENCES": 2,
    "LENGTH": 8,
    "COEFFICIENT": (60, 83, 60, 20),
}


def linear_network(width):
    """Three square layers on four batches of examples."""
    keys = jax.random.split(jax.random.key(0), 5)
    params = [jax.random.normal(key, (width, width)) / width**0.5 for key in keys[:3]]
    inputs, targets = (jax.random.normal(key, (4 * BATCH, width)) for key in keys[3:])

    def loss_fn(params, batch):
        stream, targets = batch
        for layer in params:
            stream = stream @ layer
        return 0.5 * jnp.sum((stream - targets) ** 2, axis=1)

    return slt.Problem(loss_fn, params, (inputs, targets))


def language_model(width, blocks, heads, vocabulary):
    """A transformer that was not trained, on random tokens."""
    network = Transformer(vocabulary, width, blocks, heads, 4 * width, LENGTH)
    tokens = jax.random.randint(jax.random.key(0), (4 * SEQUENCES, LENGTH + 1), 0, vocabulary)
    params = jax.jit(network.init)(jax.random.key(1), tokens[:1, :-1])["params"]

    def loss_fn(params, tokens):
        logits = jax.nn.log_softmax(network.apply({"params": params}, tokens[:, :-1]))
        return -jnp.take_along_axis(logits, tokens[:, 1:, None], axis=2)[..., 0]

    return slt.Problem(loss_fn, params, tokens)


def models():
    """Name, problem, batch size, chains and steps of a run, the largest last."""
    for linear, transformer in zip(LINEAR, TRANSFORMERS, strict=False):
        width, chains, steps = linear
        yield "linear", linear_network(width), BATCH, chains, steps
        *sizes, chains, steps = transformer
        yield "transformer", language_model(*sizes), SEQUENCES, chains, steps


def throughput(pairs, least):
    """Rows of the sizes; the first pair compiles."""
    bare = jax.jit(bare_gradient, static_argnums=(1, 4, 5, 6))
    for name, problem, batch_size, chains, steps in models():
        if tree.size(problem.params) < least:
            continue
        posterior = slt.localise(*problem, nbeta=100.0)
        sizes = {"draws": steps, "chains": chains, "batch_size": batch_size}

        def run(side, key, problem=problem, posterior=posterior, sizes=sizes):
            if side == "bare":
                where = problem.loss_fn, problem.params, problem.data
                return bare(key, *where, sizes["draws"], sizes["batch_size"], sizes["chains"])
            noise = signs if side == "underdamped_signs" else normal
            sampler = slt.samplers.sgld(1e-9) if side == "sgld" else slt.samplers.underdamped(1e-5, noise=noise)
            return slt.sample(key, sampler, posterior, problem.data, **sizes).excess

        times, memory = {side: [] for side in ("bare", "sgld", "underdamped", "underdamped_signs")}, {}
        for pair in range(-1, pairs):
            for side, found in times.items():
                begin = time.perf_counter()
                jax.block_until_ready(run(side, jax.random.key(pair + 1)))
                if pair >= 0:
                    found.append((time.perf_counter() - begin) / (chains * steps) * 1e3)
                memory.setdefault(side, peak_memory())
        row = {"benchmark": "throughput", "model": name, "parameters": tree.size(problem.params)}
        row |= {"chains": chains, "batch_size": batch_size, "pairs": pairs}
        for side, found in times.items():
            row |= {f"{side}_ms": statistics.median(found), f"{side}_peak_gib": memory[side]}
            if side != "bare":
                row[f"{side}_share"] = statistics.median(a / b for a, b in zip(times["bare"], found, strict=True))
        yield row


def coefficient():
    """A row: the largest linear network at its minimum."""
    *widths, rank = COEFFICIENT
    problem = slt.truths.deep_linear_problem(jax.random.key(0), widths, rank, examples=EXAMPLES)
    exact = float(slt.truths.deep_linear(widths, rank).learning_coefficient)
    begin = time.perf_counter()
    estimate = slt.llc(jax.random.key(1), *problem, chains=1, draws=500, burnin=500)
    value = float(estimate.value)
    yield {
        "benchmark": "coefficient",
        "parameters": tree.size(problem.params),
        "examples": EXAMPLES,
        "exact": exact,
        "value": value,
        "std_error": float(estimate.std_error),
        "relative_error": value / exact - 1,
        "explanation": estimate.health.explain(),
        "seconds": time.perf_counter() - begin,
        "peak_gib": peak_memory(),
    }


def noise(pairs):
    """A row for each generator and each way."""
    entries, repeats = NOISE
    like = jnp.zeros(entries)
    ways = {
        "normal": normal,
        "signs": signs,
        "jax.random.normal": lambda key, _: jax.random.normal(key, (entries,)),
    }
    for generator in ("threefry2x32", "rbg", "unsafe_rbg"):
        for name, draw in ways.items():

            @jax.jit
            def several(key, like, draw=draw):
                return jax.lax.fori_loop(
                    0, repeats, lambda i, total: total + draw(jax.random.fold_in(key, i), like), like
                )

            times = []
            for pair in range(-1, pairs):
                begin = time.perf_counter()
                jax.block_until_ready(several(jax.random.key(pair + 1, impl=generator), like))
                if pair >= 0:
                    times.append((time.perf_counter() - begin) / (repeats * entries) * 1e9)
            row = {"benchmark": "noise", "generator": generator, "way": name, "entries": entries}
            yield row | {"ns_per_entry": statistics.median(times)}


def peak_memory():
    """The most that this process held on the device so far, GiB; NaN where it does not say."""
    found = jax.local_devices()[0].memory_stats() or {}
    return round(found.get("peak_bytes_in_use", float("nan")) / 2**30, 3)


def keep(out, rows, name, stamp, tiny):
    """Print each row as it comes and store it; rows of the other benchmark stay."""
    lines = out.read_text().splitlines() if out.exists() else []
    lines = [line for line in lines if json.loads(line)["benchmark"] != name]
    for row in rows:
        lines.append(json.dumps(row | stamp))
        print(lines[-1], flush=True)
        if not tiny:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text("\n".join(lines) + "\n")


def main():
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("throughput", "coefficient", "noise"))
    parser.add_argument("--pairs", type=int, default=7, help="runs of each side (default: 7)")
    parser.add_argument("--least", type=float, default=0, help="parameters of the smallest model (default: all models)")
    parser.add_argument("--tiny", action="store_true", help="small sizes, on any machine; nothing is kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.tiny:
        globals().update(TINY)
    elif jax.default_backend() == "cpu":
        print("No accelerator: JAX finds only a CPU here. Nothing was measured; --tiny runs small sizes.")
        return
    device = jax.local_devices()[0]
    stamp = {"machine": device.device_kind, "versions": {"jax": jax.__version__, "slt_jax": slt.__version__}}
    found = {
        "throughput": throughput(options.pairs, options.least),
        "coefficient": coefficient(),
        "noise": noise(options.pairs),
    }
    for name, rows in found.items():  # generators: nothing runs yet
        if options.only in (None, name):
            keep(options.out, rows, name, stamp, options.tiny)


if __name__ == "__main__":
    main()
