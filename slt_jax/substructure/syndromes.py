"""Error syndromes of a network: the smallest sets of components whose joint ablation breaks what it can do."""

import itertools
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from slt_jax import loss, tree
from slt_jax.restriction import Restriction
from slt_jax.substructure.ablation import labelled, losses_without, shuffled
from slt_jax.tree import check_key
from slt_jax.truths.newton import NewtonTruth, newton
from slt_jax.types import Key, LossFn, PyTree

#: Orders of the components that are all tried for the chance of an agreement; beyond it so many are drawn.
_ORDERS = 5040
#: Sets of one size that are listed at all.
_MOST = 2_000_000


class Syndromes(NamedTuple):
    """The minimal breaking sets of a loss, their combinatorics as a singularity, and what chance makes of them.

    Attributes:
      sets: Names of each minimal breaking set, the smallest sets first.
      losses: Mean loss without each of them, nats.
      base: Mean loss of the whole network, nats.
      threshold: How far above it a loss counts as broken, nats.
      searched: The size up to which every set was looked at; where the budget ended the search, less than asked for.
      complete: Whether that is the size asked for.
      evaluations: Losses computed for the network itself.
      hypothesis: λ of ``Σ_sets Π w_c²``, one coordinate a component, with its toric divisors; None where nothing
        breaks.
      exponents: By component the contact exponent that this predicts: half its mean weight on the divisors.
      contact: The exponents given, or None.
      agreement: Their Pearson correlation with the prediction; NaN where either is constant.
      chance: Share of orders of the components in which it would be as high or higher.
      null_counts: Minimal breaking sets by size, from 1 on, where the same numbers of entries are dealt at random,
        ``(null, searched)``.
      null_coefficients: λ of each of these, 0 where nothing breaks, ``(null,)``.
    """

    sets: tuple[tuple[str, ...], ...]
    losses: np.ndarray
    base: float
    threshold: float
    searched: int
    complete: bool
    evaluations: int
    hypothesis: NewtonTruth | None
    exponents: Mapping[str, float]
    contact: Mapping[str, float] | None
    agreement: float
    chance: float
    null_counts: np.ndarray
    null_coefficients: np.ndarray

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of minimal breaking sets of each size, from 1 on: redundancy 2 shows as pairs."""
        return tuple(sum(len(one) == size for one in self.sets) for size in range(1, self.searched + 1))

    def explain(self) -> str:
        """The sets in words, with the hypothesis and the null beside them."""
        each = zip(self.sets, self.losses, strict=True)
        lines = [f"{' and '.join(one)}: the loss goes to {value:.4g}" for one, value in each]
        lines.append(f"Minimal breaking sets by size: {self.counts}; at random {self.null_counts.tolist()}.")
        if self.hypothesis is not None:
            value, m = self.hypothesis.learning_coefficient, self.hypothesis.multiplicity
            lines.append(f"As a monomial ideal, a hypothesis: λ = {value}, m = {m}.")
        if self.contact is not None:
            lines.append(f"Correlation with the contact exponents {self.agreement:.2f}, by chance {self.chance:.3g}.")
        if not self.complete:
            lines.append(f"UNFINISHED: the budget ended the search after size {self.searched}: raise budget.")
        return "\n".join(lines)


def syndromes(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    components: Mapping[str, Restriction | PyTree],
    *,
    threshold: float,
    reference: PyTree | None = None,
    largest: int = 3,
    budget: int = 20_000,
    nulls: int = 4,
    contact: Mapping[str, float] | None = None,
) -> Syndromes:
    """Minimal breaking sets: smallest sets of components whose joint ablation raises a loss by more than a threshold.

    All sets of one component are ablated, then all pairs that hold none of what was found, and so on: a set is minimal
    where it breaks the loss and no part of it does. As for a program, whose minimal sets of mutations are its error
    syndromes, they generate a monomial ideal: *if* the loss were ``K = Σ_sets Π_c w_c²`` in one amplitude for each
    component, its λ and the contact exponents of the components would be those of the Newton polyhedron. For a network
    that is a hypothesis; contact exponents measured at the same checkpoint are set beside it.

    Args:
      key: A typed key, of the null.
      loss_fn: ``loss_fn(params, batch)``: losses in nats, ``(B,)``, ``(B, T)`` or ``()``; a part of the loss, as a
        ``Subloss`` holds one.
      params: The trained network.
      data: The examples.
      components: Disjoint sets of entries by name: restrictions (heads, neurons, layers), or boolean trees.
      threshold: Increase of the mean loss from which it counts as broken, nats.
      reference: What ablated entries are set to, a tree like ``params``; default zeros.
      largest: The largest size looked at.
      budget: Losses that may be computed in one search; a size that does not fit is not begun.
      nulls: How often the entries of all components are dealt at random, in each leaf as many to each as it has, and
        the search repeated.
      contact: Measured contact exponents by component, as of ``contact_exponents``.

    Returns:
      The sets, the hypothesis, the null. On the host; subsets are evaluated 64 at a time in one compiled program.

    Raises:
      ValueError: components that are none, overlap, or are no sets of entries; a loss that breaks its contract; a
        threshold, size or number out of range; contact exponents of other components.

    Not to be believed as causes: an ablation to zero leaves what the network never saw. A set larger than ``largest``
    is not found. λ of the ideal is that of another function than the loss; whether it has to do with it is what the
    agreement and its chance are for.

    Source: error syndromes of programs: Clift, Murfet & Wallbridge 2021, arXiv:2103.16080; monomial ideals: Lin 2011,
    PhD thesis, Berkeley. The reading for networks is a hypothesis of this library.

    >>> import jax.numpy as jnp
    >>> from slt_jax.restriction import paths
    >>> params = {"one": jnp.ones(1), "two": jnp.ones(1), "three": jnp.ones(1)}
    >>> either = lambda p, x: (1 - p["one"][0] * jnp.maximum(p["two"], p["three"])) ** 2 * x
    >>> parts = {name: paths(params, name) for name in params}
    >>> found = syndromes(jax.random.key(0), either, params, jnp.ones(3), parts, threshold=0.5)
    >>> found.sets, found.hypothesis.learning_coefficient
    ((('one',), ('two', 'three')), Fraction(1, 1))
    """
    check_key(key)
    _check(components, threshold, largest, budget, nulls)
    loss.check(loss_fn, params, data)
    reference = tree.zeros_like(params) if reference is None else reference
    tree.check_structure("reference", reference, "params", params, "Pass a tree like params, or leave it out.")
    _check_contact(contact, components)
    function = loss_fn if isinstance(loss_fn, Partial) else Partial(loss_fn)
    labels, names = labelled(params, components), list(components)

    def search(labels: PyTree) -> _Found:
        def losses_of(subsets: np.ndarray) -> np.ndarray:
            return losses_without(function, params, reference, data, labels, subsets)

        return _minimal(losses_of, len(names), threshold, largest, budget)

    found = search(labels)
    order_key, null_key = jax.random.split(key)
    dealt = [search(shuffled(one, labels)) for one in jax.random.split(null_key, nulls)]
    hypothesis = _hypothesis(found.sets)
    exponents = _exponents(hypothesis, names)
    agreement, chance = _agreement(order_key, exponents, contact)
    ideals = [_hypothesis(one.sets) for one in dealt]
    return Syndromes(
        sets=tuple(tuple(itertools.compress(names, row)) for row in found.sets),
        losses=found.losses,
        base=found.base,
        threshold=float(threshold),
        searched=found.searched,
        complete=found.searched == min(largest, len(names)),
        evaluations=found.evaluations,
        hypothesis=hypothesis,
        exponents=exponents,
        contact=contact,
        agreement=agreement,
        chance=chance,
        null_counts=np.array(
            [[int((one.sets.sum(1) == size).sum()) for size in range(1, found.searched + 1)] for one in dealt], int
        ).reshape(nulls, found.searched),
        null_coefficients=np.array([0.0 if ideal is None else float(ideal.learning_coefficient) for ideal in ideals]),
    )


class _Found(NamedTuple):
    """Minimal breaking sets ``(set, component)``, the smallest first, the losses without each, and what was spent."""

    base: float
    sets: np.ndarray
    losses: np.ndarray
    searched: int
    evaluations: int


def _minimal(
    losses_of: Callable[[np.ndarray], np.ndarray], count: int, threshold: float, largest: int, budget: int
) -> _Found:
    base = float(losses_of(np.zeros((1, count), bool))[0])
    sets, losses = np.zeros((0, count), bool), np.zeros(0)
    spent, searched = 1, 0
    for size in range(1, min(largest, count) + 1):
        # a component that breaks alone is in no larger minimal set
        free = np.flatnonzero(~sets[sets.sum(axis=1) == 1].any(axis=0))
        if math.comb(len(free), size) > _MOST:
            break
        subsets = np.zeros((math.comb(len(free), size), count), bool)
        for row, chosen in zip(subsets, itertools.combinations(free, size), strict=True):
            row[list(chosen)] = True
        for one in sets:
            subsets = subsets[~subsets[:, one].all(axis=1)]
        if spent + len(subsets) > budget:
            break
        if len(subsets):
            found = losses_of(subsets)
            # what is not finite is broken too
            broken = ~(found - base <= threshold)
            sets, losses = np.concatenate([sets, subsets[broken]]), np.concatenate([losses, found[broken]])
        spent, searched = spent + len(subsets), size
    return _Found(base, sets, losses, searched, spent)


def _hypothesis(sets: np.ndarray) -> NewtonTruth | None:
    return newton(sets.astype(int).tolist()) if len(sets) else None


def _exponents(hypothesis: NewtonTruth | None, names: list[str]) -> dict[str, float]:
    """``v/2``: along ``w = t^v`` the loss is of order ``t²``, so that ``w ~ (nβ)^{-v/2}``."""
    if hypothesis is None:
        return dict.fromkeys(names, 0.0)
    weights = [sum(column, Fraction(0)) / len(hypothesis.divisors) for column in zip(*hypothesis.divisors, strict=True)]
    return {name: float(weight) / 2 for name, weight in zip(names, weights, strict=True)}


def _agreement(key: Key, exponents: Mapping[str, float], contact: Mapping[str, float] | None) -> tuple[float, float]:
    if contact is None:
        return float("nan"), float("nan")
    predicted = np.array(list(exponents.values()))
    given = np.array([contact[name] for name in exponents], float)
    if min(predicted.std(), given.std()) == 0:
        return float("nan"), float("nan")
    predicted, given = (predicted - predicted.mean()) / predicted.std(), (given - given.mean()) / given.std()
    agreement = float(np.mean(predicted * given))
    if math.factorial(len(given)) <= _ORDERS:
        orders = np.array(list(itertools.permutations(range(len(given)))))
    else:
        words = np.asarray(jax.random.bits(key, (4,)))
        orders = np.random.default_rng(words).permuted(np.tile(np.arange(len(given)), (_ORDERS, 1)), axis=1)
    return agreement, float(np.mean(np.mean(predicted * given[orders], axis=1) >= agreement - 1e-9))


def _check(components: Mapping, threshold: float, largest: int, budget: int, nulls: int) -> None:
    if not isinstance(components, Mapping) or not components:
        raise ValueError(f"components: got {components!r}; pass a mapping from names to restrictions or boolean trees")
    number = isinstance(threshold, float | int | np.number) and not isinstance(threshold, bool)
    if not number or not 0 < threshold < math.inf:
        raise ValueError(f"threshold: got {threshold!r}; pass an increase of the loss in nats, a positive number")
    for name, value, least in (("largest", largest, 1), ("budget", budget, 1), ("nulls", nulls, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name}: got {value!r}; it must be a whole number, at least {least}")


def _check_contact(contact: Mapping[str, float] | None, components: Mapping) -> None:
    if contact is not None and (not isinstance(contact, Mapping) or set(contact) != set(components)):
        raise ValueError(f"contact: got {contact!r}; give one exponent for each of {list(components)}")
    for name, value in (contact or {}).items():
        if not isinstance(value, float | int | np.number) or not math.isfinite(value):
            raise ValueError(f"contact: got {value!r} for {name!r}; give a finite number")
