"""Sequences that each come from a Markov chain of their own, and what is best said of their next symbol."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax.tree import check_key
from slt_jax.types import Array, Key


@partial(jax.jit, static_argnums=(1, 2, 3))
def sample_chains(key: Key, count: int, length: int, symbols: int) -> Array:
    """Sequences of symbols, each from a chain of its own whose rows are drawn from the flat Dirichlet distribution.

    ``P(x_1) = 1/V``, ``P(x_{t+1} = j | x_t = i) = π_ij`` with ``π_i ~ Dirichlet(1, ..., 1)`` for each row of each
    sequence. The first symbol says nothing about ``π``, so that ``bigram`` is exactly the Bayes predictor.

    Args:
      key: A typed key.
      count: Number of sequences.
      length: Symbols of each, at least 2.
      symbols: The size V of the alphabet, at least 2.

    Returns:
      Integers in ``[0, V)``, shape ``(count, length)``.

    Raises:
      ValueError: a number is out of range, or the key is no typed key.

    Source: Edelman et al. 2024, arXiv:2402.11004, section 2 (there the first symbol is drawn from the stationary
    distribution).

    >>> sample_chains(jax.random.key(0), 3, 5, 4).shape
    (3, 5)
    """
    check_key(key)
    if count < 1 or length < 2 or symbols < 2:
        raise ValueError(
            f"sample_chains: got count={count}, length={length}, symbols={symbols}; they must be at least 1, 2 and 2."
        )
    row_key, first_key, step_key = jax.random.split(key, 3)
    rows = jnp.log(jax.random.dirichlet(row_key, jnp.ones(symbols), (count, symbols)))
    first = jax.random.randint(first_key, (count,), 0, symbols)

    def advance(current: Array, key: Key) -> tuple[Array, Array]:
        following = jax.random.categorical(key, rows[jnp.arange(count), current])
        return following, following

    _, rest = jax.lax.scan(advance, first, jax.random.split(step_key, length - 1))
    return jnp.concatenate([first[None], rest]).T


def uniform(tokens: Array, symbols: int) -> Array:
    """``1/V`` for every symbol: what is said before anything is learned.

    Args:
      tokens: Shape ``(B, T + 1)``.
      symbols: The size V of the alphabet.

    Returns:
      Probabilities of the symbols after the first, shape ``(B, T, V)``.
    """
    return jnp.full((tokens.shape[0], tokens.shape[1] - 1, symbols), 1 / symbols)


def unigram(tokens: Array, symbols: int) -> Array:
    """The next symbol by how often each was seen so far: ``(N_j + 1) / (t + V)``.

    ``N_j`` counts the symbol j among the ``t`` symbols up to the current one. The Bayes predictor if symbols were drawn
    independently, with a flat Dirichlet prior: it forgets their order.

    Args, returns: as for ``uniform``.

    >>> (12 * unigram(jnp.array([[0, 0, 1]]), 2)[0]).round().astype(int).tolist()  # 2/3, 1/3 and 3/4, 1/4
    [[8, 4], [9, 3]]
    """
    seen = jnp.cumsum(jax.nn.one_hot(tokens[:, :-1], symbols), axis=1)
    return (seen + 1) / jnp.sum(seen + 1, axis=2, keepdims=True)


def bigram(tokens: Array, symbols: int) -> Array:
    """The next symbol by what followed the current one so far: ``(N_ij + 1) / (N_i + V)``, exactly the Bayes predictor.

    ``N_ij`` counts how often j followed i, the current symbol, and ``N_i = Σ_j N_ij``. With rows from the flat
    Dirichlet distribution this is ``P(x_{t+1} | x_1 ... x_t)``, the mean of the row over its posterior.

    Args, returns: as for ``uniform``.

    Source: Edelman et al. 2024, arXiv:2402.11004, section 2.

    >>> (6 * bigram(jnp.array([[0, 1, 0, 1]]), 2)[0]).round().astype(int).tolist()  # a half each; then 1/3, 2/3
    [[3, 3], [3, 3], [2, 4]]
    """
    followed = _followed(tokens, symbols)
    return (followed + 1) / jnp.sum(followed + 1, axis=2, keepdims=True)


def times_seen(tokens: Array, symbols: int) -> Array:
    """How often the current symbol was followed before: ``N_i`` of ``bigram``, shape ``(B, T)``.

    >>> times_seen(jnp.array([[0, 1, 0, 0, 1]]), 2).tolist()
    [[0, 0, 1, 2]]
    """
    return jnp.sum(_followed(tokens, symbols), axis=2).astype(jnp.int32)


def last_follower(tokens: Array, symbols: int) -> Array:
    """What followed the current symbol when it was last seen, -1 where it was not, shape ``(B, T)``.

    >>> last_follower(jnp.array([[0, 1, 0, 0, 1]]), 2).tolist()
    [[-1, -1, 1, 0]]
    """
    del symbols  # as for the others, though none is counted
    before = tokens[:, :-1]
    positions = np.arange(before.shape[1])
    earlier = (before[:, None, :] == before[:, :, None]) & (positions[None, :] < positions[:, None])[None]
    last = jnp.max(jnp.where(earlier, positions[None, None, :], -1), axis=2)
    follower = jnp.take_along_axis(tokens, jnp.maximum(last, 0) + 1, axis=1)
    return jnp.where(last < 0, -1, follower)


def cross_entropy(probabilities: Array, tokens: Array) -> Array:
    """``-log p`` of the symbols that came, nats, shape ``(B, T)``."""
    return -jnp.log(jnp.take_along_axis(probabilities, tokens[:, 1:, None], axis=2)[..., 0])


def entropy(probabilities: Array) -> Array:
    """``-Σ p log p``, nats, shape ``(B, T)``: of the Bayes predictor, its exact expected loss given what came before.

    >>> float(entropy(uniform(jnp.zeros((1, 2), int), 4))[0, 0])
    1.386...
    """
    return -jnp.sum(jax.scipy.special.xlogy(probabilities, probabilities), axis=-1)


def divergence(truth: Array, predicted: Array) -> Array:
    """``KL(truth ‖ predicted)`` per position, nats, shape ``(B, T)``: the cost of saying one where the other holds."""
    return jnp.sum(jax.scipy.special.xlogy(truth, truth) - jax.scipy.special.xlogy(truth, predicted), axis=-1)


def _followed(tokens: Array, symbols: int) -> Array:
    """How often each symbol followed the current one before, shape ``(B, T, V)``."""
    current, following = (jax.nn.one_hot(part, symbols) for part in (tokens[:, :-1], tokens[:, 1:]))
    pairs = current[..., :, None] * following[..., None, :]
    before = jnp.cumsum(pairs, axis=1) - pairs
    return jnp.einsum("bti,btij->btj", current, before)
