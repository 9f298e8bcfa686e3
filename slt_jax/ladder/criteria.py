"""The widely applicable information criterion and the singular fluctuation, from draws of the Bayesian posterior."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from slt_jax import loss
from slt_jax.ladder.measure import check_size, measure, size_for
from slt_jax.ladder.reading import read_flow
from slt_jax.posterior import LocalPosterior, dimension, localise
from slt_jax.restriction import Restriction
from slt_jax.tree import check_key
from slt_jax.types import Array, Key, LossFn, PyTree, Scalar

#: Rungs, the coldest at ``nβ = n``, each twice as hot as the next.
_RUNGS = 5


class InformationCriterion(NamedTuple):
    """What the Bayesian posterior (``β = 1``) says about generalisation; nats for each example.

    Attributes:
      value, std_error: WAIC, ``T + V / n``.
      training_loss: ``T = -(1/n) Σ_i log E_w[exp(-ℓ_i(w))]``.
      functional_variance: ``V = Σ_i Var_w[ℓ_i(w)]``, in units of λ.
      singular_fluctuation, fluctuation_error: ``ν = V / 2``; equal to λ where the model is regular and realisable.
      ok: Whether the chains are healthy.
    """

    value: Array
    std_error: Array
    training_loss: Array
    functional_variance: Array
    singular_fluctuation: Array
    fluctuation_error: Array
    ok: Array


def waic(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    *,
    gamma: Scalar | None = None,
    restriction: Restriction | None = None,
    chains: int | None = None,
    draws: int | None = None,
    leapfrogs: int | None = None,
) -> InformationCriterion:
    """WAIC and the singular fluctuation of the posterior around ``params`` at ``β = 1``; works inside jit.

    Args:
      key: A typed key.
      loss_fn: ``loss_fn(params, batch)``: negative log likelihoods in nats, ``(B,)`` or ``(B, T)``; their mean alone
        has no fluctuation to measure.
      params: The centre ``w*``.
      data: All examples, leading axis ``n``.
      gamma: Localisation strength; default ``1e-4 n / log n``.
      restriction: Free directions; default all.
      chains, draws, leapfrogs: As for ``flow``.

    Returns:
      The criterion; errors by leaving out one chain at a time.

    Raises:
      ValueError: the loss is a mean; more than 4096 free parameters, of which no positions are kept; arguments out of
        range.

    Not to be believed as the generalisation of other basins than this one, nor where single examples decide
    (``V_i`` above about 0.4 for many i).

    Source: Watanabe 2010, arXiv:1004.2316 (WAIC and its equations of state).

    >>> inputs = jax.random.normal(jax.random.key(0), (50,))
    >>> loss_fn = lambda w, x: 0.5 * (w - x) ** 2
    >>> found = waic(jax.random.key(1), loss_fn, inputs.mean(), inputs, draws=300)
    >>> bool(abs(found.singular_fluctuation - 0.5 * inputs.var()) < 0.1)
    True
    """
    check_key(key)
    check_size(chains=chains, draws=draws, leapfrogs=leapfrogs)
    if loss.check(loss_fn, params, data) == ():
        raise ValueError("loss_fn: returns a mean, of shape (); return one loss for each example, of shape (B,).")
    count = loss.example_count(data)
    nbeta = None if gamma is None else float(count)
    posterior = localise(loss_fn, params, data, nbeta=nbeta, gamma=gamma, restriction=restriction)
    free = dimension(posterior)
    size = size_for(free, chains, draws, leapfrogs)
    nbetas = count * 2.0 ** -jnp.arange(_RUNGS - 1, -1, -1, dtype=posterior.nbeta.dtype)
    ladder = measure(key, posterior, data, nbetas, size)
    if not jax.tree.leaves(ladder.record.positions):
        raise ValueError(f"params: has {free} free parameters; positions are kept up to 4096. Restrict them.")
    ok = read_flow(ladder._replace(evaluations=0)).ok[-1]
    positions = jax.tree.map(lambda leaf: leaf[-1], ladder.record.positions)
    return _criterion(posterior, data, positions, ok)


@jax.jit
def _criterion(posterior: LocalPosterior, data: PyTree, positions: PyTree, ok: Array) -> InformationCriterion:
    """From positions ``(chain, part, ...)``."""
    chains, parts = jax.tree.leaves(positions)[0].shape[:2]

    def of_chain(positions: PyTree) -> tuple[Array, Array, Array]:
        def add(sums: tuple[Array, Array, Array], z: PyTree) -> tuple[tuple[Array, Array, Array], None]:
            params = posterior.restriction.lift(posterior.center, z)
            # relative to the centre: a variance of what is nearly the same must not drown in it
            apart = loss.per_example(posterior.loss_fn(params, data)) - posterior.center_losses
            return (sums[0] + apart, sums[1] + apart**2, jnp.logaddexp(sums[2], -apart)), None

        zero = jnp.zeros_like(posterior.center_losses)
        return jax.lax.scan(add, (zero, zero, zero - jnp.inf), positions)[0]

    sums = jax.lax.map(of_chain, positions)
    whole = _numbers(posterior, sums, parts, jnp.ones(chains))
    without = jax.vmap(partial(_numbers, posterior, sums, parts))(1.0 - jnp.eye(chains))
    errors = [jnp.sqrt((chains - 1) / chains * jnp.sum((one - jnp.mean(one)) ** 2)) for one in without]
    value, training, variance = whole
    return InformationCriterion(value, errors[0], training, variance, 0.5 * variance, 0.5 * errors[2], ok)


def _numbers(
    posterior: LocalPosterior, sums: tuple[Array, Array, Array], parts: int, used: Array
) -> tuple[Array, Array, Array]:
    """WAIC, T and V from the chains used, a weight for each."""
    total = parts * jnp.sum(used)
    weights = used[:, None].astype(sums[0].dtype)
    mean, square = jnp.sum(weights * sums[0], axis=0) / total, jnp.sum(weights * sums[1], axis=0) / total
    predictive = logsumexp(jnp.where(weights > 0, sums[2], -jnp.inf), axis=0) - jnp.log(total)
    variance = jnp.sum(square - mean**2) * total / (total - 1)
    training = jnp.mean(posterior.center_losses) - jnp.mean(predictive)
    return training + variance / posterior.n, training, variance
