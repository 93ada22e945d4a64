"""Builds a mesh with named axes from the available devices."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from prior_jax.errors import ConfigError, check_field
from prior_jax.types import BatchPart

SLICE_AXIS = "dcn"
"""Name of the mesh axis over slices: groups of devices with a fast network of their own, which are
connected by the data centre's network. On devices of one slice it is an ordinary axis."""

# The kinds of TPU whose physical axes `jax.make_mesh` splits where a mesh needs it.
_SPLIT = ("TPU v5 lite", "TPU v5e")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """The named axes that the devices are laid out on.

    Attributes:
      axes: axis name -> size, slowest axis first; one size may be -1, which stands for all the
        remaining devices. `{"data": -1}` is plain data parallelism on any number of devices. On
        devices of several slices the size of the axis `SLICE_AXIS` is their number.
      data_axes: axes over which the rows of a batch are split, in this order.
      bank_axis: axis over which the prototype bank is sharded, or None to replicate it.
      rules: (pattern of a parameter's path, axis or None for each leading dimension), tried in
        order after the bank's own rule; () leaves all arrays to `fsdp_axis`.
      fsdp_axis: axis (or axes) over which large parameters and their moments are sharded by the
        rules of `sharding/fsdp.py`, tried after `rules`; None replicates them.
    """

    axes: Mapping[str, int]
    data_axes: tuple[str, ...]
    bank_axis: str | None = None
    rules: tuple[tuple[str, tuple[str | tuple[str, ...] | None, ...]], ...] = ()
    fsdp_axis: str | tuple[str, ...] | None = None

    def __post_init__(self):
        """Refuses sizes and names that no set of devices could satisfy."""
        object.__setattr__(self, "axes", dict(self.axes))
        object.__setattr__(self, "data_axes", tuple(self.data_axes))
        names = ", ".join(map(repr, self.axes))
        known = self.bank_axis is None or self.bank_axis in self.axes
        check_field(self, "bank_axis", known, f"None or one of the mesh axes {names}")
        check_field(self, "axes", bool(self.axes), "a section with at least one axis")
        for name, size in self.axes.items():
            if size != -1 and size < 1:
                raise ConfigError.of_value(f"axes.{name}", size, "a positive size, or -1")
        free = list(self.axes.values()).count(-1)
        check_field(self, "axes", free <= 1, "axes of which at most one has the size -1")
        known = set(self.data_axes) <= set(self.axes)
        distinct = len(set(self.data_axes)) == len(self.data_axes)
        must_be = f"distinct names of the mesh axes {names}"
        check_field(self, "data_axes", known and distinct, must_be)


def make_mesh(axes: Mapping[str, int], *, devices: Sequence[Any] | None = None) -> Mesh:
    """Lays the devices out on named axes.

    The axes are of type Auto: the compiler chooses the collectives, so that a loss over the
    global batch is written as if on one device (with JAX's default, Explicit, the product of a
    batch-sharded matrix with another's transpose is refused).

    Args:
      axes: axis name -> size, as `MeshConfig.axes`.
      devices: devices to use; by default all devices of all processes.

    Returns:
      A mesh that holds every one of the devices.

    Raises:
      ConfigError: if the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = _sizes(axes, devices=len(devices))
    kinds = (AxisType.Auto,) * len(sizes)
    slices = {getattr(device, "slice_index", 0) for device in devices}
    if len(slices) > 1:
        return Mesh(_across_slices(devices, sizes, slices=len(slices)), tuple(sizes), kinds)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), devices=devices, axis_types=kinds)


def abstract_mesh(axes: Mapping[str, int], *, devices: int) -> AbstractMesh:
    """Returns the mesh of devices that are not there, to check sizes with.

    Args:
      axes: axis name -> size, as `MeshConfig.axes`.
      devices: number of devices.

    Raises:
      ConfigError: if the sizes do not multiply to the number of devices.
    """
    sizes = _sizes(axes, devices=devices)
    return AbstractMesh(tuple(sizes.values()), tuple(sizes), (AxisType.Auto,) * len(sizes))


def _sizes(axes: Mapping[str, int], *, devices: int) -> dict[str, int]:
    """Returns the sizes of the axes, with the devices that the others leave in place of -1."""
    known = math.prod(size for size in axes.values() if size != -1)
    free = -1 in axes.values()
    if devices % known or (not free and known != devices):
        raise ConfigError(
            f"The axes {dict(axes)} do not fit the {devices} devices of this run.",
            "Give sizes whose product is the number of devices; one size may be -1, which takes "
            "the devices that the others leave.",
            where="config.mesh.axes",
        )
    return {name: devices // known if size == -1 else size for name, size in axes.items()}


def _across_slices(devices: list[Any], sizes: Mapping[str, int], *, slices: int) -> np.ndarray:
    """Lays out devices of several slices so that only the axis "dcn" crosses the slower network.

    JAX counts GPU hosts as slices too, but a mesh without that axis may have them in any order.
    """
    if SLICE_AXIS not in sizes and devices[0].platform != "tpu":
        return mesh_utils.create_device_mesh(tuple(sizes.values()), devices)
    if sizes.get(SLICE_AXIS) != slices:
        raise ConfigError(
            f"The devices lie in {slices} slices, and the axes are {dict(sizes)}.",
            f"Give the axis {SLICE_AXIS!r} the size {slices}.",
            where="config.mesh.axes",
        )
    return mesh_utils.create_hybrid_device_mesh(
        tuple(1 if name == SLICE_AXIS else size for name, size in sizes.items()),
        tuple(size if name == SLICE_AXIS else 1 for name, size in sizes.items()),
        devices=devices,
        allow_split_physical_axes=devices[0].device_kind in _SPLIT,
    )


def batch_sharding(mesh: Mesh | AbstractMesh, data_axes: Sequence[str]) -> NamedSharding:
    """Returns the sharding of every array of a batch: its leading axis split over the data axes.

    Args:
      mesh: mesh from `make_mesh` or `abstract_mesh`.
      data_axes: names of axes of the mesh; none means that every device holds the whole batch.

    Returns:
      A sharding that fits arrays of any rank >= 1.
    """
    return NamedSharding(mesh, PartitionSpec(tuple(data_axes)) if data_axes else PartitionSpec())


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that keeps a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def process_part(mesh: Mesh, data_axes: Sequence[str]) -> BatchPart:
    """Returns the part of each global batch that this process has to load.

    On a TPU the devices of a host are a tile of chips, whose blocks of a batch need not follow each
    other. Processes that differ only in another axis load the same rows.

    Args:
      mesh: mesh from `make_mesh`.
      data_axes: names of axes of the mesh.
    """
    sharding = batch_sharding(mesh, data_axes)
    count = int(np.prod([mesh.shape[name] for name in data_axes], dtype=np.int64))
    mine: set[int] = set()
    places = sharding.addressable_devices_indices_map((count,)).values()
    for (index,) in cast(Iterable[tuple[slice]], places):
        mine.update(range(*index.indices(count)))
    return BatchPart(blocks=tuple(sorted(mine)), count=count)


def check_batch_size(
    batch_size: int, *, mesh: Mesh | AbstractMesh, data_axes: Sequence[str]
) -> None:
    """Refuses a global batch that does not divide evenly over the data axes.

    Args:
      batch_size: rows of the global batch.
      mesh: mesh from `make_mesh` or `abstract_mesh`.
      data_axes: names of axes of the mesh.

    Raises:
      ConfigError: if the rows do not divide evenly.
    """
    shards = int(np.prod([mesh.shape[name] for name in data_axes], dtype=np.int64))
    if batch_size < 1 or batch_size % shards:
        raise ConfigError.of_value(
            "config.data.batch_size",
            batch_size,
            f"a positive multiple of {shards}, the product of the sizes of the mesh axes "
            f"{', '.join(data_axes) or '()'}",
        )


def is_simulated(mesh: Mesh) -> bool:
    """Returns True if the mesh holds several CPU devices of one process.

    Such devices share the machine's cores. If several steps are in flight at once, their
    collectives can wait for each other forever, so callers block after each step.
    """
    local = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    return mesh.size > 1 and local[0].platform == "cpu"
