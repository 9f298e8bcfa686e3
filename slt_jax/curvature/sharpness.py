"""The largest curvature of the loss where a chain will go, and the one rule that turns it into a step size."""

import jax
import jax.numpy as jnp

from slt_jax import posterior as posteriors
from slt_jax import tree
from slt_jax.noise import normal
from slt_jax.posterior import Batch, LocalPosterior
from slt_jax.types import Array, Key, PyTree, Scalar

#: Step size in units of the inverse of the largest force constant: far enough below the bound of stability (4) that
#: the curvature may rise fourfold along the way, large enough to cross the flat directions.
STEP_FRACTION = 1.0
#: The same for samplers with momentum, in units of the inverse of the largest frequency (stable below 2).
INERTIAL_FRACTION = 0.3
_BISECTIONS = 24


def sharpness(key: Key, posterior: LocalPosterior, batch: Batch, points: PyTree, *, iterations: int = 16) -> Array:
    """Largest absolute eigenvalue of the Hessian of the loss in ``z``, over a set of points.

    Power iteration on Hessian-vector products, ``iterations`` of them at each point.

    Args:
      key: A typed key.
      posterior: Gives the loss and the free directions.
      batch: The examples on which to measure.
      points: Values of ``z``, stacked along a leading axis.
      iterations: Power iterations at each point.

    Returns:
      Shape ``()``, in nats per squared unit of the parameters; infinite where a point or its curvature is not finite.

    Not to be believed as a bound: power iteration approaches the largest eigenvalue from below.

    Source: power iteration (von Mises & Pollaczek-Geiringer 1929).

    >>> from slt_jax.posterior import full_batch, localise
    >>> data = jnp.zeros((100, 0))
    >>> posterior = localise(lambda w, _: 1.5 * jnp.sum(w**2), jnp.zeros(4), data)
    >>> round(float(sharpness(jax.random.key(0), posterior, full_batch(posterior, data), jnp.zeros((1, 4)))), 4)
    3.0
    """
    return jnp.max(curvatures(key, posterior, batch, points, iterations=iterations))


def curvatures(key: Key, posterior: LocalPosterior, batch: Batch, points: PyTree, *, iterations: int = 16) -> Array:
    """``sharpness`` at each of a set of points, shape ``(point,)``; infinite where it is not finite.

    >>> from slt_jax.posterior import full_batch, localise
    >>> data = jnp.zeros((100, 0))
    >>> posterior = localise(lambda w, _: w**4 / 12, jnp.float32(0.0), data)
    >>> points = jnp.array([1.0, 3.0])
    >>> [round(float(h), 3) for h in curvatures(jax.random.key(0), posterior, full_batch(posterior, data), points)]
    [1.0, 9.0]
    """
    keys = jax.random.split(key, jax.tree.leaves(points)[0].shape[0])
    # one after the other: a product with the Hessian takes several copies of the parameters
    values = jax.lax.map(lambda at: _power_iteration(at[0], at[1], posterior, batch, iterations), (keys, points))
    return jnp.where(jnp.isfinite(values), values, jnp.inf)


def typical_points(key: Key, posterior: LocalPosterior, batch: Batch, count: int) -> PyTree:
    """Points in random directions at the distance where ``nβ |K| + γ/2 |z|²`` has its equipartition value ``d/2``.

    The centre alone can mislead: where the truth has rank 0, or the loss is a monomial, its Hessian is exactly 0.

    Args:
      key: A typed key.
      posterior: Gives ``nβ``, γ and the free directions.
      batch: The examples on which the loss is measured.
      count: Number of points.

    Returns:
      Values of ``z``, stacked along a leading axis of length ``count``.

    Not to be believed as draws from the posterior: they hardly move along flat directions.
    """
    return jax.vmap(lambda k: _typical_point(k, posterior, batch))(jax.random.split(key, count))


def langevin_step_size(posterior: LocalPosterior, curvature: Scalar, fraction: Scalar = STEP_FRACTION) -> Array:
    """The step of overdamped Langevin dynamics: ``ε = fraction / (nβ h_max + γ)``.

    Args:
      posterior: Gives ``nβ`` and γ.
      curvature: ``h_max``, the largest curvature met, nats per squared unit of the parameters.
      fraction: Step in units of the inverse of the largest force constant; unstable from 4 on.

    Returns:
      ε, shape ``()``, in squared units of the parameters.

    Source: the stability bound ``ε (nβ h + γ) < 4`` of the Euler scheme on a quadratic.
    """
    return fraction / (posterior.nbeta * curvature + posterior.gamma)


def inertial_step_size(posterior: LocalPosterior, curvature: Scalar, fraction: Scalar = INERTIAL_FRACTION) -> Array:
    """The step of samplers with momentum: ``h = fraction / √(nβ h_max + γ)``.

    Args:
      posterior: Gives ``nβ`` and γ.
      curvature: ``h_max``, the largest curvature met, nats per squared unit of the parameters.
      fraction: Step in units of the inverse of the largest frequency; unstable from 2 on.

    Returns:
      h, shape ``()``, in units of the parameters (velocities have variance 1).

    Source: the stability bound ``h √(nβ h + γ) < 2`` of the leapfrog on a quadratic.
    """
    return fraction / jnp.sqrt(posterior.nbeta * curvature + posterior.gamma)


def _typical_point(key: Key, posterior: LocalPosterior, batch: Batch) -> PyTree:
    """A point in a random direction whose potential is ``d/2``, found by bisection in the logarithm of the distance."""
    origin = posterior.restriction.origin(posterior.center)
    direction = normal(key, origin)
    level = 0.5 * tree.size(origin)
    squared = tree.norm_squared(direction)

    def potential(log_radius: Array) -> Array:
        z = tree.scale(jnp.exp(log_radius), direction)
        excess = posteriors.excess(posterior, z, batch)
        return posterior.nbeta * jnp.abs(excess) + 0.5 * posterior.gamma * jnp.exp(2 * log_radius) * squared

    def halve(_: int, interval: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = interval
        middle = 0.5 * (low + high)
        # a potential that is not finite counts as too far
        inside = potential(middle) < level
        return jnp.where(inside, middle, low), jnp.where(inside, high, middle)

    farthest = 0.5 * jnp.log(2 * level / (jnp.maximum(posterior.gamma, 1e-6) * squared))
    low, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, (farthest - 16.0, farthest))
    return tree.scale(jnp.exp(low), direction)


def _power_iteration(key: Key, z: PyTree, posterior: LocalPosterior, batch: Batch, iterations: int) -> Array:
    def gradient(position: PyTree) -> PyTree:
        return jax.grad(lambda point: posteriors.excess(posterior, point, batch))(position)

    def multiply(_: int, carry: tuple[PyTree, Array]) -> tuple[PyTree, Array]:
        image = jax.jvp(gradient, (z,), (carry[0],))[1]
        norm = jnp.sqrt(tree.norm_squared(image))
        # the loss, and with it nβ, may be wider or narrower than the parameters
        return tree.scale(1 / jnp.where(norm > 0, norm, 1.0), image), norm.astype(posterior.nbeta.dtype)

    start = normal(key, z)
    start = tree.scale(1 / jnp.sqrt(tree.norm_squared(start)), start)
    return jax.lax.fori_loop(0, iterations, multiply, (start, jnp.zeros((), posterior.nbeta.dtype)))[1]
