"""One picture per way to be wrong, for the page "When not to believe it" of the README.

    python benchmarks/pictures.py

writes ``benchmarks/results/pictures/*.png``. Each shows ``nβ`` times the excess along the draws of a run that failed,
the exact value, and the verdict that the run got. Needs matplotlib.
"""

import argparse
import textwrap
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import slt_jax as slt

matplotlib.use("Agg")
import matplotlib.pyplot as plt

WIDTHS, RANK = (10, 30, 10), 5


class Failure(NamedTuple):
    """A run that went wrong: its title, trace, posterior, exact value, estimate."""

    title: str
    trace: slt.Trace
    posterior: slt.LocalPosterior
    exact: float
    estimate: slt.Estimate


def network():
    """A linear network whose learning coefficient is 50."""
    problem = slt.truths.deep_linear_problem(jax.random.key(0), WIDTHS, RANK, examples=100_000)
    return problem, float(slt.truths.deep_linear(WIDTHS, RANK).learning_coefficient)


def regression(examples=2000, dimension=20):
    """A noisy linear regression at its least squares solution: λ̂ is half of the dimension."""
    inputs_key, noise_key = jax.random.split(jax.random.key(1))
    inputs = jax.random.normal(inputs_key, (examples, dimension))
    targets = jax.random.normal(noise_key, (examples,))
    center = jnp.linalg.lstsq(inputs, targets)[0]
    loss_fn = lambda w, batch: 0.5 * (batch[0] @ w - batch[1]) ** 2  # noqa: E731
    return slt.Problem(loss_fn, center, (inputs, targets)), dimension / 2


def read(title, problem, exact, sampler, *, gamma=None, **settings):
    """Four chains of a sampler that nobody calibrated."""
    posterior = slt.localise(*problem, gamma=gamma)
    trace = slt.sample(jax.random.key(2), sampler, posterior, problem.data, chains=4, **settings)
    return Failure(title, trace, posterior, exact, slt.llc_from(trace, posterior))


def step_too_large():
    """Euler steps half as long as those that diverge: the variance is twice what it should be."""
    problem, exact = regression()
    sampler = slt.samplers.sgld(2.0 / float(slt.localise(*problem).nbeta), averaged_noise=False)
    return read("a step too large", problem, exact, sampler, draws=1000, burnin=200)


def not_mixed():
    """A deep network from its centre alone, for much too short."""
    widths = (6, 40, 38, 43, 13)
    problem = slt.truths.deep_linear_problem(jax.random.key(4), widths, 2, examples=100_000)
    posterior = slt.localise(*problem)
    step = slt.calibrate(jax.random.key(3), posterior, problem.data).step_size
    exact = float(slt.truths.deep_linear(widths, 2).learning_coefficient)
    return read("not mixed", problem, exact, slt.samplers.underdamped(0.3 * step), draws=1000, burnin=200)


def not_a_minimum():
    """A centre from which the loss still falls."""
    problem, exact = regression()
    moved = slt.Problem(problem.loss_fn, problem.params + 0.3, problem.data)
    posterior = slt.localise(*moved)
    step = slt.calibrate(jax.random.key(3), posterior, moved.data).step_size
    return read("not a minimum", moved, exact, slt.samplers.underdamped(step), draws=1000, burnin=500)


def held_too_tightly():
    """γ as strong as the curvature."""
    problem, exact = regression()
    posterior = slt.localise(*problem)
    gamma = 0.5 * float(posterior.nbeta)
    step = slt.calibrate(jax.random.key(3), posterior._replace(gamma=jnp.float32(gamma)), problem.data).step_size
    return read("gamma too large", problem, exact, slt.samplers.underdamped(step), gamma=gamma, draws=1000, burnin=500)


def heated():
    """Small batches at a step that is right for all of the data."""
    problem, exact = regression()
    posterior = slt.localise(*problem)
    step = 1.0 / (float(posterior.nbeta) * 1.2)
    return read("heated by its batches", problem, exact, slt.samplers.sgld(step), draws=2000, burnin=500, batch_size=20)


def diverged():
    """One chain of four is lost."""
    problem, exact = network()
    posterior = slt.localise(*problem)
    calibration = slt.calibrate(jax.random.key(3), posterior, problem.data)
    trace = slt.sample(
        jax.random.key(2), calibration.sampler, posterior, problem.data, draws=1000, start=calibration.state
    )
    lost = jnp.where(jnp.arange(1000) > 600, jnp.nan, trace.excess[2])
    trace = trace._replace(excess=trace.excess.at[2].set(lost))
    return Failure("one chain diverged", trace, posterior, exact, slt.llc_from(trace, posterior))


FAILURES = {
    "step_too_large": step_too_large,
    "not_mixed": not_mixed,
    "not_a_minimum": not_a_minimum,
    "gamma_too_large": held_too_tightly,
    "heated": heated,
    "diverged": diverged,
}


def draw(failure, path):
    """Draws of each chain, the exact value, and the verdict below."""
    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    energies = np.asarray(failure.posterior.nbeta * failure.trace.excess)
    for chain in energies:
        axes.plot(np.where(np.isfinite(chain), chain, np.nan), color="#3f90da", linewidth=0.6, alpha=0.6)
    axes.axhline(failure.exact, color="#b45309", linestyle="--", linewidth=1.6, label=f"exact {failure.exact:g}")
    if np.isfinite(float(failure.estimate.value)):
        value = float(failure.estimate.value)
        axes.axhline(value, color="#1f2430", linewidth=1.6, label=f"read {value:.3g}")
    axes.set_title(failure.title, loc="left", fontweight="bold")
    axes.set_xlabel("draw")
    axes.set_ylabel("nβ · excess loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right", ncols=2)
    verdict = textwrap.fill(failure.estimate.health.explain(), 110)
    color = "#1f2430" if bool(failure.estimate.health.ok) else "#c1121f"
    figure.supxlabel(verdict, fontsize=8, color=color, x=0.02, ha="left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    """Draw all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, make in FAILURES.items():
        failure = make()
        draw(failure, options.out / f"{name}.png")
        print(f"{name}: {failure.estimate}")


if __name__ == "__main__":
    main()
