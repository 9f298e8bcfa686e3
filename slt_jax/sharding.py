"""Where things are on a mesh of devices: chains, temperatures, components, examples and parameters on named axes.

One program serves all layouts. Every function of this package asks the mesh that is set (``jax.set_mesh``) where to
put what it vmaps over; with no mesh, or an axis of size 1, nothing is said and nothing changes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from slt_jax.types import PyTree

CHAINS, TEMPERATURES, COMPONENTS, BATCH, PARAMETERS = "chains", "temperatures", "components", "batch", "parameters"
AXES = (CHAINS, TEMPERATURES, COMPONENTS, BATCH, PARAMETERS)
#: Along what an axis of an array lies.
Axes: TypeAlias = str | tuple[str, ...] | None
#: Leaves of fewer entries, and vectors, are whole on every device: to exchange them would cost more than to keep them.
LEAST = 1024


def mesh(
    *,
    chains: int | None = None,
    temperatures: int | None = None,
    components: int | None = None,
    batch: int | None = None,
    parameters: int | None = None,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """Devices as a grid with named axes, to be set by ``with jax.set_mesh(mesh):``.

    Args:
      chains: Devices along which chains are spread; default all that the other axes leave.
      temperatures: The same for the replicas of ``flow`` and ``density_of_states``.
      components: For the components of ``susceptibility`` that are measured side by side.
      batch: For the examples of a step.
      parameters: For the entries of every matrix of the parameters, and all that a chain keeps of their shape. Where
        it is given, also as 1, the noise of a chain is drawn leaf by leaf, so that it is the same on any number of
        devices; other numbers, of the same law, than those that are drawn where it is not.
      devices: Default ``jax.devices()``, those of all processes.

    Returns:
      A mesh of automatic axes, those that were named and ``chains``: the compiler places what is not said.

    Raises:
      ValueError: the sizes do not multiply to the number of devices.

    Source: Xu et al. 2021, arXiv:2105.04663 (GSPMD: one program, partitioned by annotations).

    >>> dict(mesh(parameters=1, devices=jax.devices()[:1]).shape)
    {'chains': 1, 'parameters': 1}
    """
    found = np.array(jax.devices() if devices is None else list(devices))
    asked = dict(temperatures=temperatures, components=components, batch=batch, parameters=parameters)
    others = {name: size for name, size in asked.items() if size is not None}
    for name, size in {CHAINS: 1 if chains is None else chains, **others}.items():
        if isinstance(size, bool) or not hasattr(size, "__index__") or size < 1:
            raise ValueError(f"{name}: got {size!r}; pass a number of devices, at least 1.")
    rest = math.prod(others.values())
    sizes = {CHAINS: max(found.size // rest, 1) if chains is None else chains, **others}
    if math.prod(sizes.values()) != found.size:
        raise ValueError(
            f"{', '.join(f'{name}={size}' for name, size in sizes.items())}: they multiply to "
            f"{math.prod(sizes.values())}, and there are {found.size} devices. Pass sizes that multiply to it, or "
            "fewer devices."
        )
    return Mesh(found.reshape(tuple(sizes.values())), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def size_of(axis: str) -> int:
    """Devices along an axis of the mesh that is set; 1 where there is none.

    >>> size_of("chains")
    1
    """
    around = jax.sharding.get_abstract_mesh()
    return 1 if around.empty else dict(around.shape).get(axis, 1)


def splits_parameters() -> bool:
    """Whether the mesh that is set is for parameters in pieces: nothing of their shape may be made whole then."""
    return PARAMETERS in jax.sharding.get_abstract_mesh().axis_names


def spread(values: PyTree, *axes: Axes) -> PyTree:
    """The same tree, with the leading axes of each leaf along the named axes of the mesh.

    Args:
      values: A tree of arrays. Traced ones are constrained; those of the host are put on all devices of the mesh.
      axes: For each leading axis a name, several, or ``None``. What the mesh cannot divide evenly is left to the
        compiler.

    >>> spread(np.zeros((4, 2)), "chains").shape
    (4, 2)
    """
    return _placed(values, lambda shape: [*axes[: len(shape)], *[None] * (len(shape) - len(axes))], axes)


def split(values: PyTree, *axes: Axes) -> PyTree:
    """As ``spread``, with the other axes of each leaf cut along ``parameters`` (fully sharded): matrices only.

    The longest axis is cut, of equals the last: products are then sums of parts or products of columns, of which
    activations are exchanged and never a matrix.

    >>> split({"w": np.zeros((64, 64))})["w"].shape
    (64, 64)
    """

    def place(shape: tuple[int, ...]) -> list[Axes]:
        rest: list[Axes] = [None] * len(shape[len(axes) :])
        at = split_axis(shape[len(axes) :])
        if at is not None:
            rest[at] = PARAMETERS
        return [*axes[: len(shape)], *rest]

    return _placed(values, place, (*axes, PARAMETERS))


def whole(values: PyTree) -> PyTree:
    """The same tree, each leaf in one piece on every device."""
    around = jax.sharding.get_abstract_mesh()
    if around.empty or around.size == 1:
        return values
    return jax.tree.map(lambda leaf: _put(leaf, PartitionSpec()), values)


def visible(values: PyTree) -> PyTree:
    """The same tree, so that the host can look at it: in pieces in one process, whole where there are several."""
    return values if jax.process_count() == 1 else whole(values)


def split_axis(shape: tuple[int, ...]) -> int | None:
    """Which axis of a leaf of the parameters is cut on the mesh that is set; ``None`` where the leaf is whole."""
    pieces = size_of(PARAMETERS)
    uncut = pieces == 1 or len(shape) < 2 or math.prod(shape) < LEAST
    possible = [] if uncut else [(size, at) for at, size in enumerate(shape) if size % pieces == 0]
    return max(possible)[1] if possible else None


def check_chains(chains: int, groups: int = 1) -> None:
    """Refuse chains that the mesh which is set cannot hold evenly; one chain may be copied to all of its devices.

    Args:
      chains: Their number.
      groups: Groups of equal size that they are cut into, each to be spread by itself.

    Raises:
      ValueError: naming their number and that of the devices.
    """
    devices = size_of(CHAINS)
    if chains > 1 and chains % (groups * devices):
        raise ValueError(
            f"chains: got {chains} on a mesh with {devices} devices along 'chains'; pass a multiple of "
            f"{groups * devices}, or set a mesh with fewer."
        )


def _placed(values: PyTree, place: Callable[[tuple[int, ...]], list[Axes]], axes: Sequence[Axes]) -> PyTree:
    around = jax.sharding.get_abstract_mesh()
    if around.empty or around.size == 1:
        return values
    nothing = all(_devices(axis) == 1 for axis in axes)
    # an axis that is not ours may hold what the user has cut in another way
    rest = None if set(around.axis_names) <= set(AXES) else PartitionSpec.UNCONSTRAINED

    def one(leaf: Any) -> Any:
        shape = np.shape(leaf)
        if nothing and isinstance(leaf, jax.core.Tracer):
            return leaf
        names = []
        for name, length in zip(place(shape), shape, strict=True):
            fits = length % _devices(name) == 0
            names.append(rest if _devices(name) == 1 else name if fits else PartitionSpec.UNCONSTRAINED)
        return _put(leaf, PartitionSpec(*names))

    return jax.tree.map(one, values)


def _put(leaf: Any, spec: PartitionSpec) -> Any:
    if isinstance(leaf, jax.core.Tracer):
        return jax.lax.with_sharding_constraint(leaf, spec)
    if not isinstance(leaf, jax.Array | np.ndarray):
        return leaf
    fixed = PartitionSpec(*(None if name is PartitionSpec.UNCONSTRAINED else name for name in spec))
    place = NamedSharding(jax.sharding.get_mesh(), fixed)
    if jax.process_count() == 1 or not isinstance(leaf, jax.Array) or not leaf.is_fully_addressable:
        return jax.device_put(leaf, place)
    # what a single process holds is the same in all of them, and goes to devices of all through the host
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        words = jax.device_put(np.asarray(jax.random.key_data(leaf)), NamedSharding(place.mesh, PartitionSpec()))
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
    return jax.device_put(np.asarray(leaf), place)


def _devices(axis: Axes) -> int:
    names = (axis,) if axis is None or isinstance(axis, str) else axis
    return math.prod(1 if name is None else size_of(name) for name in names)
