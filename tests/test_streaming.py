"""Chains on a stream are those in memory: same draws, same centre, bounded memory, and no thread left behind."""

import threading
import time
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import assert_same, compilations

import slt_jax as slt
from slt_jax import sampling, sharding, streaming

EXAMPLES, SIZE, INPUTS = 640, 32, 4
_DRAW = np.random.default_rng(0).normal
FEATURES = _DRAW(size=(EXAMPLES, INPUTS)).astype(np.float32)
TARGETS = (FEATURES @ _DRAW(size=INPUTS) + _DRAW(size=EXAMPLES)).astype(np.float32)
DATA = (FEATURES, TARGETS)
CENTER = jnp.asarray(np.linalg.lstsq(FEATURES.astype(float), TARGETS.astype(float), rcond=None)[0], jnp.float32)
NBETA, GAMMA = 100.0, 0.01
SAMPLER = slt.samplers.sgld(1e-3)


def loss_fn(weights, batch):
    return 0.5 * (batch[0] @ weights - batch[1]) ** 2


def cut(order, size=SIZE):
    return ((FEATURES[rows], TARGETS[rows]) for rows in (order[i : i + size] for i in range(0, len(order), size)))


def plain():
    return cut(np.arange(EXAMPLES))


def shuffled(seed=0):
    """A new order in each pass, and the same orders from each new factory."""
    random = np.random.default_rng(seed)
    return lambda: cut(random.permutation(EXAMPLES))


def collected(factory, steps):
    """What the stream gives in so many steps, in memory."""
    few = [batch for batch, _ in zip(streaming.again_and_again(factory), range(steps), strict=False)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *few)


@pytest.fixture(scope="module")
def posterior():
    return streaming.localise(loss_fn, CENTER, plain, NBETA, GAMMA)


@pytest.fixture(scope="module")
def single(posterior):
    """52 steps from memory: more than two passes."""
    batches = collected(shuffled(), 52)
    return slt.sample(
        jax.random.key(0),
        SAMPLER,
        posterior,
        jax.tree.map(lambda leaf: leaf[0], batches),
        draws=20,
        burnin=12,
        thin=2,
        chains=8,
        observe=lambda w: w,
        batches=batches,
    )


def streamed(posterior, **settings):
    chosen = {"draws": 20, "burnin": 12, "thin": 2, "chains": 8, "observe": lambda w: w, **settings}
    return streaming.sample(jax.random.key(0), SAMPLER, posterior, shuffled(), **chosen)


@pytest.mark.parametrize("segment", [None, 4, 10])
def test_a_stream_is_the_run_in_memory_to_the_last_bit_however_it_is_cut(posterior, single, segment):
    """26 draws and burn-in in one piece; in pieces of 2; and of 5, with one left over."""
    found = streamed(posterior, segment=segment)
    assert found.excess.shape == (8, 20)
    assert_same(found, single)


def test_other_batches_are_another_run(posterior, single):
    other = streaming.sample(
        jax.random.key(0), SAMPLER, posterior, shuffled(1), draws=20, burnin=12, thin=2, chains=8, segment=4
    )
    assert np.all(np.asarray(other.excess) != np.asarray(single.excess))


def test_a_run_goes_on_where_another_one_stopped(posterior, single):
    first = streamed(posterior, draws=14, segment=4)
    last = streamed(posterior, draws=6, burnin=0, start=first.state, begin=40, segment=4)
    assert_same(last, jax.tree.map(lambda leaf: leaf[:, 14:], single._replace(state=()))._replace(state=last.state))
    assert_same(last.state, single.state)


def test_equal_segments_are_compiled_once(posterior):
    settings = {"segment": 4, "chains": 2, "observe": None}
    streamed(posterior, **settings, draws=2, burnin=4)
    with compilations() as compiled:
        streamed(posterior, **settings, draws=10, burnin=4)
    assert compiled == []


@pytest.mark.parametrize("axes", [{"chains": 8}, {"chains": 2, "batch": 4}])
def test_on_a_mesh_of_eight_devices_the_draws_are_those_of_one(posterior, single, axes):
    with jax.set_mesh(sharding.mesh(**axes)):
        found = streamed(posterior, segment=10)
        assert len(jax.tree.leaves(found.state)[0].sharding.device_set) == 8
    kept = {name: getattr(single, name) for name in ("loss", "distance_squared", "observables")}
    for name, leaf in kept.items():
        np.testing.assert_allclose(getattr(found, name), leaf, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.excess, single.excess, atol=1e-6)


def test_the_centre_of_a_stream_is_that_of_the_data_in_memory(posterior):
    whole = slt.localise(loss_fn, CENTER, DATA, NBETA, GAMMA)
    odd = streaming.localise(loss_fn, CENTER, lambda: cut(np.arange(EXAMPLES), 50))
    assert float(odd.n) == EXAMPLES, "a shorter last batch counts"
    exact = np.mean(np.asarray(whole.center_losses, np.float64))
    for found in (posterior, odd):
        assert float(found.center_losses) == pytest.approx(exact, rel=1e-6)
    default = slt.localise(loss_fn, CENTER, DATA)
    assert (float(odd.nbeta), float(odd.gamma)) == (float(default.nbeta), float(default.gamma))
    moved = CENTER + 0.1
    there = streaming.with_control_variates(streaming.localise(loss_fn, moved, plain), lambda: cut(np.arange(640), 50))
    here = slt.with_control_variates(slt.localise(loss_fn, moved, DATA), DATA)
    np.testing.assert_allclose(there.center_gradient, here.center_gradient, rtol=1e-6)


def test_a_mean_loss_counts_by_examples_in_the_last_batch_too():
    found = streaming.localise(
        lambda w, batch: jnp.mean(loss_fn(w, batch)), CENTER, lambda: cut(np.arange(EXAMPLES), 600)
    )
    assert float(found.center_losses) == pytest.approx(float(np.mean(loss_fn(CENTER, DATA))), rel=1e-6)


class Loader:
    """As a grain DataLoader: a pass for every iterator."""

    def __iter__(self):
        return plain()


class Tensor:
    """As one of TensorFlow: no numpy array, but it can be made one."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


class Dataset:
    """As a tf.data.Dataset."""

    def __iter__(self):
        return iter([tuple(map(Tensor, batch)) for batch in plain()])

    def as_numpy_iterator(self):
        return plain()


FACTORIES = {
    "a loader": lambda: Loader(),
    "tensors": lambda: Dataset(),
    "numpy iterators of a data set": Dataset().as_numpy_iterator,
    "a generator function": plain,
    "a list": lambda: list(plain()),
}


@pytest.mark.parametrize("case", FACTORIES)
def test_whatever_can_be_iterated_again_is_a_stream(case):
    read = list(streaming.once(FACTORIES[case]))
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(read))
    assert_same(read, list(plain()))


def test_passes_follow_one_another_and_the_shorter_batch_is_left_out():
    stream = streaming.again_and_again(lambda: cut(np.arange(100), 40))
    firsts = [next(stream)[0][0] for _ in range(5)]
    np.testing.assert_array_equal(firsts, FEATURES[[0, 40, 0, 40, 0]])


def test_a_loader_that_uses_its_memory_again_is_read_right(posterior):
    def reusing():
        room = (np.empty((SIZE, INPUTS), np.float32), np.empty(SIZE, np.float32))
        for batch in plain():
            for there, here in zip(room, batch, strict=True):
                there[:] = here
            yield room

    settings = {"draws": 40, "chains": 2, "segment": 10}
    runs = [streaming.sample(jax.random.key(0), SAMPLER, posterior, one, **settings) for one in (reusing, plain)]
    assert_same(*runs)


def test_no_more_is_read_than_two_segments_beyond_the_one_in_hand(posterior, monkeypatch):
    given, taken, distances, alive, most = [0], [0], [], weakref.WeakValueDictionary(), [0]
    run = sampling.sample

    class Counted(np.ndarray):
        """An array that can be counted."""

    def counting():
        for features, targets in plain():
            given[0] += 1
            distances.append(given[0] - taken[0])
            batch = features.view(Counted)
            alive[given[0]] = batch
            most[0] = max(most[0], len(alive))
            yield batch, targets

    def watched(*arguments, **settings):
        trace = jax.block_until_ready(run(*arguments, **settings))
        taken[0] += len(settings["batches"][0])
        return trace

    monkeypatch.setattr(sampling, "sample", watched)
    streaming.sample(jax.random.key(0), SAMPLER, posterior, counting, draws=100, chains=2, segment=4)
    assert given[0] == taken[0] == 100
    assert max(distances) == 3 * 4, "one in hand, two ahead; none ahead would be 4"
    assert most[0] <= 3, "batches are let go as soon as they are copied"


def no_thread_is_left():
    return not [thread for thread in threading.enumerate() if thread.name.startswith("slt_jax-stream")]


class BrokenPipe(RuntimeError):
    """An error of the user's."""


@pytest.mark.parametrize("at", [0, 3, 30])
@pytest.mark.parametrize("error", [BrokenPipe, KeyError, ValueError])
def test_what_the_stream_raises_comes_through_with_its_type_and_no_thread_stays(posterior, at, error):
    def breaking():
        for number, batch in enumerate(plain()):
            if number == at:
                raise error("the disk is gone")
            yield batch
        raise error("the disk is gone")

    with pytest.raises(error, match="the disk is gone"):
        streaming.sample(jax.random.key(0), SAMPLER, posterior, breaking, draws=100, chains=2, segment=4)
    assert no_thread_is_left()
    with pytest.raises(error, match="the disk is gone"):
        streaming.localise(loss_fn, CENTER, breaking)
    assert no_thread_is_left()


def test_an_interrupt_ends_the_thread_after_the_batch_it_reads(posterior, monkeypatch):
    run, calls, read = sampling.sample, [], []

    def interrupted(*arguments, **settings):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run(*arguments, **settings)

    def slow():
        for batch in plain():
            read.append(1)
            time.sleep(0.002)
            yield batch

    monkeypatch.setattr(sampling, "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        streaming.sample(jax.random.key(0), SAMPLER, posterior, slow, draws=1000, chains=2, segment=4)
    assert no_thread_is_left()
    assert len(read) <= 4 * 4 + 1


def used_up():
    kept = plain()
    return lambda: kept


def with_batch(change, number=1):
    """The plain stream, one batch of which is changed."""
    return lambda: (change(batch) if at == number else batch for at, batch in enumerate(plain()))


REFUSED = {
    "a generator in place of its function": (plain(), r"factory: got a generator, which can be read only once"),
    "arrays": (DATA, r"factory: got a tuple; pass a function without arguments"),
    "a function that returns no iterable": (lambda: 3, r"factory: returned a int; it must return an iterable"),
    "a loader in place of a function": (Loader(), r"factory: got a Loader; pass a function without arguments"),
    "a function of the epoch": (lambda epoch: plain(), r"factory: it is called without arguments, but missing a requ"),
    "nothing": (lambda: [], r"factory: a pass over it gave no batch"),
    "one pass only": (used_up(), r"factory: a pass over it gave no batch. It must return a new iterator each time"),
    "a ragged batch": (with_batch(lambda b: (b[0], b[1][:3])), r"factory: batch 1 is no set of examples: .*differ"),
    "a scalar": (with_batch(lambda b: (b[0], 1.0)), r"factory: batch 1 is no set of examples: .*shape \(\)"),
    "another structure": (with_batch(lambda b: {"x": b[0]}), r"factory: batch 1: its leaves \['x'\] do not match"),
    "other shapes": (with_batch(lambda b: (b[0][:, :2], b[1])), r"factory: batch 1: leaf '0' has shape \(32, 2\)"),
    "other numbers": (with_batch(lambda b: (b[0], b[1] > 0)), r"factory: batch 1: leaf '1' .*dtype bool"),
    "words": (with_batch(lambda b: (b[0], np.array(["a"] * 32)), 0), r"leaf '1' of batch 0 has dtype <U1; only numb"),
    "a short one in the middle": (
        with_batch(lambda b: (b[0][:3], b[1][:3])),
        r"factory: batch 1 has 3 examples and is not the last",
    ),
    "a longer one": (
        with_batch(lambda b: (np.tile(b[0], (2, 1)), np.tile(b[1], 2))),
        r"factory: batch 1 has 64 examples and the first one 32: cut it",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_stream_is_refused_by_name(posterior, case):
    factory, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        streaming.sample(jax.random.key(0), SAMPLER, posterior, factory, draws=50, chains=2, segment=5)
    assert no_thread_is_left()


def test_a_stream_that_is_used_up_after_the_centre_is_refused():
    with pytest.raises(ValueError, match=r"a pass over it gave no batch"):
        slt.llc(jax.random.key(0), loss_fn, CENTER, used_up())


def test_a_centre_that_is_not_finite_is_named_by_its_batch():
    bad = with_batch(lambda b: (b[0], np.where(np.arange(32) == 5, np.nan, b[1]).astype(np.float32)), 3)
    with pytest.raises(ValueError, match=r"loss_fn: not all of the 32 losses at params are finite in batch 3"):
        streaming.localise(loss_fn, CENTER, bad)
    whole = streaming.localise(loss_fn, CENTER, plain)
    with pytest.raises(ValueError, match=r"factory: a pass has 608 examples, but the posterior was made with 640"):
        streaming.with_control_variates(whole, lambda: cut(np.arange(608)))
    with pytest.raises(ValueError, match=r"factory: got 1 example, but the default nbeta"):
        streaming.localise(loss_fn, CENTER, lambda: cut(np.arange(1)))


WRONG = {
    "no segment": ({"segment": 0}, r"segment: got 0; pass steps"),
    "a negative begin": ({"begin": -1}, r"begin: got -1"),
    "no draws": ({"draws": 0}, r"draws: got 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_schedule_out_of_range_is_refused(posterior, case):
    settings, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        streamed(posterior, **settings)


UNFIT = {
    "a batch size": ({"batch_size": 10}, ValueError, r"batch_size: given together with a stream of data"),
    "polishing": ({"polish": True}, ValueError, r"polish: given together with a stream of data"),
    "another reference": ({"reference": "self"}, ValueError, r"reference: given together with a stream of data"),
    "a budget for a sampler": ({"sampler": SAMPLER, "budget": 9}, ValueError, r"sampler: given together with budget"),
    "a word that nobody knows": ({"drawz": 10}, TypeError, r"unexpected keyword argument 'drawz'"),
    "a generator": ({"data": plain()}, ValueError, r"factory: got a generator, which can be read only once"),
    "a loader": ({"data": Loader()}, ValueError, r"factory: got a Loader; pass a function"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_the_door_to_streams_refuses_what_they_have_no_use_for(case):
    settings, kind, message = UNFIT[case]
    with pytest.raises(kind, match=message):
        slt.llc(jax.random.key(0), loss_fn, CENTER, **{"data": plain, **settings})


def test_a_stream_is_refused_inside_jit():
    with pytest.raises(ValueError, match=r"factory: a stream is read by the host, and cannot be inside jit"):
        jax.jit(lambda key: slt.llc(key, loss_fn, CENTER, plain).value)(jax.random.key(0))
