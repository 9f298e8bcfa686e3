"""Microcanonical Langevin Monte Carlo: motion at constant speed, whose direction alone responds to the force."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax import tree
from slt_jax.noise import exact_normal
from slt_jax.posterior import Batch, LocalPosterior, dimension, evaluate, force, pair
from slt_jax.samplers.base import Info, Sampler, report
from slt_jax.types import Key, PyTree, Scalar


class MicrocanonicalState(NamedTuple):
    """The current ``z`` and the direction of motion before the turn at ``z``, a tree like ``z`` of norm 1."""

    position: PyTree
    direction: PyTree


def mclmc(step_size: Scalar, *, decoherence: Scalar = 20.0) -> Sampler:
    """Motion ``dz = u ds`` at speed 1, ``du = -(1 - u uᵀ) ∇U ds / (d - 1)``, and a little noise in the direction ``u``.

    The law of ``z`` is the posterior although the speed is constant: where the potential is high the direction turns
    faster. A step of length ``s = h √d`` is B A O A, ordered as in ``underdamped`` and for the same reason (one
    gradient, at the position that is reported): the exact turn towards the force; ``z += (s/2) u``;
    ``u = (u + ν ξ) / |u + ν ξ|`` with ``ν² = (e^{2/decoherence} - 1) / d``; ``z += (s/2) u``.

    Written here and not adapted from blackjax: its state holds the log density at the *end* of a step, from which
    neither the loss nor its noise over the batch can be read, and a gradient that belongs to the last batch. It is the
    oracle of the tests.

    Args:
      step_size: h, the typical displacement of one coordinate in a step, in units of the parameters as for
        ``underdamped``.
      decoherence: Steps within which the direction is forgotten.

    Returns:
      A sampler that costs one gradient a step and keeps two copies of ``z``.

    Raises:
      ValueError: At init, where the posterior has one free parameter: there are no directions to turn to.

    Not to be believed in few dimensions at large steps, where the bias, of second order in h, is largest (it has no
    test to remove it), nor on minibatches, whose noise turns it away from where the force leads, by how much is not
    measured (``overdamped`` is NaN).

    Sources: Robnik, De Luca, Silverstein & Seljak 2022, arXiv:2212.08549 (the dynamics); Robnik & Seljak 2023,
    arXiv:2303.18221 (the noise, and that the law is exact).

    >>> mclmc(1e-2).step.args
    (0.01, 20.0)
    """
    return Sampler(Partial(_init), Partial(_step, step_size, decoherence))


def _init(key: Key, posterior: LocalPosterior, data: PyTree) -> MicrocanonicalState:
    del data
    if dimension(posterior) < 2:
        raise ValueError("posterior: got 1 free parameter; mclmc turns directions and needs 2. Use underdamped or hmc.")
    origin = posterior.restriction.origin(posterior.center)
    return MicrocanonicalState(origin, _normalise(exact_normal(key, origin)))


def _step(
    step_size: Scalar,
    decoherence: Scalar,
    key: Key,
    state: MicrocanonicalState,
    posterior: LocalPosterior,
    batch: Batch | PyTree,
) -> tuple[MicrocanonicalState, Info]:
    evaluation = evaluate(posterior, state.position, pair(posterior, batch))
    drift = force(posterior, state.position, evaluation.gradient)
    size = tree.size(state.position)
    length = step_size * jnp.sqrt(size)
    noise = exact_normal(key, state.position)
    turned = _turn(state.direction, drift, length / (size - 1))
    spread = jnp.sqrt(jnp.expm1(2 / decoherence) / size)
    direction = _normalise(tree.combine(lambda u, xi: u + spread * xi, turned, noise))
    position = tree.combine(lambda z, u, w: z + 0.5 * length * (u + w), state.position, turned, direction)
    return MicrocanonicalState(position, direction), report(state.position, evaluation, drift)


def _turn(direction: PyTree, drift: PyTree, length: Scalar) -> PyTree:
    """The exact turn of a direction against a constant drift, after multiplication by ``2 e^{-δ}`` to be finite."""
    strength = jnp.sqrt(tree.norm_squared(drift))
    against = tree.scale(-1 / jnp.where(strength > 0, strength, 1.0), drift)
    decay = jnp.exp(-length * strength)
    along = tree.dot(against, direction)
    push = (1 - decay) * (1 + decay + along * (1 - decay))
    return _normalise(tree.combine(lambda u, e: 2 * decay * u + push * e, direction, against))


def _normalise(direction: PyTree) -> PyTree:
    return tree.scale(jax.lax.rsqrt(tree.norm_squared(direction)), direction)
