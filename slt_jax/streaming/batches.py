"""Batches out of an iterator factory: checked, repeated, stacked, and read ahead on a thread of their own.

A factory is any function that returns a fresh pass over the data: an iterable of batches, trees of arrays with a
leading example axis. ``lambda: loader`` is one for a grain ``DataLoader``, a ``MapDataset`` and a ``tf.data.Dataset``,
whose ``as_numpy_iterator`` is another; so is a generator function.
"""

import inspect
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import loss, tree
from slt_jax.types import PyTree

#: ``factory()`` returns one pass over the data.
Factory: TypeAlias = Callable[[], Iterable[PyTree]]
Item = TypeVar("Item")
#: Items that are read while one is used.
AHEAD = 2
#: Of the head, on which a step is found: examples, and batches where they are large.
_HEAD_EXAMPLES, _HEAD_BATCHES = 4096, 8
_END = object()


def once(factory: Factory, like: PyTree = None) -> Iterator[PyTree]:
    """One pass: its batches as trees of host arrays.

    Args:
      factory: Called once.
      like: A batch whose structure, shapes and dtypes those of the pass must have; default its own first.

    Raises:
      ValueError: ``factory`` is no function, or returns what is no iterable, or nothing; a batch is ragged, holds
        something else than numbers, differs in more than its length from the first, or in its length without being the
        last and a shorter one. The batch is named by its number.

    >>> [batch.shape for batch in once(lambda: np.split(np.arange(10.0), [4, 8]))]
    [(4,), (4,), (2,)]
    """
    check_factory(factory)
    batches = factory()
    if not isinstance(batches, Iterable):
        raise ValueError(
            f"factory: returned a {type(batches).__name__}; it must return an iterable of batches, a new one each time."
        )
    expected = None if like is None else _form(like)
    short: int | None = None
    number = -1
    for number, given in enumerate(batches):
        if short is not None:
            raise ValueError(
                f"factory: batch {number - 1} has {short} examples and is not the last of its pass. All batches but "
                "the last must have as many examples as the first: drop or pad the others."
            )
        batch = jax.tree.map(np.asarray, given)
        found = _form(batch)
        if found != expected:
            size = _check_batch(number, batch, like)
            like, expected = (batch, found) if like is None else (like, expected)
            short = size if size < loss.example_count(like) else None
        yield batch
    if number < 0:
        raise ValueError(
            "factory: a pass over it gave no batch. It must return a new iterator each time that it is called, not one "
            "that has been used up: lambda: loader, or a generator function."
        )


def again_and_again(factory: Factory) -> Iterator[PyTree]:
    """Batches of equal length without an end, pass after pass; a last one that is shorter is left out.

    >>> few = islice(again_and_again(lambda: np.split(np.arange(10.0), [4, 8])), 3)
    >>> [batch.tolist() for batch in few]
    [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [0.0, 1.0, 2.0, 3.0]]
    """
    like, full = None, None
    while True:
        for batch in once(factory, like):
            if like is None:
                # shapes are all that is compared later
                like, full = jax.tree.map(_without_memory, batch), _form(batch)
            if _form(batch) == full:
                yield batch


def head(factory: Factory) -> tuple[PyTree, int]:
    """The first examples, in memory, and how many a batch has: 4096 of them or 8 batches, and 2 batches at least."""
    kept: list[PyTree] = []
    for batch in once(factory):
        kept.append(batch)
        enough = sum(map(loss.example_count, kept)) >= _HEAD_EXAMPLES or len(kept) == _HEAD_BATCHES
        if enough and len(kept) > 1:
            break
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)), *kept), loss.example_count(kept[0])


def stacked(batches: Iterator[PyTree], count: int, stop: threading.Event) -> PyTree:
    """The next so many batches, leading axes ``(step, example)``; copied as they come: some loaders reuse them."""
    first = next(batches)
    room = jax.tree.map(lambda leaf: np.empty((count, *leaf.shape), leaf.dtype), first)
    for step, batch in enumerate(chain([first], islice(batches, count - 1))):
        if stop.is_set():
            break
        for there, here in zip(jax.tree.leaves(room), jax.tree.leaves(batch), strict=True):
            there[step] = here
    return room


def in_segments(batches: Iterator[PyTree], lengths: Sequence[int], stop: threading.Event) -> Iterator[PyTree]:
    """So many batches at a time, stacked."""
    return (stacked(batches, length, stop) for length in lengths)


def ahead(items: Iterator[Item], stop: threading.Event | None = None) -> Generator[Item, None, None]:
    """The same items, ``AHEAD`` of which are made on a thread while one is used; to be closed, and the thread ends.

    What an item raises is raised here, with its own type. ``stop`` is set when no more is wanted: what takes long to
    make should look at it.

    >>> list(ahead(iter(range(4))))
    [0, 1, 2, 3]
    """
    reader = ThreadPoolExecutor(1, "slt_jax-stream")
    try:
        waiting = deque(reader.submit(next, items, _END) for _ in range(AHEAD))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(reader.submit(next, items, _END))
            yield item  # type: ignore[misc]
            del item
    finally:
        if stop is not None:
            stop.set()
        reader.shutdown(wait=True, cancel_futures=True)


def check_factory(factory: Any) -> None:
    """Refuse what cannot be called again and again.

    Raises:
      ValueError: saying what was got.
    """
    if isinstance(factory, Iterator):
        raise ValueError(
            f"factory: got a {type(factory).__name__}, which can be read only once. Pass the function that makes it, "
            "without calling it."
        )
    if not callable(factory):
        raise ValueError(
            f"factory: got a {type(factory).__name__}; pass a function without arguments that returns an iterable of "
            "batches, such as lambda: loader. Data in memory go to localise, sample and llc as they are."
        )
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise ValueError(f"factory: it is called without arguments, but {error}: close over them.") from error
    except ValueError:
        # a function of C tells no signature
        return


def _form(batch: PyTree) -> Any:
    """What is the same for all full batches: structure, shapes and dtypes."""
    leaves, structure = jax.tree.flatten(batch)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]


def _check_batch(number: int, batch: PyTree, like: PyTree) -> int:
    """How many examples a batch has that is the first one, or no full one."""
    try:
        size = loss.example_count(batch)
    except ValueError as error:
        raise ValueError(f"factory: batch {number} is no set of examples: {error}") from error
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if not (jnp.issubdtype(leaf.dtype, np.number) or leaf.dtype == np.bool_):
            raise ValueError(
                f"factory: leaf {tree.path_name(path)!r} of batch {number} has dtype {leaf.dtype}; only numbers can be "
                "given to a loss. Leave it out of the batches."
            )
    if like is None:
        return size
    where = f"factory: batch {number}"
    tree.check_structure(where, batch, "the first batch", like, "All batches need the same structure.")
    for name, ours, theirs in zip(tree.leaf_names(batch), *map(jax.tree.leaves, (batch, like)), strict=True):
        if (ours.shape[1:], ours.dtype) != (theirs.shape[1:], theirs.dtype):
            raise ValueError(
                f"{where}: leaf {name!r} has shape {ours.shape} and dtype {ours.dtype}, in the first batch "
                f"{theirs.shape} and {theirs.dtype}. Pad or convert them: only the last batch may be shorter."
            )
    if size > loss.example_count(like):
        raise ValueError(f"{where} has {size} examples and the first one {loss.example_count(like)}: cut it.")
    return size


def _without_memory(leaf: np.ndarray) -> np.ndarray:
    """Of the same shape and dtype, and of no size: the first batch is not kept for its shape."""
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
