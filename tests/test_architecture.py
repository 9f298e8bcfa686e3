"""Heads, layers and blocks: what is freed is what an independent forward pass says belongs to them."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import slt_jax as slt
from slt_jax import restriction, tree
from slt_jax.noise import normal

WIDTH, HEADS, DIM, VALUE = 10, 4, 3, 3  # heads are not width / number wide
INPUTS = jax.random.normal(jax.random.key(0), (2, 5, WIDTH))


class Layout(NamedTuple):
    """How a network stores its projections.

    Attributes:
      params: Its parameters.
      settings: What has to be said beside the shapes.
      separate: ``params`` to query ``(in, N, d)``, key and value ``(in, G, d)``, out ``(N, d, out)``: written by hand.
      groups: Number of key and value heads.
    """

    params: dict
    settings: dict
    separate: object
    groups: int = HEADS


def draw(shapes):
    leaves, structure = jax.tree.flatten(shapes, is_leaf=lambda node: isinstance(node, tuple))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return structure.unflatten([0.5 * jax.random.normal(k, shape) for k, shape in zip(keys, leaves, strict=True)])


def repeat(leaf):
    """Key and value heads as often as they are used."""
    return jnp.repeat(leaf, HEADS // leaf.shape[-2], axis=-2)


def flax(params):
    return *(repeat(params[name]["kernel"]) for name in ("query", "key", "value")), params["out"]["kernel"]


def flat(params):
    cut = [params[name].reshape(WIDTH, -1, DIM) for name in ("q_proj", "k_proj", "v_proj")]
    return *map(repeat, cut), params["o_proj"].reshape(HEADS, DIM, WIDTH)


def head_first(params):
    return *(jnp.moveaxis(params[name], 0, 1) for name in ("W_Q", "W_K", "W_V")), params["W_O"]


def fused(position):
    def cut(params):
        return *jnp.moveaxis(params["qkv"]["kernel"], position, 0), params["out"]["kernel"]

    return cut


def flat_by_part(params):
    cut = [piece.reshape(WIDTH, HEADS, DIM) for piece in jnp.split(params["c_attn"]["kernel"], 3, axis=1)]
    return *cut, params["c_proj"]["kernel"].reshape(HEADS, DIM, WIDTH)


def flat_by_head(params):
    cut = params["query_key_value"]["kernel"].reshape(WIDTH, HEADS, 3 * DIM)
    return *jnp.split(cut, 3, axis=2), params["dense"]["kernel"].reshape(HEADS, DIM, WIDTH)


def kernels(**shapes):
    return draw({name: {"kernel": shape} for name, shape in shapes.items()})


LINEN = nn.MultiHeadDotProductAttention(HEADS, qkv_features=HEADS * DIM, use_bias=False)
GROUPED = nnx.MultiHeadAttention(
    HEADS, WIDTH, HEADS * DIM, num_kv_heads=2, use_bias=False, decode=False, rngs=nnx.Rngs(0)
)
OUT = (HEADS, DIM, WIDTH)
LAYOUTS = {
    "linen": Layout(LINEN.init(jax.random.key(0), INPUTS)["params"], {}, flax),
    "nnx, grouped queries": Layout(nnx.to_pure_dict(nnx.state(GROUPED, nnx.Param)), {}, flax, 2),
    "one key for all": Layout(
        kernels(query=(WIDTH, HEADS, DIM), key=(WIDTH, 1, DIM), value=(WIDTH, 1, DIM), out=OUT), {}, flax, 1
    ),
    "flat": Layout(
        draw({"q_proj": (WIDTH, 12), "k_proj": (WIDTH, 12), "v_proj": (WIDTH, 12), "o_proj": (12, WIDTH)}),
        {"num_heads": HEADS},
        flat,
    ),
    "flat, grouped queries": Layout(
        draw({"q_proj": (WIDTH, 12), "k_proj": (WIDTH, 6), "v_proj": (WIDTH, 6), "o_proj": (12, WIDTH)}),
        {"num_heads": HEADS},
        flat,
        2,
    ),
    "heads first": Layout(
        draw({"W_Q": (4, WIDTH, DIM), "W_K": (4, WIDTH, DIM), "W_V": (4, WIDTH, DIM), "W_O": OUT}), {}, head_first
    ),
    "fused, part before head": Layout(kernels(qkv=(WIDTH, 3, HEADS, DIM), out=OUT), {}, fused(1)),
    "fused, head before part": Layout(kernels(qkv=(WIDTH, HEADS, 3, DIM), out=OUT), {}, fused(2)),
    "fused, part first": Layout(kernels(qkv=(3, WIDTH, HEADS, DIM), out=OUT), {}, fused(0)),
    "fused flat, by part": Layout(
        kernels(c_attn=(WIDTH, 36), c_proj=(12, WIDTH)), {"num_heads": HEADS, "fused": "part"}, flat_by_part
    ),
    "fused flat, by head": Layout(
        kernels(query_key_value=(WIDTH, 36), dense=(12, WIDTH)), {"num_heads": HEADS, "fused": "head"}, flat_by_head
    ),
}
each = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


def contributions(layout, params):
    """What each head adds to the output, shape ``(head, B, T, out)``."""
    query, key, value, out = layout.separate(params)
    q, k, v = (jnp.einsum("bti,ind->nbtd", INPUTS, kernel) for kernel in (query, key, value))
    weights = jax.nn.softmax(jnp.einsum("nbtd,nbsd->nbts", q, k) / DIM**0.5)
    return jnp.einsum("nbts,nbsd,ndo->nbto", weights, v, out)


def test_the_contributions_of_the_heads_add_up_to_what_flax_answers():
    for name, answer in (("linen", LINEN.apply), ("nnx, grouped queries", lambda _, inputs: GROUPED(inputs))):
        layout = LAYOUTS[name]
        expected = answer({"params": layout.params}, INPUTS)
        np.testing.assert_allclose(contributions(layout, layout.params).sum(0), expected, rtol=1e-4, atol=1e-5)


@each
def test_a_head_moves_its_own_contribution_and_those_that_share_its_keys(layout):
    for head in range(HEADS):
        free = restriction.head(layout.params, 0, head, **layout.settings)
        z = normal(jax.random.key(head), free.origin(layout.params))
        moved = contributions(layout, free.lift(layout.params, z)) - contributions(layout, layout.params)
        sharing = HEADS // layout.groups
        mine = np.arange(HEADS) // sharing == head // sharing
        np.testing.assert_array_equal(np.abs(np.asarray(moved)).max(axis=(1, 2, 3)) > 1e-3, mine)
        assert tree.size(z) == 4 * WIDTH * DIM, "all of its entries, and no others"


def test_a_fused_axis_that_is_read_in_the_wrong_order_moves_other_heads():
    """What the tests above would see."""
    layout = LAYOUTS["fused flat, by head"]
    free = restriction.head(layout.params, 0, 1, num_heads=HEADS, fused="part")
    z = normal(jax.random.key(0), free.origin(layout.params))
    moved = contributions(layout, free.lift(layout.params, z)) - contributions(layout, layout.params)
    assert (np.abs(np.asarray(moved)).max(axis=(1, 2, 3)) > 1e-3).sum() > 1


@each
def test_queries_and_outputs_alone_move_one_head_only(layout):
    free = restriction.head(layout.params, 0, 2, parts=("query", "out"), **layout.settings)
    z = normal(jax.random.key(0), free.origin(layout.params))
    moved = contributions(layout, free.lift(layout.params, z)) - contributions(layout, layout.params)
    np.testing.assert_array_equal(np.abs(np.asarray(moved)).max(axis=(1, 2, 3)) > 1e-3, np.arange(HEADS) == 2)
    assert tree.size(z) == 2 * WIDTH * DIM


@each
def test_all_heads_together_are_all_that_is_cut_into_heads(layout):
    found = restriction.heads(layout.params, **layout.settings)
    assert list(found) == [f"head 0.{number}" for number in range(HEADS)]
    covered = jax.tree.map(lambda leaf: np.zeros(leaf.shape, int), layout.params)
    for free in found.values():
        lifted = free.lift(
            jax.tree.map(jnp.zeros_like, layout.params), jax.tree.map(jnp.ones_like, free.origin(layout.params))
        )
        covered = jax.tree.map(lambda count, leaf: count + np.asarray(leaf, int), covered, lifted)
    counts = np.unique(np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(covered)]))
    assert set(counts) == {1, HEADS // layout.groups}, "each entry once, shared keys and values by each that shares"


def test_biases_belong_to_heads_but_for_that_of_the_output():
    module = nn.MultiHeadDotProductAttention(HEADS, qkv_features=HEADS * DIM)
    params = module.init(jax.random.key(0), INPUTS)["params"]
    free = restriction.head(params, 0, 1)
    shapes = {name: z.shape for name, z in free.origin(params).items()}
    assert shapes["query/bias"] == shapes["key/bias"] == shapes["value/bias"] == (DIM,)
    assert "out/bias" not in shapes


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(2, qkv_features=12, name="attention")(nn.LayerNorm(name="norm")(x))
        return x + nn.Dense(WIDTH, name="down")(nn.gelu(nn.Dense(12, name="up")(x)))


class Transformer(nn.Module):
    """Twelve blocks, so that ``block_10`` sorts before ``block_2`` as text, and a tied embedding."""

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(7, WIDTH, name="embed")
        stream = embed(tokens)
        for number in range(12):
            stream = Block(name=f"block_{number}")(stream)
        return embed.attend(stream)


TOKENS = jnp.arange(14).reshape(2, 7) % 7
NETWORK = jax.eval_shape(Transformer().init, jax.random.key(0), TOKENS)["params"]
NETWORK = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), NETWORK)


def test_modules_count_in_the_order_of_their_numbers():
    assert [module.path for module in restriction.attentions(NETWORK)] == [f"block_{n}/attention" for n in range(12)]
    assert list(restriction.blocks(NETWORK)) == [f"block {number}" for number in range(12)]
    named = restriction.head(NETWORK, "block_10/*", 1)
    assert named.origin(NETWORK).keys() == restriction.head(NETWORK, 10, 1).origin(NETWORK).keys()
    assert all(path.startswith("block_10/") for path in named.origin(NETWORK))


def test_a_block_and_a_layer_are_all_that_is_below_them():
    inside = set(restriction.block(NETWORK, 2).origin(NETWORK))
    assert inside == {name for name in tree.leaf_names(NETWORK) if name.startswith("block_2/")}
    attention = set(restriction.layer(NETWORK, "block_2/attention").origin(NETWORK))
    assert attention == {name for name in inside if name.startswith("block_2/attention/")}
    layers = restriction.layers(NETWORK)
    assert "layer block_2/attention/query" in layers
    covered = [name for free in layers.values() for name in free.origin(NETWORK)]
    assert sorted(covered) == sorted(tree.leaf_names(NETWORK)), "each leaf in one layer"


def test_a_tied_embedding_is_one_leaf_that_moves_what_comes_in_and_what_goes_out():
    variables = Transformer().init(jax.random.key(0), TOKENS)
    loss_fn, params = slt.flax.from_linen(Transformer(), lambda logits, batch: logits[:, :, 0], variables)
    free = restriction.paths(params, "embed/*")
    assert list(free.origin(params)) == ["embed/embedding"]
    assert len(restriction.heads(params)) == 24
    moved = free.lift(params, jax.tree.map(lambda z: z.at[0].add(1.0), free.origin(params)))
    # token 0 is the one that the loss reads: its row moves every position, not only where the token stands
    assert bool((jnp.abs(loss_fn(moved, TOKENS) - loss_fn(params, TOKENS)) > 1e-3).all())


def test_an_nnx_network_is_read_like_a_linen_one():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(7, WIDTH, rngs=rngs)
            self.blocks = nnx.List([nnx.MultiHeadAttention(2, WIDTH, 12, decode=False, rngs=rngs) for _ in range(11)])

        def __call__(self, tokens):
            stream = self.embed(tokens)
            for block in self.blocks:
                stream = stream + block(stream)
            return self.embed.attend(stream)

    loss_fn, params = slt.flax.from_nnx(Model(nnx.Rngs(0)), lambda logits, batch: logits[:, :, 0])
    assert len(restriction.heads(params)) == 22
    assert [module.path for module in restriction.attentions(params)][-1] == "blocks/10"
    free = restriction.head(params, 10, 1)
    moved = free.lift(params, jax.tree.map(jnp.ones_like, free.origin(params)))
    assert bool(jnp.any(loss_fn(moved, TOKENS) != loss_fn(params, TOKENS)))


def test_blocks_of_several_kinds_are_named_in_full():
    leaf = {"kernel": jnp.zeros(2)}
    params = {"encoder": {"block_0": leaf, "block_1": leaf}, "decoder": {"block_0": leaf, "block_1": leaf}}
    assert next(iter(restriction.blocks(params))) == "block decoder/block_0"
    assert list(restriction.block(params, 1, path="encoder/block_").origin(params)) == ["encoder/block_1/kernel"]


def test_a_name_that_begins_like_another_hides_no_blocks():
    leaf = {"w": jnp.zeros(2)}
    params = {"enc0": leaf, "enc1": leaf, "encoder": {"layer_0": leaf, "layer_1": leaf}}
    assert list(restriction.blocks(params))[-2:] == ["block encoder/layer_0", "block encoder/layer_1"]


def test_a_stray_query_hides_no_attention():
    params = {"attention": SEPARATE, "q": {"kernel": jnp.zeros((8, 3))}}
    assert len(restriction.heads(params)) == HEADS


def test_a_head_is_refused_by_a_network_with_other_heads():
    def network(heads, width):
        return {name: jnp.zeros((8, heads, width)) for name in ("query", "key", "value")} | {
            "out": jnp.zeros((heads, width, 8))
        }

    free = restriction.head(network(2, 4), 0, 1)
    with pytest.raises(ValueError, match="of shape"):
        restriction.check(free, network(4, 2))
    outs = [restriction.head(network(4, 2), 0, number, parts=("out",)) for number in (0, 1)]
    with pytest.raises(ValueError, match="of shape"):
        restriction.check(restriction.compose(*outs), network(4, 2))
    stacked = restriction.by_shape(restriction.heads(network(2, 4)))[0].restriction
    with pytest.raises(ValueError, match="map over it"):
        restriction.check(stacked, network(2, 4))


def test_the_preview_says_what_is_free():
    params = {"hidden": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}, "output": {"kernel": jnp.zeros((2, 1))}}
    text = restriction.preview(restriction.paths(params, "hidden/*"), params)
    assert text.splitlines()[0] == "8 of 10 dimensions are free, in 2 of 3 leaves"
    assert "kernel (3, 2)  6 of 6" in text
    assert "output  frozen" in text
    line = restriction.span(jax.tree.map(lambda leaf: jnp.ones((1, *leaf.shape)), params))
    text = restriction.preview(line, params)
    assert text.splitlines()[0].startswith("1 of 10 dimensions are free, in 3 of 3 leaves, moving 10 entries together")
    assert "kernel (3, 2)  6 of 6, 60.0% of the motion" in text


SEPARATE, FUSED = LAYOUTS["linen"].params, LAYOUTS["fused flat, by part"].params
MISREAD = {"qkv": {"kernel": jnp.zeros((WIDTH, 3, 3, DIM))}, "out": {"kernel": jnp.zeros((3, DIM, WIDTH))}}
BAD = {
    "no attention": (lambda: restriction.head({"w": jnp.zeros(2)}, 0, 0), "no attention module"),
    "an output alone": (lambda: restriction.heads({"out": {"kernel": jnp.zeros(2)}}), "no attention module"),
    "a query alone": (lambda: restriction.heads({"q": {"kernel": jnp.zeros((8, 3))}}), "no attention module"),
    "values are missing": (
        lambda: restriction.heads({name: SEPARATE[name] for name in ("query", "key", "out")}),
        r"\['key', 'out', 'query'\], not to query, key, value and out",
    ),
    "the other way round": (
        lambda: restriction.heads(
            {"c_attn": {"kernel": jnp.zeros((3 * WIDTH, WIDTH))}, "c_proj": {"kernel": jnp.zeros((WIDTH, WIDTH))}},
            num_heads=2,
            fused="part",
        ),
        "do not fit 2 heads",
    ),
    "stacked layers": (
        lambda: restriction.heads({name: jnp.zeros((4, 8, 8)) for name in ("wq", "wk", "wv", "wo")}),
        "cannot tell the heads",
    ),
    "stacked fused layers": (
        lambda: restriction.heads({"qkv": jnp.zeros((3, 8, 24)), "o": jnp.zeros((3, 8, 8))}),
        "cannot tell the heads",
    ),
    "a flat axis": (lambda: restriction.heads(LAYOUTS["flat"].params), "pass num_heads"),
    "a fused flat axis": (lambda: restriction.heads(FUSED, num_heads=HEADS), "fused='part' or fused='head'"),
    "three heads, fused": (lambda: restriction.heads(MISREAD), "fused='part' or fused='head'"),
    "another number of heads": (lambda: restriction.heads(SEPARATE, num_heads=5), "do not fit 5 heads"),
    "no number of heads": (lambda: restriction.heads(SEPARATE, num_heads=0), "num_heads: got 0"),
    "no order": (lambda: restriction.heads(FUSED, num_heads=4, fused="qkv"), "fused: got 'qkv'"),
    "a head too many": (lambda: restriction.head(SEPARATE, 0, 4), "has heads 0 to 3"),
    "a head from the end": (lambda: restriction.head(SEPARATE, 0, -1), "has heads 0 to 3"),
    "a layer too many": (lambda: restriction.head(SEPARATE, 1, 0), "layer: got 1"),
    "a pattern for several": (lambda: restriction.head(NETWORK, "block_1*", 0), "matches 3"),
    "no part": (lambda: restriction.head(SEPARATE, 0, 0, parts=()), "parts: got"),
    "a part as text": (lambda: restriction.head(SEPARATE, 0, 0, parts="query"), "parts: got 'query'"),
    "a part unknown": (lambda: restriction.head(SEPARATE, 0, 0, parts=("queries",)), "parts: got"),
    "no such module": (lambda: restriction.layer(NETWORK, "block_12"), "no module 'block_12'"),
    "no blocks": (lambda: restriction.blocks({"w": jnp.zeros(2)}), "no blocks are repeated"),
    "a single block": (lambda: restriction.block({"block_0": {"w": jnp.zeros(2)}}, 0), "no blocks are repeated"),
    "blocks that differ": (
        lambda: restriction.blocks(
            {"block_0": {"w": jnp.zeros(2), "extra": jnp.zeros(2)}, "block_1": {"w": jnp.zeros(2)}}
        ),
        r"differ in the leaves \['extra'\]",
    ),
    "a block too many": (lambda: restriction.block(NETWORK, 12), "index: got 12"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_told_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
