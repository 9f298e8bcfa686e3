"""Time of one step of one chain: slt_jax, devinterp, canonical-interp and a loop by hand in PyTorch, side by side.

    pip install 'devinterp==2.0.1' 'zarr>=3.1,<3.2' 'canonical-interp==0.1.5'
    python benchmarks/peer_speed.py
    python benchmarks/peer_speed.py --peer-python OTHER_ENVIRONMENT/bin/python

prints one JSON line for each model and tool and a Markdown table, and keeps the lines in
``benchmarks/results/peer_speed.jsonl``. The PyTorch half (``peer_speed_torch.py``) is a process of its own and may live
in another environment; canonical-interp needs Python 3.12 there. What cannot be run is a row that says why.

All get the three models of ``models.py`` with the same weights, examples, batch size, chains, draws, step size, ``nβ``
and ``γ``, and the losses of both halves are compared before anything is timed. Every round runs every tool once, one
after the other, on the same cores (``--cores``, by default one, which is the least time of the processor for all of
them); ``wall_us`` and ``cpu_us`` are medians over rounds, in µs for each step of each chain, and ``wall_over_ours`` and
``cpu_over_ours`` the medians of a tool's time over ours in the same round: of the sampler, or for a gradient of our
gradient. On a machine that others use too (``load``: how many run or wait for its cores) the time of the processor is
the steadier one.

- ``slt_jax``: ``slt.sample`` with ``sgld``, each chain on batches of its own. ``first_call_s`` is what compiling took.
- ``slt_jax, gradient``: the bare gradient of ``cost.py``, which adds up all entries so that nothing is left out.
- ``torch, gradient``: ``torch.autograd.grad`` in eager PyTorch, one chain after the other.
- ``torch, by hand``: the same, with the update and noise of SGLD in place.
- ``devinterp``: a whole call of ``llc`` as in its README, where the training set is an observable as well, so that each
  draw looks at three more batches, and losses at the centre and files are written first; all chains see the same
  batches. ``devinterp, at its least``: no observables, and what does not grow with the draws taken off, as a long run
  less a short one.
- ``canonical-interp``: ``LLCEstimator`` as in its README, chains vmapped, on the same batches, the gradient compiled;
  what does not grow with the draws is taken off.

``first_call_s`` of the last two is a first, shorter call as a whole: imports and, for canonical-interp, its compiling.
``loss`` is the mean over draws and chains: whoever samples the same posterior sees the same.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import models
import numpy as np
from cost import bare_gradient

import slt_jax as slt
from slt_jax import tree

#: How PyTorch knows the model, its maker, batch size, draws.
MODELS = {
    "linear network, 260": ("linear", models.linear_network, 64, 200),
    "perceptron, 9.6k": ("perceptron", models.perceptron, 64, 200),
    "transformer, 111k": ("transformer", models.transformer, 8, 24),
}
CHAINS = 8
STEP, NBETA, GAMMA = 1e-3, 30.0, 1.0
SAMPLER, GRADIENT = "slt_jax", "slt_jax, gradient"
#: Of the other process: the tool, what else it is told, and whether a short run is taken off.
PEERS = {
    "torch, gradient": ({"tool": "gradient"}, False),
    "torch, by hand": ({"tool": "by hand"}, False),
    "devinterp": ({"tool": "devinterp", "observables": True}, False),
    "devinterp, at its least": ({"tool": "devinterp", "observables": False}, True),
    "canonical-interp": ({"tool": "canonical-interp"}, True),
}
#: At least so many times our time.
GOALS = {
    "devinterp": dict(zip(MODELS, (100.0, 20.0, 2.5), strict=True)),
    "torch, by hand": dict(zip(MODELS, (10.0, 3.0, 1.0), strict=True)),
    "torch, gradient": {"transformer, 111k": 1.0},
}
TORCH_HALF = Path(__file__).with_name("peer_speed_torch.py")


class Peer:
    """The process that has PyTorch, asked one job at a time."""

    def __init__(self, python, folder):
        command = [python, str(TORCH_HALF), str(folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, **job):
        """Its answer to a job."""
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"peer_speed: the process of PyTorch ended with {self.process.wait()} at {job}.")
        return json.loads(line)

    def close(self):
        """End its input, and wait."""
        self.process.stdin.close()
        self.process.wait()


def arrays_of(problem):
    """The problem as arrays by name, for PyTorch."""
    found = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(problem.params)
    }
    data = problem.data
    inputs, targets = data if isinstance(data, tuple) else (data[:, :-1], data[:, 1:])
    as_index = (np.asarray(a, np.int64 if jnp.issubdtype(a.dtype, jnp.integer) else a.dtype) for a in (inputs, targets))
    return found | dict(zip(("inputs", "targets"), as_index, strict=True))


def our_runs(problem, batch_size, draws):
    """Our sampler and our gradient, each a function of a key."""
    posterior = slt.localise(*problem, nbeta=NBETA, gamma=GAMMA)
    sampler = slt.samplers.sgld(STEP, averaged_noise=False)
    bare = jax.jit(bare_gradient, static_argnums=(1, 4, 5))

    def sample(key):
        return slt.sample(key, sampler, posterior, problem.data, draws=draws, chains=CHAINS, batch_size=batch_size).loss

    def gradient(key):
        return bare(key, problem.loss_fn, problem.params, problem.data, draws, batch_size)

    return {SAMPLER: sample, GRADIENT: gradient}


def timed(run, seed):
    """Seconds of the clock and of the processor, and the mean of what was returned."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = jax.block_until_ready(run(jax.random.key(seed)))
    found = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    return found | {"loss": float(jnp.mean(value))}


def check_same(peer, kind, problem, batch_size):
    """Both halves have the same loss, or nothing is compared."""
    ours = problem.loss_fn(problem.params, jax.tree.map(lambda leaf: leaf[:batch_size], problem.data))
    theirs = np.asarray(peer.ask(model=kind, tool="losses", batch_size=batch_size)["losses"])
    apart = float(np.max(np.abs(np.asarray(ours) - theirs)))
    if not apart < 1e-5:
        sys.exit(f"peer_speed: the losses of {kind} differ by {apart} between the two halves.")


def measure(peer, name, rounds):
    """The rows of one model."""
    kind, make, batch_size, draws = MODELS[name]
    problem = make(jax.random.key(0))
    check_same(peer, kind, problem, batch_size)
    ours = our_runs(problem, batch_size, draws)
    settings = {"chains": CHAINS, "batch_size": batch_size, "step_size": STEP, "nbeta": NBETA, "gamma": GAMMA}
    short = draws // 4
    first, failed, times = {}, {}, {tool: [] for tool in (*ours, *PEERS)}

    def ask(tool, seed, draws):
        job, _ = PEERS[tool]
        found = peer.ask(model=kind, seed=seed, draws=draws, **settings, **job)
        if seed and "failed" in found:
            sys.exit(f"peer_speed: {tool} ran once on {name} and then failed: {found['failed']}")
        return found

    for tool, run in ours.items():
        first[tool] = timed(run, 0)["wall_s"]
    for tool in PEERS:
        found = ask(tool, 0, short)
        first[tool], failed[tool] = found.get("wall_s"), found.get("failed")
    for seed in range(1, rounds + 1):
        for tool, run in ours.items():
            times[tool].append({**timed(run, seed), "draws": draws})
        for tool, (_, fixed) in PEERS.items():
            if failed[tool] is None:
                found, steps = ask(tool, seed, draws), draws
                if fixed:
                    less, steps = ask(tool, seed, short), draws - short
                    found |= {side: found[side] - less[side] for side in ("wall_s", "cpu_s")}
                times[tool].append({**found, "draws": steps})
    for tool, runs in times.items():
        row = {"benchmark": "peer_speed", "model": name, "parameters": tree.size(problem.params), "tool": tool}
        row |= {**settings, "draws": draws, "rounds": rounds}
        if runs:
            row |= summary(runs, times[GRADIENT if tool.endswith("gradient") else SAMPLER])
            if not tool.endswith("gradient"):
                row["loss"] = round(statistics.median(run["loss"] for run in runs), 3)
            row |= {"first_call_s": round(first[tool], 2), "goal": GOALS.get(tool, {}).get(name)}
        else:
            row |= {"failed": failed[tool]}
        yield row


def summary(runs, ours):
    """Microseconds for each step of each chain, and how many times ours."""
    found = {}
    for clock in ("wall", "cpu"):
        took, mine = ([run[f"{clock}_s"] / (CHAINS * run["draws"]) * 1e6 for run in side] for side in (runs, ours))
        over = [theirs / own for theirs, own in zip(took, mine, strict=True)]
        for what, values in ((f"{clock}_us", took), (f"{clock}_over_ours", over)):
            found[what] = round(statistics.median(values), 2)
            found |= {f"{what}_min": round(min(values), 2), f"{what}_max": round(max(values), 2)}
    return found


def table(rows):
    """Markdown: what each tool takes, and how many times ours."""
    yield "| model | tool | µs a chain and step, wall | CPU | times ours, wall (min to max) | CPU (min to max) | goal |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        cells = [row["model"], row["tool"]]
        if "failed" in row:
            cells += [f"could not be run: {row['failed']}", "", "", "", ""]
        else:
            cells += [f"{row['wall_us']:.4g}", f"{row['cpu_us']:.4g}"]
            for over in ("wall_over_ours", "cpu_over_ours"):
                cells.append(f"{row[over]:.3g} ({row[f'{over}_min']:.3g} to {row[f'{over}_max']:.3g})")
            cells.append(f"≥ {row['goal']:g}" if row["goal"] else "")
        yield f"| {' | '.join(cells)} |"


def peer_versions(python):
    """What is installed there; the program ends where that is not PyTorch."""
    try:
        done = subprocess.run([python, str(TORCH_HALF), "--versions"], capture_output=True, text=True, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        found = json.loads(lines[-1]) if lines else {"missing": done.stderr.strip().splitlines()[-1:]}
    except OSError as error:
        found = {"missing": str(error)}
    if "missing" in found:
        advice = "pip install 'devinterp==2.0.1' 'zarr>=3.1,<3.2' 'canonical-interp==0.1.5', or pass --peer-python"
        sys.exit(f"peer_speed: no usable PyTorch in {python} ({found['missing']}): {advice}")
    return found


def main():
    """Measure all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default=sys.executable, help="the interpreter that has PyTorch")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each tool (default: 5)")
    parser.add_argument("--cores", type=int, default=1, help="cores that all may use (default: 1)")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), metavar="MODEL")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "peer_speed.jsonl")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds: got {options.rounds}; it must be at least 1")
    if not hasattr(os, "sched_setaffinity"):
        sys.exit("peer_speed: both halves are held to the same cores, which needs Linux")
    at_hand = sorted(os.sched_getaffinity(0))
    if not 1 <= options.cores <= len(at_hand):
        parser.error(f"--cores: got {options.cores}; it must lie between 1 and {len(at_hand)}, the cores at hand")
    theirs = peer_versions(options.peer_python)
    # before JAX counts them
    os.sched_setaffinity(0, at_hand[-options.cores :])
    versions = {"python": platform.python_version(), "jax": jax.__version__, "slt_jax": slt.__version__}
    about = {
        "cores": options.cores,
        "machine": f"{platform.machine()}, {len(at_hand)} cores at hand, {jax.default_backend()}",
        "versions": {**versions, "peer": theirs},
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            kind, make, _, _ = MODELS[name]
            np.savez(Path(folder) / f"{kind}.npz", **arrays_of(make(jax.random.key(0))))
        peer = Peer(options.peer_python, folder)
        for name in options.models:
            for row in measure(peer, name, options.rounds):
                rows.append({**row, "load": round(os.getloadavg()[0], 1), **about})
                print(json.dumps(rows[-1]), flush=True)
        peer.close()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print("\n" + "\n".join(table(rows)))


if __name__ == "__main__":
    main()
