"""GLoRIA at full size for batches of thousands: words and regions meet in groups of 128 pairs.

python -m launch.train --config=configs/gloria/pod.py --machine=configs/machines/v5e_256.py \
    --pairs_per_chip=128 --config.data.path=DIR --workdir=RUN

Over a whole batch the local contrast costs each chip its images times all captions: the encoders'
work ten times over at 2,048 pairs, a hundred times at 32,768 (docs/benchmarks.md). The global
contrast stays that of the whole batch.
"""

from ml_collections import ConfigDict

from configs.gloria import base


def get_config() -> ConfigDict:
    """Returns the paper's config with groups, each of which lies on one chip."""
    config = base.get_config("paper")
    config.name = "gloria_pod"
    config.model.local_group = 128
    config.data.batch_size = 2048  # of 16 chips; elsewhere --pairs_per_chip
    return config
