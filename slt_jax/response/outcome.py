"""What a susceptibility is: χ of components under changes of the data, with errors, controls and the verdict."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax.estimators import Health
from slt_jax.response.chain import sound, verdict
from slt_jax.response.covariance import Pairs
from slt_jax.response.reweighted import Response, reweighted
from slt_jax.types import Array, Scalar


class AgainstFree(NamedTuple):
    """``χ = -(E_C[φ Δ] - E_C[φ] E[Δ])``: the mean of ``Δ = L' - L`` is that of chains in which everything moves.

    Attributes:
      value: Nats², shape ``(component, column)``.
      std_error: Its Monte Carlo standard error, the two runs taken to be independent.
      ess: Effective draws of the free chains, shape ``()``.
      health: Their verdict.
    """

    value: Array
    std_error: Array
    ess: Array
    health: Health

    @property
    def ok(self) -> Array:
        """Whether the free chains are to be believed, shape ``()``; those of the components have their own ``ok``."""
        return sound(self.health, self.ess)


class Susceptibility(NamedTuple):
    """χ of every component under every change of the data; the axes are ``(component, column)``.

    An observable that is a data set has one column; one of every entry has as many as entries, along the rows.

    Attributes:
      components: Their names.
      observables: Their names, in the order of their columns.
      value: ``χ = -Cov[L, L' - L]`` in the chain that is restricted to the component, nats².
      std_error: Its Monte Carlo standard error.
      posterior: The covariances, with correlations: χ is minus these.
      prior: The same at ``nβ = 0``, over ``N(0, 1/γ)`` alone; None without controls.
      gaussian: The same over independent normal entries with the means and variances of the chain; or None.
      energies: ``L - L*`` at each draw, nats, shape ``(component, chain, draw)``.
      changes: ``L' - L``, less its value at the centre, nats, of the data sets: ``(component, chain, draw, set)``.
      nbeta: The inverse temperature, shape ``()``.
      ess: Effective draws of the losses, shape ``(component,)``.
      health: The verdicts on the chains; leaves of shape ``(component,)``.
      shapes: Of the observables: ``()`` of a data set, ``(n,)`` or ``(n, T)`` of every entry of one.
      against_free: The same with the mean of free chains, or None.
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
    shapes: tuple[tuple[int, ...], ...]
    against_free: AgainstFree | None = None

    @property
    def ok(self) -> Array:
        """Whether the chains are to be believed: boolean, shape ``(component,)``."""
        return sound(self.health, self.ess)

    @property
    def standardised(self) -> Array:
        """Minus the correlations: χ in units in which components of any size can be compared."""
        return -self.posterior.correlation

    def columns(self, observable: str) -> slice:
        """Which columns an observable has.

        Raises:
          ValueError: there is none of this name.
        """
        if observable not in self.observables:
            raise ValueError(f"observable: got {observable!r}; there are {list(self.observables)}.")
        at = self.observables.index(observable)
        widths = [math.prod(shape) for shape in self.shapes]
        return slice(sum(widths[:at]), sum(widths[: at + 1]))

    def of(self, observable: str, leaf: Array | None = None) -> Array:
        """The columns of one observable in their own shape: ``(component,)``, ``(component, n)`` or ``(…, n, T)``.

        Args:
          observable: Its name.
          leaf: What to take them from, last axis ``column``, as ``found.standardised``; default ``value``.

        Raises:
          ValueError: there is none of this name.
        """
        columns = self.columns(observable)
        leaf = self.value if leaf is None else leaf
        return leaf[..., columns].reshape(*leaf.shape[:-1], *self.shapes[self.observables.index(observable)])

    def column_name(self, column: int) -> str:
        """What a column is: the name of its observable, and which entry it is, as ``"tokens[3, 17]"``."""
        for name, shape in zip(self.observables, self.shapes, strict=True):
            columns = self.columns(name)
            if columns.start <= column < columns.stop:
                place = np.unravel_index(column - columns.start, shape) if shape else ()
                return name + (str([int(index) for index in place]) if shape else "")
        raise ValueError(f"column: got {column}; there are {self.value.shape[-1]}.")

    def respond(self, h: Scalar) -> Response:
        """The change of ``⟨L⟩`` when a share ``h`` of the data is replaced: by reweighting, and by χ.

        Args:
          h: The share, of ``q_h = (1 - h) q + h q'``.

        Returns:
          A response of shape ``(component, set)``, of the observables that are data sets. It is not to be believed
          where its ``ok`` is false: there too few draws lie where the changed posterior does.
        """
        strength = self.nbeta * h
        found = [reweighted(*one, strength) for one in zip(self.energies, self.changes, strict=True)]
        value, error, share = (jnp.stack(leaves) for leaves in zip(*found, strict=True))
        alone = [
            self.columns(name).start for name, shape in zip(self.observables, self.shapes, strict=True) if not shape
        ]
        return Response(value, error, strength * self.value[:, np.array(alone, int)], share * self.ess[:, None])

    def explain(self) -> str:
        """What was measured and whether to believe it, in words (host only)."""
        if np.ndim(self.nbeta):
            raise ValueError(f"explain: got those of shape {np.shape(self.nbeta)}; index one of them first.")
        lines = [f"χ = -Cov[L, L' - L] at nβ = {float(self.nbeta):.4g}, nats²."]
        for row, name in enumerate(self.components):
            numbers = ", ".join(self._in_words(row, one) for one in self.observables)
            health, ess = jax.tree.map(lambda leaf, row=row: leaf[row], (self.health, self.ess))
            lines.append(f"{name}: {numbers}. {verdict(health, ess)}")
        if self.against_free is not None:
            lines.append(f"Everything free: {verdict(self.against_free.health, self.against_free.ess)}")
        return "\n".join(lines)

    def _in_words(self, row: int, observable: str) -> str:
        value, error = (np.asarray(self.of(observable, leaf))[row] for leaf in (self.value, self.std_error))
        if not value.ndim:
            return f"{observable} {float(value):.3g} ± {float(error):.2g}"
        most = int(np.argmax(np.abs(value) / np.where(error > 0, error, np.inf)))
        name = self.column_name(self.columns(observable).start + most)
        return f"clearest of {value.size} {name} {value.flat[most]:.3g} ± {error.flat[most]:.2g}"
