"""The oracle from computer algebra: against polyhedra and jets where it is installed, against a stand-in everywhere."""

import importlib.util
import sys
import time
from fractions import Fraction

import pytest

from slt_jax import truths
from slt_jax.truths import find_singular, mustata, newton, newton_ideal, polynomial, singular_lct
from slt_jax.truths.singular import read_answer, singular_program

installed = pytest.mark.skipif(find_singular() is None, reason="Singular is not installed (extra: algebra)")

#: Monomial ideals, with 2λ known by hand.
MONOMIAL = {
    "xy": ([(1, 1)], "1"),
    "x, y^2": ([(1, 0), (0, 2)], "3/2"),
    "x^2, y^3": ([(2, 0), (0, 3)], "5/6"),
    "x^2 y": ([(2, 1)], "1/2"),
    "xy, xz, y^2": ([(1, 1, 0), (1, 0, 1), (0, 2, 0)], "3/2"),
    "xy, yz, xz": ([(1, 1, 0), (0, 1, 1), (1, 0, 1)], "3/2"),
    "xyz": ([(1, 1, 1)], "1"),
    "x^2 y^3, x^3 y^2": ([(2, 3), (3, 2)], "2/5"),
    "xy, x^3, y^3": ([(1, 1), (3, 0), (0, 3)], "1"),
    "x, y, z": ([(1, 0, 0), (0, 1, 0), (0, 0, 1)], "3"),
    "x^3, y^2 z, z^4": ([(3, 0, 0), (0, 2, 1), (0, 0, 4)], "23/24"),
}


@pytest.mark.parametrize("name", MONOMIAL)
def test_the_polyhedron_and_the_jets_agree(name):
    exponents, twice = MONOMIAL[name]
    assert 2 * newton(exponents).learning_coefficient == Fraction(twice)
    assert 2 * mustata(exponents).learning_coefficient == Fraction(twice)


@installed
@pytest.mark.parametrize("name", MONOMIAL)
def test_singular_agrees_with_the_polyhedron_and_the_jets(name):
    exponents, twice = MONOMIAL[name]
    answer = singular_lct([[(1, exponent)] for exponent in exponents])
    assert answer.threshold == Fraction(twice)
    assert answer.exact
    assert answer.multiplicity == newton(exponents).multiplicity


@installed
@pytest.mark.parametrize(
    ("generators", "variables"),
    [
        (["x^2 - y^3"], "xy"),
        (["x^2 + y^4", "x*y"], "xy"),
        (["x^2 - y^2"], "xy"),
        (["x + y^2", "y^2 + z^4"], "xyz"),
        *[([text], "xy") for text in ("x^2*y + y^3", "x^3 + y^4", "x^3 + x*y^3", "x^3 + y^5")],
    ],
)
def test_singular_agrees_with_the_polyhedron_where_that_is_exact(generators, variables):
    polyhedron = newton_ideal([polynomial(text, variables) for text in generators])
    answer = singular_lct(generators, variables)
    assert polyhedron.exact
    assert answer.exact
    assert answer[:2] == polyhedron[:2]


@installed
def test_two_tanh_units_are_what_singular_says_and_the_polyhedron_does_not():
    answer = singular_lct(["a*b + c*d", "a*b^3 + c*d^3"], "abcd")
    assert answer.learning_coefficient == truths.tanh(2).learning_coefficient == Fraction(2, 3)
    assert not answer.exact
    assert "lower bound" in answer.source
    assert newton_ideal([polynomial(t, "abcd") for t in ("a*b + c*d", "a*b^3 + c*d^3")])[0] > Fraction(2, 3)


@installed
def test_the_product_of_two_matrices_has_the_coefficient_of_its_network():
    generators = ["a*e + b*g", "a*f + b*h", "c*e + d*g", "c*f + d*h"]
    answer = singular_lct(generators, "abcdefgh")
    assert answer.learning_coefficient == truths.deep_linear([2, 2, 2], 0).learning_coefficient
    assert answer.codimension == 3


@installed
def test_over_the_complex_numbers_a_sum_of_squares_is_another_question():
    squares = singular_lct(["x^2 + y^2 + z^2"], "xyz")
    assert (squares.threshold, squares.exact) == (1, False)
    assert singular_lct(["x", "y", "z"], "xyz").learning_coefficient == Fraction(3, 2)


@installed
def test_worse_zeros_elsewhere_make_it_a_bound():
    answer = singular_lct(["x*(x - 1)^2"], "x")
    assert answer.learning_coefficient == Fraction(1, 4) < newton([(1,)]).learning_coefficient
    assert not answer.exact


@installed
def test_singular_too_runs_out_of_time():
    with pytest.raises(TimeoutError, match="raise timeout"):
        singular_lct(["a*e + b*g", "a*f + b*h", "c*e + d*g", "c*f + d*h"], "abcdefgh", timeout=0.1)


# --- without Singular ------------------------------------------------------------------------------------------------


def pretend(monkeypatch, folder, body: str) -> None:
    """Puts a script called Singular on PATH, and nothing else."""
    script = folder / "Singular"
    script.write_text(f"#!{sys.executable}\nimport sys, time\nprogram = sys.stdin.read()\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


ANSWER = "print('slt codimension 1\\nslt roots -1,-5/6,-7/6\\nslt rest 0\\nslt end')"


def test_an_answer_is_read(monkeypatch, tmp_path):
    pretend(monkeypatch, tmp_path, "print('// ** redefining something'); " + ANSWER)
    answer = singular_lct(["x^2 - y^3"], "xy")
    assert answer.threshold == Fraction(5, 6)
    assert answer.roots == (Fraction(-5, 6), Fraction(-1), Fraction(-7, 6))
    assert answer[:2] == (Fraction(5, 12), 1)
    assert answer.exact


def test_the_program_is_read_whole_and_holds_no_text_of_the_caller(monkeypatch, tmp_path):
    pretend(monkeypatch, tmp_path, f"open({str(tmp_path / 'seen')!r}, 'w').write(program); {ANSWER}")
    singular_lct(["velocity^2 - mass^3/7"], ("velocity", "mass"))
    seen = (tmp_path / "seen").read_text()
    assert "velocity" not in seen
    assert "ideal F = (1)*w(1)^2+(-1/7)*w(2)^3;" in seen
    assert seen.endswith("exit;\n")


def test_one_polynomial_and_several_go_to_different_libraries():
    one, two = {(2, 0): Fraction(1)}, {(0, 3): Fraction(1)}
    assert "bfct(F[1])" in singular_program([one], 2)
    assert "bfctVarAnn(F)" in singular_program([one, two], 2)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("print('   ? error occurred in or before STDIN line 4')", "error occurred"),
        ("", "nothing"),
        (ANSWER.replace("rest 0", "rest 1"), "rest 1"),
        (ANSWER.replace("-5/6", "-0.83"), "-0.83"),
        (ANSWER.replace("slt end", "slt"), "roots"),
        (f"{ANSWER}; {ANSWER}", "roots"),
    ],
)
def test_an_answer_that_cannot_be_read_is_shown(monkeypatch, tmp_path, body, said):
    pretend(monkeypatch, tmp_path, body)
    with pytest.raises(RuntimeError, match=rf"(?s)cannot be read.*{said}"):
        singular_lct(["x^2 - y^3"], "xy")


def test_a_failure_is_told_with_its_code(monkeypatch, tmp_path):
    pretend(monkeypatch, tmp_path, "print('out of memory'); sys.exit(14)")
    with pytest.raises(RuntimeError, match="code 14; it said: out of memory"):
        singular_lct(["x"], "x")


def test_a_long_computation_is_stopped_and_the_remedy_named(monkeypatch, tmp_path):
    pretend(monkeypatch, tmp_path, "time.sleep(60)")
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"within 0\.5 s: raise timeout"):
        singular_lct(["x"], "x", timeout=0.5)
    assert time.monotonic() - begin < 20


def test_where_there_is_no_singular_the_message_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert find_singular() is None
    with pytest.raises(FileNotFoundError, match=r"pip install 'slt_jax\[algebra\]'"):
        singular_lct(["x"], "x")


def test_the_binary_inside_the_package_is_found_where_path_has_none(monkeypatch, tmp_path):
    binary = tmp_path / "sage_wheels" / "bin" / "Singular"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    if importlib.util.find_spec("sage_wheels").submodule_search_locations[0] == str(binary.parent.parent):
        assert find_singular() is None, "a file that cannot be executed is no Singular"
        binary.chmod(0o755)
        assert find_singular() == str(binary)


def test_codimension_shifts_the_largest_root():
    assert read_answer("slt codimension 2\nslt roots -1,-1/2\nslt rest 0\nslt end\n") == (2, (Fraction(-1, 2), -1))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: singular_lct([], "x"), "exponents"),
        (lambda: singular_lct("x", "x"), "polynomials"),
        (lambda: singular_lct(5, "x"), "polynomials"),
        (lambda: singular_lct(["x^2 + 1"], "x"), "exponents"),
        (lambda: singular_lct(["x"]), "variables"),
        (lambda: singular_lct(["x"], "xx"), "variables"),
        (lambda: singular_lct([[(1, (1, 0))]], "x"), "variables"),
        (lambda: singular_lct(["x"], "x", timeout=0), "timeout"),
        (lambda: singular_lct([[1, 2]]), "polynomials"),
        (lambda: singular_lct(['system("sh", "ls")'], "x"), "text"),
        (lambda: polynomial("x y", "xy"), "text"),
        (lambda: polynomial("x^y", "xy"), "text"),
        (lambda: polynomial("x/y", "xy"), "text"),
        (lambda: polynomial("1e999*x", "xy"), "text"),
        (lambda: polynomial("z", "xy"), "text"),
        (lambda: polynomial("x^1000", "xy"), "text"),
        (lambda: polynomial(3, "xy"), "text"),
        (lambda: polynomial("x", ("x", "1")), "variables"),
        (lambda: polynomial("x", 3), "variables"),
    ],
)
def test_bad_input_is_refused_by_name_with_what_was_got_and_what_to_do(call, named):
    with pytest.raises(ValueError, match=rf"{named}.*got.*: \S"):
        call()


def test_polynomials_are_multiplied_out():
    assert polynomial("-(x + 2*y)^2*(x - 1/2) + +0.5*x**2", "xy") == [
        (Fraction(-1), (3, 0)),
        (Fraction(1), (2, 0)),
        (Fraction(-4), (2, 1)),
        (Fraction(2), (1, 1)),
        (Fraction(-4), (1, 2)),
        (Fraction(2), (0, 2)),
    ]
    assert polynomial("x - x", "x") == []
