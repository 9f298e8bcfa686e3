"""The construction as a graph: what splits what, what was built on what, and how it is told, drawn and kept."""

import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest
from scipy.stats import binom

from slt_jax import Problem, storage
from slt_jax.plots import GraphNode, construction_graph
from slt_jax.restriction import paths
from slt_jax.spectroscopy import (
    Alignment,
    Checkpoint,
    CheckpointError,
    History,
    Phases,
    Relation,
    Relations,
    Subject,
    Subloss,
    assembled,
    construct,
    construction_schema,
    detect_phases,
    grafts,
    refinements,
    relations,
    states_at_plateaus,
)
from slt_jax.spectroscopy.graph import BUILT_ON, REFINES, layers
from slt_jax.spectroscopy.refinement import direct
from slt_jax.studies import semantics
from slt_jax.studies.hierarchy import hierarchy, strengths_apart

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import construction as benchmark

# --- what splits what


def modes(facts):
    """What an ideal network learns in each phase, the strongest mode first, and the names of the phases."""
    names = sorted(facts.strengths, key=facts.strengths.get, reverse=True)
    return names, [np.outer(facts.contrasts[name], facts.contrasts[name] @ facts.properties) for name in names]


def named(found, names):
    return {(names[later], names[earlier]) for later, earlier in np.argwhere(direct(found))}


@pytest.fixture(scope="module")
def tree():
    facts = hierarchy(3, strengths_apart(3, seed=5))
    names, changes = modes(facts)
    return facts, names, changes, refinements(changes, shuffles=199)


def test_the_modes_of_a_hierarchy_refine_one_another_as_it_does(tree):
    facts, names, _, found = tree
    assert named(found.found, names) == {(name, parent) for name, parent in facts.parents.items() if parent}
    assert found.clusters.tolist() == [0, *[1] * 7]
    pairs = np.isfinite(found.scores)
    assert pairs.sum() == 28
    np.testing.assert_allclose(found.scores[found.found], 1, atol=1e-6)
    np.testing.assert_allclose(found.scores[pairs & ~found.found], 0, atol=1e-6)


def test_names_of_items_and_a_turn_of_the_outputs_change_no_score(tree):
    _, _, changes, found = tree
    random = np.random.default_rng(0)
    turn = np.linalg.qr(random.normal(size=(15, 15)))[0]
    order = random.permutation(8)
    again = refinements([change[order] @ turn for change in changes], shuffles=99)
    np.testing.assert_allclose(again.scores, found.scores, atol=1e-6)


def test_a_phase_whose_items_are_shuffled_loses_its_place_in_the_tree(tree):
    _, names, changes, _ = tree
    # both fish change places with two plants: birds are still told from something, fish are not
    row = names.index("bird or fish")
    moved = [change[[0, 1, 4, 5, 2, 3, 6, 7]] if at == row else change for at, change in enumerate(changes)]
    found = refinements(moved, shuffles=99).found
    assert not found[row, names.index("animal or plant")]
    assert [found[names.index(name), row] for name in ("canary or robin", "salmon or sunfish")] == [True, False]


def test_distinctions_that_cross_refine_neither_the_other():
    color, shape = np.array([1.0, 1, -1, -1, 0, 0, 0]), np.array([1.0, -1, 1, -1, 0, 0, 0])
    rows = [np.outer(side, np.eye(5)[at]) for at, side in enumerate((3 * color, 2 * shape))]
    assert refinements(rows, shuffles=99).scores[1, 0] == 0


def test_a_cluster_splits_into_unequal_parts_too_and_what_two_phases_share_is_no_split():
    one_of_four, within = np.array([3.0, -1, -1, -1, 0, 0, 0, 0]), np.array([0.0, 2, -1, -1, 0, 0, 0, 0])
    alike = np.array([0.0, 1, 1, 1, 0, 0, 0, 0])
    rows = [np.outer(side, np.eye(6)[at]) for at, side in enumerate((4 * one_of_four, 3 * within, 2 * alike))]
    scores = refinements(rows, shuffles=99).scores
    assert scores[1, 0] == pytest.approx(1)
    assert scores[2, 0] == pytest.approx(0, abs=1e-9)


def test_splits_learned_together_are_one_phase_that_decomposes():
    facts = hierarchy()
    _, single = modes(facts)
    levels = [single[0], single[1], single[2] + single[3], sum(single[4:])]
    found = refinements(levels, shuffles=199)
    assert named(found.found, range(4)) == {(1, 0), (2, 1), (3, 2)}
    assert found.clusters.tolist() == [0, 1, 2, 4]


def test_shuffled_labels_give_edges_no_more_often_than_the_level():
    runs, wrong = 60, 0
    for seed in range(runs):
        _, changes = modes(benchmark.shuffled(3, seed))
        wrong += bool(refinements(changes, shuffles=99, seed=seed).found.any())
    # all pairs are null: any edge is a false discovery
    assert wrong <= binom.ppf(0.999, runs, 0.05)


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        ([], {}, "changes: got shapes"),
        ([np.ones((4, 2)), np.ones((3, 2))], {}, "changes: got shapes"),
        ([np.ones((2, 2))], {}, "of 2 items"),
        ([np.ones((4, 2)), np.zeros((4, 2))], {}, "that of phase 2 is 0"),
        ([np.full((4, 2), np.nan)], {}, "that of phase 1 is 0 or not finite"),
        ([np.ones((4, 2))], {"shuffles": 10}, "shuffles: got 10"),
        ([np.ones((4, 2))], {"level": 5}, "level: got 5"),
    ],
)
def test_changes_that_cannot_be_compared_are_refused(changes, more, message):
    with pytest.raises(ValueError, match=message):
        refinements(changes, **more)


# --- what was built on what


def linear_states(order, hidden):
    """Two layers of 4 by 4 whose modes are put in one after the other, at given hidden directions."""
    left = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    states, layers_now = [], [np.zeros((4, 4)), np.zeros((4, 4))]
    for at in (None, *order):
        if at is not None:
            size = np.sqrt(4.0 - at)
            layers_now[0] = layers_now[0] + size * np.outer(np.eye(4)[at], hidden[at])
            layers_now[1] = layers_now[1] + size * np.outer(hidden[at], left[at])
        states.append([jnp.asarray(layer, jnp.float32) for layer in layers_now])
    inputs = jnp.asarray(np.random.default_rng(2).normal(size=(300, 4)), jnp.float32)
    target = inputs @ states[-1][0] @ states[-1][1]

    def loss_fn(params, batch):
        return 0.5 * jnp.sum((batch["inputs"] @ params[0] @ params[1] - batch["targets"]) ** 2, axis=1)

    return Problem(loss_fn, states[0], {"inputs": inputs, "targets": target}), states


def test_modes_of_a_linear_network_are_independent_and_those_that_share_a_hidden_direction_are_not():
    hidden = np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))[0]
    found = grafts(*linear_states(range(4), hidden))
    tested = np.isfinite(found.kept)
    assert tested.sum() == 6
    assert not found.found.any()
    # not exactly 1: inputs of a sample are not exactly orthogonal
    np.testing.assert_allclose(found.kept[tested], 1, atol=0.35)
    shared = np.stack([hidden[0], hidden[0], hidden[2], hidden[3]])
    again = grafts(*linear_states(range(4), shared))
    assert abs(again.kept[1, 0] - 1) > 0.5


@pytest.fixture(scope="module")
def planted():
    return {independent: benchmark.composed(3, independent) for independent in (False, True)}


@pytest.mark.parametrize("independent", [False, True])
def test_a_block_that_reads_another_was_built_on_it_and_one_that_does_not_was_not(planted, independent):
    subject, states = planted[independent]
    found = grafts(subject, states)
    assert found.gains == pytest.approx(0.5, abs=0.01)
    assert bool(found.found[1, 0]) is not independent
    assert found.low[1, 0] < found.kept[1, 0] < found.high[1, 0]
    assert bool(found.kept[1, 0] > 0.9) is independent
    assert ("independent of it" if independent else "built on it") in found.explain()


def test_blocks_put_in_part_by_part_give_the_same_as_phases(planted):
    subject, states = planted[False]
    names, parts = assembled(
        states[0], states[2], {name: paths(states[0], f"{name}/*") for name in ("first", "second")}
    )
    assert names == ["first", "second"]
    np.testing.assert_allclose(grafts(subject, parts).kept, grafts(subject, states).kept, rtol=1e-5)


def test_networks_are_looked_at_in_groups_where_all_would_not_fit(planted, monkeypatch):
    subject, states = planted[False]
    whole = grafts(subject, states)
    monkeypatch.setattr("slt_jax.spectroscopy.grafting._ENTRIES", 1)
    np.testing.assert_array_equal(grafts(subject, states).kept, whole.kept)


def test_a_phase_without_a_checkpoint_is_in_no_pair_and_says_so(planted):
    subject, states = planted[False]
    found = grafts(subject, [states[0], None, states[1], states[2]])
    assert [bool(reason) for reason in found.reasons] == [True, True, False]
    assert not np.isfinite(found.kept).any()
    assert "phase 1: there is no checkpoint on one side" in found.explain()


def test_a_phase_is_judged_on_what_fell_and_a_mean_has_no_error(planted):
    subject, states = planted[True]
    assert grafts(subject, states).judged == ("all", "all")
    worse = subject._replace(
        problem=Problem(lambda params, batch: -benchmark.both_losses(params, batch), states[0], subject.problem.data)
    )
    assert grafts(worse, states).judged == ("answer 1", "answer 2")
    assert grafts(subject, states, judged=["answer 1", "answer 1"]).reasons == ("", "no loss fell over it.")
    mean = Problem(lambda params, batch: jnp.mean(benchmark.both_losses(params, batch)), states[0], worse.problem.data)
    found = grafts(mean, states)
    assert all("is a mean" in reason for reason in found.reasons)
    assert not found.found.any()


@pytest.mark.parametrize(
    ("states", "more", "message"),
    [
        ([jnp.zeros(2)], {}, "states: got 1"),
        ([jnp.zeros(2), jnp.zeros(3)], {}, "has shapes"),
        ([jnp.zeros(2), jnp.array([1.0, np.nan])], {}, "not finite"),
        ([jnp.zeros(2), jnp.ones(2)], {"survives": 50}, "survives: got 50"),
        ([jnp.zeros(2), jnp.ones(2)], {"judged": ["loss"]}, r"judged: got \['loss'\]"),
        ([jnp.zeros(2), jnp.ones(2)], {"resamples": 3}, "resamples: got 3"),
    ],
)
def test_states_that_cannot_be_grafted_are_refused(states, more, message):
    problem = Problem(lambda w, x: (x @ w - 1) ** 2, jnp.zeros(2), jnp.ones((5, 2)))
    with pytest.raises(ValueError, match=message):
        grafts(problem, states, **more)


def test_parts_that_overlap_or_did_not_move_are_refused():
    before, after = {"a": np.zeros(2), "b": np.zeros(2)}, {"a": np.ones(2), "b": np.zeros(2)}
    whole = paths(before, "a", "b")
    with pytest.raises(ValueError, match="overlap"):
        assembled(before, after, {"both": whole, "one": paths(before, "a")})
    with pytest.raises(ValueError, match="'idle' did not change"):
        assembled(before, after, {"idle": paths(before, "b")})
    with pytest.raises(ValueError, match="groups: got none"):
        assembled(before, after, {})


# --- both, in a network that was trained


@pytest.fixture(scope="module")
def trained():
    facts = hierarchy(2, strengths_apart(2, seed=1))
    study = semantics.study(facts)
    history, phases, points = benchmark.learned(study, 1)
    return facts, study, history, phases, points


def test_a_trained_hierarchy_refines_as_it_should_and_nothing_was_built_on_anything(trained):
    facts, *_ = trained
    built, row = benchmark.graph_of(facts, 1)
    assert row["edges"]["refines"] == sorted([name, parent] for name, parent in facts.parents.items() if parent)
    assert row["edges"]["was built on"] == []
    assert row["kept_least"] > 0.99
    assert [record.kind for record in built.phases] == ["initial state", "formation", *["refinement"] * 3]


def test_exact_coefficients_of_another_hierarchy_are_those_of_its_ranks(trained):
    _, study, _, phases, points = trained
    found = [float(study.exact(state).learning_coefficient) for state in states_at_plateaus(phases, points)]
    exact = [float(semantics.deep_linear((4, 4, 7), rank).learning_coefficient) for rank in range(5)]
    assert found == exact


def test_what_cannot_be_related_says_why(trained):
    _, study, _, phases, points = trained
    subject = study.subject._replace(answers=None)
    assert relations(subject, phases, points).untested == (
        "refines: the subject has no answers; give it a function of the parameters.",
    )

    def lost():
        raise CheckpointError("gone")

    none = relations(study.subject, phases, [Checkpoint(point.step, lost) for point in points])
    assert (none.refined, none.grafted) == (None, None)
    assert len(none.untested) == 2


def test_parts_of_a_network_are_put_together_in_the_order_of_its_stages(planted):
    subject, states = planted[False]
    stages = {f"{name} block": paths(states[0], f"{name}/*") for name in ("first", "second")}
    points = [Checkpoint(at, lambda state=state: state) for at, state in ((0, states[0]), (900, states[2]))]
    history, phases, *_ = two_kinds()
    found = relations(subject._replace(stages=stages), phases, points)
    assert found.parts == ("first block", "second block")
    assert bool(found.assembled.found[1, 0])
    built = construct(history, phases, Alignment([]), {}, **found._asdict())
    assert "second block was built on first block: Of the gain of second block" in built.describe()
    jsonschema.validate(json.loads(json.dumps(built.to_graph(), allow_nan=False)), construction_schema())
    with pytest.raises(ValueError, match="parts: got 1 names for 2 parts"):
        construct(history, phases, Alignment([]), {}, **found._replace(parts=("one",))._asdict())


def test_answers_of_another_shape_are_refused(trained):
    subject = trained[1].subject._replace(answers=lambda params: params[0][0])
    with pytest.raises(ValueError, match=r"answers: returned shape \(4,\)"):
        benchmark.recorder_of(subject, [0, 1])


# --- the graph


def two_kinds():
    """Three phases: the second splits the first, the third too and was built on the second."""
    steps = np.arange(1, 400)
    curve = sum(1 / (1 + np.exp((np.log(steps) - np.log(at)) * 20)) for at in (10, 50, 200))
    history = History(steps, {"all": curve}, {})
    halves = np.array([1.0, 1, -1, -1, 0, 0]), np.array([1.0, -1, 0, 0, 0, 0]), np.array([0.0, 0, 1, -1, 0, 0])
    refined = refinements([np.outer(side, np.eye(4)[at]) for at, side in enumerate(halves)], shuffles=99)
    problem = Problem(
        lambda w, x: (x - w[0]) ** 2 + (x - w[1]) ** 2 + (x - w[1] * w[2]) ** 2, jnp.zeros(3), jnp.ones(9)
    )
    states = [jnp.array(w) for w in ([0.0, 0, 0], [1.0, 0, 0], [1.0, 1, 0], [1.0, 1, 1])]
    return history, detect_phases(history), refined, grafts(problem, states)


def test_a_construction_tells_both_kinds_apart_and_its_json_fits_its_schema():
    history, phases, refined, grafted = two_kinds()
    built = construct(history, phases, Alignment([]), {}, refined=refined, grafted=grafted)
    edges = {(edge.kind, edge.later, edge.earlier) for edge in built.edges}
    assert {edge[1:] for edge in edges if edge[0] == BUILT_ON} == {(3, 2)}
    assert built.phases[0].kind == "initial state"
    assert len(built.relations) == 6
    document = json.loads(json.dumps(built.to_graph(), allow_nan=False))
    jsonschema.Draft202012Validator.check_schema(construction_schema())
    jsonschema.validate(document, construction_schema())
    document["relations"][0]["kind"] = "caused"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, construction_schema())
    assert "was built on phase 2" in built.describe()
    dot = built.to_dot()
    assert dot.count("phase_3 -> phase_2 [style=dashed") == 1
    assert dot.count("label=") == 3


def test_results_of_other_phases_are_refused():
    history, _, refined, grafted = two_kinds()
    none = np.zeros(0)
    fewer = Phases(none, none, none, np.array([10]), none, none)
    for name, found in (("refined", refined), ("grafted", grafted)):
        with pytest.raises(ValueError, match=f"{name}: has 3 phases, not 0"):
            construct(history, fewer, Alignment([]), {}, **{name: found})


def test_edges_that_follow_from_others_are_left_out_and_layers_go_by_the_longest_way():
    chain = np.tril(np.ones((5, 5), bool), -1)
    assert direct(chain).sum() == 4
    assert direct(np.zeros((3, 3), bool)).sum() == 0
    edges = [
        Relation(REFINES, later, earlier, True, True, 1.0, None, 0.01, 0.01, "")
        for later, earlier in ((2, 1), (4, 2), (4, 3))
    ]
    assert layers(4, edges) == [0, 1, 0, 2]


def test_the_drawing_is_whole_its_nodes_are_links_and_no_name_is_markup():
    hostile = "<script>alert('&\"x')</script>\x00"
    nodes = [GraphNode(at, [f"Phase {at}", hostile], "formation", f"#phase-{at}") for at in range(1, 12)]
    edges = [
        Relation(kind, later, 1, True, True, 1.0, None, 0.01, 0.01, hostile)
        for kind, later in ((REFINES, 2), (BUILT_ON, 3), (REFINES, 3))
    ]
    picture = construction_graph(nodes, edges)
    found = ElementTree.fromstring(picture)
    tag = "{http://www.w3.org/2000/svg}"
    links = [link.get("href") for link in found.iter(f"{tag}a")]
    assert sorted(links) == sorted(f"#phase-{at}" for at in range(1, 12))
    arrows = [path for path in found.iter(f"{tag}path") if path.get("marker-end")]
    assert sorted(path.get("stroke-dasharray") for path in arrows) == ["7 4", "none", "none"]
    assert "<script" not in picture
    # nine in the first layer do not fit into a row: none lies outside or on another
    boxes = [
        tuple(float(box.get(name)) for name in ("x", "y", "width", "height"))
        for link in found.iter(f"{tag}a")
        for box in link.iter(f"{tag}rect")
    ]
    assert len({box[:2] for box in boxes}) == 11
    for x, y, width, height in boxes:
        assert 0 <= x <= 1056 - width
        assert y + height <= float(found.get("viewBox").split()[3])


# --- kept


def test_relations_are_read_as_they_were_written_and_not_for_another_mark(tmp_path):
    _, _, refined, grafted = two_kinds()
    storage.write_relations(tmp_path, Relations(refined, grafted, ("refines: why",)), "mine")
    again = storage.read_relations(tmp_path, "mine")
    assert again.untested == ("refines: why",)
    for found, kept in ((refined, again.refined), (grafted, again.grafted)):
        for name, value in found._asdict().items():
            np.testing.assert_array_equal(value, getattr(kept, name), err_msg=name)
    assert storage.read_relations(tmp_path, "another") is None
    (tmp_path / "relations.json").write_text('{"mark": "mine", "ref')
    assert storage.read_relations(tmp_path, "mine") is None
    storage.write_relations(tmp_path, Relations(None, None, ()), "")
    assert storage.read_relations(tmp_path) == Relations(None, None, ())


def test_the_hierarchy_has_any_depth_and_the_strengths_that_it_is_given():
    for depth in (1, 2, 4):
        wanted = strengths_apart(depth, seed=depth)
        facts = hierarchy(depth, wanted)
        assert list(facts.strengths.values()) == wanted
        np.testing.assert_allclose(
            np.linalg.svd(facts.properties, compute_uv=False)[: 2**depth], sorted(wanted, reverse=True), rtol=1e-5
        )
        for name, parent in facts.parents.items():
            if parent is not None:
                assert facts.strengths[name] < facts.strengths[parent]
    for wrong in ([1.0, 2.0], [1.0, 2, 3, -1]):
        with pytest.raises(ValueError, match="strengths: got"):
            hierarchy(2, wrong)
    with pytest.raises(ValueError, match="depth: got 0"):
        hierarchy(0)


def test_a_report_leads_from_every_node_to_its_evidence(tmp_path):
    from slt_jax.account import phases_of, write_account
    from slt_jax.report import write_report

    history, _, refined, grafted = two_kinds()
    storage.claim(tmp_path, {"study": "made by hand", "seed": 7})
    storage.write_history(tmp_path, history)
    found = Relations(refined, grafted, ("refines: a reason",), ("<one>", "two", "three"), grafted)
    storage.write_relations(tmp_path, found)
    write_account(tmp_path, *phases_of(history), [], {}, {})
    page = write_report(tmp_path).read_text()
    assert page.count("&lt;one&gt;") >= 2
    assert page.count('<a href="#parts">') == 3
    targets = re.findall(r'<a href="#(phase-\d)">', page)
    assert targets == ["phase-1", "phase-2", "phase-3"]
    fewer = History(history.steps[:150], {"all": history.losses["all"][:150]}, {})
    write_account(tmp_path, *phases_of(fewer), [], {}, {})
    # relations of three phases are not those of two
    assert storage.read_study(tmp_path)["relations"] == []
    for target in targets:
        assert page.count(f'id="{target}"') == 1
    assert "Not tested: refines: a reason" in page
    assert grafted.found[2, 1]
    write_account(tmp_path, *phases_of(history), [], {}, {})
    assert (tmp_path / "construction.dot").read_text().startswith("digraph")
    jsonschema.validate(json.loads((tmp_path / "construction.json").read_text()), construction_schema())


def test_a_subloss_of_the_subject_is_judged_by_name():
    data = jnp.ones((20, 1))
    loss_fn = lambda w, x: (x[:, 0] - w[0]) ** 2  # noqa: E731
    subject = Subject(Problem(loss_fn, jnp.zeros(2), data), {"part": Subloss(loss_fn, data)})
    found = grafts(subject, [jnp.zeros(2), jnp.array([0.5, 0.0]), jnp.array([1.0, 0.0])], judged=["part", "all"])
    assert found.judged == ("part", "all")
    # of two halves of one way the second gains less without the first in place of more: three times as much
    assert found.kept[1, 0] == pytest.approx(3.0)
    assert jax.tree.leaves(found.found.any()) == [False]
