"""Every sampler keeps one contract: a row in the table is all that a new one needs."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import (
    BASELINE,
    CENTRED,
    GAMMA,
    NBETA,
    ORIGIN,
    assert_same,
    deviation,
    exact_llc,
    force_constants,
    quadratic,
    quadratic_posterior,
    regression,
    variance_deviation,
)

import slt_jax as slt
from slt_jax import diagnostics, samplers, tree


def exact(step_size, a):
    """The stationary variance of a mode of force constant ``a`` is ``1/a``."""
    del step_size
    return np.ones_like(a)


def euler(step_size, a):
    """Euler noise inflates it to ``1 / (a (1 - ε a / 4))``."""
    return 1 / (1 - step_size * a / 4)


class Row(NamedTuple):
    """A sampler as its step size alone leaves it open.

    Attributes:
      constructor: Its name in ``slt_jax.samplers``.
      make: Step size to sampler.
      step_size: A step for the anisotropic quadratic, half-way to where its law is lost.
      inflation: Variance of a mode over the exact one, as a function of the step size and the force constant.
      slack: Relative bias that the docstring admits beyond that.
    """

    constructor: str
    make: Callable[..., samplers.Sampler]
    step_size: float
    inflation: Callable = exact
    slack: float = 0.0


ROWS = {
    "sgld": Row("sgld", samplers.sgld, 1e-3),
    "sgld, Euler noise": Row("sgld", lambda step: samplers.sgld(step, averaged_noise=False), 1e-3, euler),
    "rmsprop_sgld": Row("rmsprop_sgld", samplers.rmsprop_sgld, 2e-4, slack=0.15),
    "underdamped": Row("underdamped", samplers.underdamped, 0.03),
    "sgnht": Row("sgnht", samplers.sgnht, 0.015),
    "mala": Row("mala", samplers.mala, 1e-3),
    "hmc": Row("hmc", samplers.hmc, 0.025),
    "mclmc": Row("mclmc", samplers.mclmc, 0.01),
}
each = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
SCHEDULE = {"draws": 10_000, "chains": 8, "burnin": 1000}


def finite(info):
    return all(bool(jnp.isfinite(leaf).all()) for leaf in info)


#: The ε of the overdamped dynamics that batches heat as much, where it is known.
HEATED = {
    "sgld": lambda step: step,
    "sgld, Euler noise": lambda step: step,
    "underdamped": lambda step: step**2 / np.tanh(0.05),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_sampler_says_what_batches_heat_or_that_it_does_not_know(name):
    found = ROWS[name].make(0.02).overdamped
    assert np.isnan(found) if name not in HEATED else found == pytest.approx(HEATED[name](0.02), rel=1e-6)
    traced = jax.jit(lambda step: ROWS[name].make(step).overdamped)(0.02)
    np.testing.assert_allclose(traced, found, rtol=1e-6)
    whole = ROWS[name].make(0.02)
    by_hand = samplers.Sampler(whole.init, whole.step)
    assert np.isnan(by_hand.overdamped), "what is not said is not known"
    assert len(jax.tree.leaves(whole)) == len(jax.tree.leaves((whole.init, whole.step))) + 1


#: ``variational`` has no step size and no start at the centre: its contract is tests/test_variational.py.
ELSEWHERE = {"Info", "Sampler", "base_reading", "free_energy_bound", "guides", "variational"}


def test_every_sampler_has_a_row():
    assert set(samplers.__all__) - ELSEWHERE == {row.constructor for row in ROWS.values()}


@each
def test_init_starts_at_the_centre_in_the_structure_of_z(row, key):
    for restriction in (slt.restriction.full(), slt.restriction.paths(ORIGIN, "b")):
        posterior = quadratic_posterior(restriction=restriction)
        position = row.make(1e-4).init(key, posterior, BASELINE).position
        assert_same(position, restriction.origin(ORIGIN))


@each
def test_a_step_keeps_structure_shapes_and_dtypes_of_its_state(row, key):
    posterior = quadratic_posterior()
    sampler = row.make(1e-4)
    state = sampler.init(key, posterior, BASELINE)
    new, info = jax.eval_shape(sampler.step, key, state, posterior, slt.full_batch(posterior, BASELINE))
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(new)] == [(x.shape, x.dtype) for x in jax.tree.leaves(state)]
    assert isinstance(info, samplers.Info)
    assert all(leaf.shape == () for leaf in info._replace(virials=info.virial))
    assert info.virials.shape == (2,), "one for each leaf"


@each
def test_single_precision_stays_single_where_wide_numbers_are_around(row, key):
    with jax.enable_x64(True):
        wide = np.asarray(BASELINE, np.float64)
        posterior = slt.localise(quadratic, ORIGIN, wide, np.float64(NBETA), np.float64(GAMMA))
        sampler = row.make(jnp.float64(1e-4))
        state = sampler.init(key, posterior, wide)
        state, info = jax.jit(sampler.step)(key, state, posterior, slt.full_batch(posterior, wide))
        assert {leaf.dtype for leaf in jax.tree.leaves(state.position)} == {np.dtype("float32")}
        assert info.excess.dtype == np.dtype("float64")
        trace = slt.sample(key, sampler, posterior, wide, draws=2, chains=2)
        assert {leaf.dtype for leaf in jax.tree.leaves(trace.state.position)} == {np.dtype("float32")}


@each
def test_info_describes_the_position_the_step_started_from(row, key):
    posterior = quadratic_posterior()
    batch = slt.full_batch(posterior, BASELINE)
    sampler = row.make(row.step_size)
    state = sampler.init(key, posterior, BASELINE)
    step = jax.jit(sampler.step)
    state, first = step(key, state, posterior, batch)
    assert float(first.excess) == float(first.virial) == float(first.distance_squared) == 0.0
    assert float(first.loss) == pytest.approx(float(BASELINE.mean()), rel=1e-6)
    assert finite(first)
    position = state.position
    _, second = step(jax.random.key(9), state, posterior, batch)
    energy = float(jnp.mean(quadratic(position, BASELINE) - BASELINE))
    assert float(second.excess) == pytest.approx(energy, rel=1e-3)
    assert float(second.distance_squared) == pytest.approx(float(tree.norm_squared(position)), rel=1e-6)
    virial = (2 * NBETA * energy + GAMMA * float(tree.norm_squared(position))) / 6
    assert float(second.virial) == pytest.approx(virial, rel=1e-3)
    assert finite(second)
    assert 0.0 <= float(second.acceptance) <= 1.0


@each
def test_plain_examples_are_as_good_as_a_paired_batch(row, key):
    posterior = quadratic_posterior()
    sampler = row.make(row.step_size)
    step = jax.jit(sampler.step)
    state, _ = step(key, sampler.init(key, posterior, BASELINE), posterior, BASELINE[:8])
    plain = step(key, state, posterior, BASELINE[:8])
    paired = step(key, state, posterior, slt.minibatch(posterior, BASELINE, jnp.arange(8)))
    assert_same(plain, paired, rtol=1e-5)


@each
def test_jit_changes_no_number(row, key):
    posterior = quadratic_posterior()
    batch = slt.full_batch(posterior, BASELINE)
    sampler = row.make(row.step_size)
    state, _ = sampler.step(key, sampler.init(key, posterior, BASELINE), posterior, batch)
    compiled = jax.jit(lambda s, k, x, p, b: s.step(k, x, p, b))(sampler, key, state, posterior, batch)
    assert_same(compiled, sampler.step(key, state, posterior, batch), rtol=1e-4)


@each
def test_step_size_zero_never_moves(row, key):
    trace = slt.sample(key, row.make(0.0), quadratic_posterior(), BASELINE, draws=5, chains=2)
    assert_same(trace.state.position, jax.tree.map(lambda leaf: jnp.zeros((2, *leaf.shape)), ORIGIN))
    moved = slt.sample(key, row.make(1e-6), quadratic_posterior(), BASELINE, draws=5, chains=2)
    assert float(tree.norm_squared(moved.state.position)) > 0


@each
def test_step_sizes_can_be_vmapped(row, key):
    posterior = quadratic_posterior()
    run = lambda step: slt.sample(key, row.make(step), posterior, BASELINE, draws=5, chains=2).excess  # noqa: E731
    steps = jnp.array([1e-5, 1e-4])
    np.testing.assert_allclose(jax.vmap(run)(steps), jnp.stack([run(step) for step in steps]), rtol=1e-3, atol=1e-9)


@each
def test_one_compilation_serves_step_sizes_temperatures_and_checkpoints(row, key):
    traces = []

    def counted(params, batch):
        traces.append(1)
        return quadratic(params, batch)

    centers = [jax.tree.map(lambda leaf, s=shift: leaf + s, ORIGIN) for shift in (0.0, 0.5)]
    posteriors = [slt.localise(counted, center, BASELINE, nbeta) for center in centers for nbeta in (10.0, 1000.0)]
    # steps that the forces are felt at: in much smaller ones a sampler with momentum moves by its noise alone
    steps = (0.5 * row.step_size, row.step_size)
    first = slt.sample(key, row.make(steps[0]), posteriors[0], BASELINE, draws=3, chains=2)
    traces.clear()
    others = [
        slt.sample(key, row.make(step), posterior, BASELINE, draws=3, chains=2)
        for posterior in posteriors
        for step in steps
    ]
    assert traces == []
    assert len({float(trace.distance_squared[0, -1]) for trace in others}) == len(others), (
        "eight runs, not one repeated"
    )
    assert_same(others[0], first)
    slt.sample(key, row.make(steps[0]), posteriors[0], BASELINE, draws=4, chains=2)
    assert traces, "the counter does count"


@pytest.fixture(scope="module", params=ROWS, ids=ROWS.keys())
def equilibrium(request):
    """A row and a long run of it on the anisotropic quadratic, with the modes side by side."""
    row = ROWS[request.param]
    posterior = quadratic_posterior()
    trace = slt.sample(
        jax.random.key(5),
        row.make(row.step_size),
        posterior,
        BASELINE,
        observe=lambda w: jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(w)]),
        **SCHEDULE,
    )
    return row, posterior, trace


def test_the_stationary_variance_of_every_mode_is_the_exact_one(equilibrium):
    row, _, trace = equilibrium
    a = force_constants()
    variances = row.inflation(row.step_size, a) / a
    for mode, variance in enumerate(variances):
        squares = trace.observables[:, :, mode] ** 2
        error = float(diagnostics.mcse(squares))
        assert abs(float(squares.mean()) - variance) < 4 * error + row.slack * variance
        assert abs(float(squares.mean()) - 2 * variance) > 4 * error + row.slack * variance, "twice the variance"


def test_the_virial_is_one(equilibrium):
    row, _, trace = equilibrium
    mean, error = diagnostics.virial(trace.virial)
    expected = row.inflation(row.step_size, force_constants()).mean()
    assert abs(float(mean) - expected) < 4 * float(error) + row.slack


def test_the_estimate_is_the_exact_answer_of_the_quadratic(equilibrium):
    row, posterior, trace = equilibrium
    estimate = slt.llc_from(trace, posterior)
    answer = exact_llc(row.inflation(row.step_size, force_constants()))
    assert abs(float(estimate.value) - answer) < 4 * float(estimate.std_error) + row.slack * answer
    wrong = slt.llc_from(trace, posterior._replace(nbeta=1.25 * posterior.nbeta))
    assert abs(float(wrong.value) - answer) > 4 * float(wrong.std_error) + row.slack * answer
    # a law that is admitted to be biased may be flagged for it, an exact one may not
    assert bool(estimate.health.ok) or row.inflation is not exact or row.slack, estimate.health.explain()


# laws of a single sampler


@pytest.fixture(scope="module")
def one_mode():
    """``x²/2`` at nβ = 1000, γ = 10: one mode of force constant 1010, sampled at steps of ``εa`` from .2 to 3.2."""
    posterior = slt.localise(lambda w, x: 0.5 * w**2 + x, jnp.float32(0.0), BASELINE, 1000.0, 10.0)
    fractions = np.array([0.2, 0.8, 2.0, 3.2])

    def run(averaged):
        def go(step):
            return slt.sample(
                jax.random.key(6),
                samplers.sgld(step, averaged_noise=averaged),
                posterior,
                BASELINE,
                draws=5000,
                chains=8,
                burnin=500,
                observe=lambda w: w,
            ).observables

        return jax.vmap(go)(jnp.asarray(fractions / 1010.0, jnp.float32))

    return fractions, {averaged: run(averaged) for averaged in (True, False)}


def test_averaged_noise_has_no_bias_on_a_quadratic_at_any_stable_step(one_mode):
    fractions, draws = one_mode
    for i, _ in enumerate(fractions):
        assert variance_deviation(draws[True][i], 1 / 1010.0) < 4


def test_euler_noise_is_biased_by_exactly_its_formula(one_mode):
    fractions, draws = one_mode
    for i, fraction in enumerate(fractions):
        assert variance_deviation(draws[False][i], 1 / (1010.0 * (1 - fraction / 4))) < 4
        if fraction >= 0.8:
            assert variance_deviation(draws[False][i], 1 / 1010.0) > 4, "the averaged sampler's law is not Euler's"


def test_both_kinds_of_noise_diverge_beyond_the_bound_of_stability(key):
    posterior = slt.localise(lambda w, x: 0.5 * w**2 + x, jnp.float32(0.0), BASELINE, 1000.0, 10.0)
    for averaged in (True, False):
        sampler = samplers.sgld(4.5 / 1010.0, averaged_noise=averaged)
        trace = slt.sample(key, sampler, posterior, BASELINE, draws=1000, chains=2)
        assert not np.any(np.isfinite(trace.excess[:, -1]))


def test_averaged_noise_has_no_first_order_bias_on_a_quartic():
    """Halving the step halves the bias of Euler noise and leaves none to be seen with averaged noise."""
    posterior = slt.localise(lambda w, x: 0.25 * w**4 + x, jnp.float32(0.0), BASELINE, 100.0, 1.0)
    grid = np.linspace(-3, 3, 20001)
    weight = np.exp(-25.0 * grid**4 - 0.5 * grid**2)
    second = float(np.sum(weight * grid**2) / np.sum(weight))
    steps = jnp.array([0.014, 0.028])

    def bias(averaged):
        def go(step):
            return slt.sample(
                jax.random.key(8),
                samplers.sgld(step, averaged_noise=averaged),
                posterior,
                BASELINE,
                draws=1500,
                chains=2048,
                burnin=200,
                observe=lambda w: w**2,
            ).observables

        squares = jax.vmap(go)(steps)
        errors = jax.vmap(diagnostics.mcse)(squares)
        return np.asarray(squares.mean(axis=(1, 2))) - second, np.asarray(errors)

    averaged, averaged_error = bias(True)
    euler_bias, euler_error = bias(False)
    assert np.all(np.abs(euler_bias) > 5 * euler_error)
    ratio = euler_bias[1] / euler_bias[0]
    ratio_error = abs(ratio) * np.hypot(*(euler_error / euler_bias))
    assert abs(ratio - 2) < 4 * ratio_error + 0.25, "first order, to within the next one"
    assert np.abs(averaged[0]) < 4 * averaged_error[0] + 0.1 * abs(euler_bias[0])
    assert np.abs(averaged[1]) < 0.35 * abs(euler_bias[1])


@pytest.mark.parametrize("averaged", [True, False])
def test_minibatches_heat_a_mode_by_exactly_their_formula(averaged):
    """``ε (nβ)² σ² / (4 a (1 - ε a/4))`` on top, where σ² is the variance of the batch gradient."""
    nbeta, gamma, size, step = 100.0, 1.0, 4, 8e-3
    posterior = slt.localise(regression, jnp.float32(0.0), CENTRED, nbeta, gamma)
    trace = slt.sample(
        jax.random.key(7),
        samplers.sgld(step, averaged_noise=averaged),
        posterior,
        CENTRED,
        draws=4000,
        chains=16,
        burnin=200,
        batch_size=size,
        observe=lambda w: w,
    )
    a = nbeta + gamma
    heating = step * nbeta**2 / size / (4 * a * (1 - step * a / 4))
    cold = (1 / a) * (1.0 if averaged else 1 / (1 - step * a / 4))
    assert variance_deviation(trace.observables, cold + heating) < 4
    assert variance_deviation(trace.observables, cold) > 4
    expected = 0.5 * nbeta * (cold + heating)
    estimate = slt.llc_from(trace, posterior)
    assert deviation(estimate.value, estimate.std_error, expected) < 4


@pytest.mark.parametrize("friction", [0.1, 1.0, 5.0])
def test_batches_heat_underdamped_as_overdamped_dynamics_at_the_step_it_names(friction):
    """``ε (nβ)² σ² / (4 a (1 - h² a / 4))`` at ``ε = h² coth(f/2)``; at high friction ``2h²/f`` is another number."""
    nbeta, size = 100.0, 4
    posterior = slt.localise(regression, jnp.float32(0.0), CENTRED, nbeta, 1.0)
    step = 0.005 if friction < 1 else 0.06
    sampler = samplers.underdamped(step, friction=friction)
    settings = {"draws": 4000, "chains": 16, "burnin": 500, "batch_size": size}
    trace = slt.sample(jax.random.key(7), sampler, posterior, CENTRED, observe=lambda w: w, **settings)
    a = nbeta + 1.0

    def heated(epsilon):
        return 1 / a + epsilon * nbeta**2 / size / (4 * a * (1 - step**2 * a / 4))

    assert variance_deviation(trace.observables, heated(float(sampler.overdamped))) < 4
    assert variance_deviation(trace.observables, heated(0.0)) > 4
    if friction > 1:
        assert variance_deviation(trace.observables, heated(2 * step**2 / friction)) > 4


def test_rmsprop_moves_stiff_and_soft_modes_at_nearer_rates_than_sgld():
    """What the preconditioner is for: at one step size the soft mode forgets sooner."""
    posterior = slt.localise(lambda w, x: 0.5 * (w[0] ** 2 + 1e-2 * w[1] ** 2) + x, jnp.zeros(2), BASELINE, 1000.0, 0.0)

    def effective(sampler):
        trace = slt.sample(
            jax.random.key(3), sampler, posterior, BASELINE, draws=4000, chains=4, burnin=500, observe=lambda w: w[1]
        )
        return float(diagnostics.ess(trace.observables))

    assert effective(samplers.rmsprop_sgld(1e-3)) > 1.5 * effective(samplers.sgld(1e-3))


def test_rmsprop_has_no_units():
    """Scaling the loss leaves the preconditioner alone: at nβ/s the chain of s·L is the same chain."""
    runs = []
    for scale in (1.0, 64.0):
        posterior = slt.localise(
            lambda w, x, s=scale: s * (0.5 * jnp.sum(jnp.array([1.0, 0.1]) * w**2) + x),
            jnp.zeros(2),
            BASELINE,
            64.0 / scale,
        )
        posterior = posterior._replace(gamma=jnp.float32(0.01))
        trace = slt.sample(jax.random.key(1), samplers.rmsprop_sgld(1e-3), posterior, BASELINE, draws=50, chains=1)
        runs.append(trace.distance_squared)
    np.testing.assert_allclose(*runs, rtol=1e-3)
