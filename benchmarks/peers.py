"""The same problems given to slt_jax and to devinterp (PyTorch), with the same number of gradients, side by side.

    pip install 'devinterp==2.0.1' 'zarr>=3.1,<3.2'
    python benchmarks/peers.py
    python benchmarks/peers.py --peer-python OTHER_ENVIRONMENT/bin/python
    python benchmarks/peers.py --ours-only

measures both, prints one JSON line per row, a table and a summary, and keeps the lines in
``benchmarks/results/peers.jsonl``. The PyTorch half (``peers_torch.py``) is a process of its own and may live in
another environment; problems reach it as ``.npz`` files. ``--ours-only`` measures slt_jax again beside the stored rows
of devinterp, and refuses rows of other problems. Without devinterp the benchmark says so in one line and stops.

The problems: of the 40 networks of ``accuracy.py`` all those with at most three layers, at most 2000 parameters and
m = 1; two reduced-rank regressions with m = 1; the normal crossings of ``accuracy.py``. A network has 4000 standard
normal inputs and the outputs of the true product without noise, so that the centre is exactly the minimum and neither
library can be misled by a baseline. Its mean loss depends on the inputs through their second moment alone: both get
the triangular factor of a QR factorisation, as many rows as inputs, with the very same mean loss. ``nβ = n / log n``
for ``n = 4000`` and ``γ = 1e-4 nβ`` (``nβ = 1000``, ``γ = 1`` at the crossings) are passed to both, so both sample the
same posterior. The exact value is λ for the networks, quadrature of the same posterior for the crossings. λ is what
the energy tends to: at this temperature the networks themselves differ from it by up to about 2 %, which counts as an
error of both libraries.

The budget: 4 chains of 4000 gradients on all of the (folded) data, 2000 of them burn-in, and the same seed.

What slt_jax gets: ``llc(key, loss_fn, params, data, nbeta=, gamma=, chains=4, draws=2000, burnin=2000)``.

What devinterp gets: ``devinterp.slt.llc.llc(model, dataset, {}, loss_fn=, lr=, n_beta=nβ, localization=γ,
sampling_method=, num_chains=4, num_draws=2000, num_burnin_steps=2000, batch_size=all, num_init_loss_batches=1)``, all
else at its defaults (noise 1, no weight decay, no box; for RMSProp decay 0.99, stability 0.1). Its update is
``w += -(lr/2) G (nβ ∇L + γ (w - w*)) + √(lr G) ξ`` with ``L`` the mean loss of the batch and ``G = 1``
(``sgmcmc_sgld``) or ``1 / (√v + 0.1)``, ``v`` the running square of ``∇L`` (``rmsprop_sgld``). Of its examples those
about this very task use ``sgmcmc_sgld`` at ``lr = 0.001``: the row called documented. The others are a sweep. No
observables are asked for, and bars and garbage collection are made cheap, which saves it time. Its SGNHT cannot be
reached through ``llc``.

Three readings of devinterp: ``documented``; ``best setting``, the method and rate with the least error over the table;
``best by problem``, chosen for each problem by looking at the truth, which no user can do. Each as published
(``llc_mean``, whose average includes the burn-in, and ``llc_std``, the deviation between chains), and ``after
burn-in``, from the second half of the loss trace that it returns, with the standard error over chains. A run has failed
when a chain met a loss that is not finite, whether or not a number came out; errors are over those that did not fail.
``search_cpu_s`` is the time of all the runs that a choice was made from.
"""

import argparse
import itertools
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from accuracy import CROSSING_GAMMA, CROSSING_NBETA, CROSSINGS, random_networks

import slt_jax as slt
from slt_jax.truths import (
    deep_linear,
    deep_linear_problem,
    normal_crossing_energy,
    normal_crossing_problem,
    reduced_rank,
)

EXAMPLES = 4000
CHAINS, DRAWS, BURNIN = 4, 2000, 2000
MOST_LAYERS, MOST_PARAMETERS = 3, 2000
#: Inputs, hidden units, outputs, rank.
REGRESSIONS = ((20, 8, 12, 4), (10, 6, 10, 4))
DOCUMENTED = ("sgmcmc_sgld", 1e-3)
#: RMSProp divides by about a tenth, so that its rates are that much smaller for the same step.
SWEEP = {"sgmcmc_sgld": (1e-3, 1e-4, 3e-5, 1e-5, 1e-6), "rmsprop_sgld": (1e-3, 1e-4, 1e-5, 3e-6, 1e-6)}
SETTINGS = tuple((method, rate) for method, rates in SWEEP.items() for rate in rates)
GROUPS = {
    "all": ("deep linear", "reduced rank", "normal crossing"),
    "networks": ("deep linear", "reduced rank"),
    "crossings": ("normal crossing",),
}
#: Value and error of a row of devinterp.
PUBLISHED, AFTER_BURNIN = ("value", "reported_error"), ("after_burnin", "after_burnin_error")


class Case(NamedTuple):
    """One problem for both: for slt_jax, as arrays for PyTorch, and as a key under which rows are stored."""

    key: dict
    exact: float
    problem: slt.Problem
    arrays: dict


def cases(seed):
    """All problems."""
    for index, (widths, rank) in enumerate(random_networks(40, seed)):
        truth = deep_linear(widths, rank)
        parameters = sum(before * after for before, after in itertools.pairwise(widths))
        if len(widths) <= MOST_LAYERS + 1 and parameters <= MOST_PARAMETERS and truth.multiplicity == 1:
            yield network("deep linear", widths, rank, float(truth.learning_coefficient), index)
    for index, (*widths, rank) in enumerate(REGRESSIONS):
        truth = reduced_rank(*widths, rank)
        yield network("reduced rank", tuple(widths), rank, float(truth.learning_coefficient), index)
    for exponents in CROSSINGS:
        key = described("normal crossing", str(exponents), seed, CROSSING_NBETA, CROSSING_GAMMA)
        exact = normal_crossing_energy(exponents, CROSSING_NBETA, CROSSING_GAMMA)
        problem = normal_crossing_problem(exponents, examples=1000)
        yield Case(key, exact, problem, {"exponents": np.asarray(exponents)})


def network(family, widths, rank, exact, seed):
    """A linear network on Gaussian inputs that a QR factorisation folds into as many rows as inputs."""
    problem = deep_linear_problem(jax.random.key(seed), widths, rank, examples=EXAMPLES, population=False, noise=0.0)
    product = np.eye(widths[0])
    for layer in problem.params:
        product = np.asarray(layer, np.float64) @ product
    factor = np.linalg.qr(np.asarray(problem.data[0], np.float64), mode="r")
    inputs = factor * math.sqrt(len(factor) / EXAMPLES)
    rows = tuple(np.asarray(leaf, np.float32) for leaf in (inputs, inputs @ product.T))
    layers = {f"layer{index}": np.asarray(layer) for index, layer in enumerate(problem.params)}
    nbeta = EXAMPLES / math.log(EXAMPLES)
    key = described(family, f"{widths}, rank {rank}", seed, nbeta, 1e-4 * nbeta)
    arrays = {**layers, "inputs": rows[0], "targets": rows[1]}
    return Case(key, exact, problem._replace(data=jax.tree.map(jnp.asarray, rows)), arrays)


def described(family, case, seed, nbeta, gamma):
    """What has to be equal for two rows to be about the same thing."""
    budget = {"chains": CHAINS, "draws": DRAWS, "burnin": BURNIN}
    return {"family": family, "case": case, "seed": seed, "nbeta": round(nbeta, 6), "gamma": round(gamma, 6), **budget}


def our_row(case):
    """slt_jax, with nothing chosen."""
    settings = {name: case.key[name] for name in ("nbeta", "gamma", "chains", "draws", "burnin")}
    begin = time.process_time()
    estimate = slt.llc(jax.random.key(case.key["seed"]), *case.problem, **settings)
    value, error = float(estimate.value), float(estimate.std_error)
    seconds = time.process_time() - begin
    return {
        "tool": "slt_jax",
        "problem": case.key,
        "settings": settings,
        "exact": round(case.exact, 5),
        "value": value if math.isfinite(value) else None,
        "reported_error": error if math.isfinite(error) else None,
        "healthy": bool(estimate.health.ok),
        "failed_chains": round(CHAINS * float(estimate.health.diverged)),
        "cpu_s": round(seconds, 2),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "slt_jax": slt.__version__},
    }


def peer_rows(python, todo):
    """devinterp, on every problem with every method and rate, in a process of its own."""
    jobs, owners = [], []
    with tempfile.TemporaryDirectory() as folder:
        for index, case in enumerate(todo):
            np.savez(Path(folder) / f"{index}.npz", **case.arrays)
            for method, rate in SETTINGS:
                jobs.append({"file": f"{index}.npz", "settings": peer_settings(case, method, rate)})
                owners.append(case)
        path = Path(folder) / "jobs.json"
        path.write_text(json.dumps(jobs))
        command = [python, str(Path(__file__).with_name("peers_torch.py")), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            lines = (line for line in process.stdout if line.startswith("{"))
            for case, line in zip(owners, lines, strict=True):
                row = json.loads(line)
                documented = setting(row) == DOCUMENTED
                head = {"tool": "devinterp", "problem": case.key, "documented": documented}
                yield {**head, "exact": round(case.exact, 5), **row, "machine": machine()}


def peer_settings(case, method, rate):
    """What ``llc`` of devinterp is called with, beside the problem itself."""
    key = case.key
    return {
        "sampling_method": method,
        "lr": rate,
        "n_beta": key["nbeta"],
        "localization": key["gamma"],
        "num_chains": CHAINS,
        "num_draws": DRAWS,
        "num_burnin_steps": BURNIN,
        "init_seed": key["seed"],
    }


def peer_versions(python):
    """What is installed there, or a dictionary that says what is missing."""
    command = [python, str(Path(__file__).with_name("peers_torch.py")), "--versions"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return {"missing": str(error)}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {"missing": done.stderr.strip().splitlines()[-1:]}


def machine():
    """Where this runs."""
    return f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores at hand, cpu"


def relative(row, fields=PUBLISHED):
    """Relative error of a row; ``None`` where it failed."""
    if row["failed_chains"] or row[fields[0]] is None:
        return None
    return row[fields[0]] / row["exact"] - 1


def accuracy_of(rows, fields=PUBLISHED):
    """Errors of one row per problem."""
    errors = [(relative(row, fields), row) for row in rows]
    kept = [(error, row) for error, row in errors if error is not None]
    sizes = np.abs([error for error, _ in kept])
    covered = [abs(row[fields[0]] - row["exact"]) <= 2 * row[fields[1]] for _, row in kept]
    return {
        "problems": len(rows),
        "failed": len(rows) - len(kept),
        "wrong_by_half": int((sizes > 0.5).sum()),
        "rms_error": round(float(np.sqrt(np.mean(sizes**2))), 5) if kept else None,
        "median_error": round(float(np.median(sizes)), 5) if kept else None,
        "within_two_errors": round(float(np.mean(covered)), 3) if kept else None,
        "cpu_s": round(sum(row["cpu_s"] for row in rows), 1),
    }


def setting(row):
    """Method and rate."""
    return row["settings"]["sampling_method"], row["settings"]["lr"]


def choices(peers, fields):
    """The three readings of devinterp: one row per problem each."""
    by_setting, by_problem = {}, {}
    for row in peers:
        by_setting.setdefault(setting(row), []).append(row)
        by_problem.setdefault(json.dumps(row["problem"]), []).append(row)

    def least(rows):
        measured = accuracy_of(rows, fields)
        return measured["failed"], math.inf if measured["rms_error"] is None else measured["rms_error"]

    best = min(by_setting, key=lambda name: least(by_setting[name]))
    yield "documented", [row for row in peers if row["documented"]]
    yield f"best setting: {best[0]}, lr {best[1]:g}", by_setting[best]
    yield "best by problem", [min(rows, key=lambda row: least([row])) for rows in by_problem.values()]


def summaries(ours, peers):
    """One row for each group of problems and each way to read devinterp."""
    for group, families in GROUPS.items():
        mine = [row for row in ours if row["problem"]["family"] in families]
        theirs = [row for row in peers if row["problem"]["family"] in families]
        if not mine or not theirs:
            continue
        measured = accuracy_of(mine)
        yield {"benchmark": "peers", "group": group, "tool": "slt_jax", **measured}
        for reading, fields in (("as published", PUBLISHED), ("after burn-in", AFTER_BURNIN)):
            for choice, rows in choices(theirs, fields):
                other = accuracy_of(rows, fields)
                known = other["rms_error"] and measured["rms_error"]
                ratio = round(other["rms_error"] / measured["rms_error"], 2) if known else None
                head = {"benchmark": "peers", "group": group, "tool": "devinterp", "choice": choice}
                tried = rows if choice == "documented" else theirs
                search = round(sum(row["cpu_s"] for row in tried), 1)
                yield {**head, "reading": reading, **other, "rms_over_ours": ratio, "search_cpu_s": search}


def table(ours, peers):
    """Markdown: problem by problem."""

    def cell(row, fields=PUBLISHED):
        error = relative(row, fields)
        if error is None:
            return f"failed ({row['failed_chains']} of {CHAINS} chains), {row['cpu_s']:.1f} s"
        return f"{row[fields[0]]:.4g} ± {row[fields[1]]:.2g} ({error:+.1%}), {row['cpu_s']:.1f} s"

    best = {json.dumps(row["problem"]): row for row in list(choices(peers, AFTER_BURNIN))[2][1]}
    documented = {json.dumps(row["problem"]): row for row in peers if row["documented"]}
    yield "| problem | exact | slt_jax | devinterp, documented | devinterp, best by problem, after burn-in |"
    yield "|---|---|---|---|---|"
    for row in ours:
        name = json.dumps(row["problem"])
        chosen = best[name]
        at = f"{chosen['settings']['sampling_method'].split('_')[0]} {chosen['settings']['lr']:g}"
        title = f"{row['problem']['family']} {row['problem']['case']}"
        cells = (title, f"{row['exact']:.4g}", cell(row), cell(documented[name]), f"{cell(chosen, AFTER_BURNIN)}, {at}")
        yield f"| {' | '.join(cells)} |"


def stored_peers(path, todo):
    """The rows of devinterp that are kept, if they are about these problems."""
    stored = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    wanted = {json.dumps(case.key) for case in todo}
    found = [row for row in stored if row.get("problem") and row["tool"] == "devinterp"]
    found = [row for row in found if json.dumps(row["problem"]) in wanted]
    counts = {key: sum(json.dumps(row["problem"]) == key for row in found) for key in wanted}
    lacking = [key for key, count in counts.items() if count != len(SETTINGS)]
    if lacking:
        sys.exit(f"peers: {path} lacks rows of devinterp for {lacking[0]}; run without --ours-only.")
    return found


def main():
    """Measure both, or one beside what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default=sys.executable, help="the interpreter that has devinterp")
    parser.add_argument("--ours-only", action="store_true", help="keep the stored rows of devinterp")
    parser.add_argument("--problems", type=int, default=None, help="only the first so many (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "peers.jsonl")
    options = parser.parse_args()
    todo = list(cases(options.seed))[: options.problems]
    if options.ours_only:
        peers = stored_peers(options.out, todo)
    else:
        versions = peer_versions(options.peer_python)
        if "missing" in versions:
            advice = "pip install 'devinterp==2.0.1' 'zarr>=3.1,<3.2', or pass --peer-python"
            print(f"peers: skipped, no usable devinterp in {options.peer_python} ({versions['missing']}): {advice}")
            return
        peers = []
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = list(peers)

    def keep(row):
        rows.append(row)
        print(json.dumps(row), flush=True)

    ours = []
    for case in todo:
        keep(our_row(case))
        ours.append(rows[-1])
    if not options.ours_only:
        for row in peer_rows(options.peer_python, todo):
            keep(row)
            peers.append(row)
    for row in list(summaries(ours, peers)):
        keep(row)
    options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print("\n" + "\n".join(table(ours, peers)))


if __name__ == "__main__":
    main()
