"""Planted transitions in noisy curves: which are found, which are made up, and do the intervals hold them?

    python benchmarks/phases.py --histories 200

A history is 1, 3 or 8 loss curves of 200, 400 or 1000 records, even in the step or in its logarithm, up to step 1000
to 30 000. In it 1 to 4 logistic transitions in log step, .03 to .2 wide and at least 1 and four times their widths
apart, each in 60 % of the curves with heights of .5 to 1.5, one in ten upwards; a trend in two of three curves
(straight in log step, or a power law); noise of .3 to 8 % of the unit of height, white or autocorrelated by .5 or .9
from record to record, in half of the histories shared between the curves with correlation .5. A transition is found
where one of those reported lies within the tolerance: 5 % of the range of log step, and, apart, .05 of log step (5 % of
the step). Histories without a transition have the same trends and noise. Critical points: a reading that rises in one
of its gaps and falls in another. Cusps: a path with a corner, a path without. Prints a JSON line a row, and keeps them
in ``benchmarks/results/phases.jsonl``.
"""

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slt_jax.spectroscopy import History, critical_points, cusps, detect_phases

RESULTS = Path(__file__).parent / "results" / "phases.jsonl"
#: Tolerances: a share of the range of log step, and an absolute one.
RANGE, STEP = 0.05, 0.05
NOISES = (0.0, 0.5, 0.9)


class Planted(NamedTuple):
    """A history, the logarithms of the steps of its transitions, and how its noise remembers."""

    history: History
    places: np.ndarray
    autocorrelation: float


def noise(random: np.random.Generator, records: int, count: int, autocorrelation: float, shared: float) -> np.ndarray:
    """Autoregressive noise of variance 1, shape ``(records, count)``, correlated by ``shared`` between the columns."""
    shocks = np.sqrt(1 - shared) * random.normal(size=(records, count)) + np.sqrt(shared) * random.normal(
        size=(records, 1)
    )
    found = [shocks[0]]
    for shock in shocks[1:]:
        found.append(autocorrelation * found[-1] + np.sqrt(1 - autocorrelation**2) * shock)
    return np.array(found)


def planted(seed: int, transitions: bool = True) -> Planted:
    """A history by its seed."""
    random = np.random.default_rng(seed)
    records, last = int(random.choice([200, 400, 1000])), 10 ** random.uniform(3, 4.5)
    even = random.random() < 0.5
    steps = np.unique(np.round(np.linspace(0, last, records) if even else np.geomspace(1, last, records)).astype(int))
    steps = steps[steps > 0]
    at = np.log(steps)
    # where records are even in the step, few of them are early
    low, high = max(at[-1] - 4 if even else at[0], np.log(10)) + 0.7, at[-1] - 0.7
    places, widths = spaced(random, low, high) if transitions else (np.zeros(0), np.zeros(0))
    count = int(random.choice([1, 3, 8]))
    inside = random.random((count, len(places))) < 0.6
    for index in range(len(places)):
        inside[random.integers(count), index] = True
    autocorrelation = float(random.choice(NOISES))
    shaken = noise(random, len(at), count, autocorrelation, float(random.choice([0.0, 0.5])))
    curves = {}
    for index in range(count):
        heights = random.uniform(0.5, 1.5, len(places)) * inside[index]
        heights *= np.where(random.random(len(places)) < 0.1, -1, 1)
        curve = 5 - np.sum(heights / (1 + np.exp(-(at[:, None] - places) / widths)), axis=1)
        trend = random.choice(["none", "straight", "power"])
        if trend == "straight":
            curve = curve - random.uniform(0.2, 1.0) * (at - at[0]) / (at[-1] - at[0])
        if trend == "power":
            curve = curve + random.uniform(0.2, 1.0) * (steps / steps[0]) ** -random.uniform(0.2, 0.6)
        curves[f"part {index}" if index else "all"] = curve + 10 ** random.uniform(-2.5, -1.1) * shaken[:, index]
    return Planted(History(steps, curves, {}), places, autocorrelation)


def spaced(random: np.random.Generator, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Places and widths of 1 to 4 transitions far enough apart."""
    while True:
        count = int(random.integers(1, 5))
        places, widths = np.sort(random.uniform(low, high, count)), np.exp(random.uniform(*np.log([0.03, 0.2]), count))
        if (np.diff(places) >= np.maximum(1.0, 4 * (widths[1:] + widths[:-1]))).all():
            return places, widths


class Score(NamedTuple):
    """Counts over histories.

    Attributes:
      planted, found: All transitions.
      recalled, precise: Those that have a partner within the tolerance.
    """

    planted: int = 0
    found: int = 0
    recalled: int = 0
    precise: int = 0

    def add(self, places: np.ndarray, found: np.ndarray, tolerance: float) -> "Score":
        """With one more history."""
        near = np.abs(places[:, None] - found[None]) <= tolerance
        return Score(
            self.planted + len(places),
            self.found + len(found),
            self.recalled + int(near.any(axis=1).sum()),
            self.precise + int(near.any(axis=0).sum()),
        )

    def shares(self) -> dict[str, float]:
        """Recall and precision."""
        return {"recall": self.recalled / max(self.planted, 1), "precision": self.precise / max(self.found, 1)}


def held(places: np.ndarray, steps: np.ndarray, intervals: np.ndarray, tolerance: float) -> list[bool]:
    """Whether the interval of each transition found holds the planted one that it found."""
    found = []
    for step, (low, high) in zip(np.log(steps), np.log(intervals), strict=True):
        place = places[np.abs(places - step).argmin()]
        if abs(place - step) <= tolerance:
            found.append(bool(low <= place <= high))
    return found


def planted_rows(histories: int) -> Iterable[dict[str, Any]]:
    """Recall, precision and coverage: over all histories, and by the noise."""
    wide, close = ({key: Score() for key in (None, *NOISES)} for _ in range(2))
    covered: dict[float | None, list[bool]] = {key: [] for key in (None, *NOISES)}
    own, widths = [], []
    for seed in range(histories):
        history, places, kind = planted(seed)
        phases = detect_phases(history)
        found = np.log(phases.transitions)
        tolerance = RANGE * float(np.log(history.steps[-1] / history.steps[0]))
        inside = held(places, phases.transitions, phases.intervals, tolerance)
        widths += np.diff(np.log(phases.intervals), axis=1)[:, 0].tolist()
        for one in phases.curves.values():
            own += held(places, one.steps, one.intervals, tolerance)
        for key in (None, kind):
            wide[key] = wide[key].add(places, found, tolerance)
            close[key] = close[key].add(places, found, STEP)
            covered[key] += inside
    for key in (None, *NOISES):
        row = {"case": "planted", "autocorrelation": "any" if key is None else key, "transitions": wide[key].planted}
        row |= {f"{name}, 5 % of the range": value for name, value in wide[key].shares().items()}
        row |= {f"{name}, .05": value for name, value in close[key].shares().items()}
        row |= {"coverage": float(np.mean(covered[key])), "intervals": len(covered[key])}
        if key is None:
            row |= {"histories": histories, "median width": float(np.median(widths))}
            row |= {"coverage of single curves": float(np.mean(own)), "single": len(own)}
        yield row


def nothing_row(histories: int) -> dict[str, Any]:
    """Histories without a transition in which one is found."""
    false: dict[float, list[bool]] = {kind: [] for kind in NOISES}
    single: list[bool] = []
    for seed in range(histories):
        history, _, kind = planted(10_000 + seed, transitions=False)
        phases = detect_phases(history)
        false[kind].append(bool(len(phases.transitions)))
        single += [bool(len(one.steps)) for one in phases.curves.values()]
    every = [one for row in false.values() for one in row]
    row = {"case": "no transition", "histories": histories, "false alarms": float(np.mean(every))}
    row |= {f"autocorrelation {kind}": float(np.mean(found)) for kind, found in false.items() if found}
    return {**row, "false alarms in a single curve": float(np.mean(single)), "curves": len(single)}


def cost_row() -> dict[str, Any]:
    """Seconds of the processor for 1000 records of 20 curves with three transitions."""
    random = np.random.default_rng(0)
    steps = np.round(np.geomspace(1000, 1e6, 1000)).astype(int)
    at = np.log(steps)
    places = at[0] + np.array([0.5, 0.7, 0.9]) * (at[-1] - at[0])
    stairs = 5 - np.sum(1 / (1 + np.exp(-(at[:, None] - places) / 0.1)), axis=1)
    shaken = 0.02 * noise(random, len(at), 20, 0.5, 0.0)
    history = History(steps, {f"part {index}": stairs + shaken[:, index] for index in range(20)}, {})
    detect_phases(History(steps, {"all": stairs}, {}))  # libraries are loaded
    wall, used = time.perf_counter(), time.process_time()
    found = detect_phases(history)
    row = {"case": "cost", "records": len(steps), "curves": 20, "transitions": len(found.transitions)}
    return {**row, "seconds": time.perf_counter() - wall, "processor seconds": time.process_time() - used}


def readings_row(runs: int, turns: bool) -> dict[str, Any]:
    """Twelve readings with errors of .1: a rise of 2 within one gap and a fall of 1 within a later one, or a slope."""
    steps = np.round(np.geomspace(10, 10_000, 12))
    at, recalled, extra, alarms = np.log1p(steps), 0, 0, 0
    for seed in range(runs):
        random = np.random.default_rng(seed)
        rise, fall = random.integers(1, 5), random.integers(6, 10)
        truth = 2.0 * (np.arange(12) > rise) - 1.0 * (np.arange(12) > fall) if turns else 0.1 * at
        found = critical_points(steps, truth + 0.1 * random.normal(size=12), 0.1, seed=seed)
        kinds = {"fastest rise": rise, "fastest fall": fall}
        hit = {
            point.kind
            for point in found
            if point.kind in kinds
            and point.low <= steps[kinds[point.kind]] + 1
            and point.high >= steps[kinds[point.kind] + 1] - 1
        }
        recalled += len(hit)
        extra += sum(point.kind in kinds for point in found) - len(hit)
        alarms += bool(found)
    row = {"case": "critical points" if turns else "critical points, a slope", "runs": runs}
    if turns:
        return {**row, "held by their interval": recalled / (2 * runs), "made up a run": extra / runs}
    return {**row, "false alarms": alarms / runs}


def path_row(runs: int, corner: bool) -> dict[str, Any]:
    """A path in three components: along one, then along another; or around a quarter of a circle."""
    steps = np.unique(np.round(np.geomspace(1, 10_000, 400)).astype(int))
    at = np.log(steps)
    recalled, covered, extra = 0, [], 0
    for seed in range(runs):
        random = np.random.default_rng(seed)
        place = random.uniform(4, 7)
        first, second = (1 / (1 + np.exp(-(at - place - shift) / 0.15)) for shift in (-0.8, 0.8))
        angle = np.pi / 2 * (at - at[0]) / (at[-1] - at[0])
        path = np.stack([first, second] if corner else [np.cos(angle), np.sin(angle)], axis=1)
        shaken = 0.01 * noise(random, len(at), 3, 0.5, 0.0)
        found = cusps(steps, np.concatenate([path, np.zeros((len(at), 1))], axis=1) + shaken, seed=seed)
        near = [one for one in found if abs(np.log(one.step) - place) < 0.8]
        recalled += bool(near)
        covered += [one.low <= np.exp(place) <= one.high for one in near[:1]]
        extra += len(found) - len(near) if corner else len(found)
    row = {"case": "cusps, a corner" if corner else "cusps, an arc", "runs": runs}
    if not corner:
        return {**row, "made up a run": extra / runs}
    return {**row, "recall": recalled / runs, "coverage": float(np.mean(covered)), "made up a run": extra / runs}


def main() -> None:
    """Measure and print all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)

    for row in planted_rows(options.histories):
        add(row)
    add(nothing_row(options.histories))
    add(cost_row())
    for planted_there in (True, False):
        add(readings_row(options.histories, planted_there))
        add(path_row(max(options.histories // 2, 1), planted_there))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
