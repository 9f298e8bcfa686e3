"""The number of examples at which two free energies cross, solved exactly, with an interval that covers."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

#: Draws over which it is counted how often there is a crossing at all.
_DRAWS = 2000
#: Logarithms of the number of examples between which a crossing is looked for: from e to 10^34.
_LOGS = np.linspace(1.0, 80.0, 4000)


class Crossing(NamedTuple):
    """Where two phases change places, the later against the earlier.

    Attributes:
      n: Number of examples (``nβ`` of a tempered posterior); NaN where there is no crossing above e.
      low, high: 95 % confidence interval of it. ``high`` is infinite where the errors do not exclude that there is no
        crossing; both are NaN where they exclude every one.
      certainty: Probability that there is a crossing, the errors being normal.
      few: ``"earlier"`` or ``"later"``: which has the lower free energy below ``n``; at every n where that is NaN.
      many: Which has it above.
    """

    n: float
    low: float
    high: float
    certainty: float
    few: str
    many: str


def crossing(
    loss_change: float,
    coefficient_change: float,
    *,
    loss_error: float = 0.0,
    coefficient_error: float = 0.0,
    covariance: float = 0.0,
    multiplicity_change: float = 0.0,
    constant_change: float = 0.0,
    seed: int = 0,
) -> Crossing:
    """The last n above e at which ``f(n) = n ΔL + Δλ log n - Δm log log n + Δc`` changes sign.

    ``f`` is the free energy of the later phase less that of the earlier, at ``β = 1``, to the orders ``n``, ``log n``
    and ``log log n``; the term of order 1 is left out unless ``constant_change`` gives it, and what vanishes with n
    always. With ``Δm = Δc = 0``, ``n = exp(-W₋₁(ΔL / Δλ))``, where the second real branch of Lambert's function exists:
    ``ΔL / Δλ`` from ``-1/e`` to 0. The interval holds all n of ``|f(n)| ≤ 1.96 sd(f(n))``: it covers the true crossing
    in 95 % of cases whatever the ratio of the errors (Fieller), where a spread of ``n`` itself would not.

    Args:
      loss_change: ``ΔL``, later less earlier, nats for each example.
      coefficient_change: ``Δλ``.
      loss_error, coefficient_error: Their standard errors.
      covariance: Of the two errors, at most their product.
      multiplicity_change: ``Δm``, with m = 1 where nothing else is known.
      constant_change: ``Δc`` in nats: of ``-log`` of prior density and volume.
      seed: Of the draws behind ``certainty``.

    Raises:
      ValueError: a number that is not finite, an error below 0, or a covariance beyond the product of the errors.

    Not to be believed where ``n`` is small, for what is left out is of order 1: it moves ``log n`` by about ``Δc / (n
    |ΔL|)``.

    Source: Watanabe 2018, Mathematical Theory of Bayesian Statistics, section 9.4; Chen, Lau, Mendel, Wei & Murfet
    2023, arXiv:2310.06301; Fieller 1954, J. R. Stat. Soc. B 16, for the interval.

    >>> found = crossing(-0.01, 2.0, coefficient_error=0.1)
    >>> bool(abs(-0.01 * found.n + 2 * np.log(found.n)) < 1e-9), found.few, found.many
    (True, 'earlier', 'later')
    >>> crossing(-0.01, -1.0).n, crossing(-0.01, -1.0).few
    (nan, 'later')
    """
    changes = (loss_change, coefficient_change, multiplicity_change, constant_change)
    errors = (loss_error, coefficient_error)
    if not np.isfinite([*changes, *errors, covariance]).all() or min(errors) < 0:
        raise ValueError(f"changes, errors: got {changes} and {errors}; all must be finite, and errors at least 0.")
    if abs(covariance) > (1 + 1e-12) * loss_error * coefficient_error:
        raise ValueError(f"covariance: got {covariance}; it is at most the product of the errors.")
    logs = _last_root(*changes)
    beyond = _signs(*changes, _LOGS)[-1]
    many = "later" if beyond < 0 else "earlier"
    few = many if np.isnan(logs) else ("earlier" if many == "later" else "later")
    low, high = _interval(changes, errors, covariance, logs)
    n = float(np.exp(logs))
    return Crossing(n, low, high, _certainty(changes, errors, covariance, seed), few, many)


def _gap(loss: ArrayLike, coefficient: ArrayLike, multiplicity: float, constant: float, logs: ArrayLike) -> np.ndarray:
    u = np.asarray(logs, float)
    return np.exp(u) * np.asarray(loss) + np.asarray(coefficient) * u - multiplicity * np.log(u) + constant


def _signs(
    loss: ArrayLike, coefficient: ArrayLike, multiplicity: float, constant: float, logs: ArrayLike
) -> np.ndarray:
    return np.sign(_gap(loss, coefficient, multiplicity, constant, logs))


def crossing_at(
    loss_change: float, coefficient_change: float, multiplicity_change: float = 0.0, constant_change: float = 0.0
) -> float:
    """The ``n`` of ``crossing`` alone, without errors: NaN where the two do not change places above e."""
    return float(np.exp(_last_root(loss_change, coefficient_change, multiplicity_change, constant_change)))


def _last_root(loss: float, coefficient: float, multiplicity: float, constant: float) -> float:
    """``log n`` of the last crossing, or NaN."""
    from scipy.optimize import brentq
    from scipy.special import lambertw

    if multiplicity == 0 and constant == 0:
        ratio = loss / coefficient if coefficient else 0.0
        return float(-lambertw(ratio, -1).real) if -np.exp(-1.0) <= ratio < 0 else np.nan
    signs = _signs(loss, coefficient, multiplicity, constant, _LOGS)
    changes = np.flatnonzero(signs[1:] * signs[:-1] < 0)
    if not changes.size:
        return np.nan
    last = changes[-1]
    return float(brentq(lambda u: _gap(loss, coefficient, multiplicity, constant, u), _LOGS[last], _LOGS[last + 1]))


def _interval(
    changes: tuple[float, float, float, float], errors: tuple[float, float], covariance: float, logs: float
) -> tuple[float, float]:
    """The least and the greatest n at which the gap is not told from 0."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    limit = norm.ppf(0.975) ** 2

    def beyond(u: np.ndarray) -> np.ndarray:
        spread = (np.exp(u) * errors[0]) ** 2 + (u * errors[1]) ** 2 + 2 * np.exp(u) * u * covariance
        # over the square of the largest term, lest it overflow what can be told apart
        return (_gap(*changes, u) ** 2 - limit * spread) / np.exp(2 * u)

    grid = _LOGS if np.isnan(logs) else np.unique([*_LOGS, logs])
    held = beyond(grid) <= 0
    if not np.isnan(logs):
        held |= grid == logs
    inside = np.flatnonzero(held)
    if not inside.size:
        return np.nan, np.nan
    ends = []
    for index, outer in ((inside[0], inside[0] - 1), (inside[-1], inside[-1] + 1)):
        if outer < 0 or outer == len(grid):
            ends.append(grid[index] if outer < 0 else np.inf)
        elif beyond(grid[index]) >= 0:
            ends.append(grid[index])  # no errors at all
        else:
            ends.append(brentq(beyond, *sorted((grid[index], grid[outer])), xtol=1e-12))
    return float(np.exp(ends[0])), float(np.exp(ends[1]))


def _certainty(
    changes: tuple[float, float, float, float], errors: tuple[float, float], covariance: float, seed: int
) -> float:
    """Share of draws of the two changes in which the gap changes sign above e."""
    noise = np.random.default_rng(seed).standard_normal((2, _DRAWS))
    shared = covariance / errors[0] if errors[0] else 0.0
    own = np.sqrt(max(errors[1] ** 2 - shared**2, 0.0))
    loss, coefficient = changes[0] + errors[0] * noise[0], changes[1] + shared * noise[0] + own * noise[1]
    signs = _signs(loss[:, None], coefficient[:, None], changes[2], changes[3], _LOGS[None, ::40])
    return float((signs[:, 1:] * signs[:, :-1] < 0).any(axis=1).mean())
