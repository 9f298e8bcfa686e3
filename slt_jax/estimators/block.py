"""A stretch of chains as one program: a step for each stage, half of the chains warmer at first, all of it data.

The same compiled program burns chains in, draws, goes on where it stopped and repeats a run: what differs is its plan.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import loss
from slt_jax.curvature import (
    INERTIAL_FRACTION,
    STEP_FRACTION,
    inertial_step_size,
    langevin_step_size,
    sharpness,
    typical_points,
)
from slt_jax.posterior import Batch, LocalPosterior, dimension, excess, full_batch, gradient_noise, minibatch
from slt_jax.samplers import Sampler, sgld, underdamped
from slt_jax.sampling import Trace, batch_index, sample
from slt_jax.types import Array, Key, PyTree, Scalar

#: What the noise of minibatches may add to λ̂, as a share of it; the step is made small enough for it.
HEATING = 0.01
#: Share of the velocity that is lost in a step while the chains warm up: little, for momentum to cross flat directions.
BURNIN_FRICTION = 0.01
#: The same while draws are made: more, for the energy of the stiff modes to be forgotten sooner.
DRAW_FRICTION = 0.03
#: The energy forgets its start in ``1 / friction`` steps: a short burn-in needs a friction of this over its length.
#: Where no chain is annealed, only half of the energy is lacking at first, and 1 % at the end.
_FORGETTING, _FORGETTING_COLD = 20.0, 4.0
#: ``nβ`` of the annealed chains as a share of its final value: at first, and then once on the way.
HOT, WARM = 0.1, 0.3
#: Share of the burn-in that the annealed chains spend at a higher temperature.
_ANNEALED = 0.6
#: By how much λ̂ of the annealed chains may exceed that of the others, beyond its noise, before they count as escaped.
_ESCAPED = 1.0
#: Examples on which curvature is measured when there are more.
CURVATURE_EXAMPLES = 4096
#: What is assumed of the curvature, relative to the largest met, after a stage that diverged.
_AFTER_DIVERGENCE = 4.0
#: Pairs of batches from which the noise of the gradient is read, for each chain.
_PAIRS = 8
#: The least energy by which heat is judged, as a share of the dimension.
_LEAST_ENERGY = 0.005


class Plan(NamedTuple):
    """What happens in each stage: numbers only, so that all plans of as many stages share one compilation.

    Attributes:
      share: ``nβ`` as a share of its final value, shape ``(stage, group)``.
      step_size: The step, shape ``(stage, group)``; NaN where it is to be found from what the chains meet.
      friction: Share of the velocity lost in a step, shape ``(stage,)``; of no effect on minibatches.
      settled: Whether the step is that of the stage before, shape ``(stage,)``.
      fraction: Steps in units of those of the rule, shape ``()``.
    """

    share: Array
    step_size: Array
    friction: Array
    settled: Array
    fraction: Scalar


class Warm(NamedTuple):
    """Where chains stopped, and what they met; leading axes ``(group, chain)`` and ``(group,)``.

    Attributes:
      state: The sampler's states; before the first stage their positions are where curvature is first looked for.
      curvature: The largest curvature met that still counts.
      heat: What batches add to λ̂ for a step of 1, as a share of it; 0 on all of the data.
      finite: Whether the last stage was finite.
      share: ``nβ`` of the last stage as a share of its final value.
      bracket: Whether the second group has come from above, shape ``()``: it was warmer, and did not leave the basin.
      fresh: Whether the first stage, which starts at the centre, is still to come, shape ``()``.
    """

    state: PyTree
    curvature: Array
    heat: Array
    finite: Array
    share: Array
    bracket: Array
    fresh: Array


def groups_of(chains: int) -> int:
    """Two groups, one from below and one from above, where the chains can be halved."""
    return 2 if chains % 2 == 0 else 1


def has_bracket(chains: int, burnin_stages: int) -> bool:
    """Whether half of the chains can be annealed."""
    return groups_of(chains) == 2 and burnin_stages > 1


def plan(chains: int, burnin_stages: int, draw_stages: int, burnin: int, fraction: Scalar = 1.0) -> Plan:
    """Burn-in, then draws: the first group cold from the start, the second annealed from a tenth of ``nβ``."""
    stages, groups = burnin_stages + draw_stages, groups_of(chains)
    share = np.ones((stages, groups))
    if bracket := has_bracket(chains, burnin_stages):
        annealed = max(1, int(_ANNEALED * burnin_stages))
        hot = -(-2 * annealed // 3)
        share[:hot, 1], share[hot:annealed, 1] = HOT, WARM
    least = (_FORGETTING if bracket else _FORGETTING_COLD) / max(burnin, 1)
    # a change of friction is one more start to forget, for which a short run has no time
    warming = (np.arange(stages) < burnin_stages) | (not bracket and BURNIN_FRICTION < least < 1)
    friction = np.where(warming, BURNIN_FRICTION, DRAW_FRICTION)
    return Plan(
        share=jnp.asarray(share, jnp.float32),
        step_size=jnp.full((stages, groups), jnp.nan, jnp.float32),
        friction=jnp.asarray(np.clip(friction, min(least, 1.0), None), jnp.float32),
        # without a burn-in the curvature around the centre has to do
        settled=jnp.arange(stages) >= max(burnin_stages, 1),
        fraction=jnp.asarray(fraction, jnp.float32),
    )


def going_on(used: Plan) -> Plan:
    """The plan of a block that goes on where another stopped: draws only, at the step that was reached."""
    last = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[-1:], leaf.shape), used._replace(fraction=used.friction))
    return last._replace(fraction=used.fraction)


@partial(jax.jit, static_argnums=(3, 4))
def start(key: Key, posterior: LocalPosterior, data: PyTree, chains: int, batch_size: int | None) -> Warm:
    """All chains ready to start, at points of typical potential: there the first stage looks for curvature."""
    batch_key, point_key, init_key = jax.random.split(key, 3)
    groups = groups_of(chains)
    init = _sampler(posterior, 1.0, 1.0, batch_size).init
    state = jax.vmap(init, in_axes=(0, None, None))(jax.random.split(init_key, chains), posterior, data)
    points = typical_points(point_key, posterior, _curvature_batch(batch_key, posterior, data), chains)
    zero = jnp.zeros(groups, posterior.nbeta.dtype)
    shape = (groups, chains // groups)
    share = jnp.ones(groups, jnp.float32)  # single like that of a plan, also where nβ is double
    state = _grouped(state._replace(position=points), shape)
    return Warm(state, zero, zero, zero == 0, share, jnp.asarray(False), jnp.asarray(True))


@partial(jax.jit, static_argnums=(5, 6, 7))
def run(
    key: Key,
    posterior: LocalPosterior,
    data: PyTree,
    warm: Warm,
    todo: Plan,
    stretch: int,
    thin: int,
    batch_size: int | None,
) -> tuple[Trace, Warm, Plan]:
    """Run all stages of a plan.

    Returns:
      The trace of all stages, shape ``(chain, stage · stretch)``, the chains that started cold first; where they
      stopped; and the plan with the steps that were taken.
    """
    batch_key, stage_key = jax.random.split(key)
    batch = _curvature_batch(batch_key, posterior, data)
    groups, chains = jax.tree.leaves(warm.state)[0].shape[:2]
    stages = todo.settled.shape[0]

    def run_group(key: Key, share: Array, step_size: Array, friction: Array, state: PyTree) -> Trace:
        tempered = posterior._replace(nbeta=posterior.nbeta * share.astype(posterior.nbeta.dtype))
        sampler = _sampler(posterior, step_size, friction, batch_size)
        return sample(
            key, sampler, tempered, data, draws=stretch, chains=chains, thin=thin, batch_size=batch_size, start=state
        )

    def stage(warm: Warm, inputs: tuple[Key, Plan]) -> tuple[Warm, tuple[Trace, Array]]:
        key, now = inputs
        run_keys, curvature_keys, noise_keys = jax.random.split(key, (3, groups))
        # a run that is repeated knows its step; on minibatches what they heat has to be measured again
        given = jnp.isfinite(now.step_size).all() & (batch_size is None)

        def look(reached: PyTree) -> tuple[Array, Array]:
            here = jax.lax.map(lambda at: sharpness(at[0], posterior, batch, at[1]), (curvature_keys, reached))
            heat = jax.vmap(lambda k, points: _heat(k, posterior, data, points, batch, batch_size))
            return _remember(here, warm, now), warm.heat if batch_size is None else heat(noise_keys, reached)

        known = warm.curvature, warm.heat
        curvature, heat = jax.lax.cond(now.settled | given, lambda _: known, look, warm.state.position)
        # at one temperature all groups sample one law, and share one step
        one = now.share.min() == 1
        curvature, heat = (jnp.where(one, jnp.max(found), found) for found in (curvature, heat))
        rule = _step_size(posterior, curvature, heat, now.share, batch_size) * todo.fraction
        step_size = jnp.where(jnp.isfinite(now.step_size), now.step_size, rule).astype(jnp.float32)
        # no curvature is negative, but it is known only after the look: no second copy of the positions during it
        fresh = warm.fresh & (curvature[0] >= 0)
        begun = jax.tree.map(lambda z: jnp.where(fresh, jnp.zeros_like(z), z), warm.state.position)
        state = warm.state._replace(position=begun)
        trace = jax.vmap(run_group, in_axes=(0, 0, 0, None, 0))(run_keys, now.share, step_size, now.friction, state)
        finite = jnp.isfinite(trace.excess).all(axis=(1, 2))
        # what diverges in the burn-in tries a smaller step, at rest at the centre: no place to go back to is kept
        keep = now.settled | finite
        back = jax.tree.map(lambda leaf: jnp.where(_like(keep, leaf), leaf, jnp.zeros_like(leaf)), trace.state)
        reached = Warm(back, curvature, heat, finite, now.share, warm.bracket, jnp.asarray(False))
        energy = now.share * posterior.nbeta * jnp.mean(trace.excess[:, :, stretch // 2 :], axis=(1, 2))
        return _recalled(reached, energy, now), (trace._replace(state=()), step_size)

    per_stage = todo._replace(fraction=jnp.broadcast_to(todo.fraction, (stages,)))
    warm, (traces, steps) = jax.lax.scan(stage, warm, (jax.random.split(stage_key, stages), per_stage))
    return jax.tree.map(_join, traces), warm, todo._replace(step_size=steps)


def sampler_of(posterior: LocalPosterior, used: Plan, batch_size: int | None) -> Sampler:
    """The sampler of the last stage."""
    return _sampler(posterior, used.step_size[-1].min(), used.friction[-1], batch_size)


def _sampler(posterior: LocalPosterior, step_size: Scalar, friction: Scalar, batch_size: int | None) -> Sampler:
    dtype = posterior.nbeta.dtype
    step_size = jnp.asarray(step_size, dtype)
    return sgld(step_size) if batch_size is not None else underdamped(step_size, friction=jnp.asarray(friction, dtype))


def _step_size(posterior: LocalPosterior, curvature: Array, heat: Array, share: Array, batch_size: int | None) -> Array:
    tempered = posterior._replace(nbeta=posterior.nbeta * share)
    if batch_size is None:
        return inertial_step_size(tempered, curvature, INERTIAL_FRACTION)
    stable = langevin_step_size(tempered, curvature, STEP_FRACTION)
    return jnp.minimum(stable, HEATING / jnp.maximum(heat * share, jnp.finfo(heat.dtype).tiny))


def _heat(
    key: Key, posterior: LocalPosterior, data: PyTree, points: PyTree, batch: Batch, batch_size: int | None
) -> Array:
    """``(nβ)² tr Σ / (8 nβ K)``: what batches add to ``nβ K`` for a step of 1, as a share of it.

    Noise of covariance Σ in the gradient of the loss adds ``ε (nβ)² σ² / (4 a)`` to the variance of a mode of force
    constant ``a ≈ nβ h``, hence ``ε (nβ)² σ² / 8`` to its energy ``nβ h z²/2``, whatever its curvature: flat
    directions, whose gradient has no noise, count for nothing.
    """
    count = jax.tree.leaves(points)[0].shape[0]
    whole = loss.example_count(data)

    def noise(key: Key, z: PyTree) -> Array:
        keys = jax.random.split(key, _PAIRS)
        return jnp.mean(jax.lax.map(lambda k: gradient_noise(k, posterior, data, z, batch_size or whole), keys))

    energy = jax.vmap(lambda z: posterior.nbeta * excess(posterior, z, batch))(points)
    # chains that have hardly left the centre must not ask for a step of nearly 0
    least = _LEAST_ENERGY * dimension(posterior)
    mean_noise = jnp.mean(jax.vmap(noise)(jax.random.split(key, count), points))
    heat = posterior.nbeta**2 * mean_noise / (8 * jnp.maximum(jnp.mean(energy), least))
    return heat.astype(posterior.nbeta.dtype)  # parameters may be wider than losses


def _remember(here: Array, warm: Warm, now: Plan) -> Array:
    """The curvature that each group has to reckon with: the largest met, but what was met while hotter is forgotten."""
    cooled = (now.share > warm.share) & warm.finite
    before = jnp.where(cooled, 0.0, warm.curvature)
    diverged = _AFTER_DIVERGENCE * jnp.maximum(warm.curvature, jnp.where(jnp.isfinite(here), here, 0.0))
    return jnp.where(warm.finite & jnp.isfinite(here), jnp.maximum(before, here), diverged)


def _recalled(reached: Warm, energy: Array, now: Plan) -> Warm:
    """The second group starts again where the first one is, if while it was warm it left for a region of higher loss.

    λ̂ hardly depends on the temperature within a basin; at too high a one a chain leaves it, and does not come back.
    """
    if energy.shape[0] == 1:
        return reached
    below, above = energy
    escaped = ~now.settled & (above - below > jnp.maximum(_ESCAPED * below, 2 * jnp.sqrt(jnp.maximum(below, 0.0))))

    def from_first(leaf: Array) -> Array:
        return jnp.where(escaped, jnp.stack([leaf[0], leaf[0]]), leaf)

    warmer = now.share[1] < 1
    kept = {name: jax.tree.map(from_first, getattr(reached, name)) for name in ("state", "curvature", "heat")}
    # chains that had to begin again once they were cold do not come from above
    bracket = ~escaped & reached.finite[1] & (warmer | reached.bracket)
    return reached._replace(**kept, bracket=bracket)


def _grouped(stacked: PyTree, shape: tuple[int, int]) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), stacked)


def _like(flags: Array, leaf: Array) -> Array:
    return flags.reshape(flags.shape + (1,) * (leaf.ndim - 1))


def _join(stretches: Array) -> Array:
    """From ``(stage, group, chain, draw, ...)`` to ``(chain, draw, ...)``, the cold chains first."""
    stages, groups, chains, draws, *rest = stretches.shape
    moved = jnp.moveaxis(stretches, 0, 2)
    return moved.reshape(groups * chains, stages * draws, *rest)


def _curvature_batch(key: Key, posterior: LocalPosterior, data: PyTree) -> Batch:
    count = loss.example_count(data)
    if count <= CURVATURE_EXAMPLES:
        return full_batch(posterior, data)
    return minibatch(posterior, data, batch_index(key, CURVATURE_EXAMPLES, count))
