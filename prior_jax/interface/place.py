"""Placement of the interface's models on devices."""

import jax

from prior_jax.sharding.mesh import MeshConfig
from prior_jax.sharding.placement import Placement, placement


def one_device() -> Placement:
    """Returns a placement of every array on the first device of this process."""
    config = MeshConfig(axes={"data": 1}, data_axes=("data",))
    return placement(config, devices=jax.local_devices()[:1])
