"""TPU v5p-128: 128 cores, which are 64 chips, a cube of 4 x 4 x 4: 16 hosts of 4."""

from ml_collections import ConfigDict

from configs.machines import base


def get_config() -> ConfigDict:
    """Returns the machine; each chip has room for all parameters and activations."""
    return base.tpu(
        "v5p_128",
        base.V5P,
        topology="v5p:4x4x4",
        chips=64,
        wraps=True,
        pairs_per_chip=128,
    )
