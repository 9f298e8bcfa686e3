"""Data larger than memory: batches from a factory of iterators, read while the device computes."""

from slt_jax.streaming.batches import again_and_again, once
from slt_jax.streaming.centre import localise, with_control_variates
from slt_jax.streaming.chains import sample
from slt_jax.streaming.llc import llc, llc_of

__all__ = ["again_and_again", "llc", "llc_of", "localise", "once", "sample", "with_control_variates"]
