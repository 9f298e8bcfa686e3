"""The toy model of superposition as its own truth: λ also at stages that the loss only passes through."""

from fractions import Fraction
from itertools import combinations_with_replacement, pairwise

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax.problem import Problem
from slt_jax.truths.newton import newton
from slt_jax.truths.superposition import FEATURES, PHASES, SADDLES, phase_params, superposition
from slt_jax.truths.truth import Truth
from slt_jax.types import Array, PyTree

_OWN = (
    "of the model's own function, by a bound of the divergence from both sides; the model: Chen, Lau, Mendel, Wei and "
    "Murfet 2023, arXiv 2310.06301"
)


def superposition_function(stage: str) -> Truth:
    """The learning coefficient of the model's own function, ``K(w) = E |f_w(x) - f_{w*}(x)|²``, at a stage.

    Of its own function every ``w*`` is a minimum, so that λ also exists where the loss itself has a saddle:

    | stage | ideal that ``K`` is equivalent to | λ |
    |---|---|---|
    | ``0++++++``, nothing represented | 6 biases; ``W^T W``, equivalent to the square of every weight | 3 + 12/4 = 6 |
    | ``2++++``, two features on a line | 6 biases, 2 lengths, 4 overlaps; ``(v_j v_k, u v_j)`` | 6 + 5/4 = 29/4 |
    | the phases of ``superposition`` | as many squares as the codimension | as there |

    On the line ``v_1, ..., v_4`` are the other features' weights across it and ``u`` is the bend of the line; their
    5/4 is read off the Newton polyhedron. With four corners ``K`` is not differentiable twice, but between two
    multiples of the squared distance from the turned polygons: a corner's output is pushed from its kink at once, and
    four angles of at least a right angle are right angles.

    Args:
      stage: ``0++++++``, ``2++++`` or a phase of ``superposition``.

    Returns:
      λ and m = 1.

    Raises:
      ValueError: A stage that is not in the table.

    When not to believe it: it is the answer at the very stage. A network on its way is near one where ``nβ`` cannot
    see the difference, ``nβ K ≪ 1``.

    Source: Chen, Lau, Mendel, Wei and Murfet 2023, arXiv 2310.06301, for the model; the rest as in the table.

    >>> [str(superposition_function(stage).learning_coefficient) for stage in ("0++++++", "2++++", "4++")]
    ['6', '29/4', '17/2']
    """
    if stage == "0++++++":
        return Truth(Fraction(FEATURES, 2) + Fraction(2 * FEATURES, 4), 1, _OWN)
    if stage == "2++++":
        pairs = [tuple((j == i) + (j == k) for j in range(5)) for i, k in combinations_with_replacement(range(5), 2)]
        across = newton([pair for pair in pairs if pair[4] < 2])
        return Truth(6 + across.learning_coefficient, across.multiplicity, _OWN)
    if not isinstance(stage, str) or stage not in PHASES:
        raise ValueError(f"stage must be one of {', '.join([*SADDLES, *PHASES])}, got {stage!r}: choose one")
    return Truth(superposition(stage).learning_coefficient, 1, _OWN)


def superposition_function_problem(stage: str) -> Problem:
    """The model as a problem at a stage, its targets its own outputs there.

    ``K(w)`` as in ``superposition_function``.

    Args:
      stage: As there.

    Returns:
      A problem in nats with one loss per feature, parameters ``{"W": (2, 6), "b": (6,)}``, data of 6 examples.

    Raises:
      ValueError: As ``superposition_function``.

    When not to believe it: ``n`` is 6, the number of features, for which no default of ``nβ`` is meant: give 1e5 or
    more. Below, chains reach the edge of a phase: in ``5-`` at 1e4 a healthy reading is a tenth too high.

    Source: Chen, Lau, Mendel, Wei and Murfet 2023, arXiv 2310.06301.

    >>> problem = superposition_function_problem("2++++")
    >>> float(jnp.mean(problem.loss_fn(problem.params, problem.data)))
    0.0
    """
    superposition_function(stage)
    params = phase_params(stage)
    return Problem(Partial(superposition_distance), params, superposition_targets(params))


def superposition_targets(params: PyTree | None = None) -> PyTree:
    """The data of ``superposition_distance``: what the outputs should be, feature by feature.

    Args:
      params: ``{"W": (d, c), "b": (c,)}``, whose own outputs are to be the targets; by default the inputs are.

    Returns:
      ``{"feature", "slope", "offset"}``, each of shape ``(c, c)``: on feature ``i`` of size ``x`` the target of output
      ``j`` is ``relu(slope_ij x + offset_ij)``; ``feature`` says which one it is, one-hot.

    When not to believe it: it is exact.

    Source: Chen, Lau, Mendel, Wei and Murfet 2023, arXiv 2310.06301.

    >>> superposition_targets()["slope"].shape
    (6, 6)
    """
    if params is None:
        identity = jnp.eye(FEATURES)
        return {"feature": identity, "slope": identity, "offset": jnp.zeros_like(identity)}
    gram = _gram(params["W"])
    identity = jnp.eye(gram.shape[0], dtype=gram.dtype)
    return {"feature": identity, "slope": gram, "offset": jnp.broadcast_to(params["b"][None, :], gram.shape)}


def superposition_distance(params: PyTree, batch: PyTree) -> Array:
    """The expected squared distance of all outputs from their targets, for each feature, in closed form.

    ``ℓ_i = Σ_j ∫_0^1 (relu(s_ij x + o_ij) - relu(g_ij x + b_j))² dx``: between the kinks both are lines, and the
    square of their difference is integrated exactly without cancellation. With the inputs as targets the mean over
    features is ``superposition_loss``.

    Args:
      params: ``{"W": (d, c), "b": (c,)}``.
      batch: As ``superposition_targets``, or some of its rows.

    Returns:
      Losses in nats, shape ``(B,)``.

    When not to believe it: gradients are exact. Second derivatives leave out what comes from the motion of kinks at
    which outputs and targets differ.

    Source: elementary; the model: Chen, Lau, Mendel, Wei and Murfet 2023, arXiv 2310.06301.

    >>> nothing = {"W": jnp.zeros((2, 6)), "b": jnp.zeros(6)}
    >>> round(float(superposition_distance(nothing, superposition_targets())[0]), 6)  # E x² = 1/3
    0.333333
    """
    # Elementwise: a matrix product would round float32 on some accelerators.
    slope = jnp.sum(batch["feature"][:, :, None] * _gram(params["W"])[None], axis=1)
    offset = jnp.broadcast_to(params["b"][None, :], slope.shape)
    edges = jnp.stack([jnp.zeros_like(slope), _kink(slope, offset), _kink(batch["slope"], batch["offset"])])
    # The integrand is continuous, so the derivative by an edge is zero: edges are constants.
    edges = jax.lax.stop_gradient(jnp.concatenate([jnp.sort(edges, axis=0), jnp.ones_like(slope)[None]]))
    total = jnp.zeros_like(slope)
    for left, right in pairwise(edges):
        middle = 0.5 * (left + right)
        on = 1.0 * (slope * middle + offset > 0)
        wanted = 1.0 * (batch["slope"] * middle + batch["offset"] > 0)
        first, last = (
            on * (slope * x + offset) - wanted * (batch["slope"] * x + batch["offset"]) for x in (left, right)
        )
        total += (right - left) * (first * first + first * last + last * last) / 3.0
    return jnp.sum(total, axis=1)


def _gram(weights: Array) -> Array:
    """``W^T W``, shape ``(c, c)``."""
    return jnp.sum(weights[:, :, None] * weights[:, None, :], axis=0)


def _kink(slope: Array, offset: Array) -> Array:
    """Where the line is zero, within ``[0, 1]``."""
    crosses = (offset > 0) != (slope + offset > 0)
    return jnp.where(crosses, jnp.clip(-offset / jnp.where(crosses, slope, 1.0), 0.0, 1.0), 0.0)
