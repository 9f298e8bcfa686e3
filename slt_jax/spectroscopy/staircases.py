"""Two staircases at once: the loss goes down and the learning coefficient up, and what a posterior makes of it."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from slt_jax.ladder import Crossing, crossing, crossing_at
from slt_jax.spectroscopy.phases import Phases, measured_at
from slt_jax.truths.truth import Truth

#: A change is told from none by so many standard errors.
_ERRORS = 1.96
#: ``(before, after)`` to change of the mean loss and its standard error.
Changes = Mapping[tuple[int, int], tuple[float, float]]


class Staircase(NamedTuple):
    """One transition of training on one loss, as two phases of a posterior.

    Attributes:
      phase: The phase that it begins, counted from 1.
      subloss: On which loss.
      before, after: Steps of the two checkpoints that are compared, or ``None``.
      loss_change, loss_error: ΔL over it in nats, with its standard error over examples; NaN where not known.
      coefficient_change, coefficient_error: Δλ̂ and its standard error.
      p: Of the test that the two do not oppose: the greater of the one-sided p-values of ``ΔL < 0`` and ``Δλ > 0``.
      q: p adjusted for all rows (Benjamini and Hochberg).
      verdict: ``"opposing"`` (loss down, λ up), ``"opposing, backwards"`` (loss up, λ down), ``"later at every n"``
        (both down), ``"earlier at every n"`` (both up), ``"undecided"`` or ``"not measured"``.
      crossing: Where the two phases change places in the posterior, or ``None``.
      exact: The same ``n`` from exact λ and m at both checkpoints; NaN where there is no crossing, ``None`` where the
        exact values are not known.
    """

    phase: int
    subloss: str
    before: int | None
    after: int | None
    loss_change: float
    loss_error: float
    coefficient_change: float
    coefficient_error: float
    p: float
    q: float
    verdict: str
    crossing: Crossing | None
    exact: float | None


def staircases(
    phases: Phases,
    readings: Mapping[str, Mapping[int, tuple[float, float]]],
    changes: Mapping[str, Changes],
    *,
    whole: str = "all",
    exact: Mapping[int, Truth] | None = None,
    rate: float = 0.05,
) -> list[Staircase]:
    """Every transition on every loss: does λ rise where the loss falls, and from how many examples on is that worth it?

    At ``β = 1`` the later phase has the lower free energy where ``n ΔL + Δλ log n < 0`` (``crossing``; where both
    multiplicities are known exactly, with ``- Δm log log n``). Opposing staircases, the loss down and λ up, are the
    phases of a posterior that change places once, at ``n``: below it the earlier, beyond it the later.

    Args:
      phases: From ``detect_phases``.
      readings: ``(λ̂, standard error)`` by loss and step. Leave out readings that are not healthy.
      changes: Changes of the mean losses between checkpoints, as from ``loss_changes``, by loss.
      whole: The loss that exact values are of.
      exact: Exact values by step.
      rate: Rows whose ``q`` is at most this oppose.

    Returns:
      ``K`` times as many rows as losses, transition by transition.

    Raises:
      ValueError: a reading or a change that is not finite, an error below 0, a rate out of range.

    Not to be believed as more than two points each: a plateau that was not measured near its quietest step is still
    moving. λ̂ is that of the network's own function where a study relabels, of a posterior near the checkpoint.

    Source: Chen, Lau, Mendel, Wei & Murfet 2023, arXiv:2310.06301, sections 4 and 5.
    """
    from scipy.stats import false_discovery_control

    if not 0 < rate < 1:
        raise ValueError(f"rate: got {rate}; a false-discovery rate lies between 0 and 1.")
    _check(readings, changes)
    exact = {} if exact is None else exact
    rows = []
    for subloss in dict.fromkeys([*changes, *readings]):
        # of a loss whose λ was not read it is still known how far it fell
        own = readings.get(subloss, {})
        steps = measured_at(phases, own or readings.get(whole, {}))
        for phase in range(1, len(steps)):
            known = exact if subloss == whole else {}
            rows.append(_row(phase, subloss, steps[phase - 1], steps[phase], own, changes.get(subloss, {}), known))
    tested = [index for index, row in enumerate(rows) if np.isfinite(row.p)]
    q = false_discovery_control([rows[index].p for index in tested])
    for index, one in zip(tested, q, strict=True):
        rows[index] = rows[index]._replace(q=float(one), verdict=_verdict(rows[index], float(one), rate))
    return sorted(rows, key=lambda row: row.phase)


def _row(
    phase: int,
    subloss: str,
    before: int | None,
    after: int | None,
    readings: Mapping[int, tuple[float, float]],
    changes: Changes,
    exact: Mapping[int, Truth],
) -> Staircase:
    from scipy.stats import norm

    nan = float("nan")
    nothing = Staircase(phase, subloss, before, after, nan, nan, nan, nan, nan, nan, "not measured", None, None)
    if before is None or after is None or (before, after) not in changes:
        return nothing
    loss, loss_error = changes[before, after]
    if before not in readings or after not in readings:
        return nothing._replace(loss_change=loss, loss_error=loss_error)
    coefficient = readings[after][0] - readings[before][0]
    error = float(np.hypot(readings[after][1], readings[before][1]))
    one, other = exact.get(before), exact.get(after)
    multiplicity, known = 0, None
    if one is not None and other is not None:
        if one.multiplicity is not None and other.multiplicity is not None:
            multiplicity = other.multiplicity - one.multiplicity
        change = float(other.learning_coefficient - one.learning_coefficient)
        known = crossing_at(loss, change, multiplicity)
    found = crossing(
        loss, coefficient, loss_error=loss_error, coefficient_error=error, multiplicity_change=multiplicity
    )
    # a change without an error is what it is
    p = max(
        float(norm.cdf(loss / loss_error)) if loss_error else float(loss >= 0),
        float(norm.sf(coefficient / error)) if error else float(coefficient <= 0),
    )
    return nothing._replace(
        loss_change=loss,
        loss_error=loss_error,
        coefficient_change=coefficient,
        coefficient_error=error,
        p=p,
        crossing=found,
        exact=known,
    )


def _verdict(row: Staircase, q: float, rate: float) -> str:
    if q <= rate:
        return "opposing"
    loss = _direction(row.loss_change, row.loss_error)
    coefficient = _direction(row.coefficient_change, row.coefficient_error)
    if not loss or not coefficient or (loss < 0 < coefficient):
        return "undecided"
    if loss != coefficient:
        return "opposing, backwards"
    return "later at every n" if loss < 0 else "earlier at every n"


def _direction(change: float, error: float) -> int:
    return int(np.sign(change)) if abs(change) > _ERRORS * error else 0


def _check(readings: Mapping[str, Mapping[int, tuple[float, float]]], changes: Mapping[str, Changes]) -> None:
    for kind, table in (("readings", readings), ("changes", changes)):
        for name, entries in table.items():
            for where, (value, error) in entries.items():
                if not (np.isfinite(value) and np.isfinite(error) and error >= 0):
                    raise ValueError(
                        f"{kind}: {name!r} is {value} ± {error} at {where}; leave out what is not finite, and pass "
                        "errors of at least 0."
                    )
