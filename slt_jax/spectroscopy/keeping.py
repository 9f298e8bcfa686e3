"""Which checkpoints are worth their disk: evenly in the logarithm of the step, denser where a curve moves fast."""

import bisect
import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

#: A curve is looked at over so much of the natural logarithm of the step, twice, and over four offers or more.
WINDOW = 0.1
_LEAST = 4
#: Points of a curve that are kept for each such stretch; what is offered in between is passed over.
POINTS = 100
#: Changes by less than this share of the largest value of a curve so far are none.
SHARE = 0.005
#: Before so many speeds are known there is no usual one.
_KNOWN = 10


class Rule(NamedTuple):
    """When a checkpoint is kept.

    Attributes:
      per_decade: Checkpoints kept for each factor of 10 of the step, whatever happens.
      per_decade_in_events: The same while some curve changes fast.
      speed: A curve changes fast where its speed in log step is so many times its usual speed, the median so far.
    """

    per_decade: int = 8
    per_decade_in_events: int = 50
    speed: float = 6.0


class Curves(NamedTuple):
    """What was offered so far; ``add`` writes to it.

    Attributes:
      places: ``log(1 + step)``, increasing.
      values: Of each curve at each place.
      speeds: Speeds of each curve so far.
    """

    places: list[float]
    values: dict[str, list[float]]
    speeds: dict[str, list[float]]


def place(step: int) -> float:
    """Where a step stands: ``log(1 + step)``."""
    return math.log1p(step)


def add(curves: Curves, step: int, losses: Mapping[str, float], rule: Rule) -> bool:
    """Add a point to every curve, and say whether some curve changes fast there: an event.

    With ``a`` and ``b`` the means of a curve over the last two stretches of 0.1 in ``log(1 + step)`` (of four offers or
    more each) and ``v = |b - a|`` over the distance of the stretches, there is an event where ``v`` is at least
    ``speed`` times the median of all ``v`` of this curve so far, and ``|b - a|`` at least .5 % of its largest value
    so far. A curve that falls evenly in log step has none, and noise about a level rarely.

    >>> def events(curve):
    ...     curves = Curves([], {}, {})
    ...     return [step for step in range(1, 1000) if add(curves, step, {"all": curve(step)}, Rule())]
    >>> fast = events(lambda step: 1 / (1 + math.exp((step - 400) / 8)))
    >>> 360 < fast[0] < 400 < fast[-1] < 530, events(lambda step: 9 - math.log(step))
    (True, [])
    """
    curves.places.append(place(step))
    found = False
    for name, value in losses.items():
        curve = curves.values.setdefault(name, [])
        curve.append(float(value))
        known = curves.speeds.setdefault(name, [])
        stretches = _stretches(curves.places)
        if stretches is None:
            continue
        early, late = (np.array(curve[stretch]) for stretch in stretches)
        change = abs(float(late.mean() - early.mean()))
        speed = change / float(np.mean(curves.places[stretches[1]]) - np.mean(curves.places[stretches[0]]))
        usual = float(np.median(known)) if len(known) >= _KNOWN else math.inf
        if math.isfinite(speed):
            found |= speed >= rule.speed * usual and change > SHARE * float(np.nanmax(np.abs(curve)))
            known.append(speed)
    return found


def _stretches(places: list[float]) -> tuple[slice, slice] | None:
    """The last two stretches, or ``None`` where there are too few points."""
    middle = min(bisect.bisect_right(places, places[-1] - WINDOW), len(places) - _LEAST)
    if middle < _LEAST:
        return None
    begin = max(min(bisect.bisect_right(places, places[middle - 1] - WINDOW), middle - _LEAST), 0)
    return slice(begin, middle), slice(middle, len(places))


def is_due(step: int, last: int | None, event: bool, rule: Rule) -> bool:
    """Whether a checkpoint at ``step`` is to be kept, the last that was kept being at ``last``.

    ``log10(1 + step)`` is cut into stretches of ``1 / per_decade``, or finer ones where there is an event: the first
    offer in each is kept.

    >>> [step for step in range(1, 40) if is_due(step, step - 1, False, Rule(per_decade=4))]
    [1, 3, 5, 9, 17, 31]
    """
    if last is None:
        return True
    grid = rule.per_decade_in_events if event else rule.per_decade
    return math.floor(grid * place(step) / math.log(10)) > math.floor(grid * place(last) / math.log(10))


def least_useful(steps: Sequence[int], events: Collection[int], rule: Rule) -> int | None:
    """The checkpoint that is missed least: the one whose neighbours are closest in log step; never the first or last.

    Near an event, within the stretch that speeds are looked at, distances count as many times as checkpoints are denser
    there.

    Args:
      steps: Steps of the checkpoints, increasing.
      events: Steps at which a curve changed fast.
      rule: For how much denser they are in events.

    Returns:
      One of ``steps``, or ``None`` where there are no more than two.

    >>> least_useful([1, 10, 11, 12, 100, 110, 120, 1000], [110], Rule())
    11
    """
    if len(steps) < 3:
        return None
    places = [place(step) for step in steps]
    fast = sorted(place(step) for step in events)
    factor = max(rule.per_decade_in_events / rule.per_decade, 1.0)

    def worth(index: int) -> float:
        nearest = bisect.bisect_left(fast, places[index] - WINDOW)
        near = nearest < len(fast) and fast[nearest] <= places[index] + WINDOW
        return (places[index + 1] - places[index - 1]) * (factor if near else 1.0)

    return steps[min(range(1, len(steps) - 1), key=worth)]


def check_rule(rule: Rule) -> None:
    """Refuse a rule by which nothing, or everything, would be kept.

    Raises:
      ValueError: naming the entry.
    """
    for name in ("per_decade", "per_decade_in_events"):
        if getattr(rule, name) < 1:
            raise ValueError(f"{name}: got {getattr(rule, name)}; keep at least one checkpoint per decade.")
    if not rule.speed > 0:
        raise ValueError(f"speed: got {rule.speed}; it is a multiple of the mean speed, above 0.")


def check_losses(losses: Mapping[str, float], names: Collection[str] | None) -> None:
    """Refuse losses of other names than those before, or that are no numbers.

    Raises:
      ValueError: naming the loss.
    """
    if names is not None and set(losses) != set(names):
        raise ValueError(
            f"losses: got {sorted(losses)} after {sorted(names)}; offer the same curves at every step, by name."
        )
    for name, value in losses.items():
        if np.ndim(value):
            raise ValueError(f"losses: {name!r} has shape {np.shape(value)}; offer its mean, one number.")
