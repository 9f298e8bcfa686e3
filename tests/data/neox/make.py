"""Makes the folders beside this file: small random GPT-NeoX models as transformers writes them, with its logits.

Needs torch, transformers and safetensors: ``python tests/data/neox/make.py``. Made with transformers 5.24.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

HERE = Path(__file__).parent
SHAPE = {
    "vocab_size": 32,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    # large enough that a mistake anywhere moves the logits by far more than 1e-4
    "initializer_range": 0.3,
}
MODELS = {
    "pythia": ({"rotary_pct": 0.25, "hidden_act": "gelu"}, torch.float32, "5GB"),
    "sequential": (
        {
            "rotary_pct": 1.0,
            "rotary_emb_base": 500,
            "hidden_act": "gelu_new",
            "use_parallel_residual": False,
            "tie_word_embeddings": True,
            "layer_norm_eps": 1e-2,
        },
        torch.float32,
        "5GB",
    ),
    "shards": ({"rotary_pct": 1.0, "hidden_act": "gelu_fast", "attention_bias": False}, torch.bfloat16, "6KB"),
}


def as_pythia_is_published(folder: Path) -> None:
    """The older configuration, and buffers among the weights."""
    config = json.loads((folder / "config.json").read_text())
    positions = config.pop("rope_parameters")
    config["rotary_pct"], config["rotary_emb_base"] = positions["partial_rotary_factor"], int(positions["rope_theta"])
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = load_file(folder / "model.safetensors")
    for layer in range(SHAPE["num_hidden_layers"]):
        above = f"gpt_neox.layers.{layer}.attention"
        tensors[f"{above}.bias"] = torch.tril(torch.ones(1, 1, 64, 64, dtype=torch.bool))
        tensors[f"{above}.masked_bias"] = torch.tensor(-1e9)
        tensors[f"{above}.rotary_emb.inv_freq"] = torch.ones(1)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def make(name: str) -> None:
    settings, dtype, shard = MODELS[name]
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE, **settings))
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.5, 0.3)
    model.to(dtype).save_pretrained(HERE / name, max_shard_size=shard)
    (HERE / name / "generation_config.json").unlink()
    if name == "pythia":
        as_pythia_is_published(HERE / name)
    tokens = np.random.default_rng(0).integers(0, SHAPE["vocab_size"], (2, 24))
    read = GPTNeoXForCausalLM.from_pretrained(HERE / name, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = read(torch.tensor(tokens)).logits.numpy()
    np.savez(HERE / name / "expected.npz", tokens=tokens.astype(np.int32), logits=logits)


if __name__ == "__main__":
    for name in MODELS:
        make(name)
