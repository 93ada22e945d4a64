"""The main job: draws a phantom hospital under the workdir, trains on it, evaluates, reports."""

from ml_collections import ConfigDict

from configs import small


def get_config() -> ConfigDict:
    """Returns the small PRIOR on 2,400 generated studies."""
    config = small.get_config()
    config.name = "phantom"
    config.prepare.phantom = ConfigDict(
        dict(studies=2400, seed=0, size=128, validate=0.05, test=0.2)
    )
    config.data.image.size = 80
    return config
