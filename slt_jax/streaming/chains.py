"""Chains on a stream: a host loop over segments of the one loop, which read their batches while it runs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain, islice

import jax
import numpy as np
from jax.tree_util import Partial

from slt_jax import sampling, sharding
from slt_jax.posterior import LocalPosterior
from slt_jax.samplers import Sampler
from slt_jax.sampling import Trace
from slt_jax.streaming.batches import Factory, again_and_again, ahead, check_factory, in_segments
from slt_jax.types import Key, PyTree

#: A segment is at most so many steps, and its batches at most so many bytes, where nothing was said.
SEGMENT_STEPS, SEGMENT_BYTES = 512, 2**25


def sample(
    key: Key,
    sampler: Sampler,
    posterior: LocalPosterior,
    factory: Factory,
    *,
    draws: int,
    chains: int = 4,
    burnin: int = 0,
    thin: int = 1,
    observe: Callable[[PyTree], PyTree] | None = None,
    start: PyTree | None = None,
    begin: int = 0,
    segment: int | None = None,
) -> Trace:
    """``slt_jax.sample`` on a stream: every step takes its next batch, the same for all chains.

    A pass that ends is followed by another. The host hands ``segment`` batches to the device at a time, while a thread
    reads two segments ahead; the draws are those of one run, ``slt_jax.sample(..., batches=...)`` with the batches of
    all steps, to the last bit whatever the segments are.

    Args:
      key, sampler, draws, chains, burnin, thin, observe: As in ``slt_jax.sample``.
      posterior: From ``localise``, on the stream or in memory.
      factory: ``factory()`` returns a pass over the data. Its batches are the steps' batches; a shorter last one is
        left out. Shuffle them, anew in each pass.
      start: Where to go on from: the ``state`` of a trace.
      begin: The number of steps already made: so many batches are skipped, and the keys go on from there.
      segment: Steps of a segment, rounded to a multiple of ``thin``, and to one of at least half of it that divides the
        steps in equal parts, if there is one. Default at most 512, and 32 MiB of batches.

    On a mesh (``slt_jax.sharding``) chains, examples and parameters are placed as in ``slt_jax.sample``.

    Returns:
      A trace whose draws are arrays of the host; ``state`` is on the device.

    Raises:
      ValueError: as ``slt_jax.sample``; what ``once`` refuses. What the stream itself raises comes through as it is.
        No thread is left behind, also after Ctrl-C.

    Not to be believed where batches are no draws from the data: sorted or unshuffled streams. All chains feel the noise
    of the same batches: what it adds to their values is common to them, and agreement of the chains does not show it.

    >>> import jax.numpy as jnp
    >>> from slt_jax.samplers import sgld
    >>> from slt_jax.streaming import localise
    >>> factory = lambda: np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    >>> posterior = localise(lambda w, x: 0.5 * (w - x) ** 2, jnp.float32(0.0), factory, nbeta=10.0)
    >>> sample(jax.random.key(0), sgld(0.01), posterior, factory, draws=30, chains=2, segment=10).excess.shape
    (2, 30)
    """
    check_factory(factory)
    if isinstance(begin, bool) or not hasattr(begin, "__index__") or begin < 0:
        raise ValueError(f"begin: got {begin!r}; pass the number of steps made so far, at least 0.")
    batches = islice(again_and_again(factory), begin, None)
    settings = dict(draws=draws, chains=chains, burnin=burnin, thin=thin)
    return run(key, sampler, posterior, batches, observe=observe, start=start, begin=begin, segment=segment, **settings)


def run(
    key: Key,
    sampler: Sampler,
    posterior: LocalPosterior,
    batches: Iterator[PyTree],
    *,
    draws: int,
    chains: int,
    burnin: int,
    thin: int,
    observe: Callable[[PyTree], PyTree] | None = None,
    start: PyTree | None = None,
    begin: int = 0,
    segment: int | None = None,
) -> Trace:
    """``sample`` on batches that are being read: it takes those of its steps, and no others."""
    sampling.check_schedule(draws=draws, chains=chains, burnin=burnin, thin=thin)
    sampling.check_key(key)
    sampling.check_sampler(sampler)
    sharding.check_chains(chains)
    check_segment(segment)
    first = next(batches)
    batches = chain([first], batches)
    warm = -(-burnin // thin)
    windows = warm + draws
    length = _windows(windows, thin, segment, sum(leaf.nbytes for leaf in jax.tree.leaves(first)))
    lengths = [thin * min(length, windows - done) for done in range(0, windows, length)]
    one = _placed(first, sharding.BATCH)
    del first
    state = _begin(key, sampler, posterior, one, chains) if start is None else start
    # one function for all segments, which are compiled once
    observe = observe if observe is None or isinstance(observe, Partial) else Partial(observe)
    go = partial(sampling.sample, key, sampler, posterior, chains=chains, thin=thin, observe=observe)
    kept: list[Trace] = []
    running: Trace | None = None
    done = 0
    stop = threading.Event()
    with closing(ahead(in_segments(batches, lengths, stop), stop)) as segments:
        for steps, examples in zip(lengths, segments, strict=True):
            here = _placed(examples, None, sharding.BATCH)
            trace = go(one, draws=steps // thin, start=state, batches=here, begin=begin + done)
            state, done = trace.state, done + steps
            # the device is at work on this segment by now: time for the draws of the last one
            if running is not None:
                kept.append(_fetched(running))
            # of the burn-in nothing is kept
            running = trace._replace(state=()) if done > warm * thin else None
    if running is not None:
        kept.append(_fetched(running))
    whole = jax.tree.map(lambda *pieces: np.concatenate(pieces, axis=1)[:, -draws:], *kept)
    return whole._replace(state=state)


def check_segment(segment: int | None) -> None:
    """Refuse a segment without steps.

    Raises:
      ValueError: saying what was got.
    """
    if segment is not None and (isinstance(segment, bool) or not hasattr(segment, "__index__") or segment < 1):
        raise ValueError(f"segment: got {segment!r}; pass steps, at least 1.")


def _windows(total: int, thin: int, segment: int | None, size: int) -> int:
    """Draws of a segment."""
    steps = min(SEGMENT_STEPS, max(SEGMENT_BYTES // max(size, 1), 1)) if segment is None else segment
    most = min(max(steps // thin, 1), total)
    return next((length for length in range(most, most // 2, -1) if total % length == 0), most)


def _placed(examples: PyTree, *axes: str | None) -> PyTree:
    """On the devices: whole on each of them, or its leading axes along those of the mesh."""
    return jax.device_put(sharding.spread(examples, *axes))


def _fetched(trace: Trace) -> Trace:
    return jax.tree.map(np.asarray, trace)


@partial(jax.jit, static_argnums=4)
def _begin(key: Key, sampler: Sampler, posterior: LocalPosterior, data: PyTree, chains: int) -> PyTree:
    """The states that ``sample`` starts from, outside of it: with and without a start it would be compiled twice."""
    keys = sharding.spread(jax.vmap(jax.random.split)(jax.random.split(key, chains)), sharding.CHAINS)
    state = jax.vmap(sampler.init, in_axes=(0, None, None))(keys[:, 0], posterior, data)
    return sharding.split(state, sharding.CHAINS)
