"""Exact answers for small models: each against quadrature, a two-sided comparison of losses, or exact algebra."""

from fractions import Fraction
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.integrate import quad
from scipy.optimize import minimize

from slt_jax import truths
from slt_jax.problem import Problem
from slt_jax.truths import morse_bott, simple_singularity, superposition, superposition_problem, tanh, vandermonde
from slt_jax.truths.singularities import matrix_factorisation, potential_at, quasi_weights

SMOOTH, KINKED = ("5-", "5+", "6"), ("4--", "4+-", "4++")

TRUTHS = {
    "newton": lambda: truths.newton([(1, 1), (0, 3)]),
    "newton, ideal": lambda: truths.newton_ideal([[(1, (1, 0))], [(1, (0, 2))]]),
    "newton, function": lambda: truths.newton_function([(1, (2, 0)), (-1, (0, 3))]),
    "jets": lambda: truths.mustata([(1, 1), (0, 3)]),
    "tanh": lambda: truths.tanh(3),
    "vandermonde": lambda: truths.vandermonde(3, 2, 1),
    "gaussian mixture, one free mean": lambda: truths.gaussian_mixture(1),
    "gaussian mixture, two free means": lambda: truths.gaussian_mixture(2),
    "morse-bott": lambda: truths.morse_bott(superposition_problem("6"), points=1),
    **{f"superposition {phase}": lambda phase=phase: superposition(phase) for phase in SMOOTH + KINKED},
}

PROBLEMS = {
    "newton": lambda: truths.newton_problem([(1, 1), (0, 3)], examples=50),
    "polynomials": lambda: truths.polynomials_problem([[(1, (1, 0)), (-2, (0, 2))]], examples=50),
    "tanh": lambda: truths.tanh_problem(3, examples=50),
    "vandermonde": lambda: truths.vandermonde_problem(3, 2, examples=50),
    "gaussian mixture, one free mean": lambda: truths.gaussian_mixture_problem(1, examples=50),
    "gaussian mixture, two free means": lambda: truths.gaussian_mixture_problem(2, examples=50),
    **{f"superposition {p}": lambda p=p: superposition_problem(p, examples=50) for p in SMOOTH + KINKED},
}


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


# --- the contract ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRUTHS)
def test_a_truth_is_an_exact_positive_fraction_with_a_source(name):
    truth = TRUTHS[name]()
    assert truth._fields[:3] == ("learning_coefficient", "multiplicity", "source")
    assert type(truth.learning_coefficient) is Fraction
    assert truth.learning_coefficient > 0
    assert truth.multiplicity is None or (type(truth.multiplicity) is int and truth.multiplicity >= 1)
    assert any(year.isdigit() and len(year) == 4 for year in truth.source.replace(",", " ").replace(":", " ").split())
    if not getattr(truth, "exact", True):
        assert truth.multiplicity is None
        assert "not proven" in truth.source or "upper bound" in truth.source


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_is_a_pytree_at_a_minimum(name):
    problem = PROBLEMS[name]()
    loss, gradient = jax.jit(lambda p: jax.value_and_grad(p.loss_fn)(p.params, p.data))(problem)
    assert loss.shape == ()
    assert {leaf.shape[0] for leaf in jax.tree.leaves(problem.data)} == {50}
    assert all(np.abs(np.asarray(leaf)).max() < 1e-7 for leaf in jax.tree.leaves(gradient))
    rng = np.random.default_rng(0)
    for _ in range(20):
        moved = jax.tree.map(lambda w: w + jnp.asarray(0.02 * rng.normal(size=w.shape), w.dtype), problem.params)
        assert float(problem.loss_fn(moved, problem.data)) > float(loss) - 1e-9


def test_functions_are_not_hidden_by_the_modules_of_their_names():
    assert all(callable(getattr(truths, name)) for name in ("tanh", "newton", "superposition", "vandermonde"))


# --- Vandermonde and tanh --------------------------------------------------------------------------------------------


def vandermonde_exponent(hidden: int, outputs: int, step: int, log_nbeta: float) -> np.ndarray:
    """``nβ E[K]`` at two temperatures with the outer weights integrated out: their Gaussian integral is a determinant.

    For ``b_1 > ... > b_H`` the Gram determinant is, up to bounded factors, one plus the sum over sets of units of
    ``nβ^k Π b² Π (b_i^Q - b_j^Q)²``. Ratios of neighbours run over (0, 1) in logistic coordinates, so that both ends
    are resolved.
    """
    reach = log_nbeta + 10
    spacing = 0.5 if hidden == 3 else 0.25
    grids = [np.arange(0, reach, spacing)] + [np.arange(-reach, reach, spacing)] * (hidden - 1)
    top, *ratios = np.meshgrid(*grids, indexing="ij", sparse=True)
    # log b_j, and log(1 - (b_{j+1}/b_j)^Q) up to a bounded factor
    sizes, gaps, volume = [-top], [], -top
    for t in ratios:
        size, gap = -np.logaddexp(0, -t), -np.logaddexp(0, t)
        volume = volume + sizes[-1] + size + gap
        sizes, gaps = [*sizes, sizes[-1] + size], [*gaps, gap]
    logs = [np.zeros(())]
    for chosen in product((0, 1), repeat=hidden):
        units = [j for j in range(hidden) if chosen[j]]
        if units:
            term = sum(2 * sizes[j] for j in units)
            for place, i in enumerate(units):
                for j in units[place + 1 :]:
                    apart = gaps[i]
                    for between in range(i + 1, j):
                        apart = np.logaddexp(apart, step * (sizes[between] - sizes[i]) + gaps[between])
                    term = term + 2 * step * sizes[i] + 2 * apart
            logs.append((len(units), term))
    found = []
    for shift in (-0.5, 0.5):
        total = np.zeros(())
        for count, term in logs[1:]:
            total = np.logaddexp(total, count * (log_nbeta + shift) + term)
        # the jacobian of the ratios b_{j+1} = b_j u_j is in the volume
        exponent = volume - 0.5 * outputs * total
        most = exponent.max()
        found.append(most + np.log(np.exp(exponent - most).sum()))
    return found[0] - found[1]


@pytest.mark.parametrize(
    ("hidden", "outputs", "step"),
    [(1, 1, 2), (2, 1, 2), (2, 1, 1), (2, 2, 1), (2, 3, 2), (3, 1, 2), (3, 1, 1), (3, 2, 1)],
)
def test_vandermonde_is_what_quadrature_reads(hidden, outputs, step):
    answer = vandermonde(hidden, outputs, step)
    reach = 45.0 if hidden == 3 else 200.0
    read = vandermonde_exponent(hidden, outputs, step, reach)
    expected = float(answer.learning_coefficient) - (answer.multiplicity - 1) / reach
    assert read == pytest.approx(expected, abs=0.4 / reach if answer.multiplicity == 2 else 0.012)
    # The multiplicity is told apart, and so is the coefficient of one unit more or less.
    assert abs(read - float(vandermonde(hidden + 1, outputs, step).learning_coefficient)) > 0.02


def test_tanh_is_vandermonde_with_odd_powers_and_one_output():
    assert all(tanh(hidden)[:2] == vandermonde(hidden, 1, 2)[:2] for hidden in range(1, 300))
    assert tanh(5)[:2] != vandermonde(5, 1, 1)[:2]


@pytest.mark.parametrize(
    ("hidden", "expected"), [(1, ("1/2", 2)), (2, ("2/3", 1)), (3, ("5/6", 1)), (4, ("1", 2)), (5, ("11/10", 1))]
)
def test_tanh_on_a_table(hidden, expected):
    assert tanh(hidden)[:2] == (Fraction(expected[0]), expected[1])


def spread(loss, other, draw, count: int = 400) -> float:
    """The ratio of the largest to the least quotient of two losses over random points of all sizes."""
    rng = np.random.default_rng(0)
    quotients = np.array([float(loss(p)) / float(other(p)) for p in (draw(rng) for _ in range(count))])
    return quotients.max() / quotients.min()


def sizes(rng, *shape: int) -> jax.Array:
    return jnp.asarray(rng.choice([-1, 1], size=shape) * 10.0 ** rng.uniform(-4, -0.3, size=shape))


def test_the_tanh_loss_is_equivalent_to_its_power_sums(double):
    network, singularity, other = (
        truths.tanh_problem(2),
        truths.vandermonde_problem(2, 1, 2),
        truths.vandermonde_problem(2),
    )

    def draw(rng):
        a, b = sizes(rng, 2), sizes(rng, 2)
        # Half the time the first power sum cancels and the third decides.
        return {"a": jnp.where(rng.random() < 0.5, a, a[0] * jnp.stack([b[1], -b[0]])), "b": b}

    def power_sums(problem):
        return jax.jit(lambda p: problem.loss_fn({"a": p["a"][None, :], "b": p["b"]}, problem.data))

    loss = jax.jit(lambda p: network.loss_fn(p, network.data))
    assert spread(loss, power_sums(singularity), draw) < 30
    assert spread(loss, power_sums(other), draw) > 1e4


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0, 5.0])
def test_the_tanh_loss_meets_adaptive_quadrature(scale, double):
    problem = truths.tanh_problem(1)
    value = float(problem.loss_fn({"a": jnp.ones(1), "b": jnp.full(1, scale)}, problem.data))
    exact = quad(lambda x: np.tanh(scale * x) ** 2 * np.exp(-0.5 * x * x), 0, 30, epsabs=1e-13, limit=300)[0]
    assert value == pytest.approx(exact / np.sqrt(2 * np.pi), rel=1e-7)


# --- Gaussian mixtures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("means", [(0.0, 0.01), (0.0, 1.0), (-2.0, 2.0), (0.5, -4.0), (4.0, 4.0)])
def test_the_divergence_of_a_mixture_meets_adaptive_quadrature(means, x64):
    with jax.enable_x64(x64):
        one, two = truths.gaussian_mixture_problem(1), truths.gaussian_mixture_problem(2)
        for weight in (1e-3, 0.3, 0.9):

            def integrand(x, weight=weight):
                ratio = sum(p * np.exp(b * x - b * b / 2) for p, b in zip((1 - weight, weight), means, strict=True))
                return -np.log(ratio) * np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)

            exact = quad(integrand, -14, 14, epsabs=1e-12, limit=500)[0]
            logit = jnp.asarray(np.log(weight / (1 - weight)))
            value = two.loss_fn({"logit": logit, "means": jnp.asarray(means)}, two.data)
            assert float(value) == pytest.approx(exact, abs=1e-6)
            if means[0] == 0:
                odds = jnp.asarray(-weight / (1 - weight))
                value = one.loss_fn({"weight": odds, "mean": jnp.asarray(means[1])}, one.data)
                assert float(value) == pytest.approx(exact, abs=1e-6)


def test_one_free_mean_is_equivalent_to_a_normal_crossing(double):
    problem = truths.gaussian_mixture_problem(1)
    loss = jax.jit(lambda p: problem.loss_fn({"weight": p[0], "mean": p[1]}, problem.data))
    assert spread(loss, lambda p: (p[0] * p[1]) ** 2, lambda rng: sizes(rng, 2)) < 10
    assert spread(loss, lambda p: p[0] ** 2 + p[1] ** 2, lambda rng: sizes(rng, 2)) > 1e4
    assert truths.gaussian_mixture(1)[:2] == truths.newton([(1, 1)])[:2]


def test_two_free_means_are_equivalent_to_mean_and_squared_separation(double):
    problem = truths.gaussian_mixture_problem(2)

    def loss(p):
        return problem.loss_fn({"logit": p[2], "means": jnp.stack([p[0] - p[1], p[0] + p[1]])}, problem.data)

    def moment(p, power):
        share = jax.nn.sigmoid(p[2])
        return (p[0] + (2 * share - 1) * p[1]) ** 2 + p[1] ** (2 * power)

    assert spread(jax.jit(loss), lambda p: moment(p, 2), lambda rng: sizes(rng, 3)) < 100
    assert spread(jax.jit(loss), lambda p: moment(p, 1), lambda rng: sizes(rng, 3)) > 1e3
    assert truths.gaussian_mixture(2)[:2] == truths.newton([(1, 0), (0, 2)])[:2]


# --- Morse-Bott ------------------------------------------------------------------------------------------------------


def problem_of(loss, *params: float) -> Problem:
    return Problem(loss, jnp.asarray(params), jnp.zeros((5, 0)))


def test_half_the_rank_on_smooth_minimum_sets():
    cylinder = problem_of(lambda w, batch: (w[0] ** 2 + w[1] ** 2 - 1) ** 2 + 0 * w[2], 0.6, 0.8, 1.0)
    assert morse_bott(cylinder)[:2] == (Fraction(1, 2), 1)
    assert morse_bott(problem_of(lambda w, batch: (w[0] - jnp.sin(w[1]) ** 2) ** 2 + w[2] ** 2, 0.0, 0.0, 0.0))[0] == 1
    rescaling = problem_of(lambda w, batch: (w[0] * w[1] - 1) ** 2 * jnp.ones(5), 2.0, 0.5)
    assert morse_bott(rescaling)[0] == Fraction(1, 2)
    generic = truths.deep_linear_generic((4, 2, 4), 0)
    network = truths.deep_linear_problem(jax.random.key(0), (4, 2, 4), 0, intervals=generic)
    assert morse_bott(network)[0] == truths.deep_linear((4, 2, 4), 0)[0]
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize(
    ("loss", "point", "reason"),
    [
        (lambda w, batch: (w[0] * w[1]) ** 2, (0.0, 0.0), "Morse-Bott"),
        # The step along the kernel ends on the crossing: no gradient there, but another rank.
        (lambda w, batch: (w[0] * w[1]) ** 2, (0.05, 0.0), "Morse-Bott"),
        (lambda w, batch: w[0] ** 2 + w[1] ** 4, (0.0, 0.0), "Morse-Bott"),
        (lambda w, batch: w[0] ** 2 + w[1] ** 8, (0.0, 0.0), "Morse-Bott"),
        (lambda w, batch: (w[0] ** 2 - w[1] ** 3) ** 2 + w[2] ** 2, (0.0, 0.0, 0.0), "Morse-Bott"),
        (lambda w, batch: w[0] ** 2 - w[1] ** 2, (0.0, 0.0), "minimum"),
        (lambda w, batch: w[0] ** 2 + w[1], (0.0, 0.0), "minimum"),
        (lambda w, batch: w[0] ** 2 + 0 * w[1], (0.5, 0.0), "minimum"),
        (lambda w, batch: w[0] ** 2 + 1e-5 * w[1] ** 2, (0.0, 0.0), "clear rank"),
    ],
)
def test_other_points_are_refused_with_the_reason(loss, point, reason):
    with pytest.raises(ValueError, match=rf"params.*({reason}).*got.*: \w"):
        morse_bott(problem_of(loss, *point))


def test_a_balanced_network_is_refused_where_its_coefficient_is_not_half_the_rank():
    problem = truths.deep_linear_problem(jax.random.key(1), (2, 2, 2), 0)
    assert Fraction(truths.hessian_rank(problem), 2) != truths.deep_linear((2, 2, 2), 0)[0]
    with pytest.raises(ValueError, match="Morse-Bott"):
        morse_bott(problem)


# --- superposition ---------------------------------------------------------------------------------------------------


def test_the_loss_of_superposition_is_the_integral_it_says(double):
    rng = np.random.default_rng(0)
    nodes = (np.arange(200_000) + 0.5) / 200_000
    for _ in range(4):
        weights, biases = rng.normal(size=(2, 6)), 0.5 * rng.normal(size=6)
        total = 0.0
        for i in range(6):
            outputs = np.maximum(nodes[:, None] * (weights.T @ weights)[i][None, :] + biases[None, :], 0)
            outputs[:, i] -= nodes
            total += np.mean(np.sum(outputs**2, axis=1)) / 6
        problem = superposition_problem("6")
        value = problem.loss_fn({"W": jnp.asarray(weights), "b": jnp.asarray(biases)}, problem.data)
        assert float(value) == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize(
    ("phase", "loss", "coefficient"),
    [
        ("5-", 0.06874, "7"), ("5+", 0.06180, "17/2"), ("6", 0.04819, "17/2"),
        ("4--", 1 / 9, "15/2"), ("4+-", 1 / 9 - 1 / 144, "8"), ("4++", 1 / 9 - 1 / 72, "17/2"),
    ],
)  # fmt: skip
def test_phases_on_a_table(phase, loss, coefficient, double):
    answer = superposition(phase)
    assert answer.learning_coefficient == Fraction(coefficient)
    assert answer.loss == pytest.approx(loss, abs=6e-6)
    problem = superposition_problem(phase, angle=0.3)
    assert float(problem.loss_fn(problem.params, problem.data)) == pytest.approx(answer.loss, abs=1e-14)
    assert answer.exact == (phase in SMOOTH)


@pytest.mark.parametrize("phase", SMOOTH)
def test_smooth_phases_are_critical_to_rounding_and_morse_bott(phase, double):
    problem = superposition_problem(phase, angle=0.3)
    gradient = jax.grad(problem.loss_fn)(problem.params, problem.data)
    assert max(np.abs(np.asarray(leaf)).max() for leaf in jax.tree.leaves(gradient)) < 1e-14
    assert morse_bott(problem)[:2] == superposition(phase)[:2]


def test_a_polygon_of_another_size_is_no_phase():
    problem = superposition_problem("5-")
    wrong = problem._replace(params={**problem.params, "W": 1.05 * problem.params["W"]})
    with pytest.raises(ValueError, match="params must be a minimum"):
        morse_bott(wrong)


def growth(phase: str, flat: int, radius: float) -> float:
    """The least growth ``K/|z|²`` over directions ``z`` across the minima, ``flat`` known directions left out."""
    problem = superposition_problem(phase)
    center, unravel = ravel_pytree(problem.params)
    turned = jax.tree.map(jnp.zeros_like, problem.params)
    turned["W"] = jnp.stack([-problem.params["W"][1], problem.params["W"][0]])
    along = [ravel_pytree(turned)[0]]
    along += [ravel_pytree({**jax.tree.map(jnp.zeros_like, turned), "b": jnp.eye(6)[j]})[0]
              for j in range(6) if float(problem.params["b"][j]) < 0]  # fmt: skip
    assert len(along) >= flat
    across = np.linalg.svd(np.array(along[:flat]).reshape(-1, 18))[2][flat:]
    base = problem.loss_fn(problem.params, problem.data)

    @jax.jit
    @jax.value_and_grad
    def ratio(z):
        z = z / jnp.sqrt(jnp.sum(z**2))
        moved = center + radius * jnp.sum(jnp.asarray(across) * z[:, None], axis=0)
        return (problem.loss_fn(unravel(moved), problem.data) - base) / radius**2

    starts = np.random.default_rng(0).normal(size=(6, len(across)))
    return min(minimize(lambda z: tuple(np.asarray(part) for part in ratio(z)), z, jac=True).fun for z in starts)


@pytest.mark.parametrize("phase", KINKED)
def test_kinked_phases_grow_quadratically_across_as_many_directions_as_twice_the_coefficient(phase, double):
    flat = 18 - int(2 * superposition(phase).learning_coefficient)
    # Of one size at radii a hundredfold apart: what leads is homogeneous of degree two, kinks and all.
    far, near = growth(phase, flat, 1e-3), growth(phase, flat, 1e-5)
    assert far > 2e-3
    assert near == pytest.approx(far, rel=0.1)
    # One flat direction fewer left out, and the growth is gone.
    assert growth(phase, flat - 1, 1e-3) < 2e-4


# --- simple singularities --------------------------------------------------------------------------------------------


def rank_over_the_rationals(rows: list) -> int:
    """The rank modulo a large prime: as over the rationals for entries this small, barring an accident."""
    prime, rank = 1_000_003, 0
    work = [[int(x) % prime for x in row] for row in rows]
    for column in range(len(work[0]) if work else 0):
        pivot = next((i for i in range(rank, len(work)) if work[i][column]), None)
        if pivot is None:
            continue
        work[rank], work[pivot] = work[pivot], work[rank]
        inverse = pow(work[rank][column], -1, prime)
        for i in range(rank + 1, len(work)):
            factor = work[i][column] * inverse % prime
            if factor:
                work[i] = [(a - factor * b) % prime for a, b in zip(work[i], work[rank], strict=True)]
        rank += 1
    return rank


def jacobian_dimension(exponents: tuple, degree: int) -> int:
    """The dimension of polynomials below a degree, modulo multiples of the partial derivatives."""
    size = len(exponents[0])
    monomials = [e for e in product(range(degree), repeat=size) if sum(e) < degree]
    index = {e: i for i, e in enumerate(monomials)}
    rows = []
    for j, shift in product(range(size), monomials):
        row = [0] * len(monomials)
        for e in exponents:
            moved = tuple(a + s - (i == j) for i, (a, s) in enumerate(zip(e, shift, strict=True)))
            # Truncation modulo a power of the maximal ideal, which lies in the ideal once the degree is large.
            if e[j] and moved in index:
                row[index[moved]] += e[j]
        rows.append(row)
    return len(monomials) - rank_over_the_rationals(rows)


@pytest.mark.parametrize(
    ("name", "charge", "milnor"),
    [
        *[("A1", "0", 1), ("A2", "1/3", 2), ("A5", "2/3", 5), ("D4", "2/3", 4), ("D5", "3/4", 5), ("D7", "5/6", 7)],
        *[("E6", "5/6", 6), ("E7", "8/9", 7), ("E8", "14/15", 8)],
    ],
)
def test_simple_singularities_on_a_table_and_by_the_jacobian_ring(name, charge, milnor):
    singularity = simple_singularity(name)
    assert (singularity.central_charge, singularity.milnor_number) == (Fraction(charge), milnor)
    assert jacobian_dimension(singularity.exponents, 10) == jacobian_dimension(singularity.exponents, 11) == milnor
    # ĉ = 1 - 2/h with the Coxeter number h.
    coxeter = {"A": milnor + 1, "D": 2 * milnor - 2, "E": {6: 12, 7: 18, 8: 30}.get(milnor)}[name[0]]
    assert singularity.central_charge == 1 - Fraction(2, coxeter)


@pytest.mark.parametrize("name", ["A1", "A2", "A6", "D4", "D9", "E6", "E7", "E8"])
def test_the_threshold_of_a_simple_singularity_is_the_sum_of_its_weights(name):
    singularity = simple_singularity(name)
    answer = truths.newton_function([(1, e) for e in singularity.exponents])
    assert answer.exact
    assert answer.learning_coefficient == min(sum(singularity.weights), Fraction(1))


@pytest.mark.parametrize("name", ["A1", "A4", "D4", "D6", "E6", "E7", "E8"])
def test_the_matrix_factorisation_squares_to_the_potential(name):
    singularity = simple_singularity(name)
    rng = np.random.default_rng(0)
    size = len(singularity.weights)
    for _ in range(20):
        exact = [Fraction(int(rng.integers(-9, 10)), int(rng.integers(1, 7))) for _ in range(size)]
        d = matrix_factorisation(singularity, exact)
        assert (d @ d == potential_at(singularity, exact) * np.eye(2**size, dtype=int)).all()
        floats = rng.normal(size=size).tolist()
        d = matrix_factorisation(singularity, floats).astype(float)
        np.testing.assert_allclose(d @ d, potential_at(singularity, floats) * np.eye(2**size), atol=1e-14, rtol=1e-14)
        grading = np.array([(-1) ** k.bit_count() for k in range(2**size)])
        assert (grading[:, None] * d == -d * grading[None, :]).all()
    wrong = singularity._replace(weights=tuple(2 * q for q in singularity.weights))
    d = matrix_factorisation(wrong, [Fraction(1)] * size)
    assert (d @ d != potential_at(singularity, [1] * size) * np.eye(2**size, dtype=int)).any()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: tanh(0), "hidden"),
        (lambda: tanh(1.5), "hidden"),
        (lambda: vandermonde(2, 0), "outputs"),
        (lambda: vandermonde(2, 1, 0), "step"),
        (lambda: truths.tanh_problem(2, examples=0), "examples"),
        (lambda: truths.vandermonde_problem(2, examples=0), "examples"),
        (lambda: truths.gaussian_mixture(3), "free"),
        (lambda: truths.gaussian_mixture_problem(0), "free"),
        (lambda: truths.gaussian_mixture_problem(1, examples=0), "examples"),
        (lambda: superposition("7"), "phase"),
        (lambda: superposition_problem("5"), "phase"),
        (lambda: superposition_problem("6", examples=0), "examples"),
        (lambda: morse_bott(superposition_problem("6"), radius=0.0), "radius"),
        (lambda: simple_singularity("D3"), "name"),
        (lambda: simple_singularity("E9"), "name"),
        (lambda: simple_singularity("A03"), "name"),
        (lambda: simple_singularity(3), "name"),
        (lambda: matrix_factorisation(simple_singularity("D4"), [1.0]), "point"),
        (lambda: potential_at(simple_singularity("D4"), [1.0, 2.0, 3.0]), "point"),
        (lambda: morse_bott(3), "problem"),
        (lambda: truths.hessian_rank(3), "problem"),
        (lambda: superposition(["6"]), "phase"),
        (lambda: superposition_problem("6", angle=float("nan")), "angle"),
        (lambda: simple_singularity(""), "name"),
        (lambda: quasi_weights([(1, 1), (2, 2)]), "exponents"),
    ],
)
def test_bad_input_is_refused_by_name_with_what_was_got_and_what_to_do(call, named):
    with pytest.raises(ValueError, match=rf"{named}.*got.*: \w"):
        call()
