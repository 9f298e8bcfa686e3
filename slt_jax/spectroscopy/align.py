"""Sets the transitions of losses and readings beside the acquisition of concepts, and tests it against chance."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from slt_jax.spectroscopy.acquisition import LEVEL, Acquisition, acquisition, check_level
from slt_jax.spectroscopy.coincidence import OrderAgreement, order_agreement, stretch_of
from slt_jax.spectroscopy.controls import Control, noise_transitions, random_probe, shuffled_concepts
from slt_jax.spectroscopy.events import (
    Events,
    Series,
    check_curve,
    check_series,
    events_of_curve,
    events_of_series,
    main_event,
)
from slt_jax.spectroscopy.pairing import Chance, Pair, Place, SourceAlignment, p_values, pairs_of, places_of, sources_of
from slt_jax.spectroscopy.phases import Phases
from slt_jax.spectroscopy.recorder import History

#: Draws of each negative control.
CONTROLS = 20
#: False-discovery rate over all pairs.
RATE = 0.05


class Alignment(NamedTuple):
    """All concepts, in the order in which they were acquired; those never acquired come last.

    Attributes:
      acquisitions: One for each concept.
      pairs: Every source with every concept, also those that cannot be tested.
      sources: Every loss and every reading.
      orders: Agreement of orders, where two are known.
      controls: What the same tests find where there is nothing to find.
      stretch: Steps between which events are taken to be possible, or ``None``.
      rate: The false-discovery rate that was controlled.
    """

    acquisitions: list[Acquisition]
    pairs: Sequence[Pair] = ()
    sources: Sequence[SourceAlignment] = ()
    orders: Sequence[OrderAgreement] = ()
    controls: Sequence[Control] = ()
    stretch: tuple[float, float] | None = None
    rate: float = RATE

    @property
    def order(self) -> list[str]:
        """Names of the acquired concepts, first to last."""
        return [row.concept for row in self.acquisitions if row.status == "acquired"]

    @property
    def found(self) -> list[Pair]:
        """Pairs that are nearer than chance explains, at the false-discovery rate."""
        return [pair for pair in self.pairs if pair.q <= self.rate]


def align(
    history: History,
    phases: Phases,
    *,
    level: float = LEVEL,
    readings: Mapping[str, Series] | None = None,
    expected_order: Sequence[Sequence[str]] = (),
    belongs: Mapping[str, str] | None = None,
    between: tuple[float, float] | None = None,
    rate: float = RATE,
    method: str = "bh",
    controls: int = CONTROLS,
    seed: int = 0,
) -> Alignment:
    """When each concept was acquired, and whether that is nearer to transitions than chance explains.

    A concept is acquired at the first recorded step from which its value stays at or above ``level``; where it crossed
    is read off between that record and the one before. Its distance to the nearest transition of a source, in log
    step, is compared with the distances of all its shifts within the stretch of steps in which anything happened (see
    ``shift_test`` and ``stretch_of``), and where the source is a reading also with noise read at its checkpoints
    (``noise_transitions``): readings at few checkpoints, chosen where the losses change, cannot be told from that. The
    p-values of all pairs of a source and a concept are adjusted together.

    Args:
      history: With at least one concept for a non-empty result.
      phases: From ``detect_phases`` on the same history.
      level: The value that counts as acquired, concepts being 0 before and about 1 after.
      readings: Readings by name, beside the losses of the history.
      expected_order: Groups of concepts in the order in which theory expects them.
      belongs: For a concept, the source whose transition should be its own; default the source of the same name. The
        orders of the two are compared.
      between: Steps between which transitions were possible; default from ``stretch_of``. A wider stretch makes
        p-values smaller: it is a claim that events could have been there.
      rate: The false-discovery rate.
      method: ``"bh"``, Benjamini and Hochberg, or ``"by"``, Benjamini and Yekutieli: valid whatever the dependence, and
        with m pairs weaker by ``1 + 1/2 + ... + 1/m``. Pairs that share a concept or a source depend on one another
        mostly positively, where the first is valid too; it held the rate in all simulations (README).
      controls: Draws of each negative control, at least 1.
      seed: Of the controls, and of orders at random.

    Returns:
      The alignment. A concept that is never acquired, or was there from the start, is kept and says so; its place in
      an order counts where it is known.

    Raises:
      ValueError: a concept with a value that is not finite, fewer than 20 recorded steps, steps that do not increase,
        a level outside the values, readings of steps outside the history, names that are not there, or a setting out
        of range.

    Not to be believed as a cause: what is learned together may have nothing to do with one another. Where everything
    happened at once there is no test at all.

    Source: Benjamini & Hochberg 1995, J. R. Stat. Soc. B 57; Benjamini & Yekutieli 2001, Ann. Statist. 29.

    >>> steps, none = np.arange(1, 400), np.zeros(0)
    >>> first, second = (1 / (1 + np.exp((at - steps) / 3)) for at in (60, 250))
    >>> history = History(steps, {"all": 2 - first - second}, {"late": second, "early": first, "never": 0 * first})
    >>> found = align(history, Phases(none, none, none, np.array([1]), none, none), between=(1, 400))
    >>> found.order, sorted(pair.concept for pair in found.found), found.pairs[-1].reason
    (['early', 'late'], ['early', 'late'], 'not acquired')
    """
    readings = {} if readings is None else readings
    _check(history, readings, expected_order, between, rate, method, controls)
    losses, concepts = (
        {name: check_curve(f"{kind} {name!r}", history.steps, curve)[1] for name, curve in table.items()}
        for kind, table in (("loss", history.losses), ("concept", history.concepts))
    )
    history = history._replace(steps=np.asarray(history.steps), losses=losses, concepts=concepts)
    check_level(level, history.concepts)
    rows = [acquisition(name, values, history.steps, phases, level) for name, values in history.concepts.items()]
    rows.sort(key=lambda row: (row.step is None, row.step or 0, row.concept))
    if not rows:
        return Alignment([], rate=rate)
    places = places_of(history, rows, level)
    sources = {
        **{name: events_of_curve(f"loss {name!r}", history.steps, curve) for name, curve in history.losses.items()},
        **{name: events_of_series(name, series) for name, series in readings.items()},
    }
    _check_belongs(belongs, history.concepts, sources)
    stretch = _stretch(history, sources, places, between)
    chance = None
    if stretch is not None:
        noise = {name: noise_transitions(seed, series) for name, series in readings.items()}
        chance = Chance(stretch, noise, rate, method)
    tests = p_values(sources, places, chance)
    pairs = pairs_of(sources, rows, places, tests)
    return Alignment(
        acquisitions=rows,
        pairs=pairs,
        sources=sources_of(sources, pairs, readings, tests),
        orders=_orders(rows, sources, readings, expected_order, belongs, seed),
        controls=[]
        if chance is None
        else [
            random_probe(history, readings, places, chance, controls, seed),
            shuffled_concepts(history, rows, phases, sources, level, chance, controls, seed),
        ],
        stretch=None if stretch is None else (float(np.exp(stretch[0])), float(np.exp(stretch[1]))),
        rate=rate,
    )


def _stretch(
    history: History,
    sources: Mapping[str, Events],
    places: Mapping[str, Place],
    between: tuple[float, float] | None,
) -> tuple[float, float] | None:
    """Logarithms of the steps between which events are possible."""
    if between is not None:
        for name, place in places.items():
            if not between[0] <= np.exp(place.log_step) <= between[1]:
                raise ValueError(
                    f"between: got {between}, and {name!r} was acquired at step {np.exp(place.log_step):.0f}; pass a "
                    "stretch that holds all that happened."
                )
        return float(np.log(max(between[0], 1.0))), float(np.log(between[1]))
    recorded = np.log(np.maximum(history.steps[[0, -1]], 1.0))
    happened = [
        *(place.log_step for place in places.values()),
        *np.log(np.concatenate([e.steps for e in sources.values()])),
    ]
    return stretch_of(happened, float(recorded[0]), float(recorded[1]))


def _orders(
    rows: Sequence[Acquisition],
    sources: Mapping[str, Events],
    readings: Mapping[str, Series],
    expected_order: Sequence[Sequence[str]],
    belongs: Mapping[str, str] | None,
    seed: int,
) -> list[OrderAgreement]:
    """Every two orders of the same things that are known apart from one another."""
    acquired = {row.concept: row.between for row in rows}
    found = []
    if expected_order:
        expected = {name: (rank, rank) for rank, group in enumerate(map(list, expected_order)) for name in group}
        found.append(order_agreement("acquisition and theory", acquired, expected, seed=seed))
    own = belongs if belongs is not None else {name: name for name in acquired if name in sources}
    if own:
        main = {name: time for name, source in own.items() if (time := main_event(sources[source])) is not None}
        theirs = {name: acquired[name] for name in own}
        found.append(order_agreement("acquisition and the concept's own source", theirs, main, seed=seed))
    losses = {
        name: time for name in sources if name not in readings and (time := main_event(sources[name])) is not None
    }
    for probe in dict.fromkeys(name.partition(", ")[0] for name in readings):
        # the readings of the parts of the loss in the whole network are named by them
        read = {
            name: time
            for name in losses
            if (events := sources.get(f"{probe}, {name}")) is not None and (time := main_event(events)) is not None
        }
        if len(read) > 1:
            shared = {name: losses[name] for name in read}
            found.append(order_agreement(f"{probe} and loss, by subloss", read, shared, seed=seed))
    return found


def _check_belongs(
    belongs: Mapping[str, str] | None, concepts: Mapping[str, object], sources: Mapping[str, object]
) -> None:
    for concept, source in (belongs or {}).items():
        if concept not in concepts:
            raise ValueError(f"belongs: got the concept {concept!r}; the history has {sorted(concepts)}.")
        if source not in sources:
            raise ValueError(f"belongs: got the source {source!r}; there are {sorted(sources)}.")


def _check(
    history: History,
    readings: Mapping[str, Series],
    expected_order: Sequence[Sequence[str]],
    between: tuple[float, float] | None,
    rate: float,
    method: str,
    controls: int,
) -> None:
    taken = [name for name in readings if name in history.losses]
    if taken:
        raise ValueError(f"readings: {taken[0]!r} is the name of a loss too; give it another.")
    last = history.steps[-1] if len(history.steps) else -1
    for name, series in readings.items():
        check_series(name, series)
        if series.steps[-1] > last:
            raise ValueError(
                f"readings: {name!r} goes to step {series.steps[-1]}, beyond the history's last, {last}; record "
                "losses and concepts that far, or leave these readings out."
            )
    for group in expected_order:
        if isinstance(group, str):
            raise ValueError(f"expected_order: got {group!r} among the groups; pass groups of names, as ({group!r},).")
    if between is not None and not 0 <= between[0] < between[1] < np.inf:
        raise ValueError(f"between: got {between}; pass two steps, the first below the second.")
    if not 0 < rate < 1:
        raise ValueError(f"rate: got {rate}; a false-discovery rate lies between 0 and 1.")
    if method not in ("bh", "by"):
        raise ValueError(f"method: got {method!r}; choose 'bh' or 'by'.")
    if not controls >= 1:
        raise ValueError(f"controls: got {controls}; they are always run, at least once.")
