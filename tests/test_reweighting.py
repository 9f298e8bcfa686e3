"""Multistate reweighting against harmonic states, and against pymbar in a process of its own."""

import importlib.util
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slt_jax.ladder.reweighting import log_mixture, mbar
from slt_jax.ladder.volume import free_energies, log_volume

STIFFNESS = np.array([1.0, 3.0, 10.0, 40.0, 200.0])
COUNTS = np.array([500, 400, 300, 0, 500])


@pytest.fixture(scope="module")
def reduced():
    generator = np.random.default_rng(0)
    drawn = [generator.normal(size=count) / k**0.5 for k, count in zip(STIFFNESS, COUNTS, strict=True)]
    return 0.5 * STIFFNESS[:, None] * np.concatenate(drawn)[None, :] ** 2


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def test_free_energies_of_harmonic_states(reduced):
    found = np.asarray(mbar(jnp.asarray(reduced), jnp.asarray(COUNTS)))
    np.testing.assert_allclose(found, 0.5 * np.log(STIFFNESS / STIFFNESS[0]), atol=0.1)
    # the equations themselves, at the states that were drawn from
    weights = np.exp(-np.asarray(log_mixture(jnp.asarray(reduced), jnp.log(jnp.asarray(1.0 * COUNTS)), found)))
    np.testing.assert_allclose(np.exp(found) * (np.exp(-reduced) @ weights), 1.0, atol=1e-8)


def test_a_constant_added_to_a_state_is_added_to_its_free_energy(reduced):
    shift = np.array([0.0, 5.0, -3.0, 100.0, 700.0])
    plain, shifted = (mbar(jnp.asarray(reduced + s), jnp.asarray(COUNTS)) for s in (0.0, shift[:, None]))
    np.testing.assert_allclose(np.asarray(shifted - plain), shift, atol=1e-7)


def test_weights_stand_for_draws_that_come_several_times(reduced):
    twice = np.concatenate([reduced, reduced[:, :500]], axis=1)
    counts = COUNTS + np.array([500, 0, 0, 0, 0])
    weights = np.ones(reduced.shape[1])
    weights[:500] = 2
    found = mbar(jnp.asarray(reduced), jnp.asarray(counts), jnp.asarray(weights))
    np.testing.assert_allclose(np.asarray(found), np.asarray(mbar(jnp.asarray(twice), jnp.asarray(counts))), atol=1e-8)


@pytest.mark.skipif(importlib.util.find_spec("pymbar") is None, reason="pymbar is not installed")
def test_pymbar_finds_the_same(reduced, tmp_path):
    np.save(tmp_path / "reduced.npy", reduced)
    program = (
        "import json, sys, numpy, pymbar\n"
        f"solved = pymbar.MBAR(numpy.load(sys.argv[1]), numpy.array({COUNTS.tolist()}))\n"
        "print(json.dumps(solved.compute_free_energy_differences()['Delta_f'][0].tolist()))\n"
    )
    # its first solution turns on double precision for the whole process: that must not be this one
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "reduced.npy")],
        capture_output=True,
        text=True,
        check=True,
    )
    found = mbar(jnp.asarray(reduced), jnp.asarray(COUNTS))
    np.testing.assert_allclose(np.asarray(found), json.loads(ran.stdout.splitlines()[-1]), atol=1e-6)


def energies(nbetas, chains=16, draws=400):
    """Exact draws of ``K = z²/2`` under ``exp(-nβ K - z²/2)`` on each rung."""
    generator = np.random.default_rng(3)
    return 0.5 * generator.normal(size=(len(nbetas), chains, draws)) ** 2 / (1 + nbetas[:, None, None])


def test_the_volume_of_an_interval_under_a_normal_law():
    from scipy.special import erf

    nbetas = np.concatenate([[0.0], 4.0 ** np.arange(14)])
    found = log_volume(nbetas, energies(nbetas), 1e-6, 2)
    exact = np.log(erf(np.sqrt(np.exp(found.log_epsilon))))
    off = np.abs(found.log_volume - exact) / np.maximum(found.error, 1e-3)
    assert off.max() < 4.5
    assert np.median(off) > 0.1
    assert (np.diff(found.log_volume) >= 0).all()
    assert found.log_volume[-1] == pytest.approx(0.0, abs=1e-6)
    # the exponent of one regular direction, where the prior is flat
    assert abs(found.conductance[4] - 0.5) < 4 * found.conductance_error[4]


def test_free_energies_of_a_ladder_have_errors_that_cover():
    nbetas = np.concatenate([[0.0], 4.0 ** np.arange(10)])
    free, error = free_energies(nbetas, energies(nbetas))
    exact = 0.5 * np.log1p(nbetas)
    assert (np.abs(free - exact) <= 4 * error + 1e-9).all()
    assert error[-1] < 0.05


def test_without_the_prior_there_is_no_volume():
    with pytest.raises(ValueError, match="begin with 0"):
        log_volume(np.array([1.0, 2.0]), np.ones((2, 2, 30)), 1e-3, 2)
    with pytest.raises(ValueError, match="no draw lies above"):
        log_volume(np.array([0.0, 2.0]), np.zeros((2, 2, 30)), 1e-3, 2)
