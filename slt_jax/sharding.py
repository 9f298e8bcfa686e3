"""Where things are on a mesh of devices: chains, temperatures, components, examples and parameters on named axes.

One program serves all layouts. Every function of this package asks the mesh that is set (``jax.set_mesh``) where to
put what it vmaps over; with no mesh, or an axis of size 1, nothing is said and nothing changes.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from slt_jax.types import PyTree

CHAINS, TEMPERATURES, COMPONENTS, BATCH, PARAMETERS = "chains", "temperatures", "components", "batch", "parameters"
#: Leaves of fewer entries, and vectors, are whole on every device: to exchange them would cost more than to keep them.
LEAST = 1024


def mesh(
    *,
    chains: int | None = None,
    temperatures: int = 1,
    components: int = 1,
    batch: int = 1,
    parameters: int = 1,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """Devices as a grid with named axes, to be set by ``with jax.set_mesh(mesh):``.

    Args:
      chains: Devices along which chains are spread; default all that the other axes leave.
      temperatures: The same for the replicas of ``flow`` and ``density_of_states``.
      components: For the components of ``susceptibility`` that are measured side by side.
      batch: For the examples of a step.
      parameters: For the entries of every matrix of the parameters, and all that a chain keeps of their shape.
      devices: Default ``jax.devices()``, those of all processes.

    Returns:
      A mesh of automatic axes: the compiler places what is not said.

    Raises:
      ValueError: the sizes do not multiply to the number of devices.

    Source: Xu et al. 2021, arXiv:2105.04663 (GSPMD: one program, partitioned by annotations).

    >>> mesh(devices=jax.devices()[:1]).axis_names
    ('chains', 'temperatures', 'components', 'batch', 'parameters')
    """
    found = np.array(jax.devices() if devices is None else list(devices))
    others = dict(temperatures=temperatures, components=components, batch=batch, parameters=parameters)
    sizes = {CHAINS: chains, **others}
    for name, size in sizes.items():
        if size is not None and (isinstance(size, bool) or not hasattr(size, "__index__") or size < 1):
            raise ValueError(f"{name}: got {size!r}; pass a number of devices, at least 1.")
    rest = math.prod(others.values())
    chains = max(found.size // rest, 1) if chains is None else chains
    if chains * rest != found.size:
        raise ValueError(
            f"{', '.join(f'{name}={size}' for name, size in {**sizes, CHAINS: chains}.items())}: they multiply to "
            f"{chains * rest}, and there are {found.size} devices. Pass sizes that multiply to it, or fewer devices."
        )
    shape = (chains, *others.values())
    return Mesh(found.reshape(shape), (CHAINS, *others), axis_types=(AxisType.Auto,) * len(shape))


def size_of(axis: str) -> int:
    """Devices along an axis of the mesh that is set; 1 where there is none.

    >>> size_of("chains")
    1
    """
    around = jax.sharding.get_abstract_mesh()
    return 1 if around.empty else dict(around.shape).get(axis, 1)


def splits_parameters() -> bool:
    """Whether the mesh that is set has parameters in pieces: nothing of their shape may be made in one piece then."""
    return size_of(PARAMETERS) > 1


def spread(values: PyTree, *axes: str | None) -> PyTree:
    """The same tree, with the leading axes of each leaf along the named axes of the mesh.

    Args:
      values: A tree of arrays.
      axes: For each leading axis a name, or ``None``. What the mesh does not have or cannot divide evenly is left to
        the compiler.

    >>> spread(np.zeros((4, 2)), "chains").shape
    (4, 2)
    """
    return _placed(values, lambda shape: [*axes[: len(shape)], *[None] * (len(shape) - len(axes))], axes)


def split(values: PyTree, *axes: str | None) -> PyTree:
    """As ``spread``, with the other axes of each leaf cut along ``parameters`` (fully sharded): matrices only.

    The longest axis is cut, of equals the last: products are then sums of parts or products of columns, of which
    activations are exchanged and never a matrix.

    >>> split({"w": np.zeros((64, 64))})["w"].shape
    (64, 64)
    """

    def place(shape: tuple[int, ...]) -> list[str | None]:
        rest: list[str | None] = [None] * len(shape[len(axes) :])
        at = split_axis(shape[len(axes) :])
        if at is not None:
            rest[at] = PARAMETERS
        return [*axes[: len(shape)], *rest]

    return _placed(values, place, (*axes, PARAMETERS))


def split_axis(shape: tuple[int, ...]) -> int | None:
    """Which axis of a leaf of the parameters is cut on the mesh that is set; ``None`` where the leaf is whole."""
    pieces = size_of(PARAMETERS)
    whole = pieces == 1 or len(shape) < 2 or math.prod(shape) < LEAST
    possible = [] if whole else [(size, at) for at, size in enumerate(shape) if size % pieces == 0]
    return max(possible)[1] if possible else None


def check_chains(chains: int) -> None:
    """Refuse chains that the mesh which is set cannot hold evenly.

    Raises:
      ValueError: naming their number and that of the devices.
    """
    devices = size_of(CHAINS)
    if chains % devices:
        raise ValueError(
            f"chains: got {chains} on a mesh with {devices} devices along 'chains'; pass a multiple of {devices}, or "
            "set a mesh with fewer."
        )


def _placed(values: PyTree, place: Any, axes: Sequence[str | None]) -> PyTree:
    around = jax.sharding.get_abstract_mesh()
    if around.empty or all(axis is None or size_of(axis) == 1 for axis in axes):
        return values
    sizes = dict(around.shape)
    # an axis that is not ours may hold what the user has cut in another way
    free = None if set(sizes) <= {CHAINS, TEMPERATURES, COMPONENTS, BATCH, PARAMETERS} else PartitionSpec.UNCONSTRAINED

    def one(leaf: Any) -> Any:
        shape = np.shape(leaf)
        names = [
            name if name is not None and sizes.get(name, 1) > 1 and length % sizes[name] == 0 else free
            for name, length in zip(place(shape), shape, strict=True)
        ]
        spec = PartitionSpec(*names)
        if isinstance(leaf, jax.core.Tracer):
            return jax.lax.with_sharding_constraint(leaf, spec)
        fixed = PartitionSpec(*(None if name is PartitionSpec.UNCONSTRAINED else name for name in spec))
        return jax.device_put(leaf, NamedSharding(jax.sharding.get_mesh(), fixed))

    return jax.tree.map(one, values)
