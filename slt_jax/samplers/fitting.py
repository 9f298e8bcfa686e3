"""The descent of a guide to the posterior: annealed, with nothing to tune."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from slt_jax.posterior import Batch, LocalPosterior, dimension, full_batch
from slt_jax.samplers.guides.base import Guide, potential
from slt_jax.types import Array, Key, PyTree, Scalar

#: Share of the steps over which ``nβ`` rises to its value, and from which on the rate falls.
_ANNEALED, _STEADY = 0.4, 0.5
#: Rate of Adam in the natural unit of the guide's numbers, and what is left of it at the end.
_RATE, _LEAST = 0.02, 0.01
#: Memory of the running mean of the bound by which the best point of the path is chosen.
_MEMORY = 0.98
#: Looks at the point that is kept, after the descent, two independent halves of them.
_LOOKS = 16
#: Longest gradient that is followed, for each root of a free direction.
_LONGEST = 10.0


class Fit(NamedTuple):
    """A fitted guide: a tree that can draw by itself.

    Attributes:
      guide: The family.
      free, fixed: Its numbers, as ``guide.init`` made them and the descent left them.
      slope: Length of the gradient of the bound at the point that was kept, less what two independent
        halves of 16 looks at it differ by, nats in the natural unit of the guide's numbers, shape ``()``: 0 where
        nothing but noise is left, and above 1 it has not arrived.
      skipped: Share of the steps that were not taken since a number in them was not finite, shape ``()``.
    """

    guide: Guide
    free: PyTree
    fixed: PyTree
    slope: Array
    skipped: Array


class _Path(NamedTuple):
    free: PyTree
    momenta: PyTree
    best: PyTree
    running: Array
    lowest: Array
    taken: Array
    looks: PyTree


def fit(
    key: Key, guide: Guide, posterior: LocalPosterior, data: PyTree, *, steps: Scalar = 2000, samples: int = 32
) -> Fit:
    """The member of a guide's family nearest to the posterior: least ``E_q[nβ K - log φ + log q]``.

    Adam on draws of the guide. ``nβ`` rises geometrically from where it is γ to its value in the first 40 % of the
    steps, so that the guide starts wide and is squeezed; the rate falls in the second half; a step with a number that
    is not finite is not taken; and the point of the path is kept at which the running mean of the bound was least.
    Where the density of the guide is at hand, the gradient is taken along the path of the draws alone: its noise
    vanishes where the guide is exact.

    Args:
      key: A typed key.
      guide: The family.
      posterior: What it is fitted to; γ must be positive.
      data: All examples; every step looks at all of them.
      steps: Of the descent; may be traced, changing it compiles nothing.
      samples: Draws a step, each a gradient.

    Returns:
      A fit. Works under jit and vmap.

    Not to be believed to have found the best member: the bound is not convex, and independent fits may end in
    different places. Any of them bounds the free energy; the lowest bounds it best.

    Sources: Kingma & Welling 2014, arXiv:1312.6114 (reparametrisation); Roeder, Wu & Duvenaud 2017, arXiv:1703.09194
    (the path alone); Mandt et al. 2016, arXiv:1411.1810 (annealing).
    """
    import optax

    batch = full_batch(posterior, data)
    init_key, run_key = jax.random.split(key)
    free, fixed = guide.init(init_key, posterior, batch)
    size = max(dimension(posterior), 1)
    optimizer = optax.chain(optax.clip_by_global_norm(_LONGEST * size**0.5), optax.scale_by_adam(b2=0.99))
    colder = jnp.log(jnp.maximum(posterior.nbeta / posterior.gamma, 1.0))
    total = jnp.asarray(steps, posterior.nbeta.dtype)

    def step(index: Array, path: _Path) -> _Path:
        time = index / total
        warmth = colder * jnp.maximum(1 - time / _ANNEALED, 0.0)
        at = posterior._replace(nbeta=posterior.nbeta * jnp.exp(-warmth))
        keys = jax.random.split(jax.random.fold_in(run_key, index), samples)
        descending = index < total
        point = jax.tree.map(lambda x, y: jnp.where(descending, x, y), path.free, path.best)
        value, slope = jax.value_and_grad(mean_bound)(point, guide, fixed, keys, at, batch)
        half = (index % 2).astype(jnp.int32)
        looks = jax.tree.map(lambda x, g: x.at[half].add(jnp.where(descending, 0.0, g)), path.looks, slope)
        good = jnp.isfinite(value) & jnp.all(jnp.stack([jnp.isfinite(g).all() for g in jax.tree.leaves(slope)]))
        change, momenta = optimizer.update(slope, path.momenta)
        fall = jnp.clip((time - _STEADY) / (1 - _STEADY), 0.0, 1.0)
        rate = _RATE * (_LEAST + (1 - _LEAST) * 0.5 * (1 + jnp.cos(jnp.pi * fall)))
        moved = jax.tree.map(lambda x, c: x - rate.astype(x.dtype) * c, path.free, change)
        free, momenta = jax.tree.map(
            lambda new, old: jnp.where(good, new, old), (moved, momenta), (path.free, path.momenta)
        )
        good = good & descending
        settled = time >= _STEADY
        running = jnp.where(
            good & settled,
            jnp.where(jnp.isinf(path.running), value, _MEMORY * path.running + (1 - _MEMORY) * value),
            path.running,
        )
        # a running mean that has only begun is no mean
        lower = settled & good & (running <= path.lowest) & (time >= _STEADY + 0.1)
        return _Path(
            free,
            momenta,
            jax.tree.map(lambda new, old: jnp.where(lower, new, old), free, path.best),
            running,
            jnp.where(lower, running, path.lowest),
            path.taken + good,
            looks,
        )

    zero = jnp.zeros((), posterior.nbeta.dtype)
    none = jax.tree.map(lambda x: jnp.stack([jnp.zeros_like(x)] * 2), free)
    start = _Path(free, optimizer.init(free), free, zero + jnp.inf, zero + jnp.inf, zero, none)
    end = jax.lax.fori_loop(0, jnp.asarray(steps, jnp.int32) + _LOOKS, step, start)
    first, second = (jnp.concatenate([x[half].ravel() for x in jax.tree.leaves(end.looks)]) for half in (0, 1))
    # what the halves do not share is noise, of which their product still holds some by chance
    squared = jnp.sum(first * second) - 0.5 * jnp.sum((first - second) ** 2)
    length = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), jnp.abs(0.0 * squared)) / (
        _LOOKS / 2
    )
    return Fit(guide, end.best, fixed, length, (total - end.taken) / jnp.maximum(total, 1.0))


def mean_bound(free: PyTree, guide: Guide, fixed: PyTree, keys: Key, posterior: LocalPosterior, batch: Batch) -> Array:
    """Mean of ``nβ K - log φ + log q`` over draws of a guide, nats, shape ``()``, differentiable in ``free``."""

    def one(key: Key) -> Array:
        z, density = guide.draw(free, fixed, key, posterior, batch)
        if guide.log_density is not None:
            still = jax.lax.stop_gradient(free)
            density = guide.log_density(still, fixed, z, posterior, batch)
        return potential(z, posterior, batch) + density

    return jnp.mean(jax.vmap(one)(keys))
