"""Principal axes of a response matrix, with errors: what is shared is taken out, and what noise gives is counted."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax.response.measured import Measured, measured, noise
from slt_jax.response.outcome import Susceptibility
from slt_jax.tree import check_key
from slt_jax.types import Array, Key

#: Draws of the errors, for the errors of the axes and for the axes of noise alone; an axis stands above noise if it is
#: larger than the largest of noise is in nineteen of twenty draws. One of the same rank would not do: of what is left
#: beside true axes the first has the size of the largest.
_DRAWS, _QUANTILE = 100, 0.95


class Axes(NamedTuple):
    """Singular value decomposition of a standardised response matrix, the largest axis first.

    Attributes:
      standardised: What was decomposed, shape ``(component, entry)``.
      sizes: Singular values, shape ``(axis,)``.
      size_errors: Their standard errors.
      noise: The largest that errors alone would give, its 95 % quantile, shape ``()``.
      above: How many stand above it, shape ``()``.
      components: Loadings of components, orthonormal columns, shape ``(component, axis)``.
      component_errors: Their standard errors.
      entries: Loadings of entries, orthonormal columns, shape ``(entry, axis)``.
      entry_errors: Their standard errors.
    """

    standardised: Array
    sizes: Array
    size_errors: Array
    noise: Array
    above: Array
    components: Array
    component_errors: Array
    entries: Array
    entry_errors: Array

    @property
    def shares(self) -> Array:
        """Share of each axis of all squares, shape ``(axis,)``."""
        total = jnp.sum(self.sizes**2)
        return self.sizes**2 / jnp.where(total > 0, total, 1.0)

    def points(self) -> Array:
        """Every entry by its axes above noise, each as long as its singular value, shape ``(entry, above)``; host only.

        Distances are those of the standardised matrix, without what noise would do as well.
        """
        kept = int(self.above)
        return self.entries[:, :kept] * self.sizes[None, :kept]


def principal_axes(key: Key, found: Susceptibility | Measured | tuple[Array, Array], *, uniform: bool = False) -> Axes:
    """Principal axes of responses: which components answer alike, to which entries.

    Each component is centred over the entries and divided by its spread, so that its size does not count; then each
    entry is centred over the components: what all share is taken out. ``X = Σ_k s_k u_k v_kᵀ`` of the rest. Errors are
    the spread over matrices drawn within their own; the axes of noise are those of the errors alone, standardised
    as ``X`` was (parallel analysis). Works inside jit on a pair of arrays.

    Args:
      key: A typed key, for draws of the errors.
      found: What ``slt_jax.response.measured`` takes: a result, or ``(value, std_error)`` of axes
        ``(component, entry)``.
      uniform: Whether to leave in what all components share.

    Returns:
      ``Axes``, as many as the matrix has rows or columns.

    Raises:
      ValueError: there are fewer than two components or three entries, or the matrix is not finite.

    Not to be believed, as single axes, where two sizes are equal within errors: only their span is known, and errors of
    loadings are of the size of the loadings. Noise that entries share is known only where draws are (not of a pair): an
    axis of it may then count. An axis above noise is not one that other seeds would find: see ``read_response``.

    Source: Baker et al. 2025, arXiv:2504.18274 (principal components of susceptibilities); Horn 1965,
    doi:10.1007/BF02289447 (parallel analysis).

    >>> value = jnp.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    >>> axes = principal_axes(jax.random.key(0), (value, jnp.full((2, 4), 0.05)))
    >>> int(axes.above), axes.shares.round(2).tolist()
    (1, [1.0, 0.0])
    """
    check_key(key)
    matrix = measured(found)
    if matrix.value.shape[0] < 2 or matrix.value.shape[1] < 3:
        raise ValueError(
            f"found: got {matrix.value.shape[0]} components and {matrix.value.shape[1]} entries; axes need at least "
            "two components and three entries."
        )
    return _axes(key, matrix, uniform)


def standardise(value: Array, *, uniform: bool = False) -> Array:
    """Components centred over entries and divided by their spread, then entries centred over components.

    Args:
      value: Shape ``(component, entry)``.
      uniform: Whether to leave out the second centring.

    >>> standardise(jnp.array([[1.0, 3.0], [5.0, 5.0]]), uniform=True).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    return _centred(value, _inverse(_spread(value)), uniform)


def _spread(value: Array) -> Array:
    """Of each component over the entries, ``(component, 1)``; squares of small numbers are none of single precision."""
    apart = value - value[:, :1]
    largest = jnp.max(jnp.abs(apart), axis=1, keepdims=True)
    return largest * jnp.std(apart * _inverse(largest), axis=1, keepdims=True)


def _inverse(spread: Array) -> Array:
    """Its inverse, and 1 of what does not vary."""
    return 1 / jnp.where(spread > 0, spread, 1.0)


def _centred(value: Array, factor: Array, uniform: bool) -> Array:
    """Components centred and multiplied, then entries centred."""
    apart = value - value[:, :1]
    apart = (apart - jnp.mean(apart, axis=1, keepdims=True)) * factor
    return apart if uniform else apart - jnp.mean(apart, axis=0, keepdims=True)


@partial(jax.jit, static_argnames=("uniform",))
def _axes(key: Key, found: Measured, uniform: bool) -> Axes:
    standard = standardise(found.value, uniform=uniform)
    keys = jax.random.split(key, _DRAWS)
    spreads = jax.lax.map(lambda key: _spread(noise(jax.random.split(key)[0], found, 1)[0]), keys)
    # a component of no more spread than noise often has is noise; of others, noise has this share
    share = jnp.minimum(jnp.quantile(spreads, _QUANTILE, axis=0) * _inverse(_spread(found.value)), 1.0)
    left, sizes, right = jnp.linalg.svd(standard, full_matrices=False)

    def look(key: Key) -> tuple[Array, Array, Array, Array]:
        alone_key, with_key = jax.random.split(key)
        error = noise(alone_key, found, 1)[0]
        factor = share * _inverse(_spread(error))
        alone = jnp.linalg.svd(_centred(error, factor, uniform), compute_uv=False)[0]
        moved = standardise(found.value + noise(with_key, found, 1)[0], uniform=uniform)
        u, s, v = jnp.linalg.svd(moved, full_matrices=False)
        signs = jnp.where(jnp.sum(v * right, axis=1) < 0, -1.0, 1.0)
        return alone, s, (u * signs[None, :] - left) ** 2, (v.T * signs[None, :] - right.T) ** 2

    alone, moved, components, entries = jax.lax.map(look, keys)
    limit = jnp.quantile(alone, _QUANTILE)
    # what centring leaves of an exact matrix is rounding
    rounding = np.sqrt(standard.size) * jnp.finfo(standard.dtype).eps * sizes[0]
    return Axes(
        standardised=standard,
        sizes=sizes,
        size_errors=jnp.std(moved, axis=0),
        noise=limit,
        above=jnp.sum(sizes > jnp.maximum(limit, rounding)),
        components=left,
        component_errors=jnp.sqrt(jnp.mean(components, axis=0)),
        entries=right.T,
        entry_errors=jnp.sqrt(jnp.mean(entries, axis=0)),
    )
