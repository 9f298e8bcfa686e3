"""Three models of increasing size, written in plain JAX: what the cost of sampling is measured on.

Whether the gradient of the transformer is slower on a CPU than PyTorch's hangs on how it is written and called:

- All matrices act on one axis of tokens, ``(B T, width)``: gradients of weights that contract ``(B, T)`` are slower.
- One finite bias in place of a mask and division after mixing (``slt_jax.models.attention``), and one matrix for
  queries, keys and values: 6 % less time and 17 % less memory for eight chains side by side.
- It is differentiated inside a compiled loop, as samplers do. A program that makes one gradient a call asks for its
  memory anew each time, and from 32 MB on, four chains of this model, the C library takes it from the kernel, whose
  zeroed pages cost as much as the gradient itself: 3.6 ms of each chain become 7.5. Pieces that are timed alone stay
  below and show nothing.

Eight chains side by side take 1.2 times as long as one after the other, whose numbers stay in the cache. What does not
matter: tanh, erf or another form of gelu, logarithms of sums, gathering or one-hot rows, heads on an axis of the batch
or unrolled, a derivative by hand of the normalisation. ``jax.nn.dot_product_attention`` is slower.
"""

import jax
import jax.numpy as jnp

from slt_jax import Problem
from slt_jax.models.attention import attend, causal


def linear_network(key: jax.Array) -> Problem:
    """A linear network of 260 parameters, widths 10, 13, 10, on 1000 examples; batches of 64."""
    keys = jax.random.split(key, 4)
    params = [jax.random.normal(keys[0], (10, 13)) / 10**0.5, jax.random.normal(keys[1], (13, 10)) / 13**0.5]
    inputs = jax.random.normal(keys[2], (1000, 10))
    targets = inputs @ params[0] @ params[1] + jax.random.normal(keys[3], (1000, 10))
    return Problem(_linear_loss, params, (inputs, targets))


def perceptron(key: jax.Array) -> Problem:
    """A perceptron of 9.6k parameters, widths 64, 64, 64, 20, on 1000 examples; batches of 64."""
    keys = jax.random.split(key, 6)
    widths = (64, 64, 64, 20)
    params = [
        {"kernel": jax.random.normal(k, (rows, columns)) / rows**0.5, "bias": jnp.zeros(columns)}
        for k, rows, columns in zip(keys, widths[:-1], widths[1:], strict=False)
    ]
    inputs = jax.random.normal(keys[4], (1000, 64))
    return Problem(_perceptron_loss, params, (inputs, jax.random.randint(keys[5], (1000,), 0, 20)))


def transformer(key: jax.Array) -> Problem:
    """A transformer of 111k parameters: 2 blocks of width 64 with 4 heads, on 256 sequences of 64 of 65 tokens."""
    tokens = jax.random.randint(jax.random.fold_in(key, 1), (256, 65), 0, 65)
    width, names = 64, ("query", "key", "value", "out")
    keys = iter(jax.random.split(key, 32))

    def matrix(rows: int, columns: int) -> jax.Array:
        return jax.random.normal(next(keys), (rows, columns)) / rows**0.5

    blocks = [
        {
            **{name: matrix(width, width) for name in names},
            "up": matrix(width, 4 * width),
            "down": matrix(4 * width, width),
            "scale": jnp.ones((2, width)),
        }
        for _ in range(2)
    ]
    params = {
        "embed": matrix(65, width),
        "position": 0.1 * matrix(64, width),
        "blocks": blocks,
        "head": matrix(width, 65),
    }
    return Problem(_transformer_loss, params, tokens)


def _linear_loss(params, batch):
    inputs, targets = batch
    return 0.5 * jnp.sum((inputs @ params[0] @ params[1] - targets) ** 2, axis=1)


def _perceptron_loss(params, batch):
    inputs, labels = batch
    for layer in params[:-1]:
        inputs = jnp.tanh(inputs @ layer["kernel"] + layer["bias"])
    logits = inputs @ params[-1]["kernel"] + params[-1]["bias"]
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]


def _transformer_loss(params, tokens):
    batch, length = tokens.shape[0], tokens.shape[1] - 1
    stream = params["embed"][tokens[:, :-1]] + params["position"]
    stream = stream.reshape(batch * length, -1)
    for block in params["blocks"]:
        stream = stream + _attention(block, _normalised(stream, block["scale"][0]), batch, length)
        hidden = jax.nn.gelu(_normalised(stream, block["scale"][1]) @ block["up"])
        stream = stream + hidden @ block["down"]
    logits = jax.nn.log_softmax(_normalised(stream, 1.0) @ params["head"])
    losses = -jnp.take_along_axis(logits, tokens[:, 1:].reshape(-1, 1), axis=1)
    return losses.reshape(batch, length)


def _attention(block, stream, batch, length, heads=4):
    kernel = jnp.concatenate([block[name] for name in ("query", "key", "value")], axis=1)
    split = (stream @ kernel).reshape(batch, length, 3, heads, -1)
    query, key, value = split[:, :, 0], split[:, :, 1], split[:, :, 2]
    return attend(query, key, value, causal(length))[0].reshape(batch * length, -1) @ block["out"]


def _normalised(stream, scale):
    centred = stream - jnp.mean(stream, axis=-1, keepdims=True)
    return scale * centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-5)
