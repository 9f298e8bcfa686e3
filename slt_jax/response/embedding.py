"""UMAP of entries, for pictures: an optional extra."""

import numpy as np

from slt_jax.types import Array


def umap_embedding(points: Array, *, seed: int = 0, dimensions: int = 2, neighbours: int | None = None) -> np.ndarray:
    """Places of entries in a plane that keep neighbours together, for a picture (host only).

    Args:
      points: Shape ``(entry, axis)``, as of ``Axes.points()``.
      seed: A whole number; one thread is used, so that it settles the result.
      dimensions: Of the result.
      neighbours: Default 45, or an eighth of the entries if that is less, and at least 5.

    Returns:
      Shape ``(entry, dimensions)``, single precision.

    Raises:
      ModuleNotFoundError: the extra is not installed.
      ValueError: points are too few or not finite.

    Not to be believed in its distances, nor in the number and shape of its islands: read ``conductance_clusters``.

    Source: McInnes, Healy & Melville 2018, arXiv:1802.03426; of susceptibilities: arXiv:2601.12703.
    """
    given = np.asarray(points, np.float64)
    if given.ndim != 2 or not np.isfinite(given).all() or 0 in given.shape:
        raise ValueError(f"points: got shape {given.shape}; pass finite numbers of axes (entry, axis).")
    some = min(45, max(5, len(given) // 8)) if neighbours is None else neighbours
    if not 2 <= some < len(given):
        raise ValueError(f"neighbours: got {some} of {len(given)} points; pass at least 2 and fewer than the points.")
    try:
        from umap import UMAP
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "umap_embedding needs the package umap-learn: pip install 'slt_jax[umap]'.", name=error.name
        ) from error
    return UMAP(n_components=dimensions, n_neighbors=some, random_state=seed, n_jobs=1).fit_transform(given)
