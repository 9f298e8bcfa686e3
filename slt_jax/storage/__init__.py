"""What is on disk: checkpoints (Orbax), published models (safetensors), histories and readings (Zarr), whose (JSON)."""

from slt_jax.storage.checkpoints import (
    OtherTreeError,
    checkpoints_in,
    find_checkpoints,
    is_complete,
    list_checkpoints,
    load_checkpoint,
    remove_leftovers,
    save_checkpoints,
    state_of,
)
from slt_jax.storage.claims import at_checkpoint, claimed
from slt_jax.storage.datasets import (
    read_history,
    read_readings,
    readings_tree,
    trace_dataset,
    write_history,
    write_readings,
)
from slt_jax.storage.folder import STUDY_FILE, FinishedReadings, FolderError, claim, read_study, write_study
from slt_jax.storage.hub import PREFIX, Pretrained, parse_reference, pretrained
from slt_jax.storage.keeper import Keeper
from slt_jax.storage.localities import read_transitions, write_transitions
from slt_jax.storage.locks import holder
from slt_jax.storage.losses import StoredLosses, read_losses, write_losses
from slt_jax.storage.pretrained import TOKENIZER, load_pretrained, read_config
from slt_jax.storage.relations import read_relations, write_construction, write_relations
from slt_jax.storage.resumed import resumable_sample
from slt_jax.storage.running import RunningReadings
from slt_jax.storage.signatures import read_signature
from slt_jax.storage.watched import read_watched, write_watched

__all__ = [
    "PREFIX",
    "STUDY_FILE",
    "TOKENIZER",
    "FinishedReadings",
    "FolderError",
    "Keeper",
    "OtherTreeError",
    "Pretrained",
    "RunningReadings",
    "StoredLosses",
    "at_checkpoint",
    "checkpoints_in",
    "claim",
    "claimed",
    "find_checkpoints",
    "holder",
    "is_complete",
    "list_checkpoints",
    "load_checkpoint",
    "load_pretrained",
    "parse_reference",
    "pretrained",
    "read_config",
    "read_history",
    "read_losses",
    "read_readings",
    "read_relations",
    "read_signature",
    "read_study",
    "read_transitions",
    "read_watched",
    "readings_tree",
    "remove_leftovers",
    "resumable_sample",
    "save_checkpoints",
    "state_of",
    "trace_dataset",
    "write_construction",
    "write_history",
    "write_losses",
    "write_readings",
    "write_relations",
    "write_study",
    "write_transitions",
    "write_watched",
]
