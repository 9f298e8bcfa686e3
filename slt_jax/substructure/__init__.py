"""What a singularity is made of: dead directions, arcs, toric divisors, and the shape of a cloud of deep samples."""

from slt_jax.substructure.arcs import ArcOrder, order_along
from slt_jax.substructure.dead_directions import DeadDirections, dead_directions
from slt_jax.substructure.toric import ToricBound, toric_bound

__all__ = [
    "ArcOrder",
    "DeadDirections",
    "ToricBound",
    "dead_directions",
    "order_along",
    "toric_bound",
]
