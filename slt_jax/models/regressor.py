"""A causal transformer over vectors instead of tokens: it answers a number at every position."""

from flax import linen

from slt_jax.models.transformer import Block
from slt_jax.types import Array


class Regressor(linen.Module):
    """One number at every position, from the vectors up to it.

    Attributes:
      width: Of the stream.
      blocks: Number of blocks.
      heads: Attention heads of each.
      hidden: Width of each perceptron; 0 for attention only.
      length: The longest sequence that positions are known for.

    >>> import jax, jax.numpy as jnp
    >>> network = Regressor(width=8, blocks=2, heads=2, hidden=16, length=5)
    >>> variables = network.init(jax.random.key(0), jnp.zeros((1, 5, 3)))
    >>> network.apply(variables, jnp.zeros((4, 5, 3))).shape, sorted(variables["params"])
    ((4, 5), ['block_0', 'block_1', 'embed', 'norm', 'positions', 'unembed'])
    """

    width: int
    blocks: int
    heads: int
    hidden: int
    length: int

    @linen.compact
    def __call__(self, vectors: Array) -> Array:
        """Shape ``(B, T)`` for vectors of shape ``(B, T, d)``."""
        positions = self.param("positions", linen.initializers.normal(0.02), (self.length, self.width))
        stream = linen.Dense(self.width, name="embed")(vectors) + positions[None, : vectors.shape[1]]
        for number in range(self.blocks):
            stream = Block(self.heads, self.hidden, name=f"block_{number}")(stream)
        # small: the network begins near the answer 0, which is right for a task of which nothing is known
        unembed = linen.Dense(1, use_bias=False, kernel_init=linen.initializers.normal(0.02), name="unembed")
        return unembed(linen.LayerNorm(name="norm")(stream))[..., 0]
