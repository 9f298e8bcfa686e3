"""Two programs of one function: which of them the posterior prefers, by how much, and how that grows with the data."""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import jax
import numpy as np

from slt_jax.programs import Program
from slt_jax.synthesis.local import LocalFlow, check_rungs, local_flow
from slt_jax.truths.turing import turing
from slt_jax.types import Key

#: The temperature down from which the free energy is known by its first two cumulants.
_NEAR_PRIOR = 0.5
#: Errors of its slope within which λ_eff counts as standing still.
_STANDS_STILL = 3.0


class Odds(NamedTuple):
    """The posterior odds of a first program against a second. Arrays of numpy.

    Attributes:
      nbetas: ``nβ``, for the mean over inputs, shape ``(rung,)``.
      log_odds, log_odds_error: ``log P(first) / P(second)``, nats, with its standard error, ``(rung,)``: the masses of
        all codes that round to either. Counted from the first rung where that is not close enough to the prior.
      slope, slope_error: ``d log odds / d log nβ = λ_eff(second) - λ_eff(first)``, its mean on the two coldest rungs.
      predicted: What the slope tends to, ``λ(second) - λ(first)``, exact.
      first, second: λ_eff of both.
    """

    nbetas: np.ndarray
    log_odds: np.ndarray
    log_odds_error: np.ndarray
    slope: float
    slope_error: float
    predicted: Fraction
    first: LocalFlow
    second: LocalFlow

    @property
    def ok(self) -> bool:
        """Whether the chains of all rungs agree."""
        return self.first.ok and self.second.ok

    def explain(self) -> str:
        """The odds in words."""
        lead = "first" if self.log_odds[-1] > 0 else "second"
        verdict = "" if self.ok else " UNHEALTHY: chains disagree; raise draws and burnin."
        return (
            f"At nβ = {self.nbetas[-1]:.3g} the {lead} program leads by {abs(self.log_odds[-1]):.2f} ± "
            f"{self.log_odds_error[-1]:.2g} nats. The log odds grow by {self.slope:.3f} ± {self.slope_error:.2g} for "
            f"each factor of e in nβ; the learning coefficients say {float(self.predicted):.3f}.{verdict}"
        )


def odds(
    key: Key,
    first: Program,
    second: Program,
    inputs: Sequence[str],
    steps: int,
    *,
    nbetas: Sequence[float],
    draws: int = 300,
    burnin: int = 150,
    chains: int = 32,
) -> Odds:
    """Measure the posterior odds of two programs that compute one function, and predict how they grow.

    ``log P(first)/P(second) = ∫ (λ_eff(second) - λ_eff(first)) d log nβ`` from the prior on, where both have the same
    mass; far down its slope in ``log nβ`` is ``-Δλ``. Between rungs the integral is that of cubics with the measured
    values, and with the measured slopes where these are beyond three of their errors, else 0.

    Args:
      key: A typed key.
      first, second: Programs with the same states and symbols, in any order.
      inputs, steps: As for ``truths.turing``.
      nbetas: Increasing, at least two; where the first is at most 0.5 the odds are absolute.
      draws, burnin, chains: As for ``local_flow``.

    Returns:
      The odds by temperature, with the prediction from exact learning coefficients.

    Raises:
      ValueError: as ``local_flow``; programs of other states or symbols, or that compute two functions.

    Not to be believed where ``ok`` is False; as the odds of two functions, whose programs are many. The slope is that
    of the temperatures given: a close pair may be far from ``-Δλ`` at 1e12 and at it by 1e25. Rungs farther apart than
    a factor of 100 are too far where λ_eff moves.

    Source: Watanabe 2018, Mathematical Theory of Bayesian Statistics, section 9.4; Clift, Murfet and Wallbridge 2021,
    arXiv:2103.16080; thermodynamic integration: Gelman & Meng 1998, doi:10.1214/ss/1028905934.

    Example::

        found = odds(key, detect_a(), detect_a_running(), ["A", "B", "BA"], 6, nbetas=np.logspace(-0.5, 12, 14))
        print(found.explain())
    """
    _check_pair(first, second)
    exact = [turing(program, inputs, steps) for program in (first, second)]
    differing = [word for word in inputs if exact[0].outputs[word] != exact[1].outputs[word]]
    if differing:
        raise ValueError(
            f"first, second: end in different states on {differing[:5]} after {steps} steps; odds are of programs that "
            "compute one function"
        )
    if len(check_rungs(nbetas)) < 2:
        raise ValueError(f"nbetas: got {nbetas!r}; a slope needs two temperatures or more.")
    settings = {"nbetas": nbetas, "draws": draws, "burnin": burnin, "chains": chains}
    flows = [
        local_flow(one, program, inputs, steps, **settings)  # type: ignore[arg-type]
        for one, program in zip(jax.random.split(key), (first, second), strict=True)
    ]
    free, error = zip(*(free_energies(flow) for flow in flows), strict=True)
    slopes = flows[1].value[-2:] - flows[0].value[-2:]
    return Odds(
        nbetas=flows[0].nbetas,
        log_odds=free[1] - free[0],
        log_odds_error=np.hypot(*error),
        slope=float(slopes.mean()),
        slope_error=float(0.5 * np.sqrt(sum(np.sum(flow.std_error[-2:] ** 2) for flow in flows))),
        predicted=exact[1].learning_coefficient - exact[0].learning_coefficient,
        first=flows[0],
        second=flows[1],
    )


def _check_pair(first: Program, second: Program) -> None:
    for program in (first, second):
        if not isinstance(program, Program):
            raise ValueError(f"first, second: got {program!r}; make programs with slt_jax.programs.parse")
    for name in ("states", "symbols"):
        one, other = getattr(first, name), getattr(second, name)
        if sorted(one) != sorted(other):
            raise ValueError(f"first, second: have the {name} {one} and {other}; odds need one space of codes for both")


def free_energies(flow: LocalFlow) -> tuple[np.ndarray, np.ndarray]:
    """``-log E[e^{-nβ K}]`` over the neighbourhood on each rung, and errors by leaving out one chain at a time.

    Less that of the first rung where it is too cold for two cumulants.
    """
    logs, chains = np.log(flow.nbetas), flow.energy.shape[1]
    near = flow.nbetas[0] <= _NEAR_PRIOR
    without = [np.delete(flow.energy, chain, axis=1) for chain in range(chains)]
    slopes = np.stack([one.mean(axis=(1, 2)) - one.var(axis=(1, 2)) for one in without])
    # a slope that is nothing but noise would be carried over the whole gap
    moving = np.abs(flow.velocity) > _STANDS_STILL * np.sqrt((chains - 1) * slopes.var(axis=0))

    def integral(energy: np.ndarray) -> np.ndarray:
        value, capacity = energy.mean(axis=(1, 2)), energy.var(axis=(1, 2))
        gaps, velocity = np.diff(logs), np.where(moving, value - capacity, 0.0)
        pieces = 0.5 * gaps * (value[1:] + value[:-1]) - gaps**2 / 12 * np.diff(velocity)
        # close to the prior: the mean and half the variance of nβ K, both at that temperature
        start = value[0] + 0.5 * capacity[0] if near else 0.0
        return start + np.concatenate([[0.0], np.cumsum(pieces)])

    spread = np.stack([integral(one) for one in without])
    return integral(flow.energy), np.sqrt((chains - 1) * spread.var(axis=0))
