"""A function of a flat vector of free parameters, in float64, whatever precision the caller works in.

Orders of vanishing are read off differences that single precision does not hold. Everything here is called inside
``jax.enable_x64(True)``, which ends with the ``with`` block: the caller's arrays and settings stay as they are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from slt_jax import loss, tree
from slt_jax import restriction as restrictions
from slt_jax.restriction import Restriction
from slt_jax.types import Array, PyTree

DIVERGENCES = ("squared", "categorical")


class Coordinates(NamedTuple):
    """The free parameters as one vector around the centre.

    Attributes:
      size: Number of free parameters, ``d``.
      lift: ``lift(u) -> params`` in float64 for ``u`` of shape ``(d,)``, displacements from the centre.
      basis: ``basis(rows) -> tree``: directions ``(k, d)`` as a tree like the parameters with a leading axis ``k``.
    """

    size: int
    lift: Callable[[Array], PyTree]
    basis: Callable[[np.ndarray], PyTree]


def coordinates(params: PyTree, restriction: Restriction | None) -> Coordinates:
    """The free directions around ``params`` as a flat vector; to be called with 64 bits on.

    Raises:
      ValueError: the restriction was built for other parameters.
    """
    restriction = restrictions.full() if restriction is None else restriction
    restrictions.check(restriction, params)
    center, restriction = tree.as_double(params), tree.as_double(restriction)
    origin, unravel = ravel_pytree(restriction.origin(center))

    def lift(u: Array) -> PyTree:
        return restriction.lift(center, unravel(u))

    def basis(rows: np.ndarray) -> PyTree:
        # the lift is affine: its derivative carries a direction without a difference of large numbers
        moved = jax.vmap(lambda row: jax.jvp(lift, (origin,), (row,))[1])(jnp.asarray(rows, jnp.float64))
        return jax.tree.map(lambda leaf, like: np.asarray(leaf, jnp.result_type(like)), moved, params)

    return Coordinates(int(origin.size), lift, basis)


def mean_loss(loss_fn: Callable[..., Array], space: Coordinates, data: PyTree) -> Callable[[Array], Array]:
    """``u -> L(lift(u))``, the mean over all of the data, shape ``()``, float64."""
    function, data = tree.as_double(_partial(loss_fn)), tree.as_double(data)
    return lambda u: jnp.mean(loss.per_example(function(space.lift(u), data)).astype(jnp.float64))


def residuals(
    outputs: Callable[..., PyTree], space: Coordinates, data: PyTree, divergence: str
) -> tuple[Callable[[Array], Array], float]:
    """A vector ``r(u)``, 0 at the centre, with ``K`` between two multiples of ``½ |r|²``, and the size of its terms.

    ``"squared"``: ``(f(u) - f(0)) / √n``. ``"categorical"``: ``√(p/n) (log softmax f(u) - log softmax f(0))`` with
    ``p = softmax f(0)``: ``½ |r|²`` is the Kullback-Leibler divergence up to terms of third order in ``r``.
    """
    function, data = tree.as_double(_partial(outputs)), tree.as_double(data)
    count = loss.example_count(data)
    # per-token answers are averaged over tokens, as losses are; a constant factor, of no effect on an order

    def answers(u: Array) -> list[Array]:
        found = [jnp.asarray(leaf, jnp.float64) for leaf in jax.tree.leaves(function(space.lift(u), data))]
        return [jax.nn.log_softmax(leaf, axis=-1) for leaf in found] if divergence == "categorical" else found

    own = jax.jit(answers)(jnp.zeros(space.size))
    weights = [jnp.exp(0.5 * leaf) if divergence == "categorical" else jnp.ones_like(leaf) for leaf in own]

    def residual(u: Array) -> Array:
        parts = [w * (leaf - at) for w, leaf, at in zip(weights, answers(u), own, strict=True)]
        return jnp.concatenate([part.ravel() for part in parts]) / np.sqrt(count)

    size = sum(float(jnp.sum(jnp.square(w * leaf))) for w, leaf in zip(weights, own, strict=True))
    return residual, float(np.sqrt(size / count))


def check_outputs(outputs: Any, params: PyTree, data: PyTree, divergence: str) -> None:
    """Refuse an unknown divergence, or outputs that carry no example axis, before anything is computed.

    Raises:
      ValueError: naming the argument, what was got and what to pass.
    """
    if divergence not in DIVERGENCES:
        raise ValueError(f"divergence: got {divergence!r}; it must be one of {list(DIVERGENCES)}, or None for a loss.")
    count = loss.example_count(data)
    leaves = jax.tree.leaves(jax.eval_shape(outputs, params, data))
    shapes = [leaf.shape for leaf in leaves]
    if not shapes or any(not shape or shape[0] != count for shape in shapes):
        raise ValueError(
            f"outputs: returned shapes {shapes} on data of {count} examples; the leading axis must be the example "
            "axis. Pass divergence=None if the function is a loss."
        )
    if divergence == "categorical" and any(len(shape) < 2 or shape[-1] < 2 for shape in shapes):
        raise ValueError(f"outputs: returned shapes {shapes}; 'categorical' needs logits of 2 classes or more.")


def check_size(space: Coordinates, largest: int) -> None:
    """Refuse more free parameters than a dense decomposition is meant for."""
    if space.size > largest:
        raise ValueError(
            f"params: got {space.size} free parameters, more than {largest}; pass a restriction, such as "
            "slt_jax.restriction.paths(params, 'layer/*')."
        )


def check_positive(**numbers: float) -> None:
    """Refuse numbers that are not positive and finite, by name."""
    for name, number in numbers.items():
        if tree.is_traced(number) or not (np.isfinite(number) and number > 0):
            raise ValueError(f"{name}: got {number}; it must be a positive number.")


def _partial(function: Callable[..., Any]) -> Partial:
    return function if isinstance(function, Partial) else Partial(function)
