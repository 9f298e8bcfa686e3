"""The minimum next to a centre: what is left of training, as far as the temperature can tell."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import loss, tree
from slt_jax.posterior import (
    Evaluation,
    LocalPosterior,
    dimension,
    evaluate,
    excess,
    full_batch,
    minibatch,
    with_control_variates,
)
from slt_jax.types import Array, PyTree

#: First step of the descent: it is halved until it descends, so that only its order of magnitude costs anything.
_FIRST_STEP = 10.0
#: Examples on which the curvature along the gradient is measured when there are more.
_BEND_EXAMPLES = 4096


class Polished(NamedTuple):
    """A posterior around a minimum.

    Attributes:
      posterior: Around the minimum found, or the one that was given where that is not close.
      shift: ``nβ (L(w*) - L(minimum))``, how far the centre given lies above the minimum found, in units of λ;
        shape ``()``, 0 at a minimum.
      moved: Whether the centre was moved; boolean, shape ``()``.
    """

    posterior: LocalPosterior
    shift: Array
    moved: Array


class _Descent(NamedTuple):
    """Two last iterates, the best position with its potential and gradient, the age of the momentum, the step."""

    position: PyTree
    previous: PyTree
    best: PyTree
    best_potential: Array
    best_excess: Array
    age: Array
    step: Array


def polish(posterior: LocalPosterior, data: PyTree, *, iterations: int = 300) -> Polished:
    """Move the centre to the minimum of ``L + γ/(2 nβ) |z|²`` nearby, if it is within the reach of the temperature.

    A centre above the minimum by ``ΔL`` lowers λ̂ by ``nβ ΔL``, which for the true parameters on ``n`` sampled examples
    is a share of ``1 / log n``, 9 % at ``n = 1e5``. A minimum that is lower by no more than ``d/2`` in units of
    ``nβ L``, the energy of ``d`` modes, lies in the cloud that a chain visits anyway: the centre is moved there. One
    that is lower by more means that training had not ended: the centre stays, and ``shift`` says why not to believe it.

    Accelerated gradient descent whose momentum starts anew, and whose step is halved, where the potential rises.

    Args:
      posterior: Around the centre given.
      data: All examples.
      iterations: Gradients on all of the data.

    Returns:
      The posterior around the minimum, with ``n``, ``nβ`` and γ as they were. Works inside jit and vmap.

    Not to be believed as a minimum along directions with less than about 1e-4 of the largest curvature.

    Sources: Nesterov 1983 (the acceleration); O'Donoghue & Candès 2015, arXiv:1204.3982 (starting anew); Watanabe 2009,
    Algebraic Geometry and Statistical Learning Theory, chapter 6 (``n (L_n(w_0) - L_n(ŵ))``).

    >>> from slt_jax.posterior import localise
    >>> posterior = localise(lambda w, x: 0.5 * (w - x) ** 2, jnp.float32(0.1), jnp.array([-1.0, 1.0] * 50))
    >>> polished = polish(posterior, jnp.array([-1.0, 1.0] * 50))
    >>> bool(polished.moved), abs(round(float(polished.posterior.center), 4)), round(float(polished.shift), 3)
    (True, 0.0, 0.109)
    """
    batch = full_batch(posterior, data)
    ridge = posterior.gamma / posterior.nbeta
    origin = posterior.restriction.origin(posterior.center)

    def descend(_: int, now: _Descent) -> _Descent:
        momentum = (now.age - 1) / (now.age + 2)
        ahead = tree.combine(lambda x, last: x + momentum * (x - last), now.position, now.previous)
        found = evaluate(posterior, ahead, batch)
        potential = found.excess + 0.5 * ridge * tree.norm_squared(ahead)
        lower = potential <= now.best_potential
        taken = tree.combine(lambda x, g: x - now.step * (g + ridge * x), ahead, found.gradient)

        def choose(new: PyTree, old: PyTree) -> PyTree:
            return jax.tree.map(lambda a, b: jnp.where(lower, a, b), new, old)

        return _Descent(
            position=choose(taken, now.best),
            previous=choose(now.position, now.best),
            best=choose(ahead, now.best),
            best_potential=jnp.where(lower, potential, now.best_potential),
            best_excess=jnp.where(lower, found.excess, now.best_excess),
            age=jnp.where(lower, now.age + 1, 1.0),
            # a rise right after a start is not the ripple of a momentum: the step is too long
            step=jnp.where(lower | (now.age > 2), now.step, 0.5 * now.step),
        )

    shape = jax.eval_shape(evaluate, posterior, origin, batch)
    end = jax.lax.fori_loop(0, iterations, descend, _start(origin, shape, posterior))
    # of 0, not its negative: 0 at a minimum, and no -0
    shift = posterior.nbeta * (0.0 - end.best_excess)
    near = (shift > 0) & (shift <= 0.5 * dimension(posterior))
    z = jax.tree.map(lambda best: jnp.where(near, best, jnp.zeros_like(best)), end.best)
    return Polished(_around(posterior, z, data), shift, near)


def height(posterior: LocalPosterior, data: PyTree) -> Array:
    """``nβ |g|⁴ / (2 ⟨g, H g⟩)``: what one step of steepest descent would gain, to second order, in units of λ.

    A lower bound on the height of the centre above its minimum where the loss is a quadratic, so that a centre that is
    a minimum has none; λ̂ lacks what it says. One gradient on all of the data, in pieces, and one Hessian-vector product
    on at most 4096 examples.

    Args:
      posterior: Around the centre.
      data: All examples.

    Returns:
      Shape ``()``; 0 where the gradient is, or where the loss bends down along it.
    """
    count = loss.example_count(data)
    some = np.arange(min(count, _BEND_EXAMPLES)) * count // min(count, _BEND_EXAMPLES)
    batch = full_batch(posterior, data) if count <= _BEND_EXAMPLES else minibatch(posterior, data, jnp.asarray(some))
    origin = posterior.restriction.origin(posterior.center)
    gradient = with_control_variates(posterior, data).center_gradient
    image = jax.jvp(jax.grad(lambda z: excess(posterior, z, batch)), (origin,), (gradient,))[1]
    squared, bend = tree.norm_squared(gradient), tree.dot(gradient, image)
    return jnp.where(bend > 0, 0.5 * posterior.nbeta * squared * (squared / jnp.where(bend > 0, bend, 1.0)), 0.0)


def _start(origin: PyTree, shape: Evaluation, posterior: LocalPosterior) -> _Descent:
    zero = jnp.zeros((), shape.excess.dtype)
    # parameters may be wider than losses
    widest = jnp.result_type(shape.excess.dtype, posterior.gamma, posterior.nbeta, *jax.tree.leaves(origin))
    potential = jnp.zeros((), widest)
    return _Descent(origin, origin, origin, potential, zero, zero + 1, zero + _FIRST_STEP)


def _around(posterior: LocalPosterior, z: PyTree, data: PyTree) -> LocalPosterior:
    center = posterior.restriction.lift(posterior.center, z)
    losses = _center_losses(posterior.loss_fn, center, data)
    return posterior._replace(center=center, center_losses=losses.reshape(posterior.center_losses.shape))


_center_losses = jax.jit(loss.at_center)
read_height = jax.jit(height)
