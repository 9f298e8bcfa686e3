"""An oracle from computer algebra: log canonical thresholds by Bernstein-Sato polynomials, computed by Singular."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from slt_jax.truths.newton import check_exponents
from slt_jax.truths.nondegenerate import Terms, collected, newton_ideal
from slt_jax.truths.polyhedron import Point
from slt_jax.truths.polynomial import check_variables, polynomial

_THEOREM = (
    "log canonical threshold as the largest root of the Bernstein-Sato polynomial: Kollár 1997, Singularities of "
    "pairs; for ideals Budur, Mustață and Saito 2006, Compositio Mathematica 142, 779-797; computed by Singular; "
)
_MET = _THEOREM + "it bounds λ from below (Saito 2007, arXiv:0707.2308) and the Newton polyhedron does from above"
_BELOW = _THEOREM + (
    "not proven to be λ: a lower bound only (Saito 2007, arXiv:0707.2308), which the Newton polyhedron does not meet"
)
_REMEDY = "pip install 'slt_jax[algebra]', or put a Singular of your own on PATH"
#: Hypersurfaces: Noro's algorithm. Ideals: the annihilator of f^s, shifted by codimension as in the paper of 2006.
_PROGRAM = """LIB "{library}";
ring r = 0,(w(1..{size})),dp;
ideal F = {generators};
int c = nvars(basering) - dim(std(F));
list L = {call};
"slt codimension " + string(c);
"slt roots " + string(L[1]);
"slt rest " + string(size(L) - 2);
"slt end";
exit;
"""
_ANSWER = re.compile(
    r"^slt codimension (\d+)\nslt roots (-?\d+(?:/\d+)?(?:,-?\d+(?:/\d+)?)*)\nslt rest 0\nslt end$", re.MULTILINE
)


class SingularTruth(NamedTuple):
    """A log canonical threshold over the complex numbers, and what it says about λ: every attribute of ``Truth``, more.

    Attributes:
      learning_coefficient: Half the threshold: λ of ``K = Σ f_i²``, or a bound on it from below where not ``exact``.
      multiplicity: m where the Newton polyhedron proves it, else None.
      source: The theorem, or the reason why the number is a lower bound only.
      exact: Whether it meets the upper bound of the Newton polyhedron, so that it is λ at the origin.
      threshold: ``lct(I)`` over the complex numbers.
      roots: The roots as Singular gives them, largest first (those of an ideal are shifted by its codimension).
      codimension: Of the complex zeros.
    """

    learning_coefficient: Fraction
    multiplicity: int | None
    source: str
    exact: bool
    threshold: Fraction
    roots: tuple[Fraction, ...]
    codimension: int


def singular_lct(
    polynomials: Sequence[str | Terms],
    variables: Sequence[str] | None = None,
    *,
    timeout: float = 60.0,
) -> SingularTruth:
    """The log canonical threshold of an ideal, by Singular; half of it is λ of ``K = Σ f_i²`` or bounds it from below.

    ``lct(I) = -(largest root) + codim - 1`` with the roots of ``bfctVarAnn`` (dmodvar.lib); one polynomial alone goes
    to ``bfct`` (bfun.lib), whose codimension is 1. The threshold is that of all complex zeros; over the reals fewer
    divisors count, so ``lct(I)/2 ≤ λ``, while a Newton polyhedron has ``λ ≤``: where the two meet, λ is proved.

    Args:
      polynomials: The generators ``f_i``, each as text (``"x^2 - y^3"``) or as terms ``(coefficient, exponent)``.
      variables: The names of the coordinates, needed where there is text.
      timeout: Seconds after which Singular is stopped. Cost explodes with the number of variables and generators.

    Returns:
      The threshold, λ or its bound, and ``exact``, which says which.

    Raises:
      ValueError: Polynomials that are none or do not vanish at the origin, or a timeout that is not positive.
      FileNotFoundError: There is no Singular.
      TimeoutError: It took longer than that.
      RuntimeError: It failed, or answered what cannot be read; the message holds what it said.

    When not to believe it:
      Where ``exact`` is False. Give the ideal, never ``Σ f_i²``: that has other complex zeros than real ones, and
      ``x² + y² + z²`` has the threshold 1 where half of that of ``(x, y, z)`` is 3/2. Worse zeros elsewhere count as
      well, unless the generators are homogeneous for some positive weights.

    Source:
      Kollár 1997, Singularities of pairs; Budur, Mustață and Saito 2006, Compositio Mathematica 142, 779-797; real
      against complex: Saito 2007, arXiv:0707.2308; algorithms: Andres, Levandovskyy and Martín-Morales 2009,
      arXiv:0902.3756; Decker, Greuel, Pfister and Schönemann, Singular.

    >>> cusp = singular_lct(["x^2 - y^3"], "xy") if find_singular() else None  # answers where Singular is installed
    >>> cusp is None or (cusp.threshold, cusp.exact) == (Fraction(5, 6), True)
    True
    """
    generators = _generators(polynomials, variables)
    if not (isinstance(timeout, int | float) and timeout > 0):
        raise ValueError(f"timeout must be positive, got {timeout!r}: it is in seconds")
    size = len(next(iter(generators[0])))
    above = newton_ideal([[(c, exponent) for exponent, c in terms.items()] for terms in generators])
    codimension, roots = read_answer(_run(singular_program(generators, size), float(timeout)))
    threshold = -roots[0] + codimension - 1
    exact = threshold / 2 == above.learning_coefficient
    source = _MET if exact else _BELOW
    return SingularTruth(
        threshold / 2, above.multiplicity if exact else None, source, exact, threshold, roots, codimension
    )


def find_singular() -> str | None:
    """The path of the Singular to be run: the one on PATH, else that of ``passagemath-singular``, else None.

    Returns:
      A path. Nothing is imported and nothing is run.

    When not to believe it: that a file is there does not mean that it runs.

    Source: Decker, Greuel, Pfister and Schönemann, Singular, a computer algebra system for polynomial computations.

    >>> find_singular() is None or "Singular" in find_singular()
    True
    """
    found = shutil.which("Singular")
    spec = importlib.util.find_spec("sage_wheels") if found is None else None
    places = spec.submodule_search_locations if spec is not None else None
    inside = [str(Path(place) / "bin" / "Singular") for place in places or ()]
    return found or next((path for path in inside if os.access(path, os.X_OK)), None)


def singular_program(generators: Sequence[dict[Point, Fraction]], size: int) -> str:
    """What is sent to Singular: numbers and its own names only, no text of the caller's.

    >>> "w(1)^2" in singular_program([{(2, 0): Fraction(1), (0, 3): Fraction(-1, 2)}], 2)
    True
    """
    text = ", ".join(
        "+".join("*".join([f"({c})", *(f"w({j + 1})^{a}" for j, a in enumerate(e) if a)]) for e, c in terms.items())
        for terms in generators
    )
    library, call = ("bfun.lib", "bfct(F[1])") if len(generators) == 1 else ("dmodvar.lib", "bfctVarAnn(F)")
    return _PROGRAM.format(library=library, call=call, size=size, generators=text)


def read_answer(output: str) -> tuple[int, tuple[Fraction, ...]]:
    """Codimension and roots, largest first, out of what Singular printed.

    Raises:
      RuntimeError: It printed anything but one answer.

    >>> read_answer("slt codimension 1\\nslt roots -1,-5/6\\nslt rest 0\\nslt end\\n")
    (1, (Fraction(-5, 6), Fraction(-1, 1)))
    """
    found = _ANSWER.findall(output)
    if len(found) != 1:
        said = output.strip()[-500:] or "nothing"
        raise RuntimeError(f"Singular's answer cannot be read; it said: {said}. Is its version 4.0 or later?")
    codimension, roots = found[0]
    return int(codimension), tuple(sorted(map(Fraction, roots.split(",")), reverse=True))


def _generators(polynomials: Sequence[str | Terms], variables: Sequence[str] | None) -> list[dict[Point, Fraction]]:
    """The generators that are not zero, as mappings, all zero at the origin; or a ``ValueError``."""
    if isinstance(polynomials, str) or not isinstance(polynomials, Sequence):
        raise ValueError(f"polynomials must be a list of polynomials, got {polynomials!r}: put brackets around one")
    if variables is None and any(isinstance(given, str) for given in polynomials):
        raise ValueError(f"variables must be given where polynomials are text, got {polynomials!r}: as in 'xy'")
    read = [polynomial(given, variables or ()) if isinstance(given, str) else given for given in polynomials]
    generators = [terms for terms in map(collected, read) if terms]
    points, _ = check_exponents([exponent for terms in generators for exponent in terms], None)
    if variables is not None and len(check_variables(variables)) != len(points[0]):
        raise ValueError(f"variables must be {len(points[0])} names, got {variables!r}: one per exponent")
    return generators


def _run(program: str, timeout: float) -> str:
    """What Singular prints for a program on its standard input."""
    binary = find_singular()
    if binary is None:
        raise FileNotFoundError(f"Singular is not installed: {_REMEDY}")
    command = [binary, "--quiet", "--no-rc", "--no-shell", "--no-tty"]
    # a session of its own, so that a wrapper's children end with it
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(program, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"Singular did not answer within {timeout:g} s: raise timeout, or give fewer variables or generators"
            ) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        raise RuntimeError(f"Singular ended with code {process.returncode}; it said: {output.strip()[-500:]}")
    return output
