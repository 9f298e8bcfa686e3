"""The loss contract: what ``loss_fn(params, batch)`` may return, and how it is averaged.

Everything here works on per-example losses in nats. A per-token loss ``(B, T)`` is first averaged over its tokens,
so that the example stays the unit in which ``n`` is counted; a mean loss ``()`` has no examples to tell apart.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import tree
from slt_jax.types import Array, LossFn, PyTree

#: The loss at the centre is computed in pieces of this many examples, to bound the memory of one forward pass.
CENTER_CHUNK = 8192
#: What the widest array of a forward pass may take where pieces are chosen by it; ten such arrays may live at a time.
WIDEST_BYTES, WIDEST_BYTES_ELSEWHERE = 2**25, 2**29


def example_count(data: PyTree) -> int:
    """The common length of the leading axes of ``data``: the number of examples.

    Raises:
      ValueError: ``data`` has no leaf, a leaf without axes, or leading axes of different lengths.

    >>> example_count({"x": jnp.zeros((7, 2)), "y": jnp.zeros(7)})
    7
    """
    lengths = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        shape = jnp.shape(leaf)
        if not shape:
            raise ValueError(
                f"data: leaf '{tree.path_name(path)}' has shape (); every leaf needs a leading example axis. "
                "Close over constants in loss_fn (jax.tree_util.Partial) instead of putting them into data."
            )
        lengths[tree.path_name(path)] = shape[0]
    if not lengths:
        raise ValueError("data: got a tree without leaves; pass at least one array with a leading example axis.")
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"data: leading axes differ: {lengths}. All leaves of data must have the same number of examples."
        )
    count = next(iter(lengths.values()))
    if count == 0:
        raise ValueError("data: got 0 examples; pass at least one.")
    return count


def is_stream(data: Any) -> bool:
    """Whether data are a factory of iterators, or meant to be one: what can be iterated and is no tree of arrays.

    >>> is_stream(jnp.zeros(3)), is_stream({"x": jnp.zeros(3)}), is_stream(lambda: iter([]))
    (False, False, True)
    """
    loader = hasattr(data, "__iter__") and not hasattr(data, "shape") and jax.tree_util.all_leaves([data])
    return callable(data) or loader


def check(loss_fn: LossFn, params: PyTree, data: PyTree) -> tuple[int, ...]:
    """The shape of the losses on ``data``, after checking the contract without computing or compiling anything.

    Returns:
      ``(n,)``, ``(n, T)`` or ``()``.

    Raises:
      ValueError: ``params`` has no leaf or a leaf that is not floating point; ``data`` is not a set of examples;
        ``loss_fn`` returns anything but one floating-point array of an allowed shape.
    """
    if not callable(loss_fn):
        raise ValueError(f"loss_fn: got a {type(loss_fn).__name__}; pass a function loss_fn(params, batch).")
    _check_params(params)
    count = example_count(data)
    result = _losses_shape(loss_fn, params, data)
    if not hasattr(result, "shape"):
        raise ValueError(
            f"loss_fn: returned a {type(result).__name__}, not an array. Return only the losses, no auxiliary outputs."
        )
    allowed = result.shape == () or (len(result.shape) in (1, 2) and result.shape[0] == count)
    if not allowed:
        raise ValueError(
            f"loss_fn: returned shape {result.shape} on data of {count} examples; expected per-example losses "
            f"({count},), per-token losses ({count}, T) or their mean ()."
        )
    if result.shape == (count, count) and _second_axis_counts_examples(loss_fn, params, data, count):
        raise ValueError(
            f"loss_fn: returned shape {result.shape}, whose second axis follows the number of examples: a vector was "
            "broadcast against a column. Give both sides of the difference the same shape."
        )
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise ValueError(f"loss_fn: returned dtype {result.dtype}; losses must be floating point, in nats.")
    return result.shape


def per_example(losses: Array) -> Array:
    """Losses reduced to one per example: ``(B,)`` and ``()`` as they are, ``(B, T)`` averaged over tokens."""
    losses = jnp.asarray(losses)
    return jnp.mean(losses, axis=1) if losses.ndim == 2 else losses


def take(data: PyTree, index: Array) -> PyTree:
    """The examples of ``data`` at ``index``, shape ``(B,)``, from every leaf."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], data)


def at_center(
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    reduce: Callable[[Array], Array] = per_example,
    chunk: int = CENTER_CHUNK,
) -> Array:
    """Losses at ``params`` on all of ``data``: ``(n,)``, or ``()`` where the loss is a mean already.

    ``reduce`` averages over tokens; with ``jnp.asarray`` in its place they are kept, ``(n, T)``. ``chunk`` examples are
    looked at at a time.
    """
    count = example_count(data)
    if count <= chunk or jax.eval_shape(loss_fn, params, data).shape == ():
        return reduce(loss_fn(params, data))
    whole = count - count % chunk
    chunks = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, chunk, *leaf.shape[1:]), data)
    losses = jax.lax.map(lambda piece: reduce(loss_fn(params, piece)), chunks)
    losses = losses.reshape(whole, *losses.shape[2:])
    if whole == count:
        return losses
    rest = jax.tree.map(lambda leaf: leaf[whole:], data)
    return jnp.concatenate([losses, reduce(loss_fn(params, rest))])


def chunk_for(loss_fn: LossFn, params: PyTree, data: PyTree, copies: int = 1) -> int:
    """How many examples may be looked at at a time, side by side at so many parameters, in bounded memory.

    Args:
      loss_fn, params, data: As always; only their shapes are used.
      copies: Parameters that are looked at at once, such as those of all chains.

    Returns:
      At least 1, at most ``CENTER_CHUNK``: so many that the widest array of a forward pass, as far as it grows with the
      examples, takes no more than ``WIDEST_BYTES`` on CPU, and ``WIDEST_BYTES_ELSEWHERE`` elsewhere.

    >>> loss_fn = lambda w, x: jnp.sum(jnp.tanh(x @ w), axis=1)
    >>> chunk_for(loss_fn, jnp.zeros((8, 2**15)), jnp.zeros((5000, 8)), copies=4)  # on CPU
    64
    """
    sizes = []
    for few in (2, 3):
        some = jax.tree.map(
            lambda leaf, few=few: jax.ShapeDtypeStruct((few, *jnp.shape(leaf)[1:]), jnp.result_type(leaf)), data
        )
        try:
            sizes.append(_widths(jax.make_jaxpr(loss_fn)(params, some).jaxpr))
        except (TypeError, ValueError, LookupError, AttributeError):
            # a loss that is made for all of the examples, and for no others
            return CENTER_CHUNK
    widest = max((more - less for less, more in zip(*sizes, strict=False)), default=0)
    most = WIDEST_BYTES if jax.default_backend() == "cpu" else WIDEST_BYTES_ELSEWHERE
    return int(np.clip(most // max(copies * widest, 1), 1, CENTER_CHUNK))


def _widths(program: Any) -> list[int]:
    """Bytes of the results of every step of a traced program, and of the programs inside it."""
    found = []
    for step in program.eqns:
        found.append(sum(math.prod(out.aval.shape) * out.aval.dtype.itemsize for out in step.outvars))
        for inner in jax.tree.leaves(tuple(step.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                found += _widths(inner)
    return found


def mean_over(image: Callable[[PyTree], PyTree], data: PyTree, chunk: int) -> PyTree:
    """The mean over all examples of a mean over examples, one piece of ``chunk`` examples at a time.

    Args:
      image: ``image(examples)``: a tree of arrays, each the mean over these examples.
      data: All examples.
      chunk: Examples that are looked at at a time.
    """
    count = example_count(data)
    if count <= chunk:
        return image(data)
    whole = count - count % chunk
    pieces = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:whole].reshape(-1, chunk, *jnp.shape(leaf)[1:]), data)
    zero = tree.zeros_like(jax.eval_shape(image, jax.tree.map(lambda leaf: leaf[0], pieces)))
    total, _ = jax.lax.scan(lambda sums, piece: (tree.add(sums, image(piece)), None), zero, pieces)
    total = tree.scale(chunk / count, total)
    if whole == count:
        return total
    rest = image(jax.tree.map(lambda leaf: jnp.asarray(leaf)[whole:], data))
    return tree.combine(lambda sums, last: sums + (count - whole) / count * last, total, rest)


def check_finite(losses: Array) -> None:
    """Refuse losses at the centre that are not finite; does nothing where they are traced.

    Raises:
      ValueError: naming how many of the losses are not finite and the first of them.
    """
    if tree.is_traced(losses):
        return
    bad = ~np.isfinite(np.asarray(losses))
    if bad.any():
        where = f"; the first at example {int(np.argmax(bad))}" if losses.ndim else ""
        raise ValueError(
            f"loss_fn: {int(bad.sum())} of {math.prod(losses.shape)} losses at params are not finite{where}. "
            "Check params and data for NaN, and the loss for log(0) or division by 0."
        )


def _losses_shape(loss_fn: LossFn, params: PyTree, data: PyTree) -> PyTree:
    try:
        return jax.eval_shape(loss_fn, params, data)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        # what a loss raises that was written for other parameters or other data, or got them in another order
        shapes = [jax.tree.map(jnp.shape, tree) for tree in (params, data)]
        message = next(iter(str(error).strip().splitlines()), "")
        raise ValueError(
            f"loss_fn: failed on params of shapes {shapes[0]} and data of shapes {shapes[1]} ({type(error).__name__}: "
            f"{message}). It is called as loss_fn(params, batch), traced: write it in jax.numpy."
        ) from error


def _second_axis_counts_examples(loss_fn: LossFn, params: PyTree, data: PyTree, count: int) -> bool:
    """Whether one example more makes both axes longer; unknown, and taken for no, where the loss refuses it."""
    longer = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((count + 1, *jnp.shape(leaf)[1:]), jnp.result_type(leaf)), data
    )
    try:
        return jax.eval_shape(loss_fn, params, longer).shape == (count + 1, count + 1)
    except (TypeError, ValueError):
        return False


def _check_params(params: PyTree) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise ValueError("params: got a tree without leaves; pass the trained parameters.")
    for path, leaf in leaves:
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(
                f"params: leaf '{tree.path_name(path)}' has dtype {dtype}; all parameters must be floating point. "
                "Pass only trainable parameters and close over the rest (jax.tree_util.Partial)."
            )
