"""One CPU; with --machine.local_devices=8 it simulates eight devices."""

from ml_collections import ConfigDict

from configs.machines import base


def get_config() -> ConfigDict:
    """Returns the machine."""
    return base.machine(
        "cpu", base.CPU, platform="cpu", processes=1, local_devices=1, pairs_per_chip=8
    )
