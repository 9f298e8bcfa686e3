"""The stochastic gradient Nosé-Hoover thermostat: a friction that adapts until the kinetic temperature is 1."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax import tree
from slt_jax.noise import normal
from slt_jax.posterior import Batch, LocalPosterior, evaluate, force, pair
from slt_jax.samplers.base import Info, Sampler, report
from slt_jax.types import Array, Key, PyTree, Scalar


class ThermostatState(NamedTuple):
    """The current ``z``, the velocity before the kick at ``z``, a tree like ``z``, and the friction a step."""

    position: PyTree
    velocity: PyTree
    friction: Array


def sgnht(step_size: Scalar, *, diffusion: Scalar = 0.1, response: Scalar = 0.01) -> Sampler:
    """Langevin dynamics of fixed noise ``√(2D)`` a step whose friction ``f`` follows ``Δf = r (|v|²/d - 1)``.

    A step is B A D O D A (one of the cyclic orders of the BADODAB splitting): the kick ``v -= h ∇U(z)``; half of the
    move ``z += (h/2) v``; half of the change of friction ``f += (r/2) (|v|²/d - 1)``; the exact friction and noise
    ``v = e^{-f} v + √(D (1 - e^{-2f}) / f) ξ``, for f of either sign; and the two halves again. Noise that batches add
    to the kicks warms the velocities, the friction rises until ``|v|²/d`` is 1 again on average, and with the same
    noise in all directions the law of ``z`` is restored. On all of the data f wanders around D with variance
    ``r/d``; at ``r = 0`` this is ``underdamped`` with friction D, draw by draw.

    Args:
      step_size: h, in units of the parameters (velocities have variance 1); a mode of force constant ``a`` needs
        ``h √a < 2``.
      diffusion: D, half of the variance of the noise that a step adds to the velocity; the friction starts there.
      response: r, how fast the friction follows the temperature: it adapts within about ``D/r`` steps. The default
        is the default of D squared: friction and velocity then forget at the same rate.

    Returns:
      A sampler that costs one gradient a step and keeps two copies of ``z``.

    Not to be believed on minibatches whose noise differs between directions: there is one thermostat, and it cools
    stiff and soft modes alike, so that those with more noise than the average stay too hot and the others become too
    cold; what is left of the heat is not measured (``overdamped`` is NaN). Nor where ``h √a`` comes near 2; the bias
    in h is of second order, and on a quadratic small, but not 0.

    Sources: Ding et al. 2014, "Bayesian sampling using stochastic gradient thermostats" (NeurIPS 27);
    Leimkuhler & Shang 2016, arXiv:1505.06889 (the splitting).

    >>> sgnht(1e-2, diffusion=0.03).step.args
    (0.01, 0.03, 0.01)
    """
    return Sampler(Partial(_init, diffusion), Partial(_step, step_size, diffusion, response))


def _init(diffusion: Scalar, key: Key, posterior: LocalPosterior, data: PyTree) -> ThermostatState:
    del data
    origin = posterior.restriction.origin(posterior.center)
    velocity = normal(key, origin)
    return ThermostatState(origin, velocity, jnp.asarray(diffusion, tree.norm_squared(velocity).dtype))


def _step(
    step_size: Scalar,
    diffusion: Scalar,
    response: Scalar,
    key: Key,
    state: ThermostatState,
    posterior: LocalPosterior,
    batch: Batch | PyTree,
) -> tuple[ThermostatState, Info]:
    evaluation = evaluate(posterior, state.position, pair(posterior, batch))
    drift = force(posterior, state.position, evaluation.gradient)
    kicked = tree.combine(lambda v, f: v - step_size * f, state.velocity, drift)
    friction = _respond(0.5 * response, state.friction, kicked)
    kept, fresh = jnp.exp(-friction), jnp.sqrt(diffusion * _decay_rate(friction))
    velocity = tree.combine(lambda v, xi: kept * v + fresh * xi, kicked, normal(key, state.position))
    friction = _respond(0.5 * response, friction, velocity)
    position = tree.combine(lambda z, v, w: z + 0.5 * step_size * (v + w), state.position, kicked, velocity)
    return ThermostatState(position, velocity, friction), report(state.position, evaluation, drift)


def _respond(response: Scalar, friction: Array, velocity: PyTree) -> Array:
    temperature = tree.norm_squared(velocity) / tree.size(velocity)
    return (friction + response * (temperature - 1)).astype(friction.dtype)


def _decay_rate(friction: Array) -> Array:
    """``(1 - e^{-2f}) / f``, which is 2 at ``f = 0`` and positive on both sides of it."""
    small = jnp.abs(friction) < 1e-4
    return jnp.where(small, 2 - 2 * friction, -jnp.expm1(-2 * friction) / jnp.where(small, 1.0, friction))
