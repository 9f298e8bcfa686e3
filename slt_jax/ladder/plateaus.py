"""Fixed points of a flow and the temperatures at which it goes from one to the next."""

from typing import NamedTuple

import numpy as np

from slt_jax.ladder.reading import Flow

#: λ_eff stands still where it changes by less than this share of itself for each factor of e in temperature, or by less
#: than so many of its errors.
_STILL, _ERRORS = 0.02, 2.0
#: Two plateaus whose values are closer than this share belong together.
_SAME = 0.03
#: Points of the interpolation between two rungs.
_FINE = 64


class Plateau(NamedTuple):
    """A stretch of temperatures over which λ_eff stands still.

    Attributes:
      value, std_error: λ_eff there, and its error: Monte Carlo, and half of what it still changes by.
      hottest, coldest: ``nβ`` of its first and last rung.
    """

    value: float
    std_error: float
    hottest: float
    coldest: float


class Crossover(NamedTuple):
    """The passage from one plateau to the next: another set of directions becomes visible.

    Attributes:
      nbeta: ``nβ`` at which λ_eff is half way.
      low, high: 95 % interval of it.
      begins, ends: ``nβ`` at which a quarter and three quarters of the way are done.
      before, after: λ_eff of the two plateaus.
    """

    nbeta: float
    low: float
    high: float
    begins: float
    ends: float
    before: float
    after: float


class Course(NamedTuple):
    """The plateaus of a flow from hot to cold, and the crossovers between them."""

    plateaus: tuple[Plateau, ...]
    crossovers: tuple[Crossover, ...]

    def explain(self) -> str:
        """In words."""
        if not self.plateaus:
            return "No plateau: λ_eff moves at all temperatures measured."
        stays = [
            f"λ {one.value:.4g} ± {one.std_error:.2g} for nβ from {one.hottest:.3g} to {one.coldest:.3g}"
            for one in self.plateaus
        ]
        turns = [f"crossover at nβ {one.nbeta:.3g} ({one.low:.3g} to {one.high:.3g})" for one in self.crossovers]
        return "; ".join([*stays, *turns]) + "."


def plateaus(flow: Flow) -> Course:
    """Where a flow stands still, and where it passes from one value to another.

    A rung stands still where ``|λ_eff - C|`` is less than 2 % of λ_eff or than two of its errors; neighbours that stand
    still at one value make a plateau. Between two plateaus λ_eff is interpolated by cubics that have the measured
    values and velocities at the rungs, and the crossover is where it is half way.

    Args:
      flow: From ``flow`` or ``density_of_states``; only its usable rungs are looked at.

    Returns:
      The plateaus from hot to cold, and the crossovers.

    Raises:
      ValueError: fewer than two rungs are usable.

    Not to be believed where rungs are further apart than a crossover is wide (a factor of about 10): it may be missed.
    A multiplicity above 1 leaves a slow drift, ``(m - 1) / (log nβ)²`` for each factor of e, which counts as still.

    Source: ``dλ_eff / d log β = λ_eff - C``, exact; fixed points of such a flow as scales: Berman, Klinger & Stapleton
    2023, arXiv:2305.10491.
    """
    order = np.argsort(np.asarray(flow.nbetas))
    usable = order[np.asarray(flow.usable)[order] & np.isfinite(np.asarray(flow.value))[order]]
    if len(usable) < 2:
        raise ValueError(f"flow: has {len(usable)} usable rungs; a plateau needs two. Look at flow.explain().")
    depth = np.log(np.asarray(flow.nbetas, np.float64)[usable])
    value, error, velocity, slack = (
        np.asarray(series, np.float64)[usable]
        for series in (flow.value, flow.std_error, flow.velocity, flow.velocity_error)
    )
    still = np.abs(velocity) < np.maximum(_ERRORS * slack, _STILL * np.abs(value))
    runs = _runs(still, value, error)
    stays = tuple(_plateau(depth[run], value[run], error[run]) for run in runs)
    turns = tuple(
        _crossover(depth, value, velocity, error, slice(first[-1], second[0] + 1), one.value, two.value)
        for first, second, one, two in zip(runs, runs[1:], stays, stays[1:], strict=False)
    )
    return Course(stays, turns)


def _runs(still: np.ndarray, value: np.ndarray, error: np.ndarray) -> list[np.ndarray]:
    """Indices of neighbouring rungs that stand still at one value."""
    runs: list[list[int]] = []
    for index in np.flatnonzero(still):
        last = runs[-1][-1] if runs else -2
        near = abs(value[index] - value[last]) < np.hypot(3 * np.hypot(error[index], error[last]), _SAME * value[last])
        if index == last + 1 and near:
            runs[-1].append(int(index))
        else:
            runs.append([int(index)])
    return [np.array(run) for run in runs]


def _plateau(depth: np.ndarray, value: np.ndarray, error: np.ndarray) -> Plateau:
    weights = np.maximum(error, 1e-12) ** -2.0
    mean = float(weights @ value / weights.sum())
    moved = 0.5 * (value.max() - value.min())
    return Plateau(mean, float(np.hypot(weights.sum() ** -0.5, moved)), *map(float, np.exp(depth[[0, -1]])))


def _crossover(
    depth: np.ndarray,
    value: np.ndarray,
    velocity: np.ndarray,
    error: np.ndarray,
    span: slice,
    before: float,
    after: float,
) -> Crossover:
    from scipy.interpolate import CubicHermiteSpline

    grid = np.linspace(depth[span][0], depth[span][-1], _FINE * len(depth[span]))
    curve = CubicHermiteSpline(depth[span], value[span], velocity[span])(grid)
    share = (curve - before) / (after - before) if after != before else np.linspace(0, 1, len(grid))

    def passes(level: float) -> float:
        return float(grid[np.argmax(share >= level)] if (share >= level).any() else grid[-1])

    middle = passes(0.5)
    speed = abs(float(np.interp(middle, depth[span], velocity[span])))
    doubt = 1.96 * float(np.interp(middle, depth[span], error[span])) / max(speed, 1e-12)
    # the spacing of the interpolation is the least that can be told apart
    doubt = min(max(doubt, grid[1] - grid[0]), grid[-1] - grid[0])
    ends = np.exp([middle, middle - doubt, middle + doubt, passes(0.25), passes(0.75)])
    middle, low, high, begins, finishes = (float(end) for end in ends)
    return Crossover(middle, low, high, begins, finishes, before, after)
