"""The studies: each is one, and the default one finds what theory says, plateau by plateau."""

import importlib
import pkgutil
import shutil
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import deviation

import slt_jax.studies
from slt_jax import storage
from slt_jax.cli import studies
from slt_jax.spectroscopy import CheckpointError, align, detect_phases, llc_probe, recorder_of
from slt_jax.spectroscopy.recorder import measure
from slt_jax.spectroscopy.subject import check_subject
from slt_jax.studies import semantics
from slt_jax.studies.hierarchy import ITEMS, hierarchy, outputs, squared_loss
from slt_jax.studies.study import Study, log_steps, train
from slt_jax.truths import deep_linear
from slt_jax.workflow import run_study

FACTS = hierarchy()
#: Rank of the network's function at each plateau: the modes are learned one level of the tree after another.
RANKS = [0, 1, 2, 4, 8]
EXACT = [32.0, 35.5, 39.0, 46.0, 60.0]


# --- the facts


def test_the_singular_values_of_the_properties_are_those_of_the_levels_of_the_tree():
    singular = np.linalg.svd(FACTS.properties, compute_uv=False)
    np.testing.assert_allclose(singular, np.sqrt([15, 7, 3, 3, 1, 1, 1, 1]), rtol=1e-6)
    np.testing.assert_allclose(sorted(FACTS.strengths.values(), reverse=True), singular, rtol=1e-6)


def test_the_contrasts_are_the_singular_vectors_of_the_properties():
    contrasts = np.stack(list(FACTS.contrasts.values()))
    np.testing.assert_allclose(contrasts @ contrasts.T, np.eye(8), atol=1e-6)
    gram = FACTS.properties @ FACTS.properties.T
    for name, contrast in FACTS.contrasts.items():
        np.testing.assert_allclose(gram @ contrast, FACTS.strengths[name] ** 2 * contrast, atol=1e-5)
    mixed = FACTS.contrasts["living thing"] + FACTS.contrasts["animal or plant"]
    assert np.abs(gram @ mixed - 15 * mixed).max() > 1


def test_every_item_has_the_properties_of_its_branch():
    assert FACTS.properties.shape == (len(ITEMS), 15)
    assert (FACTS.properties.sum(axis=1) == 4).all()
    assert [int((FACTS.levels == level).sum()) for level in range(4)] == [1, 2, 4, 8]
    # a canary shares three properties with a robin, two with a salmon, one with an oak
    shared = FACTS.properties @ FACTS.properties[ITEMS.index("canary")]
    assert [shared[ITEMS.index(name)] for name in ("robin", "salmon", "oak")] == [3, 2, 1]


def test_the_outputs_are_the_product_of_the_layers_and_the_loss_half_the_squared_distance():
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=shape).astype(np.float32) for shape in ((8, 5), (5, 15))]
    inputs, targets = np.eye(8, dtype=np.float32), FACTS.properties
    np.testing.assert_allclose(outputs(layers, inputs), layers[0] @ layers[1], rtol=1e-5)
    by_hand = 0.5 * ((layers[0] @ layers[1] - targets) ** 2).sum(axis=1)
    np.testing.assert_allclose(squared_loss(layers, {"inputs": inputs, "targets": targets}), by_hand, rtol=1e-5)


# --- all studies


def modules():
    names = [module.name for module in pkgutil.iter_modules(slt_jax.studies.__path__)]
    loaded = {name: importlib.import_module(f"slt_jax.studies.{name}") for name in names}
    # what a helper imports is not its own
    return sorted(
        name
        for name, module in loaded.items()
        if getattr(getattr(module, "study", None), "__module__", "") == module.__name__
    )


def test_the_command_line_finds_every_study():
    assert studies() == modules()
    assert {"digits", "semantics"} <= set(studies())


@pytest.mark.parametrize("name", modules())
def test_a_study_is_one(name):
    study = importlib.import_module(f"slt_jax.studies.{name}").study()
    assert isinstance(study, Study)
    assert study.name == name
    check_subject(study.subject)
    assert set(study.sublosses) <= {"all", *study.subject.sublosses}
    assert set(study.restrictions) <= {"full", *study.subject.restrictions}
    assert {name for group in study.expected_order for name in group} <= set(study.subject.concepts)
    for steps in (study.record_at, study.keep_at):
        assert (np.diff(steps) > 0).all()
        assert steps[0] == 0
    assert study.record_at[-1] == study.keep_at[-1]
    state = study.init(jax.random.key(0))
    params = study.params_of(state)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, study.subject.problem.params)
    assert jax.tree.structure(study.update(state, jnp.int32(0))) == jax.tree.structure(state)


#: Of 841 pairs of elements, and of the eight examples of a sequence.
SHARES = {
    "groups": {"trained pairs": 505 / 841, "held-out pairs": 336 / 841},
    "regression": {"few examples": 4 / 8, "many examples": 4 / 8},
}


@pytest.mark.parametrize("name", modules())
def test_the_sublosses_of_a_study_add_up_to_its_loss(name):
    study = importlib.import_module(f"slt_jax.studies.{name}").study()
    losses, _ = measure(recorder_of(study.subject, [0]), study.params_of(study.init(jax.random.key(1))))
    whole = losses.pop("all")
    if name == "induction":
        # patterns are all tokens, each once, and each loss is the mean over its own
        losses = {part: losses[part] * share for part, share in token_shares(study).items()}
    if name in SHARES:
        losses = {part: losses[part] * share for part, share in SHARES[name].items()}
    # the digits split the examples evenly, the levels of the tree split every example
    total = np.mean(list(losses.values())) if name == "digits" else np.sum(list(losses.values()))
    np.testing.assert_allclose(total, whole, rtol=1e-5)


def test_steps_even_in_the_logarithm_begin_at_0_and_end_at_the_last():
    steps = log_steps(1000, 20)
    assert (steps[0], steps[-1]) == (0, 1000)
    assert (np.diff(steps) > 0).all()
    late = steps[steps > 50]
    ratios = late[1:] / late[:-1]
    assert ratios.max() / ratios.min() < 1.1


def token_shares(study):
    """The share of all tokens that are the first of their symbol, repeat what followed it last, or differ from it."""
    whole = study.subject.problem.data["targets"]
    # where a pattern asks for anything, it asks for what the whole asks for, scaled by one over its share
    ratios = {name: part.data["targets"] / whole for name, part in study.subject.sublosses.items()}
    return {name: 1 / np.max(ratio) for name, ratio in ratios.items()}


# --- semantics


def quick(**settings):
    """The default study with fewer draws: the same training, the whole loss at the plateaus only."""
    probes = {"llc": llc_probe(nbeta=1e4, **{"chains": 4, "draws": 2000, "burnin": 2000} | settings)}
    return semantics.study()._replace(sublosses=("all",), probes=probes, budget=5)


@pytest.fixture(scope="session")
def trained():
    """Histories and kept parameters of the default study, by seed."""
    found, study = {}, semantics.study()
    recorder = recorder_of(study.subject, study.record_at)
    for seed in range(3):
        kept = {}
        history = train(jax.random.key(seed), study, recorder, kept.__setitem__, lambda done, total: None)
        found[seed] = history, kept
    return found


@pytest.mark.parametrize("seed", range(3))
def test_there_are_as_many_transitions_as_distinct_singular_values(trained, seed):
    distinct = {round(strength, 6) for strength in FACTS.strengths.values()}
    phases = detect_phases(trained[seed][0])
    assert len(phases.transitions) == len(distinct) == 4


@pytest.mark.parametrize("seed", range(3))
def test_transitions_come_at_times_inverse_to_the_singular_values(trained, seed):
    """From equal starts a mode of strength s is learned at a step proportional to 1/s."""
    transitions = detect_phases(trained[seed][0]).transitions
    strengths = np.sqrt([15, 7, 3, 1])
    np.testing.assert_allclose(transitions * strengths / (transitions[0] * strengths[0]), 1, rtol=0.15)


def in_groups(order):
    """The order with the concepts of one strength as one group."""
    groups = []
    for group in semantics.study().expected_order:
        groups.append(sorted(order.index(name) for name in group))
    return groups


@pytest.mark.parametrize("seed", range(3))
def test_concepts_are_acquired_in_the_order_of_the_singular_values(trained, seed):
    history, _ = trained[seed]
    order = align(history, detect_phases(history)).order
    assert set(order) == set(FACTS.strengths)
    groups = in_groups(order)
    assert [len(group) for group in groups] == [1, 1, 2, 4]
    assert all(before[-1] < after[0] for before, after in pairwise(groups))
    backwards = in_groups(order[::-1])
    assert not all(before[-1] < after[0] for before, after in pairwise(backwards))


@pytest.mark.parametrize("seed", range(3))
def test_each_concept_belongs_to_the_phase_of_its_strength(trained, seed):
    history, _ = trained[seed]
    phases = {row.concept: row.phase for row in align(history, detect_phases(history)).acquisitions}
    for number, group in enumerate(semantics.study().expected_order, start=1):
        assert {phases[name] for name in group} == {number}


@pytest.mark.parametrize("seed", range(3))
def test_the_exact_value_at_every_plateau_is_that_of_the_rank_learned(trained, seed):
    history, kept = trained[seed]
    plateaus = detect_phases(history).plateaus
    nearest = [min(kept, key=lambda step: abs(step - plateau)) for plateau in plateaus]
    values = [float(semantics.exact(kept[step]).learning_coefficient) for step in nearest]
    assert values == [float(deep_linear(semantics.WIDTHS, rank).learning_coefficient) for rank in RANKS] == EXACT


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The quick study from training to report, once."""
    folder = tmp_path_factory.mktemp("study") / "out"
    said = []
    outcome = run_study(quick(), folder, 0, lambda stage, done, total, detail="": said.append((stage, done, total)))
    return folder, outcome, said


def plateau_readings(folder):
    node = storage.read_readings(folder)["/llc"].sel(restriction="full", subloss="all")
    return [node[name].values for name in ("value", "std_error", "exact")]


def agrees(value, std_error, exact):
    """Within 5 % or 3 reported standard errors."""
    return abs(value - exact) <= 0.05 * exact or deviation(value, std_error, exact) <= 3


def test_at_every_plateau_the_reading_is_the_exact_value_of_its_rank_and_not_of_another(finished):
    value, std_error, exact = plateau_readings(finished[0])
    assert exact.tolist() == EXACT
    assert all(map(agrees, value, std_error, exact))
    next_rank = np.roll(exact, -1)
    assert sum(not agrees(*row) for row in zip(value, std_error, next_rank, strict=True)) >= 3


def test_a_finished_study_is_healthy_and_its_folder_whole(finished):
    folder, outcome, _ = finished
    assert outcome.exit_code == 0, outcome
    assert outcome.readings == 5
    assert {entry.name for entry in folder.iterdir()} == {
        "cells",
        "checkpoints",
        "construction.dot",
        "construction.json",
        "history.zarr",
        "locality.zarr",
        "readings.zarr",
        "relations.json",
        "report.html",
        "study.json",
    }


def test_every_transition_of_a_study_is_located_and_fewer_weights_do_than_by_chance(finished):
    found = storage.read_transitions(finished[0])
    assert [one.step for one in found] == storage.read_study(finished[0])["phases"]["transitions"]
    for one in found:
        moves, chance = (one.locality.enough("all", name) for name in ("largest |Δw|", "random coordinates"))
        assert moves < 0.7 * chance
        # what is fitted last has the least curvature: only the first transition is stiff
        assert one.locality.curve("all", "stiffest directions")[0][-1] == pytest.approx(1, abs=1e-3)
    assert found[0].locality.enough("all", "stiffest directions") == 1
    assert found[3].locality.enough("all", "stiffest directions") > 30
    assert "Where each phase lives" in (finished[0] / "report.html").read_text()


def test_the_study_file_says_what_was_done(finished):
    study = storage.read_study(finished[0])
    assert len(study["phases"]["transitions"]) == 4
    assert [record["phase"] for record in study["construction"]] == [0, 1, 2, 3, 4]
    assert [row["concept"] for row in study["alignment"]][:2] == ["living thing", "animal or plant"]
    assert study["identity"]["settings"]["llc"]["draws"] == 2000
    assert study["identity"]["seed"] == 0
    assert {"slt_jax", "jax", "numpy", "python"} <= set(study["versions"])
    truths = [study["exact"][step]["learning_coefficient"] for step in sorted(study["exact"], key=int)]
    assert truths == ["32", "71/2", "39", "46", "60"]


def test_a_finished_study_says_which_phase_splits_which_and_that_none_was_built_on_another(finished):
    study = storage.read_study(finished[0])
    edges = [(row["kind"], row["later"], row["earlier"]) for row in study["relations"] if row["direct"]]
    assert edges == [("refines", 2, 1), ("refines", 3, 2), ("refines", 4, 3)]
    # levels are learned as wholes: more than one cluster splits at the last two
    kinds = ["initial state", "formation", "refinement", "decomposition", "decomposition"]
    assert [record["kind"] for record in study["construction"]] == kinds
    assert study["untested"] == []
    assert 'id="phase-4"' in (finished[0] / "report.html").read_text()


def test_progress_is_told_stage_by_stage_to_its_end(finished):
    said = finished[2]
    stages = ["Training", "Measuring", "Locating", "Relating", "Comparing", "Reporting"]
    assert list(dict.fromkeys(stage for stage, _, _ in said)) == stages
    for stage in stages:
        steps = [(done, total) for name, done, total in said if name == stage]
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]


def copied(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "out")
    return tmp_path / "out"


def test_a_finished_study_run_again_repeats_nothing_and_gives_the_same_bits(finished, tmp_path):
    folder = copied(finished, tmp_path)
    before = storage.read_readings(folder)
    times = {path.name: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}
    said = []
    run_study(quick(), folder, 0, lambda stage, done, total, detail="": said.append(stage))
    assert not {"Training", "Locating", "Relating"} & set(said)
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()} == times
    assert storage.read_readings(folder).identical(before)


@pytest.mark.parametrize(
    ("study", "seed", "name"),
    [
        (quick(), 1, "seed"),
        (quick(draws=2001), 0, "settings"),
        (quick()._replace(update=lambda params, step: params), 0, "training"),
        (quick()._replace(keep_at=log_steps(6000, 9)), 0, "training"),
        (quick()._replace(name="other"), 0, "study"),
    ],
)
def test_a_study_that_differs_is_refused_its_folder(finished, tmp_path, study, seed, name):
    folder = copied(finished, tmp_path)
    with pytest.raises(storage.FolderError, match=rf"belongs to another study \({name} is"):
        run_study(study, folder, seed, lambda *_, **__: None)


def test_a_truncated_checkpoint_of_a_study_is_named_and_the_others_finish(finished, tmp_path):
    folder = copied(finished, tmp_path)
    steps = sorted(int(entry.name) for entry in (folder / "checkpoints").iterdir())
    (folder / "checkpoints" / str(steps[1]) / "default" / "_METADATA").unlink()
    with pytest.raises(CheckpointError):
        storage.load_checkpoint(folder / "checkpoints" / str(steps[1]), semantics.study().subject.problem.params)
    outcome = run_study(quick(), folder, 0, lambda *_, **__: None)
    assert outcome.exit_code == 1
    assert outcome.readings == 4
    assert [place for place, _ in outcome.failed] == [f"llc at step {steps[1]}, full, all"]
    assert f"checkpoint {steps[1]}: unreadable" in outcome.failed[0][1]
