"""Smooth minimum sets: half the rank of the Hessian, where the Morse-Bott condition holds, and a refusal elsewhere."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from slt_jax.problem import Problem
from slt_jax.truths.truth import Truth
from slt_jax.types import Array, PyTree

_SOURCE = (
    "Morse-Bott lemma: Bott 1954, Nondegenerate critical manifolds, Annals of Mathematics 60(2), 248-261; "
    "condition checked numerically at nearby points, not proved"
)
_NEWTON_STEPS = 30


def morse_bott(
    problem: Problem, *, radius: float = 0.05, points: int = 4, tolerance: float = 1e-6, seed: int = 0
) -> Truth:
    """Half the rank of the Hessian, after a check that the minimum set is smooth with a nondegenerate normal Hessian.

    Where ``K`` is zero on a manifold and its Hessian has full rank across it, coordinates make ``K`` a sum of
    ``rank`` squares: ``λ = rank/2``, ``m = 1``.

    The check: the points near ``w*`` where the gradient has no component in the span of the Hessian's range form a
    manifold of dimension ``d - rank``. From random steps of length ``radius`` along the kernel Newton's method finds
    such points; the condition holds if and only if on all of them the whole gradient vanishes, hence the loss is
    that of ``w*`` and the rank the same. This is verified in float64, whatever the caller's precision.

    Args:
      problem: A problem whose loss (its mean, if per example) is twice differentiable at the parameters.
      radius: Length of the steps along the kernel; small against the distance to the next singularity.
      points: How many points are tried.
      tolerance: Eigenvalues below it, relative to the largest, count as zero; gradients and losses found nearby must
        be zero to its square, relative to the steps.
      seed: Of the random steps.

    Returns:
      λ as a fraction and m = 1.

    Raises:
      ValueError: The parameters are no minimum, the rank is not clear-cut, or the condition fails; the message says
        which and by how much.

    When not to believe it:
      Finitely many points in floating point prove nothing: a flat direction of order ten, or a singularity of the
      minimum set in a direction not tried, can pass. Where the loss has a kink the Hessian says nothing.

    Source:
      Bott 1954, Annals of Mathematics 60(2), 248-261.

    >>> circle = Problem(lambda w, batch: (jnp.sum(w**2) - 1.0) ** 2, jnp.asarray([1.0, 0.0]), jnp.zeros((9, 0)))
    >>> morse_bott(circle)[:2]
    (Fraction(1, 2), 1)
    """
    _check_problem(problem)
    if not (radius > 0 and points >= 1 and 0 < tolerance < 1e-2):
        raise ValueError(
            f"radius, points and tolerance must be positive, tolerance below 0.01, got {radius}, {points} and "
            f"{tolerance}: correct them"
        )
    with jax.enable_x64(True):
        problem = jax.tree.map(_float64, problem)
        flat, unravel = ravel_pytree(problem.params)
        start = np.asarray(flat)

        def loss(w: Array) -> Array:
            return jnp.mean(problem.loss_fn(unravel(w), problem.data))

        gradient, hessian = jax.jit(jax.grad(loss)), jax.jit(jax.hessian(loss))
        rank, frame = _rank(np.asarray(hessian(start)), tolerance)
        center = _normal_zero(gradient, hessian, start, frame[:, :rank])
        _check_minimum(float(np.linalg.norm(center - start)), np.asarray(gradient(center)), radius, tolerance)
        if rank < len(start):
            steps = np.random.default_rng(seed).normal(size=(points, len(start) - rank))
            for step in radius * steps / np.linalg.norm(steps, axis=1, keepdims=True):
                moved = _normal_zero(gradient, hessian, center + frame[:, rank:] @ step, frame[:, :rank])
                change = float(loss(jnp.asarray(moved)) - loss(jnp.asarray(center)))
                slope = float(np.linalg.norm(np.asarray(gradient(moved))))
                nearby = _count(np.abs(np.linalg.eigvalsh(np.asarray(hessian(moved)))), tolerance)
                _check_nearby(rank, nearby, change, slope, radius, tolerance)
    return Truth(Fraction(rank, 2), 1, _SOURCE)


def _check_problem(problem: Problem) -> None:
    if not isinstance(problem, Problem):
        raise ValueError(f"problem must be a Problem, got a {type(problem).__name__}: Problem(loss_fn, params, data)")


def _float64(leaf: Any) -> Any:
    """Floating arrays in float64, anything else as it is."""
    return (
        jnp.asarray(leaf, jnp.float64) if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf
    )


def _rank(hessian: np.ndarray, tolerance: float) -> tuple[int, np.ndarray]:
    """The rank, and an eigenbasis whose first columns span the range; refuses what is no clear minimum."""
    values, vectors = np.linalg.eigh(hessian)
    order = np.argsort(-np.abs(values))
    values, vectors = values[order], vectors[:, order]
    largest = float(np.abs(values[0]))
    rank = _count(np.abs(values), tolerance)
    if rank and values[:rank].min() < 0:
        raise ValueError(
            f"params must be a minimum, got a Hessian with eigenvalue {values[:rank].min():.2g}: polish it"
        )
    if rank and values[rank - 1] < 100 * tolerance * largest:
        raise ValueError(
            f"params must have a clear rank, got an eigenvalue {values[rank - 1] / largest:.1e} of the largest: "
            "choose another tolerance"
        )
    return rank, vectors


def _count(sizes: np.ndarray, tolerance: float) -> int:
    """How many eigenvalues are not zero, given their sizes; none where all are rounding noise of a flat loss."""
    return int(np.sum(sizes > max(tolerance * sizes.max(), tolerance**2)))


def _normal_zero(
    gradient: Callable[..., Array], hessian: Callable[..., Array], start: np.ndarray, normal: np.ndarray
) -> np.ndarray:
    """The point of ``start + span(normal)`` where the gradient has no component in that span, by Newton's method."""
    point = start
    if normal.shape[1] == 0:
        return point
    for _ in range(_NEWTON_STEPS):
        residual = normal.T @ np.asarray(gradient(point))
        # Least squares: at a singular point met by chance the step is zero, and the rank found there tells.
        step = np.linalg.lstsq(normal.T @ np.asarray(hessian(point)) @ normal, residual, rcond=None)[0]
        point = point - normal @ step
        if np.linalg.norm(step) < 1e-14:
            break
    return point


def _check_minimum(distance: float, gradient: np.ndarray, radius: float, tolerance: float) -> None:
    slope = float(np.linalg.norm(gradient))
    if not (distance < 0.1 * radius and slope < tolerance * radius):
        raise ValueError(
            f"params must be a minimum, got a gradient of {slope:.2g} after moving {distance:.2g} to the nearest "
            "candidate: polish them first"
        )


def _check_nearby(rank: int, nearby: int, change: float, slope: float, radius: float, tolerance: float) -> None:
    """Refuse unless the loss, the gradient and the rank are those of the centre."""
    flat = abs(change) < tolerance**2 * radius**2 * 100 and slope < tolerance * radius
    if not (flat and nearby == rank):
        raise ValueError(
            f"params do not meet the Morse-Bott condition, got rank {rank} at them and, {radius:.2g} along the kernel, "
            f"rank {nearby}, a change of loss of {change:.2g} and a gradient of {slope:.2g}: use another theorem"
        )


def hessian_rank(problem: Problem, *, tolerance: float = 1e-6) -> int:
    """The rank of the Hessian of the mean loss at the parameters, in float64.

    Args:
      problem: A problem with a twice differentiable loss.
      tolerance: Eigenvalues below it, relative to the largest, count as zero.

    Returns:
      The rank.

    Raises:
      ValueError: As ``morse_bott`` where the parameters are no minimum or the rank is not clear.

    When not to believe it: half of it is λ only where ``morse_bott`` passes.

    Source: elementary.

    >>> hessian_rank(Problem(lambda w, batch: w[0] ** 2 + w[1] ** 4, jnp.zeros(2), jnp.zeros((9, 0))))
    1
    """
    _check_problem(problem)
    with jax.enable_x64(True):
        problem = jax.tree.map(_float64, problem)
        flat, unravel = ravel_pytree(problem.params)
        hessian: PyTree = jax.hessian(lambda w: jnp.mean(problem.loss_fn(unravel(w), problem.data)))(flat)
        return _rank(np.asarray(hessian), tolerance)[0]
