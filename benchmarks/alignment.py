"""Alignment under the null and with something planted, and crossings of two phases whose free energies are known.

    python benchmarks/alignment.py                 # every row, about 6 minutes
    python benchmarks/alignment.py --only crossing

Keeps its lines in ``benchmarks/results/alignment.jsonl``.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import quad
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import brentq
from scipy.special import gammaln
from scipy.stats import kstest

import slt_jax as slt
from slt_jax.ladder import crossing, crossing_at
from slt_jax.spectroscopy import History, Series, align, detect_phases, events_of_series, shift_test, surrogate
from slt_jax.spectroscopy.controls import noise_transitions

RESULTS = Path(__file__).parent / "results" / "alignment.jsonl"
STEPS = np.unique(np.round(np.geomspace(1, 10_000, 2500)).astype(int))
LOGS = np.log(STEPS)
EVERYWHERE = (0.0, float(LOGS[-1]))
DRAWS = 500


def staircase(times, width=0.05):
    """A rise by 1 at each of the logarithms of steps."""
    return np.sum([1 / (1 + np.exp(-(LOGS - time) / width)) for time in times], axis=0)


def study(random, times_of_losses, times_of_readings, times_of_concepts):
    """Losses that fall, readings at 16 checkpoints that rise, and concepts, each at its own times, with noise."""
    losses = {
        f"loss {i}": (5 - staircase(times)) * (1 + 1e-3 * random.normal(size=STEPS.shape))
        for i, times in enumerate(times_of_losses)
    }
    readings = {}
    for i, times in enumerate(times_of_readings):
        at = np.sort(random.choice(len(STEPS), 16, replace=False))
        values = 3 * staircase(times)[at] + 0.1 * random.normal(size=16)
        readings[f"reading {i}"] = Series(STEPS[at], values, np.full(16, 0.1))
    concepts = {f"concept {i}": staircase([time], 0.03) for i, time in enumerate(times_of_concepts)}
    return History(STEPS, losses, concepts), readings


#: Phases only say to which phase a concept belongs, which is not looked at here.
PHASES = detect_phases(History(STEPS, {"all": 5 - staircase([4.0])}, {}))


def null_row(low, high, between, seed=0, readings=0, draws=DRAWS) -> dict[str, Any]:
    """Events anywhere between two logarithms of steps, all apart from one another: one pair and one source a draw."""
    random = np.random.default_rng(seed)
    single, together, any_found = [], [], 0
    for _ in range(draws):
        many = [random.uniform(low, high, random.integers(1, 4)) for _ in range(6)]
        history, read = study(random, many[:3], many[3 : 3 + readings], random.uniform(low, high, 6))
        found = align(history, PHASES, readings=read, between=between, controls=1)
        any_found += bool(found.found)
        kind = "reading" if readings else "loss"
        pairs = [pair.p for pair in found.pairs if pair.source.startswith(kind) and np.isfinite(pair.p)]
        single += [pairs[random.integers(len(pairs))]] if pairs else []
        sources = [source.p for source in found.sources if source.kind == kind and np.isfinite(source.p)]
        together += [sources[random.integers(len(sources))]] if sources else []
    row = {"seed": seed, "events between": [round(low, 2), round(high, 2)], "stretch": between or "estimated"}
    for what, values in ((f"{kind} and concept", single), (f"{kind} and all concepts at once", together)):
        p = np.array(values)
        row[what] = {
            "draws": len(p),
            "Kolmogorov-Smirnov p": round(float(kstest(p, "uniform").pvalue), 4),
            "share up to .05": round(float((p <= 0.05).mean()), 3),
            "share up to .01": round(float((p <= 0.01).mean()), 3),
        }
    return {**row, "draws with any false discovery at .05": any_found / draws}


def choice_row(seed=0) -> dict[str, Any]:
    """Four nulls for one curve against another, with nothing planted and with lags of 3 %: uniformity and power."""
    random = np.random.default_rng(seed)
    grid = np.linspace(*EVERYWHERE, 400)

    def speed(times):
        curve = np.interp(grid, LOGS, staircase(times) + 0.01 * random.normal(size=STEPS.shape))
        return np.abs(gaussian_filter1d(curve, 3, order=1, mode="nearest")), curve

    def one(planted):
        times = random.uniform(*EVERYWHERE, 3)
        time = times[0] + 0.03 * random.normal() if planted else random.uniform(*EVERYWHERE)
        (a, first), (b, second) = speed(times), speed([np.clip(time, *EVERYWHERE)])
        overlaps = np.fft.irfft(np.fft.rfft(a) * np.conj(np.fft.rfft(b)))
        copies = [surrogate(random, np.exp(grid), second) for _ in range(199)]
        noise = np.abs(gaussian_filter1d(copies, 3, order=1, mode="nearest"))
        correlated = abs(np.corrcoef(first, second)[0, 1])
        permuted = [abs(np.corrcoef(first, random.permutation(second))[0, 1]) for _ in range(199)]
        return {
            "events, shifted": float(shift_test([time], [0.0], times, EVERYWHERE)[0][0]),
            "overlap of speeds, shifted": float((overlaps >= overlaps[0]).mean()),
            "overlap of speeds, random phases": (1 + sum(n @ a >= b @ a for n in noise)) / 200,
            "correlation of curves, points permuted": (1 + sum(p >= correlated for p in permuted)) / 200,
        }

    null, planted = ([one(kind) for _ in range(DRAWS)] for kind in (False, True))
    return {
        name: {
            "Kolmogorov-Smirnov p": float(f"{kstest([row[name] for row in null], 'uniform').pvalue:.2g}"),
            "false alarms at .05": float(np.mean([row[name] <= 0.05 for row in null])),
            "false alarms at .01": float(np.mean([row[name] <= 0.01 for row in null])),
            "power at .05": float(np.mean([row[name] <= 0.05 for row in planted])),
            "power at .01": float(np.mean([row[name] <= 0.01 for row in planted])),
        }
        for name in null[0]
    }


def discovery_row(
    method="bh",
    rate=0.05,
    *,
    losses=4,
    readings=2,
    concepts=8,
    planted=4,
    lag=0.005,
    clustered=False,
    draws=200,
    seed=0,
) -> dict[str, Any]:
    """Some concepts follow a transition of one loss by about a lag, the others come when they like.

    A discovery is false where the concept was not planted at a transition of that source: also where by accident it
    lies as near.
    """
    random = np.random.default_rng(seed)
    shares, power, unadjusted = [], [], []
    for _ in range(draws):
        many = [random.uniform(*EVERYWHERE, random.integers(1, 4)) for _ in range(losses + readings)]
        own = random.integers(losses, size=planted)
        followers = [many[i][0] + lag * random.normal() for i in own]
        # concepts that come together make the tests depend on one another
        free = concepts - planted
        others = np.repeat(random.uniform(*EVERYWHERE), free) if clustered else random.uniform(*EVERYWHERE, free)
        times = np.clip([*followers, *others], 0.05, EVERYWHERE[1] - 0.05)
        history, read = study(random, many[:losses], many[losses:], times)
        found = align(history, PHASES, readings=read, rate=rate, method=method, controls=1)
        true = {(f"loss {source}", f"concept {i}") for i, source in enumerate(own)}
        right = [(pair.source, pair.concept) in true for pair in found.found]
        loose = [(pair.source, pair.concept) in true for pair in found.pairs if pair.p <= rate]
        shares.append(1 - np.mean(right) if right else 0.0)
        power.append(sum(right) / len(true) if true else 0.0)
        unadjusted.append(1 - np.mean(loose) if loose else 0.0)
    return {
        "method": method,
        "rate": rate,
        "pairs": (losses + readings) * concepts,
        "planted": planted,
        "lag": lag,
        "clustered": clustered,
        "false-discovery rate": round(float(np.mean(shares)), 4),
        "its error": round(float(np.std(shares) / np.sqrt(draws)), 4),
        "power": round(float(np.mean(power)), 3),
        "unadjusted": round(float(np.mean(unadjusted)), 3),
    }


def checkpoint_row(draws=DRAWS, seed=0) -> dict[str, Any]:
    """Probes of noise at checkpoints that were chosen around transitions: how often they are near to what happened."""
    random = np.random.default_rng(seed)
    alone, beside = [], []
    for _ in range(draws // 10):
        events = np.cumsum(random.uniform(1.0, 3.0, 2)) + 1.0
        at = np.round(np.exp([0.8, *np.sort([*(events - 0.15), *(events + 0.15)]), 9.0])).astype(int)
        values = 2.0 * (np.log(at)[:, None] > events).sum(axis=1) + 0.05 * random.normal(size=6)
        series = Series(at, values, np.full(6, 0.05))
        noise = noise_transitions(int(random.integers(1000)), series)
        for _ in range(10):
            found = events_of_series("noise", series._replace(values=surrogate(random, at, values)))
            if len(found.steps):
                arguments = events, np.zeros(2), np.log(found.steps), EVERYWHERE
                alone.append(shift_test(*arguments)[0])
                beside.append(shift_test(*arguments, noise)[0])
    return {
        "probes of noise": len(alone),
        "share up to .05 by shifts alone": round(float((np.array(alone) <= 0.05).mean()), 3),
        "share up to .05 beside noise at the same checkpoints": round(float((np.array(beside) <= 0.05).mean()), 3),
    }


# --- two phases: K = Σ |w|^p in d dimensions over [-1, 1]^d, or x²y², with their integrals by quadrature


def log_integral(power, n):
    """``log ½∫ exp(-n |w|^p) dw`` over ``[-1, 1]``."""
    scale = n ** (-1 / power)
    return np.log(scale * quad(lambda v: np.exp(-(v**power)), 0, min(1 / scale, 40))[0])


def exact_crossing(before, after):
    """Where the free energies of two phases ``(L, p, d)`` cross, without any expansion."""

    def gap(log_n):
        n = np.exp(log_n)
        energies = [n * loss - dims * log_integral(power, n) for loss, power, dims in (before, after)]
        return energies[1] - energies[0]

    return float(np.exp(brentq(gap, 3.0, 20.0)))


def law_row(before, after) -> dict[str, Any]:
    """The crossing of ``n L + λ log n``, without and with the term of order 1, beside the exact one."""
    truth = exact_crossing(before, after)
    change = after[0] - before[0], after[2] / after[1] - before[2] / before[1]
    constant = before[2] * gammaln(1 + 1 / before[1]) - after[2] * gammaln(1 + 1 / after[1])
    return {
        "phases (L, power, dimensions)": [before, after],
        "exact": round(truth, 2),
        "orders n and log n": round(crossing_at(*change), 2),
        "and order 1": round(crossing_at(*change, 0.0, constant), 2),
    }


def multiplicity_row() -> dict[str, Any]:
    """``x²y²`` (λ = 1/2, m = 2) against four squares (λ = 2, m = 1): with and without ``log log n``."""

    def log_cross(n):
        scale = np.sqrt(n)
        # ∫∫ over [0, 1]² of exp(-n x²y²) as one integral over the product
        return np.log(quad(lambda v: np.exp(-(v**2)) * np.log(scale / v), 0, min(scale, 40))[0] / scale)

    def gap(log_n):
        n = np.exp(log_n)
        return -n * 1e-3 - 4 * log_integral(2, n) + log_cross(n)

    truth = float(np.exp(brentq(gap, 3.0, 20.0)))
    constant = -4 * gammaln(1.5) + np.log(np.sqrt(np.pi) / 4)
    return {
        "exact": round(truth, 1),
        "m left out": round(crossing_at(-1e-3, 1.5, 0.0, constant), 1),
        "m taken in": round(crossing_at(-1e-3, 1.5, -1.0, constant), 1),
    }


def coverage_row(before, after, draws=1000, examples=400, seed=0) -> dict[str, Any]:
    """Intervals over draws of the examples' losses and of the errors of two readings of λ."""
    random = np.random.default_rng(seed)
    truth = exact_crossing(before, after)
    constant = before[2] * gammaln(1 + 1 / before[1]) - after[2] * gammaln(1 + 1 / after[1])
    change = after[0] - before[0], after[2] / after[1] - before[2] / before[1]
    held, open_ended = 0, 0
    for _ in range(draws):
        losses = change[0] + 4 * abs(change[0]) * random.normal(size=examples)
        read = change[1] + 0.15 * random.normal()
        error = losses.std(ddof=1) / np.sqrt(examples)
        found = crossing(losses.mean(), read, loss_error=error, coefficient_error=0.15, constant_change=constant)
        held += found.low <= truth <= found.high
        open_ended += not np.isfinite(found.high)
    return {"draws": draws, "coverage of 95 %": held / draws, "open above": open_ended / draws}


def sampled_row(seeds=20) -> dict[str, Any]:
    """Both readings by ``llc``, the losses from examples: is the exact crossing in the interval?"""
    before, after = (0.06, 4, 2), (0.05, 2, 4)
    truth = exact_crossing(before, after)
    constant = before[2] * gammaln(1 + 1 / before[1]) - after[2] * gammaln(1 + 1 / after[1])

    def quartic(w, batch):
        return jnp.sum(w**4) + batch

    def quadratic(w, batch):
        return jnp.sum(w**2) + batch

    held, values = 0, []
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        one = before[0] + 0.03 * random.normal(size=400)
        other = one + after[0] - before[0] + 0.03 * random.normal(size=400)
        keys = jax.random.split(jax.random.key(seed))
        settings = {"nbeta": 1e4, "gamma": 0.05, "chains": 8, "draws": 3000, "burnin": 1000}
        first = slt.llc(keys[0], quartic, jnp.zeros(before[2]), jnp.asarray(one), **settings)
        second = slt.llc(keys[1], quadratic, jnp.zeros(after[2]), jnp.asarray(other), **settings)
        change = other - one
        found = crossing(
            float(change.mean()),
            float(second.value - first.value),
            loss_error=float(change.std(ddof=1) / np.sqrt(len(change))),
            coefficient_error=float(np.hypot(first.std_error, second.std_error)),
            constant_change=constant,
        )
        held += found.low <= truth <= found.high
        values.append(round(found.n, 1))
    return {"exact": round(truth, 1), "held": f"{held} of {seeds}", "crossings": values}


def never_row(draws=500, seed=0) -> dict[str, Any]:
    """A later phase that is better in both: there is no crossing, and none is claimed."""
    random = np.random.default_rng(seed)
    found = [
        crossing(-0.01 + 1e-3 * random.normal(), -1.5 + 0.15 * random.normal(), loss_error=1e-3, coefficient_error=0.15)
        for _ in range(draws)
    ]
    return {
        "draws": draws,
        "crossings claimed": sum(bool(np.isfinite(one.n)) for one in found),
        "largest certainty of one": max(one.certainty for one in found),
    }


def keep(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("null", "choice", "discovery", "crossing"))
    chosen = parser.parse_args().only
    if chosen in (None, "null"):
        for seed in range(3):
            keep({"row": "null", **null_row(*EVERYWHERE, (1, 10_000), seed)})
            keep({"row": "null", **null_row(*EVERYWHERE, None, seed)})
        keep({"row": "null", **null_row(3.0, 6.0, None)})
        keep({"row": "null", **null_row(3.0, 6.0, (1, 10_000))})
        keep({"row": "null", **null_row(*EVERYWHERE, None, readings=1, draws=200)})
    if chosen in (None, "choice"):
        keep({"row": "choice", **choice_row()})
        keep({"row": "checkpoints", **checkpoint_row()})
    if chosen in (None, "discovery"):
        for settings in (
            {},
            {"clustered": True},
            {"planted": 0},
            {"rate": 0.2},
            {"rate": 0.2, "clustered": True},
            {"lag": 0.02},
            {"method": "by"},
            {"losses": 11, "concepts": 12, "planted": 6},
        ):
            keep({"row": "discovery", **discovery_row(**settings)})
    if chosen in (None, "crossing"):
        phases = ((0.06, 4, 2), (0.05, 2, 4)), ((0.06, 2, 1), (0.0599, 2, 9))
        for pair in phases:
            keep({"row": "law", **law_row(*pair)})
            keep({"row": "coverage", **coverage_row(*pair)})
        keep({"row": "multiplicity", **multiplicity_row()})
        keep({"row": "sampled", **sampled_row()})
        keep({"row": "never", **never_row()})


if __name__ == "__main__":
    main()
