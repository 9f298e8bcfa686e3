"""The minimum next to a centre: what is left of training, as far as the temperature can tell."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import loss, tree
from slt_jax.posterior import (
    Batch,
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
#: A step that gains less than this share of the rounding of the energy of all modes is the last.
_UNSEEN = 0.01
#: Examples on which the curvature along the gradient is measured when there are more.
_BEND_EXAMPLES = 4096


class Polished(NamedTuple):
    """A posterior around a minimum.

    Attributes:
      posterior: Around the minimum found, or the one that was given where that is not close.
      shift: ``nβ (L(w*) - L(minimum))``, how far the centre given lies above the minimum found, in units of λ;
        shape ``()``, 0 at a minimum.
      moved: Whether the centre was moved; boolean, shape ``()``.
      gradients: Gradients on all of the data that the descent took, shape ``()``.
    """

    posterior: LocalPosterior
    shift: Array
    moved: Array
    gradients: Array


class _Descent(NamedTuple):
    """The last end of a step, the position to look at next, what the last look said, and how the descent goes on.

    Attributes:
      end: Where the last step ended; ``ahead`` lies beyond it by the momentum.
      ahead: The position whose gradient comes next, and, at the end, the one whose potential is known.
      potential: At the last look, in nats, relative to the centre.
      excess: The same without the pull of γ.
      age: Steps since the momentum started anew.
      step: Length of a step, per unit of gradient.
      looks: Gradients taken.
      done: Whether the next step would gain nothing that can be seen.
    """

    end: PyTree
    ahead: PyTree
    potential: Array
    excess: Array
    age: Array
    step: Array
    looks: Array
    done: Array


def polish(posterior: LocalPosterior, data: PyTree, *, iterations: int = 300) -> Polished:
    """Move the centre to the minimum of ``L + γ/(2 nβ) |z|²`` nearby, if it is within the reach of the temperature.

    A centre above the minimum by ``ΔL`` lowers λ̂ by ``nβ ΔL``, which for the true parameters on ``n`` sampled examples
    is a share of ``1 / log n``, 9 % at ``n = 1e5``. A minimum that is lower by no more than ``d/2`` in units of
    ``nβ L``, the energy of ``d`` modes, lies in the cloud that a chain visits anyway: the centre is moved there. One
    that is lower by more means that training had not ended: the centre stays, and ``shift`` says why not to believe it.

    Accelerated gradient descent whose momentum starts anew where the potential rises, and whose step is halved where it
    rises at once or above the centre given, to which it then returns: nothing else has to be kept. It ends where a step
    would gain less than a hundredth of what rounding leaves of the energy ``d/2``: at a centre that is a minimum, after
    one gradient.

    Args:
      posterior: Around the centre given.
      data: All examples.
      iterations: Gradients on all of the data at most.

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

    def unfinished(now: _Descent) -> Array:
        return ~now.done & (now.looks < iterations)

    def descend(now: _Descent) -> _Descent:
        found = evaluate(posterior, now.ahead, batch)
        potential = found.excess + 0.5 * ridge * tree.norm_squared(now.ahead)
        slope = tree.combine(lambda g, x: g + ridge * x, found.gradient, now.ahead)
        gain = posterior.nbeta * now.step * tree.norm_squared(slope)
        # not a number counts as above
        lower, rises = potential <= 0, potential > now.potential
        done = lower & (gain <= _unseen(posterior, found.excess.dtype))
        # a rise right after a start is not the ripple of a momentum: the step is too long
        too_long = ~lower | (rises & (now.age <= 2))
        age = jnp.where(rises | ~lower, 1.0, now.age + 1)
        momentum = (age - 1) / (age + 2)
        stay = done | (now.looks + 1 >= iterations)

        def moved(x: Array, last: Array, g: Array) -> Array:
            end = x - now.step * g
            return jnp.where(lower, jnp.where(stay, x, end + momentum * (end - last)), jnp.zeros_like(x))

        def ended(x: Array, g: Array) -> Array:
            return jnp.where(lower, x - now.step * g, jnp.zeros_like(x))

        return _Descent(
            end=tree.combine(ended, now.ahead, slope),
            ahead=tree.combine(moved, now.ahead, now.end, slope),
            potential=jnp.where(lower, potential, jnp.zeros_like(potential)),
            excess=jnp.where(lower, found.excess, jnp.zeros_like(found.excess)),
            age=age,
            step=jnp.where(too_long, 0.5 * now.step, now.step),
            looks=now.looks + 1,
            done=done,
        )

    shape = jax.eval_shape(evaluate, posterior, origin, batch)
    end = jax.lax.while_loop(unfinished, descend, _start(origin, shape, posterior))
    # of 0, not its negative: 0 at a minimum, and no -0
    shift = posterior.nbeta * (0.0 - end.excess)
    near = (shift > 0) & (shift <= 0.5 * dimension(posterior))
    z = jax.tree.map(lambda x: jnp.where(near, x, jnp.zeros_like(x)), end.ahead)
    return Polished(_around(posterior, z, data), shift, near, end.looks)


def height(posterior: LocalPosterior, data: PyTree) -> Array:
    """``nβ |g|⁴ / (2 ⟨g, H g⟩)``: what one step of steepest descent would gain, to second order, in units of λ.

    A lower bound on the height of the centre above its minimum where the loss is a quadratic, so that a centre that is
    a minimum has none; λ̂ lacks what it says. One gradient on all of the data, in pieces, and one Hessian-vector product
    on at most 4096 examples.

    Args:
      posterior: Around the centre.
      data: All examples.

    Returns:
      Shape ``()``; 0 where the gradient is, or where the loss bends down along it; NaN where either is not finite.
    """
    count = loss.example_count(data)
    some = np.arange(min(count, _BEND_EXAMPLES)) * count // min(count, _BEND_EXAMPLES)
    batch = full_batch(posterior, data) if count <= _BEND_EXAMPLES else minibatch(posterior, data, jnp.asarray(some))
    return gain(posterior, with_control_variates(posterior, data).center_gradient, batch)


def gain(posterior: LocalPosterior, gradient: PyTree, batch: Batch) -> Array:
    """``height`` where the gradient on all of the data is known; the curvature along it is that on a batch."""
    origin = posterior.restriction.origin(posterior.center)
    image = jax.jvp(jax.grad(lambda z: excess(posterior, z, batch)), (origin,), (gradient,))[1]
    squared, bend = tree.norm_squared(gradient), tree.dot(gradient, image)
    gained = 0.5 * posterior.nbeta * squared * (squared / jnp.where(bend == 0, 1.0, bend))
    return jnp.where(bend <= 0, 0.0, gained)


def _start(origin: PyTree, shape: Evaluation, posterior: LocalPosterior) -> _Descent:
    zero = jnp.zeros((), shape.excess.dtype)
    # parameters may be wider than losses
    widest = jnp.result_type(shape.excess.dtype, posterior.gamma, posterior.nbeta, *jax.tree.leaves(origin))
    looks, done = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    return _Descent(origin, origin, jnp.zeros((), widest), zero, zero + 1, zero + _FIRST_STEP, looks, done)


def _unseen(posterior: LocalPosterior, dtype: jnp.dtype) -> float:
    """Gain of a step, in units of λ, below which the descent ends."""
    return _UNSEEN * float(jnp.finfo(dtype).eps) * dimension(posterior)


def _around(posterior: LocalPosterior, z: PyTree, data: PyTree) -> LocalPosterior:
    center = posterior.restriction.lift(posterior.center, z)
    losses = _center_losses(posterior.loss_fn, center, data)
    return posterior._replace(center=center, center_losses=losses.reshape(posterior.center_losses.shape))


_center_losses = jax.jit(loss.at_center)
read_height = jax.jit(height)
