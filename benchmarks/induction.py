"""Whether susceptibilities find the induction heads that attention patterns find, and when they do, over seeds.

    python benchmarks/induction.py
    python benchmarks/induction.py --seeds 0 1
    python benchmarks/induction.py --last           # at the end of training only: whether, not when

trains the network of the study ``induction`` from each seed, reads the eight heads of its second layer at every
checkpoint with the study's own probe, prints JSON lines and keeps them in ``benchmarks/results/induction.jsonl``. What
is compared was fixed on seeds 100 to 103, which are not among those that are run: the prefix-matching score of a head
the end of training, from attention alone, beside its χ on the pattern "first time", from the losses alone; which heads
by the score and by the standardised χ, above a half. ``control`` is the standardised χ over the prior, at nβ = 0,
beside the scores. The last line holds all heads of all seeds together. For every head that ends with a score above a
half, ``transitions`` holds the interval of its score's own transition, and where ``nβ⟨L - L*⟩`` and χ are half way: χ
as it is, which at one head may be compared over time, and ``standardised``, which says of an untrained head already
that tokens seen for the first time do not feel it.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import jax
import numpy as np

from slt_jax.spectroscopy import Checkpoint, half_way, own_transition, rank_agreement, recorder_of, scan
from slt_jax.studies import induction
from slt_jax.studies.induction_training import NETWORK
from slt_jax.studies.study import train

RESULTS = Path(__file__).parent / "results" / "induction.jsonl"
HEADS = [f"head 1.{head}" for head in range(NETWORK.heads)]
[(FAMILY, OBSERVABLE)] = induction.study().rankings
ACQUIRED = 0.5


def row(seed: int, last: bool) -> dict:
    """Everything that is compared, for one seed; of the last checkpoint only, if so asked."""
    began = time.process_time(), time.time()
    study, kept = induction.study(), {}
    train_key, scan_key = jax.random.split(jax.random.key(seed))
    recorder = recorder_of(study.subject, study.record_at)
    history = train(train_key, study, recorder, kept.__setitem__, lambda done, total: None)
    trained = time.process_time() - began[0]
    if last:
        kept = dict([kept.popitem()])
    checkpoints = [Checkpoint(step, lambda params=params: params) for step, params in kept.items()]
    probes = {"susceptibility": study.probes["susceptibility"]}
    read = {name: [] for name in HEADS}
    for cell in scan(scan_key, study.subject, checkpoints, probes, restrictions=HEADS):
        if cell.reading is None:
            raise RuntimeError(f"{cell.restriction} at step {cell.step}: {cell.error}")
        read[cell.restriction].append(cell.reading)
    scores = {name: history.concepts[name.replace("head", FAMILY)] for name in HEADS}
    chi, error, standardised, prior = (
        {name: [along(one, array) for one in read[name]] for name in HEADS}
        for array in ("susceptibility", "susceptibility_error", "standardised", "prior")
    )
    steps = np.array(list(kept))
    ends = [[table[name][-1] for name in HEADS] for table in (scores, standardised, prior, chi, error)]
    unit = max(map(abs, ends[3]))
    found = rank_agreement(ends[0], ends[3], 0.0, ends[4])
    every = [one for readings in read.values() for one in readings]
    return {
        "seed": seed,
        "last": last,
        "heads": HEADS,
        "loss": float(history.losses["all"][-1]),
        "with_order": float(history.concepts["with order"][-1]),
        "score": numbers(ends[0]),
        "chi": numbers(np.array(ends[3]) / unit),
        "chi_error": numbers(np.array(ends[4]) / unit),
        "chi_unit": unit,
        "standardised": numbers(ends[1]),
        "prior": numbers(ends[2]),
        "rank_correlation": found.correlation,
        "rank_error": found.std_error,
        "by_chance": found.by_chance,
        "same_heads": bool(np.array_equal(np.array(ends[0]) >= ACQUIRED, np.array(ends[1]) >= ACQUIRED)),
        "control": rank_agreement(ends[0], ends[2]).correlation,
        "transitions": [
            {"head": name, **transition(own_transition(history.steps, scores[name]), steps, read[name])}
            for name in HEADS
            if not last and scores[name][-1] >= ACQUIRED
        ],
        "readings": len(every),
        "healthy": sum(bool(one["healthy"]) for one in every),
        "train_cpu_s": round(trained, 1),
        "cpu_s": round(time.process_time() - began[0], 1),
        "wall_s": round(time.time() - began[1], 1),
        "machine": platform.machine(),
        "jax": jax.__version__,
    }


def transition(interval, steps, readings) -> dict:
    """The interval of a score's own transition, and where the readings of its head are half way."""
    found = {"interval": numbers(interval)}
    for name, array, error in (
        ("value", "value", "std_error"),
        ("chi", "susceptibility", "susceptibility_error"),
        ("standardised", "standardised", "standardised_error"),
    ):
        values, errors = ([along(one, each) for one in readings] for each in (array, error))
        # in units of the largest: nats² are too small to be written in four digits
        scale = max(map(abs, values)) or 1.0
        half = half_way(steps, np.array(values) / scale, np.array(errors) / scale)
        found |= {
            f"{name}_by_step": numbers(np.array(values) / scale),
            f"{name}_half_way": numbers(half),
            f"{name}_within": half.within(interval),
        }
    return found


def along(reading, array: str) -> float:
    """A number of a reading, or that of the observable where it has one for each."""
    found = reading[array]
    return float(found if found.ndim == 0 else found[reading["observable"].tolist().index(OBSERVABLE)])


def numbers(values) -> list:
    return [None if np.isnan(value) else round(float(value), 4) for value in values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--last", action="store_true", help="read the last checkpoint only")
    options = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    before = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    rows = {(one["last"], one["seed"]): one for one in before if "seed" in one}
    for seed in options.seeds:
        rows[options.last, seed] = row(seed, options.last)
        print(json.dumps(rows[options.last, seed]), flush=True)
        lines = [rows[key] for key in sorted(rows)]
        lines += [together([one for one in lines if one["last"] is last]) for last in {one["last"] for one in lines}]
        RESULTS.write_text("".join(json.dumps(one) + "\n" for one in lines))
    print(json.dumps(lines[-1]), flush=True)


def together(rows: list[dict]) -> dict:
    """All heads of all seeds in one order."""
    score, chi, error, prior = (
        np.concatenate([np.array(one[name]) * (one["chi_unit"] if "chi" in name else 1) for one in rows])
        for name in ("score", "chi", "chi_error", "prior")
    )
    found = rank_agreement(score, chi, 0.0, error)
    return {
        "seeds": [one["seed"] for one in rows],
        "last": rows[0]["last"],
        "rank_correlation": found.correlation,
        "rank_error": found.std_error,
        "by_chance": found.by_chance,
        "control": rank_agreement(score, prior).correlation,
    }


if __name__ == "__main__":
    main()
