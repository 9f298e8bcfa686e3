"""``slt-jax scan --workers N`` and ``--dask ADDRESS``: the readings of one scan, taken by many processes."""

import argparse
from collections.abc import Mapping
from typing import Any


def add_workers(scan: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = scan.add_argument_group("many checkpoints at once")
    group.add_argument("--workers", type=int, metavar="N", help="processes on this machine, a checkpoint each")
    group.add_argument("--dask", metavar="ADDRESS", help="of the scheduler of a Dask cluster, as tcp://HOST:8786")


def has_workers(options: argparse.Namespace) -> bool:
    """Whether the readings are taken by others.

    Raises:
      ValueError: by two kinds of others, or of a training that still runs.
    """
    asked = [name for name in ("workers", "dask") if getattr(options, name) is not None]
    if len(asked) > 1:
        raise ValueError("--workers: is for this machine, --dask for a cluster; leave one of them out.")
    if asked and options.watch:
        raise ValueError(f"--{asked[0]}: measures checkpoints that are there, --watch waits for them; leave one out.")
    return bool(asked)


def scan_with_workers(
    options: argparse.Namespace, probes: Mapping[str, dict], language: dict, where: Mapping[str, Any]
) -> Any:
    """Run the scan, and return its outcome.

    Args:
      options: Of the command line.
      probes: Their settings by name.
      language: Of a pretrained model.
      where: ``restrictions`` and ``sublosses``.
    """
    from slt_jax.executors import dask, processes
    from slt_jax.fanout import ScanRequest, run_request
    from slt_jax.progress import shown

    request = ScanRequest(
        options.checkpoints,
        str(options.out),
        options.problem,
        probes,
        **where,
        seed=options.seed,
        together=options.together,
        language=language,
    )
    with shown() as reporter:
        workers = processes(options.workers) if options.dask is None else dask(options.dask, reporter)
        with workers as executor:
            return run_request(request, executor, reporter, options.command)
