"""The order to which a loss vanishes along a curve, by Taylor arithmetic: no step size, no fit."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.jet import jet

from slt_jax import loss, tree
from slt_jax.substructure import double
from slt_jax.types import Array, LossFn, PyTree

#: What Taylor mode raises on a primitive without a rule, or on a function with a derivative of its own.
_NO_RULE = (KeyError, NotImplementedError, TypeError, jax.errors.UnexpectedTracerError)


class ArcOrder(NamedTuple):
    """The Taylor series of the loss along an arc, and where it begins.

    Attributes:
      order: The least ``j ≥ 1`` with a coefficient that is not rounding; None where there is none up to the degree.
      coefficient: That coefficient, in nats per unit of ``t^order``; NaN where there is none.
      coefficients: ``(degree + 1,)``: those of ``L(w* + arc(t))`` in powers of ``t``, from ``L(w*)`` on.
      method: ``"taylor"``, or ``"nested"`` where Taylor mode has no rule for something in the loss.
    """

    order: int | None
    coefficient: float
    coefficients: np.ndarray
    method: str


def order_along(
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    arc: Callable[[Array], PyTree],
    *,
    degree: int = 8,
    tolerance: float = 1e-9,
) -> ArcOrder:
    """The first power of ``t`` in ``K(w* + arc(t)) = L(w* + arc(t)) - L(w*)``, with its coefficient.

    ``K(w* + arc(t)) = c t^k + O(t^{k+1})``, from the Taylor coefficients of the composition, in float64.

    Args:
      loss_fn: ``loss_fn(params, batch)``, in nats, analytic around ``params``.
      params: ``w*``.
      data: All examples.
      arc: ``arc(t)``: a tree like ``params`` of displacements, 0 at ``t = 0``, written in ``jax.numpy``.
      degree: How many powers of ``t`` are looked at.
      tolerance: A coefficient counts as 0 below this share of the largest; with losses per example the largest is
        taken before they are averaged.

    Returns:
      Order, coefficient, all coefficients, and how they were found.

    Raises:
      ValueError: an arc of another structure than ``params``, or that does not start at 0; a degree below 1; a series
        that is not finite.

    Not to be believed where the loss is not analytic: at the kink of a ReLU the series is that of one side. A true
    coefficient below ``tolerance`` is taken for 0. An odd order, or a coefficient below 0, says that ``params`` are no
    minimum. Where Taylor mode has no rule the series comes from nested derivatives, whose cost doubles with every
    degree. A straight arc along a gauge direction may leave its orbit: see ``dead_directions``.

    Source: Taylor mode: Griewank and Walther 2008, Evaluating Derivatives, chapter 13; Bettencourt, Johnson and
    Duvenaud 2019, Taylor-mode automatic differentiation for higher-order derivatives in JAX.

    >>> import jax.numpy as jnp
    >>> found = order_along(lambda w, _: (w[0] ** 2 - w[1] ** 3) ** 2, jnp.zeros(2), jnp.zeros((9, 0)),
    ...                     lambda t: jnp.stack([t**3, 2 * t**2]), degree=12)
    >>> found.order, round(found.coefficient, 6)
    (12, 49.0)
    """
    loss.check(loss_fn, params, data)
    double.check_positive(tolerance=tolerance)
    if isinstance(degree, bool) or not isinstance(degree, int) or degree < 1:
        raise ValueError(f"degree: got {degree!r}; it must be a whole number from 1 up.")
    with jax.enable_x64(True):
        along = _along(loss_fn, params, data, arc)
        method, series = _series(along, degree)
        _, beside = _series(_along(loss_fn, params, data, _twisted(arc)), degree)
    coefficients = series.reshape(degree + 1, -1).mean(axis=1)
    sizes, other = (np.abs(part).reshape(degree + 1, -1).mean(axis=1) for part in (series, beside))
    if not np.isfinite(coefficients).all():
        raise ValueError(
            f"loss_fn: its series along the arc is not finite: {coefficients}. It must be analytic at params; write "
            "powers with Python integers, as w**4, for jnp.power with an array has no derivatives at 0."
        )
    rounding = 1e3 * np.finfo(float).eps
    # an arc within the minimum set leaves the square of its rounding, to be held against an arc beside it
    least = max(tolerance * sizes[1:].max(), rounding * sizes[0], rounding**2 * np.nan_to_num(other[1:]).max())
    seen = np.flatnonzero(np.abs(coefficients[1:]) > least) + 1
    order = int(seen[0]) if len(seen) else None
    return ArcOrder(order, float(coefficients[order]) if order else math.nan, coefficients, method)


def _twisted(arc: Callable[[Array], PyTree]) -> Callable[[Array], PyTree]:
    """The arc with every entry of the displacement stretched by a factor of its own."""
    random = np.random.default_rng(0)
    start = arc(jnp.zeros(()))
    factors = jax.tree.map(lambda leaf: random.uniform(0.5, 1.5, np.shape(leaf)), start)
    return lambda t: jax.tree.map(jnp.multiply, arc(t), factors)


def _along(loss_fn: LossFn, params: PyTree, data: PyTree, arc: Callable[[Array], PyTree]) -> Callable[[Array], Array]:
    """``t -> `` losses at ``w* + arc(t)``, in float64, after a look at the arc."""
    center, examples, function = tree.as_double(params), tree.as_double(data), tree.as_double(loss_fn)
    start = arc(jnp.zeros(()))
    shapes = [jax.tree.map(jnp.shape, one) for one in (start, center)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"arc: returned a tree of shapes {shapes[0]}, but params have {shapes[1]}.")
    if any(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(start)):
        raise ValueError("arc: it does not start at 0; return displacements from params, not parameters.")

    def along(t: Array) -> Array:
        moved = jax.tree.map(jnp.add, center, arc(t))
        return loss.per_example(function(moved, examples)).astype(jnp.float64)

    return along


def _series(along: Callable[[Array], Array], degree: int) -> tuple[str, np.ndarray]:
    """Taylor coefficients ``(degree + 1, ...)`` at 0, by Taylor mode or else by nested derivatives."""
    factorials = np.array([math.factorial(j) for j in range(degree + 1)], float)
    velocity = [jnp.ones(()), *(jnp.zeros(()) for _ in range(degree - 1))]
    try:
        value, derivatives = jet(along, (jnp.zeros(()),), (velocity,))
        found, method = [value, *derivatives], "taylor"
    except _NO_RULE:
        found, method = _nested(along, degree), "nested"
    stacked = np.stack([np.asarray(part, float) for part in found])
    return method, stacked / factorials.reshape(-1, *[1] * (stacked.ndim - 1))


def _nested(along: Callable[[Array], Array], degree: int) -> list[Array]:
    """All derivatives up to a degree in one evaluation of ``degree`` nested forward derivatives."""

    def derived(levels: int) -> Callable[[Array], list[Array]]:
        if levels == 0:
            return lambda t: [along(t)]
        lower = derived(levels - 1)

        def higher(t: Array) -> list[Array]:
            values, slopes = jax.jvp(lower, (t,), (jnp.ones_like(t),))
            return [*values, slopes[-1]]

        return higher

    return jax.jit(derived(degree))(jnp.zeros(()))
