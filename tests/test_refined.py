"""Refined coefficients: every head of a network in one scan, one compilation for each shape, and a map of them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import compilations, deviation

import slt_jax as slt
from slt_jax import restriction, storage
from slt_jax.cli import main
from slt_jax.plots import Bands, step_axis
from slt_jax.report import architecture
from slt_jax.report.content import Content, Row
from slt_jax.spectroscopy import Checkpoint, Subject, llc_probe, scan, select_restrictions

KEY = jax.random.key(0)
TOKENS = jax.random.normal(KEY, (60, 3, 4))
HEADS, DIM = 4, 1
SHAPES = {"query": (4, HEADS, DIM), "key": (4, HEADS, DIM), "value": (4, HEADS, DIM), "out": (HEADS, DIM, 4)}


def attend(w, stream):
    q, k, v = (jnp.einsum("bti,ind->bntd", stream, w[name]) for name in ("query", "key", "value"))
    weights = jax.nn.softmax(jnp.einsum("bntd,bnsd->bnts", q, k))
    return stream + jnp.einsum("bnts,bnsd,ndo->bto", weights, v, w["out"])


def answers(params, tokens):
    for block in params["blocks"]:
        tokens = attend(block, tokens)
    return tokens.reshape(len(tokens), -1)


def loss_fn(params, batch):
    return 0.5 * jnp.sum((answers(params, batch[0]) - batch[1]) ** 2, axis=1)


def draw(seed):
    leaves = [jax.random.normal(jax.random.fold_in(jax.random.key(seed), i), s) for i, s in enumerate(SHAPES.values())]
    return dict(zip(SHAPES, leaves, strict=True))


PARAMS = {"blocks": [draw(1), draw(2)]}
DATA = (TOKENS, answers(PARAMS, TOKENS))
SUBJECT = Subject(slt.Problem(loss_fn, PARAMS, DATA), restrictions={"outputs": restriction.paths(PARAMS, "*/out")})
PROBE = llc_probe(nbeta=1000.0, chains=2, draws=150, burnin=150)


def read(together, names, probe=PROBE):
    subject, chosen = select_restrictions(SUBJECT, names)
    point = Checkpoint(7, lambda: PARAMS)
    return {
        c.restriction: c for c in scan(KEY, subject, [point], {"llc": probe}, restrictions=chosen, together=together)
    }


@pytest.fixture(scope="module")
def one_by_one():
    """The readings of all heads, and how many programs were compiled until each was there."""
    counts, cells = [], {}
    subject, chosen = select_restrictions(SUBJECT, ["heads"])
    jax.clear_caches()  # else the scan may have to make room for programs in between, and compile again
    with compilations() as seen:
        point = Checkpoint(7, lambda: PARAMS)
        for cell in scan(KEY, subject, [point], {"llc": PROBE}, restrictions=chosen, together=1):
            cells[cell.restriction] = cell
            counts.append(len(seen))
    return cells, counts


def test_heads_of_one_layer_share_their_compiled_programs(one_by_one):
    cells, counts = one_by_one
    assert list(cells) == [f"head {layer}.{head}" for layer in (0, 1) for head in range(HEADS)]
    fresh = np.diff([0, *counts])
    assert (fresh[[1, 2, 3, 5, 6, 7]] == 0).all(), "only the first head of each layer compiles anything"
    assert fresh[0] > 0
    assert fresh[4] > 0


def test_heads_side_by_side_agree_with_heads_one_by_one(one_by_one):
    cells, _ = one_by_one
    together = read(4, ["head 0.*"])
    for name, cell in together.items():
        alone = cells[name].reading
        error = np.hypot(cell.reading["std_error"], alone["std_error"])
        assert deviation(cell.reading["value"], error, alone["value"]) < 4
        assert set(cell.reading) == set(alone)
        assert cell.reading["trace"].shape == alone["trace"].shape
    values = [float(cell.reading["value"]) for cell in together.values()]
    assert len(set(values)) == HEADS, "each its own"


def test_a_reading_side_by_side_that_needs_more_steps_is_taken_alone(one_by_one):
    """With a budget, an error that cannot be reached sends each to where it goes on until the budget is spent."""
    probe = llc_probe(nbeta=1000.0, chains=2, draws=150, burnin=150, budget=600, relative_error=0.0)
    cell = read(2, ["head 0.0", "head 0.1"], probe)["head 0.1"]
    alone = read(1, ["head 0.1"], probe)["head 0.1"]
    np.testing.assert_array_equal(cell.reading["value"], alone.reading["value"])
    assert "600 gradients" in str(cell.reading["explanation"])


def test_restrictions_are_chosen_by_name_by_pattern_and_by_group():
    def names(*asked):
        return select_restrictions(SUBJECT, asked)[1]

    assert select_restrictions(SUBJECT, None)[1] == ["full", "outputs"]
    assert names("outputs", "full") == ["outputs", "full"]
    assert names("heads")[:2] == ["head 0.0", "head 0.1"]
    assert names("blocks", "out*") == ["block 0", "block 1", "outputs"]
    assert names("layers") == ["layer blocks/0", "layer blocks/1"]
    assert names("head 1.*", "head 1.0") == [f"head 1.{head}" for head in range(HEADS)]
    own = SUBJECT._replace(restrictions={"block 0": restriction.paths(PARAMS, "blocks/0/out")})
    kept = select_restrictions(own, ["blocks"])[0].restrictions["block 0"]
    assert list(kept.origin(PARAMS)) == ["blocks/0/out"], "a restriction of the subject's own keeps its name"


BAD = {
    "a name unknown": ("neck 0.1", "got 'neck 0.1'"),
    "a pattern for nothing": ("head 9.*", "got 'head 9"),
    "nothing": ("", "got ''"),
    "a head too many": ("head 0.9", "'head 0.0', 'head 0.1'"),
}


@pytest.mark.parametrize("case", BAD)
def test_an_unknown_restriction_is_refused_with_those_there_are(case):
    asked, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        select_restrictions(SUBJECT, [asked])


def test_heads_of_a_network_without_heads_are_refused():
    plain = Subject(slt.Problem(lambda w, x: x, {"w": jnp.zeros(2)}, jnp.zeros(3)))
    with pytest.raises(ValueError, match="no attention module"):
        select_restrictions(plain, ["heads"])
    with pytest.raises(ValueError, match="together: got 0"):
        next(scan(KEY, SUBJECT, [], {"llc": PROBE}, together=0))


def test_what_keeps_heads_from_being_found_is_told_with_the_way_out():
    flat = {name: jnp.zeros((8, 8)) for name in ("wq", "wk", "wv", "wo")}
    subject = Subject(slt.Problem(lambda w, x: x, flat, jnp.zeros(3)))
    for asked in ("heads", "head 0.*"):
        with pytest.raises(ValueError, match=r"pass num_heads.*where the subject is made"):
            select_restrictions(subject, [asked])


def test_restrictions_are_grouped_by_shape():
    every = {**restriction.heads(PARAMS), **restriction.blocks(PARAMS)}
    groups = restriction.by_shape(every)
    assert [group.names for group in groups] == [
        [f"head 0.{head}" for head in range(HEADS)],
        [f"head 1.{head}" for head in range(HEADS)],
        ["block 0"],
        ["block 1"],
    ]
    lifted = jax.vmap(lambda one: one.lift(PARAMS, jax.tree.map(jnp.ones_like, one.origin(PARAMS))))(
        groups[0].restriction
    )
    for number in range(HEADS):
        one = every[f"head 0.{number}"]
        expected = one.lift(PARAMS, jax.tree.map(jnp.ones_like, one.origin(PARAMS)))
        jax.tree.map(lambda found, want, n=number: np.testing.assert_array_equal(found[n], want), lifted, expected)


def row(step, head, value, healthy=True):
    return Row("llc", step, head, "all", True, value, 0.1, healthy, "", {}, None, {})


def content(rows):
    return Content({}, None, rows, {}, Bands(), step_axis([1, 100]))


def test_the_report_maps_heads_over_layers_and_checkpoints():
    rows = [
        row(step, f"head {layer}.{head}", 10 * layer + head + step / 100)
        for step in (1, 100)
        for layer in (0, 1)
        for head in (0, 1, 2)
    ]
    rows[-1] = rows[-1]._replace(healthy=False)
    rows.append(row(100, "full", 99.0))
    shown = architecture.head_maps(content(rows), "llc")
    assert shown is not None
    assert "The largest at step 100 is head 1.2: 13" in shown.text
    assert "1 of the readings are unhealthy" in shown.text
    assert "6 heads on whole loss at 2 checkpoints" in shown.text
    assert architecture.head_maps(content([row(1, "full", 1.0)]), "llc") is None


COMMAND = """
import test_refined


def problem():
    return test_refined.SUBJECT
"""


def test_the_command_line_measures_all_heads(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(COMMAND)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    storage.save_checkpoints(tmp_path / "checkpoints", {5: PARAMS, 50: PARAMS})
    scan_it = ["scan", "checkpoints", "--problem", "mine:problem", "--out", "out", "--restrictions", "head 0.*"]
    lengths = ["--nbeta", "1000", "--chains", "2", "--draws", "150", "--burnin", "150"]
    code = main([*scan_it, *lengths])
    printed = capsys.readouterr().out
    assert code in (0, 1), printed
    assert "8 readings" in printed
    report = (tmp_path / "out" / "report.html").read_text()
    assert "one attention head free" in report
    # the folder is of the subject, whatever part of it was asked for
    assert main([*scan_it[:-1], "outputs", *lengths]) in (0, 1)
    for wrong, named in ((["neck"], "neck"), (["heads", "--together", "0"], "together: got 0")):
        assert main([*scan_it[:-1], *wrong, *lengths]) == 2
        assert named in capsys.readouterr().err
