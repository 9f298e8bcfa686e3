"""Susceptibilities: how the loss within each component responds to a change of the distribution of the data."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import loss, tree
from slt_jax.estimators import Health
from slt_jax.estimators.llc import chains_for
from slt_jax.posterior import LocalPosterior, dimension, localise
from slt_jax.response.chain import complaint, losses_at, schedule_for, sound, watch
from slt_jax.response.controls import gaussian_draws, prior_moments
from slt_jax.response.covariance import Pairs, pairs
from slt_jax.response.reweighted import Response, reweighted
from slt_jax.restriction import Restriction
from slt_jax.samplers import Sampler
from slt_jax.tree import check_key
from slt_jax.types import Array, Key, LossFn, PyTree, Scalar

#: Share of the draws below which a reweighted response is not to be believed.
LEAST_SHARE = 0.1


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
    health: Health

    @property
    def ok(self) -> Array:
        """Whether the chains are to be believed: boolean, shape ``(component,)``."""
        return sound(self.health)

    @property
    def standardised(self) -> Array:
        """Minus the correlations: χ in units in which components of any size can be compared."""
        return -self.posterior.correlation

    def respond(self, h: Scalar) -> Response:
        """The change of ``⟨L⟩`` when a share ``h`` of the data is replaced: by reweighting, and by χ.

        Args:
          h: The share, of ``q_h = (1 - h) q + h q'``.

        Returns:
          A response of shape ``(component, observable)``. It is not to be believed where ``share`` is below a tenth.

        >>> import slt_jax as slt
        >>> data, zero = jnp.linspace(-1.0, 1.0, 20), jnp.float32(0.0)
        >>> found = slt.susceptibility(
        ...     jax.random.key(0), lambda w, x: 0.5 * (w * x) ** 2, zero, data, {"all": slt.restriction.full()},
        ...     {"larger": 2 * data}, chains=4, draws=100, burnin=200, controls=False,
        ... )
        >>> finite = found.respond(0.1)
        >>> bool(found.value[0, 0] < 0), bool(finite.value[0, 0] > finite.linear[0, 0]), bool(finite.share[0, 0] > 0.9)
        (True, True, True)
        """
        strength = self.nbeta * h
        found = [reweighted(*one, strength) for one in zip(self.energies, self.changes, strict=True)]
        value, error, share = (jnp.stack(leaves) for leaves in zip(*found, strict=True))
        return Response(value, error, strength * self.value, share)

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
            wrong = complaint(jax.tree.map(lambda leaf, row=row: leaf[row], self.health))
            lines.append(f"{name}: {numbers}." + (f" {wrong}" if wrong else ""))
        return "\n".join(lines)
