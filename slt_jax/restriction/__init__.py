"""Which directions are free: ``lift(center, z) -> params``, with ``z = 0`` at the centre.

One idea serves the whole network, a mask, a layer and a subspace, and the samplers never see which: they move ``z``.
Frozen entries are not part of ``z``, so they cost no dimension, no noise and no gradient.
"""

from slt_jax.restriction.base import Restriction, check, full
from slt_jax.restriction.entries import mask, paths
from slt_jax.restriction.graft import Graft, graft
from slt_jax.restriction.overlap import Overlap, overlap
from slt_jax.restriction.relaxed import grafted
from slt_jax.restriction.subspace import orthonormal, span

__all__ = [
    "Graft",
    "Overlap",
    "Restriction",
    "check",
    "full",
    "graft",
    "grafted",
    "mask",
    "orthonormal",
    "overlap",
    "paths",
    "span",
]
