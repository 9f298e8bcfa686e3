"""A measured ladder: from the hottest rung down, a burn-in, and the draws of all rungs, as one program."""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import tree
from slt_jax.ladder import exchange
from slt_jax.ladder.averages import Controls, calm_energy, controls_of
from slt_jax.ladder.exchange import Record, Rungs
from slt_jax.ladder.groups import ENTRIES, group_sizes
from slt_jax.posterior import LocalPosterior, dimension
from slt_jax.samplers.base import MetropolisState
from slt_jax.types import Array, Key, PyTree

#: Sweeps on each rung on the way down, of which the second half tells how far the next rung may be.
MOVES = 24
#: Blocks of the draws, after one of burn-in: all of one length, so that one compiled program serves them.
BLOCKS = 3
#: λ_eff over half the number of free parameters beyond which chains are no longer where the loss is at least quadratic.
BEYOND = 1.1
#: Times at which positions are kept in a block.
PARTS = 16
#: Gradients of a short trajectory up to so many free parameters, and beyond: deep networks need momentum to persist.
_LEAPFROGS = ((4, 2), (16, 3), (64, 6))
_LEAPFROGS_BEYOND = 12
#: Chains up to so many free parameters, and beyond.
_CHAINS = ((64, 32), (1024, 16))
_CHAINS_BEYOND = 8
#: Draws up to so many free parameters, and beyond.
_DRAWS = ((64, 1200),)
_DRAWS_BEYOND = 300
#: A temperature this low asks for more digits than single precision has: its excess is good to about 1e-7.
_DOUBLE = 1e6


class Ladder(NamedTuple):
    """What was measured.

    Attributes:
      posterior: Its ``nβ`` is that of none of the rungs.
      rungs: Temperatures from hot to cold, and steps.
      record: The draws, leading axes ``(rung, chain, draw)``; ``()`` before there are any.
      state: Where the replicas are, leading axes ``(rung, chain)``.
      evaluations: Gradients taken in all, every chain on every rung counted.
    """

    posterior: LocalPosterior
    rungs: Rungs
    record: Any
    state: MetropolisState
    evaluations: int


class Size(NamedTuple):
    """Whole numbers that are static under jit: chains on a rung, draws of each, and gradients of a sweep."""

    chains: int
    draws: int
    leapfrogs: int
    moves: int = 0

    @property
    def sweeps(self) -> int:
        """Sweeps of a block."""
        return -(-self.draws // (BLOCKS * PARTS)) * PARTS

    @property
    def each(self) -> int:
        """Gradients of a replica in one call of ``draw``."""
        return (BLOCKS + 1) * exchange.gradients(self.sweeps, self.leapfrogs, self.moves)

    @property
    def descent(self) -> int:
        """Gradients of a chain on one rung on the way down."""
        return exchange.gradients(MOVES, self.leapfrogs, self.moves and self.moves + 1)


def size_for(free: int, chains: int | None, draws: int | None, leapfrogs: int | None) -> Size:
    """The sizes asked for, and for those not said: many short chains for few parameters, fewer and longer for many.

    >>> size_for(2, None, 1200, None), size_for(5000, 4, 300, None)
    (Size(chains=32, draws=1200, leapfrogs=2, moves=2), Size(chains=4, draws=300, leapfrogs=12, moves=0))
    """
    if chains is None:
        chains = next((count for most, count in _CHAINS if free <= most), _CHAINS_BEYOND)
    if draws is None:
        draws = next((count for most, count in _DRAWS if free <= most), _DRAWS_BEYOND)
    if leapfrogs is None:
        leapfrogs = next((count for most, count in _LEAPFROGS if free <= most), _LEAPFROGS_BEYOND)
    return Size(chains, draws, leapfrogs, 2 if free <= ENTRIES else 0)


def check_size(*, chains: int | None, draws: int | None, leapfrogs: int | None) -> None:
    """Refuse sizes that make no draws, or too few for an error.

    Raises:
      ValueError: naming the number that is out of range.
    """
    for name, value, least in (("chains", chains, 2), ("draws", draws, 24), ("leapfrogs", leapfrogs, 1)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ValueError(f"{name}: got {value!r}; it must be an integer of Python's, static under jit.")
        if value < least:
            raise ValueError(f"{name}: got {value}; it must be at least {least}.")


def needs_double(nbeta: Array) -> bool:
    """Whether a temperature asks for double precision; never where it is traced, as its program has a precision.

    >>> needs_double(jnp.float32(1e4)), needs_double(jnp.float32(1e9))
    (False, True)
    """
    return not tree.is_traced(nbeta) and float(np.max(np.asarray(nbeta))) > _DOUBLE


@contextlib.contextmanager
def double_precision(wanted: bool) -> Iterator[None]:
    """Double precision for what is computed inside, and for nothing else in the process."""
    with jax.enable_x64(True) if wanted else contextlib.nullcontext():
        yield


def on_host(values: PyTree) -> PyTree:
    """Arrays of numpy, which keep their precision wherever they go; traced ones as they are."""
    return values if tree.is_traced(values) else jax.tree.map(np.asarray, values)


@partial(jax.jit, static_argnums=(4,))
def descent(
    key: Key, posterior: LocalPosterior, data: PyTree, nbetas: Array, size: Size
) -> tuple[Rungs, MetropolisState]:
    """From the centre to the hottest rung and down: the rungs with their steps, and chains on all of them.

    Where a rung is so hot that its chains leave the basin, those of the next one begin at the centre again.
    """
    keys = jax.random.split(key, nbetas.shape[0] + 1)
    top = exchange.start(keys[0], posterior, data, size.chains)

    def down(state: MetropolisState, at: tuple[Key, Array]) -> tuple[MetropolisState, tuple[MetropolisState, Rungs]]:
        state, steps, excess = exchange.descend(at[0], posterior, data, state, at[1], size.leapfrogs, MOVES)
        boiled = ~(at[1] * jnp.mean(excess[:, MOVES // 2 :]) < BEYOND * 0.5 * dimension(posterior))
        below = jax.tree.map(lambda new, old: jnp.where(boiled, old, new), state, top)
        return below, (state, Rungs(at[1], *steps))

    _, (state, rungs) = jax.lax.scan(down, top, (keys[1:], nbetas))
    return rungs, state


@partial(jax.jit, static_argnums=(5,))
def draw(
    key: Key,
    posterior: LocalPosterior,
    data: PyTree,
    rungs: Rungs,
    state: MetropolisState,
    size: Size,
    settle: Array,
) -> tuple[Rungs, MetropolisState, Record]:
    """Blocks of sweeps, leading axis of the record ``(block,)``; steps are found anew after those marked in ``settle``.

    Steps that change with what the chains do would bias them: blocks marked are burn-in, and their draws do not count.
    """

    def block(carry: tuple[Rungs, MetropolisState], at: tuple[Key, Array]) -> tuple[tuple, Record]:
        rungs, state = carry
        run_key, step_key = jax.random.split(at[0])
        state, record = exchange.run(run_key, posterior, data, rungs, state, size.leapfrogs, size.sweeps, PARTS)

        def again(rungs: Rungs) -> Rungs:
            seen = exchange.led(rungs, jnp.mean(record.acceptance, axis=(1, 2)))
            found = exchange.steps_at(step_key, posterior, data, seen, state)
            return jax.tree.map(lambda new, old: new.astype(old.dtype), found, rungs)

        return (jax.lax.cond(at[1], again, lambda rungs: rungs, rungs), state), record

    (rungs, state), records = jax.lax.scan(block, (rungs, state), (jax.random.split(key, BLOCKS + 1), settle))
    return rungs, state, records


def measure(
    key: Key,
    posterior: LocalPosterior,
    data: PyTree,
    nbetas: Array,
    size: Size,
    *,
    budget: int = 0,
    relative_error: float = 0.0,
) -> Ladder:
    """A ladder at given temperatures, ``(rung,)`` from hot to cold.

    Works inside jit and vmap; on the host it goes on until the error of ``nβ E[K]`` relative to it is reached on every
    rung, or each replica has taken the gradients that the budget allows.
    """
    down_key, draw_key = jax.random.split(key)
    rungs, state = descent(down_key, posterior, data, jnp.asarray(nbetas, posterior.nbeta.dtype), size)
    ladder = Ladder(posterior, rungs, (), state, nbetas.shape[0] * size.chains * size.descent)
    return measure_from(draw_key, data, ladder, size, budget=budget, relative_error=relative_error)


def measure_from(
    key: Key, data: PyTree, ladder: Ladder, size: Size, *, budget: int = 0, relative_error: float = 0.0
) -> Ladder:
    """The draws of a ladder whose rungs are known and whose replicas have come down to them."""
    settle = jnp.arange(BLOCKS + 1) == 0
    rungs, state, records = draw(
        jax.random.fold_in(key, 0), ladder.posterior, data, ladder.rungs, ladder.state, size, settle
    )
    record = jax.tree.map(lambda leaf: _joined(leaf[1:]), records)
    done, each = 1, size.each
    afford = 1 if tree.is_traced((key, state)) else max(1, budget // each)
    while done < afford and (lacking := _lacking(_controls(ladder, record), relative_error)) > 1:
        calls = int(np.clip(np.ceil((lacking - 1) * done), 1, min(2 * done, afford - done)))
        pieces = [record]
        for call in range(done, done + calls):
            rungs, state, records = draw(
                jax.random.fold_in(key, call), ladder.posterior, data, rungs, state, size, jnp.zeros_like(settle)
            )
            pieces.append(jax.tree.map(_joined, records))
        record = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=2), *pieces)
        done += calls
    spent = ladder.evaluations + done * each * rungs.nbeta.shape[0] * size.chains
    return Ladder(ladder.posterior, rungs, record, state, spent)


def _controls(ladder: Ladder, record: Record) -> Controls:
    origin = jax.eval_shape(ladder.posterior.restriction.origin, ladder.posterior.center)
    return controls_of(jax.tree.map(jnp.asarray, record), ladder.rungs.nbeta, group_sizes(origin))


def _lacking(controls: Controls, relative_error: float) -> float:
    """By how much longer the run would have to be; at most fourfold, and 1 where nothing is known."""
    means = np.asarray(jnp.mean(calm_energy(controls), axis=2))
    size = np.maximum(np.abs(np.mean(means, axis=1)), 1e-300)
    relative = np.where(size > 1e-300, np.std(means, axis=1, ddof=1) / np.sqrt(means.shape[1]) / size, 0.0)
    known = relative[np.isfinite(relative)]
    return float(np.max((known / relative_error) ** 2)) if known.size and relative_error > 0 else 1.0


def _joined(leaf: Array) -> Array:
    """From ``(block, rung, chain, draw, ...)`` to ``(rung, chain, draws of all blocks, ...)``."""
    moved = jnp.moveaxis(leaf, 0, 2)
    return moved.reshape(*moved.shape[:2], -1, *moved.shape[4:])
