"""What is left of a loss when some directions are free to answer: the reduced function of the splitting lemma.

For directions split into ``P`` and ``N``, ``K̃(n) = min_p K(n + p)`` over ``p`` in ``P`` near 0. Where ``P`` are the
regular directions, coordinates make ``K`` a sum of squares in ``P`` plus ``K̃``: whatever order a straight line in
``N`` seems to have because the minimum set bends away from it is gone in ``K̃``.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax.types import Array

#: Damping at the start, at the least, and where a point counts as stuck.
_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-6, 1e-15, 1e8
_SMALLEST_STEP = 1e-14
#: Points worked on at a time, to bound the memory of their Jacobians.
_AT_ONCE = 32


class Surface(NamedTuple):
    """A loss near a minimum, as a function of displacements ``u`` of shape ``(d,)``, in float64.

    Attributes:
      excess: ``u -> K(u)``, shape ``()``, 0 at the origin.
      model: ``(u, basis (d, p)) -> (p, p)``: the Hessian of ``K`` in the directions of a basis, or ``JᵀJ`` where ``K``
        is half a square.
      floor: ``reach -> K`` that is only rounding, within a distance.
      slope: ``(d,)``: the gradient at the origin, which has to be 0.
      lowest: The least eigenvalue of the curvature at the origin, which must not be negative.
      stiffness: The size of the sensitivity.
      sensitivity: ``(r, d)``: a matrix ``A`` with ``K ≈ ½ |A u|²``; its null space is that of the curvature.
    """

    excess: Callable[[Array], Array]
    model: Callable[[Array, Array], Array]
    floor: Callable[[float], float]
    slope: np.ndarray
    lowest: float
    stiffness: float
    sensitivity: np.ndarray


class Reduced(NamedTuple):
    """The reduced function at some points.

    Attributes:
      excess: ``(point,)``: ``K̃``, in nats.
      gradient: ``(point, dim N)``: its gradient in ``N``, which by the envelope theorem is that of ``K`` there.
      moved: ``(point,)``: how far ``P`` had to answer, in units of the parameters.
    """

    excess: np.ndarray
    gradient: np.ndarray
    moved: np.ndarray


def squared_surface(residual: Callable[[Array], Array], size: int, terms: float) -> Surface:
    """``K = ½ |r|²`` of a residual vector that vanishes at the origin, with Gauss-Newton as its model."""

    def model(u: Array, basis: Array) -> Array:
        jacobian = jax.jacfwd(lambda p: residual(u + basis @ p))(jnp.zeros(basis.shape[1]))
        return jacobian.T @ jacobian

    jacobian = np.asarray(jax.jit(jax.jacfwd(residual))(jnp.zeros(size)))
    stiffness = float(np.linalg.norm(jacobian))
    noise = 100 * np.finfo(float).eps
    return Surface(
        lambda u: 0.5 * jnp.sum(jnp.square(residual(u))),
        model,
        lambda reach: 0.5 * (noise * (terms + (1 + stiffness) * reach)) ** 2,
        np.zeros(size),
        0.0,
        stiffness,
        jacobian,
    )


def loss_surface(loss: Callable[[Array], Array], size: int) -> Surface:
    """``K = L(u) - L(0)`` of a loss with its minimum at the origin, with the Hessian as its model."""
    look = jax.jit(lambda u: (loss(u), jax.grad(loss)(u), jax.hessian(loss)(u)))
    base, slope, curvature = (np.asarray(part) for part in look(jnp.zeros(size)))

    def model(u: Array, basis: Array) -> Array:
        return jax.hessian(lambda p: loss(u + basis @ p))(jnp.zeros(basis.shape[1]))

    eps = np.finfo(float).eps
    values, vectors = np.linalg.eigh(0.5 * (curvature + curvature.T))
    level, stiffness = 32 * eps * abs(float(base)), float(np.linalg.norm(curvature))
    return Surface(
        lambda u: loss(u) - base,
        model,
        lambda reach: level + 0.5 * (1 + stiffness) * (100 * eps * reach) ** 2,
        slope,
        float(values.min(initial=0.0)),
        float(np.sqrt(np.abs(values).sum())),
        np.sqrt(np.abs(values))[:, None] * vectors.T,
    )


def reduce_over(surface: Surface, points: np.ndarray, normal: np.ndarray, rest: np.ndarray, steps: int) -> Reduced:
    """The reduced function at ``points``: the loss minimised over ``span(normal)`` from each of them.

    Args:
      surface: The loss.
      points: ``(point, d)`` displacements from the centre.
      normal: ``(d, p)`` orthonormal columns, ``p ≥ 0``: the directions that answer.
      rest: ``(d, q)`` orthonormal columns: the directions in which to differentiate.
      steps: At most so many steps of damped Gauss-Newton (or Newton) from each point.

    Returns:
      Values, gradients and how far the answers went, one a point.

    Not to be believed where ``moved`` is not small against the points: another minimum may have been found.

    Source: splitting lemma: Gromoll and Meyer 1969, Topology 8, 361-369; damping: Marquardt 1963, J. SIAM 11(2).
    """

    @jax.jit
    def run(points: Array, normal: Array, rest: Array) -> tuple[Array, Array, Array]:
        def one(point: Array) -> tuple[Array, Array, Array]:
            answer = _descend(surface, point, normal, steps) if normal.shape[1] else jnp.zeros(0)
            end = point + normal @ answer
            excess, gradient = jax.value_and_grad(surface.excess)(end)
            return excess, rest.T @ gradient, jnp.linalg.norm(answer)

        return jax.lax.map(one, points, batch_size=min(_AT_ONCE, len(points)))

    return Reduced(*(np.asarray(part) for part in run(*map(jnp.asarray, (points, normal, rest)))))


def _descend(surface: Surface, start: Array, normal: Array, steps: int) -> Array:
    """The answer ``p`` that minimises ``K(start + normal p)`` near 0, by damped Newton steps on the model."""
    reach = 0.5 * jnp.linalg.norm(start)
    value = jax.value_and_grad(lambda p: surface.excess(start + normal @ p))

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        p, excess, gradient, damping, count, _ = carry
        move = -_solve(surface.model(start + normal @ p, normal), gradient, damping)
        length = jnp.linalg.norm(move)
        move = move * jnp.minimum(1.0, reach / jnp.maximum(length, jnp.finfo(move.dtype).tiny))
        found, slope = value(p + move)
        better = found < excess
        damping = jnp.where(better, jnp.maximum(damping / 10, _LEAST_DAMPING), damping * 10)
        done = (length <= _SMALLEST_STEP * reach) | (damping > _MOST_DAMPING)
        return (
            jnp.where(better, p + move, p),
            jnp.where(better, found, excess),
            jnp.where(better, slope, gradient),
            damping,
            count + 1,
            done,
        )

    origin = jnp.zeros(normal.shape[1])
    first: tuple[Array, ...] = (origin, *value(origin), jnp.asarray(_DAMPING), jnp.asarray(0), jnp.asarray(False))
    return jax.lax.while_loop(lambda carry: (carry[4] < steps) & ~carry[5], step, first)[0]


def _solve(model: Array, gradient: Array, damping: Array) -> Array:
    """``model⁻¹ gradient`` with the diagonal scaled to 1, negative curvature made positive, and damping."""
    scale = jnp.sqrt(jnp.maximum(jnp.abs(jnp.diagonal(model)), jnp.finfo(model.dtype).tiny))
    values, vectors = jnp.linalg.eigh(model / scale[:, None] / scale[None, :])
    inner = (vectors.T @ (gradient / scale)) / (jnp.maximum(jnp.abs(values), _SMALLEST_STEP) + damping)
    return (vectors @ inner) / scale
