"""Seconds that ``import slt_jax`` takes beyond ``import jax``, and which of its modules take them.

    python benchmarks/import_time.py

prints one JSON line and keeps it in ``benchmarks/results/import_time.jsonl``. Each of several fresh processes imports
jax, then slt_jax, and tells the CPU and the wall time of both; medians are kept. What of jax itself is imported only
because slt_jax asks for it counts as time of slt_jax. One more process, under ``-X importtime``, names the modules
whose own code, without what they import, takes longest.
"""

import argparse
import json
import statistics
import subprocess
import sys

from records import RESULTS, keep

GOAL = 0.3
#: Modules that are named.
DEAREST = 6
PROGRAM = """
import json, sys, time
marks = [(time.process_time(), time.perf_counter())]
import jax
marks.append((time.process_time(), time.perf_counter()))
count = len(sys.modules)
import slt_jax
marks.append((time.process_time(), time.perf_counter()))
spent = [[after - before for before, after in zip(*pair)] for pair in zip(marks, marks[1:])]
print(json.dumps({"jax": spent[0], "slt_jax": spent[1], "modules": len(sys.modules) - count}))
"""


def once():
    """CPU and wall seconds of both imports in a fresh process, and how many modules slt_jax adds."""
    found = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    return json.loads(found.stdout)


def dearest():
    """Milliseconds of the modules' own code, the dearest first, from a process that has imported jax before."""
    program = "import jax, sys; print('jax is there', file=sys.stderr, flush=True); import slt_jax"
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program], check=True, capture_output=True, text=True
    )
    lines = found.stderr.split("jax is there\n")[1].splitlines()
    parts = [line.removeprefix("import time:").split("|") for line in lines]
    own = {name.strip(): int(alone) / 1000 for alone, _, name in parts}
    return dict(sorted(own.items(), key=lambda item: -item[1])[:DEAREST])


def measure(processes):
    """The row."""
    runs = [once() for _ in range(processes + 1)][1:]  # the first one reads the files from the disk
    row = {"benchmark": "import_time", "processes": processes}
    for name in ("jax", "slt_jax"):
        for place, clock in enumerate(("cpu", "wall")):
            times = [run[name][place] for run in runs]
            row[f"{name}_{clock}_s"] = round(statistics.median(times), 3)
            row[f"{name}_{clock}_s_max"] = round(max(times), 3)
    yield row | {"modules": runs[0]["modules"], "dearest_ms": dearest(), "goal": GOAL}


def main():
    """Measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=11, help="fresh processes (default: 11)")
    options = parser.parse_args()
    keep(RESULTS / "import_time.jsonl", measure(options.processes))


if __name__ == "__main__":
    main()
