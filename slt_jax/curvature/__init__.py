"""Second derivatives of the loss: how sharp it is where a chain goes, its spectrum, and its stiffest directions."""

from slt_jax.curvature.lanczos import Quadrature, lanczos
from slt_jax.curvature.operators import (
    Metric,
    Operator,
    categorical_metric,
    empirical_fisher,
    gauss_newton,
    hessian,
    squared_metric,
)
from slt_jax.curvature.preconditioner import Preconditioner, diagonal, isotropic, stretched
from slt_jax.curvature.sharpness import (
    INERTIAL_FRACTION,
    STEP_FRACTION,
    curvatures,
    inertial_step_size,
    langevin_step_size,
    sharpness,
    typical_points,
)
from slt_jax.curvature.top import TopDirections, top_directions

__all__ = [
    "INERTIAL_FRACTION",
    "STEP_FRACTION",
    "Metric",
    "Operator",
    "Preconditioner",
    "Quadrature",
    "TopDirections",
    "categorical_metric",
    "curvatures",
    "diagonal",
    "empirical_fisher",
    "gauss_newton",
    "hessian",
    "inertial_step_size",
    "isotropic",
    "lanczos",
    "langevin_step_size",
    "sharpness",
    "squared_metric",
    "stretched",
    "top_directions",
    "typical_points",
]
