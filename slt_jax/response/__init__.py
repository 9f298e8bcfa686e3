"""Kernels of response: how what a network does moves with single examples, and with the distribution of its data."""

from slt_jax.response.agreement import matrix_correlations, principal_angles, rand_indices
from slt_jax.response.conductance import Clusters, conductance_clusters
from slt_jax.response.covariance import Pairs, pairs
from slt_jax.response.embedding import umap_embedding
from slt_jax.response.influence import Influence, Neighbours, influence
from slt_jax.response.measured import Measured, measured
from slt_jax.response.observables import Each, each
from slt_jax.response.outcome import AgainstFree, Susceptibility
from slt_jax.response.patterning import Pattern, patterning
from slt_jax.response.reading import Axes, principal_axes
from slt_jax.response.retraining import Retrained, retrained
from slt_jax.response.reweighted import Response, reweighted
from slt_jax.response.structure import Reading, Structure, read_response
from slt_jax.response.susceptibility import susceptibility

__all__ = [
    "AgainstFree",
    "Axes",
    "Clusters",
    "Each",
    "Influence",
    "Measured",
    "Neighbours",
    "Pairs",
    "Pattern",
    "Reading",
    "Response",
    "Retrained",
    "Structure",
    "Susceptibility",
    "conductance_clusters",
    "each",
    "influence",
    "matrix_correlations",
    "measured",
    "pairs",
    "patterning",
    "principal_angles",
    "principal_axes",
    "rand_indices",
    "read_response",
    "retrained",
    "reweighted",
    "susceptibility",
    "umap_embedding",
]
