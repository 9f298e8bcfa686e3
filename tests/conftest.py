"""Strict settings for every test: eight host devices, no silent rank promotion, warnings are errors."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest

from slt_jax.compiled import make_room

jax.config.update("jax_numpy_rank_promotion", "raise")

#: Modules of laws over many seeds, of whole studies, and of all that documents say: more than half of the time.
SLOW = {
    "test_accuracy",
    "test_alignment",
    "test_basin_volume",
    "test_boundaries",
    "test_compare",
    "test_construct",
    "test_density",
    "test_directions",
    "test_doctests",
    "test_fanout_processes",
    "test_graft",
    "test_groups",
    "test_heating",
    "test_hessian_spectrum",
    "test_hosts",
    "test_induction",
    "test_killed",
    "test_notebooks",
    "test_oracles",
    "test_posterior_phases",
    "test_programs_study",
    "test_reference",
    "test_refined",
    "test_regression_study",
    "test_resumed",
    "test_sampler_laws",
    "test_sharding",
    "test_streaming_laws",
    "test_studies",
    "test_superposition_study",
    "test_susceptibility_entries",
    "test_synthesis",
    "test_thermodynamics",
    "test_variational",
    "test_watch",
}


def pytest_configure(config: pytest.Config) -> None:
    """Without arguments slow tests are left out; a file, a name or a mark that is asked for is run as asked."""
    plain = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if plain and not config.option.markexpr and not config.option.keyword:
        config.option.markexpr = "not slow"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow modules."""
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(autouse=True)
def _room_for_compiled_programs():
    """The programs of two thousand tests are more than one process can map."""
    yield
    make_room()
