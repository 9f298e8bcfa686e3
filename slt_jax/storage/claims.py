"""An output folder in use: one process writes to it, and a full disk is told as what it is."""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from slt_jax.storage.folder import CELLS, FolderError, claim, make_writable
from slt_jax.storage.locks import HeldError, held

#: What the lock of a folder is called.
LOCK = ".lock"
#: What a disk answers that takes no more, and how that is told.
_FULL = {
    errno.ENOSPC: "no space is left on",
    errno.EDQUOT: "your quota is used up on",
    errno.EFBIG: "a file would be larger than this process may write (ulimit -f) on",
}
#: What libraries say that do not hand on the number.
_FULL_TEXT = {os.strerror(number): number for number in _FULL}
#: Names under which files and stores are written before they are renamed.
_SCRATCH = re.compile(r"\.[0-9a-f]{32}\.(zarr|old|json|html|dot|npz)")


@contextmanager
def claimed(folder: Path, identity: dict[str, Any]) -> Iterator[None]:
    """Hold an output folder while a study is written to it: ``claim``, and nobody else may.

    What an earlier process was killed in the middle of writing is removed.

    Args:
      folder: Made where it does not exist.
      identity: As for ``claim``.

    Raises:
      FolderError: as ``claim``; another process writes to the folder; the disk is full.
    """
    make_writable(folder)
    with told_when_full(folder), ExitStack() as stack:
        try:
            stack.enter_context(held(folder / LOCK))
        except HeldError as error:
            raise FolderError(
                f"--out: {folder} is being written to by {error.holder}; wait for its end, or choose another folder."
            ) from error
        claim(folder, identity)
        _remove_scratch(folder)
        yield


def at_checkpoint(out: Path, step: int, waiting: Callable[[str], None]) -> AbstractContextManager[None]:
    """Hold one checkpoint while its readings are taken, so that no two processes take the same.

    A worker goes on for a while after the scan that it worked for was killed: whoever comes next waits for it, and
    finds its readings.

    Args:
      out: The study's folder.
      step: Of the checkpoint.
      waiting: As for ``held``.
    """
    (out / CELLS).mkdir(exist_ok=True)
    return held(out / CELLS / f".{step}.lock", waiting)


@contextmanager
def told_when_full(folder: Path) -> Iterator[None]:
    """Tell in one sentence that the disk is full, whichever library found out.

    Raises:
      FolderError: naming the file system, what is kept and what to do.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        number = _full(error)
        if number is None:
            raise
        place = folder.resolve()
        while not place.is_mount() and place != place.parent:
            place = place.parent
        # what is free now, with all that was half written removed, would mislead
        size = shutil.disk_usage(place).total / 2**20
        raise FolderError(
            f"--out: {_FULL[number]} {place} ({size:.1f} MiB in all), where {folder} lies; what is finished is kept: "
            "make room there, and the same command goes on from it."
        ) from error


def _full(error: BaseException | None) -> int | None:
    """In which way a disk was full, if that is what went wrong."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error.errno
        for text, number in _FULL_TEXT.items():
            if text in str(error):
                return number
        error = error.__cause__
    return None


def _remove_scratch(folder: Path) -> None:
    for entry in folder.iterdir():
        if _SCRATCH.fullmatch(entry.name):
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
