"""Nothing to choose: the step from the curvature that chains meet, their length from what they have shown so far."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import sharding, ticking, tree
from slt_jax.estimators import block, planning, running
from slt_jax.estimators.estimate import Estimate, Settings, read
from slt_jax.estimators.examine import Evidence
from slt_jax.estimators.heating import as_share
from slt_jax.estimators.running import STAGES, Run, RunKeeper, Schedule
from slt_jax.polish import Polished, polish, read_height
from slt_jax.posterior import LocalPosterior, with_control_variates
from slt_jax.samplers import Sampler
from slt_jax.sampling import Trace
from slt_jax.types import Array, Key, PyTree, Scalar

#: Runs whose step was too large are begun again with half of it, so often.
ATTEMPTS = 3
#: An error relative to less than this is not asked for: the least λ that a single mode can have.
_SMALL = 0.5
#: Effective draws from which an error is known well enough to stop at.
_KNOWN = 100
#: Directions that have not relaxed and could add more than so many times the value are given all of the budget.
_UNRELAXED = 1.0
#: Failed checks that more steps can cure, or unmask as chance.
_CURABLE = frozenset({"rhat", "ess", "drift", "bracket", "virial", "heat", "gamma"})


class Calibration(NamedTuple):
    """A warmed-up sampler.

    Attributes:
      sampler: Langevin dynamics at the step found: with momentum on all of the data, without on minibatches.
      step_size: h in units of the parameters on all of the data, ε in squared units on minibatches; shape ``()``.
      state: The states of the chains at the end of the burn-in, to be passed on as ``sample(..., start=state)``.
      bracket: Whether the second half of the chains has come from above, shape ``()``: what ``Evidence`` asks for.
    """

    sampler: Sampler
    step_size: Array
    state: PyTree
    bracket: Array


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
    a step, so that it crosses flat directions; ``llc`` draws with 0.03 and four chains, with less where there are more,
    and both with ``h √γ`` where that is more: γ lets no direction be flatter.
    On minibatches it has none (``sgld`` with averaged noise and control variates), because the noise of batches heats
    a chain with momentum more: ``ε = min(1 / (nβ h_max + γ), 0.01 / heat)`` with the ``heat`` that the noise of the
    gradients, measured where the chains are, adds to λ̂ for a step of 1. It grows as they move on, unless their anchors
    follow, as they do in ``llc``.

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
    sharding.check_chains(chains, planning.groups_of(chains))
    stretch = max(1, -(-burnin // STAGES))
    posterior = _with_variates(posterior, data, batch_size)
    todo = planning.plan(chains, STAGES, 0, burnin, fraction)
    start_key, run_key = jax.random.split(key)
    warm = block.start(start_key, posterior, data, chains, batch_size)
    # who goes on from here has one posterior for all chains, and so one anchor
    _, warm, used = block.run(run_key, posterior, data, warm, todo, stretch, 1, batch_size, False)
    state = jax.tree.map(lambda leaf: leaf.reshape(chains, *leaf.shape[2:]), warm.state)
    return Calibration(block.sampler_of(posterior, used, batch_size), used.step_size[-1].min(), state, warm.bracket)


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
    resolution: bool = False,
    keeper: RunKeeper | None = None,
    tick: bool = False,
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
      resolution: Whether the value is asked for at the resolution that γ gives.
      keeper: Is given the run after each stage on the host, and asked at first for one that was left off: what comes of
        it is the same to the last bit, and no gradient of its chains is taken twice.
      tick: As for ``sample``. On the host the end of every stage is told in any case.

    Returns:
      The estimate with its settings, the draws it is the mean of, and the posterior they were drawn from.
    """
    unknown = jnp.asarray(np.array(np.nan, posterior.nbeta.dtype))
    centre = Polished(posterior, unknown, jnp.asarray(False), jnp.int32(0))
    if polishing:
        centre = _polish(posterior, data)
    posterior = _with_variates(centre.posterior, data, schedule.batch_size)
    height = unknown if polishing else read_height(posterior, data)

    def look(run: Run) -> Estimate:
        kept, felt = running.kept(run, schedule), running.felt(run, schedule)
        shift, heating = _beside(kept, posterior, centre.shift, centre.moved, felt, run.last.step_size)
        return read(kept, posterior, Evidence(shift, run.warm.bracket, heating, height, resolution))

    given = key, posterior, data, schedule
    if settings is not None:
        run = running.start(*given, int(settings.attempt), settings.fraction, settings.step_size, int(settings.blocks))
        estimate = look(run := _to_aim(given, run, None, tick))
    else:
        afford = 0 if tree.is_traced((key, posterior, data)) else budget // schedule.gradients
        left_off = None if keeper is None else keeper.load(running.like(*given))
        run = running.start(*given, 0, 1.0) if left_off is None else left_off
        estimate = look(run := _to_aim(given, run, keeper, tick))
        while afford > run.attempt + 1 < ATTEMPTS and run.blocks == 1 and bool(_too_hot(estimate)):
            run = running.start(*given, run.attempt + 1, 0.5 * run.first.fraction)
            estimate = look(run := _to_aim(given, run, keeper, tick))
        while (left := afford - run.attempt - run.blocks) > 0 and (more := _wanted(estimate, run, relative_error)):
            run = run._replace(aim=run.blocks + min(more, left))
            estimate = look(run := _to_aim(given, run, keeper, tick))
    kept = running.kept(run, schedule)
    return estimate._replace(settings=_settings(posterior, schedule, run, kept, centre, polishing)), kept, posterior


def _to_aim(given: tuple[Key, LocalPosterior, PyTree, Schedule], run: Run, keeper: RunKeeper | None, tick: bool) -> Run:
    """On to the block after which the verdict is looked at; on the host each stage is told, and kept."""
    size, stages = given[-1].stretch * given[-1].thin, len(run.last.settled)
    while run.blocks < run.aim:
        if tree.is_traced(given):
            run = running.go_on(*given, run, tick=tick)
            continue
        with ticking.part((run.blocks * stages + run.stage) * size, size, run.aim * stages * size):
            run = running.go_on(*given, run, tick=tick)
        if keeper is not None:
            keeper.save(run)
    return run


@jax.jit
def _beside(
    kept: Trace, posterior: LocalPosterior, shift: Array, moved: Array, felt: Array, step_size: Array
) -> tuple[Array, Array]:
    """What is known beside the draws: what the centre lacks, and what batches have added at the last step."""
    heating = as_share(posterior, felt * step_size[-1].max(), posterior.nbeta * jnp.mean(kept.excess))
    # a centre that was moved lacks nothing
    return jnp.where(moved, jnp.nan, shift), heating


@jax.jit
def _too_hot(estimate: Estimate) -> Array:
    """Whether a smaller step is the cure."""
    health = estimate.health
    return (health.diverged > 0) | health.overheated


def too_imprecise(estimate: Estimate, relative_error: float) -> Array:
    """Whether the error exceeds its share of the value, or of the least that a single mode can have."""
    return estimate.std_error > relative_error * jnp.maximum(jnp.abs(estimate.value), _SMALL)


def _wanted(estimate: Estimate, run: Run, relative_error: float) -> int:
    """How many blocks more: as many again where the verdict or the error asks for it and longer chains can help."""
    failed = {name for name, passed in estimate.health.checks.items() if not bool(passed)}
    if not failed <= _CURABLE:
        return 0
    return run.blocks if failed or bool(_poor(estimate, relative_error)) else 0


@jax.jit
def _poor(estimate: Estimate, relative_error: float) -> Array:
    """Whether the error is too large, or not known well enough."""
    health = estimate.health
    # a chain must not stop at the moment at which a poorly known error looks small
    unknown = (health.ess < _KNOWN) | health.held_perhaps | (health.unrelaxed > _UNRELAXED * jnp.abs(estimate.value))
    return too_imprecise(estimate, relative_error) | unknown


def _with_variates(posterior: LocalPosterior, data: PyTree, batch_size: int | None) -> LocalPosterior:
    return posterior if batch_size is None else with_control_variates(posterior, data)


def _settings(
    posterior: LocalPosterior, schedule: Schedule, run: Run, kept: Trace, centre: Polished, polishing: bool
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
        descent=centre.gradients,
    )


_polish = jax.jit(polish)
