"""Patterning on real training: do data that are reweighted along the found direction bring an ability forward?

    python benchmarks/patterning.py                      # χ, the directions, and 65 runs: half an hour
    python benchmarks/patterning.py --only fresh         # the last 20 of them, with what is stored of the others

Sequences of the study ``induction`` are sorted into quarters by how much their order tells, and by how uneven their
symbols are. At a checkpoint before the heads form, the response of two coordinates of the network to more sequences of
each quarter is measured, ``patterning`` gives the direction that moves the second alone, and the one that moves it
whatever the first does; and the network is trained from five other seeds with these weights, with the opposite ones,
with neither, and with weights of the same size along a random direction. Half of the strength was tried after the whole
had been seen to cost more than it brings: what it does is measured again from five seeds that no choice rests on
(``fresh``).

Keeps its lines in ``benchmarks/results/patterning.jsonl``.
"""

import argparse
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import slt_jax as slt
from slt_jax.models.attention_only import attention_weights, prefix_matching_scores
from slt_jax.response import Measured, pairs, patterning, retrained
from slt_jax.studies import induction as study
from slt_jax.studies.markov_chains import bigram, cross_entropy, sample_chains, uniform, unigram

RESULTS = Path(__file__).parent / "results" / "patterning.jsonl"

QUARTERS = 4
PROPERTIES = ("order tells", "uneven symbols")
#: Steps of a run and from look to look; the checkpoint of which χ is measured, and the seed that it is of.
STEPS, EVERY, AT, SEED = 400, 10, 100, 100
#: Sequences of which χ is measured, and those that coordinates are read on.
EXAMPLES, PROBES = 128, 128
NBETA, GAMMA = 80.0, 1000.0
SEEDS = 5
#: By name, the coordinates that χ is taken of, by how much they are to move, and the share of the largest strength at
#: which no weight is negative, along the direction and its opposite.
HALF = "half as strong"
DIRECTIONS = {
    "order, counts kept": ([0, 1], [0.0, 0.01], 0.9),
    f"order, counts kept, {HALF}": ([0, 1], [0.0, 0.01], 0.45),
    "order alone": ([1], [0.01], 0.9),
}
#: Half of where the coordinate of order and the best head's score end.
LEVELS = {"order half learned": 0.5, "prefix matching half formed": 0.3}


def sequences(seed: int, count: int) -> Any:
    """So many of the study's sequences, the same whenever they are asked for."""
    return sample_chains(jax.random.key(seed), count, study.LENGTH + 1, study.SYMBOLS)


def logits(params: Any, tokens: Any) -> Any:
    """Of the symbol after each one but the last, ``(B, T - 1, symbols)``."""
    return study.NETWORK.apply({"params": params}, tokens[:, :-1])


def properties(tokens: Any) -> Any:
    """By how many nats a symbol the order tells more than counts, and counts more than nothing, ``(B, 2)``."""
    ordered, counted, plain = (
        jnp.mean(cross_entropy(predict(tokens, study.SYMBOLS), tokens), axis=1)
        for predict in (bigram, unigram, uniform)
    )
    return jnp.stack([counted - ordered, plain - counted], axis=1)


def quarters() -> Any:
    """Where the quarters of each property end, ``(3, 2)``."""
    return jnp.quantile(properties(sequences(99, 8192)), jnp.array([0.25, 0.5, 0.75]), axis=0)


def density(ends: Any, tokens: Any) -> Any:
    """How many times as often a sequence is in a quarter as in all, ``(B, 8)``: 4 or 0."""
    place = jnp.sum(properties(tokens)[:, None] > ends[None], axis=1)
    marks = jax.nn.one_hot(place, QUARTERS)
    return QUARTERS * marks.reshape(len(tokens), -1)


def weights(ends: Any, moves: Any, tokens: Any) -> Any:
    """What sequences count for, ``(B,)``."""
    return 1 + (density(ends, tokens) - 1) @ moves


def coordinates(params: Any, which: Any) -> Any:
    """How far a network has gone from the uniform to the unigram predictor, and from that to the bigram one.

    The two coefficients of ``p - uniform`` on ``unigram - uniform`` and ``bigram - unigram``, by least squares over all
    positions of the probes: (1, 0) at the unigram and (1, 1) at the bigram predictor.
    """
    tokens = sequences(7, PROBES)
    start, counted, ordered = (predict(tokens, study.SYMBOLS) for predict in (uniform, unigram, bigram))
    basis = jnp.stack([(counted - start).ravel(), (ordered - counted).ravel()])
    said = (jax.nn.softmax(logits(params, tokens)) - start).ravel()
    return jnp.linalg.solve(basis @ basis.T, basis @ said)[which]


def looked_at(params: Any) -> Any:
    """Both coordinates, and the prefix matching score of the best head of the second layer."""
    tokens = sequences(7, PROBES)[:, :-1]
    scores = prefix_matching_scores(attention_weights(study.NETWORK, params, tokens), tokens)
    return jnp.append(coordinates(params, jnp.arange(2)), jnp.max(scores[1]))


@partial(jax.jit, static_argnames="keep")
def run(key: Any, ends: Any, moves: Any, keep: bool = False) -> Any:
    """Coordinates every so many steps of a training run, and the parameters there if they are to be kept."""
    counted = Partial(weights, ends, moves)

    def stretch(state: Any, start: Any) -> Any:
        seen = looked_at(state.params), (state.params if keep else ())
        go = jax.lax.fori_loop(0, EVERY, lambda step, s: study.update(counted, s, start + step), state)
        return go, seen

    return jax.lax.scan(stretch, study.initial(key), EVERY * jnp.arange(STEPS // EVERY))[1]


def crossing(values: np.ndarray, level: float) -> float:
    """The step at which a coordinate first reaches a level, between two looks by a straight line; inf if never."""
    above = np.flatnonzero(values >= level)
    if not above.size:
        return np.inf
    at = int(above[0])
    if at == 0:
        return 0.0
    low, high = values[at - 1], values[at]
    return float(EVERY * (at - 1 + (level - low) / (high - low)))


def response(params: Any, ends: Any) -> tuple[Any, dict[str, Any]]:
    """``nβ χ`` of both coordinates with respect to the quarters, and a line about the chains."""
    tokens = sequences(5, EXAMPLES)

    def loss_fn(params: Any, tokens: Any) -> Any:
        said = jax.nn.log_softmax(logits(params, tokens))
        return -jnp.mean(jnp.take_along_axis(said, tokens[:, 1:, None], axis=2)[..., 0], axis=1)

    begun = time.process_time()
    found = slt.influence(
        jax.random.key(1),
        loss_fn,
        params,
        tokens,
        jnp.arange(2),
        query_loss_fn=coordinates,
        nbeta=NBETA,
        gamma=GAMMA,
        chains=4,
        draws=150,
        burnin=200,
        thin=4,
        batch_size=32,
    )
    part = jnp.einsum("cdn,ng->cdg", found.losses, density(ends, tokens) / EXAMPLES)
    covariances = pairs(found.queries, part - jnp.mean(found.losses, axis=2, keepdims=True))
    matrix = Measured(-NBETA * covariances.covariance, NBETA * covariances.std_error)
    said = {"said": found.explain(), "cpu_s": round(time.process_time() - begun, 1)}
    return matrix, said


def rounded(values: Any, digits: int = 4) -> Any:
    """Lists of numbers that can be read."""
    return np.round(np.asarray(values, float), digits).tolist()


def main() -> None:
    """Measure and print all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only", choices=("response", "training", "fresh"), help="the last two read what was before")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("".join(json.dumps(one) + "\n" for one in rows))

    stored = [json.loads(line) for line in options.out.read_text().splitlines()] if options.only else []
    ends = quarters()
    if options.only in (None, "response"):
        for row in response_rows(ends):
            add(row)
    else:
        keep = 2 if options.only == "training" else sum("fresh" not in row["case"] for row in stored)
        rows += stored[:keep]
    if options.only != "response":
        found, ratios, arms = directions(ends, rows[1])
        if options.only != "fresh":
            for row in found:
                add(row)
            for row in training_rows(ends, ratios, arms, 3, ""):
                add(row)
        half = {name: moves for name, moves in arms.items() if name == "unchanged" or name.endswith(HALF)}
        for row in training_rows(ends, ratios, half, 4, ", fresh seeds"):
            add(row)


def response_rows(ends: Any) -> Iterator[dict[str, Any]]:
    """A run, and the response at its checkpoint."""
    seen, kept = run(jax.random.key(SEED), ends, jnp.zeros(QUARTERS * len(PROPERTIES)), keep=True)
    yield {
        "case": "the run that the checkpoint is of",
        "seed": SEED,
        "steps": list(range(0, STEPS, EVERY)),
        **{name: rounded(seen[:, at]) for at, name in enumerate(("counts", "order", "prefix matching"))},
    }
    matrix, said = response(jax.tree.map(lambda leaf: leaf[AT // EVERY], kept), ends)
    yield {
        "case": "response",
        "step": AT,
        "coordinates": ["counts", "order"],
        "directions": [f"{name}, quarter {at}" for name in PROPERTIES for at in range(1, QUARTERS + 1)],
        "nbeta_chi": rounded(matrix.value, 5),
        "std_error": rounded(matrix.std_error, 5),
        **said,
    }


def directions(ends: Any, row: dict[str, Any]) -> tuple[list[dict[str, Any]], Any, dict[str, Any]]:
    """Lines about the directions, how much of each quarter some sequences are, and the moves of all arms."""
    value, error = jnp.asarray(row["nbeta_chi"]), jnp.asarray(row["std_error"])
    ratios = density(ends, sequences(99, 8192))
    ratios = ratios / jnp.mean(ratios, axis=0, keepdims=True)
    arms, lines = {"unchanged": jnp.zeros(value.shape[1])}, []
    for name, (chosen, wanted, share) in DIRECTIONS.items():
        pattern = patterning(jax.random.key(2), (value[np.array(chosen)], error[np.array(chosen)]), jnp.array(wanted))
        low, high = pattern.strengths(ratios)
        strength = share * min(-low, high)
        move = strength * pattern.change
        arms |= {f"towards: {name}": move, f"away: {name}": -move}
        line = {"case": "direction", "name": name, "wanted": rounded(wanted), "change": rounded(pattern.change, 5)}
        line |= {"predicted": rounded(pattern.predicted, 5), "std_error": rounded(pattern.std_error, 5)}
        lines.append(line | {"strength": round(strength, 3), "said": pattern.explain()})
    # along a random direction, with weights of the same spread that are not negative either
    drawn = jax.random.normal(jax.random.key(11), move.shape)
    drawn = drawn * jnp.std((ratios - 1) @ move) / jnp.std((ratios - 1) @ drawn)
    arms["random"] = drawn * jnp.minimum(1.0, 1.0 / jnp.max(jnp.abs((ratios - 1) @ drawn)))
    arms[f"random, {HALF}"] = 0.5 * arms["random"]
    return lines, ratios, arms


def training_rows(ends: Any, ratios: Any, arms: dict[str, Any], seed: int, which: str) -> Iterator[dict[str, Any]]:
    """What training in each arm does, from seeds that follow from one."""

    def train(moves: Any, key: Any) -> np.ndarray:
        seen = np.asarray(run(key, ends, moves)[0])
        return np.array([crossing(seen[:, 1 + at], level) for at, level in enumerate(LEVELS.values())])

    found = retrained(train, jax.random.split(jax.random.key(seed), SEEDS), arms)
    for at, name in enumerate(LEVELS):
        for arm, moves in arms.items():
            line = {"case": name + which, "arm": arm, "steps": rounded(found.values[arm][:, at], 1)}
            line["spread of weights"] = round(float(jnp.std((ratios - 1) @ moves)), 3)
            if arm in found.mean:
                line["shift"] = round(float(found.mean[arm][at]), 1)
                line["std_error"] = round(float(found.std_error[arm][at]), 1)
                line["earlier"], line["later"] = int(found.below[arm][at]), int(found.above[arm][at])
            yield line


if __name__ == "__main__":
    main()
