"""Study ``regression``: a transformer learns to fit a line to the examples that it is shown, in context."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from slt_jax.models.regressor import Regressor
from slt_jax.problem import Problem
from slt_jax.restriction import blocks
from slt_jax.spectroscopy import Subject, Subloss, llc_probe
from slt_jax.studies.linear_tasks import (
    Posterior,
    Sequences,
    as_vectors,
    discrete,
    draw_sequences,
    draw_tasks,
    ridge,
)
from slt_jax.studies.study import Study, log_steps
from slt_jax.types import Array, Key, PyTree

#: Deviation of the answers from the line.
NOISE = 0.25
LEARNING_RATE = 3e-3
BATCH = 64
STEPS = 4000
#: The last of so many parts of the steps so far is averaged: single steps shake every curve by more than they move it.
AVERAGED = 10
#: Sequences on which losses and concepts are recorded, and those of them on which readings are taken.
WATCHED, MEASURED = 256, 32
#: Weights then spread by 0.03, an eighth of their size: with more freedom chains of this length disagree.
NBETA, GAMMA = 1000.0, 1000.0


class State(NamedTuple):
    """Parameters, their average over the last steps, the optimiser's state, and the key of all sequences to come."""

    params: PyTree
    average: PyTree
    optimizer: PyTree
    key: Key


class Setting(NamedTuple):
    """What sequences are made of: a tree without leaves, known to the compiler.

    Attributes:
      dimension: Of inputs and tasks.
      examples: In a sequence.
      batch: Sequences a step.
      network: The architecture.
    """

    dimension: int
    examples: int
    batch: int
    network: Regressor


def study(
    tasks: int | None = None,
    *,
    dimension: int = 2,
    examples: int = 8,
    width: int = 32,
    heads: int = 4,
    hidden: int = 64,
    batch: int = BATCH,
    steps: int = STEPS,
) -> Study:
    """In-context linear regression: from the answer 0 to ridge regression, beside the exact predictors.

    Each sequence ``x_1, y_1, x_2, y_2, ...`` has a task of its own, ``y = w · x + noise``, so that only the examples
    before an input tell its answer. What is best said is exactly known: 0 without the examples, ridge regression with
    them where tasks come from a normal distribution, and where they are finitely many the mean over those that the
    examples leave possible. Losses are the exact expectations of ``½ (y - f)²`` over the answers.

    Args:
      tasks: How many tasks there are, drawn once, or ``None`` for a new one in every sequence.
      dimension: Of inputs and tasks.
      examples: In a sequence.
      width: Of the stream.
      heads: Attention heads in each of the two blocks; they divide the width.
      hidden: Width of the perceptrons.
      batch: Sequences a step.
      steps: Of training, at least 100.

    The default takes five minutes of CPU. As published, for an accelerator:
    ``study(dimension=4, examples=8, width=64, hidden=64, batch=256, steps=500_000)``.

    Raises:
      ValueError: a number that is not positive, heads that do not divide the width, or too few steps or examples.

    Sources: Raventós et al. 2023, arXiv:2306.15063; its stages: Hoogland et al. 2024, arXiv:2402.02364.

    >>> sorted(study().subject.concepts), sorted(study(tasks=4).subject.concepts)[-1]
    (['beyond zero', 'in-context score', 'ridge'], 'tasks known')
    """
    numbers = {"dimension": dimension, "width": width, "heads": heads, "hidden": hidden, "batch": batch}
    _check(tasks, numbers, examples, steps)
    network = Regressor(width=width, blocks=2, heads=heads, hidden=hidden, length=2 * examples)
    setting = Setting(dimension, examples, batch, network)
    known = None if tasks is None else draw_tasks(jax.random.key(2306), tasks, dimension)
    watched = sequences_of(jax.random.key(2402), setting, known, WATCHED)
    params = network.init(jax.random.key(0), as_vectors(watched)[:1])["params"]
    read = jax.tree.map(lambda leaf: leaf[:MEASURED], watched)
    loss_fn = Partial(partial(expected_loss, network))
    relabel = jax.jit(partial(own_answers, network))
    few = np.arange(examples) < examples // 2
    parts = {"few examples": few, "many examples": ~few}
    subject = Subject(
        problem=Problem(loss_fn, params, asked(read, known, np.ones(examples))),
        sublosses={
            name: Subloss(loss_fn, asked(read, known, examples * where / where.sum()), relabel)
            for name, where in parts.items()
        },
        concepts=concepts(network, watched, known),
        restrictions=blocks(params),
        relabel=relabel,
    )
    return Study(
        name="regression",
        title="A transformer learns linear regression in context",
        summary=(
            f"Two blocks of attention and perceptrons are shown {examples} examples of a linear function, each of "
            f"which is asked for before it is told; every sequence has a function of its own"
            f"{'' if tasks is None else f', one of {tasks}'}. At first the network answers 0, then by the line that "
            "fits the examples so far, as ridge regression does; both are exactly known. Readings are of the distance "
            "from the network's own answers, at a fixed resolution."
        ),
        subject=subject,
        init=Partial(partial(_init, setting)),
        update=Partial(partial(_update, setting), known),
        params_of=_params_of,
        record_at=np.unique(np.concatenate([log_steps(steps, 100), np.arange(0, steps + 1, max(1, steps // 100))])),
        keep_at=log_steps(steps, 30),
        probes={"llc": llc_probe(nbeta=NBETA, gamma=GAMMA, chains=4, draws=800, burnin=300, resolution=True)},
        sublosses=("all", *parts),
        budget=7,
    )


def best(sequences: Sequences, tasks: Array | None) -> Posterior:
    """What is exactly known of every answer before it comes."""
    return ridge(sequences, NOISE) if tasks is None else discrete(sequences, tasks, NOISE)


def asked(sequences: Sequences, tasks: Array | None, weights: np.ndarray) -> dict[str, Array]:
    """What ``expected_loss`` takes: vectors ``(B, 2 K, D + 1)``, and mean, variance and weight of each, ``(B, K)``."""
    posterior = best(sequences, tasks)
    return {
        "vectors": as_vectors(sequences),
        "mean": posterior.mean,
        "variance": posterior.variance,
        "weights": jnp.broadcast_to(jnp.asarray(weights, jnp.float32), posterior.mean.shape),
    }


def expected_loss(network: Regressor, params: PyTree, batch: PyTree) -> Array:
    """``½ w [(f - mean)² + variance]``: the expectation of ``½ (y - f)²`` over the answer, shape ``(B, K)``."""
    miss = answers_of(network, params, batch["vectors"]) - batch["mean"]
    return 0.5 * batch["weights"] * (jnp.square(miss) + batch["variance"])


def own_answers(network: Regressor, params: PyTree, data: PyTree) -> PyTree:
    """The data with the network's own answers, without noise: the loss of which every checkpoint is a minimum, 0."""
    own = answers_of(network, params, data["vectors"])
    return {**data, "mean": own, "variance": jnp.zeros_like(own)}


def answers_of(network: Regressor, params: PyTree, vectors: Array) -> Array:
    """What the network says where an answer is asked for, shape ``(B, K)``."""
    found = network.apply({"params": params}, vectors)
    assert isinstance(found, jax.Array)
    return found[:, ::2]


def concepts(network: Regressor, sequences: Sequences, tasks: Array | None) -> dict[str, Callable]:
    """What can be seen of a network from outside, by name: 0 before, about 1 after.

    - ``"beyond zero"``: the mean square of its answers over that of the best ones: 0 for the mean over all tasks;
    - ``"ridge"``: how far it is on the way from the answer 0 to ridge regression,
      ``1 - E(f - ridge)² / E ridge²``;
    - ``"tasks known"``, where they are finitely many: the same for the mean over the tasks still possible;
    - ``"in-context score"``: how much less it misses the last answers by than the first, over what is possible.
    """
    vectors, exact = as_vectors(sequences), best(sequences, tasks)
    line = ridge(sequences, NOISE).mean
    found: dict[str, Callable] = {
        "beyond zero": Partial(partial(_size, network), vectors, exact.mean),
        "ridge": Partial(partial(_closeness, network), vectors, line),
        "in-context score": Partial(partial(_in_context, network), vectors, exact),
    }
    if tasks is not None:
        found["tasks known"] = Partial(partial(_closeness, network), vectors, exact.mean)
    return found


def sequences_of(key: Key, setting: Setting, tasks: Array | None, count: int) -> Sequences:
    """``count`` sequences, each with a new task or with one of those that there are."""
    task_key, sequence_key = jax.random.split(key)
    if tasks is None:
        own = draw_tasks(task_key, count, setting.dimension)
    else:
        own = tasks[jax.random.randint(task_key, (count,), 0, len(tasks))]
    return draw_sequences(sequence_key, own, setting.examples, NOISE)


def _size(network: Regressor, vectors: Array, exact: Array, params: PyTree) -> Array:
    return jnp.mean(jnp.square(answers_of(network, params, vectors))) / jnp.mean(jnp.square(exact))


def _closeness(network: Regressor, vectors: Array, target: Array, params: PyTree) -> Array:
    missed = jnp.mean(jnp.square(answers_of(network, params, vectors) - target))
    return 1 - missed / jnp.mean(jnp.square(target))


def _in_context(network: Regressor, vectors: Array, exact: Posterior, params: PyTree) -> Array:
    missed = jnp.square(answers_of(network, params, vectors) - exact.mean) + exact.variance
    return _gain(jnp.mean(missed, axis=0)) / _gain(jnp.mean(exact.variance, axis=0))


def _gain(missed: Array) -> Array:
    """From the first answer, of which nothing is known, to the last quarter."""
    return missed[0] - jnp.mean(missed[-max(1, len(missed) // 4) :])


def _init(setting: Setting, key: Key) -> State:
    params_key, data_key = jax.random.split(key)
    vectors = jnp.zeros((1, 2 * setting.examples, setting.dimension + 1))
    params = setting.network.init(params_key, vectors)["params"]
    return State(params, params, optax.adam(LEARNING_RATE).init(params), data_key)


def _update(setting: Setting, tasks: Array | None, state: State, step: Array) -> State:
    sequences = sequences_of(jax.random.fold_in(state.key, step), setting, tasks, setting.batch)

    def training_loss(params: PyTree) -> Array:
        said = answers_of(setting.network, params, as_vectors(sequences))
        return 0.5 * jnp.mean(jnp.square(said - sequences.answers))

    gradient = jax.grad(training_loss)(state.params)
    changes, optimizer = optax.adam(LEARNING_RATE).update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, changes)
    share = 1 / (1 + step / AVERAGED)
    average = jax.tree.map(lambda mean, new: mean + share * (new - mean), state.average, params)
    return State(params, average, optimizer, state.key)


def _params_of(state: State) -> PyTree:
    return state.average


def _check(tasks: int | None, numbers: dict[str, int], examples: int, steps: int) -> None:
    for name, number in {**numbers, **({} if tasks is None else {"tasks": tasks})}.items():
        if number < 1:
            raise ValueError(f"{name}: got {number}; it must be at least 1.")
    if numbers["width"] % numbers["heads"]:
        raise ValueError(f"heads: got {numbers['heads']}; they must divide the width, {numbers['width']}.")
    if examples < 2:
        raise ValueError(f"examples: got {examples}; a sequence needs at least 2.")
    if steps < 100:
        raise ValueError(f"steps: got {steps}; phases need at least 100.")
