"""Averages over the draws of a ladder: their errors, and the control variates that equipartition gives for nothing."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import diagnostics
from slt_jax.ladder.exchange import Record
from slt_jax.types import Array

#: Draws of a stretch over which the slow part of a series is looked at, the least number of stretches of a chain, and
#: those that half of the chains need to have for each control variate.
_STRETCH, _STRETCHES, _ENOUGH = 50, 24, 8
#: Of a regression, relative to the mean square of its controls.
_RIDGE = 1e-6


def mean_and_error(draws: Array) -> tuple[Array, Array]:
    """Mean over chains and draws on each rung, and its error, the larger of two.

    One error follows from how slowly the chains forget, the other from the scatter between them.

    Args:
      draws: Shape ``(rung, chain, draw)``.

    Returns:
      Two arrays ``(rung,)``, in the units of the draws.

    >>> [float(number[0]) for number in mean_and_error(jnp.ones((1, 2, 8)))]
    [1.0, 0.0]
    """
    means = jnp.mean(draws, axis=2)
    between = jnp.std(means, axis=1, ddof=1) / np.sqrt(draws.shape[1])
    return jnp.mean(means, axis=1), jnp.maximum(jax.vmap(diagnostics.mcse)(draws), between)


class Controls(NamedTuple):
    """Series whose means are known: the parts of the equipartition numbers, and the energy that they calm.

    Attributes:
      energy: ``nβ K``, shape ``(rung, chain, draw)``.
      work: ``T_g = Σ_{i in g} z_i nβ ∂_i K``, shape ``(rung, chain, draw, group)``.
      pull: ``A_g = γ Σ z_i²``, of the same shape.
      virial: ``W_g = T_g + A_g`` less its mean, the number of entries, of the same shape.
      sizes: Number of entries of each group, shape ``(group,)``.
    """

    energy: Array
    work: Array
    pull: Array
    virial: Array
    sizes: Array


def controls_of(record: Record, nbetas: Array, sizes: np.ndarray) -> Controls:
    """Of the draws of a ladder."""
    counts = jnp.asarray(sizes, record.work.dtype)
    energy = jnp.asarray(nbetas)[:, None, None] * record.excess
    virial = record.work + record.pull - counts[None, None, None, :]
    return Controls(energy, record.work, record.pull, virial, counts)


class Averages(NamedTuple):
    """Means with their errors, shape ``(rung,)``, of groups ``(rung, group)``; and λ_eff of each chain.

    ``plain`` is λ_eff as the mean of the draws, without control variates: the two differ by more than its error only
    where the means of the controls are not what they are in equilibrium.
    """

    value: tuple[Array, Array]
    heat: tuple[Array, Array]
    velocity: tuple[Array, Array]
    contact: tuple[Array, Array]
    contact_sum: tuple[Array, Array]
    plain: tuple[Array, Array]
    per_chain: Array


def averages(controls: Controls, logs: Array) -> Averages:
    """λ_eff, heat capacity, velocity and contact exponents, each with the controls that integration by parts gives it.

    ``E[q (W_g - n_g)] = E[Σ_{i in g} z_i ∂_i q]`` for any function q: with ``q = 1`` the right side is 0, with
    ``q = nβ K`` it is ``E[T_g]``, with ``q = Σ_g A_g`` it is ``E[2 A_g]``, with ``q = f_h = Σ_{i in h} log |z_i|`` it
    is ``n_h`` where ``g = h``, else 0.

    Args:
      controls: From ``controls_of``.
      logs: ``f_h``, shape ``(rung, chain, draw, group)``.

    Returns:
      The averages.
    """
    energy, sizes = controls.energy, controls.sizes
    moved = energy - jnp.mean(energy, axis=(1, 2), keepdims=True)
    logs = logs - jnp.mean(logs, axis=(1, 2), keepdims=True)
    groups = logs.shape[-1]
    always = _always(controls)

    def calm(kind: Array) -> Array:
        # one program for all kinds: λ, heat capacity, and the contact of each group
        factor = logs[..., jnp.maximum(kind - 2, 0)]
        thermal = kind < 2
        series = jnp.where(kind == 0, energy, jnp.where(kind == 1, moved, factor) * moved)
        own = jnp.where(jnp.arange(groups) == kind - 2, sizes, 0.0)[None, None, None, :]
        known = jnp.where(thermal, controls.work, own)
        second = jnp.where(thermal, energy, factor)[..., None] * controls.virial - known
        return calmed(series, jnp.concatenate([always, second], axis=-1))

    series = jax.lax.map(calm, jnp.arange(2 + groups))
    # the mean of what was squared is that of the draws, not the calmer one
    off = jnp.mean(series[0] - energy, axis=(1, 2), keepdims=True)
    heat = series[1] - off**2
    extra = jnp.stack([series[0] - heat, jnp.sum(series[2:], axis=0), energy])
    every = jnp.concatenate([series[:1], heat[None], extra, series[2:]])
    flat = every.reshape(-1, *every.shape[2:])
    means, errors = (numbers.reshape(every.shape[:2]) for numbers in mean_and_error(flat))
    value, heat_pair, velocity, total, plain = ((means[index], errors[index]) for index in range(5))
    contact = means[5:].T, errors[5:].T
    return Averages(value, heat_pair, velocity, contact, total, plain, jnp.mean(series[0], axis=2))


def calm_energy(controls: Controls) -> Array:
    """``nβ K`` with less variance, shape ``(rung, chain, draw)``."""
    return calmed(controls.energy, _always(controls))


def _always(controls: Controls) -> Array:
    """``W_g - n_g``, and ``A (W_g - n_g) - 2 A_g`` with ``A = Σ_g A_g``: of mean 0."""
    second = jnp.sum(controls.pull, axis=-1, keepdims=True) * controls.virial - 2 * controls.pull
    return jnp.concatenate([controls.virial, second], axis=-1)


def calmed(series: Array, controls: Array) -> Array:
    """A series of the same mean that varies less: ``y - Σ c_i x_i`` with controls ``x_i`` of mean 0.

    The coefficients are those of a regression on means over stretches, so that the slow part becomes smaller; each half
    of the chains takes those of the other half, so that they are independent of what they are used on.

    Args:
      series: Shape ``(rung, chain, draw)``, of two chains at least.
      controls: Shape ``(rung, chain, draw, control)``; where they are too many for the draws, their sum is one control.

    Returns:
      Shape ``(rung, chain, draw)``, in the units of the series.

    Not to be believed where chains are not in equilibrium: then the means of the controls are not 0, and the verdict on
    the virial says so.

    Source: Mira, Solgi & Imparato 2013, arXiv:1012.2983 (zero-variance control variates of a potential).

    >>> waves = jnp.sin(jnp.arange(4000.0)).reshape(1, 4, 1000)
    >>> calm = calmed(3 + 2 * waves, waves[..., None])
    >>> round(float(calm.mean()), 3), bool(calm.std() < 1e-3)
    (3.0, True)
    """
    stretch = max(1, min(_STRETCH, series.shape[2] // _STRETCHES))
    if controls.shape[-1] * _ENOUGH > (series.shape[1] // 2) * (series.shape[2] // stretch):
        controls = jnp.sum(controls, axis=-1, keepdims=True)
    return jax.vmap(partial(_calmed, stretch))(series, controls)


def _calmed(stretch: int, series: Array, controls: Array) -> Array:
    size = jnp.sqrt(jnp.mean(controls**2, axis=(0, 1)))
    controls = controls / jnp.where(size > 0, size, 1.0)[None, None, :]
    half = series.shape[0] // 2
    first, second = (
        _coefficients(stretch, series[part], controls[part]) for part in (slice(0, half), slice(half, None))
    )
    # what is fitted to some chains is used for the others: fitted to themselves they would look calmer than they are
    used = jnp.where((jnp.arange(series.shape[0]) < half)[:, None], second[None, :], first[None, :])
    return series - jnp.einsum("cng,cg->cn", controls, used)


def _coefficients(stretch: int, series: Array, controls: Array) -> Array:
    def slow(draws: Array) -> Array:
        kept = draws[:, draws.shape[1] % stretch :]
        means = jnp.mean(kept.reshape(kept.shape[0], -1, stretch, *kept.shape[2:]), axis=2)
        flat = means.reshape(-1, *means.shape[2:])
        return flat - jnp.mean(flat, axis=0, keepdims=True)

    known, target = slow(controls), slow(series)
    gram = known.T @ known
    # controls that say the same, or nothing, must not blow up
    ridge = _RIDGE * jnp.trace(gram) / gram.shape[0] + jnp.finfo(gram.dtype).tiny
    weights = jnp.linalg.solve(gram + ridge * jnp.eye(gram.shape[0], dtype=gram.dtype), known.T @ target)
    return jnp.where(jnp.isfinite(weights), weights, 0.0)
