"""GPT-NeoX as it is published: what its configuration says, and which tensor is which parameter."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from slt_jax.models.neox import ACTIVATIONS, NeoX
from slt_jax.types import PyTree

#: What ``config.json`` calls this architecture.
MODEL_TYPE = "gpt_neox"
#: Buffers that older files hold beside the weights: the causal mask, its value, and the rotary frequencies.
_BUFFERS = ("attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq")


class Tensor(NamedTuple):
    """A published tensor, and what it is here.

    Attributes:
      shape: As published.
      parts: Where it goes: paths of parameters, each with the function of the tensor that gives it.
    """

    shape: tuple[int, ...]
    parts: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...]


def network_of(config: Mapping[str, Any]) -> NeoX:
    """The network that a configuration describes; what it leaves out is as ``transformers`` has it.

    Raises:
      ValueError: another architecture, an entry that is missing or out of range, or positions that are scaled.

    >>> config = {"model_type": "gpt_neox", "vocab_size": 50304, "hidden_size": 128, "num_hidden_layers": 6,
    ...           "num_attention_heads": 4, "intermediate_size": 512, "max_position_embeddings": 2048}
    >>> network_of(config).rotary
    8
    """
    if config.get("model_type") != MODEL_TYPE:
        raise ValueError(
            f"model_type is {config.get('model_type')!r}; only {MODEL_TYPE!r} (Pythia, GPT-NeoX) is read. For another "
            "network write its loss in jax and pass a slt_jax.Problem."
        )
    width, heads = _positive(config, "hidden_size"), _positive(config, "num_attention_heads")
    if width % heads:
        raise ValueError(f"hidden_size is {width}, no multiple of num_attention_heads {heads}.")
    activation = config.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise ValueError(f"hidden_act is {activation!r}; known are {', '.join(ACTIVATIONS)}.")
    rotary, base = _rotary(config, width // heads)
    return NeoX(
        vocabulary=_positive(config, "vocab_size"),
        width=width,
        blocks=_positive(config, "num_hidden_layers"),
        heads=heads,
        hidden=_positive(config, "intermediate_size"),
        length=_positive(config, "max_position_embeddings"),
        rotary=rotary,
        base=base,
        parallel=bool(config.get("use_parallel_residual", True)),
        epsilon=float(config.get("layer_norm_eps", 1e-5)),
        activation=activation,
        attention_bias=bool(config.get("attention_bias", True)),
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def params_of(network: NeoX, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], np.ndarray]) -> PyTree:
    """The parameters of a network from published tensors, one tensor in memory at a time besides.

    The fused projection, ``(heads, 3, dimension)`` along its first axis, becomes query, key and value of Flax's own
    attention.

    Args:
      network: The architecture.
      shapes: Of all tensors there are, by name.
      read: ``read(name)`` gives one of them.

    Raises:
      ValueError: a tensor is missing, left over or of another shape; it is named.

    >>> network = NeoX(vocabulary=11, width=8, blocks=1, heads=2, hidden=16, length=5, rotary=2)
    >>> shapes = {name: tensor.shape for name, tensor in tensors_of(network).items()}
    >>> params = params_of(network, shapes, lambda name: np.zeros(shapes[name]))
    >>> params["block_0"]["attention"]["query"]["kernel"].shape
    (8, 2, 4)
    """
    expected = tensors_of(network)
    _check(expected, {name: shape for name, shape in shapes.items() if not name.endswith(_BUFFERS)})
    params: dict[str, Any] = {}
    for name, tensor in expected.items():
        stored = read(name)
        for path, taken in tensor.parts:
            *above, last = path.split("/")
            place = params
            for part in above:
                place = place.setdefault(part, {})
            # a copy: a view would keep the whole fused tensor
            place[last] = np.array(taken(stored), order="C")
    return params


def tensors_of(network: NeoX) -> dict[str, Tensor]:
    """Every published tensor of a network by its name, as in ``gpt_neox.layers.0.attention.dense.weight``."""
    return dict(_tensors(network))


def _tensors(network: NeoX) -> Iterator[tuple[str, Tensor]]:
    width, hidden = network.width, network.hidden
    split = (network.heads, 3, width // network.heads)

    def norm(name: str, path: str) -> Iterator[tuple[str, Tensor]]:
        yield f"{name}.weight", Tensor((width,), ((f"{path}/scale", np.asarray),))
        yield f"{name}.bias", Tensor((width,), ((f"{path}/bias", np.asarray),))

    def dense(name: str, path: str, shape: tuple[int, int], bias: bool = True) -> Iterator[tuple[str, Tensor]]:
        yield f"{name}.weight", Tensor(shape, ((f"{path}/kernel", np.transpose),))
        if bias:
            yield f"{name}.bias", Tensor(shape[:1], ((f"{path}/bias", np.asarray),))

    yield "gpt_neox.embed_in.weight", Tensor((network.vocabulary, width), (("embed/embedding", np.asarray),))
    for number in range(network.blocks):
        above, block = f"gpt_neox.layers.{number}", f"block_{number}"
        attention = f"{block}/attention"
        yield from norm(f"{above}.input_layernorm", f"{block}/attention_norm")
        yield from norm(f"{above}.post_attention_layernorm", f"{block}/mlp_norm")
        fused, projections = f"{above}.attention.query_key_value", ("query", "key", "value")
        kernels = ((f"{attention}/{name}/kernel", _part(split, part)) for part, name in enumerate(projections))
        yield f"{fused}.weight", Tensor((3 * width, width), tuple(kernels))
        out = f"{above}.attention.dense"
        yield f"{out}.weight", Tensor((width, width), ((f"{attention}/out/kernel", _rows(split)),))
        if network.attention_bias:
            biases = ((f"{attention}/{name}/bias", _part(split, part)) for part, name in enumerate(projections))
            yield f"{fused}.bias", Tensor((3 * width,), tuple(biases))
            yield f"{out}.bias", Tensor((width,), ((f"{attention}/out/bias", np.asarray),))
        yield from dense(f"{above}.mlp.dense_h_to_4h", f"{block}/up", (hidden, width))
        yield from dense(f"{above}.mlp.dense_4h_to_h", f"{block}/down", (width, hidden))
    yield from norm("gpt_neox.final_layer_norm", "norm")
    if not network.tied:
        yield from dense("embed_out", "unembed", (network.vocabulary, width), bias=False)


def _part(split: tuple[int, int, int], part: int) -> Callable[[np.ndarray], np.ndarray]:
    """Query, key or value of every head: ``(width, heads, dimension)``, of a bias ``(heads, dimension)``."""

    def taken(fused: np.ndarray) -> np.ndarray:
        separate = fused.reshape(*split, *fused.shape[1:])[:, part]
        return np.moveaxis(separate, -1, 0) if separate.ndim == 3 else separate

    return taken


def _rows(split: tuple[int, int, int]) -> Callable[[np.ndarray], np.ndarray]:
    heads, _, dimension = split
    return lambda out: out.T.reshape(heads, dimension, -1)


def _check(expected: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    missing, left = sorted(set(expected) - set(shapes)), sorted(set(shapes) - set(expected))
    if missing or left:
        found = [f"{len(missing)} tensors are missing, as {missing[0]!r}"] if missing else []
        found += [f"{len(left)} are left over, as {left[0]!r}"] if left else []
        raise ValueError(f"{' and '.join(found)}; the weights and config.json are not of one {MODEL_TYPE!r} model.")
    for name, tensor in expected.items():
        if tuple(shapes[name]) != tensor.shape:
            raise ValueError(f"{name!r} has shape {tuple(shapes[name])}; config.json says {tensor.shape}.")


def _positive(config: Mapping[str, Any], entry: str) -> int:
    value = config.get(entry)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{entry} is {value!r}; a {MODEL_TYPE!r} configuration has an integer of at least 1 there.")
    return value


def _rotary(config: Mapping[str, Any], dimension: int) -> tuple[int, float]:
    """Number of rotary dimensions and their base, as old and new configurations say it."""
    positions = {**(config.get("rope_parameters") or {}), **(config.get("rope_scaling") or {})}
    kind = positions.get("rope_type", positions.get("type", "default"))
    if kind != "default":
        raise ValueError(f"rotary positions are of type {kind!r}; only unscaled ones ('default') are known.")
    share = positions.get("partial_rotary_factor", config.get("rotary_pct", 0.25))
    base = positions.get("rope_theta", config.get("rotary_emb_base", 10000))
    rotary = int(dimension * share)
    if not 0 < rotary <= dimension or rotary % 2:
        raise ValueError(
            f"rotary_pct is {share!r} of a head of {dimension}, {rotary} dimensions; they must be even and at least 2."
        )
    return rotary, float(base)
