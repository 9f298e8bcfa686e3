"""What it costs to measure in a part of a network only, and all heads and blocks of a transformer in one call.

    python benchmarks/localisation.py
    python benchmarks/localisation.py --only cost

prints JSON lines and keeps them in ``benchmarks/results/localisation.jsonl``. The network is a Flax transformer of 4
blocks of width 144 with 8 heads, 1.08 million parameters, not trained: its own answers are the truth, so that it stands
at a minimum. ``cost`` sets a step of a restricted chain beside the bare gradient of the whole network on the same
batches, in CPU time, run in turn, and the heads of a block in one program beside one head alone. ``heads`` measures all
32 heads and 8 halves of blocks (attention and perceptron) in one scan, counts what is compiled, repeats with other keys
the readings that compiled something, and takes a few alone.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import jax
import numpy as np
import optax
from cost import CHAINS, bare_gradient

import slt_jax as slt
from slt_jax import restriction, tree
from slt_jax.models.transformer import Transformer
from slt_jax.spectroscopy import Checkpoint, Subject, llc_probe, scan

LENGTH, TOKENS = 16, 64
NETWORK = Transformer(vocabulary=256, width=144, blocks=4, heads=8, hidden=576, length=LENGTH)
#: Of the readings: examples, and what the probe is given.
EXAMPLES, SETTINGS = 16, {"nbeta": 1e4, "gamma": 300.0, "chains": 4, "budget": 0, "resolution": True}
COMPARED = ("head 0.3", "head 2.5", "attention 1", "perceptron 3")


def network():
    """A problem whose targets are the network's own answers at its parameters, and tokens."""
    tokens = jax.random.randint(jax.random.key(0), (TOKENS, LENGTH), 0, NETWORK.vocabulary)
    variables = NETWORK.init(jax.random.key(1), tokens[:1])
    logits, params = slt.flax.from_linen(NETWORK, variables=variables)

    def against_own(logits, batch):
        return optax.softmax_cross_entropy(logits, batch[1])

    loss_fn, _ = slt.flax.from_linen(NETWORK, against_own, variables)
    answers = jax.nn.softmax(logits(params, tokens))
    return slt.Problem(loss_fn, params, (tokens, answers))


def halves(params):
    """The attention and the perceptron of every block."""
    attention = {f"attention {n}": restriction.layer(params, f"block_{n}/attention") for n in range(NETWORK.blocks)}
    perceptron = {
        f"perceptron {n}": restriction.paths(params, f"block_{n}/up/*", f"block_{n}/down/*")
        for n in range(NETWORK.blocks)
    }
    return attention | perceptron


def scattered(params, share):
    """A random share of all entries of every leaf."""
    rng = np.random.default_rng(0)
    return restriction.mask(params, jax.tree.map(lambda leaf: rng.random(leaf.shape) < share, params))


def cost(pairs, steps=4, batch_size=8):
    """CPU time of a step of a chain, by what is free, over the bare gradient of the whole network."""
    problem = network()
    heads, parts = restriction.heads(problem.params), halves(problem.params)
    rows = {
        "all": None,
        "one head of block 0, 1 %": heads["head 0.0"],
        "one head of block 1, 1 %": heads["head 1.0"],
        "one head of block 2, 1 %": heads["head 2.0"],
        "one head of the last block, 1 %": heads["head 3.0"],
        "the last perceptron, 15 %": parts["perceptron 3"],
        "1 % scattered over all leaves": scattered(problem.params, 0.01),
    }
    bare = jax.jit(bare_gradient, static_argnums=(1, 4, 5))
    sampler = slt.samplers.sgld(1e-7)
    runs = {"bare": lambda key: bare(key, problem.loss_fn, problem.params, problem.data, steps, batch_size)}
    for name, free in rows.items():
        posterior = slt.localise(*problem, nbeta=100.0, gamma=1.0, restriction=free)

        def run(key, posterior=posterior):
            settings = dict(draws=steps, chains=CHAINS, batch_size=batch_size)
            return slt.sample(key, sampler, posterior, problem.data, **settings).excess

        runs[name] = run
    for block in (0, NETWORK.blocks - 1):
        group = restriction.by_shape({name: one for name, one in heads.items() if name.startswith(f"head {block}.")})[0]
        runs[f"heads of block {block} side by side"] = side_by_side(problem, group, steps, batch_size)
    times = {name: [] for name in runs}
    for pair in range(pairs + 1):
        for name, one in runs.items():
            begin = time.process_time()
            jax.block_until_ready(one(jax.random.key(pair)))
            if pair:  # the first compiles
                times[name].append((time.process_time() - begin) / steps / CHAINS)
    for block, alone in ((0, "one head of block 0, 1 %"), (NETWORK.blocks - 1, "one head of the last block, 1 %")):
        name = f"heads of block {block} side by side"
        ratios = [a / NETWORK.heads / b for a, b in zip(times[name], times[alone], strict=True)]
        yield {
            "benchmark": "cost",
            "free": name,
            "milliseconds_a_head": 1e3 * statistics.median(times[name]) / NETWORK.heads,
            "over_one_by_one": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
        }
    for name in rows:
        ratios = [a / b for a, b in zip(times[name], times["bare"], strict=True)]
        free = 1.0 if rows[name] is None else _share(rows[name], problem.params)
        yield {
            "benchmark": "cost",
            "free": name,
            "share": free,
            "milliseconds": 1e3 * statistics.median(times[name]),
            "over_bare": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
        }


def side_by_side(problem, group, steps, batch_size):
    """Chains for all restrictions of a group in one program, mapped over them."""
    sampler = slt.samplers.sgld(1e-7)
    first = jax.tree.map(lambda leaf: leaf[0], group.restriction)
    posterior = slt.localise(*problem, nbeta=100.0, gamma=1.0, restriction=first)

    def one(key, free):
        settings = dict(draws=steps, chains=CHAINS, batch_size=batch_size)
        return slt.sample(key, sampler, posterior._replace(restriction=free), problem.data, **settings).excess

    return jax.jit(lambda key: jax.vmap(one)(jax.random.split(key, len(group.names)), group.restriction))


def heads(draws):
    """All heads and halves of blocks in one scan; then again, and some of them alone."""
    full = network()
    problem = slt.Problem(full.loss_fn, full.params, jax.tree.map(lambda leaf: leaf[:EXAMPLES], full.data))
    every = {**restriction.heads(problem.params), **halves(problem.params)}
    subject = Subject(problem, restrictions=every)
    point = [Checkpoint(0, lambda: problem.params)]
    probe = {"llc": llc_probe(**SETTINGS, draws=draws, burnin=draws)}
    compiled: list[float] = []

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(duration)

    def go(seed, names):
        begin, counts, found = time.time(), [], {}
        for cell in scan(jax.random.key(seed), subject, point, probe, restrictions=names, together=1):
            found[cell.restriction] = cell.reading
            counts.append((cell.restriction, len(compiled), time.time() - begin))
        return found, counts

    jax.monitoring.register_event_duration_secs_listener(listen)
    first, counts = go(0, every)
    wall = counts[-1][2]
    before = [(0, 0.0), *((number, at) for _, number, at in counts)]
    spent = {name: at - begun for (name, _, at), (_, begun) in zip(counts, before, strict=False)}
    fresh = [name for (name, now, _), (then, _) in zip(counts, before, strict=False) if now > then]
    # with everything compiled: the others were, when their turn came
    again, repeated = go(1, fresh)
    sampling = repeated[-1][2] + sum(seconds for name, seconds in spent.items() if name not in fresh)
    apart = [
        abs(float(first[name]["value"] - again[name]["value"]))
        / np.hypot(first[name]["std_error"], again[name]["std_error"])
        for name in fresh
    ]
    alone, _ = go(0, COMPARED)
    yield {
        "benchmark": "heads",
        "readings": len(every),
        "gradients_a_chain": 2 * draws,
        "healthy": int(sum(bool(reading["healthy"]) for reading in first.values())),
        "shapes": len(restriction.by_shape(every)),
        "compiling_readings": fresh,
        "wall_s": wall,
        "wall_compiled_s": sampling,
        "over_sampling": wall / sampling,
        "errors_apart": {"median": float(np.median(apart)), "most": float(np.max(apart))},
        "same_bits_alone": all(bool(alone[name]["value"] == first[name]["value"]) for name in COMPARED),
        "values": {name: [float(reading["value"]), float(reading["std_error"])] for name, reading in first.items()},
    }


def _share(free, params):
    return tree.size(free.origin(params)) / tree.size(params)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("cost", "heads"))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--draws", type=int, default=500, help="of a reading, after as many steps")
    options = parser.parse_args()
    machine = {"machine": platform.machine(), "jax": jax.__version__, "slt_jax": slt.__version__}
    target = Path(__file__).parent / "results" / "localisation.jsonl"
    kept = [json.loads(line) for line in target.read_text().splitlines()] if target.exists() else []
    ran = ("cost", "heads") if options.only is None else (options.only,)
    kept = [row for row in kept if row["benchmark"] not in ran]
    for name in ran:
        for row in cost(options.pairs) if name == "cost" else heads(options.draws):
            kept.append(row | machine)
            print(json.dumps(kept[-1]), flush=True)
            target.write_text("".join(json.dumps(one) + "\n" for one in kept))


if __name__ == "__main__":
    main()
