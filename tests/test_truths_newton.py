"""Newton polyhedra, nondegeneracy and jets: against enumeration, quadrature, signatures and published values."""

from fractions import Fraction
from itertools import combinations, product

import jax.numpy as jnp
import numpy as np
import pytest

from slt_jax.truths import (
    contact_loci,
    jet_codimension,
    mustata,
    newton,
    newton_function,
    newton_ideal,
    newton_problem,
    polynomials_problem,
)
from slt_jax.truths.polyhedron import compact_faces, newton_rays
from slt_jax.truths.torus import common_zero, has_nonzero_root, reduced

X2, XY, Y2 = (2, 0), (1, 1), (0, 2)


def random_ideals(count: int, seed: int, largest: int = 4, dimensions: tuple[int, ...] = (2, 3)) -> list:
    """Monomial ideals with one to four generators, none of them constant."""
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < count:
        shape = (rng.integers(1, 5), rng.choice(dimensions))
        rows = rng.integers(0, largest + 1, size=shape)
        if rows.any(axis=1).all():
            found.append([tuple(map(int, row)) for row in rows])
    return found


def enumerated_vertices(exponents: list) -> np.ndarray:
    """All vertices of ``{v ≥ 0, ⟨α, v⟩ ≥ 1}`` by solving every square subsystem."""
    dimension = len(exponents[0])
    rows = np.concatenate([np.array(exponents, float), np.eye(dimension)])
    right = np.concatenate([np.ones(len(exponents)), np.zeros(dimension)])
    found = []
    for chosen in map(list, combinations(range(len(rows)), dimension)):
        if abs(np.linalg.det(rows[chosen])) > 1e-9:
            v = np.linalg.solve(rows[chosen], right[chosen])
            if (rows @ v > right - 1e-9).all():
                found.append(v)
    return np.unique(np.round(found, 9), axis=0)


def energies(loss, nbetas, dimension: int = 2, step: float = 0.125) -> np.ndarray:
    """``nβ E[K]`` on the cube ``[-1, 1]^d`` by quadrature in ``-log|w_j|``, one sum for all orthants."""
    grid = step * np.arange(0, np.log(nbetas[-1]) / step)
    logs = np.meshgrid(*[grid] * dimension, indexing="ij")
    orthants = [loss(*(s * np.exp(-x) for s, x in zip(signs, logs, strict=True)))
                for signs in product((1, -1), repeat=dimension)]  # fmt: skip
    volume = np.exp(-sum(logs))
    found = []
    for nbeta in nbetas:
        weights = [volume * np.exp(-nbeta * k) for k in orthants]
        total = sum(w.sum() for w in weights)
        found.append(nbeta * sum((k * w).sum() for k, w in zip(orthants, weights, strict=True)) / total)
    return np.array(found)


# --- monomial ideals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exponents", "expected"),
    [
        ([XY], ("1/2", 2)),
        ([(1, 0), Y2], ("3/4", 1)),
        ([(2, 1)], ("1/4", 1)),
        ([X2, (0, 3)], ("5/12", 1)),
        ([(1, 1, 0), (1, 0, 1), (0, 2, 0)], ("3/4", 2)),
        ([(1, 1, 0), (0, 1, 1), (1, 0, 1)], ("3/4", 1)),
        ([(1, 1, 1)], ("1/2", 3)),
        ([(2, 3), (3, 2)], ("1/5", 1)),
        ([XY, (3, 0), (0, 3)], ("1/2", 2)),
        # Howald's examples as the documentation of Macaulay2's MultiplierIdeals prints them, there without the half.
        ([(1, 4, 6), (5, 1, 0), (0, 7, 1), (8, 8, 8)], ("34/191", 1)),
        ([(6, 0), (3, 2), (1, 5)], ("5/26", 1)),
    ],
)
def test_newton_on_a_table_of_ideals(exponents, expected):
    assert newton(exponents)[:2] == (Fraction(expected[0]), expected[1])


def test_a_prior_moves_the_threshold_as_a_multiplier_ideal_says():
    # Macaulay2's documentation: the threshold of x²y for (x^13, x^6 y^4, y^9) is 1/2, on two facets.
    answer = newton([(13, 0), (6, 4), (0, 9)], prior=(2, 1))
    assert answer[:2] == (Fraction(1, 4), 2)
    # The facets 4x + 7y ≥ 52 and 5x + 6y ≥ 54, scaled to 1.
    assert set(answer.divisors) == {(Fraction(1, 13), Fraction(7, 52)), (Fraction(5, 54), Fraction(1, 9))}
    assert newton([(13, 0), (6, 4), (0, 9)]).learning_coefficient != Fraction(1, 4)


def test_newton_is_the_least_of_all_enumerated_vertices():
    multiplicities = set()
    for exponents in random_ideals(150, seed=0):
        vertices = enumerated_vertices(exponents)
        costs = vertices.sum(axis=1)
        best = vertices[costs < costs.min() + 1e-7]
        answer = newton(exponents)
        assert float(2 * answer.learning_coefficient) == pytest.approx(costs.min(), abs=1e-7)
        assert answer.multiplicity == 1 + np.linalg.matrix_rank(best - best[0], tol=1e-6)
        found = np.array(answer.divisors, float)
        assert found.shape == best.shape
        np.testing.assert_allclose(found, best, atol=1e-7)
        np.testing.assert_allclose(np.array(newton_rays(exponents), float), vertices, atol=1e-7)
        assert answer.takes_part == tuple(np.flatnonzero((best > 1e-7).any(axis=0)))
        multiplicities.add(answer.multiplicity)
    assert multiplicities >= {1, 2}


def test_a_prior_is_a_change_of_variables():
    # |w|^h dw is dv for v = w^(h+1): with whole h, exponents α/(h+1) and no prior.
    rng = np.random.default_rng(1)
    for exponents in random_ideals(40, seed=2):
        height = rng.integers(0, 3, size=len(exponents[0]))
        scale = int(np.lcm.reduce(height + 1))
        stretched = [tuple(int(a * scale // (h + 1)) for a, h in zip(row, height, strict=True)) for row in exponents]
        with_prior, without = newton(exponents, prior=height.tolist()), newton(stretched)
        assert with_prior.learning_coefficient == scale * without.learning_coefficient
        assert with_prior.multiplicity == without.multiplicity


def test_separable_blocks_add():
    left, right = [(2, 1), (0, 3)], [(1, 1)]
    both = [(*a, 0, 0) for a in left] + [(0, 0, *b) for b in right]
    one, other, joint = newton(left), newton(right), newton(both)
    assert joint.learning_coefficient == one.learning_coefficient + other.learning_coefficient
    assert joint.multiplicity == one.multiplicity + other.multiplicity - 1


@pytest.mark.parametrize(
    "exponents", [[(1, 0), Y2], [X2, (0, 3)], [(2, 3), (3, 2)], [(2, 1)], [(3, 1), (1, 4), (0, 7)]]
)
def test_a_simple_pole_is_what_quadrature_reads(exponents):
    answer = newton(exponents)
    assert answer.multiplicity == 1
    read = energies(lambda x, y: sum(x ** (2 * a) * y ** (2 * b) for a, b in exponents), [1e40, 1e60])
    assert read[1] == pytest.approx(float(answer.learning_coefficient), rel=2e-3)


@pytest.mark.parametrize("exponents", [[XY], [XY, (3, 0), (0, 3)], [(2, 2), (5, 1), (1, 4)]])
def test_a_double_pole_is_approached_as_one_over_the_logarithm(exponents):
    answer = newton(exponents)
    nbetas = [1e40, 1e60]
    read = energies(lambda x, y: sum(x ** (2 * a) * y ** (2 * b) for a, b in exponents), nbetas)
    gaps = float(answer.learning_coefficient) - read
    slope = np.diff(1 / gaps)[0] / np.diff(np.log(nbetas))[0]
    assert answer.multiplicity == 2
    assert slope == pytest.approx(1.0, rel=0.02)


# --- general polynomials ---------------------------------------------------------------------------------------------


def quadratic(matrix: np.ndarray) -> list:
    """The terms of ``w' M w`` for a symmetric integer matrix."""
    size = len(matrix)
    unit = np.eye(size, dtype=int)
    return [(int(matrix[i, j]), tuple(int(x) for x in unit[i] + unit[j]))
            for i, j in product(range(size), repeat=2) if matrix[i, j]]  # fmt: skip


def test_quadratic_forms_are_never_exact_and_wrong():
    rng = np.random.default_rng(3)
    proved = bounds = 0
    for _ in range(300):
        size = int(rng.integers(1, 4))
        root = rng.integers(-2, 3, size=(size, size))
        matrix = root @ np.diag(rng.choice([-1, 1, 1], size=size)) @ root.T
        if not matrix.any():
            continue
        values = np.linalg.eigvalsh(matrix)
        rank, sign = int(np.sum(np.abs(values) > 1e-9)), np.sign(values[np.abs(values) > 1e-9])
        definite = abs(sign.sum()) == rank
        truth = Fraction(rank, 2) if definite else Fraction(1)
        multiplicity = 2 if not definite and rank == 2 else 1
        answer = newton_function(quadratic(matrix))
        assert answer.learning_coefficient >= truth
        if answer.exact:
            assert answer.learning_coefficient == truth, matrix
            assert answer.multiplicity in (None, multiplicity), matrix
            proved += 1
        else:
            assert answer.multiplicity is None
            assert answer.source.startswith("upper bound")
            bounds += 1
    assert proved > 100
    assert bounds > 20


def test_linear_ideals_are_never_exact_and_wrong():
    rng = np.random.default_rng(4)
    proved = bounds = 0
    for _ in range(150):
        matrix = rng.integers(-1, 2, size=(rng.integers(1, 4), rng.integers(1, 4)))
        if not matrix.any():
            continue
        unit = np.eye(matrix.shape[1], dtype=int)
        forms = [[(int(c), tuple(map(int, unit[j]))) for j, c in enumerate(row) if c] for row in matrix]
        rank = int(np.linalg.matrix_rank(matrix))
        answer = newton_ideal(forms)
        assert answer.learning_coefficient >= Fraction(rank, 2)
        if answer.exact:
            assert answer[:2] == (Fraction(rank, 2), 1)
        proved, bounds = proved + answer.exact, bounds + (not answer.exact)
    assert proved > 50
    assert bounds > 5


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ([(1, X2), (1, (0, 4))], ("3/4", 1)),
        ([(1, (4, 0, 0)), (1, (0, 6, 0)), (1, (0, 0, 10))], ("31/60", 1)),
        ([(1, (2, 0, 0, 0)), (1, (0, 2, 2, 0)), (1, (0, 0, 0, 4))], ("5/4", 2)),
        ([(1, X2), (-3, XY), (1, Y2)], ("1", 2)),
        ([(1, (2, 0, 0)), (1, (0, 2, 0)), (1, (0, 0, 2))], ("3/2", 1)),
        ([(1, (2, 0, 0)), (1, (0, 2, 0)), (-1, (0, 0, 2))], ("1", 1)),
        ([(1, X2), (-1, (0, 3))], ("5/6", 1)),
        ([(1, (1, 0)), (5, (0, 7))], ("1", 1)),
        ([(1, (2, 1)), (1, (1, 2))], ("2/3", 1)),
    ],
)
def test_a_single_function_is_exact_and_capped_only_where_it_changes_sign(terms, expected):
    answer = newton_function(terms)
    assert answer.exact
    assert answer[:2] == (Fraction(expected[0]), expected[1])
    assert newton_ideal([terms]).learning_coefficient == answer.learning_coefficient / 2


@pytest.mark.parametrize(
    ("terms", "truth"),
    [
        ([(1, X2), (-2, XY), (1, Y2), (1, (0, 10))], "3/5"),
        # (x - y)² + z² + s²: at 3/2 a cap at 1 would be wrong.
        ([(1, (2, 0, 0, 0)), (-2, (1, 1, 0, 0)), (1, (0, 2, 0, 0)), (1, (0, 0, 2, 0)), (1, (0, 0, 0, 2))], "3/2"),
    ],
)
def test_a_degenerate_function_gets_a_bound_from_above(terms, truth):
    answer = newton_function(terms)
    assert not answer.exact
    assert answer.multiplicity is None
    assert "degenerate on the face" in answer.source
    assert answer.learning_coefficient > Fraction(truth)


def test_two_tanh_units_are_degenerate_and_the_bound_says_so():
    units = [[(1, (1, 1, 0, 0)), (1, (0, 0, 1, 1))], [(1, (1, 3, 0, 0)), (1, (0, 0, 1, 3))]]
    answer = newton_ideal(units)
    assert answer.learning_coefficient == 1
    assert (answer.exact, answer.multiplicity) == (False, None)
    assert answer.source.startswith("upper bound")
    # The same monomials with a second, independent, combination of the first two are nondegenerate.
    repaired = newton_ideal([*units, [(1, (1, 1, 0, 0)), (2, (0, 0, 1, 1))]])
    assert (repaired.exact, repaired.learning_coefficient) == (True, 1)


def test_an_undecided_face_is_said_to_be_undecided():
    # A sum of squares with the zero (1, 1, 1) on a face of dimension two, hidden from signs and binomials.
    face = [(1, (4, 0, 0)), (1, (0, 4, 0)), (2, (0, 0, 4)), (-2, (2, 0, 2)), (-2, (0, 2, 2))]
    answer = newton_function(face)
    assert not answer.exact
    assert answer.source.startswith("upper bound")
    assert "undecided" in answer.source


def test_a_nondegenerate_ideal_is_what_quadrature_reads():
    answer = newton_ideal([[(1, X2), (-1, (0, 3))], [(1, XY)]])
    assert answer.exact
    read = energies(lambda x, y: (x**2 - y**3) ** 2 + (x * y) ** 2, [1e40, 1e60])
    gaps = float(answer.learning_coefficient) - read
    slope = np.diff(1 / gaps)[0] / np.log(1e20)
    assert slope == pytest.approx(1 / (answer.multiplicity - 1), rel=0.05)


def test_coefficients_that_cancel_leave_no_trace():
    assert newton_ideal([[(1, (1, 0)), (1, X2), (-1, X2)], [(1, Y2)]])[:2] == (Fraction(3, 4), 1)
    assert newton_ideal([[(0.5, (1, 0))], [(Fraction(1, 3), Y2)]])[:2] == (Fraction(3, 4), 1)


def test_compact_faces_of_a_cusp_with_a_point_inside():
    faces = compact_faces([X2, (0, 3), (2, 2), (1, 2)])
    assert faces == [((0, 3),), (X2,), ((0, 3), X2)]
    # A monomial that divides all others has one compact face.
    assert compact_faces([XY, (2, 1), (1, 5)]) == [(XY,)]


# --- zeros off the coordinate planes ---------------------------------------------------------------------------------


def test_sturm_agrees_with_constructed_roots():
    rng = np.random.default_rng(5)
    for _ in range(300):
        reals = rng.choice([-2, -1, 0, 1, 3], size=rng.integers(0, 4)).tolist()
        row = [Fraction(1)]
        for root in reals:
            row = [a - root * b for a, b in zip([Fraction(0), *row], [*row, Fraction(0)], strict=True)]
        for _ in range(rng.integers(0, 3)):
            c = int(rng.integers(1, 4))
            row = [
                a + c * b
                for a, b in zip([Fraction(0), Fraction(0), *row], [*row, Fraction(0), Fraction(0)], strict=True)
            ]
        assert has_nonzero_root(row) == any(reals)


def test_binomial_systems_meet_where_they_were_built_to_and_not_after_a_sign_or_a_factor():
    rng = np.random.default_rng(6)
    refused = 0
    for _ in range(200):
        size = int(rng.integers(1, 4))
        point = [Fraction(int(rng.choice([-2, -1, 1, 3])), int(rng.choice([1, 2, 5]))) for _ in range(size)]
        system = []
        for _ in range(rng.integers(1, 5)):
            a, b = (tuple(map(int, rng.integers(0, 5, size=size))) for _ in range(2))
            if a != b:
                values = [np.prod([w**k for w, k in zip(point, e, strict=True)]) for e in (a, b)]
                system.append({a: Fraction(1), b: -Fraction(values[0]) / Fraction(values[1])})
        assert common_zero(system) is True
        if system:
            (a, first), (b, second) = system[0].items()
            doubled = {tuple(2 * x for x in a): first, tuple(2 * x for x in b): abs(second)}
            assert common_zero([*system, doubled]) is False
            assert common_zero([*system, {a: first, b: 2 * second}]) is False
            refused += 1
    assert refused > 150


def test_sign_changes_signs_and_spans_decide():
    assert common_zero([{(2, 0): 1, (0, 2): 1, (1, 1): 1}]) is False  # no real root though signs differ
    assert common_zero([{(2, 0, 0): 1, (0, 2, 0): 1, (0, 0, 2): 1}]) is False
    assert common_zero([{(2, 0, 0): 1, (0, 2, 0): 1, (0, 0, 2): -1}]) is True
    assert common_zero([{(1, 0, 0): 1, (0, 1, 0): 1, (0, 0, 1): 1}, {(1, 0, 0): 1, (0, 1, 0): 1}]) is False
    assert common_zero([{}]) is True


def test_signs_of_binomials_are_decided_where_orthants_are_too_many_to_list():
    none, once, thrice = (0,) * 14, (1,) * 14, (3,) * 14
    # The product P of fourteen coordinates cannot have P = -1 and P³ = 1.
    assert common_zero([{once: 1, none: 1}, {thrice: 1, none: -1}]) is False
    assert common_zero([{once: 1, none: 1}, {thrice: 1, none: 1}]) is True


def test_a_monomial_in_the_span_is_a_row():
    rng = np.random.default_rng(7)
    columns = [tuple(map(int, row)) for row in np.eye(5, dtype=int)]
    for _ in range(100):
        matrix = rng.integers(-2, 3, size=(3, 5))
        rows = reduced([dict(zip(columns, map(int, row), strict=True)) for row in matrix])
        assert len(rows) == np.linalg.matrix_rank(matrix)
        inside = {j for j in range(5) if np.linalg.matrix_rank([*matrix, np.eye(5)[j]]) == len(rows)}
        assert inside == {columns.index(*row) for row in rows if len(row) == 1}


# --- jets ------------------------------------------------------------------------------------------------------------


def test_jets_are_counted_as_by_listing_all_orders():
    for exponents in random_ideals(40, seed=8, largest=3):
        for order in (0, 1, 3, 4):
            listed = min(
                sum(v)
                for v in product(range(order + 2), repeat=len(exponents[0]))
                if all(np.dot(alpha, v) > order for alpha in exponents)
            )
            assert jet_codimension(exponents, order) == listed


def test_mustata_is_newton_on_random_monomial_ideals():
    missed = 0
    for exponents in random_ideals(150, seed=9):
        exact = newton(exponents).learning_coefficient
        assert mustata(exponents).learning_coefficient == exact
        ratios = contact_loci(exponents, 6)
        assert min(ratios) >= 2 * exact
        missed += min(ratios) > 2 * exact
    # Few orders are not enough: the law is about the right one.
    assert missed > 5


# --- problems and refusals -------------------------------------------------------------------------------------------


def test_problems_are_the_losses_they_say():
    w = jnp.asarray([0.5, -0.7])
    monomial = newton_problem([(2, 0), (1, 3)], examples=7)
    assert float(monomial.loss_fn(w, monomial.data)) == pytest.approx(0.5**4 + 0.5**2 * 0.7**6, rel=1e-6)
    general = polynomials_problem([[(1, X2), (-1, (0, 3))], [(3, XY)]], examples=7)
    assert float(general.loss_fn(w, general.data)) == pytest.approx((0.25 + 0.343) ** 2 + (3 * 0.35) ** 2, rel=1e-6)
    assert monomial.data.shape == general.data.shape == (7, 0)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: newton([]), "exponents"),
        (lambda: newton([(1, 2), (0, 0)]), "exponents"),
        (lambda: newton([(1, 2), (1,)]), "exponents"),
        (lambda: newton([(1, -2)]), "exponents"),
        (lambda: newton([(1, 0.5)]), "exponents"),
        (lambda: newton([XY], prior=(0,)), "prior"),
        (lambda: newton([XY], prior=(0, -1)), "prior"),
        (lambda: newton_ideal([]), "exponents"),
        (lambda: newton_ideal([[(1, (0, 0)), (1, XY)]]), "exponents"),
        (lambda: newton_function([(0, XY)]), "exponents"),
        (lambda: newton_problem([XY], examples=0), "examples"),
        (lambda: polynomials_problem([[(1, XY)]], examples=0), "examples"),
        (lambda: newton([XY], prior=("a", 0)), "prior"),
        (lambda: newton([XY], prior=(float("inf"), 0)), "prior"),
        (lambda: newton([XY], prior=3), "prior"),
        (lambda: newton_ideal(["x"]), "polynomials"),
        (lambda: newton_ideal(5), "polynomials"),
        (lambda: polynomials_problem(5), "polynomials"),
        (lambda: newton_ideal([[1, 2]]), "polynomials"),
        (lambda: newton_function([(float("nan"), XY)]), "polynomials"),
        (lambda: newton_problem([XY], examples=2.5), "examples"),
        (lambda: polynomials_problem([[(1, XY)]], examples=2.5), "examples"),
        (lambda: jet_codimension([XY], -1), "order"),
        (lambda: jet_codimension([XY], 1.5), "order"),
        (lambda: contact_loci([XY], 0), "orders"),
        (lambda: newton_rays([(0, 0)]), "exponents"),
        (lambda: has_nonzero_root([0]), "coefficients"),
    ],
)
def test_bad_input_is_refused_by_name_with_what_was_got_and_what_to_do(call, named):
    with pytest.raises(ValueError, match=rf"{named}.*got.*: \w"):
        call()
