"""The posterior: one home for n, nβ and γ, losses paired on the same examples, an excess that survives float32."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import BASELINE, CENTRED, ORIGIN, assert_same, compilations, quadratic, quadratic_posterior, regression

import slt_jax as slt
from slt_jax import posterior as posteriors
from slt_jax import tree
from slt_jax.noise import normal


@pytest.fixture
def anywhere(key):
    return tree.scale(0.3, normal(key, ORIGIN))


def test_the_default_temperature_comes_from_the_number_of_examples():
    for count in (10, 64, 1000):
        posterior = slt.localise(regression, jnp.float32(0.0), jnp.ones(count))
        assert float(posterior.nbeta) == pytest.approx(count / math.log(count), rel=1e-6)
        assert float(posterior.gamma) == pytest.approx(1e-4 * count / math.log(count), rel=1e-6)
        assert float(posterior.n) == count


def test_the_batch_size_does_not_touch_the_temperature(key):
    """An estimate at batch size 8 of 256 is nβ of all 256 times its excess."""
    posterior = slt.localise(regression, jnp.float32(0.0), CENTRED)
    sampler = slt.samplers.sgld(1e-3)
    trace = slt.sample(key, sampler, posterior, CENTRED, draws=20, chains=2, batch_size=8)
    estimate = slt.llc_from(trace, posterior)
    ratio = float(estimate.value / jnp.mean(trace.excess))
    assert ratio == pytest.approx(256 / math.log(256), rel=1e-5)
    assert ratio != pytest.approx(8 / math.log(8), rel=0.1)


def test_force_is_the_gradient_of_the_potential(anywhere):
    posterior = quadratic_posterior()
    batch = slt.full_batch(posterior, BASELINE)

    def potential(z):
        return posterior.nbeta * posteriors.excess(posterior, z, batch) + 0.5 * posterior.gamma * tree.norm_squared(z)

    gradient = posteriors.evaluate(posterior, anywhere, batch).gradient
    assert_same(posteriors.force(posterior, anywhere, gradient), jax.grad(potential)(anywhere), rtol=1e-4)


def test_the_excess_at_the_centre_is_exactly_zero_whatever_the_loss_there():
    """Also where two compilations of one loss round differently."""

    def rough(params, batch):
        return jnp.log1p(jnp.exp(batch * params["w"].sum())) * 1e3

    center = {"w": jnp.linspace(0.1, 1.0, 37)}
    data = jnp.linspace(0.5, 3.0, 101)
    posterior = slt.localise(rough, center, data)
    origin = posterior.restriction.origin(center)
    for batch in (slt.full_batch(posterior, data), slt.minibatch(posterior, data, jnp.arange(7)), data[:13]):
        for look in (posteriors.evaluate, jax.jit(posteriors.evaluate)):
            seen = look(posterior, origin, posteriors.pair(posterior, batch))
            assert float(seen.excess) == 0.0
            assert float(seen.loss) > 100.0


def test_a_minibatch_looks_up_what_a_pair_computes(anywhere):
    posterior = quadratic_posterior()
    index = jnp.array([5, 5, 60, 0])
    looked_up = slt.minibatch(posterior, BASELINE, index)
    computed = posteriors.pair(posterior, BASELINE[index])
    assert_same(looked_up, computed, rtol=1e-6)
    assert posteriors.pair(posterior, looked_up) is looked_up
    assert_same(
        posteriors.evaluate(posterior, anywhere, looked_up),
        posteriors.evaluate(posterior, anywhere, computed),
        rtol=1e-5,
    )


def test_a_mean_loss_and_a_per_example_loss_are_one_posterior(anywhere):
    single = quadratic_posterior()
    mean = slt.localise(lambda w, x: jnp.mean(quadratic(w, x)), ORIGIN, BASELINE, single.nbeta, single.gamma)
    token = slt.localise(lambda w, x: quadratic(w, x)[:, None] * jnp.array([[0.5, 1.5]]), ORIGIN, BASELINE)
    reference = posteriors.evaluate(single, anywhere, slt.full_batch(single, BASELINE))
    for other in (mean, token):
        seen = posteriors.evaluate(other, anywhere, slt.full_batch(other, BASELINE))
        assert_same(seen, reference, rtol=1e-5)


def test_the_excess_of_random_batches_is_unbiased_and_its_noise_is_the_variance_that_it_reports():
    posterior = slt.localise(regression, jnp.float32(0.0), CENTRED)
    z = jnp.float32(0.2)

    def look(key):
        batch = slt.minibatch(posterior, CENTRED, jax.random.randint(key, (16,), 0, 256))
        seen = posteriors.evaluate(posterior, z, batch)
        return seen.excess, seen.noise

    excess, noise = jax.vmap(look)(jax.random.split(jax.random.key(2), 4000))
    exact = posteriors.evaluate(posterior, z, slt.full_batch(posterior, CENTRED))
    assert float(exact.noise) == 0.0
    error = excess.std() / math.sqrt(len(excess))
    assert abs(excess.mean() - exact.excess) < 4 * error
    relative = math.sqrt(2 / len(excess))
    assert abs(excess.var() / noise.mean() - 1) < 4 * relative
    assert abs(excess.var() / (noise.mean() * 16 / 15) - 1) > 0.5 * abs(16 / 15 - 1), "the other normalisation differs"


def test_the_noise_is_unknown_where_a_mean_hides_it():
    mean = slt.localise(lambda w, x: jnp.mean(regression(w, x)), jnp.float32(0.0), CENTRED)
    part = posteriors.evaluate(mean, jnp.float32(0.1), slt.minibatch(mean, CENTRED, jnp.arange(8)))
    whole = posteriors.evaluate(mean, jnp.float32(0.1), slt.full_batch(mean, CENTRED))
    single = slt.localise(regression, jnp.float32(0.0), CENTRED)
    one = posteriors.evaluate(single, jnp.float32(0.1), slt.minibatch(single, CENTRED, jnp.arange(1)))
    assert math.isnan(part.noise)
    assert math.isnan(one.noise)
    assert float(whole.noise) == 0.0


def test_an_excess_of_a_ten_millionth_of_the_loss_survives_single_precision():
    """Paired per example, float32 agrees with float64 to a part of 1e-7 of the loss; a difference of means does not."""
    draw = np.random.default_rng(1)
    inputs, targets = draw.normal(size=(2000, 3)), draw.normal(size=2000) + 3.0
    step = draw.normal(size=3)
    step *= 3e-4 / np.linalg.norm(step)

    def loss_fn(w, batch):
        return 0.5 * (batch["x"] @ w - batch["y"]) ** 2

    def measure(dtype):
        data = {"x": jnp.asarray(inputs, dtype), "y": jnp.asarray(targets, dtype)}
        best = np.linalg.lstsq(inputs, targets, rcond=None)[0]
        posterior = slt.localise(loss_fn, jnp.asarray(best, dtype), data)
        return jax.jit(posteriors.evaluate)(
            posterior, jnp.asarray(step, dtype), slt.full_batch(posterior, data)
        ), posterior

    seen, posterior = measure(jnp.float32)
    with jax.enable_x64(True):
        exact, _ = measure(jnp.float64)
        assert exact.excess.dtype == jnp.float64
    level = float(exact.loss)
    assert 1e-9 < float(exact.excess) / level < 1e-7, "the excess at stake is below a ten-millionth of the loss"
    paired = abs(float(seen.excess) - float(exact.excess)) / level
    apart = abs(float(seen.loss) - float(np.float32(posterior.center_losses.sum(dtype=jnp.float32) / 2000)))
    assert seen.excess.dtype == jnp.float32
    assert paired < 1e-8
    assert abs(apart - float(exact.excess)) / level > 2 * paired


def test_localise_works_inside_jit_and_vmap_and_checks_values_outside_only():
    centers = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 1.0]), ORIGIN)
    build = lambda center: slt.localise(quadratic, center, BASELINE, 10.0)  # noqa: E731
    mapped = jax.jit(jax.vmap(build))(centers)
    second = build(jax.tree.map(lambda leaf: leaf[1], centers))
    assert_same(jax.tree.map(lambda leaf: leaf[1], mapped.center_losses), second.center_losses, rtol=1e-6)
    inside = jax.jit(lambda nbeta: slt.localise(quadratic, ORIGIN, BASELINE, nbeta).nbeta)
    assert float(inside(-1.0)) == -1.0


def test_single_precision_parameters_stay_single_where_wide_numbers_are_around():
    with jax.enable_x64(True):
        posterior = slt.localise(quadratic, ORIGIN, np.asarray(BASELINE, np.float64), np.float64(7.0))
        seen = posteriors.evaluate(posterior, posterior.center, slt.full_batch(posterior, np.ones(64)))
        force = posteriors.force(posterior, posterior.center, seen.gradient)
        narrow = {leaf.dtype for leaf in jax.tree.leaves((posterior.center, seen.gradient, force))}
        assert narrow == {np.dtype("float32")}
        assert seen.excess.dtype == posterior.nbeta.dtype == np.dtype("float64")


def test_dimension_counts_the_free_parameters():
    assert posteriors.dimension(quadratic_posterior()) == 6
    assert posteriors.dimension(quadratic_posterior(restriction=slt.restriction.paths(ORIGIN, "b"))) == 2


RANGES = {
    "negative nbeta": ({"nbeta": -1.0}, r"nbeta: got -1.0; it must be finite and positive"),
    "zero nbeta": ({"nbeta": 0}, r"nbeta: got 0.0; it must be finite and positive"),
    "NaN nbeta": ({"nbeta": float("nan")}, r"nbeta: got nan; it must be finite and positive"),
    "infinite nbeta": ({"nbeta": float("inf")}, r"nbeta: got inf; it must be finite"),
    "several nbeta": ({"nbeta": np.ones(2)}, r"nbeta: got shape \(2,\); pass one number, and vmap"),
    "negative gamma": ({"gamma": -1e-9}, r"gamma: got -1e-09; it must be finite and at least 0"),
    "NaN gamma": ({"gamma": float("nan")}, r"gamma: got nan; it must be finite"),
    "foreign restriction": (
        {"restriction": slt.restriction.paths({"v": 0.0}, "v")},
        r"restriction: frees 'v', which params lack",
    ),
    "unmade restriction": ({"restriction": slt.restriction.full}, r"restriction: got a function; build one"),
}


@pytest.mark.parametrize("case", RANGES)
def test_numbers_out_of_range_are_named_before_anything_is_compiled(case):
    settings, message = RANGES[case]
    with compilations() as compiled, pytest.raises(ValueError, match=message):
        slt.localise(quadratic, ORIGIN, BASELINE, **settings)
    assert compiled == []


def test_zero_gamma_is_allowed_and_one_example_needs_a_temperature():
    assert float(quadratic_posterior(gamma=0.0).gamma) == 0.0
    with pytest.raises(ValueError, match=r"data: got 1 example, but the default nbeta.*pass nbeta"):
        slt.localise(quadratic, ORIGIN, BASELINE[:1])
    assert float(slt.localise(quadratic, ORIGIN, BASELINE[:1], 5.0).nbeta) == 5.0


def test_a_loss_that_is_not_finite_at_the_centre_is_refused():
    with pytest.raises(ValueError, match=r"loss_fn: 1 of 64 losses at params are not finite; the first at example 3"):
        slt.localise(quadratic, ORIGIN, BASELINE.at[3].set(jnp.nan))
    with pytest.raises(ValueError, match=r"loss_fn: 64 of 64 losses at params"):
        slt.localise(quadratic, jax.tree.map(lambda leaf: leaf + jnp.inf, ORIGIN), BASELINE)


@pytest.mark.parametrize("value", ["3", True, None.__class__, [1.0]])
def test_a_temperature_that_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="nbeta: got"):
        slt.localise(lambda w, x: w * x, 0.0, jnp.ones(4), nbeta=value)


def test_a_loss_that_is_no_function_is_refused_and_told_from_the_key():
    with pytest.raises(ValueError, match="loss_fn: got a float"):
        slt.localise(1.0, 0.0, jnp.ones(4))
