"""``log V(ε)`` from the draws of a ladder that starts at the prior, with errors from its independent chains."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from slt_jax.ladder.reweighting import log_mixture, mbar
from slt_jax.types import Array

#: Energies are counted in bins this wide in ``log K``: reweighting within one changes nothing that could be seen.
_BIN = 0.02


class Volume(NamedTuple):
    """Shapes ``(point,)``.

    Attributes:
      log_epsilon: From the smallest on.
      log_volume, error: ``log V(ε)``, and its standard error by leaving out one chain at a time.
      conductance, conductance_error: ``d log V / d log ε`` over a factor of e.
      effective: Draws below ε, as many as would weigh the same.
    """

    log_epsilon: np.ndarray
    log_volume: np.ndarray
    error: np.ndarray
    conductance: np.ndarray
    conductance_error: np.ndarray
    effective: np.ndarray


def free_energies(nbetas: np.ndarray, excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``-log E_φ[e^{-nβ K}]`` on each rung by multistate reweighting, and errors by leaving out one chain at a time.

    Args:
      nbetas: ``nβ`` of each rung, the first 0, shape ``(rung,)``.
      excess: ``K`` in nats, shape ``(rung, chain, draw)``.

    Returns:
      Two arrays ``(rung,)``, nats.
    """
    logs, counts, totals = _binned(excess)
    reduced = jnp.asarray(nbetas)[:, None] * jnp.exp(logs)[None, :]
    free = mbar(reduced, totals.sum(axis=0), counts.sum(axis=0))
    without = [
        np.asarray(mbar(reduced, totals.sum(axis=0) - totals[c], counts.sum(axis=0) - counts[c], free))
        for c in range(len(counts))
    ]
    return np.asarray(free), _jackknife(np.stack(without))


def log_volume(nbetas: np.ndarray, excess: np.ndarray, depth: float, points: int) -> Volume:
    """``V(ε)``, the share of the prior below ε, by multistate reweighting of all rungs.

    Args:
      nbetas: ``nβ`` of each rung, the first 0: the prior, shape ``(rung,)``.
      excess: ``K`` in nats, shape ``(rung, chain, draw)``. Draws at or below 0 count as the lowest.
      depth: Smallest ε of the result, in nats.
      points: Points of the result for each factor of e.

    Returns:
      The volume, from ``depth`` to the largest excess seen. Runs in double precision, where the caller has it on.

    Raises:
      ValueError: the first rung is not the prior, or nothing was drawn above 0.

    Not to be believed where ``effective`` is small.

    Source: Shirts & Chodera 2008, arXiv:0801.1426; leaving out one chain: Quenouille 1956, doi:10.2307/2332914.
    """
    if nbetas[0] != 0:
        raise ValueError(f"nbetas: the first is {nbetas[0]}, but volumes are shares of the prior; begin with 0.")
    logs, counts, totals = _binned(excess)
    reduced = jnp.asarray(nbetas)[:, None] * jnp.exp(logs)[None, :]
    free = mbar(reduced, totals.sum(axis=0), counts.sum(axis=0))
    edges = np.arange(np.log(depth), logs[-1] + 0.5 * _BIN + 1 / points, 1 / points)

    def volumes(used: Array, per_rung: Array) -> tuple[Array, Array, Array]:
        found = mbar(reduced, per_rung, used, free)
        weights = jnp.log(used) - log_mixture(reduced, jnp.log(per_rung), found)
        weights = weights - logsumexp(weights)
        at = jnp.concatenate([edges, edges - 0.5, edges + 0.5])
        below = _log_below(weights, logs, at)
        volume, low, high = jnp.split(below, 3)
        squares = _log_below(2 * weights - jnp.log(jnp.maximum(used, 1e-300)), logs, jnp.asarray(edges))
        return volume, high - low, jnp.exp(2 * volume - squares)

    one = jax.jit(volumes)
    everything = one(jnp.asarray(counts.sum(axis=0)), jnp.asarray(totals.sum(axis=0)))
    chains = counts.shape[0]
    without = [
        one(jnp.asarray(counts.sum(axis=0) - counts[c]), jnp.asarray(totals.sum(axis=0) - totals[c]))
        for c in range(chains)
    ]

    def error(index: int) -> np.ndarray:
        return _jackknife(np.stack([np.asarray(left[index]) for left in without]))

    return Volume(
        log_epsilon=edges,
        log_volume=np.asarray(everything[0]),
        error=error(0),
        conductance=np.asarray(everything[1]),
        conductance_error=error(1),
        effective=np.asarray(everything[2]),
    )


def _jackknife(without: np.ndarray) -> np.ndarray:
    """Standard error from what is found when each chain in turn, the leading axis, is left out."""
    chains = len(without)
    # where one chain alone came so deep nothing is known without it
    known = np.isfinite(without).all(axis=0)
    without = np.where(known, without, 0.0)
    spread = np.sqrt((chains - 1) / chains * np.sum((without - without.mean(axis=0)) ** 2, axis=0))
    return np.where(known, spread, np.inf)


def _binned(excess: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres of bins in ``log K``, how many draws of each chain fall into them, and how many there are by rung."""
    rungs, chains, draws = excess.shape
    if not (excess > 0).any():
        raise ValueError("excess: no draw lies above the centre; is the loss flat, or the centre a maximum?")
    lowest = excess[excess > 0].min()
    logs = np.log(np.maximum(excess, lowest))
    first = np.floor(logs.min() / _BIN)
    index = (np.floor(logs / _BIN) - first).astype(int)
    size = int(index.max()) + 1
    counts = np.stack([np.bincount(index[:, chain].ravel(), minlength=size) for chain in range(chains)])
    kept = counts.sum(axis=0) > 0
    centres = (first + np.arange(size) + 0.5) * _BIN
    totals = np.full((chains, rungs), float(draws))
    return centres[kept], counts[:, kept].astype(float), totals


def _log_below(weights: Array, logs: np.ndarray, at: Array) -> Array:
    """Log of the weight below each point, the bin that holds it shared in proportion."""
    top = jnp.max(weights)
    cumulative = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jnp.exp(weights - top))])
    # sums from below: what is small is added to what is small
    share = jnp.interp(jnp.asarray(at), jnp.concatenate([logs[:1] - 0.5 * _BIN, logs + 0.5 * _BIN]), cumulative)
    return jnp.log(share) + top
