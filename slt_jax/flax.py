"""Turns a Flax module (linen or nnx) into ``(loss_fn, params)`` or ``(outputs, params)``; it is never changed."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from flax import linen, nnx
from jax.tree_util import Partial

from slt_jax.types import Array, Key, PyTree

#: ``objective(outputs, batch)``: losses in nats, ``(B,)``, ``(B, T)`` or ``()``.
Objective = Callable[[Any, PyTree], Array]


def from_linen(
    module: linen.Module,
    objective: Objective | None = None,
    variables: Mapping[str, PyTree] | None = None,
    *,
    inputs: Callable[[PyTree], Any] | None = None,
    rngs: Mapping[str, Key] | None = None,
    **call: Any,
) -> tuple[Partial, PyTree]:
    """A loss and parameters from a linen module; without an objective, its outputs and parameters.

    ``loss_fn(params, batch) = objective(module.apply({"params": params, **rest}, inputs(batch), **call), batch)``.
    Every collection but ``"params"`` is held fixed: batch normalisation uses its running statistics if the module is
    told to (``from_linen(..., train=False)``), and no call updates them. Dropout is off if the module is told so;
    otherwise pass ``rngs={"dropout": key}``, and every step sees the same mask.

    Args:
      module: A module, or a bound one (``module.bind(variables)``).
      objective: ``objective(outputs, batch)``; ``None`` for the outputs themselves, as ``self_reference`` takes them.
      variables: What ``module.init`` returned, as trained; not needed for a bound module.
      inputs: What of a batch goes into the module; default the first element of a tuple or list, the entry
        ``"inputs"`` of a dict, or the batch itself where it is an array.
      rngs: Keys for modules that draw random numbers, fixed.
      **call: Further keyword arguments of the module's ``__call__``, fixed: flags such as ``train=False``.

    Returns:
      ``loss_fn`` (or ``outputs(params, batch)``), which compiles once for all parameters of one architecture, and
      ``params``.

    Raises:
      ValueError: there are no variables, or they have no ``"params"``; the objective is no function.

    >>> import jax.numpy as jnp
    >>> module, x = linen.Dense(1), jnp.ones((4, 3))
    >>> variables = module.init(jax.random.key(0), x)
    >>> squared = lambda outputs, batch: 0.5 * (outputs[:, 0] - batch[1]) ** 2
    >>> loss_fn, params = from_linen(module, squared, variables)
    >>> loss_fn(params, (x, jnp.zeros(4))).shape
    (4,)
    >>> outputs, params = from_linen(module, variables=variables)
    >>> outputs(params, (x, jnp.zeros(4))).shape
    (4, 1)
    """
    if not isinstance(module, linen.Module):
        raise ValueError(f"module: got a {type(module).__name__}; pass a flax.linen.Module, or use from_nnx.")
    _check_objective(objective)
    if variables is None:
        if module.scope is None:
            raise ValueError("variables: got none and the module is not bound; pass what module.init returned.")
        module, variables = module.unbind()
    if not isinstance(variables, Mapping):
        raise ValueError(f"variables: got a {type(variables).__name__}; pass the dict that module.init returned.")
    if "params" not in variables:
        raise ValueError(f"variables: has no 'params', only {sorted(variables)}; pass the whole result of module.init.")
    rest = {name: value for name, value in variables.items() if name != "params"}
    function = _LinenFunction(module, objective, inputs, tuple(sorted(call.items())))
    return Partial(function, rest, dict(rngs or {})), variables["params"]


def from_nnx(
    model: nnx.Module, objective: Objective | None = None, *, inputs: Callable[[PyTree], Any] | None = None
) -> tuple[Partial, PyTree]:
    """A loss and parameters from an nnx model; without an objective, its outputs and parameters.

    The model is copied and the copy put into evaluation mode (``eval()``): dropout is off and batch normalisation uses
    its running statistics, which no call updates. Only ``nnx.Param`` variables are parameters; all else is fixed.

    Args:
      model: A trained model; it is not changed.
      objective: ``objective(outputs, batch)``; ``None`` for the outputs themselves, as ``self_reference`` takes them.
      inputs: What of a batch goes into the model; default as in ``from_linen``.

    Returns:
      ``loss_fn`` (or ``outputs(params, batch)``), which compiles once for all models of one architecture, and
      ``params``, a nest of dicts.

    Raises:
      ValueError: the model has no parameters; the objective is no function.

    >>> import jax.numpy as jnp
    >>> model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    >>> squared = lambda outputs, batch: 0.5 * (outputs[:, 0] - batch[1]) ** 2
    >>> loss_fn, params = from_nnx(model, squared)
    >>> loss_fn(params, (jnp.ones((4, 3)), jnp.zeros(4))).shape, sorted(params)
    ((4,), ['bias', 'kernel'])
    """
    if not isinstance(model, nnx.Module):
        raise ValueError(f"model: got a {type(model).__name__}; pass a flax.nnx.Module, or use from_linen.")
    _check_objective(objective)
    copy = nnx.clone(model)
    copy.eval()
    graph, everything = nnx.split(copy)
    state, rest = nnx.filter_state(everything, nnx.Param), nnx.filter_state(everything, nnx.Not(nnx.Param))
    params = nnx.to_pure_dict(state)
    if not jax.tree.leaves(params):
        raise ValueError(f"model: {type(model).__name__} has no nnx.Param; there is nothing to measure.")
    return Partial(_NnxFunction(graph, objective, inputs), nnx.to_pure_dict(rest)), params


class _LinenFunction(NamedTuple):
    """Compared by its fields, so that two calls with one architecture share their compilations."""

    module: linen.Module
    objective: Objective | None
    inputs: Callable[[PyTree], Any] | None
    call: tuple[tuple[str, Any], ...]

    def __call__(self, rest: PyTree, rngs: dict[str, Key], params: PyTree, batch: PyTree) -> Any:
        values = _inputs_of(batch) if self.inputs is None else self.inputs(batch)
        outputs = self.module.apply({"params": params, **rest}, values, rngs=rngs or None, **dict(self.call))
        return outputs if self.objective is None else self.objective(outputs, batch)


class _NnxFunction(NamedTuple):
    """Compared by its fields, so that two models of one architecture share their compilations."""

    graph: nnx.GraphDef
    objective: Objective | None
    inputs: Callable[[PyTree], Any] | None

    def __call__(self, rest: PyTree, params: PyTree, batch: PyTree) -> Any:
        # merged anew at every call: whatever the model writes to itself is dropped with it
        model = nnx.merge(self.graph, nnx.State(_merged(rest, params)))
        values = _inputs_of(batch) if self.inputs is None else self.inputs(batch)
        outputs = model(values)
        return outputs if self.objective is None else self.objective(outputs, batch)


def _check_objective(objective: object) -> None:
    # the variables in the place of the objective would otherwise be called as a function, much later
    if objective is not None and not callable(objective):
        raise ValueError(
            f"objective: got a {type(objective).__name__}; pass a function objective(outputs, batch), or none for "
            "the outputs themselves, with what module.init returned as variables=."
        )


def _merged(left: PyTree, right: PyTree) -> PyTree:
    """The union of two nests of dicts whose leaves do not overlap."""
    if not (isinstance(left, dict) and isinstance(right, dict)):
        return right
    return {**left, **{name: _merged(left[name], value) if name in left else value for name, value in right.items()}}


def _inputs_of(batch: PyTree) -> Any:
    if isinstance(batch, (tuple, list)):
        return batch[0]
    if isinstance(batch, Mapping):
        if "inputs" not in batch:
            raise ValueError(f"batch: is a dict without 'inputs' ({sorted(batch)}); pass inputs=lambda batch: ....")
        return batch["inputs"]
    return batch
