"""Strict settings for every test: eight host devices, no silent rank promotion, warnings are errors."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest

from slt_jax.compiled import make_room

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(autouse=True)
def _room_for_compiled_programs():
    """The programs of two thousand tests are more than one process can map."""
    yield
    make_room()
