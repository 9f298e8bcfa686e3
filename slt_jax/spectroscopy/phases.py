"""Finds the phases of training: stretches of slow change that begin with a short stretch of fast change."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from slt_jax.spectroscopy.boundaries import Boundary, boundary
from slt_jax.spectroscopy.peaks import Curves, Limits, Peak, curves_of, limits_of, peaks_of, slowest
from slt_jax.spectroscopy.recorder import History
from slt_jax.spectroscopy.slopes import CELLS, cells_of

#: A curve that varies by less, relative to its size, is constant: only the rounding of single precision moves it.
_ROUNDING = 1e-6


class ChangePoints(NamedTuple):
    """Transitions of one curve by itself.

    Attributes:
      steps: Of its fastest change, shape ``(M,)``.
      intervals: What holds each with 95 %, in steps, shape ``(M, 2)``.
    """

    steps: np.ndarray
    intervals: np.ndarray


class Phases(NamedTuple):
    """Where training changes fast, and where it is quiet.

    A phase begins with a transition and lasts until the next: ``K`` transitions are ``K`` phases, and the stretch
    before the first is the initial state.

    Attributes:
      transitions: Steps of fastest change, shape ``(K,)``.
      begins: Where each transition begins: its speed is half of its peak, shape ``(K,)``.
      ends: Where it ends, shape ``(K,)``.
      plateaus: The quietest step of the initial state and of each phase, shape ``(K + 1,)``.
      grid: Steps at which the speed was computed, shape ``(G,)``.
      speed: Mean over curves of ``|d curve / d log step|``, each curve scaled to its range, 0 where it is hardly above
        its noise, shape ``(G,)``.
      intervals: What holds the step of fastest change with 95 %, shape ``(K, 2)``; empty where it was not asked for.
      curves: Transitions of each curve by itself, by its name.
      spread: Deviation of the boundary over inverse temperatures, in log step, shape ``(K,)``; NaN where no readings
        say, empty where none were given.
    """

    transitions: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    plateaus: np.ndarray
    grid: np.ndarray
    speed: np.ndarray
    intervals: np.ndarray = np.zeros((0, 2))
    curves: Mapping[str, ChangePoints] = MappingProxyType({})
    spread: np.ndarray = np.zeros(0)


def detect_phases(history: History, *, seed: int = 0) -> Phases:
    """Transitions: peaks of the joint speed of all loss curves in log step that noise does not make.

    ``v(log t) = mean_c |d c / d log t| / (max c - min c)``, smoothed over 7 % of the step. A transition is a peak that
    (1) stands out by 10 % of the largest; (2) has joint change points of the slopes on both its sides, at the smallest
    penalty with which 95 % of histories of noise have none (``change_points``); (3) whose excess over the quiet on both
    sides, ``Σ_c (excess_c / deviation_c)²``, is more than the largest in 95 % of histories of noise on a trend. Noise
    is that of the curves, autocorrelated and shared (``noise_of``). A speed that only rises or falls over the
    recording, a trend, is no transition, nor is a change that an edge cuts off.

    Args:
      history: At least 20 recorded steps.
      seed: Of the noise and of the bootstrap.

    Returns:
      The phases. Their boundaries are where the speed is half of its peak; their ``intervals`` are from a bootstrap of
      blocks of residuals (``boundary``).

    Raises:
      ValueError: fewer than 20 recorded steps, steps that are negative or do not increase, a curve with NaN or of
        another length.

    Not to be believed where the noise remembers more than the records of a third of a unit of log step, or where it
    is much larger in one part of the recording than in another. What is read as noise is what differs from record to
    record: an oscillation of training between records is noise, too.

    Source: the loss staircase as a sequence of phases: Hoogland et al. 2024, arXiv:2402.02364.

    >>> steps = np.arange(1, 400)
    >>> stairs = 1 / (1 + np.exp((steps - 50) / 3)) + 1 / (1 + np.exp((steps - 200) / 9))
    >>> phases = detect_phases(History(steps, {"all": stairs}, {}))
    >>> phases.transitions.tolist()
    [50, 200]
    >>> phases.intervals.round().tolist()
    [[50.0, 50.0], [200.0, 201.0]]
    """
    steps = _check(history)
    recorded = steps[steps > 0]
    moving = {name: one for name, one in _positive(history.losses, steps).items() if _moves(one)}
    cells = cells_of(recorded)
    grid = np.concatenate([cells.edges[:1], cells.centers[1:-1], cells.edges[-1:]])
    if not moving:
        speed = np.zeros(CELLS)
        nothing = np.zeros(0, recorded.dtype)
        return Phases(nothing, nothing, nothing, _steps_at(recorded, grid[slowest(speed, [])]), np.exp(grid), speed)
    random = np.random.default_rng(seed)
    joint = curves_of(cells, np.stack(list(moving.values()), axis=1), random)
    speed, peaks = peaks_of(joint, limits_of(joint))
    alone = limits_of(joint.only(0))
    found = [_boundary(joint, peak, random) for peak in peaks]
    transitions = _steps_at(recorded, [one.place for one in found])
    return Phases(
        transitions=transitions,
        begins=_steps_at(recorded, [peak.begin for peak in peaks]),
        ends=_steps_at(recorded, [peak.end for peak in peaks]),
        plateaus=_steps_at(recorded, grid[slowest(speed, [peak.cell for peak in peaks])]),
        grid=np.exp(grid),
        speed=speed,
        intervals=_intervals(found, transitions),
        curves={name: _alone(recorded, joint.only(index), alone, random) for index, name in enumerate(moving)},
    )


def measured_at(phases: Phases, steps: Iterable[int]) -> list[int | None]:
    """For every phase, the initial state first, the checkpoint nearest to its plateau in log step, or ``None``.

    Args:
      phases: From ``detect_phases``.
      steps: Of the checkpoints that have a reading; one counts for the phase that it lies in.
    """
    edges = [-np.inf, *phases.transitions.tolist(), np.inf]
    found: list[int | None] = []
    for phase, plateau in enumerate(phases.plateaus.tolist()):
        inside = [step for step in steps if edges[phase] <= step < edges[phase + 1]]
        found.append(min(inside, key=lambda step: abs(np.log1p(step) - np.log1p(plateau)), default=None))
    return found


def _alone(recorded: np.ndarray, curve: Curves, limits: Limits, random: np.random.Generator) -> ChangePoints:
    found = [_boundary(curve, peak, random) for peak in peaks_of(curve, limits)[1]]
    changed = _steps_at(recorded, [one.place for one in found])
    return ChangePoints(changed, _intervals(found, changed))


def _boundary(curves: Curves, peak: Peak, random: np.random.Generator) -> Boundary:
    found, deviation = curves.slopes[peak.cell], curves.deviation[peak.cell]
    return boundary(
        curves.cells, curves.values, curves.noise, found, deviation, peak.cell, peak.own, peak.around, random
    )


def _intervals(found: Sequence[Boundary], steps: np.ndarray) -> np.ndarray:
    """In steps; the recorded step that stands for the boundary is inside."""
    edges = np.exp([(one.low, one.high) for one in found]).reshape(-1, 2)
    return np.stack([np.minimum(edges[:, 0], steps), np.maximum(edges[:, 1], steps)], axis=1)


def _positive(losses: Mapping[str, np.ndarray], steps: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.asarray(curve, float)[steps > 0] for name, curve in losses.items()}


def _moves(curve: np.ndarray) -> bool:
    return bool(np.ptp(curve) > _ROUNDING * np.abs(curve).max())


def _steps_at(recorded: np.ndarray, places: ArrayLike) -> np.ndarray:
    """The recorded steps nearest to logarithms of steps."""
    wanted = np.exp(np.asarray(places, float))
    return recorded[np.abs(recorded[None, :] - wanted[:, None]).argmin(axis=1)]


def _check(history: History) -> np.ndarray:
    steps = np.asarray(history.steps)
    if len(steps) < 20:
        raise ValueError(f"history: has {len(steps)} recorded steps; phases need at least 20.")
    if (np.diff(steps) <= 0).any():
        raise ValueError("history: its steps do not increase; sort it and drop repeated steps.")
    if steps[0] < 0:
        raise ValueError(f"history: its steps begin at {steps[0]}; count them from 0.")
    for name, curve in history.losses.items():
        if np.shape(curve) != steps.shape:
            raise ValueError(f"history: loss {name!r} has shape {np.shape(curve)} for {len(steps)} recorded steps.")
        bad = np.flatnonzero(~np.isfinite(curve))
        if bad.size:
            raise ValueError(
                f"history: loss {name!r} is not finite at step {steps[bad[0]]}; training has diverged there."
            )
    return steps
