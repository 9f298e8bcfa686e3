"""A coupling out of the loss itself: block after block, each the Gaussian that the curvature says it is, given those
before it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax.posterior import Batch, LocalPosterior
from slt_jax.samplers.guides.base import excess_at
from slt_jax.types import Array, Key

#: Orders of blocks that are tried before the descent.
CANDIDATES = 256
#: Orders that are looked at again, and how often.
_SHORT = 16


class Block(NamedTuple):
    """The conditional Gaussian of one block: ``P = nβ H + γ`` on its entries and 1 on the others, ``P = L Lᵀ``.

    Attributes:
      mean: Where it is centred, 0 outside the block, shape ``(d,)``.
      root: ``L``, shape ``(d, d)``.
    """

    mean: Array
    root: Array


def conditional(member: Array, before: Array, posterior: LocalPosterior, batch: Batch) -> Block:
    """The block ``member`` (a mask, shape ``(d,)``) given what is ``before`` it, all that comes later at the centre."""

    def energy(z: Array) -> Array:
        return posterior.nbeta * excess_at(z, posterior, batch)

    slope, hessian = jax.grad(energy)(before), jax.hessian(energy)(before)
    inside = member[:, None] * member[None, :]
    precision = inside * hessian + jnp.diag(member * posterior.gamma + (1 - member))
    root = jnp.linalg.cholesky(precision)
    mean = -member * jax.scipy.linalg.cho_solve((root, True), member * slope)
    return Block(mean, root)


def down(stage: Array, blocks: int, y: Array, posterior: LocalPosterior, batch: Batch) -> tuple[Array, Array]:
    """``z`` of a round ``y``, block after block, and ``log |dz/dy|``; ``stage`` says which block each entry is in."""

    def lay(carry: tuple[Array, Array], index: Array) -> tuple[tuple[Array, Array], None]:
        z, volume = carry
        member = (stage == index).astype(y.dtype)
        block = conditional(member, z, posterior, batch)
        stretched = jax.scipy.linalg.solve_triangular(block.root.T, member * y, lower=False)
        z = z + member * (block.mean + stretched)
        return (z, volume - jnp.sum(jnp.log(jnp.diag(block.root)))), None

    # a scan compiles the second derivatives of the loss once
    return jax.lax.scan(lay, (jnp.zeros_like(y), jnp.zeros((), y.dtype)), jnp.arange(blocks))[0]


def up(stage: Array, blocks: int, z: Array, posterior: LocalPosterior, batch: Batch) -> tuple[Array, Array, Array]:
    """The round ``y`` of a ``z``, ``log |dz/dy|``, and the share of nβ in the precision along each entry of ``y``."""

    def lift(index: Array) -> tuple[Array, Array, Array]:
        member = (stage == index).astype(z.dtype)
        block = conditional(member, jnp.where(stage < index, z, 0.0), posterior, batch)
        inverse = jax.scipy.linalg.solve_triangular(block.root, jnp.diag(member), lower=True)
        share = member * (1 - posterior.gamma * jnp.sum(inverse**2, axis=1))
        y = member * (block.root.T @ (member * z - block.mean))
        return y, -jnp.sum(jnp.log(jnp.diag(block.root))), share

    y, volume, shares = jax.lax.map(lift, jnp.arange(blocks))
    return jnp.sum(y, axis=0), jnp.sum(volume), jnp.sum(shares, axis=0)


def orders(key: Key, posterior: LocalPosterior, blocks: int, count: int = CANDIDATES) -> Array:
    """Orders to be tried, shape ``(count, d)``: the number of the block that each entry of ``z`` is in.

    The first has one block: the Laplace approximation. In the others every leaf goes into a block as a whole or, as
    often, slice by slice along its last axis (the inputs of a layer, the units of a vector).
    """
    leaves = jax.tree.leaves(jax.eval_shape(posterior.restriction.origin, posterior.center))
    kind = posterior.nbeta.dtype

    def one(key: Key) -> Array:
        pieces = []
        for number, leaf in enumerate(leaves):
            if not leaf.size:
                continue
            whole_key, piece_key, choice_key = jax.random.split(jax.random.fold_in(key, number), 3)
            width = leaf.shape[-1] if leaf.ndim else 1
            whole = jax.random.randint(whole_key, (1,), 0, blocks)
            slices = jax.random.randint(piece_key, (width,), 0, blocks)
            chosen = jnp.where(jax.random.bernoulli(choice_key), jnp.broadcast_to(whole, (width,)), slices)
            pieces.append(jnp.tile(chosen, leaf.size // width))
        return jnp.concatenate(pieces).astype(kind)

    tried = jax.vmap(one)(jax.random.split(key, count))
    return tried.at[0].set(0.0) if np.prod(tried.shape) else tried


def lowest(key: Key, bound: Callable[[Array, Key], Array], tried: Array) -> Array:
    """The order of least bound; one that is not finite is never taken, unless all are so.

    All are looked at once, and the best sixteen of them sixteen times more: of many bounds of heavy tails the least is
    low by luck.
    """
    first, second = jax.random.split(key)
    values = jax.lax.map(lambda order: bound(order, first), tried)
    short = tried[jnp.argsort(jnp.where(jnp.isfinite(values), values, jnp.inf))[:_SHORT]]
    again = jnp.repeat(short, _SHORT, axis=0)
    keys = jnp.tile(jax.random.split(second, _SHORT), len(short))
    values = jax.lax.map(lambda pair: bound(*pair), (again, keys)).reshape(-1, _SHORT).mean(axis=1)
    return short[jnp.argmin(jnp.where(jnp.isfinite(values), values, jnp.inf))]
