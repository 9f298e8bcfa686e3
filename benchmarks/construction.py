"""Constructions whose graph is known: hierarchies learned split by split, planted compositions, induction heads.

    python benchmarks/construction.py                       # every row, about half an hour
    python benchmarks/construction.py --only composition    # or semantics, shuffled, coefficients, induction

One JSON line a run, kept in ``benchmarks/results/construction.jsonl`` in place of older ones of the same kind;
``--seeds`` says how many runs of each.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from slt_jax import Problem, restriction
from slt_jax.spectroscopy import (
    Checkpoint,
    History,
    Phases,
    Subject,
    Subloss,
    align,
    assembled,
    construct,
    detect_phases,
    grafts,
    recorder_of,
    relations,
    states_at_plateaus,
)
from slt_jax.spectroscopy.probes import measure_llc
from slt_jax.studies import induction, semantics
from slt_jax.studies.hierarchy import Hierarchy, hierarchy, strengths_apart
from slt_jax.studies.markov_chains import sample_chains
from slt_jax.studies.study import Study, train

RESULTS = Path(__file__).parent / "results" / "construction.jsonl"
DEPTHS = (2, 3, 4)
#: Modes weaker than this share of the strongest would take a hundred times as long, and are left out of shuffled facts.
WEAKEST = 0.01


def learned(study: Study, seed: int) -> tuple[History, Phases, list[Checkpoint]]:
    """A training run in double precision, so that what is small beside what is large can grow; kept in single."""
    kept: dict[int, Any] = {}
    with jax.enable_x64(True):
        recorder = recorder_of(study.subject, study.record_at)
        history = train(jax.random.key(seed), study, recorder, kept.__setitem__, lambda done, total: None)
    single = {step: jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params) for step, params in kept.items()}
    points = [Checkpoint(step, Partial(lambda params: params, params)) for step, params in single.items()]
    return history, detect_phases(history), points


def graph_of(facts: Hierarchy, seed: int) -> tuple[Any, dict[str, Any]]:
    """The construction of a run, and what is kept of it."""
    begun = time.process_time()
    study = semantics.study(facts)
    history, phases, points = learned(study, seed)
    trained = time.process_time()
    found = relations(study.subject, phases, points)
    built = construct(history, phases, align(history, phases), {}, **found._asdict())
    names = {record.phase: "+".join(record.concepts) for record in built.phases}
    edges = {kind: sorted([names[e.later], names[e.earlier]] for e in built.edges if e.kind == kind) for kind in KINDS}
    kept = found.grafted.kept[np.isfinite(found.grafted.kept)]
    return built, {
        "phases": len(phases.transitions),
        "edges": edges,
        "pairs": sum(one.kind == "refines" for one in built.relations),
        "largest adjusted p of an edge": max((e.adjusted for e in built.edges), default=None),
        "kept_least": float(kept.min()) if kept.size else None,
        "kept_most": float(kept.max()) if kept.size else None,
        "cpu_s": [round(trained - begun, 1), round(time.process_time() - trained, 1)],
    }


KINDS = ("refines", "was built on")


def semantics_rows(seeds: int) -> Iterator[dict[str, Any]]:
    """Every split a transition of its own, in a random order in which none comes before that above it."""
    for depth in DEPTHS:
        for seed in range(seeds):
            facts = hierarchy(depth, strengths_apart(depth, seed=seed))
            built, row = graph_of(facts, seed)
            truth = sorted([name, parent] for name, parent in facts.parents.items() if parent)
            kinds = [record.kind for record in built.phases[1:]]
            yield {
                "case": "semantics",
                "depth": depth,
                "seed": seed,
                "refines_is_the_hierarchy": row["edges"]["refines"] == truth,
                "built_on_is_empty": not row["edges"]["was built on"],
                "kinds": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
                **row,
            }


def shuffled(depth: int, seed: int) -> Hierarchy:
    """The same properties, each dealt to the items anew: a map whose modes split nothing one after another."""
    facts = hierarchy(depth, strengths_apart(depth, seed=seed))
    dealt = np.random.default_rng([depth, seed]).permuted(facts.properties, axis=0)
    left, strengths, right = np.linalg.svd(dealt, full_matrices=False)
    strong = strengths > WEAKEST * strengths[0]
    names = [f"mode {at}" for at in range(int(strong.sum()))]
    return Hierarchy(
        ((left[:, strong] * strengths[strong]) @ right[strong]).astype(np.float32),
        facts.levels,
        dict(zip(names, left[:, strong].T.astype(np.float32), strict=True)),
        dict(zip(names, strengths[strong].tolist(), strict=True)),
        dict.fromkeys(names),
    )


def shuffled_rows(seeds: int) -> Iterator[dict[str, Any]]:
    """Networks trained on shuffled labels."""
    for depth in DEPTHS:
        for seed in range(seeds):
            _, row = graph_of(shuffled(depth, seed), seed)
            yield {"case": "shuffled", "depth": depth, "seed": seed, "false_edges": len(row["edges"]["refines"]), **row}


def coefficient_rows(seeds: int) -> Iterator[dict[str, Any]]:
    """The change of λ over every phase beside the exact one, by the settings of the study."""
    for depth in DEPTHS:
        for seed in range(seeds):
            begun = time.process_time()
            facts = hierarchy(depth, strengths_apart(depth, seed=seed))
            study = semantics.study(facts)
            history, phases, points = learned(study, seed)
            values, exact = {}, []
            states = states_at_plateaus(phases, points)
            for at, (params, plateau) in enumerate(zip(states, phases.plateaus.tolist(), strict=True)):
                params = jax.tree.map(jnp.asarray, params)
                problem = Problem(
                    study.subject.problem.loss_fn, params, semantics.own_outputs(params, study.subject.problem.data)
                )
                key = jax.random.fold_in(jax.random.key(seed), at)
                reading = measure_llc(key, problem, None, **study.probes["llc"].settings)
                values[plateau] = (float(reading["value"]), float(reading["std_error"]))
                exact.append(float(study.exact(params).learning_coefficient))
            built = construct(history, phases, align(history, phases), values)
            changes = [record.reading_change for record in built.phases[1:]]
            errors = [(c[0] - e) / c[1] for c, e in zip(changes, np.diff(exact), strict=True)]
            yield {
                "case": "coefficients",
                "depth": depth,
                "seed": seed,
                "exact_changes": np.diff(exact).tolist(),
                "changes": [[round(part, 3) for part in change] for change in changes],
                "standard_errors_off": [round(error, 2) for error in errors],
                "beyond_3": int(np.sum(np.abs(errors) > 3)),
                "cpu_s": round(time.process_time() - begun, 1),
            }


STREAM, HIDDEN, BITS, EXAMPLES = 8, 16, 4, 256


def streamed(params: Any, bits: Any) -> Any:
    """Two blocks that read the residual stream and write into it: four bits, two empty places, two answers."""
    stream = jnp.pad(bits, ((0, 0), (0, STREAM - BITS)))
    for block in ("first", "second"):
        weights = params[block]
        stream = stream + jax.nn.relu(stream @ weights["in"] + weights["bias"][None]) @ weights["out"]
    return stream


def answer_loss(place: int, params: Any, batch: Any) -> Any:
    """``½ (answer - target)²`` of one of the two answers, shape ``(B,)``."""
    return 0.5 * (streamed(params, batch["bits"])[:, place] - batch["targets"][:, place - STREAM]) ** 2


def both_losses(params: Any, batch: Any) -> Any:
    """The sum of both."""
    return answer_loss(STREAM - 2, params, batch) + answer_loss(STREAM - 1, params, batch)


def composed(seed: int, independent: bool) -> tuple[Subject, list[Any]]:
    """Two blocks trained one after the other, and the network before, between and after.

    The first learns ``x₁x₂``. The second learns ``x₃`` times that, which the first has written into the stream where
    the second can read it; or, independently, ``x₃x₄``. Both see all of the stream.
    """
    keys = jax.random.split(jax.random.key(seed), 4)
    bits = jnp.sign(jax.random.normal(keys[0], (EXAMPLES, BITS)))
    first = bits[:, 0] * bits[:, 1]
    second = bits[:, 2] * (bits[:, 3] if independent else first)
    data = {
        "bits": bits + 0.1 * jax.random.normal(keys[1], bits.shape),
        "targets": jnp.stack([first, second], axis=1),
    }

    def block(key: Any) -> Any:
        return {
            # small, so that what a block does not need it hardly reads
            "in": 0.1 * jax.random.normal(key, (STREAM, HIDDEN)) / STREAM**0.5,
            "bias": jnp.zeros(HIDDEN),
            "out": jnp.zeros((HIDDEN, STREAM)),
        }

    states = [{"first": block(keys[2]), "second": block(keys[3])}]
    for name, place in (("first", STREAM - 2), ("second", STREAM - 1)):
        states.append({**states[-1], name: _trained(states[-1], name, place, data)})
    losses = {f"answer {at + 1}": Subloss(Partial(answer_loss, STREAM - 2 + at), data) for at in (0, 1)}
    return Subject(Problem(both_losses, states[0], data), losses), states


def _trained(params: Any, name: str, place: int, data: Any) -> Any:
    """One block after 1500 steps of Adam on its own answer, all else frozen; it writes there alone."""
    writes = jnp.arange(STREAM) == place
    optimizer = optax.adam(1e-2)

    def loss(block: Any) -> Any:
        only = {**block, "out": block["out"] * writes[None]}
        return jnp.mean(answer_loss(place, {**params, name: only}, data))

    def step(carry: Any, _: Any) -> Any:
        block, state = carry
        changes, state = optimizer.update(jax.grad(loss)(block), state)
        return (optax.apply_updates(block, changes), state), None

    run = jax.jit(lambda block: jax.lax.scan(step, (block, optimizer.init(block)), length=1500)[0][0])
    return run(params[name])


def composition_rows(seeds: int) -> Iterator[dict[str, Any]]:
    """An edge where the second block reads the first, and none where it does not."""
    for independent in (False, True):
        for seed in range(seeds):
            subject, states = composed(seed, independent)
            found = grafts(subject, states)
            yield {
                "case": "independent" if independent else "composed",
                "seed": seed,
                "edge": bool(found.found[1, 0]),
                "as_planted": bool(found.found[1, 0]) != independent,
                **{name: float(getattr(found, name)[1, 0]) for name in ("kept", "low", "high", "p_values")},
                "gains": found.gains.tolist(),
            }


#: Steps between which both layers' heads form, and heads of a layer, in two halves.
FROM, TO, HALF = 60, 420, 4
LAYERS = ("previous token", "prefix matching")


def missed(layer: int, params: Any, batch: Any) -> Any:
    """1 less the mean score of a layer's heads in each sequence: by the first layer previous token, else prefix."""
    return jax.vmap(lambda tokens: 1 - jnp.mean(induction.head_scores(params, tokens[None])[layer]))(batch["tokens"])


def induction_rows(seeds: int) -> Iterator[dict[str, Any]]:
    """The heads of the second layer with and without those of the first, and the other way around.

    Both concepts are acquired in one transition of the loss: what stands in the place of phases is what each layer
    changed over it. On the loss the two need each other, as the contrast of grafts is symmetric there; judged on its
    own concept, each layer shows whether it was built on the other. The control: half of the induction heads without
    the other half.
    """
    study = induction.study()
    tokens = sample_chains(jax.random.key(2402), induction.WATCHED, induction.LENGTH + 1, induction.SYMBOLS)
    scores = {name: Subloss(Partial(missed, at), {"tokens": tokens[:16]}) for at, name in enumerate(LAYERS)}
    subject = study.subject._replace(sublosses=scores)
    study = study._replace(keep_at=np.array([0, FROM, TO]), record_at=np.array([0, TO]))
    for seed in range(seeds):
        begun = time.process_time()
        kept: dict[int, Any] = {}
        recorder = recorder_of(study.subject._replace(concepts={}), study.record_at)
        train(jax.random.key(seed), study, recorder, kept.__setitem__, lambda done, total: None)
        before, after = kept[FROM], kept[TO]
        layers = [restriction.layer(before, f"attention_{at}") for at in (0, 1)]
        row: dict[str, Any] = {"case": "induction", "seed": seed}
        for order in (LAYERS, LAYERS[::-1]):
            _, states = assembled(before, after, {name: layers[LAYERS.index(name)] for name in order})
            for title, judged in (("its concept", ["all", *order]), ("the loss", ["all"] * 3)):
                found = grafts(subject, states, judged=judged)
                kept_of = {name: float(getattr(found, name)[2, 1]) for name in ("kept", "low", "high", "adjusted")}
                row[f"{order[1]} without {order[0]}, by {title}"] = {**kept_of, "edge": bool(found.found[2, 1])}
        forward, backward = (f"{a} without {b}, by its concept" for a, b in (LAYERS[::-1], LAYERS))
        row["one_way"] = row[forward]["edge"] and not row[backward]["edge"]
        halves = {
            "previous token": layers[0],
            **{f"half {at}": _heads(before, range(at * HALF, (at + 1) * HALF)) for at in (0, 1)},
        }
        found = grafts(study.subject, assembled(before, after, halves)[1])
        control = {name: float(getattr(found, name)[3, 2]) for name in ("kept", "low", "high", "adjusted")}
        row["half of the induction heads without the other"] = {**control, "edge": bool(found.found[3, 2])}
        yield {**row, "cpu_s": round(time.process_time() - begun, 1)}


def _heads(params: Any, numbers: range) -> restriction.Restriction:
    """Heads of the second layer, all that is theirs."""

    def marks(path: str, leaf: Any) -> Any:
        if not path.startswith("attention_1"):
            return False
        axis = 0 if path.endswith(("offsets", "out/kernel")) else 1
        shape = [1] * np.ndim(leaf)
        shape[axis] = -1
        return np.broadcast_to(np.isin(np.arange(np.shape(leaf)[axis]), list(numbers)).reshape(shape), np.shape(leaf))

    return restriction.mask(params, marks)


CASES = {
    "semantics": semantics_rows,
    "shuffled": shuffled_rows,
    "composition": composition_rows,
    "coefficients": coefficient_rows,
    "induction": induction_rows,
}


def main() -> None:
    """Measure and print all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--seeds", type=int, default=10, help="runs of each; of induction at most 5")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name, case in CASES.items():
        if options.only not in (None, name):
            continue
        lines = options.out.read_text().splitlines() if options.out.exists() else []
        others = [line for line in lines if json.loads(line)["run"] != name]
        for row in case(min(options.seeds, 5) if name == "induction" else options.seeds):
            others.append(json.dumps({"run": name, **row}))
            print(others[-1], flush=True)
            # what is measured is kept, whatever comes after it
            options.out.write_text("\n".join(others) + "\n")


if __name__ == "__main__":
    main()
