"""What more devices bring: one program on 1, 2, 4 and 8 of them, along each axis of the mesh.

    python benchmarks/scaling.py              # devices of the host, one process for each number of them
    python benchmarks/scaling.py --most 4     # fewer

prints one JSON line per row and keeps them in ``benchmarks/results/scaling.jsonl``. On CPU the devices are forced host
devices: a process has a core for each of them, or all cores where there are fewer (``cores`` in the rows). With more
cores than devices one device already uses several of them, and nothing is left to gain: ``--all-cores`` shows that.

``weak``, over chains: as many chains on each device, whatever their number. ``strong``: the same chains, examples of a
step, or matrices of the parameters, spread over more devices. ``wall_us`` and ``cpu_us`` are the time of a step of
one chain.
``efficiency`` is by the clock, against one device, where the cores exist (``devices`` ≤ ``cores``), else null;
``cpu_ratio`` is the time of processors that a step takes against one device, which says what the layout costs whatever
the cores. ``collectives`` are those in the compiled loop. The number of rounds is that of the median; processes of
different numbers of devices are run in turn.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time

import records

DRAWS = 200
#: Axis, kind of scaling, and the sizes of the mesh and chains for so many devices.
ROWS = {
    "chains, weak": lambda devices: ({"chains": devices}, 2 * devices),
    "chains, strong": lambda devices: ({"chains": devices}, 8),
    "batch, strong": lambda devices: ({"chains": 1, "batch": devices}, 2),
    "parameters, strong": lambda devices: ({"chains": 1, "parameters": devices}, 2),
}


def child(rounds):
    """All rows of as many devices as this process has, one JSON line."""
    import jax
    import models

    import slt_jax as slt
    from slt_jax import sampling, sharding

    devices, found = jax.device_count(), {}
    problem = models.perceptron(jax.random.key(0))
    sampler = slt.samplers.underdamped(1e-4)
    for name, layout in ROWS.items():
        sizes, chains = layout(devices)
        with jax.set_mesh(sharding.mesh(**sizes)):
            posterior = slt.localise(*problem, nbeta=100.0)
            given = jax.random.key(0), sampler, posterior, sharding.spread(problem.data, sharding.BATCH)
            static = (DRAWS, chains, 0, 1, None, False, None, False)
            program = sampling._sample.lower(*given, *[None] * 5, jax.numpy.int32(0), *static).compile().as_text()
            times = []
            for number in range(-1, rounds):
                begin, cpu = time.perf_counter(), time.process_time()
                jax.block_until_ready(slt.sample(*given, draws=DRAWS, chains=chains))
                if number >= 0:
                    times.append((time.perf_counter() - begin, time.process_time() - cpu))
        kinds = re.findall(
            r" (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(", program
        )
        found[name] = {
            "chains": chains,
            "wall_us": statistics.median(wall for wall, _ in times) / (chains * DRAWS) * 1e6,
            "cpu_us": statistics.median(cpu for _, cpu in times) / (chains * DRAWS) * 1e6,
            "collectives": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        }
    print(json.dumps(found))


def run(devices, rounds, cores):
    """The rows of a process of its own with so many devices, on some cores."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, __file__, "--child", "--rounds", str(rounds)]
    settings = {"env": environment, "check": True, "capture_output": True, "text": True}
    return json.loads(subprocess.run(command, preexec_fn=lambda: os.sched_setaffinity(0, cores), **settings).stdout)


def main():
    """Measure all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=8, help="devices of the largest process (default: 8)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each row in each of two processes (default: 3)")
    parser.add_argument("--all-cores", action="store_true", help="for every process, and print only")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.rounds)
        return
    numbers = [devices for devices in (1, 2, 4, 8) if devices <= options.most]
    seen = {devices: [] for devices in numbers}
    there = sorted(os.sched_getaffinity(0))
    given = {devices: there if options.all_cores else there[-devices:] for devices in numbers}
    for _ in range(2):
        for devices in numbers:
            seen[devices].append(run(devices, options.rounds, given[devices]))
    rows = []
    for name in ROWS:
        axis, kind = name.split(", ")

        def least(devices, field, name=name):
            return min(found[name][field] for found in seen[devices])

        for devices in numbers:
            # of a step of one chain: twice the devices halve it
            gain = least(1, "wall_us") / least(devices, "wall_us")
            rows.append(
                {
                    "benchmark": "scaling",
                    "model": "perceptron, 9.6k",
                    "axis": axis,
                    "scaling": kind,
                    "devices": devices,
                    "cores": len(given[devices]),
                    "chains": seen[devices][0][name]["chains"],
                    "wall_us": round(least(devices, "wall_us"), 2),
                    "cpu_us": round(least(devices, "cpu_us"), 2),
                    "efficiency": round(gain / devices, 3) if devices <= len(there) else None,
                    "cpu_ratio": round(least(devices, "cpu_us") / least(1, "cpu_us"), 3),
                    "collectives": seen[devices][0][name]["collectives"],
                }
            )
    if options.all_cores:
        print("\n".join(json.dumps(row) for row in rows))
        return
    records.keep(records.RESULTS / "scaling.jsonl", rows)


if __name__ == "__main__":
    main()
