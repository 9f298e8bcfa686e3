"""What poles of the zeta function leave in a flow: the curves that candidates fit to it, and their priors."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

#: What b of ``log β + b`` usually is, ``log β`` counted from the hottest rung, and how usual: a ladder from the
#: prior on knows the unit in which it measures K. Less is for a singularity that begins at a smaller scale.
_EARLIEST, _LATEST, _USUAL = -3.0, 6.0, 0.95
#: The most that it is taken to be, as where the hottest rung is far below the prior.
_MOST = 30.0


class Family(NamedTuple):
    """A candidate's curve: ``λ_eff = λ + shape(x, θ)``, where x is ``log β`` from the hottest rung of all."""

    name: str
    multiplicity: int
    shape: Callable[[np.ndarray, np.ndarray], np.ndarray]
    low: Callable[[float], np.ndarray]
    high: Callable[[float], np.ndarray]
    starts: Callable[[float], np.ndarray]
    span: Callable[[float, np.ndarray], np.ndarray]


def one_pole(multiplicity: int, cold: float) -> Family:
    """``P = y^o + o(o-1)/2 κ y^{o-2}`` with ``o = m - 1`` and ``y = log β + b`` at least 1 in the range.

    ``Z`` is an inverse Mellin transform of ``Γ(s) ζ(s)``: b and κ are the first two derivatives at the pole of the log
    of what multiplies it. Γ gives κ ``ψ'(λ)``; a Gaussian prior adds ``π²/6`` for each of the m factors, a uniform
    one none.
    """
    from scipy.special import polygamma

    order = multiplicity - 1
    pairs = 0.5 * order * (order - 1)

    def shape(x: np.ndarray, theta: np.ndarray) -> np.ndarray:
        if order == 0:
            return 0 * x
        y = x - x[0] + theta[0]
        if order == 1:
            return -1 / y
        kappa = pairs * theta[1]
        return -(order * y**2 + (order - 2) * kappa) / (y * (y**2 + kappa))

    widest = float(polygamma(1, max(cold, 0.1))) + 3.0 * multiplicity
    count = min(order, 2)

    def high(begin: float) -> np.ndarray:
        return np.array([begin + _MOST, widest])[:count]

    def starts(begin: float) -> np.ndarray:
        shifts = np.geomspace(1.0, begin + _MOST, 32)
        return np.stack([shifts, np.full_like(shifts, 0.5 * widest)], axis=1)[:, :count]

    def span(begin: float, theta: np.ndarray) -> np.ndarray:
        """One over the density of the prior: most of it where ``log β`` counts from near the hottest rung."""
        usual = (theta[:1] > begin + _EARLIEST) & (theta[:1] < begin + _LATEST)
        rest = (begin + _MOST - (_LATEST - _EARLIEST)) / (1 - _USUAL)
        return np.append(np.where(usual, (_LATEST - _EARLIEST) / _USUAL, rest), widest + 0.3)[:count]

    low = np.array([1.0, -0.3])[:count]
    return Family(f"one pole, m = {multiplicity}", multiplicity, shape, lambda begin: low, high, starts, span)


def two_poles() -> Family:
    """A simple pole and the next one: its distance ``log Δ``, and its size where the range begins."""

    def shape(x: np.ndarray, theta: np.ndarray) -> np.ndarray:
        distance = np.exp(theta[0])
        size = theta[1] * np.exp(-distance * (x - x[0]))
        return distance * size / (1 + size)

    low, high = np.array([np.log(0.05), -0.8]), np.array([np.log(3.0), 10.0])
    grid = [(d, r) for d in np.linspace(low[0], high[0], 16) for r in (-0.5, -0.1, 0.05, 0.2, 0.5, 1.0, 2.0, 5.0)]
    starts = np.array(grid)
    return Family("two poles", 1, shape, lambda s: low, lambda s: high, lambda s: starts, lambda s, theta: high - low)
