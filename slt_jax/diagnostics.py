"""How far a set of chains can be trusted: pure functions of arrays ``(chain, draw)``, usable inside jit.

A quantity that does not vary at all has no Monte Carlo error: its effective sample size is the number of draws, its
error 0 and its R-hat 1. A quantity with a draw that is not finite has NaN for all of them.
"""

import jax
import jax.numpy as jnp

from slt_jax import sharding
from slt_jax.types import Array

#: Sokal's window, in units of the autocorrelation time: it cuts off about ``e^-5`` of an exponential decay.
_WINDOW = 5.0


def rhat(draws: Array) -> Array:
    """Split R-hat: the potential scale reduction over chains cut in half.

    ``√(((N-1)/N W + B/N) / W)`` with ``N`` draws in a half chain, ``W`` the mean variance within and ``B/N`` the
    variance between the means of half chains.

    Args:
      draws: Shape ``(chain, draw)``.

    Returns:
      Shape ``()``; 1 when the chains agree. NaN with fewer than 4 draws.

    Not to be believed alone: chains that all sit on the same false plateau agree perfectly.

    Source: Gelman et al., Bayesian Data Analysis (3rd ed.), section 11.4; Vehtari et al. 2021, arXiv:1903.08008.

    >>> float(rhat(jnp.ones((4, 10))))
    1.0
    """
    if draws.shape[1] < 4:
        return jnp.full((), jnp.nan, draws.dtype)
    halves = _split(_from_first(draws))
    within = jnp.mean(_variances(halves))
    between = jnp.var(jnp.mean(halves, axis=1), ddof=1)
    count = halves.shape[1]
    ratio = ((count - 1) / count * within + between) / jnp.where(within > 0, within, 1.0)
    constant = jnp.where(between > 0, jnp.inf, 1.0)
    return jnp.where(jnp.isnan(ratio), jnp.nan, jnp.where(within > 0, jnp.sqrt(ratio), constant))


def ess(draws: Array) -> Array:
    """Effective sample size of the mean over all draws.

    ``S / τ`` for ``S`` draws in all and the integrated autocorrelation time ``τ = 1 + 2 Σ ρ_t``, with autocorrelations
    that also count the differences between chains. The sum is Geyer's over the initial monotone sequence of pairs, or,
    where it is larger, the smaller of his over the initial positive sequence and Sokal's over a window of ``5 τ``: the
    autocorrelation of a sampler with momentum goes up and down, and is not to be made monotone.

    Args:
      draws: Shape ``(chain, draw)``.

    Returns:
      Shape ``()``, between 1 and ``S log10 S``.

    Not to be believed when it is below a few tens per chain: a chain shorter than its own correlation time cannot
    know it.

    Source: Geyer 1992, doi:10.1214/ss/1177011137 (both sequences); Sokal 1997, Monte Carlo methods in statistical
    mechanics (the window); Vehtari et al. 2021, arXiv:1903.08008, section 3 (several chains).

    >>> int(ess(jnp.ones((4, 10))))
    40
    """
    total = draws.shape[0] * draws.shape[1]
    if draws.shape[1] < 4:
        return jnp.where(_finite(draws), 1.0 * draws.shape[0], jnp.nan)
    halves = _split(_from_first(draws))
    count = halves.shape[1]
    covariance = _autocovariance(halves)
    within = jnp.mean(covariance[:, 0]) * count / (count - 1)
    spread = jnp.var(jnp.mean(halves, axis=1), ddof=1)
    pooled = within * (count - 1) / count + spread
    varies = pooled > 0
    correlation = 1 - (within - jnp.mean(covariance, axis=0)) / jnp.where(varies, pooled, 1.0)
    correlation = correlation.at[0].set(1.0)
    time = jnp.maximum(_autocorrelation_time(correlation), 1 / jnp.log10(total))
    return jnp.where(_finite(draws), jnp.where(varies, total / time, 1.0 * total), jnp.nan)


def mcse(draws: Array) -> Array:
    """Monte Carlo standard error of the mean over all draws: ``√(variance / ess)``, in the units of ``draws``.

    Args:
      draws: Shape ``(chain, draw)``.

    Returns:
      Shape ``()``; exactly 0 for draws that do not vary.

    Source: Vehtari et al. 2021, arXiv:1903.08008, section 4.

    >>> float(mcse(jnp.zeros((2, 8))))
    0.0
    """
    return jnp.sqrt(jnp.var(_from_first(draws)) / ess(draws))


def virial(draws: Array) -> tuple[Array, Array]:
    """Mean and Monte Carlo error of the equipartition number ``⟨z, ∇U⟩ / d``, whose exact mean is 1.

    Args:
      draws: ``Trace.virial``, shape ``(chain, draw)``.

    Returns:
      Two arrays of shape ``()``. Above 1: the step is too large or minibatches heat the chain. Below 1: the chain has
      not reached equilibrium.

    Not to be believed as a verdict on λ alone: a slow drift along the minimum set lowers it while λ is right already.

    Source: the virial (equipartition) theorem, integration by parts of ``exp(-U)``.

    >>> [float(number) for number in virial(jnp.ones((2, 8)))]
    [1.0, 0.0]
    """
    return jnp.mean(draws), mcse(draws)


def drift(draws: Array) -> Array:
    """Difference of the means of the first and the second half, in units of its Monte Carlo error.

    Args:
      draws: Shape ``(chain, draw)``.

    Returns:
      Shape ``()``: about standard normal when the chains are stationary; 0 for draws that do not vary.

    Source: Geweke 1992, with errors from the effective sample size of each half.

    >>> float(drift(jnp.ones((2, 8))))
    0.0
    """
    half = draws.shape[1] // 2
    halves = jnp.stack([draws[:, :half], draws[:, draws.shape[1] - half :]])
    first, second = jnp.mean(halves, axis=(1, 2))
    error = jnp.linalg.norm(jax.vmap(mcse)(halves))
    difference = second - first
    return jnp.where(difference == 0, 0.0, difference / error)


def _split(draws: Array) -> Array:
    half = draws.shape[1] // 2
    return jnp.concatenate([draws[:, :half], draws[:, draws.shape[1] - half :]], axis=0)


def _from_first(draws: Array) -> Array:
    """Draws relative to the very first: the mean of equal numbers rounds, so only zeros are sure to have variance 0."""
    return draws - draws[:1, :1]


def _variances(draws: Array) -> Array:
    return jnp.var(draws - draws[:, :1], axis=1, ddof=1)


def _finite(draws: Array) -> Array:
    return jnp.all(jnp.isfinite(draws))


def _autocovariance(draws: Array) -> Array:
    count = draws.shape[1]
    moved = draws - draws[:, :1]
    centred = moved - jnp.mean(moved, axis=1, keepdims=True)
    # on a mesh in one piece: XLA on CPU does not transform what it has gathered in another order of axes
    spectrum = jnp.fft.rfft(sharding.whole(centred), n=2 * count, axis=1)
    return jnp.fft.irfft(jnp.abs(spectrum) ** 2, n=2 * count, axis=1)[:, :count] / count


def _autocorrelation_time(correlation: Array) -> Array:
    count = correlation.shape[0] - correlation.shape[0] % 2
    pairs = correlation[:count].reshape(-1, 2).sum(axis=1)
    negative = pairs <= 0
    first = jnp.where(negative.any(), jnp.argmax(negative), pairs.shape[0])
    positive = jnp.where(jnp.arange(pairs.shape[0]) < first, pairs, 0.0)
    sums = 2 * jnp.cumsum(correlation) - 1
    wide = jnp.arange(correlation.shape[0]) >= _WINDOW * sums
    windowed = jnp.where(wide.any(), sums[jnp.argmax(wide)], sums[-1])
    monotone = 2 * jnp.sum(jnp.minimum.accumulate(positive)) - 1
    return jnp.maximum(monotone, jnp.minimum(2 * jnp.sum(positive) - 1, windowed))
