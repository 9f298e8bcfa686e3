"""The signature of what is in an output folder, to be set beside those of others."""

from pathlib import Path

import numpy as np

from slt_jax.spectroscopy import Signature, detect_phases, phase_signature, stage_signature
from slt_jax.spectroscopy.recorder import finite
from slt_jax.spectroscopy.signatures import Readings
from slt_jax.storage.datasets import read_history, read_readings
from slt_jax.storage.folder import FolderError, read_study


def read_signature(folder: Path, *, stages: int | None = 8, name: str | None = None, kind: str = "") -> Signature:
    """What a finished study or scan saw of its network, stage by stage or phase by phase.

    Args:
      folder: What ``slt-jax demo`` or ``scan`` wrote.
      stages: How many, as for ``stage_signature``; ``None`` for phases, as ``phase_signature``.
      name: Of the network; default that of the folder.
      kind: As in ``Signature``.

    Returns:
      Losses, concepts, and every healthy value of every probe, ``"llc"`` or ``"llc, restriction, subloss"`` by name; a
      value that is known at one checkpoint alone, or none, is left out.

    Raises:
      FolderError: there is no study, or no history in it.
      ValueError: it has no phases where these are asked for, or too few steps.
    """
    read_study(folder)
    history = read_history(folder)
    if history is None:
        raise FolderError(f"{folder} holds no history; its study is not finished: run the same command again.")
    history, name = finite(history), folder.resolve().name if name is None else name
    readings = _readings(folder)
    if stages is None:
        return phase_signature(name, history, detect_phases(history), readings, kind=kind)
    return stage_signature(name, history, readings, stages=stages, kind=kind)


def _readings(folder: Path) -> Readings:
    tree = read_readings(folder)
    found: dict[str, dict[int, tuple[float, float]]] = {}
    for probe, node in {} if tree is None else tree.children.items():
        table = node.to_dataset()
        for restriction in table["restriction"].values:
            for subloss in table["subloss"].values:
                cell = table.sel(restriction=restriction, subloss=subloss)
                healthy = cell["healthy"].values.astype(bool) & np.isfinite(cell["value"].values)
                columns = (cell[name].values[healthy].tolist() for name in ("step", "value", "std_error"))
                rows = {int(step): (value, error) for step, value, error in zip(*columns, strict=True)}
                if len(rows) > 1:
                    where = [part for part, usual in ((restriction, "full"), (subloss, "all")) if part != usual]
                    found[", ".join([probe, *map(str, where)])] = rows
    return found
