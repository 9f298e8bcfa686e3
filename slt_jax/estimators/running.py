"""A run of chains, block by block: it can go on where it stopped, and be repeated."""

from collections.abc import Callable
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
    """A run so far, at the end of a stage: all that the rest of it follows from, as a tree of arrays.

    Attributes:
      draws: Of all stages so far, shape ``(chain, draw, ...)``; ``None`` before the first.
      warm: Where the chains stopped.
      first: The plan of the first block.
      last: The plan of the block under way, with the steps taken so far.
      heat: What batches added, stage by stage.
      attempt: Runs given up before this one.
      blocks: Blocks that are whole.
      stage: Stages done of the block under way.
      aim: Blocks after which its verdict is looked at.
    """

    draws: Trace | None
    warm: Warm
    first: Plan
    last: Plan
    heat: Array
    attempt: int
    blocks: int
    stage: int
    aim: int


class RunKeeper(NamedTuple):
    """Where a run is kept between two of its stages.

    Attributes:
      load: ``load(like)``: the run that was saved last, or ``None``; ``like`` has its structure and no values.
      save: ``save(run)``, after each stage.
      remove: ``remove()``, when what came of it is safe.
    """

    load: Callable[[Run], Run | None]
    save: Callable[[Run], None]
    remove: Callable[[], None]


def start(
    key: Key,
    posterior: LocalPosterior,
    data: PyTree,
    schedule: Schedule,
    attempt: int,
    fraction: Scalar,
    step_size: Array | None = None,
    aim: int = 1,
) -> Run:
    """The start of an attempt, at the rule's steps times ``fraction``, or in the first block at those given."""
    _, start_key, _ = _block_keys(key, attempt, 0)
    warm = block.start(start_key, posterior, data, schedule.chains, schedule.batch_size)
    todo = planning.plan(schedule.chains, schedule.burnin_stages, STAGES, schedule.burnin, fraction)
    todo = todo if step_size is None else todo._replace(step_size=jnp.asarray(step_size))
    return Run(None, warm, todo, todo, todo.heat[:0], attempt, 0, 0, aim)


def go_on(
    key: Key, posterior: LocalPosterior, data: PyTree, schedule: Schedule, run: Run, *, tick: bool = False
) -> Run:
    """A stage more on the host, from where the chains stopped; a block more as one program elsewhere."""
    if run.stage == 0 and run.blocks > 0:
        # on minibatches the step follows from all of the heat that was felt: less and less changes it
        heat = None if schedule.batch_size is None else felt(run, schedule)
        run = run._replace(last=planning.going_on(run.first, schedule.chains, heat))
    stages = len(run.last.settled)
    own, _, second = _block_keys(key, run.attempt, run.blocks)
    run_key = second if run.blocks == 0 else own
    if tree.is_traced((key, posterior, data, run.warm)) or jax.process_count() > 1:
        # also arrays that are spread over processes stay where they are
        trace, warm, last = block.run(run_key, posterior, data, run.warm, run.last, *schedule.shape, True, tick)
        done, heat = stages, last.heat
    else:
        batch_key, stage_keys = block.keys_of(run_key, stages)
        now = slice(run.stage, run.stage + 1)
        # sliced and joined as arrays of the host, where a new length compiles nothing
        todo = jax.tree.map(lambda leaf: np.asarray(leaf)[now] if np.ndim(leaf) else leaf, run.last)
        words: Any = np.asarray(jax.random.key_data(stage_keys))[now]
        keys = jax.random.wrap_key_data(words, impl=jax.random.key_impl(stage_keys))
        found = block.stages(batch_key, keys, posterior, data, run.warm, todo, *schedule.shape, True, tick)
        trace, warm, used = found
        last = run.last._replace(
            step_size=_with(run.last.step_size, now, used.step_size), heat=_with(run.last.heat, now, used.heat)
        )
        done, heat = run.stage + 1, used.heat
    join: Any = np.concatenate if isinstance(last.heat, np.ndarray) else jnp.concatenate
    pieces = (trace,) if run.draws is None else (run.draws, trace)
    draws = jax.tree.map(lambda *leaves: join(leaves, axis=1), *pieces)
    whole = done == stages
    return Run(
        draws=draws,
        warm=warm,
        first=last if whole and run.blocks == 0 else run.first,
        last=last,
        heat=join([run.heat, heat]),
        attempt=run.attempt,
        blocks=run.blocks + whole,
        stage=0 if whole else done,
        aim=run.aim,
    )


def like(key: Key, posterior: LocalPosterior, data: PyTree, schedule: Schedule) -> Run:
    """A run in which every leaf has the right place: to read one that was kept."""
    begun = jax.eval_shape(lambda: start(key, posterior, data, schedule, 0, 1.0))
    one = jnp.float32(0)
    return begun._replace(draws=Trace(one, one, one, one, one, one, one, observables=(), state=()))


def _with(leaf: Array, where: slice, values: Array) -> Any:
    changed = np.array(leaf)
    changed[where] = np.asarray(values)
    return changed


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
    assert run.draws is not None
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
