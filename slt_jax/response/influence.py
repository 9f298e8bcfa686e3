"""Bayesian influence functions and the loss kernel: how the losses of single examples move together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import loss
from slt_jax.estimators import Health
from slt_jax.posterior import dimension, localise
from slt_jax.response.chain import schedule_for, sound, verdict, watch
from slt_jax.response.covariance import Pairs, centred, pairs
from slt_jax.response.observables import Looked, losses_at, placed
from slt_jax.restriction import Restriction
from slt_jax.samplers import Sampler
from slt_jax.tree import check_key, is_traced
from slt_jax.types import Array, Key, LossFn, PyTree, Scalar

#: Indices of entries, each below ``n`` or, of tokens, below ``n · T``.
Index = Sequence[int] | np.ndarray | Array


class Neighbours(NamedTuple):
    """The examples whose losses go with a query, the closest first; leaves of shape ``(k,)``.

    Attributes:
      entries: Which entries of the data.
      pairs: Their covariances with the query, with errors.
    """

    entries: Array
    pairs: Pairs


class Influence(NamedTuple):
    """Losses of every example along the chains; covariances follow where they are asked for, and never n × n unasked.

    An entry is an example, or a token of one: tokens are counted along the rows, entry ``i T + t``.

    Attributes:
      losses: Losses less their mean over their own chain, nats, shape ``(chain, draw, n)`` or ``(chain, draw, n, T)``.
      queries: The same of the queries, ``(chain, draw, m)`` or ``(chain, draw, m, T)``; None where they are the data.
      nbeta: The inverse temperature.
      ess: Effective draws that nine in ten of the losses have at least, shape ``()``.
      health: The verdict that ``llc`` would give on these draws.
    """

    losses: Array
    queries: Array | None
    nbeta: Array
    ess: Array
    health: Health

    @property
    def ok(self) -> Array:
        """Whether the chains are to be believed: boolean, shape ``()``."""
        return sound(self.health, self.ess)

    def covariance(self, rows: Index | None = None, columns: Index | None = None) -> Pairs:
        """``Cov(ℓ_i, φ_q)`` of entries of the data with queries, nats²; the influence is minus this.

        Args:
          rows: Entries of the data, shape ``(r,)``; default all.
          columns: Queries, shape ``(c,)``; default all. With both left out, and the data as queries, n × n is formed.

        Returns:
          Pairs of shape ``(r, c)``.

        Raises:
          ValueError: an index is out of range.
        """
        left, right = _flat(self.losses), _flat(self.losses if self.queries is None else self.queries)
        return pairs(_taken("rows", left, rows), _taken("columns", right, columns))

    def column(self, query: int | Array) -> Pairs:
        """``Cov(ℓ_i, φ_q)`` of every entry of the data with one query, leaves of shape ``(n,)`` or ``(n T,)``."""
        found = self.covariance(columns=jnp.asarray(query)[None])
        return jax.tree.map(lambda leaf: leaf[:, 0], found)

    def bif(self, rows: Index | None = None, columns: Index | None = None) -> Array:
        """The Bayesian influence function ``-Cov(ℓ_i, φ_q)``, nats², shape ``(r, c)``; errors are in ``covariance``."""
        return -self.covariance(rows, columns).covariance

    def top(self, query: int | Array, k: int = 10) -> Neighbours:
        """The ``k`` entries of the data of largest correlation with a query, itself left out where it is one of them.

        Args:
          query: Which query.
          k: How many; a whole number of Python's.

        Raises:
          ValueError: there are not so many others, or the query is out of range.
        """
        found = self.column(query)
        own = self.queries is None
        most = found.correlation.shape[0] - own
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= most:
            raise ValueError(f"k: got {k!r} with {most} other entries; pass an integer between 1 and {most}.")
        ranked = found.correlation
        if own:
            ranked = ranked.at[query].set(-jnp.inf)
        entries = jax.lax.top_k(ranked, k)[1]
        return Neighbours(entries, jax.tree.map(lambda leaf: leaf[entries], found))

    def place(self, entry: Index) -> tuple[Array, ...]:
        """Where entries of the data are: ``(example,)``, or ``(example, token)``, each of the shape of ``entry``."""
        return jnp.unravel_index(jnp.asarray(entry), self.losses.shape[2:])

    def unflatten(self, values: Array) -> Array:
        """From ``(n T, ...)`` back to ``(n, T, ...)``; of examples without tokens as it is."""
        return values.reshape(*self.losses.shape[2:], *values.shape[1:])

    def explain(self) -> str:
        """What was measured and whether to believe it, in words (host only)."""
        if np.ndim(self.nbeta):
            raise ValueError(f"explain: got influences of shape {np.shape(self.nbeta)}; index one of them first.")
        chains, draws, *shape = self.losses.shape
        queries = shape if self.queries is None else self.queries.shape[2:]
        size = f"{' × '.join(map(str, shape))} losses with {' × '.join(map(str, queries))} queries"
        drawn = f"{size} at nβ = {float(self.nbeta):.4g}, {draws} draws of {chains} chains."
        return f"{drawn} {verdict(self.health, self.ess)}"


def influence(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    queries: PyTree | None = None,
    *,
    query_loss_fn: LossFn | None = None,
    restriction: Restriction | None = None,
    nbeta: Scalar | None = None,
    gamma: Scalar | None = None,
    sampler: Sampler | None = None,
    chains: int | None = None,
    draws: int | None = None,
    burnin: int | None = None,
    thin: int | None = None,
    batch_size: int | None = None,
) -> Influence:
    """Bayesian influence functions ``BIF(i, q) = -Cov(ℓ_i, φ_q)`` over the localised posterior, with their errors.

    To count example i a little more, ``nβ L → nβ L + δ ℓ_i``, changes the mean of ``φ_q`` by ``δ BIF(i, q)``. Without
    queries it is the loss kernel ``Cov(ℓ_i, ℓ_j)``: large where two examples rest on the same directions. Works inside
    ``jax.jit`` and under ``jax.vmap`` over centres.

    Args:
      key: A typed key.
      loss_fn: ``loss_fn(params, batch)``: losses in nats, ``(B,)`` or ``(B, T)``; of tokens, each has its influence.
      params: The centre ``w*``; no minimum has to be there.
      data: All examples, leading axis ``n``.
      queries: Examples that are asked about, leading axis ``m``; default the data themselves.
      query_loss_fn: Their ``φ(params, queries)``, ``(m,)`` or ``(m, T)``; default ``loss_fn``.
      restriction: Free directions; default all.
      nbeta: ``nβ``; default ``n / log n``.
      gamma: Localisation strength; default ``1e-4 nβ``.
      sampler: Run as it is; default the one that ``calibrate`` finds.
      chains: Default as for ``llc``: 16, 8 or 4, by the number of free parameters.
      draws, burnin, thin: Recorded draws of each chain, steps before them, steps from draw to draw; default 500, 2000,
        8. ``chains · draws · (n + m)`` losses are kept. Where neither draws nor burnin are given, chains on the host
        that are not sound go on, up to seven times as long, with draws further apart.
      batch_size: Examples of a step; default all. Losses are always looked at on all of the data.

    Returns:
      An ``Influence``, whose pure functions give what is asked for: ``column(q)``, ``top(q, k)``,
      ``covariance(rows, columns)``.

    Raises:
      ValueError: before compilation, naming the argument, what was got and what to do.

    Not to be believed where ``ok`` is false; as the change of a single trained network, which is a draw and not a mean;
    beyond first order. Directions with ``nβ h`` below γ count for what γ lets them, and often for most of the kernel.

    Source: Kreer et al. 2025, arXiv:2509.26544 (the Bayesian influence function, and its classical limit
    ``-∇ℓ_i H⁻¹ ∇φ_q / nβ``); Adam et al. 2025, arXiv:2509.26537 (the loss kernel).

    >>> import jax, jax.numpy as jnp
    >>> from slt_jax.samplers import underdamped
    >>> data = jnp.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]] * 5)
    >>> loss_fn = lambda w, x: 0.5 * (x @ w) ** 2
    >>> found = influence(jax.random.key(0), loss_fn, jnp.zeros(2), data, sampler=underdamped(0.2), draws=100)
    >>> sorted(int(i) % 4 for i in found.top(0, 9).entries)
    [0, 0, 0, 0, 1, 1, 1, 1, 1]
    """
    check_key(key)
    shape = _check_losses("loss_fn", loss_fn, params, data)
    if query_loss_fn is not None and queries is None:
        queries = data
    asked = loss_fn if query_loss_fn is None else query_loss_fn
    if queries is not None:
        _check_losses("query_loss_fn" if query_loss_fn is not None else "queries", asked, params, queries)
    posterior = localise(loss_fn, params, data, nbeta, gamma, restriction)
    sizes = dict(chains=chains, draws=draws, burnin=burnin, thin=thin, batch_size=batch_size)
    schedule = schedule_for(dimension(posterior), shape[0], sampler, **sizes)
    fixed = draws is not None or burnin is not None
    sets = [(posterior.loss_fn, data)]
    if queries is not None:
        sets.append((posterior.loss_fn if query_loss_fn is None else Partial(query_loss_fn), queries))
    watched = watch(
        key,
        posterior,
        data,
        Partial(_look, [placed(*one, posterior.center, schedule.chains) for one in sets]),
        schedule,
        sampler,
        fixed=fixed,
    )
    losses = [centred(seen) for seen in watched.observed]
    return Influence(
        losses[0], losses[1] if queries is not None else None, posterior.nbeta, watched.ess, watched.health
    )


def _look(sets: list[Looked], params: PyTree) -> list[Array]:
    return [losses_at(looked, params) for looked in sets]


def _check_losses(name: str, loss_fn: LossFn, params: PyTree, data: PyTree) -> tuple[int, ...]:
    try:
        shape = loss.check(loss_fn, params, data)
    except ValueError as error:
        if name == "loss_fn":
            raise
        raise ValueError(f"{name}: of the queries, {error}") from error
    if shape == ():
        raise ValueError(f"{name}: got a mean loss of shape (); return one loss per example, shape (n,) or (n, T).")
    return shape


def _flat(series: Array) -> Array:
    return series.reshape(*series.shape[:2], -1)


def _taken(name: str, series: Array, index: Index | None) -> Array:
    if index is None:
        return series
    chosen: Any = index if is_traced(index) else np.asarray(index)
    count = series.shape[-1]
    if np.ndim(chosen) != 1 or not jnp.issubdtype(chosen.dtype, jnp.integer):
        raise ValueError(f"{name}: got {index!r}; pass a list of whole numbers below {count}.")
    if not is_traced(chosen) and not ((chosen >= 0) & (chosen < count)).all():
        raise ValueError(f"{name}: got {chosen.tolist()} of {count}; indices must lie between 0 and {count - 1}.")
    return series[:, :, chosen]
