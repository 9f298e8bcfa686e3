"""Nothing to choose: the step from the curvature that chains meet, their length from what they have shown so far."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from slt_jax import tree
from slt_jax.estimators import block
from slt_jax.estimators.block import Plan, Warm
from slt_jax.estimators.estimate import Estimate, Settings, read
from slt_jax.estimators.examine import Evidence
from slt_jax.estimators.heating import as_share
from slt_jax.polish import Polished, polish, read_height
from slt_jax.posterior import LocalPosterior, with_control_variates
from slt_jax.samplers import Sampler
from slt_jax.sampling import Trace
from slt_jax.types import Array, Key, PyTree, Scalar

#: Stages in which draws are made; in the burn-in, each stage has the step that the curvature met so far allows.
STAGES = 5
#: Runs whose step was too large are begun again with half of it, so often.
ATTEMPTS = 3
#: An error relative to less than this is not asked for: the least λ that a single mode can have.
_SMALL = 0.5
#: Effective draws from which an error is known well enough to stop at.
_KNOWN = 50
#: Failed checks that more steps can cure.
_CURABLE = frozenset({"rhat", "ess", "drift", "bracket", "virial", "heat"})


class Calibration(NamedTuple):
    """A warmed-up sampler.

    Attributes:
      sampler: Langevin dynamics at the step found: with momentum on all of the data, without on minibatches.
      step_size: h in units of the parameters on all of the data, ε in squared units on minibatches; shape ``()``.
      state: The states of the chains at the end of the burn-in, to be passed on as ``sample(..., start=state)``.
    """

    sampler: Sampler
    step_size: Array
    state: PyTree


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


def calibrate(
    key: Key,
    posterior: LocalPosterior,
    data: PyTree,
    *,
    chains: int = 4,
    burnin: int = 2000,
    batch_size: int | None = None,
    fraction: Scalar = 1.0,
) -> Calibration:
    """Burn chains in with Langevin dynamics whose step follows one rule from the largest curvature met.

    On all of the data the dynamics has momentum (``underdamped``, ``h = 0.3 / √(nβ h_max + γ)``) and a friction of 0.01
    a step, so that it crosses flat directions; draws are made with 0.03. On minibatches it has none (``sgld`` with
    averaged noise and control variates), because the noise of batches heats a chain with momentum more:
    ``ε = min(1 / (nβ h_max + γ), 0.01 / heat)`` with the ``heat`` that the noise of the gradients, measured where the
    chains are, adds to λ̂ for a step of 1. It grows as they move on, unless their anchors follow, as they do in ``llc``.

    An even number of chains is a bracket: half of them start at the centre, half at a tenth of ``nβ`` and are annealed
    over the first three fifths of the burn-in. The first approach λ̂ from below, the others from above.

    ``h_max`` is the largest curvature (power iteration) at points of typical potential around the centre and at the
    positions of the chains between the five stages of the burn-in; the last of them runs at the final step. Curvature
    has to be measured where the chains are because it grows along flat directions: at a rank-deficient or monomial
    centre the Hessian is exactly 0, and a chain meets all of its curvature elsewhere.

    Args:
      key: A typed key.
      posterior: What will be sampled.
      data: Its examples.
      chains: Number of chains; with an odd number all start at the centre.
      burnin: Steps in all, rounded up to a multiple of five.
      batch_size: Examples a step; default all.
      fraction: Step in units of that of the rule.

    Returns:
      The sampler, its step and the warm states. Works inside jit and vmap.

    Not to be believed where the burn-in does not reach the region that a long chain will see: the virial then rises
    above 1, or the heat capacity above λ̂, and the health says so.
    """
    stretch = max(1, -(-burnin // STAGES))
    posterior = _with_variates(posterior, data, batch_size)
    todo = block.plan(chains, STAGES, 0, burnin, fraction)
    start_key, run_key = jax.random.split(key)
    warm = block.start(start_key, posterior, data, chains, batch_size)
    # who goes on from here has one posterior for all chains, and so one anchor
    _, warm, used = block.run(run_key, posterior, data, warm, todo, stretch, 1, batch_size, False)
    state = jax.tree.map(lambda leaf: leaf.reshape(chains, *leaf.shape[2:]), warm.state)
    return Calibration(block.sampler_of(posterior, used, batch_size), used.step_size[-1].min(), state)


def measure(
    key: Key,
    posterior: LocalPosterior,
    data: PyTree,
    schedule: Schedule,
    *,
    polishing: bool = True,
    budget: int = 0,
    relative_error: float = 0.0,
    settings: Settings | None = None,
) -> tuple[Estimate, Trace, LocalPosterior]:
    """``llc`` without a sampler: polish the centre, burn in, draw, and on the host go on until the verdict is good.

    Inside jit, and with a budget that is spent by the first block, that one block is all. On the host a run whose step
    proved too large is begun again with half of it, and one whose chains have not settled, or whose error exceeds
    ``relative_error``, goes on from where it stopped; the first half of all steps is then burn-in. On minibatches the
    heat felt in the draws is taken from the value.

    Args:
      key: A typed key.
      posterior: Around the centre given.
      data: Its examples.
      schedule: Whole numbers that a block is made of.
      polishing: Whether to move the centre to a minimum nearby.
      budget: Gradients that each chain may take.
      relative_error: Standard error over value that is asked for.
      settings: Of an earlier run, to be repeated.

    Returns:
      The estimate with its settings, the draws it is the mean of, and the posterior they were drawn from.
    """
    centre = Polished(posterior, jnp.full((), jnp.nan, posterior.nbeta.dtype), jnp.asarray(False))
    if polishing:
        centre = _polish(posterior, data)
    posterior = _with_variates(centre.posterior, data, schedule.batch_size)
    height = jnp.full((), jnp.nan, posterior.nbeta.dtype) if polishing else read_height(posterior, data)

    def look(run: _Run) -> Estimate:
        # a centre that was moved lacks nothing
        shift = jnp.where(centre.moved, jnp.nan, centre.shift)
        kept = _kept(run, schedule)
        added = _felt(run, schedule) * run.last.step_size[-1].max()
        heating = as_share(posterior, added, posterior.nbeta * jnp.mean(kept.excess))
        return read(kept, posterior, Evidence(shift, run.warm.bracket, heating, height))

    def begin(attempt: int, fraction: Scalar, step_size: Array | None = None) -> _Run:
        return _begin(key, posterior, data, schedule, attempt, fraction, step_size)

    def go_on(run: _Run, blocks: int) -> _Run:
        for _ in range(blocks):
            run = _go_on(key, posterior, data, schedule, run)
        return run

    if settings is not None:
        first = begin(int(settings.attempt), settings.fraction, settings.step_size)
        run = go_on(first, int(settings.blocks) - 1)
        estimate = look(run)
    else:
        run = begin(0, 1.0)
        estimate = look(run)
        afford = 0 if tree.is_traced((key, posterior, data)) else budget // schedule.gradients
        while afford > run.attempt + 1 < ATTEMPTS and bool(_too_hot(estimate)):
            run = begin(run.attempt + 1, 0.5 * run.first.fraction)
            estimate = look(run)
        while (left := afford - run.attempt - run.blocks) > 0 and (more := _wanted(estimate, run, relative_error)):
            run = go_on(run, min(more, left))
            estimate = look(run)
    kept = _kept(run, schedule)
    return estimate._replace(settings=_settings(posterior, schedule, run, kept, centre, polishing)), kept, posterior


class _Run(NamedTuple):
    """A run so far: its draws, where it stopped, its plans, the heat of its stages, and how many runs and blocks."""

    draws: Trace
    warm: Warm
    first: Plan
    last: Plan
    heat: Array
    attempt: int
    blocks: int


def _begin(
    key: Key,
    posterior: LocalPosterior,
    data: PyTree,
    schedule: Schedule,
    attempt: int,
    fraction: Scalar,
    step_size: Array | None = None,
) -> _Run:
    start_key, run_key = jax.random.split(_block_key(key, attempt, 0))
    warm = block.start(start_key, posterior, data, schedule.chains, schedule.batch_size)
    todo = block.plan(schedule.chains, schedule.burnin_stages, STAGES, schedule.burnin, fraction)
    todo = todo if step_size is None else todo._replace(step_size=jnp.asarray(step_size))
    trace, warm, used = block.run(run_key, posterior, data, warm, todo, *schedule.shape)
    return _Run(trace, warm, used, used, used.heat, attempt, 1)


def _go_on(key: Key, posterior: LocalPosterior, data: PyTree, schedule: Schedule, run: _Run) -> _Run:
    # on minibatches the step follows from all of the heat that was felt: less and less changes it
    todo = block.going_on(run.first, None if schedule.batch_size is None else _felt(run, schedule))
    run_key = _block_key(key, run.attempt, run.blocks)
    trace, warm, used = block.run(run_key, posterior, data, run.warm, todo, *schedule.shape)
    draws = jax.tree.map(lambda *pieces: jnp.concatenate(pieces, axis=1), run.draws, trace)
    return _Run(draws, warm, run.first, used, jnp.concatenate([run.heat, used.heat]), run.attempt, run.blocks + 1)


def _block_key(key: Key, attempt: int, number: int) -> Key:
    """A key of its own for each block; the second half of ``split(key)`` is ``fold_in(key, 1)``, so never mix them."""
    return jax.random.fold_in(jax.random.fold_in(key, attempt), number)


def _felt(run: _Run, schedule: Schedule) -> Array:
    """What batches add to λ̂ for an ε of 1, over the stages of the draws that are kept; 0 on all of the data."""
    first = schedule.burnin_stages if run.blocks == 1 else len(run.heat) // 2
    return jnp.nanmean(run.heat[first:])  # NaN where a chain had diverged


def _kept(run: _Run, schedule: Schedule) -> Trace:
    """The draws after the burn-in of the first block, or the last half of all where there are more."""
    total = run.draws.excess.shape[1]
    first = schedule.burnin_stages * schedule.stretch if run.blocks == 1 else total // 2
    last = first + schedule.draws if run.blocks == 1 else total
    return jax.tree.map(lambda leaf: leaf[:, first:last], run.draws)


def _too_hot(estimate: Estimate) -> Array:
    """Whether a smaller step is the cure."""
    health = estimate.health
    return (health.diverged > 0) | health.overheated


def _wanted(estimate: Estimate, run: _Run, relative_error: float) -> int:
    """How many blocks more: as many again where the verdict or the error asks for it and longer chains can help."""
    failed = {name for name, passed in estimate.health.checks.items() if not bool(passed)}
    imprecise = bool(estimate.std_error > relative_error * jnp.maximum(jnp.abs(estimate.value), _SMALL))
    # a chain must not stop at the moment at which a poorly known error looks small
    imprecise |= bool(estimate.health.ess < _KNOWN)
    return run.blocks if failed <= _CURABLE and (failed or imprecise) else 0


def _with_variates(posterior: LocalPosterior, data: PyTree, batch_size: int | None) -> LocalPosterior:
    return posterior if batch_size is None else with_control_variates(posterior, data)


def _settings(
    posterior: LocalPosterior, schedule: Schedule, run: _Run, kept: Trace, centre: Polished, polishing: bool
) -> Settings:
    return Settings(
        nbeta=posterior.nbeta,
        gamma=posterior.gamma,
        step_size=run.first.step_size,
        friction=run.first.friction,
        share=run.first.share,
        fraction=run.first.fraction,
        attempt=jnp.int32(run.attempt),
        blocks=jnp.int32(run.blocks),
        chains=jnp.int32(schedule.chains),
        draws=jnp.int32(schedule.draws),
        burnin=jnp.int32(schedule.burnin),
        thin=jnp.int32(schedule.thin),
        batch_size=jnp.int32(schedule.batch_size or 0),
        kept=jnp.int32(kept.excess.shape[1]),
        gradients=jnp.int32((run.attempt + run.blocks) * schedule.gradients),
        polishing=jnp.asarray(polishing),
        polished=centre.moved,
        shift=centre.shift,
    )


_polish = jax.jit(polish)
