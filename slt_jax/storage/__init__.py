"""What is on disk: checkpoints (Orbax), published models (safetensors), histories and readings (Zarr), whose (JSON)."""

from slt_jax.storage.checkpoints import checkpoints_in, list_checkpoints, load_checkpoint, save_checkpoints
from slt_jax.storage.datasets import (
    read_history,
    read_readings,
    readings_tree,
    trace_dataset,
    write_history,
    write_readings,
)
from slt_jax.storage.folder import FinishedReadings, FolderError, claim, read_study, write_study
from slt_jax.storage.hub import PREFIX, Pretrained, pretrained
from slt_jax.storage.localities import read_transitions, write_transitions
from slt_jax.storage.losses import StoredLosses, read_losses, write_losses
from slt_jax.storage.pretrained import TOKENIZER, load_pretrained, read_config
from slt_jax.storage.signatures import read_signature

__all__ = [
    "PREFIX",
    "TOKENIZER",
    "FinishedReadings",
    "FolderError",
    "Pretrained",
    "StoredLosses",
    "checkpoints_in",
    "claim",
    "list_checkpoints",
    "load_checkpoint",
    "load_pretrained",
    "pretrained",
    "read_config",
    "read_history",
    "read_losses",
    "read_readings",
    "read_signature",
    "read_study",
    "read_transitions",
    "readings_tree",
    "save_checkpoints",
    "trace_dataset",
    "write_history",
    "write_losses",
    "write_readings",
    "write_study",
    "write_transitions",
]
