"""Transitions of a run: which checkpoints they are told by, how they are kept on disk, and what the report shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_report import HOSTILE, build, page_of, usual

from slt_jax import measuring, plots, storage
from slt_jax.problem import Problem
from slt_jax.spectroscopy import (
    Checkpoint,
    CheckpointError,
    History,
    Locality,
    Subject,
    Subloss,
    Transition,
    detect_phases,
    transitions,
)

STEPS = np.arange(1, 1001)
#: Two weights learn, one after the other; the others drift a little.
LEARNED = (100, 500)


def params_at(step):
    rises = [1 / (1 + np.exp(-12 * np.log(step / at))) for at in LEARNED]
    return {"w": jnp.array([*rises, 1e-4 * step, 0.0], jnp.float32), "b": jnp.float32(0)}


def loss_fn(params, batch):
    return 0.5 * (batch["x"] @ params["w"] + params["b"] - batch["y"]) ** 2


def subject(names=("first", "second")):
    inputs = jnp.eye(4)[jnp.arange(40) % 2]
    data = {"x": inputs, "y": inputs @ jnp.array([1.0, 1.0, 0.0, 0.0])}
    halves = [jax.tree.map(lambda leaf, half=half: leaf[half::2], data) for half in (0, 1)]
    parts = {name: Subloss(loss_fn, half) for name, half in zip(names, halves, strict=True)}
    return Subject(Problem(loss_fn, params_at(1), data), sublosses=parts)


def history():
    weights = np.stack([np.asarray(params_at(step)["w"]) for step in STEPS])
    losses = {name: 0.5 * (1 - weights[:, index]) ** 2 for index, name in enumerate(("first", "second"))}
    return History(STEPS, {"all": (losses["first"] + losses["second"]) / 2, **losses}, {})


def checkpoints(steps=(10, 60, 100, 130, 220, 400, 500, 620, 1000), broken=()):
    def load(step):
        if step in broken:
            raise CheckpointError(f"checkpoint {step}: truncated")
        return params_at(step)

    return [Checkpoint(step, lambda step=step: load(step)) for step in steps]


@pytest.fixture(scope="module")
def found():
    return list(transitions(jax.random.key(0), subject(), detect_phases(history()), checkpoints()))


def test_each_transition_is_told_by_the_checkpoints_from_plateau_to_plateau(found):
    assert len(found) == 2
    assert found[0].before < LEARNED[0] < found[0].after == found[1].before < LEARNED[1] < found[1].after == 1000
    assert all(one.reason == "" and one.checkpoints > 2 for one in found)


def test_each_transition_lives_in_the_weight_that_learned(found):
    for one, name in zip(found, ("first", "second"), strict=True):
        assert name in one.locality.sublosses
        assert one.locality.enough("all", "largest |Δw|√Fisher") == 1
        assert one.locality.enough(name, "steps between checkpoints") == 1
        assert one.locality.enough("all", "random coordinates") > 2
    # what the other half of the data needs is not gained in this transition
    assert "second" not in found[0].locality.sublosses


def test_a_checkpoint_that_cannot_be_read_is_passed_over(found):
    phases = detect_phases(history())
    again = list(transitions(jax.random.key(0), subject(), phases, checkpoints(broken=[found[0].after])))
    assert again[0].after not in (found[0].after, -1)
    assert again[0].locality is not None


def test_a_transition_without_checkpoints_on_both_sides_says_so():
    phases = detect_phases(history())
    missing = list(transitions(jax.random.key(0), subject(), phases, checkpoints(steps=(10, 60))))
    assert [one.locality for one in missing] == [None, None]
    assert all("no checkpoint" in one.reason for one in missing)


def test_two_checkpoints_give_no_span_that_is_the_change_itself():
    phases = detect_phases(history())
    pair = next(transitions(jax.random.key(0), subject(), phases, checkpoints(steps=(30, 250))))
    assert pair.checkpoints == 2
    assert not {"principal directions", "steps between checkpoints"} & set(pair.locality.kinds)


def test_what_is_written_is_read_again_to_the_last_bit(tmp_path, found):
    lost = Transition(700, -1, -1, 0, None, "no checkpoint")
    storage.write_transitions(tmp_path, [*found, lost], "mark")
    again = storage.read_transitions(tmp_path, "mark")
    assert again[-1] == lost
    for one, other in zip(found, again, strict=False):
        assert one._replace(locality=None) == other._replace(locality=None)
        for field, value, stored in zip(Locality._fields, one.locality, other.locality, strict=True):
            np.testing.assert_array_equal(value, stored, err_msg=field)
    assert storage.read_transitions(tmp_path, "another") is None
    assert storage.read_transitions(tmp_path / "nowhere") is None


def test_none_at_all_can_be_written_and_read(tmp_path):
    storage.write_transitions(tmp_path, [], "mark")
    assert storage.read_transitions(tmp_path) == []


def test_a_run_that_goes_on_does_not_locate_again_what_is_in_the_folder(tmp_path):
    key, told = jax.random.key(0), []

    def locate(points=None):
        told.clear()
        phases = detect_phases(history())
        measuring._locate(key, subject(), points or checkpoints(), tmp_path, lambda *stage: told.append(stage), phases)
        return len(told)

    assert locate() == 2
    first = storage.read_transitions(tmp_path)
    assert locate() == 0
    # other checkpoints are another question
    assert locate(checkpoints(broken=[220])) == 2
    assert locate() == 2
    again = storage.read_transitions(tmp_path)
    np.testing.assert_array_equal(first[1].locality.null_shares, again[1].locality.null_shares)
    measuring._locate(key, subject(), checkpoints(), tmp_path / "none", lambda *stage: None, None)
    assert not (tmp_path / "none").exists()


# --- the report


def chapter(folder, found):
    storage.write_transitions(folder, found)
    return page_of(folder)


def test_the_report_shows_where_each_phase_lives(tmp_path, found):
    page = chapter(usual(tmp_path), found)
    assert "Where each phase lives" in page.text
    assert "Phase 2, transition at step" in page.text
    assert "Of 5 directions so many explain 95 % of it: " in page.text
    assert "largest |Δw|√Fisher 1" in page.text
    words = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    told = [alternative for alternative in words if "Explained share against k" in alternative]
    assert len(told) == 2
    assert "steps between checkpoints 1" in told[0]


def test_without_transitions_there_is_no_such_chapter(tmp_path, found):
    assert "Where each phase lives" not in page_of(usual(tmp_path / "a")).text
    assert "Where each phase lives" not in chapter(usual(tmp_path / "b"), []).text


def test_the_reason_stands_where_a_transition_could_not_be_located(tmp_path):
    page = chapter(usual(tmp_path), [Transition(700, -1, -1, 0, None, HOSTILE)])
    assert f"Not located: {HOSTILE}" in page.text
    assert not any(tag == "script" for tag, _ in page.tags)


def test_names_of_losses_are_text(tmp_path):
    named = list(transitions(jax.random.key(0), subject((HOSTILE, "b")), detect_phases(history()), checkpoints()))
    page = chapter(build(tmp_path), named)
    assert HOSTILE in page.text
    assert not any(tag == "script" for tag, _ in page.tags)


@pytest.mark.parametrize("count", [1, 4, 9])
def test_a_picture_has_a_panel_for_each_of_at_most_six_losses(count):
    counts = np.array([1, 2, 4, 100])
    curve = plots.ShareCurve("kind", np.array([0.1, np.nan, 2.0, 1.0]), np.full(4, np.nan), 100)
    null = plots.ShareCurve("null", np.array([0.0, 0.1, 0.2, 1.0]), np.full(4, 0.1), None)
    panels = [plots.SharePanel(f"loss {index}", [curve], [null]) for index in range(count)]
    drawn = plots.shares(panels, counts, 0.95)
    assert [f"loss {index}" in drawn for index in range(count)] == [index < 6 for index in range(count)]
    assert drawn.count("share explained") >= 1
