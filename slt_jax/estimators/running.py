"""A run of chains, block by block: it can go on where it stopped, and be repeated."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import tree
from slt_jax.estimators import block, planning
from slt_jax.estimators.block import Warm
from slt_jax.estimators.planning import Plan
from slt_jax.posterior import LocalPosterior
from slt_jax.sampling import Trace
from slt_jax.types import Array, Key, PyTree, Scalar

#: Stages in which draws are made; in the burn-in, each stage has the step that the curvature met so far allows.
STAGES = 5
#: Draws of each chain beyond which a longer run keeps no more of them.
_ENOUGH = 1000


class Schedule(NamedTuple):
    """Whole numbers that are static under jit: what a block is made of."""

    chains: int
    draws: int
    burnin: int
    thin: int
    batch_size: int | None

    @property
    def stretch(self) -> int:
        """Draws of a stage."""
        return -(-self.draws // STAGES)

    @property
    def burnin_stages(self) -> int:
        """Stages of the burn-in: as long as those of the draws, so that one compiled step serves all of them."""
        return -(-self.burnin // (self.stretch * self.thin))

    @property
    def shape(self) -> tuple[int, int, int | None]:
        """What ``block.run`` is compiled for."""
        return self.stretch, self.thin, self.batch_size

    @property
    def gradients(self) -> int:
        """Gradients that each chain takes in a block."""
        return (self.burnin_stages + STAGES) * self.stretch * self.thin


class Run(NamedTuple):
    """A run so far: its draws, where it stopped, its plans, the heat of its stages, and how many runs and blocks."""

    draws: Trace
    warm: Warm
    first: Plan
    last: Plan
    heat: Array
    attempt: int
    blocks: int


def begin(
    key: Key,
    posterior: LocalPosterior,
    data: PyTree,
    schedule: Schedule,
    attempt: int,
    fraction: Scalar,
    step_size: Array | None = None,
) -> Run:
    """Burn in and draw: the first block of an attempt, at the rule's steps times ``fraction``, or at those given."""
    _, start_key, run_key = _block_keys(key, attempt, 0)
    warm = block.start(start_key, posterior, data, schedule.chains, schedule.batch_size)
    todo = planning.plan(schedule.chains, schedule.burnin_stages, STAGES, schedule.burnin, fraction)
    todo = todo if step_size is None else todo._replace(step_size=jnp.asarray(step_size))
    trace, warm, used = block.run(run_key, posterior, data, warm, todo, *schedule.shape)
    return Run(trace, warm, used, used, used.heat, attempt, 1)


def go_on(key: Key, posterior: LocalPosterior, data: PyTree, schedule: Schedule, run: Run) -> Run:
    """One block more, from where the chains stopped."""
    # on minibatches the step follows from all of the heat that was felt: less and less changes it
    heat = None if schedule.batch_size is None else felt(run, schedule)
    todo = planning.going_on(run.first, schedule.chains, heat)
    run_key, _, _ = _block_keys(key, run.attempt, run.blocks)
    trace, warm, used = block.run(run_key, posterior, data, run.warm, todo, *schedule.shape)
    # arrays of the host, where a new length compiles nothing
    join: Any = jnp.concatenate if tree.is_traced(trace) else np.concatenate
    draws = jax.tree.map(lambda *pieces: join(pieces, axis=1), run.draws, trace)
    return Run(draws, warm, run.first, used, join([run.heat, used.heat]), run.attempt, run.blocks + 1)


@jax.jit
def _block_keys(key: Key, attempt: int, number: int) -> tuple[Key, Key, Key]:
    """A key of its own for each block, and its halves; the second of these is a ``fold_in``, so never mix them."""
    own = jax.random.fold_in(jax.random.fold_in(key, attempt), number)
    first, second = jax.random.split(own)
    return own, first, second


def felt(run: Run, schedule: Schedule) -> Array:
    """What batches add to λ̂ for an ε of 1, over the stages of the draws that are kept; 0 on all of the data."""
    first = schedule.burnin_stages if run.blocks == 1 else len(run.heat) // 2
    return _mean_from(run.heat, first)


def kept(run: Run, schedule: Schedule) -> Trace:
    """The draws after the burn-in of the first block, or out of the last half of all, further apart in a longer run.

    Their number stays the same from 1000 on, or from that asked for if it is larger: a longer run compiles nothing.
    """
    first = schedule.burnin_stages * schedule.stretch
    if run.blocks == 1:
        return _cut(run.draws, first, schedule.draws)
    total = run.draws.excess.shape[1]
    half = total - total // 2
    count = min(half, max(schedule.draws, _ENOUGH))
    return jax.tree.map(lambda leaf: leaf[:, total // 2 + np.arange(count) * half // count], run.draws)


@partial(jax.jit, static_argnums=(1, 2))
def _cut(draws: Trace, first: int, count: int) -> Trace:
    return jax.tree.map(lambda leaf: leaf[:, first : first + count], draws)


@partial(jax.jit, static_argnums=1)
def _mean_from(heat: Array, first: int) -> Array:
    return jnp.nanmean(heat[first:])  # NaN where a chain had diverged
