"""Which of two phases a posterior prefers, and from how many examples on."""

from typing import NamedTuple

import numpy as np

#: Draws over which the errors of losses and coefficients are carried to the crossing.
_DRAWS = 4000
#: Numbers of examples between which a crossing is looked for.
_LEAST, _MOST = 3.0, 1e18


class Phase(NamedTuple):
    """A minimum as a phase of the posterior.

    Attributes:
      loss, loss_error: ``L(w*)`` and its standard error, nats for each example.
      learning_coefficient, coefficient_error: λ and its standard error.
      multiplicity: m.
    """

    loss: float
    loss_error: float
    learning_coefficient: float
    coefficient_error: float
    multiplicity: int = 1


class Competition(NamedTuple):
    """Two phases: which of them has the lower free energy, and from how many examples on.

    Attributes:
      n: Number of examples at which the two change places; NaN where they do not between 2 and 10^18.
      low, high: 95 % interval of it, over the draws in which they do.
      certainty: Share of the draws in which they change places.
      winner: ``"first"`` or ``"second"``: which has the lower free energy beyond ``n`` (at every n where it is NaN).
    """

    n: float
    low: float
    high: float
    certainty: float
    winner: str


def compete(first: Phase, second: Phase, *, seed: int = 0) -> Competition:
    """The number of examples at which the free energies of two phases cross.

    ``F = n L + λ log n - (m - 1) log log n``: few examples prefer the simpler phase, many the more accurate one.

    Args:
      first, second: The two phases.
      seed: Of the draws that carry the errors over.

    Returns:
      The crossing and its interval.

    Raises:
      ValueError: a loss, a coefficient or an error that is not finite, or an error below 0.

    Not to be believed where ``n`` is small: the expansion leaves out terms of order 1, and phases whose basins overlap
    are not two.

    Source: Watanabe 2018, Mathematical Theory of Bayesian Statistics, section 9.4; Chen, Lau, Mendel, Wei & Murfet
    2023, arXiv:2310.06301.

    >>> simple, accurate = Phase(0.02, 0.0, 2.0, 0.0), Phase(0.01, 0.0, 4.0, 0.0)
    >>> found = compete(simple, accurate)
    >>> bool(abs(0.01 * found.n - 2 * np.log(found.n)) < 1e-6), found.winner
    (True, 'second')
    """
    for name, phase in (("first", first), ("second", second)):
        if not all(np.isfinite(phase)) or phase.loss_error < 0 or phase.coefficient_error < 0:
            raise ValueError(f"{name}: got {phase}; all must be finite, and errors at least 0.")
    n, winner = _crossing(first, second)
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(_DRAWS):
        moved = [_moved(generator, phase) for phase in (first, second)]
        drawn.append(_crossing(moved[0], moved[1])[0])
    crossed = np.array([one for one in drawn if np.isfinite(one)])
    if crossed.size == 0:
        return Competition(n, float("nan"), float("nan"), 0.0, winner)
    low, high = np.quantile(crossed, [0.025, 0.975])
    return Competition(n, float(low), float(high), len(crossed) / _DRAWS, winner)


def _moved(generator: np.random.Generator, phase: Phase) -> Phase:
    return phase._replace(
        loss=phase.loss + phase.loss_error * generator.normal(),
        learning_coefficient=phase.learning_coefficient + phase.coefficient_error * generator.normal(),
    )


def _crossing(first: Phase, second: Phase) -> tuple[float, str]:
    """The last n at which the two change places, NaN where they do not, and who wins beyond."""

    def lead(logs: np.ndarray) -> np.ndarray:
        # by how much the first is higher
        gap = np.exp(logs) * (first.loss - second.loss)
        gap = gap + (first.learning_coefficient - second.learning_coefficient) * logs
        return gap - (first.multiplicity - second.multiplicity) * np.log(logs)

    logs = np.linspace(np.log(_LEAST), np.log(_MOST), 2000)
    signs = np.sign(lead(logs))
    winner = "second" if signs[-1] > 0 else "first"
    changes = np.flatnonzero(signs[1:] * signs[:-1] < 0)
    if changes.size == 0:
        return float("nan"), winner
    low, high = logs[changes[-1]], logs[changes[-1] + 1]
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.sign(lead(middle)) == signs[changes[-1]] else (low, middle)
    return float(np.exp(0.5 * (low + high))), winner
