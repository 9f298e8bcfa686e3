"""What a study leaves on disk: checkpoints (Orbax), histories and readings (Zarr), and whose they are (JSON)."""

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
from slt_jax.storage.localities import read_transitions, write_transitions
from slt_jax.storage.losses import StoredLosses, read_losses, write_losses

__all__ = [
    "FinishedReadings",
    "FolderError",
    "StoredLosses",
    "checkpoints_in",
    "claim",
    "list_checkpoints",
    "load_checkpoint",
    "read_history",
    "read_losses",
    "read_readings",
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
