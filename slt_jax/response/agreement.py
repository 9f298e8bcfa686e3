"""Whether two readings found the same: labels up to their names, axes up to their order, matrices up to noise."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from slt_jax.types import Array


def rand_indices(labels: Sequence[Array | np.ndarray]) -> np.ndarray:
    """Adjusted Rand index of every pair of labellings: 1 where they are the same up to names, about 0 by chance.

    Args:
      labels: At least two, each of shape ``(entry,)``; entries in no cluster (-1) count as one.

    Returns:
      One number for each pair, in the order (0, 1), (0, 2), ..., (1, 2), ...; 0 where neither has found anything.

    Raises:
      ValueError: there are fewer than two, or they are of different lengths.

    Source: Hubert & Arabie 1985, doi:10.1007/BF01908075.

    >>> rand_indices([np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]), np.array([0, 1, 0, 1])]).tolist()
    [1.0, -0.5, -0.5]
    """
    from sklearn.metrics import adjusted_rand_score

    given = [np.asarray(one) for one in labels]
    if len(given) < 2 or any(one.ndim != 1 or len(one) != len(given[0]) for one in given):
        raise ValueError(f"labels: got shapes {[one.shape for one in given]}; pass at least two of one length.")
    # that all entries are in none says nothing: two such labellings do not agree on anything
    return np.array(
        [
            adjusted_rand_score(a, b) if max(len(np.unique(a)), len(np.unique(b))) > 1 else 0.0
            for a, b in combinations(given, 2)
        ]
    )


def principal_angles(left: Array | np.ndarray, right: Array | np.ndarray) -> np.ndarray:
    """Angles between two subspaces, the smallest first, radians, shape ``(axis,)``.

    Args:
      left, right: Orthonormal columns, shapes ``(entry, axis)``, of one height and width.

    Returns:
      0 where a direction is in both, π/2 where one of either is at right angles to all of the other.

    Raises:
      ValueError: the shapes differ.

    Source: Björck & Golub 1973, doi:10.1090/S0025-5718-1973-0348991-3.

    >>> principal_angles(np.eye(3)[:, :2], np.eye(3)[:, 1:]).round(3).tolist()
    [0.0, 1.571]
    """
    one, other = np.asarray(left, np.float64), np.asarray(right, np.float64)
    if one.ndim != 2 or one.shape != other.shape:
        raise ValueError(
            f"left, right: got shapes {one.shape} and {other.shape}; pass as many axes of the same entries."
        )
    from scipy.linalg import subspace_angles

    return np.sort(subspace_angles(one, other)) if one.shape[1] else np.zeros(0)


def matrix_correlations(matrices: Sequence[Array | np.ndarray]) -> np.ndarray:
    """Correlation, over all components and entries, of every pair of standardised matrices; in the order of pairs.

    An axis of noise that entries share comes back in every seed, with other components: here it does not.

    >>> matrix_correlations([np.array([[1.0, -1.0]]), np.array([[-2.0, 2.0]])]).round(3).tolist()
    [-1.0]
    """
    flat = [np.ravel(one).astype(np.float64) for one in matrices]
    units = [one / max(float(np.linalg.norm(one)), 1e-300) for one in flat]
    return np.array([one @ other for one, other in combinations(units, 2)])
