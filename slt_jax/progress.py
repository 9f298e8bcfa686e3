"""Progress on the terminal: what is being done, how far it is, and how long is left."""

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from slt_jax.measuring import Reporter

#: Seconds from which on a part of a stage says something about the others.
_SLOW = 1.0


@contextmanager
def shown() -> Iterator[Reporter]:
    """A reporter that draws one bar per stage on standard error; plain lines where that is not a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with (
        _interrupts() as interrupted,
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
    ):
        tasks: dict[str, TaskID] = {}
        left = _Left()

        def report(stage: str, done: int, total: int, detail: str = "") -> None:
            if interrupted():
                raise KeyboardInterrupt
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total, detail=detail)
                if not console.is_terminal:
                    console.print(f"{stage} ...")
            if not console.is_terminal and (told := left(stage, done, total)):
                console.print(told)
            progress.update(tasks[stage], completed=done, total=total, detail=detail)

        yield report


class _Left:
    """How long a stage will take, in one line, as soon as one of its parts has been done that took any time."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, int]] = {}
        self._told: set[str] = set()

    def __call__(self, stage: str, done: int, total: int) -> str | None:
        now = time.monotonic()
        before, count = self._seen.setdefault(stage, (now, done))
        if done == count or stage in self._told:
            return None
        self._seen[stage] = now, done
        # what is on disk already comes at once, and says nothing about the rest
        each = (now - before) / (done - count)
        if each < _SLOW or done >= total:
            return None
        self._told.add(stage)
        return (
            f"{stage}: {done} of {total}; about {each * (total - done) / 60:.2g} min for the others, as this one took."
        )


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Ctrl-C as always, but never lost: Python drops what is raised inside a callback of its garbage collector.

    Yields:
      A function that says whether Ctrl-C was pressed.
    """
    pressed: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        in_collector = frame is not None and any(
            getattr(callback, "__code__", None) is frame.f_code for callback in gc.callbacks
        )
        if not in_collector:
            signal.default_int_handler(number, frame)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
