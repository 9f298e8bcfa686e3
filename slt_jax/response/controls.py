"""What a susceptibility would be without the posterior: the prior alone, and a Gaussian with the same marginals."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax import tree
from slt_jax.posterior import LocalPosterior
from slt_jax.types import Array, Key, PyTree


@partial(jax.jit, static_argnums=(5, 6))
def gaussian_draws(
    key: Key, posterior: LocalPosterior, observe: Partial, mean: PyTree, variance: PyTree, chains: int, draws: int
) -> PyTree:
    """``observe(params)`` at independent draws ``z ~ N(mean, variance)``, each entry of ``z`` by itself.

    Args:
      key: A typed key.
      posterior: Knows the centre and what is free.
      observe: ``observe(params)``, as along the chains.
      mean, variance: Of each entry, trees like ``z``.
      chains, draws: How many; named as those of a chain, though no draw knows of another.

    Returns:
      What was observed, leading axes ``(chain, draw)``.
    """

    def look(key: Key) -> PyTree:
        noise = tree.exact_normal(key, mean)
        z = tree.combine(lambda m, v, xi: m + jnp.sqrt(v) * xi, mean, variance, noise)
        return observe(posterior.restriction.lift(posterior.center, z))

    keys = jax.random.split(key, (draws, chains))
    seen = jax.lax.map(jax.vmap(look), keys)
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), seen)


def prior_moments(posterior: LocalPosterior) -> tuple[PyTree, PyTree]:
    """Mean and variance of ``N(0, 1/γ)``, the posterior at ``nβ = 0``; infinite at ``γ = 0``, where there is none."""
    origin = posterior.restriction.origin(posterior.center)
    variance: Array = 1 / posterior.gamma
    return origin, jax.tree.map(lambda leaf: jnp.full_like(leaf, variance), origin)
