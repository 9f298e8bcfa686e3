"""Good runs: how often the interval covers the exact value, how often a right value is flagged and a wrong one is not.

    python benchmarks/coverage.py --seeds 200 --defaults 20

One problem a family, many seeds. ``one block``: ``slt.llc`` inside jit, the same as ``budget=4000``: 4 chains of 2000
draws after 2000 steps. ``default``: ``slt.llc(key, *problem)`` on the host, which goes on for up to 20 000 gradients.
The exact value is that of the posterior sampled, at its nβ and γ: a formula on quadratics, quadrature on normal
crossings, and on linear networks a Gibbs sampler (each layer given the others is Gaussian), whose own error is a few
per mille. A flag is a false alarm where the value is within 3 standard errors or 3 %; a green verdict is false where
the value is off by more than 5 % and 4 standard errors. Keeps the lines in ``benchmarks/results/coverage.jsonl``.
"""

import argparse
import json
import math
import platform
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from failures import quadratic, regression

import slt_jax as slt
from slt_jax.posterior import GAMMA_SHARE
from slt_jax.truths import deep_linear_generic, deep_linear_problem, normal_crossing_energy, normal_crossing_problem

CHUNK = 25
CROSSING = {"nbeta": 1e3, "gamma": 1.0}


class Case(NamedTuple):
    """A problem, the settings of ``llc`` and a function that gives the exact value."""

    name: str
    problem: slt.Problem
    settings: dict[str, Any]
    exact: Callable[[], float]


def cases() -> list[Case]:
    """All families."""
    found = [
        _quadratic_case("half flat", 40),
        _quadratic_case("power law", 100),
        _network_case((6, 4, 7), 2, generic=True),
        _network_case((6, 4, 6), 2, generic=False),
        _network_case((5, 3, 5), 0, generic=False),
        _network_case((6, 8, 5, 7), 3, generic=True),
        _network_case((5, 8, 8, 5), 5, generic=False),
    ]
    for exponents in ([1, 1], [2, 1], [1, 1, 1]):
        found.append(
            Case(
                f"crossing {exponents}",
                normal_crossing_problem(exponents, examples=1000),
                CROSSING,
                lambda exponents=exponents: normal_crossing_energy(exponents, **CROSSING),
            )
        )
    problem = regression(jax.random.key(7), copies=1, examples=1000)
    inputs = problem.data[0]
    curvatures = jnp.linalg.eigvalsh(inputs.T @ inputs / len(inputs))
    for batch_size in (None, 50):
        name = "regression 8" + (f", batches of {batch_size}" if batch_size else "")
        found.append(Case(name, problem, {"batch_size": batch_size}, lambda: _modes(curvatures)))
    return found


def _modes(curvatures) -> float:
    return float(0.5 * jnp.sum(curvatures / (curvatures + GAMMA_SHARE)))


def _quadratic_case(spectrum: str, dimension: int) -> Case:
    problem = quadratic(jax.random.key(5), spectrum, dimension)
    return Case(f"quadratic {dimension} {spectrum}", problem, {}, lambda: _modes(problem.loss_fn.args[0]))


def _network_case(widths, rank: int, *, generic: bool) -> Case:
    placement = {"intervals": deep_linear_generic(widths, rank)} if generic else {}
    problem = deep_linear_problem(jax.random.key(6), widths, rank, examples=100_000, **placement)
    nbeta = 100_000 / math.log(100_000)
    place = "generic" if generic else "balanced"
    name = f"linear network {'-'.join(map(str, widths))} rank {rank} {place}"
    return Case(name, problem, {}, lambda: gibbs(problem.params, nbeta, GAMMA_SHARE * nbeta))


def gibbs(params, nbeta: float, gamma: float, *, chains: int = 48, sweeps: int = 1500, seed: int = 0) -> float:
    """``nβ E[½ |W_N ··· W_1 - W*|²]`` by Gibbs sampling of layers; the mean energy given the others is averaged.

    With the layers above ``A`` and below ``B`` fixed, the loss is ``½ |A W B - W*|²``: in the singular bases of ``A``
    and ``B`` the entries of ``W`` are independent, of precision ``nβ a_i² b_j² + γ``.
    """
    generator = np.random.default_rng(seed)
    center = [np.asarray(layer, float) for layer in params]
    target = np.linalg.multi_dot([*center[::-1], np.eye(center[0].shape[1])])
    current = [np.broadcast_to(layer, (chains, *layer.shape)).copy() for layer in center]
    total, count = 0.0, 0
    for sweep in range(sweeps):
        for index, middle in enumerate(center):
            above, below = np.eye(target.shape[0])[None], np.eye(target.shape[1])[None]
            for layer in current[:index:-1]:
                above = above @ layer
            for layer in current[:index]:
                below = layer @ below
            left, a, rows = np.linalg.svd(np.broadcast_to(above, (chains, *above.shape[1:])), full_matrices=True)
            columns, b, right = np.linalg.svd(np.broadcast_to(below, (chains, *below.shape[1:])), full_matrices=True)
            gains = np.zeros((chains, *middle.shape))
            gains[:, : a.shape[1], : b.shape[1]] = a[:, :, None] * b[:, None, :]
            aim, goal = np.zeros_like(gains), left.swapaxes(1, 2) @ target @ right.swapaxes(1, 2)
            size = min(goal.shape[1], gains.shape[1]), min(goal.shape[2], gains.shape[2])
            aim[:, : size[0], : size[1]] = goal[:, : size[0], : size[1]]
            rest = np.sum(goal**2, axis=(1, 2)) - np.sum(np.where(gains > 0, aim, 0.0) ** 2, axis=(1, 2))
            precision = nbeta * gains**2 + gamma
            mean = (nbeta * gains * aim + gamma * (rows @ middle @ columns)) / precision
            miss = np.where(gains > 0, gains * mean - aim, 0.0) ** 2 + gains**2 / precision
            if sweep >= sweeps // 5:
                total += 0.5 * nbeta * np.mean(np.sum(miss, axis=(1, 2)) + rest)
                count += 1
            drawn = mean + generator.normal(size=mean.shape) / np.sqrt(precision)
            current[index] = rows.swapaxes(1, 2) @ drawn @ columns.swapaxes(1, 2)
    return float(total / count)


def blocks(case: Case, seeds: int):
    """One block for each seed, all in one program."""

    @jax.jit
    def run(keys, problem):
        def one(key):
            return slt.llc(key, *problem, **case.settings)._replace(settings=None)

        return jax.lax.map(jax.vmap(one), keys)

    keys = jax.random.split(jax.random.key(11), seeds).reshape(-1, min(CHUNK, seeds))
    found = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), run(keys, case.problem))
    return found, np.full(seeds, 4000)


def defaults(case: Case, seeds: int):
    """Everything by default, on the host."""
    found = [slt.llc(key, *case.problem, **case.settings) for key in jax.random.split(jax.random.key(12), seeds)]
    gradients = np.array([int(estimate.settings.gradients) for estimate in found])
    stripped = [estimate._replace(settings=None) for estimate in found]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *stripped), gradients


def row(case: Case, mode: str, found, gradients, exact: float):
    """Rates over the seeds."""
    value, error = np.asarray(found.value, float), np.asarray(found.std_error, float)
    green = np.asarray(found.health.ok)
    with np.errstate(invalid="ignore", divide="ignore"):
        score = (value - exact) / error
        relative = np.abs(value / exact - 1)
        right = (np.abs(score) < 3) | (relative < 0.03)
        wrong = ~((relative <= 0.05) | (np.abs(score) <= 4))
    fired = Counter(name for name, passed in found.health.checks.items() for flag in np.asarray(passed) if not flag)
    finite = np.isfinite(score)
    return {
        "family": case.name,
        "mode": mode,
        "seeds": len(value),
        "exact": round(exact, 4),
        "green": round(float(green.mean()), 3),
        "false_alarms": round(float((~green & right).mean()), 3),
        "green_and_off": round(float((green & wrong).mean()), 3),
        "coverage_of_green": round(float(np.mean(np.abs(score[green]) < 1.96)), 3) if green.any() else None,
        "mean_score": round(float(score[finite & green].mean()), 2) if green.any() else None,
        "deviation_of_score": round(float(score[finite & green].std()), 2) if green.any() else None,
        "mean_relative_error": round(float(np.mean(value[green]) / exact - 1), 4) if green.any() else None,
        "relative_std_error": round(float(np.median(error[finite])) / exact, 4),
        "gradients": int(np.median(gradients)),
        "fired": dict(fired.most_common()),
    }


def main():
    """Measure all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200, help=f"of one block; a multiple of {CHUNK}")
    parser.add_argument("--defaults", type=int, default=20, help="seeds of the default call")
    parser.add_argument("--only", default="", help="families whose name contains this")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "coverage.jsonl")
    options = parser.parse_args()
    rows = []
    for case in cases():
        if options.only not in case.name:
            continue
        begin = time.process_time()
        exact = case.exact()
        for mode, measure, seeds in (("one block", blocks, options.seeds), ("default", defaults, options.defaults)):
            if seeds:
                rows.append(row(case, mode, *measure(case, seeds), exact))
                print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
        print(f"# {case.name}: {time.process_time() - begin:.0f} s", flush=True)
    versions = {"python": platform.python_version(), "jax": jax.__version__, "slt_jax": slt.__version__}
    rows.append({"benchmark": "coverage", "versions": versions})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in rows))


if __name__ == "__main__":
    main()
