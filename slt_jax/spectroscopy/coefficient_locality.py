"""Where the change of λ̂ lives: λ̂ restricted to the best k directions of each kind, at both ends of a transition."""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import NamedTuple

import numpy as np

from slt_jax import tree
from slt_jax.problem import Problem
from slt_jax.restriction import Restriction
from slt_jax.spectroscopy.directions import Directions, check_counts, check_ends, check_kinds
from slt_jax.spectroscopy.probes import Probe, Reading, llc_probe
from slt_jax.spectroscopy.scan import Cell, Checkpoint, scan
from slt_jax.spectroscopy.subject import WHOLE_LOSS, WHOLE_NETWORK, Subject, as_subject
from slt_jax.types import Key, PyTree

#: A change of λ̂ of fewer errors than this is none that shares could be taken of.
_RESOLVED = 2.0
#: The ends of a transition, as steps of a scan.
_BEFORE, _AFTER = 0, 1


class CoefficientLocality(NamedTuple):
    """Shares of the change of λ̂ in one transition, by kind of directions and their number.

    Attributes:
      subloss: On which loss.
      kinds: Names, K of them.
      counts: Numbers of directions, increasing, shape ``(C,)``.
      dimension: Number of parameters.
      change, change_error: ``λ̂(after) - λ̂(before)`` in the whole network, and its Monte Carlo error.
      values, errors: Restricted λ̂ before and after, shape ``(2, K, C)``; NaN where there is no reading.
      shares, share_errors: Of the change, shape ``(K, C)``, the Monte Carlo errors of all four readings propagated.
      healthy: Whether all four readings are, shape ``(K, C)``.
      faults: Why readings are unhealthy or missing, by ``"kind k, before"``.
    """

    subloss: str
    kinds: tuple[str, ...]
    counts: np.ndarray
    dimension: int
    change: float
    change_error: float
    values: np.ndarray
    errors: np.ndarray
    shares: np.ndarray
    share_errors: np.ndarray
    healthy: np.ndarray
    faults: dict[str, str]

    @property
    def resolved(self) -> bool:
        """Whether λ̂ changed by more than two errors; shares mean nothing where it did not."""
        return abs(self.change) > _RESOLVED * self.change_error

    def explain(self) -> str:
        """In words, a line a kind, and what is wrong with the readings."""
        lines = [f"λ̂ changed by {self.change:+.3g} ± {self.change_error:.1g} ({self.subloss})."]
        if not self.resolved:
            lines.append("That is less than two of its errors: shares of it mean nothing; ask for a smaller error.")
        for row, kind in enumerate(self.kinds):
            told = [
                f"{count} of {self.dimension} explain {self.shares[row, at]:.0%} ± {self.share_errors[row, at]:.0%}"
                f"{'' if self.healthy[row, at] else ' (UNHEALTHY)'}"
                for at, count in enumerate(self.counts.tolist())
                if np.isfinite(self.shares[row, at])
            ]
            lines.append(f"{kind}: {', '.join(told) or 'no reading'}.")
        return "\n".join([*lines, *(f"{place}: {fault}" for place, fault in self.faults.items())])


def coefficient_locality(
    key: Key,
    subject: Subject | Problem,
    before: PyTree,
    after: PyTree,
    kinds: Mapping[str, Directions],
    counts: Sequence[int],
    *,
    subloss: str = WHOLE_LOSS,
    probe: Probe | None = None,
    finished: MutableMapping[str, Reading] | None = None,
) -> CoefficientLocality:
    """How much of the change of λ̂ over a transition happened in the best k directions of each kind.

    ``(λ̂_k(after) - λ̂_k(before)) / (λ̂(after) - λ̂(before))``, ``λ̂_k`` with the first k directions free. Each is
    a reading of ``scan``, on the problem that probes are pointed at (relabelled, where the subloss says so). A null is
    one more kind, as ``random_coordinates(key, before)``: restrictions of one k share their compiled programs.

    Args:
      key: A typed key.
      subject: A Problem, or a Subject.
      before, after: Parameters on both sides of the transition.
      kinds: Directions by name.
      counts: Numbers of directions, increasing: two readings for each kind and number that a kind has.
      subloss: Name of the loss.
      probe: Settings of the readings; default ``llc_probe()``.
      finished: Readings by fingerprint, as for ``scan``: what is there is not measured again.

    Raises:
      ValueError: the ends differ in shape or are equal; there is no kind, or one does not fit; counts are out of range
        or do not increase; the subloss is unknown, a setting is out of range, or λ̂ of the whole network cannot be read.

    Not to be believed where the change itself is not resolved, and not as a sum: λ̂ of two subspaces need not add up to
    that of both. A free direction that others compensate for is curved when they are held, so that shares go beyond 1,
    by chance too. Between two plateaus of a linear network of 184 parameters (λ from 71/2 to 39) the 84 weights that
    moved most explain 99 ± 14 %, but 84 random ones 152 ± 18 %, and 3 principal directions 17 ± 3 %: without a null
    beside it a share locates nothing.

    Source: restricting λ̂ to some of the weights: Wang et al. 2024, arXiv:2410.02984.
    """
    subject = as_subject(subject)
    check_ends(before, after)
    check_kinds(kinds, before)
    size = tree.size(before)
    points = check_counts(counts, size)
    free: dict[str, Restriction] = {}
    for name, kind in kinds.items():
        # all directions are the whole network, whatever their kind
        for count in points[(points <= int(kind.most)) & (points < size)].tolist():
            free[_label(name, count)] = kind.restriction(count)
    probes = {"llc": llc_probe() if probe is None else probe}
    ends = [Checkpoint(_BEFORE, lambda: before), Checkpoint(_AFTER, lambda: after)]
    cells = scan(
        key,
        subject._replace(restrictions=free),
        ends,
        probes,
        restrictions=[WHOLE_NETWORK, *free],
        sublosses=[subloss],
        finished=finished,
    )
    found = {(cell.restriction, cell.step): cell for cell in cells}
    whole = [found[WHOLE_NETWORK, end] for end in (_BEFORE, _AFTER)]
    for cell in whole:
        if cell.reading is None:
            raise ValueError(f"before, after: λ̂ of the whole network cannot be read there: {cell.error}")
    change, change_error, whole_healthy = _change(whole[0], whole[1])
    values, errors = (np.full((2, len(kinds), len(points)), np.nan) for _ in range(2))
    shares, share_errors = (np.full((len(kinds), len(points)), np.nan) for _ in range(2))
    healthy = np.zeros((len(kinds), len(points)), bool)
    for row, name in enumerate(kinds):
        for column, count in enumerate(points.tolist()):
            if count > int(kinds[name].most):
                continue
            label = _label(name, count) if count < size else WHOLE_NETWORK
            first, last = (found[label, end] for end in (_BEFORE, _AFTER))
            if first.reading is None or last.reading is None:
                continue
            for end, cell in enumerate((first, last)):
                values[end, row, column], errors[end, row, column], _ = _numbers(cell)
            part, part_error, part_healthy = _change(first, last)
            share = part / change if change else np.nan
            spread = np.hypot(part_error, share * change_error) if count < size else 0.0
            shares[row, column], share_errors[row, column] = share, spread / abs(change) if change else np.nan
            healthy[row, column] = part_healthy and whole_healthy
    faults = {_place(cell): _fault(cell) for cell in found.values() if _fault(cell)}
    return CoefficientLocality(
        subloss,
        tuple(kinds),
        points,
        size,
        change,
        change_error,
        values,
        errors,
        shares,
        share_errors,
        healthy,
        faults,
    )


def _label(kind: str, count: int) -> str:
    return f"{kind}, {count}"


def _numbers(cell: Cell) -> tuple[float, float, bool]:
    assert cell.reading is not None
    return float(cell.reading["value"]), float(cell.reading["std_error"]), bool(cell.reading["healthy"])


def _change(first: Cell, last: Cell) -> tuple[float, float, bool]:
    (low, low_error, low_healthy), (high, high_error, high_healthy) = _numbers(first), _numbers(last)
    return high - low, float(np.hypot(low_error, high_error)), low_healthy and high_healthy


def _place(cell: Cell) -> str:
    where = "whole network" if cell.restriction == WHOLE_NETWORK else cell.restriction
    return f"{where}, {'before' if cell.step == _BEFORE else 'after'}"


def _fault(cell: Cell) -> str:
    if cell.reading is None:
        return str(cell.error)
    return "" if bool(cell.reading["healthy"]) else str(cell.reading["explanation"])
