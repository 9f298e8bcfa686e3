"""Chains that are watched: burnt in by rule, and something recorded at each draw, beside the verdict on the chains."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax import loss, tree
from slt_jax.estimators import Evidence, Health, Schedule, calibrate, examine
from slt_jax.estimators.dynamics import sampler_for
from slt_jax.estimators.heating import read_heating
from slt_jax.estimators.llc import chains_for
from slt_jax.estimators.planning import DRAW_FRICTION
from slt_jax.polish import read_height
from slt_jax.posterior import LocalPosterior, with_control_variates
from slt_jax.samplers import Sampler
from slt_jax.sampling import Trace, check_batch_size, check_sampler, check_schedule, sample
from slt_jax.types import Array, Key, PyTree

#: Draws of each chain, steps before them, and steps from one to the next: a draw costs a look at all examples, and
#: within a few steps of a trajectory there is little new to see.
DRAWS, BURNIN, THIN = 500, 2000, 8
#: Checks that a covariance does not rest on: it has no baseline, and is asked for at the posterior's own γ.
_OF_THE_LEVEL = frozenset({"minimum", "heat", "gamma"})


class Watched(NamedTuple):
    """What a run of chains gave.

    Attributes:
      observed: What ``observe(params)`` returned, leading axes ``(chain, draw)``.
      excess: ``L(w) - L(w*)`` on the batch of the step, nats, shape ``(chain, draw)``.
      mean: Mean of ``z`` over all draws, a tree like ``z``.
      variance: Variance of each entry of ``z``, a tree like ``z``.
      health: The verdict that ``llc`` would give on the same draws.
    """

    observed: PyTree
    excess: Array
    mean: PyTree
    variance: PyTree
    health: Health


def watch(
    key: Key,
    posterior: LocalPosterior,
    data: PyTree,
    observe: Partial,
    schedule: Schedule,
    sampler: Sampler | None = None,
) -> Watched:
    """Burn in as ``calibrate`` does, then draw, looking at each draw with ``observe``.

    Works inside jit and vmap; restrictions of one shape share their compiled programs.

    Args:
      key: A typed key.
      posterior: What is sampled.
      data: Its examples.
      observe: ``observe(params)``, a pure function as a ``Partial``.
      schedule: Whole numbers.
      sampler: Run as it is; default the one that ``calibrate`` finds, with the friction of draws.

    Returns:
      What was seen, with the verdict.
    """
    warm_key, draw_key, heat_key = jax.random.split(key, 3)
    chains, batch_size = schedule.chains, schedule.batch_size
    if sampler is None:
        if batch_size is not None:
            posterior = with_control_variates(posterior, data)
        found = calibrate(warm_key, posterior, data, chains=chains, burnin=schedule.burnin, batch_size=batch_size)
        sampler, start, bracket = found.sampler, found.state, found.bracket
        if batch_size is None:
            sampler = sampler_for(posterior, found.step_size, DRAW_FRICTION, None)
    else:
        go = partial(sample, draws=1, chains=chains, burnin=schedule.burnin, batch_size=batch_size)
        start, bracket = go(warm_key, sampler, posterior, data).state, jnp.asarray(False)
    sizes = schedule.draws, schedule.thin, batch_size
    trace, mean, variance = _draw(draw_key, sampler, posterior, data, observe, start, *sizes)
    # without batches there is no heat
    heating = 0.0 if batch_size is None else read_heating(heat_key, sampler, posterior, data, trace, batch_size)
    evidence = Evidence(bracket=bracket, heating=heating, height=read_height(posterior, data), resolution=True)
    return Watched(
        trace.observables,
        trace.excess,
        mean,
        variance,
        _examine(trace._replace(observables=(), state=()), posterior, evidence),
    )


def sound(health: Health) -> Array:
    """Whether every check passed that a covariance rests on: all but those of the height of the centre, and of γ.

    Returns:
      Boolean, of the shape of the leaves of ``health``.
    """
    return jnp.stack([passed for name, passed in health.checks.items() if name not in _OF_THE_LEVEL]).all(axis=0)


def complaint(health: Health) -> str:
    """What is wrong with the chains, in words (host only); an empty string where nothing is."""
    if bool(sound(health)):
        return ""
    failed = [name for name, passed in health.checks.items() if name not in _OF_THE_LEVEL and not bool(passed)]
    return f"The chains are not to be believed ({', '.join(failed)}). {health.explain()}"


def schedule_for(
    free: int,
    count: int,
    sampler: Sampler | None,
    *,
    chains: int | None,
    draws: int | None,
    burnin: int | None,
    thin: int | None,
    batch_size: int | None,
) -> Schedule:
    """The sizes asked for, and those chosen where nothing was said.

    Raises:
      ValueError: naming the number that is out of range.
    """
    given = {
        "chains": chains_for(free) if chains is None else chains,
        "draws": DRAWS if draws is None else draws,
        "burnin": BURNIN if burnin is None else burnin,
        "thin": THIN if thin is None else thin,
    }
    check_schedule(**given)
    check_batch_size(batch_size, count)
    if given["draws"] < 4:
        raise ValueError(f"draws: got {given['draws']}; a covariance with an error needs at least 4.")
    if sampler is not None:
        check_sampler(sampler)
    return Schedule(**given, batch_size=None if batch_size == count else batch_size)


def losses_at(loss_fn: Partial, data: PyTree, center: Array, params: PyTree) -> Array:
    """Losses of all of the data less those at the centre, ``(n,)`` or ``(n, T)``, nats, in at least float32."""
    return tree.at_least_float32(loss.at_center(loss_fn, params, data, reduce=jnp.asarray)) - center


@jax.jit
def placed(loss_fn: Partial, data: PyTree, center: PyTree) -> tuple[Partial, PyTree, Array]:
    """A loss, its examples and its values at the centre, which are taken away before anything is rounded."""
    return loss_fn, data, losses_at(loss_fn, data, jnp.zeros(()), center)


@partial(jax.jit, static_argnums=(6, 7, 8))
def _draw(
    key: Key,
    sampler: Sampler,
    posterior: LocalPosterior,
    data: PyTree,
    observe: Partial,
    start: PyTree,
    draws: int,
    thin: int,
    batch_size: int | None,
) -> tuple[Trace, PyTree, PyTree]:
    chains = jax.tree.leaves(start)[0].shape[0]
    go = partial(sample, draws=1, thin=thin, chains=chains, batch_size=batch_size, observe=observe)

    def next_draw(carry: tuple[PyTree, PyTree, PyTree], at: tuple[Key, Array]) -> tuple[tuple, Trace]:
        state, mean, squares = carry
        # a trace of one draw is of the position that it starts from, so that moments need no second record
        trace = go(at[0], sampler, posterior, data, start=state)
        apart = jax.tree.map(jnp.subtract, state.position, mean)
        new = jax.tree.map(lambda m, a: m + a / (at[1] + 1), mean, apart)
        squares = jax.tree.map(lambda s, a, z, m: s + a * (z - m), squares, apart, state.position, new)
        return (trace.state, new, squares), trace._replace(state=())

    zero = tree.zeros_like(start.position)
    inputs = jax.random.split(key, draws), jnp.arange(draws, dtype=posterior.nbeta.dtype)
    (state, mean, squares), traces = jax.lax.scan(next_draw, (start, zero, zero), inputs)
    trace = jax.tree.map(lambda leaf: jnp.moveaxis(leaf[:, :, 0], 0, 1), traces)
    pooled = jax.tree.map(lambda m, s: jnp.mean(s / draws, axis=0) + jnp.var(m, axis=0), mean, squares)
    return trace._replace(state=state), jax.tree.map(lambda m: jnp.mean(m, axis=0), mean), pooled


_examine = jax.jit(examine)
