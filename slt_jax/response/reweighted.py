"""The response to a finite change of the data, by reweighting the draws that there are."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from slt_jax.response.covariance import batches_of
from slt_jax.types import Array, Scalar

#: Effective draws below which a reweighted mean ends at the few that are extreme.
LEAST_EFFECTIVE = 100.0


class Response(NamedTuple):
    """By how much a mean changes under a finite change of the data; every leaf has the same shape.

    Attributes:
      value: ``⟨φ⟩_h - ⟨φ⟩_0``, nats, by reweighting.
      std_error: Its Monte Carlo standard error, where enough draws are left.
      linear: ``h nβ χ``, nats: what the susceptibility says.
      effective: Effective draws that are left: those of the chains, ``(Σ w)² / (N Σ w²)`` of which the weights leave.
    """

    value: Array
    std_error: Array
    linear: Array
    effective: Array

    @property
    def ok(self) -> Array:
        """Whether enough draws are left for the value and its error, of the shape of the leaves."""
        return self.effective >= LEAST_EFFECTIVE


@jax.jit
def reweighted(energies: Array, changes: Array, strength: Scalar) -> tuple[Array, Array, Array]:
    """``⟨φ⟩_h - ⟨φ⟩_0`` with weights ``w ∝ exp(-s Δ)``, one change at a time.

    Args:
      energies: φ, shape ``(chain, draw)``.
      changes: Δ, shape ``(chain, draw, change)``, in nats.
      strength: ``s = nβ h``.

    Returns:
      Value, standard error and share of the draws that is left, each of shape ``(change,)``. The error is that of the
      ratio, to first order, from the means of batches of draws.

    Not to be believed where few draws are left: the value then ends at those that are extreme, and its error with it;
    below the rounding of φ, whatever its error.

    Source: importance weights and their effective sample: Kong, Liu & Wong 1994, doi:10.1080/01621459.1994.10476469.

    >>> energies = jnp.array([[0.0, 1.0, 0.0, 1.0]])
    >>> value, _, share = reweighted(energies, energies[..., None], jnp.log(3.0))
    >>> [round(float(number[0]), 4) for number in (value, share)]
    [-0.25, 0.8]
    """
    chains, draws = energies.shape
    apart = energies - energies[:1, :1]
    apart = apart - jnp.mean(apart)
    # chains are not centred by themselves: weights tell them apart
    exponents = -strength * (changes - changes[:1, :1])
    weights = jnp.exp(exponents - jnp.max(exponents, axis=(0, 1), keepdims=True))
    weights = weights / jnp.mean(weights, axis=(0, 1), keepdims=True)
    value = jnp.mean(weights * apart[..., None], axis=(0, 1))
    # what each draw adds to the ratio, less what it adds to the mean that it is compared with
    terms = weights * (apart[..., None] - value[None, None, :]) - apart[..., None]
    count, length = batches_of(chains, draws)
    means = jnp.mean(terms[:, draws - count * length :].reshape(chains * count, length, -1), axis=1)
    total = chains * count
    spread = jnp.sum((means - jnp.mean(means, axis=0, keepdims=True)) ** 2, axis=0)
    error = jnp.sqrt(spread / (total * (total - 1))) if total > 1 else jnp.full_like(value, math.nan)
    return value, error, 1 / jnp.mean(weights**2, axis=(0, 1))
