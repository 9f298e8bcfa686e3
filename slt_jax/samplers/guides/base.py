"""What a guide is, and the map that makes a posterior round before a guide is fitted to it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax import tree
from slt_jax.posterior import Batch, LocalPosterior, dimension, excess
from slt_jax.types import Array, PyTree


class Guide(NamedTuple):
    """A family of laws ``q`` of the flat ``z`` as pure functions; a tree, so that it can be an argument under jit.

    Attributes:
      init: ``init(key, posterior, batch) -> (free, fixed)``: what the descent moves, a tree of arrays whose natural
        unit is 1, and what it leaves alone.
      draw: ``draw(free, fixed, key, posterior, batch) -> (z, log q(z))``, ``z`` of shape ``(d,)``, nats; differentiable
        in ``free``. The temperature may be any: a guide follows ``posterior.nbeta``.
      log_density: ``log_density(free, fixed, z, posterior, batch) -> log q(z)``, shape ``()``. None where it would cost
        much more than a draw: then the descent differentiates the draw's own.
      ratios: ``ratios(free, fixed, key, posterior, batch) -> (ratios, shares)``, what a generalised-gamma base says of
        λ; None for other guides.
    """

    init: Partial
    draw: Partial
    log_density: Partial | None = None
    ratios: Partial | None = None


class Whitening(NamedTuple):
    """``z = Q diag(1/√(nβ |h| + γ)) y``, at any temperature.

    Attributes:
      curvatures: ``h``, nats per squared unit of ``z``, shape ``(d,)``.
      basis: ``Q``, orthonormal, shape ``(d, d)``; ``()`` where the coordinates are the directions.
    """

    curvatures: Array
    basis: Array | tuple = ()


def unflatten(flat: Array, posterior: LocalPosterior) -> PyTree:
    """A flat ``z``, shape ``(d,)``, in the shapes and dtypes of the free directions."""
    return tree.unflatten(flat, jax.eval_shape(posterior.restriction.origin, posterior.center))


def excess_at(flat: Array, posterior: LocalPosterior, batch: Batch) -> Array:
    """``K = L(w) - L(w*)`` at a flat ``z``, nats, shape ``()``, in the dtype of the temperature."""
    return excess(posterior, unflatten(flat, posterior), batch).astype(posterior.nbeta.dtype)


def potential(flat: Array, posterior: LocalPosterior, batch: Batch) -> Array:
    """``nβ K(z) - log φ(z)``, φ the normalised prior ``N(0, 1/γ)`` of the free directions; nats, shape ``()``."""
    prior = 0.5 * posterior.gamma * jnp.sum(flat**2) - 0.5 * flat.size * jnp.log(posterior.gamma / (2 * jnp.pi))
    return posterior.nbeta * excess_at(flat, posterior, batch) + prior


def zeros(posterior: LocalPosterior) -> Array:
    """The centre as a flat ``z``, in the dtype of the temperature."""
    return jnp.zeros(dimension(posterior), posterior.nbeta.dtype)


def diagonal_whitening(posterior: LocalPosterior, batch: Batch) -> Whitening:
    """Each coordinate by its own curvature at the centre: ``d`` products with the Hessian, one after the other."""
    slope = jax.grad(lambda z: excess_at(z, posterior, batch))
    origin = zeros(posterior)

    def curvature(index: Array) -> Array:
        direction = jnp.zeros_like(origin).at[index].set(1.0)
        return jax.jvp(slope, (origin,), (direction,))[1][index]

    return Whitening(jax.lax.map(curvature, jnp.arange(origin.size)))


def dense_whitening(posterior: LocalPosterior, batch: Batch) -> Whitening:
    """All directions by the eigenvalues of the Hessian at the centre, of which there are ``d²`` entries."""
    hessian = jax.hessian(lambda z: excess_at(z, posterior, batch))(zeros(posterior))
    return Whitening(*jnp.linalg.eigh(hessian))


def whiten(whitening: Whitening, posterior: LocalPosterior, y: Array) -> tuple[Array, Array]:
    """``z`` and ``log |dz/dy|`` of a round ``y``."""
    precision = posterior.nbeta * jnp.abs(whitening.curvatures) + posterior.gamma
    scaled = y / jnp.sqrt(precision)
    z = scaled if isinstance(whitening.basis, tuple) else whitening.basis @ scaled
    return z, -0.5 * jnp.sum(jnp.log(precision))


def unwhiten(whitening: Whitening, posterior: LocalPosterior, z: Array) -> tuple[Array, Array]:
    """The round ``y`` of a ``z``, and ``log |dz/dy|``."""
    precision = posterior.nbeta * jnp.abs(whitening.curvatures) + posterior.gamma
    turned = z if isinstance(whitening.basis, tuple) else whitening.basis.T @ z
    return turned * jnp.sqrt(precision), -0.5 * jnp.sum(jnp.log(precision))
