"""Populations that go down through the levels of a loss, half of their members replaced by copies at each."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import tree
from slt_jax.ladder.constrained import FIRST, ROUND, Members, wander
from slt_jax.noise import exact_normal
from slt_jax.posterior import LocalPosterior, excess, full_batch
from slt_jax.types import Array, Key, PyTree


class Level(NamedTuple):
    """The members at one level; leading axis ``(population,)``.

    Attributes:
      level: Below which they are, infinite at the prior.
      share: Of those before that were below it.
      excess, parents: Where they are after their moves and whose copies they were, shape ``(population, member)``.
      active: Whether the level is a new one: it is not where half of the members are deep enough, or none was left.
    """

    level: Array
    share: Array
    excess: Array
    parents: Array
    active: Array


def descend_levels(
    key: Key,
    posterior: LocalPosterior,
    data: PyTree,
    target: float,
    live: int,
    populations: int,
    levels: int,
    rounds: int,
) -> list[Level]:
    """From the prior on, until half of the members of each population are below ``target``, or ``levels`` were taken.

    A level is the ``K`` of the first member above the lower half, so that ``1/2`` over the volume below the level has
    mean 1 over ideal draws, and the product of the shares is an unbiased volume.

    Args:
      key: A typed key.
      posterior: Its ``nβ`` is not used.
      data: All examples.
      target: In nats.
      live: Members of a population.
      populations: How many, independent of one another.
      levels: The most that are taken.
      rounds: Of moves at each level.

    Returns:
      The members at each level, the prior the first of them: arrays of numpy. In double precision, where it is on.

    Raises:
      ValueError: the loss is finite at no draw of the prior of some population.

    Source: Cérou & Guyader 2007, doi:10.1080/07362990601139628; unbiased where draws are ideal: Bréhier, Lelièvre &
    Rousset 2015, doi:10.1051/ps/2014029.
    """
    start_key, key = jax.random.split(key)
    members, first = _from_prior(jax.random.split(start_key, populations), posterior, data, live)
    seen = [jax.tree.map(np.asarray, first)]
    if not np.isfinite(seen[0].excess).any(axis=1).all():
        raise ValueError(
            "loss_fn: its loss is finite at no draw of the prior N(0, 1/γ); raise gamma, or check the loss."
        )
    schedule = jnp.asarray(ROUND * rounds, jnp.int32)
    for level in range(levels):
        keys = jax.random.split(jax.random.fold_in(key, level), populations)
        members, found = _lowered(keys, posterior, data, members, jnp.asarray(target), schedule)
        if not np.asarray(found.active).any():
            break
        seen.append(jax.tree.map(np.asarray, found))
    return seen


@partial(jax.jit, static_argnums=(3,))
def _from_prior(keys: Key, posterior: LocalPosterior, data: PyTree, live: int) -> tuple[Members, Level]:
    batch, origin = full_batch(posterior, data), posterior.restriction.origin(posterior.center)

    def one(key: Key) -> tuple[Array, PyTree]:
        position = tree.scale(1 / jnp.sqrt(posterior.gamma), exact_normal(key, origin))
        value = excess(posterior, position, batch)
        return jnp.where(jnp.isnan(value), jnp.inf, value), position

    values, position = jax.vmap(lambda key: jax.vmap(one)(jax.random.split(key, live)))(keys)
    whole = jnp.ones(len(keys))
    parents = jnp.broadcast_to(jnp.arange(live), values.shape)
    first = Level(jnp.inf * whole, whole, values, parents, whole > 0)
    return Members(position, values, jnp.tile(jnp.asarray(FIRST), (len(keys), 1))), first


@jax.jit
def _lowered(
    keys: Key, posterior: LocalPosterior, data: PyTree, members: Members, target: Array, schedule: Array
) -> tuple[Members, Level]:
    """One level down for each population: the upper half is replaced by copies of the lower, and all of them move."""
    batch = full_batch(posterior, data)

    def one(key: Key, members: Members) -> tuple[Members, Level]:
        count = members.excess.shape[0]
        order = jnp.argsort(members.excess)
        level = members.excess[order[count // 2]]
        kept = jnp.sum(members.excess < level)
        active = (level > target) & (kept > 0)
        parents = jnp.where(active, order[jnp.arange(count) % jnp.maximum(kept, 1)], jnp.arange(count))
        position, values = jax.tree.map(lambda leaf: leaf[parents], (members.position, members.excess))
        moved = wander(key, posterior, batch, Members(position, values, members.angles), level, schedule)
        moved = jax.tree.map(lambda new, old: jnp.where(active, new, old), moved, members)
        return moved, Level(level, kept / count, moved.excess, parents, active)

    return jax.vmap(one)(keys, members)
