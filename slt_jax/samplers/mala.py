"""The Metropolis-adjusted Langevin algorithm: overdamped Langevin dynamics without a bias of its step."""

import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax.posterior import Batch, LocalPosterior
from slt_jax.samplers.base import Info, MetropolisState, Sampler, metropolis_init, metropolis_step
from slt_jax.types import Key, PyTree, Scalar


def mala(step_size: Scalar) -> Sampler:
    """Proposes ``z' = z - (ε/2) ∇U + √ε ξ`` and takes it with probability ``min(1, e^{-ΔH})``.

    On all of the data the law is exact at every step size. The proposal is one leapfrog step of length ``√ε`` with
    momentum ``ξ``, and ``e^{-ΔH}``, with ``ΔH`` its error of energy, is the Metropolis-Hastings ratio of the two
    Gaussian proposals. ε means what it means for ``sgld``.

    Written here and not adapted from blackjax: its state holds the log density, from which neither the loss nor its
    noise over the batch can be read, so that every step would have to evaluate the loss again. It is the oracle of
    the tests.

    Args:
      step_size: ε, in squared units of the parameters; a number or an array of shape ``()`` (vmap over several).

    Returns:
      A sampler that costs one gradient a step (two on minibatches) and keeps two copies of ``z``. Its acceptance is
      in Info; about .57 is best where many modes are alike, and it goes to 1 as ``1 - O(ε^{3/2})``.

    Not to be believed on minibatches: proposal and current position are evaluated on the same batch, so that each step
    is exact for the posterior of its own batch, but no law is common to them, and the chain is heated about as an
    unadjusted one is; by how much is not measured (``overdamped`` is NaN). A batch as large as the data is taken for
    all of them. Where the loss is given as a mean alone, ``nβ L`` times the precision (6e-8 in float32) must be far
    below 1, or the test is a test of rounding. A chain that accepts nothing looks calm: read the acceptance.

    Sources: Roberts & Tweedie 1996, doi:10.2307/3318418 (the algorithm); Roberts & Rosenthal 1998,
    doi:10.1111/1467-9868.00123 (.574 and its scaling).

    >>> mala(1e-4).step.args
    (0.0001,)
    """
    return Sampler(Partial(metropolis_init), Partial(_step, step_size))


def _step(
    step_size: Scalar, key: Key, state: MetropolisState, posterior: LocalPosterior, batch: Batch | PyTree
) -> tuple[MetropolisState, Info]:
    return metropolis_step(jnp.sqrt(step_size), 1, key, state, posterior, batch)
