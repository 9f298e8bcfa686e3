"""Underdamped Langevin dynamics by the BAOAB splitting: momentum that persists, and no bias on a quadratic."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax import tree
from slt_jax.noise import normal
from slt_jax.posterior import Batch, LocalPosterior, evaluate, force, pair
from slt_jax.samplers.base import Info, Sampler, report
from slt_jax.types import Key, Noise, PyTree, Scalar


class UnderdampedState(NamedTuple):
    """The current ``z`` and the velocity before the kick at ``z``, a tree like ``z``."""

    position: PyTree
    velocity: PyTree


def underdamped(step_size: Scalar, *, friction: Scalar = 0.1, noise: Noise = normal) -> Sampler:
    """Langevin dynamics ``dz = v dt``, ``dv = -∇U dt - (f/h) v dt + √(2f/h) dW`` by BAOAB, f the friction a step.

    A step is B A O A: ``v -= h ∇U(z)``; ``z += (h/2) v``; ``v = e^{-f} v + √(1 - e^{-2f}) ξ``; ``z += (h/2) v``. The
    kick is the half kick that ends the last BAOAB step and the one that begins the next, both at this ``z`` and on this
    batch: one gradient a step, nothing cached, and the loss that comes with the gradient is that of the position the
    step starts from, on all of the data and on minibatches alike. Kicks do not move ``z``, so the law of ``z`` is
    BAOAB's: exact on a quadratic for every stable step, else biased in second order. At infinite friction it is
    ``sgld`` with averaged noise at ``ε = h²``, draw by draw.

    Args:
      step_size: h, in units of the parameters (velocities have variance 1); a mode of force constant ``a = nβ h_i + γ``
        needs ``h √a < 2``. A number or an array of shape ``()`` (vmap over several).
      friction: f, positive: ``e^{-f}`` of the velocity is kept in a step. Momentum persists for about ``1/f`` steps;
        flat directions want it low, minibatches high.
      noise: What ``ξ`` is drawn by: ``slt_jax.noise.normal``, or ``signs``, which costs a fifth of it.

    Returns:
      A sampler that costs one gradient a step and keeps two copies of ``z``.

    Not to be believed where ``h √a`` comes near 2 for the largest curvature met (a chain of low friction meets more of
    it than there is at the centre), or where minibatches heat the chain, as they heat ``sgld`` at
    ``ε = h² coth(f/2)``, which is ``2h²/f`` at low friction: a batch gradient of variance σ² adds
    ``ε (nβ)² σ² / (4 a (1 - h² a / 4))`` to a mode's variance at every friction, which ``llc`` measures.

    Sources: Leimkuhler & Matthews 2013, arXiv:1203.5428 (BAOAB and its order), and doi:10.1063/1.4802990 (exact on a
    quadratic).

    >>> underdamped(1e-2, friction=0.03).step.args
    (0.01, 0.03)
    """
    return Sampler(
        Partial(_init), Partial(_step, step_size, friction, noise=Partial(noise)), _overdamped(step_size, friction)
    )


def _overdamped(step_size: Scalar, friction: Scalar) -> Scalar:
    """``h² coth(f/2)``: what the force of one step moves a chain by, until its velocity is forgotten, is ``ε/2``."""
    if isinstance(step_size, float | int) and isinstance(friction, float | int):
        return step_size**2 / math.tanh(friction / 2) if friction else math.inf  # numbers stay numbers
    return step_size**2 / jnp.tanh(0.5 * friction)


def _init(key: Key, posterior: LocalPosterior, data: PyTree) -> UnderdampedState:
    del data
    origin = posterior.restriction.origin(posterior.center)
    return UnderdampedState(origin, normal(key, origin))


def _step(
    step_size: Scalar,
    friction: Scalar,
    key: Key,
    state: UnderdampedState,
    posterior: LocalPosterior,
    batch: Batch | PyTree,
    *,
    noise: Noise,
) -> tuple[UnderdampedState, Info]:
    evaluation = evaluate(posterior, state.position, pair(posterior, batch))
    drift = force(posterior, state.position, evaluation.gradient)
    kicked = tree.combine(lambda v, f: v - step_size * f, state.velocity, drift)
    kept, fresh = jnp.exp(-friction), jnp.sqrt(-jnp.expm1(-2 * friction))
    velocity = tree.combine(lambda v, xi: kept * v + fresh * xi, kicked, noise(key, state.position))
    position = tree.combine(lambda z, v, w: z + 0.5 * step_size * (v + w), state.position, kicked, velocity)
    return UnderdampedState(position, velocity), report(state.position, evaluation, drift)
