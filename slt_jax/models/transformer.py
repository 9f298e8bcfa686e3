"""A small causal transformer in Flax: a language model over a finite vocabulary."""

from flax import linen

from slt_jax.models.attention import CausalAttention
from slt_jax.types import Array


class Block(linen.Module):
    """Causal attention and a perceptron, each added to the stream after a normalisation of its own.

    Attributes:
      heads: Attention heads.
      hidden: Width of the perceptron; 0 for none.
    """

    heads: int
    hidden: int

    @linen.compact
    def __call__(self, stream: Array) -> Array:
        """Shape ``(B, T, width)`` in and out."""
        shape = stream.shape
        stream = stream + CausalAttention(self.heads, name="attention")(linen.LayerNorm(name="attention_norm")(stream))
        if self.hidden:
            # on one axis of tokens: gradients of weights that are contracted over two are slow
            flat = stream.reshape(-1, shape[-1])
            inside = linen.Dense(self.hidden, name="up")(linen.LayerNorm(name="mlp_norm")(flat))
            stream = (flat + linen.Dense(shape[-1], name="down")(linen.gelu(inside))).reshape(shape)
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
        for number in range(self.blocks):
            stream = Block(self.heads, self.hidden, name=f"block_{number}")(stream)
        flat = linen.LayerNorm(name="norm")(stream).reshape(-1, self.width)
        return linen.Dense(self.vocabulary, use_bias=False, name="unembed")(flat).reshape(*tokens.shape, -1)
