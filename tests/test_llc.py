"""The local learning coefficient: one answer whichever way it is called, exact where it is known, honest where not."""

import math

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
    compilations,
    deviation,
    exact_llc,
    quadratic,
    quadratic_posterior,
    regression,
)

import slt_jax as slt
from slt_jax.estimators import health as verdicts

SHORT = {"chains": 2, "draws": 100, "burnin": 20}
SETTINGS = {"nbeta": NBETA, "gamma": GAMMA, **SHORT}
SAMPLER = slt.samplers.sgld(1e-3)
READ = jax.jit(slt.llc_from)


def same_estimate(left, right):
    """Equal up to rounding that sixty steps of a chain amplify; counts of draws exactly."""
    for name in ("value", "std_error", "per_chain"):
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), rtol=1e-3)
    np.testing.assert_allclose(left.health.rhat, right.health.rhat, rtol=1e-3)
    assert float(left.health.diverged) == float(right.health.diverged)


# one answer


@pytest.fixture(scope="module")
def called():
    return slt.llc(jax.random.key(0), quadratic, ORIGIN, BASELINE, sampler=SAMPLER, **SETTINGS)


def test_the_pieces_give_the_numbers_of_the_call(called):
    posterior = quadratic_posterior()
    trace = slt.sample(jax.random.key(0), SAMPLER, posterior, BASELINE, **SHORT)
    same_estimate(slt.llc_from(trace, posterior), called)


def test_an_outer_jit_gives_the_numbers_of_the_call(called):
    inside = jax.jit(lambda key, w, x: slt.llc(key, quadratic, w, x, sampler=SAMPLER, **SETTINGS))
    same_estimate(inside(jax.random.key(0), ORIGIN, BASELINE), called)


def test_a_vmap_over_centres_gives_the_numbers_of_the_calls(called):
    shifted = jax.tree.map(lambda leaf: leaf + 0.1, ORIGIN)
    centers = jax.tree.map(lambda *leaves: jnp.stack(leaves), ORIGIN, shifted)
    go = lambda w: slt.llc(jax.random.key(0), quadratic, w, BASELINE, sampler=SAMPLER, **SETTINGS)  # noqa: E731
    both = jax.vmap(go)(centers)
    assert both.health.ok.shape == both.value.shape == (2,)
    same_estimate(jax.tree.map(lambda leaf: leaf[0], both), called)
    same_estimate(jax.tree.map(lambda leaf: leaf[1], both), go(shifted))
    with pytest.raises(ValueError, match=r"explain: got a health of shape \(2,\); index one"):
        both.health.explain()


def test_the_call_with_nothing_to_tune_gives_the_same_numbers_inside_jit_and_vmap():
    go = lambda w: slt.llc(jax.random.key(0), quadratic, w, BASELINE, **SETTINGS)  # noqa: E731
    outside = go(ORIGIN)
    # inside, the first block is all, whatever may be spent
    unlimited = {"budget": 100_000, "relative_error": 0.0}
    inside = jax.jit(lambda w: slt.llc(jax.random.key(0), quadratic, w, BASELINE, **SETTINGS, **unlimited))(ORIGIN)
    same_estimate(inside, outside)
    assert int(inside.settings.blocks) == int(outside.settings.blocks) == 1
    stacked = jax.vmap(go)(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 0.1]), ORIGIN))
    same_estimate(jax.tree.map(lambda leaf: leaf[0], stacked), outside)


def test_a_scan_of_ones_own_gives_the_numbers_of_the_call(called):
    posterior = quadratic_posterior()
    batch = slt.full_batch(posterior, BASELINE)

    def by_hand(chain_key):
        init_key, run_key = jax.random.split(chain_key)
        state = SAMPLER.init(init_key, posterior, BASELINE)
        step = lambda state, time: SAMPLER.step(slt.step_keys(run_key, time)[1], state, posterior, batch)  # noqa: E731
        return jax.lax.scan(step, state, jnp.arange(120))[1].excess[20:]

    excess = jax.vmap(by_hand)(jax.random.split(jax.random.key(0), 2))
    np.testing.assert_allclose(NBETA * excess.mean(), called.value, rtol=1e-4)
    np.testing.assert_allclose(NBETA * excess.mean(axis=1), called.per_chain, rtol=1e-4)
    np.testing.assert_allclose(NBETA * slt.diagnostics.mcse(excess), called.std_error, rtol=1e-3)


@pytest.mark.parametrize("scale", [None, 1e-3])
def test_one_compilation_serves_every_checkpoint_and_temperature(scale):
    def fresh(params, batch):
        return quadratic(params, batch)

    def run(seed, shift, nbeta):
        center = jax.tree.map(lambda leaf: leaf + jnp.float32(shift), ORIGIN)
        sampler = None if scale is None else slt.samplers.sgld(scale * (1 + seed))
        return slt.llc(jax.random.key(seed), fresh, center, BASELINE, nbeta=nbeta, sampler=sampler, **SHORT)

    with compilations() as compiled:
        run(0, 0.0, 100.0)
    assert compiled, "the counter does count"
    with compilations() as compiled:
        values = {float(run(seed, shift, nbeta).value) for seed, shift, nbeta in ((1, 0.1, 100.0), (2, 0.2, 50.0))}
    assert compiled == []
    assert len(values) == 2


# exact answers


@pytest.mark.parametrize("nbeta", [100.0, 10_000.0])
def test_nothing_to_tune_on_a_quadratic(nbeta, key):
    a = nbeta * np.concatenate([h.ravel() for h in (np.array([0.3, 0.1]), np.array([1.0, 0.5, 0.05, 0.01]))])
    for share, green in ((0.001, True), (0.01, False)):
        estimate = slt.llc(key, quadratic, ORIGIN, BASELINE, nbeta=nbeta, gamma=share * nbeta)
        exact = 0.5 * np.sum(a / (a + share * nbeta))
        assert deviation(estimate.value, estimate.std_error, exact) < 4
        if not green:
            on_purpose = slt.llc(
                key, quadratic, ORIGIN, BASELINE, nbeta=nbeta, gamma=share * nbeta, resolution=True, budget=4000
            )
            assert bool(on_purpose.health.ok), on_purpose.explain()
            assert "at the resolution of this gamma" in on_purpose.explain()
        # as strong as the weakest mode, γ holds an eighth of the value down
        assert [name for name, passed in estimate.health.checks.items() if not passed] == ([] if green else ["gamma"])


def test_the_interval_covers_the_exact_answer_at_least_as_often_as_it_should():
    """40 seeds; the same draws at a temperature that is off by a tenth miss it."""
    posterior = quadratic_posterior()
    run = lambda key: slt.sample(key, SAMPLER, posterior, BASELINE, draws=1500, chains=4, burnin=500)  # noqa: E731
    traces = jax.lax.map(run, jax.random.split(jax.random.key(12), 40))

    def coverage(factor):
        read = jax.vmap(lambda trace: slt.llc_from(trace, posterior._replace(nbeta=factor * posterior.nbeta)))
        estimate = read(traces)
        return float(jnp.mean(jnp.abs(estimate.value - exact_llc()) < 1.96 * estimate.std_error))

    assert coverage(1.0) >= 0.85
    assert coverage(1.1) < 0.85


def crossing_energy(nbeta, gamma):
    """``nβ E[x²y²]`` under ``exp(-nβ x²y² - γ/2 (x²+y²))``: y integrated by hand, x on a fine grid."""
    x = np.linspace(0, 12 / np.sqrt(gamma), 400_001)
    precision = gamma + 2 * nbeta * x**2
    weight = np.exp(-0.5 * gamma * x**2) / np.sqrt(precision)
    return float(nbeta * np.sum(weight * x**2 / precision) / np.sum(weight))


def test_normal_crossings_agree_with_quadrature_not_with_the_asymptotic_value():
    nbeta, gamma = 1e3, 10.0
    estimate = slt.llc(
        jax.random.key(1),
        lambda w, x: w[0] ** 2 * w[1] ** 2 + x,
        jnp.zeros(2),
        BASELINE,
        nbeta=nbeta,
        gamma=gamma,
        sampler=slt.samplers.sgld(2e-4),
        chains=64,
        draws=8000,
        burnin=4000,
    )
    exact = crossing_energy(nbeta, gamma)
    assert float(estimate.std_error) < 0.01
    assert deviation(estimate.value, estimate.std_error, exact) < 3
    assert deviation(estimate.value, estimate.std_error, 0.5) > 3
    # and it depends on γ, by a quarter for each factor of e
    assert {name for name, passed in estimate.health.checks.items() if not passed} <= {"gamma"}
    assert float(estimate.health.held) > max(0.2 * float(estimate.value), 10 * float(estimate.health.held_error))


def test_coefficients_of_separable_blocks_add():
    """Thom–Sebastiani: a quadratic and a quartic side by side."""

    def energy(h, gamma):
        w = np.linspace(-4, 4, 80_001)
        weight = np.exp(-100 * h(w) - 0.5 * gamma * w**2)
        return 100 * np.sum(weight * h(w)) / np.sum(weight)

    parts = energy(lambda w: 0.5 * w**2, 0.1) + energy(lambda w: w**4, 0.1)
    estimate = slt.llc(
        jax.random.key(2),
        lambda w, x: 0.5 * w["a"] ** 2 + w["b"] ** 4 + x,
        {"a": 0.0, "b": 0.0},
        BASELINE,
        nbeta=100.0,
        gamma=0.1,
        sampler=slt.samplers.sgld(5e-3),
        chains=16,
        draws=4000,
    )
    assert deviation(estimate.value, estimate.std_error, parts) < 4
    assert deviation(estimate.value, estimate.std_error, parts - 0.25) > 4


# nothing out of nothing


@pytest.mark.parametrize("batch_size", [None, 8])
@pytest.mark.parametrize("make", [slt.samplers.sgld, slt.samplers.rmsprop_sgld])
def test_without_a_step_the_coefficient_is_zero_without_error_for_every_seed(make, batch_size):
    """The losses at the centre are between 1 and 3 and differ: a shared noisy baseline would show."""
    posterior = quadratic_posterior()
    for seed in range(4):
        trace = slt.sample(
            jax.random.key(seed), make(0.0), posterior, BASELINE, draws=8, chains=2, batch_size=batch_size
        )
        estimate = slt.llc_from(trace, posterior)
        assert float(estimate.value) == 0.0
        assert float(estimate.std_error) == 0.0
        assert np.all(np.asarray(estimate.per_chain) == 0.0)
        # zero without error is not a measurement, and must not look like one
        assert not bool(estimate.health.checks["moved"])
        assert "no chain left the centre" in estimate.health.explain()
        unpaired = NBETA * (trace.loss - posterior.center_losses.mean())
        assert (batch_size is None) or abs(float(unpaired.mean())) > 1.0


def test_burnin_is_never_averaged_in(key):
    """A burn-in from far away leaves no mark; the same steps averaged in would."""
    posterior = quadratic_posterior()
    start = slt.sample(key, SAMPLER, posterior, BASELINE, draws=1, chains=4).state
    start = start._replace(position=jax.tree.map(lambda leaf: leaf + 30.0, start.position))
    settings = {"chains": 4, "start": start}
    kept = slt.sample(key, SAMPLER, posterior, BASELINE, draws=3000, burnin=3000, **settings)
    all_of_it = slt.sample(key, SAMPLER, posterior, BASELINE, draws=6000, **settings)
    estimate = slt.llc_from(kept, posterior)
    assert deviation(estimate.value, estimate.std_error, exact_llc()) < 4
    assert float(slt.llc_from(all_of_it, posterior).value) > 10 * exact_llc()
    assert not bool(slt.llc_from(all_of_it, posterior).health.ok)


def test_the_default_temperature_is_that_of_the_data_not_of_the_batch(key):
    default = slt.llc(key, quadratic, ORIGIN, BASELINE, sampler=SAMPLER, batch_size=8, **SHORT)
    explicit = slt.llc(
        key, quadratic, ORIGIN, BASELINE, nbeta=64 / math.log(64), sampler=SAMPLER, batch_size=8, **SHORT
    )
    other = slt.llc(key, quadratic, ORIGIN, BASELINE, nbeta=8 / math.log(8), sampler=SAMPLER, batch_size=8, **SHORT)
    assert_same(default, explicit)
    assert float(other.value) != float(default.value)


# verdicts


@pytest.fixture(scope="module")
def good_trace():
    return slt.sample(jax.random.key(3), SAMPLER, quadratic_posterior(), BASELINE, draws=2000, chains=4, burnin=500)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_chain_that_diverged_is_marked_and_never_averaged_away(good_trace, bad):
    posterior = quadratic_posterior()
    assert bool(READ(good_trace, posterior).health.ok)
    spoilt = good_trace._replace(excess=good_trace.excess.at[2, -1].set(bad))
    estimate = READ(spoilt, posterior)
    assert math.isnan(estimate.value)
    assert math.isnan(estimate.std_error)
    assert np.isfinite(np.asarray(estimate.per_chain)).tolist() == [True, True, False, True]
    assert float(estimate.health.diverged) == 0.25
    assert not bool(estimate.health.checks["finite"])
    assert not bool(estimate.health.ok)
    assert "25% of the chains diverged" in estimate.health.explain()
    assert "lower the step size" in estimate.health.explain()


def test_too_large_a_step_diverges_and_says_so(key):
    estimate = slt.llc(
        key,
        quadratic,
        ORIGIN,
        BASELINE,
        nbeta=NBETA,
        gamma=GAMMA,
        sampler=slt.samplers.sgld(5e-3),
        **SHORT | {"draws": 2000},
    )
    assert math.isnan(estimate.value)
    assert not bool(estimate.health.checks["finite"])


def test_a_centre_that_is_not_a_minimum_is_flagged_with_the_share_of_draws_below(key):
    center = jax.tree.map(lambda leaf: leaf + 0.5, ORIGIN)
    estimate = slt.llc(
        key, quadratic, center, BASELINE, nbeta=NBETA, gamma=GAMMA, sampler=SAMPLER, draws=1000, burnin=1000
    )
    share = float(estimate.health.below)
    assert share > 0.9
    assert not bool(estimate.health.checks["minimum"])
    assert f"{share:.0%} of the draws lie below the centre" in estimate.health.explain()
    assert "train further" in estimate.health.explain()


def test_batches_that_heat_the_chain_are_flagged_and_full_batches_are_not(key):
    settings = {"nbeta": 100.0, "gamma": 1.0, "sampler": slt.samplers.sgld(8e-3), "draws": 4000, "burnin": 500}
    heated = slt.llc(key, regression, 0.0, CENTRED, batch_size=4, **settings)
    assert not bool(heated.health.checks["virial"])
    assert "raise batch_size" in heated.health.explain()
    cool = slt.llc(key, regression, 0.0, CENTRED, **settings)
    assert bool(cool.health.ok), cool.health.explain()


#: One mode on batches of 64 of data of variance 1, heated by a chosen share.
ON_BATCHES = {"nbeta": 100.0, "gamma": 1.0, "draws": 4000, "burnin": 500, "chains": 16, "batch_size": 64}
COLD = 0.5 * 100 / 101


def heated_by(share, kind):
    """A sampler that the batches heat by this share of the value without them."""
    epsilon = share * COLD * 8 / (100.0**2 / 64)
    return slt.samplers.sgld(epsilon) if kind == "sgld" else slt.samplers.underdamped((epsilon / 20) ** 0.5)


@pytest.mark.parametrize("kind", ["sgld", "underdamped"])
def test_the_heat_of_batches_is_measured_for_a_sampler_of_ones_own(kind, key):
    for share in (0.04, 0.12):
        sampler = heated_by(share, kind)
        estimate = slt.llc(key, regression, 0.0, CENTRED, sampler=sampler, **ON_BATCHES)
        assert float(estimate.health.heating) == pytest.approx(share / (1 + share), rel=0.3)
        assert bool(estimate.health.checks["heating"]) == (share < 0.05)
        assert ("raise batch_size or lower the step size" in estimate.health.explain()) == (share > 0.05)
        # a sampler that does not know what heats it hides the same heat
        silent = slt.llc(key, regression, 0.0, CENTRED, sampler=sampler._replace(overdamped=float("nan")), **ON_BATCHES)
        assert np.isnan(silent.health.heating)
        assert bool(silent.health.checks["heating"])
        assert float(silent.health.energy) == float(estimate.health.energy)
    whole = slt.llc(key, regression, 0.0, CENTRED, sampler=sampler, **ON_BATCHES | {"batch_size": None})
    assert np.isnan(whole.health.heating)


def test_heat_is_measured_inside_jit_and_vmap_as_outside(key):
    settings = ON_BATCHES | {"draws": 500, "chains": 4}

    def run(key, step):
        return slt.llc(key, regression, 0.0, CENTRED, sampler=slt.samplers.underdamped(step), **settings)

    steps = jnp.array([5e-3, 1e-2])
    swept = jax.jit(jax.vmap(run, in_axes=(None, 0)))(key, steps)
    single = jnp.stack([run(key, float(step)).health.heating for step in steps])
    np.testing.assert_allclose(swept.health.heating, single, rtol=1e-3)
    assert float(single[1]) > 2 * float(single[0]), "it goes with the square of the step"


def test_heat_that_is_known_and_small_is_taken_from_the_value_and_what_is_larger_is_left_and_flagged(key):
    settings = ON_BATCHES | {"chains": 64, "draws": 8000}
    estimate = slt.llc(key, regression, 0.0, CENTRED, sampler=heated_by(0.045, "sgld"), **settings)
    raw, error = float(estimate.health.energy), float(estimate.health.error)
    assert deviation(raw, error, COLD) > 3, "without the correction it is wrong"
    assert deviation(estimate.value, error, COLD) < 3
    assert float(estimate.std_error) > error, "a third of what was taken off is in doubt"
    np.testing.assert_allclose(estimate.per_chain.mean(), estimate.value, rtol=1e-5)
    hot = slt.llc(key, regression, 0.0, CENTRED, sampler=heated_by(0.3, "sgld"), **ON_BATCHES)
    assert float(hot.value) == float(hot.health.energy)
    assert not bool(hot.health.ok)


def test_the_noise_of_batches_alone_is_not_mistaken_for_a_lower_minimum(key):
    estimate = slt.llc(
        key,
        regression,
        0.0,
        CENTRED,
        nbeta=100.0,
        gamma=1.0,
        sampler=slt.samplers.sgld(1e-4),
        batch_size=32,
        draws=4000,
    )
    assert bool(estimate.health.checks["minimum"]), estimate.health.explain()


def test_a_mean_loss_over_batches_is_judged_as_fairly_as_its_examples(key):
    def mean(w, x):
        return jnp.mean(regression(w, x))

    settings = {"nbeta": 100.0, "gamma": 1.0, "sampler": slt.samplers.sgld(1e-4), "batch_size": 32, "draws": 4000}
    at_minimum = slt.llc(key, mean, 0.0, CENTRED, **settings)
    assert bool(at_minimum.health.checks["minimum"]), at_minimum.health.explain()
    beside = slt.llc(key, mean, 0.8, CENTRED, **settings)
    assert not bool(beside.health.checks["minimum"])


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda t: t._replace(excess=t.excess.at[0].multiply(8.0)), "rhat"),
        (
            lambda t: jax.tree.map(lambda x: x[:, :10], t._replace(state=(), observables=())),
            "ess",
        ),
        (lambda t: t._replace(excess=t.excess.at[:, 1000:].multiply(1.5)), "drift"),
        (lambda t: t._replace(virial=1.5 * t.virial), "virial"),
        (lambda t: t._replace(virial=0.1 * t.virial), "virial"),
        (lambda t: t._replace(excess=t.excess.mean() + 3 * (t.excess - t.excess.mean())), "heat"),
        (lambda t: t._replace(excess=t.excess.mean() + 0.2 * (t.excess - t.excess.mean())), "heat"),
        (lambda t: t._replace(excess=t.excess - jnp.median(t.excess)), "minimum"),
    ],
    ids=["rhat", "ess", "drift", "virial above", "virial below", "heat above", "heat below", "minimum"],
)
def test_each_check_fails_on_what_it_is_for_and_names_a_remedy(good_trace, change, check):
    posterior = quadratic_posterior()
    before = READ(good_trace, posterior).health
    after = READ(change(good_trace), posterior).health
    assert bool(before.checks[check])
    assert not bool(after.checks[check])
    assert after.explain().startswith("UNHEALTHY")
    assert verdicts._REMEDIES[check] in after.explain()
    assert before.explain().startswith("healthy")


def test_an_estimate_prints_its_error_and_its_verdict(good_trace):
    text = str(READ(good_trace, quadratic_posterior()))
    assert "±" in text
    assert "healthy" in text


def test_the_interval_of_a_healthy_run_is_its_error_and_of_another_all_that_its_chains_leave_open(good_trace):
    posterior = quadratic_posterior()
    ends = lambda estimate: [float(end) for end in estimate.interval]  # noqa: E731
    healthy = READ(good_trace, posterior)
    assert bool(healthy.health.ok), healthy.health.explain()
    half = 1.96 * float(healthy.std_error)
    np.testing.assert_allclose(ends(healthy), [float(healthy.value) - half, float(healthy.value) + half], rtol=1e-6)

    spoilt = READ(good_trace._replace(excess=good_trace.excess.at[0].multiply(8.0)), posterior)
    low, high = ends(spoilt)
    assert not bool(spoilt.health.ok)
    assert low < float(spoilt.per_chain.min()) < float(spoilt.per_chain.max()) < high
    assert high - low > 2 * 1.96 * float(spoilt.std_error), "wider than the error alone"

    # the same numbers, of which modes that have not relaxed may lack some
    cold = READ(good_trace._replace(virial=0.1 * good_trace.virial), posterior)
    assert failed(cold) == ["virial"]
    lacking = 0.5 * 6 * (1 - float(cold.health.virial))
    np.testing.assert_allclose(ends(cold)[1], float(cold.per_chain.max()) + lacking + half, rtol=1e-5)
    assert ends(cold)[0] < ends(healthy)[0]

    diverged = READ(good_trace._replace(excess=good_trace.excess.at[2, -1].set(math.inf)), posterior)
    assert ends(diverged) == [-math.inf, math.inf]

    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), healthy, spoilt)
    np.testing.assert_allclose(np.transpose(both.interval), [ends(healthy), ends(spoilt)], rtol=1e-6)


def failed(estimate):
    return [name for name, passed in estimate.health.checks.items() if not bool(passed)]


CHOSEN = slt.Settings(
    nbeta=1234.5,
    gamma=0.678,
    step_size=np.full((10, 2), 0.00987),
    friction=np.full(10, 0.04),
    share=np.ones((10, 2)),
    fraction=0.25,
    attempt=2,
    blocks=3,
    chains=14,
    draws=777,
    burnin=888,
    thin=1,
    batch_size=0,
    kept=3210,
    gradients=98765,
    polishing=True,
    polished=True,
    shift=5.4,
)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ["nβ 1234.5", "γ 0.678", "underdamped", "step 0.00987", "friction 0.04", "14 chains", "98765 gradients"]),
        ({}, ["3210 draws kept", "moved to the minimum nearby, lower by 5.4"]),
        ({}, ["begun again 2 times", "the step 0.25 times that of the rule"]),
        ({"share": np.array([[1.0, 0.1]] * 10)}, ["half of the chains annealed from 0.1 nβ"]),
        ({"batch_size": 19}, ["overdamped", "batches of 19", "step 0.00987", "control variates"]),
    ],
    ids=["numbers", "draws and centre", "attempts", "bracket", "batches"],
)
def test_an_estimate_says_all_that_was_chosen(good_trace, change, expected):
    estimate = READ(good_trace, quadratic_posterior())
    text = estimate._replace(settings=CHOSEN._replace(**change)).explain()
    for words in [*expected, f"{float(estimate.value):.4g} ± ", estimate.health.explain()]:
        assert words in text
    assert "Chosen" not in estimate.explain()


def test_of_a_batch_of_estimates_each_explains_itself(good_trace):
    estimate = READ(good_trace, quadratic_posterior())
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), estimate)
    with pytest.raises(ValueError, match=r"explain: got an estimate of shape \(2,\); index one"):
        both.explain()
    assert jax.tree.map(lambda leaf: leaf[0], both).explain() == estimate.explain()


# the network's own answers


def answers(params, inputs):
    return inputs @ params["first"] + params["second"]


def test_the_door_to_the_networks_own_answers_is_llc_on_that_problem():
    """At random parameters, which are a minimum of nothing else; with three chains, which have no bracket."""
    draw = np.random.default_rng(0).normal
    params, inputs = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float32),
        ({"first": draw(size=(3, 2)), "second": draw(size=(1, 2))}, draw(size=(50, 3))),
    )
    key, settings = jax.random.key(0), {"chains": 3, "draws": 1000, "burnin": 1000, "nbeta": 1e3}
    door = slt.llc(key, None, params, inputs, reference="self", outputs=answers, **settings)
    problem = slt.self_reference(answers, params, inputs)
    assert_same(door, slt.llc(key, *problem, **settings))
    assert not bool(door.settings.polished)
    assert float(door.settings.shift) == 0.0
    # half of the rank of the answers in eight parameters
    assert deviation(door.value, door.std_error, 4.0) < 4
    assert bool(door.health.ok), door.explain()
    assert math.isnan(door.health.gap)
    assert "no bracket" in door.explain()
    assert float(slt.llc(jax.random.key(1), *problem, **settings).value) != float(door.value)


# bad input

LONG = {
    "key": (dict(key=0), r"key: got int .*pass one typed key"),
    "raw key": (
        dict(key=np.zeros(2, np.uint32)),
        r"key: got ndarray of dtype uint32 and shape \(2,\); pass one typed key",
    ),
    "loss": (dict(loss_fn=lambda w, x: w["b"]), r"loss_fn: returned shape \(2,\) on data of 64 examples; expected"),
    "ragged": (dict(data=(BASELINE, BASELINE[:3])), r"data: leading axes differ.*must have the same number"),
    "params": (
        dict(params={"b": jnp.arange(2), "w": jnp.zeros((2, 2))}),
        r"params: leaf 'b' has dtype int32.*Pass only",
    ),
    "nbeta": (dict(nbeta=0.0), r"nbeta: got 0.0; it must be finite and positive"),
    "NaN nbeta": (dict(nbeta=math.nan), r"nbeta: got nan; it must be finite and positive"),
    "gamma": (dict(gamma=-1.0), r"gamma: got -1.0; it must be finite and at least 0"),
    "burnin": (dict(burnin=-5), r"burnin: got -5; it must be at least 0"),
    "draws": (dict(draws=0), r"draws: got 0; it must be at least 1"),
    "chains": (dict(chains=0), r"chains: got 0; it must be at least 1"),
    "thin": (dict(thin=0), r"thin: got 0; it must be at least 1"),
    "batch_size": (dict(batch_size=65), r"batch_size: got 65 with 64 examples; it must lie between 1 and 64"),
    "sampler": (dict(sampler=slt.samplers.sgld), r"sampler: got a function; make one first"),
    "restriction": (dict(restriction=slt.restriction.full), r"restriction: got a function; build one"),
    "no outputs": (dict(reference="self"), r"outputs: none given with reference='self'.*a loss does not tell it"),
    "outputs of no use": (dict(outputs=quadratic), r"outputs: given with reference='loss'. Pass reference='self'"),
    "reference": (dict(reference="own", outputs=quadratic), r"reference: got 'own'; it must be 'loss' or 'self'"),
    "divergence": (
        dict(reference="self", outputs=lambda w, x: x, divergence="kl"),
        r"divergence: got 'kl'; it must be one of",
    ),
    "outputs that are no function": (
        dict(reference="self", outputs=BASELINE),
        r"outputs: got a ArrayImpl; pass a function",
    ),
    "budget": (dict(budget=-1), r"budget: got -1; pass the gradients that each chain may take"),
    "half a gradient": (dict(budget=0.5), r"budget: got 0.5; pass the gradients"),
    "relative error": (dict(relative_error=-0.1), r"relative_error: got -0.1; pass a share of the value"),
    "NaN relative error": (dict(relative_error=math.nan), r"relative_error: got nan; pass a share"),
    "settings and a temperature": (dict(settings=CHOSEN, nbeta=10.0), r"settings: .*nbeta"),
    "settings and a length": (dict(settings=CHOSEN, draws=10), r"settings: .*draws"),
    "settings and chains": (dict(settings=CHOSEN, chains=4, thin=2), r"settings: given together with chains, thin"),
    "an estimate for its settings": (dict(settings=(CHOSEN, 1.0)), r"settings: got a tuple; pass .*estimate.settings"),
    "settings of many": (
        dict(settings=jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), CHOSEN)),
        r"settings: got those of many estimates.*Index one",
    ),
    "a sampler and a budget": (dict(sampler=SAMPLER, budget=100), r"sampler: given together with budget"),
    "chains of an array": (dict(chains=jnp.int32(2)), r"chains: got Array\(2.*integer of Python's"),
    "a relative error in per cent": (dict(relative_error=2), r"relative_error: got 2; pass a share"),
    "foreign mask": (
        dict(restriction=slt.restriction.paths({"v": 0.0}, "v")),
        r"restriction: frees 'v', which params lack",
    ),
}


@pytest.mark.parametrize("case", LONG)
def test_bad_input_is_named_before_anything_is_compiled(case):
    settings, message = LONG[case]
    given = {"key": jax.random.key(0), "loss_fn": quadratic, "params": ORIGIN, "data": BASELINE, **settings}
    with compilations() as compiled, pytest.raises(ValueError, match=message):
        slt.llc(**given)
    assert compiled == []


def test_a_centre_with_nan_is_refused_before_any_chain_runs(key):
    with pytest.raises(ValueError, match=r"loss_fn: 64 of 64 losses at params are not finite.*Check params"):
        slt.llc(key, quadratic, jax.tree.map(lambda leaf: leaf * jnp.nan, ORIGIN), BASELINE)
