"""Laws of single samplers: bias by algebra where there is one, energies, reversibility, limits that coincide."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from laws import BASELINE, CENTRED, assert_same, compilations, deviation, regression, variance_deviation
from scipy.linalg import solve_discrete_lyapunov

import slt_jax as slt
from slt_jax import diagnostics, samplers, tree
from slt_jax.noise import exact_normal, normal
from slt_jax.samplers.base import Trajectory, energy_change, leapfrog

# the order of the bias in the step, without a chain

NBETA, GAMMA = 1000.0, 10.0
FORCE_CONSTANT = NBETA + GAMMA


def stationary_inflation(make, fraction) -> float:
    """The stationary variance of ``w²/2`` times its force constant, by solving ``Σ = A Σ Aᵀ + b bᵀ``.

    ``A`` and ``b`` are read off the sampler's own step, which is affine in its state and its noise.
    """
    with jax.enable_x64(True):
        data = np.asarray(BASELINE, np.float64)
        posterior = slt.localise(lambda w, x: 0.5 * w**2 + x, jnp.zeros((), jnp.float64), data, NBETA, GAMMA)
        batch = slt.full_batch(posterior, data)
        sampler, key = make(jnp.float64(fraction / FORCE_CONSTANT)), jax.random.key(0)
        flat, unravel = ravel_pytree(sampler.init(key, posterior, data))

        def advance(vector):
            return ravel_pytree(sampler.step(key, unravel(vector), posterior, batch)[0])[0]

        matrix, offset = jax.jacfwd(advance)(flat), advance(jnp.zeros_like(flat))
        np.testing.assert_allclose(matrix @ flat + offset, advance(flat), rtol=1e-9, atol=1e-12)
        noise = offset / normal(key, posterior.center)
        covariance = solve_discrete_lyapunov(np.asarray(matrix), np.outer(noise, noise))
    return float(covariance[0, 0]) * FORCE_CONSTANT


def as_values(key, like):
    """``normal`` by another name: ``sgld`` then keeps the numbers, in which its step is affine, and not their bytes."""
    return normal(key, like)


LINEAR = {
    "sgld": partial(samplers.sgld, noise=as_values),
    "underdamped": lambda step: samplers.underdamped(jnp.sqrt(step)),
    "underdamped, friction 0.01": lambda step: samplers.underdamped(jnp.sqrt(step), friction=0.01),
    "underdamped, friction 2": lambda step: samplers.underdamped(jnp.sqrt(step), friction=2.0),
}


@pytest.mark.parametrize("make", LINEAR.values(), ids=LINEAR.keys())
@pytest.mark.parametrize("fraction", [0.01, 1.0, 3.9])
def test_there_is_no_bias_on_a_quadratic_up_to_the_bound_of_stability(make, fraction):
    assert stationary_inflation(make, fraction) == pytest.approx(1.0, abs=1e-8)


def test_a_chain_that_keeps_bytes_is_the_one_that_keeps_numbers():
    posterior = slt.localise(lambda w, x: 0.5 * w**2 + x, jnp.zeros(()), BASELINE, NBETA, GAMMA)
    step = 1.0 / FORCE_CONSTANT
    traces = [
        slt.sample(jax.random.key(0), samplers.sgld(step, noise=noise), posterior, BASELINE, draws=200)
        for noise in (normal, as_values)
    ]
    assert [trace.state.noise.dtype for trace in traces] == [jnp.uint8, jnp.float32]
    np.testing.assert_allclose(traces[0].excess, traces[1].excess, rtol=1e-4, atol=1e-9)
    # the control: Euler noise is another chain
    other = slt.sample(jax.random.key(0), samplers.sgld(step, averaged_noise=False), posterior, BASELINE, draws=200)
    assert not np.allclose(other.excess, traces[0].excess, rtol=1e-2)


def test_euler_noise_is_biased_in_first_order():
    make = partial(samplers.sgld, averaged_noise=False)
    small, large = (stationary_inflation(make, fraction) - 1 for fraction in (0.001, 0.002))
    assert large / small == pytest.approx(2.0, abs=1e-3)
    assert stationary_inflation(make, 2.0) == pytest.approx(1 / (1 - 2.0 / 4), rel=1e-8)


@pytest.fixture(scope="module")
def microcanonical():
    """Potential energy per dimension of mclmc on an isotropic quadratic in 4 dimensions, at two steps."""
    posterior = slt.localise(lambda w, x: 0.5 * jnp.sum(w**2) + x, jnp.zeros(4), BASELINE, 100.0, 0.0)
    settings = {"draws": 200, "chains": 2048, "burnin": 200}

    def run(step):
        return 50.0 * slt.sample(jax.random.key(4), samplers.mclmc(step), posterior, BASELINE, **settings).excess

    return [(float(v.mean()) - 1, float(diagnostics.mcse(v))) for v in jax.vmap(run)(jnp.array([0.05, 0.1]))]


def test_mclmc_is_biased_in_second_order(microcanonical):
    (small, small_error), (large, large_error) = microcanonical
    assert small > 4 * small_error
    ratio = large / small
    error = ratio * np.hypot(small_error / small, large_error / large)
    assert abs(ratio - 4) < 4 * error + 1, "second order, to within the next one"
    assert abs(ratio - 2) > 4 * error, "not first order"


# what a step costs

#: Gradients of a step on all of the data and on a part of them.
COSTS = {
    "sgld": (samplers.sgld(1e-3), 1, 1),
    "underdamped": (samplers.underdamped(1e-2), 1, 1),
    "sgnht": (samplers.sgnht(1e-2), 1, 1),
    "mclmc": (samplers.mclmc(1e-2), 1, 1),
    "mala": (samplers.mala(1e-3), 1, 2),
    "hmc": (samplers.hmc(1e-2, leapfrogs=7), 7, 8),
}


@pytest.mark.parametrize(("sampler", "whole", "part"), COSTS.values(), ids=COSTS.keys())
def test_a_step_looks_at_the_loss_as_often_as_its_docstring_says(sampler, whole, part, key):
    looks = []

    def counted(params, batch):
        jax.debug.callback(lambda: looks.append(1))
        return skewed(params, batch)

    posterior = slt.localise(counted, jnp.zeros(4), BASELINE, 8.0, 0.5)
    step = jax.jit(sampler.step)
    state = sampler.init(key, posterior, BASELINE)
    for batch, expected in (
        (slt.full_batch(posterior, BASELINE), whole),
        (slt.minibatch(posterior, BASELINE, jnp.arange(8)), part),
    ):
        state, _ = jax.block_until_ready(step(key, state, posterior, batch))
        jax.effects_barrier()
        looks.clear()
        state, _ = jax.block_until_ready(step(key, state, posterior, batch))
        jax.effects_barrier()
        assert len(looks) == expected


# a skewed target

SHAPES = np.array([1.0, -1.0, 1.5, 0.5])


def skewed(params, batch):
    """``Σ (e^{sw} - sw - 1) / s²``: curvature 1 at its minimum, steep on one side and linear on the other."""
    turned = SHAPES.astype(np.float32) * params
    return jnp.sum((jnp.expm1(turned) - turned) / SHAPES.astype(np.float32) ** 2) + batch


def skewed_moments():
    """Means and second moments of its posterior at nβ = 8, γ = 1/2, by quadrature."""
    grid, shapes = np.linspace(-6, 6, 60001), SHAPES[:, None]
    potential = 8 * (np.expm1(shapes * grid) - shapes * grid) / shapes**2 + 0.25 * grid**2
    weight = np.exp(-potential) / np.exp(-potential).sum(axis=1, keepdims=True)
    return (weight * grid).sum(axis=1), (weight * grid**2).sum(axis=1)


SKEWED = {
    "sgld": (samplers.sgld(0.05), 0.0),
    # the slack is what the order of the bias gives, 1 / (1 - ε a / 4) with a = 8.5, and what the docstring admits
    "sgld, Euler noise": (samplers.sgld(0.02, averaged_noise=False), 0.05),
    "rmsprop_sgld": (samplers.rmsprop_sgld(0.02), 0.05),
    "underdamped": (samplers.underdamped(0.15), 0.0),
    "sgnht": (samplers.sgnht(0.15), 0.0),
    "mala": (samplers.mala(0.15), 0.0),
    "hmc": (samplers.hmc(0.25, leapfrogs=5), 0.0),
    "mclmc": (samplers.mclmc(0.1), 0.0),
}


@pytest.mark.parametrize(("sampler", "slack"), SKEWED.values(), ids=SKEWED.keys())
def test_a_skewed_target_has_its_moments(sampler, slack):
    posterior = slt.localise(skewed, jnp.zeros(4), BASELINE[:1], 8.0, 0.5)
    settings = {"draws": 4000, "chains": 8, "burnin": 500, "observe": lambda w: w}
    draws = slt.sample(jax.random.key(4), sampler, posterior, BASELINE[:1], **settings).observables
    mean, second = skewed_moments()
    laplace = np.full(4, 1 / 8.5)
    for i in range(4):
        error = float(diagnostics.mcse(draws[:, :, i]))
        assert abs(float(draws[:, :, i].mean()) - mean[i]) < 4 * error
        squares = draws[:, :, i] ** 2
        assert abs(float(squares.mean()) - second[i]) < 4 * float(diagnostics.mcse(squares)) + slack * second[i]
    steep = draws[:, :, 2]
    assert deviation(steep.mean(), diagnostics.mcse(steep), 0.0) > 4, "the Gaussian of the same curvature has mean 0"
    assert np.all(second > laplace)


# underdamped and sgnht: limits that coincide draw by draw, and what batches do


def test_at_infinite_friction_underdamped_is_sgld_with_averaged_noise(key):
    posterior = slt.localise(skewed, jnp.zeros(4), BASELINE, 100.0, 1.0)
    run = partial(slt.sample, key, posterior=posterior, data=BASELINE, draws=30, chains=2)
    overdamped = run(samplers.sgld(1e-2)).distance_squared
    limit = run(samplers.underdamped(1e-1, friction=jnp.inf)).distance_squared
    np.testing.assert_allclose(limit, overdamped, rtol=1e-3)
    other = run(samplers.underdamped(1e-1, friction=3.0)).distance_squared
    assert np.abs(other / overdamped - 1)[:, 1:].max() > 1e-2


def test_a_thermostat_that_does_not_respond_is_underdamped_with_its_friction(key):
    posterior = slt.localise(skewed, jnp.zeros(4), BASELINE, 100.0, 1.0)
    run = partial(slt.sample, key, posterior=posterior, data=BASELINE, draws=30, chains=2)
    for friction in (0.0, 0.1, 0.5):
        frozen = run(samplers.sgnht(3e-2, diffusion=friction, response=0.0)).distance_squared
        plain = run(samplers.underdamped(3e-2, friction=friction)).distance_squared
        np.testing.assert_allclose(frozen, plain, rtol=1e-3)
        responding = run(samplers.sgnht(3e-2, diffusion=friction)).distance_squared
        assert np.abs(responding / plain - 1)[:, 1:].max() > 1e-2


def test_diffusion_is_read_and_sets_the_friction_that_the_thermostat_settles_at(key):
    posterior = slt.localise(skewed, jnp.zeros(4), BASELINE[:1], 100.0, 1.0)

    def settled(diffusion):
        sampler = samplers.sgnht(2e-2, diffusion=diffusion, response=0.01)
        return slt.sample(key, sampler, posterior, BASELINE[:1], draws=300, chains=2048).state.friction

    for friction, diffusion in zip(jax.vmap(settled)(jnp.array([0.1, 0.4])), (0.1, 0.4), strict=True):
        error = float(friction.std()) / np.sqrt(friction.size)
        assert abs(float(friction.mean()) - diffusion) < 4 * error
        assert float(friction.var()) == pytest.approx(0.01 / 4, rel=4 * np.sqrt(2 / friction.size))
        assert abs(float(friction.mean()) - 0.25) > 4 * error


def test_the_thermostat_repairs_what_batches_heat():
    """With the same noise in all directions: underdamped is too hot by ``(h nβ σ)² / (2f)``, sgnht is not."""
    posterior = slt.localise(regression, jnp.float32(0.0), CENTRED, 100.0, 1.0)
    step, friction, size = 5e-3, 0.1, 4
    settings = {"draws": 8000, "chains": 16, "burnin": 500, "batch_size": size, "observe": lambda w: w}

    def draws(sampler):
        return slt.sample(jax.random.key(7), sampler, posterior, CENTRED, **settings).observables

    hot, repaired = draws(samplers.underdamped(step, friction=friction)), draws(samplers.sgnht(step))
    heated = 1 + (step * 100.0) ** 2 / size / (2 * friction)
    assert variance_deviation(hot, heated / 101.0) < 4
    assert variance_deviation(hot, 1 / 101.0) > 4
    assert variance_deviation(repaired, 1 / 101.0) < 4
    assert variance_deviation(repaired, heated / 101.0) > 4


# the Metropolis test


def start(posterior, data, position, key):
    """A trajectory of no steps: a position and a momentum at which the loss was not looked at."""
    batch = slt.full_batch(posterior, data)
    momentum = exact_normal(key, position)
    blank = tree.zeros_like(jax.eval_shape(slt.posterior.evaluate, posterior, position, batch))
    return Trajectory(position, momentum, blank, blank), batch


@pytest.fixture
def skewed_path():
    """A start in double precision on the skewed target, and the function that runs leapfrogs from any path."""
    with jax.enable_x64(True):
        data = np.zeros(1)
        posterior = slt.localise(skewed, jnp.zeros(4), data, 8.0, 0.5)
        path, batch = start(posterior, data, jnp.array([0.3, -0.2, 0.1, 0.5]), jax.random.key(1))

        def run(step, count, path=path):
            return leapfrog(step, count, path, jnp.asarray(False), posterior, batch)

        yield posterior, path, run


def test_the_leapfrog_runs_backwards(skewed_path):
    _, path, run = skewed_path
    end = run(0.1, 20)
    assert float(jnp.abs(end.position - path.position).max()) > 0.1
    back = run(0.1, 20, end._replace(momentum=-end.momentum))
    np.testing.assert_allclose(back.position, path.position, rtol=1e-10)
    np.testing.assert_allclose(-back.momentum, path.momentum, rtol=1e-10)
    onwards = run(0.1, 20, end)
    assert float(jnp.abs(onwards.position - path.position).max()) > 0.1


def test_the_error_of_energy_over_a_fixed_time_is_of_second_order(skewed_path):
    posterior, path, run = skewed_path
    errors = []
    for count in (20, 40, 80):
        end = run(0.8 / count, count)
        errors.append(float(energy_change(posterior, path._replace(start=end.start), end)))
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    np.testing.assert_allclose(ratios, 4.0, rtol=0.02)


def test_the_mean_of_the_exponential_of_the_energy_error_is_one():
    """Volume and time reversal are kept: ``E[e^{-ΔH}] = 1`` from the posterior, at a step where much is rejected."""
    curvatures = jnp.array([1.0, 0.3, 0.1])
    posterior = slt.localise(lambda w, x: 0.5 * jnp.sum(curvatures * w**2) + x, jnp.zeros(3), BASELINE[:1], 100.0, 0.0)

    def go(key):
        position = exact_normal(key, curvatures) / jnp.sqrt(100.0 * curvatures)
        path, batch = start(posterior, BASELINE[:1], position, jax.random.fold_in(key, 1))
        end = leapfrog(0.15, 7, path, jnp.asarray(False), posterior, batch)
        change = energy_change(posterior, path._replace(start=end.start), end)
        return jnp.exp(-change), change

    weights, changes = jax.jit(jax.vmap(go))(jax.random.split(jax.random.key(3), 40_000))
    assert deviation(weights.mean(), weights.std() / 200, 1.0) < 4
    assert deviation(jnp.mean(changes), jnp.std(changes) / 200, 0.0) > 4, "the energy itself does rise"
    assert float(jnp.minimum(weights, 1.0).mean()) < 0.9


def isotropic(params, batch):
    """``w²/2`` in as many dimensions as there are: every mode has the force constant nβ."""
    return 0.5 * jnp.sum(params**2) + batch


@jax.jit
def stay(sampler):
    """One step of 40 000 chains that start in the posterior itself: positions afterwards, and acceptances."""
    posterior = slt.localise(isotropic, jnp.zeros(2), BASELINE[:1], 100.0, 0.0)
    batch = slt.full_batch(posterior, BASELINE[:1])

    def go(key):
        init_key, place_key, move_key = jax.random.split(key, 3)
        state = sampler.init(init_key, posterior, BASELINE[:1])
        state = state._replace(position=0.1 * exact_normal(place_key, state.position))
        new, info = sampler.step(move_key, state, posterior, batch)
        return new.position, info.acceptance

    return jax.vmap(go)(jax.random.split(jax.random.key(11), 40_000))


#: At these steps an unadjusted chain has its variance at least doubled: a step of 1.5 and more where 2 is the bound.
LARGE = {"mala": samplers.mala(0.0225), "hmc": samplers.hmc(0.15, leapfrogs=3, jitter=0.0)}


@pytest.mark.parametrize("sampler", LARGE.values(), ids=LARGE.keys())
def test_the_posterior_is_kept_at_a_step_where_much_is_rejected(sampler):
    positions, acceptance = stay(sampler)
    assert 0.2 < float(acceptance.mean()) < 0.9
    squares = 100.0 * positions.ravel() ** 2
    assert deviation(squares.mean(), squares.std() / np.sqrt(squares.size), 1.0) < 4
    fourth = 1e4 * positions.ravel() ** 4
    assert deviation(fourth.mean(), fourth.std() / np.sqrt(fourth.size), 3.0) < 4
    unadjusted, _ = stay(samplers.sgld(0.0225, averaged_noise=False))
    squares = 100.0 * unadjusted.ravel() ** 2
    assert deviation(squares.mean(), squares.std() / np.sqrt(squares.size), 1.0) > 4, "without the test it is not"


def test_acceptance_goes_to_one_with_the_step():
    """One leapfrog: as the cube of its length. A trajectory of fixed time: as its square."""

    def shortfalls(make):
        return np.array([float(1 - stay(make(scale))[1].mean()) for scale in (1.0, 0.5)])

    single = shortfalls(lambda scale: samplers.mala(0.008 * scale**2))
    assert single[0] / single[1] == pytest.approx(8, rel=0.15)
    fixed = shortfalls(lambda scale: samplers.hmc(0.08 * scale, leapfrogs=round(3 / scale), jitter=0.0))
    assert fixed[0] / fixed[1] == pytest.approx(4, rel=0.15)
    assert np.all(single > 0)
    assert np.all(fixed > 0)


def test_mala_is_hmc_of_one_leapfrog(key):
    posterior = slt.localise(skewed, jnp.zeros(4), BASELINE, 100.0, 1.0)
    batch = slt.full_batch(posterior, BASELINE)
    langevin, hamiltonian = samplers.mala(1e-2), samplers.hmc(1e-1, leapfrogs=1, jitter=0.0)
    state = langevin.init(key, posterior, BASELINE)
    # hmc takes a key for its jitter first
    left = langevin.step(jax.random.split(key)[1], state, posterior, batch)
    assert_same(left, hamiltonian.step(key, state, posterior, batch), rtol=1e-6)


def test_a_trajectory_that_diverges_is_rejected(key):
    posterior = slt.localise(skewed, jnp.zeros(4), BASELINE, 100.0, 1.0)
    trace = slt.sample(key, samplers.hmc(5.0), posterior, BASELINE, draws=20, chains=2)
    assert np.all(np.isfinite(trace.excess))
    assert np.all(np.asarray(trace.acceptance) == 0.0)
    assert np.all(np.asarray(trace.distance_squared) == 0.0)


def test_on_batches_the_start_is_looked_at_again_and_on_all_of_the_data_it_is_not(key):
    posterior = slt.localise(regression, jnp.float32(0.0), CENTRED, 100.0, 1.0)
    sampler = samplers.mala(1e-3)
    whole, part = slt.full_batch(posterior, CENTRED), slt.minibatch(posterior, CENTRED, jnp.arange(100, 132))
    fresh = sampler.init(key, posterior, CENTRED)
    after_whole, _ = sampler.step(key, fresh, posterior, whole)
    after_part, _ = sampler.step(key, fresh, posterior, part)
    assert bool(after_whole.known)
    assert not bool(after_part.known)

    def poisoned(state):
        return state._replace(evaluation=jax.tree.map(lambda leaf: leaf + 7.0, state.evaluation))

    for state, batch, trusted in ((after_whole, whole, True), (after_whole, part, False), (after_part, whole, False)):
        read = float(sampler.step(key, poisoned(state), posterior, batch)[1].excess)
        true = float(sampler.step(key, state, posterior, batch)[1].excess)
        assert read == pytest.approx(true + (7.0 if trusted else 0.0), abs=1e-6)


def test_the_number_of_leapfrogs_and_the_jitter_compile_nothing(key):
    posterior = slt.localise(skewed, jnp.zeros(4), BASELINE, 100.0, 1.0)
    run = partial(slt.sample, key, posterior=posterior, data=BASELINE, draws=3, chains=2)
    first = run(samplers.hmc(1e-2, leapfrogs=5))
    with compilations() as seen:
        others = [run(samplers.hmc(1e-2, leapfrogs=count, jitter=jitter)) for count in (5, 9) for jitter in (0.2, 0.4)]
        jax.block_until_ready(others)
    assert seen == []
    assert_same(others[0], first)
    assert len({float(trace.distance_squared[0, -1]) for trace in others}) == 4


def test_an_error_of_energy_survives_single_precision_in_a_million_dimensions():
    """``ΔH`` out of float32 arrays, against the same difference in float64; the difference of two energies does not."""
    size, data = 1_000_000, jnp.zeros((1, 0))
    posterior = slt.localise(lambda w, _: 0.5 * jnp.mean(w**2), jnp.zeros(size), data, 0.01 * size, 0.99)
    path, batch = start(posterior, data, exact_normal(jax.random.key(2), posterior.center), jax.random.key(5))

    def energy(path, number):
        """``nβ L + γ/2 |z|² + |p|²/2``, which here is ``(|z|² + |p|²) / 2``."""
        return 0.5 * sum(np.sum(np.asarray(x, number) ** 2, dtype=number) for x in (path.position, path.momentum))

    naive = []
    for count in (5, 10, 15):
        end = jax.jit(leapfrog)(0.1, count, path, jnp.asarray(False), posterior, batch)
        measured = float(energy_change(posterior, path._replace(start=end.start), end))
        exact = energy(end, np.float64) - energy(path, np.float64)
        assert abs(exact) > 0.1
        assert measured == pytest.approx(exact, abs=0.01)
        naive.append(abs(energy(end, np.float32) - energy(path, np.float32) - exact))
    assert max(naive) > 0.03


def test_momenta_that_face_a_test_have_the_tails_of_a_normal_law(key):
    zeros = jnp.zeros(1_000_000)
    assert float(jnp.abs(exact_normal(key, zeros)).max()) > 4.5
    assert float(jnp.abs(normal(key, zeros)).max()) < 4.5
    assert len(np.unique(exact_normal(key, zeros))) > 100_000


# mclmc


def test_mclmc_keeps_its_speed_and_forgets_its_direction_at_the_rate_asked_for(key):
    posterior = slt.localise(lambda w, x: 0 * jnp.sum(w) + x, jnp.zeros(100), BASELINE[:1], 1.0, 0.0)
    sampler = samplers.mclmc(0.1, decoherence=5.0)
    batch = slt.full_batch(posterior, BASELINE[:1])

    def advance(state, key):
        new, _ = sampler.step(key, state, posterior, batch)
        return new, new.direction

    _, directions = jax.lax.scan(advance, sampler.init(key, posterior, BASELINE[:1]), jax.random.split(key, 4000))
    np.testing.assert_allclose(jnp.sum(directions**2, axis=1), 1.0, atol=1e-5)
    kept = jnp.sum(directions[5:] * directions[:-5], axis=1)
    error = float(diagnostics.mcse(kept[None]))
    assert abs(float(kept.mean()) - np.exp(-1)) < 4 * error + 0.01, "to within the next order in 1/d"
    assert abs(float(kept.mean()) - np.exp(-0.5)) > 4 * error + 0.01


def test_mclmc_refuses_one_dimension(key):
    posterior = slt.localise(regression, jnp.float32(0.0), CENTRED, 100.0, 1.0)
    with pytest.raises(ValueError, match="1 free parameter"):
        samplers.mclmc(0.1).init(key, posterior, CENTRED)


# blackjax as the oracle: the same paths from the same start


@pytest.fixture(scope="module")
def integrators():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import blackjax.mcmc.integrators as module
    return module


def potential(w):
    """Minus the log density of the skewed posterior at nβ = 8, γ = 1/2, written once more."""
    return 8.0 * skewed(w, 0.0) + 0.25 * jnp.sum(w**2)


def test_the_leapfrog_takes_the_path_of_blackjax(integrators, skewed_path):
    from blackjax.mcmc.metrics import default_metric

    _, path, run = skewed_path
    kinetic = default_metric(jnp.ones(4)).kinetic_energy
    advance = integrators.velocity_verlet(lambda w: -potential(w), kinetic)
    state = integrators.new_integrator_state(lambda w: -potential(w), path.position, path.momentum)
    for _ in range(6):
        state = advance(state, 0.1)
    end = run(0.1, 6)
    np.testing.assert_allclose(end.position, state.position, rtol=1e-6)
    np.testing.assert_allclose(end.momentum, state.momentum, rtol=1e-6)
    assert np.abs(run(0.1, 5).position - state.position).max() > 1e-2


def test_mclmc_without_noise_takes_the_path_of_blackjax(integrators, key):
    """From the centre, where the half turn that ours has already made is none."""
    posterior = slt.localise(skewed, jnp.zeros(4), BASELINE[:1], 8.0, 0.5)
    batch = slt.full_batch(posterior, BASELINE[:1])
    sampler = samplers.mclmc(0.1, decoherence=jnp.inf)
    ours = sampler.init(key, posterior, BASELINE[:1])
    theirs = integrators.new_integrator_state(lambda w: -potential(w), ours.position, ours.direction)
    advance = integrators.isokinetic_velocity_verlet(lambda w: -potential(w))
    for _ in range(8):
        ours, _ = sampler.step(key, ours, posterior, batch)
        theirs, _ = advance(theirs, 0.1 * 2)
        np.testing.assert_allclose(ours.position, theirs.position, rtol=1e-3, atol=1e-5)
    other, _ = samplers.mclmc(0.1, decoherence=20.0).step(key, ours, posterior, batch)
    assert np.abs(other.position - advance(theirs, 0.1 * 2)[0].position).max() > 1e-3
