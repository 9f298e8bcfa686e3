"""Families of laws for ``slt_jax.samplers.variational``: Gaussians and flows of numpyro, and a singular one."""

from slt_jax.samplers.guides.autoguides import full_rank, inverse_autoregressive, low_rank, mean_field
from slt_jax.samplers.guides.base import Guide
from slt_jax.samplers.guides.singular import singular

__all__ = ["Guide", "full_rank", "inverse_autoregressive", "low_rank", "mean_field", "singular"]
