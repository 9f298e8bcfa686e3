"""Replicas at a ladder of temperatures that move by themselves and change places: one program for all of them."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from slt_jax import sharding, tree
from slt_jax.curvature import curvatures
from slt_jax.ladder.groups import ENTRIES, log_sizes, virial_parts
from slt_jax.ladder.moves import Numbers, between_halves, between_rungs, move, numbers_for
from slt_jax.posterior import LocalPosterior, full_batch
from slt_jax.samplers import Info
from slt_jax.samplers.base import MetropolisState, metropolis_init, metropolis_move
from slt_jax.types import Array, Key, PyTree, Scalar

#: Longest step of a trajectory in units of the inverse of the frequency where it is: stable below 2.
_LONGEST = 1.0
#: Share of the sites whose curvature allows at least the longest step of their rung.
_SOFT = 0.2
#: Acceptance to which the steps of a rung are led, and how fast.
_ACCEPTANCE, _GAIN = 0.75, 1.5
#: Every so many sweeps a trajectory is so many times longer: where one direction is a hundred times stiffer than
#: another, most short ones and a few long ones cross both at the cost of what is between.
_LONGER = ((5, 2, 4), (20, 19, 16))
#: Free parameters beyond which no positions are kept.
POSITIONS = 4096


class Rungs(NamedTuple):
    """The temperatures and how far a trajectory goes at each; all of shape ``(rung,)``, from hot to cold.

    Attributes:
      nbeta: ``nβ``.
      shortest, longest: Logarithms of the steps between which each trajectory draws its own: along the arms of a
        singularity the curvature varies over decades, and no single step is right.
    """

    nbeta: Array
    shortest: Array
    longest: Array


class Record(NamedTuple):
    """What was seen; the leading axes are ``(rung, chain, draw)``.

    Attributes:
      excess: ``K = L(w) - L(w*)``, nats.
      virial: ``⟨z, ∇U⟩ / d``.
      work, pull: The two parts of ``⟨z, ∇U⟩`` for each group of ``contact``: ``Σ z_i nβ ∂_i L`` and ``Σ γ z_i²``, shape
        ``(rung, chain, draw, group)``; the mean of their sum is the number of entries.
      distance_squared: ``|z|²``.
      contact: ``log |z_i|`` for each entry of ``z`` where there are at most 64, else its sum over each leaf, shape
        ``(rung, chain, draw, group)``.
      acceptance: Acceptance probability of the trajectories.
      swapped: Whether the place was exchanged with that of the next colder rung, or NaN where none was tried.
      positions: ``z`` at the ends of equal parts, leaves ``(rung, chain, part, ...)``; ``()`` where it is large.
    """

    excess: Array
    virial: Array
    work: Array
    pull: Array
    distance_squared: Array
    contact: Array
    acceptance: Array
    swapped: Array
    positions: PyTree


@partial(jax.jit, static_argnums=(3,))
def start(key: Key, posterior: LocalPosterior, data: PyTree, chains: int) -> MetropolisState:
    """Chains at the centre, with leading axis ``(chain,)``."""
    return jax.vmap(metropolis_init, in_axes=(0, None, None))(jax.random.split(key, chains), posterior, data)


def length(time: Array | int) -> Array | int:
    """By how much longer than the shortest the trajectory of a sweep is.

    >>> [length(time) for time in (0, 2, 7, 19)]
    [1, 4, 4, 16]
    """
    (often, first, long), (seldom, last, longest) = _LONGER
    return 1 + (long - 1) * (time % often == first) + (longest - 1) * (time % seldom == last)


def gradients(sweeps: int, leapfrogs: int, moves: int) -> int:
    """Gradients of a replica in so many sweeps."""
    return sum(leapfrogs * int(length(time)) + moves for time in range(sweeps))


def steps_for(posterior: LocalPosterior, nbeta: Scalar, curvature: Array) -> tuple[Array, Array]:
    """Logarithms of the shortest and the longest step for the curvatures ``(chain,)`` met at one temperature.

    A step of ``1 / √(nβ h + γ)`` is right where the curvature is h: the shortest serves the stiffest chain, the longest
    the softest fifth of them.
    """
    rates = jnp.sort(0.5 * jnp.log(nbeta * curvature + posterior.gamma))
    finite = jnp.where(jnp.isfinite(rates), rates, jnp.nan)
    stiffest = jnp.nan_to_num(jnp.nanmax(finite))
    softest = jnp.nan_to_num(jnp.nanquantile(finite, _SOFT))
    return jnp.log(_LONGEST) - stiffest, jnp.log(_LONGEST) - softest


@partial(jax.jit, static_argnums=(6,))
def descend(
    key: Key,
    posterior: LocalPosterior,
    data: PyTree,
    state: MetropolisState,
    nbeta: Scalar,
    leapfrogs: Scalar,
    moves: int,
) -> tuple[MetropolisState, tuple[Array, Array], Array]:
    """One rung down: chains from the rung above come to equilibrium at ``nβ``, with steps found where they are.

    Args:
      key: A typed key.
      posterior: Its ``nβ`` is not used.
      data: Its examples.
      state: Of the rung above, leading axis ``(chain,)``.
      nbeta: The new ``nβ``.
      leapfrogs: Steps of a short trajectory.
      moves: Sweeps; the steps are led towards the right acceptance at each of them.

    Returns:
      The states, the logarithms of the shortest and longest step, and the excess after each sweep, shape
      ``(chain, moves)``.
    """
    curvature_key, move_key = jax.random.split(key)
    batch = full_batch(posterior, data)
    met = curvatures(curvature_key, posterior, batch, state.position)
    shortest, longest = steps_for(posterior, nbeta, met)
    few = tree.size(jax.eval_shape(posterior.restriction.origin, posterior.center)) <= ENTRIES

    chains = jax.tree.leaves(state)[0].shape[0]
    nbetas = jnp.broadcast_to(nbeta, (chains,))

    def sweep(
        carry: tuple[MetropolisState, Array], at: tuple[Key, Array]
    ) -> tuple[tuple[MetropolisState, Array], Array]:
        state, shift = carry
        numbers = numbers_for(at[0], posterior, chains, 3)
        steps = jnp.exp(shortest + shift + numbers.step * (longest - shortest))
        state, info = _trajectories(numbers, posterior, batch, nbetas, steps, state, leapfrogs * length(at[1]))
        if few:
            who = between_halves(numbers.pairs)
            state = move(numbers.moves, posterior, batch, nbetas, state, *who)
        shift = shift + _GAIN * (jnp.mean(info.acceptance) - _ACCEPTANCE) / jnp.sqrt(1.0 * moves)
        return (state, shift.astype(shortest.dtype)), state.evaluation.excess

    carry = (state, jnp.zeros((), shortest.dtype))
    (state, shift), excess = jax.lax.scan(sweep, carry, (jax.random.split(move_key, moves), jnp.arange(moves)))
    return state, (shortest + shift, longest + shift), excess.T


@partial(jax.jit, static_argnums=(6, 7))
def run(
    key: Key,
    posterior: LocalPosterior,
    data: PyTree,
    rungs: Rungs,
    state: MetropolisState,
    leapfrogs: Scalar,
    sweeps: int,
    parts: int,
) -> tuple[MetropolisState, Record]:
    """Sweeps of all replicas: a trajectory of each, then exchanges between neighbours.

    Rungs ``k`` and ``k+1``, even and odd pairs in turn, change places with probability
    ``min(1, exp((nβ_k - nβ_{k+1}) (K_k - K_{k+1})))``, which leaves the product of all laws invariant.

    Args:
      key: A typed key.
      posterior: Its ``nβ`` is not used.
      data: Its examples.
      rungs: Temperatures and steps.
      state: Leading axes ``(rung, chain)``.
      leapfrogs: Steps of a short trajectory, a gradient each; some are 4 and 16 times as long.
      sweeps: Draws of each replica, a multiple of ``parts``.
      parts: How often positions are kept.

    Returns:
      The states at the end, and the record.

    Source: Swendsen & Wang 1986, doi:10.1103/PhysRevLett.57.2607 (exchange of replicas); Duane et al. 1987,
    doi:10.1016/0370-2693(87)91197-X (trajectories).
    """
    batch = sharding.spread(full_batch(posterior, data), sharding.BATCH)
    origin = jax.eval_shape(posterior.restriction.origin, posterior.center)
    small, few = tree.size(origin) <= POSITIONS, tree.size(origin) <= ENTRIES

    count, chains = jax.tree.leaves(state)[0].shape[:2]
    nbetas, span = _repeated(rungs.nbeta, chains), rungs.longest - rungs.shortest
    state = jax.tree.map(lambda leaf: leaf.reshape(count * chains, *leaf.shape[2:]), state)

    def sweep(
        state: MetropolisState, at: tuple[Key, Array]
    ) -> tuple[MetropolisState, tuple[Info, tuple, Array, Array]]:
        state = sharding.split(state, (sharding.TEMPERATURES, sharding.CHAINS))
        numbers = numbers_for(at[0], posterior, count * chains, 2)
        # what the trajectories start from, as all that they report
        contact = jax.vmap(log_sizes)(state.position)
        parts = jax.vmap(partial(virial_parts, posterior))(nbetas, state.position, state.evaluation.gradient)
        steps = jnp.exp(_repeated(rungs.shortest, chains) + numbers.step * _repeated(span, chains))
        state, info = _trajectories(numbers, posterior, batch, nbetas, steps, state, leapfrogs * length(at[1]))
        if few:
            state = move(numbers.moves, posterior, batch, nbetas, state, *between_rungs(count, chains, at[1]))
        state, swapped = _swap(numbers.swap, rungs.nbeta, state, at[1] % 2)
        return state, (info, parts, contact, swapped)

    def part(state: MetropolisState, at: tuple[Key, Array]) -> tuple[MetropolisState, tuple[PyTree, PyTree]]:
        state, seen = jax.lax.scan(sweep, state, at)
        return state, (seen, state.position if small else ())

    keys = jax.random.split(key, (parts, sweeps // parts))
    times = jnp.arange(sweeps).reshape(keys.shape)
    state, (seen, positions) = jax.lax.scan(part, state, (keys, times))

    def apart(leaf: Array) -> Array:
        """From ``(draw, replica, ...)`` to ``(rung, chain, draw, ...)``."""
        return jnp.moveaxis(leaf.reshape(leaf.shape[0], count, chains, *leaf.shape[2:]), 0, 2)

    seen = jax.tree.map(lambda leaf: apart(leaf.reshape(-1, *leaf.shape[2:])), seen)
    info, (work, pull), contact, swapped = seen
    state = jax.tree.map(lambda leaf: leaf.reshape(count, chains, *leaf.shape[1:]), state)
    record = Record(
        excess=info.excess,
        virial=info.virial,
        work=work,
        pull=pull,
        distance_squared=info.distance_squared,
        contact=contact,
        acceptance=info.acceptance,
        swapped=swapped,
        positions=jax.tree.map(apart, positions),
    )
    # what is read off it is about all rungs together
    return state, sharding.whole(record)


@jax.jit
def steps_at(key: Key, posterior: LocalPosterior, data: PyTree, rungs: Rungs, state: MetropolisState) -> Rungs:
    """The rungs with steps for where their chains are, state axes ``(rung, chain)``; as short as before at least."""
    count, chains = jax.tree.leaves(state)[0].shape[:2]
    points = jax.tree.map(lambda leaf: leaf.reshape(count * chains, *leaf.shape[2:]), state.position)
    met = curvatures(key, posterior, full_batch(posterior, data), points).reshape(count, chains)
    shortest, longest = jax.vmap(partial(steps_for, posterior))(rungs.nbeta, met)
    return rungs._replace(
        shortest=jnp.minimum(shortest, rungs.shortest).astype(rungs.shortest.dtype),
        longest=jnp.minimum(longest, jnp.maximum(rungs.longest, rungs.shortest)).astype(rungs.longest.dtype),
    )


def led(rungs: Rungs, acceptance: Array) -> Rungs:
    """The rungs with steps changed for the acceptance ``(rung,)`` that was seen with them."""
    shift = _GAIN * (acceptance - _ACCEPTANCE)
    return rungs._replace(shortest=rungs.shortest + shift, longest=rungs.longest + shift)


def _trajectories(
    numbers: Numbers,
    posterior: LocalPosterior,
    batch: PyTree,
    nbetas: Array,
    steps: Array,
    state: MetropolisState,
    leapfrogs: Scalar,
) -> tuple[MetropolisState, Info]:
    """A trajectory of each replica, leading axis ``(replica,)``."""
    known = jnp.all(state.known)

    def one(nbeta: Array, step: Array, momentum: PyTree, uniform: Array, state: MetropolisState) -> tuple:
        tempered = posterior._replace(nbeta=nbeta)
        return metropolis_move(step, leapfrogs, momentum, uniform, state, known, tempered, batch)

    return jax.vmap(one)(nbetas, steps, numbers.momentum, numbers.accept, state)


def _swap(uniform: Array, nbeta: Array, state: MetropolisState, parity: Array) -> tuple[MetropolisState, Array]:
    """Exchanges within each chain; the state's axis is ``(rung · chain,)``, and so is that of what is returned."""
    count = nbeta.shape[0]
    excess = state.evaluation.excess.reshape(count, -1)
    chains = excess.shape[1]
    rung = jnp.arange(count)
    partner = jnp.where((rung + parity) % 2 == 0, rung + 1, rung - 1)
    partner = jnp.where((partner < 0) | (partner >= count), rung, partner)
    gain = (nbeta - nbeta[partner])[:, None] * (excess - excess[partner])
    # both of a pair read the same number; what is not finite is not exchanged
    level = jnp.log(uniform.reshape(count, chains))[jnp.minimum(rung, partner)]
    taken = (level < gain) & (partner != rung)[:, None]
    source = jnp.where(taken, partner[:, None], rung[:, None]) * chains + jnp.arange(chains)[None, :]
    state = jax.tree.map(lambda leaf: leaf[source.ravel()], state)
    tried = (partner == rung + 1)[:, None]
    return state, jnp.where(tried, taken.astype(gain.dtype), jnp.nan).ravel()


def _repeated(of_rung: Array, chains: int) -> Array:
    return jnp.repeat(of_rung, chains)
