"""A number that never travels without its uncertainty, its verdict and what was chosen to get it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax.estimators.dynamics import friction_at
from slt_jax.estimators.examine import Evidence, examine
from slt_jax.estimators.health import HEATING_LIMIT, Health
from slt_jax.posterior import LocalPosterior
from slt_jax.sampling import Trace
from slt_jax.types import Array

#: By how much of itself the heat of batches may be wrong, which holds to first order and on a quadratic.
_HEAT_ERROR = 1 / 3


class Settings(NamedTuple):
    """Everything that ``llc`` chose by itself: passed back as ``llc(key, ..., settings=...)`` it repeats the run.

    All leaves are arrays, so that an estimate can leave a jitted function; whole numbers are ``int32``.

    Attributes:
      nbeta, gamma: The posterior's.
      step_size: The step of each stage of the first block, shape ``(stage, group)``: h on all of the data, else ε.
      friction: The least share of the velocity that was lost in a step of the first block, shape ``(stage,)``, ``h √γ``
        where that is more: with 16 chains or more, 0.4 of the last in blocks that followed; of no effect on
        minibatches.
      share: ``nβ`` of each stage as a share of its final value, shape ``(stage, group)``.
      fraction: What the step was multiplied by after runs in which it was too large.
      attempt: How many runs were given up for that.
      blocks: How many blocks of ``burnin + draws`` steps were run, one after the other.
      chains, draws, burnin, thin, batch_size: As asked for; ``batch_size`` 0 for all of the data.
      kept: Draws of each chain that the value is the mean of.
      gradients: Gradients that each chain took in all, those given up included.
      polishing: Whether a minimum nearby was looked for.
      polished: Whether the centre was moved to the minimum nearby.
      shift: ``nβ`` times the height of the centre given above the minimum found nearby.
      descent: Gradients on all of the data that looking for the minimum took, beside those of the chains.
    """

    nbeta: Array
    gamma: Array
    step_size: Array
    friction: Array
    share: Array
    fraction: Array
    attempt: Array
    blocks: Array
    chains: Array
    draws: Array
    burnin: Array
    thin: Array
    batch_size: Array
    kept: Array
    gradients: Array
    polishing: Array
    polished: Array
    shift: Array
    descent: Array | int = 0

    def explain(self) -> str:
        """What was chosen, in words (host only)."""
        batches = int(self.batch_size)
        dynamics = (
            f"overdamped Langevin dynamics on batches of {batches} with control variates, "
            f"step {float(self.step_size[-1].min()):.3g}"
            if batches
            else f"underdamped Langevin dynamics, step {float(self.step_size[-1].min()):.3g}, "
            f"friction {float(friction_at(self.gamma, self.step_size[-1].min(), self.friction[-1])):.2g} a step"
        )
        moved = (
            f"; the centre was moved to the minimum nearby, lower by {float(self.shift):.2g} in units of λ, in "
            f"{int(self.descent)} gradients"
            if bool(self.polished)
            else ""
        )
        again = (
            f"; begun again {int(self.attempt)} times, the step {float(self.fraction):.3g} times that of the rule"
            if int(self.attempt)
            else ""
        )
        warmest = float(self.share.min())
        annealed = f", half of the chains annealed from {warmest:.2g} nβ" if warmest < 1 else ""
        return (
            f"nβ {float(self.nbeta):.5g}, γ {float(self.gamma):.3g}; {dynamics}{again}; {int(self.chains)} chains of "
            f"{int(self.gradients)} gradients{annealed}, {int(self.kept)} draws kept of each{moved}"
        )


class Estimate(NamedTuple):
    """A measured value; a tree, so that it can leave a jitted or vmapped function.

    Attributes:
      value: Shape ``()``.
      std_error: Monte Carlo standard error of ``value``, shape ``()``.
      per_chain: The value of each chain alone, shape ``(chain,)``.
      health: The verdict.
      settings: What was chosen, where anything was.
    """

    value: Array
    std_error: Array
    per_chain: Array
    health: Health
    settings: Settings | None = None

    @property
    def interval(self) -> tuple[Array, Array]:
        """Where the value lies: 1.96 standard errors either way if healthy, else all that the chains leave open.

        An unhealthy run's interval goes from its lowest chain to its highest, and higher by what directions that have
        not relaxed could add; it is infinite where a chain diverged.
        """
        margin = 1.96 * self.std_error
        low = jnp.where(self.health.ok, self.value, jnp.min(self.per_chain, axis=-1)) - margin
        high = jnp.where(self.health.ok, self.value, jnp.max(self.per_chain, axis=-1) + self.health.unrelaxed) + margin
        known = jnp.isfinite(self.value)
        return jnp.where(known, low, -jnp.inf), jnp.where(known, high, jnp.inf)

    def explain(self) -> str:
        """The number, the verdict and what was chosen, in words (host only)."""
        if np.ndim(self.value):
            raise ValueError(f"explain: got an estimate of shape {np.shape(self.value)}; index one of them first.")
        low, high = (float(end) for end in self.interval)
        chosen = "" if self.settings is None else f" Chosen: {self.settings.explain()}."
        number = f"{float(self.value):.4g} ± {float(self.std_error):.2g}, between {low:.4g} and {high:.4g}"
        return f"{number}. {self.health.explain()}{chosen}"

    def __str__(self) -> str:
        if np.ndim(self.value):
            return repr(self)
        return f"{float(self.value):.4g} ± {float(self.std_error):.2g} ({self.health.explain()})"


def llc_from(trace: Trace, posterior: LocalPosterior, evidence: Evidence | None = None) -> Estimate:
    """The local learning coefficient ``λ̂ = nβ E[L(w) - L(w*)]`` from a trace.

    Args:
      trace: From ``sample``; its burn-in is gone already.
      posterior: What was sampled: it alone knows ``nβ``.
      evidence: What is known about the run beside its trace: whether half of the chains came from above, how far the
        centre lay from a minimum, how much batches heat.

    Returns:
      An estimate: ``value`` and ``std_error`` (Monte Carlo, from the effective sample size) without units, shape
      ``()``, from which the heat of batches was taken, where it is known and small, a third of it being added to the
      error; ``per_chain``, shape ``(chain,)``. A diverged chain makes the value NaN and is named in the health.

    Not to be believed where ``health.ok`` is false; as λ itself where the multiplicity m exceeds 1 and λ is small (the
    value at one temperature is then low by about ``(m - 1) / log nβ``); along directions with ``nβ h ≪ γ``.

    Source: Lau et al. 2023, arXiv:2308.12108, Definition 1; the errors: Vehtari et al. 2021, arXiv:1903.08008.
    """
    health = examine(trace, posterior, evidence)
    # what is wrong by more is flagged, and left as it was measured
    small = (jnp.abs(health.heating) <= HEATING_LIMIT) & jnp.isfinite(health.energy)
    # parameters, and with them the virial, may be wider than losses
    heat = jnp.where(small, health.heating * health.energy, 0.0).astype(trace.excess.dtype)
    doubt = jnp.where(heat == 0, health.error, jnp.hypot(health.error, _HEAT_ERROR * heat))
    return Estimate(
        # an infinite draw would make the mean infinite, which a comparison takes for a number
        value=jnp.where(health.diverged > 0, jnp.nan, posterior.nbeta * jnp.mean(trace.excess) - heat),
        std_error=doubt,
        per_chain=posterior.nbeta * jnp.mean(trace.excess, axis=1) - heat,
        health=health,
    )


read = jax.jit(llc_from)
