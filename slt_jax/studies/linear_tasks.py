"""Sequences of examples of a linear task each, and what is best said of the next answer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from slt_jax.types import Array, Key


class Sequences(NamedTuple):
    """``y = w · x + σ ξ`` with one task ``w`` a sequence.

    Attributes:
      inputs: ``x``, standard normal, shape ``(B, K, D)``.
      answers: ``y``, shape ``(B, K)``.
    """

    inputs: Array
    answers: Array


class Posterior(NamedTuple):
    """What is known of the answer to each input before it comes: mean and variance, shape ``(B, K)``."""

    mean: Array
    variance: Array


def draw_tasks(key: Key, count: int, dimension: int) -> Array:
    """``count`` tasks from the standard normal prior, shape ``(count, D)``."""
    return jax.random.normal(key, (count, dimension))


def draw_sequences(key: Key, tasks: Array, examples: int, noise: float) -> Sequences:
    """One sequence of ``examples`` examples for each task.

    Args:
      key: A typed key.
      tasks: Shape ``(B, D)``.
      examples: K.
      noise: σ.

    >>> found = draw_sequences(jax.random.key(0), jnp.ones((2, 3)), 4, 0.1)
    >>> found.inputs.shape, found.answers.shape
    ((2, 4, 3), (2, 4))
    """
    inputs_key, noise_key = jax.random.split(key)
    inputs = jax.random.normal(inputs_key, (tasks.shape[0], examples, tasks.shape[1]))
    answers = jnp.einsum("bkd,bd->bk", inputs, tasks) + noise * jax.random.normal(noise_key, inputs.shape[:2])
    return Sequences(inputs, answers)


def as_vectors(sequences: Sequences) -> Array:
    """``(0, x_1), (y_1, 0), (0, x_2), ...``: the answer to an input is asked for at its place, the even ones.

    Source: Raventós et al. 2023, arXiv:2306.15063.

    Returns:
      Shape ``(B, 2 K, D + 1)``.

    >>> as_vectors(Sequences(jnp.ones((1, 1, 2)), jnp.full((1, 1), 5.0))).tolist()
    [[[0.0, 1.0, 1.0], [5.0, 0.0, 0.0]]]
    """
    inputs, answers = sequences
    count, examples, dimension = inputs.shape
    asked = jnp.concatenate([jnp.zeros((count, examples, 1)), inputs], axis=-1)
    told = jnp.concatenate([answers[..., None], jnp.zeros((count, examples, dimension))], axis=-1)
    return jnp.stack([asked, told], axis=2).reshape(count, 2 * examples, dimension + 1)


def ridge(sequences: Sequences, noise: float) -> Posterior:
    """The posterior of the answers for tasks from the standard normal prior, given the examples so far.

    ``A_k = 1 + Σ_{j<k} x_j x_jᵀ / σ²``, mean ``x_k · A_k⁻¹ Σ_{j<k} x_j y_j / σ²``, variance ``x_k · A_k⁻¹ x_k + σ²``:
    ridge regression with the penalty σ².

    >>> one = Sequences(jnp.ones((1, 2, 1)), jnp.full((1, 2), 3.0))
    >>> [part.tolist() for part in ridge(one, 1.0)]
    [[[0.0, 1.5]], [[2.0, 1.5]]]
    """
    inputs, answers = sequences
    precision = jnp.cumsum(inputs[..., :, None] * inputs[..., None, :], axis=1) / noise**2
    moment = jnp.cumsum(inputs * answers[..., None], axis=1) / noise**2
    # before an example is seen: without its own term
    precision, moment = (
        jnp.concatenate([jnp.zeros_like(sums[:, :1]), sums[:, :-1]], axis=1) for sums in (precision, moment)
    )
    spread = jnp.linalg.inv(precision + jnp.eye(inputs.shape[-1])[None, None])
    mean = jnp.einsum("bkd,bkde,bke->bk", inputs, spread, moment)
    return Posterior(mean, jnp.einsum("bkd,bkde,bke->bk", inputs, spread, inputs) + noise**2)


def discrete(sequences: Sequences, tasks: Array, noise: float) -> Posterior:
    """The posterior of the answers where the task is one of finitely many, all as likely.

    ``p_m ∝ exp(-Σ_{j<k} (y_j - w_m · x_j)² / 2 σ²)``, mean ``Σ p_m w_m · x_k``: the minimum mean squared error for
    discrete tasks (dMMSE).

    Args:
      sequences: Of ``B`` sequences.
      tasks: Shape ``(M, D)``.
      noise: σ.

    Source: Raventós et al. 2023, arXiv:2306.15063.

    >>> one = Sequences(jnp.ones((1, 2, 1)), jnp.full((1, 2), 3.0))
    >>> discrete(one, jnp.array([[3.0], [-3.0]]), 0.1).mean.tolist()
    [[0.0, 3.0]]
    """
    inputs, answers = sequences
    said = jnp.einsum("bkd,md->bkm", inputs, tasks)
    misses = jnp.cumsum(jnp.square(answers[..., None] - said), axis=1) / (2 * noise**2)
    before = jnp.concatenate([jnp.zeros_like(misses[:, :1]), misses[:, :-1]], axis=1)
    weights = jax.nn.softmax(-before, axis=-1)
    mean = jnp.sum(weights * said, axis=-1)
    return Posterior(mean, jnp.sum(weights * jnp.square(said - mean[..., None]), axis=-1) + noise**2)
