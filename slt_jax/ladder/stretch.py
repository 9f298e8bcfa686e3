"""Moves along the arms of a singularity: one group of parameters grows while another shrinks."""

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import tree
from slt_jax.posterior import Batch, LocalPosterior, evaluate
from slt_jax.samplers.base import MetropolisState
from slt_jax.types import Array, Key, PyTree

#: By how much the second group shrinks for what the first one grows by, in logarithms.
_RATIOS = (0.0, 0.5, 1.0, 1.0, 2.0)
#: Logarithms of the standard deviations between which that of a move is drawn.
_SMALL, _LARGE = np.log(0.1), np.log(5.0)


def stretch(key: Key, posterior: LocalPosterior, batch: Batch, state: MetropolisState) -> MetropolisState:
    """``z_i → e^s z_i``, ``z_j → e^{-ps} z_j`` with a Metropolis test, ``i`` and ``j`` entries or leaves by chance.

    Along the arm ``x = 0`` of ``x² y²`` the width of the other direction falls as ``1 / y``, and no dynamics with one
    step size goes along it; this does in one move where ``p`` is the ratio of two exponents. The change of volume,
    ``e^{s (n_i - p n_j)}``, is in the test, so that the law is exact whatever the loss.

    Args:
      key: A typed key.
      posterior: What is sampled.
      batch: All of the data.
      state: A state whose evaluation is that of its position.

    Returns:
      A state; one gradient is taken.

    Source: Christen & Fox 2010, doi:10.1214/10-BA603 (moves in logarithms of parameters); Metropolis 1953, Hastings
    1970 (the test, with the Jacobian).
    """
    kind_key, pair_key, size_key, accept_key = jax.random.split(key, 4)
    entries, leaves = _labels(state.position)
    by_leaf = jax.random.uniform(kind_key) < 0.5 if leaves.max() > 0 else jnp.asarray(False)
    labels = jnp.where(by_leaf, leaves, entries)
    count = jnp.where(by_leaf, leaves.max() + 1, entries.max() + 1)
    first, other = _pair(pair_key, count)
    ratio_key, spread_key, draw_key = jax.random.split(size_key, 3)
    dtype = posterior.nbeta.dtype
    ratio = jnp.asarray(_RATIOS, dtype)[jax.random.randint(ratio_key, (), 0, len(_RATIOS))]
    spread = jnp.exp(jax.random.uniform(spread_key, (), dtype, _SMALL, _LARGE))
    size = spread * jax.random.normal(draw_key, (), dtype)
    powers = jnp.where(labels == first, size, jnp.where(labels == other, -ratio * size, 0.0))
    position = _scaled(state.position, powers)
    evaluation = evaluate(posterior, position, batch)
    change = posterior.nbeta * (evaluation.excess - state.evaluation.excess)
    change = change + 0.5 * posterior.gamma * tree.norm_squared_change(position, state.position) - jnp.sum(powers)
    level = jnp.log(jax.random.uniform(accept_key, (), change.dtype))
    # what is not finite is not taken
    taken = (level < -change) & jnp.isfinite(evaluation.excess)
    return jax.tree.map(
        lambda new, old: jnp.where(taken, new, old), MetropolisState(position, evaluation, state.known), state
    )


def _labels(z: PyTree) -> tuple[np.ndarray, np.ndarray]:
    """For each entry of ``z`` its number, and that of its leaf; shape ``(d,)``."""
    sizes = [leaf.size for leaf in jax.tree.leaves(z)]
    return np.arange(sum(sizes)), np.repeat(np.arange(len(sizes)), sizes)


def _pair(key: Key, count: Array) -> tuple[Array, Array]:
    """Two different numbers below ``count``; where it is 1, a second that does not exist."""
    first_key, other_key = jax.random.split(key)
    first = jax.random.randint(first_key, (), 0, count)
    other = jax.random.randint(other_key, (), 0, jnp.maximum(count - 1, 1))
    other = jnp.where(other >= first, other + 1, other)
    return first, jnp.where(count > 1, other, -1)


def _scaled(z: PyTree, powers: Array) -> PyTree:
    leaves, structure = jax.tree.flatten(z)
    pieces, start = [], 0
    for leaf in leaves:
        factor = jnp.exp(powers[start : start + leaf.size]).reshape(leaf.shape)
        pieces.append((leaf * factor).astype(leaf.dtype))
        start += leaf.size
    return jax.tree.unflatten(structure, pieces)
