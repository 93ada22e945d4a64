"""Nodes of eight GPUs under Slurm, with one process for each GPU."""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """Returns one node, with the cluster's default partition and the user's default account."""
    return ConfigDict(
        dict(
            kind="slurm",
            nodes=1,
            gpus=8,
            cpus=12,
            time="1-00:00:00",
            partition=config_dict.placeholder(str),
            account=config_dict.placeholder(str),
            options=("--exclusive",),
        )
    )
