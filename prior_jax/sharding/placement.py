"""Placement of a run's arrays: its mesh, and the rules that shard each array over it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from prior_jax.sharding.fsdp import fsdp_rules
from prior_jax.sharding.mesh import MeshConfig, batch_sharding, make_mesh, replicated
from prior_jax.sharding.rules import REPLICATED, Rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """Mesh and sharding rules of a run.

    Attributes:
      mesh: mesh of the devices on named axes.
      data_axes: axes over which the rows of a batch are split.
      bank_axis: axis over which the prototype bank is sharded, or None.
      rules: sharding rules for the arrays of the state.
    """

    mesh: Mesh
    data_axes: tuple[str, ...]
    bank_axis: str | None
    rules: tuple[Rule, ...]

    @property
    def batch_axis(self) -> tuple[str, ...] | None:
        """Returns the axes over which a batch is split, or None where one device holds it all."""
        return self.data_axes if self.mesh.size > 1 and self.data_axes else None

    def put(self, tree: Any) -> Any:
        """Puts host arrays, equal in every process, on the devices; shards rows if they divide."""
        sharded = batch_sharding(self.mesh, self.data_axes)
        whole = replicated(self.mesh)
        shards = math.prod(self.mesh.shape[axis] for axis in self.data_axes)

        def one(x):
            x = np.asarray(x)
            sharding = sharded if x.ndim and x.shape[0] % shards == 0 else whole
            return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

        return jax.tree.map(one, tree)

    def put_whole(self, tree: Any) -> Any:
        """Puts host arrays, equal in every process, whole on each of the devices."""
        return jax.device_put(tree, replicated(self.mesh))


def to_device(tree: Any) -> Any:
    """Puts a tree of host arrays on the default device, not bound to it by a sharding."""
    return jax.device_put(tree)


def placement(config: MeshConfig, *, devices: Sequence[Any] | None = None) -> Placement:
    """Lays the devices out on a mesh and puts the rules in order.

    Args:
      config: axes and rules.
      devices: devices to use; by default all devices of all processes.

    Raises:
      ConfigError: if the sizes of the axes do not multiply to the number of devices.
    """
    rules = tuple(Rule(pattern, spec) for pattern, spec in config.rules)
    if config.fsdp_axis is not None:
        rules += fsdp_rules(config.fsdp_axis)
    rules = rules or REPLICATED
    if config.bank_axis is not None:
        rules = (Rule("sentence_bank/.*", (config.bank_axis,)), *rules)
    return Placement(
        mesh=make_mesh(config.axes, devices=devices),
        data_axes=config.data_axes,
        bank_axis=config.bank_axis,
        rules=rules,
    )
