"""Readings that are being taken: where their chains are, on disk, so that hours are not lost with a process."""

import time
import warnings
from pathlib import Path

from slt_jax.estimators.running import Run, RunKeeper
from slt_jax.storage.folder import FolderError
from slt_jax.storage.states import alike, load_tree, save_tree

RUNNING = "running"
#: Seconds from one copy of the chains to the next at least, and in units of what it took to write the last.
EVERY, SHARE = 60.0, 50.0


class RunningReadings:
    """A keeper of the chains of each reading, by its fingerprint, in a folder beside the readings that are finished.

    A reading of less than a minute leaves nothing here, and at most a fiftieth of the time goes into writing. A file
    that cannot be read, or is of other chains, counts as none. What is kept is removed when the reading is finished.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / RUNNING

    def __call__(self, fingerprint: str) -> RunKeeper:
        """The keeper of one reading."""
        path = self._folder / f"{fingerprint[:32]}.npz"
        # when the next copy is due
        due = [time.monotonic() + EVERY]

        def load(like: Run) -> Run | None:
            if not path.exists():
                return None
            try:
                found = load_tree(path, like)
            except FolderError:
                return None
            if not alike(found.warm, like.warm):
                return None
            counts = {name: int(getattr(found, name)) for name in ("attempt", "blocks", "stage", "aim")}
            return found._replace(**counts)

        def save(run: Run) -> None:
            begin = time.monotonic()
            if begin < due[0]:
                return
            try:
                self._folder.mkdir(exist_ok=True)
                save_tree(path, run)
            except OSError as error:
                # a copy is not worth the reading that it is a copy of
                warnings.warn(f"{path}: the chains are not kept ({error.strerror}).", RuntimeWarning, stacklevel=2)
            end = time.monotonic()
            due[0] = end + max(EVERY, SHARE * (end - begin))

        def remove() -> None:
            # also what a process left behind that was killed while it wrote
            for left in [path, *self._folder.glob(f".{path.stem}.*.npz")]:
                left.unlink(missing_ok=True)

        return RunKeeper(load, save, remove)
