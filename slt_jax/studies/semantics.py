"""Study ``semantics``: a deep linear network learns a hierarchy of living things, one distinction after another."""

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


def study() -> Study:
    """The default study: every plateau has an exactly known learning coefficient.

    Gradient descent from small weights learns the singular modes of the item-property map one after another. At a
    plateau the network is a minimum of the loss whose targets are its own outputs, and that loss has the learning
    coefficient of a deep linear network whose rank is the number of modes learned.

    Sources: Saxe, McClelland & Ganguli 2019, arXiv:1810.10531; Aoyagi & Watanabe 2005 for the exact values.

    >>> study().subject.problem.data["targets"].shape
    (8, 15)
    """
    facts = hierarchy()
    params = initial(jax.random.key(0), WIDTHS, INITIAL_SCALE)
    data = {"inputs": jnp.eye(len(facts.properties)), "targets": jnp.asarray(facts.properties)}
    subject = Subject(
        problem=Problem(squared_loss, params, data),
        sublosses={
            f"level {level}": Subloss(
                Partial(_level_loss, jnp.asarray(facts.levels == level, jnp.float32)), data, own_outputs
            )
            for level in range(int(facts.levels.max()) + 1)
        },
        concepts={name: _concept(facts, name) for name in facts.contrasts},
        restrictions={"layer 1": paths(params, "0"), "layer 2": paths(params, "1")},
        relabel=own_outputs,
        observations={
            "outputs": project_outputs(jax.random.key(1), _answers, params, data),
            **norms(Problem(squared_loss, params, data), {"layer 1": "0", "layer 2": "1"}),
        },
    )
    return Study(
        name="semantics",
        title="A deep linear network learns a hierarchy of living things",
        summary=(
            "Eight living things, fifteen properties arranged in a binary tree, and a network of two linear layers "
            "trained by gradient descent from small weights. Theory predicts which distinction is learned when, and "
            "the exact learning coefficient of the network's own function at every plateau."
        ),
        subject=subject,
        init=lambda key: initial(key, WIDTHS, INITIAL_SCALE),
        update=Partial(_update, data),
        params_of=_identity,
        record_at=np.arange(0, STEPS + 1, 5),
        keep_at=np.unique(np.concatenate([log_steps(STEPS, 24), np.arange(250, STEPS + 1, 50)])),
        probes={"llc": llc_probe(nbeta=NBETA, draws=9000, burnin=4500, chains=8)},
        sublosses=("all", "level 0", "level 1", "level 2", "level 3"),
        budget=13,
        exact=exact,
        complete=True,
        expected_order=_expected_order(facts),
    )


def own_outputs(params: PyTree, data: PyTree) -> PyTree:
    """The data with the network's own outputs as targets: the loss of which every checkpoint is a minimum."""
    return {**data, "targets": outputs(params, data["inputs"])}


def exact(params: PyTree) -> Truth:
    """The learning coefficient of the network's own function, were its small singular values exactly 0.

    A mode counts as learned when its singular value exceeds half of that of its target, the smallest of which is 1.
    """
    singular = np.linalg.svd(np.asarray(outputs(params, jnp.eye(WIDTHS[0]))), compute_uv=False)
    return deep_linear(WIDTHS, int((singular > 0.5).sum()))


def _update(data: PyTree, params: PyTree, step: Array) -> PyTree:
    del step
    gradient = jax.grad(lambda layers: jnp.mean(squared_loss(layers, data)))(params)
    return jax.tree.map(lambda layer, slope: layer - LEARNING_RATE * slope, params, gradient)


def _answers(params: PyTree, batch: PyTree) -> Array:
    return outputs(params, batch["inputs"])


def _identity(params: PyTree) -> PyTree:
    return params


def _level_loss(weights: Array, layers: PyTree, batch: PyTree) -> Array:
    """The part of the loss that comes from the properties of one level of the tree, shape ``(B,)``."""
    error = outputs(layers, batch["inputs"]) - batch["targets"]
    return 0.5 * jnp.sum(weights[None, :] * error**2, axis=1)


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
