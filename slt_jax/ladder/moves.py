"""Moves that no trajectory makes: along the arms of a singularity, and as far as other replicas are apart."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from slt_jax import tree
from slt_jax.posterior import Batch, LocalPosterior, evaluate
from slt_jax.samplers.base import MetropolisState
from slt_jax.types import Array, Key, PyTree

#: By how much the second group shrinks for what the first one grows by, in logarithms.
_RATIOS = (0.0, 0.5, 1.0, 1.0, 2.0)
#: Logarithms of the standard deviations between which that of a stretch is drawn.
_STRETCHES = (np.log(0.1), np.log(5.0))
#: Logarithms of the shares of a difference between which that of a leap is drawn.
_REACH = (np.log(0.05), np.log(1.5))
#: Uniform numbers that a move takes.
NUMBERS = 7


class Numbers(NamedTuple):
    """All that a sweep draws, from one call of the generator: each call takes longer to compile than a small loss."""

    momentum: PyTree
    step: Array
    accept: Array
    swap: Array
    pairs: Array
    moves: Array


def numbers_for(key: Key, posterior: LocalPosterior, replicas: int, moves: int) -> Numbers:
    """For one sweep of so many replicas, each of which makes so many moves beside its trajectory."""
    origin = jax.eval_shape(posterior.restriction.origin, posterior.center)
    free, dtype = tree.size(origin), jnp.promote_types(posterior.nbeta.dtype, jnp.float32)
    # exactly between two multiples of what a draw is rounded to: never 0, never 1
    drawn = jax.random.uniform(key, (5 + moves * NUMBERS + free, replicas), dtype) + 0.25 * jnp.finfo(dtype).eps
    rest = drawn[5 : 5 + moves * NUMBERS].reshape(moves, NUMBERS, replicas)
    normal = ndtri(drawn[5 + moves * NUMBERS :])
    pieces, start = [], 0
    for leaf in jax.tree.leaves(origin):
        size = math.prod(leaf.shape)
        pieces.append(normal[start : start + size].T.reshape(replicas, *leaf.shape).astype(leaf.dtype))
        start += size
    momentum = jax.tree.unflatten(jax.tree.structure(origin), pieces)
    return Numbers(momentum, drawn[0], drawn[1], drawn[2], drawn[3:5], jnp.swapaxes(rest, 1, 2))


def move(
    uniforms: Array,
    posterior: LocalPosterior,
    batch: Batch,
    nbetas: Array,
    state: MetropolisState,
    first: Array,
    other: Array,
    allowed: Array,
) -> MetropolisState:
    """A stretch of each replica, then leaps of some of them, each with a Metropolis test.

    *Stretch*: ``z_i → e^s z_i``, ``z_j → e^{-ps} z_j``, ``i`` and ``j`` two entries or two leaves. Along the arm
    ``x = 0`` of ``x² y²`` the width of the other direction falls as ``1 / y``, and no dynamics with one step goes along
    it; this does, where ``p`` is the ratio of two exponents. The change of volume, ``e^{s (n_i - p n_j)}``, is in the
    test, so that the law is exact whatever the loss.

    *Leap*: ``z → z + g (z_1 - z_2)`` with two other replicas, which must not leap at the same time. Where one direction
    is stiff and another flat, trajectories as short as the stiff one asks for do not cross the other; replicas nearby
    know how wide each direction is, whichever way it points.

    Args:
      uniforms: Numbers in (0, 1), shape ``(move, replica, NUMBERS)``; move 0 is the stretch, the others are leaps.
      posterior: Its ``nβ`` is not used.
      batch: All of the data.
      nbetas: ``nβ`` of each replica, shape ``(replica,)``.
      state: Leading axis ``(replica,)``; evaluations are those of the positions.
      first, other: Which replicas a leap takes the difference of, shape ``(move, replica)``; not used by the stretch.
      allowed: Which replicas a move is for, shape ``(move, replica)``.

    Returns:
      The states; a gradient is taken for each move and replica.

    Source: Christen & Fox 2010, doi:10.1214/10-BA603 (moves in logarithms); Ter Braak 2006,
    doi:10.1007/s11222-006-8769-1 (differences of other chains).
    """

    def turn(state: MetropolisState, at: tuple[Array, ...]) -> tuple[MetropolisState, None]:
        number, uniform, one, two, may = at
        nearby = jax.tree.map(lambda leaf: leaf[one], state.position)
        beyond = jax.tree.map(lambda leaf: leaf[two], state.position)

        def single(u: Array, nbeta: Array, state: MetropolisState, a: PyTree, b: PyTree, may: Array) -> MetropolisState:
            position, log_volume = proposed(number == 0, u, state.position, a, b)
            tempered = posterior._replace(nbeta=nbeta)
            return _tested(u[-1], tempered, batch, state, position, log_volume, may)

        return jax.vmap(single)(uniform, nbetas, state, nearby, beyond, may), None

    count = uniforms.shape[0]
    # one loop, so that the loss is compiled once for all kinds of moves
    return jax.lax.scan(turn, state, (jnp.arange(count), uniforms, first, other, allowed))[0]


def proposed(stretch: Array, u: Array, z: PyTree, a: PyTree, b: PyTree) -> tuple[PyTree, Array]:
    """Where a stretch of ``z``, or a leap by ``a - b``, goes, and the logarithm of its change of volume, shape ``()``.

    Args:
      stretch: Whether it is a stretch, shape ``()``.
      u: Numbers in (0, 1), shape ``(NUMBERS,)``; the last one is not used.
      z, a, b: Trees of one structure.
    """
    powers = jnp.where(stretch, _powers(u, z), 0.0)
    # either way as often: the way back has to be proposed too
    way = jnp.where(u[1] < 0.5, -1.0, 1.0)
    reach = jnp.where(stretch, 0.0, way * jnp.exp(_between(u[0], *_REACH)))
    position = tree.combine(lambda z, a, b: z + reach * (a - b), _scaled(z, powers), a, b)
    return position, jnp.sum(powers)


def between_rungs(rungs: int, chains: int, time: Array) -> tuple[Array, Array, Array]:
    """Who leaps by whom on a ladder: each third rung in turn, by the rungs next to it in the same chain.

    Chains remain independent, and rungs that differ by one or two are never moved together.

    Returns:
      ``first``, ``other`` and ``allowed`` of ``move``, shape ``(2, rung · chain)``.
    """
    rung, chain = (index.ravel() for index in jnp.meshgrid(jnp.arange(rungs), jnp.arange(chains), indexing="ij"))
    last = rungs - 1
    below = jnp.where(rung == 0, 2, jnp.where(rung == last, last - 2, rung - 1))
    above = jnp.where(rung == 0, 1, jnp.where(rung == last, last - 1, rung + 1))
    leaps = (rung % 3 == time % 3) & (rungs > 2)
    index = [jnp.clip(neighbour, 0, last) * chains + chain for neighbour in (below, above)]
    everyone = jnp.ones_like(leaps)
    return *(jnp.stack([one, one]) for one in index), jnp.stack([everyone, leaps])  # type: ignore[return-value]


def between_halves(uniforms: Array) -> tuple[Array, Array, Array]:
    """Who leaps by whom within one rung: both halves of the chains in turn, by differences within the other half.

    Args:
      uniforms: Numbers in (0, 1), shape ``(2, chain)``.

    Returns:
      ``first``, ``other`` and ``allowed`` of ``move``, shape ``(3, chain)``.
    """
    chains = uniforms.shape[1]
    half = chains // 2
    lower = jnp.arange(chains) < half
    start, length = jnp.where(lower, half, 0), jnp.where(lower, chains - half, half)
    first, other = (start + jnp.minimum((u * length).astype(jnp.int32), length - 1) for u in uniforms)
    everyone = jnp.ones_like(lower)
    return jnp.stack([first] * 3), jnp.stack([other] * 3), jnp.stack([everyone, lower, ~lower])


def _powers(u: Array, z: PyTree) -> Array:
    """Logarithms by which each entry of ``z`` is stretched, shape ``(d,)``."""
    sizes = [leaf.size for leaf in jax.tree.leaves(z)]
    entries, leaves = np.arange(sum(sizes)), np.repeat(np.arange(len(sizes)), sizes)
    by_leaf = (u[0] < 0.5) & (len(sizes) > 1)
    labels = jnp.where(by_leaf, leaves, entries)
    count = jnp.where(by_leaf, len(sizes), len(entries))
    first = _index(u[1], count)
    other = _index(u[2], jnp.maximum(count - 1, 1))
    # another than the first; where there is only one, none
    other = jnp.where(count > 1, jnp.where(other >= first, other + 1, other), -1)
    ratio = jnp.asarray(_RATIOS, u.dtype)[_index(u[3], len(_RATIOS))]
    size = jnp.exp(_between(u[4], *_STRETCHES)) * ndtri(u[5])
    return jnp.where(labels == first, size, jnp.where(labels == other, -ratio * size, 0.0))


def _index(u: Array, count: Array | int) -> Array:
    return jnp.minimum((u * count).astype(jnp.int32), count - 1)


def _between(u: Array, low: float, high: float) -> Array:
    return low + (high - low) * u


def _scaled(z: PyTree, powers: Array) -> PyTree:
    leaves, structure = jax.tree.flatten(z)
    pieces, start = [], 0
    for leaf in leaves:
        factor = jnp.exp(powers[start : start + leaf.size]).reshape(leaf.shape)
        pieces.append((leaf * factor).astype(leaf.dtype))
        start += leaf.size
    return jax.tree.unflatten(structure, pieces)


def _tested(
    uniform: Array,
    posterior: LocalPosterior,
    batch: Batch,
    state: MetropolisState,
    position: PyTree,
    log_volume: Array,
    allowed: Array,
) -> MetropolisState:
    """The proposal or the state, ``log_volume`` being the logarithm of the proposal's change of volume."""
    evaluation = evaluate(posterior, position, batch)
    change = posterior.nbeta * (evaluation.excess - state.evaluation.excess)
    change = change + 0.5 * posterior.gamma * tree.norm_squared_change(position, state.position) - log_volume
    # what is not finite is not taken
    taken = (jnp.log(uniform) < -change) & jnp.isfinite(evaluation.excess) & state.known & allowed
    proposal = MetropolisState(position, evaluation, state.known)
    return jax.tree.map(lambda new, old: jnp.where(taken, new, old), proposal, state)
