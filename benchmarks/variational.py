"""Variational inference against exact answers: λ as the slope of the bound and off the base, and the bound itself.

    python benchmarks/variational.py                       # every problem, guide and temperature, γ = 1, four fits each
    python benchmarks/variational.py --only "tanh 1" --guides mean_field singular --nbetas 1e4 --steps 500

Keeps its lines in ``benchmarks/results/variational.jsonl``: of four independent fits the one of the lowest bound, the
exact free energy and ``nβ E[K]`` by quadrature at the same temperature, and λ. Double precision.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import slt_jax as slt
from slt_jax.samplers import guides
from slt_jax.truths import deep_linear_problem, tanh_problem

RESULTS = Path(__file__).parent / "results" / "variational.jsonl"
NO_DATA = jnp.zeros((1000, 0))
GUIDES = {
    "mean_field": guides.mean_field(),
    "low_rank": guides.low_rank(),
    "full_rank": guides.full_rank(),
    "inverse_autoregressive": guides.inverse_autoregressive(),
    "singular, one block": guides.singular(blocks=1),
    "singular": guides.singular(),
}


def tanh_partition(units: int) -> Callable[[float], float]:
    """``E_φ[exp(-nβ K)]`` of tanh units at truth 0: Gaussian in the heights, by quadrature in the slopes."""
    nodes, masses = (np.asarray(part) for part in tanh_problem(units).loss_fn.args)
    logs = np.linspace(np.log(1e-7), np.log(9.0), 4000 if units == 1 else 1200)
    slopes = np.exp(logs)
    prior = np.exp(-0.5 * slopes**2) * slopes
    outputs = np.tanh(nodes[:, None] * slopes[None, :])
    gram = (outputs * masses[:, None]).T @ outputs
    own = np.diag(gram)
    if units == 1:
        return lambda nbeta: np.sum(prior / np.sqrt(1 + nbeta * own)) / np.sum(prior)
    weight = prior[:, None] * prior[None, :]
    apart = np.maximum(own[:, None] * own[None, :] - gram**2, 0.0)
    both = own[:, None] + own[None, :]
    # slopes of opposite sign give the same determinant
    return lambda nbeta: np.sum(weight / np.sqrt(1 + nbeta * both + nbeta**2 * apart)) / np.sum(weight)


def linear_partition() -> Callable[[float], float]:
    """The same for a linear network 2, 2, 2 at rank 0: Gaussian in one layer, singular values of the other."""
    values = np.exp(np.linspace(np.log(1e-8), np.log(12.0), 3000))
    first, second = values[:, None], values[None, :]
    weight = np.abs(first**2 - second**2) * np.exp(-0.5 * (first**2 + second**2)) * first * second
    return lambda nbeta: np.sum(weight / ((1 + nbeta * first**2) * (1 + nbeta * second**2))) / np.sum(weight)


#: Name, problem, λ, multiplicity, partition function.
CASES = [
    ("tanh 1", lambda: tanh_problem(1), 1 / 2, 2, lambda: tanh_partition(1)),
    ("tanh 2", lambda: tanh_problem(2), 2 / 3, 1, lambda: tanh_partition(2)),
    ("linear 2,2,2 rank 0", lambda: deep_linear_problem(jax.random.key(3), (2, 2, 2), 0), 3 / 2, 1, linear_partition),
]


def exact(partition: Callable[[float], float], nbeta: float) -> tuple[float, float]:
    """The free energy and its slope in ``log nβ``."""
    step = 0.01
    around = [-float(np.log(partition(nbeta * np.exp(shift)))) for shift in (-step, 0.0, step)]
    return around[1], (around[2] - around[0]) / (2 * step)


def measured(problem: slt.Problem, guide: guides.Guide, nbeta: float, steps: int, fits: int) -> dict[str, Any]:
    """One temperature: everything of the fit of the lowest bound, and what the fits have in common."""
    begun = time.process_time()
    posterior = slt.localise(*problem, nbeta=nbeta, gamma=1.0)
    sampler = slt.samplers.variational(guide, steps=float(steps))
    trace = slt.sample(jax.random.key(0), sampler, posterior, problem.data, draws=1000, chains=fits)
    estimate = slt.llc_from(trace, posterior)
    bounds = jax.vmap(lambda fit: slt.samplers.free_energy_bound(jax.random.key(1), fit, posterior, problem.data))(
        trace.state.fit
    )
    best = int(jnp.nanargmin(bounds.value))
    line = {
        "slope": float(bounds.coefficient[best]),
        "slope_error": float(bounds.coefficient_error[best]),
        "bound": float(bounds.value[best]),
        "bound_error": float(bounds.std_error[best]),
        "slopes": np.round(np.asarray(bounds.coefficient), 3).tolist(),
        "bounds": np.round(np.asarray(bounds.value), 3).tolist(),
        "remaining": np.round(np.asarray(trace.state.fit.slope), 3).tolist(),
        "skipped": float(trace.state.fit.skipped.max()),
        "virial": float(estimate.health.virial),
        "rhat": float(estimate.health.rhat),
        "healthy": bool(estimate.health.ok),
    }
    if guide.ratios is not None:
        fit = jax.tree.map(lambda leaf: leaf[best], trace.state.fit)
        reading = slt.samplers.base_reading(jax.random.key(2), fit, posterior, problem.data)
        line |= {"base_total": float(reading.total), "base_least": float(reading.least)}
    return line | {"cpu_s": time.process_time() - begun}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=None, help="names of problems")
    parser.add_argument("--guides", nargs="+", default=list(GUIDES), choices=list(GUIDES))
    parser.add_argument("--nbetas", nargs="+", type=float, default=[1e4, 1e6, 1e8])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--fits", type=int, default=4)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    for name, make, coefficient, multiplicity, partition in CASES:
        if arguments.only is not None and name not in arguments.only:
            continue
        problem, sums = make(), partition()
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), problem.params)
        problem = slt.Problem(problem.loss_fn, params, NO_DATA)
        for guide in arguments.guides:
            for nbeta in arguments.nbetas:
                free_energy, slope = exact(sums, nbeta)
                line = {"case": name, "guide": guide, "nbeta": nbeta, "steps": arguments.steps, "exact": coefficient}
                line |= {"exact_m": multiplicity, "exact_slope": slope, "exact_free_energy": free_energy}
                line |= measured(problem, GUIDES[guide], nbeta, arguments.steps, arguments.fits)
                text = json.dumps(line | {"jax": jax.__version__, "machine": platform.machine()})
                print(text, flush=True)
                with RESULTS.open("a") as results:
                    results.write(text + "\n")
            jax.clear_caches()


if __name__ == "__main__":
    main()
