"""Which directions are free: ``lift(center, z) -> params``, with ``z = 0`` at the centre.

One idea serves the whole network, a mask, a layer and a subspace, and the samplers never see which: they move ``z``.
Frozen entries are not part of ``z``, so they cost no dimension, no noise and no gradient.
"""

from slt_jax.restriction.alike import Alike, by_shape, check_together, shape_of, stacked, together_by_default
from slt_jax.restriction.attention import Attention, attentions
from slt_jax.restriction.base import Restriction, check, full
from slt_jax.restriction.composition import compose, within
from slt_jax.restriction.entries import mask, paths
from slt_jax.restriction.gauge import rescaling
from slt_jax.restriction.graft import Graft, graft
from slt_jax.restriction.heads import head, heads
from slt_jax.restriction.modules import block, blocks, layer, layers
from slt_jax.restriction.overlap import Overlap, overlap
from slt_jax.restriction.phases import (
    PrincipalDirections,
    differences,
    fisher_diagonal,
    largest_changes,
    principal_directions,
    seen_changes,
)
from slt_jax.restriction.preview import Free, freedom, preview
from slt_jax.restriction.relaxed import grafted
from slt_jax.restriction.subspace import orthonormal, span

__all__ = [
    "Alike",
    "Attention",
    "Free",
    "Graft",
    "Overlap",
    "PrincipalDirections",
    "Restriction",
    "attentions",
    "block",
    "blocks",
    "by_shape",
    "check",
    "check_together",
    "compose",
    "differences",
    "fisher_diagonal",
    "freedom",
    "full",
    "graft",
    "grafted",
    "head",
    "heads",
    "largest_changes",
    "layer",
    "layers",
    "mask",
    "orthonormal",
    "overlap",
    "paths",
    "preview",
    "principal_directions",
    "rescaling",
    "seen_changes",
    "shape_of",
    "span",
    "stacked",
    "together_by_default",
    "within",
]
