"""Where the interface's models lie."""

import jax

from prior_jax.assemble_objectives import Placement
from prior_jax.sharding import mesh as mesh_lib
from prior_jax.sharding.rules import REPLICATED


def one_device() -> Placement:
    """The first device of this process, for every array."""
    axes = mesh_lib.MeshConfig(axes={"data": 1}, data_axes=("data",))
    return Placement(
        mesh=mesh_lib.make_mesh(axes, devices=jax.local_devices()[:1]),
        data_axes=axes.data_axes,
        bank_axis=None,
        rules=REPLICATED,
    )
