"""What networks that learn a group have in common: two architectures, three seeds each, and the published circuit.

    python benchmarks/groups.py
    python benchmarks/groups.py --compare           # only compare again what is in the file

trains the network of the study ``groups`` (cyclic of order 29, 60 % of the table) with ReLU and with GELU units, reads
λ̂ on the trained and on the held-out pairs at six steps that are the same for all, prints JSON lines and keeps them in
``benchmarks/results/groups.jsonl``. A row is a network: the power of each representation in both embeddings and the
unembedding, what the logits hold of it and how much of that is its character of a b c⁻¹, the restricted and the
excluded loss for the key representations, which are those present at the end, and its curves. Two controls without
readings are trained with a weight decay of 0.2.

The last row compares. ``stages``: changes of losses, concepts and λ̂ over eight stages of training; ``phases``: the same
phase by phase, as they are found in each; ``representations``: what left, right, unembedding and logits hold of each,
assigned; ``named``: the same without assignment, each representation beside its namesake; ``untrained``: assigned,
before training.
"""

import argparse
import itertools
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax.spectroscopy import (
    Checkpoint,
    History,
    Signature,
    align,
    compare,
    detect_phases,
    llc_probe,
    phase_signature,
    recorder_of,
    scan,
    stage_signature,
)
from slt_jax.studies import groups
from slt_jax.studies.finite_groups import cyclic
from slt_jax.studies.groups_training import Network
from slt_jax.studies.representations import characters_of, present, restricted, spectrum
from slt_jax.studies.study import log_steps, train

RESULTS = Path(__file__).parent / "results" / "groups.jsonl"
ORDER, SHARE = 29, 0.6
GROUP = cyclic(ORDER)
NAMES = list(GROUP.characters)
PARTS = ("trained pairs", "held-out pairs")
PROBE = llc_probe(nbeta=groups.NBETA, gamma=groups.GAMMA, chains=4, draws=600, burnin=300, resolution=True)
#: Of the curves that are kept in a row.
KEPT = 60
#: Architecture, weight decay and seed: of the first weights and of which pairs are trained on, so no two share it.
NETWORKS = [
    *(("relu", 1.0, 0), ("gelu", 1.0, 3), ("relu", 1.0, 1), ("gelu", 1.0, 4), ("relu", 1.0, 2), ("gelu", 1.0, 5)),
    *(("relu", 0.2, 0), ("quadratic", 0.2, 1)),
]
#: Steps at which λ̂ is read: memorising is over by the third, and the last is the end.
READ = (30, 100, 400, 1200, 2500, 6000)


def row(activation: str, seed: int, weight_decay: float) -> dict:
    """A network: trained, read where it is not a control, and taken apart at its end."""
    began = time.process_time()
    study = groups.study(order=ORDER, share=SHARE, activation=activation, weight_decay=weight_decay, seed_of_pairs=seed)
    study = study._replace(keep_at=np.unique([0, *READ]))
    kept: dict = {}
    train_key, scan_key = jax.random.split(jax.random.key(seed))
    recorder = recorder_of(study.subject, study.record_at)
    history = train(train_key, study, recorder, kept.__setitem__, lambda done, total: None)
    readings: dict = {}
    if weight_decay == 1:
        checkpoints = [Checkpoint(step, lambda params=kept[step]: params) for step in READ]
        for cell in scan(scan_key, study.subject, checkpoints, {"llc": PROBE}, sublosses=PARTS):
            if cell.reading is None:
                raise RuntimeError(f"{cell.subloss} at step {cell.step}: {cell.error}")
            found = [float(cell.reading[name]) for name in ("value", "std_error")]
            readings.setdefault(cell.subloss, {})[cell.step] = [*found, bool(cell.reading["healthy"])]
    phases = detect_phases(history)
    network = Network(ORDER, 64, 128, activation)
    at = np.unique(np.searchsorted(history.steps, log_steps(int(history.steps[-1]), KEPT)))
    return {
        "activation": activation,
        "seed": seed,
        "weight_decay": weight_decay,
        "transitions": phases.transitions.tolist(),
        "acquired": {one.concept: one.step for one in align(history, phases).acquisitions if one.step is not None},
        "losses": {name: float(curve[-1]) for name, curve in history.losses.items()},
        "start": taken_apart(network, kept[0], seed),
        "end": taken_apart(network, kept[READ[-1]], seed),
        "readings": readings,
        "history": {
            "steps": history.steps[at].tolist(),
            "losses": {name: rounded(curve[at]) for name, curve in history.losses.items()},
            "concepts": {name: rounded(curve[at]) for name, curve in history.concepts.items()},
        },
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def taken_apart(network: Network, params: dict, seed: int) -> dict:
    """The circuit: spectra of the weights, characters of the logits, and losses with and without the keys."""
    logits = groups.table_of_logits(network, params)
    shares = characters_of(GROUP, logits)
    presence = np.asarray(present(GROUP, logits))
    keys = [name for name, value in zip(NAMES, presence, strict=True) if value >= 0.5]
    spectra = {
        "left": spectrum(GROUP, params["left"]),
        "right": spectrum(GROUP, params["right"]),
        "unembedding": spectrum(GROUP, params["unembed"].T),
    }
    key = np.isin(NAMES, keys)
    with_keys, without = restricted(GROUP, logits, keys)
    trained, held = groups.split(GROUP, SHARE, seed)
    tables = {"logits": logits, "restricted": with_keys, "excluded": without}
    # the rest of the logits among the characters alone, without anything else
    return {
        "keys": keys,
        "power": {name: rounded(found) for name, found in spectra.items()},
        "power_of_keys": {name: float(np.asarray(found)[key].sum()) for name, found in spectra.items()},
        "correlation": {
            f"{one}, {other}": float(np.corrcoef(np.log(spectra[one][1:]), np.log(spectra[other][1:]))[0, 1])
            for one, other in itertools.combinations(spectra, 2)
        },
        "holds": rounded(shares.holds),
        "characters": rounded(shares.characters),
        "characters_of_keys": float(np.asarray(shares.characters)[key].sum()),
        "loss": {
            name: {part: loss(table, places) for part, places in zip(PARTS, (trained, held), strict=True)}
            for name, table in tables.items()
        },
    }


def loss(logits: jax.Array, places: np.ndarray) -> float:
    """Mean cross-entropy of the pairs at ``places``, nats."""
    said = jax.nn.log_softmax(logits.reshape(-1, ORDER))[places]
    return float(-jnp.mean(said[np.arange(len(places)), GROUP.table.ravel()[places]]))


def comparison(rows: list[dict]) -> dict:
    """What all networks with weight decay 1 have in common, by their healthy readings."""
    networks = [one for one in rows if one["weight_decay"] == 1]
    phases, stages, found, untrained = [], [], [], []
    for one in networks:
        name, kind = f"{one['activation']} {one['seed']}", one["activation"]
        history = History(
            np.array(one["history"]["steps"]),
            *(
                {key: np.array(curve) for key, curve in one["history"][table].items()}
                for table in ("losses", "concepts")
            ),
        )
        readings = {
            f"λ̂ {part}": {int(step): tuple(value[:2]) for step, value in values.items() if value[2]}
            for part, values in one["readings"].items()
        }
        phases.append(phase_signature(name, history, detect_phases(history), readings, kind=kind))
        stages.append(stage_signature(name, history, readings, kind=kind))
        for place, signatures in (("end", found), ("start", untrained)):
            signatures.append(Signature(name, tuple(NAMES[1:]), columns(one[place]), kind))
    tables = {
        "phases": compare(phases),
        "stages": compare(stages, matched=False),
        "representations": compare(found),
        "named": compare(found, matched=False),
        "untrained": compare(untrained),
    }
    for name, table in tables.items():
        print(f"{name}\n{table.describe()}", flush=True)
    return {"comparison": {name: table.to_json() for name, table in tables.items()}}


def columns(parts: dict) -> dict[str, np.ndarray]:
    """Of every representation but the trivial one, which the logits do not tell."""
    power = {f"power in {name}": np.array(values)[1:] for name, values in parts["power"].items()}
    return {**power, "held by logits": np.array(parts["holds"])[1:], "character": np.array(parts["characters"])[1:]}


def rounded(values: jax.Array | np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in np.asarray(values)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", action="store_true", help="train nothing")
    options = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    before = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    rows = {(one["activation"], one["weight_decay"], one["seed"]): one for one in before if "seed" in one}
    for activation, weight_decay, seed in [] if options.compare else NETWORKS:
        rows[activation, weight_decay, seed] = row(activation, seed, weight_decay)
        print(json.dumps(rows[activation, weight_decay, seed]), flush=True)
        write([rows[key] for key in sorted(rows)])
    ordered = [rows[key] for key in sorted(rows)]
    write([*ordered, comparison(ordered)])


def write(rows: list[dict]) -> None:
    RESULTS.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows))


if __name__ == "__main__":
    main()
