"""Essential dynamics: how outputs moved over training, along the few directions in which they moved most."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from slt_jax.spectroscopy.observations import OUTPUTS
from slt_jax.spectroscopy.recorder import History, finite

#: Random pairs of halves of the directions, whose differences are the errors.
_SPLITS = 16
#: Outputs that move by less than this share of their largest do not move.
_ROUNDING = 1e-6


class EssentialDynamics(NamedTuple):
    """Principal components of a network's outputs over training.

    Attributes:
      steps: Shape ``(T,)``.
      scores: Where the outputs stood along each component, in units of the outputs, weighted mean 0, shape ``(T, c)``.
        Signs are such that a component ends higher than it began.
      score_errors: Standard errors of the scores from the choice of the random directions, shape ``(T, c)``.
      shares: Shares of the variance over time, falling, shape ``(c,)``.
      share_errors: Standard errors of the shares, shape ``(c,)``.
      variance: Variance over time, summed over all outputs.
      cosines: ``|correlation|`` of component ``k`` with ``cos(π k u)``, ``u`` the part of the weight gone by: near 1
        for a random walk. Shape ``(c,)``.
    """

    steps: np.ndarray
    scores: np.ndarray
    score_errors: np.ndarray
    shares: np.ndarray
    share_errors: np.ndarray
    variance: float
    cosines: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Shares, their errors, those of a random walk, and likeness to one, for ``study.json``."""
        return {
            "shares": self.shares.tolist(),
            "share_errors": self.share_errors.tolist(),
            "random_walk_shares": random_walk_shares(len(self.shares)).tolist(),
            "cosines": self.cosines.tolist(),
            "variance": self.variance,
        }


def essential_dynamics(
    history: History, name: str = OUTPUTS, *, components: int = 3, weights: ArrayLike | None = None
) -> EssentialDynamics:
    """Principal components over time of what ``project_outputs`` recorded.

    With ``p_t`` the projections and ``w_t`` weights that sum to 1: eigenvectors of ``Σ_t w_t (p_t - p̄)(p_t - p̄)ᵀ``.
    Projections keep inner products but for a relative error of ``√(2/k)``, so shares and scores are those of the whole
    outputs within errors. These are measured: the directions are cut at random into two halves, each gives shares and
    scores of its own, and the root mean square of half their difference, over 16 such cuts, is the standard error.

    Args:
      history: With projections under ``name``, finite, at three steps or more.
      name: Of the observation, of shape ``(T, k)``.
      components: How many; at most ``k / 2``, and one less than the steps.
      weights: What each step counts for, shape ``(T,)``; default all alike. ``even_in_log(history.steps)`` makes the
        answer independent of where the recording was dense.

    Raises:
      ValueError: there is no such observation, it has no shape ``(T, k)`` with ``k ≥ 2``, is not finite or never
        changes; too few steps; weights of another shape, negative or all 0; steps that do not increase.

    Not to be believed as structure because it looks smooth: the components of a random walk in many dimensions are
    ``cos(π k u)``, and hold ``6 / (π² k²)`` of the variance (61, 15, 7 %): the plane of the first two then shows a
    parabola, whatever was learned. Compare ``shares`` with ``random_walk_shares`` and look at ``cosines``; what counts
    are sharp turns, at steps that other readings name too. Components of nearly equal shares mix: their errors say so.

    Sources: Hoogland et al. 2024, arXiv:2402.02364, for essential dynamics; Antognini & Sohl-Dickstein 2018,
    arXiv:1806.08805, for random walks.

    >>> rise, still = np.linspace(0, 1, 20), np.ones(20)
    >>> turn = np.concatenate([rise, still]), np.concatenate([0 * still, rise])
    >>> signs = np.random.default_rng(0).choice([-1.0, 1.0], (2, 64)) / 8
    >>> found = essential_dynamics(History(np.arange(40), {}, {}, {"outputs": np.stack(turn, axis=1) @ signs}))
    >>> found.shares.round(2).tolist()[2:], found.scores.shape
    ([0.0], (40, 3))
    """
    steps, values, weights = _checked(history, name, weights)
    count = min(components, values.shape[1] // 2, len(steps) - 1)
    if count < 1:
        raise ValueError(f"components: got {components}; ask for at least 1.")
    centred = values - weights @ values
    variance = float(weights @ np.sum(centred**2, axis=1))
    if _still(values):
        raise ValueError(f"history: observation {name!r} never changes; there is no dynamics in it.")
    covariance = (centred * weights[:, None]).T @ centred
    shares, scores = _components(covariance, centred, count, np.arange(len(covariance)))
    turned = np.where(scores[-1] < scores[0], -1.0, 1.0)
    scores = scores * turned
    share_errors, score_errors = _errors(covariance, centred, weights, scores)
    return EssentialDynamics(steps, scores, score_errors, shares, share_errors, variance, _likeness(scores, weights))


def dynamics_of(history: History) -> EssentialDynamics | None:
    """Essential dynamics even in log step of the finite part of a history, or ``None`` where there are none in it.

    >>> dynamics_of(History(np.arange(5), {}, {})) is None
    True
    """
    if OUTPUTS not in history.observations:
        return None
    history = finite(history)
    seen = np.isfinite(history.observations[OUTPUTS]).all(axis=1)
    steps, values = history.steps[seen], history.observations[OUTPUTS][seen]
    if len(steps) < 3 or _still(values):
        return None
    return essential_dynamics(History(steps, {}, {}, {OUTPUTS: values}), weights=even_in_log(steps))


def even_in_log(steps: ArrayLike) -> np.ndarray:
    """Weights that make a mean over steps a mean over ``log(1 + step)``, by the trapezoidal rule; they sum to 1.

    >>> even_in_log([0, 1, 3]).tolist()
    [0.25, 0.5, 0.25]
    """
    places = np.log1p(np.asarray(steps, float))
    widths = np.diff(places)
    if (widths <= 0).any() or len(places) < 2:
        raise ValueError(f"steps: got {np.asarray(steps).tolist()}; they must be two or more, and increase.")
    halves = np.zeros(len(places))
    halves[1:] += widths / 2
    halves[:-1] += widths / 2
    return halves / halves.sum()


def random_walk_shares(components: int) -> np.ndarray:
    """Shares of variance of the components of a random walk in many dimensions, ``6 / (π² k²)``, ``(components,)``.

    >>> random_walk_shares(3).round(3).tolist()
    [0.608, 0.152, 0.068]
    """
    return 6 / (np.pi * np.arange(1, components + 1)) ** 2


def _components(
    covariance: np.ndarray, centred: np.ndarray, count: int, some: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shares and scores from some of the directions, as if they were all."""
    factor = len(covariance) / len(some)
    values, vectors = np.linalg.eigh(factor * covariance[np.ix_(some, some)])
    largest = slice(None, -count - 1, -1)
    scores = np.sqrt(factor) * centred[:, some] @ vectors[:, largest]
    return values[largest].clip(0) / values.clip(0).sum(), scores


def _errors(
    covariance: np.ndarray, centred: np.ndarray, weights: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Root mean squares of half the differences between two halves of the directions, of shares and of scores."""
    random = np.random.default_rng(0)
    count, directions = scores.shape[1], centred.shape[1]
    gaps = []
    for _ in range(_SPLITS):
        order = random.permutation(directions)
        pair = []
        for half in (order[: directions // 2], order[directions // 2 : 2 * (directions // 2)]):
            shares, own = _components(covariance, centred, count, half)
            # a component has no sign of its own
            pair.append((shares, own * np.where(weights @ (own * scores) < 0, -1.0, 1.0)))
        gaps.append([(left - right) / 2 for left, right in zip(*pair, strict=True)])
    shares, score = (np.sqrt(np.mean(np.square(gap), axis=0)) for gap in zip(*gaps, strict=True))
    return shares, score


def _still(values: np.ndarray) -> bool:
    return bool(np.ptp(values, axis=0).max() <= _ROUNDING * np.abs(values).max())


def _likeness(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    gone = np.cumsum(weights) - weights / 2
    found = []
    for number in range(scores.shape[1]):
        wave = np.cos(np.pi * (number + 1) * gone)
        wave = wave - weights @ wave
        size = np.sqrt((weights @ wave**2) * (weights @ scores[:, number] ** 2))
        found.append(abs(weights @ (wave * scores[:, number])) / size if size > 0 else 0.0)
    return np.array(found)


def _checked(history: History, name: str, weights: ArrayLike | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if name not in history.observations:
        raise ValueError(
            f"history: has no observation {name!r}, only {sorted(history.observations)}; record "
            "project_outputs(key, outputs, params, batch) under that name."
        )
    steps, values = np.asarray(history.steps), np.asarray(history.observations[name], float)
    if len(steps) < 3:
        raise ValueError(f"history: has {len(steps)} recorded steps; components over time need at least 3.")
    if values.ndim != 2 or values.shape[0] != len(steps) or values.shape[1] < 2:
        raise ValueError(
            f"history: observation {name!r} has shape {values.shape}; projections of {len(steps)} steps have shape "
            f"({len(steps)}, k), with at least 2 directions."
        )
    if (np.diff(steps) <= 0).any():
        raise ValueError("history: its steps do not increase; sort it and drop repeated steps.")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        raise ValueError(
            f"history: observation {name!r} is not finite at step {steps[bad[0]]}; leave out the steps from there on."
        )
    given = np.ones(len(steps)) if weights is None else np.asarray(weights, float)
    if given.shape != steps.shape or not np.isfinite(given).all() or (given < 0).any() or not given.sum():
        raise ValueError(
            f"weights: got shape {given.shape} for {len(steps)} steps; give each step one of at least 0, not all 0."
        )
    return steps, values, given / given.sum()
