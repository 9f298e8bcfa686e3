"""Names of pretrained models: ``hf:FOLDER@step0,step1000`` on disk, ``hf:OWNER/NAME@step0`` on the Hugging Face Hub."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from slt_jax.models.neox import NeoX
from slt_jax.spectroscopy.scan import Checkpoint, CheckpointError
from slt_jax.storage.checkpoints import step_of
from slt_jax.storage.pretrained import CONFIG, INDEX, TOKENIZER, WEIGHTS, check_readable, read_network, read_params
from slt_jax.types import PyTree

#: How a reference begins.
PREFIX = "hf:"
#: The revision of a repository where none is named.
_DEFAULT = "main"
_REPOSITORY = re.compile(r"[\w.\-]+/[\w.\-]+|[\w\-]+")
#: Files that say what a model is, and those that hold it.
_DESCRIPTION = (CONFIG, TOKENIZER)
_WEIGHTS = (WEIGHTS, INDEX, "model-*.safetensors")


class Reference(NamedTuple):
    """A model in several states of its training.

    Attributes:
      place: A folder, or ``OWNER/NAME`` on the Hub.
      revisions: Of the Hub, or folders below ``place``; ``()`` for the folder itself.
      local: Whether it is a folder.
    """

    place: str
    revisions: tuple[str, ...]
    local: bool

    @property
    def name(self) -> str:
        """As it was written, folders in full."""
        place = str(Path(self.place).resolve()) if self.local else self.place
        return f"{PREFIX}{place}" + (f"@{','.join(self.revisions)}" if self.revisions else "")


class Pretrained(NamedTuple):
    """A model at several steps of its training.

    Attributes:
      network: The architecture, which is the same at each of them.
      checkpoints: Its parameters by step, each fetched and read when its turn comes.
      folder: With the description of the first, and its tokenizer where there is one.
      name: Of the reference.
    """

    network: NeoX
    checkpoints: list[Checkpoint]
    folder: Path
    name: str


def pretrained(text: str) -> Pretrained:
    """The model that a reference names, with nothing of its weights fetched or read yet.

    A revision whose name ends with a number, as ``step1000``, is a checkpoint of that step; any other follows the one
    before it by one, the first is 0.

    Args:
      text: ``hf:FOLDER``, one model; ``hf:FOLDER@step0,step1000``, folders of these names inside; or
        ``hf:OWNER/NAME@step0,step1000``, revisions on the Hub, which are fetched through its own cache.

    Raises:
      ValueError: there is no such folder, repository or revision; it is no GPT-NeoX model; the architecture is not the
        same throughout; two revisions are of one step; a folder holds no safetensors; a library is missing that is
        needed.

    >>> pretrained("hf:./nowhere")
    Traceback (most recent call last):
        ...
    ValueError: ./nowhere: no such folder; pass one with config.json and model.safetensors, or OWNER/NAME on the Hub.
    """
    reference = parse_reference(text)
    steps = steps_of(reference.revisions)
    folders = [_fetched(reference, revision, _DESCRIPTION) for revision in reference.revisions or ("",)]
    network = read_network(folders[0])
    for folder, revision in zip(folders[1:], reference.revisions[1:], strict=True):
        if read_network(folder) != network:
            raise ValueError(
                f"{reference.place}: {revision} is of another architecture than {reference.revisions[0]}; measure "
                "them one by one."
            )
    for folder in folders:
        check_readable(folder if reference.local else None)
    checkpoints = [
        _checkpoint(reference, revision, step, network)
        for step, revision in zip(steps, reference.revisions or ("",), strict=True)
    ]
    return Pretrained(network, sorted(checkpoints, key=lambda point: point.step), folders[0], reference.name)


def parse_reference(text: str) -> Reference:
    """A reference from its text; what stands on disk is a folder, all else a repository.

    Raises:
      ValueError: it has no place, an empty or repeated revision, or looks like a folder that is not there.

    >>> parse_reference("hf:EleutherAI/pythia-14m@step0,step1000")
    Reference(place='EleutherAI/pythia-14m', revisions=('step0', 'step1000'), local=False)
    """
    written = text.removeprefix(PREFIX)
    place, mark, named = written.rpartition("@")
    if not mark or Path(written).expanduser().is_dir():
        place, mark, named = written, "", ""
    revisions = tuple(name.strip() for name in named.split(",")) if mark else ()
    if not place or "" in revisions:
        raise ValueError(
            f"CHECKPOINTS: got {text!r}; write hf:FOLDER, hf:FOLDER@step0,step1000 or hf:OWNER/NAME@step0."
        )
    if len(set(revisions)) < len(revisions):
        raise ValueError(f"CHECKPOINTS: got {text!r}, which names a revision twice; name each once.")
    folder = Path(place).expanduser()
    if folder.exists():
        return Reference(str(folder), revisions, True)
    if place.startswith((".", "~", os.sep)) or not _REPOSITORY.fullmatch(place):
        raise ValueError(f"{place}: no such folder; pass one with {CONFIG} and {WEIGHTS}, or OWNER/NAME on the Hub.")
    return Reference(place, revisions or (_DEFAULT,), False)


def steps_of(revisions: Sequence[str]) -> list[int]:
    """The training step of each revision.

    Raises:
      ValueError: two are of one step.

    >>> steps_of(["step0", "step1000", "main"])
    [0, 1000, 1001]
    """
    steps: list[int] = []
    for revision in revisions or ("",):
        named = step_of(revision)
        step = named if named is not None else steps[-1] + 1 if steps else 0
        if step in steps:
            raise ValueError(f"revisions: {revisions[steps.index(step)]!r} and {revision!r} are both step {step}.")
        steps.append(step)
    return steps


def _checkpoint(reference: Reference, revision: str, step: int, network: NeoX) -> Checkpoint:
    def load() -> PyTree:
        try:
            return read_params(_fetched(reference, revision, (*_DESCRIPTION, *_WEIGHTS)), network)
        except ValueError as error:
            raise CheckpointError(str(error)) from error

    return Checkpoint(step, load)


def _fetched(reference: Reference, revision: str, patterns: Sequence[str]) -> Path:
    """The folder of a revision, with files of these names in it."""
    if reference.local:
        folder = Path(reference.place)
        if revision and folder.is_dir() and not (folder / revision).is_dir():
            there = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
            raise ValueError(f"{folder}: has no folder {revision!r} for this revision; there are {there[:12]}.")
        return folder / revision
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise ValueError(
            f"{reference.place}: no such folder here; to fetch a repository of that name from the Hub, "
            "pip install 'slt_jax[hub]'."
        ) from error
    try:
        return Path(snapshot_download(reference.place, revision=revision, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, EntryNotFoundError, OSError) as error:
        message = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"{reference.place}@{revision}: cannot be fetched from the Hub, and is no folder here "
            f"({type(error).__name__}: {message.partition('. ')[0][:200]})."
        ) from error
