"""What is written out for the compiler of the CPU gives the numbers of ``jax.random``, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32

from slt_jax import generator

KEYS = jax.random.split(jax.random.key(5), 3)


def data(keys):
    return np.asarray(jax.random.key_data(jnp.stack(keys)))


@pytest.mark.parametrize("step", [0, 1, 70_000, 2**31 - 1])
def test_keys_of_a_step_are_a_split_of_its_number(step):
    for key in KEYS:
        expected = jax.random.split(jax.random.fold_in(key, step))
        np.testing.assert_array_equal(data(generator.split_of_step(key, step)), data(list(expected)))
    # as chains call it: compiled, over keys, the number an array
    many = jax.jit(jax.vmap(generator.split_of_step, in_axes=(0, None)))(KEYS, jnp.int32(step))
    np.testing.assert_array_equal(data(many)[:, 2], data(list(expected)))
    # the control: another step has other keys
    other = generator.split_of_step(KEYS[2], step + 1 if step < 2**31 - 1 else 0)
    assert not np.any(data(other) == data(list(expected)))


@pytest.mark.parametrize("below", [1, 7, 1000, 65_536, 65_537, 99_999, 2**31 - 1])
@pytest.mark.parametrize("count", [1, 64])
def test_integers_are_those_of_randint(count, below):
    for key in KEYS:
        expected = jax.random.randint(key, (count,), 0, below)
        np.testing.assert_array_equal(generator.integers(key, count, below), expected)
    many = jax.jit(jax.vmap(lambda key: generator.integers(key, count, below)))(KEYS)
    np.testing.assert_array_equal(many[2], expected)
    assert many.dtype == expected.dtype


@pytest.mark.parametrize("count", [1, 2, 3, 2405])
def test_words_are_those_of_the_generator(count):
    counts = jnp.arange(count, dtype=jnp.uint32)
    many = jax.jit(jax.vmap(lambda key: generator.words(key, count)))(KEYS)
    for key, found in zip(KEYS, many, strict=True):
        expected = threefry_2x32(jax.random.key_data(key), counts)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(generator.words(key, count), expected)


def test_other_generators_and_settings_have_the_numbers_of_the_library():
    key = jax.random.key(0, impl="rbg")
    expected = jax.random.split(jax.random.fold_in(key, 3))
    np.testing.assert_array_equal(data(generator.split_of_step(key, 3)), data(list(expected)))
    np.testing.assert_array_equal(generator.integers(key, 5, 10), jax.random.randint(key, (5,), 0, 10))
    with jax.enable_x64(True):
        key = jax.random.key(1)
        found, expected = generator.integers(key, 5, 10), jax.random.randint(key, (5,), 0, 10)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype == jnp.int64
        expected = jax.random.split(jax.random.fold_in(key, 3))
        np.testing.assert_array_equal(data(generator.split_of_step(key, 3)), data(list(expected)))
    with jax.threefry_partitionable(False):
        key = jax.random.key(1)
        expected = jax.random.split(jax.random.fold_in(key, 3))
        np.testing.assert_array_equal(data(generator.split_of_step(key, 3)), data(list(expected)))
        np.testing.assert_array_equal(generator.integers(key, 5, 10), jax.random.randint(key, (5,), 0, 10))


def test_the_program_of_a_step_has_no_loop_over_rounds():
    """On the CPU; the control is the library's."""

    def loops(function):
        return jax.jit(jax.vmap(function)).lower(KEYS).compile().as_text().count(" while(")

    assert loops(lambda key: generator.integers(generator.split_of_step(key, 3)[0], 64, 1000)) == 0
    assert loops(lambda key: generator.words(key, 1000)) == 0
    assert loops(lambda key: jax.random.randint(key, (64,), 0, 1000)) > 0
