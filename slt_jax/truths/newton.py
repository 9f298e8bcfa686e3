"""Newton polyhedra: exact learning coefficients of monomial ideals, with the toric divisors that decide."""

import math
import operator
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax.problem import Problem
from slt_jax.truths.covering import Covering, solve_covering
from slt_jax.truths.polyhedron import Point, optimal_vertices
from slt_jax.truths.vandermonde import check_units
from slt_jax.types import Array

_SOURCE = (
    "monomial ideal by its Newton polyhedron: Howald 2001, Multiplier ideals of monomial ideals, Transactions of the "
    "AMS 353, 2665-2671; over the reals with multiplicity: Lin 2011, Algebraic Methods for Evaluating Integrals in "
    "Bayesian Statistics, PhD thesis, Berkeley; certified in exact arithmetic"
)


class NewtonTruth(NamedTuple):
    """A learning coefficient read off a Newton polyhedron: every attribute of ``Truth`` and the geometry behind it.

    Attributes:
      learning_coefficient: λ, or a bound on it from above where ``exact`` is False.
      multiplicity: m, or None where it is not known.
      source: The theorem, or the reason why the number is an upper bound only.
      exact: Whether λ is proved; where False it is an upper bound.
      divisors: The extreme optimal weights ``v``, scaled to order 1 on the ideal: the toric divisors that decide.
      takes_part: The coordinates with ``v_j > 0`` on some of these divisors.
      binding: Generators whose inequality is tight with a positive multiplier: what a better answer must change.
    """

    learning_coefficient: Fraction
    multiplicity: int | None
    source: str
    exact: bool
    divisors: tuple[tuple[Fraction, ...], ...]
    takes_part: tuple[int, ...]
    binding: tuple[Point, ...]


def newton(exponents: Sequence[Sequence[int]], prior: Sequence[int | Fraction] | None = None) -> NewtonTruth:
    """The learning coefficient of a sum of squares of monomials: a linear programme over its Newton polyhedron.

    ``K = Σ_α w^{2α}``, prior ``Π |w_j|^{h_j}``: ``2λ = min { Σ (h_j + 1) v_j : v ≥ 0, ⟨α, v⟩ ≥ 1 for all α }`` and
    ``m = 1 +`` the dimension of the set of optimal ``v``.

    Args:
      exponents: The vectors ``α`` of the generators, non-negative whole numbers, none zero; not doubled.
      prior: The exponents ``h`` of the prior, above -1, whole or fractions; zeros if not given.

    Returns:
      λ and m, exact, with the toric divisors and the coordinates that take part.

    Raises:
      ValueError: Exponents that are no list of equally long vectors of whole numbers, or zero; a prior of another
        length or not integrable.
      ArithmeticError: A certificate of the linear programme fails; no uncertified number is returned.

    When not to believe it:
      It is the answer at the origin for these very monomials. Generators with several terms: ``newton_ideal``. At
      finite ``nβ`` an estimate is lower by about ``(m-1)/log nβ``.

    Source:
      Howald 2001, Transactions of the AMS 353, 2665-2671; over the reals with multiplicity Lin 2011, PhD thesis,
      Berkeley.

    >>> answer = newton([(2, 0), (0, 3)])
    >>> answer.learning_coefficient, answer.multiplicity, answer.divisors
    (Fraction(5, 12), 1, ((Fraction(1, 2), Fraction(1, 3)),))
    """
    points, cost = check_exponents(exponents, prior)
    twice, multiplicity, divisors, binding = newton_optimum(points, cost)
    return NewtonTruth(twice / 2, multiplicity, _SOURCE, True, divisors, taking_part(divisors), binding)


def check_exponents(
    exponents: Sequence[Sequence[int]], prior: Sequence[int | Fraction] | None
) -> tuple[list[Point], tuple[Fraction, ...]]:
    """The distinct exponents as integers and the cost ``h + 1`` of each coordinate, or a ``ValueError``."""
    try:
        points = list(dict.fromkeys(tuple(operator.index(a) for a in exponent) for exponent in exponents))
    except TypeError:
        raise ValueError(f"exponents must be vectors of whole numbers, got {exponents!r}: one per generator") from None
    if not points:
        raise ValueError(f"exponents must not be empty, got {exponents!r}: a loss that is zero everywhere has no λ")
    if len({len(point) for point in points}) != 1 or not all(map(any, points)):
        raise ValueError(
            f"exponents must be equally long, none of them all zero, got {points}: a constant generator has no zero"
        )
    if min(map(min, points)) < 0:
        raise ValueError(f"exponents must not be negative, got {points}: clear the denominators")
    try:
        heights = [Fraction(0)] * len(points[0]) if prior is None else [Fraction(height) for height in prior]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"prior must be a vector of finite exponents, got {prior!r}: one per coordinate") from None
    if len(heights) != len(points[0]) or not all(height > -1 for height in heights):
        raise ValueError(f"prior must have {len(points[0])} entries, all above -1, got {prior!r}: correct it")
    return points, tuple(height + 1 for height in heights)


def newton_optimum(
    points: Sequence[Point], cost: Sequence[Fraction]
) -> tuple[Fraction, int, tuple[tuple[Fraction, ...], ...], tuple[Point, ...]]:
    """``min Σ c v`` over ``v ≥ 0, ⟨α, v⟩ ≥ 1``, with the number of divisors that meet, the divisors and the cuts.

    With ``v_j = u_j D/c_j``, the whole number ``D`` clearing the denominators, it is a covering with unit costs.
    """
    scale = math.lcm(*(c.numerator for c in cost))
    whole = [int(scale / c) for c in cost]
    rows = np.array([[a * f for a, f in zip(point, whole, strict=True)] for point in points], dtype=object)
    covering = solve_covering(len(cost), partial(_violated, rows))
    support = [j for j, slack in enumerate(_slacks(covering, len(cost))) if slack == 0]
    vertices = optimal_vertices([tuple(map(int, row)) for row in rows], covering.value, support)
    divisors = tuple(tuple(u * f for u, f in zip(vertex, whole, strict=True)) for vertex in vertices)
    of_row = dict(zip(map(tuple, rows), points, strict=True))
    value = sum((c * v for c, v in zip(cost, divisors[0], strict=True)), Fraction(0))
    return value, 1 + covering.face_dimension, divisors, tuple(of_row[cut] for cut in covering.cuts)


def _violated(rows: np.ndarray, weights: np.ndarray, threshold: float | int) -> np.ndarray:
    """The rows of order below the threshold; exact where the weights are integers."""
    if weights.dtype.kind == "f":
        return rows[rows.astype(float) @ weights < threshold]
    return rows[(rows @ weights.astype(object) < threshold).astype(bool)]


def _slacks(covering: Covering, dimension: int) -> list[Fraction]:
    """``1 - Σ y α`` by coordinate: where it is positive every optimal weight is zero."""
    pairs = list(zip(covering.cuts, covering.multipliers, strict=True))
    return [1 - sum((y * cut[j] for cut, y in pairs), Fraction(0)) for j in range(dimension)]


def taking_part(divisors: Sequence[Sequence[Fraction]]) -> tuple[int, ...]:
    """The coordinates that are positive on some divisor.

    >>> taking_part([(Fraction(0), Fraction(1)), (Fraction(0), Fraction(2))])
    (1,)
    """
    return tuple(j for j in range(len(divisors[0])) if any(divisor[j] for divisor in divisors))


def newton_problem(exponents: Sequence[Sequence[int]], *, examples: int = 10_000) -> Problem:
    """A sum of squares of monomials as a problem, at the origin.

    ``K(w) = Σ_α w^{2α}`` is the loss itself.

    Args:
      exponents: The vectors ``α``, as ``newton``.
      examples: ``n``, the number of examples in ``data``.

    Returns:
      A problem in nats with a loss of shape ``()``, parameters zeros of shape ``(d,)``, data zeros ``(n, 0)``.

    Raises:
      ValueError: As ``newton``, or fewer than one example.

    When not to believe it:
      Where the monomials vanish along curves through the origin the arms have unbounded curvature.

    Source:
      Lin 2011, PhD thesis, Berkeley.

    >>> problem = newton_problem([(1, 0), (0, 2)])
    >>> float(problem.loss_fn(problem.params + 2.0, problem.data))
    20.0
    """
    points, _ = check_exponents(exponents, None)
    (length,) = check_units(examples=examples)
    doubled = 2 * jnp.asarray(points, dtype=jnp.int32)
    return Problem(Partial(_sum_of_monomials, doubled), jnp.zeros(len(points[0])), jnp.zeros((length, 0)))


def _sum_of_monomials(exponents: Array, w: Array, batch: Array) -> Array:
    """``Σ_i Π_j w_j^{exponents_ij}``, shape ``()``."""
    del batch  # carries the number of examples only
    return jnp.sum(jnp.prod(jnp.power(w[None, :], exponents), axis=1))
