"""The stiffest directions, found together so that equal curvatures are no obstacle, and as a restriction."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from slt_jax import loss
from slt_jax import restriction as restrictions
from slt_jax.curvature.operators import Operator, dense, flat_dtype, hessian, product
from slt_jax.restriction import Restriction
from slt_jax.types import Array, Key, LossFn, PyTree

#: The block has so many columns more than directions are asked for: a gap behind the last of them is then likely.
_EXTRA = 4


class TopDirections(NamedTuple):
    """Eigenvectors of the largest eigenvalues, in descending order.

    Attributes:
      eigenvalues: Nats per squared unit of ``z``, shape ``(k,)``.
      restriction: Their span: ``lift(center, z) = center + Σ_i z_i q_i``, ``q_i`` orthonormal in the free directions.
      residuals: ``|H q_i - h_i q_i|``, shape ``(k,)``: there is an eigenvalue this close to ``h_i``.
    """

    eigenvalues: Array
    restriction: Restriction
    residuals: Array


def top_directions(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    count: int,
    *,
    restriction: Restriction | None = None,
    operator: Operator = hessian,
    rounds: int = 8,
    chunk_size: int = loss.CENTER_CHUNK,
) -> TopDirections:
    """The ``count`` directions of the largest curvature at ``params``, as a restriction.

    The Ritz pairs of the block Krylov space ``[V, H V, ..., H^(rounds-1) V]`` of a random block ``V`` of ``count + 4``
    columns; all eigenvectors, where so many products with the Hessian would give them. A single vector, however often
    it is multiplied, shows one direction of an eigenspace; a block shows as many as it has columns.

    Args:
      key: A typed key.
      loss_fn: Losses in nats.
      params: ``w*``.
      data: All examples.
      count: How many directions, at most the number of free parameters; static under jit.
      restriction: Free directions; default all. The result is a part of them.
      operator: Whose directions: ``hessian``, ``empirical_fisher``, ``gauss_newton(outputs)``.
      rounds: Powers of the operator, each ``count + 4`` products.
      chunk_size: Examples that are looked at at a time.

    Returns:
      Eigenvalues in descending order, the restriction, and residuals that tell how far each is from converged. The
      memory is ``2 (count + 4) rounds`` copies of the parameters.

    Raises:
      ValueError: before anything is compiled, where the loss breaks its contract, the restriction does not fit, or
        ``count`` or ``rounds`` is out of range; after the run, where the curvature is not finite.

    Not to be believed where a residual is not small against the distance to the next eigenvalue: the value may be
    right and the direction a mixture.

    Source: Musco & Musco 2015, arXiv:1504.05477 (randomised block Krylov methods).

    >>> loss_fn = lambda w, x: 0.5 * jnp.sum(jnp.arange(10.0) * w**2) + x
    >>> values, stiff, _ = top_directions(jax.random.key(0), loss_fn, jnp.zeros(10), jnp.zeros(3), 2)
    >>> values.round(3).tolist(), stiff.origin(jnp.zeros(10)).shape
    ([9.0, 8.0], (2,))
    """
    loss.check(loss_fn, params, data)
    restriction = restrictions.full() if restriction is None else restriction
    restrictions.check(restriction, params)
    size = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(restriction.origin, params)))
    check_count("count", count, size)
    check_count("rounds", rounds)
    check_count("chunk_size", chunk_size)
    function = loss_fn if isinstance(loss_fn, jax.tree_util.Partial) else jax.tree_util.Partial(loss_fn)
    operator = operator if isinstance(operator, jax.tree_util.Partial) else jax.tree_util.Partial(operator)
    params = jax.tree.map(jnp.asarray, params)
    values, vectors, residuals = _top(
        key, function, params, data, restriction, operator, count=count, rounds=rounds, chunk=chunk_size
    )
    check_finite(values)
    return TopDirections(values, restrictions.span(vectors), residuals)


def check_count(name: str, value: int, most: int | None = None) -> None:
    """Refuse anything but an integer from 1 to ``most``."""
    wrong = isinstance(value, bool) or not hasattr(value, "__index__")
    if wrong or value < 1 or (most is not None and value > most):
        bound = "of at least 1" if most is None else f"between 1 and {most}, the number of free parameters"
        raise ValueError(f"{name}: got {value!r}; pass an integer {bound}, static under jit.")


def check_finite(values: Array) -> None:
    """Refuse a curvature that is not finite; does nothing where it is traced."""
    if not isinstance(values, jax.core.Tracer) and not bool(jnp.isfinite(values).all()):
        raise ValueError(
            "loss_fn: its second derivatives at params are not finite. Check params and data for NaN, and the loss for "
            "a square root or a norm at 0."
        )


def ritz_pairs(
    key: Key, multiply: Callable[[Array], Array], size: int, dtype: jnp.dtype, count: int, rounds: int
) -> tuple[Array, Array, Array]:
    """The largest eigenvalues ``(count,)``, their vectors ``(size, count)`` and residuals ``(count,)``."""
    width = min(count + _EXTRA, size)
    with jax.default_matmul_precision("highest"):
        if size <= width * rounds:
            matrix = dense(multiply, size, dtype)
            basis, images = jnp.eye(size, dtype=dtype), matrix
        else:
            basis, images = _block_krylov(key, multiply, size, dtype, width, rounds)
        small = basis.T @ images
        values, mixing = jnp.linalg.eigh(0.5 * (small + small.T))
        values, mixing = values[::-1][:count], mixing[:, ::-1][:, :count]
        vectors = basis @ mixing
        residuals = jnp.linalg.norm(images @ mixing - vectors * values[None, :], axis=0)
    return values, vectors, residuals


def _block_krylov(
    key: Key, multiply: Callable[[Array], Array], size: int, dtype: jnp.dtype, width: int, rounds: int
) -> tuple[Array, Array]:
    """An orthonormal basis of the block Krylov space, shape ``(size, width * rounds)``, and its images."""

    def grow(carry: tuple[Array, Array, Array], step: Array) -> tuple[tuple[Array, Array, Array], None]:
        basis, images, block = carry
        image = jax.lax.map(multiply, block.T).T
        basis = jax.lax.dynamic_update_slice(basis, block, (0, step * width))
        images = jax.lax.dynamic_update_slice(images, image, (0, step * width))
        fresh = jax.random.normal(jax.random.fold_in(key, step), block.shape, dtype)
        return (basis, images, _next_block(basis, image, fresh)), None

    start = jnp.linalg.qr(jax.random.normal(key, (size, width), dtype))[0]
    empty = jnp.zeros((size, width * rounds), dtype)
    (basis, images, _), _ = jax.lax.scan(grow, (empty, empty, start), jnp.arange(rounds))
    return basis, images


def _next_block(basis: Array, image: Array, fresh: Array) -> Array:
    """Orthonormal columns, orthogonal to the basis, of what is new in the image; random ones where nothing is."""

    def project(block: Array) -> Array:
        for _ in range(2):
            block = block - basis @ (basis.T @ block)
        return block

    # what is left of the block after projection has singular values down to rounding: those are filled with new vectors
    left, sizes, _ = jnp.linalg.svd(project(image), full_matrices=False)
    noise = 64 * jnp.finfo(image.dtype).eps * jnp.max(jnp.linalg.norm(image, axis=0))
    block = jnp.where(sizes[None, :] > noise, left, fresh / jnp.sqrt(len(fresh)))
    for _ in range(2):
        block = jnp.linalg.qr(project(block))[0]
    return block


def _top_of(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    restriction: Restriction,
    operator: Operator,
    count: int,
    rounds: int,
    chunk: int,
) -> tuple[Array, PyTree, Array]:
    """Eigenvalues, eigenvectors as a tree like the parameters with one more axis, and residuals."""
    multiply, size = product(operator, loss_fn, params, data, restriction, chunk)
    dtype = flat_dtype(params, restriction)
    values, vectors, residuals = ritz_pairs(key, multiply, size, dtype, count, rounds)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), params)
    origin, unravel = ravel_pytree(restriction.origin(wide))

    def move(vector: Array) -> PyTree:
        return jax.jvp(lambda z: restriction.lift(wide, unravel(z)), (origin,), (vector.astype(origin.dtype),))[1]

    return values, jax.vmap(move)(vectors.T), residuals


_top = jax.jit(_top_of, static_argnames=("count", "rounds", "chunk"))
