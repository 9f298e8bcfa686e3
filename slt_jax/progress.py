"""Progress on the terminal: what is being done, how far it is, and how long is left."""

import gc
import signal
import threading
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

        def report(stage: str, done: int, total: int, detail: str = "") -> None:
            if interrupted():
                raise KeyboardInterrupt
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total, detail=detail)
                if not console.is_terminal:
                    console.print(f"{stage} ...")
            progress.update(tasks[stage], completed=done, total=total, detail=detail)

        yield report


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
