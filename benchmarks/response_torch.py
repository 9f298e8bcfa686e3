"""The half of ``response.py`` that needs PyTorch: one call of ``devinterp.slt.susceptibilities.susceptibilities``.

    python benchmarks/response_torch.py FOLDER

reads ``params.npz``, ``tokens.npz``, ``masks.npz`` and ``job.json``, writes ``found.npz`` and prints one JSON line. It
imports nothing of JAX; arrays come in ``.npz`` files, and nothing is unpickled.
"""

import gc
import json
import os
import platform
import sys
import time
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np

# no bars on the way, nothing fetched; on a CPU one core, which is the least CPU time
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}

try:
    import torch
    from datasets import Dataset
    from devinterp.slt.susceptibilities import susceptibilities
except ImportError as error:
    # a class that zarr 3.2 removed is how a fresh installation of devinterp 2.0.1 fails
    print(json.dumps({"missing": f"{type(error).__name__}: {error}"}))
    sys.exit(0)

#: Of layer normalisation, as in the other half.
EPSILON = 1e-6


class Transformer(torch.nn.Module):
    """The network of ``slt_jax.models.transformer`` without perceptrons: matrices where it has heads on an axis."""

    def __init__(self, arrays, heads, blocks):
        super().__init__()
        self.heads, self.blocks = heads, blocks
        self.leaves = torch.nn.ParameterDict(
            {name.replace("/", "-"): torch.nn.Parameter(flat(name, leaf)) for name, leaf in arrays.items()}
        )

    def forward(self, tokens):
        """Logits of shape ``(B, T, vocabulary)``."""
        leaf = self.leaves
        width = leaf["embed-embedding"].shape[1]
        stream = leaf["embed-embedding"][tokens] + leaf["positions"][: tokens.shape[1]]
        for block in range(self.blocks):
            at = f"block_{block}-attention"
            inside = self.normal(stream, f"{at}_norm")
            split = (*tokens.shape, self.heads, width // self.heads)
            query, key, value = (
                (inside @ leaf[f"{at}-{part}-kernel"]).view(split).transpose(1, 2) for part in ("query", "key", "value")
            )
            mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            stream = stream + mixed.transpose(1, 2).reshape(stream.shape) @ leaf[f"{at}-out-kernel"]
        return self.normal(stream, "norm") @ leaf["unembed-kernel"]

    def normal(self, stream, name):
        """Layer normalisation."""
        scale, bias = self.leaves[f"{name}-scale"], self.leaves[f"{name}-bias"]
        return torch.nn.functional.layer_norm(stream, stream.shape[-1:], scale, bias, EPSILON)


def flat(name, array):
    """A projection of heads as the matrix that it is; anything else as it is."""
    if array.ndim == 3:
        array = array.reshape(-1, array.shape[-1]) if "/out/" in name else array.reshape(array.shape[0], -1)
    return torch.from_numpy(array.copy())


def loss_fn(model, input_ids):
    """Shape ``(batch, tokens - 1)``; the last token is predicted and not looked at."""
    logits = model(input_ids[:, :-1])
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), input_ids[:, 1:], reduction="none")


def load(path):
    """All arrays of a file."""
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def main():
    """Run the job of a folder."""
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    model = Transformer(load(folder / "params.npz"), job["heads"], job["blocks"])
    tokens = load(folder / "tokens.npz")
    data, probe = (
        Dataset.from_dict({"input_ids": tokens[name].tolist()}).with_format("torch") for name in ("data", "probe")
    )
    restrictions = {"full": None}
    for name, mask in load(folder / "masks.npz").items():
        head, leaf = name.split("|")
        matrix = flat(leaf, mask).bool()
        restrictions.setdefault(head, {})["leaves." + leaf.replace("/", "-")] = matrix
    warnings.simplefilter("ignore")
    # each call collects garbage eight times: what was imported need not be searched, which is time in its favour
    gc.freeze()
    wall, cpu = time.perf_counter(), time.process_time()
    found = susceptibilities(
        model,
        data,
        {"train": (data, job["batches"]), "probe": (probe, job["batches"])},
        restrictions,
        sampling_task="train",
        lr=job["step_size"],
        n_beta=job["nbeta"],
        localization=job["gamma"],
        num_chains=job["chains"],
        num_draws=job["draws"],
        num_burnin_steps=job["burnin"],
        batch_size=job["batch_size"],
        num_init_loss_batches=job["batches"],
        init_seed=job["seed"],
        loss_fn=loss_fn,
        device=device,
        output_path=folder / "samples.zarr",
    )
    table = found["susceptibilities"]["sus"].values.T.reshape(len(restrictions) - 1, *tokens["probe"][:, 1:].shape)
    if device == "cuda":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    # it looks at the probe in an order of its own
    order = found["context"]["input_ids"].values.reshape(tokens["probe"].shape)
    rows = [int(np.flatnonzero((order == row).all(axis=1))[0]) for row in tokens["probe"]]
    np.savez(folder / "found.npz", susceptibilities=table[:, rows])
    place = torch.cuda.get_device_name() if device == "cuda" else "cpu, one thread"
    versions = {name: metadata.version(name) for name in ("devinterp", "torch", "zarr", "numpy")}
    row = {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "device": f"{platform.machine()}, {place}"}
    print(json.dumps({**row, "versions": {"python": platform.python_version(), **versions}}), flush=True)


if __name__ == "__main__":
    main()
