"""Histories, readings and traces as labelled arrays: xarray in memory, Zarr on disk."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from slt_jax.sampling import Trace
from slt_jax.spectroscopy import Cell, History
from slt_jax.truths.truth import Truth

HISTORY, READINGS = "history.zarr", "readings.zarr"
#: Strings have a stable place in version 2 of the format, and none yet in version 3.
ZARR_FORMAT = 2
_DIMS = ("step", "restriction", "subloss")
#: The probe whose readings an exact learning coefficient stands beside.
EXACT_PROBE = "llc"

#: Names of axes, by probe and by array.
Dims = Mapping[str, Mapping[str, tuple[str, ...]]]


def trace_dataset(trace: Trace) -> xr.Dataset:
    """A trace as a Dataset on dims ``chain`` and ``draw``, ArviZ's convention.

    Args:
      trace: From ``sample``.

    Returns:
      One variable per number of the trace (``virials`` with a further dim ``leaf``), and ``observables/<path>`` for
      what was observed, with further dims.
    """
    names = [name for name in Trace._fields if name not in ("observables", "state", "moments", "folded")]
    dims = ("chain", "draw", "leaf")
    numbers = {name: np.asarray(getattr(trace, name)) for name in names}
    variables: dict[str, Any] = {name: (dims[: number.ndim], number) for name, number in numbers.items()}
    for path, leaf in jax.tree_util.tree_leaves_with_path(trace.observables):
        name = "/".join(["observables", jax.tree_util.keystr(path, simple=True, separator="/")]).rstrip("/")
        extra = tuple(f"{name}_dim_{axis}" for axis in range(leaf.ndim - 2))
        variables[name] = (("chain", "draw", *extra), np.asarray(leaf))
    chains, draws = trace.excess.shape
    return xr.Dataset(variables, coords={"chain": np.arange(chains), "draw": np.arange(draws)})


def write_history(folder: Path, history: History) -> None:
    """Write ``history.zarr``: losses on dims (step, subloss), concepts on (step, concept), observed numbers on another.

    Observed arrays have a variable each, ``observed_0`` and so on, with its ``name`` as an attribute.
    """
    observed = {name: np.asarray(values) for name, values in history.observations.items()}
    numbers = {name: values for name, values in observed.items() if values.ndim == 1}
    arrays = [name for name in observed if name not in numbers]
    rows = len(history.steps)
    variables: dict[str, Any] = {
        "loss": (("step", "subloss"), _columns(history.losses, rows)),
        "concept_value": (("step", "concept"), _columns(history.concepts, rows)),
    }
    coords = {
        "step": history.steps,
        "subloss": np.array(list(history.losses), dtype=str),
        "concept": np.array(list(history.concepts), dtype=str),
    }
    if numbers:
        variables["observed_value"] = (("step", "observed"), _columns(numbers, rows))
        coords["observed"] = np.array(list(numbers), dtype=str)
    for index, name in enumerate(arrays):
        dims = ("step", *(f"observed_{index}_axis_{axis}" for axis in range(1, observed[name].ndim)))
        variables[f"observed_{index}"] = (dims, observed[name], {"name": name})
    dataset = xr.Dataset(variables, coords=coords, attrs={"observations": json.dumps(list(observed))})
    write_store(
        folder / HISTORY, lambda path: dataset.to_zarr(path, mode="w", zarr_format=ZARR_FORMAT, consolidated=True)
    )


def read_history(folder: Path) -> History | None:
    """The history in a folder, or ``None`` where there is none."""
    if not (folder / HISTORY).exists():
        return None
    with xr.open_zarr(folder / HISTORY, consolidated=True) as dataset:
        found = {
            str(column.attrs["name"]): column.values for column in dataset.data_vars.values() if "name" in column.attrs
        }
        if "observed_value" in dataset:
            found |= _table_of(dataset, "observed_value", "observed")
        # folders from before there were observations have none
        order = json.loads(dataset.attrs.get("observations", "[]"))
        return History(
            dataset["step"].values,
            _table_of(dataset, "loss", "subloss"),
            _table_of(dataset, "concept_value", "concept"),
            {name: found[name] for name in order},
        )


def readings_tree(cells: Sequence[Cell], exact: Mapping[int, Truth], dims: Dims | None = None) -> xr.DataTree:
    """Cells as a DataTree: one node per probe.

    Args:
      cells: From ``scan``.
      exact: Exactly known values of the whole loss in the whole network, by step.
      dims: What the axes of a probe's arrays are called, by probe and array; default ``chain``, and ``<array>_point``
        for the second.

    Returns:
      A tree whose nodes have ``value``, ``std_error``, ``healthy``, ``measured`` and (``llc`` only) ``exact`` on dims
      ``step``, ``restriction`` and ``subloss``, and whatever else the probe returned with further dims. Where there is
      no reading the numbers are NaN, ``measured`` is false, and the attribute ``errors`` says why. Arrays that are
      shorter in one reading than in another end in NaN, or false. Words along an axis are its coordinate.
    """
    nodes = {}
    for probe in dict.fromkeys(cell.probe for cell in cells):
        own = [cell for cell in cells if cell.probe == probe]
        nodes[f"/{probe}"] = _probe_dataset(probe, own, exact, (dims or {}).get(probe, {}))
    return xr.DataTree.from_dict(nodes)


def write_readings(folder: Path, cells: Sequence[Cell], exact: Mapping[int, Truth], dims: Dims | None = None) -> None:
    """Write ``readings.zarr``, replacing an older one only when the new one is whole."""
    tree = readings_tree(cells, exact, dims)
    write_store(
        folder / READINGS, lambda path: tree.to_zarr(path, mode="w", zarr_format=ZARR_FORMAT, consolidated=True)
    )


def read_readings(folder: Path) -> xr.DataTree | None:
    """The readings in a folder, loaded into memory, or ``None`` where there are none."""
    if not (folder / READINGS).exists():
        return None
    with xr.open_datatree(folder / READINGS, engine="zarr", consolidated=True) as tree:
        return tree.load()


def _probe_dataset(
    probe: str, cells: Sequence[Cell], exact: Mapping[int, Truth], dims: Mapping[str, tuple[str, ...]]
) -> xr.Dataset:
    coords: dict[str, list] = {dim: list(dict.fromkeys(getattr(cell, dim) for cell in cells)) for dim in _DIMS}
    coords["step"].sort()
    shape = tuple(len(coords[dim]) for dim in _DIMS)
    places = {cell: tuple(coords[dim].index(getattr(cell, dim)) for dim in _DIMS) for cell in map(_place, cells)}
    variables = {name: _empty(name, like, shape, dims.get(name)) for name, like in _widest(cells).items()}
    variables["measured"] = (_DIMS, np.zeros(shape, bool))
    texts: dict[str, dict[str, str]] = {}
    for cell in cells:
        place = places[_place(cell)]
        label = f"{cell.step}/{cell.restriction}/{cell.subloss}"
        if cell.error is not None:
            texts.setdefault("errors", {})[label] = cell.error
        for name, value in (cell.reading or {}).items():
            if value.dtype.kind == "U":
                if value.ndim:
                    coords[name] = value.tolist()
                else:
                    texts.setdefault(f"{name}s", {})[label] = str(value)
                continue
            variables[name][1][(*place, *map(slice, np.shape(value)))] = value
            variables["measured"][1][place] = True
    if exact and probe == EXACT_PROBE:
        variables["exact"] = _empty("exact", np.zeros(()), shape, ())
        for cell in cells:
            if cell.restriction == "full" and cell.subloss == "all" and cell.step in exact:
                variables["exact"][1][places[_place(cell)]] = float(exact[cell.step].learning_coefficient)
    attributes = {name: json.dumps(table, sort_keys=True) for name, table in texts.items()}
    return xr.Dataset(variables, coords={**coords}, attrs=attributes)


def _place(cell: Cell) -> Cell:
    return cell._replace(reading=None, error=None)


def _widest(cells: Sequence[Cell]) -> dict[str, np.ndarray]:
    """For each array an empty one of its type, as long as the longest of any reading."""
    found: dict[str, np.ndarray] = {}
    for cell in cells:
        for name, value in (cell.reading or {}).items():
            if value.dtype.kind != "U":
                known = found.get(name, value)
                found[name] = np.empty(np.maximum(np.shape(known), np.shape(value)).astype(int), known.dtype)
    return found


def _empty(name: str, like: np.ndarray, shape: tuple[int, ...], dims: tuple[str, ...] | None) -> tuple[Any, Any]:
    """Dims and array of one variable: false or NaN, where nothing was measured it stays so."""
    empty: Any = False if like.dtype == bool else np.nan
    dtype = like.dtype if like.dtype.kind in "bf" else np.float64
    extra = tuple(_extra_dim(name, axis) for axis in range(like.ndim)) if dims is None else dims
    return (*_DIMS, *extra), np.full((*shape, *like.shape), empty, dtype)


def _extra_dim(name: str, axis: int) -> str:
    return "chain" if axis == 0 else f"{name}_point"


def _table_of(dataset: xr.Dataset, variable: str, dim: str) -> dict[str, np.ndarray]:
    return {str(name): dataset[variable].sel({dim: name}).values for name in dataset[dim].values}


def _columns(table: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
    return np.stack(list(table.values()), axis=1) if table else np.zeros((rows, 0))


def write_store(target: Path, write: Callable[[Path], Any]) -> None:
    """Write beside the target, then swap: a reader never sees half a store, and a failure leaves nothing behind."""
    scratch, old = (target.with_name(f".{uuid.uuid4().hex}.{kind}") for kind in ("zarr", "old"))
    try:
        write(scratch)
        if target.exists():
            os.replace(target, old)
        os.replace(scratch, target)
    finally:
        for rest in (scratch, old):
            shutil.rmtree(rest, ignore_errors=True)
