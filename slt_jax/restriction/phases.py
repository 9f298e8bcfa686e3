"""Directions that a phase transition moved: differences of checkpoints, principal directions, changes that matter."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import loss, tree
from slt_jax.restriction.base import Restriction
from slt_jax.restriction.entries import mask
from slt_jax.restriction.subspace import orthonormal, span
from slt_jax.types import Array, LossFn, PyTree

#: Examples whose gradients are taken at a time.
_CHUNK = 32


class PrincipalDirections(NamedTuple):
    """Where a trajectory moved most.

    Attributes:
      variances: Of the trajectory along each direction, squared units of the parameters, descending, shape ``(k,)``.
      basis: Orthonormal directions: a tree like the parameters with one more axis, the first, of length k.
      explained: Share of the whole variance that the first directions have together, shape ``(k,)``.
    """

    variances: np.ndarray
    basis: PyTree
    explained: np.ndarray

    @property
    def restriction(self) -> Restriction:
        """The span of all k directions."""
        return span(self.basis)


def differences(*checkpoints: PyTree) -> Restriction:
    """The span of the steps from each checkpoint to the next, ``w_(i+1) - w_i``, orthonormalised.

    Args:
      *checkpoints: Two or more trees of parameters, in the order of training; or one list of them.

    Returns:
      A restriction with ``z`` of shape ``(len(checkpoints) - 1,)``, in units of the parameters. Works inside jit.

    Raises:
      ValueError: there are fewer than two, their structures or shapes differ, or their differences are linearly
        dependent (two of them are equal, or three lie on one line).

    >>> restriction = differences({"w": jnp.zeros(2)}, {"w": jnp.array([3.0, 4.0])})
    >>> bool(jnp.allclose(jnp.abs(restriction.lift({"w": jnp.zeros(2)}, jnp.ones(1))["w"]), jnp.array([0.6, 0.8])))
    True
    """
    if len(checkpoints) == 1 and isinstance(checkpoints[0], list | tuple):
        (checkpoints,) = checkpoints
    stacked = _stacked("checkpoints", checkpoints)
    return span(orthonormal(jax.tree.map(lambda leaf: jnp.diff(leaf, axis=0), stacked)))


def principal_directions(trajectory: Sequence[PyTree], count: int | None = None) -> PrincipalDirections:
    """The first ``count`` principal directions of a trajectory of parameters, as over a phase transition.

    Eigenvectors of ``Σ_t (w_t - w̄)(w_t - w̄)ᵀ / T``, from the ``T × T`` matrix of inner products: on the host, in
    double precision.

    Args:
      trajectory: T trees of parameters.
      count: How many, at most T - 1 (after the mean is taken off); default all that the trajectory has.

    Returns:
      Variances, an orthonormal basis, and what share of the variance the first ones explain.

    Raises:
      ValueError: trees differ in structure or shape, or ``count`` exceeds the directions that the trajectory has.

    Not to be believed as phases where the trajectory is a random walk: its principal components are cosines, of which
    the first has six tenths of the variance whatever was learned (Antognini & Sohl-Dickstein 2018, arXiv:1806.08805).

    >>> line = [{"w": jnp.array([float(t), 2.0])} for t in range(3)]
    >>> found = principal_directions(line, 1)
    >>> found.explained.tolist(), jnp.abs(found.basis["w"]).tolist()
    ([1.0], [[1.0, 0.0]])
    """
    stacked = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), _stacked("trajectory", trajectory))
    centred = jax.tree.map(lambda leaf: leaf - leaf.mean(axis=0), stacked)
    flat = [leaf.reshape(len(trajectory), -1) for leaf in jax.tree.leaves(centred)]
    values, vectors = np.linalg.eigh(sum(leaf @ leaf.T for leaf in flat) / len(trajectory))
    values, vectors = values[::-1], vectors[:, ::-1]
    # the mean is taken off, so that one of them is 0 but for rounding
    rank = int(np.sum(values > 1e-12 * max(values[0], 0.0)))
    count = rank if count is None else count
    if isinstance(count, bool) or not hasattr(count, "__index__") or not 1 <= count <= rank:
        raise ValueError(
            f"count: got {count!r}; this trajectory has {rank} directions, of which 1 to {rank} are possible."
        )
    mixing = (vectors[:, :count] / np.sqrt(len(trajectory) * values[:count])).T
    dtypes = jax.tree.map(lambda leaf: jnp.result_type(leaf, jnp.float32), trajectory[0])
    basis = jax.tree.map(lambda leaf, dtype: jnp.asarray(np.tensordot(mixing, leaf, 1), dtype), centred, dtypes)
    return PrincipalDirections(values[:count], basis, np.cumsum(values[:count]) / values.sum())


def fisher_diagonal(loss_fn: LossFn, params: PyTree, data: PyTree, *, chunk_size: int = _CHUNK) -> PyTree:
    """The diagonal of the empirical Fisher information, ``F_j = mean_i (∂_j ℓ_i)²``, a tree like ``params``.

    Squared nats per squared unit of the parameters. From the gradients of single examples, ``chunk_size`` at a time. A
    loss that is a mean already is taken on single examples.

    Raises:
      ValueError: the loss breaks its contract.
    """
    loss.check(loss_fn, params, data)
    function = loss_fn if isinstance(loss_fn, Partial) else Partial(loss_fn)
    return _fisher(function, jax.tree.map(jnp.asarray, params), data, chunk_size)


def seen_changes(loss_fn: LossFn, before: PyTree, after: PyTree, data: PyTree, *, chunk_size: int = _CHUNK) -> PyTree:
    """``|Δw_j| √F_j`` of each coordinate, F the mean of ``fisher_diagonal`` before and after; on the host, in doubles.

    Raises:
      ValueError: the trees differ, or the loss breaks its contract.
    """
    moved = jax.tree.map(
        lambda leaf: np.abs(np.diff(np.asarray(leaf).astype(np.float64), axis=0)[0]), _stacked("after", (before, after))
    )
    fisher = [fisher_diagonal(loss_fn, params, data, chunk_size=chunk_size) for params in (before, after)]

    def seen(change: np.ndarray, *both: Array) -> np.ndarray:
        return change * np.sqrt(np.mean([np.asarray(one, np.float64) for one in both], axis=0))

    return jax.tree.map(seen, moved, *fisher)


def largest_changes(
    loss_fn: LossFn, before: PyTree, after: PyTree, data: PyTree, count: int, *, chunk_size: int = _CHUNK
) -> Restriction:
    """The ``count`` coordinates with the largest ``|Δw_j| √F_j``: those that moved far in units of what the loss sees.

    ``Δw = after - before``, and ``F`` the diagonal of the empirical Fisher information (mean over both ends).

    Args:
      loss_fn: Losses in nats.
      before, after: Parameters before and after a transition.
      data: Examples that the Fisher information is taken on.
      count: How many coordinates; those that did not move, or that no example sees, are never among them.
      chunk_size: Examples whose gradients are taken at a time.

    Returns:
      A mask of the parameters.

    Raises:
      ValueError: the trees differ, or fewer than ``count`` coordinates have moved and matter.

    Not to be believed where coordinates act together only (a weight whose partner is still 0 has no gradient):
    ``graft`` looks for such.

    >>> loss_fn = lambda w, x: 0.5 * (w[0] * x - 1) ** 2 + 0.5 * (0.01 * w[1] * x) ** 2
    >>> chosen = largest_changes(loss_fn, jnp.zeros(2), jnp.array([0.5, 2.0]), jnp.ones(4), 1)
    >>> chosen.lift(jnp.zeros(2), {"": jnp.ones(1)}).tolist()
    [1.0, 0.0]
    """
    scores = seen_changes(loss_fn, before, after, data, chunk_size=chunk_size)
    flat = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(scores)])
    if not np.isfinite(flat).all():
        raise ValueError("loss_fn: its gradients are not finite at these parameters.")
    most = int(np.count_nonzero(flat))
    if isinstance(count, bool) or not hasattr(count, "__index__") or not 1 <= count <= most:
        raise ValueError(f"count: got {count!r}; {most} coordinates have moved and matter: pass 1 to {most}.")
    chosen = np.zeros(flat.shape, bool)
    chosen[np.argsort(-flat, kind="stable")[:count]] = True
    return mask(before, tree.cut(chosen, scores))


@jax.jit(static_argnums=3)
def _fisher(loss_fn: Partial, params: PyTree, data: PyTree, chunk: int) -> PyTree:
    def squared(example: PyTree) -> PyTree:
        def one(params: PyTree) -> Array:
            batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], example)
            return jnp.mean(loss_fn(params, batch)).astype(jnp.float32)

        return jax.tree.map(jnp.square, tree.at_least_float32(jax.grad(one)(params)))

    def mean(examples: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), jax.vmap(squared)(examples))

    return loss.mean_over(mean, data, chunk)


def _stacked(argument: str, checkpoints: Sequence[PyTree]) -> PyTree:
    """All checkpoints as one tree with one more axis, the first; or a ``ValueError`` that names what differs."""
    if len(checkpoints) < 2:
        raise ValueError(f"{argument}: got {len(checkpoints)}; pass at least two trees of parameters.")
    first = jax.tree.map(jnp.shape, checkpoints[0])
    for number, other in enumerate(checkpoints[1:], 1):
        if jax.tree.map(jnp.shape, other) != first:
            raise ValueError(
                f"{argument}: number {number} has shapes {jax.tree.map(jnp.shape, other)}, the first has {first}."
            )
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *checkpoints)
