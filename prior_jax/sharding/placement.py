"""Where the arrays of a run lie: its mesh, and the rules that place each array on it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from prior_jax.sharding.fsdp import fsdp_rules
from prior_jax.sharding.mesh import MeshConfig, make_mesh
from prior_jax.sharding.rules import REPLICATED, Rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """Where arrays lie.

    Attributes:
      mesh: the devices on named axes.
      data_axes: axes over which the rows of a batch are split.
      bank_axis: axis of the prototype bank, or None.
      rules: which part of each array of the state lies on which device.
    """

    mesh: Mesh
    data_axes: tuple[str, ...]
    bank_axis: str | None
    rules: tuple[Rule, ...]

    @property
    def batch_axis(self) -> tuple[str, ...] | None:
        """The axes over which a batch is really split, None where one device has it all."""
        return self.data_axes if self.mesh.size > 1 and self.data_axes else None


def placement(config: MeshConfig, *, devices: Sequence[Any] | None = None) -> Placement:
    """Lays the devices out and puts the rules in order.

    Args:
      config: axes and rules.
      devices: those to use; by default all devices of all processes.

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
        mesh=make_mesh(config, devices=devices),
        data_axes=config.data_axes,
        bank_axis=config.bank_axis,
        rules=rules,
    )
