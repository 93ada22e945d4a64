"""256 chips of TPU v6e, a whole pod of 16 x 16: 64 hosts of 4."""

from ml_collections import ConfigDict

from configs.machines import base


def get_config() -> ConfigDict:
    """Returns the machine; each row of the pod holds a replica of all parameters."""
    return base.tpu(
        "v6e_256",
        base.V6E,
        topology="v6e:16x16",
        chips=256,
        wraps=True,
        fsdp=16,
        pairs_per_chip=128,
        remat=True,
    )
