"""How many weights two masks share, and how many they would by chance."""

from typing import NamedTuple

import jax
import numpy as np

from slt_jax import tree
from slt_jax.types import PyTree


class Overlap(NamedTuple):
    """Shared weights of two masks.

    Attributes:
      jaccard: ``|A ∩ B| / |A ∪ B|``.
      expected: Its mean over random masks of the same sizes.
      deviation: Its standard deviation over them.
      shared: ``|A ∩ B|``.
    """

    jaccard: float
    expected: float
    deviation: float
    shared: int


def overlap(left: PyTree, right: PyTree) -> Overlap:
    """How related two skills are, by the weights that carry both: ``J = |A ∩ B| / |A ∪ B|`` beside its law by chance.

    With ``a`` and ``b`` of ``d`` weights in two random masks, ``|A ∩ B| = i`` is hypergeometric, and
    ``J = i / (a + b - i)``; mean and standard deviation are summed over that law, and exact.

    Args:
      left: A tree of boolean arrays, as ``graft(...).mask``.
      right: Another of the same structure and shapes.

    Returns:
      A share in [0, 1], its expectation and deviation by chance, and the number of shared weights.

    Raises:
      ValueError: the masks differ in structure or shape, are not boolean, or one of them is empty.

    Not to be believed as a relation of skills where weights of one layer are chosen by both for what they are, such as
    the biases of the output: chance knows of no layers.

    Source: Panigrahi, Saunshi, Zhao & Arora 2023, arXiv:2302.06600 (overlap of the regions of tasks).

    >>> first, second = np.arange(10) < 4, np.arange(10) < 2
    >>> found = overlap(first, second)
    >>> found.shared, found.jaccard, round(found.expected, 3)
    (2, 0.5, 0.173)
    """
    from scipy.stats import hypergeom

    tree.check_structure("right", right, "left", left, "Pass two masks of one network.")
    for name, a, b in zip(tree.leaf_names(left), jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        for side, leaf in (("left", a), ("right", b)):
            if np.asarray(leaf).dtype != np.bool_:
                raise ValueError(f"{side}: leaf '{name}' has dtype {np.asarray(leaf).dtype}; a mask is boolean.")
        if np.shape(a) != np.shape(b):
            raise ValueError(f"right: leaf '{name}' has shape {np.shape(b)}, left {np.shape(a)}.")
    first, second = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(m)]) for m in (left, right))
    a, b = int(first.sum()), int(second.sum())
    if not a or not b:
        raise ValueError(f"{'right' if a else 'left'}: the mask is empty; mark an entry True.")
    shared = int((first & second).sum())
    counts = np.arange(max(0, a + b - first.size), min(a, b) + 1)
    weights = hypergeom(first.size, a, b).pmf(counts)
    values = counts / (a + b - counts)
    mean = float(weights @ values)
    deviation = float(np.sqrt(max(0.0, weights @ (values - mean) ** 2)))
    return Overlap(shared / (a + b - shared), mean, deviation, shared)
