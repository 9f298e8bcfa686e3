"""From responses to structure: axes and clusters, over seeds, and beside what the controls would have given."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from slt_jax.response.agreement import matrix_correlations, principal_angles, rand_indices
from slt_jax.response.conductance import MOST, Clusters, conductance_clusters
from slt_jax.response.influence import Index
from slt_jax.response.measured import Measured, control, measured, noise, pool
from slt_jax.response.outcome import Susceptibility
from slt_jax.response.reading import Axes, principal_axes
from slt_jax.tree import check_key
from slt_jax.types import Array, Key

#: Agreement of seeds from which structure is called stable, and agreement with a control from which it is called the
#: control's: of adjusted Rand indices, and of the cosine of the largest angle between the spans of the axes.
STABLE, SAME = 0.8, 0.5
#: Matrices drawn within the errors of a single one, in place of seeds.
_RESAMPLED = 4
_CONTROLS = ("prior", "gaussian")


class Reading(NamedTuple):
    """Axes and clusters of one response matrix."""

    axes: Axes
    clusters: Clusters


class Structure(NamedTuple):
    """What responses say of the structure of a network, and whether to believe it.

    Attributes:
      pooled: Axes and clusters of the mean over seeds: the answer.
      seeds: Those of each seed; of a single one, of matrices drawn within its errors.
      resampled: Whether there was a single seed.
      controls: The same pipeline on each control, by name, on its mean over seeds. Structure that ``prior`` has is that
        of the architecture; what ``gaussian`` has needs no more than mean and variance of each weight.
      rand: Adjusted Rand index of the clusters of every pair of seeds.
      angles: Principal angles between the spans of as many axes of entries as stand above noise in ``pooled``, of every
        pair of seeds, radians, shape ``(pair, axis)``.
      correlations: Of the standardised matrices of every pair of seeds.
      control_rand: Adjusted Rand index of the pooled clusters with those of each control.
      control_angles: Angles between the span of the pooled axes and that of as many of each control.
      components, entries: Names, where the results have them.
    """

    pooled: Reading
    seeds: tuple[Reading, ...]
    resampled: bool
    controls: dict[str, Reading]
    rand: np.ndarray
    angles: np.ndarray
    correlations: np.ndarray
    control_rand: dict[str, float]
    control_angles: dict[str, np.ndarray]
    components: tuple[str, ...] | None
    entries: tuple[str, ...] | None

    @property
    def labels(self) -> np.ndarray:
        """The cluster of each entry, -1 where it is in none."""
        return self.pooled.clusters.labels

    @property
    def stable(self) -> dict[str, bool]:
        """Whether seeds agree, of ``"axes"`` and of ``"clusters"``; False where there are none."""
        axes = self.angles.shape[1] > 0 and float(np.cos(self.angles[:, -1]).mean()) >= STABLE
        agree = axes and float(self.correlations.mean()) >= SAME
        clusters = len(self.pooled.clusters.sizes) > 0 and float(self.rand.mean()) >= STABLE
        return {"axes": bool(agree), "clusters": bool(clusters)}

    @property
    def different(self) -> dict[str, bool]:
        """Whether the clusters, or where there are none the axes, are other than those of each control, by name."""
        if len(self.pooled.clusters.sizes):
            return {name: value < SAME for name, value in self.control_rand.items()}
        return {
            name: not angles.size or float(np.cos(angles).mean()) < SAME for name, angles in self.control_angles.items()
        }

    def explain(self) -> str:
        """What was found, whether seeds agree on it, and whether the controls have it too, in words."""
        axes, clusters = self.pooled
        count, stable = int(axes.above), self.stable
        lines = [
            f"{count} of {len(axes.sizes)} axes stand above the noise"
            + (f", with {float(axes.shares[:count].sum()):.0%} of all that varies" if count else "")
            + f"; {len(clusters.sizes)} clusters hold {int(clusters.sizes.sum())} of {len(clusters.labels)} entries."
        ]
        over = (
            f"{len(self.seeds)} matrices drawn within the errors (one seed)"
            if self.resampled
            else (f"{len(self.seeds)} seeds")
        )
        angle = f"largest angle {np.degrees(self.angles[:, -1].mean()):.0f}°, " if count else ""
        lines.append(
            f"Over {over}: axes {_said(stable['axes'])} ({angle}correlation {self.correlations.mean():.2f}), "
            f"clusters {_said(stable['clusters'])} (adjusted Rand index {self.rand.mean():.2f}, "
            f"least {self.rand.min():.2f})."
        )
        if not self.controls:
            lines.append("No control was run: what the prior alone would give is not known.")
        for name, reading in self.controls.items():
            angles = self.control_angles[name]
            close = f", axes {np.degrees(angles.mean()):.0f}° away in the mean" if angles.size else ""
            verdict = "different" if self.different[name] else "NOT different"
            lines.append(
                f"Control {name}: {int(reading.axes.above)} axes, {len(reading.clusters.sizes)} clusters; {verdict} "
                f"(adjusted Rand index with it {self.control_rand[name]:.2f}{close})."
            )
        return "\n".join(lines)


def read_response(
    key: Key,
    found: Any,
    *,
    controls: Mapping[str, Any] | None = None,
    columns: Index | None = None,
    uniform: bool = False,
    neighbours: int | None = None,
    least: int | None = None,
    most: float = MOST,
) -> Structure:
    """Axes and clusters of responses, with their stability over seeds and the same of the controls beside them.

    The matrices of all seeds are averaged; their ``principal_axes`` are taken, and the entries clustered by
    ``conductance_clusters`` in the span of the axes above noise. The same is done to each seed and to each control.

    Args:
      key: A typed key, for draws of the errors.
      found: One result, or a list or tuple with one for each seed: ``Susceptibility``, ``Influence``, or
        ``(value, std_error)`` of axes ``(component, entry)``.
      controls: By name, the same of another measurement, as an influence at a small ``nbeta``. Default: ``prior`` and
        ``gaussian`` of susceptibilities that have them.
      columns: Of influences, which queries, as for ``measured``.
      uniform: Whether to leave in what all components share.
      neighbours, least, most: As for ``conductance_clusters``.

    Returns:
      A ``Structure``; its ``explain()`` says in words whether it is stable and different from the controls.

    Raises:
      ValueError: there is nothing to read, the matrices are of different shapes, or as for its parts.

    Not to be believed where ``stable`` is false, or where it is not ``different`` from a control; with one seed, which
    tells noise but not another draw of chains stuck elsewhere. The number of clusters is a property of the
    pipeline.

    Source: Baker et al. 2025, arXiv:2504.18274; arXiv:2601.12703.

    >>> blocks = np.repeat(np.eye(3), 20, axis=1)
    >>> draws = np.random.default_rng(0).normal(size=(2, 3, 60))
    >>> said = read_response(jax.random.key(0), [(blocks + 0.1 * one, np.full((3, 60), 0.1)) for one in draws])
    >>> said.pooled.clusters.sizes.tolist(), said.stable, int(said.pooled.axes.above)
    ([20, 20, 20], {'axes': True, 'clusters': True}, 2)
    """
    check_key(key)
    given = _listed("found", found)
    matrices = [measured(one, columns) for one in given]
    others = {name: [measured(one, columns) for one in _listed(name, some)] for name, some in (controls or {}).items()}
    if controls is None and all(isinstance(one, Susceptibility) and one.prior is not None for one in given):
        others = {name: [control(one, name) for one in given] for name in _CONTROLS}
    shapes = {one.value.shape for one in [*matrices, *(one for some in others.values() for one in some)]}
    if len(shapes) > 1:
        raise ValueError(
            f"found: got matrices of shapes {sorted(shapes)}; all must have the same components and entries."
        )

    def read(number: int, matrix: Measured) -> Reading:
        axes = principal_axes(jax.random.fold_in(key, number), matrix, uniform=uniform)
        return Reading(axes, conductance_clusters(axes.points(), neighbours=neighbours, least=least, most=most))

    whole = pool(matrices)
    pooled = read(0, whole)
    if len(matrices) == 1:
        errors = noise(jax.random.fold_in(key, 1), matrices[0], _RESAMPLED)
        matrices = [_noisier(matrices[0], error) for error in errors]
    seeds = tuple(read(2 + number, one) for number, one in enumerate(matrices))
    beside = {name: read(2 + len(seeds) + at, pool(some)) for at, (name, some) in enumerate(others.items())}
    kept = int(pooled.axes.above)
    spans = [reading.axes.entries[:, :kept] for reading in seeds]
    pairs = [(i, j) for i in range(len(spans)) for j in range(i + 1, len(spans))]
    names = given[0] if isinstance(given[0], Susceptibility) else None
    return Structure(
        pooled=pooled,
        seeds=seeds,
        resampled=len(given) == 1,
        controls=beside,
        rand=rand_indices([reading.clusters.labels for reading in seeds]),
        angles=np.array([principal_angles(spans[i], spans[j]) for i, j in pairs]),
        correlations=matrix_correlations([reading.axes.standardised for reading in seeds]),
        control_rand={
            name: float(rand_indices([pooled.clusters.labels, reading.clusters.labels])[0])
            for name, reading in beside.items()
        },
        control_angles={
            name: principal_angles(pooled.axes.entries[:, :kept], reading.axes.entries[:, :kept])
            for name, reading in beside.items()
        },
        components=None if names is None else names.components,
        entries=names.observables if names and len(names.observables) == whole.value.shape[1] else None,
    )


def _noisier(matrix: Measured, error: Array) -> Measured:
    """A matrix with its error once more, and errors to match."""
    twice = np.sqrt(2)
    scatter = None if matrix.scatter is None else twice * matrix.scatter
    return matrix._replace(value=matrix.value + error, std_error=twice * matrix.std_error, scatter=scatter)


def _listed(name: str, found: Any) -> list[Any]:
    # a tuple of results is several; of two matrices it is one
    several = isinstance(found, list) or (type(found) is tuple and all(isinstance(one, tuple) for one in found))
    given = list(found) if several else [found]
    if not given:
        raise ValueError(f"{name}: got an empty list; pass at least one result.")
    return given


def _said(stable: bool) -> str:
    return "stable" if stable else "NOT stable"
