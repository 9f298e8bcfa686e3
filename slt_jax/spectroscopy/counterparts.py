"""Whether the transitions of training have counterparts in the posterior, and in which order."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from slt_jax.ladder import crossing_at
from slt_jax.spectroscopy.coincidence import OrderAgreement, order_agreement
from slt_jax.spectroscopy.phases import Phases
from slt_jax.spectroscopy.staircases import Staircase

#: Draws over which the errors of losses and readings are carried to the sequence of preferred phases.
_DRAWS = 500


class Rung(NamedTuple):
    """A phase of training as a phase of a posterior.

    Attributes:
      phase: Counted from 1; 0 is the initial state.
      loss: Mean loss above that of the first, nats.
      loss_error: Standard error of the change from the one before.
      coefficient, coefficient_error: λ̂ and its standard error.
    """

    phase: int
    loss: float
    loss_error: float
    coefficient: float
    coefficient_error: float


class Counterparts(NamedTuple):
    """The phases of training as phases of a posterior on one loss.

    Attributes:
      subloss: Which loss.
      transitions: Phases whose transition has a counterpart: opposing staircases, and a finite crossing.
      without: Phases whose transition has none at any n: the staircases do not oppose.
      undecided: Phases of which the errors do not tell, or that were not measured.
      preferred: Phases in the order in which the posterior prefers them as n grows, by the values as they were read.
      beyond: The n from which on each is preferred; the first from the least.
      skipped: Measured phases that the posterior prefers at no n.
      certainty: Share of draws of all readings and losses in which ``preferred`` is the same.
      order: The order of the crossings of the transitions against that of training; intervals that overlap are unknown.
      examples: Number of examples of the data, or ``None`` where it means nothing.
      at_examples: The phase preferred at that n, or ``None``.
      ladder: The phases that were compared: the longest run without a gap.
    """

    subloss: str
    transitions: list[int]
    without: list[int]
    undecided: list[int]
    preferred: list[int]
    beyond: list[float]
    skipped: list[int]
    certainty: float
    order: OrderAgreement
    examples: int | None
    at_examples: int | None
    ladder: list[Rung]

    def describe(self) -> str:
        """What is compared, what came of it, and what it does not say."""
        count = len(self.transitions) + len(self.without) + len(self.undecided)
        said = [
            f"{len(self.transitions)} of {count} transitions of training have a counterpart in the posterior: below a "
            "number of examples n* it prefers the phase before, beyond it the phase after.",
        ]
        if self.without:
            said.append(f"Without one at any n: {_listed(self.without)}.")
        if self.undecided:
            said.append(f"Undecided within errors, or not measured: {_listed(self.undecided)}.")
        if self.preferred:
            turns = [f"{_name(self.preferred[0])} at few examples"]
            turns += [f"{_name(k)} from {n:.3g}" for k, n in zip(self.preferred[1:], self.beyond[1:], strict=True)]
            said.append(
                f"Preferred: {', '.join(turns)} (the same in {100 * self.certainty:.0f} % of draws of the errors)."
            )
        if self.skipped:
            said.append(f"Preferred at no n: {_listed(self.skipped)}; training passes through all the same.")
        if np.isfinite(self.order.kendall):
            said.append(
                f"The crossings come in the order of training with τ = {self.order.kendall:.2f} over "
                f"{self.order.agree + self.order.disagree} pairs that are told apart; "
                f"{100 * self.order.by_chance:.0f} % of orders agree as well."
            )
        else:
            said.append("Their order says nothing: no two crossings are told apart.")
        if self.at_examples is not None:
            said.append(f"At the {self.examples} examples of the data it prefers {_name(self.at_examples)}.")
        said.append(
            "A step of training is not a number of examples: the two are compared in order, not in value. Terms of "
            "order 1 in the free energy are left out."
        )
        return " ".join(said)


def counterparts(
    phases: Phases,
    rows: Sequence[Staircase],
    readings: Mapping[int, tuple[float, float]],
    subloss: str = "all",
    *,
    examples: int | None = None,
    seed: int = 0,
) -> Counterparts:
    """Which transitions of training a posterior would make too, when more examples come one by one.

    Every plateau is a phase of free energy ``n L_k + λ_k log n``. A transition of training has a counterpart where its
    two phases change places at an n (opposing staircases); that the phase is preferred to all others over a stretch of
    n is more: the crossings must come in the order of training.

    Args:
      phases: From ``detect_phases``.
      rows: From ``staircases``.
      readings: λ̂ of this loss by step, with errors, as given to ``staircases``.
      subloss: Which of the rows.
      examples: Number of examples of the training data, where they are a sample.
      seed: Of the draws of errors.

    Raises:
      ValueError: there is no row of the subloss, or a reading is missing that a row compares.

    Not to be believed as a prediction of when training makes a transition: that depends on the descent.

    Source: Chen, Lau, Mendel, Wei & Murfet 2023, arXiv:2310.06301: the Bayesian antecedent of a dynamical transition.
    """
    own = [row for row in rows if row.subloss == subloss]
    if not own:
        raise ValueError(f"subloss: got {subloss!r}; the rows are of {sorted({row.subloss for row in rows})}.")
    crossings = {
        str(row.phase): (row.crossing.low, row.crossing.high)
        for row in own
        if row.verdict == "opposing" and row.crossing is not None and np.isfinite(row.crossing.n)
    }
    # where the loss falls by more than λ rises over e, the later phase is preferred from the first example on
    never = {"later at every n", "earlier at every n", "opposing, backwards", "opposing"}
    without = [row.phase for row in own if row.verdict in never and str(row.phase) not in crossings]
    undecided = [row.phase for row in own if row.verdict not in never]
    ranks = {name: (float(name), float(name)) for name in crossings}
    order = order_agreement("crossings in n and transitions in training", crossings, ranks, seed=seed)
    ladder = _ladder(own, readings)
    preferred, beyond = _preferred(ladder)
    found = [ladder[k].phase for k in preferred]
    same = _certainty(ladder, preferred, seed)
    at = None
    if examples is not None and found:
        at = found[int(np.searchsorted(beyond, examples, side="right")) - 1]
    return Counterparts(
        subloss=subloss,
        transitions=[int(name) for name in crossings],
        without=without,
        undecided=undecided,
        preferred=found,
        beyond=beyond,
        skipped=[one.phase for one in ladder if one.phase not in found],
        certainty=same,
        order=order,
        examples=examples,
        at_examples=at,
        ladder=ladder,
    )


def _ladder(rows: Sequence[Staircase], readings: Mapping[int, tuple[float, float]]) -> list[Rung]:
    """The longest run of phases whose losses are compared one to the next, the loss of its first put at 0."""
    runs: list[list[Rung]] = [[]]
    for row in sorted(rows, key=lambda row: row.phase):
        if row.verdict == "not measured" or row.before is None or row.after is None:
            runs.append([])
            continue
        missing = [step for step in (row.before, row.after) if step not in readings]
        if missing:
            raise ValueError(f"readings: there is none at step {missing[0]}, which a row compares.")
        if not runs[-1]:
            runs[-1].append(Rung(row.phase - 1, 0.0, 0.0, *readings[row.before]))
        loss = runs[-1][-1].loss + row.loss_change
        runs[-1].append(Rung(row.phase, loss, row.loss_error, *readings[row.after]))
    return max(runs, key=len)


def _preferred(ladder: Sequence[Rung]) -> tuple[list[int], list[float]]:
    """Positions of the phases on the lower envelope of the free energies, and from which n on each is there."""
    if not ladder:
        return [], []
    least = float(np.exp(1.0))
    losses, coefficients = (np.array([getattr(one, name) for one in ladder]) for name in ("loss", "coefficient"))
    now = int(np.argmin(least * losses + coefficients))
    found, beyond = [now], [least]
    while True:
        turns = {
            k: n
            for k in np.flatnonzero(losses < losses[now]).tolist()
            if np.isfinite(n := crossing_at(losses[k] - losses[now], coefficients[k] - coefficients[now]))
        }
        if not turns:
            return found, beyond
        now = min(turns, key=lambda k: turns[k])
        found.append(now)
        beyond.append(turns[now])


def _certainty(ladder: Sequence[Rung], preferred: Sequence[int], seed: int) -> float:
    if not ladder:
        return float("nan")
    random = np.random.default_rng(seed)
    same = 0
    for _ in range(_DRAWS):
        noise = random.standard_normal((2, len(ladder)))
        steps = np.cumsum([one.loss_error * z for one, z in zip(ladder, noise[0], strict=True)])
        drawn = [
            one._replace(loss=one.loss + step, coefficient=one.coefficient + one.coefficient_error * z)
            for one, step, z in zip(ladder, steps, noise[1], strict=True)
        ]
        same += _preferred(drawn)[0] == list(preferred)
    return same / _DRAWS


def _name(phase: int) -> str:
    return f"phase {phase}" if phase else "the initial state"


def _listed(phases: Sequence[int]) -> str:
    return ", ".join(_name(phase) for phase in phases)
