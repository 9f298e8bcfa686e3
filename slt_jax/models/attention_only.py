"""A causal transformer without perceptrons, whose heads know positions only relative to their own."""

import jax.numpy as jnp
import numpy as np
from flax import linen

from slt_jax.models.attention import HIDDEN, attend, projections, way_out
from slt_jax.types import Array


class RelativeAttention(linen.Module):
    """Causal attention with a learned score for every head and every distance back.

    ``w(t, s) ∝ exp(q_t · k_s / √d + r_{t-s})`` for ``s ≤ t``. The scores ``r`` are the leaf ``offsets``, shape
    ``(heads, length)``, which begins at 0; queries, keys, values and the way out are named and laid out as Flax does.

    Attributes:
      heads: Attention heads; they share the width of the stream evenly.
      length: The longest sequence.
    """

    heads: int
    length: int

    @linen.compact
    def __call__(self, stream: Array) -> Array:
        """Shape ``(B, T, width)`` in and out; the attention ``(B, heads, T, T)`` is sown as ``weights``."""
        steps = stream.shape[1]
        query, key, value = projections(stream, self.heads)
        offsets = self.param("offsets", linen.initializers.zeros, (self.heads, self.length))
        back = np.arange(steps)[:, None] - np.arange(steps)[None, :]
        bias = jnp.where(back >= 0, offsets[:, np.maximum(back, 0)], HIDDEN)
        mixed, weights = attend(query, key, value, bias)
        self.sow("intermediates", "weights", weights)
        return way_out(mixed, stream.shape[-1])


class AttentionOnly(linen.Module):
    """Logits for the next token at every position.

    Attributes:
      vocabulary: Number of tokens.
      width: Of the stream.
      layers: Number of attention layers.
      heads: Attention heads of each.
      length: The longest sequence.

    Source: the attention-only models of Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; scores
    by distance: Raffel et al. 2020, arXiv:1910.10683.

    >>> import jax
    >>> network = AttentionOnly(vocabulary=4, width=8, layers=2, heads=2, length=5)
    >>> variables = network.init(jax.random.key(0), jnp.zeros((1, 5), int))
    >>> network.apply(variables, jnp.zeros((3, 5), int)).shape, sorted(variables["params"])
    ((3, 5, 4), ['attention_0', 'attention_1', 'embed', 'norm', 'norm_0', 'norm_1', 'unembed'])
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    length: int

    @linen.compact
    def __call__(self, tokens: Array) -> Array:
        """Logits of shape ``(B, T, vocabulary)`` for tokens of shape ``(B, T)``."""
        stream = linen.Embed(self.vocabulary, self.width, name="embed")(tokens)
        for layer in range(self.layers):
            normed = linen.LayerNorm(name=f"norm_{layer}")(stream)
            stream = stream + RelativeAttention(self.heads, self.length, name=f"attention_{layer}")(normed)
        stream = linen.LayerNorm(name="norm")(stream)
        # small: the network begins near the uniform predictor, and has nothing to unlearn
        unembed = linen.Dense(
            self.vocabulary, use_bias=False, kernel_init=linen.initializers.normal(0.02), name="unembed"
        )
        return unembed(stream)


def attention_weights(network: AttentionOnly, params: dict, tokens: Array) -> Array:
    """Where every head looks: from position t to position s, rows that sum to 1.

    Args:
      network: The architecture.
      params: Its parameters.
      tokens: Shape ``(B, T)``.

    Returns:
      Shape ``(layer, B, head, T, T)``, 0 where ``s > t``.
    """
    _, kept = network.apply({"params": params}, tokens, mutable=["intermediates"])
    found = kept["intermediates"]
    return jnp.stack([found[f"attention_{layer}"]["weights"][0] for layer in range(network.layers)])


def previous_token_scores(weights: Array) -> Array:
    """How much more each head looks at the position before its own than a head that looks everywhere evenly.

    ``Σ_t (w(t, t-1) - u_t) / Σ_t (1 - u_t)`` over ``t ≥ 1``, with ``u_t = 1 / (t + 1)``: 0 for even attention, 1 for a
    head that looks at nothing else, negative for one that avoids it.

    Args:
      weights: From ``attention_weights``, shape ``(layer, B, head, T, T)``.

    Returns:
      Shape ``(layer, head)``.

    >>> even = jnp.tril(jnp.ones((3, 3))) / jnp.arange(1, 4)[:, None]
    >>> [previous_token_scores(one[None, None, None]).tolist() for one in (even, jnp.eye(3, k=-1))]
    [[[0.0]], [[1.0]]]
    """
    steps = weights.shape[-1]
    before = np.eye(steps, k=-1, dtype=bool)
    return _above_even(weights, jnp.broadcast_to(before[None], (weights.shape[1], steps, steps)))


def prefix_matching_scores(weights: Array, tokens: Array) -> Array:
    """How much more each head looks at what followed the current token before than a head that looks evenly.

    ``Σ_t (Σ_s w(t, s) m(t, s) - u_t) / Σ_t (1 - u_t)`` over the positions t that have a match: ``m(t, s)`` is 1 where
    ``1 ≤ s ≤ t`` and ``x_{s-1} = x_t``, and ``u_t = Σ_s m(t, s) / (t + 1)``. 0 for even attention, 1 for an induction
    head that looks at nothing else.

    Args:
      weights: From ``attention_weights``, shape ``(layer, B, head, T, T)``.
      tokens: Shape ``(B, T)``.

    Returns:
      Shape ``(layer, head)``.

    Source: Olsson et al. 2022, arXiv:2209.11895, there without the comparison to even attention.
    """
    steps = tokens.shape[1]
    same = tokens[:, :, None] == jnp.roll(tokens, 1, axis=1)[:, None, :]
    allowed = np.tril(np.ones((steps, steps), bool)) & (np.arange(steps) > 0)[None, :]
    return _above_even(weights, same & allowed[None])


def _above_even(weights: Array, match: Array) -> Array:
    """The attention on matches: 0 where it is that of even attention, 1 where it is all, shape ``(layer, head)``."""
    steps = weights.shape[-1]
    there = jnp.any(match, axis=2)
    even = jnp.sum(match, axis=2) / np.arange(1, steps + 1)[None, :]
    found = jnp.sum(weights * match[None, :, None], axis=-1)
    gained = jnp.where(there[None, :, None], found - even[None, :, None], 0.0)
    return jnp.sum(gained, axis=(1, 3)) / jnp.sum(jnp.where(there, 1 - even, 0.0))
