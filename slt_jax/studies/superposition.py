"""Study ``superposition``: six features move into two dimensions, one dimension after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from slt_jax.problem import Problem
from slt_jax.restriction import paths
from slt_jax.spectroscopy import Subject, Subloss, llc_probe, norms, project_outputs
from slt_jax.studies.study import Study, log_steps
from slt_jax.truths import Truth, superposition_function
from slt_jax.truths.superposition import FEATURES, MEAN, PHASES, SADDLES, phase_params
from slt_jax.truths.superposition_function import superposition_distance, superposition_targets
from slt_jax.types import Array, Key, PyTree

OPTIMIZER = optax.sgd(0.1)
STEPS = 8000
#: Two features are ahead in the first dimension, two others in the second, which begins far smaller and comes later.
AHEAD = np.array([[1.0, -1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0, 0.0, 0.0]])
SCALES = np.array([[1e-3], [1e-12]])
#: Size of the random weights beside those of the features ahead.
NOISE = 0.05
#: Biases then spread by 0.002: far less than the 1/12 at which outputs would reach their kinks, far more than training
#: misses the plateaus by.
NBETA = 1e5
#: Where nothing is represented weights grow to 0.2, and the default of 10 would take 0.08 from the 6.
GAMMA = 1.0
#: Columns longer than this are corners of a polygon.
CORNER = 0.5
#: By how much overlaps and biases may miss those of a stage.
NEAR = 0.05


def study() -> Study:
    """Three plateaus whose learning coefficients are exactly known: nothing, a line of two features, a square of four.

    The population loss of the toy model of superposition is known in closed form and minimised by gradient descent.
    Its plateaus are saddles, and the last a minimum with kinks; of the model's own function each is a minimum, with
    the coefficients 6, 29/4 and 17/2.

    Sources: Elhage et al. 2022, arXiv:2209.10652, for the model; Chen, Lau, Mendel, Wei & Murfet 2023,
    arXiv:2310.06301, for its phases.

    >>> sorted(study().subject.concepts)[-1]
    'plane in use'
    """
    params, data = initial(jax.random.key(0)), superposition_targets()
    subject = Subject(
        problem=Problem(superposition_distance, params, data),
        sublosses={
            f"feature {i}": Subloss(Partial(_feature_loss, jnp.eye(FEATURES)[i]), data, own_outputs)
            for i in range(FEATURES)
        },
        concepts={
            **{f"feature {i}": Partial(_length, jnp.eye(FEATURES)[i]) for i in range(FEATURES)},
            "half of the features": _share,
            "plane in use": _roundness,
        },
        restrictions={"weights": paths(params, "W"), "biases": paths(params, "b")},
        relabel=own_outputs,
        observations={
            "outputs": project_outputs(jax.random.key(1), reconstruction, params, {"inputs": jnp.eye(FEATURES)}),
            **norms(Problem(superposition_distance, params, data), {"weights": "W", "biases": "b"}),
        },
    )
    return Study(
        name="superposition",
        title="Six features move into two dimensions",
        summary=(
            "A model with two hidden dimensions reconstructs six sparse features through a rectifier. Gradient descent "
            "on the exact population loss leaves the state in which nothing is represented for a line of two features, "
            "and that for a square of four. The learning coefficient of the model's own function is exactly known at "
            "every plateau, and each dimension in use makes it larger by five quarters: all of them in the weights."
        ),
        subject=subject,
        init=initial,
        update=Partial(_update, data),
        params_of=_identity,
        record_at=np.arange(0, STEPS + 1, 5),
        keep_at=np.unique(np.concatenate([log_steps(STEPS, 24), np.arange(50, STEPS + 1, 50)])),
        probes={"llc": llc_probe(nbeta=NBETA, gamma=GAMMA, chains=16, draws=6000, burnin=3000)},
        restrictions=("full", "weights"),
        budget=7,
        exact=exact,
        complete=True,
        expected_order=(("feature 0", "feature 1"), ("feature 2", "feature 3", "half of the features", "plane in use")),
    )


def initial(key: Key) -> PyTree:
    """Small weights, those of the second dimension far smaller, and all outputs at their means."""
    noise = NOISE * jax.random.normal(key, AHEAD.shape)
    sizes = np.broadcast_to(SCALES, AHEAD.shape)
    return {
        "W": jnp.asarray(sizes, noise.dtype) * (jnp.asarray(AHEAD, noise.dtype) + noise),
        "b": jnp.full(FEATURES, MEAN),
    }


def own_outputs(params: PyTree, data: PyTree) -> PyTree:
    """The data with the model's own outputs as targets: the loss of which every checkpoint is a minimum."""
    del data  # the features are the same
    return superposition_targets(params)


def exact(params: PyTree) -> Truth | None:
    """The learning coefficient of the model's own function at the stage that it is near, or None where near none."""
    name = stage_of(params)
    return None if name is None else superposition_function(name)


def stage_of(params: PyTree) -> str | None:
    """The name of the stage that the parameters are near, up to turns, reflections and the order of the features.

    A stage is recognised by its overlaps ``W^T W`` and its biases; how negative that of a silent output is, and how
    its column points in ``5-``, does not matter to the function and is not looked at beyond ``NEAR``.

    >>> stage_of(phase_params("5+")), stage_of({"W": 0.7 * phase_params("6")["W"], "b": jnp.zeros(6)})
    ('5+', None)
    """
    weights, biases = np.asarray(params["W"]), np.asarray(params["b"])
    corners = np.flatnonzero(np.linalg.norm(weights, axis=0) > CORNER)
    # around the circle, beginning with the first corner
    angles = np.arctan2(weights[1], weights[0])[corners]
    corners = corners[np.argsort((angles - angles[:1]) % (2 * np.pi))]
    rest = np.setdiff1d(np.arange(FEATURES), corners)
    rest = rest[np.argsort(-biases[rest])]
    name = f"{len(corners)}" + "".join("-" if bias < 0 else "+" for bias in biases[rest])
    if name not in {**SADDLES, **PHASES}:
        return None
    order, ideal = np.concatenate([corners, rest]), jax.tree.map(np.asarray, phase_params(name))
    overlaps = weights[:, order].T @ weights[:, order] - ideal["W"].T @ ideal["W"]
    heard = np.arange(FEATURES) < FEATURES - name.count("-")
    shifts = np.where(heard, biases[order] - ideal["b"], 0.0)
    return name if max(np.abs(overlaps).max(), np.abs(shifts).max()) < NEAR else None


def _update(data: PyTree, params: PyTree, step: Array) -> PyTree:
    del step
    gradient = jax.grad(lambda moved: jnp.mean(superposition_distance(moved, data)))(params)
    # plain descent has no memory: its state is made anew
    changes, _ = OPTIMIZER.update(gradient, OPTIMIZER.init(params), params)
    return optax.apply_updates(params, changes)


def reconstruction(params: PyTree, batch: PyTree) -> Array:
    """What the model answers to features, ``relu(W^T W x + b)``, shape ``(B, features)``."""
    return jax.nn.relu(batch["inputs"] @ params["W"].T @ params["W"] + params["b"][None, :])


def _identity(params: PyTree) -> PyTree:
    return params


def _feature_loss(which: Array, params: PyTree, batch: PyTree) -> Array:
    """The part of the loss that comes from one feature, shape ``(B,)``."""
    return superposition_distance(params, batch) * jnp.sum(batch["feature"] * which[None, :], axis=1)


def _length(which: Array, params: PyTree) -> Array:
    """The squared length of a feature's column: 0 before it is represented, 1 at a corner of the square."""
    return jnp.sum(jnp.sum(jnp.square(params["W"]), axis=0) * which)


def _share(params: PyTree) -> Array:
    """The share of the features that are corners."""
    return jnp.mean(jnp.sum(jnp.square(params["W"]), axis=0) > CORNER**2, dtype=jnp.float32)


def _roundness(params: PyTree) -> Array:
    """The lesser principal moment of all columns over the larger: 0 on a line, 1 in every regular polygon."""
    moments = jnp.sum(params["W"][:, None, :] * params["W"][None, :, :], axis=-1)
    small, large = jnp.linalg.eigvalsh(moments)
    return jnp.maximum(small, 0.0) / jnp.maximum(large, jnp.finfo(large.dtype).tiny)
