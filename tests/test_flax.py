"""Flax adapters: the loss is the module applied by hand, and the caller's model is never changed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from laws import assert_same

import slt_jax as slt
from slt_jax.flax import from_linen, from_nnx
from slt_jax.reference import self_reference
from slt_jax.spectroscopy import fingerprint

INPUTS = jnp.asarray(np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32))
LABELS = jnp.arange(12) % 3
BATCH = (INPUTS, LABELS)


def objective(outputs, batch):
    """Cross-entropy, nats per example."""
    return optax.softmax_cross_entropy_with_integer_labels(outputs, batch[1])


class Linen(linen.Module):
    """Everything that changes by itself: batch statistics and dropout."""

    width: int = 8

    @linen.compact
    def __call__(self, inputs, train=False):
        hidden = linen.BatchNorm(use_running_average=not train)(linen.Dense(self.width)(inputs))
        return linen.Dense(3)(linen.Dropout(0.5, deterministic=not train)(jnp.tanh(hidden)))


class Nnx(nnx.Module):
    """The same in nnx, in training mode as the user left it."""

    def __init__(self, seed, width=8):
        rngs = nnx.Rngs(seed)
        self.first = nnx.Linear(4, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(width, 3, rngs=rngs)

    def __call__(self, inputs):
        return self.last(self.dropout(jnp.tanh(self.norm(self.first(inputs)))))


def linen_variables(seed=0, width=8):
    module = Linen(width)
    variables = module.init(jax.random.key(seed), INPUTS)
    _, new = module.apply(variables, INPUTS, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(9)})
    return module, {**variables, **new}


def trained_nnx(seed=0, width=8):
    model = Nnx(seed, width)
    model(INPUTS)  # moves the statistics and the counter of dropout away from where they began
    return model


def contents(model):
    """Every variable of an nnx model as bytes, and its modes."""
    leaves = jax.tree.leaves(nnx.state(model))
    keys = [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in leaves]
    return [np.asarray(leaf).tobytes() for leaf in keys], model.norm.use_running_average, model.dropout.deterministic


def use(loss_fn, params):
    """Everything that a spectroscope does with a loss."""
    jax.jit(jax.grad(lambda p: jnp.mean(loss_fn(p, BATCH))))(params)
    return slt.llc(jax.random.key(0), loss_fn, params, BATCH, draws=5, burnin=5, chains=2)


def test_the_linen_loss_is_the_module_applied_by_hand():
    module, variables = linen_variables()
    loss_fn, params = from_linen(module, objective, variables, train=False)
    by_hand = objective(module.apply(variables, INPUTS, train=False), BATCH)
    assert_same(loss_fn(params, BATCH), by_hand)
    training, _ = module.apply(
        variables, INPUTS, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}
    )
    assert np.abs(objective(training, BATCH) - by_hand).max() > 1e-2


def test_the_nnx_loss_is_the_model_in_evaluation_mode():
    model = trained_nnx()
    loss_fn, params = from_nnx(model, objective)
    losses = loss_fn(params, BATCH)
    in_training = objective(nnx.clone(model)(INPUTS), BATCH)
    model.eval()
    assert_same(losses, objective(model(INPUTS), BATCH), rtol=1e-6)
    assert np.abs(in_training - losses).max() > 1e-2


def test_linen_variables_stay_as_they_are_byte_for_byte():
    module, variables = linen_variables()
    before = fingerprint.of_tree(variables)
    use(*from_linen(module, objective, variables, train=False))
    assert fingerprint.of_tree(variables) == before
    moved = jax.tree.map(lambda leaf: leaf + 1e-6, variables["batch_stats"])
    assert fingerprint.of_tree({**variables, "batch_stats": moved}) != before


def test_an_nnx_model_stays_as_it_is_byte_for_byte():
    model = trained_nnx()
    before = contents(model)
    use(*from_nnx(model, objective))
    assert contents(model) == before
    assert before[1:] == (False, False)
    model(INPUTS)
    assert contents(model) != before


def test_dropout_is_off_or_fixed_by_a_key():
    module, variables = linen_variables()
    off, params = from_linen(module, objective, variables, train=False)
    assert_same(off(params, BATCH), off(params, BATCH))

    class Noisy(linen.Module):
        @linen.compact
        def __call__(self, inputs):
            return linen.Dense(3)(linen.Dropout(0.5, deterministic=False)(inputs))

    noisy = Noisy()
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = noisy.init(keys, INPUTS)
    fixed, params = from_linen(noisy, objective, variables, rngs={"dropout": jax.random.key(2)})
    other, _ = from_linen(noisy, objective, variables, rngs={"dropout": jax.random.key(3)})
    assert_same(fixed(params, BATCH), fixed(params, BATCH))
    assert np.abs(fixed(params, BATCH) - other(params, BATCH)).max() > 1e-2
    # the keys are part of what the loss computes
    assert fingerprint.of_loss(fixed, params, BATCH) != fingerprint.of_loss(other, params, BATCH)


def test_the_statistics_of_batch_normalisation_are_no_parameters():
    module, variables = linen_variables()
    _, params = from_linen(module, objective, variables, train=False)
    assert_same(params, variables["params"])
    _, params = from_nnx(trained_nnx(), objective)
    assert sorted(params["norm"]) == ["bias", "scale"]
    assert "dropout" not in params


def test_a_bound_module_needs_no_variables():
    module, variables = linen_variables()
    bound, params = from_linen(module.bind(variables), objective, train=False)
    loose, _ = from_linen(module, objective, variables, train=False)
    assert_same(bound(params, BATCH), loose(params, BATCH))


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_two_models_of_one_architecture_share_one_compilation(kind):
    traced = []

    def counted(outputs, batch):
        traced.append(outputs.shape)
        return objective(outputs, batch)

    def adapted(seed, width=8):
        if kind == "nnx":
            return from_nnx(trained_nnx(seed, width), counted)
        module, variables = linen_variables(seed, width)
        return from_linen(module, counted, variables, train=False)

    value = jax.jit(lambda loss_fn, params: loss_fn(params, BATCH))
    first, second = value(*adapted(0)), value(*adapted(1))
    assert len(traced) == 1
    assert np.abs(first - second).max() > 1e-2
    value(*adapted(0, width=5))
    assert len(traced) == 2


def test_the_inputs_are_found_in_tuples_dicts_and_arrays_or_by_a_function():
    module = linen.Dense(3)
    variables = module.init(jax.random.key(0), INPUTS)
    outputs = module.apply(variables, INPUTS)
    for batch, inputs in (
        (BATCH, None),
        ([INPUTS, LABELS], None),
        ({"inputs": INPUTS, "y": LABELS}, None),
        (INPUTS, None),
        ({"x": INPUTS}, lambda batch: batch["x"]),
    ):
        loss_fn, params = from_linen(module, lambda outputs, batch: outputs.sum(axis=1), variables, inputs=inputs)
        assert_same(loss_fn(params, batch), outputs.sum(axis=1))
    with pytest.raises(ValueError, match=r"without 'inputs' \(\['x'\]\); pass inputs="):
        slt.llc(jax.random.key(0), *from_linen(module, objective, variables), {"x": INPUTS})


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_without_an_objective_the_outputs_come_with_everything_but_the_parameters_frozen(kind):
    if kind == "nnx":
        model = trained_nnx()
        outputs, params = from_nnx(model)
        loss_fn, _ = from_nnx(model, objective)
        before = contents(model)
    else:
        module, variables = linen_variables()
        outputs, params = from_linen(module, variables=variables, train=False)
        loss_fn, _ = from_linen(module, objective, variables, train=False)
        before = fingerprint.of_tree(variables)
    assert outputs(params, BATCH).shape == (12, 3)
    assert_same(objective(outputs(params, BATCH), BATCH), loss_fn(params, BATCH))
    problem = self_reference(outputs, params, BATCH, divergence="categorical")
    # a half of the batch has other statistics, which must not be used
    half = jax.tree.map(lambda leaf: leaf[:6], problem.data)
    np.testing.assert_allclose(problem.loss_fn(params, half), 0, atol=1e-12)
    moved = jax.tree.map(lambda leaf: leaf + 0.1, params)
    assert problem.loss_fn(moved, half).min() > 1e-6
    jax.jit(jax.grad(lambda p: jnp.mean(problem.loss_fn(p, problem.data))))(params)
    assert before == (contents(model) if kind == "nnx" else fingerprint.of_tree(variables))


def test_the_outputs_in_training_mode_are_no_reference():
    class Training(linen.Module):
        @linen.compact
        def __call__(self, inputs):
            return linen.Dense(3)(inputs - inputs.mean(axis=0, keepdims=True))

    module = Training()
    outputs, params = from_linen(module, variables=module.init(jax.random.key(0), INPUTS))
    problem = self_reference(outputs, params, BATCH)
    half = jax.tree.map(lambda leaf: leaf[:6], problem.data)
    assert problem.loss_fn(params, half).max() > 1e-4


LINEN, VARIABLES = linen.Dense(3), {"params": {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}}
BAD = {
    "no variables": (lambda: from_linen(LINEN, objective), "variables: got none and the module is not bound"),
    "only the parameters": (lambda: from_linen(LINEN, objective, VARIABLES["params"]), r"has no 'params', only \['bia"),
    "not variables": (lambda: from_linen(LINEN, objective, 3), "variables: got a int"),
    "nnx to linen": (lambda: from_linen(nnx.Linear(4, 3, rngs=nnx.Rngs(0)), objective, VARIABLES), "use from_nnx"),
    "linen to nnx": (lambda: from_nnx(LINEN, objective), "use from_linen"),
    "variables for an objective": (lambda: from_linen(LINEN, VARIABLES), "objective: got a dict; .*as variables="),
    "no objective for nnx": (lambda: from_nnx(nnx.Linear(4, 3, rngs=nnx.Rngs(0)), 3), "objective: got a int"),
    "no parameters": (lambda: from_nnx(nnx.Dropout(0.5, rngs=nnx.Rngs(0)), objective), "no nnx.Param"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_adapted_is_refused_in_words(case):
    function, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        function()


def test_an_objective_of_the_wrong_shape_is_refused_before_anything_is_compiled():
    loss_fn, params = from_linen(LINEN, lambda outputs, batch: outputs[:3, 0], VARIABLES)
    with pytest.raises(ValueError, match=r"loss_fn: returned shape \(3,\) on data of 12 examples"):
        slt.llc(jax.random.key(0), loss_fn, params, BATCH)
