"""The problems on which ``llc`` is judged: linear networks with their sufficient statistics, and regressions.

Everything is drawn from fixed seeds, so that an oracle that was computed once can be compared again and again.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import Problem
from slt_jax.truths import deep_linear_problem, reduced_rank_problem


class LinearTask(NamedTuple):
    """A linear network with what decides its posterior, in float64.

    Attributes:
      problem: What is handed to ``llc``.
      gram: Second moments of the inputs, ``(H_0, H_0)``.
      target: The least-squares map, ``(H_N, H_0)``: the loss is ``½ tr (P - target) gram (P - target)ᵀ`` plus a number.
      reference: The least value of that loss which a network of these widths can reach: energies are counted from here.
    """

    problem: Problem
    gram: np.ndarray
    target: np.ndarray
    reference: float

    def center_excess(self) -> float:
        """By how much the loss at the centre lies above the reference, in nats."""
        return quadratic_loss(self.gram, self.target, product(self.problem.params)) - self.reference


def random_networks(count: int, seed: int, layers: int = 5, width: int = 50) -> Iterator[tuple[tuple[int, ...], int]]:
    """Widths and ranks of the published classes: 2 to ``layers`` layers, widths 5 to ``width``."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        depth = generator.integers(2, layers + 1)
        widths = tuple(int(size) for size in generator.integers(5, width + 1, size=depth + 1))
        yield widths, int(generator.integers(0, min(widths) + 1))


def layers_of_intervals(widths, intervals) -> list[np.ndarray]:
    """Layers of zeros and ones of a stratum: each interval is a path from unit to unit, from width i to width j."""
    layers = [np.zeros((after, before)) for before, after in pairwise(widths)]
    taken = [0] * len(widths)
    for (first, last), count in intervals.items():
        for _ in range(count):
            for place in range(first, last):
                layers[place][taken[place + 1], taken[place]] = 1.0
            for place in range(first, last + 1):
                taken[place] += 1
    return layers


def product(layers) -> np.ndarray:
    """``W_N ··· W_1`` in float64."""
    return np.linalg.multi_dot([np.asarray(layer, float) for layer in reversed(layers)] + [np.eye(layers[0].shape[1])])


def quadratic_loss(gram: np.ndarray, target: np.ndarray, map_: np.ndarray) -> float:
    """``½ tr (P - T) S (P - T)ᵀ``."""
    return float(0.5 * np.sum(((map_ - target) @ gram) * (map_ - target)))


def population_task(key: jax.Array, widths, rank: int, examples: int, **placement) -> LinearTask:
    """A deep linear network with its population loss; ``placement`` goes to ``deep_linear_problem``."""
    problem = deep_linear_problem(key, widths, rank, examples=examples, **placement)
    return LinearTask(problem, np.eye(widths[0]), product(problem.params), 0.0)


def sampled_task(seed: int, widths, rank: int, examples: int, **placement) -> LinearTask:
    """A deep linear network at its true parameters, with the loss on drawn data and unit noise.

    The mean loss over the examples is a quadratic form in the product, given by the second moments of the data, so that
    a gradient on all of the data costs what it costs on none; the part of the loss that no linear map can reach is
    left out. The true parameters are not its minimum: they lie about ``λ/n`` above.
    """
    problem = deep_linear_problem(jax.random.key(seed), widths, rank, examples=examples, **placement)
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(examples, widths[0]))
    outputs = inputs @ product(problem.params).T + generator.normal(size=(examples, widths[-1]))
    gram, target = _statistics(inputs, outputs)
    loss_fn = Partial(_map_loss, jnp.asarray(gram, jnp.float32), jnp.asarray(target, jnp.float32))
    return LinearTask(problem._replace(loss_fn=loss_fn), gram, target, _least_loss(gram, target, min(widths)))


def reduced_rank_task(seed: int, inputs: int, hidden: int, outputs: int, rank: int, examples: int) -> LinearTask:
    """Reduced-rank regression on drawn data with unit noise, at the minimum of its own loss, balanced."""
    problem = reduced_rank_problem(
        jax.random.key(seed), inputs, hidden, outputs, rank, examples=examples, population=False
    )
    gram, target = _statistics(*(np.asarray(leaf, float) for leaf in problem.data))
    (left, values, right), root = _whitened(gram, target)
    used = min(hidden, len(values))
    scale = np.sqrt(values[:used])
    first, second = np.zeros((hidden, inputs)), np.zeros((outputs, hidden))
    first[:used] = scale[:, None] * right[:used] @ np.linalg.inv(root)
    second[:, :used] = left[:, :used] * scale
    params = tuple(jnp.asarray(layer, jnp.float32) for layer in (first, second))
    return LinearTask(problem._replace(params=params), gram, target, _least_loss(gram, target, hidden))


def perceptron(seed: int, widths: tuple[int, int, int], dead: int, examples: int, *, noise: float = 0.0) -> Problem:
    """A network ``V tanh(W x)`` whose last ``dead`` units have zero weights in and out.

    Without noise the data are the network's own answers, so that the true parameters are a minimum on any data. With
    noise the centre is a minimum of the loss on the data, found from the true parameters by least squares in float64;
    the dead units have then learned some of the noise.
    """
    generator = np.random.default_rng(seed)
    inputs, hidden, outputs = widths
    alive = hidden - dead
    first, second = np.zeros((hidden, inputs), np.float32), np.zeros((outputs, hidden), np.float32)
    first[:alive] = generator.normal(size=(alive, inputs)) * 1.5 / np.sqrt(inputs)
    second[:, :alive] = generator.normal(size=(outputs, alive))
    features = generator.normal(size=(examples, inputs)).astype(np.float32)
    answers = np.tanh(features.astype(float) @ first.T.astype(float)) @ second.T.astype(float)
    targets = (answers + noise * generator.normal(size=answers.shape)).astype(np.float32)
    if noise:
        # dead units are a saddle of the empirical loss: a small push lets them leave it
        push = [0.1 * generator.normal(size=layer.shape) * (layer == 0) for layer in (first, second)]
        first, second = least_squares((first + push[0], second + push[1]), features, targets)
    params = (jnp.asarray(first, jnp.float32), jnp.asarray(second, jnp.float32))
    return Problem(Partial(two_layer_loss), params, (jnp.asarray(features), jnp.asarray(targets)))


def least_squares(start, features: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A minimum of the loss of ``V tanh(W x)`` near ``start``: Levenberg-Marquardt in float64."""
    from scipy import optimize

    hidden, inputs = start[0].shape
    data = np.asarray(features, float), np.asarray(targets, float)

    def layers(flat):
        return flat[: hidden * inputs].reshape(hidden, inputs), flat[hidden * inputs :].reshape(-1, hidden)

    def residuals(flat):
        first, second = layers(flat)
        return (np.tanh(data[0] @ first.T) @ second.T - data[1]).ravel()

    def jacobian(flat):
        first, second = layers(flat)
        units = np.tanh(data[0] @ first.T)
        by_first = np.einsum("jh,nh,ni->njhi", second, 1 - units**2, data[0])
        by_second = np.einsum("nh,jk->njkh", units, np.eye(len(second)))
        return np.concatenate([leaf.reshape(targets.size, -1) for leaf in (by_first, by_second)], axis=1)

    flat = np.concatenate([np.ravel(leaf) for leaf in start])
    found = optimize.least_squares(residuals, flat, jacobian, method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15)
    return layers(found.x)


def two_layer_loss(params, batch) -> jax.Array:
    """``½ |V tanh(W x) - y|²`` for each example, shape ``(B,)``."""
    inputs, targets = batch
    exact = jax.lax.Precision.HIGHEST
    hidden = jnp.tanh(jnp.matmul(inputs, params[0].T, precision=exact))
    return 0.5 * jnp.sum(jnp.square(jnp.matmul(hidden, params[1].T, precision=exact) - targets), axis=1)


def _map_loss(gram: jax.Array, target: jax.Array, layers, batch) -> jax.Array:
    """``½ tr (P - T) S (P - T)ᵀ``, shape ``()``."""
    del batch  # carries the number of examples only
    exact = jax.lax.Precision.HIGHEST
    map_ = layers[0]
    for layer in layers[1:]:
        map_ = jnp.matmul(layer, map_, precision=exact)
    return 0.5 * jnp.sum(jnp.matmul(map_ - target, gram, precision=exact) * (map_ - target))


def _statistics(inputs: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    moments = inputs.T @ inputs
    return moments / len(inputs), np.linalg.solve(moments, inputs.T @ outputs).T


def _whitened(gram: np.ndarray, target: np.ndarray):
    """The singular value decomposition of ``T S^{1/2}``, and ``S^{1/2}``."""
    values, basis = np.linalg.eigh(gram)
    root = (basis * np.sqrt(values)) @ basis.T
    return np.linalg.svd(target @ root, full_matrices=False), root


def _least_loss(gram: np.ndarray, target: np.ndarray, rank: int) -> float:
    """The loss of the best map of a rank: half the squares of the singular values it has to leave out."""
    (_, values, _), _ = _whitened(gram, target)
    return float(0.5 * np.sum(values[rank:] ** 2))
