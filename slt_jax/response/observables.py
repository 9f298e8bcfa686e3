"""What is looked at along the chains: losses of data sets, and of every entry of one, in bounded memory."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import loss, tree
from slt_jax.response.sums import Sums, with_draw
from slt_jax.types import Array, LossFn, PyTree

#: So many of very many columns have their draws kept, evenly spaced: to count effective draws by.
_SOME = 256


class Each(NamedTuple):
    """Data of which every entry is an observable of its own, made by ``each``."""

    given: Any


def each(data: PyTree) -> Each:
    """Every example, or token of an example, as an observable of its own: ``χ_i = -Cov[L, ℓ_i - L]``.

    For ``slt_jax.susceptibility``: no draws are kept for them, and so there is no ``respond``; sums that grow along the
    chains take about a hundred numbers for each entry and component.

    Args:
      data: The examples, for the loss that the chains have; or a pair ``(loss_fn, data)``.

    Raises:
      ValueError: it is one already.

    >>> each(jnp.zeros((3, 2))).given.shape
    (3, 2)
    """
    if isinstance(data, Each):
        raise ValueError("data: got what each(...) returned; pass the data themselves.")
    return Each(data)


class Looked(NamedTuple):
    """Examples that are looked at.

    Attributes:
      loss_fn: Of these examples.
      data: The examples.
      center: Their losses at the centre, ``(n,)``, ``(n, T)`` or ``()``, nats.
      chunk: How many are looked at at a time, one number, ``tree.Static``.
    """

    loss_fn: Partial
    data: PyTree
    center: Array
    chunk: tree.Static


def losses_at(looked: Looked, params: PyTree) -> Array:
    """Losses of all of the data less those at the centre, ``(n,)`` or ``(n, T)``, nats, in at least float32."""
    [chunk] = looked.chunk.value
    losses = loss.at_center(looked.loss_fn, params, looked.data, jnp.asarray, chunk)
    return tree.at_least_float32(losses) - looked.center


def placed(loss_fn: Partial, data: PyTree, center: PyTree, copies: int) -> Looked:
    """A loss, its examples and its values at the centre, which are taken away before anything is rounded.

    Args:
      loss_fn, data, center: What is looked at, and where its values are taken away.
      copies: At how many parameters it will be looked at side by side: their forward passes share the memory.
    """
    data = jax.tree.map(jnp.asarray, data)
    chunk = tree.Static((loss.chunk_for(loss_fn, center, data, copies),))
    return _placed(Looked(loss_fn, data, jnp.zeros(()), chunk), center)


class Observed(NamedTuple):
    """The observables of a susceptibility, one after the other as columns.

    Attributes:
      shapes: Of each: ``()`` for a data set, ``(n,)`` or ``(n, T)`` for every entry of one.
      look: ``look(params) -> (energy, columns)``: ``L - L*``, and of every column ``ℓ - L`` less what it is at the
        centre.
      sets: Which columns are those of data sets, shape ``(set,)``.
      some: Some of the others, evenly spaced, shape ``(some,)``.
    """

    shapes: tuple[tuple[int, ...], ...]
    look: Partial
    sets: np.ndarray
    some: np.ndarray

    @property
    def columns(self) -> int:
        """How many there are in all."""
        return sum(map(math.prod, self.shapes))


def check_observables(given: Mapping[str, Any], loss_fn: LossFn, params: PyTree) -> list[tuple[LossFn, PyTree, bool]]:
    """The loss and the data of each observable, and whether every entry is one.

    Raises:
      ValueError: naming the observable, and what its loss said of its data.
    """
    found = []
    for name, one in given.items():
        entries = isinstance(one, Each)
        function, data = _pair(name, one.given if isinstance(one, Each) else one, loss_fn)
        try:
            shape = loss.check(function, params, data)
        except ValueError as error:
            raise ValueError(f"observables: {name!r}: {error}") from error
        if entries and shape == ():
            raise ValueError(
                f"observables: {name!r}: got a mean loss of shape (), which has no entries; return one loss per "
                "example, shape (n,) or (n, T), or leave out each(...)."
            )
        found.append((function, data, entries))
    return found


def observed(
    loss_fn: Partial, data: PyTree, others: list[tuple[Any, PyTree, bool]], center: PyTree, copies: int
) -> Observed:
    """What ``check_observables`` let through, with the data of the chains, ready to be looked at.

    Data that are given twice are looked at once.
    """
    sets: list[Looked] = []
    known: dict[tuple[int, ...], int] = {}
    which, shapes = [], []
    for function, examples, entries in [(loss_fn, data, False), *others]:
        place = known.setdefault((id(function), *map(id, jax.tree.leaves(examples))), len(sets))
        if place == len(sets):
            sets.append(placed(function, examples, center, copies))
        which.append((place, entries))
        shapes.append(sets[place].center.shape if entries else ())
    look = Partial(_look, sets, tree.Static(tuple(which[1:])))
    widths = [math.prod(shape) for shape in shapes[1:]]
    starts = np.cumsum([0, *widths])[:-1]
    many = np.concatenate(
        [start + np.arange(width) for start, width in zip(starts, widths, strict=True) if width > 1] or [[]]
    )
    kept = np.linspace(0, len(many) - 1, min(len(many), _SOME)).astype(int)
    alone = np.array([start for start, shape in zip(starts, shapes[1:], strict=True) if shape == ()], int)
    return Observed(tuple(shapes[1:]), look, alone, many[kept].astype(int))


def recorder(found: Observed, draws: int) -> Partial:
    """The ``add`` of a fold: every column into sums, and draws of those that are data sets, and of some others."""
    return Partial(_record, jnp.asarray(found.sets), jnp.asarray(found.some), tree.Static((draws,)))


def as_partial(function: LossFn) -> Partial:
    """A function that can be an argument of a jitted one."""
    return function if isinstance(function, Partial) else Partial(function)


def _look(sets: list[Looked], which: tree.Static, params: PyTree) -> tuple[Array, Array]:
    losses = [losses_at(looked, params) for looked in sets]
    energy = jnp.mean(losses[0])
    chosen = [losses[place].reshape(-1) if entries else jnp.mean(losses[place])[None] for place, entries in which.value]
    return energy, jnp.concatenate(chosen) - energy


def _record(
    sets: Array, some: Array, draws: tree.Static, sums: Sums, seen: tuple[Array, Array], draw: Array
) -> tuple[Sums, tuple[Array, Array, Array]]:
    energy, columns = seen
    return with_draw(sums, energy, columns, draw, *draws.value), (energy, columns[:, sets], columns[:, some])


@jax.jit
def _placed(looked: Looked, center: PyTree) -> Looked:
    return looked._replace(center=losses_at(looked, center))


def _pair(name: str, given: Any, loss_fn: LossFn) -> tuple[LossFn, PyTree]:
    """A loss and its data; a tuple is such a pair if its first member can be called."""
    if isinstance(given, tuple) and given and callable(given[0]):
        if len(given) != 2:
            raise ValueError(f"observables: {name!r} has {len(given)} members; pass data or a pair (loss_fn, data).")
        return given
    return loss_fn, given
