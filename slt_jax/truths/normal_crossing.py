"""Normal crossings: the singularities that resolution turns every other one into, with their finite temperatures."""

import operator
from collections.abc import Sequence
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax.problem import Problem
from slt_jax.truths.truth import Truth
from slt_jax.truths.vandermonde import check_units
from slt_jax.types import Array

_SOURCE = "Watanabe 2009, Algebraic Geometry and Statistical Learning Theory, Cambridge University Press"


def normal_crossing(k: Sequence[int], h: Sequence[int | float | Fraction] | None = None) -> Truth:
    """The learning coefficient of a monomial: the coordinate that vanishes fastest for its prior decides.

    ``K = Π w_j^{2 k_j}``, prior ``Π |w_j|^{h_j}``: ``λ = min_j (h_j + 1)/(2 k_j)``, m = the number of minimisers.

    Args:
      k: Half the exponents of ``K``, whole numbers; coordinates with ``k_j = 0`` take no part.
      h: The exponents of the prior, above -1; zeros (a smooth positive prior) if not given.

    Returns:
      λ and m, two numbers without units.

    Raises:
      ValueError: Exponents that are negative, not whole, all zero, or not integrable in the prior.

    When not to believe it:
      At finite ``nβ`` the energy ``nβ E[K]`` is smaller by about ``(m-1)/log nβ``, and by more where ``γ`` is large:
      compare an estimate with ``normal_crossing_energy``.

    Source:
      Watanabe 2009, Algebraic Geometry and Statistical Learning Theory, Cambridge University Press.

    >>> normal_crossing([1, 1, 0])[:2]
    (Fraction(1, 2), 2)
    """
    k, h = _check_exponents(k, h)
    poles = [(Fraction(prior) + 1) / (2 * power) for power, prior in zip(k, h, strict=True) if power]
    return Truth(min(poles), poles.count(min(poles)), _SOURCE)


def _check_exponents(
    k: Sequence[int], h: Sequence[int | float | Fraction] | None
) -> tuple[tuple[int, ...], tuple[int | float | Fraction, ...]]:
    """The exponents of ``K`` as integers and those of the prior, or a ``ValueError`` that says what is wrong."""
    try:
        powers = tuple(operator.index(power) for power in k)
    except TypeError:
        raise ValueError(f"k must be whole numbers, got {k!r}: K is the product of w_j^(2 k_j)") from None
    if not any(powers) or min(powers) < 0:
        raise ValueError(f"k must be non-negative and not all zero, got {powers}: give some coordinate a k above 0")
    try:
        priors = (Fraction(0),) * len(powers) if h is None else tuple(Fraction(prior) for prior in h)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"h must be a vector of finite numbers, got {h!r}: one per coordinate") from None
    if len(priors) != len(powers) or not all(prior > -1 for prior in priors):
        raise ValueError(f"h must have {len(powers)} entries, like k, all above -1, got {h!r}: correct it")
    return powers, priors


def normal_crossing_problem(k: Sequence[int], *, examples: int = 10_000) -> Problem:
    """A monomial as a problem, at the origin, where all its divisors cross.

    ``K(w) = Π w_j^{2 k_j}`` is the loss itself.

    Args:
      k: Half the exponents of ``K``, whole numbers; coordinates with ``k_j = 0`` are free.
      examples: ``n``, the number of examples in ``data``.

    Returns:
      A problem in nats with a loss of shape ``()``, parameters zeros of shape ``(len(k),)``, data zeros ``(n, 0)``.

    Raises:
      ValueError: Exponents that are negative, not whole or all zero, or fewer than one example.

    When not to believe it:
      The curvature is unbounded along the arms: unadjusted samplers drift or diverge there, whatever their step.

    Source:
      Watanabe 2009, Algebraic Geometry and Statistical Learning Theory, Cambridge University Press.

    >>> problem = normal_crossing_problem([1, 2])
    >>> float(problem.loss_fn(problem.params + 2.0, problem.data))
    64.0
    """
    powers, _ = _check_exponents(k, None)
    (length,) = check_units(examples=examples)
    exponents = jnp.asarray([2 * power for power in powers], dtype=jnp.int32)
    return Problem(Partial(_monomial, exponents), jnp.zeros(len(powers)), jnp.zeros((length, 0)))


def _monomial(exponents: Array, w: Array, batch: Array) -> Array:
    """``Π w_j^{exponents_j}``, shape ``()``."""
    del batch  # carries the number of examples only
    return jnp.prod(jnp.power(w, exponents))


def normal_crossing_energy(
    k: Sequence[int], nbeta: float, gamma: float, h: Sequence[int | float | Fraction] | None = None
) -> float:
    """The exact energy of a monomial at finite temperature: what a perfect sampler would report as λ.

    ``nβ E[K]`` under ``exp(-nβ K(w) - γ/2 |w|²) Π |w_j|^{h_j}``, ``K = Π w_j^{2 k_j}``.

    In ``s = Σ k_j log|w_j|`` the prior is a convolution of one density for each coordinate, and the energy one
    integral over ``s``; the trapezoidal rule converges geometrically on both, in any number of dimensions.

    Args:
      k: Half the exponents of ``K``, whole numbers; coordinates with ``k_j = 0`` take no part.
      nbeta: ``nβ``, positive.
      gamma: ``γ``, positive: it alone confines the arms.
      h: The exponents of the prior, above -1; zeros if not given.

    Returns:
      A number without units (nβ times nats), with a relative error below 1e-6.

    Raises:
      ValueError: As ``normal_crossing``, or ``nbeta`` or ``gamma`` not positive and finite.

    When not to believe it:
      It is the energy of this localised posterior; another prior, such as a hard box, differs at order ``1/log nβ``.

    Source:
      Watanabe 2009, Algebraic Geometry and Statistical Learning Theory, for ``nβ E[K] → λ``; the integral is
      elementary, and for one coordinate with ``k = 1`` equals ``nβ/(2 nβ + γ)``.

    >>> round(normal_crossing_energy([1], nbeta=100.0, gamma=50.0), 9)
    0.4
    """
    powers, priors = _check_exponents(k, h)
    if not (0 < nbeta < np.inf and 0 < gamma < np.inf):
        raise ValueError(
            f"nbeta and gamma must be positive and finite, got {nbeta} and {gamma}: gamma confines the arms"
        )
    active = [(power, float(prior) + 1.0) for power, prior in zip(powers, priors, strict=True) if power]
    step = 0.1
    # Beyond its top each coordinate's prior is below e^-40, and far enough below every other factor's reach.
    tops = [0.5 * power * np.log(2.0 * (40.0 + 10.0 * pole) / gamma) for power, pole in active]
    density, lowest = np.ones(1), 0.0
    for (power, pole), top in zip(active, tops, strict=True):
        bottom = min(-0.5 * np.log(nbeta) - (sum(tops) - top), top) - 30.0 * power / pole
        grid = bottom + step * np.arange(int(np.ceil((top - bottom) / step)) + 1)
        log_density = pole * grid / power - 0.5 * gamma * np.exp(2.0 * grid / power)
        # Only ratios matter, so each factor is scaled to a maximum of one.
        density = np.convolve(density, np.exp(log_density - log_density.max()))
        lowest += bottom
    energies = nbeta * np.exp(2.0 * (lowest + step * np.arange(len(density))))
    weights = density * np.exp(-energies)
    return float(np.sum(energies * weights) / np.sum(weights))
