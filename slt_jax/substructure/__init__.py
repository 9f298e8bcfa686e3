"""What a singularity is made of: dead directions, arcs, toric divisors, and the shape of a cloud of deep samples."""

from slt_jax.substructure.arcs import ArcOrder, order_along
from slt_jax.substructure.clusters import Clusters, clusters, log_directions, rank_clusters, sign_clusters
from slt_jax.substructure.dead_directions import DeadDirections, dead_directions
from slt_jax.substructure.divisors import ContactExponents, DivisorWeights, contact_exponents, divisor_weights
from slt_jax.substructure.syndromes import Syndromes, syndromes
from slt_jax.substructure.toric import ToricBound, toric_bound

__all__ = [
    "ArcOrder",
    "Clusters",
    "ContactExponents",
    "DeadDirections",
    "DivisorWeights",
    "Syndromes",
    "ToricBound",
    "clusters",
    "contact_exponents",
    "dead_directions",
    "divisor_weights",
    "log_directions",
    "order_along",
    "rank_clusters",
    "sign_clusters",
    "syndromes",
    "toric_bound",
]
