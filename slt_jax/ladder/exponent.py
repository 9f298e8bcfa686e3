"""The exponent and the multiplicity behind a flow: candidates that explain it, and how well each does."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from slt_jax.ladder.poles import Family, one_pole, two_poles

#: What a candidate's next terms may add to λ_eff, as a share of it: no data are taken to be better than this.
_MODEL_ERROR = 5e-4
#: Rungs that a fit needs, and the share of the covariance between rungs that is not believed.
LEAST_RUNGS, _SHRINKAGE = 6, 0.2
#: What leaving out the hottest rungs costs, in logarithms of probability for each factor of e in temperature: not for
#: each rung, because many rungs close together say no more than few.
_FORGONE = 0.55
#: Weight from which a multiplicity counts as resolved.
RESOLVED = 0.95


class Candidate(NamedTuple):
    """One way to explain a flow.

    Attributes:
      name: ``"one pole, m = 2"``, or ``"two poles"``.
      multiplicity: m of the leading pole.
      learning_coefficient, std_error: λ of the leading pole.
      weight: Its share of the probability of all candidates.
      chi_squared, points: Of its best range of temperatures.
      parameters: Beside λ: ``log β`` is counted from ``-b``, or distance and size of the next pole.
    """

    name: str
    multiplicity: int
    learning_coefficient: float
    std_error: float
    weight: float
    chi_squared: float
    points: int
    parameters: tuple[float, ...]


class Exponent(NamedTuple):
    """What a flow says about the leading singularity.

    Attributes:
      learning_coefficient, std_error: λ, averaged over candidates and ranges.
      multiplicity: m where one has 95 % of the weight, else None: unresolved.
      weights: Of ``m = 1, 2, 3, 4``.
      candidates: From the most to the least probable.
    """

    learning_coefficient: float
    std_error: float
    multiplicity: int | None
    weights: tuple[float, ...]
    candidates: tuple[Candidate, ...]

    def explain(self) -> str:
        """In words."""
        if not self.candidates:
            return "λ and m are unresolved: fewer than six rungs are sound. Draw more, or ask for less depth."
        value = f"λ {self.learning_coefficient:.4g} ± {self.std_error:.2g}"
        if self.multiplicity is not None:
            return f"{value}, m = {self.multiplicity} (weight {self.weights[self.multiplicity - 1]:.3f})."
        likely = ", ".join(f"m = {m} ({weight:.2f})" for m, weight in enumerate(self.weights, 1) if weight > 0.05)
        return f"{value}; m is unresolved: {likely} explain the data. Go to a lower temperature, or draw more."


#: Where there is too little to fit.
UNKNOWN = Exponent(float("nan"), float("inf"), None, (0.25,) * 4, ())


class _Fit(NamedTuple):
    family: Family
    first: int
    value: float
    error: float
    theta: np.ndarray
    chi_squared: float
    log_weight: float


def fit_exponent(nbetas: Sequence[float] | np.ndarray, per_chain: np.ndarray, error: np.ndarray) -> Exponent:
    """λ and m from λ_eff at a ladder of temperatures.

    A pole of order m at λ leaves ``Z(β) ∝ β^{-λ} P(log β)`` with P of degree m - 1, so that
    ``λ_eff = λ - P'/P``; two simple poles leave ``λ_eff = λ + Δ r β^{-Δ} / (1 + r β^{-Δ})``. The candidates
    {one pole, m = 1, 2, 3, 4; a pole and the next one} are fitted together, on all ranges of temperatures that end at
    the coldest rung, each weighted by its likelihood, by the share of its parameters' range that explains the data,
    and by ``e^{-0.55}`` for each factor of e in temperature left out.

    Args:
      nbetas: ``nβ``, shape ``(rung,)``.
      per_chain: λ_eff of each chain, shape ``(rung, chain)``: chains are independent, and their scatter gives the
        covariance between rungs.
      error: Standard error of the mean on each rung, shape ``(rung,)``; the covariance is scaled up to it.

    Returns:
      λ and its error (that between candidates included), m or None, and the candidates with their weights.

    Raises:
      ValueError: fewer than six rungs, or values that are not finite.

    Not to be believed where the asymptotic range was not reached, as at a crossover: the candidates then explain
    little, and ``chi_squared`` far exceeds ``points``. A second pole so close that its share never falls below a tenth
    looks like m = 2: both candidates then have weight.

    Source: the poles: Watanabe 2009, Algebraic Geometry and Statistical Learning Theory, theorem 4.9; weights over
    models and ranges: Jay & Neil 2021, arXiv:2008.01069.

    >>> nbetas = np.geomspace(1e2, 1e12, 12)
    >>> wiggle = 1e-3 * np.sin(np.arange(12 * 8)).reshape(12, 8)
    >>> found = fit_exponent(nbetas, (0.5 - 1 / np.log(30 * nbetas))[:, None] + wiggle, np.full(12, 4e-4))
    >>> found.multiplicity, abs(found.learning_coefficient - 0.5) < 0.002
    (2, True)
    """
    order = np.argsort(nbetas)
    depth = np.log(np.asarray(nbetas, np.float64)[order])
    chains, errors = np.asarray(per_chain, np.float64)[order], np.asarray(error, np.float64)[order]
    if len(depth) < LEAST_RUNGS:
        raise ValueError(f"nbetas: got {len(depth)} rungs; a fit of the exponent needs {LEAST_RUNGS}.")
    if not (np.isfinite(chains).all() and np.isfinite(errors).all()):
        raise ValueError("per_chain: has values that are not finite; leave out the rungs that diverged.")
    values, covariance = chains.mean(axis=1), _covariance(chains, errors)
    families = (*(one_pole(m, values[-1]) for m in (1, 2, 3, 4)), two_poles())
    fits = [
        _fit(family, first, depth - depth[0], values, covariance)
        for first in range(len(depth) - LEAST_RUNGS + 1)
        for family in families
    ]
    return _averaged(fits, families, len(depth))


def _covariance(chains: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Of the means: from the scatter of the chains, shrunk towards none between rungs, and scaled to the errors."""
    scatter = np.cov(chains)
    size = np.sqrt(np.maximum(np.diag(scatter), 1e-300))
    correlation = (1 - _SHRINKAGE) * scatter / np.outer(size, size) + _SHRINKAGE * np.eye(len(size))
    np.fill_diagonal(correlation, 1.0)
    floor = (_MODEL_ERROR * np.abs(chains.mean(axis=1))) ** 2
    return correlation * np.outer(errors, errors) + np.diag(floor + 1e-300)


def _fit(family: Family, first: int, x: np.ndarray, values: np.ndarray, covariance: np.ndarray) -> _Fit:
    from scipy.linalg import solve_triangular
    from scipy.optimize import least_squares

    skipped = x[first]
    x, values = x[first:], values[first:]
    root = np.linalg.cholesky(covariance[first:, first:])

    def whiten(vectors: np.ndarray) -> np.ndarray:
        return solve_triangular(root, vectors, lower=True)

    ones = whiten(np.ones_like(x))

    def residuals(theta: np.ndarray) -> np.ndarray:
        rest = whiten(values - family.shape(x, theta))
        return rest - ones * (ones @ rest) / (ones @ ones)

    low, high = family.low(x[0]), family.high(x[0])
    theta, occam, widened = np.zeros(0), 0.0, 0.0
    if len(low):
        begins = family.starts(x[0])
        best = min(begins, key=lambda start: float(np.sum(residuals(start) ** 2)))
        found = least_squares(residuals, np.clip(best, low + 1e-9, high - 1e-9), bounds=(low, high), x_scale=high - low)
        theta = found.x
        occam = _occam(found.jac, family.span(x[0], theta))
        slopes = np.stack([_slope(family, x, theta, index, high - low) for index in range(len(low))], axis=1)
        widened = _widening(ones, whiten(slopes), high - low)
    chi_squared = float(np.sum(residuals(theta) ** 2))
    rest = whiten(values - family.shape(x, theta))
    value, error = float(ones @ rest / (ones @ ones)), float(np.sqrt(1 / (ones @ ones) + widened))
    return _Fit(family, first, value, error, theta, chi_squared, -0.5 * chi_squared + occam - _FORGONE * skipped)


def _occam(jacobian: np.ndarray, span: np.ndarray) -> float:
    """Log of the share of the parameters' range that explains the data as well, to second order."""
    scaled = jacobian * span[None, :]
    # a parameter that the data do not see is spread over all of its range, whose variance is 1/12
    precision = scaled.T @ scaled + 2 * np.pi * np.eye(len(span))
    return float(0.5 * (len(span) * np.log(2 * np.pi) - np.linalg.slogdet(precision)[1]))


def _widening(ones: np.ndarray, slopes: np.ndarray, span: np.ndarray) -> float:
    """Variance of λ that comes from the other parameters."""
    scaled = slopes * span[None, :]
    apart = scaled - np.outer(ones, ones @ scaled) / (ones @ ones)
    precision = apart.T @ apart + 12 * np.eye(len(span))
    shift = ones @ scaled / (ones @ ones)
    return float(shift @ np.linalg.solve(precision, shift))


def _slope(family: Family, x: np.ndarray, theta: np.ndarray, index: int, span: np.ndarray) -> np.ndarray:
    step = np.zeros_like(theta)
    step[index] = 1e-5 * span[index]
    return (family.shape(x, theta + step) - family.shape(x, theta - step)) / (2 * step[index])


def _averaged(fits: list[_Fit], families: Sequence[Family], rungs: int) -> Exponent:
    logs = np.array([fit.log_weight for fit in fits])
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    values, errors = np.array([fit.value for fit in fits]), np.array([fit.error for fit in fits])
    mean = float(weights @ values)
    spread = float(np.sqrt(weights @ (errors**2 + (values - mean) ** 2)))
    orders = np.array([fit.family.multiplicity for fit in fits])
    by_order = tuple(float(weights[orders == m].sum()) for m in (1, 2, 3, 4))
    best = int(np.argmax(by_order))
    candidates = []
    for family in families:
        mine = [index for index, fit in enumerate(fits) if fit.family is family]
        share = float(weights[mine].sum())
        top = fits[max(mine, key=lambda index: weights[index])]
        inside = weights[mine] / share if share > 0 else np.full(len(mine), 1 / len(mine))
        value = float(inside @ values[mine])
        error = float(np.sqrt(inside @ (errors[mine] ** 2 + (values[mine] - value) ** 2)))
        candidates.append(
            Candidate(
                family.name,
                family.multiplicity,
                value,
                error,
                share,
                top.chi_squared,
                rungs - top.first,
                tuple(top.theta.tolist()),
            )
        )
    candidates.sort(key=lambda candidate: -candidate.weight)
    resolved = best + 1 if by_order[best] >= RESOLVED else None
    return Exponent(mean, spread, resolved, by_order, tuple(candidates))
