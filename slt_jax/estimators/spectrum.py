"""What a spectral density says: how many directions are stiff, what they add to λ, and what is left for the rest."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from slt_jax.types import Array, Scalar

#: What float32 leaves open, or what lies below 0, may be this share of the regular part.
OPEN_LIMIT = 0.05
#: From half the Lanczos steps to all the regular part may move by this share: where it moves by more, the iteration
#: has not converged, and what is left can be several times as much.
TRUNCATION_LIMIT = 0.01


class Measured(NamedTuple):
    """A number, or an array of them, and its standard error, in the same unit and of the same shape."""

    value: Array
    std_error: Array

    def __str__(self) -> str:
        if np.ndim(self.value):
            return repr(self)
        return f"{float(self.value):.4g} ± {float(self.std_error):.2g}"


class RegularPart(NamedTuple):
    """What the Hessian explains of λ at one temperature; a tree, every leaf of shape ``()`` but ``per_probe``.

    Attributes:
      value: ``λ_reg = ½ Σ_i nβ h_i / (nβ h_i + γ)`` over eigenvalues above the resolution, without a unit.
      std_error: Standard error over probes, and the truncation, together.
      per_probe: The value that each probe alone gives, shape ``(probe,)``.
      truncation: How far the value moves from half the Lanczos steps to all: more than what is left, once it is small.
      negative: Directions of negative curvature; they add nothing to the value, as λ of an unstable direction is not
        that of a parabola.
      unresolved: What directions whose curvature is 0 to rounding would add, were the size that it is found to have
        real.
    """

    value: Array
    std_error: Array
    per_probe: Array
    truncation: Array
    negative: Array
    unresolved: Array

    @property
    def ok(self) -> Array:
        """Whether Lanczos has converged, and negative or unresolved curvature is worth less than a twentieth."""
        most = OPEN_LIMIT * self.value
        settled = jnp.isfinite(self.value) & (self.truncation <= TRUNCATION_LIMIT * self.value)
        return settled & (0.5 * self.negative <= most) & (self.unresolved <= most)

    def remainder(self, estimate: object) -> Measured:
        """The degenerate remainder ``λ̂ - λ_reg``: what the quadratic approximation cannot see.

        Args:
          estimate: An ``Estimate`` at the same ``nβ``, γ and restriction, or a number that is known exactly.

        Returns:
          Its value and standard error, both errors combined. 0 where the loss is a parabola; positive where it rises
          along directions in which the Hessian is flat, ``x²y²`` being the simplest; negative where the landscape is
          wider than the parabola at its centre.
        """
        value, error = getattr(estimate, "value", estimate), getattr(estimate, "std_error", 0.0)
        return Measured(jnp.asarray(value) - self.value, jnp.hypot(jnp.asarray(error), self.std_error))

    def explain(self) -> str:
        """The number and its verdict, in words (host only)."""
        number = f"λ_reg {float(self.value):.4g} ± {float(self.std_error):.2g}"
        problems = []
        if float(self.truncation) > TRUNCATION_LIMIT * float(self.value):
            problems.append(f"half of the steps give {float(self.truncation):.2g} more or less: raise steps")
        if float(0.5 * self.negative) > OPEN_LIMIT * float(self.value):
            problems.append(
                f"{float(self.negative):.3g} directions curve downwards: train further, or measure the Gauss-Newton "
                "matrix, or the network's own function (self_reference)"
            )
        if float(self.unresolved) > OPEN_LIMIT * float(self.value):
            problems.append(
                f"directions that are flat to rounding would add {float(self.unresolved):.2g}: raise gamma, or use "
                "float64 (jax.enable_x64)"
            )
        return f"{number}: {'; '.join(problems) if problems else 'healthy'}"


class HessianSpectrum(NamedTuple):
    """The spectral density of a symmetric matrix of the loss, as seen by probes; a tree.

    Attributes:
      nodes: Curvatures in nats per squared unit of ``z``, ascending, shape ``(probe, step)``. Where all eigenvalues
        were computed: one probe, a step for each of them.
      weights: The share of directions that each node stands for, shape ``(probe, step)``; 1 in sum for every probe.
      coarse_nodes, coarse_weights: The same after half the steps, shape ``(probe, step // 2)``.
      dimension: ``d``, the number of free directions, shape ``()``.
      resolution: Below this in size a curvature is 0 to rounding, shape ``()``.
    """

    nodes: Array
    weights: Array
    coarse_nodes: Array
    coarse_weights: Array
    dimension: Array
    resolution: Array

    def trace(self, function: Callable[[Array], Array]) -> Measured:
        """``tr f(H) = d ∫ ρ(h) f(h) dh`` for a function of curvatures that maps arrays elementwise.

        The error has two parts: the standard error over probes, and how far the value moves from half the Lanczos steps
        to all. Where all eigenvalues are known both are 0.
        """
        per_probe, truncation = self._traces(function)
        return Measured(jnp.mean(per_probe), jnp.hypot(_error_of_mean(per_probe, self._exact), truncation))

    def density(self, grid: Array, width: Scalar) -> Measured:
        """The share of directions per unit of curvature, smoothed: ``Σ_k w_k N(grid; h_k, width²)``.

        Args:
          grid: Curvatures, shape ``(m,)``.
          width: Standard deviation of the Gaussian that stands for each node, in the same unit.

        Returns:
          Values and standard errors over probes, shape ``(m,)``; the integral over all curvatures is 1. A ``width``
          below the distance between nodes shows the nodes, not the spectrum.
        """
        distance = (jnp.asarray(grid)[None, None, :] - self.nodes[:, :, None]) / width
        peaks = jnp.exp(-0.5 * distance**2) / (jnp.sqrt(2 * jnp.pi) * width)
        per_probe = jnp.sum(self.weights[:, :, None] * peaks, axis=1)
        return Measured(jnp.mean(per_probe, axis=0), _error_of_mean(per_probe, self._exact))

    def count_above(self, threshold: Scalar) -> Measured:
        """The number of directions whose curvature is above a threshold, and its standard error."""
        return self.trace(lambda h: jnp.where(h > threshold, 1.0, 0.0))

    def regular(self, nbeta: Scalar, gamma: Scalar) -> RegularPart:
        """The regular part of λ at one temperature: ``λ_reg(nβ, γ) = (d/2) ∫ ρ(h) nβ h / (nβ h + γ) dh``.

        λ̂ of the quadratic approximation of the loss, exactly. Curvatures below ``resolution`` count as 0, and negative
        ones add nothing; both are reported.

        Args:
          nbeta: ``nβ``.
          gamma: γ, in inverse squared units of ``z``.

        Returns:
          The value with its errors and what it leaves open. Works inside jit, and under vmap over temperatures.

        Source: the Gaussian integral; Ghorbani, Krishnan & Xiao 2019, arXiv:1901.10159, for the density.

        >>> spectrum = HessianSpectrum(*2 * (jnp.array([[0.0, 1.0]]), jnp.array([[0.5, 0.5]])), 10, 1e-6)
        >>> float(spectrum.regular(100.0, 100.0).value)
        1.25
        """

        def share(h: Array) -> Array:
            stiff = jnp.where(h > self.resolution, nbeta * h, 0.0)
            return 0.5 * stiff / jnp.where(h > self.resolution, stiff + gamma, 1.0)

        per_probe, truncation = self._traces(share)

        def lost(h: Array) -> Array:
            flat = jnp.where(jnp.abs(h) <= self.resolution, nbeta * jnp.abs(h), 0.0)
            return 0.5 * flat / jnp.where(flat > 0, flat + gamma, 1.0)

        return RegularPart(
            value=jnp.mean(per_probe),
            std_error=jnp.hypot(_error_of_mean(per_probe, self._exact), truncation),
            per_probe=per_probe,
            truncation=truncation,
            negative=self.trace(lambda h: jnp.where(h < -self.resolution, 1.0, 0.0)).value,
            unresolved=self.trace(lost).value,
        )

    @property
    def _exact(self) -> bool:
        """Whether the nodes are all eigenvalues: only then half the steps are not fewer."""
        return self.nodes.shape[-1] == self.coarse_nodes.shape[-1]

    def _traces(self, function: Callable[[Array], Array]) -> tuple[Array, Array]:
        """``tr f`` by every probe, and how far their mean moved from half the steps to all."""
        fine = jnp.sum(self.weights * function(self.nodes), axis=-1)
        coarse = jnp.sum(self.coarse_weights * function(self.coarse_nodes), axis=-1)
        return self.dimension * fine, self.dimension * jnp.abs(jnp.mean(fine - coarse))


def _error_of_mean(per_probe: Array, exact: bool) -> Array:
    """Standard error of the mean over the leading axis; 0 where nothing was left to chance."""
    if exact:
        return jnp.zeros_like(per_probe[0])
    return jnp.std(per_probe, axis=0, ddof=1) / jnp.sqrt(len(per_probe))
