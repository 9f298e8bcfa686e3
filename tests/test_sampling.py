"""The one loop: what it records, in which order, with which keys; the same by hand, thinned, burnt in and sharded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import BASELINE, CENTRED, ORIGIN, assert_same, compilations, quadratic, quadratic_posterior, regression

import slt_jax as slt
from slt_jax import sampling, tree

SAMPLER = slt.samplers.sgld(1e-3)


@pytest.fixture(scope="module")
def long_trace():
    """Two chains of 24 draws from the centre, nothing thrown away, everything looked at."""
    return slt.sample(
        jax.random.key(0), SAMPLER, quadratic_posterior(), BASELINE, draws=24, chains=2, observe=lambda w: w
    )


def recorded(trace):
    return trace._replace(state=())


def test_leaves_have_a_chain_and_a_draw_axis(long_trace):
    scalars = recorded(long_trace)._replace(observables=(), state=(), virials=())
    assert {leaf.shape for leaf in jax.tree.leaves(scalars)} == {(2, 24)}
    assert long_trace.virials.shape == (2, 24, 2), "one for each leaf of the parameters"
    assert jax.tree.map(jnp.shape, long_trace.observables) == {"b": (2, 24, 2), "w": (2, 24, 2, 2)}
    assert jax.tree.leaves(long_trace.state.position)[0].shape == (2, 2)


def test_the_first_draw_is_the_centre_and_chains_differ_from_then_on(long_trace):
    assert np.all(np.asarray(long_trace.excess[:, 0]) == 0.0)
    assert np.all(np.asarray(long_trace.excess[0, 1:]) != np.asarray(long_trace.excess[1, 1:]))


def test_observables_and_numbers_belong_to_the_same_draw(long_trace):
    squared = sum(jnp.sum(leaf**2, axis=tuple(range(2, leaf.ndim))) for leaf in jax.tree.leaves(long_trace.observables))
    np.testing.assert_allclose(squared, long_trace.distance_squared, rtol=1e-5)
    energy = jax.vmap(jax.vmap(lambda w: jnp.mean(quadratic(w, BASELINE) - BASELINE)))(long_trace.observables)
    np.testing.assert_allclose(energy, long_trace.excess, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("burnin", [1, 5, 20])
def test_burnin_is_thrown_away_and_nothing_else_changes(long_trace, burnin):
    trace = slt.sample(
        jax.random.key(0),
        SAMPLER,
        quadratic_posterior(),
        BASELINE,
        draws=24 - burnin,
        chains=2,
        burnin=burnin,
        observe=lambda w: w,
    )
    kept = jax.tree.map(lambda leaf: leaf[:, burnin:], recorded(long_trace))
    assert_same(recorded(trace), kept, rtol=1e-5)
    assert_same(trace.state, long_trace.state, rtol=1e-5)


@pytest.mark.parametrize("thin", [2, 3])
def test_thinning_keeps_every_so_many_draws_of_the_same_chain(long_trace, thin):
    trace = slt.sample(
        jax.random.key(0),
        SAMPLER,
        quadratic_posterior(),
        BASELINE,
        draws=24 // thin,
        chains=2,
        thin=thin,
        observe=lambda w: w,
    )
    kept = jax.tree.map(lambda leaf: leaf[:, ::thin], recorded(long_trace))
    assert_same(recorded(trace), kept, rtol=1e-5)
    rounded_up = slt.sample(
        jax.random.key(0), SAMPLER, quadratic_posterior(), BASELINE, draws=2, chains=2, burnin=thin + 1, thin=thin
    )
    np.testing.assert_allclose(rounded_up.excess, kept.excess[:, 2:4], rtol=1e-5)


@pytest.mark.parametrize("batch_size", [None, 16])
def test_a_scan_of_ones_own_repeats_the_loop(batch_size):
    """The rule of the keys in the docstring is all that is needed."""
    key = jax.random.key(11)
    posterior = slt.localise(regression, jnp.float32(0.0), CENTRED, 50.0, 1.0)
    sampler = slt.samplers.sgld(1e-3)

    def by_hand(chain_key):
        init_key, run_key = jax.random.split(chain_key)

        def step(state, time):
            batch_key, move_key = slt.step_keys(run_key, time)
            batch = slt.full_batch(posterior, CENTRED)
            if batch_size is not None:
                batch = slt.minibatch(posterior, CENTRED, sampling.batch_index(batch_key, batch_size, 256))
            return sampler.step(move_key, state, posterior, batch)

        return jax.lax.scan(step, sampler.init(init_key, posterior, CENTRED), jnp.arange(40))

    state, infos = jax.jit(lambda keys: jax.lax.map(by_hand, keys))(jax.random.split(key, 3))
    trace = slt.sample(key, sampler, posterior, CENTRED, draws=30, chains=3, burnin=10, batch_size=batch_size)
    assert_same(trace.state, state, rtol=1e-5)
    np.testing.assert_allclose(trace.excess, infos.excess[:, 10:], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(trace.noise, infos.noise[:, 10:], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(("burnin", "thin"), [(0, 1), (5, 1), (4, 2)])
def test_moments_are_those_of_the_draws_that_are_recorded(burnin, thin):
    trace = slt.sample(
        jax.random.key(0),
        SAMPLER,
        quadratic_posterior(),
        BASELINE,
        draws=9,
        chains=2,
        burnin=burnin,
        thin=thin,
        observe=lambda w: w,
        moments=True,
    )
    # the centre is 0: what is observed is z
    for mean, variance, draws in zip(*map(jax.tree.leaves, (*trace.moments, trace.observables)), strict=True):
        np.testing.assert_allclose(mean, np.mean(draws, axis=1), rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(variance, np.var(draws, axis=1), rtol=1e-4, atol=1e-10)
        assert np.all(np.var(draws[:, 1:], axis=1) != np.asarray(variance)), "a draw less would be seen"


def test_keys_of_steps_are_never_repeated():
    run_keys = jax.vmap(jax.random.split)(jax.random.split(jax.random.key(0), 8))
    used = [jax.random.key_data(run_keys).reshape(-1, 2)]
    for chain in range(8):
        pairs = jax.vmap(lambda t, c=chain: jnp.stack(slt.step_keys(run_keys[c, 1], t)))(jnp.arange(100))
        used.append(jax.random.key_data(pairs).reshape(-1, 2))
    every = np.concatenate([np.asarray(piece) for piece in used])
    assert len(np.unique(every, axis=0)) == len(every) == 16 + 1600


def test_batches_are_other_ones_for_every_chain_and_step():
    posterior = slt.localise(regression, jnp.float32(0.0), jnp.arange(256.0), 1.0)
    trace = slt.sample(
        jax.random.key(1), slt.samplers.sgld(0.0), posterior, jnp.arange(256.0), draws=50, chains=4, batch_size=2
    )
    losses = np.asarray(trace.loss).ravel()
    assert len(np.unique(losses)) > 0.9 * len(losses)
    error = np.asarray(0.5 * np.arange(256.0) ** 2).std() / np.sqrt(2 * len(losses))
    assert abs(losses.mean() - (0.5 * np.arange(256.0) ** 2).mean()) < 4 * error


def test_a_batch_of_all_the_data_is_all_the_data_and_has_no_noise(key):
    posterior = slt.localise(regression, jnp.float32(0.0), CENTRED, 50.0)
    settings = {"draws": 10, "chains": 2}
    whole = slt.sample(key, SAMPLER, posterior, CENTRED, **settings)
    assert_same(slt.sample(key, SAMPLER, posterior, CENTRED, batch_size=256, **settings), whole)
    assert np.all(np.asarray(whole.noise) == 0.0)
    part = slt.sample(key, SAMPLER, posterior, CENTRED, batch_size=255, **settings)
    assert np.all(np.asarray(part.noise[:, 1:]) > 0.0)


def test_a_chain_goes_on_from_the_state_of_the_last_one(long_trace, key):
    posterior = quadratic_posterior()
    more = slt.sample(key, SAMPLER, posterior, BASELINE, draws=3, chains=2, start=long_trace.state)
    lifted = jax.vmap(lambda z: tree.norm_squared(z))(long_trace.state.position)
    np.testing.assert_allclose(more.distance_squared[:, 0], lifted, rtol=1e-6)
    with pytest.raises(ValueError, match=r"start: has a leaf of shape \(2, 2\).*3 chains"):
        slt.sample(key, SAMPLER, posterior, BASELINE, draws=3, chains=3, start=long_trace.state)


def test_an_outer_jit_changes_nothing(long_trace):
    inside = jax.jit(
        lambda key, posterior, data: slt.sample(key, SAMPLER, posterior, data, draws=24, chains=2, observe=lambda w: w)
    )
    assert_same(inside(jax.random.key(0), quadratic_posterior(), BASELINE), long_trace, rtol=1e-4)


def test_a_diverging_chain_keeps_its_draws_and_spares_its_neighbours():
    """One of the chains is thrown out by its start; the others are what they are without it."""
    posterior = slt.localise(lambda w, x: 0.25 * w**4 + x, jnp.float32(0.0), BASELINE, 100.0, 1.0)
    sampler = slt.samplers.sgld(0.02)
    settings = {"draws": 60, "chains": 3}
    safe = slt.sample(jax.random.key(4), sampler, posterior, BASELINE, **settings)
    thrown = safe.state._replace(position=safe.state.position.at[1].set(100.0))
    key = jax.random.key(5)
    spoilt = slt.sample(key, sampler, posterior, BASELINE, start=thrown, **settings)
    healthy = slt.sample(key, sampler, posterior, BASELINE, start=safe.state, **settings)
    assert not np.isfinite(spoilt.excess[1, -1])
    assert spoilt.excess.shape == (3, 60), "never skipped"
    np.testing.assert_allclose(spoilt.excess[::2], healthy.excess[::2], rtol=1e-5)
    assert np.all(np.isfinite(healthy.excess))


def test_chains_spread_over_eight_devices_are_bit_for_bit_those_on_one():
    assert jax.device_count() == 8
    posterior = slt.localise(regression, jnp.float32(0.0), CENTRED, 50.0, 1.0)
    sampler = slt.samplers.sgld(1e-3)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("chain",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("chain"))
    alone = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    keys = jax.random.split(jax.random.key(2), 16)

    def run(keys):
        state = jax.vmap(sampler.init, in_axes=(0, None, None))(keys, posterior, CENTRED)

        def step(state, time):
            batch_keys, move_keys = jax.vmap(slt.step_keys, in_axes=(0, None))(keys, time)

            def one(batch_key, move_key, state):
                batch = slt.minibatch(posterior, CENTRED, sampling.batch_index(batch_key, 8, 256))
                return sampler.step(move_key, state, posterior, batch)

            return jax.vmap(one)(batch_keys, move_keys, state)

        return jax.lax.scan(step, state, jnp.arange(30))[1].distance_squared.T

    sharded = jax.jit(run, in_shardings=spread, out_shardings=spread)(jax.device_put(keys, spread))
    single = jax.jit(run)(jax.device_put(keys, alone))
    assert len(sharded.sharding.device_set) == 8
    np.testing.assert_array_equal(np.asarray(sharded), np.asarray(single))


GOOD = {"draws": 2, "chains": 2}
BAD = {
    "no draws": ({"draws": 0}, r"draws: got 0; it must be at least 1"),
    "no chains": ({"chains": 0}, r"chains: got 0; it must be at least 1"),
    "negative burn-in": ({"burnin": -1}, r"burnin: got -1; it must be at least 0"),
    "no thinning": ({"thin": 0}, r"thin: got 0; it must be at least 1"),
    "half a draw": ({"draws": 2.5}, r"draws: got 2.5; it must be an integer"),
    "a boolean": ({"chains": True}, r"chains: got True; it must be an integer"),
    "an empty batch": ({"batch_size": 0}, r"batch_size: got 0 with 64 examples; it must lie between 1 and 64"),
    "a batch beyond the data": ({"batch_size": 65}, r"batch_size: got 65 with 64 examples; it must lie between"),
    "half an example": ({"batch_size": 2.5}, r"batch_size: got 2.5; it must be an integer"),
    "all as a boolean": ({"batch_size": True}, r"batch_size: got True; it must be an integer"),
    "a number as a key": ({"key": 0}, r"key: got int .*; pass one typed key, jax.random.key"),
    "raw bits as a key": (
        {"key": np.zeros(2, np.uint32)},
        r"key: got ndarray of dtype uint32 and shape \(2,\); pass one typed key",
    ),
    "several keys": ({"key": jax.random.split(jax.random.key(0), 2)}, r"key: got .*; pass one typed key"),
    "a constructor": ({"sampler": slt.samplers.sgld}, r"sampler: got a function; make one first"),
    "other data": ({"data": BASELINE[:32]}, r"data: got 32 examples, but the posterior was made with 64.*same data"),
    "ragged data": ({"data": (BASELINE, BASELINE[:3])}, r"data: leading axes differ"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_before_anything_is_compiled(case):
    settings, message = BAD[case]
    posterior = quadratic_posterior()
    given = {"key": jax.random.key(0), "sampler": SAMPLER, "posterior": posterior, "data": BASELINE, **GOOD, **settings}
    with compilations() as compiled, pytest.raises(ValueError, match=message):
        slt.sample(**given)
    assert compiled == []


def test_other_data_is_noticed_under_a_mean_loss_too(key):
    posterior = slt.localise(lambda w, x: jnp.mean(quadratic(w, x)), ORIGIN, BASELINE)
    with pytest.raises(ValueError, match=r"data: got 32 examples, but the posterior was made with 64"):
        slt.sample(key, SAMPLER, posterior, BASELINE[:32], **GOOD)
