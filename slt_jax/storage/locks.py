"""One writer at a time: a lock that the kernel takes back when its holder ends, in whatever way."""

import errno
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: What file systems answer that have no locks, such as Lustre where it is mounted without: nothing is guarded there.
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK}
#: What they answer of a file that another removed.
_GONE = {errno.ENOENT, errno.ESTALE}
#: Seconds between two looks at a lock that another holds.
_POLL = 0.2


class HeldError(OSError):
    """A lock that another process holds; ``holder`` says which."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


@contextmanager
def held(path: Path, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock that a file stands for, until the block ends or this process does.

    The file says who holds it, and is removed at the end; one that a killed process left behind holds nobody up.

    Args:
      path: The file; its folder exists.
      waiting: ``waiting(holder)`` is called again and again while another holds it; ``None`` to be refused instead.

    Raises:
      HeldError: another process, or another part of this one, holds it.

    Source: ``flock(2)``. Not to be believed on file systems without locks, and on Windows: nothing is guarded there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, held(Path(folder) / ".lock"):
    ...     try:
    ...         with held(Path(folder) / ".lock"):
    ...             pass
    ...     except HeldError as error:
    ...         print(error.holder == holder())
    True
    """
    file = _acquired(path, waiting)
    try:
        yield
    finally:
        # while it is still held: who opened it meanwhile sees that it has gone
        path.unlink(missing_ok=True)
        os.close(file)


def holder() -> str:
    """How this process is called in a lock."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _acquired(path: Path, waiting: Callable[[str], None] | None) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        ours, other = False, None
        try:
            if not _lock(file):
                other = os.pread(file, 1000, 0).decode(errors="replace") or "another process"
            elif _is(file, path):  # its last holder did not remove it between the two calls
                _sign(file, path)
                ours = True
                return file
        finally:
            if not ours:
                os.close(file)
        if other is not None:
            if waiting is None:
                raise HeldError(other)
            waiting(other)
            time.sleep(_POLL)


def _lock(file: int) -> bool:
    """Whether the lock is ours now."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    return True


def _sign(file: int, path: Path) -> None:
    """Write who holds the lock; where that cannot be written there is no lock."""
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, holder().encode(), 0)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _is(file: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return False
