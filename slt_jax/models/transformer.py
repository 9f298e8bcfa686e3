"""A small causal transformer in Flax: a language model over a finite vocabulary."""

from flax import linen

from slt_jax.types import Array


class Block(linen.Module):
    """Attention and a perceptron, each added to the stream after a normalisation of its own.

    Attributes:
      heads: Attention heads.
      hidden: Width of the perceptron; 0 for none.
    """

    heads: int
    hidden: int

    @linen.compact
    def __call__(self, stream: Array, mask: Array) -> Array:
        """Shape ``(B, T, width)`` in and out."""
        width = stream.shape[-1]
        attention = linen.MultiHeadDotProductAttention(self.heads, use_bias=False, name="attention")
        stream = stream + attention(linen.LayerNorm(name="attention_norm")(stream), mask=mask)
        if self.hidden:
            inside = linen.Dense(self.hidden, name="up")(linen.LayerNorm(name="mlp_norm")(stream))
            stream = stream + linen.Dense(width, name="down")(linen.gelu(inside))
        return stream


class Transformer(linen.Module):
    """Logits for the next token at every position.

    Attributes:
      vocabulary: Number of tokens.
      width: Of the stream.
      blocks: Number of blocks.
      heads: Attention heads of each.
      hidden: Width of each perceptron; 0 for attention only.
      length: The longest sequence that positions are known for.

    >>> import jax, jax.numpy as jnp
    >>> network = Transformer(vocabulary=11, width=8, blocks=2, heads=2, hidden=16, length=5)
    >>> variables = network.init(jax.random.key(0), jnp.zeros((1, 5), int))
    >>> network.apply(variables, jnp.zeros((3, 4), int)).shape, sorted(variables["params"])
    ((3, 4, 11), ['block_0', 'block_1', 'embed', 'norm', 'positions', 'unembed'])
    """

    vocabulary: int
    width: int
    blocks: int
    heads: int
    hidden: int
    length: int

    @linen.compact
    def __call__(self, tokens: Array) -> Array:
        """Logits of shape ``(B, T, vocabulary)`` for tokens of shape ``(B, T)``."""
        positions = self.param("positions", linen.initializers.normal(0.02), (self.length, self.width))
        stream = linen.Embed(self.vocabulary, self.width, name="embed")(tokens) + positions[None, : tokens.shape[1]]
        mask = linen.make_causal_mask(tokens)
        for number in range(self.blocks):
            stream = Block(self.heads, self.hidden, name=f"block_{number}")(stream, mask)
        stream = linen.LayerNorm(name="norm")(stream)
        return linen.Dense(self.vocabulary, use_bias=False, name="unembed")(stream)
