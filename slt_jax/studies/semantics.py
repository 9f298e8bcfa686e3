"""Study ``semantics``: a deep linear network learns a hierarchy of living things, one distinction after another."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax.problem import Problem
from slt_jax.restriction import paths
from slt_jax.spectroscopy import Subject, Subloss, llc_probe, norms, project_outputs
from slt_jax.studies.hierarchy import Hierarchy, hierarchy, initial, outputs, squared_loss
from slt_jax.studies.study import Study, log_steps
from slt_jax.truths import Truth, deep_linear
from slt_jax.types import Array, PyTree

WIDTHS = (8, 8, 15)
LEARNING_RATE = 0.05
STEPS = 6000
#: Small weights make the plateaus long: every distinction then has the network to itself for a while.
INITIAL_SCALE = 1e-6
NBETA = 1e4
#: Where distinctions are learned one by one: the initial scale (for double precision), and the strongest one's rate.
_SMALLER, _RATE = 1e-12, 0.1


def study(facts: Hierarchy | None = None) -> Study:
    """The default study: every plateau has an exactly known learning coefficient.

    Gradient descent from small weights learns the singular modes of the item-property map one after another. At a
    plateau the network is a minimum of the loss whose targets are its own outputs, and that loss has the learning
    coefficient of a deep linear network whose rank is the number of modes learned.

    Args:
      facts: Another hierarchy than that of the eight living things. Its loss is then looked at distinction by
        distinction, not level by level, and weights begin so small that each has the network to itself where no two
        strengths are within about a quarter. Train it in double precision (``jax.enable_x64(True)``): in single the
        growth of what is small is lost in the rounding of what is large.

    Sources: Saxe, McClelland & Ganguli 2019, arXiv:1810.10531; Aoyagi & Watanabe 2005 for the exact values.

    >>> study().subject.problem.data["targets"].shape
    (8, 15)
    >>> list(study(hierarchy(2, [4, 3, 2, 1])).subject.sublosses)
    ['shared', 'split 0.0', 'split 1.0', 'split 1.1']
    """
    plan = _plan(facts)
    facts = hierarchy() if facts is None else facts
    items, properties = facts.properties.shape
    widths = (items, items, properties)
    params = initial(jax.random.key(0), widths, plan.scale)
    data = {"inputs": jnp.eye(items), "targets": jnp.asarray(facts.properties)}
    subject = Subject(
        problem=Problem(squared_loss, params, data),
        sublosses={name: Subloss(loss_fn, data, own_outputs) for name, loss_fn in plan.losses.items()},
        concepts={name: _concept(facts, name) for name in facts.contrasts},
        restrictions={"layer 1": paths(params, "0"), "layer 2": paths(params, "1")},
        relabel=own_outputs,
        observations={
            "outputs": project_outputs(jax.random.key(1), _said, params, data),
            **norms(Problem(squared_loss, params, data), {"layer 1": "0", "layer 2": "1"}),
        },
        answers=Partial(_answers, data["inputs"]),
    )
    things = "Eight living things" if widths == WIDTHS else f"{items} items"
    return Study(
        name="semantics",
        title="A deep linear network learns a hierarchy of living things",
        summary=(
            f"{things}, {properties} properties arranged in a binary tree, and a network of two linear layers "
            "trained by gradient descent from small weights. Theory predicts which distinction is learned when, and "
            "the exact learning coefficient of the network's own function at every plateau."
        ).replace("15 properties", "fifteen properties"),
        subject=subject,
        init=lambda key: initial(key, widths, plan.scale),
        update=Partial(_update, data, plan.rate),
        params_of=_identity,
        record_at=plan.record_at,
        keep_at=plan.keep_at,
        probes={"llc": llc_probe(nbeta=NBETA, draws=9000, burnin=4500, chains=8)},
        complete=True,
        sublosses=("all", *plan.losses),
        budget=plan.budget,
        exact=partial(exact, facts=facts),
        expected_order=_expected_order(facts),
    )


class _Plan(NamedTuple):
    """How to train, and which parts of the loss to look at."""

    scale: float
    rate: float
    record_at: np.ndarray
    keep_at: np.ndarray
    budget: int
    losses: dict[str, Partial]


def _plan(facts: Hierarchy | None) -> _Plan:
    if facts is None:
        facts = hierarchy()
        return _Plan(
            scale=INITIAL_SCALE,
            rate=LEARNING_RATE,
            record_at=np.arange(0, STEPS + 1, 5),
            keep_at=np.unique(np.concatenate([log_steps(STEPS, 24), np.arange(250, STEPS + 1, 50)])),
            budget=13,
            losses={
                f"level {level}": Partial(_level_loss, jnp.asarray(facts.levels == level, jnp.float32))
                for level in range(int(facts.levels.max()) + 1)
            },
        )
    strengths = np.array(list(facts.strengths.values()))
    rate = len(strengths) * _RATE / strengths.max()
    # a mode of strength s grows as exp(2 s rate t / items), from the square of the initial scale
    learned = np.log(strengths / _SMALLER**2) / (2 * _RATE * strengths / strengths.max())
    first, last = 0.5 * learned.min(), 1.3 * learned.max()
    return _Plan(
        scale=_SMALLER,
        rate=float(rate),
        record_at=_from_zero(np.geomspace(first, last, 1000)),
        keep_at=_from_zero(np.geomspace(first, last, 40 * len(strengths))),
        budget=4 * len(strengths),
        losses={name: Partial(_distinction_loss, jnp.asarray(_direction(facts, name))) for name in facts.contrasts},
    )


def _from_zero(steps: np.ndarray) -> np.ndarray:
    return np.unique(np.concatenate([[0], np.ceil(steps)]).astype(int))


def own_outputs(params: PyTree, data: PyTree) -> PyTree:
    """The data with the network's own outputs as targets: the loss of which every checkpoint is a minimum."""
    return {**data, "targets": outputs(params, data["inputs"])}


def exact(params: PyTree, facts: Hierarchy | None = None) -> Truth:
    """The learning coefficient of the network's own function, were its small singular values exactly 0.

    A mode counts as learned when its strength exceeds half of that of its target.
    """
    facts = hierarchy() if facts is None else facts
    rank = sum(float(_concept(facts, name)(params)) > 0.5 for name in facts.contrasts)
    return deep_linear((params[0].shape[0], *(layer.shape[1] for layer in params)), rank)


def _update(data: PyTree, rate: float, params: PyTree, step: Array) -> PyTree:
    del step
    gradient = jax.grad(lambda layers: jnp.mean(squared_loss(layers, data)))(params)
    return jax.tree.map(lambda layer, slope: layer - rate * slope, params, gradient)


def _said(params: PyTree, batch: PyTree) -> Array:
    return outputs(params, batch["inputs"])


def _identity(params: PyTree) -> PyTree:
    return params


def _level_loss(weights: Array, layers: PyTree, batch: PyTree) -> Array:
    """The part of the loss that comes from the properties of one level of the tree, shape ``(B,)``."""
    error = outputs(layers, batch["inputs"]) - batch["targets"]
    return 0.5 * jnp.sum(weights[None, :] * error**2, axis=1)


def _distinction_loss(direction: Array, layers: PyTree, batch: PyTree) -> Array:
    """The part of the loss along the properties that one distinction tells apart, shape ``(B,)``."""
    error = outputs(layers, batch["inputs"]) - batch["targets"]
    return 0.5 * (error @ direction) ** 2


def _answers(inputs: Array, layers: PyTree) -> Array:
    return outputs(layers, inputs)


def _direction(facts: Hierarchy, name: str) -> np.ndarray:
    """The properties by which the two sides of a distinction differ, of length 1."""
    target = facts.contrasts[name] @ facts.properties
    return target / np.linalg.norm(target)


def _concept(facts: Hierarchy, name: str) -> Partial:
    """How far the outputs tell the two sides of a distinction apart, relative to the facts: 0 before, 1 after."""
    contrast = facts.contrasts[name]
    target = contrast @ facts.properties
    return Partial(_separation, jnp.asarray(contrast), jnp.asarray(target / np.dot(target, target)))


def _separation(contrast: Array, target: Array, layers: PyTree) -> Array:
    return outputs(layers, contrast[None, :])[0] @ target


def _expected_order(facts: Hierarchy) -> tuple[tuple[str, ...], ...]:
    groups: dict[float, list[str]] = {}
    for name, strength in facts.strengths.items():
        groups.setdefault(round(strength, 6), []).append(name)
    return tuple(tuple(groups[strength]) for strength in sorted(groups, reverse=True))
