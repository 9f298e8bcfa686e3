"""The toy model of superposition, six features in two dimensions: its loss in closed form, its phases, their λ."""

from fractions import Fraction
from numbers import Real
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax.problem import Problem
from slt_jax.truths.vandermonde import check_units
from slt_jax.types import Array, PyTree

FEATURES = 6
_MODEL = (
    "Chen, Lau, Mendel, Wei and Murfet 2023, Dynamical versus Bayesian phase transitions in a toy model of "
    "superposition, arXiv 2310.06301, for the model and its polygons; "
)
_SMOOTH = _MODEL + "half the rank of the Hessian by the Morse-Bott lemma, Bott 1954"
_KINKED = _MODEL + (
    "not proven: half the codimension of the minima, by quadratic growth across them that is checked numerically; the "
    "loss has kinks here"
)
#: Bias of a feature whose output is silent; any negative number will do.
_SILENT = -0.3
#: Bias of a feature that is not represented but whose output is kept at its mean, ``E[x_i] = 1/12``.
MEAN = 1.0 / (2 * FEATURES)


class _Polygon(NamedTuple):
    """``corners`` features on a circle; ``means`` more at zero with the mean as output; the rest at zero and silent.

    Length and bias of the corners are the roots of the gradient of the loss restricted to regular polygons.
    """

    corners: int
    means: int
    length: float
    bias: float


PHASES = {
    "4--": _Polygon(4, 0, 1.0, 0.0),
    "4+-": _Polygon(4, 1, 1.0, 0.0),
    "4++": _Polygon(4, 2, 1.0, 0.0),
    "5-": _Polygon(5, 0, 1.1704596390978290, -0.2822972831267716),
    "5+": _Polygon(5, 1, 1.1704596390978290, -0.2822972831267716),
    "6": _Polygon(6, 0, 1.3205263307799670, -0.6181351318682152),
}
#: Stages that training passes through: saddles of the loss, which have no learning coefficient as its minima.
SADDLES = {"0++++++": _Polygon(0, 6, 0.0, 0.0), "2++++": _Polygon(2, 4, 1.0, 0.0)}


class SuperpositionTruth(NamedTuple):
    """A learning coefficient of a phase, and its loss: every attribute of ``Truth`` and two more.

    Attributes:
      learning_coefficient: λ.
      multiplicity: m, or None where it is not proven.
      source: Model and theorem, or why the number is not proven.
      exact: Whether λ follows from a theorem; False at the phases with kinks.
      loss: The population loss of the phase, in nats.
    """

    learning_coefficient: Fraction
    multiplicity: int | None
    source: str
    exact: bool
    loss: float


def superposition(phase: str) -> SuperpositionTruth:
    """The learning coefficient of a phase of the toy model of superposition, six features in two dimensions.

    The minima near a phase form a smooth set: turned polygons, silent outputs of any negative bias, and, in ``5-``,
    any small column of the silent feature. ``λ`` is half its codimension in the 18 parameters:

    | phase | loss | λ |
    |---|---|---|
    | ``5-``, ``5+``, ``6`` | .06874, .06180, .04819 | 7, 17/2, 17/2 |
    | ``4--``, ``4+-``, ``4++`` | .11111, .10417, .09722 | 15/2, 8, 17/2 (kinked: not proven) |

    Args:
      phase: Number of corners of the polygon, then for each further feature ``+`` if its output is kept at its mean
        and ``-`` if it is silent.

    Returns:
      λ, m and the loss; ``exact`` is False for the phases with four corners.

    Raises:
      ValueError: A phase that is not in the table.

    When not to believe it:
      With four corners outputs sit at the kink of their rectifier: half the codimension is right if the loss grows
      quadratically across the minima, which is checked numerically only. Without symmetry breaking by data; with
      finitely many inputs the phases move.

    Source:
      Chen, Lau, Mendel, Wei and Murfet 2023, arXiv 2310.06301; Bott 1954, Annals of Mathematics 60(2), 248-261.

    >>> superposition("5-").learning_coefficient, round(superposition("5-").loss, 5)
    (Fraction(7, 1), 0.06874)
    """
    polygon = _polygon(phase)
    silent = FEATURES - polygon.corners - polygon.means
    # A silent feature's column moves no output only if the corners' own outputs are silent at zero input.
    flat = 1 + silent * (3 if polygon.bias < 0 else 1)
    smooth = polygon.bias < 0
    coefficient = Fraction(3 * FEATURES - flat, 2)
    loss = _reference_loss(polygon)
    return SuperpositionTruth(coefficient, 1 if smooth else None, _SMOOTH if smooth else _KINKED, smooth, loss)


def _polygon(phase: str) -> _Polygon:
    if not isinstance(phase, str) or phase not in PHASES:
        raise ValueError(f"phase must be one of {', '.join(PHASES)}, got {phase!r}: choose one")
    return PHASES[phase]


def _reference_loss(polygon: _Polygon) -> float:
    """The loss of a regular polygon in float64: every corner sees the others under the same angles."""
    angles = 2 * np.pi * np.arange(polygon.corners) / polygon.corners
    slopes = polygon.length**2 * np.cos(angles)
    seen = [_square_error(float(index == 0), slope, polygon.bias) for index, slope in enumerate(slopes)]
    total = polygon.corners * sum(seen)
    # Seen from a feature at zero the corners show relu(b) = 0, the other features their own constant.
    rest = FEATURES - polygon.corners
    own = polygon.means * (1 / 3 - MEAN + MEAN**2) + (rest - polygon.means) / 3
    return float((total + own + (FEATURES - 1) * polygon.means * MEAN**2) / FEATURES)


def _square_error(target: float, slope: float, bias: float) -> float:
    """``∫ (target x - relu(slope x + bias))² dx`` over ``[0, 1]`` for a bias that is not positive."""
    kink = min(1.0, -bias / slope) if slope > 0 else 1.0
    # Up to the kink the error is target x, beyond it a line.
    first, last = ((target - slope) * x - bias for x in (kink, 1.0))
    return target**2 * kink**3 / 3 + (1 - kink) * (first**2 + first * last + last**2) / 3


def superposition_problem(phase: str, *, angle: float = 0.0, examples: int = 10_000) -> Problem:
    """The toy model of superposition as a problem, at one of its phases.

    ``L(W, b)`` as in ``superposition_loss``.

    Args:
      phase: As ``superposition``.
      angle: By how much the polygon is turned, in radians.
      examples: ``n``, the number of examples in ``data``.

    Returns:
      A problem in nats with a loss of shape ``()``, parameters ``{"W": (2, 6), "b": (6,)}``, data zeros ``(n, 0)``.

    Raises:
      ValueError: As ``superposition``, fewer than one example, or an angle that is not finite.

    When not to believe it:
      Population loss: with sampled data the phase is near, not at, the minimum. Its phases are close to one another:
      chains at the default ``nβ`` leave for others, and ``llc`` says so. ``nbeta=1e6`` keeps them: silent biases are
      -0.3 and held by γ alone, ``1/√γ`` has to stay far below that.

    Source:
      Chen, Lau, Mendel, Wei and Murfet 2023, arXiv 2310.06301.

    >>> problem = superposition_problem("6")
    >>> round(float(problem.loss_fn(problem.params, problem.data)), 5)
    0.04819
    """
    _polygon(phase)
    (length,) = check_units(examples=examples)
    if not (isinstance(angle, Real) and np.isfinite(float(angle))):
        raise ValueError(f"angle must be a finite number, got {angle!r}: it is in radians")
    return Problem(Partial(superposition_loss), phase_params(phase, float(angle)), jnp.zeros((length, 0)))


def phase_params(phase: str, angle: float = 0.0) -> PyTree:
    """The parameters at a phase, or at a stage that is a saddle: corners first, then the features at their mean.

    >>> phase_params("2++++")["W"].round(3).tolist()[0]
    [1.0, -1.0, 0.0, 0.0, 0.0, 0.0]
    """
    polygon = SADDLES.get(phase) or _polygon(phase)
    angles = angle + 2 * np.pi * np.arange(polygon.corners) / max(polygon.corners, 1)
    weights, biases = np.zeros((2, FEATURES)), np.full(FEATURES, _SILENT)
    weights[:, : polygon.corners] = polygon.length * np.array([np.cos(angles), np.sin(angles)])
    biases[: polygon.corners] = polygon.bias
    biases[polygon.corners : polygon.corners + polygon.means] = MEAN
    return {"W": jnp.asarray(weights), "b": jnp.asarray(biases)}


def superposition_loss(params: PyTree, batch: Array) -> Array:
    """The population loss of the toy model of superposition, in closed form.

    ``L(W, b) = E |x - relu(Wᵀ W x + b)|²``, the input one of the features, each with probability ``1/c``, its size
    uniform on ``[0, 1]``. Output ``j`` on feature ``i`` is the positive part of a line: what lies where it is positive
    is a polynomial, integrated exactly.

    Args:
      params: ``{"W": (d, c), "b": (c,)}``.
      batch: Ignored; it carries the number of examples.

    Returns:
      The loss, shape ``()``.

    When not to believe it: it is exact up to rounding; differentiable twice where no output's kink sits at an end.

    Source: Chen, Lau, Mendel, Wei and Murfet 2023, arXiv 2310.06301.

    >>> silent = {"W": jnp.zeros((2, 6)), "b": jnp.zeros(6)}
    >>> round(float(superposition_loss(silent, jnp.zeros((1, 0)))), 6)  # E x² = 1/3
    0.333333
    """
    del batch
    weights, biases = params["W"], params["b"]
    # Elementwise: a matrix product would round float32 on some accelerators.
    gram = jnp.sum(weights[:, :, None] * weights[:, None, :], axis=0)
    start = jnp.broadcast_to(biases[None, :], gram.shape)
    end = gram + start
    low, high = jnp.maximum(start, 0.0), jnp.maximum(end, 0.0)
    crosses = (start > 0) != (end > 0)
    # The share of [0, 1] on which the line is positive.
    share = jnp.where(crosses, (high + low) / jnp.where(crosses, jnp.abs(gram), 1.0), 1.0 * (start > 0))
    squares = share * (low * low + low * high + high * high) / 3.0
    left = jnp.where(start > 0, 0.0, 1.0 - share)
    # Simpson's rule is exact for the product of two lines on the positive piece.
    products = share * (left * low + (2 * left + share) * (low + high) + (left + share) * high) / 6.0
    own = jnp.eye(gram.shape[0], dtype=gram.dtype)
    return jnp.mean(jnp.sum(squares + own * (1.0 / 3.0 - 2.0 * products), axis=1))
