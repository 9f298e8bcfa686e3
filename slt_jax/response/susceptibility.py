"""Susceptibilities: how the loss within each component responds to a change of the distribution of the data."""

from collections.abc import Mapping
from typing import Any

import jax

from slt_jax import loss, tree
from slt_jax import restriction as restrictions
from slt_jax.posterior import dimension, localise
from slt_jax.response.chain import schedule_for
from slt_jax.response.measure import Sizes, chains_of, free_chains, measure_all
from slt_jax.response.observables import as_partial, check_observables, observed
from slt_jax.response.outcome import AgainstFree, Susceptibility
from slt_jax.restriction import Restriction, check_together, together_by_default
from slt_jax.samplers import Sampler
from slt_jax.types import Key, LossFn, PyTree, Scalar

#: Components from which on one more chain, in which everything moves, is a small part of the cost.
_MANY = 8
#: Numbers of keys that no component has.
_FREE_KEY, _BATCH_KEY = 2**32 - 1, 2**32 - 2


def susceptibility(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    components: Mapping[str, Restriction],
    observables: Mapping[str, Any],
    *,
    nbeta: Scalar | None = None,
    gamma: Scalar | None = None,
    sampler: Sampler | None = None,
    chains: int | None = None,
    draws: int | None = None,
    burnin: int | None = None,
    thin: int | None = None,
    batch_size: int | None = None,
    controls: bool = True,
    free: bool | None = None,
    together: int | None = None,
) -> Susceptibility:
    """How the loss within each component responds when the data change: ``χ = (1/nβ) d⟨L - L*⟩/dh = -Cov[L, L' - L]``.

    ``q_h = (1 - h) q + h q'`` replaces a share of the data ``q`` by others ``q'``, on which the loss is ``L'``. Each
    component has a chain in which only it moves: there ``L - L*`` is its observable. χ is negative where the change
    makes the component's directions stiffer, positive where it moves or loosens them. Components of one shape share
    their compiled programs, and on batches all chains see the same ones, step by step.

    With ``free`` chains, in which everything moves, χ comes in a second form: the observable of a component is then
    ``φ_C = δ(u - u*) (L - L*)`` in the posterior of the whole network, ``u`` being all other parameters:
    ``-(E_C[φ Δ] - E_C[φ] E[Δ])`` with ``Δ = L' - L``, but for the weight of the slice ``u = u*``, one factor of a whole
    row, which no chain can tell. It differs from the first by ``-E_C[φ] (E_C[Δ] - E[Δ])``, which is what all other
    parameters do to the loss on the changed data. The two agree where the mean of Δ does not depend on what is free;
    the first alone is a derivative of ``E_C[L - L*]``.

    Args:
      key: A typed key.
      loss_fn: ``loss_fn(params, batch)``: losses in nats, ``(B,)``, ``(B, T)`` or ``()``.
      params: The centre ``w*``.
      data: All examples of ``q``, leading axis ``n``.
      components: By name, which directions are free (``slt_jax.restriction``).
      observables: By name, the data of each ``q'``, for the same loss; or a pair ``(loss_fn, data)``; or either within
        ``slt_jax.response.each(...)``: every example, or token of an example, is a ``q'`` then.
      nbeta: ``nβ``; default ``n / log n``.
      gamma: Localisation strength; default ``1e-4 nβ``.
      sampler: Run as it is; default the one that ``calibrate`` finds, for each component.
      chains: For each component; default as for ``llc``, by the largest of them.
      draws, burnin, thin: Recorded draws of each chain, steps before them, steps from draw to draw; default 500, 2000,
        8; on the host chains go on as those of ``influence`` do.
      batch_size: Examples of a step; default all. Losses are always looked at on all examples.
      controls: Whether to take the same covariances over the prior and over a Gaussian, from as many draws.
      free: Whether to run free chains too. Default from eight components on, where they cost little beside them.
      together: How many components of one shape, such as the heads of a layer, are run side by side in one program.
        Default 1 on CPU, where one after the other is faster, and 8 elsewhere. The keys are the same and so is the law;
        rounding is not. Those that are not sound after the first length go on by themselves.

    Returns:
      A ``Susceptibility``; its ``respond(h)`` is the finite response, by reweighting, ``of(name)`` the columns of one
      observable. Memory: about a hundred numbers for each entry, for each component that is run side by side, and eight
      for each component in the end; the forward pass goes in pieces of bounded memory.

    Raises:
      ValueError: before compilation, naming the argument, what was got and what to do.

    Not to be believed where ``ok`` is false; where the standardised χ is that of ``prior``, which knows no posterior;
    as more than second moments where it is that of ``gaussian``. Magnitudes of components of different size are not to
    be compared before they are standardised. χ is a derivative: ``respond`` tells how far it reaches.

    Source: Baker et al. 2025, arXiv:2504.18274 (the susceptibility, its second form, and a chain restricted to the
    component).

    >>> import jax, jax.numpy as jnp
    >>> import slt_jax as slt
    >>> data = jnp.concatenate([jnp.eye(2)] * 10)
    >>> parts = {name: slt.restriction.mask(jnp.zeros(2), jnp.arange(2) == at) for at, name in enumerate("ab")}
    >>> found = susceptibility(
    ...     jax.random.key(0), lambda w, x: 0.5 * (x @ w) ** 2, jnp.zeros(2), data, parts,
    ...     {"more of a": data * jnp.array([[2.0, 1.0]]), "one": slt.response.each(data[:2])},
    ...     sampler=slt.samplers.underdamped(0.2), draws=100,
    ... )
    >>> bool(found.value[0, 0] < 0), bool(abs(found.value[1, 0]) < 1e-8)
    (True, True)
    >>> finite = found.respond(0.1)  # a tenth of the examples replaced: less than the linear one
    >>> bool(finite.linear[0, 0] < finite.value[0, 0] < 0), bool(finite.ok[0, 0])
    (True, True)
    >>> jnp.sign(found.of("one")).tolist(), found.column_name(2)  # the first example stiffens a, the second b
    ([[-1.0, 1.0], [1.0, -1.0]], 'one[1]')
    """
    tree.check_key(key)
    _check_names("components", components, "restrictions", "slt_jax.restriction.heads(params)")
    _check_names("observables", observables, "data", "{'name': data}")
    check_together(together)
    others = check_observables(observables, loss_fn, params)
    posterior = localise(loss_fn, params, data, nbeta, gamma, next(iter(components.values())))
    for one in components.values():
        restrictions.check(one, params)
    if controls and not tree.is_traced(posterior.gamma) and not float(posterior.gamma) > 0:
        raise ValueError("gamma: got 0; the control at nβ = 0 needs a prior. Pass a gamma above 0, or controls=False.")
    size = max(dimension(posterior._replace(restriction=one)) for one in components.values())
    lengths = dict(chains=chains, draws=draws, burnin=burnin, thin=thin, batch_size=batch_size)
    schedule = schedule_for(size, loss.example_count(data), sampler, **lengths)
    together = together_by_default() if together is None else together
    same = posterior.loss_fn
    owned = [(same if one[0] is loss_fn else as_partial(one[0]), *one[1:]) for one in others]
    found = observed(same, data, owned, posterior.center, schedule.chains * min(together, len(components)))
    batch_key = jax.random.fold_in(key, _BATCH_KEY)
    common = chains_of(posterior, data, found, sampler, batch_key, schedule.draws)
    sizes = Sizes(schedule, found.columns, draws is not None or burnin is not None, controls)
    sums = ess = health = None
    if free or (free is None and len(components) >= _MANY):
        sums, ess, health = free_chains(jax.random.fold_in(key, _FREE_KEY), common, restrictions.full(), sizes)
    keys = [jax.random.fold_in(key, number) for number in range(len(components))]
    every = measure_all(keys, common, components, sums, sizes, together)
    beside = None
    if every.against is not None and ess is not None and health is not None:
        beside = AgainstFree(-every.against[0], every.against[1], ess, health)
    return Susceptibility(
        components=tuple(components),
        observables=tuple(observables),
        value=-every.posterior.covariance,
        std_error=every.posterior.std_error,
        posterior=every.posterior,
        prior=every.prior,
        gaussian=every.gaussian,
        energies=every.energies,
        changes=every.changes,
        nbeta=posterior.nbeta,
        ess=every.ess,
        health=every.health,
        shapes=found.shapes,
        against_free=beside,
    )


def _check_names(name: str, given: Any, what: str, example: str) -> None:
    if not isinstance(given, Mapping) or not given or not all(isinstance(key, str) for key in given):
        got = f"a {type(given).__name__}" if not isinstance(given, Mapping) else f"the keys {list(given)}"
        raise ValueError(f"{name}: got {got}; pass {what} by name, at least one, as in {example}.")
