"""Oracles that take long: computed once, kept in ``benchmarks/results/oracles.json``, and looked up.

    python benchmarks/oracles.py --families "reduced rank" perceptron

computes those of the named families again (all by default), and ``--missing`` only those that are not there. An entry
holds the value, its standard error, R-hat of the energy and of what moves slowly, how much was run, from which seed,
the temperature, a signature of the problem, the versions and the command. A look-up whose temperature or problem has
changed since is refused.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from cases import FAMILIES, Case, cases, temperature

from slt_jax import Problem

STORE = Path(__file__).parent / "results" / "oracles.json"


def signature(problem: Problem) -> list[float]:
    """Numbers that change when the problem does: how many parameters, and the norms of parameters, data and loss."""
    norms = []
    for part in (problem.params, problem.data, problem.loss_fn):
        leaves = [np.asarray(leaf, float) for leaf in jax.tree.leaves(part) if hasattr(leaf, "shape")]
        norms.append(float(np.sqrt(sum(np.sum(leaf**2) for leaf in leaves))))
    return [float(sum(leaf.size for leaf in jax.tree.leaves(problem.params))), *norms]


def stored(case: Case, problem: Problem, store: Path = STORE) -> dict[str, Any] | None:
    """The entry of a case, or ``None`` where it has none.

    Raises:
      ValueError: The entry belongs to another temperature or to another problem.
    """
    entries = json.loads(store.read_text()) if store.exists() else {}
    entry = entries.get(f"{case.family}: {case.same_as or case.name}")
    if entry is None:
        return None
    for name, now in (("temperature", temperature(case, problem)), ("signature", signature(problem))):
        if not np.allclose(entry[name], now, rtol=1e-4, atol=1e-6):
            raise ValueError(
                f"{case.family}: {case.name}: the oracle was computed for {name} {entry[name]}, now {list(now)}: run "
                f"python benchmarks/oracles.py --families '{case.family}'."
            )
    return entry


def compute(case: Case) -> dict[str, Any]:
    """Run the oracle of a case."""
    problem = case.build()
    nbeta, gamma = temperature(case, problem)
    begin = time.process_time()
    found, more = case.long_run(problem, nbeta, gamma)
    return {
        **{name: _rounded(value) for name, value in found._asdict().items()},
        **{name: _rounded(value) for name, value in more.items()},
        "temperature": [nbeta, gamma],
        "signature": signature(problem),
        "cpu_s": round(time.process_time() - begin, 1),
        "command": f"python benchmarks/oracles.py --families '{case.family}'",
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "numpy": np.__version__},
    }


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def main() -> None:
    """Compute and keep, one entry after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--missing", action="store_true", help="only those that are not there yet")
    parser.add_argument("--out", type=Path, default=STORE)
    options = parser.parse_args()
    for family in options.families:
        for case in cases(family):
            entries = json.loads(options.out.read_text()) if options.out.exists() else {}
            name = f"{family}: {case.name}"
            if case.long_run is None or case.same_as or (options.missing and name in entries):
                continue
            entries[name] = compute(case)
            line = ("value", "std_error", "rhat", "rhat_slow", "cpu_s")
            print(name, {field: entries[name][field] for field in line}, flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
