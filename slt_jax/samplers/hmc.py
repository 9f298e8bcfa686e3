"""Hamiltonian Monte Carlo: long trajectories, one Metropolis test at the end of each."""

import jax
from jax.tree_util import Partial

from slt_jax.posterior import Batch, LocalPosterior
from slt_jax.samplers.base import Info, MetropolisState, Sampler, metropolis_init, metropolis_step
from slt_jax.types import Key, PyTree, Scalar


def hmc(step_size: Scalar, *, leapfrogs: Scalar = 10, jitter: Scalar = 0.2) -> Sampler:
    """Leapfrog trajectories of ``H = U(z) + |p|²/2`` from fresh momenta, taken with probability ``min(1, e^{-ΔH})``.

    Each trajectory draws its own step ``h (1 - jitter u)``, u uniform in [0, 1): a mode whose period fits the length
    of all trajectories would come back to where it was. The step drawn never exceeds the one asked for, and all
    trajectories cost the same.

    Written here and not adapted from blackjax: its state holds the log density, from which neither the loss nor its
    noise over the batch can be read, so that every trajectory would have to evaluate the loss again; and its number of
    steps is static. It is the oracle of the tests.

    Args:
      step_size: h, in units of the parameters (momenta have variance 1); a mode of force constant ``a`` needs
        ``h √a < 2``.
      leapfrogs: Leapfrog steps of a trajectory, at least 1; a number that may be traced, so that changing it compiles
        nothing.
      jitter: Share by which a trajectory's step may fall short of h, in [0, 1).

    Returns:
      A sampler that costs ``leapfrogs`` gradients a step (one more on minibatches) and keeps two copies of ``z``. Its
      acceptance is in Info; .65 to .9 is good.

    Not to be believed on minibatches: start and end are evaluated on the same batch, so that each step is exact for
    the posterior of its own batch, but no law is common to them, and the chain is heated, by how much is not measured
    (``overdamped`` is NaN). A batch as large as the data is taken for all of them. Where the loss is given as a mean
    alone, ``nβ L`` times the precision (6e-8 in float32) must be far below 1, or the test is a test of rounding. A
    chain that accepts nothing looks calm: read the acceptance.

    Sources: Duane, Kennedy, Pendleton & Roweth 1987, doi:10.1016/0370-2693(87)91197-X; Neal 2011, arXiv:1206.1901
    (the leapfrog, its reversibility, varying the step); Beskos et al. 2013, arXiv:1001.4460 (.65).

    >>> hmc(1e-2, leapfrogs=20).step.args
    (0.01, 20, 0.2)
    """
    return Sampler(Partial(metropolis_init), Partial(_step, step_size, leapfrogs, jitter))


def _step(
    step_size: Scalar,
    leapfrogs: Scalar,
    jitter: Scalar,
    key: Key,
    state: MetropolisState,
    posterior: LocalPosterior,
    batch: Batch | PyTree,
) -> tuple[MetropolisState, Info]:
    jitter_key, move_key = jax.random.split(key)
    drawn = step_size * (1 - jitter * jax.random.uniform(jitter_key))
    return metropolis_step(drawn, leapfrogs, move_key, state, posterior, batch)
