"""What was measured about a run: everything in its trace that says whether to believe the mean excess."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from slt_jax import diagnostics
from slt_jax.estimators.health import Health
from slt_jax.posterior import LocalPosterior, dimension
from slt_jax.sampling import Trace
from slt_jax.types import Array, Scalar

#: There may be many leaves, one of which is the hottest: by so many of its standard errors it is taken to be cooler.
_LEAF_ERRORS = 4.0
#: Stretches of each chain from whose scatter a mixture is chosen.
_STRETCHES = 8
#: Pieces of each chain over which draws are averaged before their Monte Carlo errors are taken.
_PIECES = 200


class Evidence(NamedTuple):
    """What is known about a run beside its trace.

    Attributes:
      shift: ``nβ`` times the height of the centre given above the minimum found nearby, shape ``()``; NaN where no
        minimum was looked for.
      bracket: Whether the second half of the chains was annealed from above.
      heating: What the noise of batches adds to λ̂, as a share of it, shape ``()``; NaN where it is not known.
      height: The least that the centre sampled around lies above a minimum (``slt_jax.polish.height``), shape ``()``;
        NaN where a minimum was looked for instead.
      resolution: Whether the value is asked for at the resolution that γ gives: then γ holds nothing down.
    """

    shift: Scalar = math.nan
    bracket: bool | Array = False
    heating: Scalar = math.nan
    height: Scalar = math.nan
    resolution: bool | Array = False


def examine(trace: Trace, posterior: LocalPosterior, evidence: Evidence | None = None) -> Health:
    """Everything about a trace that says whether to believe its mean excess.

    Args:
      trace: From ``sample``.
      posterior: What was sampled.
      evidence: What is known beside the trace.

    Returns:
      A health with leaves of shape ``()``.

    Not to be believed as a proof: modes too slow for both halves of a bracket leave no mark but a low virial, which
    harmless flat directions leave too; ``unrelaxed`` bounds what they could add.
    """
    evidence = Evidence() if evidence is None else evidence
    excess = trace.excess
    leaves = jnp.moveaxis(trace.virials.astype(excess.dtype), -1, 0)
    # what is alike in shape is looked at together: a spectrum compiles slowly
    pull = 0.5 * posterior.gamma * _product(excess, trace.distance_squared)
    # the same by parts: ⟨z, nβ ∇K⟩ knows nothing of flat directions
    work = dimension(posterior) * trace.virial - posterior.gamma * trace.distance_squared
    parts = 0.5 * (work / posterior.nbeta - _product(excess, work))
    # batches bend the second, whose two factors share their noise
    held = jnp.where(jnp.all(trace.noise == 0), _calmest(pull, parts), pull)
    series = jnp.stack([excess, trace.virial, held.astype(excess.dtype)])
    together = jnp.concatenate([series, leaves])
    pieces = jax.vmap(_pieces)(together)
    means, errors = jnp.mean(together, axis=(1, 2)), jax.vmap(diagnostics.mcse)(pieces)
    mean = means[0]
    # as many independent draws as would have this error
    certain = errors[0] == 0
    count = jnp.where(certain, excess.size, jnp.var(excess) / jnp.where(certain, 1.0, errors[0] ** 2))
    variance = jnp.var(excess) - jnp.mean(trace.noise)
    heat = jnp.where(mean == 0, 1.0, posterior.nbeta * variance / jnp.where(mean == 0, 1.0, mean))
    gap, gap_error = _gap(pieces[0])
    known = jnp.asarray(evidence.bracket, bool)
    # annealed chains still spread too far along flat directions: the others tell whether the step is too large
    half = max(excess.shape[0] // 2, 1)
    below = jnp.where(known, jnp.mean(together[:, :half], axis=(1, 2)), means)
    wide = jnp.where(known, math.sqrt(2.0), 1.0) * errors
    finite = jnp.isfinite(excess).all(axis=1)
    # where a mean hides the noise of its batch, all that the draws vary is the most that it can be
    noise = jnp.where(jnp.isnan(trace.noise), jnp.var(excess), trace.noise)
    return Health(
        energy=posterior.nbeta * mean,
        error=posterior.nbeta * errors[0],
        # not one minus the mean of ones, which for three chains is a product with a rounded 1/3
        diverged=jnp.mean(~finite, dtype=excess.dtype),
        rhat=diagnostics.rhat(excess),
        ess=count,
        drift=diagnostics.drift(pieces[0]),
        virial=means[1],
        virial_error=errors[1],
        equipartition=below[1] - 3 * wide[1],
        hottest=jnp.max(below[3:] - _LEAF_ERRORS * wide[3:]),
        gap=jnp.where(known, posterior.nbeta * gap, jnp.nan),
        gap_error=jnp.where(known, posterior.nbeta * gap_error, jnp.nan),
        shift=jnp.asarray(evidence.shift, excess.dtype),
        height=jnp.asarray(evidence.height, excess.dtype),
        heating=jnp.asarray(evidence.heating, excess.dtype),
        held=jnp.where(jnp.asarray(evidence.resolution, bool), jnp.nan, posterior.nbeta * means[2]),
        # |z|² drifts along flat directions: what chains differ by tells more of the error than what each of them does
        held_error=posterior.nbeta * jnp.maximum(errors[2], _between(held)),
        unrelaxed=0.5 * dimension(posterior) * jnp.maximum(1 - means[1], 0.0),
        heat=heat,
        # of a variance, had the energy the Gamma law of an equilibrium: bursts must not widen their own error
        heat_error=jnp.sqrt((2 + 6 / jnp.maximum(posterior.nbeta * mean, 0.1)) / count),
        below=jnp.mean(excess < -2 * jnp.sqrt(noise), dtype=excess.dtype),
        moved=jnp.any(trace.distance_squared > 0),
    )


def _product(excess: Array, distance_squared: Array) -> Array:
    """What a draw contributes to the covariance of excess and squared distance within its chain."""
    centred = [series - jnp.mean(series, axis=1, keepdims=True) for series in (excess, distance_squared)]
    return centred[0] * centred[1]


def _pieces(draws: Array, count: int = _PIECES) -> Array:
    """Means over stretches of equal length, about so many in each chain; all single draws where there are no more.

    The noise of batches, white and large, would hide from an autocorrelation how slowly the rest of the energy moves.
    """
    length = max(draws.shape[1] // count, 1)
    kept = draws[:, draws.shape[1] % length :]
    return jnp.mean(kept.reshape(kept.shape[0], -1, length), axis=2)


def _calmest(first: Array, second: Array) -> Array:
    """The mixture of two series of equal mean that varies least from one stretch of a chain to the next."""
    pieces = (_pieces(series, _STRETCHES) for series in (first, second - first))
    first_apart, apart = (piece - jnp.mean(piece) for piece in pieces)
    spread = jnp.mean(apart**2)
    share = -jnp.mean(first_apart * apart) / jnp.where(spread > 0, spread, 1.0)
    return first + jnp.clip(share, 0.0, 1.0) * (second - first)


def _between(draws: Array) -> Array:
    """Standard error of the mean from the scatter of the chains; 0 for a single one."""
    chains = draws.shape[0]
    return jnp.std(jnp.mean(draws, axis=1), ddof=1) / math.sqrt(chains) if chains > 1 else jnp.zeros((), draws.dtype)


def _gap(excess: Array) -> tuple[Array, Array]:
    """Mean of the second half of the chains minus mean of the first, with its standard error."""
    half = excess.shape[0] // 2
    if half == 0:
        return jnp.asarray(jnp.nan, excess.dtype), jnp.asarray(jnp.nan, excess.dtype)
    both = jnp.stack([excess[:half], excess[half : 2 * half]])
    below, above = jnp.mean(both, axis=(1, 2))
    return above - below, jnp.linalg.norm(jax.vmap(diagnostics.mcse)(both))
