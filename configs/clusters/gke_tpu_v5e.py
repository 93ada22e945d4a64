"""A TPU v5e slice of 16 chips (4 hosts) under GKE."""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """Returns one spot slice; the user has to set image and claim."""
    config = ConfigDict(
        dict(
            kind="gke",
            namespace="default",
            device="tpu",
            accelerator="tpu-v5-lite-podslice",
            topology=config_dict.placeholder(str),
            slices=1,
            hosts=4,
            chips=4,
            spot=True,
            image="registry.example/my-project/prior_jax:latest",
            code="/prior_jax",
            python="python3",
            claim="runs",
            mount="/runs",
            grace_seconds=120,
            max_restarts=8,
        )
    )
    config.topology = "4x4"
    return config
