"""Grafting: the share of a phase's gain that a few of its weights carry, planted and on handwritten digits.

    python benchmarks/grafting.py                    # every row, about a minute
    python benchmarks/grafting.py --only planted

Keeps its lines in ``benchmarks/results/grafting.jsonl``: the curve of gain against share, beside random masks and the
largest changes; where something was planted, how much of it was found; the losses of other digits.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import slt_jax as slt
from slt_jax import tree

RESULTS = Path(__file__).parent / "results" / "grafting.jsonl"

PIXELS, DARK, UNITS, DEAD, BORN, OUTPUTS = 96, 16, 200, 40, 10, 4
EXAMPLES, RANK, TOUCHED = 1000, 40, 6


class Planted(NamedTuple):
    """A transition of which it is known which weights made it.

    Attributes:
      before, after: Parameters; ``mask`` marks what was planted.
      data: Inputs, and as targets the outputs of the network with the planted changes alone.
    """

    before: Any
    after: Any
    data: Any
    mask: Any


def squared_error(params: Any, batch: Any) -> Any:
    """``½ |f(x) - y|²`` of a network with one hidden layer of ReLU."""
    hidden = jax.nn.relu(batch["inputs"] @ params["in"] + params["bias"][None, :])
    return 0.5 * jnp.sum((hidden @ params["out"] - batch["targets"]) ** 2, axis=1)


def planted(seed: int = 0, drift: float = 1.5) -> Planted:
    """100 of 20 200 weights change the function; all others move too, by ``drift`` in the mean square, and do not.

    Planted: in each of 10 hidden units 6 weights from the input and all 4 to the output change by ±0.7 to ±1.3. The
    outputs of these units are 0 before, so that no change of their inputs matters without one of their outputs. The
    targets are what the network says with these 100 changes and no other: its loss is 0 there, and leaving any one
    out costs 0.6 % of the gain or more at ``seed=0``.

    Drift, none of which the data see as a whole: weights and biases of each unit along directions in which no input
    varies (80 lit pixels of rank 40, one of them constant); weights of 16 pixels that are always dark; all of 40 units
    that are never on; and the outputs of pairs of units with equal activations by ``±δ``. A part of the first or last
    kind is seen: only a mask with none of it, or all, keeps the function.
    """
    r = np.random.default_rng(seed)
    lit, paired = PIXELS - DARK, (UNITS - DEAD - BORN) // 2
    inputs = np.zeros((EXAMPLES, PIXELS))
    inputs[:, : lit - 1] = r.normal(size=(EXAMPLES, RANK)) @ r.normal(size=(RANK, lit - 1)) / np.sqrt(RANK)
    inputs[:, lit - 1] = 1.0
    before = {
        "in": r.normal(size=(PIXELS, UNITS)) / np.sqrt(lit),
        "bias": 0.3 * r.normal(size=UNITS),
        "out": r.normal(size=(UNITS, OUTPUTS)) / np.sqrt(UNITS),
    }
    born, dead = np.arange(BORN), np.arange(UNITS - DEAD, UNITS)
    first, second = BORN + np.arange(paired), BORN + paired + np.arange(paired)
    before["in"][:, second], before["bias"][second] = before["in"][:, first], before["bias"][first]
    before["bias"][dead], before["out"][born] = -100.0, 0.0

    change = {name: np.zeros_like(leaf) for name, leaf in before.items()}
    mask = {name: np.zeros(leaf.shape, bool) for name, leaf in before.items()}
    for unit in born:
        touched = r.choice(lit - 1, TOUCHED, replace=False)
        mask["in"][touched, unit] = mask["out"][unit] = True
        change["in"][touched, unit] = r.choice([-1, 1], TOUCHED) * r.uniform(0.7, 1.3, TOUCHED)
        change["out"][unit] = r.choice([-1, 1], OUTPUTS) * r.uniform(0.7, 1.3, OUTPUTS)
    right = {name: before[name] + change[name] for name in before}
    hidden = np.maximum(inputs @ right["in"] + right["bias"], 0)
    data = {"inputs": inputs, "targets": hidden @ right["out"]}

    # the triangle has the directions of all inputs
    seen = np.linalg.qr(np.concatenate([inputs, np.ones((EXAMPLES, 1))], axis=1), mode="r")
    for unit in range(UNITS - DEAD):
        # no drift where something was planted
        pinned = np.eye(PIXELS + 1)[np.flatnonzero(mask["in"][:, unit])]
        _, sizes, directions = np.linalg.svd(np.concatenate([seen, 1e3 * pinned]))
        unseen = directions[np.sum(sizes > 1e-8) :]
        step = r.normal(size=len(unseen)) @ unseen
        step *= drift * np.sqrt(PIXELS + 1) / np.linalg.norm(step)
        change["in"][:, unit] += np.where(mask["in"][:, unit], 0.0, step[:-1])
        change["bias"][unit] += step[-1]
    change["in"][:, dead] = drift * r.normal(size=(PIXELS, DEAD))
    change["bias"][dead] = drift * r.normal(size=DEAD)
    change["out"][dead] = drift * r.normal(size=(DEAD, OUTPUTS))
    change["out"][first] = drift * r.normal(size=(paired, OUTPUTS))
    change["out"][second] = -change["out"][first]
    after = {name: before[name] + change[name] for name in before}
    single = partial(jax.tree.map, lambda leaf: jnp.asarray(leaf, jnp.float32))
    return Planted(single(before), single(after), single(data), mask)


def planted_row(seed: int, drift: float) -> dict[str, Any]:
    """One line."""
    problem = planted(seed, drift)
    many = sum(int(leaf.sum()) for leaf in jax.tree.leaves(problem.mask))
    begun = time.process_time()
    found = slt.restriction.graft(
        squared_error, problem.before, problem.after, problem.data, share=many / tree.size(problem.before)
    )
    hits = jax.tree.map(lambda ours, true: int(np.sum(np.asarray(ours) & true)), found.mask, problem.mask)
    right = slt.restriction.grafted(problem.before, problem.after, problem.mask)
    alone = np.mean(squared_error(right, problem.data))
    return {
        "case": f"planted, drift {drift}, seed {seed}",
        "weights": tree.size(problem.before),
        "planted": many,
        "recovered": sum(jax.tree.leaves(hits)),
        "loss_of_planted": float(alone),
        "leaving_one_out": leaving_one_out(problem, found.losses[0]),
        "cpu_s": time.process_time() - begun,
        **curve(found),
    }


def leaving_one_out(problem: Planted, before: float) -> list[float]:
    """Share of the gain that is lost without one planted weight: the least, the median and the most."""
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(problem.mask)])
    at = jnp.asarray(np.flatnonzero(flat))

    @jax.jit
    def losses() -> Any:
        def without(index: Any) -> Any:
            leaves, structure = jax.tree.flatten(problem.mask)
            marks = jnp.asarray(flat).at[index].set(False)
            parts = jnp.split(marks, np.cumsum([leaf.size for leaf in leaves])[:-1])
            mask = structure.unflatten([part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])
            params = slt.restriction.grafted(problem.before, problem.after, mask)
            return jnp.mean(squared_error(params, problem.data))

        return jax.lax.map(without, at)

    return [round(float(v) / before, 4) for v in np.quantile(np.asarray(losses()), [0, 0.5, 1])]


def curve(found: Any) -> dict[str, Any]:
    """What is kept of a graft."""

    def rounded(values: Any) -> list[float]:
        return [round(float(value), 4) for value in values]

    return {
        "said": found.explain(),
        "losses": rounded(found.losses),
        "chosen_share": float(found.shares[found.chosen]),
        "shares": [float(share) for share in found.shares],
        "sizes": [int(size) for size in found.sizes],
        "gains": rounded(found.gains),
        "held_out": None if found.held_out is None else rounded(found.held_out),
        "random": rounded(found.random.mean(axis=1)),
        "random_spread": rounded(found.random.std(axis=1)),
        "magnitude": rounded(found.magnitude),
    }


WIDTHS = (64, 128, 128, 10)


def digits() -> dict[str, dict[str, Any]]:
    """The images of ``slt_jax.studies.digits``, 100 of each digit to train on, in two halves of the digits."""
    from slt_jax.studies.digits import _images

    def half(images: dict[str, Any], low: int, high: int) -> dict[str, Any]:
        labels = np.asarray(images["targets"]).argmax(axis=1)
        chosen = np.flatnonzero((labels >= low) & (labels <= high))
        return {"inputs": images["inputs"][chosen], "labels": jnp.asarray(labels[chosen])}

    training, rest = _images()
    cases = {"0-4": (0, 4), "5-9": (5, 9), "5-7": (5, 7), "8-9": (8, 9)}
    found = {name: half(training, *ends) for name, ends in cases.items()}
    return found | {f"{name}, held out": half(rest, *ends) for name, ends in cases.items()}


def initial(key: Any, widths: tuple[int, ...] = WIDTHS) -> Any:
    """Weights of variance one over their number of inputs."""
    keys = jax.random.split(key, len(widths))
    return [
        {"kernel": jax.random.normal(k, (rows, columns)) / rows**0.5, "bias": jnp.zeros(columns)}
        for k, rows, columns in zip(keys, widths[:-1], widths[1:], strict=False)
    ]


def logits(params: Any, inputs: Any) -> Any:
    """A perceptron of hyperbolic tangents."""
    for layer in params[:-1]:
        inputs = jnp.tanh(inputs @ layer["kernel"] + layer["bias"][None, :])
    return inputs @ params[-1]["kernel"] + params[-1]["bias"][None, :]


def cross_entropy(params: Any, batch: Any) -> Any:
    """Nats per image."""
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, batch["inputs"]), batch["labels"])


def tuned(key: Any, start: Any, data: Any, direction: Any, rate: float, pull: float, steps: int) -> Any:
    """Training from ``start`` along ``direction``, and after each step ``rate * pull`` back towards it in each weight.

    The pull is the proximal step of ``pull * |w - start|_1``: a weight that gains less than it stays where it was.
    """
    count = len(data["labels"])

    def back(new: Any, old: Any) -> Any:
        return old + jnp.sign(new - old) * jnp.maximum(jnp.abs(new - old) - rate * pull, 0)

    def step(carry: Any, key: Any) -> Any:
        params, state = carry
        examples = jax.tree.map(lambda leaf: leaf[jax.random.randint(key, (100,), 0, count)], data)
        gradient = jax.grad(lambda p: jnp.mean(cross_entropy(p, examples)))(params)
        changes, state = direction.update(gradient, state)
        moved = jax.tree.map(lambda leaf, change: leaf - rate * change, params, changes)
        return (jax.tree.map(back, moved, start) if pull else moved, state), None

    run = jax.jit(lambda keys: jax.lax.scan(step, (start, direction.init(start)), keys)[0][0])
    return run(jax.random.split(key, steps))


ADAM, MOMENTUM = optax.scale_by_adam(), optax.trace(0.9)
#: Name, direction, rate, pull towards the start, steps. With momentum 0.9 a rate of 0.02 is one of 0.2, and the pull in
#: nats per unit of weight is a tenth of the number here.
TUNINGS = {
    "Adam": (ADAM, 1e-3, 0.0, 1500),
    "momentum": (MOMENTUM, 0.02, 0.0, 500),
    "momentum, L1 0.001": (MOMENTUM, 0.02, 0.01, 4000),
    "momentum, L1 0.003": (MOMENTUM, 0.02, 0.03, 4000),
    "Adam, L1 0.3": (ADAM, 1e-3, 0.3, 3000),
}


def before_tuning(images: dict[str, Any]) -> Any:
    """A network that knows 0 to 4."""
    return tuned(jax.random.key(0), initial(jax.random.key(0)), images["0-4"], ADAM, 1e-3, 0.0, 1500)


def digits_row(name: str, images: dict[str, Any], before: Any) -> dict[str, Any]:
    """One line: fine-tuned on 5 to 9, grafted on the same images."""
    after = tuned(jax.random.key(1), before, images["5-9"], *TUNINGS[name])
    begun = time.process_time()
    data, held_out = images["5-9"], images["5-9, held out"]
    found = slt.restriction.graft(cross_entropy, before, after, data, held_out=held_out, share=0.01)
    spent = time.process_time() - begun
    networks = {"before": before, "after": after, "grafted": slt.restriction.grafted(before, after, found.mask)}
    seen = {}
    for which, params in networks.items():
        for part in ("0-4, held out", "5-9, held out"):
            right = jnp.argmax(logits(params, images[part]["inputs"]), axis=1) == images[part]["labels"]
            loss = float(jnp.mean(cross_entropy(params, images[part])))
            seen[f"{which}, {part}"] = {"loss": round(loss, 3), "accuracy": round(float(right.mean()), 3)}
    moved = [np.asarray(a != b).ravel() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)]
    return {
        "case": f"digits, {name}",
        "weights": tree.size(before),
        "moved": round(float(np.mean(np.concatenate(moved))), 4),
        "read": seen,
        "cpu_s": spent,
        **curve(found),
    }


def overlap_row(images: dict[str, Any], before: Any) -> dict[str, Any]:
    """Masks of 1 %: of one skill tuned twice on other batches, and of two skills."""

    def marks(part: str, seed: int) -> Any:
        after = tuned(jax.random.key(seed), before, images[part], *TUNINGS["momentum, L1 0.001"])
        return slt.restriction.graft(cross_entropy, before, after, images[part], share=0.01).mask

    one, again, other = marks("5-7", 1), marks("5-7", 2), marks("8-9", 1)
    pairs = {"5-7 twice": (one, again), "5-7 and 8-9": (one, other)}
    return {"case": "overlap", **{name: slt.restriction.overlap(*pair)._asdict() for name, pair in pairs.items()}}


def main() -> None:
    """Measure and print all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("planted", "digits", "overlap"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)

    if options.only in (None, "planted"):
        for seed, drift in ((0, 1.0), (0, 1.5), (1, 1.5), (2, 1.5)):
            add(planted_row(seed, drift))
    if options.only != "planted":
        images = digits()
        before = before_tuning(images)
    if options.only in (None, "digits"):
        for name in TUNINGS:
            add(digits_row(name, images, before))
    if options.only in (None, "overlap"):
        add(overlap_row(images, before))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
