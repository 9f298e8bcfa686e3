"""``slt-jax compare``: sets finished studies of independently trained networks side by side."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path


def add_compare(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    command = commands.add_parser(
        "compare",
        help="say what independently trained networks have in common, beyond chance",
        description="Compares folders that demo or scan wrote: which losses, concepts and readings change alike in all "
        "of the networks. Stages are even in the logarithm of the step; phases are found in each network and matched.",
        epilog="example:\n  slt-jax compare groups-0 groups-1 groups-2 --kinds relu,relu,gelu --out comparison.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="at least two")
    command.add_argument("--by", choices=("stages", "phases"), default="stages", help="(default: stages)")
    command.add_argument("--stages", type=int, default=8, help="at least 4 (default: 8)")
    command.add_argument("--kinds", help="comma-separated, one for each folder: what kind of network it is")
    command.add_argument("--permutations", type=int, default=2000, help="(default: 2000)")
    command.add_argument("--seed", type=int, default=0, help="of the permutations (default: 0)")
    command.add_argument("--out", type=Path, help="a file for all numbers, as JSON")
    command.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    from slt_jax.spectroscopy import compare
    from slt_jax.storage import read_signature

    names = _names(options.folders)
    kinds = [""] * len(names) if options.kinds is None else options.kinds.split(",")
    if len(kinds) != len(names):
        raise ValueError(f"--kinds: got {len(kinds)} for {len(names)} folders; name one for each, in their order.")
    signatures = [
        read_signature(folder, name=name, kind=kind, stages=options.stages if options.by == "stages" else None)
        for folder, name, kind in zip(options.folders, names, kinds, strict=True)
    ]
    found = compare(signatures, matched=options.by == "phases", permutations=options.permutations, seed=options.seed)
    print(found.describe())
    if options.out is not None:
        options.out.write_text(json.dumps(found.to_json(), indent=2, ensure_ascii=False) + "\n")
        print(f"Numbers: {options.out}")
    return 0


def _names(folders: Sequence[Path]) -> list[str]:
    """What each folder is called, which is where it is if two are called alike."""
    resolved = [folder.resolve() for folder in folders]
    for number, folder in enumerate(resolved):
        if folder in resolved[:number]:
            raise ValueError(f"FOLDER: got {folders[number]} twice; a network agrees with itself.")
    names = [folder.name for folder in resolved]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]
