"""Pretrained language models from a Hugging Face folder: ``config.json`` and safetensors. Nothing is ever unpickled."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jax import numpy as jnp

from slt_jax.models.neox import NeoX
from slt_jax.models.neox_layout import network_of, params_of
from slt_jax.types import PyTree

#: File names of a published model.
CONFIG, WEIGHTS, INDEX, TOKENIZER = "config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json"
#: Weights that are programs: to read one is to run it.
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def load_pretrained(folder: Path | str, dtype: Any = np.float32) -> tuple[NeoX, PyTree]:
    """A GPT-NeoX model (Pythia) from a folder: logits are ``network.apply({"params": params}, tokens)``.

    Args:
      folder: With ``config.json`` and ``model.safetensors``, or ``model.safetensors.index.json`` and its shards.
      dtype: Of the parameters, whatever was stored; ``None`` as it was stored.

    Returns:
      The network, and its parameters as numpy arrays.

    Raises:
      ValueError: as ``read_network`` and ``read_params``; the file and the remedy are named.

    >>> load_pretrained("/nowhere")
    Traceback (most recent call last):
        ...
    ValueError: /nowhere: no such folder; pass one with config.json and model.safetensors.
    """
    network = read_network(Path(folder))
    return network, read_params(Path(folder), network, dtype)


def read_network(folder: Path) -> NeoX:
    """The network that ``config.json`` of a folder describes.

    Raises:
      ValueError: there is no such folder or file, or it describes no network of this kind.
    """
    config = read_config(folder)
    try:
        return network_of(config)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error


def read_config(folder: Path) -> Mapping[str, Any]:
    """What ``config.json`` says.

    Raises:
      ValueError: there is no such folder or file, or it is no JSON object.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; pass one with {CONFIG} and {WEIGHTS}.")
    if not (folder / CONFIG).is_file():
        found = sorted(entry.name for entry in folder.iterdir())
        inside = [name for name in found if (folder / name / CONFIG).is_file()]
        remedy = f"for its revisions write @{','.join(inside)} after it" if inside else f"there are {found[:6]}"
        raise ValueError(f"{folder}: has no {CONFIG}; {remedy}.")
    return _json_object(folder / CONFIG)


def read_params(folder: Path, network: NeoX, dtype: Any = np.float32) -> PyTree:
    """The parameters of a network from the safetensors of a folder.

    Args:
      folder: With one file, or an index and its shards.
      network: As ``config.json`` describes it.
      dtype: As for ``load_pretrained``.

    Raises:
      ValueError: there are no safetensors, a shard is missing or cut short, a tensor is missing, left over, of another
        shape, or not floating point; ``safetensors`` is not installed.
    """
    with _tensors(folder) as stored:

        def read(name: str) -> np.ndarray:
            tensor = np.asarray(stored[name].get_tensor(name))
            if not jnp.issubdtype(tensor.dtype, jnp.floating):
                raise ValueError(f"{name!r} has dtype {tensor.dtype}; quantised weights are not read.")
            return tensor if dtype is None else tensor.astype(dtype)

        shapes = {name: tuple(file.get_slice(name).get_shape()) for name, file in stored.items()}
        try:
            return params_of(network, shapes, read)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error


def check_readable(folder: Path | None = None) -> None:
    """Refuse what no weights could be read from, reading none of them.

    Args:
      folder: A folder to look at; ``None`` for what is installed only.

    Raises:
      ValueError: ``safetensors`` is not installed, or the folder holds no such files.
    """
    _library()
    if folder is not None:
        _weight_files(folder)


def _library() -> Any:
    try:
        import safetensors
    except ImportError as error:
        raise ValueError(
            "safetensors is not installed, which reads the weights: pip install 'slt_jax[hub]'."
        ) from error
    return safetensors


@contextmanager
def _tensors(folder: Path) -> Iterator[dict[str, Any]]:
    """The open file of each tensor, by its name."""
    library = _library()
    paths = _weight_files(folder)
    with ExitStack() as stack:
        stored: dict[str, Any] = {}
        for path in paths:
            try:
                file = stack.enter_context(library.safe_open(path, framework="numpy"))
            except (library.SafetensorError, OSError) as error:
                raise ValueError(f"{path}: unreadable or cut short ({error}); fetch it again.") from error
            stored |= dict.fromkeys(file.keys(), file)
        yield stored


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
        if pickled:
            raise ValueError(
                f"{folder}: holds {pickled[0]} and no {WEIGHTS}; a pickled file runs code when it is read and is not. "
                "Convert it where you trust it, with transformers: from_pretrained(...), then save_pretrained(...)."
            )
        raise ValueError(f"{folder}: holds neither {WEIGHTS} nor {INDEX}; pass a folder with the weights.")
    weight_map = _json_object(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{folder / INDEX}: has no 'weight_map' from tensors to files; fetch it again.")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        # an index may come from anywhere: it names files of this folder and no others
        if Path(name).name != name or not (folder / name).is_file():
            raise ValueError(f"{folder / INDEX}: names the shard {name!r}, which {folder} does not hold; fetch it too.")
    return [folder / name for name in names]


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not valid JSON ({error}); fetch it again.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds a {type(value).__name__}, not a JSON object; fetch it again.")
    return value
