"""Losses on disk: what is read back is what was seen, to the last bit, whether or not the run was cut short."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr
from laws import assert_same
from regression import CENTER, DATA, GAMMA, HELD_OUT, NBETA, loss_fn

import slt_jax as slt
from slt_jax import storage
from slt_jax.response import pairs
from slt_jax.storage import losses as module

KEY = jax.random.key(0)
SAMPLER = slt.samplers.underdamped(0.02, friction=0.1)
SETTINGS = dict(draws=22, chains=3, burnin=7, thin=2, segment=8, batch_size=10)


def posterior(nbeta=NBETA):
    return slt.localise(loss_fn, CENTER, DATA, nbeta, GAMMA)


def write(folder, entries=HELD_OUT, **others):
    return storage.write_losses(folder, KEY, SAMPLER, posterior(), DATA, entries, **(SETTINGS | others))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write(tmp_path_factory.mktemp("whole") / "run")


def test_what_is_written_is_what_a_chain_in_pieces_sees(written):
    pieces, state = [], None
    for number, draws in enumerate((8, 8, 6)):
        trace = slt.sample(
            jax.random.fold_in(KEY, number),
            SAMPLER,
            posterior(),
            DATA,
            draws=draws,
            chains=3,
            burnin=0 if number else 7,
            thin=2,
            batch_size=10,
            observe=lambda w: loss_fn(w, HELD_OUT) - loss_fn(CENTER, HELD_OUT),
            start=state,
        )
        state = trace.state
        pieces.append(trace)
    expected = np.concatenate([piece.observables for piece in pieces], axis=1)
    assert written.losses.shape == (3, 22, 12)
    np.testing.assert_allclose(written.losses[:], expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(written.excess, np.concatenate([p.excess for p in pieces], axis=1), rtol=1e-4, atol=1e-7)
    assert (np.asarray(written.losses[:, 8]) != np.asarray(written.losses[:, 0])).all(), "a segment is no repetition"


def test_covariances_are_read_piece_by_piece(written, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_CHUNK_BYTES", 4 * 3 * 8 * 5)
    narrow = write(tmp_path / "narrow")
    assert narrow.losses.chunks == (3, 8, 5)
    draws = jnp.asarray(written.losses[:])
    expected = pairs(draws, draws[:, :, jnp.array([7, 2])])
    for stored in (written, narrow):
        assert_same(stored.covariance([7, 2]), expected, rtol=1e-4, atol=1e-9)
    order = np.argsort(-np.asarray(expected.correlation[:, 0]))
    assert order[0] == 7
    assert narrow.top(7, 3).entries.tolist() == order[1:4].tolist()
    assert_same(storage.read_losses(str(tmp_path / "narrow")).covariance([7, 2]), narrow.covariance([7, 2]))


def killed(monkeypatch, at, before):
    """A kill in segment ``at``: before or after its draws were written, and before its state was."""
    if before:
        real, calls = module.sample, []

        def sample(*arguments, **settings):
            calls.append(0)
            if len(calls) == at + 1:
                raise KeyboardInterrupt
            return real(*arguments, **settings)

        monkeypatch.setattr(module, "sample", sample)
        return
    save = module.save_tree

    def cut(path, state, segments):
        if segments == at + 1:
            raise KeyboardInterrupt
        save(path, state, segments=segments)

    monkeypatch.setattr(module, "save_tree", cut)


@pytest.mark.parametrize(("at", "before"), [(0, False), (1, True), (2, False)])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(written, tmp_path, at, before):
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        killed(patch, at, before)
        with pytest.raises(KeyboardInterrupt):
            write(folder)
    with pytest.raises(storage.FolderError, match=rf"holds {8 * at} of 22 draws; call write_losses again"):
        storage.read_losses(folder)
    # a draw that was written and not counted is written again
    spoiled = zarr.open_array(folder / module.LOSSES, mode="r+")
    spoiled[:, 8 * at :] = 7.0
    again = write(folder)
    np.testing.assert_array_equal(again.losses[:], written.losses[:])
    np.testing.assert_array_equal(again.excess, written.excess)


def test_a_finished_run_is_not_sampled_again(written, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    write(folder)
    monkeypatch.setattr(module, "sample", None)
    np.testing.assert_array_equal(write(folder).losses[:], written.losses[:])


def test_tokens_and_states_of_half_precision(tmp_path):
    center = jnp.asarray(CENTER, jnp.bfloat16)
    tokens = tuple(leaf.reshape(3, 4, *leaf.shape[1:]) for leaf in HELD_OUT)
    rough = slt.localise(loss_fn, center, DATA, NBETA, GAMMA)
    settings = dict(draws=4, chains=2, segment=2)

    def go(folder):
        return storage.write_losses(folder, KEY, slt.samplers.sgld(1e-4), rough, DATA, (loss_fn, tokens), **settings)

    with pytest.MonkeyPatch.context() as patch:
        killed(patch, 1, True)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "cut")
    whole, cut = go(tmp_path / "whole"), go(tmp_path / "cut")
    assert whole.shape == (3, 4)
    np.testing.assert_array_equal(whole.losses[:], cut.losses[:])
    assert np.isfinite(whole.losses[:]).all()


def test_a_folder_of_another_run_is_refused(written, tmp_path):
    folder = tmp_path / "run"
    write(folder)
    with pytest.raises(storage.FolderError, match=r"belongs to another run \(draws is 22 there, 30 here\)"):
        write(folder, draws=30)
    with pytest.raises(storage.FolderError, match=r"belongs to another run \(content is"):
        storage.write_losses(folder, KEY, SAMPLER, posterior(90.0), DATA, HELD_OUT, **SETTINGS)
    with pytest.raises(storage.FolderError, match=r"belongs to another run \(content is"):
        storage.write_losses(folder, KEY, slt.samplers.sgld(0.02), posterior(), DATA, HELD_OUT, **SETTINGS)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(storage.FolderError, match="is not empty and holds no run"):
        write(tmp_path / "other")
    with pytest.raises(storage.FolderError, match=r"holds no run\.json"):
        storage.read_losses(tmp_path / "other")


def test_bad_input_is_named(written, tmp_path):
    with pytest.raises(ValueError, match=r"entries: got a mean loss of shape \(\)"):
        write(tmp_path / "x", entries=(lambda w, b: loss_fn(w, b).mean(), HELD_OUT))
    with pytest.raises(ValueError, match=r"draws: got 0; it must be at least 1"):
        write(tmp_path / "x", draws=0)
    with pytest.raises(ValueError, match=r"columns: got \[12\]; pass a list of whole numbers between 0 and 11"):
        written.covariance([12])
    with pytest.raises(ValueError, match=r"k: got 12 with 11 other entries"):
        written.top(0, 12)
    assert not (tmp_path / "x").exists()
