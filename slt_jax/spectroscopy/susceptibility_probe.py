"""The probe of susceptibility: how what is free responds when the data change towards each subloss of the subject."""

from collections.abc import Mapping

import jax
import numpy as np

from slt_jax import diagnostics, loss
from slt_jax.posterior import localise
from slt_jax.problem import Problem
from slt_jax.response import susceptibility
from slt_jax.response.chain import schedule_for
from slt_jax.restriction import Restriction, full
from slt_jax.spectroscopy.probes import Probe, Reading
from slt_jax.types import Array, Key, PyTree

#: Arrays along the observables, which are the sublosses of the subject in their order.
_ARRAYS = ("observable", "susceptibility", "susceptibility_error", "standardised", "standardised_error")
_CONTROLS = ("prior", "gaussian")
_AXIS = ("observable",)


def susceptibility_probe(
    *,
    nbeta: float | None = None,
    gamma: float | None = None,
    chains: int | None = None,
    draws: int | None = None,
    burnin: int | None = None,
    thin: int | None = None,
    batch_size: int | None = None,
    controls: bool = True,
) -> Probe:
    """χ of what is free under a change of the data towards each subloss, as a probe; settings as of ``susceptibility``.

    The observables are the sublosses of the subject, each with its own ``relabel``, whatever loss the probe is pointed
    at: they are an axis of the reading, ``observable``. A subject needs at least one.
    """
    settings = {
        "nbeta": nbeta,
        "gamma": gamma,
        "chains": chains,
        "draws": draws,
        "burnin": burnin,
        "thin": thin,
        "batch_size": batch_size,
        "controls": controls,
    }
    dims = dict.fromkeys(_ARRAYS + (_CONTROLS if controls else ()), _AXIS)
    return Probe(measure_susceptibility, settings, check_susceptibility, dims, observes=True)


def check_susceptibility(
    problem: Problem,
    *,
    nbeta: float | None,
    gamma: float | None,
    chains: int | None,
    draws: int | None,
    burnin: int | None,
    thin: int | None,
    batch_size: int | None,
    controls: bool,
) -> None:
    """Refuse settings that no checkpoint could be measured with, before anything is compiled.

    Raises:
      ValueError: naming the setting, what was got and what to do.
    """
    sizes = dict(chains=chains, draws=draws, burnin=burnin, thin=thin, batch_size=batch_size)
    schedule_for(1, loss.example_count(problem.data), None, **sizes)
    if controls and gamma is not None and not gamma > 0:
        raise ValueError(f"gamma: got {gamma}; the control at nβ = 0 needs a prior. Pass one above 0.")

    def temperature(params: PyTree, data: PyTree) -> Array:
        return localise(problem.loss_fn, params, data, nbeta, gamma).nbeta

    jax.eval_shape(temperature, problem.params, problem.data)


def measure_susceptibility(
    key: Key,
    problem: Problem,
    restriction: Restriction | None,
    *,
    observables: Mapping[str, Problem],
    nbeta: float | None,
    gamma: float | None,
    chains: int | None,
    draws: int | None,
    burnin: int | None,
    thin: int | None,
    batch_size: int | None,
    controls: bool,
) -> Reading:
    """The numbers of ``susceptibility`` for one component.

    Returns:
      ``value`` and ``std_error`` (``nβ ⟨L - L*⟩`` along the same chains), ``healthy`` (of the covariances, as for
      ``susceptibility``), ``explanation``, ``nbeta``, ``gamma``, ``ess``, each of shape ``()``; of shape
      ``(observable,)``: ``observable``, their names; ``susceptibility`` and ``susceptibility_error`` (χ, nats²);
      ``standardised`` and ``standardised_error`` (minus the correlation); and of the controls ``prior`` and
      ``gaussian``, both standardised.

    Not to be believed as a learning coefficient: ``value`` is one where the centre is a minimum and γ holds nothing
    down, which the verdict, that of a covariance, does not ask. The probe ``llc`` does.
    """
    component = {"free": full(problem.params) if restriction is None else restriction}
    others = {name: (one.loss_fn, one.data) for name, one in observables.items()}
    found = susceptibility(
        key,
        *problem,
        component,
        others,
        nbeta=nbeta,
        gamma=gamma,
        chains=chains,
        draws=draws,
        burnin=burnin,
        thin=thin,
        batch_size=batch_size,
        controls=controls,
    )
    excess = found.nbeta * found.energies[0]
    healthy = bool(found.ok[0])
    told = found.explain().splitlines()[1].removeprefix("free: ")
    reading = {
        "value": np.asarray(excess.mean()),
        "std_error": np.asarray(diagnostics.mcse(excess)),
        "healthy": np.asarray(healthy),
        "explanation": np.asarray(f"{'healthy' if healthy else 'UNHEALTHY'}: χ in nats²: {told}"),
        "nbeta": np.asarray(found.nbeta),
        "gamma": np.asarray(localise(*problem, nbeta=nbeta, gamma=gamma, restriction=restriction).gamma),
        "ess": np.asarray(found.ess[0]),
        "observable": np.array(found.observables),
        "susceptibility": np.asarray(found.value[0]),
        "susceptibility_error": np.asarray(found.std_error[0]),
        "standardised": np.asarray(found.standardised[0]),
        "standardised_error": np.asarray(found.posterior.correlation_error[0]),
    }
    for name in _CONTROLS if controls else ():
        reading[name] = -np.asarray(getattr(found, name).correlation[0])
    return reading
