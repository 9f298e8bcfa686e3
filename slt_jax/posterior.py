"""The tempered, localised posterior, only home of n, nβ and γ; long because a batch and its correction must agree."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import loss, sharding, tree
from slt_jax import restriction as restrictions
from slt_jax.restriction import Restriction
from slt_jax.types import Array, Key, LossFn, PyTree, Scalar

#: The default localisation strength as a share of ``nbeta``: it biases λ of a mode of curvature ``h`` by ``1e-4 / h``.
GAMMA_SHARE = 1e-4


class LocalPosterior(NamedTuple):
    """``p(z) ∝ exp(-nβ L(lift(w*, z)) - γ/2 |z|²)``; a tree, so that it can be an argument of a jitted function.

    Attributes:
      loss_fn: The loss, in nats per example.
      restriction: Which directions are free.
      center: ``w*``, a tree of arrays.
      center_losses: Losses at ``w*`` on all of the data: ``(n,)``, or ``()`` for a mean loss.
      n: Number of examples, shape ``()``.
      nbeta: The inverse temperature ``nβ``, one number, shape ``()``.
      gamma: The localisation strength γ, in inverse squared units of the parameters, shape ``()``.
      center_gradient: The gradient of ``L`` in ``z`` at the anchor, a tree like ``z``; ``()``: no control variates.
      anchor: The ``z`` at which control variates are taken, a tree like ``z``; ``()``: the centre.
    """

    loss_fn: Partial
    restriction: Restriction
    center: PyTree
    center_losses: Array
    n: Scalar
    nbeta: Scalar
    gamma: Scalar
    center_gradient: PyTree = ()
    anchor: PyTree = ()


class Batch(NamedTuple):
    """Examples together with the losses, and where asked for their gradient, at the centre on these same examples.

    Attributes:
      examples: A tree like the data, leading axis ``B``.
      center_losses: ``(B,)``, or ``()`` for a mean loss.
      center_gradient: The gradient of their mean in ``z`` at the anchor, a tree like ``z``; ``()`` where nothing is to
        be corrected.
    """

    examples: PyTree
    center_losses: Array
    center_gradient: PyTree = ()


class Evaluation(NamedTuple):
    """What one look at the loss gives, on one batch.

    Attributes:
      excess: ``mean_b ℓ(w; b) - ℓ(w*; b)`` in nats, shape ``()``; exactly 0 at the centre.
      loss: ``mean_b ℓ(w; b)`` in nats, shape ``()``.
      noise: Variance of ``excess`` due to the choice of the batch, shape ``()``: 0 on all of the data, NaN where the
        loss is a mean over a part of the data and its spread cannot be known.
      gradient: Gradient of ``loss`` with respect to ``z``, a tree like ``z``; with control variates corrected by what
        the batch and all of the data say at the centre.
    """

    excess: Array
    loss: Array
    noise: Array
    gradient: PyTree


def localise(
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    nbeta: Scalar | None = None,
    gamma: Scalar | None = None,
    restriction: Restriction | None = None,
) -> LocalPosterior:
    """The posterior ``p(z) ∝ exp(-nβ L(lift(w*, z)) - γ/2 |z|²)`` around ``params``.

    Args:
      loss_fn: ``loss_fn(params, batch)``: losses in nats, ``(B,)``, ``(B, T)`` or ``()``.
      params: The centre ``w*``.
      data: All examples; their number is ``n``.
      nbeta: ``nβ``; default ``n / log n``. Never derived from a batch size.
      gamma: γ; default ``1e-4 nβ``. Directions of curvature ``h`` with ``nβ h ≪ γ`` are invisible to the sampler.
      restriction: Free directions; default all.

    Returns:
      The posterior, with the losses at the centre computed once (one forward pass over the data).

    Raises:
      ValueError: before anything is compiled, where the loss breaks its contract, the examples are ragged, the
        restriction does not fit, or ``nbeta`` or ``gamma`` is out of range; after one forward pass, where the loss at
        the centre is not finite.

    Source: Lau et al. 2023, arXiv:2308.12108 (the localised posterior); Watanabe 2013, arXiv:1208.6338
    (``β = 1 / log n``).

    >>> posterior = localise(lambda w, x: 0.5 * (x * w) ** 2, jnp.float32(0.0), jnp.ones(100))
    >>> round(float(posterior.nbeta), 3)
    21.715
    """
    shape = loss.check(loss_fn, params, data)
    count = loss.example_count(data)
    if nbeta is None:
        if count < 2:
            raise ValueError(f"data: got {count} example, but the default nbeta = n / log n needs 2; pass nbeta.")
        nbeta = count / math.log(count)
    _check_range("nbeta", nbeta, positive=True)
    gamma = GAMMA_SHARE * nbeta if gamma is None else gamma
    _check_range("gamma", gamma, positive=False)
    restriction = restrictions.full() if restriction is None else restriction
    restrictions.check(restriction, params)
    params = sharding.split(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), params))
    function = loss_fn if isinstance(loss_fn, Partial) else Partial(loss_fn)
    chunk = loss.CENTER_CHUNK if count <= loss.CENTER_CHUNK else loss.chunk_for(function, params, data)
    center_losses = _center_losses(function, params, data, loss.per_example, chunk)
    loss.check_finite(center_losses)
    dtype = jnp.promote_types(center_losses.dtype, jnp.float32)
    return LocalPosterior(
        loss_fn=function,
        restriction=restriction,
        center=params,
        center_losses=center_losses if shape else center_losses.reshape(()),
        n=jnp.asarray(count, dtype),
        nbeta=jnp.asarray(nbeta, dtype),
        gamma=jnp.asarray(gamma, dtype),
    )


def with_control_variates(posterior: LocalPosterior, data: PyTree, anchor: PyTree = ()) -> LocalPosterior:
    """The same posterior, whose minibatches give the gradient ``g_b(z) - g_b(a) + g(a)``, around an anchor ``a``.

    Here ``g_b`` and ``g`` are the gradients in ``z`` of the mean loss over the batch and over all of the data. The mean
    over batches is ``g(z)`` as before; the noise is of first order in ``z - a`` where it was of order 0, and at the
    anchor there is none. It takes the worst of the heat from a chain on noisy data, and all of it where the examples
    share one Hessian. Excess, loss and ``noise`` stay those of the batch: their correction, ``⟨g_b(0) - g(0), z⟩``, has
    cut the variance of a draw fivefold on a linear regression and raised it sevenfold on a perceptron with soft
    directions.

    Args:
      posterior: From ``localise``.
      data: The data it was made with.
      anchor: ``a``, a tree like ``z``; default the centre, ``a = 0``.

    Returns:
      The posterior with ``center_gradient``: one gradient over all of the data, taken in pieces. A batch then costs two
      gradients in place of one; on all of the data nothing changes. Works inside jit and vmap.

    Raises:
      ValueError: ``data`` has another number of examples than the posterior was made with; the gradient at the anchor
        is not finite.

    Not to be believed blindly: where ``g_b(z)`` and ``g_b(a)`` have little in common, far out in soft directions, their
    noises add (``gradient_noise`` tells): the anchor has to follow the chain then, as it does in ``llc``, although
    stiff directions have twice the noise around an anchor on the chain that they have around the centre. A Metropolis
    test remains one on the energy of the batch, which this is not the gradient of: the acceptance falls, and part of
    the heat stays.

    Source: Baker, Fearnhead, Fox & Nemeth 2019, arXiv:1706.05439 (control variates for SGLD, centred at a mode).

    >>> data = jnp.array([-1.0, 0.0, 4.0])
    >>> posterior = with_control_variates(localise(lambda w, x: 0.5 * (w - x) ** 2, jnp.float32(1.5), data), data)
    >>> batches = [minibatch(posterior, data, jnp.array([example])) for example in range(3)]
    >>> [float(evaluate(posterior, jnp.float32(0.25), batch).gradient) for batch in batches]
    [0.75, 0.75, 0.75]
    """
    _check_same_data(posterior, data)
    posterior = posterior._replace(anchor=anchor)
    gradient = _full_gradient(posterior, data)
    for name, leaf in zip(tree.leaf_names(gradient), jax.tree.leaves(gradient), strict=True):
        if not tree.is_traced(leaf) and not np.isfinite(np.asarray(leaf, np.float64)).all():
            place = "anchor" if jax.tree.leaves(anchor) else "centre"
            raise ValueError(
                f"loss_fn: its gradient at the {place} is not finite in leaf {name!r} of z. Check the loss for a "
                "square root or a norm at 0, or leave out control variates."
            )
    return posterior._replace(center_gradient=gradient)


def dimension(posterior: LocalPosterior) -> int:
    """Number of free parameters: the number of entries of ``z``."""
    return tree.size(jax.eval_shape(posterior.restriction.origin, posterior.center))


def full_batch(posterior: LocalPosterior, data: PyTree) -> Batch:
    """All of the data, with the losses at the centre as they were computed once."""
    return Batch(data, posterior.center_losses)


def minibatch(posterior: LocalPosterior, data: PyTree, index: Array) -> Batch:
    """The examples at ``index``, shape ``(B,)``, with their losses at the centre looked up.

    Where the loss is a mean, the centre is evaluated again on these examples: one more forward pass. With control
    variates, one more gradient.
    """
    examples = loss.take(data, index)
    if posterior.center_losses.ndim:
        return Batch(examples, posterior.center_losses[index], _batch_center_gradient(posterior, examples))
    return pair(posterior, examples)


def pair(posterior: LocalPosterior, batch: PyTree | Batch) -> Batch:
    """Examples from anywhere, paired with the loss at the centre on them: one forward pass, or one gradient.

    A ``Batch`` is returned as it is, so that every sampler takes either.
    """
    if isinstance(batch, Batch):
        return batch
    losses = loss.per_example(posterior.loss_fn(posterior.center, batch))
    return Batch(batch, losses, _batch_center_gradient(posterior, batch))


def evaluate(posterior: LocalPosterior, z: PyTree, batch: Batch) -> Evaluation:
    """Excess loss, loss and gradient at ``z`` on one batch: one forward and one backward pass.

    The excess is the mean of differences on the same examples, not a difference of means: the noise of the baseline
    cancels, and an excess of 1e-7 of the loss survives single precision.
    """

    def excess_at(z: PyTree) -> tuple[Array, tuple[Array, Array]]:
        losses, differences = _paired(posterior, z, batch)
        return jnp.mean(differences), (jnp.mean(losses), _batch_noise(posterior, batch, differences))

    (difference, (mean_loss, noise)), gradient = jax.value_and_grad(excess_at, has_aux=True)(z)
    # two compilations of one loss may round differently; at the centre the excess is 0 by definition
    centred = tree.norm_squared(z) == 0
    difference = jnp.where(centred, 0.0, difference)
    if jax.tree.leaves(posterior.center_gradient) and jax.tree.leaves(batch.center_gradient):
        if jax.tree.leaves(posterior.anchor):
            centred = tree.norm_squared(jax.tree.map(jnp.subtract, z, posterior.anchor)) == 0
        gradient = tree.combine(
            lambda here, there, full: jnp.where(centred, full, here - there + full),
            gradient,
            batch.center_gradient,
            posterior.center_gradient,
        )
    return Evaluation(difference, mean_loss, noise, gradient)


def excess(posterior: LocalPosterior, z: PyTree, batch: Batch) -> Array:
    """``mean_b ℓ(w; b) - ℓ(w*; b)`` at ``w = lift(w*, z)``, in nats, shape ``()``: one forward pass."""
    return jnp.mean(_paired(posterior, z, batch)[1])


def force(posterior: LocalPosterior, z: PyTree, gradient: PyTree) -> PyTree:
    """Gradient of the potential ``nβ L + γ/2 |z|²`` with respect to ``z``."""
    return tree.combine(lambda g, position: posterior.nbeta * g + posterior.gamma * position, gradient, z)


def gradient_noise(key: Key, posterior: LocalPosterior, data: PyTree, z: PyTree, batch_size: int) -> Array:
    """Trace of the covariance of the batch gradient at ``z``: ``|g_1 - g_2|² / 2`` of two independent batches.

    Args:
      key: A typed key.
      posterior: With control variates it is the corrected gradient that is measured.
      data: The data it was made with.
      z: Where to measure, such as at the positions of a chain.
      batch_size: Examples of a batch, drawn with replacement; all of the data have no noise.

    Returns:
      Shape ``()``, squared nats per squared unit of the parameters. Unbiased, from one pair of batches: its relative
      deviation is about ``√2`` where one direction has all of the noise. Map it over keys and average.

    Raises:
      ValueError: ``batch_size`` is no integer between 1 and the number of examples; ``data`` has another number of
        examples than the posterior was made with.

    Not to be believed as the heat of a mode: that comes from the noise in the mode's own direction.

    >>> data = jnp.concatenate([jnp.ones(50), -jnp.ones(50)])
    >>> posterior = localise(lambda w, x: 0.5 * (w - x) ** 2, jnp.float32(0.0), data)
    >>> keys = jax.random.split(jax.random.key(0), 2000)
    >>> noise = jax.vmap(lambda key: gradient_noise(key, posterior, data, jnp.float32(0.1), 5))(keys)
    >>> bool(abs(noise.mean() - 1 / 5) < 4 * noise.std() / 2000**0.5)
    True
    """
    count = _check_same_data(posterior, data)
    if isinstance(batch_size, bool) or not hasattr(batch_size, "__index__") or not 1 <= batch_size <= count:
        raise ValueError(f"batch_size: got {batch_size!r}; pass an integer between 1 and {count}, static under jit.")

    def look(key: Key) -> PyTree:
        index = jax.random.randint(key, (batch_size,), 0, count)
        return evaluate(posterior, z, minibatch(posterior, data, index)).gradient

    first, second = (look(half) for half in jax.random.split(key))
    noise = 0.5 * tree.norm_squared(jax.tree.map(jnp.subtract, first, second))
    return jnp.where(batch_size == count, 0.0, noise)


def _paired(posterior: LocalPosterior, z: PyTree, batch: Batch) -> tuple[Array, Array]:
    """Losses at ``z`` and their differences from those at the centre, in at least float32."""
    params = posterior.restriction.lift(posterior.center, z)
    losses = loss.per_example(posterior.loss_fn(params, batch.examples))
    wide = losses.astype(jnp.promote_types(losses.dtype, jnp.float32))
    return wide, wide - batch.center_losses


def _batch_noise(posterior: LocalPosterior, batch: Batch, differences: Array) -> Array:
    size = loss.example_count(batch.examples)
    if differences.ndim == 0 or size == 1:
        unknown = jnp.asarray(jnp.nan, differences.dtype)
    else:
        unknown = jnp.var(differences) / (size - 1)
    return jnp.where(size >= posterior.n, 0.0, unknown)


def _batch_center_gradient(posterior: LocalPosterior, examples: PyTree) -> PyTree:
    return _mean_gradient(posterior, posterior.loss_fn, examples) if jax.tree.leaves(posterior.center_gradient) else ()


@jax.jit
def _full_gradient(posterior: LocalPosterior, data: PyTree) -> PyTree:
    # what a piece of the data leaves behind is computed again when it is needed: one piece at a time is in memory
    return _mean_gradient(posterior, jax.checkpoint(posterior.loss_fn), data)


def _mean_gradient(posterior: LocalPosterior, loss_fn: LossFn, examples: PyTree) -> PyTree:
    """Gradient in ``z`` at the anchor of the mean loss over the examples."""

    def mean_loss(z: PyTree) -> Array:
        losses = loss.at_center(loss_fn, posterior.restriction.lift(posterior.center, z), examples)
        return jnp.mean(losses.astype(jnp.promote_types(losses.dtype, jnp.float32)))

    origin = posterior.restriction.origin(posterior.center)
    return jax.grad(mean_loss)(posterior.anchor if jax.tree.leaves(posterior.anchor) else origin)


def _check_same_data(posterior: LocalPosterior, data: PyTree) -> int:
    count = loss.example_count(data)
    known = posterior.center_losses.shape[-1:]
    if not known and not tree.is_traced(posterior.n):
        known = (int(posterior.n),)
    # n is a float: beyond 2²⁴ examples it is rounded
    if known and np.float32(known[0]) != np.float32(count):
        raise ValueError(f"data: got {count} examples, but the posterior was made with {known[0]}. Pass the same data.")
    return count


def _check_range(name: str, value: Scalar, *, positive: bool) -> None:
    if isinstance(value, str | bool) or not (hasattr(value, "__float__") or hasattr(value, "shape")):
        raise ValueError(f"{name}: got {value!r}; it must be a number.")
    if jnp.ndim(value) != 0:
        raise ValueError(f"{name}: got shape {jnp.shape(value)}; pass one number, and vmap over several.")
    if tree.is_traced(value):
        return
    number = float(value)
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        raise ValueError(f"{name}: got {number}; it must be finite and {'positive' if positive else 'at least 0'}.")


_center_losses = jax.jit(loss.at_center, static_argnums=(3, 4))
