"""Draws at many temperatures as one weighted set of draws from the prior: multistate reweighting."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from slt_jax.types import Array

#: Newton steps after which the equations are given up, and the largest change of a free energy that counts as none.
_STEPS, _STILL = 200, 1e-10


@partial(jax.jit)
def mbar(reduced: Array, counts: Array, weights: Array | None = None, start: Array | None = None) -> Array:
    """Free energies of states from draws of all of them: ``f_k = -log Σ_n e^{-u_k(n)} / Σ_l N_l e^{f_l - u_l(n)}``.

    The equations of the multistate Bennett acceptance ratio, the estimator of least variance, which are the gradient
    of one convex function: Newton steps where they lead down, else a step of the equations.

    Args:
      reduced: ``u_k(n)``: the reduced energy of each draw in each state, whichever state it was drawn in, shape
        ``(state, draw)``; double precision.
      counts: Draws that come from each state, shape ``(state,)``; a state may have none.
      weights: How often each draw counts, shape ``(draw,)``; default once. Their sum is that of ``counts``.
      start: Free energies to begin with, shape ``(state,)``; default 0.

    Returns:
      ``f_k - f_0``, shape ``(state,)``, nats.

    Not to be believed where two states share no draws: the difference between them is then whatever it began with.

    Source: Shirts & Chodera 2008, arXiv:0801.1426, equation 11; the convex function: Tan, Gallicchio, Lapelosa & Levy
    2012, doi:10.1063/1.3701175.

    >>> flat = mbar(jnp.zeros((2, 10)), jnp.array([5.0, 5.0]))
    >>> [float(number) for number in flat]
    [0.0, 0.0]
    """
    counts = jnp.asarray(counts, reduced.dtype)
    weights = jnp.ones(reduced.shape[1], reduced.dtype) if weights is None else jnp.asarray(weights, reduced.dtype)
    present = counts > 0
    log_counts = jnp.where(present, jnp.log(jnp.where(present, counts, 1.0)), -jnp.inf)

    def height(free: Array) -> Array:
        return jnp.sum(weights * log_mixture(reduced, log_counts, free)) - jnp.sum(counts * free)

    def through(free: Array) -> Array:
        """Once through the equations themselves, which also serves states without draws."""
        spread = jnp.log(weights) - log_mixture(reduced, log_counts, free)
        free = -logsumexp(spread[None, :] - reduced, axis=1)
        return free - free[0]

    def newton(free: Array) -> Array:
        shares = jnp.exp(log_counts[:, None] + free[:, None] - reduced - log_mixture(reduced, log_counts, free)[None])
        mass = shares @ weights
        hessian = jnp.diag(mass) - (shares * weights[None, :]) @ shares.T
        # one free energy is free to choose, and states without draws are not asked for
        fixed = ~present | (jnp.arange(len(counts)) == jnp.argmax(present))
        hessian = jnp.where(fixed[:, None] | fixed[None, :], 0.0, hessian) + jnp.diag(jnp.where(fixed, 1.0, 0.0))
        return free + jnp.linalg.solve(hessian, jnp.where(fixed, 0.0, counts - mass))

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        free, _, count = carry
        slow, fast = through(free), newton(free)
        # the equations always lead down, a Newton step only from near enough
        better = jnp.isfinite(fast).all() & (height(fast) <= height(slow))
        new = jnp.where(better, fast, slow)
        return new, jnp.max(jnp.abs(jnp.where(present, new - new[0] - free + free[0], 0.0))), count + 1

    first = jnp.zeros_like(counts) if start is None else jnp.asarray(start, reduced.dtype)
    moved = jnp.full((), jnp.inf, reduced.dtype)
    free, _, _ = jax.lax.while_loop(lambda c: (c[1] > _STILL) & (c[2] < _STEPS), step, (first, moved, jnp.int32(0)))
    return through(free)


def log_mixture(reduced: Array, log_counts: Array, free: Array) -> Array:
    """``log Σ_l N_l e^{f_l - u_l(n)}``: minus this is the log weight of each draw, shape ``(draw,)``.

    >>> float(log_mixture(jnp.zeros((2, 1)), jnp.zeros(2), jnp.zeros(2))[0]) == float(jnp.log(2.0))
    True
    """
    return logsumexp(log_counts[:, None] + free[:, None] - reduced, axis=0)
