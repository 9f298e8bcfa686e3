"""The probe of curvature: the spectrum of the Hessian at a checkpoint, and the part of λ that it explains."""

import jax
import numpy as np

from slt_jax.estimators import hessian_spectrum
from slt_jax.posterior import localise
from slt_jax.problem import Problem
from slt_jax.restriction import Restriction
from slt_jax.spectroscopy.probes import Probe, Reading
from slt_jax.types import Array, Key, PyTree


def hessian_probe(*, nbeta: float | None = None, gamma: float | None = None, probes: int = 8, steps: int = 64) -> Probe:
    """The regular part of λ at the temperature of ``llc``, as a probe; the settings are those of ``hessian_spectrum``.

    What a reading of ``llc`` in the same place has beyond it is what the quadratic approximation does not see.
    """
    settings = {"nbeta": nbeta, "gamma": gamma, "probes": probes, "steps": steps}
    dims = {"nodes": ("probe", "node"), "weights": ("probe", "node")}
    return Probe(measure_hessian, settings, check_hessian, dims)


def check_hessian(problem: Problem, *, nbeta: float | None, gamma: float | None, probes: int, steps: int) -> None:
    """Refuse settings that no checkpoint could be measured with, before anything is compiled.

    Raises:
      ValueError: naming the setting, what was got and what to do.
    """
    for name, value in (("probes", probes), ("steps", steps)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 2:
            raise ValueError(f"{name}: got {value!r}; it must be an integer of at least 2.")

    def temperature(params: PyTree, data: PyTree) -> Array:
        return localise(problem.loss_fn, params, data, nbeta, gamma).nbeta

    jax.eval_shape(temperature, problem.params, problem.data)


def measure_hessian(
    key: Key,
    problem: Problem,
    restriction: Restriction | None,
    *,
    nbeta: float | None,
    gamma: float | None,
    probes: int,
    steps: int,
) -> Reading:
    """The numbers of ``hessian_spectrum`` and of its regular part.

    Returns:
      ``value`` and ``std_error`` (``λ_reg``), ``healthy``, ``explanation``, ``nbeta``, ``gamma``, ``negative`` (how
      many directions curve downwards), ``unresolved`` (what directions flat to rounding could add to λ), each of shape
      ``()``; ``nodes`` (curvatures in nats per squared unit of ``z``) and their ``weights``, shape ``(probe, node)``.

    Raises:
      ValueError: the curvature is not finite.
    """
    posterior = localise(*problem, nbeta=nbeta, gamma=gamma, restriction=restriction)
    spectrum = hessian_spectrum(key, *problem, restriction=restriction, probes=probes, steps=steps)
    regular = spectrum.regular(posterior.nbeta, posterior.gamma)
    healthy = bool(regular.ok)
    told = regular.explain()
    return {
        "value": np.asarray(regular.value),
        "std_error": np.asarray(regular.std_error),
        "healthy": np.asarray(healthy),
        "explanation": np.asarray(f"healthy: {told}" if healthy else f"UNHEALTHY: {told}"),
        "nbeta": np.asarray(posterior.nbeta),
        "gamma": np.asarray(posterior.gamma),
        "negative": np.asarray(regular.negative),
        "unresolved": np.asarray(regular.unresolved),
        "nodes": np.asarray(spectrum.nodes),
        "weights": np.asarray(spectrum.weights),
    }
