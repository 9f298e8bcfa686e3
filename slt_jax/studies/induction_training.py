"""The training of study ``induction``: a network of attention alone, and fresh Markov chains at every step."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from slt_jax.models.attention_only import AttentionOnly
from slt_jax.studies.markov_chains import sample_chains
from slt_jax.types import Array, Key, PyTree

SYMBOLS, LENGTH = 4, 64
NETWORK = AttentionOnly(vocabulary=SYMBOLS, width=32, layers=2, heads=8, length=LENGTH)
OPTIMIZER = optax.adam(3e-3)
BATCH = 32
STEPS = 1500
#: The last of so many parts of the steps so far is averaged.
AVERAGED = 10
#: What each sequence, or each of its positions, counts for in training: ``weights(tokens) -> (B,)`` or ``(B, T)``.
Weights = Callable[[Array], Array]

_fresh = jax.jit(NETWORK.init)


class State(NamedTuple):
    """Parameters, their average over the last steps, the optimiser's state, and the key that the sequences come from.

    The average is what is looked at: single steps on few sequences shake every curve by more than they move it.
    """

    params: PyTree
    average: PyTree
    optimizer: PyTree
    key: Key


def training_loss(weights: Weights | None, params: PyTree, tokens: Array) -> Array:
    """Mean cross-entropy of the symbols that came, nats; with weights ``Σ w ℓ / Σ w``.

    Args:
      weights: What counts for how much, at least 0; or ``None``.
      params: Of ``NETWORK``.
      tokens: Shape ``(B, T + 1)``.

    Returns:
      Shape ``()``.

    Raises:
      ValueError: the weights have another shape than ``(B,)`` or ``(B, T)``.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits_of(params, tokens[:, :-1]), tokens[:, 1:])
    if weights is None:
        return jnp.mean(losses)
    counted = weights(tokens)
    if counted.shape not in (losses.shape[:1], losses.shape):
        raise ValueError(
            f"weights: returned shape {counted.shape} for {losses.shape[0]} sequences; return one weight for each, "
            f"shape {losses.shape[:1]}, or for each of its positions, {losses.shape}."
        )
    counted = jnp.broadcast_to(counted if counted.ndim == 2 else counted[:, None], losses.shape)
    return jnp.sum(counted * losses) / jnp.sum(counted)


def initial(key: Key) -> State:
    """Random parameters, and the key of all sequences to come."""
    params_key, data_key = jax.random.split(key)
    params = _fresh(params_key, jnp.zeros((1, LENGTH), jnp.int32))["params"]
    return State(params, params, OPTIMIZER.init(params), data_key)


def update(weights: Weights | None, state: State, step: Array) -> State:
    """One step of Adam on fresh sequences, and of the average."""
    tokens = sample_chains(jax.random.fold_in(state.key, step), BATCH, LENGTH + 1, SYMBOLS)
    gradient = jax.grad(partial(training_loss, weights))(state.params, tokens)
    changes, optimizer = OPTIMIZER.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, changes)
    share = 1 / (1 + step / AVERAGED)
    average = jax.tree.map(lambda mean, new: mean + share * (new - mean), state.average, params)
    return State(params, average, optimizer, state.key)


def params_of(state: State) -> PyTree:
    """The parameters that are measured: the average over about the last tenth of all steps so far."""
    return state.average


def logits_of(params: PyTree, inputs: Array) -> Array:
    """What the network says of the symbol after each, shape ``(B, T, V)`` for inputs of shape ``(B, T)``."""
    found = NETWORK.apply({"params": params}, inputs)
    assert isinstance(found, jax.Array)
    return found
