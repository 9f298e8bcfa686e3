"""The half of ``peers.py`` that needs PyTorch: problems from ``.npz`` files through ``devinterp.slt.llc.llc``.

    python benchmarks/peers_torch.py JOBS.json

reads a list of jobs, ``{"file": "0.npz", "settings": {...}}``, and prints one JSON line for each. ``--versions`` prints
what is installed, or why it cannot be used. It imports nothing of JAX, so that the two libraries may live in two
environments; arrays come in ``.npz`` files, and nothing is unpickled.
"""

import gc
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np

# one core, no bars on the way, nothing fetched
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}

try:
    import torch
    from datasets import Dataset
    from devinterp.slt.llc import llc
except ImportError as error:
    # a class that zarr 3.2 removed is how a fresh installation of devinterp 2.0.1 fails
    print(json.dumps({"missing": f"{type(error).__name__}: {error}"}))
    sys.exit(0)


class Network(torch.nn.Module):
    """``½ |W_N ··· W_1 x - y|²`` for each example."""

    def __init__(self, arrays):
        super().__init__()
        count = sum(name.startswith("layer") for name in arrays)
        layers = [torch.nn.Parameter(torch.from_numpy(arrays[f"layer{index}"].copy())) for index in range(count)]
        self.layers = torch.nn.ParameterList(layers)
        self.inputs, self.targets = torch.from_numpy(arrays["inputs"]), torch.from_numpy(arrays["targets"])
        self.examples = len(self.inputs)

    def losses(self, index):
        """Shape ``(len(index),)``."""
        activations = self.inputs[index]
        for layer in self.layers:
            activations = activations @ layer.T
        return 0.5 * (activations - self.targets[index]).square().sum(dim=1)


class Monomial(torch.nn.Module):
    """``Π w_j^{2 k_j}``, on one example that says nothing."""

    def __init__(self, arrays):
        super().__init__()
        self.exponents = [2 * int(power) for power in arrays["exponents"]]
        self.weights = torch.nn.Parameter(torch.zeros(len(self.exponents)))
        self.examples = 1

    def losses(self, index):
        """Shape ``(len(index),)``."""
        value = torch.ones(())
        for weight, exponent in zip(self.weights, self.exponents, strict=True):
            value = value * weight**exponent
        return value.expand(len(index))


def loss_fn(model, input_ids):
    """What ``llc`` asks for: shape ``(batch, tokens - 1)``. The first token is the number of the example."""
    return model.losses(input_ids[:, 0])[:, None]


def run(path, settings):
    """One call of ``llc`` as published, and what its own loss trace gives when the burn-in is left out."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    model = Monomial(arrays) if "exponents" in arrays else Network(arrays)
    rows = Dataset.from_dict({"input_ids": [[index, 0] for index in range(model.examples)]}).with_format("torch")
    settings = {**settings, "batch_size": model.examples, "num_init_loss_batches": 1}
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "samples.zarr"
        result = llc(model, rows, {}, loss_fn=loss_fn, device="cpu", output_path=output, **settings).load()
    seconds = time.process_time() - begin
    trace = result["loss_trace"].values.astype(np.float64)
    excess = trace[:, settings["num_burnin_steps"] :] - float(result["init_loss"])
    per_chain = settings["n_beta"] * excess.mean(axis=1)
    return {
        "value": float(result["llc_mean"]),
        "reported_error": float(result["llc_std"]),
        "after_burnin": float(per_chain.mean()),
        "after_burnin_error": float(per_chain.std(ddof=1) / len(per_chain) ** 0.5),
        "failed_chains": int((~np.isfinite(trace)).any(axis=1).sum()),
        "cpu_s": round(seconds, 2),
        "settings": settings,
    }


def versions():
    """What ran."""
    found = {name: metadata.version(name) for name in ("devinterp", "torch", "zarr", "numpy")}
    return {"python": platform.python_version(), **found}


def main():
    """Answer for versions, or run the jobs."""
    torch.set_num_threads(1)
    if sys.argv[1:] == ["--versions"]:
        print(json.dumps(versions()))
        return
    jobs = Path(sys.argv[1])
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    # each call collects garbage eight times: what was imported need not be searched, which is time in its favour
    gc.freeze()
    for job in json.loads(jobs.read_text()):
        row = run(jobs.parent / job["file"], job["settings"])
        finite = {
            name: None if isinstance(leaf, float) and not np.isfinite(leaf) else leaf for name, leaf in row.items()
        }
        print(json.dumps({**finite, "versions": versions()}), flush=True)


if __name__ == "__main__":
    main()
