"""Multilevel splitting: the volume of low loss from populations that go down level by level, in few dimensions."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from slt_jax import tree
from slt_jax.ladder.constrained import ROUND
from slt_jax.ladder.descent import prior_of
from slt_jax.ladder.levels import Level, descend_levels
from slt_jax.ladder.measure import double_precision
from slt_jax.restriction import Restriction
from slt_jax.tree import check_key
from slt_jax.types import Key, LossFn, PyTree, Scalar

#: Points of the result for each factor of e in ε.
_POINTS = 2
#: Levels over which ancestors are counted, and the share of those expected below which a population has collapsed.
_WINDOW, _COLLAPSED = 8, 0.5
#: Standard deviation of ``log V`` between populations beyond which the mean of V is that of the few largest.
_SCATTERED = 1.0


class Splitting(NamedTuple):
    """``V(ε)`` from independent populations. Arrays of numpy in double precision.

    Attributes:
      log_epsilon: ``log ε``, ε in nats, from the smallest on, shape ``(point,)``.
      log_volume, log_volume_error: ``log V(ε)``, ``V(ε) = P(K < ε)`` under the prior ``N(0, 1/γ)`` of the free
        directions, V being the mean over populations; its standard error by leaving out one population at a time.
      conductance, conductance_error: ``d log V / d log ε``, over a factor of e in ε.
      per_population: ``log V(ε)`` of each population, shape ``(population, point)``; ``-inf`` where it saw nothing.
      ancestors: Least number of members eight levels before from which a population descends, over the number that is
        expected where survival is not inherited, shape ``(population,)``: about 1 where the moves are enough.
      lowest: The least K that was met, nats.
      levels: Levels that the slowest population took.
      depth: The smallest ε reached.
      reached: Whether that is as deep as was asked for.
      evaluations: Gradients taken in all.
    """

    log_epsilon: np.ndarray
    log_volume: np.ndarray
    log_volume_error: np.ndarray
    conductance: np.ndarray
    conductance_error: np.ndarray
    per_population: np.ndarray
    ancestors: np.ndarray
    lowest: float
    levels: int
    depth: float
    reached: bool
    evaluations: int

    @property
    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """95 % of ``log V(ε)`` by Student's law with as many populations less one, two arrays ``(point,)``."""
        from scipy.stats import t

        margin = float(t.ppf(0.975, len(self.per_population) - 1)) * self.log_volume_error
        return self.log_volume - margin, self.log_volume + margin

    @property
    def collapsed(self) -> np.ndarray:
        """Populations that descend from too few, shape ``(population,)``."""
        return self.ancestors < _COLLAPSED

    @property
    def scatter(self) -> float:
        """Standard deviation of ``log V`` between populations at the smallest ε."""
        deepest = self.per_population[:, 0]
        return float(np.std(deepest, ddof=1)) if np.isfinite(deepest).all() else np.inf

    @property
    def ok(self) -> bool:
        """Whether the depth was reached, no population collapsed, and V is not that of a few of them."""
        return self.reached and not self.collapsed.any() and self.scatter < _SCATTERED and self._bounded

    @property
    def _bounded(self) -> bool:
        return self.lowest >= -self.depth

    def explain(self) -> str:
        """The volume at the smallest ε and the verdict, in words."""
        parts = [
            f"log V({np.exp(self.log_epsilon[0]):.2g}) = {self.log_volume[0]:.3f} ± {self.log_volume_error[0]:.2g}, "
            f"conductance {self.conductance[0]:.3f} ± {self.conductance_error[0]:.2g}, "
            f"{self.levels} levels, {self.evaluations} gradients."
        ]
        if not self.reached:
            parts.append(f"UNHEALTHY: only ε = {self.depth:.2g} was reached: raise levels, or ask for less depth.")
        if self.collapsed.any():
            parts.append(
                f"UNHEALTHY: {int(self.collapsed.sum())} of {len(self.ancestors)} populations collapsed, their members "
                "descend from too few: raise moves."
            )
        if not self.scatter < _SCATTERED:
            parts.append("UNHEALTHY: populations differ by more than a factor of e: raise live and moves.")
        if not self._bounded:
            parts.append(
                f"UNHEALTHY: a member lies {-self.lowest:.2g} below the centre, which is no minimum: polish it."
            )
        return " ".join(parts)


def splitting(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    *,
    depth: float = 1e-12,
    gamma: Scalar | None = None,
    restriction: Restriction | None = None,
    live: int = 512,
    populations: int = 16,
    moves: int = 3,
    levels: int = 600,
) -> Splitting:
    """``V(ε) = P(K < ε)`` under the prior, in at most about fifteen dimensions, by multilevel splitting.

    A population of exact draws of the prior goes down: at each level the upper half of its members is replaced by
    copies of the lower half, and all of them move under ``K < ε_j`` (``wander``). Then
    ``V(ε) = 2^{-j} · (share of the members at level j below ε)``. No temperature, no reweighting and no fit is in
    between: an answer beside that of ``density_of_states`` which shares none of its errors.

    Args:
      key: A typed key.
      loss_fn: ``loss_fn(params, batch)``, nats.
      params: The centre ``w*``, a minimum: no member may lie below it.
      data: All examples, leading axis ``n``. Each is looked at by all members of all populations at once.
      depth: Smallest ε asked for, in nats.
      gamma: Precision of the prior, positive; default ``1e-4 n / log n``, as for ``llc``.
      restriction: Free directions; default all.
      live: Members of a population, at least 8.
      populations: Independent populations, at least 2, from whose scatter errors follow; they share out nothing.
      moves: Rounds of twelve gradients that each member takes at each level; 0 makes none, to see what that does.
      levels: The most that are taken: ``log2(1 / V)`` are needed.

    Returns:
      A volume and its verdict; ``Splitting``.

    Raises:
      ValueError: inside jit, whose programs cannot choose how many levels they have (``flow`` works there); for a γ
        of 0, whose prior has no volume; for a loss that is finite nowhere; for arguments out of range, naming them.

    Not to be believed where ``ok`` is False; where part of the lowest loss is a narrow place that few draws of the
    prior find: all populations may miss it, and agree; as one basin's volume, where the prior is so wide that it holds
    others: raise γ. The ideal V has no bias; moves too few leave one, upwards, of about ``1 / live`` for each level,
    well below the error at fifteen levels and comparable to it at a hundred: double ``live`` and ``moves`` and compare.

    Source: Cérou & Guyader 2007, doi:10.1080/07362990601139628 (adaptive levels); Skilling 2006, doi:10.1214/06-BA127
    (volumes by nested levels); Betancourt 2011, arXiv:1005.0157 (reflections on the gradient).

    >>> import jax, jax.numpy as jnp
    >>> quartic = lambda w, _: jnp.sum(w**4)
    >>> found = splitting(jax.random.key(0), quartic, jnp.zeros(1), jnp.zeros((1, 0)), gamma=1.0, depth=1e-8, live=128)
    >>> exact = np.log(0.01 * (2 / np.pi) ** 0.5)
    >>> bool(abs(found.log_volume[0] - exact) < 3 * found.log_volume_error[0]), found.reached
    (True, True)
    """
    check_key(key)
    _check_size(live=live, populations=populations, moves=moves, levels=levels)
    if tree.is_traced((key, params, data, gamma)):
        raise ValueError(
            "splitting: called inside jit or vmap, but it chooses how many levels it has. Call flow there."
        )
    if isinstance(depth, bool) or not hasattr(depth, "__float__") or not 0 < depth < np.inf:
        raise ValueError(f"depth: got {depth!r}; pass the smallest ε in nats, a positive number.")
    with double_precision(True):
        params, data = tree.as_double((params, data))
        posterior = prior_of(loss_fn, params, data, gamma, restriction)
        # the conductance at the smallest ε looks half a factor of e beyond it
        seen = descend_levels(key, posterior, data, float(depth) * np.exp(-0.5), live, populations, levels, moves)
    return _read(seen, float(depth), populations * live * (1 + (len(seen) - 1) * moves * len(ROUND)))


def _check_size(**sizes: int) -> None:
    least = {"live": 8, "populations": 2, "moves": 0, "levels": 1}
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least[name]:
            raise ValueError(f"{name}: got {value!r}; it must be an integer of Python's, at least {least[name]}.")


def _read(seen: list[Level], depth: float, taken: int) -> Splitting:
    log_epsilon, volumes, stuck = _volumes(seen, depth)
    middle, low, high = volumes
    with np.errstate(divide="ignore", invalid="ignore"):
        error = _left_out(lambda use: _log_mean(middle[use]), len(middle))
        conductance = _log_mean(high) - _log_mean(low)
        conductance_error = _left_out(lambda use: _log_mean(high[use]) - _log_mean(low[use]), len(middle))
    deepest = float(np.exp(log_epsilon[0]))
    return Splitting(
        log_epsilon=log_epsilon,
        log_volume=_log_mean(middle),
        log_volume_error=error,
        conductance=conductance,
        conductance_error=conductance_error,
        per_population=middle,
        ancestors=_ancestors(seen),
        lowest=float(min(level.excess.min() for level in seen)),
        levels=len(seen) - 1,
        depth=deepest,
        reached=not stuck and deepest <= 1.001 * depth,
        evaluations=taken,
    )


def _volumes(seen: list[Level], depth: float) -> tuple[np.ndarray, tuple[np.ndarray, ...], bool]:
    """``log ε``, and ``log V`` of each population at it and half a factor of e below and above."""
    # levels that every population still has draws of
    last = np.stack([np.where(level.active, level.level, np.inf) for level in seen]).min(axis=0)
    final = np.maximum(np.median(seen[-1].excess, axis=1), np.finfo(float).tiny)
    bottom = max(np.log(depth), float(np.log(np.max(np.minimum(last, final)))) + 0.5)
    top = float(np.log(max(np.max(level.excess[np.isfinite(level.excess)], initial=depth) for level in seen)))
    grid = np.arange(bottom, top + 0.5 + 1 / _POINTS, 1 / _POINTS)
    at = np.concatenate([grid, grid - 0.5, grid + 0.5])
    volumes = np.zeros((len(last), len(at)))
    weight = np.zeros(len(last))
    for level in seen:
        weight = weight + np.where(level.active, np.log(level.share), 0.0)
        below = np.mean(level.excess[:, :, None] < np.exp(at), axis=1)
        here = level.active[:, None] & (np.exp(at) <= level.level[:, None])
        with np.errstate(divide="ignore"):
            volumes = np.where(here, weight[:, None] + np.log(below), volumes)
    return grid, tuple(np.split(volumes, 3, axis=1)), bool(bottom > np.log(depth) + 1e-9)


def _log_mean(logs: np.ndarray) -> np.ndarray:
    top = np.maximum(logs.max(axis=0), -1e300)
    return np.log(np.mean(np.exp(logs - top), axis=0)) + top


def _left_out(of: Callable[[np.ndarray], np.ndarray], count: int) -> np.ndarray:
    """Standard error from what is found when each population in turn is left out."""
    without = np.stack([of(np.arange(count) != one) for one in range(count)])
    return np.sqrt((count - 1) / count * np.sum((without - without.mean(axis=0)) ** 2, axis=0))


def _ancestors(seen: list[Level]) -> np.ndarray:
    """Distinct ancestors ``_WINDOW`` levels before, over those of parents that were drawn at random: the least."""
    generator = np.random.default_rng(0)
    live = seen[0].excess.shape[1]
    by_chance = [generator.permutation(live)[np.arange(live) % (live // 2)] for _ in range(_WINDOW)]
    least = np.ones(len(seen[0].level))
    for first in range(1, max(min(2, len(seen)), len(seen) - _WINDOW + 1)):
        window = [np.asarray(level.parents) for level in seen[first : first + _WINDOW]]
        expected = _distinct([parents[None] for parents in by_chance[: len(window)]])[0]
        whole = np.all([level.active for level in seen[first : first + _WINDOW]], axis=0)
        least = np.where(whole, np.minimum(least, _distinct(window) / expected), least)
    return least


def _distinct(generations: list[np.ndarray]) -> np.ndarray:
    """How many members of the first generation the last one descends from, shape ``(population,)``."""
    line = generations[-1]
    for parents in reversed(generations[:-1]):
        line = np.take_along_axis(parents, line, axis=1)
    return np.array([len(np.unique(one)) for one in line])
