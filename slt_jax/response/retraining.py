"""What training says of a change of the data: the same seeds, with the change, its opposite and neither."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from slt_jax.tree import check_key
from slt_jax.types import Array, Key


class Retrained(NamedTuple):
    """Results of paired runs, and by how much each arm differs from the baseline.

    Attributes:
      baseline: The name of the arm that the others are held against.
      values: By arm, what ``train`` returned, shape ``(seed, ...)``.
      differences: By other arm, ``value - baseline`` of the same seed, shape ``(seed, ...)``; ``±inf`` where one of the
        two never came, NaN where neither did.
      mean: Mean over seeds of the differences, by arm.
      std_error: Standard error of that mean, from the spread of the differences over seeds.
      below, above: How many seeds have a difference below 0, and above: a time that is earlier, and later.
    """

    baseline: str
    values: dict[str, np.ndarray]
    differences: dict[str, np.ndarray]
    mean: dict[str, np.ndarray]
    std_error: dict[str, np.ndarray]
    below: dict[str, np.ndarray]
    above: dict[str, np.ndarray]

    def explain(self) -> str:
        """Each arm beside the baseline, in words; of arrays, the first number alone is said."""
        seeds = len(self.values[self.baseline])
        lines = [f"{seeds} seeds, against {self.baseline}: mean {np.ravel(self.values[self.baseline].mean(0))[0]:.4g}."]
        for name in self.differences:
            mean, error, below, above = (
                np.ravel(leaf[name])[0] for leaf in (self.mean, self.std_error, self.below, self.above)
            )
            lines.append(f"{name}: {mean:+.4g} ± {error:.2g}; lower in {below}, higher in {above} of {seeds}.")
        return "\n".join(lines)


def retrained(
    train: Callable[[Any, Key], Any],
    keys: Sequence[Key] | Array,
    arms: Mapping[str, Any],
    *,
    baseline: str = "unchanged",
) -> Retrained:
    """Train with each arm's weights on the same seeds, and compare pairwise with the baseline (host only).

    Initial weights and batches hang on the key alone, so that a difference is that of the weights: a seed's own time
    cancels.

    Args:
      train: ``train(weights, key)``: a number, as the time at which something is acquired, ``inf`` where it never is;
        or an array of them. Jit it, with the weights as an argument.
      keys: Typed keys, one for each seed; at least two.
      arms: By name, the weights that ``train`` takes: the change, its opposite, a random change of its size, and the
        baseline.
      baseline: The arm that the others are held against.

    Returns:
      ``Retrained``.

    Raises:
      ValueError: there are fewer than two seeds, there is no baseline or nothing beside it, or ``train`` returned NaN.

    Not to be believed on few seeds as an error of the mean alone: count the signs. Without a random change of the same
    size as a third arm, a change that hastens may be any change.

    >>> import jax
    >>> def train(weights, key):
    ...     return 100.0 - 10.0 * weights + jax.random.normal(key)
    >>> arms = {"unchanged": 0.0, "towards": 1.0, "away": -1.0}
    >>> found = retrained(train, jax.random.split(jax.random.key(0), 4), arms)
    >>> found.mean["towards"].round(3).item(), found.below["towards"].item(), found.above["away"].item()
    (-10.0, 4, 4)
    """
    seeds = [keys[number] for number in range(len(keys))] if np.ndim(keys) else []
    for key in seeds:
        check_key(key)
    if len(seeds) < 2:
        raise ValueError(f"keys: got {len(seeds)}; differences have an error with at least two seeds.")
    if baseline not in arms or len(arms) < 2:
        raise ValueError(f"arms: got {list(arms)}; pass {baseline!r} and at least one other.")
    values = {name: np.array([np.asarray(train(arm, key)) for key in seeds], float) for name, arm in arms.items()}
    for name, value in values.items():
        if np.isnan(value).any():
            raise ValueError(f"train: returned NaN in arm {name!r}; return inf where something is never acquired.")
    with np.errstate(invalid="ignore"):
        differences = {name: value - values[baseline] for name, value in values.items() if name != baseline}
        return Retrained(
            baseline,
            values,
            differences,
            mean={name: one.mean(axis=0) for name, one in differences.items()},
            std_error={name: one.std(axis=0, ddof=1) / np.sqrt(len(seeds)) for name, one in differences.items()},
            below={name: np.sum(one < 0, axis=0) for name, one in differences.items()},
            above={name: np.sum(one > 0, axis=0) for name, one in differences.items()},
        )
