"""The flow of the learning coefficient with temperature: λ, heat capacity and contact at every rung of a ladder."""

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import tree
from slt_jax.estimators import BUDGET, check_budget
from slt_jax.ladder.groups import group_names
from slt_jax.ladder.measure import (
    Ladder,
    check_size,
    double_precision,
    measure,
    needs_double,
    on_host,
    size_for,
)
from slt_jax.ladder.reading import Flow, read_flow
from slt_jax.posterior import LocalPosterior, dimension, localise
from slt_jax.restriction import Restriction
from slt_jax.tree import check_key
from slt_jax.types import Array, Key, LossFn, PyTree, Scalar

#: Rungs where nothing was said: from the ``nβ`` of ``llc`` up to 256 times hotter.
_RUNGS, _SPAN = 9, 256.0


def flow(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    *,
    nbetas: Array | None = None,
    gamma: Scalar | None = None,
    restriction: Restriction | None = None,
    chains: int | None = None,
    draws: int | None = None,
    leapfrogs: int | None = None,
    budget: int | None = None,
    relative_error: float = 0.01,
) -> Flow:
    """λ_eff(nβ), its heat capacity and its velocity over a ladder of temperatures: the learning coefficient by scale.

    A replica on each rung moves by Hamiltonian trajectories with a Metropolis test, its step drawn between what the
    stiffest and the softest of the places met allow, and changes places with its neighbours. γ is one for all rungs:
    it is the prior, and ``dλ_eff / d log β = λ_eff - C`` holds exactly between them. Chains descend from the hottest
    rung. All of the data are used at each step. Works inside ``jax.jit`` (with ``nbetas`` of a known length) and under
    ``jax.vmap``; on the host, temperatures beyond ``nβ = 1e6`` are measured in double precision.

    Args:
      key: A typed key.
      loss_fn: ``loss_fn(params, batch)``: losses in nats, ``(B,)``, ``(B, T)`` or ``()``.
      params: The centre ``w*``.
      data: All examples, leading axis ``n``.
      nbetas: Inverse temperatures, shape ``(rung,)``, in any order; default nine, from ``n / log n`` down by factors of
        two. Replicas change places where neighbours differ by no more than a factor of about ``1 + 2 / √λ``; a single
        rung does without.
      gamma: γ; default ``1e-4 n / log n``, as for ``llc``.
      restriction: Free directions; default all.
      chains: Replicas on each rung, at least 2; default 32 up to 64 free parameters, 16 up to 1024, else 8.
      draws: Draws of each replica that count, after a third as many that do not; then the length is fixed, unless a
        budget is given too. Default 1200 up to 64 free parameters, else 300, and more where the error asks for it.
      leapfrogs: Gradients of a short trajectory, a few being 4 and 16 times as long; default 2 up to 4 free parameters,
        3, 6 and 12 beyond 4, 16 and 64.
      budget: Gradients that each replica may take on the host; default 20 000 where the length is not fixed.
      relative_error: Standard error over value to be reached on every rung within the budget.

    Returns:
      A flow.

    Raises:
      ValueError: before compilation, naming the argument, what was got and what to do.

    Not to be believed where ``ok`` is False. λ_eff at one temperature is λ only at a plateau (``plateaus``). A flow
    without exchanges (λ above about 30 at factors of two) is a set of single temperatures, and each is as good as its
    own chains. What ``gamma`` confines it also hides: directions with ``nβ h`` below γ.

    Source: the fluctuation identity ``∂E_β[K]/∂β = -Var_β(K)``; replicas: Swendsen & Wang 1986,
    doi:10.1103/PhysRevLett.57.2607; λ as a response to the temperature: Watanabe 2013, arXiv:1208.6338.

    >>> import jax, jax.numpy as jnp
    >>> quadratic = lambda w, _: 0.5 * jnp.sum(w**2)
    >>> nbetas = jnp.array([1e3, 1e4])
    >>> measured = flow(jax.random.key(0), quadratic, jnp.zeros(2), jnp.zeros((100, 0)), nbetas=nbetas, draws=300)
    >>> bool((abs(measured.value - 1.0) < 4 * measured.std_error + 2e-3).all()), measured.groups
    (True, ('params[0]', 'params[1]'))
    """
    return flow_and_ladder(
        key,
        loss_fn,
        params,
        data,
        nbetas=nbetas,
        gamma=gamma,
        restriction=restriction,
        chains=chains,
        draws=draws,
        leapfrogs=leapfrogs,
        budget=budget,
        relative_error=relative_error,
    )[0]


def flow_and_ladder(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    *,
    nbetas: Array | None,
    gamma: Scalar | None,
    restriction: Restriction | None,
    chains: int | None,
    draws: int | None,
    leapfrogs: int | None,
    budget: int | None,
    relative_error: float = 0.01,
) -> tuple[Flow, Ladder]:
    """``flow``, and the ladder it was read from, whose rungs go from hot to cold."""
    check_key(key)
    check_size(chains=chains, draws=draws, leapfrogs=leapfrogs)
    check_budget(budget, relative_error)
    budget = (0 if draws is not None else BUDGET) if budget is None else budget
    nbetas = _checked(nbetas)
    wide = nbetas is not None and needs_double(nbetas) and not tree.is_traced((key, params, data, gamma))
    with double_precision(wide):
        params, data = tree.as_double((params, data)) if wide else (params, data)
        reference = localise(loss_fn, params, data, gamma=gamma, restriction=restriction)
        posterior = reference if nbetas is None else reference._replace(nbeta=jnp.max(jnp.asarray(nbetas)))
        ladder_nbetas = _default(posterior) if nbetas is None else jnp.asarray(nbetas)
        size = size_for(dimension(posterior), chains, draws, leapfrogs)
        order = jnp.argsort(ladder_nbetas)
        ladder = measure(key, posterior, data, ladder_nbetas[order], size, budget=budget, relative_error=relative_error)
        measured = read_flow(ladder._replace(evaluations=0))
        back = jnp.argsort(order)
        measured = on_host(jax.tree.map(lambda leaf: leaf[back], measured._replace(groups=(), evaluations=())))
    origin = jax.eval_shape(posterior.restriction.origin, posterior.center)
    return measured._replace(groups=tuple(group_names(origin)), evaluations=ladder.evaluations), ladder


def _checked(nbetas: Array | None) -> Array | None:
    """Temperatures as numbers of the host where they are not traced."""
    if nbetas is None:
        return None
    if np.ndim(nbetas) != 1 or np.shape(nbetas)[0] == 0:
        raise ValueError(f"nbetas: got shape {np.shape(nbetas)}; pass a list of at least one temperature.")
    if tree.is_traced(nbetas):
        return nbetas
    given = np.asarray(nbetas, np.float64)
    if not (np.isfinite(given).all() and (given > 0).all()):
        raise ValueError(f"nbetas: got {given.tolist()}; all must be finite and positive.")
    if len(set(given.tolist())) < len(given):
        raise ValueError(f"nbetas: got {given.tolist()}; two rungs are the same. Give each once.")
    return given  # type: ignore[return-value]


def _default(posterior: LocalPosterior) -> Array:
    return posterior.nbeta * jnp.geomspace(1.0, 1 / _SPAN, _RUNGS, dtype=posterior.nbeta.dtype)
