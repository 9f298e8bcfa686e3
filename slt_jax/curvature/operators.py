"""Symmetric matrices of a loss in its free directions, as products with a vector: none is ever written out.

Every operator is a plain function ``operator(vector, loss_fn, params, data, restriction, chunk)`` of a tree like ``z``
that returns a tree like ``z``, or a ``Partial`` over one: an argument of a jitted function, never a string.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from slt_jax import loss, tree
from slt_jax.reference import Outputs
from slt_jax.restriction import Restriction
from slt_jax.types import Array, LossFn, PyTree

#: ``operator(vector, loss_fn, params, data, restriction, chunk) -> image``, both trees like ``z``.
Operator = Callable[[PyTree, LossFn, PyTree, PyTree, Restriction, int], PyTree]
#: ``metric(answers, tangents) -> cotangents``: the Hessian of a divergence in the outputs of a batch.
Metric = Callable[[PyTree, PyTree], PyTree]
#: So many columns of a matrix are computed at a time where it is small enough to be written out.
_COLUMNS = 16


def hessian(
    vector: PyTree,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    restriction: Restriction,
    chunk: int = loss.CENTER_CHUNK,
) -> PyTree:
    """``H v`` with ``H = ∂² mean ℓ(lift(w*, z)) / ∂z²`` at ``z = 0``: forward over reverse differentiation.

    Args:
      vector: ``v``, a tree like ``z``.
      loss_fn: Losses in nats.
      params: ``w*``.
      data: All examples.
      restriction: Free directions.
      chunk: Examples that are looked at at a time; a loss that is a mean ``()`` sees all of them.

    Returns:
      A tree like ``z``, nats per unit of the parameters for a ``v`` in units of the parameters. Works inside jit.

    Not to be believed at a kink: the second derivative of a ReLU is taken to be 0 there.

    Source: Pearlmutter 1994, Fast exact multiplication by the Hessian, Neural Computation 6.

    >>> from slt_jax.restriction import full
    >>> hessian(jnp.array([1.0, 0.0]), lambda w, x: w[0] * w[1] * x, jnp.ones(2), jnp.ones(3), full())
    Array([0., 1.], dtype=float32)
    """
    origin = restriction.origin(params)

    def image(examples: PyTree) -> PyTree:
        def mean_loss(z: PyTree) -> Array:
            return jnp.mean(tree.at_least_float32(loss.per_example(loss_fn(restriction.lift(params, z), examples))))

        return jax.jvp(jax.grad(mean_loss), (origin,), (vector,))[1]

    is_mean = jax.eval_shape(loss_fn, params, data).shape == ()
    return image(data) if is_mean else loss.mean_over(image, data, chunk)


def empirical_fisher(
    vector: PyTree,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    restriction: Restriction,
    chunk: int = loss.CENTER_CHUNK,
) -> PyTree:
    """``F̂ v`` with ``F̂ = (1/n) Σ_i g_i g_iᵀ``, ``g_i`` the gradient in ``z`` of the loss of example ``i``.

    Args:
      vector: ``v``, a tree like ``z``.
      loss_fn: Losses in nats, one for each example or token.
      params: ``w*``.
      data: All examples.
      restriction: Free directions.
      chunk: Examples that are looked at at a time.

    Returns:
      A tree like ``z``. Works inside jit.

    Raises:
      ValueError: the loss is a mean: gradients of single examples cannot be told apart.

    Not to be believed as the Fisher information: its expectation is over the labels in the data, not those of the
    model; the two agree only where the model is the truth. At zero residuals it is 0. See ``gauss_newton``.

    Source: Kunstner, Balles & Hennig 2019, arXiv:1905.12558.

    >>> from slt_jax.restriction import full
    >>> empirical_fisher(jnp.float32(1.0), lambda w, x: w * x, jnp.float32(0.0), jnp.array([1.0, 3.0]), full())
    Array(5., dtype=float32)
    """
    origin = restriction.origin(params)
    if jax.eval_shape(loss_fn, params, data).shape == ():
        raise ValueError("loss_fn: is a mean over its batch; the empirical Fisher matrix needs one loss an example.")

    def image(examples: PyTree) -> PyTree:
        def losses(z: PyTree) -> Array:
            return tree.at_least_float32(loss.per_example(loss_fn(restriction.lift(params, z), examples)))

        found, slopes = jax.jvp(losses, (origin,), (vector,))
        return jax.vjp(losses, origin)[1](slopes / found.size)[0]

    return loss.mean_over(image, data, chunk)


def squared_metric(answers: PyTree, tangents: PyTree) -> PyTree:
    """The Hessian of ``½ |f - f*|²`` in the outputs, times a vector: the vector itself."""
    return jax.tree.map(lambda answer, tangent: tangent.astype(answer.dtype), answers, tangents)


def categorical_metric(answers: PyTree, tangents: PyTree) -> PyTree:
    """The Hessian of ``KL(p* ‖ softmax f)`` in the logits, times a vector: ``p (t - ⟨p, t⟩)``, at any ``p*``.

    Logits ``(B, V)``, or ``(B, T, V)`` of which the mean over tokens is taken.

    >>> categorical_metric(jnp.zeros((1, 2)), jnp.array([[1.0, 0.0]]))
    Array([[ 0.25, -0.25]], dtype=float32)
    """

    def product(logits: Array, tangent: Array) -> Array:
        p = jax.nn.softmax(logits, axis=-1)
        image = p * (tangent - jnp.sum(p * tangent, axis=-1, keepdims=True))
        return image / logits.shape[1] if logits.ndim == 3 else image

    return jax.tree.map(product, answers, tangents)


def gauss_newton(outputs: Outputs, metric: Metric = squared_metric) -> Operator:
    """The operator ``G = (1/n) Σ_i J_iᵀ M_i J_i``: what the Hessian is without the curvature of the network itself.

    ``J_i`` is the Jacobian in ``z`` of the outputs on example ``i`` and ``M_i`` the metric there. For the two metrics
    here it is also the **Fisher information** of the model, a Gaussian of unit variance or a softmax, with labels drawn
    from the model, and the Hessian at ``w*`` of the loss that ``self_reference`` makes from the same outputs.

    Args:
      outputs: ``outputs(params, batch)``: an array or a tree of arrays with leading example axes.
      metric: ``squared_metric`` (summed over all axes but the first), ``categorical_metric`` (logits, over the last
        axis), or a function of one's own of the outputs and a tangent.

    Returns:
      An operator like ``hessian``, whose ``loss_fn`` is not looked at. It has no negative eigenvalues.

    Not to be believed as the Hessian where residuals are not 0: the two differ by the residuals times the second
    derivatives of the outputs.

    Source: Schraudolph 2002, Neural Computation 14; Martens 2020, arXiv:1412.1193.

    >>> from slt_jax.restriction import full
    >>> product = gauss_newton(lambda w, x: w[0] * w[1] * x)
    >>> product(jnp.array([1.0, 0.0]), None, jnp.array([1.0, 2.0]), jnp.ones(3), full())
    Array([4., 2.], dtype=float32)
    """
    return Partial(_gauss_newton, Partial(outputs), Partial(metric))


def product(
    operator: Operator, loss_fn: LossFn, params: PyTree, data: PyTree, restriction: Restriction, chunk: int
) -> tuple[Callable[[Array], Array], int]:
    """The operator as a function of flat vectors, and their length; parameters are taken in at least float32."""
    params = tree.at_least_float32(jax.tree.map(jnp.asarray, params))
    flat, unravel = ravel_pytree(restriction.origin(params))

    def multiply(vector: Array) -> Array:
        # tensor cores would round to three digits, and orthogonality with them
        with jax.default_matmul_precision("highest"):
            return ravel_pytree(operator(unravel(vector), loss_fn, params, data, restriction, chunk))[0]

    return multiply, flat.size


def dense(multiply: Callable[[Array], Array], size: int, dtype: jnp.dtype) -> Array:
    """All columns of the matrix of a product, shape ``(size, size)``; as symmetric as it was computed."""
    return jax.lax.map(multiply, jnp.eye(size, dtype=dtype), batch_size=_COLUMNS).T


def flat_dtype(params: PyTree, restriction: Restriction) -> jnp.dtype:
    """The dtype of a flat vector like ``z``, at least float32."""
    leaves = jax.tree.leaves(jax.eval_shape(restriction.origin, params))
    return jnp.result_type(jnp.float32, *leaves)


def _gauss_newton(
    outputs: Outputs,
    metric: Metric,
    vector: PyTree,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    restriction: Restriction,
    chunk: int = loss.CENTER_CHUNK,
) -> PyTree:
    del loss_fn  # the metric stands in its place
    origin = restriction.origin(params)

    def image(examples: PyTree) -> PyTree:
        def answers(z: PyTree) -> PyTree:
            return tree.at_least_float32(outputs(restriction.lift(params, z), examples))

        found, tangents = jax.jvp(answers, (origin,), (vector,))
        back = tree.scale(1 / loss.example_count(examples), metric(found, tangents))
        return jax.vjp(answers, origin)[1](back)[0]

    return loss.mean_over(image, data, chunk)
