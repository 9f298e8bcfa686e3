"""Second derivatives of the loss: how sharp it is where a chain goes."""

from slt_jax.curvature.sharpness import (
    INERTIAL_FRACTION,
    STEP_FRACTION,
    curvatures,
    inertial_step_size,
    langevin_step_size,
    sharpness,
    typical_points,
)

__all__ = [
    "INERTIAL_FRACTION",
    "STEP_FRACTION",
    "curvatures",
    "inertial_step_size",
    "langevin_step_size",
    "sharpness",
    "typical_points",
]
