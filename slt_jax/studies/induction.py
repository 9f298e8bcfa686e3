"""Study ``induction``: heads that look up what followed form in a transformer that learns Markov chains in context."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from slt_jax.flax import from_linen
from slt_jax.models.attention_only import (
    AttentionOnly,
    attention_weights,
    prefix_matching_scores,
    previous_token_scores,
)
from slt_jax.problem import Problem
from slt_jax.restriction import heads
from slt_jax.spectroscopy import Subject, Subloss, llc_probe
from slt_jax.studies.markov_chains import (
    bigram,
    divergence,
    last_follower,
    sample_chains,
    times_seen,
    uniform,
    unigram,
)
from slt_jax.studies.study import Study, log_steps
from slt_jax.types import Array, Key, PyTree

SYMBOLS, LENGTH = 4, 64
NETWORK = AttentionOnly(vocabulary=SYMBOLS, width=32, layers=2, heads=8, length=LENGTH)
OPTIMIZER = optax.adam(3e-3)
BATCH = 32
STEPS = 1500
#: Sequences that are measured on, and those among them on which concepts are recorded: the same for all seeds.
MEASURED, WATCHED = 64, 16
#: Positions, of 64, that count as early and as late.
EARLY, LATE = 8, 32

#: What each sequence, or each of its positions, counts for in training: ``weights(tokens) -> (B,)`` or ``(B, T)``.
Weights = Callable[[Array], Array]


class State(NamedTuple):
    """Parameters, the optimiser's state, and the key that the sequences come from."""

    params: PyTree
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
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(_logits(params, tokens), tokens[:, 1:])
    if weights is None:
        return jnp.mean(losses)
    counted = weights(tokens)
    counted = jnp.broadcast_to(counted if counted.ndim == 2 else counted[:, None], losses.shape)
    return jnp.sum(counted * losses) / jnp.sum(counted)


def initial(key: Key) -> State:
    """Random parameters, and the key of all sequences to come."""
    params_key, data_key = jax.random.split(key)
    params = NETWORK.init(params_key, jnp.zeros((1, LENGTH), jnp.int32))["params"]
    return State(params, OPTIMIZER.init(params), data_key)


def update(weights: Weights | None, state: State, step: Array) -> State:
    """One step of Adam on fresh sequences."""
    tokens = sample_chains(jax.random.fold_in(state.key, step), BATCH, LENGTH + 1, SYMBOLS)
    gradient = jax.grad(partial(training_loss, weights))(state.params, tokens)
    changes, optimizer = OPTIMIZER.update(gradient, state.optimizer, state.params)
    return State(optax.apply_updates(state.params, changes), optimizer, state.key)


def params_of(state: State) -> PyTree:
    """The parameters in a state of training."""
    return state.params


def soft_cross_entropy(logits: Array, batch: PyTree) -> Array:
    """``-Σ_y p_y log q_y`` with the weights ``p`` of the batch, which need not sum to 1, nats, shape ``(B, T)``."""
    return optax.softmax_cross_entropy(logits, batch["targets"])


def targets_of(tokens: Array) -> dict[str, Array]:
    """What a loss asks for at each position, by the name of the loss, each of shape ``(B, T, V)``.

    ``"all"`` are the exact probabilities of the next symbol given those so far: with them a loss is the exact
    expectation of the training loss on these sequences. The patterns are parts of them, scaled so that each loss is a
    mean over the tokens of its pattern:

    - ``"first time"``: the current symbol was not followed before: neither order nor counts of it help;
    - ``"repeats"``: it was, and what comes is what followed it last: copying helps;
    - ``"differs"``: it was, and another comes: copying harms, by as much as it is done;
    - ``"early"``, ``"late"``: the first 8 positions, where no predictor knows much, and the last 32;
    - ``"orderless"``: the same sequences as they would go on if their order did not matter: by ``unigram``.

    The first three are all tokens, each once. Copying lowers ``repeats`` and raises ``differs`` and ``orderless``;
    counting symbols does not tell the first two apart and lowers ``orderless`` alone.
    """
    exact = bigram(tokens, SYMBOLS)
    seen = times_seen(tokens, SYMBOLS)[..., None] > 0
    copied = jax.nn.one_hot(last_follower(tokens, SYMBOLS), SYMBOLS, dtype=bool)
    position = np.arange(LENGTH)[None, :, None]
    patterns = {
        "first time": exact * ~seen,
        "repeats": exact * (seen & copied),
        "differs": exact * (seen & ~copied),
        "early": exact * (position < EARLY),
        "late": exact * (position >= LATE),
        "orderless": unigram(tokens, SYMBOLS),
    }
    count = tokens.shape[0] * LENGTH
    return {"all": exact, **{name: part * (count / jnp.sum(part)) for name, part in patterns.items()}}


def study(weights: Weights | None = None) -> Study:
    """Induction heads, in a network small enough to train in a minute, beside the exact predictors of its data.

    Each sequence comes from a Markov chain of its own, so that nothing but its own past tells what comes next. What is
    best said is exactly known, with the order of the past (``bigram``) and without (``unigram``), and the network
    passes by the second on its way to the first.

    Args:
      weights: What sequences or positions count for in training, ``weights(tokens) -> (B,)`` or ``(B, T)`` for tokens
        of shape ``(B, T + 1)``; a ``Partial`` over its arrays, or ``None`` for all alike.

    Source: Edelman et al. 2024, arXiv:2402.11004.

    >>> sorted(study().subject.sublosses)
    ['differs', 'early', 'first time', 'late', 'orderless', 'repeats']
    """
    tokens = sample_chains(jax.random.key(2402), MEASURED, LENGTH + 1, SYMBOLS)
    variables = NETWORK.init(jax.random.key(0), tokens[:1, :-1])
    loss_fn, params = from_linen(NETWORK, soft_cross_entropy, variables)
    data = {name: {"inputs": tokens[:, :-1], "targets": targets} for name, targets in targets_of(tokens).items()}
    subject = Subject(
        problem=Problem(loss_fn, params, data.pop("all")),
        sublosses={name: Subloss(loss_fn, part) for name, part in data.items()},
        concepts=concepts(tokens),
        restrictions=heads(params),
    )
    return Study(
        name="induction",
        title="Induction heads form while a transformer learns Markov chains in context",
        summary=(
            "Two layers of eight attention heads and nothing else learn to continue sequences, each from a Markov "
            "chain of its own. Without the order of its past the next symbol can be guessed somewhat, with it as well "
            "as possible; both predictors are exactly known. The second needs heads of the first layer that look one "
            "position back, and heads of the second that look at what followed the current symbol before."
        ),
        subject=subject,
        init=initial,
        update=Partial(update, weights),
        params_of=params_of,
        record_at=np.unique(np.concatenate([log_steps(STEPS, 50), np.arange(0, 601, 15)])),
        keep_at=log_steps(STEPS, 24),
        probes={"llc": llc_probe()},
        budget=8,
    )


def concepts(tokens: Array) -> dict[str, Partial]:
    """What can be seen of a network from outside, by name: 0 before, about 1 after.

    - ``"previous token 0.h"`` and ``"prefix matching 1.h"``: scores of the heads of the first and the second layer;
    - ``"beyond uniform"``: its distance from the uniform predictor over that of the exact one;
    - ``"without order"``, ``"with order"``: how far it is on the way from the uniform predictor to ``unigram``, and to
      ``bigram``, by ``closeness``;
    - ``"in-context score"``: by how many nats late symbols are cheaper than early ones, over what is possible.
    """
    watched = tokens[:WATCHED]
    scores = {
        **{f"previous token 0.{head}": Partial(_previous_token, head, watched) for head in range(NETWORK.heads)},
        **{f"prefix matching 1.{head}": Partial(_prefix_matching, head, watched) for head in range(NETWORK.heads)},
    }
    exact = bigram(tokens, SYMBOLS)
    cost = jnp.mean(optax.softmax_cross_entropy(jnp.log(exact), exact), axis=0)
    return {
        "beyond uniform": Partial(_beyond, tokens, uniform(tokens, SYMBOLS), exact),
        "without order": Partial(closeness, tokens, unigram(tokens, SYMBOLS)),
        "with order": Partial(closeness, tokens, exact),
        "in-context score": Partial(_in_context, tokens, exact, _late_less_early(cost)),
        **scores,
    }


def distance(tokens: Array, predicted: Array, params: PyTree) -> Array:
    """``KL(predictor ‖ network)``, the mean over all positions, nats per token, shape ``()``.

    Args:
      tokens: Shape ``(B, T + 1)``.
      predicted: What the predictor says, shape ``(B, T, V)``: ``uniform``, ``unigram`` or ``bigram`` of these tokens.
      params: Of ``NETWORK``.
    """
    return jnp.mean(divergence(predicted, _said(params, tokens)))


def closeness(tokens: Array, predicted: Array, params: PyTree) -> Array:
    """``1 - KL(predictor ‖ network) / KL(predictor ‖ uniform)``: 0 at the uniform predictor, 1 at this one."""
    return 1 - distance(tokens, predicted, params) / jnp.mean(divergence(predicted, uniform(tokens, SYMBOLS)))


def in_context_score(tokens: Array, targets: Array, params: PyTree) -> Array:
    """Mean loss at the late positions less that at the early ones, nats: negative where the past is made use of."""
    return _late_less_early(jnp.mean(optax.softmax_cross_entropy(_logits(params, tokens), targets), axis=0))


def _late_less_early(losses: Array) -> Array:
    return jnp.mean(losses[LATE:]) - jnp.mean(losses[:EARLY])


def _in_context(tokens: Array, targets: Array, best: Array, params: PyTree) -> Array:
    return in_context_score(tokens, targets, params) / best


def _beyond(tokens: Array, start: Array, exact: Array, params: PyTree) -> Array:
    return distance(tokens, start, params) / jnp.mean(divergence(start, exact))


def _logits(params: PyTree, tokens: Array) -> Array:
    """What the network says of the symbols after the first, shape ``(B, T, V)``."""
    found = NETWORK.apply({"params": params}, tokens[:, :-1])
    assert isinstance(found, jax.Array)
    return found


def _said(params: PyTree, tokens: Array) -> Array:
    return jax.nn.softmax(_logits(params, tokens))


def _previous_token(head: int, tokens: Array, params: PyTree) -> Array:
    return previous_token_scores(attention_weights(NETWORK, params, tokens[:, :-1]))[0, head]


def _prefix_matching(head: int, tokens: Array, params: PyTree) -> Array:
    inputs = tokens[:, :-1]
    return prefix_matching_scores(attention_weights(NETWORK, params, inputs), inputs)[1, head]
