"""The half of ``peer_speed.py`` that needs PyTorch: bare gradients, a loop by hand, devinterp and canonical-interp.

    python benchmarks/peer_speed_torch.py FOLDER

reads ``<model>.npz`` from the folder, answers every line of its standard input, one job as JSON, with one line of JSON,
and ends with its input. ``--versions`` prints what is installed. It imports nothing of JAX; arrays come in ``.npz``
files, and nothing is unpickled.
"""

import gc
import importlib.util
import itertools
import json
import logging
import os
import platform
import sys
import tempfile
import time
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np

# no bars on the way, nothing fetched, and what is compiled is compiled in this process
os.environ |= {
    "TQDM_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    print(json.dumps({"missing": f"{type(error).__name__}: {error}"}))
    sys.exit(0)


class Network(torch.nn.Module):
    """One of the three models of ``models.py``: outputs for inputs, and losses of outputs against targets."""

    def __init__(self, arrays):
        super().__init__()
        leaves = {name: leaf for name, leaf in arrays.items() if name not in ("inputs", "targets")}
        names = {name: name.replace("/", "-") for name in leaves}
        self.leaves = torch.nn.ParameterDict(
            {names[name]: torch.nn.Parameter(torch.from_numpy(leaf.copy())) for name, leaf in leaves.items()}
        )
        self.inputs, self.targets = (torch.from_numpy(arrays[name].copy()) for name in ("inputs", "targets"))
        self.examples = len(self.inputs)


class LinearNetwork(Network):
    """``x W_0 W_1``, and half of the squared distance."""

    def forward(self, inputs):
        return inputs @ self.leaves["0"] @ self.leaves["1"]

    @staticmethod
    def losses(outputs, targets):
        return 0.5 * (outputs - targets).square().sum(dim=1)


class Perceptron(Network):
    """Three layers with tanh between them, and cross-entropy."""

    def forward(self, inputs):
        for layer in range(2):
            inputs = torch.tanh(F.linear(inputs, self.leaves[f"{layer}-kernel"].T, self.leaves[f"{layer}-bias"]))
        return F.linear(inputs, self.leaves["2-kernel"].T, self.leaves["2-bias"])

    @staticmethod
    def losses(outputs, targets):
        return F.cross_entropy(outputs, targets, reduction="none")


class Transformer(Network):
    """Two blocks of four heads; cross-entropy of each next token."""

    heads, fused = 4, True

    def forward(self, tokens):
        leaf, width = self.leaves, self.leaves["embed"].shape[1]
        stream = F.embedding(tokens, leaf["embed"]) + leaf["position"]
        split = (*tokens.shape, self.heads, width // self.heads)
        for block in range(2):
            at = f"blocks-{block}"
            inside = F.layer_norm(stream, (width,)) * leaf[f"{at}-scale"][0]
            query, key, value = (
                (inside @ leaf[f"{at}-{name}"]).view(split).transpose(1, 2) for name in ("query", "key", "value")
            )
            if self.fused:
                mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            else:
                ahead = torch.ones(2 * tokens.shape[-1:], dtype=torch.bool).triu(1)
                scores = (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).masked_fill(ahead, -torch.inf)
                mixed = scores.softmax(-1) @ value
            stream = stream + mixed.transpose(1, 2).reshape(stream.shape) @ leaf[f"{at}-out"]
            inside = F.layer_norm(stream, (width,)) * leaf[f"{at}-scale"][1]
            stream = stream + F.gelu(inside @ leaf[f"{at}-up"], approximate="tanh") @ leaf[f"{at}-down"]
        return F.layer_norm(stream, (width,)) @ leaf["head"]

    @staticmethod
    def losses(outputs, targets):
        return F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="none").view(targets.shape)


KINDS = {"linear": LinearNetwork, "perceptron": Perceptron, "transformer": Transformer}


def gradient(network, job):
    """Gradients of the mean loss at parameters that stay where they are."""
    weights = list(network.parameters())
    total = 0.0
    for _ in range(job["chains"] * job["draws"]):
        index = torch.randint(0, network.examples, (job["batch_size"],))
        loss = network.losses(network(network.inputs[index]), network.targets[index]).mean()
        torch.autograd.grad(loss, weights)
        total += loss.item()
    return total / (job["chains"] * job["draws"])


def by_hand(network, job):
    """SGLD as one writes it in PyTorch: one chain after the other, in place."""
    weights = list(network.parameters())
    center = [weight.detach().clone() for weight in weights]
    step, nbeta, gamma = job["step_size"], job["nbeta"], job["gamma"]
    total = 0.0
    for _ in range(job["chains"]):
        with torch.no_grad():
            for weight, origin in zip(weights, center, strict=True):
                weight.copy_(origin)
        for _ in range(job["draws"]):
            index = torch.randint(0, network.examples, (job["batch_size"],))
            loss = network.losses(network(network.inputs[index]), network.targets[index]).mean()
            slopes = torch.autograd.grad(loss, weights)
            total += loss.item()
            with torch.no_grad():
                for weight, origin, slope in zip(weights, center, slopes, strict=True):
                    drift = slope.mul_(nbeta).add_(weight - origin, alpha=gamma)
                    weight.add_(drift, alpha=-step / 2).add_(torch.randn_like(weight), alpha=step**0.5)
    return total / (job["chains"] * job["draws"])


def devinterp(network, job):
    """``llc`` as in the README of devinterp: the training set is an observable too, unless there are to be none."""
    from datasets import Dataset
    from devinterp.slt.llc import llc

    language = isinstance(network, Transformer)
    if language:
        tokens = torch.cat([network.inputs, network.targets[:, -1:]], dim=1)
        rows = tokens.tolist()
    else:
        rows = [[index, 0] for index in range(network.examples)]
    dataset = Dataset.from_dict({"input_ids": rows}).with_format("torch")

    def loss_fn(model, ids):
        # what it asks for: shape (batch, tokens - 1); where there are no tokens, the first is the number of the example
        if language:
            return model.losses(model(ids[:, :-1]), ids[:, 1:])
        index = ids[:, 0]
        return model.losses(model(model.inputs[index]), model.targets[index])[:, None]

    with tempfile.TemporaryDirectory() as folder:
        found = llc(
            network,
            dataset,
            {"train": dataset} if job["observables"] else {},
            lr=job["step_size"],
            n_beta=job["nbeta"],
            localization=job["gamma"],
            num_chains=job["chains"],
            num_draws=job["draws"],
            batch_size=job["batch_size"],
            loss_fn=loss_fn,
            device="cpu",
            output_path=Path(folder) / "samples.zarr",
        ).load()
    return float(found["loss_trace"].mean())


def canonical(network, job):
    """``LLCEstimator`` as in the README of canonical-interp: chains vmapped, the gradient compiled."""
    if not hasattr(itertools, "batched"):
        raise ImportError("canonical-interp 0.1.5 needs Python 3.12: it imports itertools.batched")
    from canonical_interp.slt import LLCEstimator
    from torch.utils.data import DataLoader, TensorDataset

    estimator = LLCEstimator(
        draws=job["draws"],
        chains=job["chains"],
        burnin_steps=0,
        steps_bw_draws=1,
        learning_rate=job["step_size"],
        localization=job["gamma"],
        nbeta=job["nbeta"],
    )
    # batches of one size, so that nothing is compiled twice; no workers, as all is held to the same cores
    data = TensorDataset(network.inputs, network.targets)
    loader = DataLoader(data, batch_size=job["batch_size"], shuffle=False, drop_last=True)

    def criterion(outputs, targets):
        return network.losses(outputs, targets).mean()

    # the fused attention of PyTorch has no derivative on a CPU once it is vmapped and compiled
    network.fused = False
    try:
        estimator.estimate_llc(network, loader, criterion_fn=criterion, seed=job["seed"], show_progress=False)
    finally:
        network.fused = True
    return float(estimator.get_metrics()["losses"].detach().mean())


TOOLS = {"gradient": gradient, "by hand": by_hand, "devinterp": devinterp, "canonical-interp": canonical}


def answer(networks, job):
    """Seconds of one run and the mean loss that it saw, or why it could not be made."""
    network = networks[job["model"]]
    if job["tool"] == "losses":
        index = torch.arange(job["batch_size"])
        with torch.no_grad():
            return {"losses": network.losses(network(network.inputs[index]), network.targets[index]).tolist()}
    center = {name: leaf.clone() for name, leaf in network.state_dict().items()}
    torch.manual_seed(job["seed"])
    wall, cpu = time.perf_counter(), time.process_time()
    loss = TOOLS[job["tool"]](network, job)
    found = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "loss": loss}
    # a loop in place leaves the weights where it ended
    network.load_state_dict(center)
    return found


def versions():
    """What is installed: ``None`` for what is not."""
    found = {"python": platform.python_version()}
    for name in ("torch", "devinterp", "canonical-interp", "zarr", "numpy"):
        found[name] = metadata.version(name) if importlib.util.find_spec(name.replace("-", "_")) else None
    return found


def main():
    """Answer for versions, or for every job that comes in."""
    if sys.argv[1:] == ["--versions"]:
        print(json.dumps(versions()))
        return
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    networks = {}
    for path in Path(sys.argv[1]).glob("*.npz"):
        with np.load(path, allow_pickle=False) as stored:
            networks[path.stem] = KINDS[path.stem](dict(stored))
    out = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        try:
            found = answer(networks, json.loads(line))
        except (ImportError, RuntimeError, ValueError, TypeError) as error:
            found = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
        # devinterp collects garbage many times: what is here already need not be searched, which is time in its favour
        gc.freeze()
        print(json.dumps(found), file=out, flush=True)


if __name__ == "__main__":
    main()
