"""The command line: ``slt-jax demo``, ``scan``, ``report``, ``compare`` and ``truth``."""

import argparse
import importlib
import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from slt_jax.cli_compare import add_compare
from slt_jax.cli_hosts import add_hosts, has_hosts, scan_jointly
from slt_jax.cli_truth import add_truth
from slt_jax.cli_workers import add_workers, has_workers, scan_with_workers

_EXAMPLES = """examples:
  slt-jax demo                                    the default study: a deep linear network learns a hierarchy
  slt-jax demo digits --out digits --seed 1       a Flax network learns handwritten digits
  slt-jax demo superposition                      six features move into two dimensions
  slt-jax demo programs                           one function, three programs, three learning coefficients
  slt-jax scan checkpoints --problem mine.run:problem --out readings
  slt-jax scan checkpoints --problem mine.run:problem --out more --probes llc,flow,dos
  slt-jax scan checkpoints --problem mine.run:problem --out heads --restrictions heads,blocks
  slt-jax scan hf:EleutherAI/pythia-14m@step1000,step2000 --out pythia --restrictions heads
  slt-jax scan checkpoints --problem mine.run:problem --out live --watch --until 10000
  slt-jax scan checkpoints --problem mine.run:problem --out readings --dry-run
  srun slt-jax scan checkpoints --problem mine.run:problem --out readings --distributed
  slt-jax scan checkpoints --problem mine.run:problem --out readings --dask tcp://HOST:8786
  slt-jax report readings                         write report.html again from what is in the folder
  slt-jax compare groups-0 groups-1               what two networks have in common, beyond chance
  slt-jax truth dln 8 10 8 --rank 3               an exact learning coefficient

exit codes: 0 all readings healthy, 1 finished with unhealthy or missing readings (named), 2 bad input
"""

#: Probes by name, and which options of a scan are settings of theirs. To add one: ``<name>_probe`` in
#: ``slt_jax.spectroscopy``, and a row.
PROBES = {
    "llc": ("nbeta", "gamma", "chains", "draws", "burnin", "batch_size"),
    "flow": ("nbeta", "gamma"),
    "dos": ("gamma",),
    "hessian": ("nbeta", "gamma"),
    "contact": ("nbeta", "gamma"),
    "susceptibility": ("nbeta", "gamma", "chains", "batch_size"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    options.command = shlex.join(["slt-jax", *(sys.argv[1:] if arguments is None else arguments)])
    try:
        return options.run(options)
    except (ValueError, OSError) as error:
        print(f"slt-jax: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nslt-jax: interrupted; what is finished is kept: the same command goes on from there.", file=sys.stderr)
        if arguments is None:
            # a process of its own ends here: threads that still compile can crash the interpreter while it shuts down
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(130)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slt-jax",
        description="A spectroscope for trained networks.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="commands", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="train a small network, measure it while it develops, and report")
    demo.add_argument("study", nargs="?", default="semantics", metavar="STUDY", help=f"one of {', '.join(studies())}")
    demo.add_argument("--out", type=Path, help="output folder (default: slt-out-STUDY)")
    demo.add_argument("--seed", type=_seed, default=0, help="the only source of randomness (default: 0)")
    demo.add_argument("--probes", help="more probes, on the whole loss of the whole network only: as for scan")
    demo.add_argument("--more", type=int, help="checkpoints to add where readings disagree (default: the study's own)")
    demo.set_defaults(run=_demo)
    _add_scan(commands)
    report = commands.add_parser("report", help="write report.html again from what is in a folder")
    report.add_argument("folder", type=Path, metavar="DIR")
    report.set_defaults(run=_report)
    add_compare(commands)
    add_truth(commands)
    return parser


def _add_scan(commands: argparse._SubParsersAction) -> None:
    scan = commands.add_parser(
        "scan",
        help="measure your own Orbax checkpoints, or a pretrained language model",
        description="Measure at every checkpoint of a training run. PKG.MOD:FUNC is called without arguments and "
        "returns a slt_jax.Problem, or a pair of it and a dict of 'sublosses', 'concepts', 'restrictions', 'relabel'. "
        "A GPT-NeoX model (Pythia), hf:FOLDER@step0,step1000 or hf:OWNER/NAME@step0,step1000, brings its own problem: "
        "the loss of each token of a text.",
        epilog="example:\n  slt-jax scan runs/7/checkpoints --problem mine.run:problem --out readings --draws 500",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    scan.add_argument("checkpoints", metavar="CHECKPOINTS", help="folder of Orbax checkpoints by step, or hf:MODEL")
    scan.add_argument("--problem", metavar="PKG.MOD:FUNC", help="whose Orbax checkpoints they are")
    scan.add_argument("--out", type=Path, required=True, help="output folder")
    scan.add_argument("--probes", default="llc", help=f"comma-separated, among {', '.join(PROBES)} (default: llc)")
    scan.add_argument(
        "--restrictions",
        help="comma-separated names and patterns; heads, layers, blocks: all that the network has (default: all named)",
    )
    scan.add_argument("--sublosses", help="comma-separated names (default: all)")
    scan.add_argument("--seed", type=_seed, default=0)
    scan.add_argument("--dry-run", action="store_true", help="say what it would take, in time and memory, and end")
    watch = scan.add_argument_group("a training that still runs")
    watch.add_argument("--watch", action="store_true", help="measure each checkpoint as it comes; Ctrl-C ends it too")
    watch.add_argument("--until", type=int, metavar="STEP", help="end when this step is measured (default: never)")
    watch.add_argument(
        "--patience", type=float, metavar="SECONDS", help="end when nothing changed for so long (default: 3600)"
    )
    watch.add_argument("--poll", type=float, metavar="SECONDS", help="time between two looks (default: 2)")
    add_workers(scan)
    add_hosts(scan)
    scan.add_argument("--nbeta", type=float, help="inverse temperature, of flow the coldest (default: n / log n)")
    scan.add_argument("--gamma", type=float, help="localisation strength (default: 1e-4 nbeta)")
    scan.add_argument("--chains", type=int, default=4, help="of llc and susceptibility (default: 4)")
    scan.add_argument("--draws", type=int, default=2000, help="of llc (default: 2000)")
    scan.add_argument("--burnin", type=int, default=2000, help="of llc (default: 2000)")
    scan.add_argument("--batch-size", type=int, help="examples a step of llc and susceptibility (default: all)")
    scan.add_argument(
        "--together", type=int, help="restrictions of one shape in one program (default: 1 on CPU, else 8)"
    )
    language = scan.add_argument_group("pretrained language models")
    language.add_argument("--text", help="file, folder, or hf:DATASET (default: Python's own standard library)")
    language.add_argument("--sequences", type=int, help="of text, the examples of the loss (default: 128)")
    language.add_argument("--context", type=int, help="tokens of a sequence (default: 128)")
    language.add_argument("--tokenizer", help="a tokenizer.json, or bytes (default: the model's own)")
    scan.set_defaults(run=_scan)


def studies() -> list[str]:
    """Names of all studies: the modules of ``slt_jax.studies`` with a function ``study``, found by looking."""
    from slt_jax import studies as package

    # read, not imported: a name is no reason to wait for the networks of all studies
    files = Path(package.__path__[0]).glob("*.py")
    return sorted(file.stem for file in files if "\ndef study(" in file.read_text(encoding="utf-8"))


def _demo(options: argparse.Namespace) -> int:
    if options.study not in studies():
        raise ValueError(f"STUDY: got {options.study!r}; choose one of {', '.join(studies())}.")
    from slt_jax.progress import shown
    from slt_jax.workflow import run_study

    study = importlib.import_module(f"slt_jax.studies.{options.study}").study()
    if options.more is not None:
        study = study._replace(more=options.more)
    if options.probes:
        # asked at the temperature and the resolution of the study's own readings
        more = _probes(options.probes, dict({**study.whole_probes, **study.probes}["llc"].settings))
        more = {name: probe for name, probe in more.items() if name not in {**study.probes, **study.whole_probes}}
        study = study._replace(whole_probes={**study.whole_probes, **more})
    out = options.out or Path(f"slt-out-{options.study}")
    with shown() as reporter:
        outcome = run_study(study, out, options.seed, reporter, options.command)
    return _finish(outcome)


def _scan(options: argparse.Namespace) -> int:
    from slt_jax import storage
    from slt_jax.pretrained_scan import pretrained_scan
    from slt_jax.progress import shown
    from slt_jax.watching import run_watch
    from slt_jax.workflow import run_scan

    waiting = {name: value for name in ("until", "patience", "poll") if (value := getattr(options, name)) is not None}
    if waiting and not options.watch:
        raise ValueError(f"--{next(iter(waiting))}: is for --watch; add it, or leave this out.")
    language = {name: getattr(options, name) for name in ("text", "sequences", "context", "tokenizer")}
    given = {name: value for name, value in language.items() if value is not None}
    pretrained = options.checkpoints.startswith("hf:")
    if pretrained and options.watch:
        raise ValueError(f"--watch: {options.checkpoints} is published already; leave it out.")
    restrictions, sublosses = (
        names.split(",") if names else None for names in (options.restrictions, options.sublosses)
    )
    _check_source(options.problem, options.checkpoints, given)
    joint = has_hosts(options)
    if has_workers(options):
        asked = _settings(options.probes, vars(options))
        where = {"restrictions": restrictions, "sublosses": sublosses}
        return _finish(scan_with_workers(options, asked, given, where))
    folder = Path(options.checkpoints)

    def make() -> tuple:
        if pretrained:
            return pretrained_scan(options.checkpoints, **given)
        subject = _own(options.problem)
        return subject, storage.checkpoints_in(folder, subject.problem.params), str(folder.resolve())

    if joint:
        probes = partial(_probes, options.probes, vars(options))
        return scan_jointly(options, make, (options.out, options.seed, probes, restrictions, sublosses), _finish)
    settings = (options.out, options.seed, _probes(options.probes, vars(options)), restrictions, sublosses)
    if options.dry_run and options.watch:
        raise ValueError("--dry-run: the checkpoints of a training that still runs are not known; leave out --watch.")
    if options.watch:
        subject = _own(options.problem)
        with shown() as reporter:
            outcome = run_watch(subject, folder, *settings, reporter, options.command, options.together, **waiting)
        return _finish(outcome)
    subject, checkpoints, source = make()
    if options.dry_run:
        from slt_jax.dry_run import plan

        print("\n".join(plan(subject, checkpoints, source, *settings).lines))
        return 0
    with shown() as reporter:
        outcome = run_scan(subject, checkpoints, source, *settings, reporter, options.command, options.together)
    return _finish(outcome)


def _check_source(problem: str | None, checkpoints: str, language: dict) -> None:
    """Refuse options that are for the other kind of checkpoints."""
    if checkpoints.startswith("hf:"):
        if problem is not None:
            raise ValueError(
                f"--problem: got {problem!r}; {checkpoints} brings its own, the loss of each token: leave it out."
            )
    elif problem is None:
        raise ValueError(
            "--problem: got none; pass PKG.MOD:FUNC, whose checkpoints these are, or hf:MODEL as CHECKPOINTS."
        )
    elif language:
        raise ValueError(
            f"--{next(iter(language))}: is for hf:MODEL; the problem of Orbax checkpoints has its own data."
        )


def _own(problem: str) -> Any:
    from slt_jax.spectroscopy.subject import as_subject
    from slt_jax.user_code import call_user

    return as_subject(call_user(problem))


def _settings(names: str, options: dict) -> dict[str, dict]:
    """Of each probe, those of the options that are its settings."""
    found = {}
    for name in names.split(","):
        if name not in PROBES:
            raise ValueError(f"--probes: got {name!r}; choose among {', '.join(PROBES)}.")
        found[name] = {setting: options[setting] for setting in PROBES[name] if setting in options}
    return found


def _probes(names: str, options: dict) -> dict:
    from slt_jax import spectroscopy

    asked = _settings(names, options)
    return {name: getattr(spectroscopy, f"{name}_probe")(**settings) for name, settings in asked.items()}


def _report(options: argparse.Namespace) -> int:
    from slt_jax.report import write_report

    print(write_report(options.folder))
    return 0


def _finish(outcome) -> int:  # type: ignore[no-untyped-def]
    print(f"{outcome.readings} readings, {len(outcome.unhealthy)} unhealthy, {len(outcome.failed)} missing.")
    places: dict[str, list[str]] = {}
    for place, explanation in [*outcome.unhealthy, *outcome.failed]:
        places.setdefault(explanation, []).append(place)
    # a checkpoint that cannot be read is missing once for each of its parts, and named once
    for explanation, named in places.items():
        more = f" and {len(named) - 1} more" if len(named) > 1 else ""
        print(f"  {named[0]}{more}: {explanation}")
    print(f"Report: {outcome.report}")
    return outcome.exit_code


def _seed(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**32:
        raise argparse.ArgumentTypeError(f"got {number}; a seed lies between 0 and {2**32 - 1}")
    return number


if __name__ == "__main__":
    sys.exit(main())
