"""A response matrix with the law of its errors: what structure and directions are read from."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax.response.covariance import Pairs, batches_of, centred
from slt_jax.response.influence import Index, Influence
from slt_jax.response.outcome import Susceptibility
from slt_jax.tree import is_traced
from slt_jax.types import Array, Key

#: Queries of an influence whose queries are its data: so many, evenly spaced, stand for all.
QUERIES = 64


class Measured(NamedTuple):
    """A matrix of responses and its errors; the axes are ``(component, entry)``.

    Attributes:
      value: The responses.
      std_error: Their Monte Carlo standard errors.
      scatter: What each batch of draws adds to the error, shape ``(group, batch, component of the group, entry)``, so
        that ``Σ_b ξ_gb scatter_gb`` with normal ``ξ`` has its law, with what entries share, and components of one
        chain; None where draws are not known, and errors are taken as independent.
    """

    value: Array
    std_error: Array
    scatter: Array | None = None


def measured(found: Susceptibility | Influence | Measured | tuple, columns: Index | None = None) -> Measured:
    """The response matrix of a result, or of ``(value, std_error)``.

    Of a ``Susceptibility``: χ of components under observables. Of an ``Influence``: ``-Cov(φ_q, ℓ_i - L)``, with its
    queries as components and its data as entries, so that to add ``δ`` of an entry takes ``δ`` from all of the data.

    Args:
      found: What was measured; or ``(value, std_error)``, each ``(component, entry)``.
      columns: Of an influence, which queries; default all, and where they are its data at most 64, evenly spaced.

    Returns:
      The matrix; errors that entries share are known where a draw of each is kept, and independent otherwise.

    Raises:
      ValueError: it is nothing of the kind, or the shapes do not agree, or a number is not finite.

    >>> measured((jnp.ones((2, 3)), 0.1 * jnp.ones((2, 3)))).value.shape
    (2, 3)
    """
    if isinstance(found, Measured):
        return _checked(found)
    if isinstance(found, Susceptibility):
        # draws of single entries are not kept
        known = found.changes.shape[-1] == found.value.shape[-1]
        scatter = jax.vmap(_scatter)(found.energies[..., None], found.changes) if known else None
        return _checked(Measured(found.value, found.std_error, scatter))
    if isinstance(found, Influence):
        entries = found.losses.reshape(*found.losses.shape[:2], -1)
        asked = found.losses if found.queries is None else found.queries
        asked = asked.reshape(*asked.shape[:2], -1)
        if columns is None and found.queries is None:
            count = asked.shape[-1]
            columns = np.linspace(0, count - 1, min(count, QUERIES)).astype(int)
        if columns is not None:
            asked = asked[:, :, jnp.asarray(columns)]
        scatter = _scatter(asked, entries - jnp.mean(entries, axis=2, keepdims=True))
        covariance = found.covariance(columns=columns)
        value = -(covariance.covariance - jnp.mean(covariance.covariance, axis=0, keepdims=True)).T
        return _checked(Measured(value, _length(scatter), scatter[None]))
    if isinstance(found, Pairs) or not isinstance(found, tuple) or len(found) != 2:
        raise ValueError(
            f"found: got a {type(found).__name__}; pass a Susceptibility, an Influence, or a pair (value, std_error)."
        )
    value, error = found
    return _checked(Measured(jnp.asarray(value), jnp.asarray(error)))


def control(found: Susceptibility, name: str) -> Measured:
    """The matrix of a control, ``"prior"`` or ``"gaussian"``, whose draws are not kept: its errors are independent."""
    pairs: Pairs = getattr(found, name)
    return _checked(Measured(-pairs.covariance, pairs.std_error), name)


def pool(matrices: Sequence[Measured]) -> Measured:
    """The mean over seeds, with its errors.

    >>> float(pool([Measured(jnp.ones((1, 1)), jnp.ones((1, 1)))] * 4).std_error[0, 0])
    0.5
    """
    count = len(matrices)
    scatters = [one.scatter / count for one in matrices if one.scatter is not None]
    return Measured(
        value=jnp.mean(jnp.stack([one.value for one in matrices]), axis=0),
        std_error=_length(jnp.stack([one.std_error / count for one in matrices])),
        scatter=jnp.concatenate(scatters, axis=1) if len(scatters) == count else None,
    )


def noise(key: Key, found: Measured, count: int) -> Array:
    """Draws of the error of a response matrix, normal, shape ``(count, component, entry)``.

    >>> exact = Measured(jnp.ones((2, 3)), jnp.zeros((2, 3)))
    >>> float(jnp.abs(noise(jax.random.key(0), exact, 4)).max())
    0.0
    """
    if found.scatter is None:
        return found.std_error[None] * jax.random.normal(key, (count, *found.value.shape), found.value.dtype)
    weights = jax.random.normal(key, (count, *found.scatter.shape[:2]), found.value.dtype)
    drawn = jnp.einsum("rgb,gbce->rgce", weights, found.scatter, precision="highest")
    return drawn.reshape(count, *found.value.shape)


@jax.jit
def _scatter(left: Array, right: Array) -> Array:
    """What each batch of draws adds to the error of minus the covariance, shape ``(batch, row, column)``."""
    chains, draws = left.shape[:2]
    count, length = batches_of(chains, draws)
    total = chains * count

    def cut(series: Array) -> Array:
        kept = centred(series)[:, draws - count * length :]
        return kept.reshape(total, length, *series.shape[2:])

    # the scale is taken out: products of small excesses are no numbers of single precision
    left_scale, right_scale = (jnp.maximum(jnp.max(jnp.abs(s)), 1e-30) for s in (left, right))
    means = jnp.einsum("blr,blc->brc", cut(left / left_scale), cut(right / right_scale), precision="highest") / length
    apart = jnp.mean(means, axis=0, keepdims=True) - means
    return left_scale * right_scale * apart / math.sqrt(total * (total - 1))


def _length(numbers: Array) -> Array:
    """Root of the sum of squares over the first axis; the squares may be no numbers of single precision."""
    scale = jnp.maximum(jnp.max(jnp.abs(numbers)), 1e-30)
    return scale * jnp.sqrt(jnp.sum((numbers / scale) ** 2, axis=0))


def _checked(found: Measured, name: str = "found") -> Measured:
    value, error = found.value, found.std_error
    if np.ndim(value) != 2 or np.shape(value) != np.shape(error):
        raise ValueError(
            f"found: got a value of shape {np.shape(value)} with errors of shape {np.shape(error)}; pass two matrices "
            "(component, entry)."
        )
    if is_traced(found):
        return found
    if not (np.isfinite(value).all() and np.isfinite(error).all()):
        raise ValueError(f"{name}: a response or its error is not finite; leave out the chains that diverged.")
    if (np.asarray(error) < 0).any():
        raise ValueError(f"{name}: a standard error is negative; pass errors, not their differences.")
    return found
