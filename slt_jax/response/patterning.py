"""Patterning: which change of the data moves the structure of a network where it is wanted."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax.response.influence import Influence
from slt_jax.response.measured import Measured, measured, noise
from slt_jax.response.outcome import Susceptibility
from slt_jax.tree import check_key
from slt_jax.types import Array, Key

#: Draws of the noise; its largest singular value is the one that it exceeds in one of twenty of them.
_DRAWS, _QUANTILE = 512, 0.95
#: By which share of the noise χ is moved to see how the change follows it.
_NUDGE = 0.1


class Pattern(NamedTuple):
    """A change of the data, and what it is said to do.

    Attributes:
      change: ``dh``, shape ``(direction,)``: shares of the data to be replaced, to first order; 0 where χ does not
        stand above its noise.
      predicted: ``χ dh``, the move of each coordinate, less what ``dh`` owes to its noise; shape ``(coordinate,)``.
      std_error: Its standard error.
      wanted: ``dμ*``, shape ``(coordinate,)``.
      unreachable: The part of it that no change of these data reaches, as far as χ stands above its noise.
      singular_values: Of χ in units of its errors, each coordinate divided by the root mean square of its own; the
        largest first.
      noise: The largest singular value that the errors of χ alone would give, in nineteen of twenty cases.
    """

    change: Array
    predicted: Array
    std_error: Array
    wanted: Array
    unreachable: Array
    singular_values: Array
    noise: Array

    def weights(self, strength: float, density: Array | None = None) -> Array:
        """Weight of every example, mean 1: ``w_i = 1 + s Σ_j dh_j (r_ij - 1)`` (host only).

        Args:
          strength: ``s``; below 0 for the opposite.
          density: ``r``, shape ``(example, direction)``: how many times as often each example occurs in the data of a
            direction as in all; its columns have mean 1, that of a group its marks over their mean. Default: every
            direction is one example.

        Returns:
          Shape ``(example,)``.

        Raises:
          ValueError: a weight would be negative, a column has another mean, or the shapes do not agree.
        """
        low, high = self.strengths(density)
        if not low <= strength <= high:
            raise ValueError(f"strength: got {strength}; weights are negative beyond {low:.4g} and {high:.4g}.")
        return jnp.maximum(1 + strength * jnp.asarray(self._moves(density)), 0)

    def strengths(self, density: Array | None = None) -> tuple[float, float]:
        """The least and the largest strength at which no weight is negative; infinite where nothing changes."""
        moves = self._moves(density)
        with np.errstate(divide="ignore"):
            low, high = -np.float64(1.0) / np.maximum([moves.max(), -moves.min()], 0.0) * [1, -1]
        return float(low), float(high)

    def _moves(self, density: Array | None) -> np.ndarray:
        change = np.asarray(self.change, np.float64)
        if density is None:
            return len(change) * change - change.sum()
        ratio = np.asarray(density, np.float64)
        if ratio.ndim != 2 or ratio.shape[1] != len(change):
            raise ValueError(
                f"density: got shape {ratio.shape}; pass (example, direction) with {len(change)} directions."
            )
        if not (np.isfinite(ratio).all() and (ratio >= 0).all() and np.abs(ratio.mean(axis=0) - 1).max() < 1e-3):
            raise ValueError("density: columns must be non-negative with mean 1; divide each by its mean.")
        return (ratio - 1) @ change

    def explain(self) -> str:
        """What the change is said to do, in words (host only)."""
        kept = int(np.sum(np.asarray(self.singular_values) > np.asarray(self.noise)))
        said = f"{kept} of {len(self.singular_values)} singular values of χ stand above the noise ({self.noise:.3g})"
        if not kept:
            return f"{said}: no change of these data is known to move anything. Draw longer chains, or ask coarser."
        size = float(jnp.linalg.norm(self.wanted))
        missed = float(jnp.linalg.norm(self.unreachable)) / size if size else 0.0
        moves = ", ".join(f"{p:.3g} ± {e:.2g} of {w:.3g}" for p, e, w in zip(*self[1:4], strict=True))
        return f"{said}. Predicted: {moves}. Out of reach: {missed:.0%} of what is wanted."


def patterning(
    key: Key,
    found: Susceptibility | Influence | Measured | tuple[Array, Array],
    wanted: Array,
) -> Pattern:
    """The smallest change of the data that moves structure as wanted: ``χ dh = dμ*``, ``dh = χ⁺ dμ*``.

    ``χ⁺ = Σ_k (1 - τ²/s_k²)₊ v_k u_kᵀ / s_k``: singular values below ``τ``, the largest that the errors of χ alone
    would give, are cut, those above are shrunk; of χ and ``dμ*`` in units of the error of each coordinate, so that of
    what cannot all be reached that comes first of which χ is known best. A direction fitted to noise promises more than
    it holds, by ``E[N dh(χ + N)]``, ``N`` the noise: this is measured (Stein's lemma) and taken from the prediction.
    Works inside jit, where a pair of arrays is passed.

    Args:
      key: A typed key, for draws of the noise.
      found: χ with its errors, axes ``(coordinate, direction)``: a pair ``(value, std_error)`` with ``dμ = value dh``;
        or a ``Susceptibility`` or an ``Influence``, of which it is ``nβ χ``, in nats, per share ``h`` of
        ``q_h = (1 - h) q + h q'``.
      wanted: ``dμ*``, shape ``(coordinate,)``.

    Returns:
      A ``Pattern``; its ``weights(strength)`` are those of the examples.

    Raises:
      ValueError: before compilation, naming the argument, what was got and what to do.

    Not to be believed beyond first order: retrain with the weights, their opposite and neither (``retrained``). χ is of
    the posterior around one set of weights, which training need not follow. A ``dh`` of 0 says that χ is not known well
    enough, not that nothing would help.

    Source: arXiv:2601.13548 (patterning); Stein 1981, doi:10.1214/aos/1176345632 (what a fit to noise promises).

    >>> value = jnp.array([[2.0, 0.0], [0.0, 1e-3]])
    >>> found = patterning(jax.random.key(0), (value, jnp.full((2, 2), 1e-2)), jnp.array([1.0, 1.0]))
    >>> found.change.round(2).tolist(), (found.wanted - found.unreachable).round(2).tolist()
    ([0.5, 0.0], [1.0, 0.0])
    """
    check_key(key)
    chi = measured(found)
    if isinstance(found, Susceptibility | Influence):
        chi = jax.tree.map(lambda leaf: found.nbeta * leaf, chi)
    goal = jnp.asarray(wanted, chi.value.dtype)
    if goal.shape != chi.value.shape[:1]:
        raise ValueError(
            f"wanted: got shape {goal.shape} with χ of {chi.value.shape[0]} coordinates; pass one number for each."
        )
    return _pattern(noise(key, chi, _DRAWS), chi.value, goal, _units(chi.std_error))


def _units(error: Array) -> Array:
    """Of each coordinate the root mean square of its errors, lest large numbers drown the others in their noise.

    What is known exactly has the least unit of the others, or 1.
    """
    most = jnp.max(error, axis=1, keepdims=True)
    units = most[:, 0] * jnp.sqrt(jnp.mean((error / jnp.where(most > 0, most, 1.0)) ** 2, axis=1))
    least = jnp.min(jnp.where(units > 0, units, jnp.inf))
    return jnp.where(units > 0, units, jnp.where(jnp.isfinite(least), least, 1.0))


@jax.jit
def _pattern(errors: Array, value: Array, wanted: Array, unit: Array) -> Pattern:
    scaled, scaled_errors, goal = value / unit[:, None], errors / unit[None, :, None], wanted / unit
    tau = jnp.quantile(jax.vmap(lambda n: jnp.linalg.svd(n, compute_uv=False)[0])(scaled_errors), _QUANTILE)

    def change(chi: Array) -> Array:
        left, sizes, right = jnp.linalg.svd(chi, full_matrices=False)
        return right.T @ (_inverse(sizes, tau) * (left.T @ goal))

    def promised(error: Array) -> Array:
        apart = change(scaled + _NUDGE * error) - change(scaled - _NUDGE * error)
        return error @ apart / (2 * _NUDGE)

    with jax.default_matmul_precision("highest"):
        left, sizes, _ = jnp.linalg.svd(scaled, full_matrices=False)
        inside = (_inverse(sizes, tau) > 0) * (left.T @ goal)
        found = change(scaled)
        excess = jnp.mean(jax.vmap(promised)(scaled_errors), axis=0)
        return Pattern(
            change=found,
            # what does not change the data moves nothing
            predicted=jnp.where(jnp.any(found != 0), unit * (scaled @ found - excess), 0.0),
            std_error=unit * jnp.std(scaled_errors @ found, axis=0),
            wanted=wanted,
            unreachable=wanted - unit * (left @ inside),
            singular_values=sizes,
            noise=tau,
        )


def _inverse(sizes: Array, tau: Array) -> Array:
    """``(1 - τ²/s²)₊ / s``, and 0 where nothing but rounding is left."""
    least = jnp.maximum(tau, sizes.size * jnp.finfo(sizes.dtype).eps * sizes[0])
    some = jnp.where(sizes > least, sizes, 1.0)
    return jnp.where(sizes > least, (1 - (tau / some) ** 2) / some, 0.0)
