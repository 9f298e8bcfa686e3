"""Newton polyhedra of general polynomials: exact where nondegeneracy is proved, an upper bound where it is not."""

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import TypeAlias

import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax.problem import Problem
from slt_jax.truths.newton import NewtonTruth, check_exponents, newton_optimum, taking_part
from slt_jax.truths.polyhedron import Point, compact_faces
from slt_jax.truths.torus import Polynomial, common_zero, orthant_signs
from slt_jax.truths.vandermonde import check_units
from slt_jax.types import Array

#: A polynomial as its terms ``(coefficient, exponent)``.
Terms: TypeAlias = Sequence[tuple[int | float | Fraction, Sequence[int]]]

_IDEAL = (
    "real nondegenerate ideal, equivalent to its monomials: Lin 2011, Algebraic Methods for Evaluating Integrals in "
    "Bayesian Statistics, PhD thesis, Berkeley; nondegeneracy decided on every compact face"
)
_FUNCTION = (
    "nondegenerate function: Varchenko 1976, Newton polyhedra and estimation of oscillating integrals, Functional "
    "Analysis and Its Applications 10, 175-196; nondegeneracy decided on every compact face"
)
_BOUND = "upper bound only, by the Newton polyhedron (Lin 2011, PhD thesis, Berkeley): "


def newton_ideal(polynomials: Sequence[Terms], prior: Sequence[int | Fraction] | None = None) -> NewtonTruth:
    """The learning coefficient of a sum of squares of polynomials, or a bound on it from above.

    ``K = Σ f_i²``. Always ``K ≤ C Σ_α w^{2α}`` over the exponents of all ``f_i``, so the λ of ``newton`` bounds λ from
    above. If on no compact face the parts of all ``f_i`` on it vanish together at a point with no coordinate zero,
    ``K`` is also bounded from below by those monomials, and λ and m are exact.

    Args:
      polynomials: Each ``f_i`` as its terms ``(coefficient, exponent)``; floats count as the fractions they are.
      prior: The exponents ``h`` of the prior ``Π |w_j|^{h_j}``; zeros if not given.

    Returns:
      λ with ``exact`` saying whether it is proved, and m where it is.

    Raises:
      ValueError: No polynomial, one that is not zero at the origin, or exponents and prior as ``newton`` refuses.
      ArithmeticError: As ``newton``.

    When not to believe it:
      Where ``exact`` is False the true λ may be far smaller: other coordinates may make the ideal nondegenerate.
      Undecided and degenerate are both called bounds; ``source`` tells them apart.

    Source:
      Lin 2011, PhD thesis, Berkeley. One polynomial is treated as a function: ``newton_function``.

    >>> two_units = [[(1, (1, 0, 1, 0)), (1, (0, 1, 0, 1))], [(1, (1, 0, 3, 0)), (1, (0, 1, 0, 3))]]
    >>> newton_ideal(two_units)[:2], newton_ideal(two_units).exact  # the true coefficient is 2/3
    ((Fraction(1, 1), None), False)
    """
    generators = [terms for terms in collected_all(polynomials) if terms]
    if len(generators) == 1:
        half = newton_function([(c, exponent) for exponent, c in generators[0].items()], prior)
        return half._replace(learning_coefficient=half.learning_coefficient / 2)
    points, cost = check_exponents([exponent for terms in generators for exponent in terms], prior)
    twice, multiplicity, divisors, binding = newton_optimum(points, cost)
    zeros = {face: common_zero([_part(terms, face) for terms in generators]) for face in compact_faces(points)}
    exact = all(zero is False for zero in zeros.values())
    source = _IDEAL if exact else _BOUND + _why_not(zeros)
    part = taking_part(divisors)
    return NewtonTruth(twice / 2, multiplicity if exact else None, source, exact, divisors, part, binding)


def newton_function(polynomial: Terms, prior: Sequence[int | Fraction] | None = None) -> NewtonTruth:
    """The learning coefficient of a single polynomial taken as the loss itself, or a bound on it from above.

    ``K = |f|``. If no part of ``f`` on a compact face vanishes off the coordinate planes, ``|f|`` is equivalent to the
    sum of its monomials: ``λ = 1/t``, whatever its size. If such parts vanish but nowhere together with all their
    derivatives, ``f`` changes sign across a hypersurface that is smooth in the toric resolution, a divisor of pole 1:
    ``λ = min(1/t, 1)``.

    Args:
      polynomial: The terms ``(coefficient, exponent)`` of ``f``.
      prior: The exponents ``h`` of the prior; zeros if not given.

    Returns:
      λ with ``exact`` saying whether it is proved, and m where it is. Where 1 caps λ the divisors are still the toric
      ones. For ``K = f²`` halve λ.

    Raises:
      ValueError: As ``newton_ideal``.

    When not to believe it:
      Where ``exact`` is False. A bound is capped at 1 only where ``f`` provably changes sign at the origin: over the
      reals ``x² + y² + z²`` has 3/2.

    Source:
      Varchenko 1976, Functional Analysis and Its Applications 10, 175-196.

    >>> newton_function([(1, (2, 0)), (1, (0, 4))])[:2]
    (Fraction(3, 4), 1)
    >>> newton_function([(1, (2, 0)), (-1, (0, 2))])[:2]
    (Fraction(1, 1), 2)
    """
    terms = collected(polynomial)
    points, cost = check_exponents(list(terms), prior)
    value, toric, divisors, binding = newton_optimum(points, cost)
    zeros = {face: common_zero([_part(terms, face)]) for face in compact_faces(points)}
    singular = {
        face: common_zero([_part(terms, face), *_derivatives(_part(terms, face))])
        for face, zero in zeros.items()
        if zero is not False
    }
    part = taking_part(divisors)
    nondegenerate = all(zero is False for zero in singular.values())
    vanishes = True if True in zeros.values() else (None if None in zeros.values() else False)
    if nondegenerate and (value <= 1 or vanishes is not None):
        multiplicity = _multiplicity(value, toric, divisors, zeros, vanishes)
        value = min(value, Fraction(1)) if vanishes else value
        return NewtonTruth(value, multiplicity, _FUNCTION, True, divisors, part, binding)
    if _changes_sign_at_origin(terms, zeros):
        value = min(value, Fraction(1))
    return NewtonTruth(value, None, _BOUND + _why_not(singular), False, divisors, part, binding)


def collected(terms: Terms) -> dict[Point, Fraction]:
    """The terms as a mapping from exponent to coefficient, like terms added, zeros left out.

    >>> collected([(1, (1, 0)), (2, (0, 1)), (-1, (1, 0))])
    {(0, 1): Fraction(2, 1)}
    """
    found: dict[Point, Fraction] = {}
    try:
        for coefficient, exponent in terms:
            found[tuple(exponent)] = found.get(tuple(exponent), Fraction(0)) + Fraction(coefficient)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"polynomials must be lists of terms (coefficient, exponent), got {terms!r}: x² - y³ is "
            "[(1, (2, 0)), (-1, (0, 3))], or polynomial('x^2 - y^3', 'xy')"
        ) from None
    return {exponent: c for exponent, c in found.items() if c}


def collected_all(polynomials: Sequence[Terms]) -> list[dict[Point, Fraction]]:
    """Each polynomial as a mapping, or a ``ValueError``."""
    if isinstance(polynomials, str) or not isinstance(polynomials, Sequence):
        raise ValueError(f"polynomials must be a list of polynomials, got {polynomials!r}: put brackets around one")
    return [collected(terms) for terms in polynomials]


def _part(terms: Polynomial, face: Sequence[Point]) -> dict[Point, Fraction]:
    return {exponent: terms[exponent] for exponent in face if exponent in terms}


def _derivatives(terms: Polynomial) -> list[dict[Point, Fraction]]:
    """``w_j ∂_j f`` for every coordinate: their common zeros off the coordinate planes are those of the gradient."""
    dimension = len(next(iter(terms)))
    return [{e: c * e[j] for e, c in terms.items() if e[j]} for j in range(dimension)]


def _multiplicity(
    value: Fraction,
    toric: int,
    divisors: Sequence[Sequence[Fraction]],
    zeros: dict[tuple[Point, ...], bool | None],
    vanishes: bool | None,
) -> int | None:
    """How many divisors of the least pole meet: toric ones, the zero set of ``f`` itself, or both in a tie at 1."""
    if value != 1 or vanishes is False:
        return 1 if vanishes and value > 1 else toric
    lowest = frozenset.intersection(*(_first_met(divisor, zeros) for divisor in divisors))
    met = zeros.get(tuple(sorted(lowest)))
    # Only where all the toric divisors meet can the zero set raise their number.
    return None if met is None else toric + met


def _first_met(divisor: Sequence[Fraction], faces: dict[tuple[Point, ...], bool | None]) -> frozenset[Point]:
    points = {point for face in faces for point in face}
    orders = {point: sum((a * v for a, v in zip(point, divisor, strict=True)), Fraction(0)) for point in points}
    return frozenset(point for point, order in orders.items() if order == min(orders.values()))


def _changes_sign_at_origin(terms: Polynomial, faces: dict[tuple[Point, ...], bool | None]) -> bool:
    """Whether vertex terms of either sign dominate along curves into the origin."""
    vertices = [face[0] for face in faces if len(face) == 1]
    odd = any(a % 2 for vertex in vertices for a in vertex)
    return odd or len(orthant_signs({vertex: terms[vertex] for vertex in vertices}, (0,) * len(vertices[0]))) == 2


def _why_not(zeros: dict[tuple[Point, ...], bool | None]) -> str:
    degenerate = [face for face, zero in zeros.items() if zero]
    if degenerate:
        return f"degenerate on the face {list(degenerate[0])}"
    return f"nondegeneracy undecided on the face {next(list(face) for face, zero in zeros.items() if zero is None)}"


def polynomials_problem(polynomials: Sequence[Terms], *, examples: int = 10_000) -> Problem:
    """A sum of squares of polynomials as a problem, at the origin.

    ``K(w) = Σ_i f_i(w)²`` is the loss itself.

    Args:
      polynomials: Each ``f_i`` as its terms ``(coefficient, exponent)``.
      examples: ``n``, the number of examples in ``data``.

    Returns:
      A problem in nats with a loss of shape ``()``, parameters zeros of shape ``(d,)``, data zeros ``(n, 0)``.

    Raises:
      ValueError: As ``newton_ideal``, or fewer than one example.

    When not to believe it:
      As ``newton_problem``; coefficients are rounded to the precision in use.

    Source:
      Lin 2011, PhD thesis, Berkeley.

    >>> problem = polynomials_problem([[(1, (1, 0)), (-2, (0, 1))]])
    >>> float(problem.loss_fn(problem.params + 1.0, problem.data))
    1.0
    """
    generators = collected_all(polynomials)
    points, _ = check_exponents([exponent for terms in generators for exponent in terms], None)
    (length,) = check_units(examples=examples)
    rows = list(itertools.product(generators, points))
    table = jnp.asarray([float(terms.get(point, 0)) for terms, point in rows]).reshape(len(generators), len(points))
    loss_fn = Partial(_sum_of_squares, table, jnp.asarray(points, dtype=jnp.int32))
    return Problem(loss_fn, jnp.zeros(len(points[0])), jnp.zeros((length, 0)))


def _sum_of_squares(coefficients: Array, exponents: Array, w: Array, batch: Array) -> Array:
    """``Σ_i (Σ_α c_iα w^α)²``, shape ``()``."""
    del batch  # carries the number of examples only
    monomials = jnp.prod(jnp.power(w[None, :], exponents), axis=1)
    # Summed elementwise: a matrix product would round float32 on some accelerators.
    return jnp.sum(jnp.square(jnp.sum(coefficients * monomials[None, :], axis=1)))
