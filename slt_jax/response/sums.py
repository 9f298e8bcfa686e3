"""Covariances of one series with very many others, from sums that grow with each draw: no draw is kept."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from slt_jax.response.covariance import Pairs, batches_of
from slt_jax.types import Array, PyTree

#: Columns that are read at a time.
_BLOCK = 2**16


class Sums(NamedTuple):
    """Sums over the draws of each batch; batch 0 holds the few draws that come before the first whole batch.

    Everything is counted from the first draw of its own chain, so that sums of squares lose nothing to a large mean.

    Attributes:
      first: The left series at the first draw, shape ``(chain,)``.
      firsts: The right ones, shape ``(chain, column)``.
      left, left_squares: Of the left series and its square, shape ``(chain, batch)``.
      right, right_squares, products: Of the right series, their squares and their products with the left one, shape
        ``(chain, batch, column)``.
    """

    first: Array
    firsts: Array
    left: Array
    left_squares: Array
    right: Array
    right_squares: Array
    products: Array


def nothing(chains: int, draws: int, columns: int, dtype: Any = jnp.float32) -> Sums:
    """Sums before the first draw: about a hundred numbers for each column, however many draws there will be."""
    slots = batches_of(chains, draws)[0] + 1
    flat, wide = jnp.zeros((chains, slots), dtype), jnp.zeros((chains, slots, columns), dtype)
    return Sums(flat[:, 0], wide[:, 0], flat, flat, wide, wide, wide)


def with_draw(sums: Sums, left: Array, right: Array, draw: Array, draws: int) -> Sums:
    """The sums with one draw more.

    Args:
      sums: So far.
      left: Shape ``(chain,)``.
      right: Shape ``(chain, column)``.
      draw: Which draw it is, from 0; below 0 it is none, and nothing changes.
      draws: How many there will be.
    """
    left, right = left.astype(sums.first.dtype), right.astype(sums.first.dtype)
    count, length = batches_of(left.shape[0], draws)
    batch = jnp.clip((draw - (draws - count * length)) // length + 1, 0, count)
    first, firsts = (jnp.where(draw == 0, new, old) for new, old in ((left, sums.first), (right, sums.firsts)))
    # what was not drawn may be anything, even no number
    a, b = jnp.where(draw >= 0, left - first, 0.0), jnp.where(draw >= 0, right - firsts, 0.0)

    def add(total: Array, term: Array) -> Array:
        old = jax.lax.dynamic_index_in_dim(total, batch, 1, keepdims=False)
        return jax.lax.dynamic_update_index_in_dim(total, old + term, batch, 1)

    return Sums(
        first,
        firsts,
        add(sums.left, a),
        add(sums.left_squares, a**2),
        add(sums.right, b),
        add(sums.right_squares, b**2),
        add(sums.products, a[:, None] * b),
    )


@jax.jit(static_argnums=1)
def covariances(sums: Sums, draws: int) -> Pairs:
    """What ``pairs`` would say of the same draws, to rounding.

    Args:
      sums: After the last draw.
      draws: How many each chain had.

    Returns:
      Pairs of shape ``(column,)``.

    >>> left, right = jnp.array([[1.0, -1.0] * 64]), jnp.array([[2.0, -2.0] * 64])
    >>> sums = nothing(1, 128, 1)
    >>> for draw in range(128):
    ...     sums = with_draw(sums, left[:, draw], right[:, draw, None], jnp.int32(draw), 128)
    >>> covariances(sums, 128).covariance.round(4).tolist()
    [2.0]
    """
    return _in_blocks(lambda some: _covariances(some, draws), sums)


def _covariances(sums: Sums, draws: int) -> Pairs:
    chains = sums.first.shape[0]
    count, length = batches_of(chains, draws)
    left = _centred(sums.left[..., None], sums.left_squares[..., None], draws, count, length)
    right = _centred(sums.right, sums.right_squares, draws, count, length)
    means = left.center * right.center
    product = jnp.mean(jnp.sum(sums.products, axis=1, keepdims=True) / draws - means, axis=0, keepdims=True)
    lost = _mean(left.means * right.means) / max(count - 1, 1)
    # one after the other: the product of two scales of 1e-20 nats is no number of single precision
    scales = [jnp.where(series.scale == 0, 1.0, series.scale) for series in (left, right)]
    correlation = (product + lost) / scales[0] / scales[1]
    plain = sums.left[:, 1:, None] * sums.right[:, 1:] / length**2
    moved = sums.products[:, 1:] / length - plain + left.means * right.means - product
    apart = moved / scales[0] / scales[1]
    squares = [series.squares / scale**2 for series, scale in zip((left, right), scales, strict=True)]
    # of a correlation: what the two variances of the batch explain is taken from it
    explained = sum(square - _mean(square) for square in squares)
    rest = apart - 0.5 * correlation * explained
    total = count * chains
    norm = 1 / math.sqrt(total * (total - 1)) if _known(count, length) else math.nan
    scale = (left.scale * right.scale)[0, 0]
    return Pairs(
        covariance=scale * correlation[0, 0],
        std_error=scale * norm * jnp.sqrt(jnp.sum(apart**2, axis=(0, 1))),
        correlation=correlation[0, 0],
        correlation_error=norm * jnp.sqrt(jnp.sum(rest**2, axis=(0, 1))),
    )


@jax.jit(static_argnums=2)
def against(sums: Sums, free: Sums, draws: int) -> tuple[Array, Array]:
    """``E[a (b - f)]`` with ``f`` the mean of ``b`` in other chains, from the sums of both.

    Args:
      sums: Of the chains in which ``a`` and ``b`` are looked at.
      free: Of the others: as many chains, draws and columns.
      draws: How many draws each chain had.

    Returns:
      The value and its standard error, each of shape ``(column,)``: of the two runs as if they were independent, which
      they are but for the batches that they may share.
    """
    return _in_blocks(lambda some, others: _against(some, others, draws), sums, free)


def _against(sums: Sums, free: Sums, draws: int) -> tuple[Array, Array]:
    chains = sums.first.shape[0]
    count, length = batches_of(chains, draws)
    gap = sums.firsts - jnp.mean(free.firsts + jnp.sum(free.right, axis=1) / draws, axis=0, keepdims=True)
    mean = jnp.mean(sums.first + jnp.sum(sums.left, axis=1) / draws)

    def total(batches: slice, size: int) -> Array:
        """The mean of ``a (b - f)`` over so many draws of each batch, shape ``(chain, batch, column)``."""
        linear = sums.first[:, None, None] * sums.right[:, batches] + sums.left[:, batches, None] * gap[:, None]
        return (sums.products[:, batches] + linear) / size + sums.first[:, None, None] * gap[:, None]

    few = draws - count * length
    ends = length * total(slice(1, None), length).sum(axis=1)
    if few:
        ends = ends + few * total(slice(0, 1), few)[:, 0]
    value = jnp.mean(ends, axis=0) / draws
    if not _known(count, length):
        return value, jnp.full_like(value, math.nan)
    others = free.firsts[:, None] + free.right[:, 1:] / length
    return value, jnp.hypot(_scatter(total(slice(1, None), length)), mean * _scatter(others))


def _in_blocks(function: Callable[..., PyTree], *sums: Sums) -> PyTree:
    """``function`` of so many columns at a time: what it needs on the way is small then, beside the sums themselves."""
    columns = sums[0].firsts.shape[1]
    if columns <= _BLOCK:
        return function(*sums)
    count = -(-columns // _BLOCK)
    # the last block begins where it ends with the last column
    starts = jnp.minimum(jnp.arange(count) * _BLOCK, columns - _BLOCK)

    def one(start: Array) -> PyTree:
        def part(series: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(series, start, _BLOCK, axis=-1)

        wide = ("firsts", "right", "right_squares", "products")
        return function(*(some._replace(**{name: part(getattr(some, name)) for name in wide}) for some in sums))

    rest = columns - (count - 1) * _BLOCK
    found = jax.lax.map(one, starts)
    return jax.tree.map(lambda leaf: jnp.concatenate([leaf[:-1].reshape(-1), leaf[-1, _BLOCK - rest :]]), found)


class _Centred(NamedTuple):
    """About the mean of each chain: that mean, of the batches means and mean squares, and the deviation in all."""

    center: Array
    means: Array
    squares: Array
    scale: Array


def _centred(series: Array, squares: Array, draws: int, count: int, length: int) -> _Centred:
    """Every leaf has the axes ``(chain, batch, column)``, some of length 1."""
    center = jnp.sum(series, axis=1, keepdims=True) / draws
    plain = series[:, 1:] / length
    means = plain - center
    spread = squares[:, 1:] / length - plain**2 + means**2
    variance = _mean(jnp.sum(squares, axis=1, keepdims=True) / draws - center**2)
    lost = _mean(means**2) / max(count - 1, 1)
    return _Centred(center, means, spread, jnp.sqrt(jnp.maximum(variance + lost, 0.0)))


def _mean(batches: Array) -> Array:
    """Over chains and batches, whose axes stay."""
    return jnp.mean(batches, axis=(0, 1), keepdims=True)


def _scatter(batches: Array) -> Array:
    """Standard error of the mean of ``(chain, batch, column)`` from the scatter of the batches."""
    total = batches.shape[0] * batches.shape[1]
    spread = jnp.sum((batches - _mean(batches)) ** 2, axis=(0, 1))
    return jnp.sqrt(spread / (total * (total - 1)))


def _known(count: int, length: int) -> bool:
    return count * length >= 4 and count > 1
