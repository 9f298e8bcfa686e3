"""The study ``superposition`` and the truths behind it: stages on the way, and chains that measure what is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import deviation

import slt_jax as slt
from slt_jax import storage, truths
from slt_jax.ladder import crossing_at
from slt_jax.spectroscopy import Checkpoint, align, detect_phases, llc_probe, recorder_of
from slt_jax.studies import superposition as toy
from slt_jax.studies.study import train
from slt_jax.truths import morse_bott, superposition_function, superposition_function_problem, superposition_problem
from slt_jax.truths.superposition import PHASES, SADDLES, phase_params, superposition_loss
from slt_jax.truths.superposition_function import superposition_distance, superposition_targets
from slt_jax.workflow import _exact as known_exactly
from slt_jax.workflow import run_study

SMOOTH, KINKED = ("5-", "5+", "6"), ("4--", "4+-", "4++")
STAGES = ["0++++++", "2++++", "4++"]
EXACT = [6.0, 7.25, 8.5]


# --- the model's own function


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def test_with_the_inputs_as_targets_the_distance_is_the_loss_and_so_is_its_gradient(double):
    rng = np.random.default_rng(0)
    distance = jax.jit(jax.value_and_grad(lambda p: jnp.mean(superposition_distance(p, superposition_targets()))))
    loss = jax.jit(jax.value_and_grad(lambda p: superposition_loss(p, jnp.zeros((1, 0)))))
    for _ in range(5):
        params = {"W": jnp.asarray(rng.normal(size=(2, 6))), "b": jnp.asarray(0.5 * rng.normal(size=6))}
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-14), distance(params), loss(params))


def test_the_distance_is_the_integral_it_says(double):
    rng = np.random.default_rng(1)
    nodes = (np.arange(20_000) + 0.5) / 20_000
    student, teacher = (
        {"W": jnp.asarray(rng.normal(size=(2, 6))), "b": jnp.asarray(0.5 * rng.normal(size=6))} for _ in range(2)
    )
    losses = superposition_distance(student, superposition_targets(teacher))
    for i in range(6):
        outputs = [
            np.maximum(nodes[:, None] * np.asarray(p["W"].T @ p["W"])[i][None, :] + np.asarray(p["b"])[None, :], 0)
            for p in (student, teacher)
        ]
        by_hand = np.sum((outputs[0] - outputs[1]) ** 2, axis=1).mean()
        assert float(losses[i]) == pytest.approx(by_hand, abs=1e-7)


def test_a_distance_of_a_millionth_survives_single_precision():
    center = phase_params("6")
    moved = jax.tree.map(lambda leaf: leaf + 1e-4, center)
    single = jnp.mean(superposition_distance(moved, superposition_targets(center)))
    with jax.enable_x64(True):
        exactly = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (moved, center))
        double = jnp.mean(superposition_distance(exactly[0], superposition_targets(exactly[1])))
    assert float(single) < 1e-6
    assert float(single) == pytest.approx(float(double), rel=0.01)


@pytest.mark.parametrize("stage", SMOOTH)
def test_the_own_function_has_the_coefficient_of_the_loss_where_it_is_smooth(stage):
    assert morse_bott(superposition_function_problem(stage))[:2] == superposition_function(stage)[:2]
    assert superposition_function(stage)[0] == truths.superposition(stage)[0]


def test_the_saddles_are_saddles_of_the_loss_and_minima_of_the_own_function():
    loss = jax.jit(lambda p: superposition_loss(p, jnp.zeros((1, 0))))
    slope = jax.jit(jax.grad(loss))
    for row, stage in enumerate(SADDLES):
        params = phase_params(stage)
        gradient = slope(params)
        assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) < 1e-6
        lower = {**params, "W": params["W"].at[row].add(0.2 * jnp.asarray(toy.AHEAD[row], jnp.float32))}
        assert loss(lower) < loss(params) - 1e-3
        with pytest.raises(ValueError, match="phase must be one of"):
            truths.superposition(stage)
    with pytest.raises(ValueError, match=r"stage must be one of 0\+{6}, 2\+{4}, 4--.*got '3': choose one"):
        superposition_function("3")


def test_the_ideal_of_the_line_bounds_the_distance_from_both_sides(double):
    """``K`` against biases, lengths, overlaps and ``(v v, u v)``, over points of the size at which chains move."""
    center = phase_params("2++++")
    targets = superposition_targets(center)
    rng = np.random.default_rng(0)
    ratios, wrong = [], []
    for _ in range(300):
        bent, aside = 10 ** rng.uniform([-2, -3.5], [-1, -1])
        across = np.concatenate([bent * rng.normal(size=2), aside * rng.normal(size=4)])
        bias = aside**2 * rng.normal(size=6)
        along = np.array([1.0, -1.0, *(aside**2 * rng.normal(size=4) - across[0] * across[2:])])
        along[:2] *= np.sqrt(1 - across[:2] ** 2 + aside**2 * rng.normal(size=2))
        params = {"W": jnp.asarray(np.stack([along, across])), "b": center["b"] + bias}
        value = float(jnp.mean(superposition_distance(params, targets)))
        lengths, overlaps = along[:2] ** 2 + across[:2] ** 2 - 1, along[2:] + across[0] / along[0] * across[2:]
        squares, rest = (bias**2).sum() + (lengths**2).sum() + (overlaps**2).sum(), (across[2:] ** 2).sum()
        bend = across[1] - across[0] * along[1] / along[0]
        ratios.append(value / (squares + rest**2 + bend**2 * rest))
        wrong.append(value / (squares + rest**2))
    assert max(ratios) / min(ratios) < 100
    assert max(wrong) / min(wrong) > 1e3


# --- the phases of the loss


def measured(phase, nbeta=1e6):
    """One compiled program for all phases and temperatures."""
    return slt.llc(jax.random.key(0), *superposition_problem(phase, angle=0.4), nbeta=nbeta, relative_error=0.01)


@pytest.mark.parametrize("phase", SMOOTH)
def test_chains_measure_the_coefficient_of_a_smooth_phase(phase):
    estimate = measured(phase)
    assert bool(estimate.health.ok), estimate.explain()
    assert deviation(estimate.value, estimate.std_error, truths.superposition(phase)[0]) < 3


@pytest.mark.parametrize("phase", KINKED)
def test_chains_are_near_what_is_not_proven_of_a_kinked_phase(phase):
    """Loosely: at the edges of the kinks the loss falls again, and chains may look over them."""
    estimate = measured(phase)
    assert bool(estimate.health.ok), estimate.explain()
    value, exact = float(estimate.value), float(truths.superposition(phase)[0])
    assert abs(value - exact) < max(0.05 * exact, 3 * float(estimate.std_error))


def test_at_the_default_temperature_chains_leave_a_pentagon_with_a_silent_feature_and_the_verdict_says_so():
    assert not bool(measured("5-", nbeta=None).health.ok)


# --- the study


@pytest.fixture(scope="module")
def trained():
    """Histories and kept parameters by seed."""
    found, study = {}, toy.study()
    recorder = recorder_of(study.subject, study.record_at)
    for seed in range(3):
        kept = {}
        history = train(jax.random.key(seed), study, recorder, kept.__setitem__, lambda done, total: None)
        found[seed] = history, kept
    return found


@pytest.mark.parametrize("seed", range(3))
def test_training_stays_at_nothing_at_the_line_and_at_the_square(trained, seed):
    history, kept = trained[seed]
    phases = detect_phases(history)
    nearest = [min(kept, key=lambda step: abs(step - plateau)) for plateau in phases.plateaus]
    assert [toy.stage_of(kept[step]) for step in nearest] == STAGES
    assert [float(toy.exact(kept[step]).learning_coefficient) for step in nearest] == EXACT
    losses = np.interp(phases.plateaus, history.steps, history.losses["all"])
    # 1/3 a feature that is not represented, less its mean squared for every output
    np.testing.assert_allclose(losses, [7 / 24, 7 / 36, 7 / 72], atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_features_are_represented_in_the_order_of_their_head_start(trained, seed):
    history, _ = trained[seed]
    alignment = align(history, detect_phases(history))
    phase = {row.concept: row.phase for row in alignment.acquisitions}
    for number, group in enumerate(toy.study().expected_order, start=1):
        assert {phase[name] for name in group} == {number}
    assert phase["feature 4"] is phase["feature 5"] is None


def test_in_the_middle_of_a_transition_nothing_exact_is_claimed(trained):
    history, kept = trained[0]
    middle = min(kept, key=lambda step: abs(step - int(detect_phases(history).transitions[1])))
    assert toy.exact(kept[middle]) is None
    points = [Checkpoint(step, lambda step=step: kept[step]) for step in (0, middle)]
    assert list(known_exactly(toy.exact, points)) == [0]


@pytest.mark.parametrize("stage", [*SADDLES, *PHASES])
def test_a_stage_is_recognised_turned_reflected_and_shuffled_and_not_from_afar(stage):
    rng = np.random.default_rng(0)
    params = jax.tree.map(np.asarray, phase_params(stage, 1.1))
    order, flip = rng.permutation(6), np.array([[1.0], [-1.0]])
    shuffled = {"W": (flip * params["W"])[:, order] + 0.003 * rng.normal(size=(2, 6)), "b": params["b"][order]}
    assert toy.stage_of(shuffled) == stage
    assert toy.stage_of({**shuffled, "b": shuffled["b"] + 0.2}) is None or "-" in stage
    assert toy.stage_of({**shuffled, "W": 1.1 * shuffled["W"] + 0.3}) is None


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The study from training to report, its plateaus only."""
    folder = tmp_path_factory.mktemp("study") / "out"
    return folder, run_study(toy.study()._replace(budget=3, restrictions=("full",)), folder, 0, lambda *_, **__: None)


def test_the_readings_are_healthy_and_every_plateau_is_exact_within_its_error(finished):
    folder, outcome = finished
    assert outcome.exit_code == 0, outcome
    node = storage.read_readings(folder)["/llc"].sel(subloss="all")
    full = node.sel(restriction="full")
    assert full["exact"].values.tolist() == EXACT
    for value, std_error, exact in zip(*(full[name].values for name in ("value", "std_error", "exact")), strict=True):
        assert deviation(value, std_error, exact) < 3
        others = [other for other in EXACT if other != exact]
        assert all(deviation(value, std_error, other) > 3 for other in others)


def test_its_staircases_oppose_cross_where_the_exact_ones_do_and_name_its_phases(finished):
    study = storage.read_study(finished[0])
    rows = [row for row in study["staircases"] if row["subloss"] == "all"]
    assert [row["verdict"] for row in rows] == ["opposing", "opposing"]
    for row in rows:
        # λ rises by 5/4 at each, for the same fall of the loss
        assert row["exact"] == pytest.approx(crossing_at(row["loss_change"], 1.25))
        assert row["crossing"]["low"] < row["exact"] < row["crossing"]["high"]
    assert [name["agrees"] for name in study["phase_names"]] == [["6"], ["29/4"], ["17/2"]]
    assert study["counterparts"]["transitions"] == [1, 2]
    assert study["examples"] is None


def test_the_settings_of_the_study_are_those_of_its_probe():
    probe = toy.study().probes["llc"]
    assert probe.settings == llc_probe(nbeta=1e5, gamma=1.0, chains=16, draws=6000, burnin=3000).settings
