"""How fast a cloud of samples shrinks as it is cooled, direction by direction and coordinate by coordinate.

Pure functions of draws at several temperatures, whoever drew them: displacements from the minimum ``(rung, sample, d)``
with the inverse temperature ``nβ`` of each rung. Errors are jackknife errors over blocks of consecutive samples.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

BLOCKS = 20


class DivisorWeights(NamedTuple):
    """The exponents with which the principal components of a cloud shrink.

    Attributes:
      weights: ``(d,)``: ``w_i`` with ``Var(PC_i) ∝ nβ^{-2 w_i}``, the narrowest component of the coldest rung first.
      std_errors: ``(d,)``.
      directions: ``(rung, d, d)``: the components as rows, followed from rung to rung.
      total: ``Σ w_i``: λ where the loss is quasi-homogeneous with an isolated zero.
      total_error: Its standard error, the weights' correlations included.
      overlap: The least ``|⟨v, v'⟩|`` of a component with itself on the next rung; near 1 where they do not turn.
    """

    weights: np.ndarray
    std_errors: np.ndarray
    directions: np.ndarray
    total: float
    total_error: float
    overlap: float


class ContactExponents(NamedTuple):
    """How fast each coordinate, or group of them, approaches the minimum.

    Attributes:
      exponents: ``(group,)``: ``e = -d E[log |z|] / d log nβ``.
      std_errors: ``(group,)``.
      total: ``Σ e``: λ where the coordinates are adapted to the singularity.
      total_error: Its standard error, correlations included.
      ratio: ``Σ e / λ`` where λ was given, else None: 1 is the check of validity.
    """

    exponents: np.ndarray
    std_errors: np.ndarray
    total: float
    total_error: float
    ratio: float | None


def divisor_weights(z: Any, nbetas: Any, *, blocks: int = BLOCKS) -> DivisorWeights:
    """The weights ``w_i`` with which the principal components of the samples shrink: ``Var(PC_i) ∝ nβ^{-2 w_i}``.

    For ``K = Σ_i |x_i|^{1/w_i}`` in orthogonal coordinates ``x_i = nβ^{-w_i} ξ_i`` with ``ξ`` of a law without
    temperature, and ``λ = Σ w_i``. Components are followed from the coldest rung up by their overlaps.

    Args:
      z: Draws ``(rung, sample, d)``, displacements from the minimum, any units.
      nbetas: ``(rung,)``, the inverse temperature ``nβ`` of each rung, distinct.
      blocks: Blocks of consecutive samples for the jackknife; a block should be longer than the correlations.

    Returns:
      Weights, errors, directions and their sum.

    Raises:
      ValueError: draws of another shape, fewer than two rungs, fewer samples than blocks, values that are not finite.

    Not to be believed where the minimum set is not a point: along it the variance is that of the localisation (weight
    0) and components mix, as for ``x y``, where branches of different shape are averaged. Where the law is not
    quasi-homogeneous the slope is that of the temperatures given. ``overlap`` far below 1: components turn, and a
    slope belongs to no one direction.

    Source: quasi-homogeneous weights: Arnold, Gusein-Zade and Varchenko 1988, Singularities of Differentiable Maps II;
    jackknife: Efron 1982.

    >>> random, nbetas = np.random.default_rng(0), np.array([1e2, 1e3, 1e4])
    >>> scales = np.stack([nbetas**-0.5, nbetas**-0.25], axis=-1)
    >>> found = divisor_weights(random.normal(size=(3, 4000, 2)) * scales[:, None, :], nbetas)
    >>> found.weights.round(2), round(found.total, 2)
    (array([0.5 , 0.25]), 0.75)
    """
    draws, logs = check_draws(z, nbetas, blocks)
    draws, logs, inverse = _from_coldest(draws, logs)
    frames, overlap = _followed(draws)

    def weights(part: np.ndarray) -> np.ndarray:
        # along fixed frames: to first order the change of an eigenvalue is that of the variance along its vector
        projected = np.einsum("rsd,rkd->rsk", part, frames)
        return -0.5 * _slopes(np.log(projected.var(axis=1)), logs)

    value, covariance = _jackknife(weights, draws, blocks)
    return DivisorWeights(
        weights=value,
        std_errors=np.sqrt(np.diag(covariance)),
        directions=frames[inverse],
        total=float(value.sum()),
        total_error=float(np.sqrt(covariance.sum())),
        overlap=overlap,
    )


def contact_exponents(
    z: Any,
    nbetas: Any,
    *,
    groups: Sequence[Sequence[int]] | None = None,
    learning_coefficient: float | None = None,
    blocks: int = BLOCKS,
) -> ContactExponents:
    """The order of contact of each coordinate: ``e_i = -∂ E[log |z_i|] / ∂ log nβ``.

    Where ``K`` is a function of monomials in these coordinates ``Σ e_i = λ``, with a correction of the order of
    ``(m - 1)/log² nβ`` where that of an energy is ``(m - 1)/log nβ``.

    Args:
      z: Draws ``(rung, sample, d)``, displacements from the minimum, any units.
      nbetas: ``(rung,)``, distinct.
      groups: Lists of coordinates; a group enters by its norm. Default every coordinate by itself.
      learning_coefficient: λ to compare with, from elsewhere.
      blocks: Blocks of consecutive samples for the jackknife.

    Returns:
      Exponents with errors, their sum, and its ratio to λ.

    Raises:
      ValueError: as ``divisor_weights``; a group that is empty or names no coordinate; a draw that is exactly 0.

    Not to be believed where the ratio is not 1: the coordinates are not adapted then (0 for the layers of a linear
    network of rank 0). A norm counts a group of several coordinates once: its exponent adds up to λ only after
    multiplication by how many of them move independently.

    Source: contact orders of arcs: Ein, Lazarsfeld and Mustaţă 2004, arXiv:math/0303268; Watanabe 2009, Algebraic
    Geometry and Statistical Learning Theory.

    >>> random, nbetas = np.random.default_rng(0), np.array([1e2, 1e3, 1e4])
    >>> found = contact_exponents(random.normal(size=(3, 4000, 1)) * nbetas[:, None, None] ** -0.5, nbetas)
    >>> bool(abs(found.total - 0.5) < 4 * found.total_error)
    True
    """
    draws, logs = check_draws(z, nbetas, blocks)
    chosen = [[i] for i in range(draws.shape[2])] if groups is None else [list(group) for group in groups]
    if not chosen or any(not group or not all(0 <= i < draws.shape[2] for i in group) for group in chosen):
        raise ValueError(f"groups: got {groups}; each must name coordinates between 0 and {draws.shape[2] - 1}.")
    sizes = np.stack([np.linalg.norm(draws[..., group], axis=-1) for group in chosen], axis=-1)
    if (sizes == 0).any():
        raise ValueError("z: a draw is exactly 0 in some group, where log |z| is infinite; leave out the start.")
    value, covariance = _jackknife(lambda part: -_slopes(part.mean(axis=1), logs), np.log(sizes), blocks)
    return ContactExponents(
        exponents=value,
        std_errors=np.sqrt(np.diag(covariance)),
        total=float(value.sum()),
        total_error=float(np.sqrt(covariance.sum())),
        ratio=None if learning_coefficient is None else float(value.sum()) / float(learning_coefficient),
    )


def check_draws(z: Any, nbetas: Any, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws in float64 and ``log nβ``, or a ``ValueError`` that names what is wrong."""
    draws, inverse = np.asarray(z, np.float64), np.asarray(nbetas, np.float64)
    if draws.ndim != 3 or inverse.shape != draws.shape[:1]:
        raise ValueError(
            f"z, nbetas: got shapes {draws.shape} and {inverse.shape}; pass (rung, sample, d) and (rung,)."
        )
    if not (np.isfinite(draws).all() and np.isfinite(inverse).all() and (inverse > 0).all()):
        raise ValueError("z, nbetas: a value is not finite, or nbeta not positive; leave out what diverged.")
    if len(np.unique(inverse)) < 2:
        raise ValueError(f"nbetas: got {inverse}; a slope needs two different temperatures or more.")
    if not 2 <= blocks <= draws.shape[1] // 2:
        raise ValueError(f"blocks: got {blocks}; it must lie between 2 and half of the {draws.shape[1]} samples.")
    return draws, np.log(inverse)


def _from_coldest(draws: np.ndarray, logs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    order = np.argsort(-logs)
    return draws[order], logs[order], np.argsort(order)


def _followed(draws: np.ndarray) -> tuple[np.ndarray, float]:
    """Principal components as rows, ``(rung, d, d)``, the coldest rung first, in the order of that rung."""
    from scipy.optimize import linear_sum_assignment

    frames: list[np.ndarray] = []
    least = 1.0
    for part in draws:
        frame = np.linalg.eigh(np.atleast_2d(np.cov(part, rowvar=False)))[1].T
        if frames:
            overlaps = np.abs(frames[-1] @ frame.T)
            rows, columns = linear_sum_assignment(-overlaps)
            least = min(least, float(overlaps[rows, columns].min()))
            frame = frame[columns]
        frames.append(frame)
    return np.stack(frames), least


def _slopes(values: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """Least-squares slopes of ``values (rung, k)`` against ``log nβ``, ``(k,)``."""
    centred = logs - logs.mean()
    return centred @ (values - values.mean(axis=0)) / (centred @ centred)


def _jackknife(
    statistic: Callable[[np.ndarray], np.ndarray], draws: np.ndarray, blocks: int
) -> tuple[np.ndarray, np.ndarray]:
    """A statistic of all samples and its covariance, from leaving out one block of consecutive samples at a time."""
    left_out = np.stack(
        [statistic(np.delete(draws, cut, axis=1)) for cut in np.array_split(np.arange(draws.shape[1]), blocks)]
    )
    spread = left_out - left_out.mean(axis=0)
    return statistic(draws), (blocks - 1) / blocks * spread.T @ spread
