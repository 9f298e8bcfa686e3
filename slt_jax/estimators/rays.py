"""How far a ray from the centre stays in the basin ``{K < ε}``: the first crossing, found by growing and halving."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from slt_jax import loss, tree
from slt_jax.curvature.operators import hessian
from slt_jax.posterior import LocalPosterior
from slt_jax.types import Array, PyTree

#: A step outwards multiplies the radius by this: an excursion above ε that is shorter is stepped over.
GROWTH = 1.25
#: Halvings of the logarithm of the last step.
HALVINGS = 20
#: The search begins at this share of the radius that the curvature along the ray predicts.
_START = 0.125
#: Halvings of the start: so many in a row have to be inside, and no more than so many are tried.
_INSIDE, _SHRINKS = 7, 60
#: So many rays are followed at a time.
RAYS = 8


class Rays(NamedTuple):
    """What rays met.

    Attributes:
      log_radius: Logarithm of the length at the first crossing, in units of the direction, shape ``(ray,)``.
      reached: Whether the ray was still inside where it was told to end, shape ``(ray,)``.
    """

    log_radius: Array
    reached: Array


def follow(posterior: LocalPosterior, data: PyTree, directions: PyTree, threshold: Array, reach: Array) -> Rays:
    """The first ``s`` with ``K(s u) ≥ threshold`` along every direction ``u``, no farther than ``|s u| = reach``.

    From an eighth of where the curvature puts the wall, inwards by halves, to be sure that nothing stands between;
    outwards by quarters; then by halving the last step.

    Args:
      posterior: Gives loss, centre and free directions.
      data: The data it was made with.
      directions: Values of ``z``, stacked along a leading axis; none is 0.
      threshold: ε, in nats, shape ``()``.
      reach: In units of ``z``, shape ``()``.

    Returns:
      One radius a ray. A loss that is not finite counts as outside.
    """
    return jax.lax.map(
        lambda direction: _follow_one(posterior, data, direction, threshold, reach), directions, batch_size=RAYS
    )


def excess(posterior: LocalPosterior, data: PyTree, z: PyTree) -> Array:
    """``K`` at ``z`` on all of the data, a piece at a time, as the mean of differences from the centre."""
    params = posterior.restriction.lift(posterior.center, z)
    losses = loss.at_center(posterior.loss_fn, params, data)
    return jnp.mean(losses.astype(posterior.n.dtype) - posterior.center_losses)


def _follow_one(posterior: LocalPosterior, data: PyTree, direction: PyTree, threshold: Array, reach: Array) -> Rays:
    def inside(log_length: Array) -> Array:
        # NaN compares as false
        return excess(posterior, data, tree.scale(jnp.exp(log_length), direction)) < threshold

    end = jnp.log(reach) - 0.5 * jnp.log(tree.norm_squared(direction))
    image = hessian(direction, posterior.loss_fn, posterior.center, data, posterior.restriction)
    curvature = jnp.maximum(tree.dot(direction, image), jnp.finfo(end.dtype).tiny)
    wall = jnp.minimum(0.5 * (jnp.log(2 * threshold) - jnp.log(curvature)), end)
    low, high, within = _last_step(inside, _innermost(inside, wall + jnp.log(_START)), end)

    def halve(_: int, interval: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = interval
        middle = 0.5 * (low + high)
        here = inside(middle)
        return jnp.where(here, middle, low), jnp.where(here, high, middle)

    reached = within & (high >= end)
    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (low, high))
    return Rays(jnp.where(reached, end, 0.5 * (low + high)), reached)


def _innermost(inside: Callable[[Array], Array], start: Array) -> Array:
    """The farthest of the start and its halves that is inside, and has no half of it that is outside."""

    def inwards(at: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        start, here, count, tried = at
        is_inside = inside(here)
        start = jnp.where(is_inside & (count == 0), here, start)
        return start, here - jnp.log(2.0), jnp.where(is_inside, count + 1, 0), tried + 1

    zero = jnp.asarray(0)
    found = jax.lax.while_loop(lambda at: (at[2] < _INSIDE) & (at[3] < _SHRINKS), inwards, (start, start, zero, zero))
    return found[0]


def _last_step(inside: Callable[[Array], Array], start: Array, end: Array) -> tuple[Array, Array, Array]:
    """The step outwards that met a wall, or the end, and whether its upper end is still inside."""

    def outwards(at: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        _, high, _ = at
        step = jnp.minimum(high + jnp.log(GROWTH), end)
        return high, step, inside(step)

    return jax.lax.while_loop(lambda at: at[2] & (at[1] < end), outwards, (start, start, jnp.asarray(True)))
