"""What every row says of where it was measured, and how rows are printed and kept."""

import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path

import jax

import slt_jax as slt

RESULTS = Path(__file__).parent / "results"


def stamp():
    """The machine and the versions, to be joined to a row."""
    device = jax.local_devices()[0]
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {jax.local_device_count()} {device.device_kind}",
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "slt_jax": slt.__version__},
    }


def keep(path: Path, rows: Iterable[dict]) -> list[dict]:
    """Print each row as one JSON line as it comes, and write all that there are."""
    found = []
    path.parent.mkdir(parents=True, exist_ok=True)
    for row in rows:
        found.append(row | stamp())
        print(json.dumps(found[-1]), flush=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return found
