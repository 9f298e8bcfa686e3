"""The study ``groups``: exact laws of the representations, and networks that learn by heart, and then know."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slt_jax.spectroscopy import recorder_of
from slt_jax.spectroscopy.probes import measure_llc
from slt_jax.spectroscopy.subject import parts, problem_at
from slt_jax.studies import groups
from slt_jax.studies.finite_groups import cyclic, dihedral, projections
from slt_jax.studies.groups_training import Network
from slt_jax.studies.representations import characters_of, present, restricted, spectrum
from slt_jax.studies.study import train

FINITE = [cyclic(7), cyclic(8), dihedral(10), dihedral(12)]
IDS = [group.name for group in FINITE]
every_group = pytest.mark.parametrize("group", FINITE, ids=IDS)


def ideal(group, names):
    """Logits that are the sum of the characters of ``a b c^-1``."""
    chosen = [list(group.characters).index(name) for name in names]
    return jnp.asarray(projections(group)[chosen].sum(axis=0)[group.table] * len(group.table), jnp.float32)


def noise(group, seed=0):
    return jax.random.normal(jax.random.key(seed), (len(group.table),) * 3)


# --- the groups


@every_group
def test_a_table_is_that_of_a_group(group):
    table, size = group.table, len(group.table)
    for a, b, c in itertools.product(range(size), repeat=3):
        assert table[table[a, b], c] == table[a, table[b, c]]
    assert (table[0] == np.arange(size)).all()
    assert (table[np.arange(size), group.inverse] == 0).all()


def test_a_cyclic_group_commutes_and_a_dihedral_one_does_not():
    assert (cyclic(8).table == cyclic(8).table.T).all()
    assert (dihedral(12).table != dihedral(12).table.T).any()


@every_group
def test_the_projections_are_orthogonal_and_add_up_to_the_whole(group):
    found = projections(group)
    np.testing.assert_allclose(found.sum(axis=0), np.eye(len(group.table)), atol=1e-12)
    for i, j in itertools.product(range(len(found)), repeat=2):
        np.testing.assert_allclose(found[i] @ found[j], found[i] if i == j else 0 * found[i], atol=1e-12)


@every_group
def test_the_projections_commute_with_the_group_from_both_sides(group):
    size = len(group.table)
    for g, one in itertools.product(range(size), projections(group)):
        left, right = np.eye(size)[group.table[g]], np.eye(size)[group.table[:, g]]
        np.testing.assert_allclose(one @ left, left @ one, atol=1e-12)
        np.testing.assert_allclose(one @ right, right @ one, atol=1e-12)
    scrambled = np.random.default_rng(0).permutation(size)
    mixed = projections(group)[-1][scrambled][:, scrambled]
    assert np.abs(mixed @ left - left @ mixed).max() > 1e-3


def test_the_characters_of_a_dihedral_group_are_the_traces_of_its_matrices():
    group = dihedral(10)
    for k in (1, 2):
        turn, flip = (np.array(rows) for rows in ([[0, -1], [1, 0]], [[1, 0], [0, -1]]))
        angle = 2 * np.pi * k / 5
        rotation = np.cos(angle) * np.eye(2) + np.sin(angle) * turn
        matrices = [
            np.linalg.matrix_power(rotation, a) @ np.linalg.matrix_power(flip, e) for e in (0, 1) for a in range(5)
        ]
        for a, b in itertools.product(range(10), repeat=2):
            np.testing.assert_allclose(matrices[a] @ matrices[b], matrices[group.table[a, b]], atol=1e-12)
        np.testing.assert_allclose([2 * np.trace(one) / 10 for one in matrices], group.characters[str(k)], atol=1e-12)


# --- what a network holds of them


@every_group
def test_the_power_of_all_representations_is_the_whole_and_that_of_one_is_its_own(group):
    functions = jax.random.normal(jax.random.key(1), (len(group.table), 5))
    np.testing.assert_allclose(spectrum(group, functions).sum(), 1, rtol=1e-5)
    for number, one in enumerate(projections(group)):
        np.testing.assert_allclose(spectrum(group, one @ functions), np.eye(len(group.characters))[number], atol=1e-5)


def test_the_power_of_a_frequency_is_that_of_its_fourier_transform():
    functions = np.random.default_rng(0).normal(size=(29, 3))
    power = np.square(np.abs(np.fft.rfft(functions, axis=0))).sum(axis=1) * np.where(np.arange(15) > 0, 2, 1)
    np.testing.assert_allclose(spectrum(cyclic(29), functions), power / power.sum(), rtol=1e-5)


@every_group
def test_shares_of_logits_are_those_of_the_projections_on_all_of_them(group):
    logits = noise(group) + ideal(group, [list(group.characters)[-1]])
    shares, centred = characters_of(group, logits), np.asarray(logits - logits.mean(axis=2, keepdims=True))
    total = np.sum(centred**2)
    for number, one in enumerate(projections(group)):
        held = np.einsum("cd,abd->abc", one, centred)
        np.testing.assert_allclose(shares.holds[number], np.sum(held**2) / total, rtol=1e-4, atol=1e-6)
        character = one[group.table]
        along = np.sum(character * centred) ** 2 / np.sum(character**2)
        np.testing.assert_allclose(shares.characters[number], along / total, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(shares.holds.sum(), 1, rtol=1e-5)
    assert (np.asarray(shares.characters) <= np.asarray(shares.holds) + 1e-6).all()


@every_group
def test_logits_of_characters_are_nothing_else_and_their_representations_are_present_however_many(group):
    names = [name for name in group.characters if name != "trivial"]
    for chosen in (names[:1], names):
        logits = ideal(group, chosen)
        np.testing.assert_allclose(characters_of(group, logits).characters.sum(), 1, rtol=1e-4)
        found = dict(zip(group.characters, present(group, logits), strict=True))
        assert all((found[name] > 0.5) == (name in chosen) for name in names)
    assert np.max(present(group, noise(group))) < 0.1


@every_group
def test_what_is_kept_and_what_is_left_are_orthogonal_and_add_up(group):
    name = list(group.characters)[-1]
    logits = noise(group)
    kept, rest = restricted(group, logits, [name])
    mean = logits.mean(axis=(0, 1), keepdims=True)
    np.testing.assert_allclose(kept + rest, logits + mean, atol=1e-5)
    np.testing.assert_allclose(jnp.sum((kept - mean) * (rest - mean)), 0, atol=1e-2)
    again = restricted(group, kept, [name])
    np.testing.assert_allclose(again.kept, kept, atol=1e-5)
    np.testing.assert_allclose(again.rest, jnp.broadcast_to(mean, kept.shape), atol=1e-5)
    # of characters alone nothing is left without them, and everything with them
    whole = ideal(group, [name])
    np.testing.assert_allclose(restricted(group, whole, [name]).kept, whole, atol=1e-4)
    np.testing.assert_allclose(restricted(group, whole, ["trivial"]).rest, whole, atol=1e-4)


# --- training


def trained_with(weight_decay):
    study = groups.study("dihedral", weight_decay=weight_decay, steps=3000)
    kept = {}
    recorder = recorder_of(study.subject, study.record_at)
    history = train(jax.random.key(0), study, recorder, kept.__setitem__, lambda done, total: None)
    return study, history, kept


@pytest.fixture(scope="module")
def trained():
    return trained_with(1.0)


def test_the_trained_pairs_are_known_long_before_the_others(trained):
    _, history, _ = trained
    by_heart, known = (history.concepts[f"knows the {name}"] for name in ("trained pairs", "held-out pairs"))
    first, second = (history.steps[np.argmax(curve >= 0.5)] for curve in (by_heart, known))
    assert 0 < first < 150
    assert second > 5 * first
    assert by_heart[-1] > 0.999
    assert known[-1] > 0.85


def test_with_little_weight_decay_they_are_learned_by_heart_alone():
    history = trained_with(0.0)[1]
    assert history.concepts["knows the trained pairs"][-1] > 0.999
    assert history.concepts["knows the held-out pairs"][-1] < 0.6
    assert history.concepts["speaks in characters"][-1] < 0.5


def test_all_parts_of_a_trained_network_hold_the_same_representations_and_its_answers_are_made_of_them(trained):
    _, history, kept = trained
    group, network = dihedral(18), Network(18, 64, 128, "relu")
    tables = {step: groups.table_of_logits(network, kept[step]) for step in (0, 3000)}
    keys = [name for name in group.characters if history.concepts.get(f"representation {name}", [0])[-1] > 0.5]
    assert 1 <= len(keys) < len(group.characters) - 1
    spectra = [spectrum(group, one) for one in (kept[3000]["left"], kept[3000]["right"], kept[3000]["unembed"].T)]
    for one, other in itertools.combinations(spectra, 2):
        assert np.abs(np.asarray(one) - np.asarray(other)).sum() / 2 < 0.15
    assert characters_of(group, tables[3000]).characters.sum() > 0.6
    assert characters_of(group, tables[0]).characters.sum() < 0.05
    right = group.table[..., None] == np.arange(18)
    kept_loss, rest_loss = (
        float(-jnp.mean(jax.nn.log_softmax(logits)[right])) for logits in restricted(group, tables[3000], keys)
    )
    assert kept_loss < 0.1 < 1 < rest_loss


def test_readings_are_healthy_and_fall_when_the_group_is_known(trained):
    study, _, kept = trained
    by_heart = min(kept, key=lambda step: abs(step - 150))
    found = [
        measure_llc(
            jax.random.key(1),
            problem_at(parts(study.subject)["held-out pairs"], kept[step]),
            None,
            **study.probes["llc"].settings | {"draws": 800},
        )
        for step in (by_heart, 3000)
    ]
    assert all(one["healthy"] for one in found), [str(one["explanation"]) for one in found]
    errors = np.hypot(found[0]["std_error"], found[1]["std_error"])
    assert found[0]["value"] - found[1]["value"] > 20 * errors


def test_a_part_counts_its_own_pairs_alone_and_is_least_at_its_own_answers():
    study = groups.study("dihedral")
    params = study.subject.problem.params
    network, group = Network(18, 64, 128, "relu"), dihedral(18)
    for name, places in zip(("trained pairs", "held-out pairs"), groups.split(group, 0.7), strict=True):
        part = study.subject.sublosses[name]
        loss = float(jnp.mean(part.loss_fn(params, part.data)))
        said = jax.nn.log_softmax(network.logits(params, groups.examples(group, places)["pairs"]))
        by_hand = -np.mean(np.asarray(said)[np.arange(len(places)), group.table.ravel()[places]])
        np.testing.assert_allclose(loss, by_hand, rtol=1e-5)
        at = problem_at(part, params)
        slope = jax.grad(lambda moved, at=at: jnp.mean(at.loss_fn(moved, at.data)))(params)
        assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slope)) < 1e-6


BAD = {
    "order: got 1": lambda: cyclic(1),
    "order: got 9; a dihedral": lambda: dihedral(9),
    "order: got 2.5": lambda: cyclic(2.5),
    "group: got 'symmetric'": lambda: groups.study("symmetric"),
    "activation: got 'tanh'": lambda: groups.study(activation="tanh"),
    "share: got 2": lambda: groups.study(share=2),
    "width: got 0": lambda: groups.study(width=0),
    "steps: got 9": lambda: groups.study(steps=9),
    "weight_decay: got -1": lambda: groups.study(weight_decay=-1),
    "names: got '9'": lambda: restricted(cyclic(5), noise(cyclic(5)), ["9"]),
    "functions: got shape": lambda: spectrum(cyclic(5), np.zeros((4, 5))),
    "logits: got shape": lambda: characters_of(cyclic(5), jnp.zeros((5, 5))),
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_not_a_group_or_a_study_of_one_is_refused_with_the_reason(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()
