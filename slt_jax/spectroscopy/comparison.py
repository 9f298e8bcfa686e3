"""What independently trained networks have in common, as a table, in words and as JSON."""

from typing import Any, NamedTuple

import numpy as np


class Agreement(NamedTuple):
    """How far one reading is the same in all networks.

    Attributes:
      reading: Its name.
      distance: Root mean square difference between two networks, in units of its own root mean square: 0 to 2.
      by_chance: The mean of it where the reading is shuffled over the items of each network.
      p_value: The share of shuffles at least as near.
      adjusted: The p-value with the false-discovery rate over all readings controlled.
      agrees: Whether ``adjusted`` is within the level.
      kinds: The p-value of kinds of networks differing in it more than networks of a kind; ``None`` without kinds.
    """

    reading: str
    distance: float
    by_chance: float
    p_value: float
    adjusted: float
    agrees: bool
    kinds: float | None


class Comparison(NamedTuple):
    """What independently trained networks have in common.

    Attributes:
      names: Of the ``N`` networks.
      agreements: One for each reading, the nearest to chance last.
      distance: Over all readings, after the assignment of items that makes it least.
      by_chance: The mean of it over shuffles: of every reading by itself, or of items that are not assigned.
      p_value: The share of such shuffles at least as near.
      pairs: Distances between any two, shape ``(N, N)``.
      assignments: For ``(i, j)``: the item of j that each item of i was set beside, shape ``(P,)``.
      kinds: The p-value of kinds of networks differing more than networks of a kind, or ``None``.
      least: The least p-value that the kinds could reach, were they as different as can be, or ``None``.
      missing: Readings that are not in all networks, and were left out.
      level: Of the false-discovery rate.
    """

    names: list[str]
    agreements: list[Agreement]
    distance: float
    by_chance: float
    p_value: float
    pairs: np.ndarray
    assignments: dict[tuple[int, int], np.ndarray]
    kinds: float | None
    least: float | None
    missing: list[str]
    level: float

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers."""
        return {
            **self._asdict(),
            "agreements": [row._asdict() for row in self.agreements],
            "pairs": self.pairs.tolist(),
            "assignments": {f"{i} {j}": found.tolist() for (i, j), found in self.assignments.items()},
        }

    def describe(self) -> str:
        """A line for the whole, and one for each reading."""
        width = max(len(row.reading) for row in self.agreements)
        lines = [
            f"{len(self.names)} networks: distance {self.distance:.2f}, by chance {self.by_chance:.2f}, "
            f"p = {self.p_value:.2g}"
        ]
        lines += [
            f"  {row.reading:<{width}}  {row.distance:.2f} (by chance {row.by_chance:.2f}), p = {row.p_value:.2g}, "
            f"adjusted {row.adjusted:.2g}: {'agrees' if row.agrees else 'not told from chance'}"
            for row in self.agreements
        ]
        if self.kinds is not None:
            lines.append(f"Kinds of networks differ: p = {self.kinds:.2g}, which can be {self.least:.2g} at least")
        if self.missing:
            lines.append(f"Not in all networks: {', '.join(self.missing)}")
        return "\n".join(lines)
