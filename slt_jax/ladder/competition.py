"""Which of two phases a posterior prefers, and from how many examples on."""

from typing import NamedTuple

import numpy as np

from slt_jax.ladder.crossing import crossing


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
      n: Number of examples at which the two change places; NaN where they do not above e.
      low, high: 95 % confidence interval of it, as of ``crossing``; ``high`` may be infinite.
      certainty: Probability that they change places, given the errors.
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
      seed: Of the draws behind ``certainty``.

    Returns:
      The crossing and its interval.

    Raises:
      ValueError: a loss, a coefficient or an error that is not finite, or an error below 0.

    Not to be believed where ``n`` is small: the expansion leaves out terms of order 1, and phases whose basins overlap
    are not two. Of changes from one phase to another, and of terms of order 1, ``crossing``.

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
    found = crossing(
        second.loss - first.loss,
        second.learning_coefficient - first.learning_coefficient,
        loss_error=float(np.hypot(first.loss_error, second.loss_error)),
        coefficient_error=float(np.hypot(first.coefficient_error, second.coefficient_error)),
        multiplicity_change=second.multiplicity - first.multiplicity,
        seed=seed,
    )
    winner = "second" if found.many == "later" else "first"
    return Competition(found.n, found.low, found.high, found.certainty, winner)
