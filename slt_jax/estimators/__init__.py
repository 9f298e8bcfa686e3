"""Numbers with their uncertainty and their verdict."""

from slt_jax.estimators.calibration import Calibration, Schedule, calibrate, measure
from slt_jax.estimators.estimate import Estimate, Settings, llc_from
from slt_jax.estimators.examine import Evidence, examine
from slt_jax.estimators.health import Health
from slt_jax.estimators.llc import BUDGET, BURNIN, DRAWS, check_budget, llc

__all__ = [
    "BUDGET",
    "BURNIN",
    "DRAWS",
    "Calibration",
    "Estimate",
    "Evidence",
    "Health",
    "Schedule",
    "Settings",
    "calibrate",
    "check_budget",
    "examine",
    "llc",
    "llc_from",
    "measure",
]
