"""What was cut off goes on, to the same bits, and nothing that was done is done again."""

from functools import partial

import jax
import numpy as np
import pytest
from laws import BASELINE, ORIGIN, assert_same, quadratic

import slt_jax as slt
from slt_jax import storage
from slt_jax.estimators import Schedule, block, measure
from slt_jax.spectroscopy import Checkpoint, Subject, llc_probe, scan
from slt_jax.storage import resumed, running

KEY = jax.random.key(5)
POSTERIOR = slt.localise(quadratic, ORIGIN, BASELINE, nbeta=1000.0)
#: So short that the first block does not suffice, and a second attempt of it is not needed.
SCHEDULE = Schedule(2, 25, 25, 1, None)
SETTINGS = dict(polishing=False, budget=150, relative_error=1e-9)


@pytest.fixture
def counted(monkeypatch):
    """Every stage that is run from the host."""
    real, calls = block.stages, []

    def stages(*given):
        calls.append(1)
        return real(*given)

    monkeypatch.setattr(block, "stages", stages)
    return calls


@pytest.fixture
def always(monkeypatch):
    """Copies are made after every stage."""
    monkeypatch.setattr(running, "EVERY", 0.0)
    monkeypatch.setattr(running, "SHARE", 0.0)


class Stopped(Exception):
    """A process that ended."""


def stopping(keeper, after):
    """The same keeper, in a process that ends after so many stages."""
    left = [after]

    def save(run):
        keeper.save(run)
        left[0] -= 1
        if left[0] == 0:
            raise Stopped

    return keeper._replace(save=save)


def read(keeper=None):
    estimate, trace, _ = measure(KEY, POSTERIOR, BASELINE, SCHEDULE, **SETTINGS, keeper=keeper)
    return estimate, trace


@pytest.fixture(scope="module")
def whole():
    estimate, trace = read()
    assert int(estimate.settings.blocks) == 3
    return estimate, trace


@pytest.mark.parametrize("after", [1, 4, 10, 13, 30])
def test_a_reading_that_was_cut_off_goes_on_to_the_same_bits_and_repeats_no_stage(
    whole, tmp_path, always, counted, after
):
    keeper = storage.RunningReadings(tmp_path)("a" * 64)
    with pytest.raises(Stopped):
        read(stopping(keeper, after))
    assert len(counted) == after
    found = read(storage.RunningReadings(tmp_path)("a" * 64))
    assert len(counted) == 30
    assert_same(found, whole)
    keeper.remove()
    assert list((tmp_path / "running").iterdir()) == []


def test_the_comparison_sees_another_key_and_what_does_not_fit_counts_as_none(whole, tmp_path, always, counted):
    keeper = storage.RunningReadings(tmp_path)("b" * 64)
    with pytest.raises(Stopped):
        read(stopping(keeper, 12))
    path = next((tmp_path / "running").glob("*.npz"))
    content = path.read_bytes()
    three = Schedule(3, 25, 25, 1, None)
    assert keeper.load(running_like(three)) is None
    assert keeper.load(running_like(SCHEDULE)) is not None
    for spoiled in (content[: len(content) // 2], b"", content[:200] + b"x" * 50 + content[250:]):
        path.write_bytes(spoiled)
        assert keeper.load(running_like(SCHEDULE)) is None
    before = len(counted)
    assert_same(read(keeper), whole)
    assert len(counted) - before == 30
    other, _, _ = measure(jax.random.key(6), POSTERIOR, BASELINE, SCHEDULE, **SETTINGS)
    assert float(other.value) != float(whole[0].value)


def running_like(schedule):
    from slt_jax.estimators.running import like

    return like(KEY, POSTERIOR, BASELINE, schedule)


def test_a_short_reading_leaves_nothing_and_a_full_disk_costs_no_reading(whole, tmp_path, monkeypatch):
    keeper = storage.RunningReadings(tmp_path)("c" * 64)
    assert_same(read(keeper), whole)
    assert not (tmp_path / "running").exists()
    monkeypatch.setattr(running, "EVERY", 0.0)

    def full(path, tree):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(running, "save_tree", full)
    with pytest.warns(RuntimeWarning, match=r"the chains are not kept \(No space left on device\)"):
        found = read(storage.RunningReadings(tmp_path)("c" * 64))
    assert_same(found, whole)


def test_a_scan_goes_on_inside_a_reading(tmp_path, always, counted):
    subject = Subject(slt.Problem(quadratic, ORIGIN, BASELINE))
    probe = llc_probe(nbeta=1000.0, chains=2, draws=25, burnin=25)
    go = partial(scan, KEY, subject, [Checkpoint(1, lambda: ORIGIN)], {"llc": probe})
    expected = next(go()).reading
    keepers = storage.RunningReadings(tmp_path)
    before = len(counted)
    with pytest.raises(Stopped):
        next(go(running=lambda mark: stopping(keepers(mark), 7)))
    finished = {}
    found = next(go(running=keepers, finished=finished)).reading
    assert len(counted) - before == 10
    assert list((tmp_path / "running").iterdir()) == []
    assert len(finished) == 1
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


SAMPLER = slt.samplers.underdamped(0.01)
LONG = dict(draws=50, chains=3, burnin=11, thin=2, batch_size=8)


def observe(params):
    return jax.tree.map(lambda leaf: leaf.reshape(-1)[:2], params)


@pytest.fixture(scope="module")
def long():
    return slt.sample(KEY, SAMPLER, POSTERIOR, BASELINE, **LONG, observe=observe)


def resume(folder, **settings):
    given = {**LONG, "observe": observe, "segment": 13} | settings
    return storage.resumable_sample(folder, KEY, SAMPLER, POSTERIOR, BASELINE, **given)


@pytest.mark.parametrize("at", [0, 1, 2, 4])
def test_a_long_chain_that_was_killed_returns_what_one_run_returns(long, tmp_path, at):
    """A kill after the draws of a segment were written and before its state was."""
    real = resumed.save_tree
    with pytest.MonkeyPatch.context() as patch:

        def cut(path, tree, **numbers):
            if numbers.get("windows", 0) > 13 * at:
                raise Stopped
            real(path, tree, **numbers)

        patch.setattr(resumed, "save_tree", cut)
        with pytest.raises(Stopped):
            resume(tmp_path / "run")
    steps = []
    with pytest.MonkeyPatch.context() as patch:
        sample = resumed.sample

        def counting(*given, **settings):
            steps.append(settings.get("begin"))
            return sample(*given, **settings)

        patch.setattr(resumed, "sample", counting)
        assert_same(resume(tmp_path / "run"), long)
        # 56 windows of two steps; the first call only looks at shapes
        assert [begin for begin in steps if begin is not None] == [26 * n for n in range(at, 5)]
        steps.clear()
        assert_same(resume(tmp_path / "run"), long)
        assert steps == [None]


@pytest.mark.parametrize("segment", [1, 55])
def test_segments_may_have_any_length(long, tmp_path, segment):
    assert_same(resume(tmp_path / "run", segment=segment), long)


def test_another_run_is_told_apart_and_a_file_cut_short_is_named(long, tmp_path):
    folder = tmp_path / "run"
    resume(folder)
    with pytest.raises(storage.FolderError, match=r"belongs to another run .draws is 50 there, 49 here"):
        resume(folder, draws=49)
    with pytest.raises(storage.FolderError, match=r"belongs to another run .content is"):
        resume(folder, observe=lambda params: ())
    with pytest.raises(ValueError, match="draws: got 0"):
        resume(tmp_path / "other", segment=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(storage.FolderError, match="not empty and holds no run"):
        resume(tmp_path / "mine")
    piece = sorted(folder.glob("draws-*.npz"))[1]
    piece.write_bytes(piece.read_bytes()[:100])
    with pytest.raises(storage.FolderError, match=rf"{piece.name} cannot be read .*remove the folder"):
        resume(folder)
    other = slt.sample(jax.random.key(6), SAMPLER, POSTERIOR, BASELINE, **LONG, observe=observe)
    with pytest.raises(AssertionError):
        assert_same(other, long)


def test_a_start_of_the_callers_own_is_not_used_up(long, tmp_path):
    before = np.asarray(jax.tree.leaves(long.state.position)[0]).copy()
    further = resume(tmp_path / "run", start=long.state, draws=20, burnin=0)
    np.testing.assert_array_equal(jax.tree.leaves(long.state.position)[0], before)
    assert_same(
        further,
        slt.sample(
            KEY, SAMPLER, POSTERIOR, BASELINE, start=long.state, observe=observe, **{**LONG, "draws": 20, "burnin": 0}
        ),
    )
