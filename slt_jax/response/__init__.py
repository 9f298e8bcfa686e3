"""Kernels of response: how what a network does moves with single examples, and with the distribution of its data."""

from slt_jax.response.covariance import Pairs, pairs
from slt_jax.response.influence import Influence, Neighbours, influence
from slt_jax.response.observables import Each, each
from slt_jax.response.outcome import AgainstFree, Susceptibility
from slt_jax.response.reweighted import Response, reweighted
from slt_jax.response.susceptibility import susceptibility

__all__ = [
    "AgainstFree",
    "Each",
    "Influence",
    "Neighbours",
    "Pairs",
    "Response",
    "Susceptibility",
    "each",
    "influence",
    "pairs",
    "reweighted",
    "susceptibility",
]
