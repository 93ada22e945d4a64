"""GLoRIA at full size for batches of thousands: the local contrast is in groups of 128 pairs.

python -m launch.train --config=configs/gloria/pod.py --machine=configs/machines/v5e_256.py \
    --pairs_per_chip=128 --config.data.path=DIR --workdir=RUN

The cost of the local contrast over a whole batch is, on each chip, proportional to the chip's
images times all captions: ten times the encoders' cost at 2,048 pairs, a hundred times at 32,768
(docs/benchmarks.md). The global contrast is still over the whole batch.
"""

from ml_collections import ConfigDict

from configs.gloria import base


def get_config() -> ConfigDict:
    """Returns the paper's config with groups, each of which is on one chip."""
    config = base.get_config("paper")
    config.name = "gloria_pod"
    config.model.local_group = 128
    config.data.batch_size = 2048  # for 16 chips; for other numbers, --pairs_per_chip
    return config
