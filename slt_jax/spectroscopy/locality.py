"""Where a transition lives: how much of what it changed is explained by the best k directions of each kind."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from slt_jax import loss, tree
from slt_jax.problem import Problem
from slt_jax.spectroscopy.directions import Directions, check_counts, check_ends, check_kinds, default_counts
from slt_jax.spectroscopy.nulls import Null, default_nulls
from slt_jax.spectroscopy.subject import WHOLE_LOSS, Subject, Subloss, as_subject, check_subject, parts
from slt_jax.tree import check_key
from slt_jax.types import Array, Key, PyTree

#: The share that counts as explained.
LEVEL = 0.95
#: Random draws of each null.
DRAWS = 16
#: A gain that is less than this, relative to the loss before, is of the size of rounding.
_ROUNDING = 1e-5
#: Sublosses that gain less than this share of what another does are left out, unless they are asked for.
_TRIFLE = 0.01
#: Entries of the copies of the parameters that are looked at together.
_ENTRIES = 2**24


class Locality(NamedTuple):
    """Shares of the gain of each subloss in one transition, by kind of directions and their number.

    Attributes:
      sublosses: Names, S of them; ``"all"`` is the whole loss.
      kinds: Names of the kinds of directions, K.
      nulls: Names of the nulls, N.
      counts: Numbers of directions k, increasing, shape ``(C,)``.
      dimension: Number of parameters d.
      gains, gain_errors: ``L(before) - L(after)`` in nats, and its standard error over examples, shape ``(S,)``.
      shares: ``E_k``, shape ``(S, K, C)``; NaN where a kind has fewer directions.
      share_errors: Their standard errors over examples, paired; NaN where the loss is a mean already.
      null_shares: Mean over random draws, shape ``(S, N, C)``.
      null_spreads: Standard deviation over the draws.
    """

    sublosses: tuple[str, ...]
    kinds: tuple[str, ...]
    nulls: tuple[str, ...]
    counts: np.ndarray
    dimension: int
    gains: np.ndarray
    gain_errors: np.ndarray
    shares: np.ndarray
    share_errors: np.ndarray
    null_shares: np.ndarray
    null_spreads: np.ndarray

    def curve(self, subloss: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Shares of a kind or a null, and their errors or spreads, each of shape ``(C,)``."""
        part = self.sublosses.index(subloss)
        if kind in self.nulls:
            return self.null_shares[part, self.nulls.index(kind)], self.null_spreads[part, self.nulls.index(kind)]
        return self.shares[part, self.kinds.index(kind)], self.share_errors[part, self.kinds.index(kind)]

    def enough(self, subloss: str, kind: str, level: float = LEVEL) -> int | None:
        """The smallest k of ``counts`` that explains this share of the gain, or ``None``; of a null, on average."""
        return _first(self.curve(subloss, kind)[0] >= level, self.counts)

    def enough_interval(self, subloss: str, kind: str, level: float = LEVEL) -> tuple[int | None, int | None]:
        """The same, were every share two errors (of a null, two spreads) higher, and lower."""
        share, error = self.curve(subloss, kind)
        spread = 2 * np.nan_to_num(error, nan=0.0)
        return _first(share + spread >= level, self.counts), _first(share - spread >= level, self.counts)

    def explain(self, level: float = LEVEL) -> str:
        """One sentence a subloss."""
        return "\n".join(self._sentence(name, level) for name in self.sublosses)

    def _sentence(self, subloss: str, level: float) -> str:
        part = self.sublosses.index(subloss)
        told = "; ".join(f"{kind} {self._told(subloss, kind, level)}" for kind in self.kinds)
        null = "; ".join(f"{name} {self._told(subloss, name, level)}" for name in self.nulls)
        gain, error = self.gains[part], self.gain_errors[part]
        doubt = " (not told from 0 on these examples)" if gain < 2 * error else ""
        title = "whole loss" if subloss == WHOLE_LOSS else subloss
        return (
            f"{title}: of a gain of {gain:.3g} ± {error:.1g} nats{doubt}, {level:.0%} is explained by, of "
            f"{self.dimension} directions: {told}. By chance: {null}."
        )

    def _told(self, subloss: str, kind: str, level: float) -> str:
        found = self.enough(subloss, kind, level)
        if found is not None:
            return f"{found} ({found / self.dimension:.2g} of all)"
        share = self.curve(subloss, kind)[0]
        there = share[np.isfinite(share)]
        return f"none (at most {max(there.max(), 0):.0%})" if there.size else "none"


def locality(
    key: Key,
    subject: Subject | Problem,
    before: PyTree,
    after: PyTree,
    kinds: Mapping[str, Directions],
    *,
    sublosses: Sequence[str] | None = None,
    counts: Sequence[int] | None = None,
    nulls: Mapping[str, Null] | None = None,
    draws: int = DRAWS,
) -> Locality:
    """How few directions explain what one transition gained in each subloss.

    ``E_k = (L(before) - L(before + P_k Δ)) / (L(before) - L(after))``, ``Δ = after - before`` and ``P_k`` the
    orthogonal projection on the first k directions of a kind: the change is put into the network before it, along
    these alone. With all coordinates it is exactly 1. By chance, about ``k/d``: ``random_coordinates`` and
    ``random_subspace`` say how much exactly on a quadratic.

    Args:
      key: A typed key, for the nulls.
      subject: A Problem, or a Subject with sublosses; each is taken as it is recorded, on its own data.
      before, after: Parameters on both sides of the transition.
      kinds: Directions by name; ``slt_jax.spectroscopy.directions`` has the usual ones.
      sublosses: Names; default all that gained, and at least a hundredth of what another did.
      counts: Numbers of directions, increasing; default 1 to 8, and on to all in about 16 equal ratios.
      nulls: ``null(key) -> Directions`` by name; default random coordinates, random ones among those that moved (by
        more than a hundredth of the largest ``|Δw|``), and random subspaces.
      draws: Random draws of each null.

    Returns:
      Shares with standard errors over examples (of a ratio, by the delta method, the examples paired), and of each null
      mean and spread over draws.

    Raises:
      ValueError: the ends differ in shape, are equal or not finite; there is no kind, or one does not fit; counts are
        out of range or do not increase; a subloss is unknown, breaks the contract of losses or did not gain.

    Not to be believed as few degrees of freedom where a span was chosen by the change itself: the difference of the two
    ends explains all of it, being all of it. Coordinates, directions of the Hessian, and principal directions that come
    out few are a finding. Shares may exceed 1 or be negative: half of a change can be worse than none. Their errors are
    over examples like these, and mean nothing where the data are all that there is.

    Source: grafting the weights of a few parameters: Panigrahi et al. 2023, arXiv:2302.06600.

    >>> import jax.numpy as jnp
    >>> from slt_jax.spectroscopy.directions import largest_moves
    >>> problem = Problem(lambda w, x: 0.5 * (x @ (w - jnp.array([1.0, 0.0, 0.0]))) ** 2, jnp.zeros(3), jnp.eye(3))
    >>> ends = jnp.zeros(3), jnp.array([1.0, 0.0, 1e-3])
    >>> found = locality(jax.random.key(0), problem, *ends, {"|Δw|": largest_moves(*ends)})
    >>> found.enough("all", "|Δw|"), found.enough("all", "random coordinates")
    (1, 3)
    """
    check_key(key)
    subject = as_subject(subject)
    check_ends(before, after)
    check_subject(subject._replace(problem=subject.problem._replace(params=before)))
    check_kinds(kinds, before)
    _check_draws(draws)
    size = tree.size(before)
    points = check_counts(default_counts(size) if counts is None else counts, size)
    nulls = default_nulls(before, after, kinds) if nulls is None else nulls
    chosen = _chosen(subject, sublosses)
    losses = losses_of(chosen, side_by_side([before, after], _group(points, size)))
    gains = {name: found[0] - found[1] for name, found in losses.items()}
    gained = _gained(gains, losses, required=sublosses is not None)
    part_of = {name: chosen[name] for name in gained}

    def explained(kind: Directions) -> dict[str, np.ndarray]:
        """Gains of each example with the first k directions, shape ``(C, n)``; NaN where there are fewer."""
        found = _losses_along(part_of, kind, before, after, points)
        return {name: losses[name][0][None] - found[name] for name in part_of}

    along_kinds = [explained(kind) for kind in kinds.values()]
    ratios = np.array([[_ratio(found[name], gains[name]) for found in along_kinds] for name in part_of])
    keys = jax.random.split(key, draws)
    by_chance = [
        [{name: found.mean(axis=1) for name, found in explained(_drawn(_partial(null), one)).items()} for one in keys]
        for null in nulls.values()
    ]
    # shape (subloss, null, draw, count)
    chance = np.array([[[one[name] for one in row] for row in by_chance] for name in part_of])
    chance = chance.reshape(len(part_of), len(nulls), draws, len(points)) / np.array(
        [[[[gains[name].mean()]]] for name in part_of]
    )
    return Locality(
        tuple(part_of),
        tuple(kinds),
        tuple(nulls),
        points,
        size,
        gains=np.array([gains[name].mean() for name in part_of]),
        gain_errors=np.array([_error(gains[name]) for name in part_of]),
        shares=ratios[:, :, 0],
        share_errors=ratios[:, :, 1],
        null_shares=chance.mean(axis=2),
        null_spreads=chance.std(axis=2, ddof=1),
    )


def _check_draws(draws: int) -> None:
    if isinstance(draws, bool) or not hasattr(draws, "__index__") or draws < 2:
        raise ValueError(f"draws: got {draws!r}; pass an integer of at least 2, or there is no spread.")


def _chosen(subject: Subject, names: Sequence[str] | None) -> dict[str, Subloss]:
    known = parts(subject)
    for name in names or ():
        if name not in known:
            raise ValueError(f"sublosses: got {name!r}; the subject has {sorted(known)}.")
    return known if names is None else {name: known[name] for name in names}


def _gained(gains: dict[str, np.ndarray], losses: dict[str, np.ndarray], required: bool) -> list[str]:
    """The sublosses that gained, and more than a trifle; all of them, or a refusal, where they were asked for."""
    mean = {name: float(gain.mean()) for name, gain in gains.items()}
    real = {name: gain for name, gain in mean.items() if gain > _ROUNDING * np.mean(np.abs(losses[name][0]))}
    if not real or (required and len(real) < len(gains)):
        lost = next((name for name in gains if name not in real), WHOLE_LOSS)
        raise ValueError(
            f"sublosses: {lost!r} gained nothing ({mean[lost]:.3g} nats of {np.mean(losses[lost][0]):.6g}); choose "
            "checkpoints before and after its transition, or leave it out."
        )
    return list(real) if required else [name for name in real if real[name] > _TRIFLE * max(real.values())]


def _ratio(explained: np.ndarray, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``E_k`` and its standard error, each of shape ``(C,)``: of a ratio of means over the same examples."""
    share = explained.mean(axis=1) / gain.mean()
    left = explained - share[:, None] * gain[None, :]
    return share, np.array([_error(values) for values in left]) / abs(gain.mean())


def _error(values: np.ndarray) -> float:
    """Standard error of the mean over examples; NaN where there is nothing to tell it from."""
    return float(np.std(values, ddof=1) / np.sqrt(values.size)) if values.size > 1 else np.nan


def _first(reached: np.ndarray, counts: np.ndarray) -> int | None:
    return int(counts[np.argmax(reached)]) if reached.any() else None


def _losses_along(
    part_of: Mapping[str, Subloss], kind: Directions, before: PyTree, after: PyTree, counts: np.ndarray
) -> dict[str, np.ndarray]:
    """Losses of each example with the first k directions moved, shape ``(C, n)``; NaN where there are fewer."""
    size = _group(counts, tree.size(before))
    pieces: list[dict[str, np.ndarray]] = []
    for start in range(0, len(counts), size):
        # every group is as long as the first: one program serves them all
        some = np.resize(counts[start : start + size], size)
        pieces.append(losses_of(part_of, _moved(kind.moved, before, after, some)))
    there = (counts <= int(kind.most))[:, None]
    return {
        name: np.where(there, np.concatenate([piece[name] for piece in pieces])[: len(counts)], np.nan)
        for name in part_of
    }


def losses_of(part_of: Mapping[str, Subloss], points: PyTree) -> dict[str, np.ndarray]:
    """Losses of each example at many points, shape ``(C, n)``, in double precision; n is 1 for a mean."""
    found = {name: _losses_at(_partial(part.loss_fn), points, part.data) for name, part in part_of.items()}
    return {name: np.asarray(losses, np.float64).reshape(len(losses), -1) for name, losses in found.items()}


def _group(counts: np.ndarray, size: int) -> int:
    """How many copies of the parameters are looked at together."""
    return max(2, min(len(counts), _ENTRIES // size))


def side_by_side(points: Sequence[PyTree], length: int) -> PyTree:
    """Points as one tree with one more axis, the first; the last is repeated up to the length."""
    filled = [*points, *[points[-1]] * (length - len(points))]
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *filled)


def _partial(function: Callable) -> Partial:
    return function if isinstance(function, Partial) else Partial(function)


@jax.jit
def _drawn(null: Partial, key: Key) -> Directions:
    return null(key)


@jax.jit
def _moved(moved: Partial, before: PyTree, after: PyTree, counts: Array) -> PyTree:
    return jax.vmap(moved, (None, None, 0))(before, after, counts)


@jax.jit
def _losses_at(loss_fn: Partial, points: PyTree, data: PyTree) -> Array:
    return jax.lax.map(lambda params: loss.at_center(loss_fn, params, data), points)
