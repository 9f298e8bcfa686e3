"""Study ``groups``: a network learns the table of a group, a part of it by heart, and then all of it."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from slt_jax.problem import Problem
from slt_jax.restriction import paths
from slt_jax.spectroscopy import Subject, Subloss, llc_probe
from slt_jax.studies.finite_groups import FiniteGroup, cyclic, dihedral
from slt_jax.studies.groups_training import (
    ACTIVATIONS,
    Network,
    State,
    cross_entropy,
    optimizer_of,
)
from slt_jax.studies.representations import characters_of, present
from slt_jax.studies.study import Study, log_steps
from slt_jax.types import Array, Key, PyTree

#: Which groups there are, by name, and the order that each has by default.
GROUPS: dict[str, tuple[Callable[[int], FiniteGroup], int]] = {"cyclic": (cyclic, 29), "dihedral": (dihedral, 18)}
#: Share of the table that is trained on, by the name of the group.
SHARES = {"cyclic": 0.6, "dihedral": 0.7}
STEPS = 6000
#: Weights then spread by 0.18, half of their size in a trained network.
NBETA, GAMMA = 700.0, 30.0


def study(
    group: str = "cyclic",
    order: int | None = None,
    *,
    share: float | None = None,
    embedding: int = 64,
    width: int = 128,
    activation: str = "relu",
    weight_decay: float = 1.0,
    steps: int = STEPS,
    seed_of_pairs: int = 0,
) -> Study:
    """Grokking of a finite group: the trained pairs first, the others much later, by way of its representations.

    The network sees a part of the table of a group and is trained with weight decay until it knows the rest. What it
    finds on the way are irreducible representations: the logit of c for the pair (a, b) becomes a sum of their
    characters of ``a b c^-1``, a few in number, which both embeddings and the unembedding hold alike.

    Args:
      group: ``"cyclic"`` or ``"dihedral"``.
      order: Number of elements; default 29 and 18.
      share: Of all pairs, how many are trained on; default 0.6 and 0.7.
      embedding: Width of each of the two embeddings.
      width: Hidden units.
      activation: ``"relu"``, ``"gelu"`` or ``"quadratic"``.
      weight_decay: Of AdamW. With 0.2 and less the pairs are learned by heart for as long as this study lasts.
      steps: Of training, at least 100.
      seed_of_pairs: Says which pairs are trained on. Networks that share them are not independent: they find the same
        representations more often than by chance.

    The default takes two and a half minutes of CPU. As published, for an accelerator or a night:
    ``study(order=113, share=0.4, embedding=256, steps=50_000)``.

    Raises:
      ValueError: an unknown group or activation, a share that leaves nothing to train on or to hold out, a number that
        is not positive.

    Sources: Chughtai, Chan & Nanda 2023, arXiv:2302.03025; Nanda et al. 2023, arXiv:2301.05217, for the cyclic group.

    >>> sorted(study("dihedral").subject.concepts)[-3:]
    ['representation 4', 'representation sign', 'speaks in characters']
    """
    _check(group, share, activation, {"embedding": embedding, "width": width})
    if steps < 100:
        raise ValueError(f"steps: got {steps}; phases need at least 100.")
    if weight_decay < 0:
        raise ValueError(f"weight_decay: got {weight_decay}; it must be at least 0.")
    make, usual = GROUPS[group]
    elements = make(usual if order is None else order)
    trained, held = split(elements, SHARES[group] if share is None else share, seed_of_pairs)
    parts = {"trained pairs": trained, "held-out pairs": held}
    # all of one shape, so that one compiled program serves them
    data = {"all": counted(elements, np.arange(len(elements.table) ** 2))}
    data |= {name: counted(elements, places) for name, places in parts.items()}
    network = Network(len(elements.table), embedding, width, activation)
    params = network.init(jax.random.key(0))
    loss_fn = Partial(partial(cross_entropy, network))
    relabel = jax.jit(partial(own_answers, network))
    subject = Subject(
        problem=Problem(loss_fn, params, data["all"]),
        sublosses={name: Subloss(loss_fn, data[name], relabel) for name in parts},
        concepts=concepts(network, elements, parts),
        restrictions={
            "embeddings": paths(params, "left", "right"),
            "hidden layer": paths(params, "hidden"),
            "unembedding": paths(params, "unembed"),
        },
        relabel=relabel,
    )
    optimizer = optimizer_of(weight_decay)
    return Study(
        name="groups",
        title=f"A network learns the {elements.name}",
        summary=(
            f"A network of {width} hidden units is shown {len(trained)} of the {len(elements.table) ** 2} products of "
            f"the {elements.name}, and decays its weights while it learns. It knows the pairs that it is shown by "
            "heart long before it knows the others. The concepts are the irreducible representations: how far what "
            "the logits hold of each is its character of a b c⁻¹. Readings are of the divergence from the network's "
            "own answers, at a fixed resolution."
        ),
        subject=subject,
        init=Partial(partial(_init, network, optimizer)),
        update=Partial(partial(_update, network, optimizer), examples(elements, trained)),
        params_of=_params_of,
        record_at=np.unique(np.concatenate([log_steps(steps, 100), np.arange(0, steps + 1, max(1, steps // 150))])),
        keep_at=log_steps(steps, 40),
        probes={"llc": llc_probe(nbeta=NBETA, gamma=GAMMA, chains=4, draws=900, burnin=300, resolution=True)},
        sublosses=("all", *parts),
        budget=7,
        expected_order=(("knows the trained pairs",), ("knows the held-out pairs",)),
    )


def split(group: FiniteGroup, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs are trained on and which are held out, by their place ``a n + b`` in the table, in random order."""
    count = group.table.size
    order = np.random.default_rng(seed).permutation(count)
    trained = round(share * count)
    if not 0 < trained < count:
        raise ValueError(f"share: got {share} of {count} pairs; some must be trained on and some held out.")
    return order[:trained], order[trained:]


def examples(group: FiniteGroup, places: np.ndarray) -> dict[str, Array]:
    """The pairs at ``places``, shape ``(B, 2)``, and their products as one-hot targets, shape ``(B, n)``."""
    size = len(group.table)
    pairs = np.stack(np.divmod(places, size), axis=1)
    return {"pairs": jnp.asarray(pairs), "targets": jax.nn.one_hot(group.table.ravel()[places], size)}


def counted(group: FiniteGroup, places: np.ndarray) -> dict[str, Array]:
    """All pairs in the order of the table, of which only those at ``places`` count: a mean loss is that over these."""
    whole = examples(group, np.arange(group.table.size))
    weights = np.zeros((group.table.size, 1), np.float32)
    weights[places] = group.table.size / len(places)
    return {**whole, "targets": whole["targets"] * weights}


def own_answers(network: Network, params: PyTree, data: PyTree) -> PyTree:
    """The data with the network's own probabilities in place of the products, each pair counting for what it did."""
    said = jax.nn.softmax(network.logits(params, data["pairs"]))
    return {**data, "targets": said * jnp.sum(data["targets"], axis=1, keepdims=True)}


def concepts(network: Network, group: FiniteGroup, parts: dict[str, np.ndarray]) -> dict[str, Callable]:
    """What can be seen of a network from outside, by name: 0 before, about 1 after.

    - ``"knows the trained pairs"``, ``"knows the held-out pairs"``: shares of right answers;
    - ``"representation ρ"``: how far what the logits hold of it is its character, as ``present``;
    - ``"speaks in characters"``: the share of all that the logits vary by which is characters of ``a b c^-1``.
    """
    names = list(group.characters)
    return {
        **{
            f"knows the {name}": Partial(
                partial(_accuracy, network), examples(group, places)["pairs"], jnp.asarray(group.table.ravel()[places])
            )
            for name, places in parts.items()
        },
        # over constants, not arguments: where all are recorded, the logits are computed for all of them once
        **{
            f"representation {name}": partial(_presence, network, group, names.index(name))
            for name in names
            if name != "trivial"
        },
        "speaks in characters": partial(_speaks, network, group),
    }


def table_of_logits(network: Network, params: PyTree) -> Array:
    """All logits, ``[a, b, c]``, shape ``(n, n, n)``."""
    size = network.order
    pairs = np.stack(np.divmod(np.arange(size * size), size), axis=1)
    return network.logits(params, jnp.asarray(pairs)).reshape(size, size, size)


def _accuracy(network: Network, pairs: Array, products: Array, params: PyTree) -> Array:
    return jnp.mean(network.logits(params, pairs).argmax(axis=1) == products, dtype=jnp.float32)


def _presence(network: Network, group: FiniteGroup, which: int, params: PyTree) -> Array:
    return present(group, table_of_logits(network, params))[which]


def _speaks(network: Network, group: FiniteGroup, params: PyTree) -> Array:
    return jnp.sum(characters_of(group, table_of_logits(network, params)).characters)


def _init(network: Network, optimizer: optax.GradientTransformation, key: Key) -> State:
    params = network.init(key)
    return State(params, optimizer.init(params))


def _update(
    network: Network, optimizer: optax.GradientTransformation, data: PyTree, state: State, step: Array
) -> State:
    del step  # the whole of the data, every time
    gradient = jax.grad(lambda params: jnp.mean(cross_entropy(network, params, data)))(state.params)
    changes, moments = optimizer.update(gradient, state.optimizer, state.params)
    return State(optax.apply_updates(state.params, changes), moments)


def _params_of(state: State) -> PyTree:
    return state.params


def _check(group: str, share: float | None, activation: str, sizes: dict[str, int]) -> None:
    if group not in GROUPS:
        raise ValueError(f"group: got {group!r}; choose one of {', '.join(GROUPS)}.")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: got {activation!r}; choose one of {', '.join(ACTIVATIONS)}.")
    if share is not None and not 0 < share < 1:
        raise ValueError(f"share: got {share!r}; it must lie between 0 and 1.")
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: got {size}; it must be at least 1.")
