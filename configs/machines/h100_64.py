"""Eight hosts of eight H100; the mesh axis "dcn" runs over the hosts."""

from ml_collections import ConfigDict

from configs.machines import base


def get_config() -> ConfigDict:
    """Returns the machine; each GPU has room for all parameters."""
    return base.machine(
        "h100_64",
        base.H100,
        platform="gpu",
        processes=8,
        local_devices=8,
        slices=8,
        pairs_per_chip=128,
        environment=base.GPU_ENVIRONMENT,
    )
