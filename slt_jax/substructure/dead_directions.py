"""Dead directions: to which order the divergence vanishes along each direction the Fisher information does not see."""

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import loss
from slt_jax.restriction import Restriction
from slt_jax.substructure import double
from slt_jax.substructure.elimination import Reduced, Surface, loss_surface, reduce_over, squared_surface
from slt_jax.types import PyTree

#: Scales of displacement: the radius halved so many times. The slope between the last two is the one that is believed.
_SCALES = 8
#: Steps of elimination over regular directions, and once singular ones take part, which converge linearly.
_STEPS, _SINGULAR_STEPS = 30, 90
_LARGEST = 1024
#: An order is believed where it is so near a whole number, and changes by no more from one scale to the next.
_SURE = 0.1
#: Singular values below this share of the largest are not looked at.
_LOST = 1e-6


class DeadDirections(NamedTuple):
    """Orthonormal directions at a minimum with the order to which ``K`` vanishes along each.

    Attributes:
      orders: ``(d,)`` integers: ``k`` with ``K ~ t^{2k}``; 1 where regular, 0 where there is none.
      kinds: ``d`` words: ``"regular"``, ``"singular"``, ``"gauge"`` or ``"unresolved"``.
      directions: A tree like the parameters with a leading axis ``d``, numpy arrays: an orthonormal basis of the free
        directions, regular first, then by order; entries that a restriction freezes are 0.
      measured: ``(d,)``: the order as measured, ``1 + d log σ/d log t``; 1 where regular, NaN where gauge.
      errors: ``(d,)``: how much that still changed from one scale to the next; 0 where regular, NaN where gauge.
      total: ``Σ 1/(2k)`` over regular and singular directions; None where one is unresolved.
    """

    orders: np.ndarray
    kinds: tuple[str, ...]
    directions: PyTree
    measured: np.ndarray
    errors: np.ndarray
    total: Fraction | None


class _Group(NamedTuple):
    """Directions found together: columns, and for each the order as measured and its error."""

    columns: np.ndarray
    measured: np.ndarray
    errors: np.ndarray
    kind: str


def dead_directions(
    function: Callable,
    params: PyTree,
    data: PyTree,
    *,
    divergence: str | None = None,
    restriction: Restriction | None = None,
    radius: float = 0.1,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> DeadDirections:
    """The order ``k`` of every direction at a minimum, ``K ~ t^{2k}``, with gauge directions told apart.

    A direction is regular (``k = 1``) where the Fisher information sees it. The others are found order by order. With
    ``P`` the directions known so far and ``N`` the rest, the reduced function ``K̃(n) = min_{p ∈ P} K(n + p)`` is
    looked at in random displacements ``n`` of size ``t`` in ``N``. Its leading form has some degree ``2k``; the
    singular values of the stacked gradients of ``√(2K̃)`` grow like ``t^{k-1}`` (those of the directional Fisher
    information like ``t^{2(k-1)}``) in the directions that this form depends on, and vanish faster in the others. The
    former have order ``k`` and join ``P``. Where ``K̃`` is 0 to rounding at all scales, what is left is gauge: it
    has no order, and adds nothing to λ. A gauge orbit may be curved: ``P`` bends along with it, so rescaling
    ``a relu(b x)`` is gauge although ``K ~ t⁴`` on its tangent.

    The order is that of a generic displacement. At ``a = b = 0`` the unit ``a tanh(b x)`` has ``K ~ a² b²``: either
    axis alone is flat, but the two directions are singular of order 2, jointly. At ``a = 0, b ≠ 0`` the outgoing
    weight is regular and the incoming one gauge.

    Args:
      function: A loss ``loss_fn(params, batch)`` in nats whose minimum is at ``params``; or, with a ``divergence``, a
        network ``outputs(params, batch)``, whose own function is then the truth: any ``params`` will do.
      params: The centre ``w*``.
      data: All examples; all are used at once.
      divergence: ``"squared"`` or ``"categorical"``, as in ``self_reference``; None for a loss.
      restriction: Free directions; default all. At most 1024.
      radius: The largest displacement, in units of the parameters; halved seven times.
      tolerance: A direction is regular where ``√(curvature)`` exceeds this share of the largest.
      seed: Of the random displacements.

    Returns:
      An orthonormal basis of the free directions, sorted into kinds. Everything is computed in float64 inside; the
      caller's precision and settings are not touched.

    Raises:
      ValueError: an unknown divergence, outputs without example axis, a loss with a slope or negative curvature at
        ``params``, too many free parameters, or a radius or tolerance that is not positive.

    Not to be believed where structure is finer than ``radius / 128`` or coarser than ``radius``: a weight of 1e-6
    counts as 0, and one in between is mostly ``"unresolved"``. Orders above about 10 (5 for a loss that is not 0 at
    its minimum) drown in rounding and read as gauge. A loss is refused at parameters that are a minimum to single
    precision only, as outputs are not.
    ReLU kinks that displacements cross are no analytic function: vary the radius. ``total`` is λ where ``K`` is, in
    suitable coordinates, a sum of functions of separate directions (``x² + y⁴ + z⁶``: 11/12) or quasi-homogeneous
    with an isolated zero, and an upper bound on it where all singular directions share one order; otherwise it is
    neither: at the rank 0 of two linear layers of width 2 it is 2, λ is 3/2.

    Source: arXiv:2606.05957 and arXiv:2607.00603 (the order of a direction from the rate of the directional Fisher
    information); Gromoll and Meyer 1969, Topology 8, 361-369 (splitting lemma).

    >>> dead = dead_directions(lambda w, _: w[0] ** 2 + w[1] ** 4, jnp.zeros(2), jnp.zeros((9, 0)))
    >>> dead.orders, dead.kinds, dead.total
    (array([1, 2]), ('regular', 'singular'), Fraction(3, 4))
    """
    double.check_positive(radius=radius, tolerance=tolerance)
    if divergence is None:
        loss.check(function, params, data)
    else:
        double.check_outputs(function, params, data, divergence)
    with jax.enable_x64(True):
        space = double.coordinates(params, restriction)
        double.check_size(space, _LARGEST)
        surface = _surface(function, space, data, divergence)
        groups = _all_groups(surface, radius, tolerance, _grain(params), np.random.default_rng(seed))
        return _report(groups, space)


def _grain(params: PyTree) -> float:
    """How far the parameters may lie from an exact singularity for the precision they are written in."""
    leaves = [(np.asarray(leaf, np.float64), jnp.finfo(jnp.result_type(leaf)).eps) for leaf in jax.tree.leaves(params)]
    return max(float(eps) * float(np.abs(leaf).max(initial=0.0)) for leaf, eps in leaves)


def _surface(function: Callable, space: double.Coordinates, data: PyTree, divergence: str | None) -> Surface:
    if divergence is not None:
        residual, terms = double.residuals(function, space, data, divergence)
        return squared_surface(residual, space.size, terms)
    mean_loss = double.mean_loss(function, space, data)
    return loss_surface(mean_loss, space.size)


def _all_groups(
    surface: Surface, radius: float, tolerance: float, grain: float, random: np.random.Generator
) -> list[_Group]:
    """Regular directions first, then the singular ones order by order, then what is gauge."""
    regular, rest = _split_regular(surface, tolerance)
    _check_minimum(surface, regular, rest, radius)
    groups = [_Group(regular, np.ones(regular.shape[1]), np.zeros(regular.shape[1]), "regular")]
    normal, order, scales = regular, 2.0, radius / 2.0 ** np.arange(_SCALES)
    while rest.shape[1]:
        steps = _STEPS if normal.shape[1] == regular.shape[1] else _SINGULAR_STEPS
        group, rest = _next_group(surface, normal, rest, scales, order, steps, grain, random)
        groups.append(group)
        normal = np.concatenate([normal, group.columns], axis=1)
        order = max(order, float(np.round(group.measured.min(initial=order))))
    return groups


def _split_regular(surface: Surface, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal columns of the range and of the null space of the curvature at the centre."""
    # the triangular factor has the same singular values, however many examples there are
    _, sizes, frame = np.linalg.svd(np.linalg.qr(surface.sensitivity, mode="r"), full_matrices=True)
    largest = float(sizes.max(initial=0.0))
    if surface.lowest < -((tolerance * max(largest, 1.0)) ** 2):
        raise ValueError(
            f"params: the loss has curvature {surface.lowest:.2g} there; it must be a minimum, also to the digits of "
            "float64. Polish it, or pass the network's outputs and a divergence, of which any params are one."
        )
    rank = int(np.sum(sizes > max(tolerance * largest, np.finfo(float).tiny)))
    return frame[:rank].T, frame[rank:].T


def _check_minimum(surface: Surface, regular: np.ndarray, rest: np.ndarray, radius: float) -> None:
    """Refuse a centre with a slope: it would be read as an order of one half."""
    smallest = radius / 2 ** (_SCALES - 1)
    strength = surface.sensitivity @ regular
    stiff = np.linalg.pinv(strength.T @ strength) @ (regular.T @ surface.slope)
    along = float(np.linalg.norm(rest.T @ surface.slope))
    if np.linalg.norm(stiff) > 1e-3 * smallest or along * smallest > 100 * surface.floor(radius) + 1e-9 * smallest**2:
        raise ValueError(
            f"params: the loss has a slope of {np.linalg.norm(surface.slope):.2g} there; it must be a minimum. Polish "
            "it, or pass the network's outputs and a divergence."
        )


def _next_group(
    surface: Surface,
    normal: np.ndarray,
    rest: np.ndarray,
    scales: np.ndarray,
    order: float,
    steps: int,
    grain: float,
    random: np.random.Generator,
) -> tuple[_Group, np.ndarray]:
    """The directions of the least order among the rest, or all of the rest where nothing is seen of them."""
    reduced = reduce_over(surface, _displacements(rest, scales, random), normal, rest, steps)
    nearby = np.median(reduced.moved.reshape(len(scales), -1), axis=1) <= 4 * scales
    sizes, frames, noise, usable = _spectra(surface, reduced, scales, grain)
    if not usable and not sizes[0].any():
        none = np.full(rest.shape[1], np.nan)
        return _Group(rest, none, none, "gauge" if nearby[-1] else "unresolved"), rest[:, :0]
    last = max(usable - 1, 0)
    measured, errors = _orders(sizes[:usable], scales[:usable], noise[:usable])
    chosen = measured < measured.min() + 0.5
    whole = np.round(measured[chosen])
    sure = (np.abs(measured[chosen] - whole) < _SURE) & (errors[chosen] < _SURE) & (whole >= order)
    kind = "singular" if sure.all() and nearby[last] else "unresolved"
    frame = rest @ frames[last].T
    return _Group(frame[:, chosen], measured[chosen], errors[chosen], kind), frame[:, ~chosen]


def _spectra(
    surface: Surface, reduced: Reduced, scales: np.ndarray, grain: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Singular values and right frames of the gradients of ``√(2K̃)`` by scale, their noise, and the usable scales."""
    excess = reduced.excess.reshape(len(scales), -1)
    floor = np.array([surface.floor(scale) for scale in scales])
    seen = excess > 100 * floor[:, None]
    rows = reduced.gradient.reshape(*excess.shape, -1) / np.sqrt(2 * np.where(seen, excess, 1.0))[..., None]
    _, sizes, frames = np.linalg.svd(np.where(seen[..., None], rows, 0.0), full_matrices=False)
    # rounding of K turns into a gradient through the regular directions; a centre written in single precision is off
    # by its grain, by which whatever grows with the displacement is off too
    share = np.minimum(floor / np.maximum(np.median(excess, axis=1), np.finfo(float).tiny), 1.0)
    noise = surface.stiffness * scales * np.sqrt(share) + 10 * grain / scales * sizes[:, 0]
    clear = (seen.sum(axis=1) >= 0.5 * seen[0].sum()) & (noise < 0.05 * sizes[:, 0])
    # from the largest down to where noise takes over
    return sizes, frames, noise, int(np.argmin([*clear, False]))


def _displacements(rest: np.ndarray, scales: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Random points at every scale, the same directions each time: slopes are then free of sampling noise."""
    directions = random.normal(size=(2 * rest.shape[1] + 8, rest.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return (scales[:, None, None] * (directions @ rest.T)[None]).reshape(-1, len(rest))


def _orders(sizes: np.ndarray, scales: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``1 + d log σ/d log t`` between the last two scales, and by how much it differs from the one before.

    Infinite where a singular value is lost in noise or beside the largest: its direction waits for the next round.
    """
    if len(scales) < 3:
        return np.ones(sizes.shape[1]), np.full(sizes.shape[1], np.inf)
    logs = np.log(np.maximum(sizes, np.finfo(float).tiny))
    slopes = 1 + np.diff(logs, axis=0) / np.diff(np.log(scales))[:, None]
    lost = sizes[-1] < max(_LOST * sizes[-1, 0], noise[-1])
    return np.where(lost, np.inf, slopes[-1]), np.abs(slopes[-1] - slopes[-2])


def _report(groups: list[_Group], space: double.Coordinates) -> DeadDirections:
    kinds = tuple(group.kind for group in groups for _ in range(group.columns.shape[1]))
    measured = np.concatenate([group.measured for group in groups])
    counted = np.array([kind in ("regular", "singular") for kind in kinds], bool)
    orders = np.where(counted, np.round(np.nan_to_num(measured)), 0).astype(int)
    total = sum((Fraction(1, 2 * int(k)) for k in orders[counted]), Fraction(0))
    return DeadDirections(
        orders=orders,
        kinds=kinds,
        directions=space.basis(np.concatenate([group.columns for group in groups], axis=1).T),
        measured=measured,
        errors=np.concatenate([group.errors for group in groups]),
        total=None if "unresolved" in kinds else total,
    )
