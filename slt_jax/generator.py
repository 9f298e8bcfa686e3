"""What a step draws from its key: the numbers of ``jax.random``, from programs that are short on a CPU.

There JAX compiles every use of threefry to a loop over rounds, dozens of small programs that wait for all threads: for
a small network half of the time of a step. Written out it is one.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.extend.random import threefry_2x32

from slt_jax.types import Array, Key, PyTree, Scalar

#: By how many bits the rounds turn a word, in two groups of four that alternate, and what the third key is made with.
_TURNS, _PARITY = ((13, 15, 26, 6), (17, 29, 16, 24)), 0x1BD11BDA


def split_of_step(key: Key, step: Scalar) -> tuple[Key, Key]:
    """The two keys of ``jax.random.split(jax.random.fold_in(key, step))``.

    Args:
      key: A typed key of any generator; that of threefry, the default, is what is written out here.
      step: A number of at least 0, or an array of shape ``()``.

    >>> ours = split_of_step(jax.random.key(0), 3)
    >>> bool(jnp.all(jnp.stack(ours) == jax.random.split(jax.random.fold_in(jax.random.key(0), 3))))
    True
    """
    if not _is_known(key):
        first, second = jax.random.split(jax.random.fold_in(key, step))
        return first, second
    both = jax.random.wrap_key_data(_split_of_step(jax.random.key_data(key), jnp.asarray(step, jnp.uint32)))
    return both[0], both[1]


def integers(key: Key, count: int, below: int) -> Array:
    """``jax.random.randint(key, (count,), 0, below)``: whole numbers from 0, shape ``(count,)``.

    Args:
      key: A typed key.
      count: How many, static.
      below: What they stay below, at least 1, static.

    >>> integers(jax.random.key(0), 3, 10).tolist() == jax.random.randint(jax.random.key(0), (3,), 0, 10).tolist()
    True
    """
    # with 64 bits, and where such a number is needed, the library draws twice as many
    if not _is_known(key) or _flag("jax_enable_x64") or below >= 2**31:
        return jax.random.randint(key, (count,), 0, below)
    return _integers(jax.random.key_data(key), count, below)


def words(key: Key, count: int) -> Array:
    """``count`` independent words of 32 random bits.

    A pass of threefry makes two words, of which ``jax.random.bits`` keeps one so that its output can be partitioned:
    here both are kept, and the numbers are not those of ``bits``.

    >>> words(jax.random.key(0), 3).shape
    (3,)
    """
    if str(jax.random.key_impl(key)) != "threefry2x32":
        return jax.random.bits(key, (count,), jnp.uint32)
    return _words(jax.random.key_data(key), count)


# compiled, for those who step by hand, and part of the program around it where there is one


@partial(jax.jit, inline=True)
def _split_of_step(key: Array, step: Array) -> Array:
    def straight(key: Array, step: Array) -> Array:
        return jnp.stack(_split(jnp.stack(_threefry(key, jnp.zeros_like(step), step))))

    def library(key: Array, step: Array) -> Array:
        return jax.random.key_data(jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(key), step)))

    return jax.lax.platform_dependent(key, step, cpu=straight, default=library)


@partial(jax.jit, static_argnums=(1, 2), inline=True)
def _integers(key: Array, count: int, below: int) -> Array:
    def straight(key: Array) -> Array:
        high, low = _split(key)
        counts = jnp.arange(count, dtype=jnp.uint32)
        drawn = [jnp.bitwise_xor(*_threefry(half, jnp.zeros_like(counts), counts)) for half in (high, low)]
        # as the library has it, in whose 32 bits the square may be cut off
        factor = (2**16 % below) ** 2 % 2**32 % below
        span = jnp.uint32(below)
        return _once(((drawn[0] % span) * jnp.uint32(factor) + drawn[1] % span) % span).astype(jnp.int32)

    def library(key: Array) -> Array:
        return jax.random.randint(jax.random.wrap_key_data(key), (count,), 0, below)

    return jax.lax.platform_dependent(key, cpu=straight, default=library)


@partial(jax.jit, static_argnums=1, inline=True)
def _words(key: Array, count: int) -> Array:
    def straight(key: Array, counts: Array) -> Array:
        half = -(-count // 2)
        padded = jnp.pad(counts, (0, 2 * half - count))
        return jnp.concatenate(_once(_threefry(key, padded[:half], padded[half:])))[:count]

    counts = jnp.arange(count, dtype=jnp.uint32)
    return jax.lax.platform_dependent(key, counts, cpu=straight, default=threefry_2x32)


def _split(key: Array) -> tuple[Array, Array]:
    pairs = _once(jnp.stack(_threefry(_once(key), jnp.zeros(2, jnp.uint32), jnp.arange(2, dtype=jnp.uint32)), axis=1))
    return pairs[0], pairs[1]


def _threefry(key: Array, left: Array, right: Array) -> tuple[Array, Array]:
    """Source: Salmon et al. 2011, doi:10.1145/2063384.2063405 (Threefry-2x32, 20 rounds)."""
    keys = key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY)
    left, right = left + keys[0], right + keys[1]
    for group in range(5):
        for turn in _TURNS[group % 2]:
            left = left + right
            right = ((right << jnp.uint32(turn)) | (right >> jnp.uint32(32 - turn))) ^ left
        left = left + keys[(group + 1) % 3]
        right = right + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return left, right


def _once(made: PyTree) -> PyTree:
    """Made where it stands, and not again by everything that reads it."""
    return jax.lax.optimization_barrier(made)


def _is_known(key: Key) -> bool:
    """Whether ``jax.random`` splits such a key in the way that is written out here."""
    return str(jax.random.key_impl(key)) == "threefry2x32" and _flag("jax_threefry_partitionable")


def _flag(name: str) -> bool:
    # JAX adds them to its configuration as it is imported, where a type checker does not see them
    return bool(getattr(jax.config, name))
