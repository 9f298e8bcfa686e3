"""By how much each loss changes from one checkpoint to the next, example by example."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.tree_util import Partial

from slt_jax import loss
from slt_jax.spectroscopy.scan import Checkpoint, CheckpointError
from slt_jax.spectroscopy.subject import Subject, Subloss, parts
from slt_jax.types import PyTree


def loss_changes(
    subject: Subject,
    checkpoints: Sequence[Checkpoint],
    pairs: Sequence[tuple[int, int]],
    *,
    complete: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[tuple[int, int], tuple[float, float]]]:
    """Changes of all mean losses between pairs of checkpoints, with their errors over examples.

    ``ΔL = mean_i (ℓ_i(after) - ℓ_i(before))``: the same examples at both, so that what is hard in both cancels. Its
    standard error is ``sd_i / √N``: the examples are a sample of all that there might be.

    Args:
      subject: The losses and their data.
      checkpoints: Each that is needed is loaded once. One that cannot be read is left out, with its pairs.
      pairs: Steps ``(before, after)``.
      complete: Whether the data are all that there is: errors are then those of rounding.
      progress: Called with the number of checkpoints done and of all.

    Returns:
      By loss and pair: ΔL in nats and its error: of rounding only where a loss returns a mean.

    Raises:
      ValueError: a step that no checkpoint has.

    Not to be believed for sequences that overlap, or examples drawn from few documents: they are fewer than they look.
    """
    by_step = {checkpoint.step: checkpoint for checkpoint in checkpoints}
    steps = sorted({step for pair in pairs for step in pair})
    missing = [step for step in steps if step not in by_step]
    if missing:
        raise ValueError(f"pairs: there is no checkpoint of step {missing[0]}; there are {sorted(by_step)}.")
    part_of = parts(subject)
    losses: dict[int, dict[str, np.ndarray]] = {}
    for index, step in enumerate(steps):
        try:
            params = by_step[step].load()
        except CheckpointError:
            continue  # named where its readings would stand
        losses[step] = {name: _losses(part, params) for name, part in part_of.items()}
        if progress is not None:
            progress(index + 1, len(steps))
    there = [(before, after) for before, after in pairs if before in losses and after in losses]
    return {
        name: {(one, other): _change(losses[one][name], losses[other][name], complete) for one, other in there}
        for name in part_of
    }


def _losses(part: Subloss, params: PyTree) -> np.ndarray:
    function = part.loss_fn if isinstance(part.loss_fn, Partial) else Partial(part.loss_fn)
    return np.asarray(_at_center(function, params, part.data))


#: One program for all losses of one form: what they close over rides as an argument.
_at_center = jax.jit(loss.at_center)


def _change(before: np.ndarray, after: np.ndarray, complete: bool) -> tuple[float, float]:
    # what the last digit of a loss may be off by is an error, too
    rounding = float(np.finfo(before.dtype).eps * np.abs(before).mean())
    change = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    several = change.ndim == 1 and len(change) > 1
    error = 0.0 if complete or not several else float(change.std(ddof=1) / np.sqrt(len(change)))
    return float(change.mean()), float(np.hypot(error, rounding))
