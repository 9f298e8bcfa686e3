"""The table of cases on which ``llc`` is judged: each a problem, the settings it may use, and what is exactly known.

Two kinds of answer are kept apart. The *theorem* is λ, the limit of large n. The *oracle* is ``nβ E[L - L(w*)]`` of the
very posterior that is sampled, at its temperature and localisation: what a perfect sampler reports, by quadrature or by
long chains of another kind. ``judge`` says which of them is the exact value of the case; the other is shown beside it.
On drawn data the two differ by more than any error where the minimum has fitted noise: up to a third at 1e5 examples.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import chains
import jax
import jax.numpy as jnp
import numpy as np
import problems
import quadrature

from slt_jax import Problem, truths
from slt_jax.loss import example_count
from slt_jax.posterior import GAMMA_SHARE

EXAMPLES = 100_000
#: Half the exponents of the normal crossings.
CROSSINGS = ([1], [1, 1], [2, 1], [1, 1, 1])
#: Where singularities with arms are measured: a temperature at which every theorem is still some way off.
CROSSING_NBETA, CROSSING_GAMMA = 1e3, 1.0
#: Localisation of the small perceptrons. At the default, a hundred times weaker, not even long chains agree.
PERCEPTRON_GAMMA = 1.0
#: Widths, rank and intervals of minima whose own coefficient exceeds that of ``deep_linear``.
DEGENERATE = (
    ((4, 2, 1), 0, {(1, 2): 1, (1, 1): 1, (0, 0): 4}),
    ((8, 4, 3), 0, {(1, 2): 3, (1, 1): 1, (0, 0): 8}),
    ((6, 5, 8), 1, {(0, 2): 1, (0, 1): 4, (0, 0): 1, (2, 2): 7}),
    ((10, 6, 5), 2, {(0, 2): 2, (1, 2): 3, (1, 1): 1, (0, 0): 8}),
    ((6, 4, 4, 4), 0, {(1, 3): 2, (0, 0): 6, (1, 1): 2, (2, 2): 2, (3, 3): 2}),
    ((8, 4, 5, 3), 1, {(0, 3): 1, (1, 3): 2, (0, 0): 7, (1, 1): 1, (2, 2): 2}),
    ((5, 5, 5, 5), 1, {(0, 3): 1, (0, 1): 4, (2, 2): 4, (3, 3): 4}),
)
#: Inputs, hidden units and outputs of the regressions, at rank 0: λ is 6.5, 8, 6, 6, 6.
REDUCED_RANK = ((5, 3, 5), (5, 4, 5), (4, 3, 8), (8, 3, 4), (3, 8, 4))


class Case(NamedTuple):
    """One row of the table.

    Attributes:
      family: Rows of one family are summed up together.
      name: Names the row within its family.
      build: Makes the problem; called once, when its turn comes.
      settings: Passed to ``llc`` as they are.
      judge: ``"theorem"`` or ``"oracle"``: which is the exact value.
      theorem: λ at population, where a theorem gives it.
      multiplicity: m, where a theorem gives it.
      quadrature: The oracle, where a few seconds suffice.
      long_run: The oracle, where its answer is kept in ``results/oracles.json``: ``long_run(problem, nbeta, gamma)``
        returns a ``chains.Average`` and a dictionary of what else is worth keeping.
      same_as: Name of the case of this family that has the same posterior and so the same oracle.
    """

    family: str
    name: str
    build: Callable[[], Problem]
    settings: dict[str, Any]
    judge: str
    theorem: float | None = None
    multiplicity: int | None = None
    quadrature: Callable[[], float] | None = None
    long_run: Callable[..., tuple[chains.Average, dict[str, Any]]] | None = None
    same_as: str | None = None


def effort(gradients: int, relative_error: float | None = None) -> dict[str, Any]:
    """At most so many gradients for each chain, and the standard error asked for; nothing else is chosen."""
    return {"budget": gradients} | ({} if relative_error is None else {"relative_error": relative_error})


def temperature(case: Case, problem: Problem) -> tuple[float, float]:
    """``nβ`` and γ of the posterior that ``llc`` samples in this case."""
    count = example_count(problem.data)
    nbeta = case.settings.get("nbeta", count / math.log(count))
    return nbeta, case.settings.get("gamma", GAMMA_SHARE * nbeta)


#: What is asked for where λ is small: an error of one per cent, if the budget gets there.
PRECISE = effort(20_000, 0.01)


def linear_case(family, name, task, settings, judge, truth, *, check=False, **long_settings) -> Case:
    """A linear network, whose oracle are Gibbs chains, checked by NUTS if asked; ``task()`` makes a ``LinearTask``."""

    def long_run(problem, nbeta, gamma):
        made = task()
        known = made.gram, made.target, problem.params, nbeta, gamma, made.reference
        more = {"center": nbeta * made.center_excess()}
        if check:
            # the posterior is stiff for NUTS: long trajectories, few draws, a coarse answer
            more |= _checked(chains.two_linear_layers(*known, chains=6, warmup=300, draws=300))
        return chains.linear_network(*known, **long_settings), more

    theorem, multiplicity = float(truth.learning_coefficient), truth.multiplicity
    return Case(family, name, lambda: task().problem, settings, judge, theorem, multiplicity, None, long_run)


def _checked(found: chains.Average) -> dict[str, float]:
    """A second answer by another algorithm, kept beside the first."""
    return {"check": found.value, "check_error": found.std_error, "check_rhat": found.rhat}


def network_cases(family: str, *, sampled: bool, generic: bool, layers=5, width=50, count=40, seed=0) -> Iterator[Case]:
    """Random deep linear networks, by default those of the published class of about a thousand parameters."""
    for index, (widths, rank) in enumerate(problems.random_networks(count, seed, layers, width)):
        placement = {"intervals": truths.deep_linear_generic(widths, rank)} if generic else {}
        make, key = (problems.sampled_task, index) if sampled else (problems.population_task, jax.random.key(index))
        task = partial(make, key, widths, rank, EXAMPLES, **placement)
        # the goals allow 4000 gradients up to three layers, and more beyond
        settings = effort(4000 if len(widths) <= 4 else 20_000)
        # many small matrices or a few large ones: about as long for each network
        sweeps = int(np.clip(2e6 / sum(size**2 for size in widths), 250, 2000))
        truth = truths.deep_linear(widths, rank)
        if generic:
            truth = truth._replace(multiplicity=1)
        judge = "oracle" if sampled else "theorem"
        yield linear_case(family, f"{widths}, rank {rank}", task, settings, judge, truth, chains=8, sweeps=sweeps)


def pointwise_cases(family: str) -> Iterator[Case]:
    """Rank-deficient minima, localised so strongly that the chains cannot go where the network is more degenerate."""
    for widths, rank, intervals in DEGENERATE:
        task = partial(
            problems.population_task, jax.random.key(0), widths, rank, EXAMPLES, intervals=intervals, scale=4.0
        )
        settings = effort(4000 if len(widths) <= 3 else 20_000) | {"gamma": 1e-3 * EXAMPLES / math.log(EXAMPLES)}
        truth = truths.deep_linear_at(problems.layers_of_intervals(widths, intervals))
        yield linear_case(family, f"{widths}, rank {rank}", task, settings, "theorem", truth, chains=16, sweeps=1000)


def reduced_rank_cases(family: str) -> Iterator[Case]:
    """Reduced-rank regression on a thousand drawn examples, at the minimum of its own loss."""
    for index, sizes in enumerate(REDUCED_RANK):
        task = partial(problems.reduced_rank_task, index, *sizes, 0, 1000)
        truth = truths.reduced_rank(*sizes, 0)
        yield linear_case(family, f"{sizes}", task, PRECISE, "oracle", truth, check=True, chains=32, sweeps=5000)


def small_cases(kind: str, family: str) -> Iterator[Case]:
    """Singularities of a few parameters at one temperature, by quadrature."""
    settings = {"nbeta": CROSSING_NBETA, "gamma": CROSSING_GAMMA, **PRECISE}
    if kind == "crossing":
        for exponents in CROSSINGS:
            yield Case(
                family,
                f"exponents {[2 * k for k in exponents]}",
                partial(truths.normal_crossing_problem, exponents, examples=1000),
                settings,
                "oracle",
                *_known(truths.normal_crossing(exponents)),
                partial(truths.normal_crossing_energy, exponents, CROSSING_NBETA, CROSSING_GAMMA),
            )
        return
    problem, truth, energy = {
        "tanh": (truths.tanh_problem, truths.tanh, quadrature.tanh_units),
        "mixture": (truths.gaussian_mixture_problem, truths.gaussian_mixture, quadrature.mixture),
    }[kind]
    for size in (1, 2):
        name = f"{size} {'unit' if kind == 'tanh' else 'free mean'}{'s' * (size > 1)}"
        build, exact = partial(problem, size, examples=1000), partial(energy, size, CROSSING_NBETA, CROSSING_GAMMA)
        yield Case(family, name, build, settings, "oracle", *_known(truth(size)), exact)


def _known(truth) -> tuple[float, int | None]:
    return float(truth.learning_coefficient), truth.multiplicity


def perceptron_case(family, name, widths, dead, noise, settings, **long_settings) -> Case:
    """A small network of tanh units on a thousand examples, whose oracle is NUTS, checked by NUTS or quadrature."""
    build = partial(problems.perceptron, 0, widths, dead, 1000, noise=noise)

    def long_run(problem, nbeta, gamma):
        data = [np.asarray(leaf, float) for leaf in (*problem.data, *problem.params)]
        run = partial(chains.two_layers, jnp.tanh, *data[:2], tuple(data[2:]), nbeta, gamma)
        found = run(**long_settings)
        if widths[0] == widths[2] == 1:
            return found, {"check": quadrature.one_input_network(*data[:2], tuple(data[2:]), nbeta, gamma)}
        return found, _checked(run(integrate=False, draws=500, seed=1))

    return Case(family, name, build, settings | {"gamma": PERCEPTRON_GAMMA}, "oracle", long_run=long_run)


def perceptron_cases(family: str) -> Iterator[Case]:
    """Perceptrons with units that are dead, realisable or trained on noise."""
    for widths, dead, noise in (((1, 4, 1), 2, 0.0), ((3, 6, 2), 2, 0.0), ((3, 6, 2), 2, 1.0)):
        name = f"{widths}, {dead} dead{', noisy' if noise else ''}"
        yield perceptron_case(family, name, widths, dead, noise, PRECISE)


def minibatch_cases(family: str) -> Iterator[Case]:
    """Regressions with noisy labels on all thousand examples, and on batches of fifty."""
    for index, (*sizes, rank) in enumerate(((5, 3, 5, 0), (10, 4, 6, 4))):
        name = f"linear {tuple(sizes)}, rank {rank}"
        task = partial(problems.reduced_rank_task, index, *sizes, rank, 1000)
        truth = truths.reduced_rank(*sizes, rank)
        yield from _with_batches(
            linear_case(family, name, task, PRECISE, "oracle", truth, check=rank > 0, chains=32, sweeps=3000),
            effort(40_000, 0.01),
        )
    name = "tanh (3, 4, 2)"
    yield from _with_batches(perceptron_case(family, name, (3, 4, 2), 0, 1.0, PRECISE, chains=24), effort(40_000, 0.01))


def _with_batches(case: Case, longer: dict[str, Any]) -> Iterator[Case]:
    """The case, and the same on a twentieth of the examples: 40 000 of those see as many as 2000 full gradients."""
    yield case
    settings = case.settings | longer | {"batch_size": 50}
    yield case._replace(name=f"{case.name}, batch 50", settings=settings, same_as=case.name)


def large_cases(family: str) -> Iterator[Case]:
    """A million parameters on one chain of five hundred gradients."""
    widths, rank = (600, 600, 600, 600), 150
    build = partial(truths.deep_linear_problem, jax.random.key(0), widths, rank, examples=EXAMPLES)
    settings = {"chains": 1, "draws": 250, "burnin": 250}
    yield Case(family, f"{widths}, rank {rank}", build, settings, "theorem", *_known(truths.deep_linear(widths, rank)))


#: All families; those in ``ON_REQUEST`` are left out unless they are asked for by name.
FAMILIES: dict[str, Callable[[str], Iterator[Case]]] = {
    "1K": partial(network_cases, sampled=False, generic=False),
    "1K generic": partial(network_cases, sampled=False, generic=True),
    "1K sampled": partial(network_cases, sampled=True, generic=False),
    "1K sampled generic": partial(network_cases, sampled=True, generic=True),
    "10K": partial(network_cases, sampled=False, generic=False, layers=10, width=100, count=10, seed=1),
    "pointwise": pointwise_cases,
    "crossing": partial(small_cases, "crossing"),
    "tanh": partial(small_cases, "tanh"),
    "mixture": partial(small_cases, "mixture"),
    "perceptron": perceptron_cases,
    "reduced rank": reduced_rank_cases,
    "minibatch": minibatch_cases,
    "large": large_cases,
}
ON_REQUEST = ("large",)


def cases(family: str) -> list[Case]:
    """All cases of a family, none of them built yet."""
    if family not in FAMILIES:
        raise ValueError(f"families: got {family!r}; choose from {', '.join(FAMILIES)}.")
    return list(FAMILIES[family](family))
