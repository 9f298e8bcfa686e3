"""Markov chains on the local posterior. Each is one file and a pair ``(init, step)``."""

from slt_jax.samplers import guides
from slt_jax.samplers.base import Info, Sampler
from slt_jax.samplers.hmc import hmc
from slt_jax.samplers.mala import mala
from slt_jax.samplers.mclmc import mclmc
from slt_jax.samplers.rmsprop_sgld import rmsprop_sgld
from slt_jax.samplers.sgld import sgld
from slt_jax.samplers.sgnht import sgnht
from slt_jax.samplers.underdamped import underdamped
from slt_jax.samplers.variational import base_reading, free_energy_bound, variational

__all__ = [
    "Info",
    "Sampler",
    "base_reading",
    "free_energy_bound",
    "guides",
    "hmc",
    "mala",
    "mclmc",
    "rmsprop_sgld",
    "sgld",
    "sgnht",
    "underdamped",
    "variational",
]
