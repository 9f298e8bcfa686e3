"""Grafting: the few weights that carry what a phase of training gained, found, and offered as a restriction."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import loss, tree
from slt_jax.restriction.base import Restriction
from slt_jax.restriction.entries import mask
from slt_jax.restriction.relaxed import Found, mean_loss, search
from slt_jax.types import Key, LossFn, PyTree

#: Shares of the weights, about a factor of 2 apart.
SHARES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)


class Graft(NamedTuple):
    """The mask that was chosen, and the curve it was chosen from; gains are shares of ``L(before) - L(after)``.

    Attributes:
      restriction: Frees the weights of the mask, for any estimator.
      mask: A tree like the parameters of booleans: True where the value from after is put into before.
      scores: A tree like the parameters: the relaxed mask in [0, 1] whose largest entries the mask is.
      chosen: Position of the chosen share on the grid.
      reached: Whether the gain asked for is reached there; True where a share was asked for.
      shares: The grid, descending, shape ``(S,)``.
      sizes: Weights in the mask at each share, shape ``(S,)``: fewer than the share allows where fewer moved, or where
        a sparser mask on the grid gains more.
      gains: Share of the gain on ``data`` that the mask of each share recovers, shape ``(S,)``; can be negative.
      held_out: The same on ``held_out``, or None; NaN where after is not better than before there.
      random: Share of the gain of random masks, as many weights as the share allows, drawn from those that moved;
        shape ``(S, randoms)``.
      magnitude: The same of the weights with the largest changes, shape ``(S,)``.
      losses: ``L(before)`` and ``L(after)`` on ``data``, nats.
    """

    restriction: Restriction
    mask: PyTree
    scores: PyTree
    chosen: int
    reached: bool
    shares: np.ndarray
    sizes: np.ndarray
    gains: np.ndarray
    held_out: np.ndarray | None
    random: np.ndarray
    magnitude: np.ndarray
    losses: tuple[float, float]

    def explain(self) -> str:
        """What was found, beside what random masks and the largest changes find, in words."""
        i, total = self.chosen, tree.size(self.mask)
        held = "" if self.held_out is None else f", {self.held_out[i]:.1%} on held-out data"
        line = (
            f"{self.sizes[i]} of {total} weights ({self.sizes[i] / total:.2%}), put from after into before, recover "
            f"{self.gains[i]:.1%} of the gain of {self.losses[0] - self.losses[1]:.3g} nats{held}. "
            f"Random masks of this share, {self.shares[i]:.2%}, recover {self.random[i].mean():.1%} ± "
            f"{self.random[i].std():.1%}, that of the largest changes {self.magnitude[i]:.1%}."
        )
        if not self.reached:
            line += " That is less than was asked for: no mask on the grid of shares reaches it; add larger shares."
        if self.held_out is not None and self.held_out[i] < self.gains[i] - 0.1:
            line += " The mask fits its data better than others: choose it on more examples."
        return line


def graft(
    loss_fn: LossFn,
    before: PyTree,
    after: PyTree,
    data: PyTree,
    *,
    held_out: PyTree | None = None,
    shares: Sequence[float] = SHARES,
    share: float | None = None,
    gain: float = 0.95,
    steps: int = 100,
    batch_size: int | None = None,
    randoms: int = 8,
    key: Key | None = None,
) -> Graft:
    """The sparse mask whose values from after a phase, put into the network before it, carry the phase's gain.

    ``min over m in {0, 1}^d, Σ m = k, of L(before + m * (after - before))`` for each ``k`` on the grid, and the share
    ``(L(before) - L(grafted)) / (L(before) - L(after))`` of the gain that is recovered. The mask is relaxed to [0, 1]
    and starts at the whole change; its budget ``Σ m`` falls from each ``k`` to the next by a price that is the same for
    every weight, while it descends on the loss, and is rounded to its ``k`` largest entries at the end. From dense to
    sparse, because weights work together: a weight of the first layer has no slope before its partner of the second
    is there. A step is measured in units of its own largest entry, so that neither the scale of the loss nor that of
    the weights has to be known. ``steps`` gradients for each share, and one compilation for all of them.

    Args:
      loss_fn: Losses in nats: ``(B,)``, ``(B, T)`` or ``()``.
      before: Parameters before the phase.
      after: Parameters after it, of the same structure, shapes and dtypes.
      data: Examples on which the phase gained.
      held_out: Examples that the mask does not see, on which the gain is read too.
      shares: Grid of shares of the weights, in (0, 1].
      share: The share of the mask to be returned; default the smallest on the grid that recovers ``gain``.
      gain: Share of the gain to be recovered, in (0, 1].
      steps: Gradients for each share, static.
      batch_size: Examples for each gradient; default all of them.
      randoms: Random masks of each size, at least 2, static.
      key: A typed key, for random masks and batches; default ``jax.random.key(0)``.

    Returns:
      The restriction, the mask and the curve, on the host. The memory is about 10 copies of the parameters, and two
      for each share.

    Raises:
      ValueError: before the search is compiled, where the loss breaks its contract; where ``before`` and ``after``
        differ in structure, shape or dtype, are equal, traced or not finite; where after is not better than before on
        ``data``; where a share, the gain, a number or the key is out of range.

    Not to be believed as the only such mask, nor the smallest: the search is local, and what it recovers is a lower
    bound of what a mask of that size can. A phase whose optimiser moved every weight a little, as Adam does, may have
    no small mask, whatever was learned in it. Without ``held_out`` the gain is that of the data that chose the mask.

    Source: Panigrahi, Saunshi, Zhao & Arora 2023, arXiv:2302.06600 (grafting, by a relaxed mask; ours has the budget as
    a constraint and goes from dense to sparse).

    >>> before, after = jnp.zeros(200), jnp.ones(200).at[:2].set(0.5)  # two weights matter, and moved the least
    >>> found = graft(lambda w, x: jnp.sum((w[:2] - 0.5) ** 2) + x, before, after, jnp.zeros(3), steps=10)
    >>> np.flatnonzero(found.mask).tolist(), round(float(found.gains[found.chosen]), 3)
    ([0, 1], 1.0)
    """
    _check_pair(before, after)
    loss.check(loss_fn, before, data)
    if held_out is not None:
        loss.check(loss_fn, before, held_out)
    if key is not None:
        tree.check_key(key)
    grid = _grid(shares, share, gain)
    _check_count("steps", steps, 1)
    _check_count("randoms", randoms, 2)
    if batch_size is not None:
        _check_count("batch_size", batch_size, 1)
    before, after, data, held_out = jax.tree.map(jnp.asarray, (before, after, data, held_out))
    function = loss_fn if isinstance(loss_fn, Partial) else Partial(loss_fn)
    losses = _losses(function, before, after, data)
    if not losses[1] < losses[0]:
        raise ValueError(
            f"after: its mean loss on data is {losses[1]:.6g}, that of before {losses[0]:.6g} nats; there is no gain "
            "to recover. Pass data on which the phase lowered the loss."
        )
    moved = sum(int(np.sum(np.asarray(a) != np.asarray(b))) for a, b in _pairs(before, after))
    sizes = np.clip(np.round(grid * tree.size(before)).astype(np.int32), 1, moved)
    found = search(
        jax.random.key(0) if key is None else key,
        function,
        before,
        after,
        data,
        held_out,
        jnp.asarray(sizes),
        steps=steps,
        batch_size=batch_size,
        randoms=randoms,
    )
    ends = None if held_out is None else _losses(function, before, after, held_out)
    return _chosen(before, found, grid, sizes, losses, ends, share, gain)


def _chosen(
    before: PyTree,
    found: Found,
    grid: np.ndarray,
    sizes: np.ndarray,
    losses: tuple[float, float],
    held_losses: tuple[float, float] | None,
    share: float | None,
    gain: float,
) -> Graft:
    """The masks of the grid turned into a curve, and one of them into a restriction."""
    gains = _recovered(found.losses, losses)
    # a mask of at most so many weights: a sparser one that gains more takes the place
    source = np.arange(len(grid))
    for i in range(len(grid) - 2, -1, -1):
        if not gains[source[i]] >= gains[source[i + 1]]:
            source[i] = source[i + 1]
    gains = gains[source]
    enough = np.flatnonzero(gains >= gain)
    reached = share is not None or len(enough) > 0
    chosen = int(np.argmax(grid == share)) if share is not None else int(enough[-1]) if reached else 0
    # on the host: an index of a device array would be a program of its own for each share
    marks, scores = (
        jax.tree.map(jnp.asarray, tree.cut(np.asarray(values)[source[chosen]], before))
        for values in (found.masks, found.scores)
    )
    return Graft(
        restriction=mask(before, marks),
        mask=marks,
        scores=scores,
        chosen=chosen,
        reached=reached,
        shares=grid,
        sizes=sizes[source],
        gains=gains,
        held_out=None if held_losses is None else _recovered(found.held_out, held_losses)[source],
        random=_recovered(found.random, losses),
        magnitude=_recovered(found.magnitude, losses),
        losses=losses,
    )


def _recovered(grafted_losses: object, losses: tuple[float, float]) -> np.ndarray:
    gain = losses[0] - losses[1]
    return (losses[0] - np.asarray(grafted_losses, np.float64)) / (gain if gain > 0 else np.nan)


_mean_loss = jax.jit(mean_loss)


def _losses(loss_fn: LossFn, before: PyTree, after: PyTree, data: PyTree) -> tuple[float, float]:
    found = (float(_mean_loss(loss_fn, before, data)), float(_mean_loss(loss_fn, after, data)))
    for name, value in zip(("before", "after"), found, strict=True):
        if not np.isfinite(value):
            raise ValueError(f"loss_fn: the mean loss {name} is {value}; check {name} and data for NaN and infinities.")
    return found


def _pairs(before: PyTree, after: PyTree) -> list[tuple]:
    return list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))


def _check_pair(before: PyTree, after: PyTree) -> None:
    tree.check_structure("after", after, "before", before, "Pass two checkpoints of one network.")
    if tree.is_traced((before, after)):
        raise ValueError("before, after: got traced values; graft chooses a mask on the host. Call it outside jit.")
    for name, (old, new) in zip(tree.leaf_names(before), _pairs(before, after), strict=True):
        ours, theirs = ((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in (old, new))
        if ours != theirs:
            raise ValueError(
                f"after: leaf '{name}' has shape {theirs[0]} and dtype {theirs[1]}, before {ours[0]} and {ours[1]}. "
                "Pass two checkpoints of one network."
            )
        for which, leaf in (("before", old), ("after", new)):
            if not np.isfinite(np.asarray(leaf).astype(np.float64)).all():
                raise ValueError(
                    f"{which}: leaf '{name}' has entries that are not finite; pass a checkpoint before them."
                )
    if all(np.array_equal(np.asarray(old), np.asarray(new)) for old, new in _pairs(before, after)):
        raise ValueError("after: equal to before in every entry; pass the parameters after the phase.")


def _grid(shares: Sequence[float], share: float | None, gain: float) -> np.ndarray:
    """All shares that are looked at, descending."""
    asked = np.atleast_1d(np.asarray(shares, np.float64))
    for name, values in (("shares", asked), ("share", share), ("gain", gain)):
        if values is None:
            continue
        flat = np.atleast_1d(np.asarray(values, np.float64))
        if flat.ndim != 1 or not flat.size or not ((flat > 0) & (flat <= 1)).all():
            raise ValueError(f"{name}: got {values}; pass {'numbers' if name == 'shares' else 'one number'} in (0, 1].")
    return np.unique(asked if share is None else np.append(asked, share))[::-1]


def _check_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}: got {value!r}; pass an integer of at least {least}.")
