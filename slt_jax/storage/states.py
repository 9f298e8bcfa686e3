"""Long runs on disk: whose a folder is, and where the chains stopped. Arrays only; every file appears whole or not."""

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax.posterior import LocalPosterior
from slt_jax.samplers import Sampler
from slt_jax.spectroscopy import fingerprint
from slt_jax.storage.folder import UNREADABLE, FolderError
from slt_jax.types import Key, PyTree

RUN = "run.json"


def save_tree(path: Path, tree: PyTree, **numbers: int) -> None:
    """Write the leaves of a tree, and whole numbers by name, beside the place and then in one move: all or nothing.

    A leaf is kept as bytes: half precision has no name in this format.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    forms = np.array([" ".join([leaf.dtype.name, *map(str, leaf.shape)]) for leaf in leaves], dtype=np.str_)
    stored: dict[str, Any] = {f"number_{name}": np.int64(value) for name, value in numbers.items()}
    stored |= {f"leaf{number}": np.frombuffer(leaf.tobytes(), np.uint8) for number, leaf in enumerate(leaves)}
    scratch = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.npz")
    try:
        np.savez(scratch, forms=forms, **stored)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def load_tree(path: Path, like: PyTree) -> PyTree:
    """The tree that ``save_tree`` wrote, as arrays of the host in the structure of another.

    Raises:
      FolderError: the file is cut short, or holds another tree.
    """
    expected, structure = jax.tree.flatten(like)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            forms = [str(form).split() for form in stored["forms"]]
            leaves = [
                np.frombuffer(stored[f"leaf{number}"].tobytes(), jnp.dtype(name)).reshape([int(size) for size in shape])
                for number, (name, *shape) in enumerate(forms)
            ]
    except UNREADABLE as error:
        raise FolderError(f"{path} cannot be read ({error}); remove the folder to begin again.") from error
    if len(leaves) != len(expected):
        raise FolderError(f"{path} holds {len(leaves)} arrays, not {len(expected)}: it is of another run.")
    return jax.tree.unflatten(structure, leaves)


def load_number(path: Path, name: str) -> int:
    """A whole number that was saved with a tree; 0 where there is no file.

    Raises:
      FolderError: the file is cut short, or has no such number.
    """
    if not path.exists():
        return 0
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return int(stored[f"number_{name}"])
    except UNREADABLE as error:
        raise FolderError(f"{path} cannot be read ({error}); remove the folder to begin again.") from error


def alike(found: PyTree, like: PyTree) -> bool:
    """Whether every leaf has the shape and the precision of another tree's.

    >>> alike(np.zeros(3, np.float32), jax.ShapeDtypeStruct((3,), jnp.float32)), alike(np.zeros(3), np.zeros(4))
    (True, False)
    """
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(like), strict=True)
    return all(one.shape == other.shape and one.dtype == other.dtype for one, other in pairs)


def claim_run(folder: Path, run: dict[str, Any], fill: Callable[[Path], None] | None = None) -> None:
    """Make the folder this run's own, or check that it is already.

    Args:
      folder: Made where it does not exist, in one move, with all that ``fill(folder)`` puts there.
      run: What makes two runs the same: plain values.
      fill: Makes the stores that the run writes into.

    Raises:
      FolderError: it holds another run (what differs is named), or something else.
    """
    known = read_run(folder)
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
    try:
        scratch.mkdir()
        if fill is not None:
            fill(scratch)
        (scratch / RUN).write_text(json.dumps(run, indent=2) + "\n")
        if folder.exists():
            folder.rmdir()
        os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_run(folder: Path) -> dict[str, Any] | None:
    """What makes the run of a folder what it is, or ``None`` where there is none."""
    try:
        return json.loads((folder / RUN).read_text())
    except FileNotFoundError:
        return None


def content_of(key: Key, sampler: Sampler, posterior: LocalPosterior, data: PyTree, start: PyTree | None) -> str:
    """A digest of everything that chains depend on beside whole numbers, the code of this package included."""
    restriction = posterior.restriction
    return fingerprint.of_text(
        fingerprint.of_package(),
        np.asarray(jax.random.key_data(key)).tolist(),
        *_functions(sampler.step),
        fingerprint.of_tree((sampler, posterior._replace(loss_fn=Partial(alike)), data, start)),
        fingerprint.of_function(lambda center: restriction.lift(center, restriction.origin(center)), posterior.center),
        fingerprint.of_loss(posterior.loss_fn, posterior.center, data),
    )


def _functions(step: Partial) -> list[str]:
    """Names of a function and of those that were chosen for it, such as its noise."""
    chosen = [value for value in (*step.args, *step.keywords.values()) if isinstance(value, Partial)]
    return [step.func.__qualname__, *(name for value in chosen for name in _functions(value))]
