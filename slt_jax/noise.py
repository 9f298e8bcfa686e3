"""Random numbers of chains: as cheap as Langevin dynamics allows, or exact where a test relies on their law.

All of a step's numbers come from one flat draw that is cut into leaves; on a mesh that has the parameters in pieces
each leaf is drawn by itself, piece by piece where it is needed: other numbers of the same law.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from slt_jax import generator, sharding, tree
from slt_jax.types import Array, Key, Noise, PyTree

#: ``u (a + b u²)`` of 256 equally likely ``u`` in (-1, 1) has variance 1 and kurtosis 3: two equations for a and b.
_LINEAR, _CUBIC = 0.6075658039822278, 1.7690814484055288


def normal(key: Key, like: PyTree) -> PyTree:
    """Independent entries with the first five moments of a standard normal law: the noise of Langevin dynamics.

    Each entry takes eight random bits: it is one of 256 equally likely levels ``u (a + b u²)``, ``u`` evenly spaced in
    (-1, 1), whose variance is 1 and kurtosis 3 exactly, with odd moments 0 and nothing beyond 2.4. A method of weak
    order 2 needs no more of its noise than these moments. A third of the cost of quantiles by sixteen bits, and less
    than that of ``jax.random.normal``, which is more than the gradient of a small network.

    Args:
      key: A typed key.
      like: A tree of floating-point arrays.

    Returns:
      A tree of the same shapes and dtypes.

    Not to be believed where a tail counts, as in the first step from a known point, or where a Metropolis test takes
    the law of what it is given for granted: ``exact_normal`` is for these.

    Source: Talay & Tubaro 1990, doi:10.1080/07362999008809220 (weak order from moments); Kloeden & Platen 1992, §14.2.

    >>> import numpy as np
    >>> draws = np.asarray(normal(jax.random.key(0), jnp.zeros(2**16)), np.float64)
    >>> [abs(round(float(np.mean(draws**power)), 1)) for power in (1, 2, 3, 4)]
    [0.0, 1.0, 0.0, 3.0]
    """
    return _drawn(key, like, 8)


def signs(key: Key, like: PyTree) -> PyTree:
    """Independent entries ±1, a random bit each: the cheapest noise of the right variance.

    Mean 0 and variance 1 are exact, and odd moments 0; the kurtosis is 1 in place of 3. ``sgld`` has with it the
    stationary variance that it has with any noise of variance 1, exactly so on a quadratic with averaged noise, and an
    error of first order in the step in fourth moments. It costs a fifth of ``normal`` on a CPU.

    Args:
      key: A typed key.
      like: A tree of floating-point arrays.

    Not to be believed where few steps have to add up to a normal law: with a large friction or step, in directions
    whose loss is not quadratic. Halve the step and compare.

    Source: Kloeden & Platen 1992, §14.1 (simplified weak schemes).

    >>> sorted(set(signs(jax.random.key(0), jnp.zeros(100)).tolist()))
    [-1.0, 1.0]
    """
    return _drawn(key, like, 1)


def exact_normal(key: Key, like: PyTree) -> PyTree:
    """Independent normal entries as exact as ``jax.random.normal``: for momenta that face a Metropolis test.

    The test is right for the law that it assumes. A momentum out of ``normal`` would have no tail beyond 2.4 and 256
    values, and the chain a stationary law that is not quite the posterior.

    >>> exact_normal(jax.random.key(0), {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)})["w"].shape
    (2, 3)
    """
    widest = jnp.result_type(jnp.float32, *jax.tree.leaves(like))
    if sharding.splits_parameters():
        drawn = _by_leaf(key, like, lambda key, shape: jax.random.normal(key, shape, widest))
        return jax.tree.map(lambda values, leaf: values.astype(leaf.dtype), drawn, like)
    return tree.unflatten(jax.random.normal(key, (tree.size(like),), widest), like)


#: Random bits of an entry.
_BITS: dict[Callable, int] = {normal: 8, signs: 1}


def compact(noise: Noise) -> tuple[Noise, Callable[[PyTree, PyTree], PyTree]]:
    """A noise in two parts, for a sampler that keeps it from one step to the next: ``(draw, values)``.

    ``values(draw(key, like), like)`` is ``noise(key, like)``. Of ``normal`` and ``signs`` the random bits of an entry
    are kept, in one byte where the number has four; of any other noise its values.

    >>> draw, values = compact(signs)
    >>> kept = draw(jax.random.key(0), jnp.zeros(100))
    >>> kept.dtype.name, bool(jnp.all(values(kept, jnp.zeros(100)) == signs(jax.random.key(0), jnp.zeros(100))))
    ('uint8', True)
    """
    bits = _BITS.get(getattr(noise, "func", noise))
    if bits is None:
        return noise, lambda kept, like: kept
    return partial(_bytes, bits=bits), partial(_values, bits=bits)


def _drawn(key: Key, like: PyTree, bits: int) -> PyTree:
    return _values(_bytes(key, like, bits=bits), like, bits=bits)


def _bytes(key: Key, like: PyTree, *, bits: int) -> PyTree:
    """So many random bits for each entry, in a byte of its own."""
    if sharding.splits_parameters():
        return _by_leaf(key, like, lambda key, shape: _bits_of_shape(key, shape, bits))
    return tree.cut(_flat_bits(key, tree.size(like), bits), like)


def _values(drawn: PyTree, like: PyTree, *, bits: int) -> PyTree:
    """Bits as numbers of mean 0 and variance 1."""

    def values(drawn: Array, leaf: Array) -> Array:
        even = (drawn.astype(jnp.float32) - (2**bits - 1) / 2) / 2 ** (bits - 1)
        return (2 * even if bits == 1 else even * (_LINEAR + _CUBIC * even * even)).astype(leaf.dtype)

    return jax.tree.map(values, drawn, like)


def _flat_bits(key: Key, count: int, bits: int) -> Array:
    each = 32 // bits
    words = generator.words(key, -(-count // each))
    if bits == 1:
        # as a table of words by bits: 32 slices would cost more than what they are cut from
        return _low_bits(words[:, None] >> jnp.arange(each, dtype=jnp.uint32)[None], bits).reshape(-1)[:count]
    return jnp.concatenate([_low_bits(words >> jnp.uint32(bits * place), bits) for place in range(each)])[:count]


def _low_bits(words: Array, bits: int) -> Array:
    return (words & jnp.uint32(2**bits - 1)).astype(jnp.uint8)


def _by_leaf(key: Key, like: PyTree, draw: Callable[[Key, tuple[int, ...]], Array]) -> PyTree:
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    drawn = [draw(one, jnp.shape(leaf)) for one, leaf in zip(keys, leaves, strict=True)]
    return sharding.split(jax.tree.unflatten(structure, drawn))


def _bits_of_shape(key: Key, shape: tuple[int, ...], bits: int) -> Array:
    """Random bits in the shape of a leaf, each device those of its own piece."""
    if not shape:
        return _low_bits(jax.random.bits(key, (), jnp.uint32), bits)
    # on any mesh the same numbers: what shares a word lies along an axis other than the longest, which is cut
    longest = max((size, at) for at, size in enumerate(shape))[1]
    others = [(math.gcd(size, 32 // bits), at) for at, size in enumerate(shape) if at != longest or len(shape) == 1]
    each, at = max(others)
    words = sharding.split(jax.random.bits(key, (*shape[:at], shape[at] // each, *shape[at + 1 :]), jnp.uint32))
    pieces = [_low_bits(words >> jnp.uint32(bits * place), bits) for place in range(each)]
    return jnp.concatenate(pieces, axis=at)
