"""Grafting finds the weights that carry a gain: exact where the best mask is known, and where one was planted."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import assert_same, compilations

import slt_jax as slt
from slt_jax import tree
from slt_jax.restriction import graft, grafted, overlap
from slt_jax.restriction.relaxed import search, within_budget

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import grafting

DATA = jnp.zeros(4)
WORTH = jnp.asarray(np.random.default_rng(0).permutation(np.geomspace(1e-3, 10.0, 400)), jnp.float32)
CHANGE = jnp.asarray(np.random.default_rng(1).permutation(np.geomspace(1e-2, 100.0, 400)), jnp.float32)
START = {"a": jnp.zeros((20, 10)), "b": jnp.zeros(200)}
SHARES = (0.5, 0.25, 0.1, 0.05, 0.01)


def ends(change=CHANGE):
    return START, {"a": change[:200].reshape(20, 10), "b": change[200:]}


def flat(values):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(values)])


def linear(params, batch):
    """Each weight is worth ``WORTH`` nats where it has made its change."""
    w = jnp.concatenate([params["a"].ravel(), params["b"]])
    return 100.0 - jnp.sum(WORTH * w / CHANGE) + batch


def quadratic(params, batch):
    """``Σ h (w - w_after)²``: each weight is worth ``h w_after²``, here ``WORTH``."""
    w = jnp.concatenate([params["a"].ravel(), params["b"]])
    return jnp.sum(WORTH * (w / CHANGE - 1.0) ** 2) + batch


def best(size):
    """The closed form for a separable loss: the weights that are worth most, and the share that they are worth."""
    order = np.argsort(-np.asarray(WORTH))[:size]
    mask = np.zeros(400, bool)
    mask[order] = True
    return mask, float(WORTH[order].sum() / WORTH.sum())


@pytest.mark.parametrize("loss_fn", [linear, quadratic])
def test_on_a_separable_loss_the_mask_of_every_size_is_that_of_the_closed_form(loss_fn):
    for share in SHARES:
        found = graft(loss_fn, *ends(), DATA, shares=SHARES, share=share)
        mask, worth = best(round(share * 400))
        np.testing.assert_array_equal(flat(found.mask), mask)
        assert abs(found.gains[found.chosen] - worth) < 1e-5
        assert flat(found.scores)[mask].min() >= flat(found.scores)[~mask].max()
    assert (found.random.mean(axis=1) < 0.7 * found.gains).all()
    assert (found.magnitude < 0.7 * found.gains).all(), "the size of a change says nothing here"
    shuffled = np.random.default_rng(2).permutation(flat(found.scores))
    assert set(np.argsort(-shuffled)[:4]) != set(np.argsort(-flat(found.scores))[:4])


def test_all_weights_gain_all_and_none_gain_nothing():
    before, after = ends()
    found = graft(quadratic, before, after, DATA, shares=(1.0,), held_out=DATA[:2])
    assert found.gains[0] == found.held_out[0] == found.magnitude[0] == 1.0
    assert (found.random == 1.0).all()
    assert_same(grafted(before, after, found.mask), after)
    assert_same(grafted(before, after, jax.tree.map(jnp.zeros_like, found.mask)), before)
    assert found.losses == pytest.approx((float(WORTH.sum()), 0.0), rel=1e-6, abs=1e-6)


def test_a_weight_that_only_helps_with_its_partner_is_found_where_its_slope_is_nothing():
    """``Σ c (1 - a b)²`` from ``a = b = 0``: no weight has a slope there, and one without its partner is nothing."""
    pairs = 100

    def loss_fn(params, batch):
        return (
            jnp.sum(WORTH[:pairs] * (1.0 - params["a"] * params["b"]) ** 2) + 1e-4 * jnp.sum(params["c"] ** 2) + batch
        )

    before = {"a": jnp.zeros(pairs), "b": jnp.zeros(pairs), "c": jnp.zeros(pairs)}
    after = {"a": jnp.full(pairs, 2.0), "b": jnp.full(pairs, 0.5), "c": jnp.full(pairs, 5.0)}
    assert float(jnp.abs(jax.grad(lambda p: jnp.mean(loss_fn(p, DATA)))(before)["a"]).max()) == 0.0
    found = graft(loss_fn, before, after, DATA, share=20 / 300)
    order = np.argsort(-np.asarray(WORTH[:pairs]))[:10]
    for name in "ab":
        assert set(np.flatnonzero(found.mask[name])) == set(order)
    assert not np.asarray(found.mask["c"]).any()
    assert found.magnitude[found.chosen] < 0, "the largest changes are the useless ones"


def test_a_mask_need_not_hold_what_harms():
    """Half of the changes undo some of the gain: a larger share than the others allows for more and takes no more."""
    harm = jnp.where(jnp.arange(400) < 200, -1.0, 0.2)
    loss_fn = lambda params, batch: 100.0 + jnp.sum(harm * jnp.concatenate([params["a"].ravel(), params["b"]])) + batch  # noqa: E731
    found = graft(loss_fn, *ends(jnp.ones(400)), DATA, shares=(1.0, 0.75, 0.5, 0.25))
    np.testing.assert_array_equal(found.sizes, [200, 200, 200, 100])
    np.testing.assert_allclose(found.gains, [1.25, 1.25, 1.25, 0.625], rtol=1e-5)
    assert found.shares[found.chosen] == 0.5


def test_what_did_not_move_is_never_in_the_mask_nor_in_the_null():
    change = CHANGE.at[:300].set(0.0)
    before, after = ends(change)
    loss_fn = lambda params, batch: jnp.sum((params["b"] - after["b"]) ** 2 * (after["b"] != 0)) + batch  # noqa: E731
    found = graft(loss_fn, before, after, DATA, shares=(0.5, 0.25, 0.1))
    assert found.sizes.tolist() == [100, 100, 40]
    assert not flat(found.mask)[:300].any()
    np.testing.assert_allclose(found.random[:2], 1.0)


def test_neither_the_scale_of_the_loss_nor_that_of_the_weights_has_to_be_known():
    before, after = ends()
    plain = graft(quadratic, before, after, DATA)
    loud = graft(lambda p, x: 2.0**20 * quadratic(p, x), before, after, DATA)
    small = jax.tree.map(lambda leaf: leaf * 2.0**-12, (before, after))
    fine = graft(lambda p, x: quadratic(jax.tree.map(lambda leaf: leaf * 2.0**12, p), x), *small, DATA)
    for other in (loud, fine):
        assert_same(plain.mask, other.mask)
        assert_same(plain.scores, other.scores)
        np.testing.assert_array_equal(plain.gains, other.gains)


def test_the_planted_weights_are_found_among_larger_drift():
    """100 of 20 200 weights make the function, and the others move half as far again."""
    problem = grafting.planted(seed=0, drift=1.5)
    change = flat(jax.tree.map(jnp.subtract, problem.after, problem.before))
    true = flat(problem.mask)
    assert true.sum() == 100
    assert (change != 0).all()
    assert np.sqrt(np.mean(change[~true] ** 2)) > 1.4 * np.sqrt(np.mean(change[true] ** 2))
    found = graft(grafting.squared_error, problem.before, problem.after, problem.data, share=100 / 20_200)
    assert found.losses[1] < 1e-8 * found.losses[0], "all of the drift together is not seen"
    lost = grafting.leaving_one_out(problem, found.losses[0])
    assert lost[0] > 0.004, "every planted weight matters"
    assert (flat(found.mask) & true).sum() >= 95
    assert found.gains[found.chosen] >= 0.95
    assert found.magnitude[found.chosen] < 0
    assert found.random[found.chosen].mean() < 0.1


def test_on_digits_a_percent_of_the_weights_carries_the_fine_tuning_where_it_is_pulled_to_its_start():
    images = grafting.digits()
    before = grafting.before_tuning(images)
    key, data, held_out = jax.random.key(1), images["5-9"], images["5-9, held out"]
    sparse, dense = (
        grafting.tuned(key, before, data, *grafting.TUNINGS[name]) for name in ("momentum, L1 0.001", "Adam")
    )
    settings = {"held_out": held_out, "shares": (0.2, 0.05, 0.01), "share": 0.01}
    found = [graft(grafting.cross_entropy, before, after, data, **settings) for after in (sparse, dense)]
    at = found[0].chosen
    assert found[0].gains[at] >= 0.95
    assert found[0].held_out[at] >= 0.95
    assert found[0].random[at].mean() < 0.5
    assert found[1].gains[at] < 0.5, "Adam moves every weight: no percent of them carries the gain"
    assert found[1].gains[at] > 4 * found[1].magnitude[at]


def test_batches_find_what_all_of_the_data_find_and_held_out_data_are_read_apart():
    problem = grafting.planted(seed=1, drift=1.0)
    data, rest = (jax.tree.map(lambda leaf, s=s: leaf[s], problem.data) for s in (slice(0, 800), slice(800, None)))
    ours = [problem.before, problem.after, data]
    settings = {"held_out": rest, "batch_size": 100, "shares": (0.1, 0.01, 0.005)}
    found = graft(grafting.squared_error, *ours, **settings)
    assert found.gains[-1] >= 0.95
    assert found.held_out[-1] >= 0.95
    same = graft(grafting.squared_error, *ours, **settings, key=jax.random.key(0))
    assert_same(same.scores, found.scores)
    np.testing.assert_array_equal(same.random, found.random)
    other = graft(grafting.squared_error, *ours, **settings, key=jax.random.key(1))
    assert (other.random != found.random).any()


def test_where_after_is_no_better_on_held_out_data_their_gain_is_not_a_number():
    worse = lambda params, batch: quadratic(params, 0.0) * batch  # noqa: E731
    found = graft(worse, *ends(), jnp.ones(3), held_out=-jnp.ones(3), steps=5)
    assert np.isnan(found.held_out).all()
    assert np.isfinite(found.gains).all()


def test_the_curve_falls_with_the_share_and_the_smallest_that_is_enough_is_chosen():
    found = graft(quadratic, *ends(), DATA, gain=0.9)
    assert (np.diff(found.gains) <= 0).all()
    assert found.reached
    assert found.gains[found.chosen] >= 0.9 > found.gains[found.chosen + 1]
    assert f"{found.sizes[found.chosen]} of 400 weights" in found.explain()
    short = graft(quadratic, *ends(), DATA, gain=0.9, shares=(0.01, 0.05))
    assert not short.reached
    assert short.chosen == 0
    assert "add larger shares" in short.explain()


def test_the_restriction_frees_the_mask_for_any_estimator():
    before, after = ends()
    found = graft(quadratic, before, after, DATA, share=0.05)
    posterior = slt.localise(quadratic, after, DATA, restriction=found.restriction)
    assert tree.size(posterior.restriction.origin(after)) == 20
    spectrum = slt.hessian_spectrum(jax.random.key(0), quadratic, after, DATA, restriction=found.restriction)
    exact = np.sort(2 * np.asarray(WORTH / CHANGE**2)[flat(found.mask)])
    np.testing.assert_allclose(np.sort(np.ravel(spectrum.nodes)), exact, rtol=1e-3, atol=1e-5 * exact[-1])


def test_one_program_serves_every_grid_of_as_many_shares():
    traces = []

    def counted(params, batch):
        traces.append(1)
        return quadratic(params, batch)

    graft(counted, *ends(), DATA, shares=(0.5, 0.1), steps=5)
    few = len(traces)
    programs = search._cache_size()
    others = ends(2 * CHANGE)
    with compilations() as compiled:
        graft(counted, *others, DATA, shares=(0.4, 0.2), steps=5)
    # the two are the restriction's own lists of free entries, one for each leaf, whose lengths are new
    assert len(compiled) <= 2
    assert search._cache_size() == programs
    traces_again = len(traces)
    graft(counted, *ends(), DATA, shares=(0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01), steps=5)
    assert len(traces) - traces_again <= few, "a longer grid is not traced more often"


def test_half_precision_and_double_precision_are_grafted_as_they_are():
    for dtype, on in ((jnp.bfloat16, False), (jnp.float64, True)):
        with jax.enable_x64(on):
            before = jnp.zeros(50, dtype)
            after = jnp.ones(50, dtype)
            loss_fn = lambda w, x: jnp.sum((w[:5] - 1.0) ** 2) + x.astype(w.dtype)  # noqa: E731
            found = graft(loss_fn, before, after, DATA, shares=(0.5, 0.1))
            assert np.flatnonzero(found.mask).tolist() == [0, 1, 2, 3, 4]
            assert found.gains[-1] == 1.0
            assert grafted(before, after, found.mask).dtype == dtype


@pytest.mark.parametrize("budget", [0.5, 3.0, 5.0])
def test_the_nearest_mask_within_a_budget_keeps_it(budget):
    values = jnp.array([3.0, 1.0, 0.5, -2.0, 0.9, 0.0])
    free = jnp.array([True, True, True, True, True, False])
    held = within_budget(values, jnp.float32(budget), free)
    assert abs(float(held.sum()) - budget) < 1e-5
    assert float(held[-1]) == 0.0
    inside = (held > 0) & (held < 1) & free
    prices = np.asarray((values - held)[inside])
    assert prices.size == 0 or np.ptp(prices) < 1e-5, "one price for all"


def test_the_overlap_of_two_masks_and_of_random_ones():
    r = np.random.default_rng(0)
    first = {"a": np.arange(30) < 10, "b": np.arange(20).reshape(4, 5) < 2}
    same = overlap(first, first)
    assert same.jaccard == 1.0
    assert same.shared == 12
    apart = overlap(first, jax.tree.map(np.logical_not, first))
    assert (apart.jaccard, apart.shared, apart.expected) == (0.0, 0, pytest.approx(apart.expected))
    draws = []
    for _ in range(4000):
        second = r.permutation(50) < 15
        draws.append(overlap(first, {"a": second[:30], "b": second[30:].reshape(4, 5)}))
    values = np.array([draw.jaccard for draw in draws])
    error = draws[0].deviation / np.sqrt(len(draws))
    assert abs(values.mean() - draws[0].expected) < 4 * error
    assert abs(values.mean() - same.expected) > 4 * error, "masks of other sizes have another law"
    assert abs(values.std() / draws[0].deviation - 1) < 0.06


BEFORE, AFTER = ends()
BAD = {
    "other structure": (lambda: graft(linear, BEFORE, {"a": BEFORE["a"]}, DATA), r"after: its leaves \['a'\] do not"),
    "other shape": (
        lambda: graft(linear, BEFORE, {**AFTER, "b": np.ones(3, np.float32)}, DATA),
        r"after: leaf 'b' has shape \(3,\)",
    ),
    "other dtype": (
        lambda: graft(linear, BEFORE, {**AFTER, "b": np.ones(200, np.float16)}, DATA),
        "after: leaf 'b' .*float16.*Pass two",
    ),
    "equal": (lambda: graft(linear, BEFORE, BEFORE, DATA), "after: equal to before.*pass the parameters after"),
    "not finite": (
        lambda: graft(linear, BEFORE, {**AFTER, "b": np.full(200, np.nan, np.float32)}, DATA),
        "after: leaf 'b' has entries that are not finite",
    ),
    "share of 0": (lambda: graft(linear, BEFORE, AFTER, DATA, shares=(0.1, 0.0)), r"shares: got .*in \(0, 1\]"),
    "no shares": (lambda: graft(linear, BEFORE, AFTER, DATA, shares=()), "shares: got"),
    "share above 1": (lambda: graft(linear, BEFORE, AFTER, DATA, share=1.5), r"share: got 1.5; pass one number"),
    "share not finite": (lambda: graft(linear, BEFORE, AFTER, DATA, share=float("nan")), "share: got nan"),
    "gain in percent": (lambda: graft(linear, BEFORE, AFTER, DATA, gain=95.0), "gain: got 95.0"),
    "no steps": (lambda: graft(linear, BEFORE, AFTER, DATA, steps=0), "steps: got 0; pass an integer of at least 1"),
    "half a batch": (lambda: graft(linear, BEFORE, AFTER, DATA, batch_size=0.5), "batch_size: got 0.5"),
    "one random mask": (lambda: graft(linear, BEFORE, AFTER, DATA, randoms=1), "randoms: got 1; .*at least 2"),
    "an old key": (lambda: graft(linear, BEFORE, AFTER, DATA, key=np.zeros(2, np.uint32)), "key: got ndarray.*typed"),
    "a seed": (lambda: graft(linear, BEFORE, AFTER, DATA, key=0), "key: got int .*pass one typed key"),
    "ragged data": (lambda: graft(linear, BEFORE, AFTER, {"x": np.ones(3), "y": np.ones(2)}), "data: leading axes"),
    "held-out data without examples": (lambda: graft(linear, BEFORE, AFTER, DATA, held_out=np.ones(0)), "0 examples"),
    "masks of other networks": (lambda: overlap({"a": np.ones(3, bool)}, {"b": np.ones(3, bool)}), "right: its leaves"),
    "masks of other shapes": (lambda: overlap(np.ones(3, bool), np.ones(4, bool)), "right: leaf '' has shape"),
    "a mask of numbers": (lambda: overlap(np.ones(3, bool), np.ones(3)), "right: leaf '' has dtype float64"),
    "an empty mask": (lambda: overlap(np.zeros(3, bool), np.ones(3, bool)), "left: the mask is empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_before_anything_is_compiled(case):
    build, message = BAD[case]
    with compilations() as compiled, pytest.raises(ValueError, match=message):
        build()
    assert compiled == []


def test_a_phase_without_gain_and_losses_that_are_not_finite_are_refused_before_the_search():
    with pytest.raises(ValueError, match=r"after: its mean loss on data is .* there is no gain"):
        graft(linear, AFTER, BEFORE, DATA)
    with pytest.raises(ValueError, match="loss_fn: the mean loss after is nan"):
        graft(lambda p, x: jnp.log(1.0 - jnp.sum(p["a"])) + x, BEFORE, AFTER, DATA)
    with pytest.raises(ValueError, match="before, after: got traced values"):
        jax.jit(lambda b, a: graft(linear, b, a, DATA).gains)(BEFORE, AFTER)
