"""Positions at several temperatures: what the substructure of a centre is read from."""

from typing import NamedTuple

import jax
import numpy as np

from slt_jax import tree
from slt_jax.ladder.flow import flow_and_ladder
from slt_jax.ladder.reading import Flow
from slt_jax.restriction import Restriction
from slt_jax.types import Array, Key, LossFn, PyTree, Scalar


class DeepSamples(NamedTuple):
    """Draws from hot to cold.

    Attributes:
      z: Displacements from the centre, leaf after leaf, shape ``(rung, sample, d)``; samples of a chain are neighbours.
      nbetas: ``nβ``, shape ``(rung,)``.
      flow: What was measured on the way, with its verdicts, in the same order.
    """

    z: np.ndarray
    nbetas: np.ndarray
    flow: Flow


def deep_samples(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    *,
    nbetas: Array,
    gamma: Scalar | None = None,
    restriction: Restriction | None = None,
    chains: int | None = None,
    draws: int | None = None,
    leapfrogs: int | None = None,
) -> DeepSamples:
    """Positions of the replicas of ``flow``, sixteen of each chain in each third of its draws; on the host.

    Args:
      key, loss_fn, params, data, nbetas, gamma, restriction, chains, draws, leapfrogs: As for ``flow``.

    Returns:
      The samples: for ``slt_jax.substructure.divisor_weights``, ``contact_exponents`` and ``clusters``.

    Raises:
      ValueError: as ``flow``; inside jit; more than 4096 free parameters, of which no positions are kept.

    Not to be believed where the flow's ``ok`` is False.

    Example::

        found = deep_samples(jax.random.key(0), loss_fn, params, data, nbetas=10.0 ** jnp.arange(3, 8))
        print(slt_jax.substructure.divisor_weights(found.z, found.nbetas))
    """
    if tree.is_traced((key, params, data)):
        raise ValueError("deep_samples: called inside jit or vmap, but its answer is for the host. Call it outside.")
    measured, ladder = flow_and_ladder(
        key,
        loss_fn,
        params,
        data,
        nbetas=nbetas,
        gamma=gamma,
        restriction=restriction,
        chains=chains,
        draws=draws,
        leapfrogs=leapfrogs,
        budget=0,
    )
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(ladder.record.positions)]
    if not leaves:
        raise ValueError("params: more than 4096 are free; positions are not kept. Restrict them.")
    rungs = leaves[0].shape[0]
    z = np.concatenate([leaf.reshape(rungs, leaf.shape[1] * leaf.shape[2], -1) for leaf in leaves], axis=2)
    order = np.argsort(np.asarray(measured.nbetas))
    turned = jax.tree.map(
        lambda leaf: np.asarray(leaf)[order] if np.ndim(leaf) else leaf, measured._replace(groups=(), evaluations=0)
    )
    turned = turned._replace(groups=measured.groups, evaluations=measured.evaluations)
    return DeepSamples(z, np.asarray(ladder.rungs.nbeta), turned)
