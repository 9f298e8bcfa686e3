"""Small random models written as the Hugging Face Hub holds them, without torch."""

import json
from pathlib import Path

import numpy as np

from slt_jax.models.neox_layout import network_of, tensors_of

#: A GPT-NeoX model over bytes, with positions in half of each head.
CONFIG = {
    "model_type": "gpt_neox",
    "vocab_size": 256,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "rotary_pct": 0.5,
    "eos_token_id": 0,
}


def random_tensors(config, seed=0):
    """Every tensor of a model by its published name."""
    generator = np.random.default_rng(seed)
    return {
        name: generator.normal(0.0, 0.3, tensor.shape).astype(np.float32)
        for name, tensor in tensors_of(network_of(config)).items()
    }


def write_model(folder, config=CONFIG, seed=0, tensors=None):
    """A folder with ``config.json`` and ``model.safetensors``."""
    from safetensors.numpy import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(random_tensors(config, seed) if tensors is None else tensors, folder / "model.safetensors")
    return folder
