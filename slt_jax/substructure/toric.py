"""An upper bound on the learning coefficient from the monomials that a loss shows in its own coordinates."""

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import loss
from slt_jax.restriction import Restriction
from slt_jax.substructure import double
from slt_jax.types import Array, LossFn, PyTree

#: How small ``t`` is where the loss is 0 at the minimum, and where rounding of a loss of order 1 is in the way.
_DEEP, _SHALLOW = 1e-12, 1e-9
#: Starting points ``c`` spread over so many decades: then one monomial outweighs the others in most of them.
_DECADES = 2.5
_NEAR_WHOLE = 0.12
_ROUNDS, _LARGEST = 200, 4096


class ToricBound(NamedTuple):
    """An optimal weighting of the coordinates, and the monomials that hold it.

    Attributes:
      bound: ``Σ v``: an upper bound on λ in these coordinates, exact arithmetic on the monomials seen.
      weights: ``v``, a tree like the parameters, numpy arrays, units of ``log K``: ``u_i = c_i t^{v_i}`` gives
        ``K ~ t``; entries that a restriction freezes are 0.
      exponents: ``(cut, d)``: exponents of the monomials of ``K`` that were met, in the flat free parameters.
      order: The least order of ``K`` measured along ``u = c t^v`` over all ``c`` tried; 1 or more where it holds.
      converged: Whether it is 1 up to 2 %, and every cut a whole exponent.
    """

    bound: Fraction
    weights: PyTree
    exponents: np.ndarray
    order: float
    converged: bool


def toric_bound(
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    *,
    restriction: Restriction | None = None,
    radius: float = 0.2,
    draws: int = 64,
    seed: int = 0,
) -> ToricBound:
    """An upper bound on λ in these coordinates, by cutting planes of the Newton programme; needs gradients only.

    ``λ ≤ min { Σ v_i : v ≥ 0, K(w* + c t^v) = O(t) for every c }``: the box ``|u_i| < t^{v_i}`` has volume ``t^{Σ v}``
    and ``K`` is below a multiple of ``t`` on it. At a point of the arc at small ``t`` the log-gradient
    ``∂ log K/∂ log |u_i|`` is the exponent of the monomial that outweighs the others. An exponent ``α`` with
    ``⟨α, v⟩ < 1`` is a cut; the linear programme is solved again until no arc shows another.

    Args:
      loss_fn: ``loss_fn(params, batch)``, in nats, with its minimum at ``params``.
      params: ``w*``; coordinates are the entries of the displacement from it.
      data: All examples.
      restriction: Free directions; default all. At most 4096.
      radius: Size of the ``c``, in units of the parameters: higher terms are of relative size ``radius²`` or so.
      draws: How many ``c`` are tried each round; more find rarer monomials.
      seed: Of the ``c``.

    Returns:
      The bound with the weights, the monomials that were met and a measured check. Float64 inside; the caller's
      precision and settings are not touched.

    Raises:
      ValueError: numbers that are not positive, too many free parameters.
      ArithmeticError: the linear programme fails, or the cuts do not come to an end.

    Not to be believed as λ: it is an upper bound, and one in these coordinates: two tanh units at truth 0 read 1, and
    λ is 2/3; an ``x`` and ``y`` that enter only as ``x - y`` read as two. It holds up to monomials that no draw has
    shown, which ``order`` speaks for: were one overlooked, ``Σ v`` could even lie below λ. ``converged`` False: the
    value is a rough guess.

    Source: Varchenko 1976, Functional Analysis and Its Applications 10, 175-196 (Newton polyhedra and oscillatory
    integrals); Watanabe 2009, Algebraic Geometry and Statistical Learning Theory, chapter 7.

    >>> bound = toric_bound(lambda w, _: w[0] ** 4 + w[1] ** 6, jnp.zeros(2), jnp.zeros((9, 0)))
    >>> bound.bound, bound.weights, bound.converged
    (Fraction(5, 12), array([0.25      , 0.16666667], dtype=float32), True)
    """
    loss.check(loss_fn, params, data)
    double.check_positive(radius=radius, draws=draws)
    with jax.enable_x64(True):
        space = double.coordinates(params, restriction)
        double.check_size(space, _LARGEST)
        look, smallest = _looker(double.mean_loss(loss_fn, space, data), space.size)
        weights, cuts, order = _cutting_planes(look, space.size, smallest, radius, draws, np.random.default_rng(seed))
        whole = bool(np.all(cuts == np.round(cuts)))
        rational = [Fraction(float(v)).limit_denominator(5040) for v in weights]
        return ToricBound(
            bound=sum(rational, Fraction(0)),
            weights=jax.tree.map(lambda leaf: leaf[0], space.basis(weights[None])),
            exponents=np.round(cuts).astype(int) if whole else cuts,
            order=order,
            converged=bool(order > 0.98 and whole),
        )


def _looker(mean_loss: Callable[[Array], Array], size: int) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """``points (draw, d) -> log-gradients (draw, d)``, NaN where ``K`` is rounding; and how small ``t`` may be."""
    base = float(jax.jit(mean_loss)(jnp.zeros(size)))
    floor = 1e3 * np.finfo(float).eps * abs(base)
    both = jax.jit(jax.vmap(jax.value_and_grad(mean_loss)))

    def look(points: np.ndarray) -> np.ndarray:
        values, gradients = (np.asarray(part) for part in both(jnp.asarray(points)))
        excess = values - base
        seen = excess > max(floor, np.finfo(float).tiny)
        return np.where(seen[:, None], points * gradients, np.nan) / np.where(seen, excess, 1.0)[:, None]

    return look, _SHALLOW if floor else _DEEP


def _cutting_planes(
    look: Callable[[np.ndarray], np.ndarray],
    size: int,
    smallest: float,
    radius: float,
    draws: int,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Weights, exponents and the least order along them, once no draw shows a violated exponent."""
    cuts, weights = np.zeros((0, size)), np.zeros(size)
    for _ in range(_ROUNDS):
        spread = 10.0 ** (-_DECADES * random.uniform(size=(draws, size)))
        signs = np.where(random.uniform(size=(draws, size)) < 0.5, -1.0, 1.0)
        found = look(radius * signs * spread * smallest**weights)
        found = found[np.isfinite(found).all(axis=1)]
        orders = found @ weights
        fresh = _violated(found, orders, weights, cuts)
        if not len(fresh):
            return weights, cuts, float(orders.min(initial=np.inf))
        cuts = np.concatenate([cuts, fresh])
        weights = _optimum(cuts)
    raise ArithmeticError(f"the cutting planes did not come to an end in {_ROUNDS} rounds; pass another radius")


def _violated(found: np.ndarray, orders: np.ndarray, weights: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Exponents not met before that the weights violate: whole ones, or else one as it was measured."""
    whole = np.round(found)
    near = (np.abs(found - whole) < _NEAR_WHOLE).all(axis=1) & (whole >= 0).all(axis=1) & whole.any(axis=1)
    violated = np.unique(whole[near & (whole @ weights < 1 - 1e-6)], axis=0)
    fresh = [row for row in violated if not (row == cuts).all(axis=1).any()]
    if fresh:
        return np.stack(fresh)
    low = np.flatnonzero(orders < 0.9)
    if not len(low):
        return np.zeros((0, len(weights)))
    return np.maximum(found[low[np.argmin(orders[low])]], 0.0)[None]


def _optimum(cuts: np.ndarray) -> np.ndarray:
    from scipy.optimize import linprog

    solved = linprog(np.ones(cuts.shape[1]), A_ub=-cuts, b_ub=-np.ones(len(cuts)), bounds=(0, None), method="highs-ds")
    if solved.status != 0:
        raise ArithmeticError(f"the linear programme was not solved: {solved.message}")
    return solved.x
