"""Chains that are watched: burnt in by rule, and something recorded at each draw, beside the verdict on the chains."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import diagnostics, tree
from slt_jax.estimators import Evidence, Health, Schedule, calibrate, examine
from slt_jax.estimators.dynamics import sampler_for
from slt_jax.estimators.heating import read_heating
from slt_jax.estimators.llc import chains_for
from slt_jax.estimators.planning import DRAW_FRICTION
from slt_jax.posterior import LocalPosterior, with_control_variates
from slt_jax.samplers import Sampler
from slt_jax.sampling import Fold, Moments, check_batch_size, check_sampler, check_schedule, sample
from slt_jax.types import Array, Key, PyTree

#: Draws of each chain, steps before them, and steps from one to the next: a draw costs a look at all examples, and
#: within a few steps of a trajectory there is little new to see.
DRAWS, BURNIN, THIN = 500, 2000, 8
#: Stretches of so many draws, one after the other, until the chains are sound: each run longer than all before it.
LENGTHS = (1, 2, 4)
#: Effective draws of what is observed: enough to stop at, and those below which errors of covariances come out too
#: small, the batches that they are taken from being too short.
ENOUGH, LEAST = 400.0, 200.0
#: So many of the observed series are looked at for it.
_SERIES = 256
#: Checks that a covariance does not rest on: it has no baseline, and is asked for at the posterior's own γ.
_OF_THE_LEVEL = frozenset({"minimum", "heat", "gamma"})


class Watched(NamedTuple):
    """What a run of chains gave.

    Attributes:
      observed: What ``observe(params)`` returned, or a fold recorded in its place, leading axes ``(chain, draw)``.
      excess: ``L(w) - L(w*)`` on the batch of the step, nats, shape ``(chain, draw)``.
      mean: Mean of ``z`` over all draws, a tree like ``z``.
      variance: Variance of each entry of ``z``, a tree like ``z``.
      ess: Effective draws that nine in ten of the observed series have at least, shape ``()``.
      health: The verdict that ``llc`` would give on the same draws, but for the height of the centre, at which nobody
        has looked: a covariance has no baseline.
      folded: What a fold has kept of the same draws, or ``()``.
    """

    observed: PyTree
    excess: Array
    mean: PyTree
    variance: PyTree
    ess: Array
    health: Health
    folded: PyTree = ()


def watch(
    key: Key,
    posterior: LocalPosterior,
    data: PyTree,
    observe: Partial,
    schedule: Schedule,
    sampler: Sampler | None = None,
    *,
    fixed: bool = True,
    fold: Fold | None = None,
    batch_key: Key | None = None,
) -> Watched:
    """Burn in as ``calibrate`` does, then draw, looking at each draw with ``observe``.

    On the host, where the length is not fixed, chains that are not sound go on twice as long, with draws twice as far
    apart, and again; what came before is burn-in then. A step that proved too large is halved first. Works inside jit
    and vmap, where the first length is all; restrictions of one shape share their compiled programs.

    Args:
      key: A typed key.
      posterior: What is sampled.
      data: Its examples.
      observe: ``observe(params)``, a pure function as a ``Partial``.
      schedule: Whole numbers.
      sampler: Run as it is; default the one that ``calibrate`` finds, with the friction of draws.
      fixed: Whether the length is; always so with a sampler given.
      fold: What to keep of what is seen (``slt_jax.sampling.Fold``): of the draws that are kept, counted from 0.
      batch_key: Gives the batches of all draws, step by step, whatever the posterior: chains that share it share them.

    Returns:
      What was seen, with the verdict.
    """
    if sampler is None and schedule.batch_size is not None:
        posterior = with_control_variates(posterior, data)
    lengths = (1,) if fixed or sampler is not None or tree.is_traced((key, posterior, data)) else LENGTHS
    begin = partial(_begin, key, posterior, data, schedule, sampler, batch_key)
    ready = begin(1.0)
    run_key = jax.random.fold_in(key, 1)
    for number, length in enumerate(lengths):
        keys = _Keys(jax.random.fold_in(run_key, number), _part(batch_key, number + 1))
        seen, state = _run(keys, posterior, data, observe, schedule, ready, length, fold)
        if number == len(lengths) - 1 or bool(sound(seen.health, seen.ess) & (seen.ess >= ENOUGH)):
            break
        too_hot = bool((seen.health.diverged > 0) | seen.health.overheated)
        ready = begin(0.5 ** (number + 1)) if too_hot else ready._replace(state=state)
    return seen


class _Ready(NamedTuple):
    """A sampler with its step, chains that are burnt in, and whether half of them have come from above."""

    sampler: Sampler
    state: PyTree
    bracket: Array


class _Keys(NamedTuple):
    """Of the chains, and of the batches where they are shared."""

    own: Key
    batches: Key | None


def _part(key: Key | None, number: int) -> Key | None:
    return key if key is None else jax.random.fold_in(key, number)


def _begin(
    key: Key,
    posterior: LocalPosterior,
    data: PyTree,
    schedule: Schedule,
    sampler: Sampler | None,
    batch_key: Key | None,
    fraction: float,
) -> _Ready:
    key, chains, batch_size = jax.random.fold_in(key, 0), schedule.chains, schedule.batch_size
    if sampler is not None:
        go = partial(sample, draws=1, chains=chains, burnin=schedule.burnin, batch_size=batch_size)
        go = partial(go, batch_key=_part(batch_key, 0))
        return _Ready(sampler, go(key, sampler, posterior, data).state, jnp.asarray(False))
    steps = dict(chains=chains, burnin=schedule.burnin)
    found = calibrate(key, posterior, data, **steps, batch_size=batch_size, fraction=fraction)
    drawing = sampler_for(posterior, found.step_size, DRAW_FRICTION, batch_size)
    return _Ready(drawing, found.state, found.bracket)


def _run(
    keys: _Keys,
    posterior: LocalPosterior,
    data: PyTree,
    observe: Partial,
    schedule: Schedule,
    ready: _Ready,
    length: int,
    fold: Fold | None,
) -> tuple[Watched, PyTree]:
    """So many stretches, of whose draws one in so many is kept: no length needs a program of its own."""
    draw_key, heat_key = jax.random.split(keys.own)
    batch_size, state = schedule.batch_size, ready.state
    go = partial(
        sample,
        sampler=ready.sampler,
        posterior=posterior,
        data=data,
        draws=schedule.draws,
        chains=schedule.chains,
        thin=schedule.thin,
        batch_size=batch_size,
        observe=observe,
        moments=True,
    )
    pieces, moments = [], []
    add = None if fold is None else fold.add
    for stretch in range(length):
        if fold is not None:
            fold = Fold(fold.begin, Partial(_kept, add, stretch, length, schedule.draws))
        trace = go(
            jax.random.fold_in(draw_key, stretch), start=state, fold=fold, batch_key=_part(keys.batches, stretch)
        )
        state = trace.state
        moments.append(trace.moments)
        fold = fold if fold is None else fold._replace(begin=trace.folded)
        whole = trace._replace(state=(), moments=(), folded=())
        pieces.append(jax.tree.map(lambda leaf: leaf[:, ::length], whole))
    joined = pieces[0]
    if length > 1:
        joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1)[:, : schedule.draws], *pieces)
    mean, variance = _pooled(moments)
    # without batches there is no heat
    whole = joined._replace(state=state)
    heating = 0.0 if batch_size is None else read_heating(heat_key, ready.sampler, posterior, data, whole, batch_size)
    evidence = Evidence(bracket=ready.bracket, heating=heating, resolution=True)
    # what was observed is no part of the verdict
    health = _examine(joined._replace(observables=()), posterior, evidence)
    ess = _effective(joined.observables)
    folded = () if fold is None else fold.begin
    return Watched(joined.observables, joined.excess, mean, variance, ess, health, folded), state


def _kept(
    add: Partial, stretch: int, length: int, draws: int, kept: PyTree, seen: PyTree, draw: Array
) -> tuple[PyTree, PyTree]:
    """A draw of a stretch by its number among those that are kept, or as none where it is not."""
    number = stretch * (-(-draws // length)) + draw // length
    return add(kept, seen, jnp.where((draw >= 0) & (draw % length == 0) & (number < draws), number, -1))


@jax.jit
def _pooled(moments: list[Moments]) -> Moments:
    """Mean and variance over all chains of several stretches of equal length together."""
    means, variances = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *moments)
    variance = jax.tree.map(lambda v, m: jnp.mean(v, axis=0) + jnp.var(m, axis=0), variances, means)
    return Moments(jax.tree.map(lambda m: jnp.mean(m, axis=0), means), variance)


def sound(health: Health, ess: Array) -> Array:
    """Whether every check passed that a covariance rests on, and enough draws are left.

    All checks but those of the height of the centre, and of γ: a covariance has no baseline. The mean loss may be known
    well where the losses of single examples, which hang on the slowest directions, are not.

    Returns:
      Boolean, of the shape of the leaves of ``health``.
    """
    needed = [passed for name, passed in health.checks.items() if name not in _OF_THE_LEVEL]
    return jnp.stack([*needed, ess >= LEAST]).all(axis=0)


def verdict(health: Health, ess: Array) -> str:
    """Whether the chains are to be believed, in words (host only)."""
    failed = [name for name, passed in health.checks.items() if name not in _OF_THE_LEVEL and not bool(passed)]
    if failed:
        return f"The chains are not to be believed ({', '.join(failed)}). {health.explain()}"
    if not bool(ess >= LEAST):
        return (
            f"Only {float(ess):.0f} effective draws of the losses (at least {LEAST:.0f}): errors come out too small. "
            "Raise thin or draws, or gamma to leave out the slowest directions."
        )
    return f"The chains are sound, {float(ess):.0f} effective draws of the losses."


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


_examine = jax.jit(examine)


@jax.jit
def _effective(observed: PyTree) -> Array:
    """Effective draws that nine in ten of the series have at least; some, evenly spaced, stand for many."""
    found = []
    for leaf in jax.tree.leaves(observed):
        series = leaf.reshape(*leaf.shape[:2], math.prod(leaf.shape[2:]))
        count = series.shape[2]
        if not count:
            continue
        chosen = np.linspace(0, count - 1, min(count, _SERIES)).astype(int)
        found.append(jax.vmap(diagnostics.ess, in_axes=2)(series[:, :, chosen]))
    return jnp.quantile(jnp.concatenate(found), 0.1)
