"""Which dynamics a run has that chooses for itself, and how large its step is."""

import jax.numpy as jnp

from slt_jax import loss
from slt_jax.curvature import INERTIAL_FRACTION, STEP_FRACTION, inertial_step_size, langevin_step_size
from slt_jax.posterior import Batch, LocalPosterior, full_batch, minibatch
from slt_jax.samplers import Sampler, sgld, underdamped
from slt_jax.sampling import batch_index
from slt_jax.types import Array, Key, PyTree, Scalar

#: What the noise of minibatches may add to λ̂, as a share of it; the step is made small enough for it.
HEATING = 0.01
#: Examples on which curvature is measured when there are more.
CURVATURE_EXAMPLES = 4096


def sampler_for(posterior: LocalPosterior, step_size: Scalar, friction: Scalar, batch_size: int | None) -> Sampler:
    """Momentum on all of the data, none on minibatches: they would heat it more.

    Args:
      posterior: Gives the precision.
      step_size: h on all of the data, ε on minibatches.
      friction: The least share of the velocity lost in a step, ``h √γ`` where that is more; of no effect on
        minibatches.
      batch_size: Examples of a step; None for all of the data.

    Returns:
      ``underdamped`` or ``sgld``.
    """
    dtype = posterior.nbeta.dtype
    step_size = jnp.asarray(step_size, dtype)
    if batch_size is not None:
        return sgld(step_size)
    lost = friction_at(posterior.gamma, step_size, jnp.asarray(friction, dtype))
    return underdamped(step_size, friction=lost.astype(dtype))


def friction_at(gamma: Array, step_size: Array, least: Array) -> Array:
    """``max(least, h √γ)``: what is lost of the velocity in a step where γ lets no mode be slow.

    Energy is forgotten in ``1 / friction`` steps until friction itself slows the slowest mode, at twice its frequency;
    γ bounds that frequency from below wherever the loss is convex.

    >>> round(float(friction_at(jnp.array(100.0), jnp.array(0.02), jnp.array(0.03))), 3)
    0.2
    """
    return jnp.maximum(least, step_size * jnp.sqrt(gamma))


def step_size_for(posterior: LocalPosterior, curvature: Array, heat: Array, batch_size: int | None) -> Array:
    """The step that is stable at a curvature, and on minibatches heats by no more than ``HEATING``.

    Chains that are annealed take it too: one as long as their temperature allows would carry them along the flat
    directions to where the curvature is a hundred times larger, and they would come back hot.

    Args:
      posterior: At its final temperature.
      curvature: The largest that has to be reckoned with, any shape.
      heat: What batches add for an ε of 1 at the final temperature, as a share of λ̂, of the same shape.
      batch_size: Examples of a step; None for all of the data.

    Returns:
      h on all of the data, else ε, of the same shape.
    """
    if batch_size is None:
        return inertial_step_size(posterior, curvature, INERTIAL_FRACTION)
    stable = langevin_step_size(posterior, curvature, STEP_FRACTION)
    return jnp.minimum(stable, HEATING / jnp.maximum(heat, jnp.finfo(heat.dtype).tiny))


def curvature_batch(key: Key, posterior: LocalPosterior, data: PyTree) -> Batch:
    """The examples on which curvature and energy are looked at: all of them, or ``CURVATURE_EXAMPLES``."""
    count = loss.example_count(data)
    if count <= CURVATURE_EXAMPLES:
        return full_batch(posterior, data)
    return minibatch(posterior, data, batch_index(key, CURVATURE_EXAMPLES, count))
