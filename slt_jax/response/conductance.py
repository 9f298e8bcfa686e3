"""Clusters of entries by conductance: a graph of nearest neighbours, cut where a random walk would seldom cross."""

from typing import Any, NamedTuple

import numpy as np

from slt_jax.types import Array

#: Neighbours of an entry and entries of the smallest cluster, as published for tens of thousands of entries; of fewer,
#: so many of them, but five: in graphs of fewer links small sets fall apart by chance.
NEIGHBOURS, LEAST, _ONE_NEIGHBOUR_IN, _ONE_OF_LEAST_IN, _FEWEST = 45, 20, 8, 20, 5
#: Chance of the walk to return to its start at a step, and accuracy of where it is found.
TELEPORT, TOLERANCE = 1e-3, 1e-7
#: The largest conductance of a cluster.
MOST = 0.1
#: Starts of the walk in each set that may be divided.
_STARTS = 4


class Clusters(NamedTuple):
    """Sets of entries that a walk between neighbours seldom leaves, the largest first.

    Attributes:
      labels: The cluster of each entry, -1 where it is in none, shape ``(entry,)``.
      conductances: Share of the links of each that lead out, shape ``(cluster,)``.
      sizes: Entries of each.
    """

    labels: np.ndarray
    conductances: np.ndarray
    sizes: np.ndarray


def conductance_clusters(
    points: Array,
    *,
    neighbours: int | None = None,
    least: int | None = None,
    most: float = MOST,
    teleport: float = TELEPORT,
    tolerance: float = TOLERANCE,
) -> Clusters:
    """Clusters of points: sets of low conductance in the graph of nearest neighbours (host only; nothing is random).

    ``φ(S) = links between S and the rest / links of the smaller side``. The graph is cut along a personalised PageRank
    ``p`` from a start: entries are taken in the order of ``p`` over their links, and the cut is made after the one
    where φ is least, with at least ``least`` entries on both sides. Parts are cut again until no cut is below ``most``;
    a cluster is what is left, if it is large enough and its φ in the whole graph is at most ``most``. All entries
    together are no cluster.

    Args:
      points: Shape ``(entry, axis)``, as of ``Axes.points()``.
      neighbours: Of each entry; two are linked where one is a neighbour of the other. Default 45, or an eighth of the
        entries if that is less, and at least 5.
      least: Entries of the smallest cluster; default 20, or a twentieth of the entries if less, and at least 5.
      most: The largest conductance.
      teleport: α, the chance of the walk to return to its start at each step: small ones see far.
      tolerance: Relative accuracy of the solve for ``p``.

    Returns:
      ``Clusters``. The memory used is that of the links.

    Raises:
      ValueError: there are too few points, or they are not finite, or a number is out of range.

    Not to be believed as a number of clusters: it is a property of the pipeline, of ``neighbours``, ``least`` and
    ``most``. Points without structure are cut too where they lie in few dimensions, for there the graph is a sheet;
    hold the labels against those of other seeds and of the controls (``read_response``).

    Source: Andersen, Chung & Lang 2006, doi:10.1109/FOCS.2006.44 (sweep cuts along personalised PageRank);
    arXiv:2601.12703 (of susceptibilities, with these settings).

    >>> points = np.random.default_rng(0).normal(size=(60, 3)) + 10 * np.repeat(np.eye(3), 20, axis=0)
    >>> conductance_clusters(points).sizes.tolist()
    [20, 20, 20]
    """
    given = np.asarray(points, np.float64)
    if given.ndim != 2 or not np.isfinite(given).all():
        raise ValueError(f"points: got shape {given.shape}; pass finite numbers of axes (entry, axis).")
    count = len(given)
    some = min(NEIGHBOURS, max(_FEWEST, count // _ONE_NEIGHBOUR_IN)) if neighbours is None else neighbours
    fewest = min(LEAST, max(_FEWEST, count // _ONE_OF_LEAST_IN)) if least is None else least
    if not 1 <= some < count:
        raise ValueError(f"neighbours: got {some} of {count} points; pass at least 1 and fewer than there are points.")
    if fewest < 1:
        raise ValueError(f"least: got {fewest}; a cluster has at least one entry.")
    for name, number in (("most", most), ("teleport", teleport), ("tolerance", tolerance)):
        if not 0 < number < 1:
            raise ValueError(f"{name}: got {number}; pass a number between 0 and 1.")
    if given.shape[1] == 0:
        return Clusters(np.full(count, -1), np.zeros(0), np.zeros(0, int))
    graph = neighbour_graph(given, some)
    found = []
    for part in _parts(graph, fewest, most, teleport, tolerance):
        value = conductance(graph, part)
        if fewest <= len(part) < count and value <= most:
            found.append((part, value))
    found.sort(key=lambda one: (-len(one[0]), one[0][0]))
    labels = np.full(count, -1)
    for number, (part, _) in enumerate(found):
        labels[part] = number
    return Clusters(labels, np.array([value for _, value in found]), np.array([len(part) for part, _ in found], int))


def neighbour_graph(points: np.ndarray, neighbours: int) -> Any:
    """A sparse symmetric matrix of ones: two points are linked where one is among the nearest of the other.

    >>> neighbour_graph(np.array([[0.0], [1.0], [5.0]]), 1).toarray().tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    from scipy.sparse import csr_array
    from scipy.spatial import KDTree

    count = len(points)
    nearest = KDTree(points).query(points, neighbours + 1)[1]
    rows = np.repeat(np.arange(count), neighbours + 1)
    columns = nearest.ravel()
    # of points in one place any may be the nearest: a point is no neighbour of itself, wherever it is named
    apart = rows != columns
    links = csr_array((np.ones(apart.sum()), (rows[apart], columns[apart])), shape=(count, count))
    return links.maximum(links.T).tocsr()


def conductance(graph: Any, part: np.ndarray) -> float:
    """``φ`` of a set of entries in a graph: links that leave it, over those of the smaller side.

    >>> conductance(neighbour_graph(np.array([[0.0], [1.0], [5.0], [6.5]]), 1), np.array([0, 1]))
    0.0
    """
    links = np.asarray(graph.sum(axis=1)).ravel()
    inside = float(links[part].sum())
    kept = float(graph[part][:, part].sum())
    smaller = min(inside, float(links.sum()) - inside)
    return (inside - kept) / smaller if smaller > 0 else 0.0


def pagerank(graph: Any, start: int, teleport: float = TELEPORT, tolerance: float = TOLERANCE) -> np.ndarray:
    """Where a lazy walk from ``start`` is found that returns there with chance α a step: ``p = α s + (1-α) p W``.

    ``W`` is the walk that stays or moves to a neighbour with equal chance. Solved by conjugate gradients on
    ``D^-½ p``, the graph being symmetric.

    >>> pagerank(neighbour_graph(np.array([[0.0], [1.0]]), 1), 0, 0.5).round(3).tolist()
    [0.75, 0.25]
    """
    from scipy.sparse import diags_array, eye_array
    from scipy.sparse.linalg import cg

    roots = np.sqrt(np.maximum(np.asarray(graph.sum(axis=1)).ravel(), 1.0))
    walk = diags_array(1 / roots) @ graph @ diags_array(1 / roots)
    lazy = 0.5 * (eye_array(len(roots)) + walk)
    source = np.zeros(len(roots))
    source[start] = teleport / roots[start]
    found, failed = cg(eye_array(len(roots)) - (1 - teleport) * lazy, source, rtol=tolerance, atol=0.0)
    if failed:
        raise RuntimeError(f"pagerank: conjugate gradients did not reach {tolerance}; raise tolerance or teleport.")
    return np.maximum(found * roots, 0)


def _parts(graph: Any, fewest: int, most: float, teleport: float, tolerance: float) -> list[np.ndarray]:
    """What is left when every set is cut as long as there is a cut below ``most``."""
    from scipy.sparse.csgraph import connected_components

    whole = np.arange(graph.shape[0])
    waiting, left = [whole], []
    while waiting:
        part = waiting.pop()
        inside = graph[part][:, part]
        number, names = connected_components(inside, directed=False)
        if number > 1:
            waiting += [part[names == name] for name in range(number)]
            continue
        value, cut = _best_cut(inside, fewest, teleport, tolerance) if len(part) >= 2 * fewest else (1.0, None)
        if cut is None or value > most:
            left.append(part)
            continue
        waiting += [part[cut], np.setdiff1d(part, part[cut])]
    return left


def _best_cut(graph: Any, fewest: int, teleport: float, tolerance: float) -> tuple[float, np.ndarray]:
    """The sweep cut of least conductance from a few starts, each where the walks before it seldom came."""
    links = np.asarray(graph.sum(axis=1)).ravel()
    start, seen = int(np.argmax(links)), np.zeros(len(links))
    best: tuple[float, np.ndarray] = (np.inf, np.zeros(0, int))
    for _ in range(_STARTS):
        density = pagerank(graph, start, teleport, tolerance) / links
        order = np.argsort(-density, kind="stable")
        values = _sweep(graph[order][:, order], links[order])[fewest - 1 : len(links) - fewest]
        at = int(np.argmin(values))
        if values[at] < best[0]:
            best = float(values[at]), order[: at + fewest]
        seen = np.maximum(seen, density / density.max())
        start = int(np.argmin(seen))
    return best


def _sweep(graph: Any, links: np.ndarray) -> np.ndarray:
    """Conductance of the first ``i + 1`` entries, for each ``i``."""
    from scipy.sparse import tril

    # a link to an entry before it turns an outward link of the set into two inward ends
    earlier = np.asarray(tril(graph, -1).sum(axis=1)).ravel()
    inside = np.cumsum(links)
    leaving = np.cumsum(links - 2 * earlier)
    return leaving / np.maximum(np.minimum(inside, inside[-1] - inside), 1e-300)
