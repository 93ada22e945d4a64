"""Nodes of eight GPUs under Slurm; a process for each GPU."""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """Returns one node; partition and account are the cluster's and the user's defaults."""
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
