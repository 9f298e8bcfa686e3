"""What every sampler is: a pair of pure functions, what every step reports, and the Metropolis test that two share."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import loss, tree
from slt_jax.noise import exact_normal
from slt_jax.posterior import Batch, Evaluation, LocalPosterior, evaluate, force, full_batch, pair
from slt_jax.types import Array, Key, PyTree, Scalar


class Sampler(NamedTuple):
    """A Markov chain on ``z`` as a pair of pure functions.

    Both are ``jax.tree_util.Partial`` over module-level functions with what the user chose (a step size) as their
    leading arguments, so that a sampler is a tree: it can be an argument of a jitted function, and one compilation
    serves a whole sweep.

    Attributes:
      init: ``init(key, posterior, data) -> State``. A State has at least ``position``: the current ``z``.
      step: ``step(key, state, posterior, batch) -> (State, Info)``, where ``batch`` is a ``Batch`` or plain examples
        (then the centre is evaluated on them too).
      overdamped: ε of the overdamped Langevin dynamics that the noise of minibatches heats as much, in squared units of
        the parameters, shape ``()``: gradient noise of variance σ² adds ``ε (nβ)² σ² / 4a`` to the variance of a mode
        of force constant ``a``, up to higher orders in ``ε a``. NaN where no one number says so: the heat is unknown.
    """

    init: Partial
    step: Partial
    overdamped: Scalar = math.nan


class Info(NamedTuple):
    """What diagnostics need, about the position from which the step started. All of shape ``()`` but ``virials``.

    Attributes:
      excess: ``L(w) - L(w*)`` on the batch, nats.
      loss: ``L(w)`` on the batch, nats.
      noise: Variance of ``excess`` due to the choice of the batch, squared nats.
      virial: ``⟨z, nβ ∇L + γ z⟩ / d``, whose mean under the posterior is exactly 1 (equipartition).
      virials: The same for each leaf of ``z`` alone, shape ``(leaf,)``; each has mean 1.
      distance_squared: ``|z|²``.
      acceptance: Probability with which the step was accepted; 1 for a sampler without a Metropolis test.
    """

    excess: Array
    loss: Array
    noise: Array
    virial: Array
    virials: Array
    distance_squared: Array
    acceptance: Array


def report(position: PyTree, evaluation: Evaluation, force: PyTree, acceptance: Scalar = 1.0) -> Info:
    """The Info of a position whose loss, gradient and force are at hand."""
    products = tree.dot_by_leaf(position, force)
    sizes = np.array([leaf.size for leaf in jax.tree.leaves(position)])
    return Info(
        excess=evaluation.excess,
        loss=evaluation.loss,
        noise=evaluation.noise,
        virial=jnp.sum(products) / sizes.sum(),
        virials=products / np.maximum(sizes, 1).astype(products.dtype),
        distance_squared=tree.norm_squared(position),
        acceptance=jnp.asarray(acceptance, evaluation.excess.dtype),
    )


class MetropolisState(NamedTuple):
    """The current ``z``, what the loss gave there, and whether that was on all of the data.

    The evaluation holds neither nβ nor γ, so that both may change from one step to the next. It is of the data: a
    state is no start for a chain on other data or around another centre.
    """

    position: PyTree
    evaluation: Evaluation
    known: Array


class Trajectory(NamedTuple):
    """Leapfrog steps: where they end, with which momentum, and what the loss gave at the end and at the start."""

    position: PyTree
    momentum: PyTree
    end: Evaluation
    start: Evaluation


def metropolis_init(key: Key, posterior: LocalPosterior, data: PyTree) -> MetropolisState:
    """At the centre, without a look at the loss: the first step takes it, so that a gradient is compiled once."""
    del key
    origin = posterior.restriction.origin(posterior.center)
    shapes = jax.eval_shape(evaluate, posterior, origin, full_batch(posterior, data))
    return MetropolisState(origin, tree.zeros_like(shapes), jnp.zeros((), bool))


def metropolis_step(
    step_size: Scalar,
    leapfrogs: Scalar,
    key: Key,
    state: MetropolisState,
    posterior: LocalPosterior,
    batch: Batch | PyTree,
) -> tuple[MetropolisState, Info]:
    """A fresh momentum, ``leapfrogs`` leapfrog steps, and the Metropolis test of the end against the start.

    On all of the data the evaluation at the start is the one that the last step left. A batch that is a part of the
    data is another one at each step: then the start is evaluated again, on the batch that the end is evaluated on.
    """
    batch = pair(posterior, batch)
    momentum_key, accept_key = jax.random.split(key)
    momentum = exact_normal(momentum_key, state.position)
    uniform = jax.random.uniform(accept_key, (), posterior.nbeta.dtype)
    return metropolis_move(step_size, leapfrogs, momentum, uniform, state, state.known, posterior, batch)


def metropolis_move(
    step_size: Scalar,
    leapfrogs: Scalar,
    momentum: PyTree,
    uniform: Array,
    state: MetropolisState,
    known: Array,
    posterior: LocalPosterior,
    batch: Batch,
) -> tuple[MetropolisState, Info]:
    """``metropolis_step`` with what it draws given: the momentum, and a number in [0, 1) for the test.

    ``known`` says whether the evaluation of the state holds; where it is one for many states, so is the length of the
    loop over the trajectory, and no state waits for another.
    """
    whole = loss.example_count(batch.examples) >= posterior.n
    before = Trajectory(state.position, momentum, state.evaluation, state.evaluation)
    after = leapfrog(step_size, leapfrogs, before, known & whole, posterior, batch)
    change = energy_change(posterior, before._replace(start=after.start), after)
    acceptance = jnp.where(jnp.isnan(change), 0.0, jnp.exp(-jnp.maximum(change, 0.0)))
    accepted = uniform < acceptance
    position, evaluation = jax.tree.map(
        lambda new, old: jnp.where(accepted, new, old), (after.position, after.end), (state.position, after.start)
    )
    info = report(state.position, after.start, force(posterior, state.position, after.start.gradient), acceptance)
    return MetropolisState(position, evaluation, jnp.asarray(whole)), info


def leapfrog(
    step_size: Scalar, count: Scalar, path: Trajectory, known: Array, posterior: LocalPosterior, batch: Batch
) -> Trajectory:
    """``count`` leapfrog steps, one gradient each; one more gradient at the start where it is not known.

    The number of steps is a number, not a shape: changing it compiles nothing. The look at the start is step 0 of the
    same loop, of length 0, so that the loss is compiled once.
    """

    def advance(index: Array, path: Trajectory) -> Trajectory:
        moved = jnp.where(index == 0, 0.0, step_size)
        momentum = _kick(0.5 * moved, path.position, path.momentum, path.end, posterior)
        position = tree.combine(lambda z, p: z + moved * p, path.position, momentum)
        end = evaluate(posterior, position, batch)
        momentum = _kick(0.5 * moved, position, momentum, end, posterior)
        start = jax.tree.map(lambda new, old: jnp.where(index == 0, new, old), end, path.start)
        return Trajectory(position, momentum, end, start)

    first = jnp.where(known, 1, 0).astype(jnp.int32)
    return jax.lax.fori_loop(first, jnp.asarray(count, jnp.int32) + 1, advance, path)


def energy_change(posterior: LocalPosterior, before: Trajectory, after: Trajectory) -> Array:
    """``H(after) - H(before)`` with ``H = nβ L + γ/2 |z|² + |p|²/2``, shape ``()``, as a sum of differences.

    The loss enters as the excess paired on the same examples and the squares as products of difference and sum: the
    energies themselves, of the order of the dimension, would drown their difference in single precision. What is left
    is the rounding of the excess, 6e-8 λ in single precision: nothing to be seen below λ = 1e5.
    """
    return posterior.nbeta * (after.end.excess - before.start.excess) + 0.5 * (
        posterior.gamma * tree.norm_squared_change(after.position, before.position)
        + tree.norm_squared_change(after.momentum, before.momentum)
    )


def _kick(length: Scalar, position: PyTree, momentum: PyTree, at: Evaluation, posterior: LocalPosterior) -> PyTree:
    return tree.combine(lambda p, f: p - length * f, momentum, force(posterior, position, at.gradient))
