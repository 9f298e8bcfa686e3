"""Exact coefficients of programs against sampling, contact exponents, the odds of two codes, and what exactness costs.

    python benchmarks/programs.py                    # every program of the table: exact, at nβ = 1e8 and at 1e12
    python benchmarks/programs.py --only parity
    python benchmarks/programs.py --deep             # the same at nβ = 1e30, where slower powers are gone
    python benchmarks/programs.py --odds             # log odds of two pairs of codes from the prior to nβ = 1e12
    python benchmarks/programs.py --odds --deep      # their slope between 1e25 and 1e30
    python benchmarks/programs.py --cost             # seconds of the exact answer by dimension

Keeps its lines in ``benchmarks/results/programs.jsonl``: λ_eff with its standard error and its distance from the exact
value in such errors, the sum of contact exponents over λ between the two temperatures, seconds of CPU.
"""

import argparse
import itertools
import json
import platform
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from slt_jax import programs
from slt_jax.substructure import contact_exponents
from slt_jax.synthesis import local_flow, odds
from slt_jax.truths import turing

RESULTS = Path(__file__).parent / "results" / "programs.jsonl"


def words(alphabet: str, longest: int) -> list[str]:
    """All words of one letter up to so many."""
    return ["".join(w) for n in range(1, longest + 1) for w in itertools.product(alphabet, repeat=n)]


#: Name, program, steps; inputs are the fourteen words of one to three letters.
CASES = [
    *((f"detect_a T={steps}", programs.detect_a(), steps) for steps in (4, 5, 6, 7, 8, 10)),
    ("detect_a_running T=8", programs.detect_a_running(), 8),
    ("detect_a_overwriting T=8", programs.detect_a_overwriting(), 8),
    ("parity T=8", programs.parity(), 8),
]
#: At 1e30 a logarithm of a probability has 69 nats to spread over.
DEEP_BURNIN = 400
#: Inputs of the cost: name, program, inputs, steps.
COSTS = [
    ("detect_a T=10", programs.detect_a(), words("AB", 3), 10),
    ("detect_a_overwriting T=8", programs.detect_a_overwriting(), words("AB", 3), 8),
    ("parity T=10", programs.parity(), words("AB", 3), 10),
    ("binary_increment T=10", programs.binary_increment(), words("01", 3), 10),
    ("brackets T=20", programs.brackets(), words("()", 3), 20),
    ("palindrome T=10", programs.palindrome(), words("AB", 3), 10),
]
#: Two pairs of codes of one function: far apart and close.
PAIRS = [
    ("halting, running", programs.detect_a(), programs.detect_a_running()),
    ("halting, overwriting", programs.detect_a(), programs.detect_a_overwriting()),
]


def sampled(name: str, program: programs.Program, steps: int, draws: int) -> dict[str, Any]:
    """One line: the exact value beside two temperatures."""
    begun = time.process_time()
    truth = turing(program, words("AB", 3), steps)
    flow = local_flow(jax.random.key(1), program, words("AB", 3), steps, nbetas=[1e8, 1e12], draws=draws)
    exact = float(truth.learning_coefficient)
    contact = contact_exponents(flow.mutations, flow.nbetas, learning_coefficient=exact)
    return {
        "case": name,
        "exact": str(truth.learning_coefficient),
        "m": truth.multiplicity,
        "nbetas": flow.nbetas.tolist(),
        "value": np.round(flow.value, 4).tolist(),
        "std_error": np.round(flow.std_error, 4).tolist(),
        "errors_away": np.round((flow.value - exact) / flow.std_error, 2).tolist(),
        "relative": np.round(flow.value / exact - 1, 4).tolist(),
        "contact_ratio": contact.ratio,
        "contact_error": contact.total_error / exact,
        "rhat": np.round(flow.rhat, 4).tolist(),
        "cpu_s": time.process_time() - begun,
    }


def deep(name: str, program: programs.Program, steps: int, draws: int) -> dict[str, Any]:
    """One line: the exact value beside a temperature at which it is reached, with a longer burn-in."""
    begun = time.process_time()
    truth = turing(program, words("AB", 3), steps)
    flow = local_flow(jax.random.key(2), program, words("AB", 3), steps, nbetas=[1e30], draws=draws, burnin=DEEP_BURNIN)
    exact = float(truth.learning_coefficient)
    return {
        "case": f"deep: {name}",
        "exact": str(truth.learning_coefficient),
        "m": truth.multiplicity,
        "nbeta": 1e30,
        "value": round(float(flow.value[0]), 4),
        "std_error": round(float(flow.std_error[0]), 4),
        "errors_away": round(float((flow.value[0] - exact) / flow.std_error[0]), 2),
        "rhat": round(float(flow.rhat[0]), 4),
        "cpu_s": time.process_time() - begun,
    }


def competing(
    name: str, first: programs.Program, second: programs.Program, ladder: list[float], draws: int, burnin: int
) -> dict[str, Any]:
    """One line: the odds of two codes on inputs of one and two letters, six steps."""
    begun = time.process_time()
    found = odds(jax.random.key(0), first, second, words("AB", 2), 6, nbetas=ladder, draws=draws, burnin=burnin)
    return {
        "case": f"odds: {name}",
        "nbetas": ladder,
        "log_odds": np.round(found.log_odds, 3).tolist(),
        "log_odds_error": np.round(found.log_odds_error, 3).tolist(),
        "slope": found.slope,
        "slope_error": found.slope_error,
        "predicted": str(found.predicted),
        "errors_away": (found.slope - float(found.predicted)) / found.slope_error,
        "healthy": found.ok,
        "cpu_s": time.process_time() - begun,
    }


def cost(name: str, program: programs.Program, inputs: list[str], steps: int) -> dict[str, Any]:
    """One line: the second of two calls, in seconds of CPU and of the clock."""
    turing(programs.parity(), ["A"], 2)  # what is imported on first use
    begun, clock = time.process_time(), time.perf_counter()
    truth = turing(program, inputs, steps)
    return {
        "case": f"cost: {name}",
        "dimension": truth.dimension,
        "inputs": len(inputs),
        "exact": str(truth.learning_coefficient),
        "m": truth.multiplicity,
        "cpu_s": time.process_time() - begun,
        "wall_s": time.perf_counter() - clock,
    }


def keep(row: dict[str, Any]) -> None:
    """Print a line and append it to the results."""
    line = json.dumps(row | {"jax": jax.__version__, "machine": platform.machine()})
    print(line, flush=True)
    with RESULTS.open("a") as results:
        results.write(line + "\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=None, help="beginnings of the names of cases")
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--deep", action="store_true", help="cold rungs only, with more burn-in")
    parser.add_argument("--odds", action="store_true", help="nothing else is run then")
    parser.add_argument("--cost", action="store_true", help="nothing else is run then")
    arguments = parser.parse_args()
    if arguments.cost:
        for case in COSTS:
            keep(cost(*case))
    elif arguments.odds:
        for pair in PAIRS:
            if arguments.deep:
                keep(competing(*pair, [1e25, 1e30], arguments.draws, DEEP_BURNIN))
            else:
                keep(competing(*pair, [0.3, 1e1, 1e2, 1e4, 1e6, 1e8, 1e10, 1e12], arguments.draws, 150))
    else:
        for name, program, steps in CASES:
            if arguments.only is None or name.startswith(tuple(arguments.only)):
                keep((deep if arguments.deep else sampled)(name, program, steps, arguments.draws))
                jax.clear_caches()


if __name__ == "__main__":
    main()
