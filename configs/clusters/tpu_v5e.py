"""Cloud TPU v5e slices of 16 chips (4 hosts) from the queue."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns one spot slice; the user has to set project, zone and the hosts' setup."""
    return ConfigDict(
        dict(
            kind="tpu",
            project="my-project",
            zone="my-zone",
            accelerator="v5litepod-16",
            runtime="v2-alpha-tpuv5-lite",
            slices=1,
            spot=True,
            options=(),
            # Your own script that mounts the workdir and installs the repository.
            setup="bash ~/setup_host.sh",
            code="prior_jax",
            python="python3",
            poll_seconds=30.0,
            retries=10,
        )
    )
