"""One GPU; the figures are those of an H100."""

from ml_collections import ConfigDict

from configs.machines import base


def get_config() -> ConfigDict:
    """Returns the machine. For a GPU with less memory, see --machine.remat.image=block."""
    return base.machine(
        "gpu_1",
        base.H100,
        platform="gpu",
        processes=1,
        local_devices=1,
        pairs_per_chip=128,
        environment=base.GPU_ENVIRONMENT,
    )
