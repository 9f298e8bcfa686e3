"""What a cloud of samples says about the singularity it sits on, on samples drawn exactly."""

import numpy as np
import pytest

import slt_jax as slt
from slt_jax.substructure import (
    clusters,
    contact_exponents,
    divisor_weights,
    log_directions,
    rank_clusters,
    sign_clusters,
)

NBETAS = np.array([1e4, 1e6, 1e8])
COUNT = 4000
TURN = np.array([[0.6, 0.8], [-0.8, 0.6]])


def depth_law(nbeta, dimension):
    """A grid of ``S = -Σ log |z_i|`` with its probabilities: ``S^{d-1} e^{-S} exp(-nβ e^{-2S})`` on the unit cube."""
    grid = np.linspace(1e-6, 0.5 * np.log(nbeta) + 25, 50_001)
    log_density = (dimension - 1) * np.log(grid) - grid - nbeta * np.exp(-2 * grid)
    density = np.exp(log_density - log_density.max())
    return grid, density / density.sum()


def crossing(random, dimension, nbetas=NBETAS):
    """Exact draws of ``exp(-nβ Π z_i²)`` on the cube: ``S`` from its law, shared out uniformly on the simplex."""
    draws = []
    for nbeta in nbetas:
        grid, weights = depth_law(nbeta, dimension)
        total = np.interp(random.uniform(size=COUNT), np.cumsum(weights), grid)
        shares = random.dirichlet(np.ones(dimension), size=COUNT)
        draws.append(np.exp(-total[:, None] * shares) * random.choice([-1, 1], size=(COUNT, dimension)))
    return np.stack(draws)


def quasi_homogeneous(random, nbetas=NBETAS):
    """Exact draws of ``exp(-nβ (x² + y⁴))``."""
    return np.stack(
        [
            np.stack(
                [
                    random.normal(size=COUNT) / np.sqrt(2 * nbeta),
                    (random.gamma(0.25, size=COUNT) / nbeta) ** 0.25 * random.choice([-1, 1], COUNT),
                ],
                axis=-1,
            )
            for nbeta in nbetas
        ]
    )


def linear_layers(random, widths, rounds=150, chains=300, keep=10):
    """Gibbs chains of ``exp(-nβ/2 ‖W2 W1‖² - ½ ‖W1‖² - ½ ‖W2‖²)``: given one layer the other is normal."""

    def rows_given(other, count, nbeta):
        precision = nbeta * other @ other.transpose(0, 2, 1) + np.eye(other.shape[1])
        factor = np.linalg.cholesky(precision).transpose(0, 2, 1)
        noise = random.normal(size=(len(other), other.shape[1], count))
        return np.linalg.solve(factor, noise).transpose(0, 2, 1)

    rungs = []
    for nbeta in NBETAS:
        first, kept = random.normal(size=(chains, widths[1], widths[0])), []
        for step in range(rounds):
            second = rows_given(first, widths[2], nbeta)
            first = rows_given(second.transpose(0, 2, 1), widths[0], nbeta).transpose(0, 2, 1)
            if step >= rounds - keep:
                kept.append((first, second))
        rungs.append([np.concatenate([pair[k] for pair in kept]) for k in range(2)])
    return [np.stack([rung[k] for rung in rungs]) for k in range(2)]


def within(value, error, exact, errors=4.0):
    return abs(value - exact) < errors * error


def test_the_weights_of_a_quasi_homogeneous_law_are_found_in_a_turned_frame_and_add_up_to_lambda():
    found = divisor_weights(quasi_homogeneous(np.random.default_rng(0)) @ TURN, NBETAS)
    for weight, error, exact in zip(found.weights, found.std_errors, (1 / 2, 1 / 4), strict=True):
        assert within(weight, error, exact)
        assert error < 0.01
    assert within(found.total, found.total_error, float(slt.truths.newton([(1, 0), (0, 2)]).learning_coefficient))
    assert found.overlap > 0.99
    np.testing.assert_allclose(np.abs(found.directions @ TURN.T), np.broadcast_to(np.eye(2), (3, 2, 2)), atol=0.02)


def test_components_are_followed_where_their_sizes_cross():
    """Sorted by size the two would swap on the way, and both would read the mean of their weights."""
    random, nbetas = np.random.default_rng(1), np.array([1e2, 1e4, 1e6])
    scales = np.stack([nbetas**-0.5, 0.03 * nbetas**-0.1], axis=-1)
    found = divisor_weights(random.normal(size=(3, COUNT, 2)) * scales[:, None, :] @ TURN, nbetas)
    np.testing.assert_allclose(found.weights, [0.5, 0.1], atol=0.01)


def test_rungs_may_come_in_any_order():
    z = quasi_homogeneous(np.random.default_rng(2))
    order = [2, 0, 1]
    straight, shuffled = divisor_weights(z, NBETAS), divisor_weights(z[order], NBETAS[order])
    np.testing.assert_allclose(shuffled.weights, straight.weights)
    np.testing.assert_allclose(shuffled.directions, straight.directions[order])


def test_the_sum_of_weights_is_not_lambda_on_a_normal_crossing():
    """The negative control of the quasi-homogeneous law: along the branches of ``x y`` nothing shrinks like ½."""
    found = divisor_weights(crossing(np.random.default_rng(3), 2), NBETAS)
    assert found.total < 0.2


def test_the_errors_cover():
    """Of 100 clouds the share within two errors of the exact sum."""
    nbetas = np.array([1e2, 1e4])
    hits = []
    for seed in range(100):
        z = quasi_homogeneous(np.random.default_rng(seed), nbetas)[:, :400]
        found = divisor_weights(z, nbetas)
        hits.append(within(found.total, found.total_error, 0.75, 2.0))
    assert 0.88 <= np.mean(hits) <= 1.0


@pytest.mark.parametrize("dimension", [2, 3])
def test_contact_exponents_on_a_normal_crossing_are_those_of_the_exact_law(dimension):
    """``E[S]`` by quadrature at the same temperatures; the limit is λ = ½, and the coordinates share it."""
    found = contact_exponents(crossing(np.random.default_rng(4), dimension), NBETAS, learning_coefficient=0.5)
    means = [np.sum(grid * weights) for grid, weights in (depth_law(nbeta, dimension) for nbeta in NBETAS)]
    exact = np.polyfit(np.log(NBETAS), means, 1)[0]
    assert within(found.total, found.total_error, exact)
    assert found.ratio == pytest.approx(1.0, abs=0.08)
    assert all(within(e, s, exact / dimension) for e, s in zip(found.exponents, found.std_errors, strict=True))


def test_contact_exponents_of_groups_and_of_coordinates_that_are_not_adapted():
    random = np.random.default_rng(5)
    z = quasi_homogeneous(random)
    grouped = contact_exponents(np.concatenate([z, z[..., :1]], axis=-1), NBETAS, groups=[[0, 2], [1]])
    assert within(grouped.exponents[0], grouped.std_errors[0], 0.5)
    turned = contact_exponents(z @ TURN, NBETAS, learning_coefficient=0.75)
    assert turned.ratio < 0.75  # both coordinates see the wider direction


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_branches_of_a_normal_crossing_are_its_components(dimension):
    z = crossing(np.random.default_rng(6), dimension)
    found = clusters(z, NBETAS)
    assert len(found.centers) == dimension
    # each centre leans towards a vertex of its own
    assert sorted(np.argmax(found.centers, axis=1)) == list(range(dimension))
    smallest = np.argmin(np.abs(z), axis=-1)
    assert np.mean(np.argmax(found.centers, axis=1)[found.labels] == smallest) > 0.9
    assert (np.abs(found.responsibilities - 1 / dimension) < 5 * found.std_errors + 0.02).all()


def test_given_vertices_sort_as_the_smallest_coordinate_does():
    z = crossing(np.random.default_rng(7), 2)
    vertices = 0.5 * np.array(slt.truths.newton([(1, 1)]).divisors, float)
    found = clusters(z, NBETAS, vertices=vertices)
    own = np.argmax(found.centers, axis=1)[found.labels]
    assert np.array_equal(own, np.argmin(np.abs(z), axis=-1))


@pytest.mark.parametrize("seed", range(3))
def test_an_isolated_zero_is_one_component(seed):
    z = quasi_homogeneous(np.random.default_rng(seed))
    found = clusters(z, NBETAS)
    assert len(found.centers) == 1
    np.testing.assert_allclose(np.median(log_directions(z, NBETAS)[2], axis=0), [0.5, 0.25], atol=0.1)


def test_orthants_are_told_by_sign():
    z = crossing(np.random.default_rng(8), 2)
    found = sign_clusters(z, NBETAS)
    assert len(found.centers) == 4
    assert np.array_equal(found.centers[found.labels], np.sign(z))
    np.testing.assert_allclose(found.responsibilities.sum(axis=1), 1.0)


@pytest.mark.parametrize(
    ("widths", "components"),
    [((2, 2, 2), [[1, 1]]), ((2, 2, 3), [[0, 2], [1, 1]]), ((1, 1, 1), [[0, 1], [1, 0]])],
)
def test_the_components_of_top_dimension_of_linear_layers_take_the_cloud(widths, components):
    """``C(ℓ, a mod ℓ)`` of them, as many as the theorem has; what is no such component dies out."""
    found = rank_clusters(linear_layers(np.random.default_rng(9), widths), NBETAS)
    assert sorted(found.centers[: len(components)].tolist()) == components
    shares = found.responsibilities[:, : len(components)]
    assert shares[-1].min() > 0.3
    assert shares[-1].sum() > 0.88
    assert shares[-1].sum() > shares[0].sum() + 0.03
    # two components that meet: the multiplicity is 2
    assert slt.truths.deep_linear(widths, 0).multiplicity == len(components)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda z: divisor_weights(z[0], NBETAS), "shapes"),
        (lambda z: divisor_weights(z, np.ones(3)), "different temperatures"),
        (lambda z: divisor_weights(z * np.nan, NBETAS), "finite"),
        (lambda z: divisor_weights(z, NBETAS, blocks=1), "blocks"),
        (lambda z: contact_exponents(0 * z, NBETAS), "exactly 0"),
        (lambda z: contact_exponents(z, NBETAS, groups=[[7]]), "groups"),
        (lambda z: clusters(z, NBETAS, vertices=np.ones((2, 3))), "vertices"),
        (lambda z: log_directions(z, NBETAS / 1e6), "above 1"),
        (lambda z: rank_clusters([z], NBETAS), "layers"),
        (lambda z: rank_clusters([z[..., None]], NBETAS, depth=0.7), "depth"),
    ],
)
def test_what_makes_no_sense_is_refused(call, word):
    with pytest.raises(ValueError, match=word):
        call(np.ones((3, 50, 2)))
