"""What a singularity is made of: dead directions, arcs, toric divisors, and the shape of a cloud of deep samples."""

from slt_jax.substructure.dead_directions import DeadDirections, dead_directions

__all__ = [
    "DeadDirections",
    "dead_directions",
]
