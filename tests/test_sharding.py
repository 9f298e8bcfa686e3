"""One program for every layout: what a mesh changes is where things are, not what they are."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import slt_jax as slt
from slt_jax import sampling, sharding
from slt_jax.estimators.llc import chains_for
from slt_jax.models.attention import attend, causal
from slt_jax.noise import exact_normal, normal, signs

KEY = jax.random.key(1)
WIDE = (128, 128)


def loss_fn(params, batch):
    inputs, targets = batch
    hidden = jnp.tanh(inputs @ params["first"] + params["bias"][None])
    return 0.5 * jnp.sum((jnp.tanh(hidden @ params["middle"]) @ params["last"] - targets) ** 2, axis=1)


@pytest.fixture(scope="module")
def problem():
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = {"first": (24, 128), "middle": WIDE, "last": (128, 16)}
    params = {name: jax.random.normal(k, shape) / 8 for k, (name, shape) in zip(keys, shapes.items(), strict=False)}
    params["bias"] = jnp.zeros(128)
    inputs = jax.random.normal(keys[3], (96, 24))
    targets = jnp.tanh(jnp.tanh(inputs @ params["first"]) @ params["middle"]) @ params["last"]
    return slt.Problem(loss_fn, params, (inputs, targets))


@pytest.fixture(scope="module")
def posterior(problem):
    return slt.localise(*problem, nbeta=100.0)


SAMPLERS = {
    "sgld": slt.samplers.sgld(1e-6),
    "underdamped": slt.samplers.underdamped(1e-3),
    "hmc": slt.samplers.hmc(1e-3),
}
SIZES = {"draws": 6, "chains": 8}


def collectives(posterior, data, sampler, batch_size=None, side_by_side=None):
    """Kind and shape of everything that devices exchange in the compiled program."""
    start, sizes = jnp.int32(0), (SIZES["draws"], SIZES["chains"], 0, 1, batch_size, False, side_by_side, False)
    compiled = sampling._sample.lower(KEY, sampler, posterior, data, *[None] * 5, start, *sizes).compile()
    kinds = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    found = re.findall(rf"= \(?(\w+)\[([\d,]*)\]\S* (?:\S+ )*?({kinds})(?:-start)?\(", compiled.as_text())
    return [(kind, tuple(int(size) for size in shape.split(",") if size)) for _, shape, kind in found]


def apart(found, expected):
    return np.max(np.abs(np.asarray(found) - np.asarray(expected))) / np.max(np.abs(np.asarray(expected)))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("batch_size", [None, 16])
def test_chains_on_eight_devices_are_bitwise_those_of_one(problem, posterior, name, batch_size):
    sizes = {**SIZES, "batch_size": batch_size, "side_by_side": 1}
    one = slt.sample(KEY, SAMPLERS[name], posterior, problem.data, **sizes)
    with jax.set_mesh(sharding.mesh()):
        many = slt.sample(KEY, SAMPLERS[name], posterior, problem.data, **sizes)
    assert len(many.excess.sharding.device_set) == 8
    assert many.excess.addressable_shards[0].data.shape == (1, 6)
    for field in ("excess", "loss", "virial", "distance_squared", "acceptance"):
        np.testing.assert_array_equal(getattr(many, field), getattr(one, field), err_msg=field)
    # the control: the next key makes other chains
    other = slt.sample(jax.random.key(2), SAMPLERS[name], posterior, problem.data, **sizes)
    assert not np.array_equal(other.distance_squared, one.distance_squared)


def attention_loss(params, tokens):
    """Next tokens from two heads of attention, with a residual stream and a softmax at the end."""
    count, steps = tokens[:, :-1].shape
    stream = params["embed"][tokens[:, :-1]]
    flat = stream.reshape(count * steps, -1)
    heads = [(flat @ params[name]).reshape(count, steps, 2, 8) for name in ("query", "key", "value")]
    mixed, _ = attend(*heads, causal(steps))
    logits = (flat + mixed.reshape(count * steps, -1) @ params["out"]) @ params["embed"].T
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[:, 1:].reshape(-1, 1), axis=1)
    return -jnp.mean(chosen.reshape(count, steps), axis=1)


def test_chains_of_a_transformer_are_bitwise_those_of_one_device():
    keys = jax.random.split(jax.random.key(3), 6)
    shapes = {"embed": (17, 16), "query": (16, 16), "key": (16, 16), "value": (16, 16), "out": (16, 16)}
    params = {name: jax.random.normal(k, shape) / 4 for k, (name, shape) in zip(keys, shapes.items(), strict=False)}
    tokens = jax.random.randint(keys[5], (64, 13), 0, 17)
    posterior = slt.localise(attention_loss, params, tokens, nbeta=100.0)
    sizes = {**SIZES, "batch_size": 8, "side_by_side": 1}
    one = slt.sample(KEY, slt.samplers.sgld(1e-4), posterior, tokens, **sizes)
    with jax.set_mesh(sharding.mesh()):
        many = slt.sample(KEY, slt.samplers.sgld(1e-4), posterior, tokens, **sizes)
    assert np.ptp(one.distance_squared[:, -1]) > 0
    for field in ("excess", "loss", "virial", "distance_squared"):
        np.testing.assert_array_equal(getattr(many, field), getattr(one, field), err_msg=field)


def test_nothing_is_exchanged_along_the_axis_of_chains(problem, posterior):
    sampler = SAMPLERS["underdamped"]
    with jax.set_mesh(sharding.mesh()):
        assert collectives(posterior, problem.data, sampler) == []
        assert collectives(posterior, problem.data, sampler, batch_size=16) == []
    # the control: along the axis of examples sums are exchanged, and found
    with jax.set_mesh(sharding.mesh(chains=2, batch=4)):
        assert collectives(posterior, problem.data, sampler)


@pytest.mark.parametrize("name", ["sgld", "hmc"])
@pytest.mark.parametrize("batch_size", [None, 16])
def test_examples_on_several_devices_give_the_same_chain(problem, posterior, name, batch_size):
    one = slt.sample(KEY, SAMPLERS[name], posterior, problem.data, **SIZES, batch_size=batch_size)
    with jax.set_mesh(sharding.mesh(chains=2, batch=4)):
        many = slt.sample(KEY, SAMPLERS[name], posterior, problem.data, **SIZES, batch_size=batch_size)
    assert apart(many.loss, one.loss) < 1e-6
    assert apart(many.distance_squared, one.distance_squared) < 1e-6


@pytest.mark.parametrize("name", SAMPLERS)
def test_parameters_in_pieces_give_the_same_chain_and_no_leaf_is_ever_whole(problem, name):
    sampler = SAMPLERS[name]
    with jax.set_mesh(sharding.mesh(parameters=1, devices=jax.devices()[:1])):
        one = slt.sample(KEY, sampler, slt.localise(*problem, nbeta=100.0), problem.data, **SIZES)
    with jax.set_mesh(sharding.mesh(chains=2, parameters=4)):
        posterior = slt.localise(*problem, nbeta=100.0)
        many = slt.sample(KEY, sampler, posterior, problem.data, **SIZES)
        exchanged = collectives(posterior, problem.data, sampler)
    assert apart(many.loss, one.loss) < 1e-6
    assert apart(many.distance_squared, one.distance_squared) < 1e-6
    pieces = many.state.position["middle"].addressable_shards
    assert pieces[0].data.shape == (4, 128, 32)
    assert posterior.center["middle"].addressable_shards[0].data.shape[1] == 32
    # activations, (chain, example, unit), are exchanged; of no matrix is more than its piece anywhere
    assert exchanged
    matrices = {leaf.shape for leaf in problem.params.values() if leaf.ndim == 2}
    assert not any(shape[-2:] in matrices for _, shape in exchanged)


def test_a_matrix_that_is_gathered_is_found(problem, posterior):
    """The control of the test above: a loss that asks for a whole matrix."""

    def gathers(params, batch):
        whole = jax.lax.with_sharding_constraint(params["middle"], jax.sharding.PartitionSpec(None, None))
        return loss_fn({**params, "middle": whole}, batch)

    with jax.set_mesh(sharding.mesh(chains=2, parameters=4)):
        posterior = slt.localise(gathers, problem.params, problem.data, nbeta=100.0)
        exchanged = collectives(posterior, problem.data, SAMPLERS["sgld"])
    assert any(shape[-2:] == WIDE for _, shape in exchanged)


@pytest.mark.parametrize(("noise", "kurtosis"), [(normal, 3.0), (signs, 1.0), (exact_normal, 3.0)])
def test_noise_in_pieces_is_the_same_on_any_mesh_and_of_the_same_law(noise, kurtosis):
    like = {"w": jnp.zeros((512, 96)), "b": jnp.zeros(40), "odd": jnp.zeros((3, 5, 1001)), "one": jnp.zeros(())}
    drawn = []
    for sizes in ({"parameters": 1, "devices": jax.devices()[:1]}, {"parameters": 8}, {"chains": 4, "parameters": 2}):
        with jax.set_mesh(sharding.mesh(**sizes)):
            drawn.append(jax.jit(noise)(KEY, like))
    for other in drawn[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), drawn[0], other)
    assert drawn[1]["w"].addressable_shards[0].data.shape == (64, 96)
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(drawn[0])]).astype(float)
    assert abs(flat.mean()) < 4 / np.sqrt(flat.size)
    assert abs(np.mean(flat**2) - 1) < 4 * np.sqrt(2 / flat.size)
    assert abs(np.mean(flat**4) - kurtosis) < 4 * np.sqrt(96 / flat.size)
    # neighbours along either axis share nothing, though they share words of bits
    for first, second in ((drawn[0]["w"][1:], drawn[0]["w"][:-1]), (drawn[0]["w"][:, 1:], drawn[0]["w"][:, :-1])):
        assert abs(np.mean(np.asarray(first) * np.asarray(second))) < 4 / np.sqrt(first.size)


@pytest.mark.parametrize("sizes", [{}, {"chains": 2, "batch": 4}])
def test_the_coefficient_is_that_of_one_device(sizes):
    problem = slt.truths.deep_linear_problem(jax.random.key(0), (4, 3, 4), 2, examples=10_000)
    lengths = {"draws": 100, "burnin": 100, "chains": 16}
    one = slt.llc(KEY, *problem, **lengths)
    with jax.set_mesh(sharding.mesh(**sizes)):
        many = slt.llc(KEY, *problem, **lengths)
    assert abs(float(many.value - one.value)) < 0.1 * float(one.std_error)
    assert abs(float(many.std_error / one.std_error) - 1) < 0.1


def calibrated(posterior, data):
    return slt.calibrate(KEY, posterior, data, chains=8)


def test_chains_are_two_on_each_device_at_least_and_others_are_refused(problem, posterior):
    assert [chains_for(size) for size in (10, 1000, 10**6)] == [16, 8, 4]
    with jax.set_mesh(sharding.mesh()):
        assert [chains_for(size) for size in (10, 1000, 10**6)] == [16, 16, 16]
        with pytest.raises(ValueError, match="chains: got 4 on a mesh with 8 devices"):
            slt.sample(KEY, SAMPLERS["sgld"], posterior, problem.data, draws=2, chains=4)
        for refused in (lambda: slt.llc(KEY, *problem, chains=8), lambda: calibrated(posterior, problem.data)):
            with pytest.raises(ValueError, match=r"chains: got 8 on a mesh .* pass a multiple of 16"):
                refused()


def test_temperatures_and_components_are_spread_too(problem):
    linear = slt.truths.deep_linear_problem(jax.random.key(0), (4, 3, 4), 2, examples=10_000)
    nbetas = jnp.array([1e2, 1e3, 1e4, 1e5])
    flows = [slt.flow(KEY, *linear, nbetas=nbetas, gamma=1.0, draws=60)]
    with jax.set_mesh(sharding.mesh(temperatures=4, chains=2)):
        flows.append(slt.flow(KEY, *linear, nbetas=nbetas, gamma=1.0, draws=60))
    np.testing.assert_allclose(flows[1].value, flows[0].value, rtol=0.02)
    params, some = problem.params, jax.tree.map(lambda leaf: leaf[:30], problem.data)
    rows = [jax.tree.map(lambda leaf, at=at: jnp.zeros(leaf.shape, bool).at[at].set(True), params) for at in range(2)]
    parts = {f"row {at}": slt.restriction.mask(params, row) for at, row in enumerate(rows)}
    settings = {"draws": 40, "burnin": 40, "chains": 4, "together": 2, "controls": False, "nbeta": 100.0, "gamma": 10.0}
    answers = [slt.susceptibility(KEY, *problem, parts, {"some": some}, **settings)]
    with jax.set_mesh(sharding.mesh(components=2, chains=2, batch=2)):
        leaves = jax.tree.leaves(slt.restriction.alike.stacked(list(parts.values())))
        assert all(leaf.addressable_shards[0].data.shape[0] == 1 for leaf in leaves)
        answers.append(slt.susceptibility(KEY, *problem, parts, {"some": some}, **settings))
    assert np.max(np.abs(answers[0].value)) > 0
    np.testing.assert_allclose(answers[1].value, answers[0].value, rtol=0.02, atol=0.1 * np.max(answers[0].std_error))


def test_a_chain_in_segments_is_bitwise_the_longer_one(problem, posterior):
    for name, sampler in SAMPLERS.items():
        go = lambda sampler=sampler, **how: slt.sample(KEY, sampler, posterior, problem.data, chains=2, **how)  # noqa: E731
        whole = go(draws=7, thin=2, batch_size=16)
        first = go(draws=3, thin=2, batch_size=16)
        second = go(draws=4, thin=2, batch_size=16, start=first.state, begin=6)
        np.testing.assert_array_equal(np.concatenate([first.excess, second.excess], axis=1), whole.excess, name)
        # the control: without the number of the step it is another chain
        again = go(draws=4, thin=2, batch_size=16, start=first.state)
        assert not np.array_equal(again.excess, second.excess)


def test_batches_from_outside_are_seen_step_by_step_by_all_chains(problem, posterior):
    index = np.arange(5 * 16).reshape(5, 16) % 96
    batches = jax.tree.map(lambda leaf: leaf[index], problem.data)
    sampler = slt.samplers.sgld(1e-6)
    trace = slt.sample(KEY, sampler, posterior, problem.data, draws=5, chains=2, batches=batches)
    assert np.all(trace.excess[:, 0] == 0)
    state = slt.sample(
        KEY, sampler, posterior, problem.data, draws=3, chains=2, batches=jax.tree.map(lambda b: b[:3], batches)
    ).state
    params = jax.vmap(posterior.restriction.lift, in_axes=(None, 0))(posterior.center, state.position)
    third = jax.tree.map(lambda leaf: leaf[3], batches)
    losses = jax.vmap(lambda w: jnp.mean(loss_fn(w, third)))(params)
    np.testing.assert_allclose(trace.loss[:, 3], losses, rtol=1e-5)
    with pytest.raises(ValueError, match=r"batches: leaf .* expected leading axes \(step, example\) of 6 steps"):
        slt.sample(KEY, sampler, posterior, problem.data, draws=6, chains=2, batches=batches)
    with pytest.raises(ValueError, match="batch_size: got 4 together with batches"):
        slt.sample(KEY, sampler, posterior, problem.data, draws=5, chains=2, batches=batches, batch_size=4)


def test_chains_that_wait_need_no_memory_but_their_state(problem, posterior):
    many = jax.tree.map(lambda leaf: jnp.tile(leaf, (40, 1)), problem.data)
    wide = slt.localise(problem.loss_fn, problem.params, many, nbeta=100.0)

    def temporary(side_by_side):
        sizes = (2, 8, 0, 1, None, False, side_by_side, False)
        given = KEY, SAMPLERS["sgld"], wide, many, *[None] * 5, jnp.int32(0)
        return sampling._sample.lower(*given, *sizes).compile().memory_analysis().temp_size_in_bytes

    assert temporary(1) < 0.6 * temporary(None)
    with pytest.raises(ValueError, match="side_by_side: got 3; pass a divisor of the 8 chains"):
        slt.sample(KEY, SAMPLERS["sgld"], posterior, problem.data, draws=2, chains=8, side_by_side=3)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"chains": 3}, "chains=3: they multiply to 3, and there are 8 devices"),
        ({"parameters": 0}, "parameters: got 0"),
        ({"batch": 2.0}, "batch: got 2.0"),
        ({"chains": 8, "parameters": 2}, "chains=8, parameters=2: they multiply to 16"),
    ],
)
def test_meshes_that_do_not_fit_are_refused(sizes, said):
    with pytest.raises(ValueError, match=said):
        sharding.mesh(**sizes)
