"""Moves that leave the prior below a level of the loss as it is: reflections at the wall, stretches and leaps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import tree
from slt_jax.ladder.moves import between_halves, numbers_for, proposed
from slt_jax.posterior import Batch, LocalPosterior, evaluate
from slt_jax.types import Array, Key, PyTree, Scalar

#: What one evaluation of all members is for. A step of a trajectory takes two: ahead, and where that was outside, back.
_START, _AHEAD, _BACK, _STRETCH, _SCALE, _LOWER, _UPPER = range(7)
#: A round: a trajectory of some steps, stretches of two entries and of all, and a leap of either half.
ROUND = (_START, _BACK, _AHEAD, _BACK, _AHEAD, _BACK, _SCALE, _STRETCH, _SCALE, _STRETCH, _LOWER, _UPPER)
#: Logarithms of the least and the largest angle by which a step turns at first, and of what both stay between.
FIRST, _BETWEEN = (np.log(0.1), 0.0), (np.log(1e-14), 0.0)
#: Share of the steps in the lower and in the upper half of the angles that arrive, to which both are led, and how fast.
_ARRIVED, _GAIN = (0.7, 0.3), 1.5
#: Logarithms of the scales between which that of a stretch of all entries is drawn (logistic), over their number.
_SCALES = (np.log(0.2), np.log(5.0))


class Members(NamedTuple):
    """A population; leading axis ``(member,)``.

    Attributes:
      position: ``z``.
      excess: ``K`` in nats, infinite where it is no number.
      angles: Logarithms of the least and the largest angle of a step, shape ``(2,)``.
    """

    position: PyTree
    excess: Array
    angles: Array


class _Walk(NamedTuple):
    """One member on its way; ``hit`` says that the wall was between ``position`` and ``beyond``."""

    position: PyTree
    excess: Array
    velocity: PyTree
    angle: Array
    beyond: PyTree
    mirrored: PyTree
    hit: Array
    upper: Array
    arrived: Array


def wander(
    key: Key, posterior: LocalPosterior, batch: Batch, members: Members, level: Scalar, schedule: Array
) -> Members:
    """Members that move under the prior ``N(0, 1/γ)`` restricted to ``K < level``, which all moves leave invariant.

    *Trajectory*: with ``v ~ N(0, 1/γ)``, ``(z, v)`` turns by an angle, ``z cos t + v sin t``, which leaves the product
    of both normal laws as it is. Where that is outside, the velocity there is mirrored on ``∇K`` and turns once more;
    where that is outside too, the member stays and its velocity is reversed. Turning, mirroring, turning and reversing
    is its own inverse and changes neither volume nor density: there is no further test. Angles are drawn over all
    scales between two that follow what arrives, so that narrow and wide places are both crossed.

    *Stretch and leap*: those of a ladder, tested by the density of the prior and by the level; and a stretch of all
    entries alike, without which ``K`` would be handed down in many dimensions.

    Args:
      key: A typed key.
      posterior: Its ``nβ`` is not used.
      batch: All of the data.
      members: All below the level; at least 4.
      level: In nats.
      schedule: What each evaluation is for, shape ``(evaluation,)``: ``ROUND``, as often as wanted.

    Returns:
      The members, with the least angle led to where most steps arrive, and the largest to where some do.

    Not to be believed as quite exact over many calls: angles follow what the members did, an effect of ``1 / live``.

    Source: Betancourt 2011, arXiv:1005.0157 (reflections under a hard constraint); Neal 2011, arXiv:1206.1901, section
    5.5.1.5 (exact motion under a normal law); Ter Braak 2006, doi:10.1007/s11222-006-8769-1 (leaps).
    """
    count = members.excess.shape[0]
    still = tree.zeros_like(members.position)
    nothing = jnp.zeros_like(members.excess)
    never = jnp.zeros(count, bool)
    walks = _Walk(
        members.position, members.excess, still, nothing, still, still, never, never, jnp.zeros((count, 2, 2))
    )
    least, largest = members.angles

    def turn(walks: _Walk, at: tuple[Key, Array]) -> tuple[_Walk, None]:
        numbers = numbers_for(at[0], posterior, count, 1)
        first, other, allowed = (array[-1] for array in between_halves(numbers.pairs))
        a, b = (jax.tree.map(lambda leaf, who=who: leaf[who], walks.position) for who in (first, other))
        may = jnp.where(at[1] == _LOWER, ~allowed, jnp.where(at[1] == _UPPER, allowed, True))
        angles = jnp.exp(least + numbers.step * (largest - least))
        start = at[1] == _START
        walks = walks._replace(
            angle=jnp.where(start, angles, walks.angle), upper=jnp.where(start, numbers.step > 0.5, walks.upper)
        )
        step = jax.vmap(_step, in_axes=(None, None, None, None, 0, 0, 0, 0, 0, 0))
        return step(at[1], posterior, batch, level, numbers.moves[0], numbers.momentum, a, b, may, walks), None

    keys = jax.random.split(key, schedule.shape[0])
    walks = jax.lax.scan(turn, walks, (keys, schedule))[0]
    return Members(walks.position, walks.excess, _led(members.angles, jnp.sum(walks.arrived, axis=0)))


def _led(angles: Array, seen: Array) -> Array:
    """The angles, changed for the ``(half, (arrived, tried))`` seen; the larger at least e times the least."""
    share = seen[:, 0] / jnp.maximum(seen[:, 1], 1)
    shift = jnp.where(seen[:, 1] > 0, _GAIN * (share - jnp.asarray(_ARRIVED)), 0.0)
    least, largest = jnp.clip(angles + shift, *_BETWEEN)
    return jnp.stack(
        [jnp.minimum(least, _BETWEEN[1] - 1), jnp.maximum(largest, jnp.minimum(least, _BETWEEN[1] - 1) + 1)]
    )


def _step(
    kind: Array,
    posterior: LocalPosterior,
    batch: Batch,
    level: Scalar,
    u: Array,
    fresh: PyTree,
    a: PyTree,
    b: PyTree,
    may: Array,
    walk: _Walk,
) -> _Walk:
    """One evaluation of one member: of whichever kind, so that the loss is compiled once."""
    starts, back, travels = kind == _START, kind == _BACK, kind <= _BACK
    scaled = tree.scale(1 / jnp.sqrt(posterior.gamma), fresh)
    walk = walk._replace(velocity=_where(starts, scaled, walk.velocity))
    turned, spun = _turned(
        walk.angle, _where(back, walk.beyond, walk.position), _where(back, walk.mirrored, walk.velocity)
    )
    jumped, log_volume = proposed(kind == _STRETCH, u, walk.position, a, b)
    size = tree.size(walk.position)
    grown = jnp.exp(_SCALES[0] + u[0] * (_SCALES[1] - _SCALES[0])) * (jnp.log(u[1]) - jnp.log1p(-u[1])) / size
    log_volume = jnp.where(kind == _SCALE, size * grown, log_volume)
    jumped = _where(kind == _SCALE, tree.scale(jnp.exp(grown), walk.position), jumped)
    position = _where(travels, turned, jumped)
    evaluation = evaluate(posterior, position, batch)
    inside = evaluation.excess < level  # what is no number is outside
    change = 0.5 * posterior.gamma * tree.norm_squared_change(position, walk.position) - log_volume
    taken = inside & jnp.where(travels, walk.hit | ~back, may & (jnp.log(u[-1]) < -change))
    velocity = _where(travels & taken, spun, walk.velocity)
    return _Walk(
        position=_where(taken, position, walk.position),
        excess=jnp.where(taken, evaluation.excess, walk.excess),
        velocity=_where(back & walk.hit & ~taken, tree.scale(-1.0, velocity), velocity),
        angle=walk.angle,
        beyond=position,
        mirrored=_mirrored(spun, evaluation.gradient),
        hit=travels & ~back & ~inside,
        upper=walk.upper,
        arrived=walk.arrived.at[walk.upper.astype(int)].add(jnp.stack([1.0 * (travels & taken), 1.0 * back])),
    )


def _where(which: Array, one: PyTree, other: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(which, a, b), one, other)


def _turned(angle: Array, z: PyTree, v: PyTree) -> tuple[PyTree, PyTree]:
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return tree.combine(lambda z, v: z * cos + v * sin, z, v), tree.combine(lambda v, z: v * cos - z * sin, v, z)


def _mirrored(v: PyTree, normal: PyTree) -> PyTree:
    share = 2 * tree.dot(v, normal) / tree.norm_squared(normal)
    return tree.combine(lambda v, n: v - share * n, v, normal)
