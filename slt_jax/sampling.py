"""The one loop over draws. Chains are vmapped inside it, so that batches and statistics can be shared across them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import loss, tree
from slt_jax.posterior import Batch, LocalPosterior, full_batch, minibatch
from slt_jax.samplers.base import Info, Sampler
from slt_jax.tree import check_key
from slt_jax.types import Array, Key, PyTree


class Moments(NamedTuple):
    """Of each entry of ``z`` over the recorded draws of a chain: trees like ``z``, leading axis ``chain``.

    Attributes:
      mean: In at least float32.
      variance: Mean square deviation from the mean.
    """

    mean: PyTree
    variance: PyTree


class Fold(NamedTuple):
    """What is kept of the draws in place of all of them, where what is seen at each is too much to keep.

    Attributes:
      begin: What is kept before the first draw, a tree of arrays.
      add: ``add(kept, seen, draw) -> (kept, recorded)``; ``seen`` is what ``observe`` returned, with a leading axis
        ``chain``, and ``recorded``, with the same axis, takes its place in the trace. A negative ``draw`` is burn-in,
        at which nothing was seen but zeros: it must leave what is kept as it is.
    """

    begin: PyTree
    add: Partial


class Trace(NamedTuple):
    """What the loop returns. Leaves have shape ``(chain, draw)``, ``virials`` and observables ``(chain, draw, ...)``.

    Attributes:
      excess: ``L(w) - L(w*)`` on the same batch, nats.
      loss: ``L(w)`` on the batch, nats.
      noise: Variance of ``excess`` due to the choice of the batch.
      virial: ``⟨z, ∇U⟩ / d``.
      virials: The same for each leaf of ``z`` alone, shape ``(chain, draw, leaf)``.
      distance_squared: ``|z|²``.
      acceptance: Acceptance probability of the step that left the draw.
      observables: What ``observe(params)`` returned at each draw, or ``()``.
      state: The sampler's state after the last step, leading axis ``chain``: where a longer chain goes on.
      moments: Of ``z`` over the draws, where asked for, or ``()``.
      folded: What a fold has kept after the last draw, or ``()``.
    """

    excess: Array
    loss: Array
    noise: Array
    virial: Array
    virials: Array
    distance_squared: Array
    acceptance: Array
    observables: PyTree
    state: PyTree
    moments: Moments | tuple[()] = ()
    folded: PyTree = ()


def sample(
    key: Key,
    sampler: Sampler,
    posterior: LocalPosterior,
    data: PyTree,
    *,
    draws: int,
    chains: int = 4,
    burnin: int = 0,
    thin: int = 1,
    batch_size: int | None = None,
    observe: Callable[[PyTree], PyTree] | None = None,
    start: PyTree | None = None,
    moments: bool = False,
    fold: Fold | None = None,
    batch_key: Key | None = None,
) -> Trace:
    """Run ``chains`` chains from the centre and record ``draws`` draws of each, ``thin`` steps apart.

    The keys follow one rule, so that a chain can be repeated by hand: ``jax.random.split(key, chains)`` gives a key to
    each chain, ``split`` of that gives ``(init_key, run_key)``, and step ``t`` (burn-in included) uses
    ``step_keys(run_key, t)``. Where there is a ``batch_key``, batches come by the same rule from
    ``jax.random.split(batch_key, chains)`` in place of the run keys, and moves as before.

    Args:
      key: A typed key.
      sampler: Moves ``z``.
      posterior: What is sampled.
      data: The examples the posterior was made with.
      draws: Recorded draws of each chain.
      chains: Number of chains, vmapped.
      burnin: Steps made first and thrown away, rounded up to a multiple of ``thin``: never averaged in.
      thin: Steps from one recorded draw to the next.
      batch_size: Examples a step, drawn with replacement, other ones for each chain. By default, and where it is their
        number, all of the data, and nothing is drawn.
      observe: ``observe(params)``, a pure function recorded at each draw.
      start: Where to go on from: the ``state`` of a trace of the same sampler, with a fresh key. Default the centre.
      moments: Whether to keep the mean and variance of each entry of ``z``, two more copies of it for each chain.
      fold: What to keep of that which is observed, and to record in its place.
      batch_key: For several samples that are to see the same batches, step by step and chain by chain, whatever their
        own keys, restrictions and samplers.

    Returns:
      A trace. A chain that diverges has draws that are not finite: they are kept, never skipped.

    Raises:
      ValueError: before compilation, where a number is out of range, the key is not typed, the sampler is not one, or
        ``data`` is not what the posterior was made with.
    """
    check_schedule(draws=draws, chains=chains, burnin=burnin, thin=thin)
    check_key(key)
    if batch_key is not None:
        check_key(batch_key)
    check_sampler(sampler)
    count = loss.example_count(data)
    _check_same_data(posterior, count)
    check_batch_size(batch_size, count)
    batch_size = None if batch_size == count else batch_size
    function = observe if observe is None or isinstance(observe, Partial) else Partial(observe)
    _check_start(start, chains)
    sizes = draws, chains, burnin, thin, batch_size
    return _sample(key, sampler, posterior, data, function, start, fold, batch_key, *sizes, bool(moments))


def step_keys(run_key: Key, step: Array | int) -> tuple[Key, Key]:
    """The keys of one step of one chain: ``(batch_key, move_key)``.

    >>> batch_key, move_key = step_keys(jax.random.key(0), 3)
    """
    batch_key, move_key = jax.random.split(jax.random.fold_in(run_key, step))
    return batch_key, move_key


def batch_index(batch_key: Key, batch_size: int, count: int) -> Array:
    """Which examples a step sees: ``batch_size`` indices below ``count``, with replacement."""
    return jax.random.randint(batch_key, (batch_size,), 0, count)


def check_schedule(*, draws: int, chains: int, burnin: int, thin: int) -> None:
    """Refuse a schedule that makes no draws.

    Raises:
      ValueError: naming the number that is out of range.
    """
    for name, value, least in (("draws", draws, 1), ("chains", chains, 1), ("burnin", burnin, 0), ("thin", thin, 1)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ValueError(f"{name}: got {value!r}; it must be an integer of Python's, static under jit.")
        if value < least:
            raise ValueError(f"{name}: got {value}; it must be at least {least}.")


def check_batch_size(batch_size: int | None, count: int) -> None:
    """Refuse a batch that is empty, larger than the data or not a whole number.

    Raises:
      ValueError: naming the batch size and the number of examples.
    """
    if batch_size is None:
        return
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer):
        raise ValueError(f"batch_size: got {batch_size!r}; it must be an integer of Python's, static under jit.")
    if not 1 <= batch_size <= count:
        raise ValueError(f"batch_size: got {batch_size} with {count} examples; it must lie between 1 and {count}.")


def check_sampler(sampler: Sampler) -> None:
    """Refuse a sampler that was not made yet.

    Raises:
      ValueError: naming what was got.
    """
    if not isinstance(sampler, Sampler):
        raise ValueError(
            f"sampler: got a {type(sampler).__name__}; make one first, as in slt_jax.samplers.sgld(step_size)."
        )


def _check_start(start: PyTree | None, chains: int) -> None:
    for leaf in jax.tree.leaves(start):
        if not jnp.ndim(leaf) or jnp.shape(leaf)[0] != chains:
            raise ValueError(
                f"start: has a leaf of shape {jnp.shape(leaf)}; expected a leading axis of {chains} chains."
            )


def _check_same_data(posterior: LocalPosterior, count: int) -> None:
    known = posterior.center_losses.shape[-1:]
    if not known and not tree.is_traced(posterior.n):
        known = (int(posterior.n),)
    # n is a float: beyond 2²⁴ examples it is rounded
    if known and np.float32(known[0]) != np.float32(count):
        raise ValueError(
            f"data: got {count} examples, but the posterior was made with {known[0]}. "
            "Pass the same data to localise and sample."
        )


@jax.jit(static_argnums=(8, 9, 10, 11, 12, 13))
def _sample(
    key: Key,
    sampler: Sampler,
    posterior: LocalPosterior,
    data: PyTree,
    observe: Partial | None,
    start: PyTree | None,
    fold: Fold | None,
    batch_key: Key | None,
    draws: int,
    chains: int,
    burnin: int,
    thin: int,
    batch_size: int | None,
    moments: bool,
) -> Trace:
    keys = jax.vmap(jax.random.split)(jax.random.split(key, chains))
    init_keys, run_keys = keys[:, 0], keys[:, 1]
    batch_keys = run_keys if batch_key is None else jax.random.split(batch_key, chains)
    state: Any = start
    if start is None:
        state = jax.vmap(sampler.init, in_axes=(0, None, None))(init_keys, posterior, data)
    everything = full_batch(posterior, data)
    count = loss.example_count(data)
    warm = -(-burnin // thin)

    def step_chain(keys: tuple[Key, Key], state: PyTree, time: Array) -> tuple[PyTree, Info]:
        (for_batch, _), (_, move_key) = (step_keys(one, time) for one in keys)
        batch: Batch = everything
        if batch_size is not None:
            batch = minibatch(posterior, data, batch_index(for_batch, batch_size, count))
        return sampler.step(move_key, state, posterior, batch)

    def step(state: PyTree, time: Array) -> tuple[PyTree, Info]:
        return jax.vmap(step_chain, in_axes=(0, 0, None))((batch_keys, run_keys), state, time)

    def look(state: PyTree) -> PyTree:
        params = jax.vmap(posterior.restriction.lift, in_axes=(None, 0))(posterior.center, state.position)
        return jax.vmap(observe)(params) if observe is not None else ()

    def window(carry: PyTree, index: Array) -> tuple[PyTree, tuple[Info, PyTree]]:
        state, running, kept = carry
        # a step reports the position it starts from: the first position of a window is its draw
        if moments:
            running = _updated(running, state.position, index - warm)
        observed = jax.lax.cond(index >= warm, look, lambda s: tree.zeros_like(jax.eval_shape(look, s)), state)
        if fold is not None:
            kept, observed = fold.add(kept, observed, index - warm)
        if thin == 1:
            state, info = step(state, index)
        else:
            state, infos = jax.lax.scan(step, state, index * thin + jnp.arange(thin))
            info = jax.tree.map(lambda leaf: leaf[0], infos)
        return (state, running, kept), (info, observed)

    # burn-in and draws run through one scan, so that the sampler's step is compiled once
    running: PyTree = ()
    if moments:
        zero = tree.at_least_float32(tree.zeros_like(state.position))
        running = Moments(zero, zero)
    first = state, running, () if fold is None else fold.begin
    (state, running, kept), recorded = jax.lax.scan(window, first, jnp.arange(warm + draws))
    infos, observables = jax.tree.map(lambda leaf: jnp.swapaxes(leaf[warm:], 0, 1), recorded)
    return Trace(**infos._asdict(), observables=observables, state=state, moments=running, folded=kept)


def _updated(running: Moments, position: PyTree, before: Array) -> Moments:
    """Mean and variance with one draw more, after so many before it; unchanged while that is negative.

    Source: Welford 1962, doi:10.1080/00401706.1962.10490022.
    """
    share = jnp.where(before >= 0, 1 / jnp.maximum(before + 1, 1), 0.0)
    apart = jax.tree.map(jnp.subtract, position, running.mean)
    mean = tree.combine(lambda m, a: m + share * a, running.mean, apart)
    variance = tree.combine(lambda v, a: v + share * ((1 - share) * a**2 - v), running.variance, apart)
    return Moments(mean, variance)
