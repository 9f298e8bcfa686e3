"""The density of states against exact answers: λ, m, contact exponents, and how often the volume's interval covers.

    python benchmarks/spectra.py                     # every singularity once, default settings, γ = 1
    python benchmarks/spectra.py --only "x2 y2" --seeds 5
    python benchmarks/spectra.py --coverage 100      # log V(ε) of x² y² against quadrature, over seeds
    python benchmarks/spectra.py --units             # two tanh units that coincide, and half a unit apart: λ by scale

Keeps its lines in ``benchmarks/results/spectra.jsonl``: λ with its error, the multiplicity or null where unresolved,
the weights of m = 1, 2, 3, 4, gradients spent, seconds of CPU.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import slt_jax as slt
from slt_jax.truths import deep_linear_problem, tanh_problem

RESULTS = Path(__file__).parent / "results" / "spectra.jsonl"
NO_DATA = jnp.zeros((1000, 0))


def monomials(*terms: tuple[int, ...]) -> slt.Problem:
    """``K = Σ Π w_j^{a_j}`` at the origin."""

    def loss_fn(weights: Any, batch: Any) -> Any:
        del batch
        return sum(jnp.prod(weights ** jnp.array(term)) for term in terms)

    return slt.Problem(loss_fn, jnp.zeros(len(terms[0])), NO_DATA)


def linear(widths: tuple[int, ...], rank: int) -> slt.Problem:
    """A deep linear network whose target is its own product in double precision."""
    with jax.enable_x64(True):
        return deep_linear_problem(jax.random.key(3), widths, rank, examples=1000)


#: Name, problem, λ, m; the first twelve are asked for within 2 %, the others within 5 %.
CASES = [
    ("x2", monomials((2,)), 1 / 2, 1),
    ("x2 + y4", monomials((2, 0), (0, 4)), 3 / 4, 1),
    ("x2 y4", monomials((2, 4)), 1 / 4, 1),
    ("x2 y2", monomials((2, 2)), 1 / 2, 2),
    ("x2 y2 + z2", monomials((2, 2, 0), (0, 0, 2)), 1, 2),
    ("(x y z)2", monomials((2, 2, 2)), 1 / 2, 3),
    ("linear 2,2,2 rank 0", linear((2, 2, 2), 0), 3 / 2, 1),
    ("linear 2,2,2 rank 1", linear((2, 2, 2), 1), 2, 2),
    ("linear 2,2,2 rank 2", linear((2, 2, 2), 2), 2, 1),
    ("linear 1,1,1,1 rank 0", linear((1, 1, 1, 1), 0), 1 / 2, 3),
    ("tanh 1", tanh_problem(1), 1 / 2, 2),
    ("tanh 2", tanh_problem(2), 2 / 3, 1),
    ("linear 3,2,3 rank 0", linear((3, 2, 3), 0), 5 / 2, 1),
    ("linear 2,2,2,2 rank 0", linear((2, 2, 2, 2), 0), 3 / 2, 3),
    ("linear 5,3,5 rank 0", linear((5, 3, 5), 0), 13 / 2, 2),
    ("tanh 3", tanh_problem(3), 5 / 6, 1),
    ("tanh 4", tanh_problem(4), 1, 2),
]


def measured(name: str, problem: slt.Problem, coefficient: float, multiplicity: int, seed: int) -> dict[str, Any]:
    """One line."""
    begun = time.process_time()
    found = slt.density_of_states(jax.random.key(seed), *problem, gamma=1.0)
    exponent = found.exponent
    return {
        "case": name,
        "seed": seed,
        "exact": coefficient,
        "value": exponent.learning_coefficient,
        "std_error": exponent.std_error,
        "relative_error": exponent.learning_coefficient / coefficient - 1,
        "exact_m": multiplicity,
        "m": exponent.multiplicity,
        "weights": [round(weight, 4) for weight in exponent.weights],
        "contact_ratio": found.contact_ratio,
        "contact_error": found.contact_ratio_error,
        "rungs": len(found.flow.nbetas),
        "depth": found.depth,
        "reached": found.reached,
        "healthy": found.ok,
        "evaluations": found.evaluations,
        "cpu_s": time.process_time() - begun,
    }


def exact_log_volume(log_epsilon: np.ndarray) -> np.ndarray:
    """``log P(x² y² < ε)`` for two standard normal numbers."""
    from scipy.special import erf

    logs = np.linspace(-40, 2.5, 20_001)
    weight = np.exp(logs - 0.5 * np.exp(2 * logs)) * np.sqrt(2 / np.pi)
    reach = np.exp(0.5 * log_epsilon[:, None] - logs[None, :]) / np.sqrt(2)
    return np.log(np.trapezoid(weight * erf(reach), logs, axis=1))


def coverage(seeds: int) -> dict[str, Any]:
    """Share of the intervals of ``log V(ε)`` that hold the exact value, at depths of a factor 10 apart."""
    problem = monomials((2, 2))
    levels = np.log(10.0) * np.arange(-12, 0)
    inside, healthy = [], 0
    for seed in range(seeds):
        found = slt.density_of_states(
            jax.random.key(1000 + seed), *problem, gamma=1.0, depth=1e-12, draws=600, budget=2_000_000
        )
        at = [int(np.argmin(np.abs(found.log_epsilon - level))) for level in levels]
        low, high = (end[at] for end in found.interval)
        exact = exact_log_volume(found.log_epsilon[at])
        inside.append((low <= exact) & (exact <= high))
        healthy += found.ok
        jax.clear_caches()
    shares = np.mean(inside, axis=0)
    return {
        "case": "coverage of log V, x2 y2",
        "seeds": seeds,
        "covered": float(np.mean(inside)),
        "by_depth": [round(float(share), 3) for share in shares],
        "healthy": healthy,
    }


def two_units(apart: float) -> slt.Problem:
    """``f(x) = tanh(b_1 x) + tanh(b_2 x)`` taught to two units, the slopes so far apart; noise of variance 1."""
    inputs = np.linspace(-6, 6, 61)
    masses = jnp.asarray(np.exp(-0.5 * inputs**2) / np.exp(-0.5 * inputs**2).sum())
    truth = np.tanh(inputs) + np.tanh((1 + apart) * inputs)

    def loss_fn(params: Any, batch: Any) -> Any:
        del batch
        heights, slopes = params
        values = jnp.sum(heights[:, None] * jnp.tanh(slopes[:, None] * jnp.asarray(inputs)[None, :]), axis=0)
        return 0.5 * jnp.sum(masses * (values - truth) ** 2)

    return slt.Problem(loss_fn, (np.ones(2), np.array([1.0, 1.0 + apart])), NO_DATA)


def units() -> list[dict[str, Any]]:
    """λ_eff of the two problems over five decades: 5/4 where the units cannot be told apart, 2 where they can."""
    rows = []
    nbetas = 10.0 ** np.arange(3, 8.5, 0.5)
    for apart in (0.0, 0.5):
        begun = time.process_time()
        with jax.enable_x64(True):
            found = slt.flow(jax.random.key(0), *two_units(apart), nbetas=nbetas, gamma=10.0)
        rows.append(
            {
                "case": f"two tanh units {apart} apart",
                "nbetas": nbetas.tolist(),
                "value": np.round(found.value, 4).tolist(),
                "std_error": np.round(found.std_error, 4).tolist(),
                "velocity": np.round(found.velocity, 4).tolist(),
                "swap_rate": np.round(found.swap_rate, 2).tolist(),
                "healthy": np.asarray(found.ok).tolist(),
                "course": slt.plateaus(found).explain(),
                "evaluations": found.evaluations,
                "cpu_s": time.process_time() - begun,
            }
        )
    return rows


def keep(row: dict[str, Any]) -> None:
    """Print a line and append it to the results."""
    line = json.dumps(row | {"jax": jax.__version__, "machine": platform.machine()})
    print(line, flush=True)
    with RESULTS.open("a") as results:
        results.write(line + "\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=None, help="names of cases")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--coverage", type=int, default=0, help="seeds; nothing else is run then")
    parser.add_argument("--units", action="store_true", help="flows of two tanh units; nothing else is run then")
    arguments = parser.parse_args()
    if arguments.units:
        for row in units():
            keep(row)
        return
    if arguments.coverage:
        keep(coverage(arguments.coverage))
        return
    for name, problem, coefficient, multiplicity in CASES:
        if arguments.only is None or name in arguments.only:
            for seed in range(1, arguments.seeds + 1):
                keep(measured(name, problem, coefficient, multiplicity, seed))
                jax.clear_caches()


if __name__ == "__main__":
    main()
