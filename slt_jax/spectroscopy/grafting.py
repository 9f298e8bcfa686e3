"""Which phase was built on which: the change of one is put into the network without that of another."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from slt_jax import tree
from slt_jax.problem import Problem
from slt_jax.restriction import Restriction
from slt_jax.spectroscopy.directions import check_ends
from slt_jax.spectroscopy.locality import losses_of, side_by_side
from slt_jax.spectroscopy.refinement import LEVEL
from slt_jax.spectroscopy.subject import WHOLE_LOSS, Subject, Subloss, as_subject, check_subject, parts
from slt_jax.spectroscopy.units import marked
from slt_jax.tree import cut
from slt_jax.types import PyTree

#: A phase was built on another when less than this share of its gain is left without the other.
SURVIVES = 0.5
#: Copies of the examples, drawn with replacement.
RESAMPLES = 2000
#: A gain that is less than this, relative to the loss before, is of the size of rounding.
_ROUNDING = 1e-5
#: Entries of the copies of the parameters that are looked at together.
_ENTRIES = 2**24


class Grafts(NamedTuple):
    """Of every pair of phases, the share of the later one's gain that is left without the earlier one's change.

    Attributes:
      judged: The subloss on which each phase was judged, shape ``(K,)``; ``""`` where it was not.
      gains, gain_errors: What each gained on it with all before in place, nats, shape ``(K,)``.
      kept: Share that is left, row the later phase, column the one taken out, shape ``(K, K)``; NaN where not tested.
      low, high: The middle 95 % over copies of the examples.
      p_values: Share of copies of which at least half of the gain is left.
      adjusted: The same after Benjamini and Hochberg over all tested pairs.
      found: ``kept < survives`` and ``adjusted ≤ level``.
      reasons: Why a phase was not tested, or ``""``, shape ``(K,)``.
      level: Of false discoveries.
      survives: The share.
    """

    judged: tuple[str, ...]
    gains: np.ndarray
    gain_errors: np.ndarray
    kept: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_values: np.ndarray
    adjusted: np.ndarray
    found: np.ndarray
    reasons: tuple[str, ...]
    level: float
    survives: float

    def explain(self, names: Sequence[str] | None = None) -> str:
        """One sentence a pair that was tested."""
        names = [f"phase {number}" for number in range(1, len(self.judged) + 1)] if names is None else names
        said = [
            f"{names[row]}: of {self.gains[row]:.3g} nats {self.kept[row, column]:.0%} ({self.low[row, column]:.0%} to "
            f"{self.high[row, column]:.0%}) are left without {names[column]}: "
            f"{'built on it' if self.found[row, column] else 'independent of it'}."
            for row, column in np.argwhere(np.isfinite(self.kept))
        ]
        return "\n".join(said + [f"{names[at]}: {reason}" for at, reason in enumerate(self.reasons) if reason])


def grafts(
    subject: Subject | Problem,
    states: Sequence[PyTree | None],
    *,
    judged: Sequence[str] | None = None,
    survives: float = SURVIVES,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Grafts:
    """Whether the gain of each phase survives without the change of each earlier one.

    With ``w_k`` the network after phase k and ``Δ_k = w_k - w_{k-1}``, for ``i < j``

        ``kept = [L(w_{j-1} - Δ_i) - L(w_j - Δ_i)] / [L(w_{j-1}) - L(w_j)]``:

    what ``Δ_j`` gains with ``Δ_i`` taken out, over what it gains with it in place. Phases that do not need one another
    have 1, as modes of a linear network do, which lie in orthogonal directions of each layer; a phase that reads what
    the other wrote has 0 or less.

    Args:
      subject: A Problem, or a Subject with sublosses; each is taken as it is recorded, on its own data.
      states: Parameters at the plateaus ``w_0, ..., w_K``, ``None`` where there are none; or states that were put
        together, as by ``assembled``.
      judged: The subloss on which each phase is judged; default the whole loss, or where that did not fall the subloss
        that fell most.
      survives: The share of a gain that counts as left.
      level: Of false discoveries over all pairs.
      resamples: Copies of the examples, drawn with replacement, the two gains of an example together.
      seed: Of the copies.

    Returns:
      Shares with intervals over examples, p-values and verdicts.

    Raises:
      ValueError: fewer than two states, states that differ in shape or are not finite, an unknown subloss, shares out
        of (0, 1), fewer than 100 resamples, or a subject that breaks its contract.

    Not to be believed as the one thing that a phase needs: what it was built on may itself stand on others, which are
    then found too, and a change that carries everything (an embedding) carries all later gains. Of two phases that need
    each other the order in time decides. Few examples give little power: with none that both gained on nothing is
    found, however small the share.

    Source: grafting the weights of a phase: Panigrahi et al. 2023, arXiv:2302.06600; here as a contrast of two grafts.

    >>> import jax.numpy as jnp
    >>> loss_fn = lambda w, x: (x - w[0] * w[1]) ** 2 + (x - w[2]) ** 2
    >>> problem = Problem(loss_fn, jnp.zeros(3), jnp.ones(9))
    >>> states = [jnp.array(w) for w in ([0.0, 0, 0], [1.0, 0, 0], [1.0, 0, 1], [1.0, 1, 1])]
    >>> grafts(problem, states).kept[2].tolist()  # the third reads the first, not the second
    [0.0, 1.0, nan]
    """
    from scipy.stats import false_discovery_control

    subject = as_subject(subject)
    present = _check(states, survives, level, resamples)
    check_subject(subject._replace(problem=subject.problem._replace(params=next(iter(present.values())))))
    known = parts(subject)
    count = len(states) - 1
    chosen, reasons = _judged(known, states, present, judged)
    gains, errors = np.full((2, count), np.nan)
    shape = (count, count)
    kept, low, high, p_values = (np.full(shape, np.nan) for _ in range(4))
    for row, name in enumerate(chosen):
        if not name:
            continue
        columns = [column for column in range(row) if column in present and column + 1 in present]
        ends = [states[row], states[row + 1]]
        without = (_without(end, states[at], states[at + 1]) for at in columns for end in ends)
        losses = _losses({name: known[name]}, itertools.chain(ends, without), 2 * count)[name]
        found = losses[0::2] - losses[1::2]
        gains[row] = found[0].mean()
        if found.shape[1] < 2:
            reasons[row] = f"the loss {name!r} is a mean: without examples there is no error."
            continue
        errors[row] = found[0].std(ddof=1) / np.sqrt(found.shape[1])
        copies = _copies(found.shape[1], resamples, np.random.default_rng([seed, row])) @ found.T
        for column, copy, gain in zip(columns, copies.T[1:], found[1:], strict=True):
            kept[row, column] = gain.mean() / gains[row]
            shares = copy / np.where(copies[:, 0] > 0, copies[:, 0], np.nan)
            if np.isfinite(shares).any():
                low[row, column], high[row, column] = np.nanquantile(shares, (0.025, 0.975))
            # linear in the gains: a copy of examples that gained nothing counts against
            p_values[row, column] = (1 + np.sum(copy >= survives * copies[:, 0])) / (1 + resamples)
    tested = np.isfinite(p_values)
    adjusted = np.full(shape, np.nan)
    adjusted[tested] = false_discovery_control(p_values[tested])
    found_pairs = tested & (kept < survives) & (adjusted <= level)
    return Grafts(
        tuple(chosen), gains, errors, kept, low, high, p_values, adjusted, found_pairs, tuple(reasons), level, survives
    )


def assembled(before: PyTree, after: PyTree, groups: Mapping[str, Restriction]) -> tuple[list[str], list[PyTree]]:
    """One change put in part by part, for ``grafts`` of its parts: what none of them holds first, then each in turn.

    Where two things were learned in one transition, or neither waits for the other, the parts of the network that hold
    them take the place of phases, in the order in which they can read one another.

    Args:
      before, after: Parameters at both ends.
      groups: Masks that do not overlap, the first to be read first: ``layer(params, "attention_0")`` and so on.

    Returns:
      Names of the changes, ``"the rest"`` first where something else moved, and one state more than there are names.

    Raises:
      ValueError: there are none, one is not a mask, two overlap, or one did not change.

    >>> from slt_jax.restriction import paths
    >>> ends = {"a": np.zeros(1), "b": np.zeros(1)}, {"a": np.ones(1), "b": np.ones(1)}
    >>> names, states = assembled(*ends, {"b alone": paths(ends[0], "b")})
    >>> names, [state["a"].tolist() for state in states]
    (['the rest', 'b alone'], [[0.0], [1.0], [1.0]])
    """
    check_ends(before, after)
    if not groups:
        raise ValueError("groups: got none; pass masks by name, as {'layer 0': layer(params, 'attention_0')}.")
    marks = {name: marked(name, part, before) for name, part in groups.items()}
    held = np.sum(list(marks.values()), axis=0)
    if held.max() > 1:
        raise ValueError(f"groups: {list(marks)} overlap; pass parts that share no parameter.")
    states, names = [before], []
    for name, mark in {"the rest": held == 0, **marks}.items():
        mask = cut(mark, before)
        state = jax.tree.map(lambda here, new, old: np.where(here, new, old), mask, after, states[-1])
        moved = any((np.asarray(a) != np.asarray(b)).any() for a, b in _pairs(state, states[-1]))
        if moved:
            names.append(name)
            states.append(state)
        elif name in marks:
            raise ValueError(f"groups: {name!r} did not change; leave it out.")
    return names, states


def _judged(
    known: Mapping, states: Sequence[PyTree | None], present: Mapping[int, PyTree], judged: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """The subloss on which each phase is judged, and why not."""
    count = len(states) - 1
    if judged is not None:
        unknown = [name for name in judged if name not in known]
        if unknown or len(judged) != count:
            raise ValueError(f"judged: got {judged!r}; pass one of {sorted(known)} for each of {count} phases.")
    asked = known if judged is None else {name: known[name] for name in judged}
    order = list(present)
    mean = {
        name: dict(zip(order, losses.mean(axis=1), strict=True))
        for name, losses in _losses(asked, iter(present.values()), 2 * count).items()
    }
    chosen, reasons = [], []
    for row in range(count):
        gains: dict[str, float] = {}
        if row in present and row + 1 in present:
            names = list(asked) if judged is None else [judged[row]]
            fell = {name: mean[name][row] - mean[name][row + 1] for name in names}
            gains = {name: fall for name, fall in fell.items() if fall > _ROUNDING * abs(mean[name][row])}
            reason = "" if gains else "no loss fell over it."
        else:
            reason = "there is no checkpoint on one side of it."
        best = WHOLE_LOSS if WHOLE_LOSS in gains else max(gains, key=lambda name: gains[name], default="")
        chosen.append(best)
        reasons.append(reason)
    return chosen, reasons


def _losses(part_of: Mapping[str, Subloss], points: Iterator[PyTree], most: int) -> dict[str, np.ndarray]:
    """Losses of each example at many points, shape ``(C, n)``, so many networks at a time as memory allows."""
    first = next(points)
    points = itertools.chain([first], points)
    # every group is as long as the longest phase needs: one program serves them all
    size = max(2, min(most, _ENTRIES // tree.size(first)))
    pieces: list[dict[str, np.ndarray]] = []
    while group := list(itertools.islice(points, size)):
        losses = losses_of(part_of, side_by_side(group, size))
        pieces.append({name: found[: len(group)] for name, found in losses.items()})
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in part_of}


def _without(state: PyTree, before: PyTree, after: PyTree) -> PyTree:
    """A network less a change, in double precision until it is put together."""

    def taken(leaf: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        exact = [np.asarray(one, np.float64) for one in (leaf, old, new)]
        return (exact[0] + exact[1] - exact[2]).astype(np.asarray(leaf).dtype)

    return jax.tree.map(taken, state, before, after)


def _copies(count: int, resamples: int, random: np.random.Generator) -> np.ndarray:
    """How often each example is in each copy, over their number, shape ``(resamples, count)``."""
    return random.multinomial(count, np.full(count, 1 / count), size=resamples) / count


def _check(states: Sequence[PyTree | None], survives: float, level: float, resamples: int) -> dict[int, PyTree]:
    present = {at: state for at, state in enumerate(states) if state is not None}
    if len(present) < 2:
        raise ValueError(f"states: got {len(present)}; pass the parameters at two plateaus or more.")
    first, *others = present.values()
    for state in others:
        check_ends(first, state)
    for name, share in (("survives", survives), ("level", level)):
        if not 0 < share < 1:
            raise ValueError(f"{name}: got {share}; pass a share in (0, 1).")
    if isinstance(resamples, bool) or not isinstance(resamples, int | np.integer) or resamples < 100:
        raise ValueError(f"resamples: got {resamples!r}; pass a whole number of at least 100.")
    return present


def _pairs(left: PyTree, right: PyTree) -> list[tuple]:
    return list(zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))
