"""Covariances between many series of the same chains, with errors that respect autocorrelation: pure functions."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from slt_jax.types import Array

#: Batches of draws from whose scatter the errors are taken, over all chains: their error is then known to an eighth.
BATCHES = 32


class Pairs(NamedTuple):
    """Covariances of pairs of series; every leaf has the same shape, mostly ``(row, column)``.

    Attributes:
      covariance: In the product of the units of the two series: nats² where both are losses.
      std_error: Its Monte Carlo standard error, in the same units.
      correlation: Between -1 and 1; 0 where one of the two does not vary.
      correlation_error: Its Monte Carlo standard error.
    """

    covariance: Array
    std_error: Array
    correlation: Array
    correlation_error: Array


def centred(draws: Array) -> Array:
    """Draws less the mean of their own chain, in at least float32.

    Args:
      draws: Shape ``(chain, draw, ...)``.

    Returns:
      The same shape; exactly 0 where a series does not vary.

    >>> centred(jnp.array([[1.0, 3.0], [5.0, 5.0]])).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    wide = draws.astype(jnp.promote_types(draws.dtype, jnp.float32))
    moved = wide - wide[:, :1]
    return moved - jnp.mean(moved, axis=1, keepdims=True)


def batches_of(chains: int, draws: int) -> tuple[int, int]:
    """Into how many batches each chain is cut, and how many draws each has.

    >>> batches_of(4, 500), batches_of(16, 500), batches_of(4, 1)
    ((8, 62), (2, 250), (1, 1))
    """
    count = min(max(2, -(-BATCHES // chains)), max(1, draws // 2))
    return count, draws // count


@jax.jit
def pairs(left: Array, right: Array) -> Pairs:
    """The covariance of every series on the left with every one on the right, over the draws of the same chains.

    ``C_ij = ⟨a_i b_j⟩ + B_ij / K`` with ``a``, ``b`` centred on their own chain, and ``B`` the covariance of the means
    of the ``K`` batches of a chain: what centring takes away, which for independent draws makes ``C`` exactly unbiased.
    Errors are those of the means of ``a_i b_j`` over about 32 batches of successive draws; that of a correlation
    follows from the same batches to first order.

    Args:
      left: Shape ``(chain, draw, row)``.
      right: Shape ``(chain, draw, column)``.

    Returns:
      Pairs of shape ``(row, column)``; beside them the memory of the draws alone is used. NaN where a draw is not
      finite; errors are NaN with fewer than four draws.

    Not to be believed where a chain remembers longer than a batch (``draws · chains / 32``): errors are then too small.
    Differences between the means of chains are no covariance here: that is for R-hat to find.

    Source: batch means: Geyer 1992, doi:10.1214/ss/1177011137.

    >>> two = jnp.stack([jnp.tile(jnp.array([1.0, -1.0]), 64), jnp.tile(jnp.array([2.0, -2.0]), 64)], axis=1)[None]
    >>> pairs(two, two).covariance.round(4).tolist(), pairs(two, two).correlation.round(4).tolist()
    ([[1.0, 2.0], [2.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]])
    """
    chains, draws = left.shape[:2]
    count, length = batches_of(chains, draws)
    left, right = centred(left), centred(right)
    # standard units: a product of two excesses of 1e-10 nats, squared, is no number of single precision
    left_scale, right_scale = _deviation(left, count, length), _deviation(right, count, length)
    left, right = (series / _divisor(scale) for series, scale in ((left, left_scale), (right, right_scale)))
    size = chains * draws
    product = _matmul(left.reshape(size, -1).T, right.reshape(size, -1)) / size
    correlation = product + _lost(left, right, count, length)
    in_batches = _cut(left, count, length), _cut(right, count, length)
    squares = [jnp.mean(series**2, axis=1) for series in in_batches]
    squares = [series - jnp.mean(series, axis=0, keepdims=True) for series in squares]

    def add(sums: tuple[Array, Array], batch: tuple[Array, ...]) -> tuple[tuple[Array, Array], None]:
        a, b, a_square, b_square = batch
        apart = _matmul(a.T, b) / length - product
        # of a correlation: what the two variances of the batch explain is taken from it
        rest = apart - 0.5 * correlation * (a_square[:, None] + b_square[None, :])
        return (sums[0] + apart**2, sums[1] + rest**2), None

    zero = jnp.zeros_like(product)
    (spread, rest), _ = jax.lax.scan(add, (zero, zero), (*in_batches, *squares))
    known = count * length >= 4 and count > 1
    total = count * chains
    norm = 1 / math.sqrt(total * (total - 1)) if known else math.nan
    scale = left_scale[:, None] * right_scale[None, :]
    return Pairs(
        covariance=scale * correlation,
        std_error=scale * norm * jnp.sqrt(spread),
        correlation=correlation,
        correlation_error=norm * jnp.sqrt(rest),
    )


def _deviation(series: Array, count: int, length: int) -> Array:
    """Standard deviation of each series, with what centring took away, shape ``(series,)``."""
    means = jnp.mean(_cut(series, count, length), axis=1)
    lost = jnp.sum(means**2, axis=0) / (series.shape[0] * max(count - 1, 1) * count)
    return jnp.sqrt(jnp.mean(series**2, axis=(0, 1)) + lost)


def _lost(left: Array, right: Array, count: int, length: int) -> Array:
    """What centring on the mean of a chain takes from a covariance: that of the means of its batches, over ``K``."""
    means = [jnp.mean(_cut(series, count, length), axis=1) for series in (left, right)]
    return _matmul(means[0].T, means[1]) / (left.shape[0] * max(count - 1, 1) * count)


def _cut(series: Array, count: int, length: int) -> Array:
    """From ``(chain, draw, ...)`` to ``(chain · batch, draw of the batch, ...)``; the first few are left out."""
    kept = series[:, series.shape[1] - count * length :]
    return kept.reshape(-1, length, *series.shape[2:])


def _divisor(scale: Array) -> Array:
    """The scale with the axes of a series, and 1 for what does not vary."""
    return jnp.where(scale == 0, 1.0, scale)[None, None, :]


def _matmul(left: Array, right: Array) -> Array:
    # accelerators would round the factors to ten bits
    return jnp.matmul(left, right, precision="highest")
