"""``slt-jax truth``: exact learning coefficients on the command line."""

import argparse


def add_truth(commands: argparse._SubParsersAction) -> None:
    """Add the command and its families of singularities."""
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
