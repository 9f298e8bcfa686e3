"""Simple singularities: weights, central charge, Milnor number, and the matrix factorisation that Koszul built."""

from collections.abc import Sequence
from fractions import Fraction
from math import prod
from typing import Any, NamedTuple

import numpy as np

from slt_jax.truths.polyhedron import Point

_EXCEPTIONAL: dict[str, tuple[Point, ...]] = {
    "E6": ((3, 0), (0, 4)),
    "E7": ((3, 0), (1, 3)),
    "E8": ((3, 0), (0, 5)),
}


class Potential(NamedTuple):
    """A quasi-homogeneous potential ``W`` with an isolated critical point at the origin, all coefficients one.

    Attributes:
      name: ``A3``, ``D4``, ``E6`` ...
      exponents: The exponents of its monomials.
      weights: ``q_j`` with ``W(s^{q_1} x_1, ...) = s W(x)``.
      central_charge: ``ĉ = Σ (1 - 2 q_j)``.
      milnor_number: ``μ = Π (1/q_j - 1)``.
    """

    name: str
    exponents: tuple[Point, ...]
    weights: tuple[Fraction, ...]
    central_charge: Fraction
    milnor_number: int


def simple_singularity(name: str) -> Potential:
    """A simple singularity by its name, over one variable (A) or two (D, E).

    ``A_k: x^{k+1}`` · ``D_k: x^{k-1} + x y²`` · ``E6: x³ + y⁴`` · ``E7: x³ + x y³`` · ``E8: x³ + y⁵``.

    Args:
      name: ``A1, A2, ...``, ``D4, D5, ...``, ``E6``, ``E7`` or ``E8``.

    Returns:
      The potential with its invariants, exact.

    Raises:
      ValueError: Another name.

    When not to believe it: these invariants belong to isolated quasi-homogeneous critical points. The loss of a
    network at its minimum is none: do not read a central charge off a checkpoint.

    Source: Arnold, Gusein-Zade and Varchenko 1985, Singularities of Differentiable Maps I, Birkhäuser; Milnor and
    Orlik 1970, Isolated singularities defined by weighted homogeneous polynomials, Topology 9, 385-393; central
    charge: Vafa and Warner 1989, Catastrophes and the classification of conformal theories, Physics Letters B 218,
    51-58.

    >>> [simple_singularity(name).central_charge for name in ("A2", "D4", "E8")]
    [Fraction(1, 3), Fraction(2, 3), Fraction(14, 15)]
    """
    exponents = _exponents(name)
    weights = quasi_weights(exponents)
    central_charge = sum((1 - 2 * q for q in weights), Fraction(0))
    return Potential(name, exponents, weights, central_charge, int(prod(1 / q - 1 for q in weights)))


def _exponents(name: str) -> tuple[Point, ...]:
    family, digits = (name[:1], name[1:]) if isinstance(name, str) else ("", "")
    index = int(digits) if digits.isdecimal() and digits[0] != "0" else 0
    if family == "A" and index >= 1:
        return ((index + 1,),)
    if family == "D" and index >= 4:
        return ((index - 1, 0), (1, 2))
    if name in _EXCEPTIONAL:
        return _EXCEPTIONAL[name]
    raise ValueError(f"name must be A1, A2, ..., D4, D5, ..., E6, E7 or E8, got {name!r}: choose one")


def quasi_weights(exponents: Sequence[Sequence[int]]) -> tuple[Fraction, ...]:
    """The weights ``q`` with ``⟨α, q⟩ = 1`` on every monomial, for as many monomials as variables.

    Args:
      exponents: A square matrix of exponents, one monomial a row.

    Returns:
      The weights.

    Raises:
      ValueError: The matrix is not square, or singular: there is no one such weight.

    When not to believe it: it is exact.

    Source: Milnor and Orlik 1970, Topology 9, 385-393.

    >>> quasi_weights([(3, 0), (1, 3)])
    (Fraction(1, 3), Fraction(2, 9))
    """
    rows = [[Fraction(a) for a in exponent] + [Fraction(1)] for exponent in exponents]
    size = len(rows)
    for column in range(size):
        pivot = next((i for i in range(column, size) if len(rows[i]) == size + 1 and rows[i][column]), None)
        if pivot is None:
            raise ValueError(f"exponents must form an invertible square matrix, got {exponents!r}: no unique weights")
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [a / rows[column][column] for a in rows[column]]
        for i in range(size):
            if i != column:
                rows[i] = [a - rows[i][column] * b for a, b in zip(rows[i], rows[column], strict=True)]
    return tuple(row[-1] for row in rows)


def potential_at(potential: Potential, point: Sequence[Any]) -> Any:
    """``W(x)``, in the arithmetic of the point.

    Args:
      potential: As made by ``simple_singularity``.
      point: ``x``, one number per variable.

    Returns:
      ``W(x)``, a number without units.

    Raises:
      ValueError: A point with another number of coordinates.

    When not to believe it: it is as exact as the arithmetic of the point.

    Source: Arnold, Gusein-Zade and Varchenko 1985, Singularities of Differentiable Maps I, Birkhäuser.

    >>> potential_at(simple_singularity("D4"), [2, 3])
    26
    """
    _check_point(potential, point)
    return sum(prod(x**a for x, a in zip(point, exponent, strict=True)) for exponent in potential.exponents)


def matrix_factorisation(potential: Potential, point: Sequence[Any]) -> np.ndarray:
    """The Koszul matrix factorisation of ``W`` at a point: an odd operator whose square is ``W``.

    ``d = Σ_j x_j θ_j + W_j ∂/∂θ_j`` on the exterior algebra in ``θ_1, ..., θ_n``, with ``W_j = q_j ∂W/∂x_j``; by
    Euler ``Σ x_j W_j = W``, hence ``d² = W``.

    Args:
      potential: As made by ``simple_singularity``.
      point: ``x``: floats, or fractions for an exact matrix.

    Returns:
      ``d``, shape ``(2^n, 2^n)``, of Python numbers; bit ``j`` of an index says whether ``θ_j`` is in the monomial.

    Raises:
      ValueError: A point with another number of coordinates.

    When not to believe it: it is exact in fractions; in floats ``d²`` is ``W`` to rounding.

    Source: Eisenbud 1980, Homological algebra on a complete intersection, Transactions of the AMS 260, 35-64.

    >>> d = matrix_factorisation(simple_singularity("E7"), [Fraction(1, 2), Fraction(3)])
    >>> bool((d @ d == potential_at(simple_singularity("E7"), [Fraction(1, 2), Fraction(3)]) * np.eye(4)).all())
    True
    """
    _check_point(potential, point)
    size = len(potential.weights)
    d = np.zeros((2**size, 2**size), dtype=object)
    for j, (x, q) in enumerate(zip(point, potential.weights, strict=True)):
        slope = (
            sum(
                (
                    exponent[j] * q.numerator * _without(exponent, j, point)
                    for exponent in potential.exponents
                    if exponent[j]
                ),
                start=0 * x,
            )
            / q.denominator
        )
        for basis in range(2**size):
            if not basis >> j & 1:
                sign = (-1) ** (basis & (2**j - 1)).bit_count()
                d[basis | 1 << j, basis] += sign * x
                d[basis, basis | 1 << j] += sign * slope
    return d


def _without(exponent: Point, j: int, point: Sequence[Any]) -> Any:
    """The monomial with one power of the coordinate taken out."""
    return prod(x ** (a - (i == j)) for i, (x, a) in enumerate(zip(point, exponent, strict=True)))


def _check_point(potential: Potential, point: Sequence[Any]) -> None:
    size = len(potential.weights)
    if np.shape(point) != (size,):
        raise ValueError(f"point must have {size} coordinates, got {point!r}: {potential.name} has {size} variables")
