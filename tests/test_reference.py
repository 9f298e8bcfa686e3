"""The network's own answers as the truth: every centre is a minimum, and λ there is that of its own function."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from laws import assert_same, compilations, deviation

import slt_jax as slt
from slt_jax import loss
from slt_jax.posterior import evaluate
from slt_jax.problem import Problem
from slt_jax.reference import Referenced, categorical_divergence, self_reference
from slt_jax.spectroscopy import Checkpoint, Probe, Subject, scan
from slt_jax.spectroscopy.subject import check_subject

RNG = np.random.default_rng(0)
EPSILON = np.finfo(np.float32).eps


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def linear(layers, inputs):
    """A deep linear network, answers ``(B, outputs)``."""
    for layer in layers:
        inputs = inputs @ layer
    return inputs


def perceptron(params, inputs):
    return jnp.tanh(inputs @ params["first"]) @ params["second"]


def tokens(params, inputs):
    """Answers at three places of a sequence, ``(B, 3, V)``."""
    return perceptron(params, inputs)[:, None, :] * jnp.array([1.0, 2.0, 0.5])[None, :, None]


INPUTS = draw(50, 3)
PERCEPTRON = {"first": draw(3, 5), "second": draw(5, 4)}
NEAR = jax.tree.map(lambda leaf: leaf + 1e-3 * draw(*leaf.shape), PERCEPTRON)
FAR = jax.tree.map(lambda leaf: leaf + draw(*leaf.shape), PERCEPTRON)
BOTH = pytest.mark.parametrize("divergence", ["squared", "categorical"])


def formula(reference, logits):
    """``Σ p (log p - log q)``."""
    log_p, log_q = jax.nn.log_softmax(reference), jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


# --- the divergence


@pytest.mark.parametrize("distance", [1e-2, 0.3, 1.0, 10.0, 100.0])
def test_the_divergence_in_single_precision_is_the_formula_in_double(distance):
    reference = draw(40, 7)
    logits = reference + np.float32(distance) * draw(40, 7)
    with jax.enable_x64(True):
        wide = [jnp.asarray(value, jnp.float64) for value in (reference, logits)]
        exact = np.asarray(formula(*wide))
        np.testing.assert_allclose(categorical_divergence(*wide), exact, rtol=1e-9)
        assert categorical_divergence(*wide).dtype == jnp.float64
    found = categorical_divergence(reference, logits)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact, rtol=16 * EPSILON)
    if distance < 0.1:
        assert np.abs(formula(reference, logits) / exact - 1).max() > 1e-4


@pytest.mark.parametrize("distance", [1e-3, 1e-5, 1e-7])
def test_the_divergence_keeps_its_precision_where_the_formula_has_lost_all_digits(distance):
    reference = draw(40, 7)
    logits = reference + np.float32(distance) * draw(40, 7)
    change = (logits.astype(np.float64) - reference).astype(np.float64)
    p = np.exp(reference.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    change -= (p * change).sum(axis=1, keepdims=True)
    exact = np.log1p((p * (change**2 / 2 + change**3 / 6 + change**4 / 24)).sum(axis=1))
    np.testing.assert_allclose(categorical_divergence(reference, logits), exact, rtol=16 * EPSILON)
    assert np.abs(formula(reference, logits) / exact - 1).max() > 0.1


def test_the_gradient_of_the_divergence_is_the_change_of_the_probabilities_however_small():
    reference = draw(7)
    logits = reference + 1e-5 * draw(7)
    gradient = jax.grad(categorical_divergence, argnums=1)
    with jax.enable_x64(True):
        wide = [jnp.asarray(value, jnp.float64) for value in (reference, logits)]
        exact = np.asarray(jax.nn.softmax(wide[1]) - jax.nn.softmax(wide[0]))
        for argument in (0, 1):
            by_formula, own = (
                jax.jit(jax.grad(function, argnums=argument))(wide[0], 3 * wide[1])
                for function in (formula, categorical_divergence)
            )
            np.testing.assert_allclose(own, by_formula, rtol=1e-10)
        q = np.asarray(jax.nn.softmax(wide[1]))
        fisher = np.diag(q) - np.outer(q, q)
        hessian = jax.jit(jax.hessian(categorical_divergence, argnums=1))(*wide)
        np.testing.assert_allclose(hessian, fisher, atol=1e-12)
    scale = np.abs(exact).max()
    np.testing.assert_allclose(gradient(reference, logits), exact, atol=16 * EPSILON * scale)
    by_formula = jax.grad(formula, argnums=1)(reference, logits)
    assert np.abs(by_formula - exact).max() > 1e-4 * scale


@pytest.mark.parametrize("size", [50.0, 1e3, 1e6])
def test_logits_that_are_far_apart_overflow_nothing(size):
    reference = jnp.array([[size, 0.0, 0.0], [0.0, size, 0.0], [0.0, 0.0, 0.0], [0.0, -1e30, 0.0]])
    logits = jnp.array([[0.0, size, 0.0], [0.0, 0.0, -size], [size, 0.0, 0.0], [1.0, -1e30, 0.0]])
    exact = [size, np.log(2), 2 / 3 * size - np.log(3), np.log((1 + np.e) / 2) - 0.5]
    np.testing.assert_allclose(categorical_divergence(reference, logits), exact, rtol=1e-5)
    gradient = jax.grad(lambda logits: categorical_divergence(reference, logits).sum())(logits)
    np.testing.assert_allclose(gradient, jax.nn.softmax(logits) - jax.nn.softmax(reference), atol=1e-6)
    assert not np.isfinite(jnp.log(jnp.mean(jnp.exp(1e3 * jnp.ones(3))))), "what the plain mean would do"


@pytest.mark.parametrize("count", [50, 5000])
def test_chains_side_by_side_are_as_if_alone(count):
    """Some compilers get sums of products wrong where one factor is shared by the chains and the arrays are large."""
    inputs = draw(count, 3)
    chains = jax.tree.map(lambda leaf: leaf + 0.3 * draw(4, *leaf.shape), PERCEPTRON)
    directions = jax.tree.map(lambda leaf: draw(*leaf.shape), chains)
    for divergence in ("squared", "categorical"):
        problem = self_reference(perceptron, PERCEPTRON, inputs, divergence=divergence)

        def looked_at(params, direction, data, loss_fn=problem.loss_fn):
            def mean(params):
                return jnp.mean(loss_fn(params, data))

            return jax.value_and_grad(mean)(params), jax.jvp(jax.grad(mean), (params,), (direction,))[1]

        together = jax.jit(jax.vmap(looked_at, (0, 0, None)))(chains, directions, problem.data)
        for index in range(4):
            params, direction = jax.tree.map(lambda leaf, index=index: leaf[index], (chains, directions))
            alone = jax.jit(looked_at)(params, direction, problem.data)
            assert_same(jax.tree.map(lambda leaf, index=index: leaf[index], together), alone, rtol=1e-3, atol=1e-5)


# --- the problem


@BOTH
@pytest.mark.parametrize("outputs", [perceptron, tokens])
def test_the_loss_is_0_at_the_centre_and_nowhere_negative(divergence, outputs):
    problem = self_reference(outputs, PERCEPTRON, INPUTS, divergence=divergence)
    losses = problem.loss_fn(PERCEPTRON, problem.data)
    # two compilations may round an answer differently
    assert np.abs(losses).max() <= (16 * EPSILON * np.abs(outputs(PERCEPTRON, INPUTS)).max()) ** 2
    assert losses.dtype == jnp.float32
    expected = (50, 3) if (divergence, outputs) == ("categorical", tokens) else (50,)
    assert loss.check(*problem) == losses.shape == expected
    for params in (NEAR, FAR):
        found = problem.loss_fn(params, problem.data)
        assert (np.asarray(found) > 0).all()
    assert found.max() > 0.1


@BOTH
def test_the_excess_of_a_small_step_keeps_single_precision(divergence):
    narrow = self_reference(perceptron, PERCEPTRON, INPUTS, divergence=divergence)
    losses = narrow.loss_fn(NEAR, narrow.data)
    with jax.enable_x64(True):
        center, near, inputs = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (PERCEPTRON, NEAR, INPUTS))
        wide = self_reference(perceptron, center, inputs, divergence=divergence)
        exact = np.asarray(wide.loss_fn(near, wide.data))
    # K ~ 1e-6 from answers of size 1: a rounding δ of an answer moves K by δ sqrt(2 K)
    answers = np.abs(perceptron(PERCEPTRON, INPUTS)).max()
    assert (np.abs(losses - exact) <= 16 * EPSILON * answers * np.sqrt(2 * exact) + 1e-12).all()
    assert exact.mean() < 1e-4


@BOTH
def test_to_second_order_the_divergence_is_half_the_fisher_metric(divergence):
    with jax.enable_x64(True):
        center, inputs = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (PERCEPTRON, INPUTS))
        direction = jax.tree.map(jnp.asarray, jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape), PERCEPTRON))
        problem = self_reference(perceptron, center, inputs, divergence=divergence)
        answers, push = jax.jvp(lambda params: perceptron(params, inputs), (center,), (direction,))
        probabilities = jax.nn.softmax(answers)
        fisher = jnp.sum(probabilities * push**2, axis=1) - jnp.sum(probabilities * push, axis=1) ** 2
        metric = {"squared": jnp.sum(push**2, axis=1), "categorical": fisher}
        other = metric["categorical" if divergence == "squared" else "squared"]

        def error(step, metric):
            moved = jax.tree.map(lambda leaf, change: leaf + step * change, center, direction)
            return np.abs(problem.loss_fn(moved, problem.data) / (0.5 * step**2 * metric) - 1).max()

        steps = (1e-3, 1e-4, 1e-5)
        errors = [error(step, metric[divergence]) for step in steps]
        assert error(1e-5, other) > 0.1
    # the next order is cubic: the error falls in proportion to the step
    np.testing.assert_allclose(np.log10(errors[:-1]) - np.log10(errors[1:]), 1, atol=0.05)


def test_losses_are_summed_over_the_leaves_of_the_outputs():
    def two(params, inputs):
        return {"a": perceptron(params, inputs), "b": perceptron(params, 2 * inputs)[:, :2]}

    def one_of(name, params, inputs):
        return two(params, inputs)[name]

    for divergence in ("squared", "categorical"):
        problem = self_reference(two, PERCEPTRON, INPUTS, divergence=divergence)
        single = [
            self_reference(partial(one_of, name), PERCEPTRON, INPUTS, divergence=divergence) for name in ("a", "b")
        ]
        parts = [one.loss_fn(FAR, one.data) for one in single]
        assert_same(problem.loss_fn(FAR, problem.data), parts[0] + parts[1], rtol=1e-5)
        assert np.abs(parts[1]).min() > 0


def test_answers_in_half_precision_are_compared_in_single():
    def half(params, inputs):
        return perceptron(params, inputs).astype(jnp.bfloat16)

    problem = self_reference(half, PERCEPTRON, INPUTS, divergence="categorical")
    assert problem.data.outputs.dtype == problem.loss_fn(FAR, problem.data).dtype == jnp.float32
    np.testing.assert_array_equal(problem.loss_fn(PERCEPTRON, problem.data), 0)


def test_the_stored_answers_are_computed_in_pieces_and_are_constants():
    inputs = draw(2 * loss.CENTER_CHUNK + 5, 3)
    problem = self_reference(perceptron, PERCEPTRON, inputs)
    np.testing.assert_allclose(problem.data.outputs, perceptron(PERCEPTRON, inputs), rtol=1e-5, atol=1e-6)
    assert isinstance(problem.data, Referenced)
    assert problem.data.examples is inputs

    def of_both(center, params):
        problem = self_reference(perceptron, center, INPUTS)
        return jnp.mean(problem.loss_fn(params, problem.data))

    by_center, by_params = jax.grad(of_both, argnums=(0, 1))(PERCEPTRON, FAR)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(by_center))
    assert all((np.asarray(leaf) != 0).any() for leaf in jax.tree.leaves(by_params))


@BOTH
def test_one_compilation_serves_all_centres_and_all_of_it_can_be_jitted(divergence):
    value = jax.jit(lambda problem, params: problem.loss_fn(params, problem.data))
    first = self_reference(perceptron, PERCEPTRON, INPUTS, divergence=divergence)
    expected = value(first, FAR)
    with compilations() as seen:
        second = self_reference(perceptron, NEAR, INPUTS, divergence=divergence)
        value(second, FAR)
    assert seen == []
    with compilations() as seen:
        value(self_reference(lambda *both: perceptron(*both), NEAR, INPUTS, divergence=divergence), FAR)
    assert len(seen) > 0

    @jax.jit
    def inside(center, params):
        problem = self_reference(perceptron, center, INPUTS, divergence=divergence)
        return problem.loss_fn(params, problem.data)

    np.testing.assert_allclose(inside(PERCEPTRON, FAR), expected, rtol=1e-5)


# --- the learning coefficient


def rank_of(outputs, params, inputs):
    """The rank of the Jacobian of the answers, in double precision."""
    with jax.enable_x64(True):
        params, inputs = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (params, inputs))
        jacobian = jax.jacobian(lambda params: outputs(params, inputs).ravel())(params)
        matrix = np.concatenate([np.asarray(leaf).reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(jacobian)], 1)
    singular = np.linalg.svd(matrix, compute_uv=False)
    return int((singular > 1e-9 * singular[0]).sum())


def random_network(widths):
    """Inputs and layers that no training has seen."""
    rng = np.random.default_rng(sum(widths))
    inputs = rng.normal(size=(1000, widths[0])).astype(np.float32)
    layers = [(rng.normal(size=shape) / shape[0] ** 0.5).astype(np.float32) for shape in pairwise(widths)]
    return layers, inputs


@pytest.mark.parametrize("widths", [(3, 2, 3), (4, 6, 3)])
def test_at_a_random_centre_of_a_linear_network_the_coefficient_is_half_the_rank_of_the_jacobian(key, widths):
    layers, inputs = random_network(widths)
    exact = rank_of(linear, layers, inputs[:30]) / 2
    assert exact == float(slt.truths.deep_linear(widths, min(widths)).learning_coefficient)
    estimate = slt.llc(key, *self_reference(linear, layers, inputs), nbeta=1e4)
    assert deviation(estimate.value, estimate.std_error, exact) < 4
    assert estimate.std_error < 0.05 * exact
    assert bool(estimate.health.ok), estimate.health.explain()


def test_the_plain_loss_at_a_random_centre_is_negative_and_says_so(key):
    layers, inputs = random_network((3, 2, 3))

    def plain(layers, batch):
        return 0.5 * jnp.sum((linear(layers, batch[0]) - batch[1]) ** 2, axis=1)

    targets = inputs @ draw(3, 3)
    estimate = slt.llc(key, plain, layers, (inputs, targets), nbeta=1e4, draws=500, burnin=500)
    assert float(estimate.value) < 0
    assert not bool(estimate.health.checks["minimum"])
    assert not bool(estimate.health.ok)


def by_hand(nbeta):
    """A sampler for curvatures up to about 1: nothing to be found on the way compiles in half of the time."""
    return {"sampler": slt.samplers.underdamped(0.3 / nbeta**0.5, friction=0.1), "draws": 3000, "burnin": 500}


def test_of_logits_the_coefficient_is_half_the_rank_of_the_fisher_information(key):
    inputs, weights = np.random.default_rng(1).normal(size=(1000, 3)).astype(np.float32), draw(3, 4)

    def logits(weights, inputs):
        return inputs @ weights

    # a constant added to all logits changes no probability: (4 - 1) columns of 3 weights
    exact = rank_of(lambda w, x: jax.nn.softmax(logits(w, x)), weights, inputs[:30]) / 2
    assert exact == 4.5
    problem = self_reference(logits, weights, inputs, divergence="categorical")
    estimate = slt.llc(key, *problem, nbeta=1e4, **by_hand(1e4))
    assert deviation(estimate.value, estimate.std_error, exact) < 4
    assert deviation(estimate.value, estimate.std_error, rank_of(logits, weights, inputs[:30]) / 2) > 4


def test_at_a_true_minimum_of_a_regression_both_references_agree_and_elsewhere_they_do_not(key):
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(1000, 4)).astype(np.float32)
    targets = (inputs @ rng.normal(size=(4, 2)) + rng.normal(size=(1000, 2))).astype(np.float32)

    def answers(weights, batch):
        return batch[0] @ weights

    def plain(weights, batch):
        return 0.5 * jnp.sum((answers(weights, batch) - batch[1]) ** 2, axis=1)

    best = np.linalg.lstsq(inputs.astype(np.float64), targets.astype(np.float64), rcond=None)[0].astype(np.float32)
    data, short = (inputs, targets), {"nbeta": 100.0, **by_hand(100.0)}
    own = slt.llc(key, *self_reference(answers, best, data), **short)
    of_loss = slt.llc(key, plain, best, data, **short)
    error = np.hypot(own.std_error, of_loss.std_error)
    assert deviation(own.value, error, of_loss.value) < 4
    assert deviation(own.value, own.std_error, 4.0) < 4
    elsewhere = best + 0.1
    away = slt.llc(key, *self_reference(answers, elsewhere, data), **short)
    assert deviation(away.value, away.std_error, 4.0) < 4
    of_loss = slt.llc(key, plain, elsewhere, data, **short)
    assert deviation(away.value, np.hypot(away.std_error, of_loss.std_error), of_loss.value) > 4


def test_the_coefficient_is_never_negative_at_any_centre_one_program_for_all(key):
    centers = jax.tree.map(lambda *leaves: jnp.stack(leaves), PERCEPTRON, NEAR, FAR)

    @jax.jit
    def coefficients(centers):
        def at(center):
            problem = self_reference(perceptron, center, INPUTS, divergence="categorical")
            return slt.llc(key, *problem, chains=2, draws=100, burnin=100).per_chain

        return jax.vmap(at)(centers)

    found = coefficients(centers)
    assert found.shape == (3, 2)
    assert (np.asarray(found) > 0).all()


# --- in a scan


def integer_labels(params, batch):
    """A loss that cannot take probabilities as targets."""
    return optax.softmax_cross_entropy_with_integer_labels(perceptron(params, batch[0]), batch[1])


def answers(params, batch):
    return perceptron(params, batch[0])


def downhill(key, problem, restriction):
    """The excess after a step down the gradient of all that is measured, from beside the centre: a cheap probe."""
    posterior = slt.localise(*problem)
    batch = slt.full_batch(posterior, problem.data)
    beside = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-3), posterior.center)
    slope = evaluate(posterior, beside, batch).gradient
    moved = jax.tree.map(lambda position, change: position - 0.1 * change, beside, slope)
    return {"value": np.asarray(evaluate(posterior, moved, batch).excess)}


def scanned(relabel, points, finished=None):
    data = (jnp.asarray(INPUTS), jnp.arange(50) % 4)
    subject = Subject(Problem(integer_labels, PERCEPTRON, data), relabel=relabel)
    check_subject(subject)
    checkpoints = [Checkpoint(step, partial(dict, params)) for step, params in points.items()]
    return list(scan(jax.random.key(0), subject, checkpoints, {"downhill": Probe(downhill, {})}, finished=finished))


def test_a_scan_takes_the_network_s_own_answers_whatever_labels_its_loss_wants():
    own = jax.jit(partial(self_reference, answers, divergence="categorical"))
    points = {1: PERCEPTRON, 2: jax.tree.map(lambda leaf: leaf * np.float32(np.nan), PERCEPTRON), 3: FAR}
    finished = {}
    cells = scanned(own, points, finished)
    assert [cell.error is None for cell in cells] == [True, False, True]
    assert "50 of 50 losses at params are not finite" in cells[1].error
    assert all(cell.reading["value"] > 0 for cell in (cells[0], cells[2]))
    plain = scanned(None, {3: FAR}, finished)[0].reading
    assert plain["value"] < 0
    assert len(finished) == 3


def test_a_scan_tells_two_references_apart_and_knows_one_again():
    finished = {}
    for outputs, divergence, count in (
        (answers, "categorical", 1),
        (answers, "squared", 2),
        (lambda params, batch: 2 * answers(params, batch), "squared", 3),
        (lambda params, batch: answers(params, batch), "squared", 3),
    ):
        scanned(jax.jit(partial(self_reference, outputs, divergence=divergence)), {1: PERCEPTRON}, finished)
        assert len(finished) == count


# --- refusals


def of(outputs, data=INPUTS, **settings):
    return lambda: self_reference(outputs, PERCEPTRON, data, **settings)


CATEGORICAL = {"divergence": "categorical"}
REFUSED = {
    "no function": (of(3), "outputs: got a int; pass a function"),
    "an unknown divergence": (
        of(perceptron, divergence="kl"),
        r"divergence: got 'kl'; it must be one of \['categorical', 's",
    ),
    "a mean": (of(lambda w, x: jnp.mean(x)), r"outputs: returned shape \(\) on data of 50 examples; the leading axis"),
    "no example axis": (of(lambda w, x: {"a": (x @ w["first"]).T}), r"outputs: leaf 'a' has shape \(5, 50\)"),
    "nothing": (of(lambda w, x: ()), "outputs: returned a tree without arrays"),
    "decisions": (of(lambda w, x: perceptron(w, x).argmax(axis=1)), "outputs: returned dtype int32; .*not decisions"),
    "no classes": (of(lambda w, x: perceptron(w, x)[:, 0], **CATEGORICAL), r"needs logits \(50, V\) or \(50, T, V\)"),
    "one class": (of(lambda w, x: perceptron(w, x)[:, :1], **CATEGORICAL), "at least 2 classes"),
    "logits at several places": (
        of(lambda w, x: (perceptron(w, x), tokens(w, x)), **CATEGORICAL),
        r"outputs: logits of shapes \{'0': \(50, 4\), '1': \(50, 3, 4\)\}; all must have the same axes",
    ),
    "the order of the arguments": (of(lambda x, w: perceptron(w, x)), r"outputs: failed on params of shapes \{'first'"),
    "no examples": (of(perceptron, data=INPUTS[:0]), "data: got 0 examples"),
    "answers that are not finite": (
        of(lambda w, x: jnp.log(perceptron(w, x))),
        r"outputs: the answers to \d+ of 50 examples at params are not finite; the first at example \d+",
    ),
    "masked logits": (
        of(lambda w, x: {"a": perceptron(w, x).at[7, 0].set(-jnp.inf)}, **CATEGORICAL),
        "the answers to 1 of 50 examples at params are not finite in leaf 'a'; the first at example 7.*not with -inf",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_reference_is_refused_in_words(case):
    function, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        function()


@BOTH
def test_what_is_not_refused_is_a_problem(divergence):
    assert isinstance(of(perceptron, divergence=divergence)(), Problem)


def test_inside_jit_nothing_raises_about_values():
    def broken(params, inputs):
        return jnp.log(-jnp.abs(perceptron(params, inputs)))

    outputs = jax.jit(lambda params: self_reference(broken, params, INPUTS).data.outputs)(PERCEPTRON)
    assert np.isnan(outputs).all()
