"""When a transition was fastest, with an interval: a bandwidth that suits the noise, and a bootstrap of blocks."""

from typing import NamedTuple

import numpy as np

from slt_jax.spectroscopy.slopes import SMOOTHING, Cells, Noise, slopes

#: Bandwidths to choose from, in log step.
_BANDWIDTHS = SMOOTHING * np.array([1.0, 1.41, 2.0, 2.83, 4.0])
#: An error of the boundary, in log step, below which no wider kernel is tried.
_FINE = 0.005
#: A wider kernel has to make the error smaller by this factor.
_WORTH = 0.9
#: The stretch on both sides of a transition that is used, in log step.
_REACH = 1.2
#: Signals of a curve this many times above its noise count in full.
_CLEAR = 10.0
_LEAST_RECORDS = 8


class Boundary(NamedTuple):
    """Where a transition was fastest, in log step, and the interval that holds it with 95 %."""

    place: float
    low: float
    high: float


def boundary(
    cells: Cells,
    curves: np.ndarray,
    noise: Noise,
    slopes_at: np.ndarray,
    deviation: np.ndarray,
    peak: int,
    own: tuple[int, int],
    around: tuple[int, int],
    random: np.random.Generator,
    copies: int = 200,
) -> Boundary:
    """The fastest place of one transition.

    The curves are added up, each with the sign of its change, in units of its range, and less where it is hardly above
    its noise. The sum is smoothed with the narrowest kernel that is not worth widening: the expected error is that of
    the zero of the second derivative, ``deviation(noise'') / |curve'''|``. Copies: a logistic step on a straight line,
    fitted to the sum between the quiet places on both sides, and its residuals in stationary blocks.

    Args:
      cells: From ``cells_of``.
      curves: Shape ``(T, C)``.
      noise: From ``noise_of``.
      slopes_at: Slope of each curve at the peak, shape ``(C,)``.
      deviation: Of the noise of these slopes, shape ``(C,)``.
      peak: The cell where the joint speed is highest.
      own: Cells between which it is the fastest.
      around: Cells between which no other transition runs.
      random: Where the blocks come from.
      copies: Of the sum.

    Source: Politis and Romano 1994, the stationary bootstrap.
    """
    extent = np.maximum(np.ptp(curves, axis=0), np.finfo(float).tiny)
    margin = _cells(cells, 4 * float(_BANDWIDTHS[-1]))
    reach = _cells(cells, _REACH)
    near = [int(np.clip(edge, peak - reach, peak + reach)) for edge in (*own, *around)]
    cells, curves, first = _part(cells, curves, min(near) - margin, max(near) + margin)
    low, high, begin, end = (edge - first for edge in near)
    share = np.abs(slopes_at) / (_CLEAR * deviation)
    weights = np.sign(slopes_at) * share**2 / (1 + share**2) / extent
    total = curves @ weights
    size = float(np.sqrt(weights @ (noise.correlation * np.outer(noise.deviation, noise.deviation)) @ weights))
    bandwidth = _bandwidth(cells, total, size, noise.autocorrelation, (low, high))
    place = _peaks(cells, slopes(cells, total[:, None], bandwidth), (low, high))[0]
    inside = np.flatnonzero((cells.records >= cells.centers[begin]) & (cells.records <= cells.centers[end]))
    if len(inside) < _LEAST_RECORDS:
        # too few records to fit anything to: the neighbouring ones are all that is known
        after = int(np.clip(np.searchsorted(cells.records, place, side="right"), 1, len(cells.records) - 1))
        return Boundary(place, float(cells.records[after - 1]), float(cells.records[after]))
    step = _step(cells.records[inside], total[inside], place, bandwidth)
    length = _block_length(len(inside), noise.autocorrelation)
    lost = _lost(step.directions, _pull(cells.records[inside], bandwidth, place), noise.autocorrelation, length)
    repeated = np.repeat(total[:, None], copies, axis=1)
    picked = _blocks(len(inside), copies, length, random)
    repeated[inside] = step.fitted[:, None] + lost * step.residuals[picked]
    moved = _peaks(cells, slopes(cells, repeated, bandwidth), (low, high)) - step.center
    below, above = np.quantile(moved, (0.025, 0.975))
    least, most = float(cells.centers[low]), float(cells.centers[high])
    return Boundary(place, max(place - float(above), least), min(place - float(below), most))


def _cells(cells: Cells, width: float) -> int:
    return max(1, round(width / cells.spacing))


def _part(cells: Cells, curves: np.ndarray, low: int, high: int) -> tuple[Cells, np.ndarray, int]:
    """Cells from ``low`` to ``high`` with their records, and the first of them."""
    low, high = max(low, 0), min(high, len(cells.edges) - 2)
    edges = cells.edges[low : high + 2]
    start = max(int(np.searchsorted(cells.records, edges[0], side="right")) - 1, 0)
    stop = int(np.searchsorted(cells.records, edges[-1])) + 1
    return Cells(cells.records[start:stop], edges), curves[start:stop], low


def _bandwidth(
    cells: Cells, total: np.ndarray, deviation: float, autocorrelation: float, window: tuple[int, int]
) -> float:
    """The narrowest kernel that is not worth widening."""
    best, least = SMOOTHING, np.inf
    for bandwidth in _BANDWIDTHS:
        speed = slopes(cells, total[:, None], bandwidth)[:, 0]
        top = window[0] + int(speed[window[0] : window[1] + 1].argmax())
        near = _cells(cells, bandwidth / 2)
        bend = (2 * speed[top] - speed[max(top - near, 0)] - speed[min(top + near, len(speed) - 1)]) / (
            near * cells.spacing
        ) ** 2
        pull = _pull(cells.records, bandwidth, cells.centers[top])
        turn = deviation * np.sqrt(float(pull @ _remembered(pull[:, None], autocorrelation)[:, 0]))
        error = turn / max(float(bend), np.finfo(float).tiny)
        if error < _WORTH * least:
            best, least = float(bandwidth), error
        if least < _FINE:
            break
    return best


def _peaks(cells: Cells, speeds: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """Where each speed, shape ``(G, copies)``, is highest inside the window, between cells by a parabola."""
    inside = speeds[window[0] : window[1] + 1]
    top = np.clip(window[0] + inside.argmax(axis=0), 1, len(speeds) - 2)
    copy = np.arange(speeds.shape[1])
    before, here, after = (speeds[top + shift, copy] for shift in (-1, 0, 1))
    bend = before - 2 * here + after
    offset = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, 1.0), 0.0)
    return cells.centers[top] + np.clip(offset, -0.5, 0.5) * cells.spacing


class _Step(NamedTuple):
    """A logistic step on a straight line: its centre, its values, the residuals, and the directions of the fit."""

    center: float
    fitted: np.ndarray
    residuals: np.ndarray
    directions: np.ndarray


def _step(records: np.ndarray, values: np.ndarray, place: float, width: float) -> _Step:
    from scipy.optimize import least_squares
    from scipy.special import expit

    def basis(place: float, log_width: float) -> np.ndarray:
        step = expit((records - place) * np.exp(-log_width))
        return np.stack([np.ones(len(records)), records - records[0], step], axis=1)

    def misses(at: np.ndarray) -> np.ndarray:
        columns = basis(*at)
        return columns @ np.linalg.lstsq(columns, values, rcond=None)[0] - values

    bounds = ([records[0], np.log(0.005)], [records[-1], np.log(1.0)])
    start = np.clip([place, np.log(width / 2)], *bounds)
    found = least_squares(misses, start, bounds=bounds, x_scale=[0.1, 0.5], max_nfev=50)
    directions = np.linalg.qr(np.concatenate([basis(*found.x), found.jac], axis=1))[0]
    return _Step(float(found.x[0]), values + found.fun, found.fun.mean() - found.fun, directions)


def _pull(records: np.ndarray, bandwidth: float, place: float) -> np.ndarray:
    """What each record does to the slope of the speed at a place, by the kernel's second derivative: shape ``(T,)``."""
    at = (records - place) / bandwidth
    kernel = (at**2 - 1) * np.exp(-(at**2) / 2) / (np.sqrt(2 * np.pi) * bandwidth**3)
    return kernel * np.gradient(records)


def _lost(directions: np.ndarray, pull: np.ndarray, autocorrelation: float, length: float) -> float:
    """By what noise of this autocorrelation moves a peak more than blocks of its residuals do; exact to first order.

    The fit takes a part of the noise with it, and blocks forget what was before them.
    """
    from scipy.signal import fftconvolve

    count, lags = len(pull), np.arange(len(pull))
    met = _remembered(directions, autocorrelation)
    # (1 - D Dᵀ) R (1 - D Dᵀ) = R - D Eᵀ - E Dᵀ + D (Dᵀ E) Dᵀ, its diagonals averaged around the circle of records
    around = (autocorrelation**lags * (count - lags) + autocorrelation ** (count - lags) * lags) / count
    around += _around(directions, directions @ (directions.T @ met) - met) - _around(met, directions)
    overlap = fftconvolve(pull, pull[::-1])[count - 1 :] * (1 - 1 / length) ** lags
    kept = 2 * float(overlap @ around) - float(overlap[0] * around[0])
    needed = float(pull @ _remembered(pull[:, None], autocorrelation)[:, 0])
    return float(np.sqrt(np.clip(needed / max(kept, np.finfo(float).tiny), 1.0, 16.0)))


def _remembered(columns: np.ndarray, autocorrelation: float) -> np.ndarray:
    """``Σ_j φ^|i-j| x_j`` of columns, shape ``(n, k)``."""
    from scipy.signal import lfilter

    forward, backward = (lfilter([1.0], [1.0, -autocorrelation], one, axis=0) for one in (columns, columns[::-1]))
    return forward + backward[::-1] - columns


def _around(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Mean over ``i`` of ``Σ_k left[i, k] right[i + lag, k]`` around the circle, for every lag."""
    products = np.conj(np.fft.rfft(left, axis=0)) * np.fft.rfft(right, axis=0)
    return np.fft.irfft(products.sum(axis=1), n=len(left)) / len(left)


def _block_length(records: int, autocorrelation: float) -> float:
    """Mean length of a block, in records: twice as long as the noise remembers."""
    return float(np.clip(2 * (1 + autocorrelation) / (1 - autocorrelation), 1.0, records / 3))


def _blocks(records: int, copies: int, length: float, random: np.random.Generator) -> np.ndarray:
    """Indices of stationary blocks, shape ``(records, copies)``."""
    picked = random.integers(records, size=(records, copies))
    goes_on = random.random((records, copies)) >= 1 / length
    for index in range(1, records):
        picked[index] = np.where(goes_on[index], (picked[index - 1] + 1) % records, picked[index])
    return picked
