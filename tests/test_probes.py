"""Probes of many temperatures: what they read where the answer is known, how it is stored, what they refuse."""

import json
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import deviation

import slt_jax as slt
from slt_jax import storage
from slt_jax.cli import main
from slt_jax.problem import Problem
from slt_jax.spectroscopy import Checkpoint, Subject, contact_probe, dos_probe, flow_probe, hessian_probe, scan

DATA = jnp.zeros((1000, 1))
CENTER = {"a": jnp.float32(0.0), "b": jnp.float32(0.0)}
NBETA, GAMMA = 1e4, 1.0
CURVATURES = (1.0, 0.01)
FLOW = flow_probe(nbeta=NBETA, gamma=GAMMA, rungs=6)
DOS = dos_probe(gamma=GAMMA)


def quadratic(params, batch):
    """Two curvatures: on the hot rungs γ hides the smaller one."""
    return 0.5 * (CURVATURES[0] * params["a"] ** 2 + CURVATURES[1] * params["b"] ** 2) + 0 * batch[:, 0]


def crossing(params, batch):
    """``½ a² b²``: λ = 1/2 and m = 2."""
    return 0.5 * (params["a"] * params["b"]) ** 2 + 0 * batch[:, 0]


def exact_flow(nbetas):
    """``½ Σ nβ h / (nβ h + γ)``: λ_eff of the quadratic."""
    stiff = np.asarray(nbetas)[:, None] * np.array(CURVATURES)[None, :]
    return 0.5 * (stiff / (stiff + GAMMA)).sum(axis=1)


def read(probe, loss_fn, key=0, params=CENTER):
    return probe.measure(jax.random.key(key), Problem(loss_fn, params, DATA), None, **probe.settings)


@pytest.fixture(scope="module")
def flow_reading():
    return read(FLOW, quadratic)


@pytest.fixture(scope="module")
def dos_reading():
    return read(DOS, crossing)


PROBES = {"flow": (FLOW, "flow_reading"), "dos": (DOS, "dos_reading")}


@pytest.mark.parametrize("name", PROBES)
def test_a_reading_is_plain_arrays_with_a_verdict_and_a_name_for_each_axis(name, request):
    probe, fixture = PROBES[name]
    found = request.getfixturevalue(fixture)
    for scalar in ("value", "std_error", "healthy", "explanation"):
        assert found[scalar].shape == ()
    assert all(type(array) is np.ndarray or np.isscalar(array) for array in found.values())
    assert {array for array, numbers in found.items() if np.ndim(numbers)} == set(probe.dims)
    assert all(len(dims) == np.ndim(found[array]) for array, dims in probe.dims.items())
    assert bool(found["healthy"]), str(found["explanation"])
    assert str(found["explanation"]).startswith("healthy: ")


def test_flow_reads_a_quadratic_at_every_temperature_within_its_errors(flow_reading):
    exact = exact_flow(flow_reading["nbetas"])
    np.testing.assert_allclose(flow_reading["nbetas"], NBETA * 2.0 ** -np.arange(6))
    for value, error, truth in zip(flow_reading["lambda_eff"], flow_reading["lambda_eff_error"], exact, strict=True):
        assert deviation(value, error + 1e-4, truth) < 4
    assert flow_reading["value"] == flow_reading["lambda_eff"][0]
    assert flow_reading["nbeta"] == np.float32(NBETA)
    # what a reading of another temperature would be is seen
    assert deviation(flow_reading["lambda_eff"][0], flow_reading["lambda_eff_error"][0], exact[-1]) > 4


def test_the_velocity_is_the_slope_of_the_flow(flow_reading):
    exact = exact_flow(flow_reading["nbetas"])
    slope = np.gradient(exact, np.log(flow_reading["nbetas"]))
    for rung in (1, 2, 3, 4):
        assert abs(flow_reading["velocity"][rung] - slope[rung]) < 4 * flow_reading["velocity_error"][rung] + 2e-3


def test_dos_reads_the_exponent_and_the_multiplicity_of_a_crossing(dos_reading):
    assert abs(float(dos_reading["value"]) - 0.5) < 4 * float(dos_reading["std_error"]) + 0.005
    assert float(dos_reading["multiplicity"]) in (0.0, 2.0)
    assert dos_reading["multiplicity_weights"].sum() == pytest.approx(1.0)
    # so few draws do not always tell 2 from 3, but that it is not 1
    assert dos_reading["multiplicity_weights"][0] < 0.2
    reached = np.isfinite(dos_reading["conductance"])
    assert reached.sum() > 10
    # nothing is left to shrink where all of the prior is below ε
    assert abs(dos_reading["conductance"][-1]) < 0.05
    assert float(dos_reading["depth"]) <= 1.001e-6


def test_contact_names_the_groups_and_adds_up_to_the_coefficient():
    # the temperatures and sizes of the flow above, so that nothing is compiled anew
    probe = contact_probe(nbeta=NBETA, gamma=GAMMA, rungs=6)
    found = read(probe, quadratic)
    exact = exact_flow([NBETA])[0]
    assert bool(found["healthy"]), str(found["explanation"])
    assert abs(float(found["value"]) - exact) < 0.05 * exact
    assert "of a, b add up" in str(found["explanation"])
    assert {name for name, numbers in found.items() if np.ndim(numbers)} == set(probe.dims)
    # γ has the softer one on the hottest rung, not on the coldest
    assert found["contact"][0, 1] > found["contact"][-1, 1] + 3 * found["contact_error"][-1, 1]


def test_hessian_reads_the_regular_part_and_nothing_of_a_crossing():
    probe = hessian_probe(nbeta=NBETA, gamma=GAMMA)
    found = read(probe, quadratic)
    assert float(found["value"]) == pytest.approx(exact_flow([NBETA])[0], rel=1e-4)
    assert bool(found["healthy"]), str(found["explanation"])
    assert {name for name, numbers in found.items() if np.ndim(numbers)} == set(probe.dims)
    np.testing.assert_allclose(np.sort(found["nodes"].ravel()), sorted(CURVATURES), rtol=1e-5)
    assert float(read(probe, crossing)["value"]) == 0.0
    saddle = read(probe, lambda params, batch: quadratic(params, batch) - params["b"] ** 2)
    assert not bool(saddle["healthy"])
    assert float(saddle["negative"]) == 1.0


def test_a_flow_out_of_its_basin_is_unhealthy_and_says_so():
    """Beyond a ridge the loss falls without end: hot replicas leave, and the reading is not passed on as good."""

    def shallow(params, batch):
        height = 0.5 * (params["a"] ** 2 + params["b"] ** 2)
        return height - 2 * height**2 + 0 * batch[:, 0]

    found = read(flow_probe(nbeta=20.0, gamma=0.1, rungs=3), shallow)
    assert not bool(found["healthy"])
    assert not found["ok"].all()
    assert str(found["explanation"]).startswith("UNHEALTHY: ")


def test_a_dos_that_starts_off_its_minimum_is_unhealthy():
    """At a height that the cold rungs see, draws below the centre are counted."""
    found = read(DOS, crossing, params={"a": jnp.float32(0.03), "b": jnp.float32(0.03)})
    assert not bool(found["healthy"])
    assert str(found["explanation"]).startswith("UNHEALTHY: ")
    assert "lower loss than at the centre" in str(found["explanation"])


REFUSED = {
    "no rungs": (flow_probe(rungs=0), "rungs: got 0"),
    "rungs that are no number": (flow_probe(rungs=2.5), "rungs: got 2.5"),
    "one chain": (flow_probe(chains=1), "chains: got 1; it must be at least 2"),
    "too few draws": (flow_probe(draws=3), "draws: got 3"),
    "no temperature": (flow_probe(nbeta=0.0), "nbeta: got 0"),
    "a negative γ": (flow_probe(gamma=-1.0), "gamma: got -1"),
    "no depth": (dos_probe(depth=0.0), "depth: got 0"),
    "no γ": (dos_probe(gamma=0.0), "gamma: got 0"),
    "no leapfrogs": (dos_probe(leapfrogs=0), "leapfrogs: got 0"),
    "no curvature probes": (hessian_probe(probes=1), "probes: got 1"),
    "no Lanczos steps": (hessian_probe(steps=0), "steps: got 0"),
    "no budget": (dos_probe(budget=-1), "budget: got -1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_cannot_be_measured_with_are_refused_before_anything_is(case):
    probe, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        probe.check(Problem(quadratic, CENTER, DATA), **probe.settings)


# --- in a scan, and on disk


@pytest.fixture(scope="module")
def scanned():
    points = [Checkpoint(step, partial(dict, CENTER)) for step in (1, 20)]
    finished = {}
    subject = Subject(Problem(quadratic, CENTER, DATA))
    cells = list(scan(jax.random.key(0), subject, points, {"flow": FLOW}, finished=finished))
    return subject, points, cells, finished


def refuse(*_, **__):
    raise AssertionError("measured again")


def test_a_flow_is_not_measured_again_where_its_reading_is_finished(scanned, monkeypatch, tmp_path):
    subject, points, cells, finished = scanned
    kept = storage.FinishedReadings(tmp_path)
    kept.update(finished)
    # a cell is found by the name of its function: the one that refuses has the same
    refuse.__module__, refuse.__qualname__ = FLOW.measure.__module__, FLOW.measure.__qualname__
    again = list(scan(jax.random.key(0), subject, points, {"flow": FLOW._replace(measure=refuse)}, finished=kept))
    for before, after in zip(cells, again, strict=True):
        for name in before.reading:
            np.testing.assert_array_equal(before.reading[name], after.reading[name])
    other = flow_probe(nbeta=NBETA, gamma=GAMMA, rungs=5)._replace(measure=refuse)
    with pytest.raises(AssertionError, match="measured again"):
        list(scan(jax.random.key(0), subject, points, {"flow": other}, finished=kept))


def test_a_flow_is_stored_with_its_rungs_and_read_again(scanned, tmp_path):
    cells = scanned[2]
    storage.write_readings(tmp_path, cells, {}, {"flow": FLOW.dims})
    node = storage.read_readings(tmp_path)["/flow"]
    assert dict(node.sizes) == {"step": 2, "restriction": 1, "subloss": 1, "rung": 6}
    assert node["lambda_eff"].dims == ("step", "restriction", "subloss", "rung")
    assert node["ok"].dtype == bool
    np.testing.assert_array_equal(node["lambda_eff"].sel(step=20).values[0, 0], cells[1].reading["lambda_eff"])
    assert json.loads(node.attrs["explanations"])["20/full/all"].startswith("healthy: ")


def test_spectra_of_different_lengths_share_one_array_that_ends_in_nan(dos_reading, tmp_path):
    points = [name for name, dims in DOS.dims.items() if dims == ("point",)]
    shorter = {name: value[:-7] if name in points else value for name, value in dos_reading.items()}
    cells = [
        slt.spectroscopy.Cell("dos", step, "full", "all", one, None) for step, one in ((3, shorter), (9, dos_reading))
    ]
    cells.append(slt.spectroscopy.Cell("dos", 5, "full", "all", None, "lost"))
    storage.write_readings(tmp_path, cells, {}, {"dos": DOS.dims})
    node = storage.read_readings(tmp_path)["/dos"]
    size = len(dos_reading["log_epsilon"])
    assert node.sizes["point"] == size
    assert node.sizes["m"] == 4
    ends = np.isnan(node["log_epsilon"].values[:, 0, 0]).sum(axis=1)
    assert ends.tolist() == [7, size, 0]
    np.testing.assert_array_equal(node["conductance"].sel(step=3).values[0, 0, : size - 7], shorter["conductance"])


# --- at the command line

MODULE = """
import jax.numpy as jnp
import slt_jax as slt

def loss_fn(params, batch):
    return 0.5 * (params["a"] ** 2 + 0.01 * params["b"] ** 2) + 0 * batch[:, 0]

def problem():
    return slt.Problem(loss_fn, {"a": jnp.float32(0.0), "b": jnp.float32(0.0)}, jnp.zeros((1000, 1)))
"""


@pytest.fixture
def at_work(tmp_path, monkeypatch):
    (tmp_path / "bowl.py").write_text(MODULE)
    storage.save_checkpoints(tmp_path / "checkpoints", {1: CENTER, 5: CENTER})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    return tmp_path


def test_a_scan_takes_several_probes_and_goes_on_without_measuring_again(at_work, capsys):
    command = ["scan", "checkpoints", "--problem", "bowl:problem", "--out", "out", "--nbeta", "1e4", "--gamma", "1"]
    assert main([*command, "--probes", "flow,hessian"]) == 0, capsys.readouterr().out
    assert "4 readings, 0 unhealthy, 0 missing." in capsys.readouterr().out
    tree = storage.read_readings(at_work / "out")
    assert sorted(tree.children) == ["flow", "hessian"]
    assert dict(tree["/flow"].sizes) == {"step": 2, "restriction": 1, "subloss": 1, "rung": 9}
    finished = {path: path.stat().st_mtime_ns for path in (at_work / "out" / "cells").iterdir()}
    assert main([*command, "--probes", "flow,hessian"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (at_work / "out" / "cells").iterdir()} == finished
    page = (at_work / "out" / "report.html").read_text()
    assert "Flow of the learning coefficient" in page
    assert main([*command, "--probes", "flow"]) == 2


@pytest.mark.parametrize("command", [["demo"], ["scan", "checkpoints", "--problem", "bowl:problem"]])
def test_an_unknown_probe_is_refused_with_those_there_are(at_work, capsys, command):
    assert main([*command, "--out", "out", "--probes", "flow,magic"]) == 2
    assert (
        "--probes: got 'magic'; choose among llc, flow, dos, hessian, contact, susceptibility."
        in capsys.readouterr().err
    )
    assert not (at_work / "out").exists()
