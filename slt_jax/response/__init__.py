"""Kernels of response: how what a network does moves with single examples, and with the distribution of its data."""

from slt_jax.response.covariance import Pairs, pairs
from slt_jax.response.influence import Influence, Neighbours, influence

__all__ = ["Influence", "Neighbours", "Pairs", "influence", "pairs"]
