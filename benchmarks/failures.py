"""Planted failures: does the verdict say so?

    python benchmarks/failures.py --instances 12

Families of problems with exact answers (quadratics, linear networks of two and three layers, regressions on data) and
a small tanh regression, judged by a run eight times as long where that is healthy. In each instance the problem is
another one, and one thing is wrong: the step, the length, the centre, the localisation, the batches, a chain, or the
temperature. A run passes if it is flagged, or if it is right all the same: off is what is wrong by more than 10 % and
by more than 3 of its own standard errors, and the rate that matters is that of runs which are off and green. Prints one
JSON line for each failure and family and a table, and keeps the lines in ``benchmarks/results/failures.jsonl``.
"""

import argparse
import json
import math
import platform
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import slt_jax as slt
from slt_jax.noise import normal
from slt_jax.posterior import GAMMA_SHARE, gradient_noise
from slt_jax.truths import deep_linear, deep_linear_generic, deep_linear_problem

LENGTH = 2000
#: Share of the exact value, and standard errors, by which a run has to be wrong to count as off.
OFF, ERRORS = 0.10, 3.0
#: What the step rules put in the numerator: h = 0.3 / √k with momentum, ε = 1 / k without.
INERTIAL = 0.3
FRICTION = 0.03


class Family(NamedTuple):
    """Random problems of one shape, so that all of them run in one program.

    Attributes:
      name: Of the family.
      make: ``make(key)``: a problem; can be vmapped.
      coefficient: ``coefficient(problem, nbeta)``: λ at weak localisation; None where only a long run tells it.
      batch: A twentieth of the examples; None where there are none to draw from.
    """

    name: str
    make: Callable
    coefficient: Callable | None
    batch: int | None = None


def quadratic(key, spectrum: str, dimension: int, examples: int = 100_000):
    """``½ Σ h_i w_i²`` with random curvatures: scattered, falling as a power law, or flat in half of the directions."""
    scattered = 10 ** jax.random.uniform(key, (dimension,), minval=-1.0, maxval=1.0)
    curvatures = {
        "scattered": scattered,
        "power law": scattered / jnp.arange(1, dimension + 1),
        "half flat": jnp.where(jnp.arange(dimension) < dimension // 2, scattered, 0.0),
    }[spectrum]
    return slt.Problem(Partial(_quadratic, curvatures), jnp.zeros(dimension), jnp.zeros((examples, 0)))


def _quadratic(curvatures, w, batch):
    del batch
    return 0.5 * jnp.sum(curvatures * w**2)


def _quadratic_coefficient(problem, nbeta):
    stiffness = nbeta * problem.loss_fn.args[0]
    return 0.5 * jnp.sum(stiffness / (stiffness + GAMMA_SHARE * nbeta))


def regression(key, copies: int, inputs: int = 8, examples: int = 500):
    """``½ (x · Σ_c w_c - y)²`` on noisy data, at its minimum: all but ``inputs`` of the directions are flat."""
    x_key, noise_key, scale_key = jax.random.split(key, 3)
    x = jax.random.normal(x_key, (examples, inputs)) * 2 ** jax.random.uniform(scale_key, (inputs,), minval=-1.0)
    y = x @ jnp.ones(inputs) + jax.random.normal(noise_key, (examples,))
    best = jnp.linalg.solve(x.T @ x, x.T @ y)
    return slt.Problem(Partial(_regression), jnp.tile(best / copies, (copies, 1)), (x, y))


def _regression(w, batch):
    return 0.5 * (batch[0] @ w.sum(0) - batch[1]) ** 2


def reduced_rank(key, examples: int = 500):
    """A linear network 6, 2, 5 on noisy data, at the minimum of its own loss: λ = 9, smooth."""
    x_key, noise_key, map_key = jax.random.split(key, 3)
    x = jax.random.normal(x_key, (examples, 6))
    first, second = jax.random.normal(map_key, (2, 6)), jax.random.normal(map_key, (5, 2))
    y = x @ (second @ first).T + jax.random.normal(noise_key, (examples, 5))
    values, basis = jnp.linalg.eigh(x.T @ x / examples)
    root, inverse = (basis * jnp.sqrt(values)) @ basis.T, (basis / jnp.sqrt(values)) @ basis.T
    left, middle, right = jnp.linalg.svd(jnp.linalg.solve(x.T @ x, x.T @ y).T @ root, full_matrices=False)
    scale = jnp.sqrt(middle[:2])
    return slt.Problem(Partial(_linear), ((scale[:, None] * right[:2]) @ inverse, left[:, :2] * scale), (x, y))


def _linear(layers, batch):
    return 0.5 * jnp.sum((batch[0] @ layers[0].T @ layers[1].T - batch[1]) ** 2, axis=1)


def tanh_regression(key, examples: int = 100):
    """``V tanh(W x)`` of widths 3, 3, 2 on its own answers."""
    x_key, w_key, v_key = jax.random.split(key, 3)
    x = jax.random.normal(x_key, (examples, 3))
    params = (jax.random.normal(w_key, (3, 3)), jax.random.normal(v_key, (2, 3)))
    return slt.Problem(Partial(_tanh), params, (x, jnp.tanh(x @ params[0].T) @ params[1].T))


def _tanh(layers, batch):
    return 0.5 * jnp.sum((jnp.tanh(batch[0] @ layers[0].T) @ layers[1].T - batch[1]) ** 2, axis=1)


def linear_network(widths, rank: int, *, generic: bool) -> Family:
    """Population loss, at a generic minimum or at the balanced one, whose layers have the rank of the product."""
    placement = {"intervals": deep_linear_generic(widths, rank)} if generic else {}
    exact = float(deep_linear(widths, rank).learning_coefficient)
    return Family(
        f"linear network {'-'.join(map(str, widths))} rank {rank} {'generic' if generic else 'balanced'}",
        lambda key: deep_linear_problem(key, widths, rank, examples=100_000, **placement),
        lambda problem, nbeta: exact,
    )


def families() -> list[Family]:
    """All of them."""
    return [
        linear_network((6, 4, 7), 2, generic=True),
        linear_network((6, 4, 6), 2, generic=False),
        linear_network((6, 8, 5, 7), 3, generic=True),
        Family("regression 40, 32 flat", partial(regression, copies=5), lambda problem, nbeta: 4.0, 25),
        Family("reduced rank 6-2-5", reduced_rank, lambda problem, nbeta: 9.0, 25),
        Family("tanh 3-3-2", tanh_regression, None, 5),
        Family("quadratic 4", partial(quadratic, spectrum="scattered", dimension=4), _quadratic_coefficient),
        Family(
            "quadratic 40 half flat", partial(quadratic, spectrum="half flat", dimension=40), _quadratic_coefficient
        ),
        Family("quadratic 200", partial(quadratic, spectrum="power law", dimension=200), _quadratic_coefficient),
    ]


class Task(NamedTuple):
    """All instances of a family, one axis longer than a problem, with what is known about each."""

    family: Family
    problems: slt.Problem
    exact: np.ndarray
    nbeta: float
    step: jax.Array
    batch_step: jax.Array | None


def prepare(family: Family, instances: int, seed: int) -> Task:
    """Draw the instances and find their steps."""
    problems = jax.jit(jax.vmap(family.make))(jax.random.split(jax.random.key(seed), instances))
    count = problems.data[0].shape[1] if isinstance(problems.data, tuple) else problems.data.shape[1]
    nbeta = count / math.log(count)
    if family.coefficient is not None:
        exact = np.array([float(family.coefficient(one(problems, i), nbeta)) for i in range(instances)])
    else:
        found = _chosen(jax.random.key(3), problems, nbeta, GAMMA_SHARE * nbeta, draws=8 * LENGTH, burnin=2 * LENGTH)
        exact = np.where(np.asarray(found.health.ok), np.asarray(found.value), np.nan)
    step = _calibrate(problems, nbeta, None)
    batch_step = None if family.batch is None else _calibrate(problems, nbeta, family.batch)
    return Task(family, problems, exact, nbeta, step, batch_step)


def one(problems, index: int) -> slt.Problem:
    """A single problem of many."""
    return jax.tree.map(lambda leaf: leaf[index], problems)


@partial(jax.jit, static_argnames="batch_size")
def _calibrate(problems, nbeta, batch_size):
    def find(problem):
        posterior = slt.localise(*problem, nbeta=nbeta)
        return slt.calibrate(jax.random.key(1), posterior, problem.data, batch_size=batch_size).step_size

    return jax.vmap(find)(problems)


@partial(jax.jit, static_argnames=("kind", "batch_size", "draws", "burnin"))
def _given(key, problems, step, nbeta, gamma, kind, batch_size=None, draws=LENGTH, burnin=LENGTH):
    """A sampler of one's own; step, nβ and γ are numbers, so that many failures share a program."""

    def run(key, problem, step):
        sampler = slt.samplers.sgld(step) if kind == "sgld" else slt.samplers.underdamped(step, friction=FRICTION)
        settings = {"sampler": sampler, "batch_size": batch_size, "draws": draws, "burnin": burnin}
        return slt.llc(key, *problem, nbeta=nbeta, gamma=gamma, **settings)

    return jax.vmap(run)(jax.random.split(key, len(step)), problems, step)


@partial(jax.jit, static_argnames=("batch_size", "draws", "burnin"))
def _chosen(key, problems, nbeta, gamma, batch_size=None, draws=LENGTH, burnin=LENGTH):
    """Nothing chosen, in a program: a single block."""

    def run(key, problem):
        settings = {"batch_size": batch_size, "draws": draws, "burnin": burnin}
        return slt.llc(key, *problem, nbeta=nbeta, gamma=gamma, **settings)._replace(settings=None)

    count = jax.tree.leaves(problems.params)[0].shape[0]
    return jax.vmap(run)(jax.random.split(key, count), problems)


@jax.jit
def _displaced(key, problems, height):
    """Centres that lie higher than the minimum by ``height``, in nats, in random directions."""

    def move(key, problem, height):
        direction = normal(key, problem.params)
        base = jnp.mean(problem.loss_fn(problem.params, problem.data))

        def at(radius):
            return jax.tree.map(lambda w, v: w + radius * v, problem.params, direction)

        def halve(_, interval):
            low, high = interval
            middle = jnp.sqrt(low * high)
            inside = jnp.mean(problem.loss_fn(at(middle), problem.data)) - base < height
            return jnp.where(inside, middle, low), jnp.where(inside, high, middle)

        return at(jax.lax.fori_loop(0, 40, halve, (1e-4, 1e2))[0])

    keys = jax.random.split(key, len(height))
    return problems._replace(params=jax.vmap(move)(keys, problems, height))


@partial(jax.jit, static_argnames="batch_size")
def _heating_step(problems, exact, nbeta, share, batch_size):
    """The ε at which batches add a share to λ̂: ``ε (nβ)² tr Σ / (8 λ)``."""

    def find(problem, exact):
        posterior = slt.localise(*problem, nbeta=nbeta)
        origin = posterior.restriction.origin(posterior.center)
        keys = jax.random.split(jax.random.key(2), 64)
        noise = jax.vmap(lambda key: gradient_noise(key, posterior, problem.data, origin, batch_size))(keys).mean()
        return share * 8 * exact / (nbeta**2 * noise)

    return jax.vmap(find)(problems, exact)


@jax.jit
def _with_cliff(problems, level):
    """Losses that are not finite from a level on."""
    return problems._replace(
        loss_fn=jax.vmap(lambda problem, level: Partial(_cliff, problem.loss_fn, level))(problems, level)
    )


def _cliff(loss_fn, level, params, batch):
    losses = loss_fn(params, batch)
    return losses * jnp.where(jnp.mean(losses) > level, jnp.nan, 1.0)


def planted(task: Task, key):
    """Every failure: ``(failure, variant, run, exact)``; ``run()`` gives its estimates, NaN where nothing is known."""
    family, problems, exact, nbeta, step, batch_step = task
    gamma = GAMMA_SHARE * nbeta
    known = np.where(np.isfinite(exact), exact, 6.0)
    overdamped = (step / INERTIAL) ** 2
    given = partial(_given, key, problems, nbeta=nbeta, gamma=gamma)
    chosen = partial(_chosen, key, problems, nbeta, gamma)
    inertial = partial(given, kind="underdamped")

    for factor in (5, 10, 100):
        yield "step", f"x{factor} underdamped", partial(inertial, step=factor * step), exact
        yield "step", f"x{factor} sgld", partial(given, step=factor * overdamped, kind="sgld"), exact
        if family.batch:
            run = partial(given, step=factor * batch_step, kind="sgld", batch_size=family.batch)
            yield "step", f"x{factor} sgld, batches", run, exact
    for factor in (1, 0.1, 0.01):
        yield "small step", f"x{factor:g} underdamped", partial(inertial, step=factor * step), exact
        yield "small step", f"x{factor**2:g} sgld", partial(given, step=factor**2 * overdamped, kind="sgld"), exact
    for length in (60,):
        short = {"draws": length, "burnin": length}
        yield "short", f"{length} default", partial(chosen, **short), exact
        yield "short", f"{length} underdamped", partial(inertial, step=step, **short), exact
    for share in (0.25, 0.5, 1, 3, 10):
        moved = _displaced(key, problems, jnp.asarray(share * known / nbeta))
        yield "centre", f"{share} λ above, default", partial(_chosen, key, moved, nbeta, gamma), exact
        run = partial(_given, key, moved, step, nbeta, gamma, kind="underdamped")
        yield "centre", f"{share} λ above, underdamped", run, exact
        if family.batch:
            run = partial(_chosen, key, moved, nbeta, gamma, batch_size=family.batch)
            yield "centre", f"{share} λ above, default on batches", run, exact
    wild = problems._replace(params=jax.tree.map(lambda w: jax.random.normal(key, w.shape), problems.params))
    yield "centre", "untrained, default", partial(_chosen, key, wild, nbeta, gamma), exact
    yield "centre", "untrained, underdamped", partial(_given, key, wild, step, nbeta, gamma, kind="underdamped"), exact
    for share in (0.03, 0.1, 0.3, 1.0):
        yield "localisation", f"γ = {share} nβ, default", partial(_chosen, key, problems, nbeta, share * nbeta), exact
    if family.batch:
        # answers without noise leave nothing at the centre from which a step could be told
        for share in (0.15, 0.3, 0.6) if family.coefficient else ():
            epsilon = _heating_step(problems, known, nbeta, share, family.batch)
            run = partial(given, step=epsilon, kind="sgld", batch_size=family.batch)
            yield "heated batches", f"{share:.0%} expected, sgld", run, exact
            run = partial(inertial, step=jnp.sqrt(epsilon * FRICTION / 2), batch_size=family.batch)
            yield "heated batches", f"{share:.0%} expected, underdamped", run, exact
        yield "nothing", "default on batches", partial(chosen, batch_size=family.batch), exact
    base = jax.vmap(lambda problem: jnp.mean(problem.loss_fn(problem.params, problem.data)))(problems)
    cliff = _with_cliff(problems, base + jnp.asarray(known + 3.5 * np.sqrt(known)) / nbeta)
    run = partial(_given, key, cliff, step, nbeta, gamma, kind="underdamped")
    yield "not finite", "underdamped", run, np.full_like(exact, np.nan)
    for factor in (100, 0.01):
        run = partial(_chosen, key, problems, factor * nbeta, factor * gamma)
        yield "temperature", f"nβ x{factor:g}, default", run, exact
    yield "nothing", "default", chosen, exact


def row(failure, variant, task, estimates, exact):
    """Rates of one failure in one family."""
    value, error = np.asarray(estimates.value), np.asarray(estimates.std_error)
    ok = np.asarray(estimates.health.ok)
    checks = {name: np.asarray(passed) for name, passed in estimates.health.checks.items()}
    with np.errstate(invalid="ignore"):
        relative = value / exact - 1
        off = ~((np.abs(relative) <= OFF) | (np.abs(value - exact) <= ERRORS * error)) & np.isfinite(exact)
    if failure == "not finite":
        # where no chain met the cliff, nothing was wrong
        met = np.asarray(estimates.health.diverged) > 0
        some = met & (np.asarray(estimates.health.diverged) < 1)
        ok, off = ok[some], np.ones(some.sum(), bool)
        checks = {name: passed[some] for name, passed in checks.items()}
        relative = relative[some]
    fired = Counter({name: int((~passed).sum()) for name, passed in checks.items() if (~passed).any()})
    finite = relative[np.isfinite(relative)]
    return {
        "failure": failure,
        "variant": variant,
        "family": task.family.name,
        "runs": len(ok),
        "flagged": int((~ok).sum()),
        "off": int(off.sum()),
        "off_and_green": int((off & ok).sum()),
        "right_and_flagged": int((~off & ~ok).sum()),
        "median_relative_error": round(float(np.median(finite)), 4) if len(finite) else None,
        "fired": dict(fired.most_common()),
        "exact_known": bool(np.isfinite(exact).any()),
        "error": round(float(np.nanmedian(error)), 4) if np.isfinite(error).any() else None,
    }


def table(rows):
    """Over all families: how many runs, flagged, off, off and green, and which checks fired."""
    lines = [f"{'failure':<16}{'variant':<38}{'runs':>6}{'flagged':>9}{'off':>6}{'off, green':>12}  fired"]
    totals = {}
    for entry in rows:
        total = totals.setdefault((entry["failure"], entry["variant"]), [Counter(), Counter()])
        total[0].update({name: entry[name] for name in ("runs", "flagged", "off", "off_and_green")})
        total[1].update(entry["fired"])
    for (failure, variant), (sums, fired) in sorted(totals.items()):
        checks = ", ".join(f"{name} {count}" for name, count in fired.most_common())
        figures = f"{sums['runs']:>6}{sums['flagged']:>9}{sums['off']:>6}{sums['off_and_green']:>12}"
        lines.append(f"{failure:<16}{variant:<38}{figures}  {checks}")
    return "\n".join(lines)


def main():
    """Measure all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=12, help="problems of each family")
    parser.add_argument("--only", default="", help="families whose name contains this")
    parser.add_argument("--planted", default="", help="failures whose name and variant contain this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "failures.jsonl")
    options = parser.parse_args()
    rows = []
    for index, family in enumerate(families()):
        if options.only not in family.name:
            continue
        begin = time.monotonic()
        task = prepare(family, options.instances, options.seed + index)
        for failure, variant, run, exact in planted(task, jax.random.key(options.seed + 1000 + index)):
            if options.planted not in f"{failure}: {variant}":
                continue
            rows.append(row(failure, variant, task, run(), exact))
            print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
        print(f"# {family.name}: {time.monotonic() - begin:.0f} s", flush=True)
    versions = {"python": platform.python_version(), "jax": jax.__version__, "slt_jax": slt.__version__}
    print(table(rows))
    rows.append({"benchmark": "failures", "instances": options.instances, "seed": options.seed, "versions": versions})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in rows))


if __name__ == "__main__":
    main()
