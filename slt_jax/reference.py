"""A network's own answers as the truth: a loss of which any parameters, trained or not, are a minimum."""

import math
from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import loss, tree
from slt_jax.problem import Problem
from slt_jax.types import Array, PyTree

#: ``outputs(params, batch)``: what a network answers, an array or a tree of arrays with a leading example axis.
Outputs = Callable[[PyTree, PyTree], PyTree]

#: Below this a logarithm of a ratio counts as small, and ``e^x - 1 - x`` is summed as a series, which does not cancel.
_SMALL = 0.5
#: Terms of that series, exact to rounding up to ``_SMALL``, in single and in double precision.
_TERMS, _TERMS_OF_DOUBLE = 8, 14


class Referenced(NamedTuple):
    """Examples, and what the network answered to them at the centre.

    Attributes:
      examples: A tree like the data, leading axis ``B``.
      outputs: A tree like the network's outputs, leading axis ``B``, in at least float32.
    """

    examples: PyTree
    outputs: PyTree


def self_reference(outputs: Outputs, params: PyTree, data: PyTree, *, divergence: str = "squared") -> Problem:
    """The problem whose truth is the network's own function at ``params``: its degeneracy at any centre.

    ``K(w) = mean_x D(f(w*; x), f(w; x))``, where ``f`` are the outputs and ``D`` is

    - ``"squared"``: ``½ |f(w) - f(w*)|²``, summed over all axes of the outputs but the first: nats of a Gaussian of
      unit variance;
    - ``"categorical"``: ``KL(softmax f(w*) ‖ softmax f(w))`` over the last axis, in nats.

    ``K`` is 0 at ``w*`` and nowhere negative, so every ``w*`` is a minimum and λ̂ is nowhere negative beyond rounding.
    To second order ``K`` is half the square of a displacement in the Fisher metric: where the rank of the Jacobian of
    ``f`` (the Fisher information, for ``"categorical"``) is constant around ``w*``, λ is half of it.
    Differentiating does not go through the stored outputs: they are constants.

    Args:
      outputs: ``outputs(params, batch)``: an array or a tree of arrays whose leading axes are the example axis; an
        answer must not depend on the other examples of its batch. For ``"categorical"``, logits ``(B, V)`` or
        ``(B, T, V)``. For Flax: ``outputs, params = from_linen(module, variables=variables)``.
      params: The centre ``w*``; it need not be a minimum of anything.
      data: All examples; labels may stay in it, they are not used.
      divergence: ``"squared"`` or ``"categorical"``.

    Returns:
      A problem in nats: losses ``(B,)``, or per token ``(B, T)`` for logits ``(B, T, V)``. Its data are ``Referenced``:
      the data beside the outputs at ``w*``, computed in one pass, ``n`` times the size of an output in memory. Its
      ``loss_fn`` is the same for all centres, so that one compilation serves a whole training run.

    Raises:
      ValueError: an unknown divergence, outputs without an example axis or that are no logits, before anything is
        computed; outputs that are not finite, unless they are traced.

    When not to believe it:
      It says nothing about the loss that the network was trained on: a direction along which the function changes but
      the training loss does not counts in full. The reference is as sharp as the arithmetic: where two compilations
      round the outputs differently by δ, ``K`` is wrong by about ``δ sqrt(2 K)``, which matters for matrix products in
      reduced precision. Batch statistics and dropout must be held fixed.

    Source: Lau et al. 2023, arXiv:2308.12108, for λ̂; Watanabe 2009, Algebraic Geometry and Statistical Learning
    Theory, for the divergence from a realisable truth.

    >>> problem = self_reference(lambda w, x: jnp.outer(x, w), jnp.array([3.0, 4.0]), jnp.ones(10))
    >>> problem.loss_fn(problem.params, problem.data).sum(), problem.loss_fn(jnp.array([3.0, 6.0]), problem.data)[0]
    (Array(0., dtype=float32), Array(2., dtype=float32))
    """
    if not callable(outputs):
        raise ValueError(f"outputs: got a {type(outputs).__name__}; pass a function outputs(params, batch).")
    if divergence not in _LOSSES:
        raise ValueError(f"divergence: got {divergence!r}; it must be one of {sorted(_LOSSES)}.")
    count = loss.example_count(data)
    _check_shapes(_shapes(outputs, params, data), count, divergence)
    function = outputs if isinstance(outputs, Partial) else Partial(outputs)
    own = _own_outputs(function, params, data)
    _check_finite(own)
    return Problem(Partial(_LOSSES[divergence], function), params, Referenced(data, own))


def _squared(outputs: Partial, params: PyTree, batch: Referenced) -> Array:
    """Half the squared distance from the stored outputs, summed over all their axes but the first, shape ``(B,)``."""
    return 0.5 * _total(_squared_distance, batch.outputs, outputs(params, batch.examples))


def _squared_distance(reference: Array, found: Array) -> Array:
    return jnp.sum(jnp.square(found - reference), axis=tuple(range(1, reference.ndim)))


def _categorical(outputs: Partial, params: PyTree, batch: Referenced) -> Array:
    """Divergence of the answers from the stored ones, shape ``(B,)`` or ``(B, T)``."""
    return _total(categorical_divergence, batch.outputs, outputs(params, batch.examples))


_LOSSES = {"squared": _squared, "categorical": _categorical}


@jax.custom_jvp
def categorical_divergence(reference: Array, logits: Array) -> Array:
    """``KL(softmax reference ‖ softmax logits)`` over the last axis, in nats; exact to rounding however small it is.

    With ``p`` and ``q`` the two distributions and ``g = log(q/p)`` it is ``Σ p (e^g - 1 - g)``, because both sum to 1.
    No term is negative, so nothing cancels, where ``-Σ p g`` loses all digits of a divergence below 1e-7 in single
    precision. The gradient ``q - p`` is likewise taken as ``p (e^g - 1)`` where ``g`` is small.

    Args:
      reference: Logits, shape ``(..., V)``.
      logits: Logits, shape ``(..., V)``.

    Returns:
      Shape ``(...)``; exactly 0 where the two are equal.

    >>> reference = jnp.array([1.0, 2.0, 4.0])
    >>> [float(categorical_divergence(reference, logits)) for logits in (reference, reference[::-1])]
    [0.0, 2.405...]
    """
    p, gain, difference = _compared(reference, logits)
    small, terms = _series(gain)
    return jnp.sum(jnp.where(jnp.abs(gain) < _SMALL, p * small * small * terms, difference - p * gain), axis=-1)


@categorical_divergence.defjvp
def _categorical_divergence_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    divergence = categorical_divergence(*primals)
    p, gain, difference = _compared(*primals)
    change = gain + divergence[..., None]
    return divergence, jnp.sum(difference * tangents[1] - p * change * tangents[0], axis=-1)


def _compared(reference: Array, logits: Array) -> tuple[Array, Array, Array]:
    """``p``, ``log(q/p)`` and ``q - p``, the last two precise even where ``q`` is almost ``p``."""
    (p, top, total), (q, found_top, found_total) = _normalised(reference), _normalised(logits)
    # tops from tops and totals from totals: a constant that is added to all logits, however large, costs no digits
    gain = ((logits - reference) - (found_top - top)) - (found_total - total)
    small, terms = _series(gain)
    difference = jnp.where(jnp.abs(gain) < _SMALL, p * small * (1 + small * terms), q - p)
    # the totals are rounded, by more than a small gain; the differences must sum to 0, which says by how much
    surplus = jnp.sum(difference, axis=-1, keepdims=True)
    return p, gain - jnp.log1p(surplus), difference - (p + difference) * (surplus / (1 + surplus))


def _normalised(logits: Array) -> tuple[Array, Array, Array]:
    """Probabilities, the largest logit and the logarithm of the sum of the exponentials below it."""
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.exp(logits - top)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return weights / total, top, jnp.log(total)


def _series(gain: Array) -> tuple[Array, Array]:
    """The gain where it is small, else 0, and ``(e^x - 1 - x) / x²`` of it."""
    small = jnp.where(jnp.abs(gain) < _SMALL, gain, 0.0)
    terms = jnp.zeros_like(gain)
    for power in reversed(range(_TERMS_OF_DOUBLE if gain.dtype == jnp.float64 else _TERMS)):
        terms = terms * small + 1 / math.factorial(power + 2)
    return small, terms


def _total(distance: Callable[[Array, Array], Array], reference: PyTree, found: PyTree) -> Array:
    """The sum of a distance over all leaves."""
    return reduce(jnp.add, jax.tree.leaves(jax.tree.map(distance, reference, tree.at_least_float32(found))))


@jax.jit
def _own_outputs(outputs: Partial, params: PyTree, data: PyTree) -> PyTree:
    """Outputs on all of the data as constants, in pieces that bound the memory of one forward pass."""

    def answers(examples: PyTree) -> PyTree:
        return jax.lax.stop_gradient(tree.at_least_float32(outputs(params, examples)))

    count, size = loss.example_count(data), loss.CENTER_CHUNK
    if count <= size:
        return answers(data)
    whole = count - count % size
    pieces = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, size, *leaf.shape[1:]), data)
    found = jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), jax.lax.map(answers, pieces))
    if whole == count:
        return found
    return jax.tree.map(
        lambda *parts: jnp.concatenate(parts), found, answers(jax.tree.map(lambda leaf: leaf[whole:], data))
    )


def _shapes(outputs: Outputs, params: PyTree, data: PyTree) -> PyTree:
    try:
        return jax.eval_shape(outputs, params, data)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        # what a network raises that got other parameters or other data, or both in another order
        shapes = [jax.tree.map(jnp.shape, value) for value in (params, data)]
        message = next(iter(str(error).strip().splitlines()), "")
        raise ValueError(
            f"outputs: failed on params of shapes {shapes[0]} and data of shapes {shapes[1]} ({type(error).__name__}: "
            f"{message}). It is called as outputs(params, batch), traced: write it in jax.numpy."
        ) from error


def _check_shapes(shapes: PyTree, count: int, divergence: str) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    if not leaves:
        raise ValueError("outputs: returned a tree without arrays; return what the network answers.")
    for path, leaf in leaves:
        where = f"leaf '{tree.path_name(path)}' has" if path else "returned"
        if not leaf.shape or leaf.shape[0] != count:
            raise ValueError(
                f"outputs: {where} shape {leaf.shape} on data of {count} examples; the leading axis must be the "
                "example axis. Return the answers themselves, not their mean."
            )
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"outputs: {where} dtype {leaf.dtype}; return floating-point answers, not decisions.")
        if divergence == "categorical" and (len(leaf.shape) not in (2, 3) or leaf.shape[-1] < 2):
            raise ValueError(
                f"outputs: {where} shape {leaf.shape}; the categorical divergence needs logits ({count}, V) or "
                f"({count}, T, V) of at least 2 classes V. For other answers pass divergence='squared'."
            )
    if divergence == "categorical" and len({leaf.shape[:-1] for _, leaf in leaves}) > 1:
        found = {tree.path_name(path): leaf.shape for path, leaf in leaves}
        raise ValueError(f"outputs: logits of shapes {found}; all must have the same axes but the last.")


def _check_finite(own: PyTree) -> None:
    if tree.is_traced(own):
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(own):
        bad = ~np.isfinite(np.asarray(leaf)).reshape(len(leaf), -1).all(axis=1)
        if bad.any():
            where = f" in leaf '{tree.path_name(path)}'" if path else ""
            raise ValueError(
                f"outputs: the answers to {int(bad.sum())} of {len(leaf)} examples at params are not finite{where}; "
                f"the first at example {int(np.argmax(bad))}. Check params and data for NaN, and mask logits with a "
                "large negative number, not with -inf."
            )
