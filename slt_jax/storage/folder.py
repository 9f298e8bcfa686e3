"""The output folder: whose it is, and which readings are finished. Every file appears whole or not at all."""

import json
import os
import uuid
import zipfile
import zlib
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

STUDY_FILE, CELLS = "study.json", "cells"
#: What numpy and zipfile raise for files that are missing, cut short or not what they should be.
UNREADABLE = (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class FolderError(ValueError):
    """An output folder that cannot be used: it belongs to another study, or cannot be written to."""


class FinishedReadings(MutableMapping[str, dict[str, np.ndarray]]):
    """Readings on disk by fingerprint: a mapping, so that ``scan`` does not know about files.

    One ``.npz`` a reading, written beside its place and then renamed: a process killed at any moment leaves whole
    readings only. A file that cannot be read counts as absent and is computed again.
    """

    def __init__(self, folder: Path) -> None:
        self._cells = folder / CELLS
        self._cells.mkdir(parents=True, exist_ok=True)

    def __getitem__(self, fingerprint: str) -> dict[str, np.ndarray]:
        try:
            with self._path(fingerprint).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except UNREADABLE as error:
            raise KeyError(fingerprint) from error

    def __setitem__(self, fingerprint: str, reading: dict[str, np.ndarray]) -> None:
        target = self._path(fingerprint)
        scratch = target.with_name(f".{target.stem}.{uuid.uuid4().hex}.npz")
        try:
            np.savez(scratch, **reading)  # type: ignore[arg-type]
            os.replace(scratch, target)
        finally:
            scratch.unlink(missing_ok=True)

    def __delitem__(self, fingerprint: str) -> None:
        self._path(fingerprint).unlink()

    def __contains__(self, fingerprint: object) -> bool:
        # by reading it: a file cut short is as good as none
        return isinstance(fingerprint, str) and self.get(fingerprint) is not None

    def __iter__(self) -> Iterator[str]:
        return (path.stem for path in self._cells.glob("[0-9a-f]*.npz"))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _path(self, fingerprint: str) -> Path:
        return self._cells / f"{fingerprint[:32]}.npz"


def claim(folder: Path, identity: dict[str, Any]) -> None:
    """Make the folder this study's own, or check that it is already.

    Args:
      folder: Made where it does not exist.
      identity: What makes two runs the same study: plain values.

    Raises:
      FolderError: it cannot be made or written to, or holds another study (the first difference is named).
    """
    make_writable(folder)
    study = folder / STUDY_FILE
    if not study.exists():
        if any(entry for entry in folder.iterdir() if not entry.name.startswith(".")):
            raise FolderError(f"--out: {folder} is not empty and holds no study; choose another folder.")
        write_study(folder, {"identity": identity})
        return
    found = read_study(folder).get("identity", {})
    for name in sorted({*found, *identity}):
        if found.get(name) != json.loads(json.dumps(identity.get(name))):
            raise FolderError(
                f"--out: {folder} belongs to another study ({name} is {found.get(name)!r} there, "
                f"{identity.get(name)!r} here); choose another folder, or remove it."
            )


def make_writable(folder: Path) -> None:
    """Make a folder, or check that it can be written to.

    Raises:
      FolderError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise FolderError(f"--out: cannot write to {folder} ({error.strerror}); choose another folder.") from error


def write_study(folder: Path, study: dict[str, Any]) -> None:
    """Write ``study.json`` whole."""
    scratch = folder / f".{uuid.uuid4().hex}.json"
    try:
        scratch.write_text(json.dumps(study, indent=2, sort_keys=True) + "\n")
        os.replace(scratch, folder / STUDY_FILE)
    finally:
        scratch.unlink(missing_ok=True)


def read_study(folder: Path) -> dict[str, Any]:
    """What ``study.json`` says.

    Raises:
      FolderError: there is none, or it is not JSON.
    """
    path = folder / STUDY_FILE
    try:
        study = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise FolderError(f"{folder} holds no {STUDY_FILE}; pass the folder that a demo or a scan wrote.") from error
    except json.JSONDecodeError as error:
        raise FolderError(
            f"{path} is not valid JSON ({error.msg}, line {error.lineno}); restore or remove it."
        ) from error
    if not isinstance(study, dict):
        raise FolderError(f"{path} holds a {type(study).__name__}, not what a study writes; restore or remove it.")
    return study
