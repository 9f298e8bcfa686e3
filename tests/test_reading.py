"""Reading responses: planted blocks are found and the prior's are not; what is noise is called noise."""

import tracemalloc
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest
from scipy.sparse import eye_array
from sklearn.metrics import adjusted_rand_score

import slt_jax as slt
from slt_jax.response import (
    Measured,
    conductance_clusters,
    covariance,
    matrix_correlations,
    measured,
    principal_angles,
    principal_axes,
    rand_indices,
    read_response,
    umap_embedding,
)
from slt_jax.response.conductance import _sweep, conductance, neighbour_graph, pagerank
from slt_jax.response.measured import control, noise

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)

# planted blocks, on real chains


@pytest.fixture(scope="module")
def responses():
    go = partial(slt.susceptibility, observables=planted.EXAMPLES, components=planted.COMPONENTS)
    given = planted.loss_fn, planted.WEIGHTS, planted.DATA
    return [go(jax.random.key(seed), *given) for seed in range(2)]


@pytest.fixture(scope="module")
def structure(responses):
    return read_response(KEY, responses)


def test_the_blocks_are_found_and_without_the_data_they_are_not(responses, structure):
    assert all(bool(one.ok.all()) for one in responses)
    assert adjusted_rand_score(planted.PATTERNS, structure.labels) >= 0.95
    assert adjusted_rand_score(planted.PATTERNS, structure.controls["prior"].clusters.labels) <= 0.1
    assert structure.stable == {"axes": True, "clusters": True}
    assert structure.different["prior"]
    said = structure.explain()
    assert "Over 2 seeds: axes stable" in said
    assert "Control prior: 0 axes, 0 clusters; different" in said


def test_every_seed_finds_the_blocks_and_every_prior_misses_them(responses, structure):
    for reading in structure.seeds:
        assert adjusted_rand_score(planted.PATTERNS, reading.clusters.labels) >= 0.95
    # also where clusters are made of all axes, noise or not
    for one in responses:
        everything = principal_axes(KEY, control(one, "prior"))
        points = everything.entries * everything.sizes[None]
        assert adjusted_rand_score(planted.PATTERNS, conductance_clusters(points).labels) <= 0.1


def test_the_axes_span_the_blocks(structure):
    axes = structure.pooled.axes
    blocks = np.eye(planted.BLOCKS)[planted.PATTERNS]
    span = np.linalg.svd(blocks - blocks.mean(axis=0), full_matrices=False)[0][:, : planted.BLOCKS - 1]
    assert int(axes.above) == planted.BLOCKS - 1
    assert np.degrees(principal_angles(span, axes.entries[:, :4]).max()) < 25
    # at nβ = 0 the same number of axes lies anywhere
    prior = structure.controls["prior"].axes
    assert np.degrees(principal_angles(span, prior.entries[:, :4]).max()) > 60


def test_one_seed_is_held_against_its_errors(responses):
    alone = read_response(KEY, responses[0])
    assert alone.resampled
    assert "drawn within the errors (one seed)" in alone.explain()
    assert adjusted_rand_score(planted.PATTERNS, alone.labels) >= 0.95


def test_seeds_that_disagree_are_not_stable(responses):
    shuffled = [
        one._replace(value=one.value[:, RNG.permutation(len(planted.PATTERNS))], prior=None) for one in responses
    ]
    found = read_response(KEY, shuffled)
    assert found.stable == {"axes": False, "clusters": False}
    assert abs(found.rand.mean()) < 0.2
    assert "NOT stable" in found.explain()
    assert "No control was run" in found.explain()


def test_a_control_that_has_the_same_structure_is_named(responses):
    same = read_response(KEY, responses[0], controls={"again": responses[1]})
    assert same.different == {"again": False}
    assert "Control again: 4 axes, 5 clusters; NOT different" in same.explain()


def test_the_scatter_of_batches_has_the_reported_errors(responses):
    for one in responses:
        matrix = measured(one)
        np.testing.assert_allclose(
            jnp.linalg.norm(matrix.scatter[:, :, 0], axis=1), one.std_error, rtol=2e-3, atol=1e-8
        )
    # entries that move together share theirs; without draws nobody can know
    twins = measured(one._replace(changes=one.changes.at[..., 1].set(one.changes[..., 0])))
    drawn = noise(KEY, twins, 200)
    np.testing.assert_array_equal(drawn[..., 1], drawn[..., 0])
    alone = noise(KEY, measured((twins.value, twins.std_error)), 200)
    assert abs(np.corrcoef(alone[:, 0, 0], alone[:, 0, 1])[0, 1]) < 0.3


def test_of_an_influence_entries_are_data_and_components_queries():
    draws = RNG.normal(size=(4, 128, 30))
    losses = covariance.centred(jnp.asarray(draws @ RNG.normal(size=(30, 30)), jnp.float32))
    nothing = jnp.zeros(())
    found = slt.Influence(losses, losses[..., :3], nothing, nothing, None)
    matrix = measured(found)
    exact = covariance.pairs(losses[..., :3], losses - jnp.mean(losses, axis=2, keepdims=True))
    np.testing.assert_allclose(matrix.value, -exact.covariance, atol=1e-4 * np.abs(exact.covariance).max())
    np.testing.assert_allclose(matrix.std_error, exact.std_error, rtol=1e-3)
    assert measured(found._replace(queries=None)).value.shape == (30, 30)
    assert measured(found._replace(queries=None), columns=[3, 5]).value.shape == (2, 30)


# axes and their errors

ERROR = 0.3
LEFT = np.linalg.qr(RNG.normal(size=(8, 3)) - 0.0)[0][:, 1:]
RIGHT = np.linalg.qr(RNG.normal(size=(40, 3)))[0]
SIGNAL = 12.0 * np.outer(LEFT[:, 0], RIGHT[:, 0]) + 6.0 * np.outer(LEFT[:, 1], RIGHT[:, 1])


def noisy(signal, rng, error=ERROR):
    return (
        jnp.asarray(signal + error * rng.normal(size=signal.shape), jnp.float32),
        jnp.full(signal.shape, error, jnp.float32),
    )


def counts(signal, many):
    rng = np.random.default_rng(1)
    return np.array([int(principal_axes(KEY, noisy(signal, rng)).above) for _ in range(many)])


def test_as_many_axes_stand_above_noise_as_were_planted():
    planted_two = counts(SIGNAL, 40)
    assert (planted_two == 2).sum() >= 34
    # noise alone is called an axis in one of twenty, as the quantile says
    alone = counts(np.zeros((8, 40)), 100)
    assert (alone > 0).sum() <= 12


def test_errors_of_sizes_and_loadings_are_what_fresh_noise_does():
    rng = np.random.default_rng(2)
    seen = [principal_axes(KEY, noisy(SIGNAL, rng)) for _ in range(60)]
    sizes = np.array([one.sizes[:2] for one in seen])
    reported = np.mean([one.size_errors[:2] for one in seen], axis=0)
    assert (np.abs(np.log(sizes.std(axis=0) / reported)) < np.log(1.5)).all()
    loadings = np.array([one.entries[:, 0] * np.sign(one.entries[0, 0]) for one in seen])
    errors = np.mean([one.entry_errors[:, 0] for one in seen], axis=0)
    assert 0.7 < loadings.std(axis=0).mean() / errors.mean() < 1.4


def test_what_all_components_share_is_taken_out():
    shared = 20.0 * np.ones((8, 1)) @ RNG.normal(size=(1, 40))
    without = principal_axes(KEY, noisy(shared, RNG))
    assert int(without.above) == 0
    left_in = principal_axes(KEY, noisy(shared, RNG), uniform=True)
    assert int(left_in.above) == 1
    assert float(left_in.shares[0]) > 0.95
    assert np.ptp(np.asarray(left_in.components[:, 0])) < 0.05


def test_noise_that_entries_share_is_no_axis_where_draws_are_known():
    # two directions of entries, of which each component has as much as it happened to draw
    rng = np.random.default_rng(3)
    batches = rng.normal(size=(8, 32, 1, 2)) @ rng.normal(size=(2, 40)) + 0.1 * rng.normal(size=(8, 32, 1, 40))
    scatter = (batches - batches.mean(axis=1, keepdims=True)) / np.sqrt(32 * 31)
    value = batches.mean(axis=1)[:, 0]
    error = np.linalg.norm(scatter, axis=1)[:, 0]
    known = Measured(*(jnp.asarray(leaf, jnp.float32) for leaf in (value, error, scatter)))
    assert int(principal_axes(KEY, known).above) == 0
    assert int(principal_axes(KEY, known._replace(scatter=None)).above) > 0


def test_components_of_any_size_count_alike():
    sizes = 10.0 ** np.arange(-12, 4, 2)[:, None]
    value, error = noisy(SIGNAL, np.random.default_rng(5))
    one = principal_axes(KEY, (value, error))
    other = principal_axes(KEY, (value * sizes, error * sizes))
    np.testing.assert_allclose(one.sizes, other.sizes, rtol=1e-3, atol=1e-3)
    assert int(one.above) == int(other.above) == 2


def test_axes_are_the_same_inside_jit():
    value, error = noisy(SIGNAL, RNG)
    inside = jax.jit(lambda v, e: principal_axes(KEY, (v, e)).sizes)(value, error)
    np.testing.assert_allclose(inside, principal_axes(KEY, (value, error)).sizes, rtol=1e-5, atol=1e-5)


# clusters


def blobs(count, blocks, apart, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % blocks)
    return labels, rng.normal(size=(count, blocks)) + apart * np.eye(blocks)[labels]


def test_blobs_are_found_and_a_single_one_is_no_cluster():
    for count, blocks in ((60, 5), (600, 4)):
        labels, points = blobs(count, blocks, 5.0)
        found = conductance_clusters(points)
        assert adjusted_rand_score(labels, found.labels) >= 0.95
        assert found.sizes.tolist() == sorted(found.sizes.tolist(), reverse=True)
        assert (found.conductances <= 0.1).all()
        graph = neighbour_graph(points, min(45, max(5, count // 8)))
        for at, value in enumerate(found.conductances):
            assert conductance(graph, np.flatnonzero(found.labels == at)) == pytest.approx(value)
    for count, axes in ((60, 4), (600, 4), (1000, 10)):
        assert conductance_clusters(np.random.default_rng(0).normal(size=(count, axes))).sizes.size == 0


def test_the_order_of_entries_does_not_matter():
    _, points = blobs(200, 4, 5.0)
    order = RNG.permutation(200)
    found, other = conductance_clusters(points), conductance_clusters(points[order])
    assert adjusted_rand_score(found.labels[order], other.labels) == 1.0
    assert (conductance_clusters(points).labels == found.labels).all()


def test_small_sets_and_leaky_ones_are_left_out():
    labels, points = blobs(200, 4, 5.0)
    far = np.concatenate([points, 50.0 + 0.1 * RNG.normal(size=(6, 4))])
    found = conductance_clusters(far, neighbours=5, least=10)
    assert (found.labels[200:] == -1).all()
    assert conductance_clusters(far, neighbours=5, least=6).labels[200:].min() >= 0
    assert conductance_clusters(points, most=1e-6).sizes.size < 4
    assert adjusted_rand_score(labels, conductance_clusters(blobs(200, 4, 2.0)[1]).labels) < 0.95


def test_pagerank_solves_its_equation():
    graph = neighbour_graph(blobs(80, 2, 3.0)[1], 6)
    links = np.asarray(graph.sum(axis=1)).ravel()
    p = pagerank(graph, 7, 0.01, 1e-10)
    walked = 0.5 * (p + (graph / links[:, None]).T @ p)
    np.testing.assert_allclose(p, 0.01 * (np.arange(80) == 7) + 0.99 * walked, atol=1e-9)
    assert p.sum() == pytest.approx(1.0)
    # where the walk never returns it is everywhere in proportion to the links
    lost = pagerank(graph, 7, 1e-6, 1e-12)
    np.testing.assert_allclose(lost / lost.sum(), links / links.sum(), rtol=0.05)
    assert not np.allclose(p, links / links.sum(), rtol=0.05)


def test_the_sweep_has_the_conductance_of_every_set_on_its_way():
    graph = neighbour_graph(RNG.normal(size=(30, 2)), 4)
    links = np.asarray(graph.sum(axis=1)).ravel()
    exact = [conductance(graph, np.arange(at + 1)) for at in range(29)]
    np.testing.assert_allclose(_sweep(graph, links)[:29], exact, atol=1e-12)
    assert conductance(eye_array(3).tocsr(), np.array([0])) == 0.0


def test_no_matrix_of_all_pairs_is_formed():
    count = 4000
    _, points = blobs(count, 8, 6.0)
    conductance_clusters(points[:200])
    tracemalloc.start()
    found = conductance_clusters(points)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.sizes) == 8
    assert most < count**2 * 8 / 2


# agreement


def test_labels_agree_up_to_their_names_and_axes_up_to_a_rotation():
    labels = RNG.integers(0, 4, 400)
    assert rand_indices([labels, (labels + 1) % 4]).tolist() == [1.0]
    assert abs(rand_indices([labels, RNG.permutation(labels)])[0]) < 0.05
    nothing = np.full(400, -1)
    assert rand_indices([nothing, nothing]).tolist() == [0.0]
    basis = np.linalg.qr(RNG.normal(size=(200, 3)))[0]
    turned = basis @ np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    assert principal_angles(basis, turned).max() < 1e-6
    assert principal_angles(basis, np.linalg.qr(RNG.normal(size=(200, 3)))[0]).min() > 1.0
    one, other = RNG.normal(size=(2, 20, 30))
    assert matrix_correlations([one, 3 * one, other])[0] == pytest.approx(1.0)
    assert np.abs(matrix_correlations([one, other])).max() < 0.2


# pictures


def test_without_umap_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'slt_jax\[umap\]'"):
        umap_embedding(RNG.normal(size=(30, 3)))


@pytest.mark.filterwarnings("ignore")
def test_umap_keeps_blobs_apart():
    pytest.importorskip("umap")
    labels, points = blobs(120, 3, 12.0)
    places = umap_embedding(points, seed=1)
    assert places.shape == (120, 2)
    centres = np.array([places[labels == at].mean(axis=0) for at in range(3)])
    nearest = np.linalg.norm(places[:, None] - centres[None], axis=2).argmin(axis=1)
    assert (nearest == labels).mean() > 0.95
    np.testing.assert_array_equal(places, umap_embedding(points, seed=1))


# bad input

MATRIX = jnp.ones((3, 8)), jnp.full((3, 8), 0.1)
BAD = {
    "no key": (lambda: principal_axes(0, MATRIX), r"key: got int"),
    "no matrix": (lambda: principal_axes(KEY, jnp.ones((3, 8))), r"found: got a \w+; pass a Susceptibility"),
    "other errors": (lambda: principal_axes(KEY, (MATRIX[0], MATRIX[1][:2])), r"found: got a value of shape \(3, 8\)"),
    "one component": (lambda: principal_axes(KEY, tuple(m[:1] for m in MATRIX)), r"found: got 1 components"),
    "diverged": (
        lambda: read_response(KEY, (MATRIX[0] * jnp.nan, MATRIX[1])),
        r"found: a response or its error is not",
    ),
    "negative": (lambda: read_response(KEY, (MATRIX[0], -MATRIX[1])), r"found: a standard error is negative"),
    "no seeds": (lambda: read_response(KEY, []), r"found: got an empty list"),
    "a word": (lambda: read_response(KEY, "seeds"), r"found: got a str; pass a Susceptibility"),
    "two shapes": (
        lambda: read_response(KEY, (MATRIX, tuple(m[:2] for m in MATRIX))),
        r"found: got matrices of shapes",
    ),
    "flat points": (lambda: conductance_clusters(np.ones(5)), r"points: got shape \(5,\)"),
    "few points": (lambda: conductance_clusters(np.ones((4, 2))), r"neighbours: got 5 of 4 points"),
    "most": (lambda: conductance_clusters(np.ones((9, 2)), most=2.0), r"most: got 2.0; pass a number between 0 and 1"),
    "angles": (lambda: principal_angles(np.eye(3), np.eye(2)), r"left, right: got shapes \(3, 3\) and \(2, 2\)"),
    "one labelling": (lambda: rand_indices([np.zeros(3)]), r"labels: got shapes"),
    "umap of few": (lambda: umap_embedding(np.ones((4, 2))), r"neighbours: got 5 of 4 points"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
