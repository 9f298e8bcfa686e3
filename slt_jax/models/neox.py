"""GPT-NeoX in Flax, the architecture of the Pythia language models, and its losses token by token."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen
from jax.tree_util import Partial

from slt_jax.types import Array, PyTree

#: Activations by the names that published configurations give them.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_fast": partial(jax.nn.gelu, approximate=True),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}
#: Logits that exist at a time, where a loss is taken in pieces: 128 MB of them in single precision.
_LOGITS = 2**25


class NeoXBlock(linen.Module):
    """Attention with rotary positions and a perceptron, side by side or one after the other.

    Attributes:
      heads, hidden, rotary, base, parallel, epsilon, activation, attention_bias: As for ``NeoX``.
    """

    heads: int
    hidden: int
    rotary: int
    base: float
    parallel: bool
    epsilon: float
    activation: str
    attention_bias: bool

    @linen.compact
    def __call__(self, stream: Array, mask: Array) -> Array:
        """Shape ``(B, T, width)`` in and out."""
        attention = linen.MultiHeadDotProductAttention(
            self.heads,
            use_bias=self.attention_bias,
            attention_fn=partial(_attended, self.rotary, self.base),
            name="attention",
        )
        attended = attention(_norm(self.epsilon, "attention_norm")(stream), mask=mask)
        seen = stream if self.parallel else stream + attended
        inside = linen.Dense(self.hidden, name="up")(_norm(self.epsilon, "mlp_norm")(seen))
        outside = linen.Dense(stream.shape[-1], name="down")(ACTIVATIONS[self.activation](inside))
        return stream + attended + outside


class NeoX(linen.Module):
    """Logits for the next token at every position.

    Query and key of a head are turned, in their first ``rotary`` dimensions, by angles ``t base^(-2 i / rotary)`` at
    position ``t``. Queries, keys and values are projections of their own, ``(width, heads, width / heads)``, so that
    ``slt_jax.restriction.heads`` finds the heads; no dropout.

    Attributes:
      vocabulary: Number of tokens.
      width: Of the stream.
      blocks: Number of blocks.
      heads: Attention heads of each.
      hidden: Width of each perceptron.
      length: The longest sequence it was made for.
      rotary: Dimensions of a head that carry the position, even.
      base: Of the rotary angles.
      parallel: Whether attention and perceptron of a block both see what comes into it; else the perceptron sees what
        attention added.
      epsilon: Added to the variance in each normalisation.
      activation: A name among ``ACTIVATIONS``.
      attention_bias: Whether the projections of attention have biases.
      tied: Whether logits are taken with the embedding itself.

    Not to be believed to 1e-4 on accelerators as they are set by default, which multiply single precision in less:
    there use ``jax.default_matmul_precision("highest")``.

    Source: Black et al. 2022 (arXiv 2204.06745); Su et al. 2021 (arXiv 2104.09864); Biderman et al. 2023 (Pythia,
    arXiv 2304.01373).

    >>> network = NeoX(vocabulary=11, width=8, blocks=2, heads=2, hidden=16, length=5, rotary=2)
    >>> variables = network.init(jax.random.key(0), jnp.zeros((1, 5), int))
    >>> network.apply(variables, jnp.zeros((3, 4), int)).shape, sorted(variables["params"])
    ((3, 4, 11), ['block_0', 'block_1', 'embed', 'norm', 'unembed'])
    """

    vocabulary: int
    width: int
    blocks: int
    heads: int
    hidden: int
    length: int
    rotary: int
    base: float = 10000.0
    parallel: bool = True
    epsilon: float = 1e-5
    activation: str = "gelu"
    attention_bias: bool = True
    tied: bool = False

    def setup(self) -> None:
        shared = {name: getattr(self, name) for name in _SHARED}
        self.embed = linen.Embed(self.vocabulary, self.width)
        self.block = [NeoXBlock(**shared) for _ in range(self.blocks)]
        self.norm = _norm(self.epsilon, None)
        if not self.tied:
            self.unembed = linen.Dense(self.vocabulary, use_bias=False)

    def __call__(self, tokens: Array) -> Array:
        """Logits of shape ``(B, T, vocabulary)`` for tokens of shape ``(B, T)``."""
        stream = self.stream(tokens)
        return self.embed.attend(stream) if self.tied else self.unembed(stream)

    def stream(self, tokens: Array) -> Array:
        """What logits are read from, normalised, shape ``(B, T, width)``."""
        if tokens.shape[1] > self.length:
            raise ValueError(
                f"tokens: sequences of {tokens.shape[1]}; this network was made for at most {self.length}."
            )
        stream = self.embed(tokens)
        mask = linen.make_causal_mask(tokens[:1])
        for block in self.block:
            stream = block(stream, mask)
        return self.norm(stream)


class NextToken(NamedTuple):
    """``(params, tokens) -> losses``; compared by its network, so that one architecture compiles once."""

    network: NeoX

    def __call__(self, params: PyTree, tokens: Array) -> Array:
        """``-log p(token t + 1 | tokens 0 to t)`` in nats, shape ``(B, T - 1)``, for tokens of shape ``(B, T)``."""
        stream = jnp.asarray(self.network.apply({"params": params}, tokens[:, :-1], method="stream"))
        kernel = params["embed"]["embedding"].T if self.network.tied else params["unembed"]["kernel"]
        sequences = max(1, _LOGITS // (self.network.vocabulary * stream.shape[1]))
        if sequences >= len(tokens):
            return _losses(kernel, stream, tokens[:, 1:])
        # logits of a large vocabulary are by far the most of the memory: a few sequences at a time, and again for the
        # gradient
        of_sequence = jax.checkpoint(lambda pair: _losses(kernel, *pair))
        return jax.lax.map(of_sequence, (stream, tokens[:, 1:]), batch_size=sequences)


def next_token_loss(network: NeoX) -> Partial:
    """The loss of a language model, one value a token: ``loss_fn(params, tokens)``.

    ``ℓ_t = -log p(token t + 1 | tokens 0 to t)`` in nats, shape ``(B, T - 1)`` for tokens of shape ``(B, T)``. An
    example is a sequence. Where the vocabulary is large, logits exist for a few sequences at a time only.

    Args:
      network: The architecture.

    >>> network = NeoX(vocabulary=11, width=8, blocks=1, heads=2, hidden=16, length=5, rotary=2)
    >>> params = network.init(jax.random.key(0), jnp.zeros((1, 5), int))["params"]
    >>> next_token_loss(network)(params, jnp.zeros((3, 5), int)).shape
    (3, 4)
    """
    return Partial(NextToken(network))


_SHARED = ("heads", "hidden", "rotary", "base", "parallel", "epsilon", "activation", "attention_bias")


def _losses(kernel: Array, stream: Array, targets: Array) -> Array:
    import optax

    return optax.softmax_cross_entropy_with_integer_labels(stream @ kernel, targets)


def _norm(epsilon: float, name: str | None) -> linen.LayerNorm:
    # the fast variance is a difference of two large numbers where the mean is far from 0
    return linen.LayerNorm(epsilon=epsilon, use_fast_variance=False, name=name)


def _attended(rotary: int, base: float, query: Array, key: Array, value: Array, mask: Array | None = None) -> Array:
    """Attention of queries and keys that are turned by their positions, ``(B, T, heads, dimension)``."""
    query, key = (_turned(rotary, base, projected) for projected in (query, key))
    return linen.dot_product_attention(query, key, value, mask=mask, deterministic=True)


def _turned(rotary: int, base: float, projected: Array) -> Array:
    frequencies = 1.0 / base ** (jnp.arange(0, rotary, 2) / rotary)
    angles = jnp.arange(projected.shape[1])[:, None] * frequencies[None]
    cosine, sine = (function(angles)[None, :, None].astype(projected.dtype) for function in (jnp.cos, jnp.sin))
    first, second, rest = jnp.split(projected, [rotary // 2, rotary], axis=-1)
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine, rest], axis=-1)
