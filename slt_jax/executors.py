"""Executors that the command line starts or joins: processes of this machine, and a Dask cluster."""

import asyncio
import logging
import multiprocessing
import os
import pkgutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from slt_jax.fanout import WorkerError
from slt_jax.measuring import Reporter

#: Seconds that a scheduler has to answer, and a first worker to come.
_ANSWER, _FIRST = 5, 120


@contextmanager
def processes(workers: int) -> Iterator[Executor]:
    """So many processes on this machine, started anew: JAX does not survive a fork.

    They end with the block, at once where it fails, and with this process, in whatever way it ends. Ctrl-C is for this
    process alone.

    Raises:
      ValueError: ``workers`` is below 1.
    """
    if workers < 1:
        raise ValueError(f"--workers: got {workers}; it is a number of processes, at least 1.")
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _begin, (reader,))
    try:
        yield pool
    except BaseException:
        writer.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        writer.close()
        reader.close()


def _begin(reader: Connection) -> None:
    """In a worker: end when the other end of the pipe is closed, by its owner or with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end, args=(reader,), daemon=True).start()


def _end(reader: Connection) -> None:
    try:
        reader.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


@contextmanager
def dask(address: str, reporter: Reporter) -> Iterator[Executor]:
    """The workers of a Dask cluster that runs already: ``dask scheduler``, ``dask worker tcp://HOST:8786``.

    Args:
      address: Of the scheduler, ``tcp://HOST:PORT``.
      reporter: Shows that a first worker is waited for.

    Raises:
      ValueError: Dask is not installed, no scheduler answers, no worker comes, or one lacks this package.
      WorkerError: inside the block: several workers died one after the other at the same task, or the scheduler went.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise ValueError("--dask: Dask is not installed; pip install 'slt_jax[dask]'.") from error
    try:
        # asked first: a client that finds none says so after a long while, and in many lines
        asyncio.run(_answer(address))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"--dask: no scheduler answers at {address!r} ({str(error) or 'not in the way of one'}); start one with "
            "`dask scheduler`, and pass the address that it shows, as tcp://HOST:8786."
        ) from error
    with Client(address, timeout=_ANSWER, set_as_default=False) as client:
        if not client.scheduler_info()["workers"]:
            reporter("Waiting", 0, 1, f"for a first worker: dask worker {address}")
            try:
                client.wait_for_workers(1, timeout=_FIRST)
            except TimeoutError as error:
                raise ValueError(
                    f"--dask: no worker came to {address} within {_FIRST} s; start some with `dask worker {address}`."
                ) from error
            reporter("Waiting", 1, 1)
        _check_workers(client)
        # a scheduler that goes is told in one sentence, not in forty lines
        logger = logging.getLogger("distributed.client")
        level = logger.level
        logger.setLevel(logging.CRITICAL)
        try:
            # not pure: a task of a scan that was killed is not this one, though it is called alike
            yield client.get_executor(pure=False)
        except KilledWorker as error:
            raise WorkerError(
                f"{str(error).partition('. ')[0]}, out of memory perhaps; what is finished is kept: the same command "
                "goes on from there."
            ) from error
        finally:
            logger.setLevel(level)


async def _answer(address: str) -> None:
    from distributed import rpc

    async with rpc(address, timeout=_ANSWER) as scheduler:
        kind = (await asyncio.wait_for(scheduler.identity(), _ANSWER))["type"]
    if kind != "Scheduler":
        raise ValueError(f"it is a {kind.lower()}")


def _check_workers(client: Any) -> None:
    """Refuse workers that lack this package: a worker that is sent what it cannot import ends, and so do all."""
    found = client.run(pkgutil.resolve_name, "slt_jax.fanout:measure_checkpoint", on_error="return")
    for worker, answer in found.items():
        if isinstance(answer, ImportError | AttributeError):
            raise ValueError(f"--dask: worker {worker}: {answer}; start it in the environment of the scan.")
