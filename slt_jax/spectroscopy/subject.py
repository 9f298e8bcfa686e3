"""What is looked at while a network develops: its loss, the parts of that loss, and what it may have learned."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax import loss
from slt_jax import restriction as restrictions
from slt_jax.problem import Problem
from slt_jax.restriction import Restriction
from slt_jax.types import Array, LossFn, PyTree

#: The name of the whole loss among the sublosses, and of the whole network among the restrictions.
WHOLE_LOSS, WHOLE_NETWORK = "all", "full"


class Subloss(NamedTuple):
    """A part of what is learned: another loss, other data, or both.

    Attributes:
      loss_fn: Losses in nats, under the same contract as that of a ``Problem``.
      data: The examples it is measured on.
      relabel: Applied before a checkpoint is probed; the history records the loss as it is. With the network's own
        answers as the truth every checkpoint is a minimum, and the probe reads the degeneracy of its own function.
        ``relabel(params, data)`` returns the data with these as targets, or a whole ``Problem`` where the loss cannot
        take them: ``jax.jit(functools.partial(self_reference, outputs))``.
    """

    loss_fn: LossFn
    data: PyTree
    relabel: Callable[[PyTree, PyTree], PyTree | Problem] | None = None


class Subject(NamedTuple):
    """Everything that a developmental study measures on one network.

    Attributes:
      problem: The loss, parameters of the right structure (their values are not used), and the training data.
      sublosses: Parts of the loss, by name.
      concepts: ``concept(params) -> ()``: independent probes of what was learned, by name; 0 before, about 1 after.
      restrictions: Free directions to measure in, by name; the whole network is always there as ``"full"``.
      relabel: As in ``Subloss``, for the whole loss.
      observations: What else is recorded over time, by name: ``observation(params)`` returns an array, or a dict of
        arrays, such as ``project_outputs`` and ``norms`` make.
      answers: ``answers(params) -> (items, outputs)``: what the network says of a fixed list of items (examples,
        classes, prompts; some tens to hundreds), by which it is told which distinction splits which; or ``None``.
      stages: Parts of the network by name, masks that do not overlap, in the order in which they can read one another:
        what each gained in training is set beside what it gains without those before it.
    """

    problem: Problem
    sublosses: Mapping[str, Subloss] = {}
    concepts: Mapping[str, Callable[[PyTree], Array]] = {}
    restrictions: Mapping[str, Restriction] = {}
    relabel: Callable[[PyTree, PyTree], PyTree | Problem] | None = None
    observations: Mapping[str, Callable[[PyTree], PyTree]] = {}
    answers: Callable[[PyTree], Array] | None = None
    stages: Mapping[str, Restriction] = {}


def as_subject(value: object) -> Subject:
    """A Subject from what a user's function returned: a Subject, a Problem, or ``(Problem, {"sublosses": ...})``.

    Raises:
      ValueError: for anything else, or an unknown name in the mapping.
    """
    if isinstance(value, Subject):
        return value
    if isinstance(value, Problem):
        return Subject(value)
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], Problem) and isinstance(value[1], Mapping):
        unknown = sorted(set(value[1]) - set(Subject._fields[1:]))
        if unknown:
            raise ValueError(f"problem: got the unknown entry {unknown[0]!r}; known are {Subject._fields[1:]}.")
        for name in ("sublosses", "concepts", "restrictions", "observations", "stages"):
            if not isinstance(value[1].get(name, {}), Mapping):
                raise ValueError(f"problem: {name} is a {type(value[1][name]).__name__}; it must be a dict by name.")
        return Subject(value[0], **value[1])
    raise ValueError(
        f"problem: the function returned a {type(value).__name__}; it must return a slt_jax.Problem, a "
        "slt_jax.spectroscopy.Subject, or a pair (Problem, {'sublosses': ..., 'concepts': ..., 'restrictions': ...})."
    )


def parts(subject: Subject) -> dict[str, Subloss]:
    """The whole loss (as ``"all"``) and every subloss, by name."""
    whole = Subloss(subject.problem.loss_fn, subject.problem.data, subject.relabel)
    return {WHOLE_LOSS: whole, **subject.sublosses}


def problem_at(part: Subloss, params: PyTree) -> Problem:
    """The problem that a probe is pointed at: this part of the loss, with its centre at ``params``."""
    made = part.data if part.relabel is None else part.relabel(params, part.data)
    return made if isinstance(made, Problem) else Problem(part.loss_fn, params, made)


def mean_loss(loss_fn: LossFn, params: PyTree, data: PyTree) -> Array:
    """Mean loss per example, nats, shape ``()``."""
    function = loss_fn if isinstance(loss_fn, Partial) else Partial(loss_fn)
    return jnp.mean(loss.at_center(function, params, data))


def check_subject(subject: Subject) -> None:
    """Refuse a subject whose losses, concepts or restrictions break their contracts, without computing anything.

    Raises:
      ValueError: naming the subloss, the concept or the restriction.
    """
    for name, part in parts(subject).items():
        if not isinstance(part, Subloss):
            raise ValueError(
                f"subloss {name!r}: is a {type(part).__name__}; make it a slt_jax.spectroscopy.Subloss(loss_fn, data)."
            )
        try:
            loss.check(part.loss_fn, subject.problem.params, part.data)
        except ValueError as error:
            raise ValueError(f"subloss {name!r}: {error}") from error
        except (TypeError, LookupError, AttributeError) as error:
            # what a loss raises that was written for other parameters or other data
            message = str(error).strip().splitlines()[0]
            raise ValueError(f"subloss {name!r}: loss_fn failed ({type(error).__name__}: {message}).") from error
    for name, concept in subject.concepts.items():
        if not callable(concept):
            raise ValueError(f"concept {name!r}: is a {type(concept).__name__}; it must be a function of the params.")
        shape = jax.eval_shape(concept, subject.problem.params).shape
        if shape != ():
            raise ValueError(f"concept {name!r}: returned shape {shape}; a concept is one number, shape ().")
    if subject.answers is not None:
        shape = jax.eval_shape(subject.answers, subject.problem.params).shape
        if len(shape) != 2:
            raise ValueError(f"answers: returned shape {shape}; pass a function that returns (items, outputs).")
    for name, free in {**subject.restrictions, **subject.stages}.items():
        try:
            restrictions.check(free, subject.problem.params)
        except ValueError as error:
            raise ValueError(f"restriction {name!r}: {error}") from error
    reserved = {WHOLE_LOSS} & set(subject.sublosses) | {WHOLE_NETWORK} & set(subject.restrictions)
    if reserved:
        raise ValueError(f"name {sorted(reserved)[0]!r} stands for the whole already; choose another.")
