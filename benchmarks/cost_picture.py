"""One picture of what a draw costs: against chains, parameters, temperatures and devices, in memory, beside others.

    python benchmarks/cost_picture.py

reads what ``cost.py``, ``cost.py --sweep``, ``accelerator.py``, ``scaling.py``, ``memory.py`` and ``peer_speed.py``
have kept in ``benchmarks/results`` and writes ``benchmarks/results/pictures/cost.svg``; nothing is measured. A panel
whose file is not there says which command makes it. Needs matplotlib.
"""

import argparse
import json
from pathlib import Path

from slt_jax.plots import style

RESULTS = Path(__file__).parent / "results"


def read(name, **wanted):
    """The rows of a file in which every entry is as wanted; none where there is no such file."""
    path = RESULTS / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [row for row in rows if all(row.get(entry) == value for entry, value in wanted.items())]


def line(axes, rows, across, along, label, color, **look):
    """A line with points through the rows that have both entries."""
    points = sorted((row[across], row[along]) for row in rows if across in row and along in row)
    axes.plot(*zip(*points, strict=True), "o-", label=label, color=color, markersize=4, linewidth=1.4, **look)


def goal(axes, level, color, text):
    """A dashed line at what was asked for."""
    axes.axhline(level, color=color, linestyle="--", linewidth=0.9)
    axes.annotate(
        text, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=color, fontsize=8
    )


def times(axes, rows, across):
    """Microseconds of CPU of a step of a chain, with noise and without."""
    line(axes, rows, across, "sampler_us", "sgld", style.PALETTE[0])
    line(axes, rows, across, "bare_us", "bare gradient", style.PALETTE[5])
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("µs of CPU a chain and step")
    axes.legend(fontsize=8)


def chains(axes):
    """Cost against chains."""
    axes.set_title("chains (9.6k perceptron)")
    if rows := read("cost_sweep", against="chains"):
        times(axes, rows, "chains")
    axes.set_xlabel("chains")
    return rows, "cost.py --sweep --cores 1"


def temperatures(axes):
    """Cost against rungs of a ladder."""
    axes.set_title("temperatures (two chains on each)")
    if rows := read("cost_sweep", against="temperatures"):
        times(axes, rows, "rungs")
    axes.set_xlabel("rungs of nβ under one vmap")
    return rows, "cost.py --sweep --cores 1"


def parameters(axes):
    """Time of a step over that of the bare gradient, against parameters."""
    axes.set_title("parameters")
    rows = read("cost", cores=1) + read("cost_sweep", against="parameters")
    for place, (name, kind) in enumerate((("linear", "linear network"), ("perceptron",) * 2, ("transformer",) * 2)):
        here = {row["parameters"]: row for row in rows if row["model"].startswith(name) and row.get("noise") != "signs"}
        if here:
            line(axes, here.values(), "parameters", "ratio", f"{kind}, CPU", style.PALETTE[place])
        there = [
            row | {"ratio": 1 / row["sgld_share"]} for row in read("accelerator", benchmark="throughput", model=name)
        ]
        if there:
            look = {"markerfacecolor": "white", "alpha": 0.8}
            line(axes, there, "parameters", "ratio", f"{kind}, {there[0]['machine']}", style.PALETTE[place], **look)
            rows += there
    axes.set_xscale("log")
    axes.axhline(1, color=style.EDGE, linewidth=0.8)
    axes.set_xlabel("parameters")
    axes.set_ylabel("times the bare gradient, same batches")
    axes.set_xticks([10.0**power for power in range(2, 9)], ["100", "1k", "10k", "100k", "1M", "10M", "100M"])
    axes.minorticks_off()
    if rows:
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.6 * (high - low))  # room for the legend
        axes.legend(fontsize=7.5, loc="upper left")
    return rows, "cost.py --cores 1"


def devices(axes):
    """Time of processors that a step of a chain takes, over that on one device on one core."""
    axes.set_title("devices (9.6k perceptron)")
    rows = read("scaling")
    for place, kind in enumerate(dict.fromkeys((row["axis"], row["scaling"]) for row in rows)):
        here = [row for row in rows if (row["axis"], row["scaling"]) == kind]
        line(axes, here, "devices", "cpu_ratio", ", ".join(kind), style.PALETTE[place])
    if rows:
        goal(axes, 1, style.EDGE, "no cost")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
    axes.set_xlabel("devices")
    axes.set_ylabel("CPU time of a step, over one device")
    return rows, "scaling.py"


def memory(axes):
    """Copies of the parameters for each chain."""
    axes.set_title("memory (1M parameters)")
    rows = read("memory")
    for place, what in enumerate(dict.fromkeys(row["what"] for row in rows)):
        here = [row for row in rows if row["what"] == what]
        line(axes, here, "chains", "copies", what, style.PALETTE[place])
    if rows:
        goal(axes, 4, style.EXACT, "goal for sgld")
        goal(axes, 6, style.EXACT, "goal for the default")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8, loc="lower right")
    axes.set_xlabel("chains")
    axes.set_ylabel("copies of the parameters a chain")
    return rows, "memory.py"


def peers(axes):
    """How many times our wall time others take."""
    axes.set_title("others (wall time over ours)")
    rows = [row for row in read("peer_speed") if "wall_over_ours" in row]
    models = list(dict.fromkeys(row["model"] for row in rows))
    tools = [tool for tool in dict.fromkeys(row["tool"] for row in rows) if tool != "slt_jax"]
    for place, tool in enumerate(tools):
        here = {row["model"]: row["wall_over_ours"] for row in rows if row["tool"] == tool}
        high = [here.get(model, float("nan")) for model in models]
        at = [spot + (place - len(tools) / 2 + 0.5) * 0.8 / len(tools) for spot in range(len(models))]
        axes.bar(at, high, 0.8 / len(tools), label=tool, color=style.PALETTE[place])
    if rows:
        axes.set_xticks(range(len(models)), [model.split(",")[0] for model in models], fontsize=8)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.axhline(1, color=style.EDGE, linewidth=0.8)
        axes.legend(fontsize=7.5)
    axes.set_ylabel("times ours")
    return rows, "peer_speed.py"


def draw():
    """All panels on one page, as the text of an SVG file."""
    with style.look():
        figure = style.new_figure(7.0)
        panels = (chains, parameters, temperatures, devices, memory, peers)
        for axes, panel in zip(figure.subplots(2, 3).flat, panels, strict=True):
            rows, command = panel(axes)
            if not rows:
                axes.set_xticks([])
                axes.set_yticks([])
                say = f"not measured yet:\npython benchmarks/{command}"
                axes.text(0.5, 0.5, say, ha="center", color=style.MUTED, transform=axes.transAxes)
        return style.svg(figure)


def main():
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "pictures" / "cost.svg")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(draw())
    print(options.out)


if __name__ == "__main__":
    main()
