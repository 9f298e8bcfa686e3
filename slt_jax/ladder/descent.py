"""From the prior down: rungs as far apart as keeps most draws alive, and chains at rest on each of them."""

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import tree
from slt_jax.ladder import exchange
from slt_jax.ladder.exchange import Rungs
from slt_jax.ladder.measure import BLOCKS, MOVES, PARTS, Ladder, Size
from slt_jax.noise import exact_normal
from slt_jax.posterior import LocalPosterior, localise
from slt_jax.restriction import Restriction
from slt_jax.samplers.base import MetropolisState
from slt_jax.types import Key, LossFn, PyTree, Scalar

#: Effective share of the draws of one rung that the next one may leave: it sets how far apart they are.
_LEFT = 0.6
#: The next rung is at most so many times colder, and a ladder that has so many rungs ends.
_FARTHEST, _MOST_RUNGS = 10.0, 200
#: A fall by so many of its errors keeps chains on a rung, for so many turns at most.
_FALLING, _PATIENCE = 2.0, 12
#: Where ``nβ`` times the depth is so large and no draw has come down to it, none will.
_TOO_COLD = 1e4
#: λ_eff over its median on the rungs before from which chains count as left behind, and how many rungs those are.
_LEFT_BEHIND, _LOOK_BACK = 2.0, 8


def afforded(size: Size, ladder: Ladder, budget: int) -> tuple[Size, int]:
    """The size whose calls use the budget up, with no more draws than were asked for, and what a replica takes."""
    each = max(0, budget - ladder.evaluations) // (len(ladder.rungs.nbeta) * size.chains)
    calls = max(1, -(-each // size.each))
    while size.each * calls > each and size.sweeps > PARTS:
        size = size._replace(draws=(size.sweeps - PARTS) * BLOCKS)
    return size, each


def prior_of(
    loss_fn: LossFn, params: PyTree, data: PyTree, gamma: Scalar | None, restriction: Restriction | None
) -> LocalPosterior:
    """The posterior whose prior is ``N(0, 1/γ)``, its ``nβ`` of no meaning.

    Raises:
      ValueError: as ``localise``; a γ of 0.
    """
    # a γ of the caller's needs no n / log n, which one example does not have
    nbeta = None if gamma is None else 1.0
    posterior = localise(loss_fn, params, data, nbeta=nbeta, gamma=gamma, restriction=restriction)
    if float(posterior.gamma) == 0:
        raise ValueError("gamma: got 0, but volumes are measured by the prior N(0, 1/γ); pass a positive one.")
    return posterior


def descend(
    key: Key, posterior: LocalPosterior, data: PyTree, size: Size, *, depth: float = 0.0, coldest: float = np.inf
) -> Ladder:
    """Rungs from the prior to where the mean excess is below ``depth``, or to ``coldest``, and replicas on them."""
    start_key, key = jax.random.split(key)
    state = _from_prior(start_key, posterior, data, size.chains)
    nbeta, rungs, states, levels = 0.0, [], [], []
    calls = 0
    while True:
        for _ in range(_PATIENCE):
            key, move_key = jax.random.split(key)
            state, steps, excess = exchange.descend(
                move_key, posterior, data, state, jnp.asarray(nbeta, jnp.float64), size.leapfrogs, MOVES
            )
            seen, calls = np.asarray(excess), calls + 1
            if not _still_falling(seen):
                break
        seen = seen[:, MOVES // 2 :]
        states.append(state)
        rungs.append((nbeta, float(steps[0]), float(steps[1])))
        levels.append(nbeta * float(np.mean(seen)))
        lost = len(rungs) == _MOST_RUNGS or nbeta * depth > _TOO_COLD
        # chains that no longer come down with the temperature would be left behind by all further rungs
        lost |= len(levels) > _LOOK_BACK and levels[-1] > _LEFT_BEHIND * float(np.median(levels[-_LOOK_BACK:-1]))
        if np.mean(seen) < depth or nbeta >= coldest or lost:
            break
        nbeta = min(_next(nbeta, seen.ravel()), coldest)
    nbetas, shortest, longest = (jnp.asarray(column) for column in zip(*rungs, strict=True))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    taken = calls * size.chains * size.descent
    return Ladder(posterior, Rungs(nbetas, shortest, longest), (), stacked, taken)


def _from_prior(key: Key, posterior: LocalPosterior, data: PyTree, chains: int) -> MetropolisState:
    init_key, draw_key = jax.random.split(key)
    state = exchange.start(init_key, posterior, data, chains)
    draws = jax.vmap(lambda one: exact_normal(one, posterior.restriction.origin(posterior.center)))(
        jax.random.split(draw_key, chains)
    )
    return state._replace(position=tree.scale(1 / jnp.sqrt(posterior.gamma), draws))


def _still_falling(excess: np.ndarray) -> bool:
    """Whether the chains ``(chain, sweep)`` still come down: their second halves against their first."""
    half = excess.shape[1] // 2
    change = excess[:, half:].mean(axis=1) - excess[:, :half].mean(axis=1)
    return bool(change.mean() < -_FALLING * change.std(ddof=1) / np.sqrt(len(change)))


def _next(nbeta: float, excess: np.ndarray) -> float:
    """The temperature at which ``_LEFT`` of the draws are left, counted by the scatter of their weights."""
    excess = np.where(np.isfinite(excess), excess, np.inf)
    excess = excess - excess.min()

    def left(step: float) -> float:
        weights = np.exp(-step * excess)
        return float(weights.sum() ** 2 / (weights**2).sum() / len(weights))

    scale = np.median(excess[excess > 0]) if (excess > 0).any() else 1.0
    low, high = np.log(1e-12 / scale), np.log(1e12 / scale)
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if left(np.exp(middle)) > _LEFT else (low, middle)
    step = float(np.exp(low))
    return min(nbeta + step, _FARTHEST * nbeta) if nbeta else step
