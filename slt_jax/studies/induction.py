"""Study ``induction``: heads that look up what followed form in a transformer that learns Markov chains in context."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from slt_jax.flax import from_linen
from slt_jax.models.attention_only import (
    attention_weights,
    prefix_matching_scores,
    previous_token_scores,
)
from slt_jax.problem import Problem
from slt_jax.reference import self_reference
from slt_jax.restriction import heads, layer
from slt_jax.spectroscopy import Subject, Subloss, llc_probe, norms, project_outputs, susceptibility_probe
from slt_jax.studies.induction_training import (
    LENGTH,
    NETWORK,
    STEPS,
    SYMBOLS,
    Weights,
    initial,
    logits_of,
    params_of,
    update,
)
from slt_jax.studies.markov_chains import (
    bigram,
    divergence,
    entropy,
    last_follower,
    sample_chains,
    times_seen,
    uniform,
    unigram,
)
from slt_jax.studies.study import Study, log_steps
from slt_jax.types import Array, PyTree

#: Sequences on which losses are recorded and readings taken, the same for all seeds, and how much of each: within 32
#: symbols each is met often enough, and a chain costs a third.
MEASURED, READ = 16, 32
#: Sequences on which distances to the exact predictors are recorded; scores of heads are on the first 16, whole.
WATCHED = 64
#: Positions, of 64, that count as early and as late.
EARLY, LATE = 8, 32
#: Weights of a head spread by 0.06 then, a third of their size at the start, and the heads that look up are held by
#: more than γ in some directions.
NBETA, GAMMA = 1000.0, 300.0
#: The patterns of tokens.
PATTERNS = ("first time", "repeats", "differs")


def soft_cross_entropy(logits: Array, batch: PyTree) -> Array:
    """``-Σ_y p_y log q_y`` with the weights ``p`` of the batch, which need not sum to 1, nats, shape ``(B, T)``."""
    return optax.softmax_cross_entropy(logits, batch["targets"])


@jax.jit
def targets_of(tokens: Array) -> dict[str, Array]:
    """What a loss asks for at each position, by the name of the loss, each of shape ``(B, T, V)``.

    ``"all"`` are the exact probabilities of the next symbol given those so far: with them a loss is the exact
    expectation of the training loss on these sequences. The patterns are parts of them, scaled so that each loss is a
    mean over the tokens of its pattern. Together they are all tokens, each once:

    - ``"first time"``: the current symbol was not followed before. There is nothing to look up: what looks up does
      nothing here, and what counts symbols does as much as anywhere;
    - ``"repeats"``: it was, and what comes is what followed it last: copying helps;
    - ``"differs"``: it was, and another comes: copying harms. Counting symbols does not tell the last two apart.
    """
    exact = bigram(tokens, SYMBOLS)
    seen = times_seen(tokens, SYMBOLS)[..., None] > 0
    copied = jax.nn.one_hot(last_follower(tokens, SYMBOLS), SYMBOLS, dtype=bool)
    masks = {"first time": ~seen, "repeats": seen & copied, "differs": seen & ~copied}
    return {"all": exact, **{name: _scaled(exact * masks[name]) for name in PATTERNS}}


def own_targets(params: PyTree, data: PyTree) -> PyTree:
    """The tokens of a pattern with the network's own probabilities in place of the exact ones."""
    logits = logits_of(params, data["inputs"])
    return {**data, "targets": _scaled(jax.nn.softmax(logits) * (data["targets"] > 0))}


def _scaled(targets: Array) -> Array:
    """So that a loss is a mean over what is asked for."""
    return targets * (targets.shape[0] * targets.shape[1] / jnp.sum(targets))


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
    ['differs', 'first time', 'repeats']
    """
    tokens = sample_chains(jax.random.key(2402), WATCHED, LENGTH + 1, SYMBOLS)
    read = tokens[:MEASURED, : READ + 1]
    variables = {"params": initial(jax.random.key(0)).params}
    loss_fn, params = from_linen(NETWORK, soft_cross_entropy, variables)
    outputs, _ = from_linen(NETWORK, variables=variables)
    data = {name: {"inputs": read[:, :-1], "targets": targets} for name, targets in targets_of(read).items()}
    subject = Subject(
        problem=Problem(loss_fn, params, data["all"]),
        sublosses={name: Subloss(loss_fn, data[name], own_targets) for name in PATTERNS},
        concepts=concepts(tokens),
        restrictions=heads(params),
        relabel=jax.jit(partial(self_reference, outputs, divergence="categorical")),
        observations={
            "outputs": project_outputs(jax.random.key(1), outputs, params, data["all"]),
            **norms(Problem(loss_fn, params, data["all"])),
        },
        # both are acquired in one transition of the loss: what tells them apart is where they live
        stages={f"attention layer {at}": layer(params, f"attention_{at}") for at in range(NETWORK.layers)},
    )
    return Study(
        name="induction",
        title="Induction heads form while a transformer learns Markov chains in context",
        summary=(
            "Two layers of eight attention heads and nothing else learn to continue sequences, each from a Markov "
            "chain of its own. Without the order of its past the next symbol can be guessed somewhat, with it as well "
            "as possible; both predictors are exactly known. The second needs heads of the first layer that look one "
            "position back, and heads of the second that look at what followed the current symbol before. Readings "
            "are of the divergence from the network's own answers, one head free at a time."
        ),
        subject=subject,
        init=initial,
        update=Partial(update, weights),
        params_of=params_of,
        record_at=np.unique(np.concatenate([log_steps(STEPS, 50), np.arange(0, 601, 15)])),
        # the middle ones around the forming of the heads
        keep_at=np.array([0, 90, 180, 330, STEPS]),
        probes={
            "susceptibility": susceptibility_probe(nbeta=NBETA, gamma=GAMMA, chains=4, draws=150, burnin=150, thin=6)
        },
        restrictions=tuple(subject.restrictions),
        whole_probes={
            "llc": llc_probe(nbeta=NBETA, gamma=GAMMA, chains=4, draws=600, burnin=300, resolution=True),
        },
        budget=5,
        rankings=(("prefix matching", "first time"),),
    )


def concepts(tokens: Array) -> dict[str, Callable[[PyTree], Array]]:
    """What can be seen of a network from outside, by name: 0 before, about 1 after.

    - ``"previous token 0.h"`` and ``"prefix matching 1.h"``: scores of the heads of the first and the second layer;
    - ``"beyond uniform"``: its distance from the uniform predictor over that of the exact one;
    - ``"without order"``, ``"with order"``: how far it is on the way from the uniform predictor to ``unigram``, and to
      ``bigram``, by ``closeness``;
    - ``"in-context score"``: by how many nats late symbols are cheaper than early ones, over what is possible.
    """
    few = np.asarray(tokens[:MEASURED])
    exact = bigram(tokens, SYMBOLS)
    cost = jnp.mean(entropy(exact), axis=0)
    heads_of = range(NETWORK.heads)
    return {
        "beyond uniform": Partial(_beyond, tokens, uniform(tokens, SYMBOLS), exact),
        "without order": Partial(closeness, tokens, unigram(tokens, SYMBOLS)),
        "with order": Partial(closeness, tokens, exact),
        "in-context score": Partial(_in_context, tokens, exact, _late_less_early(cost)),
        **{f"previous token 0.{head}": _score_of(few, 0, head) for head in heads_of},
        **{f"prefix matching 1.{head}": _score_of(few, 1, head) for head in heads_of},
    }


def head_scores(params: PyTree, tokens: Array) -> Array:
    """The previous-token scores of the first layer above the prefix-matching scores of the second, ``(2, heads)``.

    Args:
      params: Of ``NETWORK``.
      tokens: Shape ``(B, T + 1)``.
    """
    inputs = tokens[:, :-1]
    weights = attention_weights(NETWORK, params, inputs)
    return jnp.stack([previous_token_scores(weights)[0], prefix_matching_scores(weights, inputs)[1]])


def _score_of(tokens: np.ndarray, layer: int, head: int) -> Callable[[PyTree], Array]:
    # over constants, not arguments: where all heads are recorded, the network is run for all of them once
    return lambda params: head_scores(params, jnp.asarray(tokens))[layer, head]


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
    return _late_less_early(jnp.mean(optax.softmax_cross_entropy(logits_of(params, tokens[:, :-1]), targets), axis=0))


def _late_less_early(losses: Array) -> Array:
    return jnp.mean(losses[LATE:]) - jnp.mean(losses[:EARLY])


def _in_context(tokens: Array, targets: Array, best: Array, params: PyTree) -> Array:
    return in_context_score(tokens, targets, params) / best


def _beyond(tokens: Array, start: Array, exact: Array, params: PyTree) -> Array:
    return distance(tokens, start, params) / jnp.mean(divergence(start, exact))


def _said(params: PyTree, tokens: Array) -> Array:
    return jax.nn.softmax(logits_of(params, tokens[:, :-1]))
