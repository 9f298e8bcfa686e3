"""Polynomials as text: ``x^2 - y^3`` becomes the terms that Newton polyhedra and Singular take."""

import ast
import math
from collections.abc import Sequence
from fractions import Fraction

from slt_jax.truths.polyhedron import Point
from slt_jax.truths.torus import Polynomial

#: Powers of sums are multiplied out: beyond this they are a slip rather than a loss.
_HIGHEST_POWER = 200


def polynomial(text: str, variables: Sequence[str]) -> list[tuple[Fraction, Point]]:
    """The terms of a polynomial written as one would on paper.

    Sums, products, powers (``^`` or ``**``) with whole exponents, brackets, whole numbers, decimals and quotients by
    numbers; products need their ``*``. Everything is multiplied out exactly.

    Args:
      text: The polynomial, as in ``"(x + y)^2 - x*z/2"``.
      variables: The names of the coordinates, in their order; a string of letters will do.

    Returns:
      Its terms ``(coefficient, exponent)``, like ones added, none zero: what ``newton_ideal`` and ``singular_lct``
      take.

    Raises:
      ValueError: Text that is no polynomial in these variables, or variables that are no distinct names.

    When not to believe it: it is exact; decimals count as written, ``0.1`` as one tenth.

    Source: elementary.

    >>> polynomial("(x + y)^2 - y^2", "xy") == [(1, (2, 0)), (2, (1, 1))]
    True
    """
    if not isinstance(text, str):
        raise ValueError(f"text must be a string, got {text!r}: write 'x^2 - y^3'")
    names = check_variables(variables)
    try:
        syntax = ast.parse(text.strip().replace("^", "**"), mode="eval").body
    except (SyntaxError, ValueError):
        raise ValueError(f"text must be a polynomial, got {text!r}: as in 'x^2 - 3*x*y'") from None
    terms = _value(syntax, names, text)
    return [(c, exponent) for exponent, c in terms.items() if c]


def check_variables(variables: Sequence[str]) -> tuple[str, ...]:
    """The names as a tuple, or a ``ValueError``."""
    try:
        names = tuple(variables)
    except TypeError:
        names = ()
    if not names or len(set(names)) != len(names) or not all(isinstance(n, str) and n.isidentifier() for n in names):
        raise ValueError(f"variables must be distinct names, got {variables!r}: as in ('x', 'y') or 'xy'")
    return names


def _value(node: ast.expr, names: tuple[str, ...], text: str) -> dict[Point, Fraction]:
    """The polynomial that a piece of syntax stands for."""
    constant = (0,) * len(names)
    match node:
        case ast.Name(id=name) if name in names:
            return {tuple(int(name == other) for other in names): Fraction(1)}
        case ast.Name(id=name):
            raise ValueError(f"text has the unknown variable {name!r}, got {text!r}: variables are {', '.join(names)}")
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool) and math.isfinite(number):
            # the digits as they were written
            return {constant: Fraction(str(number))}
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            sign = -1 if isinstance(node.op, ast.USub) else 1
            return {exponent: sign * c for exponent, c in _value(operand, names, text).items()}
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=power)) if type(power) is int:
            if 0 <= power <= _HIGHEST_POWER:
                result: dict[Point, Fraction] = {constant: Fraction(1)}
                for _ in range(power):
                    result = _product(result, _value(left, names, text))
                return result
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() as op, right=right):
            first, second = _value(left, names, text), _value(right, names, text)
            if isinstance(op, ast.Mult):
                return _product(first, second)
            if isinstance(op, ast.Add | ast.Sub):
                sign = 1 if isinstance(op, ast.Add) else -1
                return _total(first, {exponent: sign * c for exponent, c in second.items()})
            if set(second) == {constant} and second[constant]:
                return {exponent: c / second[constant] for exponent, c in first.items()}
    raise ValueError(f"text must be a polynomial, got {text!r}: {ast.unparse(node)} is none")


def _total(first: Polynomial, second: Polynomial) -> dict[Point, Fraction]:
    keys = dict.fromkeys([*first, *second])
    return {key: first.get(key, Fraction(0)) + second.get(key, Fraction(0)) for key in keys}


def _product(first: Polynomial, second: Polynomial) -> dict[Point, Fraction]:
    result: dict[Point, Fraction] = {}
    for a, c in first.items():
        for b, d in second.items():
            key = tuple(i + j for i, j in zip(a, b, strict=True))
            result[key] = result.get(key, Fraction(0)) + c * d
    return result
