"""The order of a loss along a curve, to the last coefficient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slt_jax.substructure import arcs, order_along

NOTHING = jnp.zeros((9, 0))
INPUTS = jnp.linspace(-2.0, 2.0, 20)


def monomial(w, batch):
    del batch
    return (w[0] ** 2 * w[1]) ** 2


def tanh_unit(w, x):
    return 0.5 * (w["a"] * jnp.tanh(w["b"] * x)) ** 2


@pytest.mark.parametrize(("first", "second"), [(1, 1), (2, 1), (1, 3)])
def test_a_monomial_has_the_order_of_its_weights(first, second):
    found = order_along(monomial, jnp.zeros(2), NOTHING, lambda t: jnp.stack([2 * t**first, 3 * t**second]), degree=12)
    assert found.order == 4 * first + 2 * second
    assert found.coefficient == pytest.approx(2**4 * 3**2)
    assert found.method == "taylor"


def test_a_tanh_unit_has_the_exact_coefficients():
    """``½ t² tanh(t x)² = ½ x² t⁴ - ⅓ x⁴ t⁶ + ...``, averaged over the inputs."""
    center = {"a": jnp.float32(0.0), "b": jnp.float32(0.0)}
    found = order_along(tanh_unit, center, INPUTS, lambda t: {"a": t, "b": t})
    x = np.asarray(INPUTS, float)
    assert found.order == 4
    np.testing.assert_allclose(found.coefficients[[4, 6]], [np.mean(x**2) / 2, -np.mean(x**4) / 3], rtol=1e-10)


def test_an_arc_in_the_minimum_set_has_no_order_and_its_tangent_has():
    """The rescaling of a product: the curve stays where the product is 6, its tangent leaves it."""

    def product(w, batch):
        del batch
        return (w[0] * w[1] - 6.0) ** 2

    center = jnp.array([2.0, 3.0])
    curve = order_along(product, center, NOTHING, lambda t: jnp.stack([2 * jnp.exp(t) - 2, 3 * jnp.exp(-t) - 3]))
    assert curve.order is None
    assert np.isnan(curve.coefficient)
    tangent = order_along(product, center, NOTHING, lambda t: jnp.stack([2 * t, -3 * t]))
    assert (tangent.order, tangent.coefficient) == (4, pytest.approx(36.0))


def test_a_slope_shows_as_order_one():
    found = order_along(lambda w, x: (w - x) ** 2, jnp.float32(0.0), jnp.ones(9), lambda t: t)
    assert (found.order, found.coefficient) == (1, pytest.approx(-2.0))
    assert found.coefficients[0] == pytest.approx(1.0)


def test_a_loss_without_a_taylor_rule_falls_back_on_nested_derivatives_and_says_so():
    def loss_fn(w, x):
        return jax.nn.softplus(w * x) - 0.5 * w * x  # softplus has a derivative of its own

    found = order_along(loss_fn, jnp.float32(0.0), INPUTS, lambda t: t**2)
    assert found.method == "nested"
    assert found.order == 4
    assert found.coefficient == pytest.approx(float(np.mean(np.asarray(INPUTS) ** 2)) / 8)


def test_taylor_mode_and_nested_derivatives_agree():
    def along(t):
        hidden = jnp.tanh(jnp.stack([t, 1 - t, t**2])[None, :] * INPUTS[:, None])
        return jax.nn.log_softmax(hidden, axis=-1)[:, 0] + jnp.sqrt(1 + t) * jnp.exp(-t)

    with jax.enable_x64(True):
        method, series = arcs._series(along, 6)
        nested = np.stack([np.asarray(part) for part in arcs._nested(along, 6)])
    factorials = np.cumprod([1, 1, 2, 3, 4, 5, 6])
    assert method == "taylor"
    np.testing.assert_allclose(series, nested / factorials[:, None], atol=1e-10)


def test_the_callers_precision_is_left_alone():
    order_along(monomial, jnp.zeros(2), NOTHING, lambda t: jnp.stack([t, t]))
    assert not jax.config.jax_enable_x64
    assert jnp.ones(2).dtype == jnp.float32


@pytest.mark.parametrize(
    ("arc", "settings", "word"),
    [
        (lambda t: jnp.stack([t, t, t]), {}, "arc"),
        (lambda t: jnp.stack([t + 1, t]), {}, "start at 0"),
        (lambda t: jnp.stack([t, t]), {"degree": 0}, "degree"),
        (lambda t: jnp.stack([jnp.sqrt(t), t]), {}, "finite"),
    ],
)
def test_what_makes_no_sense_is_refused(arc, settings, word):
    with pytest.raises(ValueError, match=word):
        order_along(monomial, jnp.zeros(2), NOTHING, arc, **settings)
