"""The probe of contact: how much of λ each group of parameters has, from a ladder of temperatures."""

import numpy as np

from slt_jax.problem import Problem
from slt_jax.restriction import Restriction
from slt_jax.spectroscopy.flow_probe import check_flow, flow_at
from slt_jax.spectroscopy.probes import Probe, Reading
from slt_jax.types import Key

_ARRAYS = {
    "nbetas": ("rung",),
    "lambda_eff": ("rung",),
    "contact": ("rung", "group"),
    "contact_error": ("rung", "group"),
}


def contact_probe(
    *,
    nbeta: float | None = None,
    gamma: float | None = None,
    rungs: int = 5,
    chains: int = 8,
    draws: int = 300,
    leapfrogs: int = 12,
) -> Probe:
    """The contact exponents of each entry, or of each leaf where more than 64 are free, as a probe.

    ``e_i = nβ Cov(log |z_i|, K)``; their sum is λ where the coordinates are adapted to the singularity, and of no
    meaning where they are not: set the reading's own value, the sum on the coldest rung, beside ``lambda_eff``.

    Args:
      nbeta: The coldest ``nβ``; default ``n / log n``.
      gamma: γ, one for all rungs; default ``1e-4 nbeta``.
      rungs: How many temperatures, each twice as hot as the next.
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
    return Probe(measure_contact, settings, check_flow, _ARRAYS)


def measure_contact(
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
    """The contact exponents of ``flow``, from cold to hot.

    Returns:
      ``value`` and ``std_error`` (``Σ e_i`` on the coldest rung), ``healthy``, ``explanation``, ``nbeta``, ``gamma``,
      each of shape ``()``; ``nbetas`` and ``lambda_eff``, shape ``(rung,)``; ``contact`` and ``contact_error``, shape
      ``(rung, group)``, the groups in the order in which the explanation names them. Healthy where the coldest rung is.
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
    total, error = float(measured.contact_sum[0]), float(measured.contact_sum_error[0])
    healthy, value = bool(measured.ok[0]), float(measured.value[0])
    told = (
        f"contact exponents of {', '.join(measured.groups)} add up to {total:.4g} ± {error:.2g}, λ_eff is {value:.4g}."
    )
    verdict = "healthy" if healthy else f"UNHEALTHY: {measured.explain().splitlines()[0]}"
    return {
        "value": np.asarray(measured.contact_sum)[0],
        "std_error": np.asarray(measured.contact_sum_error)[0],
        "healthy": np.asarray(healthy),
        "explanation": np.asarray(f"{verdict}: {told}"),
        "nbeta": np.asarray(posterior.nbeta),
        "gamma": np.asarray(posterior.gamma),
        "nbetas": np.asarray(measured.nbetas),
        "lambda_eff": np.asarray(measured.value),
        "contact": np.asarray(measured.contact),
        "contact_error": np.asarray(measured.contact_error),
    }
