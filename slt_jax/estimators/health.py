"""Verdicts as data: what was measured about a run, which of it is out of bounds, and what to do about it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax.types import Array

#: Chains that disagree by more than this have not mixed (Vehtari et al. 2021 advise 1.01 for ranks; means of an
#: energy, which is what λ is, are already good at 1.1).
RHAT_LIMIT = 1.1
#: The same where chains from below and from above have met: half a chain then still has two independent draws, and a
#: burn-in twice as long leaves a share of ``e^-4`` of how far either kind started off.
RHAT_LIMIT_BRACKETED = 1.2
#: Below this many effective draws the error bar itself is not known.
ESS_LIMIT = 20.0
#: Difference of the two halves of the chains, in its own standard errors.
DRIFT_LIMIT = 3.5
#: Equipartition number: above, the step is too large or batches heat; below, the chain is not in equilibrium.
VIRIAL_RANGE = (0.25, 1.08)
#: No Monte Carlo error excuses an equipartition number above this.
VIRIAL_MOST = 1.3
#: Heat capacity over λ̂: 1 at every plateau of the temperature. Modes whose force constant is near γ lower it, to
#: ``Σ p² / Σ p`` with ``p = nβ h / (nβ h + γ)`` on a quadratic: a low value says that λ̂ depends on the resolution.
HEAT_RANGE = (0.25, 1.4)
#: Below this λ̂ the loss is flat at this temperature, and the shape of its fluctuations says nothing.
FLAT_LIMIT = 0.05
#: Share of draws that lie below the centre by more than twice the noise of their batch.
BELOW_LIMIT = 0.1

#: Chains from below and from above may differ by so many standard errors, or by this share of λ̂.
BRACKET_LIMIT, BRACKET_SHARE = 3.5, 0.03
#: What batches may add to λ̂, as a share of it.
HEATING_LIMIT = 0.05
#: What λ̂ would gain without γ, to first order, as a share of it, beyond so many standard errors.
GAMMA_LIMIT, GAMMA_ERRORS = 0.05, 3.0
#: Height of the centre above a minimum nearby, in units of λ̂.
SHIFT_LIMIT = 0.5
#: The same where the centre stayed where it was given: the value then lacks all of it.
HEIGHT_LIMIT = 0.1
#: Equipartition number of a single leaf, beyond four of its standard errors.
LEAF_LIMIT = 1.1

_CHECKS = (
    "finite",
    "moved",
    "minimum",
    "rhat",
    "ess",
    "drift",
    "gamma",
    "bracket",
    "virial",
    "heating",
    "heat",
)
_REMEDIES = {
    "finite": "a chain diverged: lower the step size, or raise gamma",
    "rhat": "the chains disagree: run longer (draws, burnin) or more chains",
    "ess": "too few independent draws: raise draws",
    "drift": "the chains are still moving: raise burnin",
    "moved": "the step is 0, or too small for the precision of the parameters: raise it",
    "virial": "not in equipartition: above 1 lower the step size or raise batch_size, below raise burnin and draws",
    "heat": "the energy fluctuates unlike an equilibrium at this temperature: check step size, burnin and nbeta",
    "minimum": "there is lower loss than at the centre: train further, measure at the minimum of this data, or the "
    "network's own function with reference='self'",
    "gamma": "the value depends on gamma: lower it, or say resolution=True if directions this flat are to be left out",
    "bracket": "chains from below and from above have not met: raise draws and burnin, or the budget",
    "heating": "the noise of the batches heats the chains: raise batch_size or lower the step size",
}


class Health(NamedTuple):
    """What was measured about a run; every leaf has shape ``()`` (or the shape of what it was vmapped over).

    Attributes:
      energy: ``nβ`` times the mean excess: λ̂, before the heat of batches is taken from it.
      error: Its Monte Carlo standard error.
      diverged: Share of the chains with a draw that is not finite.
      rhat: Split R-hat of the excess.
      ess: Effective sample size of the excess, over all chains: its variance over the squared error of its mean.
      drift: Second half minus first half of the excess, in its standard errors.
      virial: Equipartition number, exactly 1 under the posterior.
      virial_error: Its Monte Carlo standard error.
      equipartition: The virial of the chains that started cold, less three standard errors.
      hottest: Largest equipartition number of a leaf, less four of its standard errors.
      gap: Mean of the chains from above minus mean of those from below, in units of λ; NaN without a bracket.
      gap_error: Its standard error.
      shift: ``nβ`` times the height of the centre given above the minimum found nearby; NaN where none was looked for.
      height: What the centre sampled around lies above a minimum at least; NaN where a minimum was looked for instead.
      heating: What the noise of batches adds to λ̂, as a share of it; NaN where it is not known.
      held: ``γ nβ Cov(K, |z|²) / 2``, what λ̂ would gain without γ, to first order: the difference between two values
        of γ by reweighting the same draws. On a quadratic ``½ Σ p (1 - p)`` with ``p = nβ h / (nβ h + γ)``. By parts
        also ``(E W - Cov(nβ K, W)) / 2`` with ``W = ⟨z, nβ ∇K⟩``, of smaller error where many directions are flat: the
        mixture of the two that varies least. NaN where γ is part of what was asked for.
      held_error: Its standard error.
      unrelaxed: ``d (1 - virial) / 2``: the most that λ̂ can lack through modes that the chains have not filled yet. On
        a quadratic a mode that has not moved lowers the virial by ``1 / d`` and λ̂ by at most 1/2; flat directions lower
        the virial alone.
      heat: Heat capacity ``(nβ)² Var(L)`` over λ̂, without the noise of the batches; NaN where that is unknown.
      heat_error: Its standard error, were the energy Gamma distributed with shape λ̂.
      below: Share of the draws below the centre.
      moved: Whether any chain left the centre at all.
    """

    energy: Array
    error: Array
    diverged: Array
    rhat: Array
    ess: Array
    drift: Array
    virial: Array
    virial_error: Array
    equipartition: Array
    hottest: Array
    gap: Array
    gap_error: Array
    shift: Array
    height: Array
    heating: Array
    held: Array
    held_error: Array
    unrelaxed: Array
    heat: Array
    heat_error: Array
    below: Array
    moved: Array

    @property
    def overheated(self) -> Array:
        """Whether equipartition is exceeded, as only too large a step or the noise of batches can."""
        too_much = (self.equipartition > VIRIAL_RANGE[1]) | (self.virial > VIRIAL_MOST)
        return self.moved & (too_much | (self.hottest > LEAF_LIMIT))

    @property
    def bracketed(self) -> Array:
        """Whether chains from below and from above have met."""
        limit = jnp.maximum(BRACKET_LIMIT * self.gap_error, BRACKET_SHARE * jnp.abs(self.energy))
        return jnp.abs(self.gap) <= limit

    @property
    def held_perhaps(self) -> Array:
        """Whether γ seems to hold the value down, but by no more than chance may do: longer chains would tell."""
        return self._held_beyond(0.0) & ~self._held_beyond(GAMMA_ERRORS)

    def _held_beyond(self, errors: float) -> Array:
        return self.held - errors * self.held_error > GAMMA_LIMIT * jnp.abs(self.energy) + FLAT_LIMIT

    @property
    def checks(self) -> dict[str, Array]:
        """One boolean per check, ``True`` where it passed."""
        return dict(zip(_CHECKS, _passed(self)[0], strict=True))

    def _checks(self) -> dict[str, Array]:
        still = ~self.moved
        cold, hot = HEAT_RANGE
        return {
            "finite": self.diverged == 0,
            "moved": self.moved,
            "minimum": (self.below <= BELOW_LIMIT)
            & ~(self.shift > SHIFT_LIMIT * jnp.abs(self.energy) + FLAT_LIMIT)
            & ~(self.height > HEIGHT_LIMIT * jnp.abs(self.energy) + FLAT_LIMIT),
            "rhat": self.rhat <= jnp.where(self.bracketed, RHAT_LIMIT_BRACKETED, RHAT_LIMIT),
            "ess": self.ess >= ESS_LIMIT,
            "drift": jnp.abs(self.drift) <= DRIFT_LIMIT,
            "gamma": ~self._held_beyond(GAMMA_ERRORS),
            "bracket": jnp.isnan(self.gap) | self.bracketed,
            # what never moved has nothing to equilibrate: one complaint is enough
            # flat directions lower the virial for ever: chains that met from both sides answer for them
            "virial": still | (~self.overheated & ((self.virial >= VIRIAL_RANGE[0]) | self.bracketed)),
            "heating": jnp.isnan(self.heating) | (self.heating <= HEATING_LIMIT),
            "heat": still
            | jnp.isnan(self.heat)
            | (jnp.abs(self.energy) < FLAT_LIMIT)
            | ((self.heat * (1 + 3 * self.heat_error) >= cold) & (self.heat - 3 * self.heat_error <= hot)),
        }

    @property
    def ok(self) -> Array:
        """Whether every check passed: boolean, shape ``()``."""
        return _passed(self)[1]

    def explain(self) -> str:
        """The verdict in words, with the remedy for each check that failed (host only)."""
        if np.ndim(self.diverged):
            raise ValueError(f"explain: got a health of shape {np.shape(self.diverged)}; index one of them first.")
        figures = {
            "finite": f"{float(self.diverged):.0%} of the chains diverged",
            "rhat": f"R-hat {float(self.rhat):.3f} (limit {RHAT_LIMIT_BRACKETED if self.bracketed else RHAT_LIMIT})",
            "ess": f"effective sample size {float(self.ess):.0f} (at least {ESS_LIMIT:.0f})",
            "drift": f"halves differ by {float(self.drift):+.1f} standard errors (limit {DRIFT_LIMIT})",
            "moved": "the chains left the centre" if bool(self.moved) else "no chain left the centre",
            "virial": f"virial {float(self.virial):.3f} ± {float(self.virial_error):.3f} (1 in equilibrium, allowed "
            f"{VIRIAL_RANGE[0]} to {VIRIAL_RANGE[1]})",
            "heat": f"heat capacity over λ {float(self.heat):.2f} ± {float(self.heat_error):.2f} (1 at a plateau)"
            if np.isfinite(self.heat)
            else "heat capacity not known from means over batches",
            "minimum": f"{float(self.below):.0%} of the draws lie below the centre (limit {BELOW_LIMIT:.0%})"
            + self._height(),
            "gamma": f"without gamma it would be higher by {float(self.held):.2g} ± {float(self.held_error):.2g}"
            if np.isfinite(self.held)
            else "at the resolution of this gamma",
            "bracket": f"chains from above minus chains from below {float(self.gap):+.2g} ± {float(self.gap_error):.2g}"
            if np.isfinite(self.gap)
            else "no bracket",
            "heating": self._heat_of_batches(),
        }
        failed = [name for name, passed in self.checks.items() if not bool(passed)]
        if "finite" in failed:  # nothing else can be known
            failed = ["finite"]
        if not failed:
            return "healthy: " + "; ".join([*figures.values(), *self._cautions()]) + "."
        return "UNHEALTHY: " + "; ".join(f"{name}: {figures[name]}; {_REMEDIES[name]}" for name in failed) + "."

    def _heat_of_batches(self) -> str:
        if not np.isfinite(self.heating):
            return "heating by batches not measured"
        if float(self.heating) == 0:
            return "no batches, no heat"
        taken = "which is taken from it" if float(self.heating) <= HEATING_LIMIT else "all of which it still has"
        return f"batches add {float(self.heating):.1%} to λ (limit {HEATING_LIMIT:.0%}), {taken}"

    def _height(self) -> str:
        if np.isfinite(self.height) and float(self.height) > FLAT_LIMIT:
            return f", which lies at least {float(self.height):.2g} above a minimum, in units of λ: the value lacks it"
        if not np.isfinite(self.shift):
            return ""
        return f", which was {float(self.shift):.2g} above the minimum found nearby, in units of λ"

    def _cautions(self) -> list[str]:
        """What a green verdict leaves open."""
        cautions = []
        if float(self.energy) == 0:
            cautions.append("the loss does not depend on the free directions")
        if float(self.unrelaxed) > 0.1 * abs(float(self.energy)):
            cautions.append(
                f"directions that have not relaxed could add up to {float(self.unrelaxed):.2g}, or nothing if they are "
                "flat: run longer, or raise gamma to leave them out"
            )
        return cautions


@jax.jit
def _passed(health: Health) -> tuple[tuple[Array, ...], Array]:
    """All checks in their order, and whether all have passed: one program, not one for each operation."""
    checks = health._checks()
    return tuple(checks[name] for name in _CHECKS), jnp.stack(list(checks.values())).all(axis=0)
