"""Names for the values that travel through the whole library.

Shapes are written in docstrings; these aliases only say what kind of thing a value is.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax

Array: TypeAlias = jax.Array
#: Any nest of tuples, lists, dicts and registered containers with arrays at its leaves.
PyTree: TypeAlias = Any
#: A typed key, as made by ``jax.random.key``.
Key: TypeAlias = jax.Array
#: A Python number or an array of shape ``()``.
Scalar: TypeAlias = Any
#: ``noise(key, like)``: a tree like ``like`` of independent entries with mean 0 and variance 1.
Noise: TypeAlias = Callable[[Key, PyTree], PyTree]
#: ``loss_fn(params, batch)``: losses in nats, of shape ``(B,)``, ``(B, T)`` or ``()``.
LossFn: TypeAlias = Callable[[PyTree, PyTree], jax.Array]
