"""Losses in pieces are the same losses in less memory; in bfloat16 the same coefficient, where rounding is not seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import regression
from laws import assert_same, compilations

import slt_jax as slt

KEYS = jax.random.split(jax.random.key(0), 4)
PARAMS = {"first": jax.random.normal(KEYS[0], (16, 256)) / 4, "second": jax.random.normal(KEYS[1], (256, 3)) / 16}
BATCH = (jax.random.normal(KEYS[2], (1000, 16)), jax.random.normal(KEYS[3], (1000, 3)))


def per_token(params, batch):
    hidden = jnp.tanh(batch[0] @ params["first"])
    return 0.5 * (jnp.tanh(hidden) @ params["second"] - batch[1]) ** 2


def per_example(params, batch):
    return jnp.mean(per_token(params, batch), axis=1)


def mean(params, batch):
    return jnp.mean(per_token(params, batch))


def gradient(loss_fn):
    return jax.jit(jax.grad(lambda params, batch: jnp.mean(loss_fn(params, batch))))


@pytest.mark.parametrize("loss_fn", [per_token, per_example, mean])
@pytest.mark.parametrize("size", [100, 300, 2000])
def test_pieces_give_the_same_losses_and_gradients(loss_fn, size):
    """Where they divide the examples, where they do not, and where one piece is all."""
    cut = slt.in_pieces(loss_fn, size)
    assert_same(jax.jit(cut)(PARAMS, BATCH), jax.jit(loss_fn)(PARAMS, BATCH), rtol=1e-5)
    assert_same(gradient(cut)(PARAMS, BATCH), gradient(loss_fn)(PARAMS, BATCH), rtol=1e-4, atol=1e-7)


def test_the_gradient_of_pieces_takes_less_memory():
    def bytes_of(loss_fn):
        return gradient(loss_fn).lower(PARAMS, BATCH).compile().memory_analysis().temp_size_in_bytes

    whole, cut = bytes_of(per_example), bytes_of(slt.in_pieces(per_example, 50))
    activations = 1000 * 256 * 4
    assert whole > activations
    assert cut < 0.3 * activations
    assert bytes_of(slt.in_pieces(per_example, 2000)) > activations, "one piece saves nothing"


def test_the_same_pieces_are_compiled_once():
    run = jax.jit(lambda loss_fn: loss_fn(PARAMS, BATCH))
    run(slt.in_pieces(per_example, 100))
    with compilations() as compiled:
        run(slt.in_pieces(per_example, 100))
    assert compiled == []


def test_bfloat16_rounds_what_is_computed_and_not_what_comes_out():
    labels = jnp.arange(1000)

    def seen(params, batch):
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
        assert (batch[0].dtype, batch[1].dtype) == (jnp.bfloat16, labels.dtype)
        return batch[0][:, 0] * params["first"][0, 0]

    losses = slt.in_bfloat16(seen)(PARAMS, (BATCH[0], labels))
    assert losses.dtype == jnp.float32
    rounded = gradient(slt.in_bfloat16(per_example))(PARAMS, BATCH)
    for here, there in zip(*map(jax.tree.leaves, (rounded, gradient(per_example)(PARAMS, BATCH))), strict=True):
        assert here.dtype == jnp.float32
        assert 0 < float(jnp.max(jnp.abs(here - there))) < 0.05 * float(jnp.max(jnp.abs(there)))


def test_the_coefficient_in_bfloat16_is_exact_until_the_temperature_sees_the_rounding():
    """Bayesian regression, ``λ = ½ Σ nβ h / (nβ h + γ)``; at a thousand times nβ it is far from that."""
    rough = slt.in_bfloat16(regression.loss_fn)

    def off(nbeta):
        sampler = slt.samplers.underdamped(0.2 / nbeta**0.5, friction=0.1)
        settings = {"nbeta": nbeta, "gamma": 1.0, "draws": 2000, "burnin": 1000, "thin": 5, "chains": 8}
        found = slt.llc(jax.random.key(1), rough, regression.CENTER, regression.DATA, sampler=sampler, **settings)
        exact = 0.5 * nbeta * np.trace(regression.HESSIAN @ regression.spread(nbeta, 1.0))
        return float(found.value) / exact - 1, float(found.std_error) / exact

    (warm, error), (cold, _) = off(100.0), off(1e5)
    assert error < 0.02
    assert abs(warm) < 3 * error
    assert abs(cold) > 0.5


WRONG = {
    "no size": (lambda: slt.in_pieces(per_example, 0), r"size: got 0; pass the examples of a piece"),
    "half a piece": (lambda: slt.in_pieces(per_example, 2.5), r"size: got 2.5; pass"),
    "a number as a loss": (lambda: slt.in_pieces(1.0, 3), r"loss_fn: got a float; pass a function"),
    "losses as a loss": (lambda: slt.in_bfloat16(np.zeros(3)), r"loss_fn: got a ndarray; pass a function"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_named(case):
    wrap, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        wrap()
