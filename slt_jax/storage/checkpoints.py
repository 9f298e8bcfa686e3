"""Orbax checkpoints on disk: written by the studies, read from any training run. Nothing is ever unpickled."""

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from slt_jax import tree
from slt_jax.spectroscopy.scan import Checkpoint, CheckpointError
from slt_jax.types import PyTree

#: A folder is a checkpoint of the step that its name ends with: ``300``, ``step_300``, ``checkpoint-300``.
_STEP = re.compile(r"^(?:\D*[_\-.])?(\d+)$|^[A-Za-z]+(\d+)$")
_METADATA = "_METADATA"
#: The name of the default item of Orbax's ``CheckpointManager``.
_ITEM = "default"
#: What Orbax calls what it is still writing, and what this module does.
_WRITING, _UNFINISHED = "orbax-checkpoint-tmp", ".part"
#: Names under which training states keep their parameters; beside them may stand moments and averages of equal shape.
_PARAMETERS = ("params", "model")
#: What Orbax and its storage raise for files that are missing, cut short or not what they should be.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)


class OtherTreeError(CheckpointError):
    """A checkpoint that can be read and holds no tree like the parameters: it never will."""


def save_checkpoints(folder: Path, checkpoints: Mapping[int, PyTree]) -> None:
    """Write parameters by step, in the layout of Orbax's ``CheckpointManager``. Steps that are there are kept.

    Each is written under a hidden name and then renamed: whoever looks sees all of it, or none.

    Args:
      folder: Made where it does not exist.
      checkpoints: Parameters by step.
    """
    written: dict[Path, Path] = {}
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            for step, params in checkpoints.items():
                target = folder.resolve() / str(step)
                if not target.exists():
                    written[target] = folder.resolve() / f".{uuid.uuid4().hex}{_UNFINISHED}"
                    checkpointer.save(written[target] / _ITEM, jax.tree.map(np.asarray, params))
            checkpointer.wait_until_finished()
        for target, scratch in written.items():
            os.replace(scratch, target)
    finally:
        for scratch in written.values():
            shutil.rmtree(scratch, ignore_errors=True)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint: whoever looks sees all of it, or none."""
    gone = path.with_name(f".{uuid.uuid4().hex}{_UNFINISHED}")
    os.replace(path, gone)
    shutil.rmtree(gone)


def remove_leftovers(folder: Path) -> None:
    """Remove what ``save_checkpoints`` and ``remove_checkpoint`` leave behind where they are killed."""
    for entry in folder.glob(f".{'[0-9a-f]' * 32}{_UNFINISHED}"):
        shutil.rmtree(entry)


def is_complete(path: Path) -> bool:
    """Whether a checkpoint has all that Orbax writes last, and nothing that it is still writing.

    Orbax gives what it writes a name with ``orbax-checkpoint-tmp`` in it until it is whole. What is copied by other
    means can look complete before it is: whoever follows a copy also waits until it no longer changes (``state_of``).
    """
    try:
        names = [entry.name for entry in path.iterdir()]
        return not any(_WRITING in name for name in [path.name, *names]) and any(True for _ in _items(path))
    except OSError:
        return False  # removed while it was looked at


def state_of(path: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Names, sizes, times and identities of all files of a checkpoint: as long as it is equal nobody wrote to it."""
    found = []
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder, name)
            try:
                status = file.stat()
            except OSError:
                continue  # removed while it was looked at
            found.append((str(file.relative_to(path)), status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(sorted(found))


def list_checkpoints(folder: Path) -> dict[int, Path]:
    """Checkpoint folders by step, in the order of their steps.

    Raises:
      ValueError: the folder does not exist or holds no checkpoint, is one itself, or has two of one step.
    """
    found = find_checkpoints(folder)
    if not found:
        growing = any(_WRITING in entry.name for entry in folder.iterdir())
        remedy = (
            "one is being written: wait for it, or follow the training with --watch"
            if growing
            else "expected folders named by their step, as '300' or 'step_300'; to wait for the first, use --watch"
        )
        raise ValueError(f"checkpoints: {folder} holds no checkpoint; {remedy}.")
    return found


def find_checkpoints(folder: Path) -> dict[int, Path]:
    """As ``list_checkpoints``, of a folder that may have none yet.

    Raises:
      ValueError: the folder does not exist, is a checkpoint itself, or has two of one step.
    """
    if not folder.is_dir():
        raise ValueError(f"checkpoints: {folder} is not a folder; pass the folder that Orbax wrote to.")
    if any((folder / mark).exists() for mark in (_METADATA, "_CHECKPOINT_METADATA")):
        raise ValueError(f"checkpoints: {folder} is itself one checkpoint; pass the folder above it.")
    found: dict[int, Path] = {}
    for entry in sorted(folder.iterdir()):
        step = step_of(entry.name)
        if entry.is_dir() and step is not None:
            if step in found:
                raise ValueError(
                    f"checkpoints: {found[step].name!r} and {entry.name!r} are both step {step}; remove one."
                )
            found[step] = entry
    return dict(sorted(found.items()))


def step_of(name: str) -> int | None:
    """The training step that a name says, or ``None``.

    >>> [step_of(name) for name in ("300", "step_300", "checkpoint-300", "step1000", "main")]
    [300, 300, 300, 1000, None]
    """
    match = None if _WRITING in name else _STEP.match(name)
    return int(match.group(1) or match.group(2)) if match else None


def load_checkpoint(path: Path, template: PyTree) -> PyTree:
    """The parameters in a checkpoint, in the structure of ``template``.

    The leaves are found by their paths: at the top of what was saved, else below a name ``params`` or ``model``, else
    below any other name, so that a whole training state serves.

    Raises:
      CheckpointError: it cannot be read, or holds no tree with the paths and shapes of the template, or several among
        which no name decides.
    """
    complaint = f"checkpoint {path.name}: unreadable or truncated"
    leaves: dict[str, np.ndarray] = {}
    items = []
    try:
        for item in _items(path):
            items.append(item)
            # the default item of a CheckpointManager has no name of its own
            top = "" if item == path or item.name == _ITEM else item.name
            leaves.update({_joined(top, name): leaf for name, leaf in _named_leaves(_restore(item)).items()})
    except _UNREADABLE as error:
        raise CheckpointError(f"{complaint} ({type(error).__name__}: {_first_line(error)}).") from error
    writing = [entry.name for entry in path.iterdir() if _WRITING in entry.name] if path.is_dir() else []
    if writing:
        raise CheckpointError(
            f"checkpoint {path.name}: is still being written ({writing[0]}); measure it later, or follow the training "
            "with slt-jax scan --watch."
        )
    if not items:
        raise CheckpointError(f"{complaint} (no Orbax metadata in {path}).")
    return _matched(path.name, leaves, template)


def checkpoints_in(folder: Path, template: PyTree) -> list[Checkpoint]:
    """All checkpoints of a folder, each loaded when its turn comes.

    Raises:
      ValueError: as ``list_checkpoints``.
    """

    def loader(path: Path) -> Checkpoint:
        return Checkpoint(0, lambda: load_checkpoint(path, template))

    return [loader(path)._replace(step=step) for step, path in list_checkpoints(folder).items()]


def _items(path: Path) -> Iterator[Path]:
    if (path / _METADATA).exists():
        yield path
    yield from (item for item in sorted(path.iterdir()) if item.is_dir() and (item / _METADATA).exists())


def _check_store(item: Path) -> None:
    """Walk the index of a store before Orbax opens its arrays all at once, which it does not survive without noise."""
    json.loads((item / _METADATA).read_text())
    if (item / "manifest.ocdbt").exists():
        store = ts.KvStore.open({"driver": "ocdbt", "base": {"driver": "file", "path": f"{item.resolve()}/"}}).result()
        store.list().result()
    elif (item / "d").is_dir():
        raise FileNotFoundError("manifest.ocdbt is missing")


def _restore(item: Path) -> PyTree:
    _check_store(item)
    # one of several processes reads by itself, and waits for no other
    alone = ocp.options.MultiprocessingOptions(jax.process_index(), {jax.process_index()}, str(jax.process_index()))
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    checkpointer = ocp.Checkpointer(handler, multiprocessing_options=alone)
    metadata = checkpointer.metadata(item.resolve()).item_metadata.tree
    # plain numpy: where the arrays lived when they were saved does not matter here
    arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
    return checkpointer.restore(item.resolve(), args=ocp.args.PyTreeRestore(restore_args=arguments))


def _named_leaves(restored: PyTree) -> dict[str, np.ndarray]:
    # nnx saves the value of a parameter one level below its name
    return {
        tree.path_name(path).removesuffix("/value"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(restored)
    }


def _matched(checkpoint: str, leaves: dict[str, np.ndarray], template: PyTree) -> PyTree:
    """The template filled from named leaves."""
    names = [name.removesuffix("/value") for name in tree.leaf_names(template)]
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(template)]
    places = _places(leaves, names[0])
    mismatch = f"it has no leaf {names[0]!r} (its leaves: {', '.join(list(leaves)[:6])})"
    fitting = []
    for place in places:
        difference = _difference(leaves, place, names, shapes)
        if not difference:
            fitting.append(place)
        mismatch = difference or mismatch
    if not fitting:
        raise OtherTreeError(f"checkpoint {checkpoint}: has another tree than params; {mismatch}.")
    best = [place for place in fitting if _rank(place) == _rank(fitting[0])]
    if len(best) > 1:
        raise CheckpointError(
            f"checkpoint {checkpoint}: holds several trees like params, under {', '.join(map(repr, best))}; "
            "save the parameters under the name 'params'."
        )
    values = [leaves[_joined(best[0], name)] for name in names]
    return jax.tree.unflatten(jax.tree.structure(template), values)


def _places(leaves: dict[str, np.ndarray], first: str) -> list[str]:
    """What may stand above the template's first leaf, the most telling names first."""
    ends = [(name, name[: len(name) - len(first)]) for name in leaves if name.endswith(first)]
    above = [before.removesuffix("/") for _, before in ends if not before or before.endswith("/") or not first]
    return sorted(above, key=lambda place: (_rank(place), place))


def _rank(place: str) -> tuple[int, int]:
    """The top before names that say 'parameters' before all others; there, the least nested first."""
    parts = place.split("/")
    kind = 0 if not place else 1 if parts[-1] in _PARAMETERS else 2 if set(parts) & set(_PARAMETERS) else 3
    return kind, len(parts) if kind < 3 else 0


def _joined(above: str, name: str) -> str:
    return "/".join(part for part in (above, name) if part)


def _difference(leaves: dict[str, np.ndarray], place: str, names: list[str], shapes: list[tuple]) -> str:
    for name, shape in zip(names, shapes, strict=True):
        stored = leaves.get(_joined(place, name))
        if stored is None:
            return f"it has no leaf {name!r}"
        if stored.shape != shape:
            return f"leaf {name!r} has shape {stored.shape}, expected {shape}"
    return ""


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]
