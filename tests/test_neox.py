"""GPT-NeoX: its logits are those of transformers, its heads are found, its losses are those of the next token."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import CONFIG, random_tensors

from slt_jax import loss, restriction, storage, tree
from slt_jax.models import neox
from slt_jax.models.neox import next_token_loss
from slt_jax.models.neox_layout import network_of, params_of, tensors_of

DATA = Path(__file__).parent / "data" / "neox"
TOKENS = jax.random.randint(jax.random.key(1), (3, 12), 0, CONFIG["vocab_size"])


def read(config, tensors):
    network = network_of(config)
    return network, params_of(network, {name: array.shape for name, array in tensors.items()}, tensors.__getitem__)


def logits_of(network, params, tokens=TOKENS):
    return np.asarray(network.apply({"params": params}, jnp.asarray(tokens)))


@pytest.fixture(scope="module")
def model():
    return read(CONFIG, random_tensors(CONFIG))


# --- the same network as everybody's


@pytest.mark.parametrize("name", ["pythia", "sequential", "shards"])
def test_logits_are_those_that_transformers_gave(name):
    """Quarter and whole rotary heads, parallel and sequential, tied and not, with and without biases of attention."""
    pytest.importorskip("safetensors")
    network, params = storage.load_pretrained(DATA / name)
    with np.load(DATA / name / "expected.npz") as expected:
        tokens, logits = expected["tokens"], expected["logits"]
    assert np.abs(logits_of(network, params, tokens) - logits).max() < 1e-4
    assert np.abs(logits).max() > 1.0


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("pythia", {"rotary": 4}),
        ("shards", {"base": 500.0}),
        ("pythia", {"parallel": False}),
        ("sequential", {"epsilon": 1e-5}),
        ("sequential", {"parallel": True}),
        ("shards", {"activation": "relu"}),
    ],
)
def test_a_network_that_differs_in_one_setting_gives_other_logits(name, change):
    pytest.importorskip("safetensors")
    network, params = storage.load_pretrained(DATA / name)
    with np.load(DATA / name / "expected.npz") as expected:
        tokens, logits = expected["tokens"], expected["logits"]
    assert np.abs(logits_of(network.clone(**change), params, tokens) - logits).max() > 1e-2


def test_the_two_tanh_gelus_are_one_function_and_the_exact_one_is_another():
    x = jnp.linspace(-4.0, 4.0, 101)
    values = {name: np.asarray(function(x)) for name, function in neox.ACTIVATIONS.items()}
    np.testing.assert_array_equal(values["gelu_new"], values["gelu_fast"])
    assert 1e-5 < np.abs(values["gelu"] - values["gelu_new"]).max() < 1e-3


SETTINGS = {
    "as Pythia": {"rotary_pct": 0.25},
    "all of a head is rotary": {"rotary_pct": 1.0},
    "sequential": {"rotary_pct": 0.25, "use_parallel_residual": False},
    "tied": {"rotary_pct": 1.0, "tie_word_embeddings": True, "hidden_act": "gelu_new"},
    "no biases of attention": {"rotary_pct": 0.5, "attention_bias": False, "hidden_act": "relu"},
    "gelu_fast": {"hidden_act": "gelu_fast", "use_parallel_residual": False, "tie_word_embeddings": True},
}


@pytest.mark.parametrize("case", SETTINGS)
def test_logits_are_those_of_transformers(case, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    pytest.importorskip("safetensors")
    torch.manual_seed(0)
    shape = {name: value for name, value in CONFIG.items() if name not in ("model_type", "rotary_pct")}
    shape |= {"hidden_size": 32, "max_position_embeddings": 128, "initializer_range": 0.3}
    model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**shape, **SETTINGS[case])).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.5, 0.3)
    model.save_pretrained(tmp_path)
    tokens = np.random.default_rng(0).integers(0, CONFIG["vocab_size"], (2, 100))
    with torch.no_grad():
        expected = model(torch.tensor(tokens)).logits.numpy()
    network, params = storage.load_pretrained(tmp_path)
    difference = np.abs(logits_of(network, params, tokens) - expected).max()
    print(f"{case}: largest difference of logits {difference:.1e}, largest logit {np.abs(expected).max():.1f}")
    assert difference < 1e-4


def test_a_token_changes_no_logits_before_it(model):
    network, params = model
    changed = TOKENS.at[:, 7].set((TOKENS[:, 7] + 1) % CONFIG["vocab_size"])
    difference = np.abs(logits_of(network, params, changed) - logits_of(network, params)).max(axis=(0, 2))
    assert difference[:7].max() == 0.0
    assert difference[7:].min() > 1e-3


def test_positions_matter_by_their_differences_only(model):
    """Rotary: the first block's attention from t to s depends on t - s; a whole sequence may be moved along."""
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))

    def score(t, s):
        turned = [neox._turned(4, 100.0, jnp.repeat(x, 20, axis=1))[0, at, 0] for x, at in ((query, t), (key, s))]
        return float(turned[0] @ turned[1])

    assert score(9, 4) == pytest.approx(score(15, 10), abs=1e-5)
    assert abs(score(9, 4) - score(9, 5)) > 1e-3


# --- heads


def zeroed(free, params):
    """The parameters with all that a mask frees set to 0."""
    origin = free.origin(params)
    # what a mask lifts to is linear in z, and its transpose gathers the free entries
    (entries,) = jax.vjp(lambda z: free.lift(tree.zeros_like(params), z), origin)[1](params)
    return free.lift(params, jax.tree.map(jnp.negative, entries))


@pytest.mark.parametrize("layer", [0, 1])
def test_a_head_is_what_its_rows_of_the_fused_tensor_are(model, layer):
    """Published rows are ordered (heads, query-key-value, dimension): zeroed there, or by the restriction here."""
    network, params = model
    above, dimension = f"gpt_neox.layers.{layer}.attention", network.width // network.heads
    heads = restriction.heads(params)
    assert list(heads) == ["head 0.0", "head 0.1", "head 1.0", "head 1.1"]
    for head in range(2):
        ablated = random_tensors(CONFIG)
        rows = slice(3 * dimension * head, 3 * dimension * (head + 1))
        ablated[f"{above}.query_key_value.weight"][rows] = 0.0
        ablated[f"{above}.query_key_value.bias"][rows] = 0.0
        ablated[f"{above}.dense.weight"][:, dimension * head : dimension * (head + 1)] = 0.0
        expected = logits_of(*read(CONFIG, ablated))
        assert np.abs(expected - logits_of(network, params)).max() > 1e-2
        same, other = (zeroed(heads[f"head {layer}.{number}"], params) for number in (head, 1 - head))
        np.testing.assert_allclose(logits_of(network, same), expected, atol=1e-5)
        assert np.abs(logits_of(network, other) - expected).max() > 1e-2


def test_one_projection_of_a_head_is_one_third_of_its_fused_rows(model):
    network, params = model
    dimension = network.width // network.heads
    for part, name in enumerate(("query", "key", "value")):
        ablated = random_tensors(CONFIG)
        first = dimension * (3 * 1 + part)
        for kind in ("weight", "bias"):
            ablated[f"gpt_neox.layers.0.attention.query_key_value.{kind}"][first : first + dimension] = 0.0
        free = restriction.head(params, 0, 1, parts=(name,))
        expected = read(CONFIG, ablated)[1]
        assert tree.leaf_names(zeroed(free, params)) == tree.leaf_names(expected)
        jax.tree.map(np.testing.assert_array_equal, zeroed(free, params), expected)


def test_blocks_and_layers_are_found(model):
    _, params = model
    assert list(restriction.blocks(params)) == ["block 0", "block 1"]
    assert set(restriction.block(params, 1).origin(params)) == {
        name for name in tree.leaf_names(params) if name.startswith("block_1/")
    }
    assert "layer block_0/attention/query" in restriction.layers(params)
    assert set(restriction.layer(params, "block_0/up").origin(params)) == {"block_0/up/kernel", "block_0/up/bias"}


# --- losses


def test_a_loss_is_minus_the_log_probability_of_the_next_token(model):
    network, params = model
    losses = next_token_loss(network)(params, TOKENS)
    assert loss.check(next_token_loss(network), params, TOKENS) == (3, 11)
    logits = logits_of(network, params).astype(np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    for sequence, token in ((0, 0), (1, 5), (2, 10)):
        expected = -log_probabilities[sequence, token, TOKENS[sequence, token + 1]]
        assert float(losses[sequence, token]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_losses_and_gradients_in_pieces_are_those_of_the_whole(tied, monkeypatch):
    config = {**CONFIG, "num_hidden_layers": 1, "tie_word_embeddings": tied}
    network, params = read(config, random_tensors(config))

    def value_and_gradient():
        # a new function each time, so that nothing compiled before is taken
        def mean(params):
            losses = next_token_loss(network)(params, TOKENS)
            return losses.mean(), losses

        both = jax.value_and_grad(mean, has_aux=True)
        return str(jax.make_jaxpr(both)(params)), jax.jit(both)(params)

    program, whole = value_and_gradient()
    monkeypatch.setattr(neox, "_LOGITS", 2 * 11 * CONFIG["vocab_size"])  # of three sequences: two, and one
    in_pieces, pieces = value_and_gradient()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole, pieces)
    assert "scan" in in_pieces
    assert "scan" not in program


def test_one_architecture_compiles_once():
    function, same, other = (
        jax.tree.structure(next_token_loss(network_of(config)))
        for config in (CONFIG, dict(CONFIG), {**CONFIG, "rotary_pct": 1.0})
    )
    assert function == same
    assert function != other


# --- what is refused


BAD_CONFIGS = {
    "another architecture": ({"model_type": "gpt2"}, "model_type is 'gpt2'; only 'gpt_neox'"),
    "no size": ({"hidden_size": None}, "hidden_size is None"),
    "a size that is none": ({"vocab_size": "many"}, "vocab_size is 'many'"),
    "heads that do not fit": ({"num_attention_heads": 3}, "no multiple of num_attention_heads 3"),
    "an unknown activation": ({"hidden_act": "swish"}, "hidden_act is 'swish'; known are gelu"),
    "an odd part of a head": ({"rotary_pct": 0.4}, "3 dimensions; they must be even"),
    "no rotary dimension": ({"rotary_pct": 0.0}, "0 dimensions"),
    "more than a head": ({"rotary_pct": 1.5}, "12 dimensions"),
    "scaled positions": ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "type 'linear'"),
    "scaled positions, newer": ({"rope_parameters": {"rope_type": "yarn"}}, "type 'yarn'"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_configuration_that_is_not_understood_is_refused(case):
    change, message = BAD_CONFIGS[case]
    with pytest.raises(ValueError, match=message):
        network_of({**CONFIG, **change})


def test_old_and_new_configurations_say_the_same():
    new = {name: value for name, value in CONFIG.items() if name != "rotary_pct"}
    new["rope_parameters"] = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}
    assert network_of(new) == network_of({**CONFIG, "rotary_emb_base": 500})
    assert network_of(new) != network_of(CONFIG)


def test_tensors_that_are_missing_left_over_or_of_another_shape_are_named():
    tensors = random_tensors(CONFIG)
    less = {name: array for name, array in tensors.items() if name != "embed_out.weight"}
    with pytest.raises(ValueError, match=r"1 tensors are missing, as 'embed_out\.weight'"):
        read(CONFIG, less)
    with pytest.raises(ValueError, match=r"1 are left over, as 'gpt_neox\.layers\.2"):
        read(CONFIG, {**tensors, "gpt_neox.layers.2.mlp.dense_h_to_4h.bias": np.zeros(32)})
    with pytest.raises(ValueError, match=r"'gpt_neox.embed_in.weight' has shape \(255, 16\); .*\(256, 16\)"):
        read(CONFIG, {**tensors, "gpt_neox.embed_in.weight": np.zeros((255, 16))})


def test_buffers_of_older_files_are_not_left_over(model):
    buffers = {f"gpt_neox.layers.0.attention.{name}": np.zeros(1) for name in ("bias", "masked_bias")}
    buffers["gpt_neox.layers.0.attention.rotary_emb.inv_freq"] = np.zeros(4)
    _, params = read(CONFIG, {**random_tensors(CONFIG), **buffers})
    jax.tree.map(np.testing.assert_array_equal, params, model[1])


def test_every_parameter_comes_from_a_tensor_and_has_the_shape_the_network_wants():
    for config in (CONFIG, {**CONFIG, "tie_word_embeddings": True, "attention_bias": False}):
        network, params = read(config, random_tensors(config))
        wanted = jax.eval_shape(network.init, jax.random.key(0), TOKENS)["params"]
        assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, wanted)
        assert sum(np.prod(one.shape) for one in tensors_of(network).values()) == tree.size(params)


def test_a_sequence_longer_than_the_network_was_made_for_is_refused(model):
    network, params = model
    with pytest.raises(ValueError, match="sequences of 33; this network was made for at most 32"):
        logits_of(network, params, np.zeros((1, 33), int))
    assert logits_of(network, params, np.zeros((1, 32), int)).shape == (1, 32, 256)
