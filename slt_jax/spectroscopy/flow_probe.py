"""The probe of many temperatures: the flow of the learning coefficient at a checkpoint."""

from typing import Any

import jax
import numpy as np

from slt_jax.ladder import Flow, flow, plateaus
from slt_jax.ladder.measure import check_size
from slt_jax.posterior import LocalPosterior, localise
from slt_jax.problem import Problem
from slt_jax.restriction import Restriction
from slt_jax.spectroscopy.probes import Probe, Reading
from slt_jax.types import Array, Key, PyTree

#: Axes of the arrays of a reading, beyond those of the table that it stands in.
_FLOW_ARRAYS = (
    "nbetas",
    "lambda_eff",
    "lambda_eff_error",
    "heat_capacity",
    "heat_capacity_error",
    "velocity",
    "velocity_error",
    "contact_sum",
    "contact_sum_error",
    "swap_rate",
    "usable",
    "ok",
    "plateau",
)


def flow_probe(
    *,
    nbeta: float | None = None,
    gamma: float | None = None,
    rungs: int = 9,
    chains: int = 8,
    draws: int = 300,
    leapfrogs: int = 12,
) -> Probe:
    """λ_eff over a ladder of temperatures, as a probe: from the ``nβ`` of ``llc`` upwards by factors of two.

    The reading's own value is λ_eff on the coldest rung, where it answers the question of ``llc``. Less is drawn than
    by ``flow`` itself: one of many readings takes about twenty times the gradients of one of ``llc``.

    Args:
      nbeta: The coldest ``nβ``; default ``n / log n``.
      gamma: γ, one for all rungs; default ``1e-4 nbeta``.
      rungs: How many temperatures.
      chains, draws, leapfrogs: As for ``flow``; the length is fixed.
    """
    settings = {
        "nbeta": nbeta,
        "gamma": gamma,
        "rungs": rungs,
        "chains": chains,
        "draws": draws,
        "leapfrogs": leapfrogs,
    }
    return Probe(measure_flow, settings, check_flow, dict.fromkeys(_FLOW_ARRAYS, ("rung",)))


def check_flow(
    problem: Problem,
    *,
    nbeta: float | None,
    gamma: float | None,
    rungs: int,
    chains: int,
    draws: int,
    leapfrogs: int,
) -> None:
    """Refuse settings that no checkpoint could be measured with, before anything is compiled.

    Raises:
      ValueError: naming the setting, what was got and what to do.
    """
    if isinstance(rungs, bool) or not isinstance(rungs, int) or not 1 <= rungs <= 40:
        raise ValueError(f"rungs: got {rungs!r}; it must be an integer from 1 to 40.")
    check_size(chains=chains, draws=draws, leapfrogs=leapfrogs)
    check_posterior(problem, nbeta, gamma)


def flow_at(
    key: Key,
    problem: Problem,
    restriction: Restriction | None,
    *,
    nbeta: float | None,
    gamma: float | None,
    rungs: int,
    **size: int,
) -> tuple[LocalPosterior, Flow]:
    """The flow that a probe reads, from the ``nβ`` asked for upwards by factors of two, and the posterior there."""
    posterior = localise(*problem, nbeta=nbeta, gamma=gamma, restriction=restriction)
    nbetas = np.float64(posterior.nbeta) * 2.0 ** -np.arange(rungs)
    settings: dict[str, Any] = {"nbetas": nbetas, "gamma": posterior.gamma, "restriction": restriction, **size}
    return posterior, flow(key, *problem, **settings)


def measure_flow(
    key: Key,
    problem: Problem,
    restriction: Restriction | None,
    *,
    nbeta: float | None,
    gamma: float | None,
    rungs: int,
    chains: int,
    draws: int,
    leapfrogs: int,
) -> Reading:
    """The numbers of ``flow``, from cold to hot.

    Returns:
      ``value`` and ``std_error`` (λ_eff on the coldest rung), ``healthy``, ``explanation``, ``nbeta``, ``gamma``, each
      of shape ``()``; of shape ``(rung,)``: ``nbetas``, ``lambda_eff``, ``heat_capacity``, ``velocity`` and
      ``contact_sum``, each with its ``_error``; ``swap_rate``, ``usable`` and ``ok`` as in ``Flow``, and ``plateau``:
      λ of the plateau of two rungs or more that a rung belongs to, else NaN. Healthy where the coldest rung is usable
      and all usable rungs are healthy: a rung too hot for γ is no fault of the reading.
    """
    posterior, measured = flow_at(
        key,
        problem,
        restriction,
        nbeta=nbeta,
        gamma=gamma,
        rungs=rungs,
        chains=chains,
        draws=draws,
        leapfrogs=leapfrogs,
    )
    usable, good = np.asarray(measured.usable), np.asarray(measured.ok)
    stays, told = _plateaus(measured)
    healthy = bool(usable[0] and good[usable].all())
    return {
        "value": np.asarray(measured.value)[0],
        "std_error": np.asarray(measured.std_error)[0],
        "healthy": np.asarray(healthy),
        "explanation": np.asarray(f"{_flow_verdict(measured)} {told}"),
        "nbeta": np.asarray(posterior.nbeta),
        "gamma": np.asarray(posterior.gamma),
        "nbetas": np.asarray(measured.nbetas),
        "lambda_eff": np.asarray(measured.value),
        "lambda_eff_error": np.asarray(measured.std_error),
        "heat_capacity": np.asarray(measured.heat_capacity),
        "heat_capacity_error": np.asarray(measured.heat_error),
        "velocity": np.asarray(measured.velocity),
        "velocity_error": np.asarray(measured.velocity_error),
        "contact_sum": np.asarray(measured.contact_sum),
        "contact_sum_error": np.asarray(measured.contact_sum_error),
        "swap_rate": np.asarray(measured.swap_rate),
        "usable": usable,
        "ok": good,
        "plateau": stays,
    }


def check_posterior(problem: Problem, nbeta: float | None, gamma: float | None) -> None:
    """Refuse a temperature or a γ out of range, and a loss that breaks its contract, computing nothing."""

    def temperature(params: PyTree, data: PyTree) -> Array:
        return localise(problem.loss_fn, params, data, nbeta, gamma).nbeta

    jax.eval_shape(temperature, problem.params, problem.data)


def _plateaus(measured: Flow) -> tuple[np.ndarray, str]:
    """λ of the plateau of each rung, NaN where it moves, and the plateaus in words."""
    nbetas = np.asarray(measured.nbetas, np.float64)
    stays = np.full(nbetas.shape, np.nan)
    if np.asarray(measured.usable).sum() < 2:
        return stays, "Too few usable rungs to look for plateaus in."
    course = plateaus(measured)
    for one in course.plateaus:
        at = (nbetas > 0.999 * one.hottest) & (nbetas < 1.001 * one.coldest)
        if at.sum() > 1:
            stays[at] = one.value
    return stays, course.explain()


def _flow_verdict(measured: Flow) -> str:
    usable = np.asarray(measured.usable)
    wrong = [rung for rung in range(len(usable)) if usable[rung] and not measured.health.ok[rung]]
    said = []
    if not usable[0]:
        said.append("the coldest rung is too hot for gamma: raise nbeta or gamma.")
    for rung in wrong:
        health = jax.tree.map(lambda leaf, rung=rung: leaf[rung], measured.health)
        said.append(f"at nβ {float(measured.nbetas[rung]):.3g}: {health.explain().removeprefix('UNHEALTHY: ')}")
    hot = int((~usable).sum())
    left_out = f" {hot} hotter ones are left out." if hot else ""
    count = f"{int(usable.sum()) - len(wrong)} of {len(usable)} temperatures are usable and healthy.{left_out}"
    return f"UNHEALTHY: {' '.join(said)} {count}" if said else f"healthy: {count}"
