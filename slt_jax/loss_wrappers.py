"""Losses made of losses: less memory, or less precision, for the same number."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax import loss
from slt_jax.types import Array, LossFn, PyTree


def in_pieces(loss_fn: LossFn, size: int) -> Partial:
    """The same loss, computed ``size`` examples at a time, of which nothing is kept for the gradient.

    A piece is computed again when its gradient is taken, so that the activations of one piece are in memory at a time:
    a gradient costs one more forward pass. Where the number of examples is no multiple of ``size`` the rest is a piece
    of its own. Under ``vmap`` over chains a piece of each chain is in memory.

    Args:
      loss_fn: ``loss_fn(params, batch)``: losses in nats, ``(B,)``, ``(B, T)``, or their mean ``()``.
      size: Examples of a piece.

    Returns:
      A loss of the same shape, for any function of this package.

    Raises:
      ValueError: ``loss_fn`` is no function, or ``size`` no integer of at least 1.

    Not to be used where examples of a batch are not independent (batch normalisation): each piece then has its own.

    Source: Chen et al. 2016, arXiv:1604.06174 (computing again what would have to be kept).

    >>> loss_fn = in_pieces(lambda w, x: 0.5 * (x - w) ** 2, 2)
    >>> loss_fn(jnp.float32(1.0), jnp.arange(5.0)).tolist()
    [0.5, 0.0, 0.5, 2.0, 4.5]
    """
    _check_function(loss_fn)
    if isinstance(size, bool) or not hasattr(size, "__index__") or size < 1:
        raise ValueError(f"size: got {size!r}; pass the examples of a piece, an integer of at least 1.")
    return Partial(_Pieces(int(size)), Partial(loss_fn))


def in_bfloat16(loss_fn: LossFn) -> Partial:
    """The same loss with params and batch rounded to bfloat16, at half of the memory; losses and gradients in float32.

    The excess is taken and averaged in float32, at the rounded centre: ``K(z) = L(⌊w* + z⌉) - L(⌊w*⌉)``.

    Args:
      loss_fn: ``loss_fn(params, batch)``: losses in nats. It should take sums and normalisations in float32 itself.

    Returns:
      A loss in float32 of the same shape; integers of the batch stay what they are.

    Raises:
      ValueError: ``loss_fn`` is no function.

    Not to be believed where rounding is seen at the temperature. Numbers keep 8 bits: a parameter ``w`` moves in steps
    of up to ``w / 128``, which alone adds ``nβ h (w / 128)² / 24`` to λ̂ of a mode of curvature ``h``, and activations
    do so too. On a regression with 16 weights of order 1 it was .3, 3, 27 and 300 % at ``nβ`` of 1e2, 1e3, 1e4 and 1e5;
    the health was good up to 3 %. What is added grows with ``nβ``: at a tenth of it λ̂ must be the same.

    Source: Kalamkar et al. 2019, arXiv:1905.12322 (training in bfloat16).

    >>> loss_fn = in_bfloat16(lambda w, x: w * x)
    >>> loss_fn(jnp.float32(1.001), jnp.array([3.0])).tolist()  # the spacing at 1 is 1/128
    [3.0]
    """
    _check_function(loss_fn)
    return Partial(_rounded, Partial(loss_fn))


@dataclass(frozen=True)
class _Pieces:
    """Equal for equal sizes, so that the same wrapper made twice is compiled once."""

    size: int

    def __call__(self, loss_fn: LossFn, params: PyTree, batch: PyTree) -> Array:
        count = loss.example_count(batch)
        if count <= self.size:
            return loss_fn(params, batch)
        whole = count - count % self.size
        # inside a loop nothing would undo the second computation
        one = jax.checkpoint(lambda piece: loss_fn(params, piece), prevent_cse=False)
        cut = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:whole].reshape(-1, self.size, *jnp.shape(leaf)[1:]), batch)
        losses = jax.lax.map(one, cut)
        rest = [one(jax.tree.map(lambda leaf: leaf[whole:], batch))] if whole < count else []
        if losses.ndim == 1:
            return (self.size * jnp.sum(losses) + (count - whole) * sum(rest)) / count
        return jnp.concatenate([losses.reshape(whole, *losses.shape[2:]), *rest])


def _rounded(loss_fn: LossFn, params: PyTree, batch: PyTree) -> Array:
    params, batch = jax.tree.map(_half, (params, batch))
    return loss_fn(params, batch).astype(jnp.float32)


def _half(leaf: Array) -> Array:
    return jnp.asarray(leaf, jnp.bfloat16) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf


def _check_function(loss_fn: LossFn) -> None:
    if not callable(loss_fn):
        raise ValueError(f"loss_fn: got a {type(loss_fn).__name__}; pass a function loss_fn(params, batch).")
