"""The local learning coefficient of data that do not fit into memory."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import posterior as posteriors
from slt_jax import sampling, tree
from slt_jax.curvature import sharpness, typical_points
from slt_jax.estimators import BUDGET, BURNIN, DRAWS, Estimate, Evidence, Settings, check_budget
from slt_jax.estimators.calibration import too_imprecise
from slt_jax.estimators.dynamics import curvature_batch, step_size_for
from slt_jax.estimators.estimate import read
from slt_jax.estimators.heating import as_share, feel, read_heating
from slt_jax.estimators.llc import RELATIVE_ERROR, chains_for
from slt_jax.estimators.running import STAGES
from slt_jax.polish import gain
from slt_jax.posterior import LocalPosterior, dimension, full_batch
from slt_jax.restriction import Restriction
from slt_jax.samplers import Sampler, sgld
from slt_jax.sampling import Trace
from slt_jax.streaming.batches import Factory, again_and_again, head
from slt_jax.streaming.centre import localise, with_control_variates
from slt_jax.streaming.chains import check_segment, run
from slt_jax.tree import check_key
from slt_jax.types import Array, Key, LossFn, PyTree, Scalar

#: Failed checks that no longer chain can cure.
_INCURABLE = frozenset({"finite", "moved", "minimum", "heating"})
#: Points of typical potential at which curvature is first looked for.
_POINTS = 4
#: What is assumed of the curvature, relative to the largest met, after a stage that diverged.
_AFTER_DIVERGENCE = 4.0


class _Warm(NamedTuple):
    """Burnt in: the sampler, where its chains are, the step of each stage, and how many steps were made."""

    sampler: Sampler
    state: PyTree
    step_size: Array
    made: int


def llc(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    factory: Factory,
    *,
    restriction: Restriction | None = None,
    nbeta: Scalar | None = None,
    gamma: Scalar | None = None,
    sampler: Sampler | None = None,
    chains: int | None = None,
    draws: int | None = None,
    burnin: int | None = None,
    thin: int | None = None,
    resolution: bool = False,
    budget: int | None = None,
    relative_error: float | None = None,
    segment: int | None = None,
) -> Estimate:
    """``slt_jax.llc`` on a stream: what it is called by where its data are a function.

    One pass counts ``n`` and takes the loss at the centre, one takes its gradient there; a head of at most 4096
    examples or 8 batches stays in memory. The chains start at the centre and go along the stream, with control
    variates. In each of five stages of the burn-in the step follows, by the rule of ``calibrate``, from the curvature
    and the noise that the head shows where the chains are: they are never run on the head, whose own minimum may be far
    away at this temperature. Then come the draws, and more of them until the verdict is good and the error small, or
    the budget is spent. The heat of batches is read on the head where the chains stop, and taken from the value. There
    are no chains from above.

    Args:
      key, loss_fn, params, restriction, nbeta, gamma, resolution, relative_error: As in ``slt_jax.llc``.
      factory: ``factory()`` returns a pass over all of the data, which must end, as an iterable of batches: trees of
        arrays, leading axis ``B``; a shorter last one counts at the centre and is left out by chains. Shuffled.
      sampler: Run as it is, without control variates, for a fixed length.
      chains: Default 16, 8 or 4 by dimension, as in ``slt_jax.llc``. All of them see the same batches.
      draws, burnin, thin: As in ``slt_jax.llc``: default 2000 draws after 2000 steps.
      budget: Gradients that each chain may take; default 20 000 where neither ``draws`` nor ``burnin`` is given.
      segment: Steps whose batches are sent to the device at a time.

    Returns:
      An estimate. Its settings tell what was chosen; they do not repeat the run, whose batches they do not know.

    Raises:
      ValueError: as ``slt_jax.llc``; what ``once`` refuses; under a transformation of JAX, which cannot read a stream.

    Not to be believed where batches are no draws from the data: a stream that is sorted, or never shuffled, pulls the
    chains to and fro and has a head unlike the rest. Where a pass is shorter than chains take to relax, its batches
    cancel, and heat less than what is taken from the value. Control variates stay at the centre: chains that drift far
    along flat directions feel more noise than there was on the head, which the health shows as heating; larger batches,
    or a larger gamma, help. The centre is not polished: the health says what it lacks.

    Sources: Lau et al. 2023, arXiv:2308.12108; Baker, Fearnhead, Fox & Nemeth 2019, arXiv:1706.05439.

    >>> def factory():
    ...     order = np.random.default_rng(0).permutation(1000)
    ...     return (np.cos(np.arange(1000.0))[rows, None] for rows in order.reshape(-1, 50))
    >>> loss_fn = lambda w, x: 0.5 * (x[:, 0] * jnp.mean(w)) ** 2
    >>> estimate = llc(jax.random.key(0), loss_fn, jnp.zeros(4), factory, gamma=0.1)
    >>> abs(float(estimate.value) - 0.5) < 4 * float(estimate.std_error)
    True
    """
    check_key(key)
    if tree.is_traced((key, params)):
        raise ValueError(
            "factory: a stream is read by the host, and cannot be inside jit, vmap or grad. Call llc outside, or pass "
            "arrays as data."
        )
    fixed = draws is not None or burnin is not None or sampler is not None
    lengths = dict(
        draws=DRAWS if draws is None else draws,
        burnin=BURNIN if burnin is None else burnin,
        thin=1 if thin is None else thin,
    )
    sampling.check_schedule(**lengths, chains=1 if chains is None else chains)
    check_segment(segment)
    relative_error = RELATIVE_ERROR if relative_error is None else relative_error
    check_budget(budget, relative_error)
    if sampler is not None:
        sampling.check_sampler(sampler)
        if budget is not None:
            raise ValueError("sampler: given together with budget: it is run as it is. Give draws and burnin instead.")
    budget = (0 if fixed else BUDGET) if budget is None else budget
    plain = localise(loss_fn, params, factory, nbeta, gamma, restriction)
    varied = with_control_variates(plain, factory)
    chains = chains_for(dimension(plain)) if chains is None else chains
    examples, size = head(factory)
    near = posteriors.localise(plain.loss_fn, plain.center, examples, plain.nbeta, plain.gamma, plain.restriction)
    height = _gain(near, varied.center_gradient, examples)
    after, warm_key, run_key = jax.random.split(key, 3)
    evidence = Evidence(height=height, resolution=resolution)
    go = partial(run, run_key, batches=again_and_again(factory), chains=chains, thin=lengths["thin"], segment=segment)

    def look(sampler: Sampler, trace: Trace, number: int) -> Scalar:
        return read_heating(jax.random.fold_in(after, number), sampler, near, examples, trace, size)

    if sampler is not None:
        trace = go(sampler, plain, draws=lengths["draws"], burnin=lengths["burnin"])
        return read(trace, plain, evidence._replace(heating=look(sampler, trace, 0)))
    near = near._replace(center_gradient=varied.center_gradient)
    warm = _burnt_in(warm_key, go, varied, near, examples, size, lengths)
    block_steps = lengths["draws"] * lengths["thin"]
    spent, blocks = warm.made + block_steps, 1
    trace = go(warm.sampler, varied, draws=lengths["draws"], burnin=0, start=warm.state, begin=warm.made)
    heats = [look(warm.sampler, trace, 0)]
    evidence = evidence._replace(heating=heats[0])
    estimate = read(trace, varied, evidence)
    while (more := min(blocks, (budget - spent) // block_steps)) > 0 and _wanted(estimate, relative_error):
        last = go(warm.sampler, varied, draws=more * lengths["draws"], burnin=0, start=trace.state, begin=spent)
        heats.append(look(warm.sampler, last, blocks))
        trace = _joined(trace, last)
        blocks, spent = blocks + more, spent + more * block_steps
        evidence = evidence._replace(heating=jnp.mean(jnp.stack(heats)))
        estimate = read(_last_half(trace, lengths["draws"]), varied, evidence)
    return estimate._replace(settings=_settings(varied, warm.step_size, lengths, chains, size, blocks, spent))


def llc_of(function: Callable[..., Estimate], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Estimate:
    """What ``slt_jax.llc`` does where its data are a stream: its arguments, as they are called here.

    Args:
      function: ``llc`` on data in memory, whose arguments these are.
      args, kwargs: Of the call.

    Raises:
      ValueError: an argument is given that a stream has no use for; as ``llc``.
    """
    here, there = (inspect.signature(one).parameters for one in (llc, function))
    given = {**dict(zip(there, args, strict=False)), **kwargs}
    factory = given.pop("data")
    unused = [
        name for name, value in given.items() if name in there.keys() - here and value not in (None, False, "loss")
    ]
    if unused:
        raise ValueError(
            f"{', '.join(unused)}: given together with a stream of data, which has no use for it: its batches have "
            "their own size, its centre is not polished. Leave it out, or pass arrays as data."
        )
    return llc(factory=factory, **{name: value for name, value in given.items() if name in here or name not in there})


def _burnt_in(
    key: Key,
    go: Callable[..., Trace],
    posterior: LocalPosterior,
    near: LocalPosterior,
    examples: PyTree,
    batch_size: int,
    lengths: dict[str, int],
) -> _Warm:
    point_key, *keys = jax.random.split(key, STAGES + 1)
    points, curvature = _points(point_key, near, examples), jnp.zeros_like(near.nbeta)
    energy, state, steps = jnp.full_like(near.nbeta, jnp.nan), None, []
    stretch = -(-lengths["burnin"] // (STAGES * lengths["thin"]))
    for stage, stage_key in enumerate(keys):
        step_size, curvature = _rule(stage_key, near, examples, points, energy, curvature, batch_size)
        steps.append(step_size)
        if not stretch:
            break
        begin = stage * stretch * lengths["thin"]
        trace = go(sgld(step_size), posterior, draws=stretch, burnin=0, start=state, begin=begin)
        if np.isfinite(trace.excess).all():
            state, points = trace.state, trace.state.position
            energy = posterior.nbeta * jnp.mean(trace.excess[:, stretch // 2 :])
        else:
            # once more from the centre, and smaller steps
            state, curvature = None, _AFTER_DIVERGENCE * curvature
    return _Warm(sgld(steps[-1]), state, jnp.stack(steps), len(steps) * stretch * lengths["thin"])


@partial(jax.jit, static_argnums=6)
def _rule(
    key: Key,
    near: LocalPosterior,
    examples: PyTree,
    points: PyTree,
    energy: Array,
    curvature: Array,
    batch_size: int,
) -> tuple[Array, Array]:
    """The step for where the chains are, and the largest curvature met so far."""
    batch_key, curvature_key, noise_key = jax.random.split(key, 3)
    batch = curvature_batch(batch_key, near, examples)
    curvature = jnp.maximum(curvature, sharpness(curvature_key, near, batch, points))
    settings = dict(posterior=near, data=examples, batch=batch, batch_size=batch_size, follows=False)
    felt, _, there = feel(noise_key, points, points, **settings)
    share = as_share(near, felt, jnp.where(jnp.isfinite(energy), energy, there))
    return step_size_for(near, curvature, share, batch_size), curvature


@jax.jit
def _points(key: Key, near: LocalPosterior, examples: PyTree) -> PyTree:
    batch_key, point_key = jax.random.split(key)
    return typical_points(point_key, near, curvature_batch(batch_key, near, examples), _POINTS)


def _wanted(estimate: Estimate, relative_error: float) -> bool:
    """Whether the verdict or the error asks for more, and longer chains can help."""
    failed = {name for name, passed in estimate.health.checks.items() if not bool(passed)}
    return not failed & _INCURABLE and (bool(failed) or bool(too_imprecise(estimate, relative_error)))


def _joined(trace: Trace, last: Trace) -> Trace:
    both = trace._replace(state=()), last._replace(state=())
    return jax.tree.map(lambda *pieces: np.concatenate(pieces, axis=1), *both)._replace(state=last.state)


def _last_half(trace: Trace, count: int) -> Trace:
    """So many draws out of the last half: the first one is burn-in, and a longer run compiles nothing."""
    total = trace.excess.shape[1]
    rows = total // 2 + np.arange(count) * (total - total // 2) // count
    return jax.tree.map(lambda leaf: leaf[:, rows], trace._replace(state=()))


def _settings(
    posterior: LocalPosterior,
    step_size: Array,
    lengths: dict[str, int],
    chains: int,
    batch_size: int,
    blocks: int,
    spent: int,
) -> Settings:
    numbers = dict(**lengths, chains=chains, batch_size=batch_size, blocks=blocks, gradients=spent, attempt=0)
    unknown = jnp.full((), jnp.nan, posterior.nbeta.dtype)
    return Settings(
        nbeta=posterior.nbeta,
        gamma=posterior.gamma,
        step_size=step_size[:, None],
        friction=jnp.full(len(step_size), unknown),
        share=jnp.ones((len(step_size), 1)),
        fraction=jnp.float32(1.0),
        kept=jnp.int32(lengths["draws"]),
        polishing=jnp.asarray(False),
        polished=jnp.asarray(False),
        shift=unknown,
        **{name: jnp.int32(value) for name, value in numbers.items()},
    )


@jax.jit
def _gain(posterior: LocalPosterior, gradient: PyTree, examples: PyTree) -> Array:
    return gain(posterior, gradient, full_batch(posterior, examples))
