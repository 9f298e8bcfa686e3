"""Free energies and information criteria from a ladder of temperatures."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import loss, tree
from slt_jax.estimators import Estimate, check_budget, llc
from slt_jax.ladder.density import EVALUATIONS
from slt_jax.ladder.descent import afforded, descend, prior_of
from slt_jax.ladder.flow import flow
from slt_jax.ladder.measure import check_size, double_precision, measure_from, size_for
from slt_jax.ladder.reading import read_below_prior
from slt_jax.ladder.volume import free_energies
from slt_jax.posterior import dimension, localise
from slt_jax.restriction import Restriction
from slt_jax.tree import check_key
from slt_jax.types import Key, LossFn, PyTree, Scalar


class FreeEnergy(NamedTuple):
    """``F = -log ∫ exp(-nβ L(w)) φ(w) dw``, φ the prior ``N(w*, 1/γ)`` of the free directions; nats.

    Attributes:
      value, std_error: F by multistate reweighting, its error by leaving out one chain at a time.
      integrated, integrated_error: The same by thermodynamic integration, ``nβ L(w*) + ∫ λ_eff d log β``: another use
        of the same draws; where the two differ by more than their errors the ladder is too coarse or too short.
      energy: ``nβ L(w*)``: what F is above its share of geometry.
      nbeta: ``nβ``.
      ok: Whether every rung is healthy, neighbours change places, and the two values agree.
      evaluations: Gradients taken in all.
    """

    value: float
    std_error: float
    integrated: float
    integrated_error: float
    energy: float
    nbeta: float
    ok: bool
    evaluations: int


def free_energy(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    *,
    nbeta: float | None = None,
    gamma: Scalar | None = None,
    restriction: Restriction | None = None,
    chains: int | None = None,
    draws: int | None = None,
    leapfrogs: int | None = None,
    budget: int = EVALUATIONS,
    relative_error: float = 0.01,
) -> FreeEnergy:
    """The local free energy ``F = nβ L(w*) - log E_φ[exp(-nβ K)]`` around ``params``, on the host.

    A ladder goes down from the prior φ to ``nβ``; ``F ≈ nβ L(w*) + λ log nβ - (m - 1) log log nβ`` far down.

    Args:
      key: A typed key.
      loss_fn: ``loss_fn(params, batch)``: losses in nats, ``(B,)``, ``(B, T)`` or ``()``.
      params: The centre ``w*``.
      data: All examples, leading axis ``n``.
      nbeta: ``nβ``; default n, that of the Bayesian posterior.
      gamma, restriction, chains, draws, leapfrogs, budget, relative_error: As for ``density_of_states``.

    Returns:
      A free energy, nats.

    Raises:
      ValueError: as ``density_of_states``; ``nbeta`` is not positive and finite.

    Not to be believed where ``ok`` is False, or as the evidence of a whole model: it is that of the neighbourhood that
    γ leaves open.

    Source: Watanabe 2009, Algebraic Geometry and Statistical Learning Theory, section 6.1; thermodynamic integration:
    Gelman & Meng 1998, doi:10.1214/ss/1028905934; reweighting: Shirts & Chodera 2008, arXiv:0801.1426.

    >>> import jax, jax.numpy as jnp
    >>> quadratic = lambda w, _: 0.5 * jnp.sum(w**2)
    >>> found = free_energy(jax.random.key(0), quadratic, jnp.zeros(1), jnp.zeros((99, 0)), gamma=1.0, draws=300)
    >>> bool(abs(found.value - 0.5 * jnp.log(100.0)) < 4 * found.std_error)
    True
    """
    check_key(key)
    check_size(chains=chains, draws=draws, leapfrogs=leapfrogs)
    check_budget(budget, relative_error)
    if tree.is_traced((key, params, data, gamma, nbeta)):
        raise ValueError("free_energy: called inside jit or vmap, but it chooses its rungs. Call flow there.")
    target = float(loss.example_count(data) if nbeta is None else nbeta)
    if not 0 < target < np.inf:
        raise ValueError(f"nbeta: got {nbeta}; it must be positive and finite.")
    with double_precision(True):
        params, data = tree.as_double((params, data))
        posterior = prior_of(loss_fn, params, data, gamma, restriction)
        size = size_for(dimension(posterior), chains, draws, leapfrogs)
        down_key, draw_key = jax.random.split(key)
        ladder = descend(down_key, posterior, data, size, coldest=target)
        size, each = afforded(size, ladder, budget)
        ladder = measure_from(draw_key, data, ladder, size, budget=each, relative_error=relative_error)
        free, error = free_energies(np.asarray(ladder.rungs.nbeta), np.asarray(ladder.record.excess))
        course = read_below_prior(ladder)
        energy = target * float(jnp.mean(posterior.center_losses))
    curves = (course.nbetas, course.value, course.std_error, course.velocity)
    rest, rest_error = _integrated(*(np.asarray(curve) for curve in curves))
    integrated, integrated_error = float(free[1]) + rest, float(np.hypot(error[1], rest_error))
    agree = abs(integrated - free[-1]) < 4 * np.hypot(integrated_error, error[-1]) + 0.01
    return FreeEnergy(
        value=energy + float(free[-1]),
        std_error=float(error[-1]),
        integrated=energy + integrated,
        integrated_error=integrated_error,
        energy=energy,
        nbeta=target,
        ok=bool(np.all(course.settled & course.health.ok) and course.connected and agree),
        evaluations=ladder.evaluations,
    )


def wbic(key: Key, loss_fn: LossFn, params: PyTree, data: PyTree, **settings: Any) -> Estimate:
    """The widely applicable Bayesian information criterion: ``E_β[n L_n]`` at ``β = 1 / log n``, nats.

    ``n L_n(w*) + λ̂ log n`` with ``λ̂`` from ``llc``: an approximation of the free energy from one temperature.

    Args:
      key, loss_fn, params, data: As for ``llc``.
      settings: Other arguments of ``llc``, but ``nbeta``.

    Returns:
      An estimate, nats, with the verdict of ``llc``.

    Raises:
      ValueError: ``nbeta`` is given, which the criterion fixes, or another ``reference``; and as ``llc``.

    Not to be believed as a free energy to better than ``O(√log n)``, nor as that of other basins than this one.

    Source: Watanabe 2013, arXiv:1208.6338, theorem 4.

    Example::

        estimate = wbic(jax.random.key(0), loss_fn, params, data)
        print(estimate)
    """
    if settings.get("nbeta") is not None:
        raise ValueError("nbeta: given, but the criterion is defined at n / log n. Leave it out, or call llc.")
    if settings.get("reference", "loss") != "loss":
        raise ValueError("reference: given, but the criterion is of the loss itself. Leave it out, or call llc.")
    estimate = llc(key, loss_fn, params, data, **settings)
    count = loss.example_count(data)
    scale = float(np.log(count))
    base = count * jnp.mean(localise(loss_fn, params, data).center_losses)
    chosen = estimate.settings
    if chosen is not None:
        # λ̂ counts from the minimum that the centre was moved to
        base = base - scale * jnp.where(chosen.polished, chosen.shift, 0.0)
    return estimate._replace(
        value=base + scale * estimate.value,
        std_error=scale * estimate.std_error,
        per_chain=base + scale * estimate.per_chain,
    )


def heat_capacity(
    key: Key, loss_fn: LossFn, params: PyTree, data: PyTree, *, nbeta: Scalar | None = None, **settings: Any
) -> Estimate:
    """``C = (nβ)² Var(L)``: λ wherever the flow stands still, with no baseline ``L(w*)``, so also away from minima.

    Args:
      key, loss_fn, params, data: As for ``flow``.
      nbeta: ``nβ``; default ``n / log n``.
      settings: Other arguments of ``flow``, but ``nbetas``.

    Returns:
      An estimate without units. Its ``per_chain`` is λ_eff of each chain; works inside jit.

    Not to be believed as λ where λ_eff still moves: there it is ``λ_eff - dλ_eff / d log β``. Where there is lower loss
    nearby the chains go there, and it is λ of that place.

    Source: Watanabe 2013, arXiv:1208.6338 (derivative of the mean energy).

    Example::

        found = heat_capacity(jax.random.key(0), loss_fn, checkpoint, data, gamma=10.0)
        print(found.value, found.std_error)
    """
    at = localise(loss_fn, params, data, nbeta=nbeta).nbeta
    measured = flow(key, loss_fn, params, data, nbetas=jnp.reshape(at, (1,)), **settings)
    health = jax.tree.map(lambda leaf: leaf[0], measured.health)
    return Estimate(measured.heat_capacity[0], measured.heat_error[0], measured.per_chain[0], health)


def _integrated(nbetas: np.ndarray, value: np.ndarray, error: np.ndarray, velocity: np.ndarray) -> tuple[float, float]:
    """``∫ λ_eff d log β`` by cubics with the measured values and velocities, and its error."""
    steps = np.diff(np.log(nbetas))
    area = np.sum(0.5 * steps * (value[1:] + value[:-1]) - steps**2 / 12 * np.diff(velocity))
    weights = 0.5 * (np.append(steps, 0.0) + np.append(0.0, steps))
    return float(area), float(np.sqrt(np.sum((weights * error) ** 2)))
