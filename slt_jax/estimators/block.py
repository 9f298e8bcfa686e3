"""A stretch of chains as one program: a step for each stage, half of the chains warmer at first, all of it data.

The same compiled program burns chains in, draws, goes on where it stopped and repeats a run: what differs is its plan.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from slt_jax import loss, sharding, tree
from slt_jax.curvature import sharpness, typical_points
from slt_jax.estimators.dynamics import curvature_batch, sampler_for, step_size_for
from slt_jax.estimators.heating import as_share, can_follow, feel
from slt_jax.estimators.planning import Plan, groups_of
from slt_jax.posterior import LocalPosterior, with_control_variates
from slt_jax.samplers import Sampler
from slt_jax.sampling import Trace, sample
from slt_jax.types import Array, Key, PyTree

#: By how much λ̂ of the annealed chains may exceed that of the others, beyond its noise, before they count as escaped.
_ESCAPED = 0.5
#: What is assumed of the curvature, relative to the largest met, after a stage that diverged.
_AFTER_DIVERGENCE = 4.0


class Warm(NamedTuple):
    """Where chains stopped, and what they met; leading axes ``(group, chain)`` and ``(group,)``.

    Attributes:
      state: The sampler's states; before the first stage their positions are where curvature is first looked for.
      curvature: The largest curvature met that still counts.
      heat: What batches add to λ̂ for an ε of 1, as a share of it, where the last step was found; 0 on all of the data.
      energy: ``nβ`` times the mean excess of the last half of the last stage, whatever its temperature; NaN before it.
      began: Where the last stage began; ``()`` on all of the data.
      finite: Whether the last stage was finite.
      share: ``nβ`` of the last stage as a share of its final value.
      bracket: Whether the second group has come from above, shape ``()``: it was warmer, and did not leave the basin.
      fresh: Whether the first stage, which starts at the centre, is still to come, shape ``()``.
    """

    state: PyTree
    curvature: Array
    heat: Array
    energy: Array
    began: PyTree
    finite: Array
    share: Array
    bracket: Array
    fresh: Array


@partial(jax.jit, static_argnums=(3, 4))
def start(key: Key, posterior: LocalPosterior, data: PyTree, chains: int, batch_size: int | None) -> Warm:
    """All chains ready to start, at points of typical potential: there the first stage looks for curvature."""
    batch_key, point_key, init_key = jax.random.split(key, 3)
    groups = groups_of(chains)
    init = sampler_for(posterior, 1.0, 1.0, batch_size).init
    state = jax.vmap(init, in_axes=(0, None, None))(jax.random.split(init_key, chains), posterior, data)
    points = typical_points(point_key, posterior, curvature_batch(batch_key, posterior, data), chains)
    zero = jnp.zeros(groups, posterior.nbeta.dtype)
    shape = (groups, chains // groups)
    share = jnp.ones(groups, jnp.float32)  # single like that of a plan, also where nβ is double
    state = _grouped(state._replace(position=points), shape)
    return Warm(
        state=state,
        curvature=zero,
        heat=zero,
        energy=jnp.full_like(zero, jnp.nan),
        began=() if batch_size is None else tree.zeros_like(state.position),
        finite=zero == 0,
        share=share,
        bracket=jnp.asarray(False),
        fresh=jnp.asarray(True),
    )


def run(
    key: Key,
    posterior: LocalPosterior,
    data: PyTree,
    warm: Warm,
    todo: Plan,
    stretch: int,
    thin: int,
    batch_size: int | None,
    following: bool = True,
    tick: bool = False,
) -> tuple[Trace, Warm, Plan]:
    """Run all stages of a plan, as one program.

    On minibatches the control variates of each chain are taken anew at every stage, around where it stands or around
    the centre, whatever was less noisy in the stage before: unless that is not asked for, or costs more than the stage.

    Outside of jit the states of ``warm`` are used up: their memory becomes that of the states returned.

    Returns:
      The trace of all stages, shape ``(chain, stage · stretch)``, the chains that started cold first; where they
      stopped; and the plan with the steps that were taken.
    """
    batch_key, keys = keys_of(key, len(todo.settled))
    return stages(batch_key, keys, posterior, data, warm, todo, stretch, thin, batch_size, following, tick)


@partial(jax.jit, static_argnums=1)
def keys_of(key: Key, stages: int) -> tuple[Key, Key]:
    """The keys of a block: of the batch on which curvature is looked for, and of each stage."""
    batch_key, stage_key = jax.random.split(key)
    return batch_key, jax.random.split(stage_key, stages)


def stages(
    batch_key: Key,
    stage_keys: Key,
    posterior: LocalPosterior,
    data: PyTree,
    warm: Warm,
    todo: Plan,
    stretch: int,
    thin: int,
    batch_size: int | None,
    following: bool = True,
    tick: bool = False,
) -> tuple[Trace, Warm, Plan]:
    """Some stages of a block, one after the other: what ``run`` does, with the keys and that part of the plan.

    Outside of jit the states of ``warm`` are used up: their memory becomes that of the states returned.
    """
    # what a vmap has not mapped yet is no place for what it has
    go = _stages if tree.is_traced((batch_key, stage_keys, posterior, data, warm)) else stages_in_place
    sizes = stretch, thin, batch_size, following, tick
    return go(batch_key, stage_keys, posterior, data, warm.state, warm._replace(state=()), todo, *sizes)


def _loop(
    batch_key: Key,
    stage_keys: Key,
    posterior: LocalPosterior,
    data: PyTree,
    state: PyTree,
    warm: Warm,
    todo: Plan,
    stretch: int,
    thin: int,
    batch_size: int | None,
    following: bool,
    tick: bool,
) -> tuple[Trace, Warm, Plan]:
    warm = warm._replace(state=state)
    batch = curvature_batch(batch_key, posterior, data)
    groups, chains = jax.tree.leaves(warm.state)[0].shape[:2]
    count = todo.settled.shape[0]
    follows = batch_size is not None and following and can_follow(loss.example_count(data), batch_size, stretch * thin)

    def run_group(key: Key, share: Array, step_size: Array, friction: Array, state: PyTree, anchors: PyTree) -> Trace:
        tempered = posterior._replace(nbeta=posterior.nbeta * share.astype(posterior.nbeta.dtype))
        sampler = sampler_for(posterior, step_size, friction, batch_size)
        go = partial(sample, draws=stretch, thin=thin, batch_size=batch_size, tick=tick)
        if not follows:
            return go(key, sampler, tempered, data, chains=chains, start=state)

        def run_chain(key: Key, state: PyTree, anchor: PyTree) -> Trace:
            around = with_control_variates(tempered, data, anchor)
            one = jax.tree.map(lambda leaf: leaf[None], state)
            trace = go(key, sampler, around, data, chains=1, start=one)
            return jax.tree.map(lambda leaf: leaf[0], trace)

        keys = sharding.spread(jax.random.split(key, chains), sharding.CHAINS)
        return jax.vmap(run_chain)(keys, *sharding.split((state, anchors), sharding.CHAINS))

    def stage(warm: Warm, inputs: tuple[Key, Plan]) -> tuple[Warm, tuple[Trace, Array, Array]]:
        key, now = inputs
        run_keys, curvature_keys, noise_keys = jax.random.split(key, (3, groups))
        # a run that is repeated knows its step; on minibatches blocks that go on need the curvature again
        given = jnp.isfinite(now.step_size).all() & (batch_size is None)

        def look(reached: PyTree) -> Array:
            here = jax.lax.map(lambda at: sharpness(at[0], posterior, batch, at[1]), (curvature_keys, reached))
            return _remember(here, warm, now)

        points = warm.state.position
        curvature = jax.lax.cond(now.known | given, lambda _: warm.curvature, look, points)
        # at one temperature all groups sample one law, and share one step
        one = now.share.min() == 1
        curvature = jnp.where(one, jnp.max(curvature), curvature)
        moved, felt = jnp.asarray(False), warm.heat
        if batch_size is not None:
            look_around = partial(feel, posterior=posterior, data=data, batch=batch, batch_size=batch_size)
            felt, moved, energy = jax.vmap(partial(look_around, follows=follows))(noise_keys, points, warm.began)
            # nothing is learned where a chain diverged
            felt = jnp.where(warm.finite, felt, jnp.nan)
            heat = jnp.where(jnp.isfinite(now.heat), now.heat, felt)
            energy = jnp.where(jnp.isfinite(warm.energy), warm.energy, energy)
            heat, energy = (jnp.where(one, jnp.nanmean(found), found) for found in (heat, energy))
            heat = as_share(posterior, heat, energy)
            heat = jnp.where(now.known | ~jnp.isfinite(heat), warm.heat, heat)
            warm = warm._replace(heat=jnp.where(one, jnp.max(heat), heat))
        rule = step_size_for(posterior, curvature, warm.heat, batch_size) * todo.fraction
        step_size = jnp.where(jnp.isfinite(now.step_size), now.step_size, rule).astype(jnp.float32)
        # no curvature is negative, but it is known only after the look: no second copy of the positions during it
        fresh = warm.fresh & (curvature[0] >= 0)
        begun = jax.tree.map(lambda z: jnp.where(fresh, jnp.zeros_like(z), z), points)
        state = warm.state._replace(position=begun)
        anchors = jax.tree.map(lambda leaf: jnp.where(_like(moved, leaf), leaf, 0.0), begun) if follows else ()
        trace = jax.vmap(run_group, in_axes=(0, 0, 0, None, 0, 0))(
            run_keys, now.share, step_size, now.friction, state, anchors
        )
        finite = jnp.isfinite(trace.excess).all(axis=(1, 2))
        # what diverges in the burn-in tries a smaller step, at rest at the centre: no place to go back to is kept
        keep = now.settled | finite
        back = jax.tree.map(lambda leaf: jnp.where(_like(keep, leaf), leaf, jnp.zeros_like(leaf)), trace.state)
        energy = posterior.nbeta * jnp.mean(trace.excess[:, :, stretch // 2 :], axis=(1, 2))
        reached = Warm(
            state=back,
            curvature=curvature,
            heat=warm.heat,
            energy=energy,
            began=() if batch_size is None else begun,
            finite=finite,
            share=now.share,
            bracket=warm.bracket,
            fresh=jnp.asarray(False),
        )
        return _recalled(reached, now.share * energy, now), (trace._replace(state=()), step_size, felt)

    per_stage = todo._replace(fraction=jnp.broadcast_to(todo.fraction, (count,)))
    warm, (traces, steps, heats) = jax.lax.scan(stage, warm, (stage_keys, per_stage))
    return jax.tree.map(_join, traces), warm, todo._replace(step_size=steps, heat=heats.astype(todo.heat.dtype))


def sampler_of(posterior: LocalPosterior, used: Plan, batch_size: int | None) -> Sampler:
    """The sampler of the last stage."""
    return sampler_for(posterior, used.step_size[-1].min(), used.friction[-1], batch_size)


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
    # the noise of batches may take an energy below 0
    size = jnp.abs(below)
    escaped = ~now.settled & (above - below > jnp.maximum(_ESCAPED * size, 2 * jnp.sqrt(size)))

    def from_first(leaf: Array) -> Array:
        return jnp.where(escaped, jnp.stack([leaf[0], leaf[0]]), leaf)

    warmer = now.share[1] < 1
    copied = ("state", "curvature", "heat", "energy", "began")
    kept = {name: jax.tree.map(from_first, getattr(reached, name)) for name in copied}
    # chains that had to begin again once they were cold do not come from above
    bracket = ~escaped & reached.finite[1] & (warmer | reached.bracket)
    return reached._replace(**kept, bracket=bracket)


def _grouped(stacked: PyTree, shape: tuple[int, int]) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), stacked)


def _like(flags: Array, leaf: Array) -> Array:
    return flags.reshape(flags.shape + (1,) * (leaf.ndim - flags.ndim))


def _join(stretches: Array) -> Array:
    """From ``(stage, group, chain, draw, ...)`` to ``(chain, draw, ...)``, the cold chains first."""
    stages, groups, chains, draws, *rest = stretches.shape
    moved = jnp.moveaxis(stretches, 0, 2)
    return moved.reshape(groups * chains, stages * draws, *rest)


_stages = jax.jit(_loop, static_argnums=(7, 8, 9, 10, 11))
stages_in_place = jax.jit(_loop, static_argnums=(7, 8, 9, 10, 11), donate_argnums=4)
