"""Results as plain values: what ``study.json`` and other files of a folder can hold."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """What JSON can hold: named tuples as objects, arrays as lists, NaN as null, infinities as words.

    ``float`` and ``numpy.array(..., float)`` read the words, and an array of numbers takes null for NaN.

    >>> plain({"a": (np.float32(1), float("nan")), "b": np.array([1.0, -np.inf])})
    {'a': [1.0, None], 'b': [1.0, '-infinity']}
    """
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(entry) for name, entry in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("infinity" if value > 0 else "-infinity")
    return value
