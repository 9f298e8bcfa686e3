"""What has to be known at the centre before chains start, in one pass over the stream for each of it."""

import math
from collections import deque
from contextlib import closing
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import loss, tree
from slt_jax import posterior as posteriors
from slt_jax.posterior import GAMMA_SHARE, LocalPosterior, pair
from slt_jax.restriction import Restriction
from slt_jax.streaming.batches import Factory, ahead, once
from slt_jax.types import Array, LossFn, PyTree, Scalar


def localise(
    loss_fn: LossFn,
    params: PyTree,
    factory: Factory,
    nbeta: Scalar | None = None,
    gamma: Scalar | None = None,
    restriction: Restriction | None = None,
) -> LocalPosterior:
    """``slt_jax.localise`` on a stream: one pass counts ``n`` and takes the mean loss at the centre.

    Args:
      loss_fn, params, nbeta, gamma, restriction: As in ``slt_jax.localise``.
      factory: ``factory()`` returns a pass over all of the data, which must end: an iterable of batches.

    Returns:
      The posterior, whose ``center_losses`` is the mean alone, shape ``()``, added up in double precision; the centre
      is evaluated again on every batch that a chain sees.

    Raises:
      ValueError: as ``slt_jax.localise``, after the first batch where that is enough to see it; what ``once`` refuses;
        a loss at the centre that is not finite, naming the batch.

    >>> posterior = localise(lambda w, x: 0.5 * (x * w) ** 2, jnp.float32(2.0), lambda: np.ones((10, 10)))
    >>> round(float(posterior.nbeta), 3), float(posterior.center_losses)
    (21.715, 2.0)
    """
    posterior: LocalPosterior | None = None
    pending: deque[tuple[int, int, tuple[Array, Array]]] = deque()
    count, total = 0, 0.0

    def settle() -> float:
        number, size, (mean, finite) = pending.popleft()
        if not bool(finite):
            raise ValueError(
                f"loss_fn: not all of the {size} losses at params are finite in batch {number} of the stream. Check "
                "params and data for NaN, and the loss for log(0) or division by 0."
            )
        return size * float(mean)

    with closing(ahead(once(factory))) as batches:
        for number, batch in enumerate(batches):
            if posterior is None:
                # all that can be refused is, before the long pass
                posterior = posteriors.localise(
                    loss_fn, params, batch, 1.0 if nbeta is None else nbeta, gamma, restriction
                )
            size = loss.example_count(batch)
            count += size
            pending.append((number, size, _look(posterior.loss_fn, posterior.center, batch)))
            # the device works on one batch while the next one is sent
            if len(pending) > 1:
                total += settle()
    total += settle()
    assert posterior is not None, "a pass without batches was refused"
    if nbeta is None and count < 2:
        raise ValueError(f"factory: got {count} example, but the default nbeta = n / log n needs 2; pass nbeta.")
    nbeta = count / math.log(count) if nbeta is None else nbeta
    dtype = posterior.nbeta.dtype
    return posterior._replace(
        center_losses=jnp.asarray(total / count, dtype),
        n=jnp.asarray(count, dtype),
        nbeta=jnp.asarray(nbeta, dtype),
        gamma=jnp.asarray(GAMMA_SHARE * nbeta if gamma is None else gamma, dtype),
    )


def with_control_variates(posterior: LocalPosterior, factory: Factory) -> LocalPosterior:
    """``slt_jax.with_control_variates`` around the centre: its gradient over all of the stream, in one pass.

    Args:
      posterior: From ``localise``.
      factory: The stream it was made with.

    Returns:
      The posterior with ``center_gradient``, a running mean in at least float32 on the device.

    Raises:
      ValueError: the pass has another number of examples than the posterior was made with; the gradient is not finite.

    >>> factory = lambda: np.array([[-1.0], [0.0], [4.0]], np.float32)
    >>> posterior = with_control_variates(localise(lambda w, x: 0.5 * (w - x) ** 2, jnp.float32(1.5), factory), factory)
    >>> round(float(posterior.center_gradient), 6)
    0.5
    """
    origin = posterior.restriction.origin(posterior.center)
    # with a gradient of its own a batch is given one too
    asking = posterior._replace(center_gradient=origin, anchor=())
    mean = tree.at_least_float32(tree.zeros_like(origin))
    count = 0
    with closing(ahead(once(factory))) as batches:
        for batch in batches:
            size = loss.example_count(batch)
            count += size
            mean = _towards(mean, asking, batch, np.float32(size / count))
    # n is a float: beyond 2²⁴ examples it is rounded
    if np.float32(posterior.n) != np.float32(count):
        raise ValueError(
            f"factory: a pass has {count} examples, but the posterior was made with {int(posterior.n)}. Every pass "
            "must go over the same data."
        )
    for name, leaf in zip(tree.leaf_names(mean), jax.tree.leaves(mean), strict=True):
        if not bool(jnp.isfinite(leaf).all()):
            raise ValueError(
                f"loss_fn: its gradient at the centre is not finite in leaf {name!r} of z. Check the loss for a square "
                "root or a norm at 0."
            )
    return posterior._replace(center_gradient=mean, anchor=())


@jax.jit
def _look(loss_fn: LossFn, params: PyTree, batch: PyTree) -> tuple[Array, Array]:
    losses = loss.at_center(loss_fn, params, batch)
    return jnp.mean(losses.astype(jnp.promote_types(losses.dtype, jnp.float32))), jnp.isfinite(losses).all()


@partial(jax.jit, donate_argnums=0)
def _towards(mean: PyTree, posterior: LocalPosterior, batch: PyTree, share: Scalar) -> PyTree:
    gradient = pair(posterior, batch).center_gradient
    return tree.combine(lambda old, new: old + share * (new - old), mean, gradient)
