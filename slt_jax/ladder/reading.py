"""What a measured ladder says: λ_eff, heat capacity, velocity and contact on each rung, each with a verdict."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import diagnostics
from slt_jax.estimators import Evidence, Health, examine
from slt_jax.estimators.health import RHAT_LIMIT_BRACKETED
from slt_jax.ladder.averages import averages, controls_of
from slt_jax.ladder.exchange import Record
from slt_jax.ladder.groups import group_names, group_sizes
from slt_jax.ladder.measure import BEYOND, Ladder
from slt_jax.posterior import LocalPosterior, dimension
from slt_jax.sampling import Trace
from slt_jax.types import Array

#: Heat capacity over λ beyond which a rung is no longer in its basin.
_BOILING = 3.0
#: Standard error of the virial beyond which it is not looked at: moves are tested, so no step can be too large.
_TELLING = 0.1
#: By how many of its errors the mean of the draws may differ from the value.
_SETTLED = 4.5
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
      plain, plain_error: λ_eff as the mean of the draws, without the control variates that make ``value`` sharper.
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
    plain: Array
    plain_error: Array
    usable: Array
    health: Health
    groups: tuple[str, ...]
    evaluations: int

    @property
    def virial(self) -> Array:
        """Equipartition number of each rung: 1 in equilibrium."""
        return self.health.virial

    @property
    def settled(self) -> Array:
        """Whether control variates leave the mean where it was: in equilibrium they change only its error."""
        return abs(self.value - self.plain) <= _SETTLED * self.plain_error

    @property
    def ok(self) -> Array:
        """Whether each rung is usable, settled, and its verdict good."""
        return self.usable & self.settled & self.health.ok

    @property
    def connected(self) -> Array:
        """Whether all neighbours change places, shape ``()``."""
        return jnp.all(jnp.asarray(self.swap_rate)[..., :-1] >= SWAP_LIMIT, axis=-1)

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
        if not bool(self.settled[rung]):
            plain = f"{float(self.plain[rung]):.4g} ± {float(self.plain_error[rung]):.2g}"
            return f"{numbers}; UNHEALTHY: the mean of the draws is {plain}: not in equilibrium: raise draws."
        alone = "; no exchange with the next rung: put one between" if self.swap_rate[rung] < SWAP_LIMIT else ""
        return f"{numbers}{alone}; {health.explain()}"


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
        plain=found.plain[0],
        plain_error=found.plain[1],
        # whatever is hotter than a rung that has boiled has boiled too
        usable=jax.lax.cummax(boiled.astype(jnp.int32), axis=0, reverse=True) == 0,
        health=health,
        groups=(),
        evaluations=0,
    )


def read_below_prior(ladder: Ladder) -> Flow:
    """The flow of a ladder whose first rung is the prior, that rung left out; arrays of numpy, on the host."""
    below = ladder._replace(
        rungs=jax.tree.map(lambda leaf: leaf[1:], ladder.rungs),
        record=jax.tree.map(lambda leaf: jnp.asarray(leaf[1:]), ladder.record),
        evaluations=0,
    )
    found = jax.tree.map(np.asarray, read_flow(below)._replace(groups=(), evaluations=()))
    origin = jax.eval_shape(ladder.posterior.restriction.origin, ladder.posterior.center)
    return found._replace(groups=tuple(group_names(origin)), evaluations=ladder.evaluations)


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
