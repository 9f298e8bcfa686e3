"""What study.json and the report say of alignment and of phases as phases of a posterior."""

import json

import numpy as np
import pytest
from test_report import HOSTILE, STEPS, build, cell, history, page_of, pictures, usual

from slt_jax import development
from slt_jax.account import phases_of, write_account
from slt_jax.spectroscopy import History, detect_phases
from slt_jax.spectroscopy.plain import plain
from slt_jax.truths.truth import Truth

#: ΔL of the whole loss and of a part, between the checkpoints of neighbouring phases.
CHANGES = {"all": {(10, 300): (-0.9, 0.01), (300, 4000): (-0.9, 0.0)}, "first": {(10, 300): (-0.4, 0.01)}}


def rises(*steps):
    return np.sum([1 / (1 + (step / STEPS) ** 20) for step in steps], axis=0)


def past(names=("early", "late")):
    concepts = dict(zip(names, (rises(102), rises(1010)), strict=True))
    return history()._replace(concepts={**concepts, "never": np.zeros(len(STEPS)), "innate": np.ones(len(STEPS))})


def cells():
    values = {10: 2.0, 60: 2.1, 150: 4.4, 300: 4.5, 700: 4.4, 2000: 9.0, 4000: 9.1}
    found = [cell(step, value) for step, value in values.items()]
    sick = cell(500, 99.0, healthy=False, explanation="UNHEALTHY: rhat.")
    return [*found, sick, cell(10, 1.0, subloss="first"), cell(300, 1.0, subloss="first", error="lost")]


def written(folder, record=None, measured=None, **extra):
    record = past() if record is None else record
    measured = cells() if measured is None else measured
    build(folder, measured, record, title="A title")
    truths = {10: Truth(2, 1, "known"), 300: Truth(4.5, 1, "known")}
    expected = {"expected_order": (("early",), ("late",)), **extra}
    write_account(folder, *phases_of(record), measured, truths, expected, CHANGES)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written(tmp_path_factory.mktemp("alignment") / "out", examples=500)


def test_study_json_holds_every_test_with_its_controls(folder):
    study = json.loads((folder / "study.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    tests = study["alignment_tests"]
    assert len(tests["pairs"]) == 4 * 4  # three losses and the reading of the whole, by four concepts
    assert [row["concept"] for row in study["alignment"]] == ["early", "late", "innate", "never"]
    assert study["alignment"][-1]["between"] == [4000.0, "infinity"]
    assert {control["kind"] for control in tests["controls"]} == {"random probe", "shuffled concepts"}
    reading = next(source for source in tests["sources"] if source["source"] == "llc, all")
    assert reading["kind"] == "reading"
    assert reading["left_out"] == 1
    assert tests["orders"][0]["kendall"] == 1.0
    verdicts = {(row["phase"], row["subloss"]): row["verdict"] for row in study["staircases"]}
    assert verdicts[1, "all"] == verdicts[2, "all"] == "opposing"
    assert verdicts[1, "first"] == "not measured"
    assert study["counterparts"]["examples"] == 500
    assert [name["agrees"] for name in study["phase_names"]] == [["2"], ["4.5"], []]


def test_the_report_shows_what_study_json_says(folder):
    page = page_of(folder)
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert sections.index("learned") < sections.index("posterior") < sections.index("construction")
    for words in (
        "Against chance",
        "pairs of a loss or reading with a concept are nearer than chance",
        "random probe",
        "shuffled concepts",
        "acquisition and theory",
        "Opposing staircases, the loss down and λ̂ up, in 2 of 2 transitions of losses",
        "n* from exact λ",
        "2 transitions of losses: no two healthy readings",
        "agrees with no known value",
        "A step of training is not a number of examples",
    ):
        assert words in page.text
    shown = "".join(pictures(page))
    assert "not acquired" in shown
    assert "there before the first record" in shown
    assert "initial state → 1" in shown


def test_a_folder_from_before_these_tests_has_its_report(tmp_path):
    page = page_of(usual(tmp_path / "out"))
    assert "Against chance" not in page.text


def test_where_everything_happened_at_once_the_report_says_that_there_is_no_test(tmp_path):
    record = History(STEPS, {"all": 1 - rises(200)}, {"a": rises(200)})
    assert len(detect_phases(record).transitions) == 1
    page = page_of(written(tmp_path / "out", record, [cell(10)]))
    assert "there is no test against chance" in page.text


def test_names_with_markup_are_set_as_words(tmp_path):
    page = page_of(written(tmp_path / "out", past((HOSTILE, "$\\frac{1}{2"))))
    assert HOSTILE in page.text


def test_plain_values_are_what_json_can_hold():
    row = {"a": np.float64("nan"), "b": -np.inf, "c": np.arange(2), "d": (np.True_, None), "e": Truth(2, None, "x")}
    assert plain(row) == {
        "a": None,
        "b": "-infinity",
        "c": [0, 1],
        "d": [True, None],
        "e": {"learning_coefficient": 2, "multiplicity": None, "source": "x"},
    }


def test_series_are_the_healthy_readings_in_the_order_of_their_steps():
    found = development.series_of([cell(9, 2.0), cell(3, 1.0), cell(5, 9.0, healthy=False), cell(1, restriction="w")])
    assert list(found) == ["llc, all"]
    assert (found["llc, all"].steps.tolist(), found["llc, all"].left_out) == ([3, 9], 1)
    assert found["llc, all"].values.tolist() == [1.0, 2.0]
