"""What a recorder sees beside losses and concepts: outputs along random directions, norms of weights and gradients."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import loss, tree
from slt_jax.problem import Problem
from slt_jax.spectroscopy.subject import WHOLE_NETWORK, mean_loss
from slt_jax.types import Array, Key, PyTree

#: The name under which the report looks for projections of the outputs.
OUTPUTS = "outputs"
#: Random directions: inner products of outputs are then right to about an eighth of the product of the lengths.
DIRECTIONS = 128
#: The most signs that are kept, a byte each.
_MOST_SIGNS = 2**29


class Observation(NamedTuple):
    """Something to record that is more than one number, or is no concept; made by ``observation``.

    Attributes:
      function: ``function(params)``, an array or a tree of arrays.
      missing: What stands where nothing was recorded, NaN in the shapes of what the function returns.
    """

    function: Callable[[PyTree], PyTree]
    missing: PyTree


def observation(function: Callable[[PyTree], PyTree], params: PyTree) -> Observation:
    """Something to record beside losses and concepts, such as ``project_outputs`` or ``norms``.

    Args:
      function: ``function(params)``: an array or a tree of arrays, of floating point, of the same shapes at every step.
      params: Parameters of the right structure; nothing is computed with them.

    Raises:
      ValueError: the function fails on parameters of these shapes, or returns something else.

    >>> observation(lambda w: {"size": jnp.sum(w**2)}, jnp.ones(3)).missing
    {'size': Array(nan, dtype=float32)}
    """
    if not callable(function):
        raise ValueError(f"is a {type(function).__name__}; it must be a function of the params.")
    try:
        shapes = jax.eval_shape(function, params)
    except (TypeError, LookupError, AttributeError) as error:
        # what a function raises that was written for other parameters
        message = str(error).strip().splitlines()[0]
        raise ValueError(f"failed ({type(error).__name__}: {message}).") from error
    leaves = jax.tree.leaves(shapes)
    if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        got = ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves) or "nothing"
        raise ValueError(f"returned {got}; an observation is an array of floating point, or a tree of such.")
    kept = function if isinstance(function, Partial) else Partial(function)
    return Observation(kept, jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), shapes))


def project_outputs(
    key: Key, outputs: Callable[[PyTree, PyTree], PyTree], params: PyTree, batch: PyTree, count: int = DIRECTIONS
) -> Partial:
    """Outputs on fixed inputs along ``k`` fixed random directions, whose principal components are those of the outputs.

    With ``y`` all outputs in a row, of length ``N``, and ``S`` an ``(N, k)`` matrix of independent signs,
    ``p = Sᵀ y / √k``. Then ``E[p · p'] = y · y'`` exactly, with variance
    ``(|y|² |y'|² + (y · y')² - 2 Σ y_i² y'_i²) / k`` (Johnson and Lindenstrauss; signs as in Achlioptas): what depends
    only on inner products of the outputs at different steps, such as their principal components over time, can be had
    from ``k`` numbers a step.

    Args:
      key: Of the directions; the same key, the same directions.
      outputs: ``outputs(params, batch)``, an array or a tree of arrays whose leading axes are the examples.
      params: Of the right structure; nothing is computed with them.
      batch: The fixed inputs.
      count: ``k``, even: half of them tell how far the other half can be believed.

    Returns:
      ``projection(params)``, shape ``(k,)``, in the units of the outputs; for ``Subject.observations`` under the name
      ``"outputs"``, and then for ``essential_dynamics``.

    Raises:
      ValueError: ``count`` is not a positive even number; the outputs fail on this batch, have another leading axis
        than its examples, or are not floating point; they are too many for so many directions.

    Not to be believed where small changes matter beside large ones: the error of a distance between two steps is a
    share ``√(2/k)`` of it, and a component that holds far less of the variance than that drowns in the largest.

    Sources: Johnson & Lindenstrauss 1984; Achlioptas 2003, Journal of Computer and System Sciences 66.

    >>> look = project_outputs(jax.random.key(0), lambda w, x: x @ w, jnp.ones((3, 2)), jnp.eye(3), count=6)
    >>> look(jnp.zeros((3, 2))).tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    tree.check_key(key)
    if count < 2 or count % 2:
        raise ValueError(f"count: got {count}; it must be an even number of directions, at least 2.")
    size = _check_outputs(outputs, params, batch)
    if size * count > _MOST_SIGNS:
        raise ValueError(
            f"batch: gives {size} outputs, too many for {count} directions; take fewer of its examples or positions."
        )
    signs = jax.random.rademacher(key, (size, count), jnp.int8)
    return Partial(_projected, outputs if isinstance(outputs, Partial) else Partial(outputs), batch, signs)


def norms(problem: Problem, groups: Mapping[str, str | Sequence[str]] = {}) -> dict[str, Partial]:
    """Euclidean norms of the weights and of the gradient of the mean loss, of the whole and by groups of leaves.

    ``|w_G|`` and ``|∂L/∂w_G|`` (nats per unit of weight), with ``L`` the mean loss on all data of the problem.

    Args:
      problem: Whose loss, of parameters of whose structure.
      groups: Patterns of paths by the name of the group, as for ``restriction.paths``.

    Returns:
      ``{"weight norm": ..., "gradient norm": ...}`` for ``Subject.observations``; each gives a dict of numbers of shape
      ``()``, of the whole under ``"full"``, of each group under its name.

    Raises:
      ValueError: a pattern matches no leaf, or a group is called ``"full"``.

    Not to be believed as progress: a small gradient norm is a plateau or an end, and a minibatch has a larger one.

    >>> params = {"a": jnp.array(3.0), "b": jnp.array(4.0)}
    >>> look = norms(Problem(lambda w, x: 0.5 * (w["a"] * x + w["b"]) ** 2, params, jnp.zeros(2)), {"b": "b"})
    >>> {name: float(value) for name, value in look["weight norm"](params).items()}
    {'full': 5.0, 'b': 4.0}
    """
    names = tree.leaf_names(problem.params)
    members: dict[str, tuple[bool, ...]] = {WHOLE_NETWORK: (True,) * len(names)}
    for group, given in groups.items():
        patterns = (given,) if isinstance(given, str) else tuple(given)
        if group == WHOLE_NETWORK:
            raise ValueError(f"groups: {group!r} stands for the whole already; choose another name.")
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(f"groups: {pattern!r} matches no leaf; the paths in params are {names}.")
        members[group] = tuple(any(fnmatchcase(name, pattern) for pattern in patterns) for name in names)
    chosen = tree.Static(tuple(members.items()))
    loss_fn = problem.loss_fn if isinstance(problem.loss_fn, Partial) else Partial(problem.loss_fn)
    return {
        "weight norm": Partial(_norms_of, chosen),
        "gradient norm": Partial(_gradient_norms, chosen, loss_fn, problem.data),
    }


def _projected(outputs: Partial, batch: PyTree, signs: Array, params: PyTree) -> Array:
    found = [jnp.ravel(leaf) for leaf in jax.tree.leaves(tree.at_least_float32(outputs(params, batch)))]
    flat = jnp.concatenate(found)
    # not in the reduced precision of an accelerator: differences of steps are what is looked at
    return jnp.matmul(flat, signs.astype(flat.dtype), precision="highest") / np.sqrt(signs.shape[1])


def _norms_of(members: tree.Static, params: PyTree) -> dict[str, Array]:
    squares = tree.dot_by_leaf(params, params)
    return {name: jnp.sqrt(jnp.sum(squares[np.flatnonzero(chosen)])) for name, chosen in members.value}


def _gradient_norms(members: tree.Static, loss_fn: Partial, data: PyTree, params: PyTree) -> dict[str, Array]:
    return _norms_of(members, jax.grad(lambda moved: mean_loss(loss_fn, moved, data))(params))


def _check_outputs(outputs: Callable[[PyTree, PyTree], PyTree], params: PyTree, batch: PyTree) -> int:
    """The number of all outputs.

    Raises:
      ValueError: as ``project_outputs``.
    """
    if not callable(outputs):
        raise ValueError(f"outputs: got a {type(outputs).__name__}; pass a function outputs(params, batch).")
    examples = loss.example_count(batch)
    try:
        shapes = jax.tree.leaves(jax.eval_shape(outputs, params, batch))
    except (TypeError, LookupError, AttributeError) as error:
        message = str(error).strip().splitlines()[0]
        raise ValueError(f"outputs: failed on this batch ({type(error).__name__}: {message}).") from error
    for leaf in shapes:
        if leaf.shape[:1] != (examples,) or not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"outputs: returned {leaf.dtype}{list(leaf.shape)} on {examples} examples; they must be floating point "
                f"with the examples as their leading axis, shape ({examples}, ...)."
            )
    if not shapes:
        raise ValueError("outputs: returned nothing; return an array of shape (examples, ...).")
    return tree.size(shapes)
