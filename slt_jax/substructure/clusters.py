"""The components of a minimum set as a cloud of deep samples shows them: by sign, by rank, by log-direction.

Pure functions of draws at several temperatures, displacements ``(rung, sample, d)`` with the ``nβ`` of each rung. A
component that decides stays or grows as the cloud is cooled; one that does not dies out.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from slt_jax.substructure.divisors import BLOCKS, check_draws

#: Extreme samples that stand for a vertex: between these quantiles along a direction.
_OUTER, _OUTERMOST = 0.95, 0.995
#: Far ends of the scatter about a flat lie about 3 off it in units of ``1/log nβ``, a further vertex 5 and more.
SCATTER = 4.0
#: The same for means, as a share: halves of one vertex are about 2 apart, samples of two vertices 4 and more.
_MEANS = 0.75


class Clusters(NamedTuple):
    """Samples sorted into components.

    Attributes:
      labels: ``(rung, sample)`` integers; the components of the coldest rung are numbered by falling share.
      centers: ``(k, f)``: what a component is: its signs, the ranks of its layers, or its mean log-direction on the
        coldest rung.
      responsibilities: ``(rung, k)``: the share of the samples, rungs in the order given.
      std_errors: ``(rung, k)``: of the shares, from blocks of consecutive samples.
    """

    labels: np.ndarray
    centers: np.ndarray
    responsibilities: np.ndarray
    std_errors: np.ndarray


def log_directions(z: Any, nbetas: Any) -> np.ndarray:
    """``ν_i = -log |z_i| / log nβ``: the weight with which each coordinate of a sample has shrunk.

    Args:
      z: Draws ``(rung, sample, d)``, displacements in units in which the neighbourhood has size 1.
      nbetas: ``(rung,)``, above 1.

    Returns:
      Shape ``(rung, sample, d)``, no units; infinite where a draw is exactly 0.

    Raises:
      ValueError: shapes that do not fit, an ``nβ`` that is not above 1.

    Not to be believed to better than about ``1/log nβ``: that is how a factor of order 1 enters.

    Source: tropical limits of volumes: Watanabe 2009, Algebraic Geometry and Statistical Learning Theory.

    >>> log_directions(np.array([[[1e-2, 1.0]]]), np.array([1e4]))
    array([[[ 0.5, -0. ]]])
    """
    draws, inverse = np.asarray(z, np.float64), np.asarray(nbetas, np.float64)
    if draws.ndim != 3 or inverse.shape != draws.shape[:1] or not (inverse > 1).all():
        raise ValueError(
            f"z, nbetas: got shapes {draws.shape} and {inverse.shape}; pass (rung, sample, d) and (rung,) above 1."
        )
    with np.errstate(divide="ignore"):
        return -np.log(np.abs(draws)) / np.log(inverse)[:, None, None]


def clusters(z: Any, nbetas: Any, *, vertices: Any = None, scatter: float = SCATTER, blocks: int = BLOCKS) -> Clusters:
    """Components by log-direction: each sample goes to the vertex that its ``log_directions`` are next to.

    At ``nβ`` samples fill ``{ν : ⟨α, ν⟩ ≈ 1/2}`` up to ``O(1/log nβ)``: the face of optimal toric divisors, whose
    vertices are the components (``x y = 0``: (½, 0) and (0, ½)) and whose dimension is ``m - 1``. Vertices not given
    are looked for on the coldest rung by successive projection: the far end of the cloud, then what is farthest from
    the flat through the vertices so far, as long as that is more than the scatter of one vertex.

    Args:
      z: Draws ``(rung, sample, d)``, displacements in units in which the neighbourhood has size 1.
      nbetas: ``(rung,)``, above 1, two or more.
      vertices: ``(k, d)``, such as ``divisors`` of ``truths.newton`` halved; default found.
      scatter: In units of ``1/log nβ``: a further vertex lies farther than this off the flat through the others.
      blocks: Blocks of consecutive samples, for the errors.

    Returns:
      Labels, mean log-directions and shares against temperature.

    Raises:
      ValueError: as ``log_directions`` and ``divisor_weights``; a draw that is exactly 0; vertices of another shape.

    Not to be believed where ``log nβ`` is below about eleven: the scatter then covers an edge, and components are not
    told apart. It sees only components that are coordinate subspaces; others need other coordinates, or
    ``rank_clusters``. Vertices found lie a few per cent inside the true ones.

    Source: successive projection: Araújo et al. 2001, Chemometrics and Intelligent Laboratory Systems 57, 65-73.

    >>> random, nbetas = np.random.default_rng(0), np.array([1e6, 1e8])
    >>> small = nbetas[:, None] ** -0.5 * random.normal(size=(2, 1000))
    >>> crossed = np.stack([small, random.uniform(size=(2, 1000))], axis=-1)
    >>> crossed[:, ::2] = crossed[:, ::2, ::-1]  # half on one axis, half on the other
    >>> found = clusters(crossed, nbetas)
    >>> len(found.centers), found.responsibilities.round(1).tolist()
    (2, [[0.5, 0.5], [0.5, 0.5]])
    """
    check_draws(z, nbetas, blocks)
    nu = log_directions(z, nbetas)
    if not np.isfinite(nu).all():
        raise ValueError("z: a draw is exactly 0 in some coordinate, where its log-direction is infinite.")
    coldest = int(np.argmax(nbetas))
    if vertices is None:
        corners = _vertices(nu[coldest], scatter / float(np.log(nbetas[coldest])))
    else:
        corners = np.asarray(vertices, np.float64)
        if corners.ndim != 2 or corners.shape[1] != nu.shape[2]:
            raise ValueError(f"vertices: got shape {corners.shape}; pass (k, {nu.shape[2]}).")
    return _sorted(_nearest(nu, corners), nu, coldest, len(corners), blocks)


def sign_clusters(z: Any, nbetas: Any, *, blocks: int = BLOCKS) -> Clusters:
    """Components by the signs of the coordinates: the orthants that samples are in, centres of ±1.

    Args:
      z: Draws ``(rung, sample, d)``; a coordinate that is 0 counts as positive.
      nbetas: ``(rung,)``, two or more.
      blocks: Blocks of consecutive samples, for the errors.

    Returns:
      Labels, signs and shares against temperature.

    Raises:
      ValueError: as ``divisor_weights``.

    Not to be believed as connected components: two orthants may touch along a wall on which the loss is 0. Chains that
    do not cross walls show where they started.

    Source: elementary.

    >>> z = np.array([-1.0, 1.0, 1.0, 1.0] * 10)[None, :, None] * np.ones((2, 1, 1))
    >>> sign_clusters(z, np.array([1e2, 1e4])).responsibilities[0].tolist()
    [0.75, 0.25]
    """
    draws, _ = check_draws(z, nbetas, blocks)
    return _by_pattern(np.where(draws < 0, -1, 1), nbetas, blocks)


def rank_clusters(layers: Sequence[Any], nbetas: Any, *, depth: float = 0.25, blocks: int = BLOCKS) -> Clusters:
    """Components by the ranks of matrices: how many singular values of each have not shrunk.

    A singular value ``s`` counts where ``s > nβ^{-depth}``. Across a component it shrinks like ``nβ^{-1/2}``, along it
    not at all: ½ and 0 are told apart at ¼.

    Args:
      layers: Draws of each matrix, ``(rung, sample, outputs, inputs)``, as weights, not as displacements, in units in
        which the neighbourhood has size 1.
      nbetas: ``(rung,)``, two or more.
      depth: Between 0 and ½.
      blocks: Blocks of consecutive samples, for the errors.

    Returns:
      Labels, rank patterns ``(k, layer)`` and shares against temperature.

    Raises:
      ValueError: matrices of another shape, a depth outside (0, ½), as ``divisor_weights``.

    Not to be believed at a single temperature: near where components meet singular values of every size occur, and a
    share converges like ``1/log nβ``, or not at all where several components decide (``m > 1``) and share the cloud.

    Source: rank strata of deep linear networks: Shewchuk and Bhattacharya 2024, arXiv:2404.14855; components of top
    dimension: Pepin Lehalleur and Rimányi 2024, arXiv:2411.19920.

    >>> layer = np.broadcast_to(np.diag([1.0, 1e-4]), (2, 40, 2, 2))
    >>> rank_clusters([layer, 0 * layer], np.array([1e4, 1e6])).centers.tolist()
    [[1, 0]]
    """
    if not 0 < depth < 0.5:
        raise ValueError(f"depth: got {depth}; it must lie between 0 and 1/2.")
    matrices = [np.asarray(layer, np.float64) for layer in layers]
    if not matrices or any(matrix.ndim != 4 or matrix.shape[:2] != matrices[0].shape[:2] for matrix in matrices):
        raise ValueError(
            f"layers: got shapes {[m.shape for m in matrices]}; pass (rung, sample, outputs, inputs) each."
        )
    check_draws(matrices[0].reshape(*matrices[0].shape[:2], -1), nbetas, blocks)
    least = np.asarray(nbetas, np.float64)[:, None, None] ** -depth
    ranks = [np.sum(np.linalg.svd(matrix, compute_uv=False) > least, axis=-1) for matrix in matrices]
    return _by_pattern(np.stack(ranks, axis=-1), nbetas, blocks)


def _by_pattern(patterns: np.ndarray, nbetas: Any, blocks: int) -> Clusters:
    """One component for each distinct row of ``(rung, sample, f)``."""
    distinct, labels = np.unique(patterns.reshape(-1, patterns.shape[-1]), axis=0, return_inverse=True)
    labels = labels.reshape(patterns.shape[:2])
    found = _sorted(labels, patterns.astype(float), int(np.argmax(nbetas)), len(distinct), blocks)
    order = [int(np.flatnonzero((found.labels == k).ravel())[0]) for k in range(len(distinct))]
    return found._replace(centers=patterns.reshape(-1, patterns.shape[-1])[order])


def _sorted(labels: np.ndarray, features: np.ndarray, coldest: int, count: int, blocks: int) -> Clusters:
    """Components numbered by falling share on the coldest rung, with centres, shares and their errors."""
    order = np.argsort(-np.bincount(labels[coldest], minlength=count), kind="stable")
    labels = np.argsort(order)[labels]
    member = labels[:, :, None] == np.arange(count)
    shares = np.stack([part.mean(axis=1) for part in np.array_split(member, blocks, axis=1)])
    centers = [features[coldest][member[coldest, :, k]] for k in range(count)]
    return Clusters(
        labels=labels,
        centers=np.stack([part.mean(axis=0) if len(part) else np.full(part.shape[1], np.nan) for part in centers]),
        responsibilities=member.mean(axis=1),
        std_errors=shares.std(axis=0, ddof=1) / np.sqrt(blocks),
    )


def _vertices(nu: np.ndarray, reach: float) -> np.ndarray:
    """Vertices ``(k, d)`` of a cloud ``(sample, d)``: the ends that scatter does not explain."""
    found = _far_end(nu, nu - np.median(nu, axis=0))[None]
    while len(found) <= nu.shape[1]:
        basis = np.linalg.qr((found[1:] - found[0]).T)[0]
        beyond = nu - found[0]
        end = _far_end(nu, beyond - beyond @ basis @ basis.T)
        height = end - found[0] - basis @ (basis.T @ (end - found[0]))
        proposed = np.concatenate([found, end[None]])
        if np.linalg.norm(height) <= reach or not _set_apart(nu, proposed, _MEANS * reach):
            break
        found = proposed
    return found


def _set_apart(nu: np.ndarray, corners: np.ndarray, reach: float) -> bool:
    """Whether the samples next to the last corner have a mean farther than ``reach`` from those of the others."""
    labels = _nearest(nu, corners)
    if len(np.unique(labels)) < len(corners):
        return False
    means = np.stack([nu[labels == k].mean(axis=0) for k in range(len(corners))])
    return bool(np.linalg.norm(means[:-1] - means[-1], axis=1).min() > reach)


def _nearest(nu: np.ndarray, corners: np.ndarray) -> np.ndarray:
    return np.argmin(np.linalg.norm(nu[..., None, :] - corners, axis=-1), axis=-1)


def _far_end(nu: np.ndarray, displaced: np.ndarray) -> np.ndarray:
    """The mean of the samples that are farthest along the direction of a far, but not the farthest, displacement."""
    sizes = np.linalg.norm(displaced, axis=1)
    far = displaced[np.argsort(sizes)[int(_OUTER * (len(sizes) - 1))]]
    along = displaced @ far
    low, high = np.quantile(along, [_OUTER, _OUTERMOST])
    return nu[(along >= low) & (along <= high)].mean(axis=0)
