"""The volume of the basin around given parameters, seen from its centre: a lower bound, and honest about it."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from slt_jax import loss, tree
from slt_jax import posterior as posteriors
from slt_jax.curvature.operators import flat_dtype, hessian, product
from slt_jax.curvature.preconditioner import Preconditioner, stretched
from slt_jax.curvature.top import check_count, ritz_pairs
from slt_jax.estimators.rays import GROWTH, HALVINGS, Rays, follow
from slt_jax.posterior import LocalPosterior
from slt_jax.restriction import Restriction
from slt_jax.types import Array, Key, LossFn, PyTree, Scalar

#: Up to so many free directions all eigenvectors are axes of the preconditioner; beyond, the stiffest few.
ALL_AXES = 512
SOME_AXES = 32
#: Random rays that tell the radius of the directions without an axis of their own.
_REST_RAYS = 8
#: At least so many directions, and this share of them, have to carry the weight; none of them more than this share.
ESS_LIMIT, ESS_SHARE, LARGEST_LIMIT = 20.0, 0.1, 0.2
#: The share of the weight that may come from rays that met no wall.
REACHED_LIMIT = 0.01


class BasinVolume(NamedTuple):
    """A lower bound of the logarithm of a volume; a tree, every leaf of shape ``()`` but the radii.

    Attributes:
      log_volume: Logarithm of the volume in units of ``z`` to the power ``d``.
      std_error: Its standard error, rounding included; too small where the weights are heavy-tailed.
      effective_sample_size: ``(Σ w)² / Σ w²`` of the weights ``w = r^d``: how many directions carry the volume.
      largest_share: The share of the volume that comes from one direction.
      reached: The share of the volume in directions that met no wall up to ``reach``.
      log_radii: Logarithm of the radius along every direction, in units of the preconditioner, shape ``(direction,)``.
      dimension: ``d``.
    """

    log_volume: Array
    std_error: Array
    effective_sample_size: Array
    largest_share: Array
    reached: Array
    log_radii: Array
    dimension: Array

    @property
    def ok(self) -> Array:
        """Whether many directions carry the volume and nearly all of them ended at a wall."""
        enough = self.effective_sample_size >= jnp.maximum(ESS_LIMIT, ESS_SHARE * self.log_radii.shape[-1])
        walls = self.reached <= REACHED_LIMIT
        return enough & (self.largest_share <= LARGEST_LIMIT) & walls & jnp.isfinite(self.log_volume)

    def explain(self) -> str:
        """The number and its verdict, in words (host only)."""
        count = self.log_radii.shape[-1]
        problems = []
        if float(self.effective_sample_size) < max(ESS_LIMIT, ESS_SHARE * count):
            problems.append(
                f"{float(self.effective_sample_size):.1f} of {count} directions carry the volume, one of them "
                f"{float(self.largest_share):.0%}: it is only a lower bound; pass a better preconditioner or more "
                "directions"
            )
        elif float(self.largest_share) > LARGEST_LIMIT:
            problems.append(
                f"one direction carries {float(self.largest_share):.0%} of the volume: pass more directions"
            )
        if float(self.reached) > REACHED_LIMIT:
            problems.append(f"{float(self.reached):.0%} of the volume has no wall up to reach, and depends on it")
        verdict = "; ".join(problems) if problems else "healthy"
        return f"log volume at least {float(self.log_volume):.6g} ± {float(self.std_error):.2g}: {verdict}"


def basin_volume(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    *,
    threshold: Scalar,
    restriction: Restriction | None = None,
    reach: Scalar | None = None,
    preconditioner: Preconditioner | None = None,
    directions: int = 256,
) -> BasinVolume:
    """The log volume of the star-shaped basin: points that the centre sees through loss below ``threshold``.

    With ``z = A y``, ``y = s u`` and ``u`` uniform on the unit sphere of ``d`` dimensions, the volume is
    ``vol(B^d) · det A · E_u[s(u)^d]``, where ``s(u)`` is the first ``s`` with ``K(s A u) = L - L(w*) ≥ ε``. Any ``A``
    is right on average; one that makes the basin round has no variance.

    Args:
      key: A typed key.
      loss_fn: Losses in nats.
      params: The centre ``w*``.
      data: All examples.
      threshold: ε, in nats: well above what the losses are rounded to.
      restriction: Free directions; default all.
      reach: No ray goes farther, in units of ``z``; default ``√(d / γ)`` with the γ of ``localise``: where the prior
        of the posterior has its mass.
      preconditioner: ``A``, from ``curvature.isotropic``, ``diagonal`` or ``stretched``; default the eigenvectors of
        the Hessian, of more than 512 free directions the 32 stiffest, each as long as the basin is measured to be.
      directions: How many rays, each about 40 forward passes over the data; static under jit.

    Returns:
      The estimate with its verdict. Works inside jit.

    Raises:
      ValueError: before anything is compiled, where the loss breaks its contract, the restriction does not fit, or a
        number is out of range; where the preconditioner is for another number of free directions.

    Not to be believed as more than a **lower bound**: on average, as it is the logarithm of an average; of the basin,
    as what lies behind a wall is not counted; and far below it where the weights ``s^d`` are heavy-tailed, as they are
    in hundreds of dimensions unless the basin is nearly an ellipsoid: the largest of them are never drawn, and the
    effective sample size shows it. Walls thinner than a quarter of their distance may be stepped over.

    Source: Scherlis & Belrose 2025, arXiv:2501.18812.

    >>> loss_fn = lambda w, x: 0.5 * jnp.sum(jnp.array([1.0, 4.0]) * w**2) + x
    >>> volume = basin_volume(jax.random.key(0), loss_fn, jnp.zeros(2), jnp.zeros(9), threshold=0.5, directions=32)
    >>> round(float(jnp.exp(volume.log_volume)) / math.pi, 3)  # an ellipse of half axes 1 and 1/2
    0.5
    """
    check_count("directions", directions)
    _check_positive("threshold", threshold)
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.promote_types(jnp.result_type(leaf), jnp.float32)), params)
    loss.check(loss_fn, wide, data)
    # the default nβ and with it γ ask for two examples
    nbeta = None if loss.example_count(data) > 1 else 1.0
    posterior = posteriors.localise(loss_fn, wide, data, nbeta=nbeta, restriction=restriction)
    size = posteriors.dimension(posterior)
    if reach is None:
        reach = jnp.sqrt(size / posterior.gamma)
    _check_positive("reach", reach)
    axes_key, rays_key = jax.random.split(key)
    dtype = flat_dtype(wide, posterior.restriction)
    edge = (jnp.asarray(threshold, dtype), jnp.asarray(reach, dtype))
    if preconditioner is None:
        preconditioner = _measured_axes(axes_key, posterior, data, *edge, size)
    preconditioner.log_determinant(size)  # refuses another size
    return _volume(rays_key, posterior, data, *edge, preconditioner, size, directions)


def _measure_axes(
    key: Key, posterior: LocalPosterior, data: PyTree, threshold: Array, reach: Array, size: int
) -> Preconditioner:
    """Eigenvectors of the Hessian, stretched to where rays along them met the wall."""
    dtype = flat_dtype(posterior.center, posterior.restriction)
    multiply, _ = product(hessian, posterior.loss_fn, posterior.center, data, posterior.restriction, loss.CENTER_CHUNK)
    # rounds at which so few directions are diagonalised as a whole
    count, rounds = (size, 1) if size <= ALL_AXES else (SOME_AXES, 8)
    top_key, rest_key = jax.random.split(key)
    basis = ritz_pairs(top_key, multiply, size, dtype, count, rounds)[1].T
    both = _follow_flat(posterior, data, jnp.concatenate([basis, -basis]), threshold, reach).log_radius
    radii = jnp.exp(jnp.mean(both.reshape(2, count), axis=0))
    if count == size:
        return stretched(basis, radii, jnp.ones((), dtype))
    others = jax.random.normal(rest_key, (_REST_RAYS, size), dtype)
    others = others - (others @ basis.T) @ basis
    others = others / jnp.linalg.norm(others, axis=1, keepdims=True)
    rest = _follow_flat(posterior, data, others, threshold, reach).log_radius
    return stretched(basis, radii, jnp.exp(jnp.mean(rest)))


def _estimate(
    key: Key,
    posterior: LocalPosterior,
    data: PyTree,
    threshold: Array,
    reach: Array,
    preconditioner: Preconditioner,
    size: int,
    directions: int,
) -> BasinVolume:
    dtype = threshold.dtype
    normal = jax.random.normal(key, (directions, size), dtype)
    spherical = normal / jnp.linalg.norm(normal, axis=1, keepdims=True)
    rays = _follow_flat(posterior, data, jax.vmap(preconditioner.apply)(spherical), threshold, reach)
    top = jnp.max(rays.log_radius)
    weights = jnp.exp(size * (rays.log_radius - top))
    total = jnp.sum(weights)
    ball = 0.5 * size * math.log(math.pi) - math.lgamma(0.5 * size + 1)
    log_volume = ball + preconditioner.log_determinant(size) + size * top + jnp.log(total / directions)
    relative = jnp.std(weights, ddof=min(1, directions - 1)) / (total / directions) / math.sqrt(directions)
    rounding = _rounding(posterior, threshold, size, log_volume)
    return BasinVolume(
        log_volume=log_volume,
        std_error=jnp.hypot(relative, rounding) if directions > 1 else jnp.full((), jnp.nan, dtype),
        effective_sample_size=total**2 / jnp.sum(weights**2),
        largest_share=jnp.max(weights) / total,
        reached=jnp.sum(jnp.where(rays.reached, weights, 0.0)) / total,
        log_radii=rays.log_radius,
        dimension=jnp.asarray(size),
    )


def _rounding(posterior: LocalPosterior, threshold: Array, size: int, log_volume: Array) -> Array:
    """What halving leaves open, and single precision of the radii, of the sum and of the losses."""
    eps, losses = jnp.finfo(threshold.dtype).eps, posterior.center_losses
    excess = eps * jnp.sqrt(jnp.mean(losses**2) / losses.size) / threshold
    return size * (math.log(GROWTH) / 2**HALVINGS + eps + 0.5 * excess) + eps * jnp.abs(log_volume)


def _follow_flat(posterior: LocalPosterior, data: PyTree, directions: Array, threshold: Array, reach: Array) -> Rays:
    unravel = ravel_pytree(posterior.restriction.origin(posterior.center))[1]
    return follow(posterior, data, jax.vmap(unravel)(directions), threshold, reach)


_measured_axes = jax.jit(_measure_axes, static_argnums=5)
_volume = jax.jit(_estimate, static_argnums=(6, 7))


def _check_positive(name: str, value: Scalar) -> None:
    if jnp.ndim(value) != 0:
        raise ValueError(f"{name}: got shape {jnp.shape(value)}; pass one number.")
    if not tree.is_traced(value) and not (np.isfinite(float(value)) and float(value) > 0):
        raise ValueError(f"{name}: got {float(value)}; it must be finite and positive.")
