"""From a loss to its substructure: draws of a ladder, and what is read from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slt_jax.ladder import deep_samples
from slt_jax.substructure import clusters, contact_exponents, divisor_weights

NBETAS = 10.0 ** np.arange(4, 9)


def test_the_weights_of_a_quasi_homogeneous_loss_add_up_to_lambda():
    def loss_fn(weights, batch):
        del batch
        return weights[0] ** 2 + weights[1] ** 4

    found = deep_samples(
        jax.random.key(0), loss_fn, jnp.zeros(2), jnp.zeros((10, 0)), nbetas=NBETAS, gamma=1e-2, draws=600
    )
    assert found.flow.ok.all()
    weights = divisor_weights(found.z, found.nbetas)
    assert abs(weights.total - 0.75) < 4 * weights.total_error
    np.testing.assert_allclose(weights.weights, [0.5, 0.25], atol=0.02)
    contact = contact_exponents(found.z, found.nbetas, learning_coefficient=0.75)
    assert abs(contact.ratio - 1) < 0.03


def test_the_two_arms_of_a_crossing_are_two_clusters():
    def loss_fn(weights, batch):
        del batch
        return weights[0] ** 2 * weights[1] ** 2

    found = deep_samples(
        jax.random.key(1), loss_fn, jnp.zeros(2), jnp.zeros((10, 0)), nbetas=NBETAS, gamma=1.0, draws=600
    )
    groups = clusters(found.z, found.nbetas)
    assert len(groups.centers) == 2
    np.testing.assert_allclose(np.asarray(groups.responsibilities)[-1], [0.5, 0.5], atol=0.1)


def test_inside_jit_it_is_refused():
    with pytest.raises(ValueError, match="inside jit"):
        jax.jit(lambda w: deep_samples(jax.random.key(0), lambda w, _: w**2, w, jnp.zeros((10, 0)), nbetas=NBETAS).z)(
            jnp.zeros(())
        )
