"""What the rows of ``accuracy.py`` add up to: one line for each family and sampler, and Markdown of it."""

from collections.abc import Iterable
from typing import Any

import numpy as np

Row = dict[str, Any]
WITHIN = 0.05


def summary(rows: list[Row]) -> dict[str, Any]:
    """The figures of one family and sampler, errors relative; a value that is not finite is infinitely wrong.

    ``coverage`` and ``coverage_3`` are the shares of the green rows within 1.96 and 3 standard errors of the exact
    value. ``false_green`` are green rows that miss by more than 5 %, ``false_red`` red ones that do not. ``other`` is
    the median and largest error of the green against the answer that does not judge, theorem or oracle.
    """
    errors, deviations = (_column(rows, name) for name in ("relative_error", "z"))
    green = np.array([row["healthy"] for row in rows])
    close = errors <= WITHIN
    return {
        "rows": len(rows),
        "green": int(green.sum()),
        "median": _reduced(np.median, errors[green]),
        "largest": _reduced(np.max, errors[green]),
        "rms": _reduced(lambda e: np.sqrt(np.mean(e**2)), errors),
        "rank_correlation": rank_correlation(rows),
        "coverage": _reduced(np.mean, deviations[green] <= 1.96),
        "coverage_3": _reduced(np.mean, deviations[green] <= 3.0),
        "false_green": int((green & ~close).sum()),
        "false_red": int((~green & close).sum()),
        "other": _other(rows),
        "cpu_s": float(np.median([row["cpu_s"] for row in rows])),
    }


def rank_correlation(rows: list[Row]) -> float:
    """Spearman's, over the exact values and the estimates; NaN where there is nothing to order."""
    exact, value = (np.array([row[name] for row in rows], float) for name in ("exact", "value"))
    if len(set(exact)) < 2 or not np.isfinite(value).all() or len(set(value)) < 2:
        return float("nan")
    return float(np.corrcoef(_ranks(exact), _ranks(value))[0, 1])


def beyond_full_batch(rows: list[Row]) -> list[Row]:
    """For each run on minibatches the run of the same problem and seed on all of the data, and what lies between."""
    whole = {(row["case"], row["seed"], row["sampler"]): row for row in rows if not row["batch_size"]}
    pairs = []
    for row in rows:
        suffix = f", batch {row['batch_size']}"
        full = whole.get((row["case"].removesuffix(suffix), row["seed"], row["sampler"]))
        if row["batch_size"] and full:
            pairs.append(
                {**row, "full": full["relative_error"], "beyond": (row["value"] - full["value"]) / row["exact"]}
            )
    return pairs


def markdown(rows: list[Row]) -> str:
    """Tables: one line for each family and sampler, then minibatches against all of the data, then memory."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        split = ", batches" if row["batch_size"] else ""
        groups.setdefault((row["family"] + split, row["sampler"]), []).append(row)
    heads = (
        "family, sampler",
        "judge",
        "green",
        "error of the green: median, largest",
        "rms of all",
        "rank correlation",
        "within 1.96, 3 errors",
        "green beyond, red within 5 %",
        "green against the other answer",
        "CPU s",
    )
    lines = [_line(heads), _line(["---"] * len(heads))]
    for (family, sampler), group in groups.items():
        told = family if sampler == "default" else f"{family}, {sampler}"
        lines.append(_line([told, *_cells(group)]))
    pairs = beyond_full_batch(rows)
    if pairs:
        heads = ("on minibatches", "seed", "error", "error on all of the data", "beyond it", "green")
        lines += ["", _line(heads), _line(["---"] * len(heads))]
    for pair in pairs:
        shares = [_percent(pair[name], signed=True) for name in ("relative_error", "full", "beyond")]
        lines.append(_line([pair["case"], str(pair["seed"]), *shares, "yes" if pair["healthy"] else "no"]))
    for row in rows:
        if "memory_over_parameters" in row:
            lines += ["", f"{row['family']}: {row['memory_over_parameters']:.1f} times its parameters for each chain"]
    return "\n".join(lines)


def _cells(rows: list[Row]) -> list[str]:
    found = summary(rows)
    other = found["other"]
    return [
        rows[0]["judge"],
        f"{found['green']} of {found['rows']}",
        f"{_percent(found['median'])}, {_percent(found['largest'])}",
        _percent(found["rms"]),
        _number(found["rank_correlation"], "{:.3f}"),
        f"{_percent(found['coverage'], 0)}, {_percent(found['coverage_3'], 0)}",
        f"{found['false_green']}, {found['false_red']}",
        f"{_percent(other[0])}, {_percent(other[1])}",
        f"{found['cpu_s']:.1f}",
    ]


def _other(rows: Iterable[Row]) -> tuple[float, float]:
    """Median and largest error of the green rows against the oracle where the theorem judges, and the reverse."""
    errors = []
    for row in rows:
        other = row["theorem" if row["judge"] == "oracle" else "oracle"]
        if row["healthy"] and other:
            errors.append(abs(row["value"] / other - 1))
    return _reduced(np.median, np.array(errors)), _reduced(np.max, np.array(errors))


def _column(rows: list[Row], name: str) -> np.ndarray:
    return np.nan_to_num(np.abs([row[name] for row in rows]), nan=np.inf)


def _reduced(function, values: np.ndarray) -> float:
    return float(function(values)) if len(values) else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, ties sharing their mean."""
    smaller = (values[None, :] < values[:, None]).sum(axis=1)
    equal = (values[None, :] == values[:, None]).sum(axis=1)
    return smaller + 0.5 * (equal - 1)


def _number(value: float, form: str) -> str:
    return form.format(value) if np.isfinite(value) else "–"


def _percent(value: float, digits: int = 1, *, signed: bool = False) -> str:
    return _number(100 * value, f"{{:{'+' if signed else ''}.{digits}f}} %")


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
