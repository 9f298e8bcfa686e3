"""Guides of numpyro, in coordinates that the curvature at the centre has made round."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax.posterior import Batch, LocalPosterior
from slt_jax.samplers.guides.base import (
    Guide,
    Whitening,
    dense_whitening,
    diagonal_whitening,
    unwhiten,
    whiten,
    zeros,
)
from slt_jax.tree import Static
from slt_jax.types import Array, Key, PyTree


def mean_field() -> Guide:
    """A Gaussian with independent coordinates: ``q(z) = Π N(μ_j, σ_j²)``.

    Returns:
      A guide of ``2 d`` numbers.

    Not to be believed as more than an upper bound where directions are correlated: on a quadratic of precision ``P``
    the best has ``σ_j² = 1 / P_jj``, too narrow, so that ``nβ E[K]`` and with it λ̂ is ``½ Σ nβ H_jj / P_jj``, too
    large, and the bound lies ``½ (Σ log P_jj - log det P)`` above the free energy. At a singularity it stays where the
    loss rises with an even power in all directions at once.

    Source: Kucukelbir et al. 2017, arXiv:1603.00788.

    >>> len(mean_field()) == len(Guide._fields)
    True
    """
    return _guide(_mean_field, diagonal_whitening)


def low_rank(rank: int = 4) -> Guide:
    """A Gaussian whose covariance is diagonal plus one of low rank, ``D (1 + F Fᵀ) D``.

    Args:
      rank: Columns of ``F``, at least 1.

    Returns:
      A guide of ``(rank + 2) d`` numbers.

    Raises:
      ValueError: ``rank`` is not a whole number from 1 up.

    Not to be believed where stiff directions lie across the coordinates: it is the covariance that has low rank, so
    that it is soft directions which it can turn.

    Source: Ong, Nott & Smith 2018, arXiv:1701.03208.
    """
    _check_size("rank", rank)
    return _guide(_low_rank, diagonal_whitening, rank)


def full_rank() -> Guide:
    """A Gaussian of any covariance: exact on a quadratic, from the first step of its fit.

    Returns:
      A guide of ``d (d + 3) / 2`` numbers; its fit begins with the Hessian at the centre, ``d²`` numbers.

    Not to be believed at a singularity: no Gaussian follows a curved valley or the arms of a crossing.

    Source: Kucukelbir et al. 2017, arXiv:1603.00788.
    """
    return _guide(_full_rank, dense_whitening)


def inverse_autoregressive(flows: int = 2, *, hidden: int = 16) -> Guide:
    """A Gaussian sent through inverse autoregressive flows, ``y_i = t_i(y_<i) + exp(s_i(y_<i)) ξ_i``.

    Args:
      flows: How many, the order of the coordinates turned around after each.
      hidden: Units of the one hidden layer of each network; at least the number of free directions is advised.

    Returns:
      A guide of about ``3 flows · hidden · d`` numbers, for two directions and more.

    Raises:
      ValueError: ``flows`` or ``hidden`` is not a whole number from 1 up. From numpyro, when the fit begins: there is
        one free direction, or fewer hidden units than directions less one.

    Not to be believed as exact where it is flexible: the networks are smooth in the coordinates, and the scale of one
    direction as a power of another, as at a singularity, is beyond them far down.

    Source: Kingma et al. 2016, arXiv:1606.04934.
    """
    _check_size("flows", flows)
    _check_size("hidden", hidden)
    # its density at a given point takes d passes: the draw's own is differentiated
    return _guide(_inverse_autoregressive, diagonal_whitening, flows, hidden)._replace(log_density=None)


def _guide(make: Callable, whitening: Callable, *sizes: int) -> Guide:
    # what depends on sizes is static; the functions are of the module, so that two guides made alike are equal
    parts = (Partial(make), Static(sizes))
    return Guide(
        Partial(_init, *parts, Partial(whitening)), Partial(_draw, *parts), Partial(_log_density, *parts), None
    )


def _mean_field(model: Callable, start: Callable) -> Any:
    from numpyro.infer.autoguide import AutoDiagonalNormal

    return AutoDiagonalNormal(model, init_loc_fn=start, init_scale=1.0)


def _low_rank(model: Callable, start: Callable, rank: int) -> Any:
    from numpyro.infer.autoguide import AutoLowRankMultivariateNormal

    return AutoLowRankMultivariateNormal(model, init_loc_fn=start, init_scale=1.0, rank=rank)


def _full_rank(model: Callable, start: Callable) -> Any:
    from numpyro.infer.autoguide import AutoMultivariateNormal

    return AutoMultivariateNormal(model, init_loc_fn=start, init_scale=1.0)


def _inverse_autoregressive(model: Callable, start: Callable, flows: int, hidden: int) -> Any:
    from numpyro.infer.autoguide import AutoIAFNormal

    return AutoIAFNormal(model, init_loc_fn=start, num_flows=flows, hidden_dims=[hidden])


def _prototype(make: Partial, sizes: Static, like: Array) -> Any:
    """numpyro's guide of a flat vector, its sites looked up once, also inside jit."""
    import numpyro
    from numpyro import distributions, handlers
    from numpyro.infer import init_to_value

    with jax.ensure_compile_time_eval():
        origin = jnp.zeros(like.shape, like.dtype)

        def model() -> None:
            numpyro.sample("y", distributions.Normal(origin, jnp.ones_like(origin)).to_event(1))

        guide = make(model, init_to_value(values={"y": origin}), *sizes.value)
        handlers.seed(guide, jax.random.key(0))()
    return guide


def _sites(guide: Any, key: Key) -> dict[str, Any]:
    from numpyro import handlers

    trace = handlers.trace(handlers.seed(guide, key)).get_trace()
    return {name: site for name, site in trace.items() if site["type"] == "param"}


def _bijections(guide: Any) -> dict[str, Any]:
    """From numbers without bounds to each parameter, for those that have bounds."""
    from numpyro.distributions import biject_to

    with jax.ensure_compile_time_eval():
        sites = _sites(guide, jax.random.key(0))
    bounds = {name: site["kwargs"].get("constraint") for name, site in sites.items()}
    return {name: biject_to(bound) for name, bound in bounds.items() if bound is not None}


def _init(
    make: Partial, sizes: Static, whitening: Partial, key: Key, posterior: LocalPosterior, batch: Batch
) -> tuple[PyTree, Whitening]:
    with jax.numpy_rank_promotion("allow"):  # numpyro's own arithmetic
        guide = _prototype(make, sizes, zeros(posterior))
        maps = _bijections(guide)
        values = {name: site["value"] for name, site in _sites(guide, key).items()}
        # at a factor of 0 the gradient of its product with itself is 0: it would stay there
        for name in (name for name in values if name.endswith("cov_factor")):
            values[name] = 0.1 * jax.random.normal(key, values[name].shape, values[name].dtype)
        free = {name: maps[name].inv(value) if name in maps else value for name, value in values.items()}
    free = jax.tree.map(lambda leaf: leaf.astype(posterior.nbeta.dtype), free)
    return free, whitening(posterior, batch)


def _law(make: Partial, sizes: Static, free: PyTree, like: Array) -> Any:
    from numpyro.distributions import TransformedDistribution

    guide = _prototype(make, sizes, like)
    maps = _bijections(guide)
    values = {name: maps[name](value) if name in maps else value for name, value in free.items()}
    return TransformedDistribution(guide.get_base_dist(), guide.get_transform(values))


def _draw(
    make: Partial, sizes: Static, free: PyTree, fixed: Whitening, key: Key, posterior: LocalPosterior, batch: Batch
) -> tuple[Array, Array]:
    del batch
    with jax.numpy_rank_promotion("allow"):
        law = _law(make, sizes, free, zeros(posterior))
        y, between = law.sample_with_intermediates(key)
        density = law.log_prob(y, between)
    z, volume = whiten(fixed, posterior, y)
    return z, density - volume


def _log_density(
    make: Partial, sizes: Static, free: PyTree, fixed: Whitening, z: Array, posterior: LocalPosterior, batch: Batch
) -> Array:
    del batch
    y, volume = unwhiten(fixed, posterior, z)
    with jax.numpy_rank_promotion("allow"):
        return _law(make, sizes, free, zeros(posterior)).log_prob(y) - volume


def _check_size(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: got {value!r}; pass a whole number from 1 up.")
