"""Comparing networks: the same ones are found to be the same, and random ones are not, exactly as often as chance."""

import numpy as np
import pytest
from scipy.stats import kstest

from slt_jax.spectroscopy import History, Phases, Signature, compare, phase_signature, stage_signature

READINGS = ("time", "Δ loss all", "Δ λ̂", "learned head", "Δ loss part")


def signature(table, name="one", kind=""):
    items = tuple(f"phase {number}" for number in range(len(table)))
    return Signature(name, items, dict(zip(READINGS, np.asarray(table).T, strict=False)), kind)


def random_signatures(seed, sizes, readings=3):
    random = np.random.default_rng(seed)
    # of any distribution: skewed, and for the last reading with ties
    tables = [np.exp(random.normal(size=(size, readings))) for size in sizes]
    return [signature(table, str(number)) for number, table in enumerate(tables)]


def reordered(table, seed):
    order = np.random.default_rng(seed).permutation(len(table))
    return table[order], order


def test_the_same_network_with_its_items_in_another_order_is_at_distance_0_and_every_reading_agrees():
    table = np.random.default_rng(0).normal(size=(7, 4))
    others = [reordered(table, seed) for seed in (1, 2)]
    found = compare([signature(table), *(signature(other, "other") for other, _ in others)], permutations=499)
    assert found.distance == pytest.approx(0, abs=1e-12)
    assert found.p_value == 1 / 500
    assert [row.reading for row in found.agreements if row.agrees] == [row.reading for row in found.agreements]
    for number, (_, order) in enumerate(others, start=1):
        # item i of the first stands where the order put it
        np.testing.assert_array_equal(order[found.assignments[0, number]], np.arange(7))


def test_sizes_do_not_count():
    table = np.random.default_rng(0).normal(size=(7, 4))
    found = compare([signature(table), signature(table * [1, 10, 0.1, 3])], permutations=19)
    assert found.distance == pytest.approx(0, abs=1e-12)


def test_an_item_more_that_brought_little_costs_little_and_one_that_brought_much_costs_more():
    table = np.random.default_rng(0).normal(size=(5, 4))
    little, much = (
        compare([signature(table), signature(np.vstack([table, np.full((1, 4), size)]))], permutations=19).distance
        for size in (1e-3, 2.0)
    )
    assert little < 1e-2 < much


@pytest.mark.parametrize(("sizes", "matched"), [((6, 6), True), ((5, 6, 4), True), ((6, 6), False)])
def test_the_p_values_of_random_networks_are_uniform_of_the_whole_and_of_a_reading(sizes, matched):
    whole, one = [], []
    for seed in range(300):
        found = compare(random_signatures(5000 + seed, sizes), matched=matched, permutations=99, seed=seed)
        whole.append(found.p_value)
        # the rows are sorted by their p-values: take one by its name
        one += [row.p_value for row in found.agreements if row.reading == "time"]
    # steps of 1/100, spread evenly over them
    jitter = np.random.default_rng(0).uniform(size=(2, 300)) / 100
    assert kstest(whole - jitter[0], "uniform").pvalue > 0.01
    assert kstest(one - jitter[1], "uniform").pvalue > 0.01


def test_readings_that_go_together_within_networks_do_not_make_networks_alike():
    """All readings of a network are one, in an order of its own: still uniform, where the order is what is compared."""
    found = []
    for seed in range(300):
        random = np.random.default_rng(5000 + seed)
        networks = [signature(np.repeat(random.normal(size=(6, 1)), 3, axis=1), str(number)) for number in range(2)]
        found.append(compare(networks, matched=False, permutations=99, seed=seed).p_value)
    assert kstest(found - np.random.default_rng(0).uniform(size=300) / 100, "uniform").pvalue > 0.01


def test_p_values_of_networks_that_are_alike_are_not_uniform():
    random = np.random.default_rng(0)
    found = []
    for seed in range(30):
        table = random.normal(size=(6, 3))
        noisy = [signature(table + 0.3 * random.normal(size=table.shape)) for _ in range(2)]
        found.append(compare(noisy, permutations=99, seed=seed).p_value)
    assert kstest(found, "uniform").pvalue < 1e-6


def test_a_reading_that_has_nothing_to_do_with_the_others_is_told_from_those_that_agree():
    random = np.random.default_rng(1)
    table = random.normal(size=(8, 4))
    networks = []
    for number in range(4):
        own = table + 0.1 * random.normal(size=table.shape)
        networks.append(signature(np.hstack([own, random.normal(size=(8, 1))])[random.permutation(8)], str(number)))
    found = compare(networks, permutations=499)
    assert {row.reading for row in found.agreements if row.agrees} == set(READINGS[:4])
    assert "Δ loss part" in found.describe().splitlines()[-1]


def test_false_discoveries_over_readings_are_as_rare_as_the_level_says():
    """Where nothing agrees, any discovery is false: at most 5 % of comparisons may have one, 3 errors allowed."""
    false = [
        any(
            row.agrees for row in compare(random_signatures(seed, (5, 5)), permutations=99, seed=1000 + seed).agreements
        )
        for seed in range(200)
    ]
    assert np.mean(false) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_kinds_that_differ_are_told_apart_as_well_as_their_number_allows_and_equal_ones_are_not():
    random = np.random.default_rng(2)
    tables = random.normal(size=(2, 8, 3))
    networks = [
        signature(tables[kind] + 0.05 * random.normal(size=(8, 3)), f"{kind} {seed}", f"kind {kind}")
        for kind in (0, 1)
        for seed in range(3)
    ]
    found = compare(networks, matched=False, permutations=19)
    # of the 20 ways to label three of six, two are this one
    assert found.kinds == found.least == pytest.approx(0.1)
    mixed = [network._replace(kind=str(number % 2)) for number, network in enumerate(networks)]
    assert compare(mixed, matched=False, permutations=19).kinds > 0.1
    assert compare([network._replace(kind="") for network in networks], permutations=19).kinds is None


def test_without_matching_items_stand_in_their_order():
    table = np.random.default_rng(0).normal(size=(7, 3))
    networks = [signature(table), signature(table[::-1])]
    assert compare(networks, permutations=19).distance == pytest.approx(0, abs=1e-12)
    assert compare(networks, permutations=19, matched=False).distance > 0.5


def stairs(times, heights=(1.0, 1.0)):
    steps = np.arange(0, 1000)
    curve = sum(height / (1 + np.exp((steps - time) / 3)) for time, height in zip(times, heights, strict=True))
    late = (steps > times[1]).astype(float)
    return History(steps, {"all": curve, "part": 2 * curve}, {"head 1.0": late, "head 1.1": np.zeros(1000)})


def phases_of(times):
    empty = np.zeros(0)
    at = np.asarray(times)
    return Phases(at, at - 5, at + 5, np.array([1, (times[0] + times[1]) // 2, 999]), empty, empty)


def test_the_signature_of_phases_says_what_each_brought():
    readings = {"λ̂": {1: (2.0, 0.1), 110: (5.0, 0.1), 990: (9.0, 0.1)}, "lacking": {1: (2.0, 0.1)}}
    found = phase_signature("one", stairs((50, 400)), phases_of((50, 400)), readings)
    assert found.items == ("phase 1", "phase 2")
    np.testing.assert_allclose(found.readings["Δ loss all"], -1, atol=1e-3)
    assert found.readings["Δ λ̂"].tolist() == [3, 4]
    assert found.readings["learned head"].tolist() == [0, 0.5]
    np.testing.assert_allclose(found.readings["time"], np.log([50, 8]) / np.log(999))
    assert "Δ lacking" not in found.readings


def test_what_stages_brought_adds_up_to_the_whole_change():
    history = stairs((50, 400))
    found = stage_signature("one", history, {"λ̂": {0: (1.0, 0.1), 300: (5.0, 0.1), 999: (2.0, 0.1)}}, stages=6)
    for name, curve in history.losses.items():
        np.testing.assert_allclose(found.readings[f"Δ loss {name}"].sum(), curve[-1] - curve[0])
    assert found.readings["Δ λ̂"].sum() == pytest.approx(1)
    assert found.readings["Δ head"].sum() == pytest.approx(0.5)


BAD = {
    "at least two networks": lambda: compare([signature(np.ones((3, 2)))]),
    "permutations: got 5": lambda: compare([signature(np.ones((3, 2)))] * 2, permutations=5),
    "level: got 5": lambda: compare([signature(np.ones((3, 2)))] * 2, level=5),
    "must be finite numbers": lambda: compare([signature(np.full((3, 2), np.nan))] * 2),
    "a single item": lambda: compare([signature(np.ones((1, 2)))] * 2),
    "without matching": lambda: compare([signature(np.ones((3, 2))), signature(np.ones((4, 2)))], matched=False),
    "share the readings": lambda: compare([signature(np.ones((3, 2))), Signature("x", ("a", "b"), {})]),
    "phases: 'x' has none": lambda: phase_signature(
        "x", stairs((50, 400)), phases_of((50, 400))._replace(transitions=np.zeros(0, int))
    ),
    "stages: got 2": lambda: stage_signature("x", stairs((50, 400)), stages=2),
    "a change needs 2": lambda: stage_signature("x", stairs((50, 400)), {"λ̂": {3: (1.0, 0.1)}}),
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_compared_is_refused_with_the_reason(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()
