"""The density of states: how fast the volume of low loss shrinks, from a ladder that reaches from the prior down."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import tree
from slt_jax.estimators import check_budget
from slt_jax.estimators.health import RHAT_LIMIT_BRACKETED
from slt_jax.ladder.descent import afforded, descend, prior_of
from slt_jax.ladder.exponent import LEAST_RUNGS, UNKNOWN, Exponent, fit_exponent
from slt_jax.ladder.measure import (
    Ladder,
    check_size,
    double_precision,
    measure_from,
    size_for,
)
from slt_jax.ladder.reading import Flow, read_below_prior
from slt_jax.ladder.volume import log_volume
from slt_jax.posterior import dimension
from slt_jax.restriction import Restriction
from slt_jax.tree import check_key
from slt_jax.types import Key, LossFn, PyTree, Scalar

#: Gradients that may be taken in all where nothing was said.
EVALUATIONS = 12_000_000
#: How deep it goes up to so many free parameters, and beyond, where nothing was said.
_DEPTHS = ((4, 1e-20),)
_DEEP = 1e-14
#: Points of the result for each factor of e in ε.
_POINTS = 2
#: Effective draws below ε from which on a point counts as reached.
_REACHED = 30.0


class DensityOfStates(NamedTuple):
    """``V(ε)`` and what it says. Arrays of numpy in double precision.

    Attributes:
      log_epsilon: ``log ε``, ε in nats, from the smallest on, shape ``(point,)``.
      log_volume, log_volume_error: ``log V(ε)``, ``V(ε) = P(K < ε)`` under the prior ``N(0, 1/γ)`` of the free
        directions: 0 at the largest.
      conductance, conductance_error: ``d log V / d log ε``, over a factor of e in ε.
      exponent: λ, m and the candidates, from the flow.
      flow: λ_eff and its relatives on each rung, the prior itself left out.
      contact_ratio, contact_ratio_error: ``Σ e_i / λ`` on the coldest third of the rungs: 1 where the coordinates are
        adapted to the singularity.
      depth: The smallest ε reached.
      reached: Whether that is as deep as was asked for.
      evaluations: Gradients taken in all.
    """

    log_epsilon: np.ndarray
    log_volume: np.ndarray
    log_volume_error: np.ndarray
    conductance: np.ndarray
    conductance_error: np.ndarray
    exponent: Exponent
    flow: Flow
    contact_ratio: float
    contact_ratio_error: float
    depth: float
    reached: bool
    evaluations: int

    @property
    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """95 % of ``log V(ε)``, two arrays ``(point,)``."""
        margin = 1.96 * self.log_volume_error
        return self.log_volume - margin, self.log_volume + margin

    @property
    def ok(self) -> bool:
        """Whether the depth was reached, all rungs are healthy, and all neighbours change places."""
        return self.reached and bool(np.all(self._good) and self.flow.connected)

    @property
    def _good(self) -> np.ndarray:
        """Of each rung: all of the prior is meant, so that none is too hot."""
        return np.asarray(self.flow.settled & self.flow.health.ok)

    def explain(self) -> str:
        """The exponent and the verdict, in words."""
        parts = [self.exponent.explain()]
        parts.append(f"Contact exponents add up to {self.contact_ratio:.3f} ± {self.contact_ratio_error:.2g} of λ.")
        if not self.reached:
            parts.append(f"UNHEALTHY: only ε = {self.depth:.2g} was reached: raise budget, or ask for less depth.")
        if not self.flow.connected:
            parts.append("UNHEALTHY: two neighbours do not change places: raise draws.")
        lines = self.flow._replace(usable=jnp.ones_like(self.flow.usable)).explain().splitlines()
        parts.extend(lines[rung] for rung in np.flatnonzero(~self._good))
        return " ".join(parts)


def density_of_states(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    *,
    depth: float | None = None,
    gamma: Scalar | None = None,
    restriction: Restriction | None = None,
    chains: int | None = None,
    draws: int | None = None,
    leapfrogs: int | None = None,
    budget: int = EVALUATIONS,
    relative_error: float = 0.002,
) -> DensityOfStates:
    """The volume of low loss, ``V(ε) = P(L(w) - L(w*) < ε)`` under the prior around ``w*``, and its exponents.

    ``V(ε) ~ c ε^λ (log 1/ε)^{m-1}``: replicas go down from the prior, each rung as much colder as keeps most draws of
    the one above alive, until ``E[K]`` falls below ``depth``; all rungs then run together and change places, and their
    draws are joined by multistate reweighting. λ and m are fitted to the flow. All of it in double precision, which
    nothing outside sees, and on all of the data.

    Args:
      key: A typed key.
      loss_fn: ``loss_fn(params, batch)``: losses in nats, ``(B,)``, ``(B, T)`` or ``()``.
      params: The centre ``w*``, a minimum: no draw may lie below it.
      data: All examples, leading axis ``n``.
      depth: Smallest ε asked for, in nats; default 1e-20 up to 4 free parameters, else 1e-14, whose ladders have many
        more rungs. A loss that is not 0 at its minimum is not known to so many digits: ask for less there.
      gamma: Precision of the prior, positive; default ``1e-4 n / log n``, as for ``llc``.
      restriction: Free directions; default all.
      chains: Replicas on each rung, at least 2, from whose scatter errors follow; default 32 up to 64 free parameters,
        16 up to 1024, else 8.
      draws: Draws of each replica before anything more is asked for; default 1200 up to 64 free parameters, else 300.
      leapfrogs: Gradients of a trajectory, as for ``flow``.
      budget: Gradients that may be taken in all, every replica counted.
      relative_error: Standard error of λ_eff over its value to be reached on every rung within the budget.

    Returns:
      A density of states.

    Raises:
      ValueError: inside jit, whose programs cannot choose how many rungs they have (``flow`` works there); for a γ
        of 0, whose prior has no volume; for arguments out of range, naming them.

    Not to be believed where ``ok`` is False; below ``depth``; as a volume of one basin, where the prior is so wide that
    it holds others: raise γ. The exponent is that of the deepest scale reached.

    Source: Watanabe 2009, Algebraic Geometry and Statistical Learning Theory, chapter 4; reweighting: Shirts & Chodera
    2008, arXiv:0801.1426; spacing by what is left of the draws: Del Moral, Doucet & Jasra 2006, section 3.

    >>> import jax, jax.numpy as jnp
    >>> quartic = lambda w, _: jnp.sum(w**4)
    >>> found = density_of_states(jax.random.key(0), quartic, jnp.zeros(1), jnp.zeros((100, 0)), depth=1e-6, draws=300)
    >>> abs(found.exponent.learning_coefficient - 0.25) < 0.01, found.exponent.multiplicity
    (True, 1)
    """
    check_key(key)
    check_size(chains=chains, draws=draws, leapfrogs=leapfrogs)
    check_budget(budget, relative_error)
    if tree.is_traced((key, params, data, gamma)):
        raise ValueError("density_of_states: called inside jit or vmap, but it chooses its rungs. Call flow there.")
    number = isinstance(depth, float | int | np.number) and not isinstance(depth, bool)
    if depth is not None and not (number and 0 < depth < np.inf):
        raise ValueError(f"depth: got {depth!r}; pass the smallest ε in nats, a positive number.")
    with double_precision(True):
        params, data = tree.as_double((params, data))
        posterior = prior_of(loss_fn, params, data, gamma, restriction)
        free = dimension(posterior)
        depth = float(depth) if depth is not None else next((least for most, least in _DEPTHS if free <= most), _DEEP)
        size = size_for(free, chains, draws, leapfrogs)
        down_key, draw_key = jax.random.split(key)
        ladder = descend(down_key, posterior, data, size, depth=depth)
        size, each = afforded(size, ladder, budget)
        ladder = measure_from(draw_key, data, ladder, size, budget=each, relative_error=relative_error)
        return _read(ladder, depth)


def _read(ladder: Ladder, depth: float) -> DensityOfStates:
    volume = log_volume(np.asarray(ladder.rungs.nbeta), np.asarray(ladder.record.excess), depth, _POINTS)
    flow = read_below_prior(ladder)
    # what is colder than a rung whose chains disagree hangs on it
    sound = np.cumprod(flow.health.rhat <= RHAT_LIMIT_BRACKETED).astype(bool) & np.isfinite(flow.value)
    settled = jax.tree.map(lambda leaf: leaf[sound] if np.ndim(leaf) else leaf, flow._replace(groups=()))
    few = len(settled.nbetas) < LEAST_RUNGS
    exponent = UNKNOWN if few else fit_exponent(settled.nbetas, settled.per_chain, settled.std_error)
    ratio, ratio_error = (np.nan, np.inf) if few else _contact_ratio(settled, exponent)
    # half of the mean excess on the coldest sound rung: what its draws still tell of
    lowest = 0.5 * settled.value[-1] / settled.nbetas[-1] if sound.any() else np.inf
    known = (volume.effective >= _REACHED) & (np.exp(volume.log_epsilon) >= lowest)
    deepest = float(np.exp(volume.log_epsilon[known].min())) if known.any() else np.inf
    return DensityOfStates(
        log_epsilon=volume.log_epsilon,
        log_volume=volume.log_volume,
        log_volume_error=volume.error,
        conductance=volume.conductance,
        conductance_error=volume.conductance_error,
        exponent=exponent,
        flow=flow,
        contact_ratio=ratio,
        contact_ratio_error=ratio_error,
        depth=deepest,
        reached=deepest <= 1.001 * depth,
        evaluations=ladder.evaluations,
    )


def _contact_ratio(flow: Flow, exponent: Exponent) -> tuple[float, float]:
    cold = slice(-max(1, len(flow.nbetas) // 3), None)
    sums, errors = flow.contact_sum[cold], np.maximum(flow.contact_sum_error[cold], 1e-12)
    weights = errors**-2.0 / np.sum(errors**-2.0)
    ratio = float(weights @ sums) / exponent.learning_coefficient
    own = float(np.sqrt(np.mean(errors**2))) / exponent.learning_coefficient
    return ratio, float(np.hypot(own, ratio * exponent.std_error / exponent.learning_coefficient))
