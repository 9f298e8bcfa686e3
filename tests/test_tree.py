"""Arithmetic on trees: structure and dtype are kept."""

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax import tree
from slt_jax.noise import exact_normal, normal

MIXED = {"a": jnp.arange(6.0).reshape(2, 3), "b": [jnp.ones((), jnp.float16), jnp.full(4, 2.0, jnp.bfloat16)]}


def kinds(nest):
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(nest)]


def test_size_counts_scalars_and_numbers():
    assert tree.size(MIXED) == 11
    assert tree.size({"x": 1.0, "empty": np.zeros((0, 3))}) == 1


def test_every_operation_keeps_the_dtype_of_its_first_tree():
    with jax.enable_x64(True):
        wide = jnp.float64(0.5)
        for result in (
            tree.zeros_like(MIXED),
            tree.add(MIXED, jax.tree.map(lambda leaf: leaf.astype(jnp.float64), MIXED)),
            tree.scale(wide, MIXED),
            tree.combine(lambda leaf: leaf * wide, MIXED),
            normal(jax.random.key(0), MIXED),
            exact_normal(jax.random.key(0), MIXED),
        ):
            assert kinds(result) == kinds(MIXED)
        assert (wide * jnp.zeros(3, jnp.float32)).dtype == jnp.float64, "the promotion that the above prevents"


def test_dot_is_bilinear_and_accumulates_half_precision_in_single():
    left, right = {"x": jnp.array([1.0, -2.0])}, {"x": jnp.array([3.0, 5.0])}
    assert float(tree.dot(left, right)) == -7.0
    assert float(tree.dot(tree.scale(2.0, left), right)) == 2 * float(tree.dot(left, right))
    many = jnp.ones(4096, jnp.bfloat16)
    assert tree.dot(many, many).dtype == jnp.float32
    assert float(tree.norm_squared(many)) == 4096.0


def test_leaf_names_follow_the_order_of_the_leaves():
    nest = {"z": 0.0, "blocks": [{"kernel": 1.0, "bias": 2.0}, (3.0,)]}
    names = tree.leaf_names(nest)
    assert names == ["blocks/0/bias", "blocks/0/kernel", "blocks/1/0", "z"]
    assert dict(zip(names, jax.tree.leaves(nest), strict=True))["blocks/0/bias"] == 2.0


def test_is_traced_tells_a_tracer_from_an_array():
    seen = []
    jax.jit(lambda x: seen.append(tree.is_traced({"x": x})) or x)(jnp.ones(2))
    assert seen == [True]
    assert not tree.is_traced(MIXED)
