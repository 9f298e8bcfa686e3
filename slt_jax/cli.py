"""The command line: ``slt-jax demo``, ``scan``, ``report`` and ``truth``."""

import argparse
import importlib
import os
import pkgutil
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

_EXAMPLES = """examples:
  slt-jax demo                                    the default study: a deep linear network learns a hierarchy
  slt-jax demo digits --out digits --seed 1       a Flax network learns handwritten digits
  slt-jax demo superposition                      six features move into two dimensions
  slt-jax scan checkpoints --problem mine.run:problem --out readings
  slt-jax scan checkpoints --problem mine.run:problem --out more --probes llc,flow,dos
  slt-jax scan checkpoints --problem mine.run:problem --out heads --restrictions heads,blocks
  slt-jax report readings                         write report.html again from what is in the folder
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
    demo.set_defaults(run=_demo)
    _add_scan(commands)
    report = commands.add_parser("report", help="write report.html again from what is in a folder")
    report.add_argument("folder", type=Path, metavar="DIR")
    report.set_defaults(run=_report)
    _add_truth(commands)
    return parser


def _add_scan(commands: argparse._SubParsersAction) -> None:
    scan = commands.add_parser(
        "scan",
        help="measure your own Orbax checkpoints",
        description="Measure at every checkpoint of a training run. PKG.MOD:FUNC is called without arguments and "
        "returns a slt_jax.Problem, or a pair of it and a dict of 'sublosses', 'concepts', 'restrictions', 'relabel'.",
        epilog="example:\n  slt-jax scan runs/7/checkpoints --problem mine.run:problem --out readings --draws 500",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    scan.add_argument("checkpoints", type=Path, metavar="CHECKPOINTS", help="folder of Orbax checkpoints by step")
    scan.add_argument("--problem", required=True, metavar="PKG.MOD:FUNC")
    scan.add_argument("--out", type=Path, required=True, help="output folder")
    scan.add_argument("--probes", default="llc", help=f"comma-separated, among {', '.join(PROBES)} (default: llc)")
    scan.add_argument(
        "--restrictions",
        help="comma-separated names and patterns; heads, layers, blocks: all that the network has (default: all named)",
    )
    scan.add_argument("--sublosses", help="comma-separated names (default: all)")
    scan.add_argument("--seed", type=_seed, default=0)
    scan.add_argument("--nbeta", type=float, help="inverse temperature, of flow the coldest (default: n / log n)")
    scan.add_argument("--gamma", type=float, help="localisation strength (default: 1e-4 nbeta)")
    scan.add_argument("--chains", type=int, default=4, help="of llc and susceptibility (default: 4)")
    scan.add_argument("--draws", type=int, default=2000, help="of llc (default: 2000)")
    scan.add_argument("--burnin", type=int, default=2000, help="of llc (default: 2000)")
    scan.add_argument("--batch-size", type=int, help="examples a step of llc and susceptibility (default: all)")
    scan.add_argument(
        "--together", type=int, help="restrictions of one shape in one program (default: 1 on CPU, else 8)"
    )
    scan.set_defaults(run=_scan)


def _add_truth(commands: argparse._SubParsersAction) -> None:
    truth = commands.add_parser("truth", help="print an exact learning coefficient and where it comes from")
    families = truth.add_subparsers(dest="families", required=True, metavar="FAMILY")
    linear = families.add_parser("dln", help="deep linear network: slt-jax truth dln 8 10 8 --rank 3")
    linear.add_argument("widths", type=int, nargs="+", metavar="WIDTH")
    linear.add_argument("--rank", type=int, required=True)
    linear.set_defaults(run=_truth_deep_linear)
    crossing = families.add_parser("crossing", help="normal crossing prod w^2k: slt-jax truth crossing 1 1")
    crossing.add_argument("exponents", type=int, nargs="+", metavar="K")
    crossing.set_defaults(run=_truth_crossing)
    regression = families.add_parser("rrr", help="reduced-rank regression: slt-jax truth rrr 5 3 5 --rank 0")
    regression.add_argument("widths", type=int, nargs=3, metavar="WIDTH", help="inputs, hidden, outputs")
    regression.add_argument("--rank", type=int, required=True)
    regression.set_defaults(run=_truth_reduced_rank)
    toy = families.add_parser("superposition", help="toy model of superposition: slt-jax truth superposition 5+")
    toy.add_argument("phase", metavar="PHASE", help="4--, 4+-, 4++, 5-, 5+ or 6: corners, other features")
    toy.set_defaults(run=_truth_superposition)
    ideal = families.add_parser("newton", help="sum of squares of polynomials: slt-jax truth newton xy 'x^2 - y^3'")
    ideal.add_argument("variables", metavar="VARIABLES", help="names of the coordinates: xy, or v,w with commas")
    ideal.add_argument("polynomials", nargs="+", metavar="POLYNOMIAL")
    ideal.add_argument("--singular", action="store_true", help="bound it from below too (needs Singular)")
    ideal.set_defaults(run=_truth_newton)


def studies() -> list[str]:
    """Names of all studies: the modules of ``slt_jax.studies`` that say how to run one, found by looking."""
    from slt_jax import studies as package

    helpers = {"study", "hierarchy", "markov_chains", "induction_training"}
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name not in helpers)


def _demo(options: argparse.Namespace) -> int:
    if options.study not in studies():
        raise ValueError(f"STUDY: got {options.study!r}; choose one of {', '.join(studies())}.")
    from slt_jax.progress import shown
    from slt_jax.workflow import run_study

    study = importlib.import_module(f"slt_jax.studies.{options.study}").study()
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
    from slt_jax.progress import shown
    from slt_jax.spectroscopy.subject import as_subject
    from slt_jax.user_code import call_user
    from slt_jax.workflow import run_scan

    subject = as_subject(call_user(options.problem))
    probes = _probes(options.probes, vars(options))
    with shown() as reporter:
        outcome = run_scan(
            subject,
            options.checkpoints,
            options.out,
            options.seed,
            probes,
            options.restrictions.split(",") if options.restrictions else None,
            options.sublosses.split(",") if options.sublosses else None,
            reporter,
            options.command,
            options.together,
        )
    return _finish(outcome)


def _probes(names: str, options: dict) -> dict:
    """Probes by name, each with those of the options that are its settings."""
    from slt_jax import spectroscopy

    found = {}
    for name in names.split(","):
        if name not in PROBES:
            raise ValueError(f"--probes: got {name!r}; choose among {', '.join(PROBES)}.")
        settings = {setting: options[setting] for setting in PROBES[name]}
        found[name] = getattr(spectroscopy, f"{name}_probe")(**settings)
    return found


def _report(options: argparse.Namespace) -> int:
    from slt_jax.report import write_report

    print(write_report(options.folder))
    return 0


def _truth_deep_linear(options: argparse.Namespace) -> int:
    from slt_jax import truths

    return _print_truth(truths.deep_linear(options.widths, options.rank))


def _truth_crossing(options: argparse.Namespace) -> int:
    from slt_jax import truths

    return _print_truth(truths.normal_crossing(options.exponents))


def _truth_reduced_rank(options: argparse.Namespace) -> int:
    from slt_jax import truths

    inputs, hidden, outputs = options.widths
    return _print_truth(truths.reduced_rank(inputs, hidden, outputs, options.rank))


def _truth_superposition(options: argparse.Namespace) -> int:
    from slt_jax import truths

    return _print_truth(truths.superposition(options.phase))


def _truth_newton(options: argparse.Namespace) -> int:
    from slt_jax import truths

    names = options.variables.split(",") if "," in options.variables else options.variables
    if options.singular:
        try:
            return _print_truth(truths.singular_lct(options.polynomials, names))
        except RuntimeError as error:
            raise ValueError(str(error)) from error
    return _print_truth(truths.newton_ideal([truths.polynomial(text, names) for text in options.polynomials]))


def _print_truth(truth) -> int:  # type: ignore[no-untyped-def]
    multiplicity = "unknown" if truth.multiplicity is None else truth.multiplicity
    print(f"learning coefficient  {truth.learning_coefficient} = {float(truth.learning_coefficient):.6g}")
    print(f"multiplicity          {multiplicity}")
    print(f"source                {truth.source}")
    if not getattr(truth, "exact", True):
        print("not exact             a bound, or not proven: the source says which")
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
