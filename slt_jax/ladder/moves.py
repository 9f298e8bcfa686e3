"""Moves that no trajectory makes: along the arms of a singularity, and as far as other replicas are apart."""

from collections.abc import Callable
from functools import partial

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
#: Logarithms of the shares of a difference between which that of a leap is drawn.
_REACH = (np.log(0.05), np.log(1.5))


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
    return _tested(accept_key, posterior, batch, state, position, jnp.sum(powers))


def leap(
    key: Key, posterior: LocalPosterior, batch: Batch, state: MetropolisState, one: PyTree, other: PyTree
) -> MetropolisState:
    """``z → z + g (z_1 - z_2)`` with a Metropolis test: as far, and in such directions, as two other replicas differ.

    Where one direction is stiff and another flat, trajectories as short as the stiff one asks for do not cross the
    other. Replicas nearby in temperature know how wide each direction is, whichever way it points.

    Args:
      key: A typed key.
      posterior: What is sampled.
      batch: All of the data.
      state: A state whose evaluation is that of its position.
      one, other: Positions of two other replicas, which do not move meanwhile.

    Returns:
      A state; one gradient is taken.

    Source: Ter Braak 2006, doi:10.1007/s11222-006-8769-1 (differential evolution Markov chain).
    """
    size_key, accept_key = jax.random.split(key)
    size = jnp.exp(jax.random.uniform(size_key, (), posterior.nbeta.dtype, *_REACH))
    position = tree.combine(lambda z, a, b: z + size * (a - b), state.position, one, other)
    return _tested(accept_key, posterior, batch, state, position, jnp.zeros((), posterior.nbeta.dtype))


def move_all(
    key: Key, posterior: LocalPosterior, batch: Batch, nbetas: Array, state: MetropolisState, time: Array
) -> MetropolisState:
    """A stretch of each replica, and a leap of every third by the difference of the two rungs next to it.

    State axes ``(rung, chain)``: chains remain independent of each other.
    """

    def of_all(move: Callable, key: Key, state: MetropolisState, *others: PyTree) -> MetropolisState:
        def one(key: Key, nbeta: Array, *rest: PyTree) -> MetropolisState:
            return move(key, posterior._replace(nbeta=nbeta), batch, *rest)

        shape = jax.tree.leaves(state)[0].shape[:2]
        mapped = jax.vmap(jax.vmap(one, in_axes=(0, None, *[0] * (1 + len(others)))))
        return mapped(jax.random.split(key, shape), nbetas, state, *others)

    stretch_key, leap_key = jax.random.split(key)
    state = of_all(stretch, stretch_key, state)
    count = nbetas.shape[0]
    if count < 3:
        return state
    rung = jnp.arange(count)
    # rungs that differ by one or two are never moved together
    one = jnp.where(rung == 0, 2, jnp.where(rung == count - 1, count - 3, rung - 1))
    other = jnp.where(rung == 0, 1, jnp.where(rung == count - 1, count - 2, rung + 1))
    near = [jax.tree.map(lambda leaf, at=at: leaf[at], state.position) for at in (one, other)]
    leapt = of_all(leap, leap_key, state, *near)
    now = rung % 3 == time % 3
    return jax.tree.map(lambda new, old: jnp.where(_like(now, new), new, old), leapt, state)


def mix(key: Key, posterior: LocalPosterior, batch: Batch, state: MetropolisState) -> MetropolisState:
    """A stretch of each chain, and leaps of both halves in turn by differences within the other; axis ``(chain,)``."""
    stretch_key, *leap_keys = jax.random.split(key, 3)
    chains = jax.tree.leaves(state)[0].shape[0]
    state = jax.vmap(partial(stretch, posterior=posterior, batch=batch))(
        jax.random.split(stretch_key, chains), state=state
    )
    half = chains // 2
    for leap_key, mine, others in zip(leap_keys, (slice(0, half), slice(half, None)), (half, 0), strict=True):
        pair_key, move_key = jax.random.split(leap_key)
        moving = jax.tree.map(lambda leaf, mine=mine: leaf[mine], state)
        number = jax.tree.leaves(moving)[0].shape[0]
        at = others + jax.random.randint(pair_key, (2, number), 0, chains - number)
        pair = [jax.tree.map(lambda leaf, one=one: leaf[one], state.position) for one in at]
        moving = jax.vmap(lambda k, s, a, b: leap(k, posterior, batch, s, a, b))(
            jax.random.split(move_key, number), moving, *pair
        )
        state = jax.tree.map(lambda leaf, new, mine=mine: leaf.at[mine].set(new), state, moving)
    return state


def _tested(
    key: Key, posterior: LocalPosterior, batch: Batch, state: MetropolisState, position: PyTree, log_volume: Array
) -> MetropolisState:
    """The proposal or the state, ``log_volume`` being the logarithm of the proposal's change of volume."""
    evaluation = evaluate(posterior, position, batch)
    change = posterior.nbeta * (evaluation.excess - state.evaluation.excess)
    change = change + 0.5 * posterior.gamma * tree.norm_squared_change(position, state.position) - log_volume
    # what is not finite is not taken
    level = jnp.log(jax.random.uniform(key, (), change.dtype))
    taken = (level < -change) & jnp.isfinite(evaluation.excess) & state.known
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


def _like(flags: Array, leaf: Array) -> Array:
    return flags.reshape(flags.shape + (1,) * (leaf.ndim - flags.ndim))
