"""Cusps of the essential dynamics: where the path of a network's outputs through training turns sharply."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from slt_jax.spectroscopy.slopes import cells_of, noise_of, noise_slopes, slopes

#: A turn by less, in degrees, is no cusp; nor one that stands out from its sides by less than half of it.
LEAST_TURN = 60.0
#: How far from a point its ways in and out are looked at, as a share of the diameter of the path.
RADIUS = 0.1
_COPIES = 100
_LEAST_STEPS = 20


class Cusp(NamedTuple):
    """A sharp turn.

    Attributes:
      step: Where the way out differs most from the way in.
      low, high: Steps that hold it with 95 %.
      turn: Angle between the way in and the way out, degrees: 0 is straight on, 180 is back.
      slowness: Its speed per log step as a share of the greatest of the path: at a true cusp it nearly vanishes.
    """

    step: float
    low: float
    high: float
    turn: float
    slowness: float


def cusps(steps: ArrayLike, scores: ArrayLike, *, radius: float = RADIUS, seed: int = 0) -> list[Cusp]:
    """Sharp turns of a path in a space of few dimensions, the principal components of the outputs over training.

    The path is smoothed over 7 % of the step. At each point the turn is the angle between the chord that comes in from
    where the path last was ``radius`` diameters away, and the chord that goes out to where it is so again: how slowly
    the path is run through does not matter. A cusp is a peak of the turn of at least 60 degrees. Intervals are from
    copies of the path with noise of the size and the autocorrelation of its own.

    Args:
      steps: Increasing, shape ``(T,)``; step 0 is left out.
      scores: Shape ``(T, k)``, ``k ≥ 2``.
      radius: Share of the diameter of the path.
      seed: Of the noise.

    Returns:
      By step. Within ``radius`` of the ends of the path none can be seen.

    Raises:
      ValueError: fewer than 20 steps, steps that do not increase, scores that are not finite or not of two dimensions
        or more, a radius that is not between 0 and .5.

    Not to be believed where the noise of the scores is comparable to ``radius`` of the diameter: there every point
    turns; and in many components most of which are noise.

    Source: forms of essential dynamics: Hoogland et al. 2024, arXiv:2402.02364.

    >>> steps = np.arange(1, 400)
    >>> there = np.minimum(np.log(steps), np.log(50))
    >>> path = np.stack([there, np.log(steps) - there], axis=1)
    >>> [(round(cusp.step), round(cusp.turn)) for cusp in cusps(steps, path)]
    [(50, 83)]
    """
    taken, path = np.asarray(steps, float), np.asarray(scores, float)
    if path.ndim != 2 or path.shape[1] < 2 or len(path) != len(taken):
        raise ValueError(f"scores: got shape {path.shape} for {len(taken)} steps; pass (T, k), k at least 2.")
    if (np.diff(taken) <= 0).any() or (taken < 0).any():
        raise ValueError("steps: they do not increase from 0 on; sort them and drop repeated ones.")
    if not np.isfinite(path).all():
        raise ValueError(f"scores: not finite at step {taken[~np.isfinite(path).all(axis=1)][0]:g}.")
    if not 0 < radius < 0.5:
        raise ValueError(f"radius: got {radius}; pass a share of the diameter between 0 and .5.")
    positive = taken > 0
    if positive.sum() < _LEAST_STEPS:
        raise ValueError(f"steps: got {positive.sum()} after step 0; a path needs at least {_LEAST_STEPS}.")
    from scipy.signal import find_peaks

    cells = cells_of(taken[positive])
    smooth = slopes(cells, path[positive], order=0)
    noise = noise_of(cells.records, path[positive])
    alone = noise_slopes(noise, cells, _COPIES, np.random.default_rng(seed), order=0)
    turns, reach = _turns(smooth, radius)
    speed = np.linalg.norm(slopes(cells, path[positive]), axis=1)
    tops, peaks = find_peaks(turns, height=LEAST_TURN, prominence=LEAST_TURN / 2, plateau_size=1)
    if not len(tops):
        return []
    copies = [_turns(smooth + alone[:, copy], radius)[0] for copy in range(_COPIES)]
    found = []
    for top, left, right in zip(tops, peaks["left_edges"], peaks["right_edges"], strict=True):
        low, high = reach[top]
        picked = [low + int(copy[low : high + 1].argmax()) for copy in copies]
        first, last = np.quantile(picked, (0.025, 0.975), method="inverted_cdf").astype(int)
        # a path that rests at its turn has it anywhere in the rest
        edges = cells.edges[min(first, left)], cells.edges[max(last, right) + 1]
        slowness = float(speed[top] / max(float(speed.max()), np.finfo(float).tiny))
        step, begin, end = (float(np.exp(edge)) for edge in (cells.centers[top], *edges))
        found.append(Cusp(step, begin, end, float(turns[top]), slowness))
    return found


def _turns(path: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Angle at each point, in degrees, shape ``(G,)``, 0 where it is not known; and the ends of its chords."""
    products = path @ path.T
    squares = np.diag(products)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * products, 0))
    far = distances >= radius * distances.max()
    count = len(path)
    place = np.arange(count)
    before = np.where(far & (place[None] < place[:, None]), place[None], -1).max(axis=1)
    after = np.where(far & (place[None] > place[:, None]), place[None], count).min(axis=1)
    known = (before >= 0) & (after < count)
    turns = np.zeros(count)
    into = path[known] - path[before[known]]
    out = path[after[known]] - path[known]
    cosine = np.sum(into * out, axis=1) / (np.linalg.norm(into, axis=1) * np.linalg.norm(out, axis=1))
    turns[known] = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return turns, np.stack([np.maximum(before, 0), np.minimum(after, count - 1)], axis=1)
