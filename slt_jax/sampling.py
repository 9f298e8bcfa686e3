"""The one loop over draws, long because all that chains do side by side is in it: batches, statistics, their place."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import generator, loss, sharding, ticking, tree
from slt_jax.posterior import Batch, LocalPosterior, full_batch, minibatch, pair
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
    batches: PyTree | None = None,
    begin: Array | int = 0,
    side_by_side: int | None = None,
    tick: bool = False,
    donate: bool = False,
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
      batches: The examples of each step in place of ``data``, leading axes ``(step, example)``, burn-in included: the
        same for all chains. ``batch_size`` is theirs.
      begin: The first step's number ``t``, where the chain goes on: with the same key, ``start`` and the number of
        steps made so far it makes the draws that one longer run would have made, to the last bit.
      side_by_side: Chains of a device that are computed at a time, a divisor of their number; the others wait, and
        need no memory but for their state. Default all. For large models 1 is as fast on a CPU.
      tick: Whether the loop tells how far it is (``slt_jax.ticking.listening``), at most 20 times. Static: a program
        that ticks is another one, with the same numbers, which JAX does not keep in its cache on disk.
      donate: Whether the memory of ``start`` may be used again: its arrays are gone afterwards.

    On a mesh (``slt_jax.sharding``) chains are spread along ``chains``, the examples of a step along ``batch``, and
    what a chain keeps in the shape of the parameters along ``parameters``.

    Returns:
      A trace. A chain that diverges has draws that are not finite: they are kept, never skipped.

    Raises:
      ValueError: before compilation, where a number is out of range, the key is not typed, the sampler is not one, or
        ``data`` is not what the posterior was made with, or the chains do not fit the mesh.
    """
    check_schedule(draws=draws, chains=chains, burnin=burnin, thin=thin)
    check_key(key)
    if batch_key is not None:
        check_key(batch_key)
    check_sampler(sampler)
    sharding.check_chains(chains)
    count = loss.example_count(data)
    if batches is None:
        _check_same_data(posterior, count)
        check_batch_size(batch_size, count)
    else:
        _check_batches(batches, batch_size, (-(-burnin // thin) + draws) * thin)
    batch_size = None if batch_size == count else batch_size
    _check_side_by_side(side_by_side, chains)
    function = observe if observe is None or isinstance(observe, Partial) else Partial(observe)
    _check_start(start, chains)
    given = key, sampler, posterior, data, function, start, fold, batch_key, batches, jnp.asarray(begin, jnp.int32)
    run = _sample_in_place if donate else _sample
    return run(*given, draws, chains, burnin, thin, batch_size, bool(moments), side_by_side, bool(tick))


def step_keys(run_key: Key, step: Array | int) -> tuple[Key, Key]:
    """The keys of one step of one chain, ``split`` of ``fold_in`` of its number: ``(batch_key, move_key)``.

    >>> batch_key, move_key = step_keys(jax.random.key(0), 3)
    """
    return generator.split_of_step(run_key, step)


def batch_index(batch_key: Key, batch_size: int, count: int) -> Array:
    """Which examples a step sees: ``batch_size`` indices below ``count``, with replacement."""
    return generator.integers(batch_key, batch_size, count)


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


def _check_side_by_side(size: int | None, chains: int) -> None:
    if size is None:
        return
    each = chains // sharding.size_of(sharding.CHAINS)
    if isinstance(size, bool) or not hasattr(size, "__index__") or size < 1 or each % size:
        raise ValueError(f"side_by_side: got {size!r}; pass a divisor of the {each} chains of a device.")


def _check_batches(batches: PyTree, batch_size: int | None, steps: int) -> None:
    if batch_size is not None:
        raise ValueError(f"batch_size: got {batch_size} together with batches, which have their own; leave it out.")
    for path, leaf in jax.tree_util.tree_leaves_with_path(batches):
        shape = jnp.shape(leaf)
        if len(shape) < 2 or shape[0] != steps:
            raise ValueError(
                f"batches: leaf {tree.path_name(path)!r} has shape {shape}; expected leading axes (step, example) of "
                f"{steps} steps, burn-in included."
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


def _loop(
    key: Key,
    sampler: Sampler,
    posterior: LocalPosterior,
    data: PyTree,
    observe: Partial | None,
    start: PyTree | None,
    fold: Fold | None,
    batch_key: Key | None,
    batches: PyTree | None,
    begin: Array,
    draws: int,
    chains: int,
    burnin: int,
    thin: int,
    batch_size: int | None,
    moments: bool,
    side_by_side: int | None,
    tick: bool,
) -> Trace:
    keys = sharding.spread(jax.vmap(jax.random.split)(jax.random.split(key, chains)), sharding.CHAINS)
    init_keys, run_keys = keys[:, 0], keys[:, 1]
    batch_keys = run_keys if batch_key is None else jax.random.split(batch_key, chains)
    state: Any = start
    if start is None:
        state = jax.vmap(sampler.init, in_axes=(0, None, None))(init_keys, posterior, data)
    state = sharding.split(state, sharding.CHAINS)
    count = loss.example_count(data)
    warm = -(-burnin // thin)
    everything = None if batches is not None else sharding.spread(full_batch(posterior, data), sharding.BATCH)

    def step_chain(keys: tuple[Key, Key], state: PyTree, time: Array, shared: Batch | None) -> tuple[PyTree, Info]:
        (for_batch, _), (_, move_key) = (step_keys(one, time) for one in keys)
        batch = shared
        if batch is None:
            index = sharding.spread(batch_index(for_batch, batch_size or count, count), sharding.BATCH)
            batch = minibatch(posterior, data, index)
        return sampler.step(move_key, state, posterior, batch)

    def step(state: PyTree, now: tuple[Array, PyTree]) -> tuple[PyTree, Info]:
        time, examples = now
        shared = everything if batch_size is None else None
        if batches is not None:
            shared = sharding.spread(pair(posterior, examples), sharding.BATCH)
        many = jax.vmap(step_chain, in_axes=(0, 0, None, None))
        state, info = _in_pieces(many, side_by_side, (batch_keys, run_keys), state, time, shared)
        return sharding.split(state, sharding.CHAINS), info

    def look(state: PyTree) -> PyTree:
        params = jax.vmap(posterior.restriction.lift, in_axes=(None, 0))(posterior.center, state.position)
        return jax.vmap(observe)(params) if observe is not None else ()

    def window(carry: PyTree, now: tuple[Array, PyTree]) -> tuple[PyTree, tuple[Info, PyTree]]:
        (state, running, kept), (index, seen) = carry, now
        # a step reports the position it starts from: the first position of a window is its draw
        if moments:
            running = _updated(running, state.position, index - warm)
        observed = jax.lax.cond(index >= warm, look, lambda s: tree.zeros_like(jax.eval_shape(look, s)), state)
        if fold is not None:
            kept, observed = fold.add(kept, observed, index - warm)
        if thin == 1:
            state, info = step(state, (begin + index, seen))
        else:
            state, infos = jax.lax.scan(step, state, (begin + index * thin + jnp.arange(thin), seen))
            info = jax.tree.map(lambda leaf: leaf[0], infos)
        return (state, running, kept), (info, observed)

    # burn-in and draws run through one scan, so that the sampler's step is compiled once
    running: PyTree = ()
    if moments:
        zero = tree.at_least_float32(tree.zeros_like(state.position))
        running = Moments(zero, zero)
    first = state, running, () if fold is None else fold.begin
    seen = batches
    if thin > 1:
        seen = jax.tree.map(lambda leaf: leaf.reshape(warm + draws, thin, *leaf.shape[1:]), batches)
    loop: Callable = jax.lax.scan
    if tick:
        loop = partial(ticking.scan, windows=warm + draws, thin=thin, work=thin * tree.size(state.position))
    (state, running, kept), recorded = loop(window, first, (jnp.arange(warm + draws), seen))
    infos, observables = jax.tree.map(lambda leaf: jnp.swapaxes(leaf[warm:], 0, 1), recorded)
    infos, observables, running, kept = sharding.visible((infos._asdict(), observables, running, kept))
    return Trace(**infos, observables=observables, state=state, moments=running, folded=kept)


_STATIC = tuple(range(10, 18))
_sample = jax.jit(_loop, static_argnums=_STATIC)
_sample_in_place = jax.jit(_loop, static_argnums=_STATIC, donate_argnames=("start",))


def _in_pieces(
    many: Callable[..., PyTree], size: int | None, keys: PyTree, state: PyTree, time: Array, shared: Batch | None
) -> PyTree:
    """``many`` chains at once, or so many of each device at a time, one piece after the other."""
    chains = jax.tree.leaves(state)[0].shape[0]
    devices = sharding.size_of(sharding.CHAINS)
    if size is None or size * devices == chains:
        return many(keys, state, time, shared)

    def pieces(leaf: Array) -> Array:
        # each device keeps its own chains: they are cut into pieces along an axis of their own
        cut = leaf.reshape(devices, chains // devices // size, size, *leaf.shape[1:])
        return jnp.swapaxes(cut, 0, 1).reshape(chains // devices // size, devices * size, *leaf.shape[1:])

    def back(leaf: Array) -> Array:
        cut = leaf.reshape(chains // devices // size, devices, size, *leaf.shape[2:])
        return jnp.swapaxes(cut, 0, 1).reshape(chains, *leaf.shape[2:])

    found = jax.lax.map(lambda one: many(*one, time, shared), jax.tree.map(pieces, (keys, state)))
    return jax.tree.map(back, found)


def _updated(running: Moments, position: PyTree, before: Array) -> Moments:
    """Mean and variance with one draw more, after so many before it; unchanged while that is negative.

    Source: Welford 1962, doi:10.1080/00401706.1962.10490022.
    """
    share = jnp.where(before >= 0, 1 / jnp.maximum(before + 1, 1), 0.0)
    apart = jax.tree.map(jnp.subtract, position, running.mean)
    mean = tree.combine(lambda m, a: m + share * a, running.mean, apart)
    variance = tree.combine(lambda v, a: v + share * ((1 - share) * a**2 - v), running.variance, apart)
    return Moments(mean, variance)
