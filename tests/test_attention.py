"""Causal attention is that of Flax, parameter by parameter, and sees nothing ahead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from slt_jax.models.attention import CausalAttention, attend
from slt_jax.models.transformer import Transformer

STREAM = jax.random.normal(jax.random.key(0), (3, 7, 12))
OURS = CausalAttention(heads=3)
PARAMS = OURS.init(jax.random.key(1), STREAM)


@pytest.fixture(scope="module")
def theirs():
    module = linen.MultiHeadDotProductAttention(3, use_bias=False)
    mask = linen.make_causal_mask(STREAM[..., 0])
    return lambda params: module.apply(params, STREAM, mask=mask), module.init(jax.random.key(1), STREAM)


def _apart(one, other):
    return max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True))


def test_parameters_begin_as_those_of_flax(theirs):
    assert jax.tree.structure(PARAMS) == jax.tree.structure(theirs[1])
    assert _apart(PARAMS, theirs[1]) == 0


def test_values_and_gradients_are_those_of_flax(theirs):
    def mean_square(apply):
        return lambda params: jnp.sum(apply(params) ** 2)

    ours = jax.value_and_grad(mean_square(lambda params: OURS.apply(params, STREAM)))(PARAMS)
    same = jax.value_and_grad(mean_square(theirs[0]))(PARAMS)
    assert _apart(ours, same) < 1e-5 * abs(float(same[0]))
    # the control: with other parameters nothing agrees
    other = jax.value_and_grad(mean_square(theirs[0]))(jax.tree.map(lambda leaf: 1.1 * leaf, PARAMS))
    assert _apart(ours, other) > 1e-2 * abs(float(same[0]))


def test_scores_may_be_large_and_weights_add_up_to_one():
    query = 1e3 * jax.random.normal(jax.random.key(2), (1, 5, 2, 4))
    mixed, weights = attend(query, query, query, jnp.zeros((1, 5, 5)))
    assert jnp.isfinite(mixed).all()
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)


def test_a_token_changes_no_logit_before_it():
    network = Transformer(vocabulary=5, width=8, blocks=1, heads=2, hidden=8, length=6)
    tokens = jnp.array([[0, 1, 2, 3, 4, 0]])
    params = network.init(jax.random.key(3), tokens)
    change = jnp.abs(network.apply(params, tokens) - network.apply(params, tokens.at[0, 3].set(1))).max((0, 2))
    assert (change[:3] == 0).all()
    assert (change[3:] > 0).all()


def test_heads_that_cannot_share_the_width_are_refused():
    with pytest.raises(ValueError, match="got 5 for a stream of width 12"):
        CausalAttention(heads=5).init(jax.random.key(1), STREAM)
