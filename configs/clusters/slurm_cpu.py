"""Nodes without GPUs under Slurm, with one process on each node."""

from ml_collections import ConfigDict

from configs.clusters import slurm_gpu


def get_config() -> ConfigDict:
    """Returns one node."""
    config = slurm_gpu.get_config()
    config.update(dict(gpus=0, cpus=16, options=()))
    return config
