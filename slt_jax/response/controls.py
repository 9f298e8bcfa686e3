"""What a susceptibility would be without the posterior: the prior alone, and a Gaussian with the same marginals."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax import tree
from slt_jax.noise import exact_normal
from slt_jax.posterior import LocalPosterior
from slt_jax.response.sums import Sums, nothing, with_draw
from slt_jax.types import Array, Key, PyTree


@partial(jax.jit, static_argnums=(5, 6, 7))
def gaussian_sums(
    key: Key,
    posterior: LocalPosterior,
    look: Partial,
    mean: PyTree,
    variance: PyTree,
    chains: int,
    draws: int,
    columns: int,
) -> Sums:
    """Sums over independent draws ``z ~ N(mean, variance)``, each entry of ``z`` by itself.

    Args:
      key: A typed key.
      posterior: Knows the centre and what is free.
      look: ``look(params) -> (energy, columns)``, as along the chains.
      mean, variance: Of each entry, trees like ``z``.
      chains, draws: How many; named as those of a chain, though no draw knows of another.
      columns: How many ``look`` returns.

    Returns:
      Sums as they would be along chains.
    """

    def one(key: Key) -> tuple[Array, Array]:
        noise = exact_normal(key, mean)
        z = tree.combine(lambda m, v, xi: m + jnp.sqrt(v) * xi, mean, variance, noise)
        return look(posterior.restriction.lift(posterior.center, z))

    def add(sums: Sums, step: tuple[Key, Array]) -> tuple[Sums, None]:
        keys, draw = step
        return with_draw(sums, *jax.vmap(one)(keys), draw, draws), None

    steps = jax.random.split(key, (draws, chains)), jnp.arange(draws)
    return jax.lax.scan(add, nothing(chains, draws, columns, posterior.nbeta.dtype), steps)[0]


def prior_moments(posterior: LocalPosterior) -> tuple[PyTree, PyTree]:
    """Mean and variance of ``N(0, 1/γ)``, the posterior at ``nβ = 0``; infinite at ``γ = 0``, where there is none."""
    origin = posterior.restriction.origin(posterior.center)
    variance: Array = 1 / posterior.gamma
    return origin, jax.tree.map(lambda leaf: jnp.full_like(leaf, variance), origin)
