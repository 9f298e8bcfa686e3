"""The search behind ``graft``: a relaxed mask under a budget that falls, from all of the weights to a few."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from slt_jax import loss
from slt_jax.tree import at_least_float32 as wide
from slt_jax.tree import check_structure, cut
from slt_jax.types import Array, Key, LossFn, PyTree

#: Largest move of an entry of the mask in one step, until the budget has fallen.
_RATE = 0.1
#: What is left of that rate in the last step of a budget.
_LAST_RATE = 0.01
#: Share of the steps in which the budget falls; in the others it rests and the rate falls.
_FALLING = 0.5
#: Memory of the moving average of the gradients.
_MEMORY = 0.9
#: Halvings that find the price of an entry: what float32 can tell apart.
_HALVINGS = 30


class Found(NamedTuple):
    """What the compiled search brings back, for ``S`` sizes, ``d`` weights and ``R`` random masks.

    Attributes:
      masks: Rounded masks, boolean, shape ``(S, d)``.
      scores: The relaxed masks that they are the largest entries of, shape ``(S, d)``.
      losses: Mean loss of the grafted network, nats, shape ``(S,)``; ``held_out`` on those data, or None.
      magnitude: The same for the largest changes, shape ``(S,)``.
      random: The same for random masks, shape ``(S, R)``.
    """

    masks: Array
    scores: Array
    losses: Array
    held_out: Array | None
    magnitude: Array
    random: Array


def mean_loss(loss_fn: LossFn, params: PyTree, data: PyTree) -> Array:
    """Mean loss on all of ``data``, in nats, shape ``()``, looked at in pieces."""
    return jnp.mean(wide(loss.at_center(loss_fn, params, data)))


def grafted(before: PyTree, after: PyTree, mask: PyTree) -> PyTree:
    """``before + mask * (after - before)``: the values from after where the mask is True, to the last bit.

    Args:
      before: Parameters.
      after: Parameters of the same structure and shapes.
      mask: A tree like them of booleans.

    Raises:
      ValueError: a mask that is not boolean, or of another shape than the parameters.

    >>> grafted(jnp.zeros(3), jnp.ones(3), jnp.array([True, False, True])).tolist()
    [1.0, 0.0, 1.0]
    """
    check_structure("mask", mask, "before", before, "Build it with jax.tree.map over the parameters.")
    for leaf, chosen in zip(jax.tree.leaves(before), jax.tree.leaves(mask), strict=True):
        if jnp.result_type(chosen) != jnp.bool_ or jnp.shape(chosen) != jnp.shape(leaf):
            raise ValueError(
                f"mask: got a leaf of dtype {jnp.result_type(chosen)} and shape {jnp.shape(chosen)} for parameters of "
                f"shape {jnp.shape(leaf)}; a mask is boolean, True where the value from after is put in."
            )
    return jax.tree.map(lambda old, new, chosen: jnp.where(chosen, new, old), before, after, mask)


def largest(scores: Array, size: Array) -> Array:
    """The ``size`` largest entries, boolean; ``size`` is data, so that all sizes are one program."""
    order = jnp.argsort(-scores, stable=True)
    return jnp.zeros(scores.shape, bool).at[order].set(jnp.arange(len(scores)) < size, unique_indices=True)


def within_budget(mask: Array, budget: Array, free: Array) -> Array:
    """The nearest mask in [0, 1] that sums to ``budget``: ``clip(mask - price, 0, 1)``, and 0 where not ``free``.

    The price is the same for every entry: the multiplier of the constraint, and the pressure towards sparsity.

    >>> held = within_budget(jnp.array([1.2, 0.9, 0.1]), jnp.float32(1.5), jnp.ones(3, bool))
    >>> [round(float(entry), 3) for entry in held]
    [0.9, 0.6, 0.0]
    """

    def at(price: Array) -> Array:
        return jnp.where(free, jnp.clip(mask - price, 0, 1), 0.0)

    def halve(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        middle = 0.5 * (ends[0] + ends[1])
        cheap = jnp.sum(at(middle)) > budget
        return (jnp.where(cheap, middle, ends[0]), jnp.where(cheap, ends[1], middle)), None

    ends = (jnp.min(jnp.where(free, mask, jnp.inf)) - 1, jnp.max(jnp.where(free, mask, -jnp.inf)))
    low, high = jax.lax.scan(halve, ends, None, length=_HALVINGS)[0]
    return at(0.5 * (low + high))


def _search(
    key: Key,
    loss_fn: LossFn,
    before: PyTree,
    after: PyTree,
    data: PyTree,
    held_out: PyTree | None,
    sizes: Array,
    steps: int,
    batch_size: int | None,
    randoms: int,
) -> Found:
    change = _flat(jax.tree.map(lambda old, new: wide(new) - wide(old), before, after))
    # not by the change: that of two numbers of half precision may be too small for their difference
    moved = _flat(jax.tree.map(lambda old, new: new != old, before, after))
    search_key, null_key = jax.random.split(key)
    gradient = _gradient(loss_fn, before, after, data, batch_size)

    def rounded(scores: Array, size: Array) -> Array:
        return largest(jnp.where(moved, scores, -1.0), size)

    def look(mask: Array, examples: PyTree) -> Array:
        return mean_loss(loss_fn, grafted(before, after, cut(mask, before)), examples)

    def stage(carry: tuple[Array, Array], step: tuple[Array, Key]) -> tuple[tuple[Array, Array], tuple[Any, ...]]:
        (relaxed, last), (size, stage_key) = carry, step
        relaxed = _descend(stage_key, gradient, relaxed, moved, last, size.astype(relaxed.dtype), steps)
        mask = rounded(relaxed, size)
        held = None if held_out is None else look(mask, held_out)
        return (relaxed, size.astype(relaxed.dtype)), (mask, relaxed, look(mask, data), held)

    full = moved.astype(jnp.float32)
    _, found = jax.lax.scan(stage, (full, jnp.sum(full)), (sizes, jax.random.split(search_key, len(sizes))))
    magnitude = jax.lax.map(lambda size: look(rounded(jnp.abs(change), size), data), sizes)

    def at_random(draw_key: Key) -> Array:
        order = jax.random.uniform(draw_key, moved.shape)
        return jax.lax.map(lambda size: look(rounded(order, size), data), sizes)

    random = jax.lax.map(at_random, jax.random.split(null_key, randoms))
    masks, scores, losses, held = found
    return Found(masks, scores, losses, held, magnitude, random.T)


search = jax.jit(_search, static_argnames=("steps", "batch_size", "randoms"))


def _gradient(
    loss_fn: LossFn, before: PyTree, after: PyTree, data: PyTree, batch_size: int | None
) -> Callable[[Key, Array], Array]:
    """Slope of the loss of the grafted network in each entry of a relaxed mask, nats, on a batch or on all data."""
    count = loss.example_count(data)

    def relaxed_loss(mask: Array, batch: PyTree) -> Array:
        def mix(old: Array, new: Array, share: Array) -> Array:
            return (wide(old) + share * (wide(new) - wide(old))).astype(old.dtype)

        params = jax.tree.map(mix, before, after, cut(mask, before))
        return jnp.mean(wide(loss.per_example(loss_fn(params, batch))))

    def slope(key: Key, mask: Array) -> Array:
        if batch_size is None:
            return jax.grad(relaxed_loss)(mask, data)
        index = jax.random.randint(key, (batch_size,), 0, count)
        return jax.grad(relaxed_loss)(mask, loss.take(data, index))

    return slope


def _descend(
    key: Key,
    gradient: Callable[[Key, Array], Array],
    relaxed: Array,
    moved: Array,
    first: Array,
    last: Array,
    steps: int,
) -> Array:
    """Projected descent while the budget falls from ``first`` to ``last``, and on at ``last`` with smaller steps."""
    import optax

    falling = max(1, round(_FALLING * steps))
    rate = optax.exponential_decay(_RATE, max(1, steps - falling), _LAST_RATE, transition_begin=falling)
    # in units of its own largest entry the step is the same for a loss in bits and for weights ten times as large
    optimizer = optax.chain(
        optax.ema(_MEMORY, debias=False),
        optax.stateless(lambda slope, _: slope / _or_one(jnp.max(jnp.abs(slope)))),
        optax.scale_by_learning_rate(rate),
    )

    def step(carry: tuple[Array, Any], now: tuple[Array, Key]) -> tuple[tuple[Array, Any], None]:
        (mask, state), (fallen, step_key) = carry, now
        changes, state = optimizer.update(gradient(step_key, mask), state)
        budget = first * (last / first) ** fallen
        return (within_budget(optax.apply_updates(mask, changes), budget, moved), state), None

    shares = jnp.minimum(1.0, (1 + jnp.arange(steps)) / falling)
    return jax.lax.scan(step, (relaxed, optimizer.init(relaxed)), (shares, jax.random.split(key, steps)))[0][0]


def _flat(values: PyTree) -> Array:
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(values)])


def _or_one(value: Array) -> Array:
    return jnp.where(value > 0, value, jnp.ones_like(value))
