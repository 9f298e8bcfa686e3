"""Control variates: the mean over batches stays, the noise at the centre goes, and nothing else notices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import BASELINE, CENTRED, ORIGIN, assert_same, compilations, deviation, quadratic, regression

import slt_jax as slt
from slt_jax import diagnostics, loss, tree
from slt_jax.noise import normal
from slt_jax.posterior import Batch, evaluate, full_batch, gradient_noise, minibatch, pair, with_control_variates

DRAW = np.random.default_rng(0)
#: A small tanh network that does not fit its targets: examples disagree in value, gradient and Hessian.
CENTER = {"in": DRAW.normal(size=(2, 3)), "out": DRAW.normal(size=3)}
DATA = {"x": DRAW.normal(size=(5, 2)), "y": DRAW.normal(size=5)}


def network(params, batch):
    return 0.5 * (jnp.tanh(batch["x"] @ params["in"]) @ params["out"] - batch["y"]) ** 2


LOSSES = {
    "example": network,
    "token": lambda params, batch: network(params, batch)[:, None] * jnp.array([[0.5, 1.0, 1.5]]),
    "mean": lambda params, batch: jnp.mean(network(params, batch)),
}
RESTRICTIONS = {
    "full": slt.restriction.full(),
    "leaf": slt.restriction.paths(CENTER, "in"),
    "entries": slt.restriction.mask(CENTER, {"in": CENTER["in"] > 0, "out": np.array([True, False, True])}),
}


def displacement(posterior, factor=1.0):
    """A fixed ``z`` away from the centre, whatever is free."""
    return tree.scale(0.3 * factor, normal(jax.random.key(5), posterior.restriction.origin(CENTER)))


@jax.jit
def gradients(posterior, data, z, indices):
    """The gradient of every batch, stacked along a leading axis."""
    return jax.vmap(lambda index: evaluate(posterior, z, minibatch(posterior, data, index)).gradient)(indices)


@jax.jit
def full_gradient(posterior, data, z):
    return evaluate(posterior, z, full_batch(posterior, data)).gradient


def distance(left, right):
    return float(jnp.sqrt(tree.norm_squared(jax.tree.map(jnp.subtract, left, right))))


def all_pairs(count):
    return jnp.array(list(itertools.product(range(count), repeat=2)))


def spread(batches):
    """Trace of the covariance of gradients that are all there are."""
    return sum(float(jnp.sum(jnp.var(leaf, axis=0))) for leaf in jax.tree.leaves(batches))


@pytest.mark.parametrize(
    ("shape", "free"), [("example", "full"), ("example", "entries"), ("token", "leaf"), ("mean", "full")]
)
def test_the_mean_over_all_batches_is_the_full_gradient(shape, free):
    """All 25 batches of two out of five, in double precision; half of the data at the centre would be a bias."""
    with jax.enable_x64(True):
        plain = slt.localise(LOSSES[shape], CENTER, DATA, restriction=RESTRICTIONS[free])
        corrected = with_control_variates(plain, DATA)
        z = displacement(plain)
        exact = full_gradient(plain, DATA, z)
        half = loss.take(DATA, jnp.arange(3))
        wrong = with_control_variates(slt.localise(LOSSES[shape], CENTER, half, restriction=RESTRICTIONS[free]), half)

        def mean(posterior):
            return jax.tree.map(lambda leaf: leaf.mean(axis=0), gradients(posterior, DATA, z, all_pairs(5)))

        assert_same(mean(corrected), exact, rtol=1e-12, atol=1e-14)
        biased = mean(plain._replace(center_gradient=wrong.center_gradient))
        assert distance(biased, exact) > 0.03 * distance(exact, tree.zeros_like(exact))


@pytest.mark.parametrize("shape", LOSSES)
def test_near_the_centre_the_noise_is_of_first_order_in_the_distance(shape):
    """Its variance falls by 100 where z falls by 10; without control variates it stays."""
    with jax.enable_x64(True):
        plain = slt.localise(LOSSES[shape], CENTER, DATA)
        corrected = with_control_variates(plain, DATA)
        noise = {
            (name, factor): spread(gradients(posterior, DATA, displacement(plain, factor), all_pairs(5)))
            for name, posterior in (("plain", plain), ("corrected", corrected))
            for factor in (0.01, 0.001)
        }
        assert noise["corrected", 0.01] / noise["corrected", 0.001] == pytest.approx(100, rel=0.05)
        assert noise["plain", 0.01] / noise["plain", 0.001] == pytest.approx(1, rel=0.05)
        assert noise["corrected", 0.01] < 1e-3 * noise["plain", 0.01]


def saturating(params, batch):
    return 0.5 * (jnp.tanh(batch["x"] * params) - batch["y"]) ** 2


def test_far_out_where_gradients_have_nothing_in_common_the_noise_is_higher():
    data = {"x": jnp.ones(5), "y": jnp.arange(5.0) - 2.0}
    plain = slt.localise(saturating, jnp.float32(0.0), data)
    corrected = with_control_variates(plain, data)
    near, far = (
        [spread(gradients(posterior, data, jnp.float32(z), all_pairs(5))) for posterior in (plain, corrected)]
        for z in (0.1, 6.0)
    )
    assert near[1] < 1e-3 * near[0]
    assert far[1] > 100 * far[0]


def test_no_noise_is_left_where_all_examples_have_one_hessian(key):
    """Also out of the centre, on any single example; a Hessian of each example's own leaves some."""
    hessian = jnp.array([[2.0, 0.5], [0.5, 1.0]])
    targets = jax.random.normal(key, (7, 2))
    z = jnp.array([3.0, -2.0])
    singles = jnp.arange(7)[:, None]

    def common(w, x):
        return 0.5 * jnp.einsum("bi,ij,bj->b", w - x, hessian, w - x)

    def own(w, x):
        return 0.5 * jnp.sum((w - x) ** 2 * (1 + x**2), axis=1)

    for loss_fn, vanishes in ((common, True), (own, False)):
        plain = slt.localise(lambda w, x, loss_fn=loss_fn: loss_fn(w[None], x), jnp.zeros(2), targets)
        corrected = with_control_variates(plain, targets)
        exact = full_gradient(plain, targets, z)
        seen = gradients(corrected, targets, z, singles)
        error = float(jnp.max(jnp.abs(seen - exact[None])) / jnp.max(jnp.abs(exact)))
        assert (error < 1e-5) is vanishes
        assert spread(gradients(plain, targets, z, singles)) > 0.1


@pytest.mark.parametrize("shape", LOSSES)
def test_at_the_centre_every_batch_gives_the_full_gradient_to_the_last_bit(shape):
    plain = slt.localise(LOSSES[shape], CENTER, DATA)
    corrected = with_control_variates(plain, DATA)
    origin = plain.restriction.origin(plain.center)
    for look in (evaluate, jax.jit(evaluate)) if shape == "example" else (jax.jit(evaluate),):
        for batch in (jnp.arange(2), jnp.array([4, 4, 1])):
            seen = look(corrected, origin, minibatch(corrected, DATA, batch))
            assert_same(seen.gradient, corrected.center_gradient)
            without = look(plain, origin, minibatch(plain, DATA, batch)).gradient
            assert distance(without, seen.gradient) > 0.03


@pytest.mark.parametrize("shape", LOSSES)
def test_the_full_gradient_is_that_of_all_of_the_data_in_any_number_of_pieces(shape, monkeypatch):
    with jax.enable_x64(True):
        plain = slt.localise(LOSSES[shape], CENTER, DATA)
        exact = full_gradient(plain, DATA, plain.restriction.origin(CENTER))
        for pieces in (5, 2, 1):
            monkeypatch.setattr(loss, "CENTER_CHUNK", pieces)
            jax.clear_caches()
            assert_same(with_control_variates(plain, DATA).center_gradient, exact, rtol=1e-12, atol=1e-14)


def test_examples_from_anywhere_are_paired_with_their_gradient_and_batches_are_left_alone():
    corrected = with_control_variates(slt.localise(network, CENTER, DATA), DATA)
    index = jnp.array([3, 0, 3])
    looked_up = minibatch(corrected, DATA, index)
    computed = pair(corrected, loss.take(DATA, index))
    assert_same(looked_up, computed, rtol=1e-5)
    assert pair(corrected, looked_up) is looked_up
    z = displacement(corrected)
    bare = Batch(looked_up.examples, looked_up.center_losses)
    without = evaluate(corrected._replace(center_gradient=()), z, looked_up)
    assert_same(evaluate(corrected, z, bare), without)


def test_excess_loss_and_noise_are_those_of_the_batch():
    plain = slt.localise(network, CENTER, DATA)
    corrected = with_control_variates(plain, DATA)
    z, index = displacement(plain), jnp.array([0, 1, 4])
    left, right = (evaluate(p, z, minibatch(p, DATA, index)) for p in (plain, corrected))
    assert_same(left._replace(gradient=()), right._replace(gradient=()), rtol=1e-6)
    assert distance(left.gradient, right.gradient) > 0.03


def flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def test_nothing_is_computed_for_what_was_not_asked_for():
    """On all of the data, and without control variates, a step costs to the flop what it did; with them it is more."""
    calls = []

    def counted(params, batch):
        calls.append(loss.example_count(batch))
        return network(params, batch)

    plain = slt.localise(counted, CENTER, DATA)
    corrected = with_control_variates(plain, DATA)
    z, index = displacement(plain), jnp.arange(2)
    assert plain.center_gradient == minibatch(plain, DATA, index).center_gradient == ()
    assert full_batch(corrected, DATA).center_gradient == ()
    calls.clear()
    minibatch(plain, DATA, index)
    assert calls == []
    minibatch(corrected, DATA, index)
    assert calls == [2]
    whole = full_batch(plain, DATA)
    assert flops(evaluate, corrected, z, whole) == flops(evaluate, plain, z, whole)
    assert_same(evaluate(corrected, z, whole), evaluate(plain, z, whole))

    def step(posterior, z, index):
        return evaluate(posterior, z, minibatch(posterior, DATA, index))

    assert flops(step, corrected, z, index) > 1.3 * flops(step, plain, z, index)


def test_it_works_inside_jit_vmap_and_scan_and_one_compilation_serves_a_sweep():
    centers = jax.tree.map(lambda leaf: jnp.stack([leaf, 1.5 * leaf, leaf - 1.0]).astype(jnp.float32), CENTER)

    def build(center):
        return with_control_variates(slt.localise(network, center, DATA, 10.0), DATA)

    mapped = jax.jit(jax.vmap(build))(centers)
    second = build(jax.tree.map(lambda leaf: leaf[1], centers))
    assert_same(
        jax.tree.map(lambda leaf: leaf[1], mapped.center_gradient), second.center_gradient, rtol=1e-5, atol=1e-6
    )

    @jax.jit
    def chain(key, posterior):
        return slt.sample(key, slt.samplers.sgld(1e-3), posterior, DATA, draws=5, chains=2, batch_size=3).excess

    swept = jax.vmap(chain, in_axes=(None, 0))(jax.random.key(0), mapped)
    assert bool(jnp.isfinite(swept).all())
    assert_same(swept[1], chain(jax.random.key(0), second), rtol=1e-3, atol=1e-6)
    warmer = second._replace(nbeta=2 * second.nbeta)
    with compilations() as compiled:
        chain(jax.random.key(0), warmer).block_until_ready()
    assert compiled == []


def test_the_measured_noise_is_the_trace_of_the_covariance():
    """Unbiased, with and without correction; another normalisation would show."""
    data = {"x": jnp.asarray(DATA["x"], jnp.float32), "y": jnp.asarray(DATA["y"], jnp.float32)}
    plain = slt.localise(network, jax.tree.map(jnp.float32, CENTER), data)
    z = displacement(plain)
    keys = jax.random.split(jax.random.key(7), 5000)
    for posterior in (plain, with_control_variates(plain, data)):
        one = spread(gradients(posterior, data, z, jnp.arange(5)[:, None]))
        measured = jax.jit(jax.vmap(lambda key, p=posterior: gradient_noise(key, p, data, z, 3)))(keys)
        error = float(measured.std()) / len(keys) ** 0.5
        assert deviation(measured.mean(), error, one / 3) < 4
        assert deviation(measured.mean(), error, one / 4) > 8


def test_there_is_no_noise_at_the_centre_and_none_on_all_of_the_data(key):
    plain = slt.localise(regression, jnp.float32(0.0), CENTRED)
    corrected = with_control_variates(plain, CENTRED)
    origin = jnp.float32(0.0)
    assert float(gradient_noise(key, plain, CENTRED, origin, 10)) > 0
    assert float(gradient_noise(key, corrected, CENTRED, origin, 10)) == 0
    assert float(gradient_noise(key, plain, CENTRED, origin, 256)) == 0


INPUTS = DRAW.normal(size=(1000, 4)).astype(np.float32)
TARGETS = (INPUTS @ np.arange(4.0) + DRAW.normal(size=1000)).astype(np.float32)


def noisy_regression(weights, batch):
    return 0.5 * (batch[0] @ weights - batch[1]) ** 2


def test_a_chain_on_batches_of_noisy_data_is_no_longer_heated():
    """Half of the inverse curvature a step: batches of 50 add about ``nβ σ² / 8 b``, a third, without correction."""
    data = (jnp.asarray(INPUTS), jnp.asarray(TARGETS))
    best = np.linalg.lstsq(INPUTS, TARGETS, rcond=None)[0]
    plain = slt.localise(noisy_regression, jnp.asarray(best), data)
    corrected = with_control_variates(plain, data)
    curvatures = np.linalg.eigvalsh(INPUTS.T @ INPUTS / 1000)
    sampler = slt.samplers.sgld(0.5 / float(plain.nbeta * curvatures.max() + plain.gamma))
    settings = {"draws": 1000, "chains": 8, "burnin": 50, "thin": 2}

    def measure(posterior, batch_size):
        trace = slt.sample(jax.random.key(0), sampler, posterior, data, batch_size=batch_size, **settings)
        energy = posterior.nbeta * trace.excess
        return float(energy.mean()), float(jax.jit(diagnostics.mcse)(energy))

    whole, cooled, heated = measure(plain, None), measure(corrected, 50), measure(plain, 50)
    exact = 0.5 * np.sum(plain.nbeta * curvatures / (plain.nbeta * curvatures + plain.gamma))
    assert deviation(*whole, exact) < 3
    assert abs(cooled[0] - whole[0]) < 3 * np.hypot(cooled[1], whole[1])
    assert heated[0] - whole[0] > 6 * np.hypot(heated[1], whole[1])


def test_around_an_anchor_the_mean_is_the_full_gradient_and_at_it_there_is_no_noise(key):
    """Far from the centre as near it; around the centre the same place is noisy."""
    data = {"x": jnp.asarray(DATA["x"], jnp.float32), "y": jnp.asarray(DATA["y"], jnp.float32)}
    plain = slt.localise(network, jax.tree.map(jnp.float32, CENTER), data)
    z = displacement(plain, 5.0)
    beside = jax.tree.map(lambda leaf: 1.01 * leaf, z)
    central, anchored = with_control_variates(plain, data), with_control_variates(plain, data, z)
    keys = jax.random.split(key, 200)

    def noise(posterior, place):
        return float(jax.vmap(lambda k: gradient_noise(k, posterior, data, place, 3))(keys).mean())

    assert noise(anchored, z) == 0.0
    assert noise(anchored, beside) < 0.01 * noise(central, beside)
    assert noise(anchored, plain.restriction.origin(plain.center)) > 0, "at the centre it is the centre that is quiet"
    for place in (z, beside, plain.restriction.origin(plain.center)):
        exact = full_gradient(plain, data, place)
        every = gradients(anchored, data, place, jnp.arange(5)[:, None])
        mean = jax.tree.map(lambda leaf: leaf.mean(axis=0), every)
        assert_same(mean, exact, rtol=1e-3, atol=1e-4)


def test_other_data_are_refused_and_batch_sizes_out_of_range(key):
    posterior = slt.localise(network, CENTER, DATA)
    mean = slt.localise(LOSSES["mean"], CENTER, DATA)
    part = loss.take(DATA, jnp.arange(3))
    for made in (posterior, mean):
        with pytest.raises(ValueError, match="data: got 3 examples, but the posterior was made with 5"):
            with_control_variates(made, part)
    with pytest.raises(ValueError, match="data: got 3 examples"):
        jax.jit(lambda p: with_control_variates(p, part))(posterior)
    for size in (0, 6, True, 2.0):
        with pytest.raises(ValueError, match=rf"batch_size: got {size}; pass an integer between 1 and 5"):
            gradient_noise(key, posterior, DATA, posterior.center, size)


def test_a_gradient_that_is_not_finite_is_refused_with_its_leaf():
    posterior = slt.localise(lambda w, x: jnp.sqrt(w["b"] ** 2) * x, {"b": jnp.zeros(())}, jnp.ones(4))
    with pytest.raises(ValueError, match="loss_fn: its gradient at the centre is not finite in leaf 'b' of z"):
        with_control_variates(posterior, jnp.ones(4))
    assert np.isnan(jax.jit(with_control_variates)(posterior, jnp.ones(4)).center_gradient["b"])


def test_single_precision_stays_single_where_wide_numbers_are_around():
    with jax.enable_x64(True):
        posterior = with_control_variates(slt.localise(quadratic, ORIGIN, np.asarray(BASELINE, np.float64)), BASELINE)
        seen = evaluate(posterior, ORIGIN, minibatch(posterior, BASELINE, jnp.arange(4)))
        narrow = {leaf.dtype for leaf in jax.tree.leaves((posterior.center_gradient, seen.gradient))}
        assert narrow == {np.dtype("float32")}
