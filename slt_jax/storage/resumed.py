"""Long chains in a folder: killed at any moment they go on, to what one run would have drawn, bit for bit."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import ticking
from slt_jax.posterior import LocalPosterior
from slt_jax.samplers import Sampler
from slt_jax.sampling import Trace, check_schedule, sample
from slt_jax.spectroscopy import fingerprint
from slt_jax.storage.folder import FolderError
from slt_jax.storage.states import alike, claim_run, content_of, load_number, load_tree, save_tree
from slt_jax.types import Key, PyTree

STATE = "state.npz"
#: Segments of a run where nothing was said.
_SEGMENTS = 20


def resumable_sample(
    folder: Path | str,
    key: Key,
    sampler: Sampler,
    posterior: LocalPosterior,
    data: PyTree,
    *,
    draws: int,
    chains: int = 4,
    burnin: int = 0,
    thin: int = 1,
    batch_size: int | None = None,
    observe: Callable[[PyTree], PyTree] | None = None,
    start: PyTree | None = None,
    side_by_side: int | None = None,
    segment: int | None = None,
    tick: bool = False,
) -> Trace:
    """``sample``, in segments, each of which is on disk when the next begins.

    Started again with the same arguments it goes on after the last whole segment, and returns what one call of
    ``sample`` with the same key returns, to the last bit. The memory of the state is used again by the next segment.

    Args:
      folder: Made where it does not exist; belongs to this run alone. It holds the draws, and one state of the sampler.
      key, sampler, posterior, data, draws, chains, burnin, thin, batch_size, observe, start, side_by_side, tick: As for
        ``sample``.
      segment: Draws of a segment, those of the burn-in included; default a twentieth of all.

    Returns:
      The trace, its draws read back from the folder.

    Raises:
      ValueError: as ``sample``.
      FolderError: the folder holds another run (what differs is named), something else, or files that are cut short.

    Not to be believed where the machine, its devices or the version of XLA change between two segments: the numbers are
    as right then, and not the same bits.

    >>> import tempfile, jax, jax.numpy as jnp
    >>> import slt_jax as slt
    >>> posterior = slt.localise(lambda w, x: 0.5 * (x @ w) ** 2, jnp.zeros(2), jnp.eye(2), nbeta=10.0, gamma=1.0)
    >>> given = jax.random.key(0), slt.samplers.sgld(0.05), posterior, jnp.eye(2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     trace = resumable_sample(Path(folder) / "run", *given, draws=50, segment=20)
    >>> bool((trace.excess == slt.sample(*given, draws=50).excess).all())
    True
    """
    folder = Path(folder)
    check_schedule(draws=draws, chains=chains, burnin=burnin, thin=thin)
    burnin_windows = -(-burnin // thin)
    windows = burnin_windows + draws
    segment = -(-windows // _SEGMENTS) if segment is None else segment
    check_schedule(draws=segment, chains=chains, burnin=0, thin=thin)
    settings: dict[str, Any] = dict(
        chains=chains, thin=thin, batch_size=batch_size, observe=observe, side_by_side=side_by_side
    )
    go = partial(sample, key, sampler, posterior, data, **settings)
    like = jax.eval_shape(partial(go, draws=1, start=start))
    sizes = dict(draws=draws, chains=chains, burnin=burnin, thin=thin, batch_size=batch_size, segment=segment)
    content = content_of(key, sampler, posterior, data, start)
    if observe is not None:
        content = fingerprint.of_text(content, fingerprint.of_function(observe, posterior.center))
    claim_run(folder, {**sizes, "content": content})
    done = load_number(folder / STATE, "windows")
    state = start if done == 0 else load_tree(folder / STATE, like.state)
    if done and not alike(state, like.state):
        raise FolderError(f"{folder / STATE} holds another sampler's state; remove the folder to begin again.")
    while done < windows:
        size = min(segment, windows - done)
        with ticking.part(done * thin, size * thin, windows * thin):
            # what the caller gave is his, and stays
            trace = go(draws=size, start=state, begin=done * thin, donate=done > 0, tick=tick)
            recorded = jax.tree.map(np.asarray, trace._replace(state=()))
        first = max(burnin_windows - done, 0)
        if first < size:
            save_tree(_piece(folder, done), jax.tree.map(lambda leaf, first=first: leaf[:, first:], recorded))
        done, state = done + size, trace.state
        save_tree(folder / STATE, state, windows=done)
    begun = range(0, windows, segment)
    pieces = [
        load_tree(_piece(folder, at), like._replace(state=()))
        for at in begun
        if min(at + segment, windows) > burnin_windows
    ]
    joined = jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate(leaves, axis=1)), *pieces)
    return joined._replace(state=jax.tree.map(jnp.asarray, state))


def _piece(folder: Path, done: int) -> Path:
    return folder / f"draws-{done:012d}.npz"
