"""Change points of slopes: pieces of constant slope, at the smallest penalty that noise alone does not meet."""

import numpy as np


def change_points(signal: np.ndarray, penalty: float) -> np.ndarray:
    """Where a signal of several dimensions changes its mean.

    The exact minimum of ``Σ_pieces Σ_t |x_t - mean|² + penalty · (pieces - 1)``.

    Args:
      signal: Shape ``(N, C)``, scaled so that its noise is alike everywhere.
      penalty: For every change, from ``penalty_of``.

    Returns:
      Indices at which a new piece begins, increasing, between 1 and ``N - 1``.

    Source: Truong, Oudre and Vayatis 2020, arXiv:1801.00718; Killick, Fearnhead and Eckley 2012, arXiv:1101.1438.

    >>> random = np.random.default_rng(0)
    >>> signal = np.repeat([0.0, 5.0, 0.0], 20)[:, None] + random.normal(size=(60, 1))
    >>> change_points(signal, penalty_of(random.normal(size=(60, 100, 1)))).tolist()
    [20, 40]
    """
    import ruptures

    found = ruptures.KernelCPD(kernel="linear", min_size=1).fit(signal).predict(pen=penalty)
    return np.array(found[:-1], dtype=int)


def penalty_of(noise: np.ndarray, level: float = 0.95) -> float:
    """The ``level`` quantile, over histories of noise, of the smallest penalty at which they show no change.

    That is the gain of one change anywhere, or half of the gain of two.

    Args:
      noise: What the signal would be without any curve, shape ``(N, draws, C)``, autocorrelated as its noise is.
      level: Share of histories without a curve that shall show no change.
    """
    return float(np.quantile([_critical(noise[:, draw]) for draw in range(noise.shape[1])], level))


def _critical(alone: np.ndarray) -> float:
    """The smallest penalty at which one history shows neither one change nor two."""
    count = len(alone)
    sums = np.vstack([np.zeros(alone.shape[1]), np.cumsum(alone - alone.mean(axis=0), axis=0)])
    products = sums @ sums.T
    squares = np.diag(products)
    start, stop = np.triu_indices(count + 1, 1)
    proper = stop - start < count
    start, stop = start[proper], stop[proper]
    length = stop - start
    # the gain of a piece with a mean of its own over the rest, whose mean is another
    gains = (squares[start] + squares[stop] - 2 * products[start, stop]) * (1 / length + 1 / (count - length))
    once = (start == 0) | (stop == count)
    return max(float(gains[once].max()), float(gains.max()) / 2)
