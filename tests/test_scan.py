"""The scan: resumed or reordered it gives the same bits, and two different things never share a reading."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from laws import BASELINE, CURVATURES, ORIGIN, assert_same, compilations, quadratic

import slt_jax as slt
from slt_jax.problem import Problem
from slt_jax.restriction import Restriction, mask, paths
from slt_jax.spectroscopy import (
    Checkpoint,
    CheckpointError,
    Probe,
    Subject,
    Subloss,
    check_scan,
    fingerprint,
    llc_probe,
    scan,
)
from slt_jax.spectroscopy.subject import as_subject, check_subject

KEY = jax.random.key(3)
PROBE = llc_probe(nbeta=1000.0, chains=2, draws=12, burnin=10)


def steeper(params, batch):
    return 2 * quadratic(params, batch)


SUBJECT = Subject(
    Problem(quadratic, ORIGIN, BASELINE),
    sublosses={"steep": Subloss(steeper, BASELINE[:32])},
    restrictions={"bias": paths(ORIGIN, "b")},
)


def shifted(amount):
    return jax.tree.map(lambda leaf: leaf + np.float32(amount), ORIGIN)


def checkpoints(*steps):
    """Parameters that differ from step to step, by little enough that each is a minimum for the probe."""
    return [Checkpoint(step, partial(shifted, 1e-4 * step)) for step in steps]


def run(subject=SUBJECT, where=(1, 2, 3), probes=None, key=KEY, **settings):
    points = checkpoints(*where) if isinstance(where, tuple) else where
    return list(scan(key, subject, points, probes or {"llc": PROBE}, **settings))


EVERYTHING = {"restrictions": ("full", "bias"), "sublosses": ("all", "steep")}


def by_place(cells):
    return {cell[:4]: cell.reading for cell in cells}


def assert_same_readings(left, right):
    assert left.keys() == right.keys()
    for place in left:
        assert left[place].keys() == right[place].keys()
        for name in left[place]:
            np.testing.assert_array_equal(left[place][name], right[place][name])


@pytest.fixture(scope="module")
def whole():
    """One uninterrupted scan, with the readings that it left behind."""
    finished = {}
    return run(finished=finished, **EVERYTHING), finished


def test_every_cell_of_the_table_is_filled_once_checkpoint_by_checkpoint(whole):
    cells, finished = whole
    assert [cell.step for cell in cells] == [1] * 4 + [2] * 4 + [3] * 4
    assert len({cell[:4] for cell in cells}) == len(finished) == 12
    assert all(cell.error is None for cell in cells)


def test_a_reading_is_what_llc_gives_with_the_key_of_its_place(whole):
    cell = whole[0][0]
    assert cell[:4] == ("llc", 1, "full", "all")
    key = jax.random.fold_in(KEY, int(fingerprint.of_text(cell[:4])[:8], 16))
    settings = {"nbeta": 1000.0, "chains": 2, "draws": 12, "burnin": 10, "polish": False}
    estimate = slt.llc(key, quadratic, shifted(1e-4), BASELINE, **settings)
    np.testing.assert_allclose(cell.reading["value"], estimate.value, rtol=1e-5)
    np.testing.assert_allclose(cell.reading["per_chain"], estimate.per_chain, rtol=1e-5)
    other = slt.llc(KEY, quadratic, shifted(1e-4), BASELINE, **settings)
    assert abs(float(cell.reading["value"]) - float(other.value)) > 1e-3


def test_a_scan_that_was_cut_off_goes_on_to_the_same_bits(whole):
    cells, _ = whole
    finished = {}
    cut = scan(KEY, SUBJECT, checkpoints(1, 2, 3), {"llc": PROBE}, finished=finished, **EVERYTHING)
    first = [next(cut) for _ in range(5)]
    cut.close()
    assert len(finished) == 5
    kept = dict(finished)
    assert_same_readings(by_place(run(finished=finished, **EVERYTHING)), by_place(cells))
    assert_same_readings(by_place(first), by_place(cells[:5]))
    assert all(finished[mark] is reading for mark, reading in kept.items())


def test_the_order_does_not_matter(whole):
    reverse = {"restrictions": ("bias", "full"), "sublosses": ("steep", "all")}
    assert_same_readings(by_place(run(where=(3, 1, 2), **reverse)), by_place(whole[0]))
    with pytest.raises(AssertionError):
        assert_same_readings(by_place(run(key=jax.random.key(4), **EVERYTHING)), by_place(whole[0]))


def count(key, problem, restriction, *, seen):
    seen.append(key)
    return {"value": np.float32(0.0), "std_error": np.float32(0.0), "healthy": np.bool_(True)}


def counting():
    """A probe that costs nothing and remembers how often it was called; ``seen`` prints alike whatever it holds."""

    class Seen(list):
        def __repr__(self):
            return "seen"

    seen = Seen()
    return {"llc": Probe(count, {"seen": seen})}, seen


def test_nothing_is_computed_twice():
    probes, seen = counting()
    finished = {}
    run(probes=probes, finished=finished, **EVERYTHING)
    assert len(seen) == 12
    cells = run(probes=probes, finished=finished, **EVERYTHING)
    assert len(seen) == 12
    assert all(cell.reading is not None for cell in cells)
    run(probes=probes, finished=finished, where=(1, 2, 3, 4), **EVERYTHING)
    assert len(seen) == 16
    keys = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in seen}
    assert len(keys) == 16


def with_loss(loss_fn):
    return Subject(Problem(loss_fn, ORIGIN, BASELINE))


def scaled(factor, wrap=lambda f: f):
    """A loss that differs from another one only in a constant that it closes over."""
    constant = jnp.asarray(CURVATURES["w"]) * factor
    return wrap(lambda params, batch: jnp.sum(constant * params["w"] ** 2) + 0 * params["b"].sum() + batch)


def with_own_gradient(factor):
    """Equal values, another gradient: only the backward rule closes over the factor."""
    factor = jnp.float32(factor)
    same = jax.custom_vjp(lambda x: x)
    same.defvjp(lambda x: (x, None), lambda _, g: (g * factor,))
    return lambda params, batch: quadratic(jax.tree.map(same, params), batch)


def in_a_scan(factor):
    rates = jnp.full(2, factor)
    return lambda params, batch: jax.lax.scan(lambda c, r: (c * r, None), quadratic(params, batch), rates)[0]


def one_weight(amount):
    changed = jax.tree.map(np.copy, ORIGIN)
    changed["w"][1, 0] = np.float32(amount)
    return [Checkpoint(1, lambda: changed)]


NUMPY = np.linspace(0, 1, 3000)


def numpy_constant(entry):
    """A constant so long that its text is cut, inside a compiled function."""
    table = NUMPY.copy()
    table[1500] = entry
    return jax.jit(lambda params, batch: quadratic(params, batch) * (1 + jnp.asarray(table, jnp.float32).sum()))


def doubled_lift(center, z):
    return jax.tree.map(lambda leaf, move: leaf + 2 * move, center, z)


def plain_lift(center, z):
    return jax.tree.map(lambda leaf, move: leaf + move, center, z)


def zeros(center):
    return jax.tree.map(jnp.zeros_like, center)


def restricted(restriction):
    return {"subject": SUBJECT._replace(restrictions={"bias": restriction}), "restrictions": ("bias",)}


FIRST, SECOND = (mask(ORIGIN, lambda path, leaf, i=i: np.arange(leaf.size).reshape(leaf.shape) == i) for i in (0, 1))
DIFFERENT = {
    "one weight, in its last bit": ({"where": one_weight(0.0)}, {"where": one_weight(np.float32(1e-45))}),
    "one datum": (
        {"subject": SUBJECT._replace(problem=SUBJECT.problem._replace(data=BASELINE))},
        {"subject": SUBJECT._replace(problem=SUBJECT.problem._replace(data=BASELINE.at[7].add(1e-6)))},
    ),
    "the loss": ({"subject": with_loss(quadratic)}, {"subject": with_loss(steeper)}),
    "a constant of the loss": ({"subject": with_loss(scaled(1.0))}, {"subject": with_loss(scaled(1.001))}),
    "a constant of a jitted loss": (
        {"subject": with_loss(scaled(1.0, jax.jit))},
        {"subject": with_loss(scaled(1.001, jax.jit))},
    ),
    "a constant of a rematerialised loss": (
        {"subject": with_loss(scaled(1.0, jax.checkpoint))},
        {"subject": with_loss(scaled(1.001, jax.checkpoint))},
    ),
    "a constant of a loop": ({"subject": with_loss(in_a_scan(1.0))}, {"subject": with_loss(in_a_scan(1.001))}),
    "one entry of a long constant": (
        {"subject": with_loss(numpy_constant(0.5))},
        {"subject": with_loss(numpy_constant(0.6))},
    ),
    "a gradient of its own": (
        {"subject": with_loss(with_own_gradient(1.0))},
        {"subject": with_loss(with_own_gradient(2.0))},
    ),
    "an argument of a Partial": (
        {"subject": with_loss(Partial(lambda c, p, b: c * quadratic(p, b), 1.0))},
        {"subject": with_loss(Partial(lambda c, p, b: c * quadratic(p, b), 1.5))},
    ),
    "the key": ({"key": jax.random.key(3)}, {"key": jax.random.key(4)}),
    "the kind of key": ({"key": jax.random.key(3)}, {"key": jax.random.key(3, impl="rbg")}),
    "the step": ({"where": [Checkpoint(1, lambda: ORIGIN)]}, {"where": [Checkpoint(2, lambda: ORIGIN)]}),
    "the entries of a restriction": (restricted(FIRST), restricted(SECOND)),
    "the paths of a restriction": (restricted(paths(ORIGIN, "b")), restricted(paths(ORIGIN, "w"))),
    "the arithmetic of a restriction": (
        restricted(Restriction(Partial(plain_lift), Partial(zeros))),
        restricted(Restriction(Partial(doubled_lift), Partial(zeros))),
    ),
    "the name of a restriction": ({"restrictions": ("full",)}, {"restrictions": ("bias",)}),
    "the subloss": ({"sublosses": ("all",)}, {"sublosses": ("steep",)}),
    "how the data is relabelled": (
        {"subject": SUBJECT._replace(relabel=lambda params, data: data)},
        {"subject": SUBJECT._replace(relabel=lambda params, data: data + 1)},
    ),
}


def renamed(factor):
    constant = jnp.asarray(CURVATURES["w"]) * factor

    @jax.jit
    def another_name(p, data):
        return jnp.sum(constant * p["w"] ** 2) + 0 * p["b"].sum() + data

    return another_name


SAME = {
    "again": ({}, {}),
    "the name of the loss": ({"subject": with_loss(scaled(1.0, jax.jit))}, {"subject": with_loss(renamed(1.0))}),
    "the address of a gradient rule": (
        {"subject": with_loss(with_own_gradient(2.0))},
        {"subject": with_loss(with_own_gradient(2.0))},
    ),
    "the address of a restriction": (restricted(paths(ORIGIN, "b")), restricted(mask(ORIGIN, lambda p, _: p == "b"))),
    "numpy or jax arrays": (
        {"where": [Checkpoint(1, lambda: jax.tree.map(jnp.asarray, ORIGIN))]},
        {"where": [Checkpoint(1, lambda: jax.tree.map(np.asarray, ORIGIN))]},
    ),
}


def calls(*settings):
    probes, seen = counting()
    finished = {}
    for one in settings:
        run(**{"where": (1,), "probes": probes, **one}, finished=finished)
    return len(seen)


@pytest.mark.parametrize("case", DIFFERENT)
def test_two_scans_never_share_a_reading_if_they_differ_in(case):
    assert calls(*DIFFERENT[case]) == 2


@pytest.mark.parametrize("case", SAME)
def test_two_scans_share_their_readings_if_they_differ_only_in(case):
    assert calls(*SAME[case]) == 1


def test_a_reading_depends_on_every_setting_of_its_probe():
    base = {"nbeta": 10.0, "gamma": 1.0, "chains": 2, "draws": 10, "burnin": 10, "batch_size": 4}
    marks = []
    for changed in [{}, *({name: value + 1} for name, value in base.items())]:
        finished = {}
        probe = llc_probe(**{**base, **changed})._replace(measure=lambda *_, **__: {"value": np.float32(0)})
        run(where=(1,), probes={"llc": probe}, finished=finished)
        marks += finished
    assert len(set(marks)) == len(marks) == 7


def test_fingerprints_of_trees_see_paths_shapes_types_bits_and_keys():
    trees = [
        {"w": np.zeros(4, np.float32)},
        {"v": np.zeros(4, np.float32)},
        {"w": np.zeros((2, 2), np.float32)},
        {"w": np.zeros(4, np.int32)},
        {"w": -np.zeros(4, np.float32)},
        {"w": jax.random.key(0)},
        {"w": jax.random.key(1)},
        {"w": jax.random.key_data(jax.random.key(0))},
        [np.zeros(4, np.float32)],
    ]
    assert len({fingerprint.of_tree(tree) for tree in trees}) == len(trees)
    strided = np.zeros(8, np.float32)[::2]
    assert fingerprint.of_tree({"w": strided}) == fingerprint.of_tree(trees[0])


def test_fingerprints_of_texts_know_where_a_part_ends():
    assert fingerprint.of_text("ab", "c") != fingerprint.of_text("a", "bc")
    assert fingerprint.of_text("a", "b") != fingerprint.of_text("b", "a")


def unreadable():
    raise CheckpointError("checkpoint 2: unreadable or truncated (cut).")


def test_an_unreadable_checkpoint_is_named_and_the_others_finish(whole):
    points = [*checkpoints(1), Checkpoint(2, unreadable), *checkpoints(3)]
    cells = run(where=points, **EVERYTHING)
    failed = [cell for cell in cells if cell.error is not None]
    assert {cell.step for cell in failed} == {2}
    assert len(failed) == 4
    assert all(cell.error.startswith("checkpoint 2: unreadable") and cell.reading is None for cell in failed)
    healthy = [cell for cell in cells if cell.error is None]
    assert_same_readings(by_place(healthy), by_place([cell for cell in whole[0] if cell.step != 2]))


def test_an_error_of_the_code_is_not_taken_for_an_unreadable_checkpoint():
    def broken():
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        run(where=[Checkpoint(1, broken)])


def test_a_loss_that_is_not_a_number_at_one_checkpoint_is_an_error_there_only():
    points = [*checkpoints(1), Checkpoint(2, lambda: shifted(np.nan)), *checkpoints(3)]
    finished = {}
    cells = run(where=points, finished=finished)
    assert [cell.error is None for cell in cells] == [True, False, True]
    assert "64 of 64 losses at params are not finite; the first at example 0" in cells[1].error
    assert len(finished) == 2


def unstable(params, batch):
    """Falls without end away from the centre."""
    return sum(-jnp.sum(jnp.exp(20 * leaf**2)) for leaf in jax.tree.leaves(params)) + batch


def test_a_chain_that_diverges_marks_its_reading():
    cells = run(subject=with_loss(unstable), where=(1,), probes={"llc": llc_probe(nbeta=1e4, draws=300, burnin=0)})
    reading = cells[0].reading
    assert cells[0].error is None
    assert not reading["healthy"]
    assert np.isnan(reading["value"])
    assert "UNHEALTHY: finite" in str(reading["explanation"])
    fine = run(where=(1,), probes={"llc": llc_probe(nbeta=1000.0, draws=2000, burnin=1000)})[0].reading
    assert fine["healthy"]
    assert np.isfinite(fine["value"])


def test_a_scan_over_many_checkpoints_is_compiled_once():
    jax.clear_caches()  # else the scan may have to make room for programs in between, and compile again
    run(where=(1,))
    with compilations() as seen:
        run(where=(4, 5, 6))
    assert seen == []


REFUSED = {
    "an unknown restriction": ({"restrictions": ("head",)}, r"restrictions: got 'head'; the subject has \['bias', 'f"),
    "an unknown subloss": ({"sublosses": ("digit 3",)}, r"sublosses: got 'digit 3'; the subject has \['all', 'st"),
    "no draws": ({"probes": {"llc": llc_probe(draws=0)}}, "draws: got 0; it must be at least 1"),
    "no chains": ({"probes": {"llc": llc_probe(chains=0)}}, "chains: got 0"),
    "negative burn-in": ({"probes": {"llc": llc_probe(burnin=-1)}}, "burnin: got -1"),
    "a batch larger than the data": (
        {"probes": {"llc": llc_probe(batch_size=65)}},
        "batch_size: got 65 with 64 examples",
    ),
    "a batch larger than the data of a subloss": (
        {"probes": {"llc": llc_probe(batch_size=64)}, "sublosses": ("all", "steep")},
        "batch_size: got 64 with 32 examples",
    ),
    "no temperature": ({"probes": {"llc": llc_probe(nbeta=0.0)}}, "nbeta: got 0"),
    "a negative localisation": ({"probes": {"llc": llc_probe(gamma=-1.0)}}, "gamma: got -1"),
    "an untyped key": ({"key": jax.random.PRNGKey(0)}, "key: got .* pass one typed key"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_scan_of_which_nothing_could_come_is_refused_before_anything_is_compiled_or_loaded(case):
    settings, message = REFUSED[case]

    def load():
        raise AssertionError("loaded")

    with compilations() as seen, pytest.raises(ValueError, match=message):
        run(where=[Checkpoint(1, load)], **settings)
    assert seen == []


def test_the_settings_that_are_not_refused_pass_the_same_check():
    check_scan(SUBJECT, {"llc": llc_probe(batch_size=32)}, ("full", "bias"), ("all", "steep"))


PROBLEM = SUBJECT.problem
NOT_SUBJECTS = {
    "a tuple as subloss": (SUBJECT._replace(sublosses={"a": (quadratic, BASELINE)}), "subloss 'a': is a tuple"),
    "ragged data": (
        SUBJECT._replace(sublosses={"a": Subloss(quadratic, {"x": jnp.ones(3), "y": jnp.ones(4)})}),
        "subloss 'a': data: leading axes differ: {'x': 3, 'y': 4}",
    ),
    "a subloss of the wrong shape": (
        SUBJECT._replace(sublosses={"a": Subloss(lambda p, b: jnp.ones(3), BASELINE)}),
        r"subloss 'a': loss_fn: returned shape \(3,\)",
    ),
    "a concept that is an array": (
        SUBJECT._replace(concepts={"c": lambda params: params["w"]}),
        r"concept 'c': returned shape \(2, 2\)",
    ),
    "a concept that is a number": (SUBJECT._replace(concepts={"c": 0.5}), "concept 'c': is a float"),
    "a restriction of other params": (
        SUBJECT._replace(restrictions={"r": paths({"z": jnp.ones(3)}, "z")}),
        "restriction 'r': .*frees 'z'",
    ),
    "a restriction that is none": (SUBJECT._replace(restrictions={"r": "w"}), "restriction 'r': .*got a str"),
    "a reserved subloss": (SUBJECT._replace(sublosses={"all": Subloss(quadratic, BASELINE)}), "'all' stands for the"),
    "a reserved restriction": (SUBJECT._replace(restrictions={"full": paths(ORIGIN, "b")}), "'full' stands for"),
}


@pytest.mark.parametrize("case", NOT_SUBJECTS)
def test_a_subject_that_breaks_its_contract_is_refused_before_anything_is_compiled(case):
    subject, message = NOT_SUBJECTS[case]
    with compilations() as seen, pytest.raises(ValueError, match=message):
        check_subject(subject)
    assert seen == []
    check_subject(SUBJECT)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "returned a NoneType; it must return a slt_jax.Problem"),
        ((quadratic, ORIGIN, BASELINE), "returned a tuple"),
        ((PROBLEM, {"sublosses": {}}, 3), "returned a tuple"),
        ((PROBLEM, {"sublos": {}}), "unknown entry 'sublos'; known are"),
        ((PROBLEM, {"sublosses": [Subloss(quadratic, BASELINE)]}), "sublosses is a list; it must be a dict by name"),
    ],
)
def test_what_is_no_subject_is_refused_with_what_it_should_have_been(value, message):
    with pytest.raises(ValueError, match=f"problem: .*{message}"):
        as_subject(value)


def test_a_subject_a_problem_and_a_pair_are_all_subjects():
    assert as_subject(SUBJECT) is SUBJECT
    assert as_subject(PROBLEM) == Subject(PROBLEM)
    pair = as_subject((PROBLEM, {"sublosses": SUBJECT.sublosses, "restrictions": SUBJECT.restrictions}))
    assert pair.sublosses == SUBJECT.sublosses
    assert_same(pair.problem.data, BASELINE)


def test_a_relabelling_that_refuses_a_checkpoint_is_an_error_of_that_subloss_only():
    def refusing(params, data):
        if float(params["b"][0]) > 1.5e-4:
            raise ValueError("outputs: not finite at this checkpoint.")
        return data

    subject = SUBJECT._replace(sublosses={"refused": Subloss(quadratic, BASELINE, refusing)})
    cells = run(subject=subject, where=(1, 2), sublosses=("all", "refused"))
    errors = {(cell.step, cell.subloss): cell.error for cell in cells}
    assert errors.pop((2, "refused")) == "outputs: not finite at this checkpoint."
    assert set(errors.values()) == {None}
