"""The flow of the learning coefficient with temperature: λ, heat capacity and contact at every rung of a ladder."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import diagnostics, tree
from slt_jax.estimators import BUDGET, Evidence, Health, check_budget, examine
from slt_jax.estimators.health import RHAT_LIMIT_BRACKETED
from slt_jax.ladder.averages import averages, controls_of
from slt_jax.ladder.exchange import Record
from slt_jax.ladder.groups import group_names, group_sizes
from slt_jax.ladder.measure import (
    BEYOND,
    Ladder,
    check_size,
    double_precision,
    measure,
    needs_double,
    on_host,
    size_for,
    widened,
)
from slt_jax.posterior import LocalPosterior, dimension, localise
from slt_jax.restriction import Restriction
from slt_jax.sampling import Trace, check_key
from slt_jax.types import Array, Key, LossFn, PyTree, Scalar

#: Rungs where nothing was said: from the ``nβ`` of ``llc`` up to 256 times hotter.
_RUNGS, _SPAN = 9, 256.0
#: Heat capacity over λ beyond which a rung is no longer in its basin.
_BOILING = 3.0
#: Standard error of the virial beyond which it is not looked at: moves are tested, so no step can be too large.
_TELLING = 0.1
#: Below this share of the exchanges tried, two rungs count as not connected.
SWAP_LIMIT = 0.02


class Flow(NamedTuple):
    """λ_eff and its relatives at each temperature; leaves of shape ``(rung,)``, in the order asked for.

    Attributes:
      nbetas: ``nβ``.
      value: ``λ_eff = nβ E[K]``.
      std_error: Its Monte Carlo standard error.
      per_chain: The value of each chain, shape ``(rung, chain)``: chains are independent, rungs of one chain are not.
      heat_capacity, heat_error: ``C = (nβ)² Var(L)``, which needs no baseline.
      velocity, velocity_error: ``λ_eff - C = dλ_eff / d log β``, measured at one temperature.
      contact, contact_error: ``e_i = nβ Cov(log |z_i|, K) = -∂ E[log |z_i|] / ∂ log β`` for each group of free
        parameters, shape ``(rung, group)``; a group is an entry where there are at most 64, else the sum over a leaf.
      contact_sum, contact_sum_error: ``Σ e_i``: λ itself, without the bias of the multiplicity, where the coordinates
        are adapted to the singularity; another number where they are not.
      swap_rate: Share of the exchanges with the next colder rung that were taken; NaN for the coldest.
      acceptance: Mean acceptance of the trajectories.
      usable: Whether the rung still is in the basin: False where it, or a colder one, has boiled.
      health: The verdict on each rung, leaves ``(rung,)``.
      groups: Names of the groups.
      evaluations: Gradients taken in all.
    """

    nbetas: Array
    value: Array
    std_error: Array
    per_chain: Array
    heat_capacity: Array
    heat_error: Array
    velocity: Array
    velocity_error: Array
    contact: Array
    contact_error: Array
    contact_sum: Array
    contact_sum_error: Array
    swap_rate: Array
    acceptance: Array
    usable: Array
    health: Health
    groups: tuple[str, ...]
    evaluations: int

    @property
    def virial(self) -> Array:
        """Equipartition number of each rung: 1 in equilibrium."""
        return self.health.virial

    @property
    def ok(self) -> Array:
        """Whether each rung is usable and its verdict good."""
        return self.usable & self.health.ok

    def explain(self) -> str:
        """A line for each rung, in words (host only)."""
        if np.ndim(self.nbetas) != 1:
            raise ValueError(f"explain: got flows of shape {np.shape(self.nbetas)[:-1]}; index one of them first.")
        return "\n".join(self._line(rung) for rung in range(len(self.nbetas)))

    def _line(self, rung: int) -> str:
        health = jax.tree.map(lambda leaf: leaf[rung], self.health)
        numbers = (
            f"nβ {float(self.nbetas[rung]):.3g}: λ {float(self.value[rung]):.4g} ± {float(self.std_error[rung]):.2g}, "
            f"C {float(self.heat_capacity[rung]):.4g} ± {float(self.heat_error[rung]):.2g}, "
            f"exchanged {float(self.swap_rate[rung]):.0%}"
        )
        if not bool(self.usable[rung]):
            return f"{numbers}; left out: too hot for gamma, or a colder rung is: raise nbeta or gamma."
        alone = "; no exchange with the next rung: put one between" if self.swap_rate[rung] < SWAP_LIMIT else ""
        return f"{numbers}{alone}; {health.explain()}"


def flow(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    *,
    nbetas: Array | None = None,
    gamma: Scalar | None = None,
    restriction: Restriction | None = None,
    chains: int | None = None,
    draws: int | None = None,
    leapfrogs: int | None = None,
    budget: int | None = None,
    relative_error: float = 0.01,
) -> Flow:
    """λ_eff(nβ), its heat capacity and its velocity over a ladder of temperatures: the learning coefficient by scale.

    A replica on each rung moves by Hamiltonian trajectories with a Metropolis test, its step drawn between what the
    stiffest and the softest of the places met allow, and changes places with its neighbours. γ is one for all rungs:
    it is the prior, and ``dλ_eff / d log β = λ_eff - C`` holds exactly between them. Chains descend from the hottest
    rung. All of the data are used at each step. Works inside ``jax.jit`` (with ``nbetas`` of a known length) and under
    ``jax.vmap``; on the host, temperatures beyond ``nβ = 1e6`` are measured in double precision.

    Args:
      key: A typed key.
      loss_fn: ``loss_fn(params, batch)``: losses in nats, ``(B,)``, ``(B, T)`` or ``()``.
      params: The centre ``w*``.
      data: All examples, leading axis ``n``.
      nbetas: Inverse temperatures, shape ``(rung,)``, in any order; default nine, from ``n / log n`` down by factors of
        two. Replicas change places where neighbours differ by no more than a factor of about ``1 + 2 / √λ``; a single
        rung does without.
      gamma: γ; default ``1e-4 n / log n``, as for ``llc``.
      restriction: Free directions; default all.
      chains: Replicas on each rung, at least 2; default 32 up to 64 free parameters, 16 up to 1024, else 8.
      draws: Draws of each replica that count, after a third as many that do not; then the length is fixed, unless a
        budget is given too. Default 1200 up to 64 free parameters, else 300, and more where the error asks for it.
      leapfrogs: Gradients of a short trajectory, a few being 4 and 16 times as long; default 2 up to 4 free parameters,
        3, 6 and 12 beyond 4, 16 and 64.
      budget: Gradients that each replica may take on the host; default 20 000 where the length is not fixed.
      relative_error: Standard error over value to be reached on every rung within the budget.

    Returns:
      A flow.

    Raises:
      ValueError: before compilation, naming the argument, what was got and what to do.

    Not to be believed where ``ok`` is False. λ_eff at one temperature is λ only at a plateau (``plateaus``). A flow
    without exchanges (λ above about 30 at factors of two) is a set of single temperatures, and each is as good as its
    own chains. What ``gamma`` confines it also hides: directions with ``nβ h`` below γ.

    Source: the fluctuation identity ``∂E_β[K]/∂β = -Var_β(K)``; replicas: Swendsen & Wang 1986,
    doi:10.1103/PhysRevLett.57.2607; λ as a response to the temperature: Watanabe 2013, arXiv:1208.6338.

    >>> import jax, jax.numpy as jnp
    >>> quadratic = lambda w, _: 0.5 * jnp.sum(w**2)
    >>> nbetas = jnp.array([1e3, 1e4])
    >>> measured = flow(jax.random.key(0), quadratic, jnp.zeros(2), jnp.zeros((100, 0)), nbetas=nbetas, draws=300)
    >>> bool((abs(measured.value - 1.0) < 4 * measured.std_error).all()), measured.groups
    (True, ('params[0]', 'params[1]'))
    """
    return flow_and_ladder(
        key,
        loss_fn,
        params,
        data,
        nbetas=nbetas,
        gamma=gamma,
        restriction=restriction,
        chains=chains,
        draws=draws,
        leapfrogs=leapfrogs,
        budget=budget,
        relative_error=relative_error,
    )[0]


def flow_and_ladder(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    *,
    nbetas: Array | None,
    gamma: Scalar | None,
    restriction: Restriction | None,
    chains: int | None,
    draws: int | None,
    leapfrogs: int | None,
    budget: int | None,
    relative_error: float = 0.01,
) -> tuple[Flow, Ladder]:
    """``flow``, and the ladder it was read from, whose rungs go from hot to cold."""
    check_key(key)
    check_size(chains=chains, draws=draws, leapfrogs=leapfrogs)
    check_budget(budget, relative_error)
    budget = (0 if draws is not None else BUDGET) if budget is None else budget
    nbetas = _checked(nbetas)
    wide = nbetas is not None and needs_double(nbetas) and not tree.is_traced((key, params, data, gamma))
    with double_precision(wide):
        params, data = widened((params, data)) if wide else (params, data)
        reference = localise(loss_fn, params, data, gamma=gamma, restriction=restriction)
        posterior = reference if nbetas is None else reference._replace(nbeta=jnp.max(jnp.asarray(nbetas)))
        ladder_nbetas = _default(posterior) if nbetas is None else jnp.asarray(nbetas)
        size = size_for(dimension(posterior), chains, draws, leapfrogs)
        order = jnp.argsort(ladder_nbetas)
        ladder = measure(key, posterior, data, ladder_nbetas[order], size, budget=budget, relative_error=relative_error)
        measured = read_flow(ladder._replace(evaluations=0))
        back = jnp.argsort(order)
        measured = on_host(jax.tree.map(lambda leaf: leaf[back], measured._replace(groups=(), evaluations=())))
    origin = jax.eval_shape(posterior.restriction.origin, posterior.center)
    return measured._replace(groups=tuple(group_names(origin)), evaluations=ladder.evaluations), ladder


@jax.jit
def read_flow(ladder: Ladder) -> Flow:
    """The flow of a measured ladder, from hot to cold; works inside jit."""
    record, nbetas = ladder.record, ladder.rungs.nbeta
    health = jax.vmap(_examined, in_axes=(0, 0, None))(record, nbetas, ladder.posterior)
    origin = jax.eval_shape(ladder.posterior.restriction.origin, ladder.posterior.center)
    controls = controls_of(record, nbetas, group_sizes(origin))
    found = averages(controls, record.contact)
    (value, error), (heat, heat_error) = found.value, found.heat
    free = dimension(ladder.posterior)
    boiled = (heat - 3 * heat_error > _BOILING * value) | (value - 3 * error > BEYOND * 0.5 * free)
    # chains that disagree have not come to rest, which is another complaint, and no reason to doubt what is hotter
    boiled = ~jnp.isfinite(value) | (boiled & (health.rhat < RHAT_LIMIT_BRACKETED))
    return Flow(
        nbetas=nbetas,
        value=value,
        std_error=error,
        per_chain=found.per_chain,
        heat_capacity=heat,
        heat_error=heat_error,
        velocity=found.velocity[0],
        velocity_error=found.velocity[1],
        contact=found.contact[0],
        contact_error=found.contact[1],
        contact_sum=found.contact_sum[0],
        contact_sum_error=found.contact_sum[1],
        swap_rate=jnp.nanmean(record.swapped, axis=(1, 2)),
        acceptance=jnp.mean(record.acceptance, axis=(1, 2)),
        # whatever is hotter than a rung that has boiled has boiled too
        usable=jax.lax.cummax(boiled.astype(jnp.int32), axis=0, reverse=True) == 0,
        health=health,
        groups=(),
        evaluations=0,
    )


def _examined(record: Record, nbeta: Array, posterior: LocalPosterior) -> Health:
    # far from a centre on a curved valley ⟨z, ∇U⟩ is a product of a long vector and a large force: it says nothing
    told = diagnostics.mcse(record.virial) < _TELLING
    virial = jnp.where(told, record.virial, 1.0)
    trace = Trace(
        excess=record.excess,
        loss=record.excess,
        noise=jnp.zeros_like(record.excess),
        virial=virial,
        virials=virial[..., None],
        distance_squared=record.distance_squared,
        acceptance=record.acceptance,
        observables=(),
        state=(),
    )
    # γ is one for all rungs: part of the question
    return examine(trace, posterior._replace(nbeta=nbeta), Evidence(heating=0.0, resolution=True))


def _checked(nbetas: Array | None) -> Array | None:
    """Temperatures as numbers of the host where they are not traced."""
    if nbetas is None:
        return None
    if np.ndim(nbetas) != 1 or np.shape(nbetas)[0] == 0:
        raise ValueError(f"nbetas: got shape {np.shape(nbetas)}; pass a list of at least one temperature.")
    if tree.is_traced(nbetas):
        return nbetas
    given = np.asarray(nbetas, np.float64)
    if not (np.isfinite(given).all() and (given > 0).all()):
        raise ValueError(f"nbetas: got {given.tolist()}; all must be finite and positive.")
    if len(set(given.tolist())) < len(given):
        raise ValueError(f"nbetas: got {given.tolist()}; two rungs are the same. Give each once.")
    return given  # type: ignore[return-value]


def _default(posterior: LocalPosterior) -> Array:
    return posterior.nbeta * jnp.geomspace(1.0, 1 / _SPAN, _RUNGS, dtype=posterior.nbeta.dtype)
