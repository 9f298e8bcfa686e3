"""Spectra against matrices that are known; the regular part of λ, and what is left of it for degenerate directions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import BASELINE, compilations, deviation

import slt_jax as slt
from slt_jax import curvature, restriction

#: Four thousand directions over three decades: more than the default products can diagonalise.
MANY = jnp.asarray(10.0 ** -np.linspace(-1, 2, 4000), jnp.float32)


def quadratic_of(h):
    return lambda w, x: 0.5 * jnp.sum(h * w**2) + x


#: One function, so that one program serves all tests of it.
MANY_LOSS = quadratic_of(MANY)


def exact_regular(h, nbeta, gamma):
    h = np.asarray(h, np.float64)
    return float(0.5 * np.sum(nbeta * h / (nbeta * h + gamma)))


def rotated(h, seed=0):
    """A symmetric float32 matrix with these eigenvalues in random directions, and its eigenvectors as rows."""
    axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(h), len(h))))[0].T
    return jnp.asarray(axes.T * np.asarray(h) @ axes, jnp.float32), axes


# the quadrature


@partial(jax.jit, static_argnums=2)
def quadrature(matrix, vector, steps):
    return curvature.lanczos(lambda v: matrix @ v, vector, steps)


@pytest.mark.parametrize("seed", range(3))
def test_lanczos_integrates_polynomials_of_degree_up_to_twice_its_steps(seed):
    matrix, _ = rotated(np.linspace(-1, 1, 40), seed)
    vector = np.random.default_rng(seed).normal(size=40)
    rule = quadrature(matrix, jnp.asarray(vector, jnp.float32), 4)
    exact = np.asarray(matrix, np.float64)
    moments = [vector @ np.linalg.matrix_power(exact, p) @ vector / (vector @ vector) for p in range(9)]
    found = [float(rule.weights @ rule.nodes**p) for p in range(9)]
    np.testing.assert_allclose(found[:8], moments[:8], atol=2e-6)
    assert abs(found[8] - moments[8]) > 2e-5, "one degree more is not exact"


RANKS = {"rank 0": 0, "rank 1": 1, "rank 3": 3, "rank 20": 20}


@pytest.mark.parametrize("rank", RANKS.values(), ids=RANKS.keys())
@pytest.mark.parametrize("steps", [2, 30, 100])
def test_where_the_matrix_has_low_rank_the_rule_is_exact_and_finite(rank, steps):
    """Breakdown: of the vectors after ``rank + 1`` nothing but rounding is left."""
    h = np.concatenate([np.linspace(1, 10, rank), np.zeros(100 - rank)])
    matrix, axes = rotated(h)
    vector = np.random.default_rng(1).normal(size=100)
    rule = quadrature(matrix, jnp.asarray(vector, jnp.float32), steps)
    shares = (axes @ vector) ** 2 / (vector @ vector)
    assert float(rule.weights.sum()) == pytest.approx(1.0, abs=1e-5)
    if steps > rank:
        np.testing.assert_allclose(rule.weights @ rule.nodes**2, shares @ h**2, rtol=1e-5, atol=1e-6)
        flat = jnp.sum(jnp.where(jnp.abs(rule.nodes) <= rule.noise, rule.weights, 0.0))
        assert float(flat) == pytest.approx(shares[h == 0].sum(), abs=1e-5)
    assert float(rule.noise) < 1e-4


def test_matfree_alone_is_lost_after_a_breakdown():
    """The negative control: why entries after the first that is only rounding are discarded."""
    from matfree.decomp import tridiag_sym

    matrix = jnp.diag(jnp.concatenate([jnp.array([2.0]), jnp.zeros(49)]))
    found = tridiag_sym(10)(lambda v: matrix @ v, jnp.ones(50))
    assert not bool(jnp.isfinite(found.J_small).all())


def test_no_eigenvalue_is_found_twice_in_single_precision():
    """An isolated eigenvalue has one node, however long the iteration; without re-orthogonalisation it gets ghosts."""
    from matfree.decomp import tridiag_sym

    matrix, _ = rotated(np.concatenate([[100.0], np.linspace(0, 1, 299)]))
    vector = jax.random.normal(jax.random.key(0), (300,))
    rule = quadrature(matrix, vector, 80)
    assert int(jnp.sum(rule.nodes > 50)) == 1
    ghosts = tridiag_sym(80, reortho="none", custom_vjp=False)(lambda v: matrix @ v, vector)
    assert int(jnp.sum(jnp.linalg.eigvalsh(ghosts.J_small) > 50)) > 1


# the operators


def network(params, inputs):
    return jnp.tanh(inputs @ params["w"]) @ params["v"]


def problem(seed=0, examples=23, classes=3):
    keys = jax.random.split(jax.random.key(seed), 4)
    params = {"w": jax.random.normal(keys[0], (2, 4)), "v": jax.random.normal(keys[1], (4, classes))}
    inputs = jax.random.normal(keys[2], (examples, 2))
    return params, inputs, jax.random.randint(keys[3], (examples,), 0, classes)


def squared_loss(params, batch):
    return 0.5 * jnp.sum((network(params, batch[0]) - batch[1]) ** 2, axis=1)


def label_loss(params, batch):
    return -jnp.take_along_axis(jax.nn.log_softmax(network(params, batch[0])), batch[1][:, None], axis=1)[:, 0]


def matrix_of(operator, loss_fn, params, data, free=None, chunk=8192):
    free = restriction.full() if free is None else free
    flat, unravel = jax.flatten_util.ravel_pytree(free.origin(params))
    image = lambda unit: operator(unravel(unit), loss_fn, params, data, free, chunk)  # noqa: E731
    columns = jax.jit(lambda units: jax.lax.map(lambda unit: jax.flatten_util.ravel_pytree(image(unit))[0], units))
    return np.asarray(columns(jnp.eye(flat.size))).T


def dense_hessian(loss_fn, params, data):
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    return np.asarray(jax.hessian(lambda w: jnp.mean(loss_fn(unravel(w), data)))(flat))


@pytest.mark.parametrize("chunk", [7, 23])
def test_the_operators_are_the_matrices_however_the_data_are_cut(chunk):
    params, inputs, labels = problem()
    data = (inputs, labels)
    found = matrix_of(curvature.hessian, label_loss, params, data, chunk=chunk)
    np.testing.assert_allclose(found, dense_hessian(label_loss, params, data), atol=2e-6)
    gradients = jax.vmap(lambda x, y: jax.grad(lambda w: label_loss(w, (x[None], y[None]))[0])(params))(*data)
    flat = np.stack(
        [jax.flatten_util.ravel_pytree(jax.tree.map(lambda leaf, i=i: leaf[i], gradients))[0] for i in range(23)]
    )
    found = matrix_of(curvature.empirical_fisher, label_loss, params, data, chunk=chunk)
    np.testing.assert_allclose(found, flat.T @ flat / 23, atol=2e-6)


METRICS = {"squared": curvature.squared_metric, "categorical": curvature.categorical_metric}


@pytest.mark.parametrize("name", METRICS)
def test_gauss_newton_is_the_hessian_of_the_divergence_from_the_network_itself(name):
    """Where there are no residuals; the two metrics are those of ``self_reference``."""
    params, inputs, _ = problem()
    reference = slt.self_reference(network, params, inputs, divergence=name)
    operator = curvature.gauss_newton(network, METRICS[name])
    found = matrix_of(operator, None, params, inputs, chunk=7)
    np.testing.assert_allclose(found, dense_hessian(reference.loss_fn, params, reference.data), atol=2e-5)
    assert np.linalg.eigvalsh(found)[0] > -1e-5


def test_gauss_newton_is_not_the_hessian_where_there_are_residuals():
    params, inputs, _ = problem()
    outputs = lambda w, batch: network(w, batch[0])  # noqa: E731
    for residual, same in ((0.0, True), (0.5, False)):
        data = (inputs, network(params, inputs) + residual)
        found = matrix_of(curvature.gauss_newton(outputs), squared_loss, params, data)
        off = np.abs(found - dense_hessian(squared_loss, params, data)).max()
        assert (off < 1e-5) == same


def test_gauss_newton_of_logits_is_the_fisher_information():
    """The mean over labels drawn from the model, of the outer product of gradients."""
    params, inputs, _ = problem()
    fisher = 0.0
    for label in range(3):
        labels = jnp.full(len(inputs), label)
        shares = jax.nn.softmax(network(params, inputs))[:, label]
        weighted = lambda w, batch, s=shares: jnp.sqrt(s) * label_loss(w, batch)  # noqa: E731
        fisher = fisher + matrix_of(curvature.empirical_fisher, weighted, params, (inputs, labels))
    found = matrix_of(curvature.gauss_newton(network, curvature.categorical_metric), None, params, inputs)
    np.testing.assert_allclose(found, fisher, atol=2e-6)


def test_tokens_are_averaged_and_frozen_parameters_left_out():
    params, inputs, _ = problem()
    tokens = lambda w, x: network(w, x).reshape(-1, 1, 3) * jnp.array([1.0, 0.5])[None, :, None]  # noqa: E731
    free = restriction.paths(params, "v")
    reference = slt.self_reference(tokens, params, inputs, divergence="categorical")
    found = matrix_of(curvature.gauss_newton(tokens, curvature.categorical_metric), None, params, inputs, free, chunk=7)
    assert found.shape == (12, 12)
    hessian = matrix_of(curvature.hessian, reference.loss_fn, params, reference.data, free, chunk=7)
    np.testing.assert_allclose(found, hessian, atol=2e-6)


def test_a_mean_loss_has_a_hessian_and_no_empirical_fisher():
    mean = lambda w, x: jnp.mean((w * x) ** 2)  # noqa: E731
    found = curvature.hessian(jnp.float32(1.0), mean, jnp.float32(1.0), jnp.arange(10.0), restriction.full(), 3)
    assert float(found) == pytest.approx(2 * 28.5)
    with pytest.raises(ValueError, match="loss_fn: is a mean over its batch"):
        curvature.empirical_fisher(jnp.float32(1.0), mean, jnp.float32(1.0), jnp.arange(10.0), restriction.full())


# the spectrum


def test_the_regular_part_of_a_quadratic_is_exact(key):
    """γ from far below to far above ``nβ h``; a small matrix to rounding, a large one to a hundredth and its error."""
    small = np.asarray(MANY[::40])
    exactly = slt.hessian_spectrum(key, quadratic_of(jnp.asarray(small)), jnp.zeros(100), BASELINE)
    spectrum = slt.hessian_spectrum(key, MANY_LOSS, jnp.zeros(4000), BASELINE, probes=32, steps=60)
    assert spectrum.nodes.shape == (32, 60)
    for gamma in (1.0, 100.0, 1e4):
        regular = exactly.regular(1000.0, gamma)
        assert float(regular.value) == pytest.approx(exact_regular(small, 1000.0, gamma), rel=1e-5)
        assert float(regular.std_error) == 0
        regular, exact = spectrum.regular(1000.0, gamma), exact_regular(MANY, 1000.0, gamma)
        assert float(regular.value) == pytest.approx(exact, rel=0.01)
        assert deviation(regular.value, regular.std_error, exact) < 3
        assert float(regular.std_error) < 0.01 * exact
        assert bool(regular.ok)


def test_the_reported_error_covers(key):
    """Over 40 keys, with the error of 8 probes, which is Student's: 1.96 of it are 91 %."""
    exact = exact_regular(MANY, 1e3, 300.0)
    spectra = [
        slt.hessian_spectrum(k, MANY_LOSS, jnp.zeros(4000), BASELINE, steps=32) for k in jax.random.split(key, 40)
    ]
    found = [spectrum.regular(1e3, 300.0) for spectrum in spectra]
    missed = np.array([deviation(r.value, r.std_error, exact) for r in found])
    assert 0.75 <= np.mean(missed < 1.96) <= 1.0
    assert np.mean(missed < 0.3) < 0.6, "the error is not far too large"


def test_too_few_steps_are_seen_in_the_truncation(key):
    few, many = (slt.hessian_spectrum(key, MANY_LOSS, jnp.zeros(4000), BASELINE, steps=s) for s in (4, 32))
    exact = exact_regular(MANY, 1e2, 10.0)
    short, long = few.regular(1e2, 10.0), many.regular(1e2, 10.0)
    assert float(short.truncation) > 100 * float(long.truncation)
    assert float(short.value) > 1.05 * exact
    assert not bool(short.ok)
    assert "raise steps" in short.explain()
    assert bool(long.ok)
    assert deviation(long.value, long.std_error, exact) < 3


def test_density_counts_and_traces(key):
    h = jnp.concatenate([jnp.full(30, 2.0), jnp.full(70, 0.5)])
    spectrum = slt.hessian_spectrum(key, quadratic_of(h), jnp.zeros(100), BASELINE)
    assert float(spectrum.count_above(1.0).value) == pytest.approx(30, rel=1e-5)
    assert float(spectrum.trace(lambda x: x**2).value) == pytest.approx(30 * 4 + 70 * 0.25, rel=1e-5)
    grid = jnp.linspace(-1, 4, 2001)
    density = spectrum.density(grid, 0.1)
    assert float(jnp.trapezoid(density.value, grid)) == pytest.approx(1.0, rel=1e-4)
    upper = grid > 1.25
    share = jnp.trapezoid(jnp.where(upper, density.value, 0.0), grid)
    assert float(share) == pytest.approx(0.3, rel=1e-3)
    many = slt.hessian_spectrum(key, MANY_LOSS, jnp.zeros(4000), BASELINE, steps=32)
    count = many.count_above(1.0)
    assert deviation(count.value, count.std_error, int(jnp.sum(MANY > 1))) < 4
    errors = many.density(jnp.array([0.05, 5.0]), 0.02).std_error
    assert errors.shape == (2,)
    assert bool(jnp.all(errors > 0))


def test_negative_curvature_adds_nothing_and_is_reported(key):
    h = jnp.concatenate([jnp.full(10, 1.0), jnp.full(2, -1.0), jnp.zeros(8)])
    regular = slt.hessian_spectrum(key, quadratic_of(h), jnp.zeros(20), BASELINE).regular(100.0, 1.0)
    assert float(regular.value) == pytest.approx(exact_regular(h[:10], 100.0, 1.0), rel=1e-5)
    assert float(regular.negative) == pytest.approx(2.0, rel=1e-5)
    assert not bool(regular.ok)
    assert "curve downwards" in regular.explain()
    healthy = slt.hessian_spectrum(key, quadratic_of(jnp.abs(h)), jnp.zeros(20), BASELINE).regular(100.0, 1.0)
    assert healthy.explain().endswith("healthy")


def test_what_is_flat_to_rounding_is_left_out_and_reported(key):
    """A temperature at which rounding, were it real, would count."""
    matrix, _ = rotated(np.concatenate([np.full(5, 10.0), np.zeros(45)]))
    spectrum = slt.hessian_spectrum(key, lambda w, x: 0.5 * w @ matrix @ w + x, jnp.zeros(50), BASELINE)
    warm, cold = spectrum.regular(100.0, 1.0), spectrum.regular(1e9, 1.0)
    assert float(warm.value) == pytest.approx(exact_regular(np.full(5, 10.0), 100.0, 1.0), rel=1e-5)
    assert bool(warm.ok)
    assert float(cold.value) == pytest.approx(2.5, rel=1e-5)
    assert not bool(cold.ok)
    assert "flat to rounding" in cold.explain()


def test_only_free_directions_count(key):
    params = {"a": jnp.zeros(3), "b": jnp.zeros(5)}
    loss_fn = lambda w, x: 0.5 * jnp.sum(w["a"] ** 2) + jnp.sum(w["b"] ** 2) + x  # noqa: E731
    free = restriction.paths(params, "b")
    spectrum = slt.hessian_spectrum(key, loss_fn, params, BASELINE, restriction=free)
    assert int(spectrum.dimension) == 5
    np.testing.assert_allclose(spectrum.nodes, 2.0, rtol=1e-5)


def test_another_operator_has_its_own_spectrum(key):
    """The Gauss-Newton matrix of a network that is no minimum has no negative curvature; its Hessian does."""
    params, inputs, labels = problem()
    operator = curvature.gauss_newton(lambda w, batch: network(w, batch[0]), curvature.categorical_metric)
    measure = lambda **settings: slt.hessian_spectrum(key, label_loss, params, (inputs, labels), **settings)  # noqa: E731
    hessian, newton = measure().regular(100.0, 1.0), measure(operator=operator).regular(100.0, 1.0)
    assert float(hessian.negative) >= 1
    assert float(newton.negative) == 0
    assert bool(newton.ok)


def test_double_precision_sees_further(key):
    """A curvature of 1e-9 of the largest: below the resolution of single precision, above that of double."""
    h = np.array([1.0, 1e-9])
    single = slt.hessian_spectrum(
        key, lambda w, x: 0.5 * jnp.sum(jnp.asarray(h, w.dtype) * w**2), jnp.zeros(2), BASELINE
    )
    assert float(single.regular(1.0, 1e-9).value) == pytest.approx(0.5)
    with jax.enable_x64(True):
        loss_fn = lambda w, x: 0.5 * jnp.sum(jnp.asarray(h, w.dtype) * w**2)  # noqa: E731
        double = slt.hessian_spectrum(key, loss_fn, jnp.zeros(2, jnp.float64), np.asarray(BASELINE, np.float64))
        assert float(double.regular(1.0, 1e-9).value) == pytest.approx(0.75, rel=1e-6)


def test_half_precision_parameters_are_widened(key):
    params = {"w": jnp.zeros(3, jnp.bfloat16), "b": jnp.zeros(2)}
    loss_fn = lambda w, x: 0.5 * jnp.sum(w["w"] ** 2) + jnp.sum(w["b"] ** 2) + x  # noqa: E731
    spectrum = slt.hessian_spectrum(key, loss_fn, params, BASELINE)
    np.testing.assert_allclose(spectrum.nodes[0], [1, 1, 1, 2, 2], rtol=1e-6)
    assert spectrum.nodes.dtype == jnp.float32


def test_one_program_serves_all_centres_and_temperatures(key):
    loss_fn = jax.tree_util.Partial(lambda w, x: jnp.sum(w**4) * x)
    centers = jnp.array([[1.0, 2.0], [0.0, 1.0]])
    slt.hessian_spectrum(key, loss_fn, centers[0], BASELINE)
    jax.block_until_ready([centers[1], jnp.isfinite(jnp.zeros((1, 2))).all()])
    second = centers[1]
    with compilations() as compiled:
        slt.hessian_spectrum(key, loss_fn, second, BASELINE)
    assert compiled == []

    @jax.jit
    def values(key, center, nbetas):
        spectrum = slt.hessian_spectrum(key, loss_fn, center, BASELINE)
        return jax.vmap(lambda nbeta: spectrum.regular(nbeta, 1.0).value)(nbetas)

    mean = float(jnp.mean(BASELINE))
    exact = [exact_regular(12 * mean * np.array([1.0, 4.0]), nbeta, 1.0) for nbeta in (0.1, 1.0)]
    np.testing.assert_allclose(values(key, centers[0], jnp.array([0.1, 1.0])), exact, rtol=1e-5)


# the remainder


def estimate_of(key, sampler, problem, nbeta=None, gamma=None):
    posterior = slt.localise(*problem, nbeta, gamma)
    trace = slt.sample(key, sampler, posterior, problem.data, draws=2000, chains=8, burnin=500)
    return jax.jit(slt.llc_from)(trace, posterior), posterior


def test_the_remainder_of_a_quadratic_is_nothing(key):
    h, nbeta, gamma = jnp.asarray(10.0 ** -np.linspace(0, 2, 30), jnp.float32), 1000.0, 20.0
    problem = slt.Problem(quadratic_of(h), jnp.zeros(30), BASELINE)
    regular = slt.hessian_spectrum(key, *problem).regular(nbeta, gamma)
    estimate, _ = estimate_of(key, slt.samplers.sgld(0.5 / (nbeta + gamma)), problem, nbeta, gamma)
    remainder = regular.remainder(estimate)
    assert deviation(remainder.value, remainder.std_error, 0.0) < 4
    assert float(remainder.std_error) == pytest.approx(float(estimate.std_error))
    assert float(regular.remainder(exact_regular(h, nbeta, gamma)).value) == pytest.approx(0.0, abs=1e-4)


def test_what_the_hessian_cannot_see_remains(key):
    """``x²y²`` has no Hessian at all: the remainder is ``nβ E[K]``, here by quadrature."""
    nbeta, gamma = 1000.0, 0.1
    x = np.linspace(-20, 20, 4001)
    energy = nbeta * x[:, None] ** 2 * x[None, :] ** 2
    mass = np.exp(-energy - 0.5 * gamma * (x[:, None] ** 2 + x[None, :] ** 2))
    exact = float(np.sum(mass * energy) / np.sum(mass))
    spectrum = slt.hessian_spectrum(key, lambda w, x: w[0] ** 2 * w[1] ** 2 + x, jnp.zeros(2), BASELINE)
    remainder = spectrum.regular(nbeta, gamma).remainder(exact)
    assert float(remainder.value) == pytest.approx(exact)
    assert 0.3 < exact < 0.5


def test_a_rank_deficient_linear_network_keeps_what_its_lost_ranks_are_worth(key):
    """λ of widths (6, 6, 6), rank 2, is 16; its Hessian has 20 stiff directions, worth 10."""
    linear = slt.truths.deep_linear_problem(jax.random.key(0), (6, 6, 6), 2, examples=10_000)
    truth = slt.truths.deep_linear((6, 6, 6), 2).learning_coefficient
    spectrum = slt.hessian_spectrum(key, *linear)
    stiffest = float(spectrum.nodes.max())
    sampler = slt.samplers.underdamped(0.3 / (1086 * stiffest) ** 0.5)
    estimate, posterior = estimate_of(key, sampler, linear)
    regular = spectrum.regular(posterior.nbeta, posterior.gamma)
    assert float(spectrum.count_above(1e-3).value) == pytest.approx(20, abs=1e-3)
    assert float(regular.value) == pytest.approx(10.0, rel=0.01)
    assert bool(regular.ok)
    remainder = regular.remainder(estimate)
    assert float(remainder.value) > 4 * float(remainder.std_error)
    assert float(remainder.value) == pytest.approx(float(truth) - 10, rel=0.2)


# the stiffest directions


@pytest.mark.parametrize("size", [40, 400])
def test_the_stiffest_directions_are_found_equal_ones_too(size, key):
    """Both where all of the matrix is diagonalised and where it is not."""
    h = np.concatenate([[5.0, 5.0, 5.0, 3.0], np.linspace(0, 1, size - 4)])
    matrix, axes = rotated(h)
    found = slt.top_directions(key, lambda w, x: 0.5 * w @ matrix @ w + x, jnp.zeros(size), BASELINE, 4)
    np.testing.assert_allclose(found.eigenvalues, h[:4], rtol=1e-5)
    assert float(found.residuals.max()) < 1e-4
    basis = np.stack([found.restriction.lift(jnp.zeros(size), unit) for unit in jnp.eye(4)])
    np.testing.assert_allclose(basis @ basis.T, np.eye(4), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(basis @ axes[:4].T, ord="fro"), 2.0, rtol=1e-5)


@pytest.mark.parametrize("rank", [0, 3])
def test_more_directions_than_the_rank_are_still_orthonormal(rank, key):
    matrix, _ = rotated(np.concatenate([np.arange(1.0, rank + 1), np.zeros(400 - rank)]))
    found = slt.top_directions(key, lambda w, x: 0.5 * w @ matrix @ w + x, jnp.zeros(400), BASELINE, 6)
    exact = [*np.arange(rank, 0, -1.0), *np.zeros(6 - rank)]
    np.testing.assert_allclose(found.eigenvalues, exact, atol=1e-5)
    basis = np.stack([found.restriction.lift(jnp.zeros(400), unit) for unit in jnp.eye(6)])
    np.testing.assert_allclose(basis @ basis.T, np.eye(6), atol=1e-5)


def test_a_direction_that_has_not_converged_has_a_residual(key):
    h = np.linspace(0, 1, 400)
    matrix, _ = rotated(h)
    rough, fine = (
        slt.top_directions(key, lambda w, x: 0.5 * w @ matrix @ w + x, jnp.zeros(400), BASELINE, 2, rounds=rounds)
        for rounds in (3, 20)
    )
    np.testing.assert_array_less(np.abs(rough.eigenvalues[:, None] - h[None, :]).min(axis=1), rough.residuals)
    assert float(fine.residuals.max()) < 0.05 * float(rough.residuals.max())
    np.testing.assert_allclose(fine.eigenvalues, h[:-3:-1], rtol=1e-3)


def test_the_stiffest_of_the_free_directions_are_a_restriction_of_the_parameters(key):
    params = {"a": jnp.zeros(5), "b": jnp.zeros(40)}
    h = jnp.linspace(0.1, 2.0, 40)
    loss_fn = lambda w, x: 5 * jnp.sum(w["a"] ** 2) + 0.5 * jnp.sum(h * w["b"] ** 2) + x  # noqa: E731
    free = restriction.paths(params, "b")
    values, stiff, _ = slt.top_directions(key, loss_fn, params, BASELINE, 3, restriction=free)
    np.testing.assert_allclose(values, np.asarray(h)[:-4:-1], rtol=1e-5)
    inside = slt.hessian_spectrum(key, loss_fn, params, BASELINE, restriction=stiff)
    np.testing.assert_allclose(inside.nodes[0], np.asarray(h)[-3:], rtol=1e-5)


BAD = {
    "probes": ({"probes": 0}, "probes: got 0; pass an integer of at least 1"),
    "steps": ({"steps": 2.0}, "steps: got 2.0"),
    "chunk": ({"chunk_size": 0}, "chunk_size: got 0"),
    "one probe": ({"probes": 1, "steps": 3}, "probes and steps: got 1 and 3; pass at least 2"),
    "restriction": ({"restriction": restriction.full}, "restriction: got a function"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_before_anything_is_compiled(case, key):
    settings, message = BAD[case]
    center = jnp.zeros(9)
    with compilations() as compiled, pytest.raises(ValueError, match=message):
        slt.hessian_spectrum(key, quadratic_of(jnp.ones(9)), center, BASELINE, **settings)
    assert compiled == []


def test_too_many_directions_and_an_infinite_curvature_are_named(key):
    with pytest.raises(ValueError, match="count: got 10; pass an integer between 1 and 9, the number of free"):
        slt.top_directions(key, quadratic_of(jnp.ones(9)), jnp.zeros(9), BASELINE, 10)
    for measure in (slt.hessian_spectrum, lambda *args: slt.top_directions(*args, 1)):
        with pytest.raises(ValueError, match="its second derivatives at params are not finite"):
            measure(key, lambda w, x: jnp.linalg.norm(w) + x, jnp.zeros(3), BASELINE)
