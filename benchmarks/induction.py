"""Whether susceptibilities find the induction heads that attention patterns find, and when they do, over seeds.

    python benchmarks/induction.py
    python benchmarks/induction.py --seeds 0 1
    python benchmarks/induction.py --last           # at the end of training only: whether, not when

trains the network of the study ``induction`` from each seed, reads the eight heads of its second layer at every
checkpoint with the study's own probe, prints JSON lines and keeps them in ``benchmarks/results/induction.jsonl``. What
is compared was fixed on seed 100, which is not among those that are run: the prefix-matching score of a head
at the end of training, from attention alone, beside its standardised χ on the pattern "first time", from the losses
alone. ``control`` is the same over the prior, at nβ = 0. For every head that ends with a score above a half,
``transitions`` holds the interval of its score's own transition, and where ``nβ⟨L - L*⟩`` and χ are half way: χ as it
is, which at one head may be compared over time, and ``standardised``, which says of an untrained head already that
tokens seen for the first time do not feel it.
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
    chi, error, prior = (
        {name: [along(one, array) for one in read[name]] for name in HEADS}
        for array in ("standardised", "standardised_error", "prior")
    )
    steps = np.array(list(kept))
    ends = [[table[name][-1] for name in HEADS] for table in (scores, chi, error, prior)]
    found = rank_agreement(ends[0], ends[1], 0.0, ends[2])
    every = [one for readings in read.values() for one in readings]
    return {
        "seed": seed,
        "last": last,
        "heads": HEADS,
        "loss": float(history.losses["all"][-1]),
        "with_order": float(history.concepts["with order"][-1]),
        "score": numbers(ends[0]),
        "chi": numbers(ends[1]),
        "chi_error": numbers(ends[2]),
        "rank_correlation": found.correlation,
        "rank_error": found.std_error,
        "by_chance": found.by_chance,
        "same_heads": bool(np.array_equal(np.array(ends[0]) >= ACQUIRED, np.array(ends[1]) >= ACQUIRED)),
        "control": rank_agreement(ends[0], ends[3]).correlation,
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
    rows = {(one["last"], one["seed"]): one for one in before}
    for seed in options.seeds:
        rows[options.last, seed] = row(seed, options.last)
        line = json.dumps(rows[options.last, seed])
        print(line, flush=True)
        RESULTS.write_text("".join(json.dumps(rows[key]) + "\n" for key in sorted(rows)))


if __name__ == "__main__":
    main()
