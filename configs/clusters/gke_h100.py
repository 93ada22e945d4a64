"""Nodes of eight H100 under GKE, with one process on each node."""

from ml_collections import ConfigDict

from configs.clusters import gke_tpu_v5e


def get_config() -> ConfigDict:
    """Returns two nodes of 8 GPUs."""
    config = gke_tpu_v5e.get_config()
    config.update(dict(device="gpu", accelerator="nvidia-h100-80gb", hosts=2, chips=8))
    config.topology = None
    return config
