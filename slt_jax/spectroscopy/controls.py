"""What alignment finds where there is nothing to find: probes that read noise, and concepts out of their time."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from slt_jax.spectroscopy.acquisition import Acquisition, acquisition
from slt_jax.spectroscopy.coincidence import stacked
from slt_jax.spectroscopy.events import Events, Series, events_of_curve, events_of_series
from slt_jax.spectroscopy.pairing import Chance, Place, PValues, p_values, places_of
from slt_jax.spectroscopy.phases import Phases
from slt_jax.spectroscopy.recorder import History

#: Even points in log step on which a surrogate is made: changes in a number that is quick to transform.
_POINTS = 577
#: Probes of noise behind the p-values of a reading.
_NOISES = 499
#: Pieces of log step in which the changes of a concept are shuffled.
_PIECES = 40


class Control(NamedTuple):
    """A negative control of an alignment, made and tested as the real one, many times.

    Attributes:
      kind: ``"random probe"`` or ``"shuffled concepts"``.
      draws: How many times.
      pairs: Pairs tested in all of them.
      below: Share of their p-values up to 0.05: about as much by chance, less where events are few or coarse.
      found: Pairs that passed the false-discovery control, in all draws together.
      draws_with_findings: Draws in which any did: about the level of the control is to be expected.
    """

    kind: str
    draws: int
    pairs: int
    below: float
    found: int
    draws_with_findings: int


def surrogate(random: np.random.Generator, steps: ArrayLike, values: ArrayLike) -> np.ndarray:
    """A curve of noise whose changes have the power spectrum, and so the autocorrelation, of those of a curve.

    The changes between even points in log step are taken to Fourier space, given random phases, and summed up again.

    Args:
      random: The source of phases.
      steps: Increasing, shape ``(T,)``.
      values: Shape ``(T,)``.

    Returns:
      The noise at the same steps, shape ``(T,)``, from the same first value.

    Source: Theiler, Eubank, Longtin, Galdrikian & Farmer 1992, Physica D 58.

    >>> steps, values = np.arange(1, 50), np.arange(1.0, 50) ** 2
    >>> noise = surrogate(np.random.default_rng(0), steps, values)
    >>> noise.shape, bool(noise[0] == 1.0), bool(abs(noise - values).max() > 1)
    ((49,), True, True)
    """
    logs = np.log(np.maximum(np.asarray(steps, float), 1.0))
    even = np.linspace(logs[0], logs[-1], _POINTS)
    changes = np.diff(np.interp(even, logs, np.asarray(values, float)))
    spectrum = np.fft.rfft(changes)
    phases = np.exp(2j * np.pi * random.uniform(size=spectrum.shape))
    # the mean change and the fastest are real: they keep their size, with a sign at random
    phases[[0, -1]] = random.choice([-1.0, 1.0], 2)
    noise = np.fft.irfft(np.abs(spectrum) * phases, len(changes))
    return np.interp(logs, even, np.cumsum([float(np.asarray(values)[0]), *noise]))


def noise_transitions(seed: int, series: Series) -> np.ndarray:
    """Transitions of 499 probes of noise in log step, as ``shift_test`` takes them, shape ``(499, J)``.

    The noise has the autocorrelation of the readings, is read at their checkpoints, and has its transitions found by
    the same rule: where a rule and a choice of checkpoints favour some places, it favours them too.

    Args:
      seed: Of the noise.
      series: The readings.
    """
    random = np.random.default_rng([seed, 3])
    return stacked([np.log(_noise_events(random, series).steps) for _ in range(_NOISES)])


def _noise_events(random: np.random.Generator, series: Series) -> Events:
    noise = series._replace(values=surrogate(random, series.steps, series.values))
    return events_of_series("noise", noise)


def shuffled(
    random: np.random.Generator, steps: np.ndarray, values: np.ndarray, stretch: tuple[float, float]
) -> np.ndarray:
    """A concept whose changes within a stretch of log steps are put in another order, piece by piece.

    40 pieces of equal length in log step: each keeps its changes together, so that a sudden rise stays sudden. Before
    and after the stretch the concept is as it was.

    Args:
      random: The source of the order.
      steps: Increasing, shape ``(T,)``.
      values: Shape ``(T,)``.
      stretch: Logarithms of its ends.
    """
    logs = np.log(np.maximum(np.asarray(steps, float), 1.0))
    even = np.linspace(*stretch, 1 + _PIECES * (_POINTS // _PIECES))
    changes = np.diff(np.interp(even, logs, values)).reshape(_PIECES, -1)
    moved = np.cumsum([np.interp(even[0], logs, values), *random.permutation(changes).ravel()])
    inside = (logs >= even[0]) & (logs <= even[-1])
    return np.where(inside, np.interp(logs, even, moved), values)


def random_probe(
    history: History,
    readings: Mapping[str, Series],
    places: Mapping[str, Place],
    chance: Chance,
    draws: int,
    seed: int,
) -> Control:
    """Every reading, or where there is none every loss, replaced by noise of the same autocorrelation."""
    random = np.random.default_rng([seed, 1])

    def once() -> PValues:
        sources = {name: _noise_events(random, series) for name, series in readings.items()} or {
            name: events_of_curve(f"loss {name!r}", history.steps, surrogate(random, history.steps, curve))
            for name, curve in history.losses.items()
        }
        return p_values(sources, places, chance)

    return _control("random probe", [once() for _ in range(draws)], chance.rate)


def shuffled_concepts(
    history: History,
    rows: Sequence[Acquisition],
    phases: Phases,
    sources: Mapping[str, Events],
    level: float,
    chance: Chance,
    draws: int,
    seed: int,
) -> Control:
    """Every concept that was acquired with its changes out of order, each by itself, acquired by the same rule."""
    random = np.random.default_rng([seed, 2])
    names = [row.concept for row in rows if row.step is not None]

    def once() -> PValues:
        concepts = {name: shuffled(random, history.steps, history.concepts[name], chance.stretch) for name in names}
        anew = [acquisition(name, values, history.steps, phases, level) for name, values in concepts.items()]
        return p_values(sources, places_of(history._replace(concepts=concepts), anew, level), chance)

    return _control("shuffled concepts", [once() for _ in range(draws)], chance.rate)


def _control(kind: str, tests: Sequence[PValues], rate: float) -> Control:
    p = np.array([one for test in tests for one, _ in test.pairs.values()])
    found = [sum(q <= rate for _, q in test.pairs.values()) for test in tests]
    below = float((p <= 0.05).mean()) if p.size else float("nan")
    return Control(kind, len(tests), len(p), below, sum(found), sum(count > 0 for count in found))
