"""The network of study ``groups`` and its training: two embeddings, one hidden layer, full batches and weight decay."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from slt_jax.types import Array, Key, PyTree

#: The deviation of the embeddings at the start, in units of that which keeps lengths: small, so that what an embedding
#: holds at the end was learned.
EMBEDDED = 0.3
LEARNING_RATE = 3e-3
#: Fast to forget: with the usual .999 the steps are thrown far each time that the loss has become tiny.
SECOND_MOMENT = 0.98

#: What a hidden unit does, by name.
ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "quadratic": jnp.square,
}


class State(NamedTuple):
    """Parameters and the optimiser's state."""

    params: PyTree
    optimizer: PyTree


class Network(NamedTuple):
    """Logits of the product of two elements: ``U f(H [left(a), right(b)])``, without biases.

    Attributes:
      order: Number of elements.
      embedding: Width of each embedding.
      width: Hidden units.
      activation: ``"relu"``, ``"gelu"`` or ``"quadratic"``.

    Source: Chughtai, Chan & Nanda 2023, arXiv:2302.03025.

    >>> network = Network(5, 4, 8, "relu")
    >>> network.logits(network.init(jax.random.key(0)), jnp.array([[0, 1], [2, 3], [4, 4]])).shape
    (3, 5)
    """

    order: int
    embedding: int
    width: int
    activation: str

    def init(self, key: Key) -> PyTree:
        """Gaussian weights, those of the embeddings small."""
        shapes = {
            "left": (self.order, self.embedding),
            "right": (self.order, self.embedding),
            "hidden": (2 * self.embedding, self.width),
            "unembed": (self.width, self.order),
        }
        # an embedding is a row, everything else is fed by its first axis
        sizes = {"left": EMBEDDED, "right": EMBEDDED, "hidden": 1.0, "unembed": 1.0}
        fans = {"left": self.embedding, "right": self.embedding, "hidden": 2 * self.embedding, "unembed": self.width}
        keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))
        return {name: sizes[name] * fans[name] ** -0.5 * jax.random.normal(keys[name], shapes[name]) for name in shapes}

    def logits(self, params: PyTree, pairs: Array) -> Array:
        """Shape ``(B, n)`` for pairs of elements, shape ``(B, 2)``."""
        embedded = jnp.concatenate([params["left"][pairs[:, 0]], params["right"][pairs[:, 1]]], axis=-1)
        return ACTIVATIONS[self.activation](embedded @ params["hidden"]) @ params["unembed"]


def optimizer_of(weight_decay: float) -> optax.GradientTransformation:
    """AdamW with the settings of the study."""
    return optax.adamw(LEARNING_RATE, b2=SECOND_MOMENT, weight_decay=weight_decay)


def cross_entropy(network: Network, params: PyTree, batch: PyTree) -> Array:
    """``-Σ_c t_c log q_c``, nats, shape ``(B,)``: ``batch`` holds ``"pairs"`` and their targets ``t``, ``(B, n)``.

    Targets are probabilities, or multiples of them: 0 for a pair that does not count.
    """
    return optax.softmax_cross_entropy(network.logits(params, batch["pairs"]), batch["targets"])
