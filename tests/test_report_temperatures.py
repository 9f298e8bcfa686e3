"""Pictures of many temperatures in the report: what they show, what they say in words, and when they are not there."""

import numpy as np
import pytest
from test_report import SICK, cell, page_of, pictures, usual
from test_report import build as build_study

from slt_jax import plots, storage
from slt_jax.plots.spectrogram import grid_of
from slt_jax.spectroscopy import dos_probe, flow_probe

NBETAS = 1e4 * 2.0 ** -np.arange(5)


def build(folder, cells):
    build_study(folder)
    storage.write_readings(folder, cells, {}, {"flow": flow_probe().dims, "dos": dos_probe().dims})
    return folder


def without_chains(one):
    return one._replace(reading={name: one.reading[name] for name in one.reading if name not in ("trace", "per_chain")})


def flow_cell(step, level=3.0, ok=(True,) * 5, still=3, **more):
    """A flow that stands still on its ``still`` coldest rungs."""
    values = level * np.array([1.0, 1.0, 1.0, 0.8, 0.6])
    numbers = {name: values for name in ("lambda_eff", "heat_capacity", "velocity", "contact_sum")}
    arrays = {
        **numbers,
        **{f"{name}_error": np.full(5, 0.07) for name in numbers},
        "nbetas": NBETAS,
        "plateau": np.where(np.arange(5) < still, level, np.nan),
        "usable": np.ones(5, bool),
        "ok": np.array(ok),
    }
    return without_chains(cell(step, level, probe="flow", **arrays, **more))


def dos_cell(step, level=2.0, points=12, m=2.0, **more):
    depth = np.linspace(-12.0, 4.0, points)
    conductance = level / (1 + np.exp(depth))
    arrays = {"log_epsilon": depth, "conductance": conductance, "multiplicity": m}
    return without_chains(cell(step, level, probe="dos", **arrays, **more))


def words(page):
    return [attributes["alt"] for tag, attributes in page.tags if tag == "img"]


def test_a_flow_is_drawn_and_told_with_its_plateaus(tmp_path):
    page = page_of(build(tmp_path / "out", [cell(10), flow_cell(10), flow_cell(300, 5.0)]))
    assert "Flow of the learning coefficient" in page.text
    (told,) = [alt for alt in words(page) if alt.startswith("λ_eff against inverse temperature")]
    assert "step 10, 1.8 at nβ 625 to 3 at 1 × 10⁴, plateaus at 3; step 300" in told.replace("10000", "1 × 10⁴")
    (picture,) = [one for one in pictures(page) if "hot on the left" in one]
    assert ">plateau<" in picture
    assert ">step 300<" in picture
    assert "too hot, or unhealthy" not in picture
    # every temperature of both checkpoints has its line
    assert page.text.count("5.000 ± 0.070") == 12
    assert page.text.count("4.000 ± 0.070") == 4


def test_an_unhealthy_rung_is_shown_as_such(tmp_path):
    sick = flow_cell(10, ok=(True, False, True, True, True), healthy=False, explanation=SICK)
    page = page_of(build(tmp_path / "out", [sick]))
    (picture,) = [one for one in pictures(page) if "hot on the left" in one]
    assert "too hot, or unhealthy" in picture
    assert any("1 temperature not to be relied on" in alt for alt in words(page))
    assert "the chains disagree: run longer" in page.text


def test_a_flow_without_a_plateau_claims_none(tmp_path):
    page = page_of(build(tmp_path / "out", [flow_cell(10, still=0)]))
    (picture,) = [one for one in pictures(page) if "hot on the left" in one]
    assert ">plateau<" not in picture
    assert any("no plateau" in alt for alt in words(page))


def test_a_spectrogram_has_a_colour_bar_and_its_exponents_in_words(tmp_path):
    cells = [dos_cell(10), dos_cell(300, 4.0, points=9, m=0.0), dos_cell(4000, healthy=False, explanation=SICK)]
    page = page_of(build(tmp_path / "out", cells))
    (told,) = [alt for alt in words(page) if alt.startswith("Conductance")]
    assert "step 10, λ 2.00 ± 0.10, m = 2; step 300, λ 4.00 ± 0.10, m unresolved; step 4000" in told
    assert told.count("unhealthy") == 1
    assert any("conductance d log V / d log ε" in picture for picture in pictures(page))


def test_pages_without_such_probes_have_no_such_pictures(tmp_path):
    page = page_of(usual(tmp_path / "out"))
    assert len(pictures(page)) == 4
    assert not any(("temperature" in alt and "λ_eff" in alt) or "Conductance" in alt for alt in words(page))


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_none_are_drawn_as_nothing(number, tmp_path):
    cells = [flow_cell(10, number, healthy=False, explanation=SICK, ok=(False,) * 5), dos_cell(10, number)]
    page_of(build(tmp_path / "out", [*cells, flow_cell(20), dos_cell(20)]))
    page_of(build(tmp_path / "alone", cells))


def test_many_checkpoints_and_parts_are_cut_and_counted(tmp_path):
    cells = [flow_cell(step, subloss=name) for step in range(1, 41) for name in ("all", *"abcde")]
    page = page_of(build(tmp_path / "out", cells))
    assert "16 of 40 checkpoints are drawn" in page.text
    assert "2 parts more in readings.zarr" in page.text


def test_spectra_of_different_depths_share_one_axis():
    deep = plots.Spectrum(1, np.linspace(-20.0, 0.0, 9), np.full(9, 2.0), 2.0, 0.1, True)
    shallow = plots.Spectrum(2, np.linspace(-10.0, 0.0, 9), np.full(9, 1.0), 1.0, 0.1, True)
    rows, grid = grid_of([deep, shallow])
    assert rows[0] == pytest.approx(-20 / np.log(10))
    assert np.isfinite(grid[:, 0]).all()
    assert np.isnan(grid[0, 1])
    assert grid[-1].tolist() == [2.0, 1.0]


def test_names_of_lines_keep_their_distance():
    line = plots.FlowLine(1, NBETAS, np.full(5, 3.0), np.full(5, 0.1), np.full(5, np.nan), np.ones(5, bool))
    picture = plots.flow_curves([line._replace(step=step) for step in range(1, 9)], "all")
    assert all(f">step {step}<" in picture for step in range(1, 9))
