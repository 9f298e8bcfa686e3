"""Lanczos quadrature with matfree: the one file that imports it, and only where it is needed."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from slt_jax.types import Array

#: An off-diagonal entry below so many roundings of the largest before it is a breakdown: what follows is noise.
_BREAKDOWN = 64.0
#: By how many roundings of the largest an eigenvalue is off.
ROUNDING = 8.0


class Quadrature(NamedTuple):
    """Nodes and weights of the spectral measure ``Σ_i ⟨v, q_i⟩² δ(h - h_i)`` that one vector sees.

    Attributes:
      nodes: Shape ``(step,)``.
      weights: Shape ``(step,)``; they sum to 1, and are 0 after a breakdown.
      coarse_nodes, coarse_weights: The same with half the steps, shape ``(step // 2,)``.
      noise: Upper bound on how far nodes are off by rounding: what is left below a breakdown, and how far the matrix
        was from symmetric, shape ``()``.
    """

    nodes: Array
    weights: Array
    coarse_nodes: Array
    coarse_weights: Array
    noise: Array


def lanczos(multiply: Callable[[Array], Array], vector: Array, steps: int) -> Quadrature:
    """Gauss quadrature of the spectral measure of a symmetric matrix at a vector, by Lanczos iteration.

    Every new vector is made orthogonal to all before it twice, which single precision needs. Where the vector meets
    fewer distinct eigenvalues than ``steps``, as with a matrix of low rank, the iteration breaks down: the vector that
    remains is rounding noise, and would be blown up to unit length. From there on everything is discarded, and the
    quadrature is exact: to cut off an entry of size δ moves no eigenvalue by more than δ.

    Args:
      multiply: The matrix, as a product with a flat vector.
      vector: The start, shape ``(d,)``; its length does not matter.
      steps: Products with the matrix, at most ``d``.

    Returns:
      Nodes in ascending order, and weights. With ``steps`` products, polynomials of degree ``2 steps - 1`` are exact.

    Not to be believed as single eigenvalues inside a dense spectrum: there a node stands for many.

    Source: Golub & Meurant 2010, Matrices, Moments and Quadrature; the implementation of matfree, Krämer et al. 2024,
    arXiv:2405.17277; two orthogonalisations are enough: Giraud et al. 2005, Numerische Mathematik 101.

    >>> rule = lanczos(lambda v: jnp.array([3.0, 0.0, 0.0]) * v, jnp.ones(3), 3)
    >>> round(float(rule.weights @ rule.nodes), 5), round(float(rule.weights @ rule.nodes**2), 5)
    (1.0, 3.0)
    """
    from matfree.decomp import hessenberg

    with jax.default_matmul_precision("highest"):
        found = hessenberg(steps, reortho="full", custom_vjp=False)(multiply, vector)
    return _quadrature(found.J_small)


def _quadrature(hessenberg: Array) -> Quadrature:
    """Nodes and weights from the matrix in the Krylov basis, which is tridiagonal up to rounding."""
    steps = len(hessenberg)
    eps = jnp.finfo(hessenberg.dtype).eps
    diagonal, below = jnp.diagonal(hessenberg), jnp.diagonal(hessenberg, -1)
    # only what came before an entry says how large the matrix is: after a breakdown there may be anything, NaN included
    size = jax.lax.cummax(jnp.nan_to_num(jnp.abs(diagonal)))
    size = jnp.maximum(size[:-1], jax.lax.cummax(jnp.nan_to_num(jnp.abs(below)))) if steps > 1 else size[:0]
    goes_on = jnp.cumprod(jnp.where(below > _BREAKDOWN * eps * size, 1, 0)) > 0
    alive = jnp.concatenate([jnp.ones(1, bool), goes_on])
    last = alive[:-1] & ~goes_on
    diagonal, kept = jnp.where(alive, diagonal, diagonal[0]), jnp.where(goes_on, below, 0.0)
    nodes, weights = _gauss(diagonal, kept)
    half = max(1, steps // 2)
    coarse = _gauss(diagonal[:half], kept[: half - 1])
    cut = jnp.max(jnp.where(last, jnp.nan_to_num(jnp.abs(below)), 0.0), initial=0.0)
    noise = ROUNDING * eps * jnp.max(jnp.abs(nodes)) + cut + _asymmetry(hessenberg, alive)
    return Quadrature(nodes, weights, *coarse, noise)


def _gauss(diagonal: Array, below: Array) -> tuple[Array, Array]:
    """Eigenvalues of a symmetric tridiagonal matrix, and the squares of the first entries of its eigenvectors."""
    nodes, vectors = jnp.linalg.eigh(jnp.diag(diagonal) + jnp.diag(below, 1) + jnp.diag(below, -1))
    return nodes, vectors[0] ** 2


def _asymmetry(hessenberg: Array, alive: Array) -> Array:
    """The norm, as that of a matrix of random entries, of what the Krylov matrix has above its two diagonals."""
    above = jnp.where(alive[:, None] & alive[None, :], jnp.triu(hessenberg, 2), 0.0)
    return jnp.sqrt(jnp.sum(above**2) / jnp.sum(alive))
