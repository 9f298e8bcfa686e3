"""Variational inference as a sampler: a fitted guide gives independent draws, and bounds the free energy."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax import tree
from slt_jax.posterior import Batch, LocalPosterior, evaluate, force, full_batch, pair
from slt_jax.samplers.base import Info, Sampler, report
from slt_jax.samplers.fitting import Fit, fit
from slt_jax.samplers.guides.base import Guide, excess_at, potential, unflatten
from slt_jax.tree import Static
from slt_jax.types import Array, Key, PyTree, Scalar


class VariationalState(NamedTuple):
    """The current ``z``, and the fitted guide that the next is drawn from."""

    position: PyTree
    fit: Fit


class FreeEnergyBound(NamedTuple):
    """``F ≤ nβ L(w*) + E_q[nβ K + log q - log φ]`` by draws of ``q``; nats. Leaves have shape ``()``.

    Attributes:
      value, std_error: The bound and its Monte Carlo error.
      energy: ``nβ L(w*)``: what the bound is above its share of geometry.
      coefficient, coefficient_error: ``nβ E_q[K]``: the slope of the best bound of the family in ``log nβ``.
    """

    value: Array
    std_error: Array
    energy: Array
    coefficient: Array
    coefficient_error: Array


class BaseReading(NamedTuple):
    """What a generalised-gamma base ``q(ξ_j) ∝ |ξ_j|^{h_j} exp(-nβ ξ_j^{2k_j})`` says of λ. No units.

    Attributes:
      ratios: ``(h_j + 1) / (2 k_j)``, shape ``(d,)``.
      shares: Share of nβ in the precision along each direction, mean over draws, shape ``(d,)``: 1 where nβ alone
        squeezes it, 0 where γ does.
      total: ``Σ_j share_j (h_j + 1) / (2 k_j)``, shape ``()``: λ where K is a sum over the directions of the base.
      least: ``min_j (h_j + 1) / (2 k_j)``, shape ``()``: λ where K is a product of them, all in one chart.
    """

    ratios: Array
    shares: Array
    total: Array
    least: Array


def variational(guide: Guide, *, steps: Scalar = 2000, samples: int = 32) -> Sampler:
    """Fits a guide to the posterior on all of the data, then draws from it, each draw independent of the last.

    ``init`` minimises ``E_q[nβ K - log φ + log q]`` over the guide's family, φ the prior ``N(0, 1/γ)`` of the free
    directions, by ``steps`` steps of Adam with nβ annealed upwards; a step of the sampler reports the current draw and
    makes another. Chains are independent fits from independent keys, so that R-hat compares fits; the first position
    is a draw of the guide already, and no burn-in is needed.

    By the envelope theorem ``nβ E_q[K]``, which ``llc_from`` reads, is the slope in ``log nβ`` of the family's best
    bound of the free energy. The bound lies above F, which grows as ``λ log nβ``: where the slope settles far down, it
    settles at λ or above. At one temperature nothing bounds ``nβ E_q[K]``: with a multiplicity above 1 it may lie
    below λ, as that of the posterior does, by ``(m - 1) / log nβ``.

    Args:
      guide: From ``slt_jax.samplers.guides``, or one's own.
      steps: Of the descent; a number that may be traced, so that changing it compiles nothing.
      samples: Draws of the guide a step of the descent, each a gradient on all of the data.

    Returns:
      A sampler whose ``init`` costs ``steps · samples`` gradients and more for each chain, and a step one gradient. Its
      state holds ``fit``, for ``free_energy_bound`` and ``base_reading``.

    Raises:
      ValueError: ``guide`` is not one, ``steps`` or ``samples`` is below 1; at ``init``, γ is 0, for which no prior is
        normalised, unless it is traced.

    Not to be believed where it has not converged: ``fit.slope`` is then above 1, the virial far from 1, or R-hat above
    1; a Gaussian around a wrong place still has a virial of 1, so look at all three. Where one of the fits has failed
    take the one of the lowest bound by itself. A guide that is too simple shows no mark. Draws are exact for the guide,
    not for the posterior: the errors that ``llc_from`` reports do not hold the guide's bias. The step's posterior must
    be the one of ``init``.

    Sources: Wei & Lau 2023, arXiv:2302.06035 (the variational free energy of singular models); Kucukelbir et al. 2017,
    arXiv:1603.00788.

    >>> from slt_jax.samplers import guides
    >>> variational(guides.mean_field(), steps=500).init.args[1]
    500
    """
    if not isinstance(guide, Guide):
        raise ValueError(f"guide: got a {type(guide).__name__}; make one, as in slt_jax.samplers.guides.full_rank().")
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples: got {samples!r}; pass a whole number from 1 up.")
    if not tree.is_traced(steps) and (jnp.ndim(steps) or not float(steps) >= 1):
        raise ValueError(f"steps: got {steps!r}; pass a number from 1 up.")
    return Sampler(Partial(_init, guide, steps, Static((samples,))), Partial(_step))


def free_energy_bound(
    key: Key, fit: Fit, posterior: LocalPosterior, data: PyTree, *, draws: int = 2000
) -> FreeEnergyBound:
    """An upper bound of the free energy, ``F ≤ nβ L(w*) + E_q[nβ K + log q - log φ]``, from fresh draws of a fit.

    F is that of ``slt_jax.free_energy``, with the normalised prior φ = ``N(0, 1/γ)`` of the free directions, and the
    bound exceeds it by ``KL(q ‖ p)``. Any fit gives a bound, converged or not, the lowest of several fits the best.

    Args:
      key: A typed key.
      fit: Of one chain, such as ``jax.tree.map(lambda leaf: leaf[0], trace.state.fit)``; vmap over many.
      posterior: The one it was fitted to, or one at another temperature: then q follows, and it remains a bound.
      data: The data it was made with.
      draws: Of the guide; static under jit.

    Returns:
      A bound, nats. Works under jit and vmap.

    Raises:
      ValueError: γ is 0, unless it is traced.

    Not to be believed as F itself: the distance is not measured. ``coefficient`` is a slope only at the best member of
    the family, and where that is below λ, see ``variational``. An error of Monte Carlo is meant by ``std_error``: where
    the tail of the guide reaches into high loss it is itself uncertain.

    Source: Wei & Lau 2023, arXiv:2302.06035, section 2 (the evidence lower bound, its sign changed).

    >>> from slt_jax.posterior import localise
    >>> from slt_jax.samplers import guides
    >>> data = jnp.zeros((99, 0))
    >>> posterior = localise(lambda w, _: 0.5 * jnp.sum(w**2), jnp.zeros(1), data, nbeta=99.0, gamma=1.0)
    >>> state = variational(guides.full_rank(), steps=20).init(jax.random.key(0), posterior, data)
    >>> bound = free_energy_bound(jax.random.key(1), state.fit, posterior, data)
    >>> bool(abs(bound.value - 0.5 * jnp.log(100.0)) < 1e-3)
    True
    """
    _check_proper(posterior)
    return _bound(key, fit, posterior, data, draws)


def base_reading(key: Key, fit: Fit, posterior: LocalPosterior, data: PyTree, *, draws: int = 200) -> BaseReading:
    """What the base of a fitted singular guide says of λ, with no look at the loss but at its curvature.

    Args:
      key: A typed key.
      fit: Of one chain, fitted with ``guides.singular``.
      posterior, data: Those it was fitted to.
      draws: Of the guide, over which the shares are averaged; static under jit.

    Returns:
      A reading. Works under jit and vmap.

    Raises:
      ValueError: the guide has no generalised-gamma base.

    Not to be believed as a bound of anything, nor where the couplings do what the base could: the exponents are those
    of q before its couplings. ``total`` asks that K be a sum of powers of the base's directions, as it is where the
    loss is quadratic in each block; ``least`` that it be one product, the chart of the paper.

    Source: Wei & Lau 2023, arXiv:2302.06035, section 4 (the base and its exponents); the sum: λ of a sum of powers of
    separate coordinates is the sum of theirs (Thom & Sebastiani).
    """
    if fit.guide.ratios is None:
        raise ValueError("fit: its guide has no generalised-gamma base; fit slt_jax.samplers.guides.singular().")
    return _reading(key, fit, posterior, data, draws)


def _check_proper(posterior: LocalPosterior) -> None:
    if not tree.is_traced(posterior.gamma) and not float(posterior.gamma) > 0:
        raise ValueError("gamma: got 0, but the prior N(0, 1/gamma) of a guide must be normalised; pass gamma > 0.")


@jax.jit(static_argnums=4)
def _bound(key: Key, fit: Fit, posterior: LocalPosterior, data: PyTree, draws: int) -> FreeEnergyBound:
    batch = full_batch(posterior, data)

    def one(key: Key) -> tuple[Array, Array]:
        z, density = fit.guide.draw(fit.free, fit.fixed, key, posterior, batch)
        return potential(z, posterior, batch) + density, posterior.nbeta * excess_at(z, posterior, batch)

    values, energies = jax.lax.map(one, jax.random.split(key, draws), batch_size=64)
    energy = posterior.nbeta * jnp.mean(posterior.center_losses)
    root = draws**0.5
    return FreeEnergyBound(
        value=energy + jnp.mean(values),
        std_error=jnp.std(values) / root,
        energy=energy,
        coefficient=jnp.mean(energies),
        coefficient_error=jnp.std(energies) / root,
    )


@jax.jit(static_argnums=4)
def _reading(key: Key, fit: Fit, posterior: LocalPosterior, data: PyTree, draws: int) -> BaseReading:
    batch = full_batch(posterior, data)
    read = fit.guide.ratios
    assert read is not None
    keys = jax.random.split(key, draws)
    every, shares = jax.lax.map(lambda k: read(fit.free, fit.fixed, k, posterior, batch), keys, batch_size=64)
    ratios, share = every[0], jnp.mean(shares, axis=0)
    return BaseReading(ratios, share, jnp.sum(share * ratios), jnp.min(ratios))


def _init(
    guide: Guide, steps: Scalar, samples: Static, key: Key, posterior: LocalPosterior, data: PyTree
) -> VariationalState:
    _check_proper(posterior)
    fit_key, draw_key = jax.random.split(key)
    fitted = fit(fit_key, guide, posterior, data, steps=steps, samples=samples.value[0])
    return VariationalState(_draw(draw_key, fitted, posterior, full_batch(posterior, data)), fitted)


def _step(
    key: Key, state: VariationalState, posterior: LocalPosterior, batch: Batch | PyTree
) -> tuple[VariationalState, Info]:
    batch = pair(posterior, batch)
    evaluation = evaluate(posterior, state.position, batch)
    info = report(state.position, evaluation, force(posterior, state.position, evaluation.gradient))
    return state._replace(position=_draw(key, state.fit, posterior, batch)), info


def _draw(key: Key, fitted: Fit, posterior: LocalPosterior, batch: Batch) -> PyTree:
    return unflatten(fitted.guide.draw(fitted.free, fitted.fixed, key, posterior, batch)[0], posterior)
