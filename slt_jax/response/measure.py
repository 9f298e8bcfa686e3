"""One component, and many of one shape side by side: chains, covariances along them, and their controls."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from slt_jax import tree
from slt_jax.compiled import make_room
from slt_jax.estimators import Health, Schedule
from slt_jax.posterior import LocalPosterior
from slt_jax.response.chain import ENOUGH, sound, watch
from slt_jax.response.controls import gaussian_sums, prior_moments
from slt_jax.response.covariance import Pairs
from slt_jax.response.observables import Observed, recorder
from slt_jax.response.sums import Sums, against, covariances, nothing
from slt_jax.restriction import Restriction, by_shape
from slt_jax.samplers import Sampler
from slt_jax.sampling import Fold
from slt_jax.types import Array, Key, PyTree


class Component(NamedTuple):
    """What the chains of one component gave.

    Attributes:
      energies: ``L - L*`` at each draw, ``(chain, draw)``.
      changes: Of the data sets, ``(chain, draw, set)``.
      posterior: Covariances with every column, leaves ``(column,)``.
      prior, gaussian: The same of the controls, or None.
      against: ``E[φ (Δ - E_free[Δ])]`` and its error, ``(column,)``, or None without a free chain.
      ess: Effective draws, ``()``.
      health: The verdict, leaves ``()``.
    """

    energies: Array
    changes: Array
    posterior: Pairs
    prior: Pairs | None
    gaussian: Pairs | None
    against: tuple[Array, Array] | None
    ess: Array
    health: Health


class Chains(NamedTuple):
    """What the chains of all components have in common.

    Attributes:
      posterior: Of any restriction.
      data: Its examples.
      look: ``look(params) -> (energy, columns)``.
      record: The ``add`` of the fold.
      sampler: Run as it is, or None.
      batch_key: Gives the batches of all of them.
    """

    posterior: LocalPosterior
    data: PyTree
    look: PyTree
    record: PyTree
    sampler: Sampler | None
    batch_key: Key


class Sizes(NamedTuple):
    """What programs depend on beside shapes: the lengths of the chains, the columns, and what is asked for."""

    schedule: Schedule
    columns: int
    fixed: bool
    controls: bool


def chains_of(
    posterior: LocalPosterior, data: PyTree, found: Observed, sampler: Sampler | None, batch_key: Key, draws: int
) -> Chains:
    """The common part of all components."""
    return Chains(posterior, data, found.look, recorder(found, draws), sampler, batch_key)


def free_chains(key: Key, common: Chains, restriction: Restriction, sizes: Sizes) -> tuple[Sums, Array, Health]:
    """The sums along chains in which everything moves, their effective draws and their verdict."""
    _, sums, ess, health = _watched(key, common, restriction, sizes)
    return sums, ess, health


def measure(key: Key, common: Chains, restriction: Restriction, free: Sums | None, sizes: Sizes) -> Component:
    """The chains of one component, and its controls.

    Args:
      key: A typed key, the component's own.
      common: What all components share.
      restriction: What is free.
      free: Sums along the free chains, or None.
      sizes: Whole numbers.
    """
    chain_key, prior_key, gaussian_key = jax.random.split(key, 3)
    seen, sums, ess, health = _watched(chain_key, common, restriction, sizes)
    draws = sizes.schedule.draws
    prior = gaussian = None
    if sizes.controls:
        posterior = common.posterior._replace(restriction=restriction)
        length = sizes.schedule.chains, draws, sizes.columns
        of_prior, of_chain = prior_moments(posterior), (seen.mean, seen.variance)
        prior = covariances(gaussian_sums(prior_key, posterior, common.look, *of_prior, *length), draws)
        gaussian = covariances(gaussian_sums(gaussian_key, posterior, common.look, *of_chain, *length), draws)
    energies, changes, _ = seen.observed
    beside = None if free is None else against(sums, free, draws)
    return Component(energies, changes, covariances(sums, draws), prior, gaussian, beside, ess, health)


def measure_all(
    keys: list[Key],
    common: Chains,
    restrictions: Mapping[str, Restriction],
    free: Sums | None,
    sizes: Sizes,
    together: int,
) -> Component:
    """All components, those of one shape so many at a time in one program; leaves with a leading axis ``component``.

    On the host, where the length is not fixed, a component that was run beside others and is not sound is run again by
    itself, from its start, as long as it takes.
    """
    at = dict(zip(restrictions, keys, strict=True))
    found: dict[str, Component] = {}
    traced = tree.is_traced((keys, common))
    for group in by_shape(restrictions):
        for start in range(0, len(group.names), together):
            few = group.names[start : start + together]
            if not traced:
                make_room()
            if len(few) > 1:
                some = jax.tree.map(lambda leaf, i=start: leaf[i : i + together], group.restriction)
                beside = _side_by_side(jnp.stack([at[name] for name in few]), some, common, free, sizes)
                found |= {name: jax.tree.map(lambda leaf, n=n: leaf[n], beside) for n, name in enumerate(few)}
            for name in few:
                if name not in found or not (traced or sizes.fixed or _settled(found[name])):
                    found[name] = measure(at[name], common, restrictions[name], free, sizes)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *[found[name] for name in restrictions])


@partial(jax.jit, static_argnums=4)
def _side_by_side(keys: Key, restrictions: Restriction, common: Chains, free: Sums | None, sizes: Sizes) -> Component:
    return jax.vmap(lambda key, one: measure(key, common, one, free, sizes))(keys, restrictions)


def _settled(component: Component) -> bool:
    return bool(sound(component.health, component.ess) & (component.ess >= ENOUGH))


def _watched(key: Key, common: Chains, restriction: Restriction, sizes: Sizes):  # type: ignore[no-untyped-def]
    posterior = common.posterior._replace(restriction=restriction)
    chains, draws = sizes.schedule.chains, sizes.schedule.draws
    fold = Fold(nothing(chains, draws, sizes.columns, posterior.nbeta.dtype), common.record)
    seen = watch(
        key,
        posterior,
        common.data,
        common.look,
        sizes.schedule,
        common.sampler,
        fixed=sizes.fixed,
        fold=fold,
        batch_key=common.batch_key,
    )
    return seen._replace(folded=()), seen.folded, seen.ess, seen.health
