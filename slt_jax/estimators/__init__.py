"""Numbers with their uncertainty and their verdict."""

from slt_jax.estimators.basin_volume import BasinVolume, basin_volume
from slt_jax.estimators.calibration import Calibration, Schedule, calibrate, measure, too_imprecise
from slt_jax.estimators.estimate import Estimate, Settings, llc_from
from slt_jax.estimators.examine import Evidence, examine
from slt_jax.estimators.health import Health
from slt_jax.estimators.hessian_spectrum import hessian_spectrum
from slt_jax.estimators.llc import BUDGET, BURNIN, DRAWS, check_budget, llc
from slt_jax.estimators.running import RunKeeper
from slt_jax.estimators.spectrum import HessianSpectrum, Measured, RegularPart

__all__ = [
    "BUDGET",
    "BURNIN",
    "DRAWS",
    "BasinVolume",
    "Calibration",
    "Estimate",
    "Evidence",
    "Health",
    "HessianSpectrum",
    "Measured",
    "RegularPart",
    "RunKeeper",
    "Schedule",
    "Settings",
    "basin_volume",
    "calibrate",
    "check_budget",
    "examine",
    "hessian_spectrum",
    "llc",
    "llc_from",
    "measure",
    "too_imprecise",
]
