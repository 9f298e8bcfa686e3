"""Probes: what is measured at a checkpoint. Each turns a problem and a restriction into a reading of plain arrays."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import loss
from slt_jax.estimators import (
    BUDGET,
    BURNIN,
    DRAWS,
    Estimate,
    RunKeeper,
    Schedule,
    check_budget,
    measure,
    too_imprecise,
)
from slt_jax.posterior import LocalPosterior, localise
from slt_jax.problem import Problem
from slt_jax.restriction import Restriction, stacked
from slt_jax.sampling import Trace, check_batch_size, check_schedule
from slt_jax.types import Array, Key, PyTree

#: What a probe returns: arrays by name. ``value``, ``std_error`` and ``healthy`` have shape ``()``. Words along an axis
#: that is called as they are name its points.
Reading = dict[str, np.ndarray]

#: Points of a chain that are kept for its picture.
TRACE_POINTS = 200


class Probe(NamedTuple):
    """A measurement with its settings.

    Attributes:
      measure: ``measure(key, problem, restriction, **settings) -> Reading``.
      settings: Numbers that the reading depends on; they go into its fingerprint.
      check: ``check(problem, **settings)`` raises ``ValueError`` for settings out of range, computing nothing.
      dims: What the axes of its arrays are called where they are stored, by the name of the array.
      measure_many: ``measure_many(keys, problem, restrictions, **settings) -> readings`` of restrictions of one shape
        in one program, each reading as right as that of ``measure``; or ``None``.
      observes: Whether ``measure`` is also given ``observables``: the sublosses of the subject by name, each as the
        ``Problem`` that it is at the checkpoint. A subject without sublosses is refused then.
      resumes: Whether ``measure`` is also given a ``keeper`` (``estimators.RunKeeper``), where there is one.
    """

    measure: Callable[..., Reading]
    settings: dict[str, float | int | None]
    check: Callable[..., None] | None = None
    dims: Mapping[str, tuple[str, ...]] = {}
    measure_many: Callable[..., list[Reading]] | None = None
    observes: bool = False
    resumes: bool = False


def llc_probe(
    *,
    nbeta: float | None = None,
    gamma: float | None = None,
    chains: int = 4,
    draws: int | None = None,
    burnin: int | None = None,
    batch_size: int | None = None,
    budget: int | None = None,
    relative_error: float = 0.05,
    resolution: bool = False,
) -> Probe:
    """The local learning coefficient, as a probe; the settings are those of ``llc``.

    As there, the length is fixed where ``draws`` or ``burnin`` is given without a budget; but where nothing is said,
    four chains and an error of five per cent have to do for each of many readings. The centre is not polished: it is
    the checkpoint that is measured, on each subloss alike.
    """
    fixed = draws is not None or burnin is not None
    settings = {
        "nbeta": nbeta,
        "gamma": gamma,
        "chains": chains,
        "draws": DRAWS if draws is None else draws,
        "burnin": BURNIN if burnin is None else burnin,
        "batch_size": batch_size,
        "budget": (0 if fixed else BUDGET) if budget is None else budget,
        "relative_error": relative_error,
        "resolution": resolution,
    }
    dims = {"per_chain": ("chain",), "trace": ("chain", "trace_point")}
    return Probe(measure_llc, settings, check_llc, dims, measure_llc_together, resumes=True)


def check_llc(
    problem: Problem,
    *,
    nbeta: float | None,
    gamma: float | None,
    chains: int,
    draws: int,
    burnin: int,
    batch_size: int | None,
    budget: int,
    relative_error: float,
    resolution: bool,
) -> None:
    """Refuse settings that no checkpoint could be measured with, before anything is compiled.

    Raises:
      ValueError: naming the setting, what was got and what to do.
    """
    check_schedule(draws=draws, chains=chains, burnin=burnin, thin=1)
    check_batch_size(batch_size, loss.example_count(problem.data))
    check_budget(budget, relative_error)
    del resolution  # of the verdict only

    def temperature(params: PyTree, data: PyTree) -> Array:
        return localise(problem.loss_fn, params, data, nbeta, gamma).nbeta

    jax.eval_shape(temperature, problem.params, problem.data)


def measure_llc(
    key: Key,
    problem: Problem,
    restriction: Restriction | None,
    *,
    nbeta: float | None,
    gamma: float | None,
    chains: int,
    draws: int,
    burnin: int,
    batch_size: int | None,
    budget: int,
    relative_error: float,
    resolution: bool,
    keeper: RunKeeper | None = None,
) -> Reading:
    """The same numbers as ``llc``, with the verdict in words and a thinned trace for the report.

    Returns:
      ``value``, ``std_error``, ``healthy``, ``explanation``, ``step_size``, ``nbeta``, ``gamma``, ``virial``, each of
      shape ``()``; ``per_chain``, shape ``(chain,)``; ``trace``: ``nβ`` times the excess, shape ``(chain, point)``.
    """
    posterior = localise(*problem, nbeta=nbeta, gamma=gamma, restriction=restriction)
    estimate, trace, _ = measure(
        key,
        posterior,
        problem.data,
        Schedule(chains, draws, burnin, 1, batch_size),
        polishing=False,
        budget=budget,
        relative_error=relative_error,
        resolution=resolution,
        keeper=keeper,
        tick=True,
    )
    return _reading(estimate, trace, posterior)


def measure_llc_together(
    keys: Sequence[Key], problem: Problem, restrictions: Sequence[Restriction], **settings: Any
) -> list[Reading]:
    """``measure_llc`` with the same settings for restrictions of one shape, side by side as one program.

    The first block of all of them is one. A reading that is not good by then, with a budget left, is taken alone, from
    its start.

    Returns:
      Readings in the order of the restrictions.
    """
    posterior = localise(*problem, settings["nbeta"], settings["gamma"], restrictions[0])
    named = settings | {"thin": 1}
    schedule = Schedule(**{name: named[name] for name in Schedule._fields})
    shape = schedule, settings["resolution"]
    every = _side_by_side(jnp.stack(list(keys)), posterior, problem.data, stacked(restrictions), *shape)
    readings = []
    for number, (key, restriction) in enumerate(zip(keys, restrictions, strict=True)):
        estimate, trace = jax.tree.map(lambda leaf, number=number: leaf[number], every)
        unsettled = ~estimate.health.ok | too_imprecise(estimate, settings["relative_error"])
        alone = settings["budget"] > schedule.gradients and bool(unsettled)
        again = partial(measure_llc, key, problem, restriction, **settings)
        readings.append(again() if alone else _reading(estimate, trace, posterior))
    return readings


@partial(jax.jit, static_argnums=(4, 5))
def _side_by_side(
    keys: Key, posterior: LocalPosterior, data: PyTree, restrictions: Restriction, schedule: Schedule, resolution: bool
) -> tuple[Estimate, Trace]:
    def one(key: Key, restriction: Restriction) -> tuple[Estimate, Trace]:
        placed = posterior._replace(restriction=restriction)
        estimate, trace, _ = measure(key, placed, data, schedule, polishing=False, resolution=resolution)
        return estimate, trace

    return jax.vmap(one)(keys, restrictions)


def _reading(estimate: Estimate, trace: Trace, posterior: LocalPosterior) -> Reading:
    assert estimate.settings is not None
    length = trace.excess.shape[1]
    kept = np.unique(np.linspace(0, length - 1, min(length, TRACE_POINTS)).astype(int))
    return {
        "value": np.asarray(estimate.value),
        "std_error": np.asarray(estimate.std_error),
        "healthy": np.asarray(estimate.health.ok),
        "explanation": np.asarray(f"{estimate.health.explain()} Chosen: {estimate.settings.explain()}."),
        "step_size": np.asarray(estimate.settings.step_size[-1].min()),
        "nbeta": np.asarray(posterior.nbeta),
        "gamma": np.asarray(posterior.gamma),
        "virial": np.asarray(estimate.health.virial),
        "per_chain": np.asarray(estimate.per_chain),
        "trace": np.asarray(posterior.nbeta * trace.excess)[:, kept],
    }
