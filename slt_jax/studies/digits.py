"""Study ``digits``: a Flax network learns real handwritten digits, measured digit by digit."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from slt_jax.flax import from_linen
from slt_jax.models.perceptron import Perceptron
from slt_jax.problem import Problem
from slt_jax.reference import self_reference
from slt_jax.restriction import paths
from slt_jax.spectroscopy import Subject, Subloss, llc_probe, norms, project_outputs
from slt_jax.studies.study import Study, log_steps
from slt_jax.types import Array, Key, PyTree

CLASSES = 10
#: Training images of each digit: equally many, so that all sublosses share one compiled program.
PER_DIGIT = 100
HIDDEN = 32
LEARNING_RATE = 2e-3
BATCH = 200
STEPS = 1500


class State(NamedTuple):
    """Parameters, the optimiser's state, and the key that chooses the batches."""

    params: PyTree
    optimizer: PyTree
    key: Key


def cross_entropy(logits: Array, batch: PyTree) -> Array:
    """Cross-entropy to target probabilities, nats per image, shape ``(B,)``."""
    return optax.softmax_cross_entropy(logits, batch["targets"])


def study() -> Study:
    """Ten sublosses (the digits), ten concepts (recall on held-out images), one small Flax network.

    Every checkpoint is measured as a minimum of the Kullback-Leibler divergence to its own answers, because a network
    in the middle of its training is not a minimum of the loss that it is trained on.

    Source of the images: the digits of the UCI repository (Alpaydin & Kaynak 1998), as shipped with scikit-learn.

    >>> sorted(study().subject.sublosses)[:2]
    ['digit 0', 'digit 1']
    """
    training, held_out = _images()
    network = Perceptron((HIDDEN, CLASSES))
    variables = network.init(jax.random.key(0), training["inputs"][:1])
    loss_fn, params = from_linen(network, cross_entropy, variables)
    outputs, _ = from_linen(network, variables=variables)
    relabel = jax.jit(partial(self_reference, outputs, divergence="categorical"))
    labels = np.asarray(training["targets"]).argmax(axis=1)
    held_labels = np.asarray(held_out["targets"]).argmax(axis=1)
    subject = Subject(
        problem=Problem(loss_fn, params, training),
        sublosses={
            f"digit {digit}": Subloss(loss_fn, _where(training, labels == digit), relabel) for digit in range(CLASSES)
        },
        concepts={
            f"recognises {digit}": Partial(
                _recall, Partial(network.apply), digit, _where(held_out, held_labels == digit)["inputs"]
            )
            for digit in range(CLASSES)
        },
        restrictions={"hidden layer": paths(params, "layer_0/*"), "output layer": paths(params, "layer_1/*")},
        relabel=relabel,
        observations={
            # on images that it is not trained on
            "outputs": project_outputs(jax.random.key(1), outputs, params, held_out),
            **norms(Problem(loss_fn, params, training), {"hidden layer": "layer_0/*", "output layer": "layer_1/*"}),
        },
        # images of a digit stand together
        answers=Partial(_answers, Partial(network.apply), training["inputs"].reshape(CLASSES, PER_DIGIT, -1)),
    )
    optimizer = optax.adam(LEARNING_RATE)
    return Study(
        name="digits",
        title="A small network learns handwritten digits",
        summary=(
            "A Flax network of two layers learns 1000 images of 8 × 8 pixels, 100 of each digit. The sublosses are the "
            "digits; the concepts are the shares of 797 held-out images that it recognises, which the training loss "
            "never sees. Readings are of the divergence from the network's own answers, at a fixed resolution."
        ),
        subject=subject,
        init=Partial(_init, Partial(network.init), Partial(optimizer.init), training["inputs"][:1]),
        update=Partial(_update, loss_fn, Partial(optimizer.update), training),
        params_of=_params_of,
        record_at=np.unique(np.concatenate([log_steps(STEPS, 120), np.arange(0, STEPS + 1, 10)])),
        keep_at=log_steps(STEPS, 30),
        probes={"llc": llc_probe(nbeta=100.0, gamma=10.0, chains=4, draws=3000, burnin=1000, resolution=True)},
        sublosses=("all", *(f"digit {digit}" for digit in range(CLASSES))),
        budget=7,
    )


def _images() -> tuple[dict[str, Array], dict[str, Array]]:
    """Training images, equally many of each digit, and all others; pixels in [0, 1], targets one-hot."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    training = np.concatenate([np.flatnonzero(labels == digit)[:PER_DIGIT] for digit in range(CLASSES)])
    rest = np.setdiff1d(np.arange(len(labels)), training)
    images = {
        "inputs": jnp.asarray(pixels / 16, jnp.float32),
        "targets": jax.nn.one_hot(labels, CLASSES),
    }
    return _where(images, training), _where(images, rest)


def _where(images: dict[str, Array], index: np.ndarray) -> dict[str, Array]:
    return {name: leaf[np.asarray(index)] for name, leaf in images.items()}


def _recall(apply: Partial, digit: int, pixels: Array, params: PyTree) -> Array:
    return jnp.mean(apply({"params": params}, pixels).argmax(axis=1) == digit, dtype=jnp.float32)


def _answers(apply: Partial, pixels: Array, params: PyTree) -> Array:
    """The mean probabilities that images of each digit are given, shape ``(digits, digits)``."""
    return jnp.mean(jax.nn.softmax(apply({"params": params}, pixels)), axis=1)


def _init(init: Partial, start: Partial, example: Array, key: Key) -> State:
    params_key, batch_key = jax.random.split(key)
    params = init(params_key, example)["params"]
    return State(params, start(params), batch_key)


def _update(loss_fn: Partial, advance: Partial, data: PyTree, state: State, step: Array) -> State:
    index = jax.random.randint(jax.random.fold_in(state.key, step), (BATCH,), 0, CLASSES * PER_DIGIT)
    batch = jax.tree.map(lambda leaf: leaf[index], data)
    gradient = jax.grad(lambda params: jnp.mean(loss_fn(params, batch)))(state.params)
    changes, optimizer = advance(gradient, state.optimizer, state.params)
    return State(optax.apply_updates(state.params, changes), optimizer, state.key)


def _params_of(state: State) -> PyTree:
    return state.params
