"""The probe of volumes: the density of states at a checkpoint, its exponent and its multiplicity."""

import numpy as np

from slt_jax.estimators import check_budget
from slt_jax.ladder import DensityOfStates, density_of_states
from slt_jax.ladder.measure import check_size
from slt_jax.posterior import localise
from slt_jax.problem import Problem
from slt_jax.restriction import Restriction
from slt_jax.spectroscopy.flow_probe import check_posterior
from slt_jax.spectroscopy.probes import Probe, Reading
from slt_jax.types import Key

_DOS_ARRAYS = ("log_epsilon", "log_volume", "log_volume_error", "conductance", "conductance_error")


def dos_probe(
    *,
    gamma: float | None = None,
    depth: float = 1e-6,
    chains: int | None = None,
    draws: int = 300,
    leapfrogs: int | None = None,
    budget: int = 1_000_000,
    relative_error: float = 0.02,
) -> Probe:
    """The density of states, as a probe; the settings are those of ``density_of_states``, and less is drawn.

    It chooses its own temperatures, and a new number of them is compiled anew: many times the price of ``flow``.
    """
    settings = {
        "gamma": gamma,
        "depth": depth,
        "chains": chains,
        "draws": draws,
        "leapfrogs": leapfrogs,
        "budget": budget,
        "relative_error": relative_error,
    }
    dims = {**dict.fromkeys(_DOS_ARRAYS, ("point",)), "multiplicity_weights": ("m",)}
    return Probe(measure_dos, settings, check_dos, dims)


def check_dos(
    problem: Problem,
    *,
    gamma: float | None,
    depth: float,
    chains: int | None,
    draws: int,
    leapfrogs: int | None,
    budget: int,
    relative_error: float,
) -> None:
    """Refuse settings that no checkpoint could be measured with, before anything is compiled.

    Raises:
      ValueError: naming the setting, what was got and what to do.
    """
    check_size(chains=chains, draws=draws, leapfrogs=leapfrogs)
    check_budget(budget, relative_error)
    if not 0 < depth < np.inf:
        raise ValueError(f"depth: got {depth!r}; pass the smallest ε in nats, a positive number.")
    if gamma == 0:
        raise ValueError("gamma: got 0, but the volume is measured by the prior N(0, 1/γ); pass a positive one.")
    check_posterior(problem, None, gamma)


def measure_dos(
    key: Key,
    problem: Problem,
    restriction: Restriction | None,
    *,
    gamma: float | None,
    depth: float,
    chains: int | None,
    draws: int,
    leapfrogs: int | None,
    budget: int,
    relative_error: float,
) -> Reading:
    """The numbers of ``density_of_states``, from the smallest ε on.

    Returns:
      ``value`` and ``std_error`` (the exponent λ), ``healthy``, ``explanation``, ``gamma``, ``multiplicity`` (0 where
      it is unresolved), ``contact_ratio``, ``contact_ratio_error``, ``depth`` (the smallest ε reached, nats), each of
      shape ``()``; ``log_epsilon``, ``log_volume``, ``conductance`` and their ``_error``, shape ``(point,)``;
      ``multiplicity_weights`` of ``m = 1, 2, 3, 4``, shape ``(m,)``.

    Raises:
      ValueError: as ``density_of_states``: no draw lies above the centre.
    """
    found = density_of_states(
        key,
        *problem,
        depth=depth,
        gamma=gamma,
        restriction=restriction,
        chains=chains,
        draws=draws,
        leapfrogs=leapfrogs,
        budget=budget,
        relative_error=relative_error,
    )
    healthy = found.ok and bool(np.isfinite(found.exponent.learning_coefficient))
    return {
        "value": np.asarray(found.exponent.learning_coefficient),
        "std_error": np.asarray(found.exponent.std_error),
        "healthy": np.asarray(healthy),
        "explanation": np.asarray(_dos_verdict(found, healthy)),
        "gamma": np.asarray(localise(*problem, gamma=gamma).gamma),
        "multiplicity": np.asarray(float(found.exponent.multiplicity or 0)),
        "multiplicity_weights": np.asarray(found.exponent.weights),
        "contact_ratio": np.asarray(found.contact_ratio),
        "contact_ratio_error": np.asarray(found.contact_ratio_error),
        "depth": np.asarray(found.depth),
        "log_epsilon": found.log_epsilon,
        "log_volume": found.log_volume,
        "log_volume_error": found.log_volume_error,
        "conductance": found.conductance,
        "conductance_error": found.conductance_error,
    }


def _dos_verdict(found: DensityOfStates, healthy: bool) -> str:
    told = found.explain().replace("UNHEALTHY: ", "")
    return f"{'healthy' if healthy else 'UNHEALTHY'}: {told}"
