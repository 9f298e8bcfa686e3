"""Slopes of recorded curves in log step, and the noise in them: autocorrelated, and shared between the curves."""

from typing import NamedTuple

import numpy as np

#: Cells of log step in which curves are averaged.
CELLS = 600
#: Width of the smoothing kernel in units of the natural logarithm of the step.
SMOOTHING = 0.07
#: Lags, in records, of the second differences that the noise is told from.
_LAGS = (1, 2, 3, 4, 6, 8, 12, 16)
#: Second differences over a longer stretch of log step hold more of the curve than of its noise.
_SPAN = 0.35
_LEAST_DIFFERENCES = 30
_AUTOCORRELATIONS = np.linspace(0.0, 0.98, 50)
#: Median of the square of a standard normal.
_MEDIAN_SQUARE = 0.4549
#: Noise is never taken to be less than this share of a curve's range.
_LEAST_NOISE = 1e-4


class Noise(NamedTuple):
    """First-order autoregressive noise of ``C`` curves, from record to record.

    Attributes:
      autocorrelation: Of neighbouring records, one for all curves.
      deviation: Standard deviation of each curve, shape ``(C,)``.
      correlation: Between the curves, shape ``(C, C)``.
    """

    autocorrelation: float
    deviation: np.ndarray
    correlation: np.ndarray


class Cells(NamedTuple):
    """Equal cells of log step.

    Attributes:
      records: Log steps of the records, increasing, shape ``(T,)``.
      edges: Shape ``(G + 1,)``.
    """

    records: np.ndarray
    edges: np.ndarray

    @property
    def spacing(self) -> float:
        """Width of a cell."""
        return float(self.edges[1] - self.edges[0])

    @property
    def centers(self) -> np.ndarray:
        """Middles of the cells, shape ``(G,)``."""
        return (self.edges[1:] + self.edges[:-1]) / 2


def cells_of(steps: np.ndarray) -> Cells:
    """Cells between the first and the last of positive, increasing steps."""
    records = np.log(steps)
    return Cells(records, np.linspace(records[0], records[-1], CELLS + 1))


def slopes(cells: Cells, curves: np.ndarray, smoothing: float = SMOOTHING, order: int = 1) -> np.ndarray:
    """``d curve / d log step``, smoothed with a normal kernel; linear in the curves.

    The curve between two records is taken to be straight; each cell holds its mean, so that many records in a cell are
    averaged. Beyond the edges a curve goes on as its reflection in its end point, which keeps a straight line straight.

    Args:
      cells: From ``cells_of``.
      curves: Shape ``(T, ...)``.
      smoothing: Deviation of the kernel in log step.
      order: 0 for the smoothed curve itself.

    Returns:
      Shape ``(G, ...)``.
    """
    from scipy.interpolate import make_interp_spline
    from scipy.ndimage import gaussian_filter1d

    integral = make_interp_spline(cells.records, curves, k=1).antiderivative()(cells.edges)
    means = np.diff(integral, axis=0) / cells.spacing
    reach = min(int(np.ceil(4 * smoothing / cells.spacing)), len(means) - 1)
    padded = np.pad(means, [(reach, reach)] + [(0, 0)] * (means.ndim - 1), mode="reflect", reflect_type="odd")
    smooth = gaussian_filter1d(padded, smoothing / cells.spacing, axis=0, order=order, mode="nearest")
    return smooth[reach:-reach] / cells.spacing**order


def noise_of(records: np.ndarray, curves: np.ndarray) -> Noise:
    """Noise from second differences at several lags, which see neither the level of a curve nor its trend.

    ``y_t - (b y_{t-m} + a y_{t+m}) / (a + b)`` with ``a, b`` the stretches of log step on both sides has the variance
    ``σ² (1 - c φ^m + d φ^{2m})`` up to a factor known from ``a, b``; ``σ`` of each curve and ``φ`` of all are those
    that fit the medians of its square at lags up to 16, over at most .35 of log step. Medians: the few records in the
    middle of a transition do not count.

    Args:
      records: Log steps, shape ``(T,)``, ``T ≥ 3``.
      curves: Shape ``(T, C)``.

    Source: Hall and Van Keilegom 2003, difference-based estimates of autoregressive errors.
    """
    powers, shapes, first = [], [], np.zeros(curves.shape)
    for lag in _LAGS:
        if 2 * lag >= len(records):
            break
        near = records[2 * lag :] - records[: -2 * lag] <= _SPAN
        if near.sum() < _LEAST_DIFFERENCES:
            if lag > 1:
                break
            near[:] = True
        before, after = records[lag:-lag] - records[: -2 * lag], records[2 * lag :] - records[lag:-lag]
        left, right = after / (before + after), before / (before + after)
        size = 1 + left**2 + right**2
        differences = (
            curves[lag:-lag] - left[:, None] * curves[: -2 * lag] - right[:, None] * curves[2 * lag :]
        ) / np.sqrt(size)[:, None]
        powers.append(np.median(differences[near] ** 2, axis=0) / _MEDIAN_SQUARE)
        shapes.append((lag, np.median(2 / size[near]), np.median((2 * left * right / size)[near])))
        first = differences if lag == 1 else first
    lags, once, twice = np.array(shapes).T
    expected = 1 - once * _AUTOCORRELATIONS[:, None] ** lags + twice * _AUTOCORRELATIONS[:, None] ** (2 * lags)
    weights = (1 / np.sqrt(lags))[:, None] / np.sum(1 / np.sqrt(lags))
    gaps = np.log(np.maximum(powers, np.finfo(float).tiny))[None] - np.log(expected)[:, :, None]
    levels = (gaps * weights).sum(axis=1)
    best = int((weights * (gaps - levels[:, None]) ** 2).sum(axis=(1, 2)).argmin())
    least = np.maximum(_LEAST_NOISE * np.ptp(curves, axis=0), np.finfo(float).tiny)
    return Noise(
        float(_AUTOCORRELATIONS[best]), np.maximum(np.exp(levels[best] / 2), least), _correlation(first, powers[0])
    )


def noise_slopes(noise: Noise, cells: Cells, count: int, random: np.random.Generator, order: int = 1) -> np.ndarray:
    """Slopes (order 1) or values (order 0) of histories of nothing but noise, shape ``(G, count, C)``."""
    from scipy.signal import lfilter

    alone = []
    for _ in noise.deviation:
        shocks = random.standard_normal((len(cells.records), count))
        shocks[1:] *= np.sqrt(1 - noise.autocorrelation**2)
        alone.append(slopes(cells, lfilter([1.0], [1.0, -noise.autocorrelation], shocks, axis=0), order=order))
    # slopes are linear in the curves: what the curves share is mixed in afterwards
    return np.stack(alone, axis=-1) @ np.linalg.cholesky(noise.correlation).T * noise.deviation


def _correlation(differences: np.ndarray, power: np.ndarray) -> np.ndarray:
    """Correlation of the curves' noise, with what is too large to be noise cut off."""
    scaled = np.clip(differences / np.sqrt(np.maximum(power, np.finfo(float).tiny)), -3, 3)
    products = scaled.T @ scaled
    size = np.sqrt(np.maximum(np.diag(products), np.finfo(float).tiny))
    # a little less than found: two copies of one curve have no independent noise, and no Cholesky factor
    return 0.99 * products / np.outer(size, size) * (1 - np.eye(len(size))) + np.eye(len(size))
