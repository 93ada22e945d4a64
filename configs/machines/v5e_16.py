"""16 chips of TPU v5e, a slice of 4 x 4: 4 hosts of 4."""

from ml_collections import ConfigDict

from configs.machines import base


def get_config() -> ConfigDict:
    """Returns the machine; parameters are sharded over all chips."""
    return base.tpu(
        "v5e_16",
        base.V5E,
        topology="v5e:4x4",
        chips=16,
        wraps=False,
        fsdp=16,
        pairs_per_chip=128,
        remat=True,
    )
