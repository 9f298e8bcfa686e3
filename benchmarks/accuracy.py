"""``llc`` against exact answers: error, reported error and verdict, for every family of ``cases.py``.

    python benchmarks/accuracy.py                                  # all families but the large one
    python benchmarks/accuracy.py --families 1K tanh --seeds 5     # some of them, five runs of each case
    python benchmarks/accuracy.py --families 1K --sampler hmc      # another sampler, its step from the curvature
    python benchmarks/accuracy.py --families large                 # a million parameters, with its memory
    python benchmarks/accuracy.py --table                          # nothing is run: the tables of what is there

appends one JSON line for each run to ``benchmarks/results/accuracy.jsonl`` as soon as it is there, and prints Markdown
tables of all that the file holds. A later line replaces an earlier one of the same case, seed and sampler, so that the
table can be filled in pieces.
"""

import argparse
import json
import platform
import time
import zlib
from pathlib import Path
from typing import Any

import jax
from cases import CROSSING_GAMMA as CROSSING_GAMMA
from cases import CROSSING_NBETA as CROSSING_NBETA
from cases import CROSSINGS as CROSSINGS
from cases import FAMILIES, ON_REQUEST, Case, cases, temperature
from oracles import stored
from problems import random_networks as random_networks
from tables import markdown

import slt_jax as slt
from slt_jax import Problem, samplers, tree
from slt_jax.curvature import inertial_step_size, langevin_step_size, sharpness, typical_points

RESULTS = Path(__file__).parent / "results" / "accuracy.jsonl"
#: Leapfrogs in a trajectory: an HMC draw costs as many gradients.
LEAPFROGS = 10
#: Each sampler's step in units of what the largest curvature allows, as measured on deep linear networks.
LANGEVIN = {"sgld": 1.0, "rmsprop_sgld": 0.4, "mala": 1.0}
INERTIAL = {"underdamped": 0.3, "sgnht": 0.3, "mclmc": 0.3, "hmc": 0.6}
SAMPLERS = ("default", *LANGEVIN, *INERTIAL)


def made(name: str, key: jax.Array, case: Case, problem: Problem) -> slt.Sampler:
    """A sampler whose step follows from the largest curvature at typical points around the centre."""
    posterior = slt.localise(*problem, *temperature(case, problem))
    batch = slt.full_batch(posterior, problem.data)
    point_key, curvature_key = jax.random.split(key)
    curvature = sharpness(curvature_key, posterior, batch, typical_points(point_key, posterior, batch, 4))
    if name in LANGEVIN:
        return getattr(samplers, name)(langevin_step_size(posterior, curvature, LANGEVIN[name]))
    step_size = inertial_step_size(posterior, curvature, INERTIAL[name])
    return getattr(samplers, name)(step_size, **({"leapfrogs": LEAPFROGS} if name == "hmc" else {}))


def settings_for(name: str, key: jax.Array, case: Case, problem: Problem) -> dict[str, Any]:
    """What ``llc`` is called with: the settings of the case, at as many gradients whatever the sampler."""
    if name == "default":
        return case.settings
    asked = case.settings
    draws, burnin = (asked.get(part, asked.get("budget", 4000) // 2) for part in ("draws", "burnin"))
    each = LEAPFROGS if name == "hmc" else 1
    kept = {part: value for part, value in asked.items() if part not in ("budget", "relative_error")}
    length = {"draws": -(-draws // each), "burnin": -(-burnin // each)}
    return kept | length | {"sampler": made(name, key, case, problem)}


def references(case: Case, problem: Problem) -> dict[str, Any]:
    """The exact value of a case with its error, and what else is known of it.

    Raises:
      ValueError: The case is judged by an oracle that was never computed, or for something else.
    """
    entry = stored(case, problem) if case.long_run else None
    oracle, error = (case.quadrature(), 0.0) if case.quadrature else (None, 0.0)
    if entry is not None:
        oracle, error = entry["value"], entry["std_error"]
    if case.judge == "oracle" and oracle is None:
        raise ValueError(
            f"{case.family}: {case.name}: its oracle is not there: run python benchmarks/oracles.py "
            f"--families '{case.family}' --missing."
        )
    judged = case.judge == "oracle"
    return {
        "judge": case.judge,
        "exact": oracle if judged else case.theorem,
        "exact_error": error if judged else 0.0,
        "theorem": case.theorem,
        "oracle": oracle,
        "oracle_error": error if oracle is not None else None,
        "multiplicity": case.multiplicity,
        **({"center_excess": entry["center"]} if entry and "center" in entry else {}),
    }


def run(case: Case, problem: Problem, known: dict[str, Any], seed: int, sampler: str) -> dict[str, Any]:
    """One estimate beside what is known.

    An oracle counts from the minimum of the data. Where the centre given lies above it, the exact value counts from the
    centre that the estimate says it was measured at: the one given, or a lower one that polishing found.
    """
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(f"{case.family}: {case.name}".encode()))
    begin = time.process_time()
    settings = settings_for(sampler, jax.random.fold_in(key, 1), case, problem)
    estimate = slt.llc(key, *problem, **settings)
    value, error = float(estimate.value), float(estimate.std_error)
    spent = time.process_time() - begin
    chosen = estimate.settings
    shift = float(chosen.shift) if chosen and bool(chosen.polished) else 0.0
    exact = known["exact"] - (known.get("center_excess", 0.0) - shift if known["judge"] == "oracle" else 0.0)
    failed = [name for name, passed in estimate.health.checks.items() if not bool(passed)]
    each = LEAPFROGS if sampler == "hmc" else 1
    gradients = int(chosen.gradients) if chosen else each * (settings["draws"] + settings["burnin"])
    return {
        "family": case.family,
        "case": case.name,
        "seed": seed,
        "sampler": sampler,
        "parameters": tree.size(problem.params),
        **known,
        "exact": exact,
        "value": value,
        "std_error": error,
        "relative_error": value / exact - 1,
        "z": (value - exact) / max((error**2 + known["exact_error"] ** 2) ** 0.5, 1e-30),
        "healthy": not failed,
        "failed": failed,
        "virial": float(estimate.health.virial),
        "rhat": float(estimate.health.rhat),
        "chains": int(estimate.per_chain.shape[0]),
        "batch_size": settings.get("batch_size"),
        "gradients": gradients,
        "shift": shift,
        "cpu_s": round(spent, 2),
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "slt_jax": slt.__version__},
        "machine": f"{platform.machine()}, {jax.default_backend()}",
    }


def memory(problem: Problem, settings: dict[str, Any]) -> float:
    """Bytes that the compiled estimate needs for each chain, arguments and working space, over those of the parameters.

    As the compiler reports them, without running anything.
    """

    def value(key, loss_fn, params, data):
        return slt.llc(key, loss_fn, params, data, **settings).value

    compiled = jax.jit(value).lower(jax.random.key(0), *problem).compile().memory_analysis()
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(problem.params))
    used = compiled.temp_size_in_bytes + compiled.argument_size_in_bytes
    return used / size / settings["chains"]


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Six digits are enough for anybody."""
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in row.items()}


def measure(family: str, options: argparse.Namespace) -> None:
    """All rows of a family, each written as soon as it is there."""
    for case in cases(family)[: options.limit]:
        problem = case.build()
        known = references(case, problem)
        for seed in range(options.seeds):
            row = run(case, problem, known, seed, options.sampler)
            if family == "large":
                row["memory_over_parameters"] = memory(problem, case.settings)
            line = json.dumps(rounded(row))
            print(line, flush=True)
            with options.out.open("a") as file:
                file.write(line + "\n")
        # one compilation for each problem: what is not freed adds up
        jax.clear_caches()


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, the last of each case, seed and sampler."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    identity = ("family", "case", "seed", "sampler")
    return list({tuple(row[name] for name in identity): row for row in rows if "seed" in row}.values())


def main() -> None:
    """Measure what was asked for, and print the tables of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = [family for family in FAMILIES if family not in ON_REQUEST]
    parser.add_argument("--families", nargs="+", default=usual, choices=list(FAMILIES), metavar="FAMILY")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each case (default: 1)")
    parser.add_argument("--limit", type=int, default=None, help="only the first so many cases of each family")
    parser.add_argument("--sampler", choices=SAMPLERS, default="default")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--fresh", action="store_true", help="begin the file anew")
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        options.out.unlink(missing_ok=True)
    if not options.table:
        for family in options.families:
            measure(family, options)
    print("\n" + markdown(read(options.out)))


if __name__ == "__main__":
    main()
