"""What the noise of minibatches adds to λ̂: measured where the chains are, and kept low by anchors that follow them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import loss, tree
from slt_jax.posterior import Batch, LocalPosterior, dimension, excess, gradient_noise
from slt_jax.samplers import Sampler
from slt_jax.sampling import Trace
from slt_jax.types import Array, Key, PyTree, Scalar

#: Pairs of batches from which the noise of the gradient is read, for each chain.
PAIRS = 4
#: The same where chains are looked at only once.
_PAIRS_AT_THE_END = 16
#: The least energy by which heat is judged, as a share of the dimension.
_LEAST_ENERGY = 0.005
#: Around an anchor on the chain the noise grows from 0: on its way a chain has felt about this share of it.
_ON_THE_WAY = 2 / 3


def heat(posterior: LocalPosterior, noise: Array) -> Array:
    """``(nβ)² tr Σ / 8``: what batches add to ``nβ K`` for an ε of 1.

    Noise of covariance Σ in the gradient of the loss raises the virial ``E ⟨z, ∇U⟩`` by ``ε (nβ)² tr Σ / 4``, on any
    landscape and to first order in ε; on a quadratic half of it is energy, whatever the curvatures. Flat directions,
    whose gradient has no noise, count for nothing.

    Args:
      posterior: Knows ``nβ``.
      noise: ``tr Σ`` at points of the chains, any shape; its mean counts.

    Returns:
      Shape ``()``, in inverse squared units of the parameters.

    Not to be believed to better than a third: stiff modes are heated by up to ``1 / (1 - ε a / 4)`` times as much, and
    where K grows like ``|z|^2k`` only ``1 / 2k`` of the virial is energy.

    Source: stationarity of ``E |z|²``; on a quadratic the formula in ``samplers.sgld``.
    """
    found = posterior.nbeta**2 * jnp.mean(noise) / 8
    return found.astype(posterior.nbeta.dtype)  # parameters may be wider than losses


def as_share(posterior: LocalPosterior, added: Array, energy: Array) -> Array:
    """Heat as a share of the energy ``nβ K``, of any shape; chains that have hardly left the centre count for more."""
    return added / jnp.maximum(energy, _LEAST_ENERGY * dimension(posterior))


def can_follow(count: int, batch_size: int, steps: int) -> bool:
    """Whether a gradient on all of the data costs no more than so many steps on batches, and anchors can be moved."""
    return count <= batch_size * steps


def feel(
    key: Key,
    points: PyTree,
    began: PyTree,
    *,
    posterior: LocalPosterior,
    data: PyTree,
    batch: Batch,
    batch_size: int,
    follows: bool,
) -> tuple[Array, Array, Array]:
    """The heat where chains stand, and whether an anchor where they were a stage ago would have kept it lower.

    Around the centre the noise grows as chains move along flat directions, without an end; around an anchor on the
    chain it begins at 0 and remains small, but stiff directions have twice the noise that they have around the centre.

    Args:
      key: A typed key.
      points: Where the chains stand, leading axis ``chain``.
      began: Where they stood when their anchors could last be moved, likewise.
      posterior: With control variates around the centre.
      data: Its examples.
      batch: On which the energy is looked at.
      batch_size: Examples of a step.
      follows: Whether anchors can be moved at all.

    Returns:
      ``heat``, shape ``()``, on the way from ``began`` with the better anchor of each chain; which chains had a better
      one in ``began``, shape ``(chain,)``; the mean energy ``nβ K`` of the points, shape ``()``.
    """
    count = jax.tree.leaves(points)[0].shape[0]

    def look(key: Key, z: PyTree, there: PyTree) -> tuple[Array, Array, Array]:
        far = _noise(key, posterior, data, z, batch_size, PAIRS)
        # on the same batches; the gradient on all of the data cancels
        around = posterior._replace(anchor=there)
        near = _noise(key, around, data, z, batch_size, PAIRS) if follows else jnp.full_like(far, jnp.inf)
        energy = posterior.nbeta * excess(posterior, z, batch)
        return jnp.where(near < far, _ON_THE_WAY * near, far), near < far, energy

    noise, moved, energy = jax.vmap(look)(jax.random.split(key, count), points, began)
    return heat(posterior, noise), moved, jnp.mean(energy)


def read_heating(
    key: Key, sampler: Sampler, posterior: LocalPosterior, data: PyTree, trace: Trace, batch_size: int | None
) -> Scalar:
    """What batches have added to the value of a run, as a share of it, from the noise where its chains stopped.

    Args:
      key: A typed key that the run has not used.
      sampler: Which made the run; it knows the ε that is heated equally.
      posterior: What was sampled.
      data: Its examples.
      trace: The draws.
      batch_size: Examples of a step.

    Returns:
      Shape ``()``; NaN on all of the data, and where the sampler's ``overdamped`` is NaN.

    Not to be believed where the noise changes along the chains: they are looked at once.
    """
    # numpy: what is a number stays one inside jit
    unknown = not tree.is_traced(sampler.overdamped) and bool(np.isnan(np.asarray(sampler.overdamped)))
    if batch_size is None or batch_size == loss.example_count(data) or unknown:
        return jnp.full((), jnp.nan, posterior.nbeta.dtype)
    return _heating(key, sampler.overdamped, posterior, data, trace.state.position, trace.excess, batch_size)


@partial(jax.jit, static_argnums=6)
def _heating(
    key: Key, epsilon: Scalar, posterior: LocalPosterior, data: PyTree, points: PyTree, excess: Array, batch_size: int
) -> Array:
    keys = jax.random.split(key, excess.shape[0])
    noise = jax.vmap(lambda k, z: _noise(k, posterior, data, z, batch_size, _PAIRS_AT_THE_END))(keys, points)
    share = as_share(posterior, heat(posterior, noise), posterior.nbeta * jnp.mean(excess))
    return (epsilon * share).astype(posterior.nbeta.dtype)


def _noise(key: Key, posterior: LocalPosterior, data: PyTree, z: PyTree, batch_size: int, pairs: int) -> Array:
    keys = jax.random.split(key, pairs)
    return jnp.mean(jax.lax.map(lambda k: gradient_noise(k, posterior, data, z, batch_size), keys))
