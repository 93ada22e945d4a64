"""PRIOR at full size as the paper describes it. Give the data: --config.data.path=DIR."""

from ml_collections import ConfigDict

from configs.prior import base


def get_config() -> ConfigDict:
    """Returns the full-size config with every fault of the release corrected."""
    return base.get_config("paper")
