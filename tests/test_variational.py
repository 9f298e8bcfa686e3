"""Variational inference: exact laws on quadratics, bounds at singularities, and the contract of its sampler."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import BASELINE, ORIGIN, assert_same, compilations, deviation, quadratic_posterior

import slt_jax as slt
from slt_jax import samplers
from slt_jax.samplers import guides
from slt_jax.samplers.guides.base import potential
from slt_jax.samplers.guides.blocks import down, up
from slt_jax.tree import Static
from slt_jax.truths import deep_linear_problem

NBETA, GAMMA = 1000.0, 2.0
#: Correlated, over two decades.
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
HESSIAN = TURN @ np.diag([1.0, 0.2, 0.01]) @ TURN.T
#: The minimum lies some widths of the posterior off the centre: a guide has to find it.
OFF = TURN @ np.array([0.1, -0.2, 0.6])
PRECISION = NBETA * HESSIAN + GAMMA * np.eye(3)
PULL = NBETA * HESSIAN @ OFF
NO_DATA = jnp.zeros((1000, 0))

FAMILIES = {
    "mean_field": guides.mean_field(),
    "low_rank": guides.low_rank(2),
    "full_rank": guides.full_rank(),
    "inverse_autoregressive": guides.inverse_autoregressive(),
    "singular": guides.singular(couplings=2),
}
every = pytest.mark.parametrize("guide", FAMILIES.values(), ids=FAMILIES.keys())


def correlated(params, batch):
    del batch
    away = params - OFF.astype(params.dtype)
    return 0.5 * away @ HESSIAN.astype(params.dtype) @ away


def correlated_posterior():
    return slt.localise(correlated, jnp.zeros(3), NO_DATA, NBETA, GAMMA)


def exact_free_energy(precision):
    """``½ log det(P/γ) - ½ bᵀ P⁻¹ b`` above the centre's ``nβ L``, with the determinant of the guide's precision."""
    energy = 0.5 * NBETA * OFF @ HESSIAN @ OFF
    return energy + 0.5 * np.linalg.slogdet(precision / GAMMA)[1] - 0.5 * PULL @ np.linalg.solve(PRECISION, PULL)


def exact_coefficient(precision):
    """``nβ E[K]`` of a Gaussian around the posterior's mean."""
    away = np.linalg.solve(PRECISION, PULL) - OFF
    below = 0.5 * NBETA * (away @ HESSIAN @ away - OFF @ HESSIAN @ OFF)
    return 0.5 * NBETA * np.trace(HESSIAN @ np.linalg.inv(precision)) + below


DIAGONAL = np.diag(np.diag(PRECISION))


@lru_cache(maxsize=16)
def fitted(name, steps=1000):
    """Posterior, trace and bounds of two fits to the correlated quadratic."""
    posterior = correlated_posterior()
    sampler = samplers.variational(FAMILIES[name], steps=steps)
    trace = slt.sample(jax.random.key(1), sampler, posterior, NO_DATA, draws=3000, chains=2, observe=centred)
    bound = jax.vmap(lambda fit: samplers.free_energy_bound(jax.random.key(2), fit, posterior, NO_DATA))
    return posterior, trace, bound(trace.state.fit)


def centred(params):
    return params - jnp.asarray(np.linalg.solve(PRECISION, PULL), jnp.float32)


# exact laws on a quadratic


def test_the_full_gaussian_is_exact_on_a_quadratic_and_an_unfitted_one_is_not():
    posterior, trace, bound = fitted("full_rank")
    np.testing.assert_allclose(bound.value, exact_free_energy(PRECISION), atol=2e-3)
    estimate = slt.llc_from(trace, posterior)
    assert deviation(estimate.value, estimate.std_error, exact_coefficient(PRECISION)) < 4
    assert abs(float(estimate.health.virial) - 1) < 4 * float(estimate.health.virial_error)
    assert float(estimate.health.rhat) < 1.01
    assert np.all(trace.state.fit.slope < 0.1)
    _, unfitted, above = fitted("full_rank", steps=1)
    assert np.all(above.value - 4 * above.std_error > exact_free_energy(PRECISION) + 1)
    wrong = slt.llc_from(unfitted, posterior)
    assert deviation(wrong.value, wrong.std_error, exact_coefficient(PRECISION)) > 4
    assert np.all(unfitted.state.fit.slope > 1), (
        "and it is to be seen, though not in a virial of 1 and chains that agree"
    )


def test_the_mean_field_is_too_narrow_by_exactly_its_law():
    posterior, trace, bound = fitted("mean_field")
    np.testing.assert_allclose(bound.value, exact_free_energy(DIAGONAL), atol=4 * float(bound.std_error.max()))
    assert np.all(bound.value - 4 * bound.std_error > exact_free_energy(PRECISION)), "the other law is told from it"
    for entry in range(3):
        draws = trace.observables[:, :, entry]
        # the best of a noisy descent: each width is right to a few per cent
        assert float(jnp.var(draws)) == pytest.approx(1 / PRECISION[entry, entry], rel=0.08)
        assert float(jnp.var(draws)) < 0.8 * np.linalg.inv(PRECISION)[entry, entry]
    estimate = slt.llc_from(trace, posterior)
    assert deviation(estimate.value, estimate.std_error, exact_coefficient(DIAGONAL)) < 4


@pytest.mark.parametrize(("name", "most"), [("low_rank", 0.05), ("inverse_autoregressive", 0.1), ("singular", 0.05)])
def test_richer_families_come_nearer_than_the_mean_field(name, most):
    _, _, bound = fitted(name)
    exact = exact_free_energy(PRECISION)
    assert np.all(bound.value > exact - 4 * bound.std_error - 1e-3)
    assert np.all(bound.value < exact + most)
    assert exact_free_energy(DIAGONAL) > exact + 2 * most, "which the mean field is not"


@every
def test_any_member_of_a_family_bounds_the_free_energy(guide):
    name = next(name for name, other in FAMILIES.items() if other is guide)
    _, _, bound = fitted(name, steps=1)
    assert np.all(bound.value > exact_free_energy(PRECISION) - 4 * bound.std_error - 1e-3)


def test_the_slope_of_the_bound_is_what_llc_reads():
    """The envelope theorem, on a crossing where no member is exact: bounds of fits at two temperatures."""
    sampler = samplers.variational(guides.mean_field(), steps=1500)

    def bound(nbeta):
        posterior = slt.localise(lambda w, _: w[0] ** 2 * w[1] ** 2, jnp.zeros(2), NO_DATA, nbeta, 1.0)
        fit = sampler.init(jax.random.key(0), posterior, NO_DATA).fit
        return samplers.free_energy_bound(jax.random.key(1), fit, posterior, NO_DATA, draws=8000)

    run = jax.jit(bound)
    low, middle, high = (run(nbeta) for nbeta in (1e3, 2e3, 4e3))
    slope = (high.value - low.value) / np.log(4.0)
    error = np.hypot(np.hypot(high.std_error, low.std_error) / np.log(4.0), middle.coefficient_error)
    assert abs(slope - middle.coefficient) < 4 * error + 0.01
    assert abs(slope - 1.2 * middle.coefficient) > 4 * error


# at singularities


def test_the_singular_guide_is_within_15_per_cent_and_the_mean_field_is_not():
    """A linear network of rank 0, the hardest of the benchmark's three problems: a fit takes seconds to compile."""
    # λ, and at nβ = 1e4, γ = 1 the exact nβ E[K] and free energy, by the quadrature of the benchmark
    coefficient, slope, free_energy = 3 / 2, 1.4769, 13.1936
    problem = deep_linear_problem(jax.random.key(3), (2, 2, 2), 0)
    posterior = slt.localise(problem.loss_fn, problem.params, NO_DATA, 1e4, 1.0)

    def lowest(guide, steps):
        sampler = samplers.variational(guide, steps=steps, samples=16)
        # the fits alone: no loop over draws to be compiled
        start = jax.jit(jax.vmap(lambda key: sampler.init(key, posterior, NO_DATA).fit))
        fits = start(jax.random.split(jax.random.key(0), 2))
        bounds = jax.vmap(lambda f: samplers.free_energy_bound(jax.random.key(1), f, posterior, NO_DATA))(fits)
        best = int(jnp.argmin(bounds.value))
        return jax.tree.map(lambda leaf: leaf[best], (bounds, fits))

    bound, fit = lowest(guides.singular(couplings=2), 400)
    assert abs(float(bound.coefficient) / coefficient - 1) < 0.15
    assert float(bound.coefficient) > slope - 4 * float(bound.coefficient_error)
    assert free_energy - 4 * float(bound.std_error) < float(bound.value) < free_energy + 0.8
    simple, _ = lowest(guides.mean_field(), 1000)
    assert float(simple.value) > float(bound.value) + 0.3
    assert float(simple.coefficient) > 1.25 * coefficient
    reading = samplers.base_reading(jax.random.key(2), fit, posterior, NO_DATA)
    assert reading.ratios.shape == reading.shares.shape == posterior_shape(posterior)
    assert float(reading.least) <= float(reading.ratios.max())
    assert float(reading.total) > 0.7 * coefficient


def posterior_shape(posterior):
    return (slt.posterior.dimension(posterior),)


def test_the_base_reads_the_exponent_of_a_power():
    """``K = x⁴``: ``h = 0``, ``k = 2``, λ = 1/4, read off the base of one block; half that of a Gaussian."""
    posterior = slt.localise(lambda w, _: jnp.sum(w**4), jnp.zeros(1), NO_DATA, 1e4, 1e-3)
    sampler = samplers.variational(guides.singular(blocks=1, couplings=0), steps=1500)
    fit = sampler.init(jax.random.key(0), posterior, NO_DATA).fit
    reading = samplers.base_reading(jax.random.key(1), fit, posterior, NO_DATA)
    assert float(reading.least) == pytest.approx(0.25, abs=0.03)
    assert float(jnp.exp(fit.free[0].power[0])) == pytest.approx(2.0, rel=0.1)
    bound = samplers.free_energy_bound(jax.random.key(1), fit, posterior, NO_DATA)
    assert float(bound.coefficient) == pytest.approx(0.25, abs=4 * float(bound.coefficient_error) + 0.01)


# densities


@every
def test_a_draw_knows_its_own_density(guide, key):
    # around the centre, where every guide begins
    posterior = slt.localise(lambda w, _: 0.5 * w @ HESSIAN.astype(w.dtype) @ w, jnp.zeros(3), NO_DATA, NBETA, GAMMA)
    batch = slt.full_batch(posterior, NO_DATA)
    free, fixed = guide.init(key, posterior, batch)
    shaken = jax.tree.map(lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), free)
    z, density = guide.draw(shaken, fixed, key, posterior, batch)
    if guide.log_density is not None:
        assert float(guide.log_density(shaken, fixed, z, posterior, batch)) == pytest.approx(float(density), abs=1e-3)
        assert abs(float(guide.log_density(free, fixed, z, posterior, batch)) - float(density)) > 1e-2
    # E_q[f/q] = 1 for a normalised f inside of q, whatever q: the density has the right total mass
    draws, logs = jax.vmap(lambda k: guide.draw(free, fixed, k, posterior, batch))(jax.random.split(key, 20_000))
    inside = jax.vmap(lambda z: 0.5 * z @ jnp.asarray(4 * PRECISION, z.dtype) @ z)(draws)
    wide = 0.5 * np.linalg.slogdet(4 * PRECISION / (2 * np.pi))[1]
    weights = jnp.exp(wide - inside - logs)
    assert deviation(weights.mean(), weights.std() / np.sqrt(20_000), 1.0) < 4


def test_blocks_go_down_and_up_again_and_their_volume_is_that_of_the_map(key):
    with jax.enable_x64(True):
        problem = deep_linear_problem(jax.random.key(3), (2, 2, 2), 0)
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), problem.params)
        posterior = slt.localise(problem.loss_fn, params, np.zeros((1000, 0)), 100.0, 1.0)
        batch = slt.full_batch(posterior, np.zeros((1000, 0)))
        order = jnp.array([0.0, 2.0, 0.0, 2.0, 1.0, 1.0, 1.0, 1.0])
        y = jax.random.normal(key, (8,))
        z, volume = down(order, 3, y, posterior, batch)
        again, same, shares = up(order, 3, z, posterior, batch)
        jacobian = jax.jacfwd(lambda y: down(order, 3, y, posterior, batch)[0])(y)
        np.testing.assert_allclose(again, y, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose([same, jnp.linalg.slogdet(jacobian)[1]], [volume, volume], rtol=1e-8)
        assert np.all((shares > -1e-9) & (shares < 1))
        assert 2.0 < float(shares.sum()) < 4.0, "about three directions are squeezed: λ is half their number"


# the contract


@every
def test_init_and_step_keep_structures_and_work_under_jit(guide, key):
    for restriction in (slt.restriction.full(), slt.restriction.paths(ORIGIN, "w")):
        posterior = quadratic_posterior(restriction=restriction)
        sampler = samplers.variational(guide, steps=2, samples=2)
        state = jax.eval_shape(sampler.init, key, posterior, BASELINE)
        new, info = jax.eval_shape(sampler.step, key, state, posterior, slt.full_batch(posterior, BASELINE))
        assert jax.tree.structure(new) == jax.tree.structure(state)
        assert [(x.shape, x.dtype) for x in jax.tree.leaves(new)] == [
            (x.shape, x.dtype) for x in jax.tree.leaves(state)
        ]
        origin = jax.eval_shape(restriction.origin, ORIGIN)
        assert jax.tree.structure(state.position) == jax.tree.structure(origin)
        assert info.virials.shape == (len(jax.tree.leaves(origin)),)


def test_a_step_reports_where_it_started_and_draws_afresh(key):
    posterior = quadratic_posterior()
    sampler = samplers.variational(guides.mean_field(), steps=20)
    trace = slt.sample(key, sampler, posterior, BASELINE, draws=500, chains=2)
    state = jax.tree.map(lambda leaf: leaf[0], trace.state)
    assert float(slt.tree.norm_squared(state.position)) > 0, "a position is a draw"
    step = jax.jit(sampler.step)
    new, info = step(jax.random.key(1), state, posterior, slt.full_batch(posterior, BASELINE))
    assert float(info.distance_squared) == pytest.approx(float(slt.tree.norm_squared(state.position)), rel=1e-6)
    again, _ = step(jax.random.key(1), new, posterior, slt.full_batch(posterior, BASELINE))
    assert_same(again.position, new.position, rtol=1e-4)
    assert float(slt.diagnostics.ess(trace.excess)) > 500, "of a thousand independent draws"


def test_llc_runs_on_it_and_is_right(key):
    sampler = samplers.variational(guides.full_rank(), steps=300)
    estimate = slt.llc(
        key, correlated, jnp.asarray(OFF, jnp.float32), NO_DATA, nbeta=NBETA, gamma=GAMMA, sampler=sampler, draws=1000
    )
    exact = 0.5 * NBETA * np.trace(HESSIAN @ np.linalg.inv(PRECISION))
    assert bool(estimate.health.ok), estimate.explain()
    assert deviation(estimate.value, estimate.std_error, exact) < 4


def test_temperatures_can_be_vmapped_and_steps_compile_nothing(key):
    sampler = samplers.variational(guides.mean_field(), steps=50, samples=4)

    def run(nbeta, sampler):
        posterior = correlated_posterior()._replace(nbeta=nbeta)
        return slt.sample(key, sampler, posterior, NO_DATA, draws=3, chains=2).excess

    nbetas = jnp.array([10.0, 1000.0])
    both = jax.vmap(lambda nbeta: run(nbeta, sampler))(nbetas)
    np.testing.assert_allclose(both, jnp.stack([run(nbeta, sampler) for nbeta in nbetas]), rtol=2e-2, atol=1e-5)
    others = [samplers.variational(guides.mean_field(), steps=steps, samples=4) for steps in (60, 70)]
    run(nbetas[0], others[0])
    with compilations() as seen:
        run(nbetas[0], others[1])
    assert seen == []


def test_single_precision_stays_single_where_wide_numbers_are_around(key):
    with jax.enable_x64(True):
        wide = np.asarray(BASELINE, np.float64)
        center = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), ORIGIN)
        posterior = slt.localise(lambda w, x: sum(jnp.sum(v**2) for v in w.values()) + x, center, wide, 100.0, 1.0)
        sampler = samplers.variational(guides.full_rank(), steps=3, samples=2)
        trace = slt.sample(key, sampler, posterior, wide, draws=2, chains=2)
        assert {leaf.dtype for leaf in jax.tree.leaves(trace.state.position)} == {np.dtype("float32")}
        assert {leaf.dtype for leaf in jax.tree.leaves(trace.state.fit.free)} == {np.dtype("float64")}


def test_what_is_not_finite_is_skipped_and_counted(key):
    def broken(w, _):
        return jnp.where(w[0] > 0.05, jnp.nan, 0.5 * jnp.sum(w**2))

    posterior = slt.localise(broken, jnp.zeros(2), NO_DATA, 100.0, 1.0)
    fit = samplers.variational(guides.mean_field(), steps=50).init(key, posterior, NO_DATA).fit
    assert float(fit.skipped) > 0.5
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(fit.free))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: samplers.variational("mean_field"), "guide: got a str"),
        (lambda: samplers.variational(guides.mean_field(), steps=0), "steps: got 0"),
        (lambda: samplers.variational(guides.mean_field(), samples=0.5), "samples: got 0.5"),
        (lambda: guides.low_rank(0), "rank: got 0"),
        (lambda: guides.inverse_autoregressive(True), "flows: got True"),
        (lambda: guides.singular(blocks=0), "blocks: got 0"),
        (lambda: guides.singular(couplings=-1), "couplings: got -1"),
    ],
)
def test_bad_input_is_refused_with_its_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_prior_that_is_not_normalised_is_refused(key):
    posterior = correlated_posterior()
    sampler = samplers.variational(guides.mean_field(), steps=2, samples=2)
    fit = sampler.init(key, posterior, NO_DATA).fit
    flat = posterior._replace(gamma=jnp.float32(0.0))
    with pytest.raises(ValueError, match="gamma: got 0"):
        sampler.init(key, flat, NO_DATA)
    with pytest.raises(ValueError, match="gamma: got 0"):
        samplers.free_energy_bound(key, fit, flat, NO_DATA)
    with pytest.raises(ValueError, match="no generalised-gamma base"):
        samplers.base_reading(key, fit, posterior, NO_DATA)


def test_the_potential_is_normalised_by_the_prior():
    posterior = correlated_posterior()
    batch = slt.full_batch(posterior, NO_DATA)
    assert float(potential(jnp.zeros(3), posterior, batch)) == pytest.approx(-1.5 * np.log(GAMMA / (2 * np.pi)))
    assert Static((1,)) == Static((1,)), "two samplers made alike are one program"
