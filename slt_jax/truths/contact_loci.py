"""Contact loci of monomial ideals: jets counted exactly, and the learning coefficient from their codimensions."""

import math
import operator
from collections.abc import Sequence
from fractions import Fraction

from slt_jax.truths.newton import check_exponents, newton_optimum
from slt_jax.truths.polyhedron import Point
from slt_jax.truths.truth import Truth
from slt_jax.truths.vandermonde import check_units

_SOURCE = (
    "log canonical threshold by jets: Mustață 2002, Singularities of pairs via jet schemes, Journal of the American "
    "Mathematical Society 15(3), 599-615"
)


def jet_codimension(exponents: Sequence[Sequence[int]], order: int) -> int:
    """The codimension of the jets of a given order that lie in the zeros of a monomial ideal.

    A jet ``w(t)`` modulo ``t^(m+1)`` with orders of vanishing ``v`` lies in them iff ``⟨α, v⟩ ≥ m + 1`` for all
    generators, and having these orders costs ``Σ v`` coefficients:
    ``codim J_m = min { Σ v : v whole, 0 ≤ v_j ≤ m + 1, ⟨α, v⟩ ≥ m + 1 }``.

    Args:
      exponents: The vectors ``α`` of the generators.
      order: ``m``, from 0 up.

    Returns:
      The codimension, exact, by dynamic programming over the coordinates.

    Raises:
      ValueError: As ``newton``, or an order that is negative or not whole.

    When not to believe it: it is exact; its cost grows with ``(m + 2)`` to the number of generators.

    Source: Mustață 2002, Journal of the AMS 15(3), 599-615.

    >>> [jet_codimension([(2, 0), (0, 3)], order) for order in range(6)]
    [2, 2, 3, 4, 5, 5]
    """
    points, _ = check_exponents(exponents, None)
    try:
        order = operator.index(order)
    except TypeError:
        raise ValueError(f"order must be a whole number, got {order!r}: jets have orders 0, 1, 2, ...") from None
    if order < 0:
        raise ValueError(f"order must not be negative, got {order}: jets have orders 0, 1, 2, ...")
    contact = order + 1
    # What each generator still lacks, and the least cost at which it is reached.
    reached: dict[Point, int] = {(contact,) * len(points): 0}
    for powers in zip(*points, strict=True):
        spread: dict[Point, int] = {}
        for lacking, cost in reached.items():
            for v in range(_useful(lacking, powers) + 1):
                left = tuple(max(lack - v * power, 0) for lack, power in zip(lacking, powers, strict=True))
                spread[left] = min(spread.get(left, cost + v), cost + v)
        reached = spread
    return reached[(0,) * len(points)]


def _useful(lacking: Point, powers: Point) -> int:
    """The least order of the coordinate beyond which it gains nothing for any generator."""
    return max((-(-lack // power) for lack, power in zip(lacking, powers, strict=True) if power), default=0)


def contact_loci(exponents: Sequence[Sequence[int]], orders: int) -> tuple[Fraction, ...]:
    """The ratios ``codim J_m/(m + 1)`` for the first orders: each bounds ``2λ`` from above, some attain it.

    Args:
      exponents: The vectors ``α`` of the generators of a monomial ideal.
      orders: How many orders, ``m = 0, ..., orders - 1``.

    Returns:
      The ratios.

    Raises:
      ValueError: As ``jet_codimension``, or ``orders`` is not a whole number from 1 up.

    When not to believe it: the least of finitely many is ``2λ`` only if ``m + 1`` reached a multiple of the
    denominators of an optimal weight.

    Source: Mustață 2002, Journal of the AMS 15(3), 599-615.

    >>> min(contact_loci([(2, 0), (0, 3)], orders=6))
    Fraction(5, 6)
    """
    (count,) = check_units(orders=orders)
    return tuple(Fraction(jet_codimension(exponents, order), order + 1) for order in range(count))


def mustata(exponents: Sequence[Sequence[int]]) -> Truth:
    """The learning coefficient of a sum of squares of monomials, by counting jets.

    ``2λ = min_m codim(J_m)/(m + 1)``. The order is taken from the Newton polyhedron: one less than the least common
    denominator of an optimal weight; the codimension there is counted without it, and the two must agree.

    Args:
      exponents: The vectors ``α`` of the generators.

    Returns:
      λ; the multiplicity is not counted.

    Raises:
      ValueError: As ``newton``.
      ArithmeticError: The jets contradict the Newton polyhedron.

    When not to believe it: ideals that are not monomial have other jets.

    Source: Mustață 2002, Journal of the AMS 15(3), 599-615.

    >>> mustata([(1, 1, 0), (1, 0, 1), (0, 2, 0)]).learning_coefficient
    Fraction(3, 4)
    """
    points, cost = check_exponents(exponents, None)
    value, _, divisors, _ = newton_optimum(points, cost)
    contact = min(math.lcm(*(v.denominator for v in divisor)) for divisor in divisors)
    counted = Fraction(jet_codimension(points, contact - 1), contact)
    if counted != value:
        raise ArithmeticError(f"jets of order {contact - 1} give {counted}, the Newton polyhedron {value}")
    return Truth(counted / 2, None, _SOURCE)
