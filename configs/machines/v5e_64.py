"""64 chips of TPU v5e, a slice of 8 x 8: 16 hosts of 4."""

from ml_collections import ConfigDict

from configs.machines import base


def get_config() -> ConfigDict:
    """Returns the machine; each quarter of the slice holds a replica of all parameters."""
    return base.tpu(
        "v5e_64",
        base.V5E,
        topology="v5e:8x8",
        chips=64,
        wraps=False,
        fsdp=16,
        pairs_per_chip=128,
        remat=True,
    )
