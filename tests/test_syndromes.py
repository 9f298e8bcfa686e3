"""Minimal breaking sets of a network: planted ones exactly, redundancy as pairs, and a null that has none of it."""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slt_jax.restriction import mask, paths, span
from slt_jax.studies import semantics
from slt_jax.studies.hierarchy import hierarchy
from slt_jax.substructure import syndromes

#: Units by what they carry: one block alone, one held twice, one held three times, and a gate that needs both.
PLANTED = ["alone", "twice a", "twice b", "thrice a", "thrice b", "thrice c", "gate a", "gate b", "idle"]
EXPECTED = {
    ("alone",),
    ("gate a",),
    ("gate b",),
    ("twice a", "twice b"),
    ("thrice a", "thrice b", "thrice c"),
}


def answers(params, inputs):
    """Four outputs of nine units: saturated sums need any of their units, a product needs all."""
    hidden = jnp.tanh(4 * jnp.abs(inputs @ params["in"]))
    out = hidden * params["out"][None, :]
    once, twice, thrice = (jnp.tanh(8 * part.sum(-1)) for part in (out[:, :1], out[:, 1:3], out[:, 3:6]))
    return jnp.stack([once, twice, thrice, out[:, 6] * out[:, 7]], axis=-1)


def squared(params, batch):
    return 0.5 * jnp.sum((answers(params, batch["inputs"]) - batch["targets"]) ** 2, axis=-1)


@pytest.fixture(scope="module")
def planted():
    reads = np.zeros((4, 9), np.float32)
    for unit, feature in enumerate([0, 1, 1, 2, 2, 2, 3, 3, 3]):
        reads[feature, unit] = 1 + 0.1 * unit
    params = {"in": jnp.asarray(reads), "out": jnp.ones(9).at[8].set(0.3)}
    inputs = 1 + jax.random.uniform(jax.random.key(0), (64, 4))
    data = {"inputs": inputs, "targets": answers(params, inputs)}
    units = {
        name: {"in": np.broadcast_to(np.arange(9) == unit, (4, 9)), "out": np.arange(9) == unit}
        for unit, name in enumerate(PLANTED)
    }
    return params, data, units


@pytest.fixture(scope="module")
def found(planted):
    params, data, units = planted
    return syndromes(jax.random.key(0), squared, params, data, units, threshold=0.1, largest=4)


def test_planted_minimal_breaking_sets_are_found_exactly(found):
    assert set(found.sets) == EXPECTED
    assert found.counts == (3, 1, 1, 0)
    assert found.complete
    assert (found.losses - found.base > found.threshold).all()


def test_the_ideal_of_the_planted_sets_has_the_coefficient_of_its_polyhedron(found):
    """Three units alone, a pair and a triple: min Σ v = 5, the pair sharing 1 in one way more, the triple in two."""
    assert found.hypothesis.learning_coefficient == Fraction(5, 2)
    assert found.hypothesis.multiplicity == 1 + 1 + 2
    assert sum(found.exponents.values()) == pytest.approx(2.5)
    assert found.exponents["alone"] == found.exponents["gate a"] == 0.5
    assert found.exponents["twice a"] == pytest.approx(0.25)
    assert found.exponents["thrice b"] == pytest.approx(1 / 6)
    assert found.exponents["idle"] == 0


def test_entries_dealt_at_random_have_other_sets(found):
    """Where every component holds a share of every block, single ones break and no redundancy is left."""
    assert found.null_counts.shape == (4, 4)
    assert not any((row == np.array(found.counts)).all() for row in found.null_counts)


def test_every_set_is_breaking_and_minimal_by_exhaustion(planted, found):
    """All 255 subsets of eight units, one at a time."""
    params, data, _ = planted
    names = PLANTED[:8]

    @jax.jit
    def loss_without(chosen):
        out = jnp.append(chosen, False)
        return squared({"in": jnp.where(out[None, :], 0.0, params["in"]), "out": params["out"]}, data).mean()

    base = loss_without(jnp.zeros(8, bool))
    broken = {}
    for chosen in itertools.product([False, True], repeat=8):
        broken[chosen] = bool(loss_without(jnp.array(chosen)) - base > 0.1)
    minimal = set()
    for chosen, is_broken in broken.items():
        parts = itertools.product(*[[False, True] if bit else [False] for bit in chosen])
        if is_broken and not any(broken[part] for part in parts if part != chosen):
            minimal.add(tuple(itertools.compress(names, chosen)))
    assert minimal == set(found.sets)


def test_contact_exponents_are_set_beside_the_prediction(planted, found):
    params, data, units = planted
    settings = {"threshold": 0.1, "nulls": 0}
    agreeing = {name: 2 * value + 0.01 for name, value in found.exponents.items()}
    turned = dict(zip(PLANTED, np.roll(list(agreeing.values()), 4), strict=True))
    with_them = syndromes(jax.random.key(0), squared, params, data, units, contact=agreeing, **settings)
    against = syndromes(jax.random.key(0), squared, params, data, units, contact=turned, **settings)
    assert with_them.agreement == pytest.approx(1)
    assert with_them.chance < 0.01
    assert against.agreement < 0.5
    assert against.chance > 0.05
    assert "by chance" in with_them.explain()
    assert with_them.null_counts.shape == (0, 3)


def test_a_budget_ends_the_search_and_says_so(planted):
    params, data, units = planted
    short = syndromes(jax.random.key(0), squared, params, data, units, threshold=0.1, budget=12, nulls=0)
    assert short.searched == 1
    assert not short.complete
    assert short.counts == (3,)
    assert short.evaluations == 10
    assert "UNFINISHED" in short.explain()


def test_what_nothing_breaks_has_no_hypothesis(planted):
    params, data, units = planted
    none = syndromes(jax.random.key(0), squared, params, data, units, threshold=1e3, nulls=1, largest=2)
    assert none.sets == ()
    assert none.hypothesis is None
    assert none.null_coefficients.tolist() == [0.0]
    assert none.counts == (0, 0)


def test_ablation_to_the_values_themselves_breaks_nothing(planted):
    params, data, units = planted
    same = syndromes(
        jax.random.key(0), squared, params, data, units, threshold=1e-6, reference=params, nulls=0, largest=2
    )
    assert same.sets == ()


@pytest.fixture(scope="module")
def trained():
    """The study's network after training, its hidden units turned to its modes, which leaves the function as it was."""
    study = semantics.study()
    state = jax.jit(lambda state: jax.lax.fori_loop(0, 3000, lambda step, s: study.update(s, step), state))(
        study.init(jax.random.key(0))
    )
    first, second = (np.asarray(layer, float) for layer in study.params_of(state))
    # modes of one singular value are mixed: the distinctions of the tree are a basis of them all
    facts = hierarchy()
    contrasts = np.stack(list(facts.contrasts.values()))
    layers = [jnp.asarray(contrasts.T, jnp.float32), jnp.asarray(contrasts @ first @ second, jnp.float32)]
    return study, (first, second), layers, facts


def units_of(layers):
    hidden = layers[0].shape[1]
    return {
        f"unit {unit}": [
            np.broadcast_to(np.arange(hidden) == unit, layers[0].shape),
            np.broadcast_to((np.arange(hidden) == unit)[:, None], layers[1].shape),
        ]
        for unit in range(hidden)
    }


def level_syndromes(study, layers, level, **settings):
    part = study.subject.sublosses[f"level {level}"]
    return syndromes(
        jax.random.key(0), part.loss_fn, layers, part.data, units_of(layers), threshold=0.02, nulls=0, **settings
    )


def test_breaking_sets_of_a_level_of_the_tree_are_the_units_that_carry_it(trained):
    """A property of level l is a sum over the distinctions above it: each of them breaks it alone, no other does."""
    study, plain, layers, facts = trained
    turned = np.asarray(layers[0]) @ np.asarray(layers[1])
    assert np.abs(turned - plain[0] @ plain[1]).max() < 1e-3
    assert np.abs(turned - facts.properties).max() < 0.01
    for level, carrying in ((0, 1), (1, 2), (2, 4), (3, 8)):
        found = level_syndromes(study, layers, level, largest=2)
        assert set(found.sets) == {(f"unit {unit}",) for unit in range(carrying)}
        assert found.counts == (carrying, 0)


def test_a_network_whose_units_are_doubled_shows_pairs(trained):
    """Each unit twice, read through a saturating sum: the sets of one level are the pairs of its copies."""
    study, _, layers, _ = trained

    def doubled_loss(doubled, batch):
        # a saturating reader: either copy alone gives the full signal
        first, second = doubled
        hidden = batch["inputs"] @ first
        left, right = hidden[:, :8], hidden[:, 8:]
        read = jnp.where(jnp.abs(left) > jnp.abs(right), left, right)
        rows = jnp.where(jnp.abs(second[:8]) > jnp.abs(second[8:]), second[:8], second[8:])
        error = read @ rows - batch["targets"]
        return 0.5 * jnp.sum(error**2, axis=1)

    doubled = [jnp.concatenate([layers[0]] * 2, axis=1), jnp.concatenate([layers[1]] * 2, axis=0)]
    data = study.subject.problem.data
    found = syndromes(
        jax.random.key(0), doubled_loss, doubled, data, units_of(doubled), threshold=0.02, largest=2, nulls=0
    )
    assert set(found.sets) == {(f"unit {unit}", f"unit {unit + 8}") for unit in range(8)}
    assert found.counts == (0, 8)
    assert found.hypothesis.learning_coefficient == 4
    assert found.hypothesis.multiplicity == 9


def test_in_the_gauge_of_training_every_unit_carries_every_level(trained):
    """The sets are those of the components, not of the function: turned back, no level stands out."""
    study, plain, _, _ = trained
    layers = [jnp.asarray(layer, jnp.float32) for layer in plain]
    found = level_syndromes(study, layers, 0, largest=1)
    assert found.counts[0] > 1


def test_restrictions_are_components_and_subspaces_are_not(planted):
    params, data, units = planted
    pieces = {
        "reading": paths(params, "in"),
        "unit 0": mask(params, {"in": np.zeros((4, 9), bool), "out": units["alone"]["out"]}),
    }
    found = syndromes(jax.random.key(0), squared, params, data, pieces, threshold=0.1, nulls=0, largest=1)
    assert ("reading",) in found.sets
    basis = {"in": jnp.ones((1, 4, 9)) / 6, "out": jnp.zeros((1, 9))}
    with pytest.raises(ValueError, match="'line': is a subspace"):
        syndromes(jax.random.key(0), squared, params, data, {"line": span(basis)}, threshold=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"components": {}}, "components"),
        ({"components": {"a": {"in": np.ones((4, 9), bool), "out": np.ones(9)}}}, "must be boolean"),
        ({"components": {"a": {"in": np.zeros((4, 9), bool), "out": np.zeros(9, bool)}}}, "holds no entry"),
        ({"components": {"a": {"in": np.ones((4, 9), bool)}}}, "'a'"),
        ({"threshold": 0.0}, "threshold"),
        ({"largest": 0}, "largest"),
        ({"nulls": -1}, "nulls"),
        ({"budget": 2.5}, "budget"),
        ({"contact": {"alone": 1.0}}, "contact"),
        ({"reference": {"in": jnp.zeros((4, 9))}}, "reference"),
        ({"key": 0}, "key"),
    ],
)
def test_bad_arguments_are_named(planted, change, message):
    params, data, units = planted
    given = {"key": jax.random.key(0), "loss_fn": squared, "params": params, "data": data, "components": units}
    with pytest.raises(ValueError, match=message):
        syndromes(**{"threshold": 0.1, **given, **change})


def test_components_that_overlap_are_refused(planted):
    params, data, units = planted
    with pytest.raises(ValueError, match="'idle' and 'all' share entries"):
        syndromes(jax.random.key(0), squared, params, data, {**units, "all": paths(params, "in")}, threshold=0.1)
