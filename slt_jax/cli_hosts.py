"""``slt-jax scan --distributed``: one scan on the devices of many processes."""

import argparse
import sys
from collections.abc import Callable

#: What measures in another way.
_OTHERS = ("watch", "workers", "dask", "dry_run")


def add_hosts(scan: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = scan.add_argument_group("many hosts at once")
    group.add_argument(
        "--distributed", action="store_true", help="spread chains over all processes that run this same command"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="of the first process (default: found by JAX)")
    group.add_argument("--processes", type=int, metavar="N", help="how many there are (default: found by JAX)")
    group.add_argument("--process", type=int, metavar="I", help="which of them this is, from 0 (default: found by JAX)")


def has_hosts(options: argparse.Namespace) -> bool:
    """Whether this is one process of several.

    Raises:
      ValueError: together with what measures in another way, or where the processes are said and not this.
    """
    said = [name for name in ("coordinator", "processes", "process") if getattr(options, name) is not None]
    if said and not options.distributed:
        raise ValueError(f"--{said[0]}: is for --distributed; add it, or leave this out.")
    for name in _OTHERS:
        if options.distributed and getattr(options, name):
            raise ValueError(f"--distributed: measures in all processes at once; leave out --{name.replace('_', '-')}.")
    return bool(options.distributed)


def scan_jointly(options: argparse.Namespace, make: Callable[[], tuple], where: tuple, finish: Callable) -> int:
    """Take part in the scan, and return the exit code: of the first process that of the scan, of others 0.

    Args:
      options: Of the command line.
      make: Makes the subject, its checkpoints and what they are called: not before the processes have met.
      where: Output folder and seed, what makes the probes, restrictions and sublosses.
      finish: Tells the outcome.
    """
    import jax

    from slt_jax.hosts import joined, run_jointly
    from slt_jax.progress import shown

    out, seed, probes, restrictions, sublosses = where
    with joined(options.coordinator, options.processes, options.process) as process:
        print(
            f"slt-jax: process {process} of {jax.process_count()}. If one of them dies all end, within half a minute; "
            "what is finished is kept, and the same command in all of them goes on from there.",
            file=sys.stderr,
        )
        subject, checkpoints, source = make()
        given = (out, seed, probes(), restrictions, sublosses)
        try:
            with shown() as reporter:
                outcome = run_jointly(subject, checkpoints, source, *given, reporter, options.command, options.together)
        except jax.errors.JaxRuntimeError as error:
            message = next(iter(str(error).strip().splitlines()), "")
            raise ValueError(
                f"--distributed: process {process} lost the others ({message}). What is finished is kept: start all "
                "of them again, and they go on from there."
            ) from error
    return 0 if outcome is None else finish(outcome)
