"""Where the interface's models lie."""

import jax

from prior_jax.sharding.mesh import MeshConfig
from prior_jax.sharding.placement import Placement, placement


def one_device() -> Placement:
    """The first device of this process, for every array."""
    config = MeshConfig(axes={"data": 1}, data_axes=("data",))
    return placement(config, devices=jax.local_devices()[:1])
