"""Susceptibilities: how the loss within each component responds to a change of the distribution of the data."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import loss
from slt_jax.estimators import Health
from slt_jax.posterior import LocalPosterior, dimension, localise
from slt_jax.response.chain import losses_at, placed, schedule_for, sound, verdict, watch
from slt_jax.response.controls import gaussian_draws, prior_moments
from slt_jax.response.covariance import Pairs, pairs
from slt_jax.response.reweighted import Response, reweighted
from slt_jax.restriction import Restriction
from slt_jax.samplers import Sampler
from slt_jax.tree import check_key, is_traced
from slt_jax.types import Array, Key, LossFn, PyTree, Scalar


class Susceptibility(NamedTuple):
    """χ of every component under every change of the data; the axes are ``(component, observable)``.

    Attributes:
      components: Their names.
      observables: Their names.
      value: ``χ = -Cov[L, L' - L]`` in the chain that is restricted to the component, nats².
      std_error: Its Monte Carlo standard error.
      posterior: The covariances, with correlations: χ is minus these.
      prior: The same at ``nβ = 0``, over ``N(0, 1/γ)`` alone; None without controls.
      gaussian: The same over independent normal entries with the means and variances of the chain; or None.
      energies: ``L - L*`` at each draw, nats, shape ``(component, chain, draw)``.
      changes: ``L' - L``, less its value at the centre, nats, shape ``(component, chain, draw, observable)``.
      nbeta: The inverse temperature, shape ``()``.
      ess: Effective draws of the losses, shape ``(component,)``.
      health: The verdicts on the chains; leaves of shape ``(component,)``.
    """

    components: tuple[str, ...]
    observables: tuple[str, ...]
    value: Array
    std_error: Array
    posterior: Pairs
    prior: Pairs | None
    gaussian: Pairs | None
    energies: Array
    changes: Array
    nbeta: Array
    ess: Array
    health: Health

    @property
    def ok(self) -> Array:
        """Whether the chains are to be believed: boolean, shape ``(component,)``."""
        return sound(self.health, self.ess)

    @property
    def standardised(self) -> Array:
        """Minus the correlations: χ in units in which components of any size can be compared."""
        return -self.posterior.correlation

    def respond(self, h: Scalar) -> Response:
        """The change of ``⟨L⟩`` when a share ``h`` of the data is replaced: by reweighting, and by χ.

        Args:
          h: The share, of ``q_h = (1 - h) q + h q'``.

        Returns:
          A response of shape ``(component, observable)``. It is not to be believed where its ``ok`` is false: there
          too few draws lie where the changed posterior does.
        """
        strength = self.nbeta * h
        found = [reweighted(*one, strength) for one in zip(self.energies, self.changes, strict=True)]
        value, error, share = (jnp.stack(leaves) for leaves in zip(*found, strict=True))
        return Response(value, error, strength * self.value, share * self.ess[:, None])

    def explain(self) -> str:
        """What was measured and whether to believe it, in words (host only)."""
        if np.ndim(self.nbeta):
            raise ValueError(f"explain: got those of shape {np.shape(self.nbeta)}; index one of them first.")
        lines = [f"χ = -Cov[L, L' - L] at nβ = {float(self.nbeta):.4g}, nats²."]
        for row, name in enumerate(self.components):
            numbers = ", ".join(
                f"{observable} {float(self.value[row, at]):.3g} ± {float(self.std_error[row, at]):.2g}"
                for at, observable in enumerate(self.observables)
            )
            health, ess = jax.tree.map(lambda leaf, row=row: leaf[row], (self.health, self.ess))
            lines.append(f"{name}: {numbers}. {verdict(health, ess)}")
        return "\n".join(lines)


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
) -> Susceptibility:
    """How the loss within each component responds when the data change: ``χ = (1/nβ) d⟨L - L*⟩/dh = -Cov[L, L' - L]``.

    ``q_h = (1 - h) q + h q'`` replaces a share of the data ``q`` by others ``q'``, on which the loss is ``L'``. Each
    component has a chain in which only it moves: there ``L - L*`` is its observable. χ is negative where the change
    makes the component's directions stiffer, positive where it moves or loosens them. Components of one shape share
    their compiled programs.

    Args:
      key: A typed key.
      loss_fn: ``loss_fn(params, batch)``: losses in nats, ``(B,)``, ``(B, T)`` or ``()``.
      params: The centre ``w*``.
      data: All examples of ``q``, leading axis ``n``.
      components: By name, which directions are free (``slt_jax.restriction``).
      observables: By name, the data of each ``q'``, for the same loss; or a pair ``(loss_fn, data)``.
      nbeta: ``nβ``; default ``n / log n``.
      gamma: Localisation strength; default ``1e-4 nβ``.
      sampler: Run as it is; default the one that ``calibrate`` finds, for each component.
      chains: For each component; default as for ``llc``, by the largest of them.
      draws, burnin, thin: Recorded draws of each chain, steps before them, steps from draw to draw; default 500, 2000,
        8; on the host chains go on as those of ``influence`` do.
      batch_size: Examples of a step; default all. Losses are always looked at on all examples.
      controls: Whether to take the same covariances over the prior and over a Gaussian, from as many draws.

    Returns:
      A ``Susceptibility``; its ``respond(h)`` is the finite response, by reweighting.

    Raises:
      ValueError: before compilation, naming the argument, what was got and what to do.

    Not to be believed where ``ok`` is false; where the standardised χ is that of ``prior``, which knows no posterior;
    as more than second moments where it is that of ``gaussian``. Magnitudes of components of different size are not to
    be compared before they are standardised. χ is a derivative: ``respond`` tells how far it reaches.

    Source: Baker et al. 2025, arXiv:2504.18274 (the susceptibility, and a chain restricted to the component).

    >>> import jax, jax.numpy as jnp
    >>> import slt_jax as slt
    >>> data = jnp.concatenate([jnp.eye(2)] * 10)
    >>> parts = {name: slt.restriction.mask(jnp.zeros(2), jnp.arange(2) == at) for at, name in enumerate("ab")}
    >>> found = susceptibility(
    ...     jax.random.key(0), lambda w, x: 0.5 * (x @ w) ** 2, jnp.zeros(2), data, parts,
    ...     {"more of a": data * jnp.array([[2.0, 1.0]])}, sampler=slt.samplers.underdamped(0.2), draws=100,
    ... )
    >>> bool(found.value[0, 0] < 0), bool(abs(found.value[1, 0]) < 1e-8)
    (True, True)
    >>> finite = found.respond(0.1)  # a tenth of the examples replaced: less than the linear one
    >>> bool(finite.linear[0, 0] < finite.value[0, 0] < 0), bool(finite.ok[0, 0])
    (True, True)
    """
    check_key(key)
    _check_names("components", components, "restrictions", "slt_jax.restriction.heads(params)")
    _check_names("observables", observables, "data", "{'name': data}")
    others = {name: _pair(name, one, loss_fn) for name, one in observables.items()}
    for name, (other_loss, other_data) in others.items():
        _check_observable(name, other_loss, params, other_data)
    posteriors = [localise(loss_fn, params, data, nbeta, gamma, one) for one in components.values()]
    gamma_used = posteriors[0].gamma
    if controls and not is_traced(gamma_used) and not float(gamma_used) > 0:
        raise ValueError("gamma: got 0; the control at nβ = 0 needs a prior. Pass a gamma above 0, or controls=False.")
    count, free = loss.example_count(data), max(dimension(one) for one in posteriors)
    sizes = dict(chains=chains, draws=draws, burnin=burnin, thin=thin, batch_size=batch_size)
    schedule = schedule_for(free, count, sampler, **sizes)
    center = posteriors[0].center
    sets = [placed(posteriors[0].loss_fn, data, center)]
    for other_loss, other_data in others.values():
        function = posteriors[0].loss_fn if other_loss is loss_fn else Partial(other_loss)
        sets.append(placed(function, other_data, center))
    look = Partial(_look, sets)

    def measure(
        key: Key, posterior: LocalPosterior
    ) -> tuple[tuple[Array, Array], tuple[Array, Health], tuple[Pairs, ...]]:
        chain_key, prior_key, gaussian_key = jax.random.split(key, 3)
        seen = watch(chain_key, posterior, data, look, schedule, sampler, fixed=draws is not None or burnin is not None)
        found = [_covariances(*seen.observed)]
        if controls:
            length = schedule.chains, schedule.draws
            prior = prior_moments(posterior)
            found.append(_covariances(*gaussian_draws(prior_key, posterior, look, *prior, *length)))
            same = seen.mean, seen.variance
            found.append(_covariances(*gaussian_draws(gaussian_key, posterior, look, *same, *length)))
        return seen.observed, (seen.ess, seen.health), tuple(found)

    each = [measure(jax.random.fold_in(key, number), one) for number, one in enumerate(posteriors)]
    (energies, changes), (ess, health), found = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    covariances, prior, gaussian = found if controls else (found[0], None, None)
    return Susceptibility(
        components=tuple(components),
        observables=tuple(observables),
        value=-covariances.covariance,
        std_error=covariances.std_error,
        posterior=covariances,
        prior=prior,
        gaussian=gaussian,
        energies=energies,
        changes=changes,
        nbeta=posteriors[0].nbeta,
        ess=ess,
        health=health,
    )


def _look(sets: list[tuple[Partial, PyTree, Array]], params: PyTree) -> tuple[Array, Array]:
    """``L - L*`` and, of every observable, ``(L' - L'*) - (L - L*)``."""
    energy, *others = (jnp.mean(losses_at(loss_fn, data, center, params)) for loss_fn, data, center in sets)
    return energy, jnp.stack(others) - energy


def _covariances(energies: Array, changes: Array) -> Pairs:
    return jax.tree.map(lambda leaf: leaf[0], pairs(energies[..., None], changes))


def _check_names(name: str, given: Any, what: str, example: str) -> None:
    if not isinstance(given, Mapping) or not given or not all(isinstance(key, str) for key in given):
        got = f"a {type(given).__name__}" if not isinstance(given, Mapping) else f"the keys {list(given)}"
        raise ValueError(f"{name}: got {got}; pass {what} by name, at least one, as in {example}.")


def _pair(name: str, given: Any, loss_fn: LossFn) -> tuple[LossFn, PyTree]:
    """A loss and its data; a tuple is such a pair if its first member can be called."""
    if isinstance(given, tuple) and given and callable(given[0]):
        if len(given) != 2:
            raise ValueError(f"observables: {name!r} has {len(given)} members; pass data or a pair (loss_fn, data).")
        return given
    return loss_fn, given


def _check_observable(name: str, loss_fn: LossFn, params: PyTree, data: PyTree) -> None:
    try:
        loss.check(loss_fn, params, data)
    except ValueError as error:
        raise ValueError(f"observables: {name!r}: {error}") from error
