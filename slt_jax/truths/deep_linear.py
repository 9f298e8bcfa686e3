"""Deep linear networks: the exact learning coefficient, and problems placed at a minimum that attains it."""

import operator
from collections.abc import Mapping, Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax.problem import Problem
from slt_jax.truths.truth import Truth
from slt_jax.truths.vandermonde import check_units
from slt_jax.types import Array, Key, PyTree, Scalar

_SOURCE = (
    "Aoyagi 2024, Consideration on the learning efficiency of multiple-layered neural networks with linear units, "
    "Neural Networks 172, 106132, doi:10.1016/j.neunet.2024.106132"
)


def deep_linear(widths: Sequence[int], rank: int) -> Truth:
    """The learning coefficient of a deep linear network whose true product has a given rank.

    With ``M_s = H_s - r`` and the bottleneck set 𝓜, the ``ℓ + 1`` smallest of them for the least ``ℓ ≥ 1`` with
    ``S = Σ_𝓜 M < ℓ · min_rest M`` (all of them if there is no such ``ℓ``),

    ``λ = [r (H_0 + H_N) - r²]/2 + ½ Σ_{i<j∈𝓜} M_i M_j - (ℓ-1) S²/(4ℓ) + a(ℓ-a)/(4ℓ)``, ``m = a(ℓ-a) + 1``,
    ``a = S - (⌈S/ℓ⌉ - 1) ℓ``.

    Args:
      widths: ``H_0, ..., H_N``: inputs, hidden layers, outputs; at least two.
      rank: The rank ``r`` of the true product ``W_N ··· W_1``, at most the least width.

    Returns:
      λ and m, two numbers without units.

    Raises:
      ValueError: Fewer than two widths, a width below one, or a rank that no such product has.

    When not to believe it:
      λ is the least over all minima with this product, and m goes with the most degenerate of them. At a given
      minimum the local coefficient can be larger: see ``deep_linear_at``. The theorem asks for inputs whose
      covariance is not singular, and no biases.

    Source:
      Aoyagi 2024, Neural Networks 172, 106132, doi:10.1016/j.neunet.2024.106132. λ is half the codimension of the
      set of minima: Pepin Lehalleur and Rimányi 2024, arXiv:2411.19920.

    >>> deep_linear([2, 2, 2], rank=1)[:2]
    (Fraction(2, 1), 2)
    """
    widths, rank = check_network(widths, rank)
    spare = sorted(width - rank for width in widths)
    layers = _bottleneck_layers(spare)
    bottleneck = spare[: layers + 1]
    total = sum(bottleneck)
    remainder = total - (-(-total // layers) - 1) * layers
    pairs = Fraction(total**2 - sum(m * m for m in bottleneck), 2)
    regular = Fraction(rank * (widths[0] + widths[-1]) - rank**2, 2)
    excess = pairs / 2 - Fraction((layers - 1) * total**2, 4 * layers)
    rounding = Fraction(remainder * (layers - remainder), 4 * layers)
    return Truth(regular + excess + rounding, remainder * (layers - remainder) + 1, _SOURCE)


def _bottleneck_layers(spare: Sequence[int]) -> int:
    """The least ``ℓ`` for which the ``ℓ + 1`` smallest spare widths decide and no further width matters."""
    for layers in range(1, len(spare) - 1):
        if sum(spare[: layers + 1]) < layers * spare[layers + 1]:
            return layers
    return len(spare) - 1


def check_network(widths: Sequence[int], rank: int) -> tuple[tuple[int, ...], int]:
    """The widths and the rank as Python integers, or a ``ValueError`` that says which of them is impossible."""
    try:
        sizes, rank = tuple(operator.index(width) for width in widths), operator.index(rank)
    except TypeError:
        raise ValueError(f"widths and rank must be integers, got {widths!r} and {rank!r}: pass whole numbers") from None
    if len(sizes) < 2:
        raise ValueError(f"widths must name at least inputs and outputs, got {sizes}: pass two or more widths")
    if min(sizes) < 1:
        raise ValueError(f"widths must be positive, got {sizes}: give every layer at least one unit")
    if not 0 <= rank <= min(sizes):
        raise ValueError(f"rank must lie between 0 and the least width {min(sizes)}, got {rank}: lower it, or widen")
    return sizes, rank


def deep_linear_problem(
    key: Key,
    widths: Sequence[int],
    rank: int,
    *,
    examples: int = 10_000,
    population: bool = True,
    noise: float = 1.0,
    scale: float = 1.0,
    intervals: Mapping[tuple[int, int], int] | None = None,
) -> Problem:
    """A deep linear network at a minimum whose local learning coefficient is the one ``deep_linear`` states.

    ``K(w) = ½ ‖W_N ··· W_1 - W*‖_F²`` (population) or ``ℓ(w; x, y) = ½ |W_N ··· W_1 x - y|²`` with
    ``y = W* x + noise · ξ``.

    By default the point is balanced: every layer has rank exactly ``r``, aligned with its neighbours in random
    orthonormal frames, singular values within a fifth of ``scale``. Every minimum with this product has such a point
    in the closure of its symmetry orbit, so it is the most degenerate one: both λ and m are those of
    ``deep_linear(widths, rank)``, which layers of higher rank would not promise.

    Args:
      key: A typed key; the frames, the singular values and the data are drawn from it.
      widths: ``H_0, ..., H_N``.
      rank: The rank of ``W* = W_N ··· W_1``.
      examples: ``n``, the number of examples in ``data``.
      population: Take the loss in expectation over standard normal inputs, in closed form, of shape ``()``; the data
        then carry only ``n``. Otherwise draw inputs and noisy outputs, with losses of shape ``(B,)``.
      noise: Deviation of the outputs around ``W* x``; of no effect on the population loss, which leaves it out.
      scale: Size of the singular values of each layer.
      intervals: Place the point on another stratum: ``{(i, j): count}``, the number of directions born at layer ``i``
        that live up to and including layer ``j`` (``0 ≤ i ≤ j ≤ N``), as ``deep_linear_intervals`` reads them off.

    Returns:
      A problem in nats. Parameters: the tuple ``(W_1, ..., W_N)``, ``W_i`` of shape ``(H_i, H_{i-1})``. Data: zeros of
      shape ``(n, 0)``, or the pair ``x`` of shape ``(n, H_0)`` and ``y`` of shape ``(n, H_N)``. The population loss is
      exactly zero at the parameters.

    Raises:
      ValueError: Impossible widths or rank, fewer than one example, a noise below zero, a scale that is not positive,
        or intervals that do not fill the widths with the rank asked.

    When not to believe it:
      At a point given by ``intervals`` the coefficient is ``deep_linear_at(params)``. With drawn data the parameters
      are the truth, not the minimum of the empirical loss, and an estimate there is low by about ``λ/log n``. The
      product has its rank up to rounding, which a posterior sees once ``nβ`` times the squared rounding reaches one.

    Source:
      Aoyagi 2024, doi:10.1016/j.neunet.2024.106132, for λ and m; strata by intervals: Abeasis and Del Fra 1985,
      Degenerations for the representations of a quiver of type A_m, Journal of Algebra 93.

    >>> problem = deep_linear_problem(jax.random.key(0), [3, 2, 3], rank=1, examples=100)
    >>> [layer.shape for layer in problem.params], float(problem.loss_fn(*problem[1:]))
    ([(2, 3), (3, 2)], 0.0)
    """
    widths, rank = check_network(widths, rank)
    (examples,) = check_units(examples=examples)
    if noise < 0 or scale <= 0:
        raise ValueError(
            f"scale must be positive and noise not negative, got scale={scale}, noise={noise}: correct them"
        )
    if intervals is None:
        spare = {(v, v): width - rank for v, width in enumerate(widths)}
        intervals = {**spare, (0, len(widths) - 1): rank}
    _check_intervals(intervals, widths, rank)
    layer_key, input_key, noise_key = jax.random.split(key, 3)
    layers = _layers_from_intervals(layer_key, intervals, widths, scale)
    target = _product(layers)
    if population:
        return Problem(Partial(_population_excess, target), layers, jnp.zeros((examples, 0)))
    inputs = jax.random.normal(input_key, (examples, widths[0]))
    clean = jnp.matmul(inputs, target.T, precision=jax.lax.Precision.HIGHEST)
    outputs = clean + noise * jax.random.normal(noise_key, clean.shape)
    return Problem(_squared_errors, layers, (inputs, outputs))


def _check_intervals(intervals: Mapping[tuple[int, int], int], widths: Sequence[int], rank: int) -> None:
    """Refuse interval counts that do not add up to the widths and the rank."""
    last = len(widths) - 1
    if any(not 0 <= i <= j <= last or count < 0 for (i, j), count in intervals.items()):
        raise ValueError(f"intervals must be {{(i, j): count}}, 0 <= i <= j <= {last}, counts >= 0, got {intervals}")
    filled = [sum(count for (i, j), count in intervals.items() if i <= v <= j) for v in range(last + 1)]
    if filled != list(widths) or intervals.get((0, last), 0) != rank:
        raise ValueError(
            f"intervals must fill the widths {tuple(widths)} with {rank} from end to end, got {tuple(filled)} with "
            f"{intervals.get((0, last), 0)}: add or remove intervals (i, i) where the two differ"
        )


def _layers_from_intervals(
    key: Key, intervals: Mapping[tuple[int, int], int], widths: Sequence[int], scale: Scalar
) -> tuple[Array, ...]:
    """Layers that carry each interval's directions from its first width to its last, in random orthonormal frames."""
    frame_key, value_key = jax.random.split(key)
    # Only directions that meet another layer need a place in the frame: the rest of each width stays at zero.
    paths = [ij for ij, count in sorted(intervals.items()) if ij[0] < ij[1] for _ in range(count)]
    through = [[p for p, (i, j) in enumerate(paths) if i <= v <= j] for v in range(len(widths))]
    frame_keys = jax.random.split(frame_key, len(widths))
    frames = [_frame(k, width, len(live)) for k, width, live in zip(frame_keys, widths, through, strict=True)]
    layers = []
    for v, layer_key in enumerate(jax.random.split(value_key, len(widths) - 1), start=1):
        carried = sorted(set(through[v - 1]) & set(through[v]))
        before = frames[v - 1][:, np.array([through[v - 1].index(p) for p in carried], dtype=int)]
        after = frames[v][:, np.array([through[v].index(p) for p in carried], dtype=int)]
        values = scale * jax.random.uniform(layer_key, (len(carried),), minval=0.8, maxval=1.2)
        layers.append(jnp.matmul(after * values[None, :], before.T, precision=jax.lax.Precision.HIGHEST))
    return tuple(layers)


def _frame(key: Key, width: int, directions: int) -> Array:
    """Random orthonormal columns, shape ``(width, directions)``."""
    if directions == 0:
        return jnp.zeros((width, 0))
    return jnp.linalg.qr(jax.random.normal(key, (width, directions)))[0]


def _product(layers: Sequence[Array]) -> Array:
    """``W_N ··· W_1``, shape ``(H_N, H_0)``."""
    product = layers[0]
    for layer in layers[1:]:
        # Full precision: tensor cores round float32 inputs to about 1e-3, which would flatten K around its minimum.
        product = jnp.matmul(layer, product, precision=jax.lax.Precision.HIGHEST)
    return product


def _population_excess(target: Array, layers: PyTree, batch: PyTree) -> Array:
    """``½ ‖W_N ··· W_1 - W*‖_F²``, shape ``()``: the expected excess loss over standard normal inputs."""
    del batch  # carries the number of examples only
    return 0.5 * jnp.sum(jnp.square(_product(layers) - target))


def _squared_errors(layers: PyTree, batch: PyTree) -> Array:
    """``½ |W_N ··· W_1 x - y|²`` for each example, shape ``(B,)``."""
    activations, outputs = batch
    for layer in layers:
        activations = jnp.matmul(activations, layer.T, precision=jax.lax.Precision.HIGHEST)
    return 0.5 * jnp.sum(jnp.square(activations - outputs), axis=-1)
