"""Stochastic gradient Langevin dynamics, with Euler noise or the averaged noise that removes its first-order bias."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax import tree
from slt_jax.noise import compact, normal
from slt_jax.posterior import Batch, LocalPosterior, evaluate, force, pair
from slt_jax.samplers.base import Info, Sampler, report
from slt_jax.types import Key, Noise, PyTree, Scalar


class EulerState(NamedTuple):
    """The current ``z``."""

    position: PyTree


class AveragedState(NamedTuple):
    """The current ``z`` and the noise of the last step, in as few bytes as it takes (``slt_jax.noise.compact``)."""

    position: PyTree
    noise: PyTree


def sgld(step_size: Scalar, *, averaged_noise: bool = True, noise: Noise = normal) -> Sampler:
    """Langevin dynamics ``Δz = -(ε/2) ∇U + √ε ξ`` with ``U = nβ L + (γ/2) |z|²``.

    With ``averaged_noise`` the noise of a step is ``√ε (ξ_t + ξ_{t+1}) / 2``: the stationary law is then exact on a
    quadratic for every stable step, and the bias in general is of second order (Leimkuhler & Matthews). With Euler
    noise a mode of force constant ``a = nβ h + γ`` has its variance inflated by ``1 / (1 - ε a / 4)``. Both need
    ``ε a < 4``.

    Args:
      step_size: ε, in squared units of the parameters; a number or an array of shape ``()`` (vmap over several).
      averaged_noise: Whether to average the noise of neighbouring steps.
      noise: What ``ξ`` is drawn by: ``slt_jax.noise.normal``, or ``signs``, which costs a fifth of it.

    Returns:
      A sampler that costs one gradient a step and keeps one copy of ``z``, and with averaged noise a quarter more, or
      another copy where ``noise`` is one of your own.

    Not to be believed where ``ε a`` comes near 4 for the largest curvature met (the virial rises above 1), or where
    minibatches heat the chain: a batch gradient of variance σ² adds ``ε (nβ)² σ² / (4 a (1 - ε a / 4))`` to a mode's
    variance, which ``llc`` measures.

    Sources: Welling & Teh 2011 (SGLD); Leimkuhler & Matthews 2013, doi:10.1093/amrx/abs010 (averaged noise);
    Lau et al. 2023, arXiv:2308.12108 (its use for λ).

    >>> sampler = sgld(1e-4)
    >>> sampler.step.args
    (0.0001,)
    """
    if averaged_noise:
        init = Partial(_init_averaged, noise=Partial(noise))
        return Sampler(init, Partial(_step_averaged, step_size, noise=Partial(noise)), step_size)
    return Sampler(Partial(_init_euler), Partial(_step_euler, step_size, noise=Partial(noise)), step_size)


def _init_euler(key: Key, posterior: LocalPosterior, data: PyTree) -> EulerState:
    del key, data
    return EulerState(posterior.restriction.origin(posterior.center))


def _init_averaged(key: Key, posterior: LocalPosterior, data: PyTree, *, noise: Noise) -> AveragedState:
    del data
    origin = posterior.restriction.origin(posterior.center)
    draw, _ = compact(noise)
    return AveragedState(origin, draw(key, origin))


def _step_euler(
    step_size: Scalar, key: Key, state: EulerState, posterior: LocalPosterior, batch: Batch | PyTree, *, noise: Noise
) -> tuple[EulerState, Info]:
    drift, info = _look(state.position, posterior, batch)
    return EulerState(_move(step_size, state.position, drift, noise(key, state.position))), info


def _step_averaged(
    step_size: Scalar,
    key: Key,
    state: AveragedState,
    posterior: LocalPosterior,
    batch: Batch | PyTree,
    *,
    noise: Noise,
) -> tuple[AveragedState, Info]:
    drift, info = _look(state.position, posterior, batch)
    draw, values = compact(noise)
    drawn = draw(key, state.position)
    both = values(state.noise, state.position), values(drawn, state.position)
    mean_noise = tree.combine(lambda last, new: 0.5 * (last + new), *both)
    return AveragedState(_move(step_size, state.position, drift, mean_noise), drawn), info


def _look(position: PyTree, posterior: LocalPosterior, batch: Batch | PyTree) -> tuple[PyTree, Info]:
    evaluation = evaluate(posterior, position, pair(posterior, batch))
    drift = force(posterior, position, evaluation.gradient)
    return drift, report(position, evaluation, drift)


def _move(step_size: Scalar, position: PyTree, drift: PyTree, noise: PyTree) -> PyTree:
    return tree.combine(lambda z, f, xi: z - 0.5 * step_size * f + jnp.sqrt(step_size) * xi, position, drift, noise)
