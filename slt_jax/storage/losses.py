"""Losses of very many entries along chains, written to disk piece by piece, and covariances read back the same way."""

import json
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import zarr
from jax.tree_util import Partial

from slt_jax import loss
from slt_jax.posterior import LocalPosterior
from slt_jax.response import Neighbours, Pairs, pairs
from slt_jax.response.observables import losses_at, placed
from slt_jax.samplers import Sampler
from slt_jax.sampling import check_schedule, sample
from slt_jax.spectroscopy import fingerprint
from slt_jax.storage.datasets import ZARR_FORMAT
from slt_jax.storage.folder import FolderError
from slt_jax.types import Key, PyTree

LOSSES, EXCESS, STATE, RUN = "losses.zarr", "excess.zarr", "state.npz", "run.json"
#: What one piece of the chains may take in memory, and what a chunk on disk does about.
_SEGMENT_BYTES, _CHUNK_BYTES = 2**28, 2**22


class StoredLosses(NamedTuple):
    """Losses along chains on disk: nothing is in memory until it is asked for, and then piece by piece.

    Attributes:
      losses: Less those at the centre, nats, a Zarr array of shape ``(chain, draw, entry)``.
      excess: ``L - L*`` on the batch of the step, nats, shape ``(chain, draw)``.
      shape: Of the entries, ``(n,)`` or ``(n, T)``: they are counted along the rows.
    """

    losses: zarr.Array
    excess: np.ndarray
    shape: tuple[int, ...]

    def covariance(self, columns: Sequence[int]) -> Pairs:
        """``Cov(ℓ_i, ℓ_q)`` of every entry with the chosen ones, nats², each leaf of shape ``(entry, column)``.

        Args:
          columns: Entries, each below ``n`` or, of tokens, below ``n · T``.

        Raises:
          ValueError: an index is out of range.
        """
        count = self.losses.shape[2]
        chosen = np.asarray(columns)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or not ((chosen >= 0) & (chosen < count)).all():
            raise ValueError(f"columns: got {columns!r}; pass a list of whole numbers between 0 and {count - 1}.")
        right = jnp.stack([jnp.asarray(self.losses[:, :, int(column)]) for column in chosen], axis=-1)
        width = self.losses.chunks[2]
        found = []
        for start in range(0, count, width):
            left = np.asarray(self.losses[:, :, start : start + width])
            # one program for all pieces: the last is filled up
            filled = np.pad(left, ((0, 0), (0, 0), (0, width - left.shape[2])))
            piece = pairs(jnp.asarray(filled), right)
            found.append(jax.tree.map(lambda leaf, keep=left.shape[2]: np.asarray(leaf)[:keep], piece))
        return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves)), *found)

    def top(self, column: int, k: int = 10) -> Neighbours:
        """The ``k`` entries of largest correlation with one of them, itself left out.

        Raises:
          ValueError: there are not so many others, or the column is out of range.
        """
        most = self.losses.shape[2] - 1
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= most:
            raise ValueError(f"k: got {k!r} with {most} other entries; pass an integer between 1 and {most}.")
        found = jax.tree.map(lambda leaf: leaf[:, 0], self.covariance([column]))
        entries = jax.lax.top_k(found.correlation.at[column].set(-jnp.inf), k)[1]
        return Neighbours(entries, jax.tree.map(lambda leaf: leaf[entries], found))


def write_losses(
    folder: Path | str,
    key: Key,
    sampler: Sampler,
    posterior: LocalPosterior,
    data: PyTree,
    entries: Any = None,
    *,
    draws: int,
    chains: int = 4,
    burnin: int = 0,
    thin: int = 1,
    batch_size: int | None = None,
    start: PyTree | None = None,
    segment: int | None = None,
) -> StoredLosses:
    """``sample``, with the loss of every entry at every draw written to disk, in memory that no number of draws fills.

    The chains run in segments; each writes its part of the store and then, in one move, the state from which the next
    goes on. A run that was killed and is started again with the same arguments goes on from there, and what it leaves
    is what it would have left, to the last bit. States are kept as arrays, and nothing is unpickled.

    Args:
      folder: Made where it does not exist; belongs to this run alone.
      key: A typed key. Segment ``s`` has ``jax.random.fold_in(key, s)``.
      sampler, posterior, data: As for ``sample``.
      entries: Examples whose losses are written, or a pair ``(loss_fn, examples)``; default ``data``.
      draws, chains, burnin, thin, batch_size, start: As for ``sample``.
      segment: Draws of a segment; default so many that their losses take a quarter of a gigabyte at most.

    Returns:
      The losses, on disk.

    Raises:
      ValueError: as ``sample``; the loss is a mean, which has no entries.
      FolderError: the folder holds another run (what differs is named), or something else.

    Not to be believed where the chains are not sound: ``slt_jax.influence`` of a part of the entries tells.

    >>> import tempfile, jax, jax.numpy as jnp
    >>> import slt_jax as slt
    >>> data = jnp.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> posterior = slt.localise(lambda w, x: 0.5 * (x @ w) ** 2, jnp.zeros(2), data, nbeta=10.0, gamma=1.0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = write_losses(
    ...         Path(folder) / "run", jax.random.key(0), slt.samplers.underdamped(0.2), posterior, data,
    ...         draws=200, thin=4, segment=64,
    ...     )
    ...     found.losses.shape, int(found.top(0, 1).entries[0])
    ((4, 200, 4), 1)
    """
    folder = Path(folder)
    check_schedule(draws=draws, chains=chains, burnin=burnin, thin=thin)
    function, examples = entries if isinstance(entries, tuple) and entries and callable(entries[0]) else (None, entries)
    function = posterior.loss_fn if function is None else Partial(function)
    examples = data if examples is None else examples
    shape = loss.check(function, posterior.center, examples)
    if shape == ():
        raise ValueError("entries: got a mean loss of shape (); return one loss per example, shape (n,) or (n, T).")
    count = int(np.prod(shape))
    if segment is None:
        segment = min(draws, max(1, _SEGMENT_BYTES // (4 * chains * count)))
    check_schedule(draws=segment, chains=chains, burnin=0, thin=thin)
    sizes = dict(draws=draws, chains=chains, burnin=burnin, thin=thin, batch_size=batch_size, segment=segment)
    content = _content(key, sampler, posterior, data, function, examples, start)
    run = {**sizes, "shape": list(shape), "content": content}
    _claim(folder, run, count)
    looked = placed(function, examples, posterior.center, chains)
    losses, excess = (zarr.open_array(folder / name, mode="r+") for name in (LOSSES, EXCESS))
    done, state = _saved(folder, sampler, posterior, data, chains)
    state = start if done == 0 else state
    for number in range(done, -(-draws // segment)):
        first, last = number * segment, min((number + 1) * segment, draws)
        trace = sample(
            jax.random.fold_in(key, number),
            sampler,
            posterior,
            data,
            draws=last - first,
            chains=chains,
            burnin=burnin if number == 0 else 0,
            thin=thin,
            batch_size=batch_size,
            observe=Partial(_look, looked),
            start=state,
        )
        losses[:, first:last] = np.asarray(trace.observables)
        excess[:, first:last] = np.asarray(trace.excess)
        state = trace.state
        _save(folder, number + 1, state)
    return read_losses(folder)


def read_losses(folder: Path | str) -> StoredLosses:
    """Losses that ``write_losses`` wrote, of a run that came to its end.

    Raises:
      FolderError: there are none, or the run was cut short.
    """
    folder = Path(folder)
    run = _read(folder)
    if run is None:
        raise FolderError(f"{folder} holds no {RUN}; pass the folder that write_losses wrote.")
    done = _segments(folder)
    if done * run["segment"] < run["draws"]:
        raise FolderError(
            f"{folder} holds {done * run['segment']} of {run['draws']} draws; call write_losses again to go on."
        )
    excess = np.asarray(zarr.open_array(folder / EXCESS, mode="r")[:])
    return StoredLosses(zarr.open_array(folder / LOSSES, mode="r"), excess, tuple(run["shape"]))


def _content(
    key: Key,
    sampler: Sampler,
    posterior: LocalPosterior,
    data: PyTree,
    function: Partial,
    examples: PyTree,
    start: PyTree | None,
) -> str:
    """A digest of everything that the losses depend on beside whole numbers, the code of this package included."""
    restriction = posterior.restriction
    return fingerprint.of_text(
        fingerprint.of_package(),
        np.asarray(jax.random.key_data(key)).tolist(),
        sampler.step.func.__qualname__,
        fingerprint.of_tree((sampler, posterior._replace(loss_fn=Partial(_look)), data, examples, start)),
        fingerprint.of_function(lambda center: restriction.lift(center, restriction.origin(center)), posterior.center),
        fingerprint.of_loss(posterior.loss_fn, posterior.center, data),
        fingerprint.of_loss(function, posterior.center, examples),
    )


def _look(looked: Any, params: PyTree) -> jax.Array:
    return losses_at(looked, params).reshape(-1)


def _claim(folder: Path, run: dict[str, Any], count: int) -> None:
    """Make the folder this run's own, with empty stores, or check that it is already."""
    known = _read(folder)
    if known is not None:
        for name in run:
            if known.get(name) != run[name]:
                raise FolderError(
                    f"folder: {folder} belongs to another run ({name} is {known.get(name)!r} there, {run[name]!r} "
                    "here); choose another folder, or remove it."
                )
        return
    if folder.exists() and any(folder.iterdir()):
        raise FolderError(f"folder: {folder} is not empty and holds no run; choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.with_name(f".{uuid.uuid4().hex}")
    rows, draws, segment = run["chains"], run["draws"], run["segment"]
    width = min(count, max(1, _CHUNK_BYTES // (4 * rows * segment)))
    settings: dict[str, Any] = dict(dtype="float32", fill_value=float("nan"), zarr_format=ZARR_FORMAT)
    try:
        scratch.mkdir()
        zarr.create_array(scratch / LOSSES, shape=(rows, draws, count), chunks=(rows, segment, width), **settings)
        zarr.create_array(scratch / EXCESS, shape=(rows, draws), chunks=(rows, segment), **settings)
        (scratch / RUN).write_text(json.dumps(run, indent=2) + "\n")
        if folder.exists():
            folder.rmdir()
        os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / RUN).read_text())
    except FileNotFoundError:
        return None


def _save(folder: Path, segments: int, state: PyTree) -> None:
    """How many segments are done, and where the next begins: both or neither."""
    # bytes: half precision has no name in this format
    leaves = {
        f"leaf{number}": np.frombuffer(np.asarray(leaf).tobytes(), np.uint8)
        for number, leaf in enumerate(jax.tree.leaves(state))
    }
    scratch = folder / f".{uuid.uuid4().hex}.npz"
    try:
        np.savez(scratch, segments=np.int64(segments), **leaves)  # type: ignore[arg-type]
        os.replace(scratch, folder / STATE)
    finally:
        scratch.unlink(missing_ok=True)


def _segments(folder: Path) -> int:
    if not (folder / STATE).exists():
        return 0
    with np.load(folder / STATE, allow_pickle=False) as stored:
        return int(stored["segments"])


def _saved(
    folder: Path, sampler: Sampler, posterior: LocalPosterior, data: PyTree, chains: int
) -> tuple[int, PyTree | None]:
    done = _segments(folder)
    if not done:
        return 0, None
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), chains))
    like = jax.eval_shape(jax.vmap(lambda key: sampler.init(key, posterior, data)), keys)
    leaves, structure = jax.tree.flatten(like)
    with np.load(folder / STATE, allow_pickle=False) as stored:
        values = [
            jnp.asarray(np.frombuffer(stored[f"leaf{number}"].tobytes(), leaf.dtype).reshape(leaf.shape))
            for number, leaf in enumerate(leaves)
        ]
    return done, jax.tree.unflatten(structure, values)
