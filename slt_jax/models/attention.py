"""Causal attention, written so that its gradient is cheap on a CPU as well."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from slt_jax.types import Array

#: The score of what lies ahead: its exponential is exactly 0.
HIDDEN = -1e9


def attend(query: Array, key: Array, value: Array, bias: Array) -> tuple[Array, Array]:
    """What the heads take in, and how they look: ``w(t, s) = exp(q_t · k_s / √d + b_ts) / Σ_s``, ``Σ_s w(t, s) v_s``.

    One finite bias in place of a mask, and division after mixing: the gradient keeps and reads fewer arrays of the
    shape of the scores.

    Args:
      query: Shape ``(B, T, heads, d)``, as ``key`` and ``value``.
      key: What is looked for.
      value: What is taken in.
      bias: Added to the scores, shape ``(heads, T, T)`` or ``(1, T, T)``; ``HIDDEN`` where nothing is to be seen. Every
        position must see one.

    Returns:
      Shapes ``(B, T, heads, d)`` and ``(B, heads, T, T)``.

    >>> one = jnp.ones((1, 2, 1, 4))
    >>> mixed, weights = attend(one, one, one, causal(2))
    >>> weights[0, 0].tolist()
    [[1.0, 0.0], [0.5, 0.5]]
    """
    scores = jnp.einsum("bthd,bshd->bhts", query / query.shape[-1] ** 0.5, key) + bias[None]
    # the largest score cancels: it carries no gradient
    powers = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    # a product: XLA makes one of a division or not as it compiles for one device or many, with other last digits
    share = 1 / jnp.sum(powers, axis=-1)
    mixed = jnp.einsum("bhts,bshd->bthd", powers, value) * jnp.swapaxes(share, 1, 2)[..., None]
    return mixed, powers * share[..., None]


def causal(steps: int) -> Array:
    """The bias with which no position sees what lies ahead, shape ``(1, steps, steps)``.

    >>> (causal(2) == jnp.array([[[0, HIDDEN], [0, 0]]])).all().item()
    True
    """
    return jnp.where(np.tril(np.ones((1, steps, steps), bool)), 0.0, HIDDEN)


class CausalAttention(linen.Module):
    """Attention without biases, with the parameters of ``linen.MultiHeadDotProductAttention``, name by name.

    Attributes:
      heads: Attention heads; they share the width of the stream evenly.
    """

    heads: int

    @linen.compact
    def __call__(self, stream: Array) -> Array:
        """Shape ``(B, T, width)`` in and out."""
        query, key, value = projections(stream, self.heads)
        return way_out(attend(query, key, value, causal(stream.shape[1]))[0], stream.shape[-1])


def projections(stream: Array, heads: int) -> list[Array]:
    """Queries, keys and values of the module that calls it, each of shape ``(B, T, heads, width / heads)``.

    Raises:
      ValueError: where the heads cannot share the width evenly.
    """
    count, steps, width = stream.shape
    if heads < 1 or width % heads:
        raise ValueError(f"heads: got {heads} for a stream of width {width}; they must share it evenly.")
    size = width // heads
    # on one axis of tokens: gradients of weights that are contracted over two are slow
    flat = stream.reshape(count * steps, width)
    return [
        linen.DenseGeneral((heads, size), use_bias=False, name=name)(flat).reshape(count, steps, heads, size)
        for name in ("query", "key", "value")
    ]


def way_out(mixed: Array, width: int) -> Array:
    """From the heads, shape ``(B, T, heads, d)``, back into a stream ``(B, T, width)``."""
    count, steps, *heads = mixed.shape
    out = linen.DenseGeneral(width, axis=(-2, -1), use_bias=False, name="out")
    return out(mixed.reshape(count * steps, *heads)).reshape(count, steps, width)
