"""The exact answers: each formula against a derivation that does not share its code."""

import importlib
from collections import Counter
from fractions import Fraction
from functools import cache
from itertools import pairwise, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.integrate import dblquad
from scipy.special import kve

from slt_jax import truths
from slt_jax.truths import deep_linear as deep_linear_function
from slt_jax.truths import deep_linear_at, normal_crossing, normal_crossing_energy, reduced_rank
from slt_jax.truths.truth import Truth

NETWORKS = [*product((1, 2, 3, 4), repeat=3), *product((1, 2, 3), repeat=4), *product((1, 2), repeat=5)]
CASES = [(widths, rank) for widths in NETWORKS for rank in range(min(widths) + 1)]
LOCAL_NETWORKS = [
    (2, 2, 2),
    (3, 2, 4),
    (2, 3, 2, 2),
    (2, 2, 3, 1),
    (1, 2, 2, 3),
    (2, 2, 2, 2),
    (2, 1, 2, 1, 2),
    (3, 4, 2, 1),
    (4, 2, 2, 4),
]

TRUTHS = {
    "deep linear": lambda: truths.deep_linear((3, 2, 2, 3), 1),
    "deep linear at": lambda: truths.deep_linear_at([np.eye(2), np.zeros((3, 2))]),
    "reduced rank": lambda: truths.reduced_rank(4, 2, 3, 1),
    "normal crossing": lambda: truths.normal_crossing((1, 2), (0, Fraction(1, 3))),
}

PROBLEMS = {
    "deep linear": lambda key: truths.deep_linear_problem(key, (4, 3, 3, 2), 1, examples=50),
    "deep linear, rank 0": lambda key: truths.deep_linear_problem(key, (2, 2, 2), 0, examples=50),
    "deep linear, generic": lambda key: truths.deep_linear_problem(
        key, (4, 3, 4), 1, examples=50, intervals=truths.deep_linear_generic((4, 3, 4), 1)
    ),
    "deep linear, one layer": lambda key: truths.deep_linear_problem(key, (3, 2), 2, examples=50),
    "reduced rank": lambda key: truths.reduced_rank_problem(key, 5, 3, 4, 2, examples=50),
    "normal crossing": lambda key: truths.normal_crossing_problem((1, 0, 2), examples=50),
}


# --- derivations that do not share the library's code ----------------------------------------------------------------


@cache
def strata(widths: tuple[int, ...], rank: int) -> list[dict[tuple[int, int], int]]:
    """All interval multiplicities that fill the widths with ``rank`` intervals from end to end."""
    last = len(widths) - 1
    found: list[dict[tuple[int, int], int]] = []

    def extend(intervals: list[tuple[int, int]], room: list[int], chosen: dict[tuple[int, int], int]) -> None:
        if not intervals:
            if not any(room):
                found.append(chosen)
            return
        (i, j), *rest = intervals
        most = min(room[i : j + 1])
        counts = [rank] if (i, j) == (0, last) else range(most + 1)
        for count in counts:
            # Intervals come sorted by birth, so room before their birth can no longer be filled.
            if count > most or any(room[:i]):
                continue
            left = [r - count * (i <= v <= j) for v, r in enumerate(room)]
            extend(rest, left, {**chosen, (i, j): count} if count else chosen)

    extend([(i, j) for i in range(last + 1) for j in range(i, last + 1)], list(widths), {})
    return found


def codimension(stratum: dict[tuple[int, int], int]) -> int:
    """The codimension of a stratum in the space of all layers: the dimension of its self-extensions."""
    return sum(
        a * b for (i, j), a in stratum.items() for (k, m), b in stratum.items() if i < k <= j + 1 <= m
    )  # fmt: skip


def ranks(stratum: dict[tuple[int, int], int], last: int) -> np.ndarray:
    """The rank of each run of layers on a stratum: its directions alive at both ends."""
    runs = [(i, j) for i in range(last + 1) for j in range(i, last + 1)]
    return np.array([sum(c for (k, m), c in stratum.items() if k <= i and j <= m) for i, j in runs])


def half_codimension(widths: tuple[int, ...], rank: int, near: dict[tuple[int, int], int] | None = None) -> Fraction:
    """Half the least codimension of the minima with a fixed product, of all or of those near a given stratum."""
    last = len(widths) - 1
    floor = np.zeros(1) if near is None else ranks(near, last)
    least = min(codimension(s) for s in strata(widths, rank) if np.all(ranks(s, last) >= floor))
    return Fraction(least + rank * (widths[0] + widths[-1] - rank), 2)


def two_layers(widths: tuple[int, int, int], first: int, second: int, rank: int) -> Fraction:
    """Two layers of given ranks: Schur complements leave a network of rank 0 at its origin."""
    inputs, hidden, outputs = widths
    regular = Fraction(outputs * first + inputs * second - first * second, 2)
    left = (outputs - second, hidden - first - second + rank, inputs - first)
    return regular + (reduced_rank(*left, 0).learning_coefficient if min(left) else 0)


def matrices_on(stratum: dict[tuple[int, int], int], widths: tuple[int, ...], seed: int) -> list[np.ndarray]:
    """Integer 0/1 layers on a stratum, moved by random invertible changes of basis."""
    rng = np.random.default_rng(seed)
    paths = [interval for interval, count in stratum.items() for _ in range(count)]
    alive = [[p for p, (i, j) in enumerate(paths) if i <= v <= j] for v in range(len(widths))]
    frames = [np.linalg.qr(rng.normal(size=(w, w)))[0] * rng.uniform(0.5, 2, size=(1, w)) for w in widths]
    bare = [np.array([[float(p == q) for q in before] for p in after]) for before, after in pairwise(alive)]
    return [f @ m @ np.linalg.inv(g) for m, g, f in zip(bare, frames, frames[1:], strict=False)]


def hessian_rank(problem) -> int:
    """The rank of the Hessian of the loss at the parameters, which must be float64."""
    flat, unravel = ravel_pytree(problem.params)
    hessian = jax.hessian(lambda w: jnp.mean(problem.loss_fn(unravel(w), problem.data)))(flat)
    eigenvalues = np.abs(np.linalg.eigvalsh(np.asarray(hessian)))
    return int(np.sum(eigenvalues > 1e-9 * max(eigenvalues.max(), 1.0)))


def lower_bound(layers: list[np.ndarray]) -> Fraction:
    """A bound on the local coefficient from below: the best of the Hessian's and of all shorter, equivalent networks.

    Where ``(A, B) -> B A`` is a submersion (A injective or B surjective) the two layers may be merged; at rank 0 a
    surjective first layer and an injective last one may be dropped. No local coefficient is below the global one.
    """
    widths = [layers[0].shape[1]] + [layer.shape[0] for layer in layers]
    rank = truths.deep_linear_rank_pattern(layers)[0, -1]
    shorter = []
    for v, (a, b) in enumerate(pairwise(layers)):
        if rank_of(a) == a.shape[1] or rank_of(b) == b.shape[0]:
            # Rounding noise must not pass for rank.
            merged = np.where(np.abs(b @ a) > 1e-9, b @ a, 0.0)
            shorter.append([*layers[:v], merged, *layers[v + 2 :]])
    if rank == 0 and len(layers) > 1 and rank_of(layers[0]) == widths[1]:
        shorter.append(layers[1:])
    if rank == 0 and len(layers) > 1 and rank_of(layers[-1]) == widths[-2]:
        shorter.append(layers[:-1])
    own = max(deep_linear_function(widths, rank).learning_coefficient, Fraction(derivative_rank(layers), 2))
    return max([own, *map(lower_bound, shorter)])


def rank_of(matrix: np.ndarray) -> int:
    """The rank, with a tolerance between rounding noise and the smallest true singular value met here."""
    return int(np.linalg.matrix_rank(matrix, tol=1e-8))


def derivative_rank(layers: list[np.ndarray]) -> int:
    """The rank of the derivative of the product by the layers, which is that of the population Hessian."""
    columns = []
    for v in range(len(layers)):
        before, after = np.eye(layers[0].shape[1]), np.eye(layers[-1].shape[0])
        for layer in layers[:v]:
            before = layer @ before
        for layer in layers[:v:-1]:
            after = after @ layer
        columns.append(np.kron(after, before.T))
    return rank_of(np.hstack(columns))


# --- deep linear networks, global ------------------------------------------------------------------------------------


def disagreements_with_codimension(formula, cases) -> list:
    return [case for case in cases if formula(*case).learning_coefficient != half_codimension(*case)]


def disagreements_with_reduced_rank(formula, sizes) -> list:
    cases = [((m, h, n), r) for m, h, n in product(sizes, repeat=3) for r in range(min(m, h, n) + 1)]
    assert len(cases) > 300
    return [(w, r) for w, r in cases if formula(w, r)[:2] != reduced_rank(*w, r)[:2]]


def test_deep_linear_with_one_hidden_layer_is_reduced_rank_regression():
    assert disagreements_with_reduced_rank(deep_linear_function, (1, 2, 3, 4, 5, 6, 9, 14)) == []


def test_deep_linear_is_half_the_codimension_of_its_minima():
    assert len(CASES) > 300
    assert disagreements_with_codimension(deep_linear_function, CASES) == []


def test_a_wrong_bottleneck_set_fails_both_checks(monkeypatch):
    module = importlib.import_module("slt_jax.truths.deep_linear")
    monkeypatch.setattr(module, "_bottleneck_layers", lambda spare: len(spare) - 1)
    assert disagreements_with_reduced_rank(deep_linear_function, (1, 2, 3, 4, 5, 6, 9))
    assert disagreements_with_codimension(deep_linear_function, CASES)


def test_the_multiplicity_follows_from_the_number_of_largest_families_of_minima():
    # There are C(ℓ, a) largest families and m = a(ℓ-a) + 1; with at most four layers the count decides m.
    multiplicity = {1: 1, 2: 2, 3: 3, 4: 4, 6: 5}
    met = set()
    for widths, rank in CASES:
        codimensions = [codimension(stratum) for stratum in strata(widths, rank)]
        families = codimensions.count(min(codimensions))
        assert deep_linear_function(widths, rank).multiplicity == multiplicity[families]
        met.add(families)
    assert met >= {1, 2, 3}


def test_deep_linear_agrees_with_the_linear_program_on_wide_and_deep_networks():
    rng = np.random.default_rng(0)
    for _ in range(200):
        widths = rng.integers(1, 40, size=rng.integers(2, 8)).tolist()
        rank = int(rng.integers(0, min(widths) + 1))
        balanced = [np.eye(after, before) * (np.arange(before) < rank) for before, after in pairwise(widths)]
        assert deep_linear_at(balanced).learning_coefficient == deep_linear_function(widths, rank).learning_coefficient


@pytest.mark.parametrize(
    ("widths", "rank", "expected"),
    [
        ((1, 1, 1), 0, ("1/2", 2)),
        ((1, 1, 1, 1), 0, ("1/2", 3)),
        ((2, 2, 2), 0, ("3/2", 1)),
        ((2, 2, 2), 1, ("2", 2)),
        ((2, 2, 2), 2, ("2", 1)),
        ((3, 2, 3), 0, ("5/2", 1)),
        ((3, 2, 3), 1, ("7/2", 2)),
        ((5, 3, 5), 0, ("13/2", 2)),
        ((2, 2, 2, 2), 0, ("3/2", 3)),
        ((2, 2, 2, 2), 1, ("2", 3)),
        ((10,) * 5, 0, ("63/2", 5)),
        ((10,) * 5, 3, ("41", 4)),
        ((10,) * 5, 5, ("91/2", 4)),
        ((10,) * 5, 10, ("50", 1)),
        ((100, 50, 100), 10, ("2550", 1)),
        ((784, 128, 128, 10), 10, ("3920", 1)),
        ((20, 5, 20, 5, 20), 3, ("115/2", 1)),
    ],
)
def test_deep_linear_on_a_table_of_networks_kept_as_a_reference(widths, rank, expected):
    assert deep_linear_function(widths, rank)[:2] == (Fraction(expected[0]), expected[1])


def test_deep_linear_is_blind_to_the_order_of_inner_widths_and_to_transposition():
    assert deep_linear_function((3, 2, 5, 4), 2) == deep_linear_function((3, 5, 2, 4), 2)
    assert deep_linear_function((3, 2, 5, 4), 2) == deep_linear_function((4, 5, 2, 3), 2)
    # Rank 0 is blind to the order of all widths; a positive rank is not, since it fixes the end widths' directions.
    assert deep_linear_function((3, 2, 5, 4), 0) == deep_linear_function((2, 3, 4, 5), 0)
    assert deep_linear_function((3, 2, 5, 4), 2) != deep_linear_function((3, 2, 4, 5), 2)


def test_one_matrix_is_regular():
    assert deep_linear_function((7, 3), 2)[:2] == (Fraction(21, 2), 1)
    assert deep_linear_at([np.zeros((3, 7))]).learning_coefficient == Fraction(21, 2)


# --- deep linear networks, point by point ----------------------------------------------------------------------------


def test_the_pointwise_coefficient_is_half_the_codimension_on_every_stratum():
    points = [(w, r, s) for w in LOCAL_NETWORKS for r in range(min(w) + 1) for s in strata(w, r)]
    least = Counter()
    for seed, (widths, rank, stratum) in enumerate(points):
        layers = matrices_on(stratum, widths, seed)
        local, best = deep_linear_at(layers).learning_coefficient, deep_linear_function(widths, rank)[0]
        assert local == half_codimension(widths, rank, near=stratum), stratum
        assert truths.deep_linear_intervals(layers) == stratum
        assert local >= best
        least[local == best] += 1
    # The check would be empty if no minimum differed from the global answer.
    assert least[True] > 100
    assert least[False] > 50


def test_two_layers_have_a_closed_form_on_every_rank_pattern():
    checked = 0
    for widths in product((1, 2, 3, 4, 6), repeat=3):
        for first, second in product(range(min(widths[:2]) + 1), range(min(widths[1:]) + 1)):
            for rank in range(max(0, first + second - widths[1]), min(first, second) + 1):
                one, other = first - rank, second - rank
                pattern = {(0, 2): rank, (0, 1): one, (1, 2): other, (0, 0): widths[0] - first}
                pattern |= {(1, 1): widths[1] - first - other, (2, 2): widths[2] - second}
                local = deep_linear_at(matrices_on({i: c for i, c in pattern.items() if c}, widths, checked))
                assert local.learning_coefficient == two_layers(widths, first, second, rank)
                checked += 1
    assert checked > 700


def test_a_dead_first_layer_costs_more_than_the_global_answer():
    layers = [np.zeros((2, 4)), np.array([[1.0, -2.0]])]
    assert deep_linear_at(layers).learning_coefficient == 2
    assert deep_linear_function((4, 2, 1), 0).learning_coefficient == 1


def test_the_pointwise_coefficient_survives_changes_of_basis_and_transposition():
    stratum = {(0, 0): 1, (0, 1): 1, (1, 3): 1, (2, 2): 1, (3, 3): 2}
    widths = (2, 2, 2, 3)
    local = {deep_linear_at(matrices_on(stratum, widths, seed)).learning_coefficient for seed in range(5)}
    transposed = [layer.T for layer in matrices_on(stratum, widths, 0)[::-1]]
    assert local == {deep_linear_at(transposed).learning_coefficient}


def test_the_tolerance_decides_which_singular_values_are_zero():
    layers = [np.diag([1.0, 1e-3]), np.eye(2)]
    assert truths.deep_linear_rank_pattern(layers)[0, 2] == 2
    assert truths.deep_linear_rank_pattern(layers, tolerance=1e-2)[0, 2] == 1
    # Scaling a whole layer, even far below the tolerance, changes no rank.
    assert truths.deep_linear_rank_pattern([1e-30 * layer for layer in layers])[0, 2] == 2


def test_a_wide_network_is_judged_as_fast_as_a_narrow_one():
    widths, rank = (784, 128, 128, 10), 4
    filled = Counter(truths.deep_linear_generic(widths, rank))
    assert [sum(c for (i, j), c in filled.items() if i <= v <= j) for v in range(4)] == list(widths)
    balanced = [np.eye(after, before) * (np.arange(before) < rank) for before, after in pairwise(widths)]
    assert deep_linear_at(balanced).learning_coefficient == deep_linear_function(widths, rank).learning_coefficient


# --- deep linear problems --------------------------------------------------------------------------------------------

PLACED = [((4, 3, 4), 1), ((3, 3, 3, 3), 0), ((2, 4, 3, 2), 1), ((5, 3, 5), 0), ((2, 2, 2, 2, 2), 1), ((3, 2), 1)]


@pytest.mark.parametrize(("widths", "rank"), PLACED, ids=str)
def test_the_default_point_attains_the_global_coefficient(widths, rank):
    problem = truths.deep_linear_problem(jax.random.key(1), widths, rank, examples=10)
    assert truths.deep_linear_rank_pattern(problem.params)[0, -1] == rank
    assert deep_linear_at(problem.params)[0] == deep_linear_function(widths, rank)[0]
    assert [layer.shape for layer in problem.params] == [(after, before) for before, after in pairwise(widths)]


@pytest.mark.parametrize(("widths", "rank"), PLACED, ids=str)
def test_on_a_generic_minimum_half_the_hessian_rank_is_the_coefficient(widths, rank):
    exact = deep_linear_function(widths, rank).learning_coefficient
    with jax.enable_x64(True):
        generic = truths.deep_linear_generic(widths, rank)
        smooth = truths.deep_linear_problem(jax.random.key(2), widths, rank, examples=10, intervals=generic)
        assert Fraction(hessian_rank(smooth), 2) == exact == deep_linear_at(smooth.params).learning_coefficient
        balanced = truths.deep_linear_problem(jax.random.key(2), widths, rank, examples=10)
        assert Fraction(hessian_rank(balanced), 2) <= exact


def test_bounds_from_below_meet_the_pointwise_coefficient_at_nearly_every_degenerate_minimum():
    above = met = 0
    for widths in product((1, 2, 3), repeat=4):
        for rank in range(min(widths) + 1):
            for seed, stratum in enumerate(strata(widths, rank)):
                layers = matrices_on(stratum, widths, seed)
                local, below = deep_linear_at(layers).learning_coefficient, lower_bound(layers)
                assert below <= local, stratum
                if local > deep_linear_function(widths, rank).learning_coefficient:
                    above, met = above + 1, met + (below == local)
    assert above > 100
    assert met > 0.9 * above


def test_drawn_data_have_the_noise_asked_for_and_losses_per_example():
    widths, examples, noise = (4, 3, 2), 4000, 0.5
    problem = truths.deep_linear_problem(jax.random.key(4), widths, 2, examples=examples, population=False, noise=noise)
    losses = problem.loss_fn(problem.params, problem.data)
    assert losses.shape == (examples,)
    # |noise|² / 2 has mean H_N noise²/2 and variance H_N noise⁴/2 for each example.
    error = noise**2 * np.sqrt(widths[-1] / 2 / examples)
    assert abs(float(losses.mean()) - widths[-1] * noise**2 / 2) < 4 * error


def test_the_population_loss_is_the_expected_excess_over_standard_normal_inputs():
    widths, examples = (4, 3, 2), 20_000
    drawn = truths.deep_linear_problem(jax.random.key(5), widths, 1, examples=examples, population=False, noise=0.0)
    exact = truths.deep_linear_problem(jax.random.key(5), widths, 1, examples=examples)
    moved = jax.tree.map(lambda w: w + 0.3, exact.params)
    losses = np.asarray(drawn.loss_fn(moved, drawn.data), dtype=float)
    error = losses.std() / np.sqrt(examples)
    assert abs(losses.mean() - float(exact.loss_fn(moved, exact.data))) < 4 * error


def test_problems_are_pytrees_whose_target_rides_along():
    pair = [truths.deep_linear_problem(jax.random.key(s), (3, 2, 3), 1, examples=10) for s in (0, 1)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pair)
    losses = jax.vmap(lambda problem: problem.loss_fn(problem.params, problem.data))(stacked)
    # Each at its own target: a target caught in a closure would leave the second far from zero.
    assert np.all(np.asarray(losses) < 1e-10)
    crossed = pair[0].loss_fn(pair[1].params, pair[0].data)
    assert float(crossed) > 1e-3


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_population_problem_sits_exactly_at_its_minimum(name):
    problem = PROBLEMS[name](jax.random.key(6))
    loss, gradient = jax.value_and_grad(problem.loss_fn)(problem.params, problem.data)
    assert loss.shape == ()
    assert float(loss) == 0.0
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient))
    assert {leaf.shape[0] for leaf in jax.tree.leaves(problem.data)} == {50}
    moved = jax.tree.map(lambda w: w + 0.1, problem.params)
    assert float(problem.loss_fn(moved, problem.data)) > 0.0


# --- normal crossings ------------------------------------------------------------------------------------------------


def test_the_smallest_pole_decides_and_ties_count():
    assert normal_crossing((1, 1, 1))[:2] == (Fraction(1, 2), 3)
    assert normal_crossing((1, 2, 2, 0))[:2] == (Fraction(1, 4), 2)
    assert normal_crossing((1, 2), (0, 1))[:2] == (Fraction(1, 2), 2)
    assert normal_crossing((3,), (Fraction(1, 2),))[:2] == (Fraction(1, 4), 1)


def test_powers_divide_and_coordinates_that_take_no_part_change_nothing():
    k, h = (1, 2, 3), (0, 2, 1)
    once = normal_crossing(k, h)
    assert normal_crossing(tuple(5 * power for power in k), h).learning_coefficient * 5 == once.learning_coefficient
    assert normal_crossing((0, *k), (9, *h)) == once
    assert normal_crossing(k[::-1], h[::-1]) == once
    assert normal_crossing_energy((0, 1, 2), 1e3, 1.0) == normal_crossing_energy((1, 2), 1e3, 1.0)


@pytest.mark.parametrize("gamma", [1e-2, 1.0, 30.0])
@pytest.mark.parametrize("nbeta", [1.0, 1e3, 1e8])
def test_the_energy_meets_gaussian_and_bessel_closed_forms(nbeta, gamma):
    assert normal_crossing_energy((1,), nbeta, gamma) == pytest.approx(nbeta / (2 * nbeta + gamma), rel=1e-9)
    # |w|^h with k = 1: a gamma variable in w².
    assert normal_crossing_energy((1,), nbeta, gamma, (3,)) == pytest.approx(4 * nbeta / (2 * nbeta + gamma), rel=1e-9)
    # x²y²: integrating y out leaves Z ∝ nβ^(-1/2) e^z K_0(z), z = γ²/(8 nβ).
    z = gamma**2 / (8 * nbeta)
    bessel = 0.5 + z - z * kve(1, z) / kve(0, z)
    assert normal_crossing_energy((1, 1), nbeta, gamma) == pytest.approx(bessel, rel=1e-6)


@pytest.mark.parametrize(("k", "h"), [((1, 2), (0, 0)), ((1, 2), (1, 0))])
def test_the_energy_meets_adaptive_quadrature(k, h):
    nbeta, gamma = 40.0, 1.5

    def weight(y, x):
        return x ** h[0] * y ** h[1] * np.exp(-nbeta * x ** (2 * k[0]) * y ** (2 * k[1]) - gamma / 2 * (x**2 + y**2))

    mass = dblquad(weight, 0, 8, 0, 8, epsabs=1e-10, epsrel=1e-10)[0]
    energy = dblquad(lambda y, x: nbeta * x ** (2 * k[0]) * y ** (2 * k[1]) * weight(y, x), 0, 8, 0, 8)[0]
    assert normal_crossing_energy(k, nbeta, gamma, h) == pytest.approx(energy / mass, rel=1e-6)


@pytest.mark.parametrize("k", [(1,), (2,), (1, 1), (1, 2), (1, 1, 2), (3, 2, 1)])
def test_the_energy_depends_on_temperature_and_localisation_through_one_number(k):
    # w -> w/√γ turns (nβ, γ) into (nβ γ^(-Σk), 1).
    gamma, nbeta = 7.0, 2e3
    assert normal_crossing_energy(k, nbeta, gamma) == pytest.approx(
        normal_crossing_energy(k, nbeta * gamma ** -sum(k), 1.0), rel=1e-8
    )


@pytest.mark.parametrize(("k", "h"), [((1,), None), ((1, 2), None), ((1, 3, 1), None), ((2, 1), (1, 1))])
def test_a_single_pole_is_approached_as_a_power_of_temperature(k, h):
    exact = normal_crossing(k, h)
    assert exact.multiplicity == 1
    gaps = [abs(normal_crossing_energy(k, nbeta, 1.0, h) - exact.learning_coefficient) for nbeta in (1e8, 1e16, 1e24)]
    assert gaps[2] < 1e-3
    assert gaps[2] < 0.1 * gaps[1] or gaps[2] < 1e-12


@pytest.mark.parametrize("k", [(1, 1), (2, 2), (1, 1, 1), (1, 2, 2)])
def test_a_multiple_pole_is_approached_as_its_multiplicity_over_the_logarithm(k):
    exact = normal_crossing(k)
    assert exact.multiplicity > 1
    nbetas = np.array([1e60, 1e80])
    gaps = [float(exact.learning_coefficient) - normal_crossing_energy(k, nbeta, 1.0) for nbeta in nbetas]
    slope = np.diff(1 / np.array(gaps))[0] / np.diff(np.log(nbetas))[0]
    assert slope == pytest.approx(1 / (exact.multiplicity - 1), rel=0.02)


# --- the contract ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRUTHS)
def test_a_truth_is_an_exact_positive_fraction_with_a_source(name):
    truth = TRUTHS[name]()
    assert isinstance(truth, Truth)
    assert type(truth.learning_coefficient) is Fraction
    assert truth.learning_coefficient > 0
    assert truth.multiplicity is None or (type(truth.multiplicity) is int and truth.multiplicity >= 1)
    assert any(year.isdigit() and len(year) == 4 for year in truth.source.replace(",", " ").replace(":", " ").split())


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: truths.deep_linear((3,), 0), "widths"),
        (lambda: truths.deep_linear((3, 0, 2), 0), "widths"),
        (lambda: truths.deep_linear((3, 2.5, 2), 0), "widths"),
        (lambda: truths.deep_linear((3, 2, 3), 3), "rank"),
        (lambda: truths.deep_linear((3, 2, 3), -1), "rank"),
        (lambda: truths.reduced_rank(3, 2, 3, 3), "rank"),
        (lambda: truths.deep_linear_problem(jax.random.key(0), (3, 2), 1, examples=0), "examples"),
        (lambda: truths.deep_linear_problem(jax.random.key(0), (3, 2), 1, scale=0.0), "scale"),
        (lambda: truths.deep_linear_problem(jax.random.key(0), (3, 2), 1, noise=-1.0), "noise"),
        (lambda: truths.deep_linear_problem(jax.random.key(0), (3, 2), 1, intervals={(0, 1): 1}), "intervals"),
        (lambda: truths.deep_linear_problem(jax.random.key(0), (3, 2), 1, intervals={(0, 5): 1}), "intervals"),
        (lambda: truths.deep_linear_generic((2, 2), 3), "rank"),
        (lambda: truths.deep_linear_at([]), "matrices"),
        (lambda: truths.deep_linear_at([np.ones(3)]), "matrices"),
        (lambda: truths.deep_linear_at([np.ones((2, 3)), np.ones((2, 3))]), "matrices"),
        (lambda: truths.deep_linear_at([np.full((2, 3), np.nan)]), "matrices"),
        (lambda: truths.deep_linear_at([np.ones((2, 3))], tolerance=0.0), "tolerance"),
        (lambda: truths.deep_linear_at([np.diag([1, 0.1]), np.diag([1, 0.1])], tolerance=0.05), "tolerance"),
        (lambda: truths.normal_crossing((0, 0)), "k must"),
        (lambda: truths.normal_crossing((1, -1)), "k must"),
        (lambda: truths.normal_crossing((0.5,)), "k must"),
        (lambda: truths.normal_crossing((1, 1), (0,)), "h must"),
        (lambda: truths.normal_crossing((1,), (-1,)), "h must"),
        (lambda: truths.normal_crossing((1,), ("a",)), "h must"),
        (lambda: truths.normal_crossing_problem((1,), examples=0), "examples"),
        (lambda: truths.normal_crossing_problem((1,), examples=2.5), "examples"),
        (lambda: truths.deep_linear_problem(jax.random.key(0), (3, 2), 1, examples=2.5), "examples"),
        (lambda: truths.normal_crossing_energy((1,), 0.0, 1.0), "nbeta"),
        (lambda: truths.normal_crossing_energy((1,), 1.0, 0.0), "gamma"),
    ],
)
def test_bad_input_is_refused_by_name_with_what_was_got_and_what_to_do(call, named):
    with pytest.raises(ValueError, match=rf"{named}.*got.*: \w|tolerance .* gives ranks .*: \w"):
        call()
