"""Where transitions live, as labelled arrays: xarray in memory, Zarr on disk."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from slt_jax.spectroscopy.locality import Locality
from slt_jax.spectroscopy.transitions import Transition
from slt_jax.storage.datasets import ZARR_FORMAT, write_store

LOCALITY = "locality.zarr"
_OWN = (("share", "shares"), ("share_error", "share_errors"))
_NULL = (("null_share", "null_shares"), ("null_spread", "null_spreads"))


def write_transitions(folder: Path, found: Sequence[Transition], mark: str = "") -> None:
    """Write ``locality.zarr``, replacing an older one only when the new one is whole.

    ``share`` and ``share_error`` on dims (transition, subloss, kind, count), ``null_share`` and ``null_spread`` on
    (transition, subloss, null, count), ``gain`` and ``gain_error`` in nats on (transition, subloss); NaN where a
    subloss did not gain or a kind has fewer directions. ``before``, ``after`` and ``checkpoints`` on (transition).

    Args:
      folder: The study's folder.
      found: All transitions; none makes a store with none.
      mark: What they depend on, for ``read_transitions``.
    """
    known = [(at, one.locality) for at, one in enumerate(found) if one.locality is not None]
    names = {
        dim: list(dict.fromkeys(name for _, one in known for name in getattr(one, field)))
        for dim, field in (("subloss", "sublosses"), ("kind", "kinds"), ("null", "nulls"))
    }
    counts = np.unique([count for _, one in known for count in one.counts.tolist()]).astype(int)
    length = {**{dim: len(table) for dim, table in names.items()}, "count": len(counts), "transition": len(found)}
    variables: dict[str, Any] = {
        name: (dims, np.full([length[dim] for dim in dims], np.nan))
        for dims, table in (
            (("transition", "subloss", "kind", "count"), _OWN),
            (("transition", "subloss", "null", "count"), _NULL),
            (("transition", "subloss"), (("gain", ""), ("gain_error", ""))),
        )
        for name, _ in table
    }
    for at, one in known:
        rows = np.array([names["subloss"].index(name) for name in one.sublosses])
        columns = np.searchsorted(counts, one.counts)
        for table, own, dim in ((_OWN, one.kinds, "kind"), (_NULL, one.nulls, "null")):
            middle = np.array([names[dim].index(name) for name in own], int)
            for name, field in table:
                variables[name][1][at][np.ix_(rows, middle, columns)] = getattr(one, field)
        variables["gain"][1][at, rows], variables["gain_error"][1][at, rows] = one.gains, one.gain_errors
    for name in ("before", "after", "checkpoints"):
        variables[name] = ("transition", np.array([getattr(one, name) for one in found], int))
    dataset = xr.Dataset(
        variables,
        coords={
            "transition": np.array([one.step for one in found], int),
            "count": counts,
            **{dim: np.array(table, dtype=str) for dim, table in names.items()},
        },
        attrs={
            "dimension": known[0][1].dimension if known else 0,
            "mark": mark,
            "reasons": json.dumps([one.reason for one in found]),
        },
    )
    write_store(folder / LOCALITY, lambda path: dataset.to_zarr(path, mode="w", zarr_format=ZARR_FORMAT))


def read_transitions(folder: Path, mark: str | None = None) -> list[Transition] | None:
    """The transitions in a folder, or ``None`` where there are none, or where they are not those of ``mark``."""
    if not (folder / LOCALITY).exists():
        return None
    with xr.open_zarr(folder / LOCALITY, consolidated=True) as lazy:
        dataset = lazy.load()
    if mark is not None and dataset.attrs.get("mark") != mark:
        return None
    reasons = json.loads(dataset.attrs.get("reasons", "[]"))
    found = []
    for at, step in enumerate(dataset["transition"].values.tolist()):
        one = dataset.isel(transition=at)
        ends = {name: int(one[name]) for name in ("before", "after", "checkpoints")}
        found.append(Transition(step, **ends, locality=_locality(one, dataset), reason=str(reasons[at])))
    return found


def _locality(one: xr.Dataset, dataset: xr.Dataset) -> Locality | None:
    """The shares of one transition, without the sublosses and kinds that it does not have."""
    gained = np.isfinite(one["gain"].values)
    if not gained.any():
        return None
    there = np.isfinite(one["share"].values[gained]).any(axis=(0, 2))
    drawn = np.isfinite(one["null_share"].values[gained]).any(axis=(0, 2))
    arrays = {field: one[name].values[gained][:, there] for name, field in _OWN}
    arrays |= {field: one[name].values[gained][:, drawn] for name, field in _NULL}
    return Locality(
        sublosses=tuple(map(str, one["subloss"].values[gained])),
        kinds=tuple(map(str, one["kind"].values[there])),
        nulls=tuple(map(str, one["null"].values[drawn])),
        counts=one["count"].values,
        dimension=int(dataset.attrs["dimension"]),
        gains=one["gain"].values[gained],
        gain_errors=one["gain_error"].values[gained],
        **arrays,
    )
