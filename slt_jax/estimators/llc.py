"""The local learning coefficient in one call."""

from typing import Any

import jax
import numpy as np

from slt_jax import loss, sharding, tree
from slt_jax.estimators.calibration import Schedule, measure
from slt_jax.estimators.estimate import Estimate, Settings, read
from slt_jax.estimators.examine import Evidence
from slt_jax.estimators.heating import read_heating
from slt_jax.estimators.planning import groups_of
from slt_jax.polish import read_height
from slt_jax.posterior import dimension, localise
from slt_jax.problem import Problem
from slt_jax.reference import Outputs, self_reference
from slt_jax.restriction import Restriction
from slt_jax.samplers import Sampler
from slt_jax.sampling import check_batch_size, check_sampler, check_schedule, sample
from slt_jax.tree import check_key
from slt_jax.types import Array, Key, LossFn, PyTree, Scalar

#: Of a block: draws, and the steps before them.
DRAWS, BURNIN = 2000, 2000
#: Gradients that each chain may take where nothing was said.
BUDGET = 20_000
#: Chains where nothing was said, up to so many free parameters, and beyond them.
CHAINS = ((256, 16), (16_384, 8))
CHAINS_BEYOND = 4
#: Standard error over value that is asked for where nothing was said.
RELATIVE_ERROR = 0.02


def llc(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    *,
    restriction: Restriction | None = None,
    nbeta: Scalar | None = None,
    gamma: Scalar | None = None,
    sampler: Sampler | None = None,
    chains: int | None = None,
    draws: int | None = None,
    burnin: int | None = None,
    thin: int | None = None,
    batch_size: int | None = None,
    polish: bool | None = None,
    resolution: bool = False,
    budget: int | None = None,
    relative_error: float | None = None,
    reference: str = "loss",
    outputs: Outputs | None = None,
    divergence: str = "squared",
    settings: Settings | None = None,
    tick: bool = False,
) -> Estimate:
    """The local learning coefficient of ``loss_fn`` at ``params``, in one call.

    ``localise → sample → llc_from`` with all that these ask for found on the way: the centre polished, the step from
    the curvature met, half of the chains annealed from above, and on the host chains that go on until the verdict is
    good and the error small, or the budget is spent. Works inside ``jax.jit`` and under ``jax.vmap`` over centres,
    where the first 4000 gradients of each chain are all.

    Args:
      key: A typed key.
      loss_fn: ``loss_fn(params, batch)``: losses in nats, ``(B,)``, ``(B, T)`` or ``()``.
      params: The centre ``w*``; it should be a minimum of the loss on ``data``.
      data: All examples, leading axis ``n``. To ``slt_jax.llc`` also a function that returns a pass over them, batch by
        batch: data larger than memory (``slt_jax.streaming.llc``).
      restriction: Free directions; default all.
      nbeta: ``nβ``; default ``n / log n``.
      gamma: Localisation strength; default ``1e-4 nβ``.
      sampler: Run as it is, with nothing else chosen; on minibatches its heat is measured where it stops. Default
        ``underdamped`` on all of the data and ``sgld`` with control variates on minibatches, the step found by rule.
      chains: Default 16 up to 256 free parameters, 8 up to 16 384, and 4 beyond: the relative error of λ̂ is
        ``1 / √(λ N)`` with N effective draws, and λ is at most half the number of parameters. On a mesh two on each
        device along ``chains`` at least, and a multiple of that.
      draws, burnin, thin: For each chain recorded draws, steps thrown away first, and steps from draw to draw. Default
        2000 draws after 2000 steps, and more where the verdict asks for it; where either is given the length is fixed,
        unless a budget is given too.
      batch_size: Examples a step; default all. The noise of batches heats the chain; the default sampler takes steps
        that are small enough for it, so that small batches need many more of them. What heat is left is taken from the
        value, up to 5 % of it, and is a reason to doubt it beyond.
      polish: Whether to move the centre to the minimum nearby first, if that lies within the reach of the temperature
        (``slt_jax.polish``). Default yes, but on minibatches, and with a sampler of one's own, no.
      resolution: Whether the value is asked for at the resolution that ``gamma`` gives, flatter directions being left
        out on purpose: then it is no reason for doubt that the value depends on it.
      budget: Gradients that each chain may take, longer and repeated runs included; default 20 000 where the length is
        not fixed.
      relative_error: Standard error over value to be reached within the budget; default 0.02.
      reference: ``"loss"``: the excess over the loss at the centre; ``"self"``: the divergence from the network's own
        outputs at the centre, of which every centre is a minimum (``slt_jax.self_reference``).
      outputs: ``outputs(params, batch)``, what the network answers; needed for ``"self"``, where ``loss_fn`` is unused.
      divergence: Between outputs: ``"squared"`` or ``"categorical"``.
      settings: Those of an earlier estimate, to repeat its run: with the same key and the same problem, the same number
        to the last bit. Nothing else may be given then but ``restriction``, ``resolution`` and, as before,
        ``reference``, ``outputs`` and ``divergence``.
      tick: Whether the chains tell how far they are inside a stage too (``slt_jax.ticking.listening``); on the host the
        end of every stage is told in any case.

    Returns:
      An estimate, whose ``explain()`` says in words whether to believe it and what was chosen.

    Raises:
      ValueError: before compilation, naming the argument, what was got and what to do.

    Source: Lau et al. 2023, arXiv:2308.12108.

    >>> import jax, jax.numpy as jnp
    >>> loss_fn = lambda w, x: 0.5 * jnp.mean(w**2) * jnp.ones_like(x)
    >>> estimate = llc(jax.random.key(0), loss_fn, jnp.zeros(10), jnp.zeros(1000))
    >>> abs(float(estimate.value) - 5.0) < 4 * float(estimate.std_error)
    True
    """
    check_key(key)
    fixed = draws is not None or burnin is not None or sampler is not None
    # how many chains follows from the dimension, which is known only when everything has been looked at
    schedule = Schedule(
        1 if chains is None else chains,
        DRAWS if draws is None else draws,
        BURNIN if burnin is None else burnin,
        1 if thin is None else thin,
        batch_size,
    )
    if settings is not None:
        lengths = dict(chains=chains, draws=draws, burnin=burnin, thin=thin, batch_size=batch_size, budget=budget)
        others = dict(nbeta=nbeta, gamma=gamma, sampler=sampler, polish=polish, relative_error=relative_error)
        _check_alone("settings", lengths | others, "they fix. Pass settings alone to repeat a run")
        nbeta, gamma, schedule, polish = _repeated(settings)
        chains = schedule.chains
    check_schedule(draws=schedule.draws, chains=schedule.chains, burnin=schedule.burnin, thin=schedule.thin)
    check_batch_size(schedule.batch_size, loss.example_count(data))
    relative_error = RELATIVE_ERROR if relative_error is None else relative_error
    check_budget(budget, relative_error)
    if sampler is not None:
        check_sampler(sampler)
        unused = dict(polish=polish or None, budget=budget)
        _check_alone("sampler", unused, "it has no use for: it is run as it is. Give draws and burnin instead")
    loss_fn, params, data = _referred(reference, outputs, divergence, loss_fn, params, data)
    data = sharding.spread(data, sharding.BATCH)
    posterior = localise(loss_fn, params, data, nbeta, gamma, restriction)
    if chains is None:
        schedule = schedule._replace(chains=chains_for(dimension(posterior)))
    sharding.check_chains(schedule.chains, 1 if sampler is not None else groups_of(schedule.chains))
    if sampler is not None:
        steps = {name: getattr(schedule, name) for name in Schedule._fields}
        trace = sample(key, sampler, posterior, data, **steps, tick=tick)
        # the chains have the keys fold_in(key, 0) to fold_in(key, chains - 1)
        after = jax.random.fold_in(key, schedule.chains)
        heating = read_heating(after, sampler, posterior, data, trace, schedule.batch_size)
        height = read_height(posterior, data)
        return read(trace, posterior, Evidence(heating=heating, height=height, resolution=resolution))
    if polish is None:
        polish = batch_size is None
    if budget is None:
        budget = 0 if fixed else BUDGET
    return measure(
        key,
        posterior,
        data,
        schedule,
        polishing=polish,
        budget=budget,
        relative_error=relative_error,
        settings=settings,
        resolution=resolution,
        tick=tick,
    )[0]


def chains_for(dimension: int) -> int:
    """How many chains are run where nothing was said: more of them where there are few directions to average over.

    >>> [chains_for(dimension) for dimension in (10, 1000, 1_000_000)]
    [16, 8, 4]
    """
    chains = next((chains for most, chains in CHAINS if dimension <= most), CHAINS_BEYOND)
    # two groups of as many on each device
    each = 2 * sharding.size_of(sharding.CHAINS)
    return -(-chains // each) * each


def _referred(
    reference: str, outputs: Outputs | None, divergence: str, loss_fn: LossFn, params: PyTree, data: PyTree
) -> Problem:
    if reference not in ("loss", "self"):
        raise ValueError(f"reference: got {reference!r}; it must be 'loss' or 'self'.")
    if (outputs is not None) != (reference == "self"):
        raise ValueError(
            f"outputs: {'none given' if outputs is None else 'given'} with reference={reference!r}. Pass "
            "reference='self' together with outputs(params, batch), what the network answers; a loss does not tell it."
        )
    if outputs is None:
        return Problem(loss_fn, params, data)
    return self_reference(outputs, params, data, divergence=divergence)


def _check_alone(name: str, given: dict[str, Any], why: str) -> None:
    named = [other for other, value in given.items() if value is not None]
    if named:
        raise ValueError(f"{name}: given together with {', '.join(named)}, which {why}, or leave out {name}.")


def _repeated(settings: Settings) -> tuple[Array, Array, Schedule, bool]:
    if not isinstance(settings, Settings):
        raise ValueError(f"settings: got a {type(settings).__name__}; pass those of an estimate, estimate.settings.")
    if tree.is_traced(settings.chains) or np.ndim(settings.chains):
        raise ValueError(
            "settings: got those of many estimates, or traced ones, but they say how long a run is. Index one of them "
            "first, and close over it in a jitted function."
        )
    chains, draws, burnin, thin, batch_size = (int(getattr(settings, name)) for name in Schedule._fields)
    schedule = Schedule(chains, draws, burnin, thin, batch_size or None)
    return settings.nbeta, settings.gamma, schedule, bool(settings.polishing)


def check_budget(budget: int | None, relative_error: float) -> None:
    """Refuse a budget or a demand that is out of range.

    Raises:
      ValueError: naming which, and what was got.
    """
    if budget is not None and (isinstance(budget, bool) or not hasattr(budget, "__index__") or budget < 0):
        raise ValueError(f"budget: got {budget!r}; pass the gradients that each chain may take, an integer.")
    if isinstance(relative_error, bool) or not hasattr(relative_error, "__float__") or not 0 <= relative_error < 1:
        raise ValueError(f"relative_error: got {relative_error!r}; pass a share of the value, such as 0.02.")
