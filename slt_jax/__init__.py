"""A spectroscope for trained networks: how degenerate the loss is around given parameters, and where, in JAX.

The kernels need only jax, numpy and optax; whatever needs more is imported on first use.
"""

import importlib
from functools import wraps
from typing import TYPE_CHECKING, Any

from slt_jax import curvature, diagnostics, noise, restriction, samplers, sharding
from slt_jax.curvature import TopDirections, sharpness, top_directions
from slt_jax.estimators import (
    BasinVolume,
    Calibration,
    Estimate,
    Health,
    HessianSpectrum,
    RegularPart,
    Settings,
    basin_volume,
    calibrate,
    hessian_spectrum,
    llc_from,
)
from slt_jax.estimators import llc as _llc
from slt_jax.loss import is_stream
from slt_jax.loss_wrappers import in_bfloat16, in_pieces
from slt_jax.polish import polish
from slt_jax.posterior import Batch, LocalPosterior, full_batch, localise, minibatch, with_control_variates
from slt_jax.problem import Problem
from slt_jax.reference import self_reference
from slt_jax.restriction import Restriction
from slt_jax.samplers import Info, Sampler
from slt_jax.sampling import Trace, sample, step_keys

if TYPE_CHECKING:  # at run time on first use, below
    from slt_jax.ladder import (
        DensityOfStates,
        Flow,
        FreeEnergy,
        density_of_states,
        free_energy,
        heat_capacity,
        waic,
        wbic,
    )
    from slt_jax.ladder.flow import flow
    from slt_jax.ladder.plateaus import plateaus
    from slt_jax.response import Influence, Pattern, Structure, Susceptibility, read_response
    from slt_jax.response.influence import influence
    from slt_jax.response.patterning import patterning
    from slt_jax.response.susceptibility import susceptibility
    from slt_jax.truths.truth import Truth

__version__ = "0.1.0"

_ON_FIRST_USE = (
    "flax",
    "ladder",
    "models",
    "programs",
    "response",
    "spectroscopy",
    "storage",
    "streaming",
    "studies",
    "substructure",
    "synthesis",
    "text",
    "truths",
)
#: Names that are imported on first use, by where they live.
_HOMES = {
    "slt_jax.ladder": (
        "DensityOfStates",
        "Flow",
        "FreeEnergy",
        "density_of_states",
        "flow",
        "free_energy",
        "heat_capacity",
        "plateaus",
        "waic",
        "wbic",
    ),
    "slt_jax.response": (
        "Influence",
        "Pattern",
        "Structure",
        "Susceptibility",
        "influence",
        "patterning",
        "read_response",
        "susceptibility",
    ),
    "slt_jax.truths.truth": ("Truth",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


@wraps(_llc)
def _door(*args: Any, **kwargs: Any) -> Estimate:
    streamed = is_stream(args[3] if len(args) > 3 else kwargs.get("data"))
    return (
        importlib.import_module("slt_jax.streaming").llc_of(_llc, args, kwargs) if streamed else _llc(*args, **kwargs)
    )


#: On arrays, and where its data are a function on a stream.
llc = _llc if TYPE_CHECKING else _door


def __getattr__(name: str) -> Any:
    if name in _ON_FIRST_USE:
        return importlib.import_module(f"slt_jax.{name}")
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'slt_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_FIRST_USE, *_HOME_OF})


__all__ = [
    "BasinVolume",
    "Batch",
    "Calibration",
    "DensityOfStates",
    "Estimate",
    "Flow",
    "FreeEnergy",
    "Health",
    "HessianSpectrum",
    "Influence",
    "Info",
    "LocalPosterior",
    "Pattern",
    "Problem",
    "RegularPart",
    "Restriction",
    "Sampler",
    "Settings",
    "Structure",
    "Susceptibility",
    "TopDirections",
    "Trace",
    "Truth",
    "basin_volume",
    "calibrate",
    "curvature",
    "density_of_states",
    "diagnostics",
    "flow",
    "free_energy",
    "full_batch",
    "heat_capacity",
    "hessian_spectrum",
    "in_bfloat16",
    "in_pieces",
    "influence",
    "llc",
    "llc_from",
    "localise",
    "minibatch",
    "noise",
    "patterning",
    "plateaus",
    "polish",
    "read_response",
    "restriction",
    "sample",
    "samplers",
    "self_reference",
    "sharding",
    "sharpness",
    "step_keys",
    "streaming",
    "susceptibility",
    "top_directions",
    "waic",
    "wbic",
    "with_control_variates",
]
