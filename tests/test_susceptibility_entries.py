"""Every entry an observable: exact where the posterior is Gaussian, in both forms, alone and side by side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import assert_same
from regression import (
    CENTER,
    DATA,
    FEATURES,
    GAMMA,
    HELD_OUT,
    HESSIAN,
    INPUTS,
    NBETA,
    OTHERS,
    TARGETS,
    loss_covariance,
    loss_fn,
    spread,
)

import slt_jax as slt
from slt_jax.response import pairs, sums
from slt_jax.response.observables import losses_at, placed
from slt_jax.response.sums import covariances, nothing, with_draw
from slt_jax.sampling import Fold

KEY = jax.random.key(0)
FREE = {"first": slice(0, 8), "second": slice(8, 16)}
COMPONENTS = {
    name: slt.restriction.mask(CENTER, (jnp.arange(INPUTS) >= free.start) & (jnp.arange(INPUTS) < free.stop))
    for name, free in FREE.items()
}
SETTINGS = dict(nbeta=NBETA, gamma=GAMMA)
#: A step of a few tenths of that at which the dynamics would diverge.
STEADY = slt.samplers.underdamped(0.3 / np.sqrt(NBETA * np.linalg.eigvalsh(HESSIAN)[-1] + GAMMA), friction=0.1)
SHORT = dict(SETTINGS, sampler=STEADY, draws=100, burnin=200, chains=4, thin=4)


def exact(free):
    """``-Cov[L, ℓ_i - L]`` of the held-out examples in the posterior restricted to a component."""
    covariance = spread(free=free)
    mean = loss_covariance((FEATURES, TARGETS), (FEATURES, TARGETS), covariance).mean()
    return mean - loss_covariance((FEATURES, TARGETS), OTHERS, covariance).mean(axis=0)


def excesses(covariance):
    """``E[ℓ_i - ℓ_i*]`` of the held-out examples less that of the mean loss, and the latter."""
    energy = 0.5 * np.trace(HESSIAN @ covariance)
    return 0.5 * np.einsum("ia,ab,ib->i", OTHERS[0], covariance, OTHERS[0]) - energy, energy


def covered(value, std_error, truth):
    return float(np.mean(np.abs(np.asarray(value) - truth) <= 1.96 * np.asarray(std_error)))


@pytest.fixture(scope="module")
def seeds():
    """Both forms of χ from a hundred seeds, in one program."""

    def one(key):
        found = slt.susceptibility(
            key,
            loss_fn,
            CENTER,
            DATA,
            COMPONENTS,
            {"each": slt.response.each(HELD_OUT), "all": HELD_OUT},
            **dict(SHORT, draws=250),
            controls=False,
            free=True,
            together=2,
        )
        beside = found.against_free
        return found.value, found.std_error, beside.value, beside.std_error, found.ok, beside.ok

    return [np.asarray(leaf) for leaf in jax.jit(jax.vmap(one))(jax.random.split(KEY, 100))]


# exact answers


def test_every_entry_is_the_exact_derivative_and_the_intervals_cover(seeds):
    value, error, *_, good, _ = seeds
    truth = np.stack([exact(free) for free in FREE.values()])
    assert value.shape == (100, 2, 13)
    assert 0.90 <= covered(value[..., :12], error[..., :12], truth) <= 0.98
    pooled = value[..., :12].std(axis=0) / 10
    assert (np.abs(value[..., :12].mean(axis=0) - truth) / pooled).max() < 4
    # the other component's answer is another one
    assert (np.abs(value[..., :12].mean(axis=0) - truth[::-1]) / pooled).max() > 6
    assert good.mean() > 0.9
    # the mean of the entries is the observable of all of them
    np.testing.assert_allclose(value[..., :12].mean(axis=-1), value[..., 12], rtol=1e-3, atol=1e-7)


def test_with_the_mean_of_free_chains_it_is_the_other_exact_number(seeds):
    _, _, value, error, _, good = seeds
    everywhere, _ = excesses(spread())
    truth = []
    for free in FREE.values():
        there, energy = excesses(spread(free=free))
        truth.append(exact(free) - energy * (there - everywhere))
    truth = np.stack(truth)
    assert 0.90 <= covered(value[..., :12], error[..., :12], truth) <= 0.98
    pooled = value[..., :12].std(axis=0) / 10
    assert (np.abs(value[..., :12].mean(axis=0) - truth) / pooled).max() < 4
    own = np.stack([exact(free) for free in FREE.values()])
    assert (np.abs(value[..., :12].mean(axis=0) - own) / pooled).max() > 6, "the two forms are told apart"
    assert good.mean() > 0.9


def test_where_everything_is_free_in_the_component_the_two_forms_agree():
    found = slt.susceptibility(
        KEY,
        loss_fn,
        CENTER,
        DATA,
        {"all": slt.restriction.full()},
        {"each": slt.response.each(HELD_OUT)},
        **SHORT,
        controls=False,
        free=True,
    )
    apart = np.abs(found.value - found.against_free.value)
    assert (apart < 4 * np.hypot(found.std_error, found.against_free.std_error)).all()
    assert "Everything free: " in found.explain()
    assert "clearest of 12 each[" in found.explain()


# what is kept


def test_sums_along_the_chain_say_what_the_draws_say():
    """To rounding, for any number of draws, whether or not batches come out even; not after a draw was left out."""
    for chains, draws in ((4, 100), (3, 7)):
        keys = jax.random.split(jax.random.key(draws))
        left = 1e-4 * (5 + 0.1 * jax.random.normal(keys[0], (chains, draws)).cumsum(axis=1))
        right = 1e-6 * (3 + jax.random.normal(keys[1], (chains, draws, 5)) + 1e4 * left[..., None])

        def gathered(first, left=left, right=right, chains=chains, draws=draws):
            def add(draw, kept):
                return with_draw(kept, left[:, draw], right[:, draw], draw, draws)

            return jax.lax.fori_loop(first, draws, add, nothing(chains, draws, 5))

        expected = jax.tree.map(lambda leaf: leaf[0], pairs(left[..., None], right))
        assert_same(covariances(gathered(-3), draws), expected, rtol=1e-4)
        other = covariances(gathered(1), draws).covariance
        assert (np.abs(other / expected.covariance - 1) > 1e-3).all()


def test_sums_of_many_columns_are_read_in_blocks(monkeypatch):
    """The last of which overlaps with the one before it."""
    draws = jax.random.normal(KEY, (2, 12, 8))

    def gathered(columns):
        return jax.lax.fori_loop(
            0, 12, lambda d, kept: with_draw(kept, columns[:, d, 0], columns[:, d, 1:], d, 12), nothing(2, 12, 7)
        )

    here, there = gathered(draws), gathered(draws + 1)
    whole = covariances(here, 12), sums.against(here, there, 12)
    monkeypatch.setattr(sums, "_BLOCK", 3)
    blocks = covariances.__wrapped__(here, 12), sums.against.__wrapped__(here, there, 12)
    assert blocks[0].covariance.shape == (7,)
    assert_same(blocks, whole, rtol=1e-4, atol=1e-6)


def test_a_fold_keeps_what_the_draws_would_have_given():
    posterior = slt.localise(loss_fn, CENTER, DATA, **SETTINGS)

    def look(weights):
        losses = loss_fn(weights, HELD_OUT) - loss_fn(CENTER, HELD_OUT)
        return jnp.mean(losses), losses

    def add(kept, seen, draw):
        return with_draw(kept, *seen, draw, 50), seen[0]

    settings = dict(draws=50, burnin=20, chains=4, thin=2, observe=look)
    fold = Fold(nothing(4, 50, 12), jax.tree_util.Partial(add))
    kept = slt.sample(KEY, STEADY, posterior, DATA, **settings, fold=fold)
    whole = slt.sample(KEY, STEADY, posterior, DATA, **settings)
    expected = pairs(whole.observables[0][..., None], whole.observables[1])
    assert_same(covariances(kept.folded, 50), jax.tree.map(lambda leaf: leaf[0], expected), rtol=1e-3)
    np.testing.assert_allclose(kept.observables, whole.observables[0], rtol=1e-5, atol=1e-8)


def test_tokens_have_a_place_and_a_name_and_a_chain_that_goes_on_counts_each_draw_once():
    tokens = tuple(leaf.reshape(3, 4, *leaf.shape[1:]) for leaf in HELD_OUT)
    found = slt.susceptibility(
        KEY,
        loss_fn,
        CENTER,
        DATA,
        {"first": COMPONENTS["first"]},
        {"softer": (loss_fn, HELD_OUT), "tokens": slt.response.each(tokens), "again": slt.response.each(HELD_OUT)},
        **SETTINGS,
        chains=8,
    )
    assert found.value.shape == (1, 25)
    assert found.of("tokens").shape == (1, 3, 4)
    assert found.of("softer").shape == (1,)
    assert [found.column_name(column) for column in (0, 1, 8, 13)] == [
        "softer",
        "tokens[0, 0]",
        "tokens[1, 3]",
        "again[0]",
    ]
    np.testing.assert_allclose(found.of("tokens").reshape(1, 12), found.of("again"), rtol=1e-4, atol=1e-8)
    deviations = np.abs(found.of("again")[0] - exact(FREE["first"])) / found.of("again", found.std_error)[0]
    assert deviations.max() < 4
    assert bool(found.ok.all()), found.explain()
    # draws are kept for data sets alone, and these are what the sums were made of
    assert found.changes.shape == (1, 8, 500, 1)
    direct = pairs(found.energies[0][..., None], found.changes[0])
    np.testing.assert_allclose(found.of("softer", found.posterior.covariance), direct.covariance[0], rtol=1e-3)
    np.testing.assert_allclose(found.of("softer", found.std_error), direct.std_error[0], rtol=1e-3)
    assert found.respond(0.1).value.shape == (1, 1)
    # controls of every entry, at the same places
    assert found.prior.covariance.shape == found.gaussian.correlation.shape == (1, 25)
    prior = np.zeros((INPUTS, INPUTS))
    prior[:8, :8] = np.eye(8) / GAMMA
    of_prior = loss_covariance((FEATURES, TARGETS), OTHERS, prior).mean(axis=0)
    of_prior -= loss_covariance((FEATURES, TARGETS), (FEATURES, TARGETS), prior).mean()
    apart = np.abs(found.of("again", found.prior.covariance)[0] - of_prior)
    assert (apart < 4 * found.of("again", found.prior.std_error)[0]).all()


def test_pieces_of_the_data_change_nothing(monkeypatch):
    function, moved = jax.tree_util.Partial(loss_fn), CENTER + 0.1
    whole = placed(function, HELD_OUT, CENTER, copies=4)
    assert whole.chunk.value == (slt.loss.CENTER_CHUNK,)
    # the widest arrays are of four bytes for each example
    monkeypatch.setattr(slt.loss, "WIDEST_BYTES", 4 * 4 * 5)
    pieces = placed(function, HELD_OUT, CENTER, copies=4)
    assert pieces.chunk.value == (5,)
    np.testing.assert_allclose(losses_at(pieces, moved), losses_at(whole, moved), rtol=1e-5, atol=2e-6)
    # one more example than pieces come out even with, and a loss that is made for all of the examples
    assert losses_at(pieces, moved).shape == (12,)
    assert slt.loss.chunk_for(lambda w, b: loss_fn(w, b) + jnp.zeros(12), CENTER, HELD_OUT) == slt.loss.CENTER_CHUNK


# side by side


def test_side_by_side_every_component_has_the_draws_that_it_has_alone():
    observables = {"each": slt.response.each(HELD_OUT)}
    settings = dict(SHORT, draws=20, controls=False)
    alone, beside = (
        slt.susceptibility(KEY, loss_fn, CENTER, DATA, COMPONENTS, observables, **settings, together=together)
        for together in (1, 2)
    )
    np.testing.assert_allclose(beside.energies, alone.energies, rtol=1e-3, atol=1e-7)
    assert_same(beside.posterior.covariance, alone.posterior.covariance, rtol=1e-3, atol=1e-7)
    # and so has one that is asked for by itself, in its own place
    first = slt.susceptibility(
        KEY, loss_fn, CENTER, DATA, {"first": COMPONENTS["first"]}, observables, **settings, together=2
    )
    np.testing.assert_array_equal(first.energies[0], alone.energies[0])
    assert (np.abs(alone.energies[0] - alone.energies[1]) > 1e-4).mean() > 0.5


def test_components_of_other_shapes_go_in_groups_of_their_own():
    uneven = COMPONENTS | {"few": slt.restriction.mask(CENTER, jnp.arange(INPUTS) < 3)}
    settings = dict(SHORT, draws=20, controls=False)
    found = slt.susceptibility(
        KEY, loss_fn, CENTER, DATA, uneven, {"each": slt.response.each(HELD_OUT)}, **settings, together=8
    )
    assert found.value.shape == (3, 12)
    assert found.components == ("first", "second", "few")
    # three directions have less energy than eight
    assert (found.energies[2].mean() < 0.7 * found.energies[:2].mean(axis=(1, 2))).all()


def test_all_chains_see_the_same_batches_and_the_rule_of_keys_gives_them():
    """With nothing free to move, what is left of the loss of a step is its batch."""
    posterior = slt.localise(loss_fn, CENTER, DATA, **SETTINGS)
    still = slt.samplers.sgld(0.0)
    settings = dict(draws=6, chains=3, burnin=2, batch_size=5)
    shared = jax.random.key(7)
    one, other = (
        slt.sample(jax.random.key(seed), still, posterior, DATA, **settings, batch_key=shared).loss for seed in (1, 2)
    )
    np.testing.assert_array_equal(one, other)
    without = slt.sample(jax.random.key(1), still, posterior, DATA, **settings).loss
    assert (np.asarray(without) != np.asarray(one)).all()
    chain_key = jax.random.split(shared, 3)[1]
    batch_key, _ = slt.step_keys(chain_key, 2 + 4)
    index = jax.random.randint(batch_key, (5,), 0, 40)
    np.testing.assert_allclose(
        one[1, 4], loss_fn(CENTER, jax.tree.map(lambda leaf: leaf[index], DATA)).mean(), rtol=1e-5
    )


def test_on_batches_it_is_the_same_law():
    # 380 effective draws: at a quarter of the thinning there are 97, with which errors come out too small
    settings = dict(SHORT, sampler=slt.samplers.sgld(0.1 / (NBETA * np.linalg.eigvalsh(HESSIAN)[-1])), thin=32)
    found = slt.susceptibility(
        KEY,
        loss_fn,
        CENTER,
        DATA,
        {"first": COMPONENTS["first"]},
        {"each": slt.response.each(HELD_OUT)},
        **dict(settings, draws=500),
        batch_size=20,
        controls=False,
    )
    assert float(found.ess[0]) > 200
    truth = exact(FREE["first"])
    # batches heat the chains, without control variates by this much
    slack = np.hypot(found.std_error[0], 0.25 * np.abs(truth))
    assert (np.abs(found.value[0] - truth) / slack).max() < 4
    _, energy = excesses(spread(free=FREE["first"]))
    assert 0.8 < float(found.energies.mean()) / energy < 1.3


# bad input

BAD = {
    "twice": (lambda: dict(observables={"x": slt.response.each(slt.response.each(HELD_OUT))}), r"data: got what each"),
    "a mean": (
        lambda: dict(observables={"x": slt.response.each((lambda w, b: loss_fn(w, b).mean(), HELD_OUT))}),
        r"observables: 'x': got a mean loss of shape \(\), which has no entries",
    ),
    "three": (
        lambda: dict(observables={"x": slt.response.each((loss_fn, 1, 2))}),
        r"observables: 'x' has 3 members; pass data or a pair",
    ),
    "together": (lambda: dict(together=0), r"together: got 0; pass how many restrictions are measured at once"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    make, message = BAD[case]
    given = dict(key=KEY, loss_fn=loss_fn, params=CENTER, data=DATA, components=COMPONENTS, observables={"x": HELD_OUT})
    with pytest.raises(ValueError, match=message):
        slt.susceptibility(**(given | make()))


def test_an_observable_that_is_not_there_is_named():
    found = slt.susceptibility(
        KEY, loss_fn, CENTER, DATA, COMPONENTS, {"x": HELD_OUT}, **dict(SHORT, draws=4), controls=False
    )
    with pytest.raises(ValueError, match=r"observable: got 'y'; there are \['x'\]"):
        found.of("y")
    with pytest.raises(ValueError, match=r"column: got 1; there are 1"):
        found.column_name(1)
