"""GLoRIA on the phantom, with the main job's data and towers, in about its time.

python -m launch.train --config=configs/gloria/phantom.py --workdir=/tmp/gloria
"""

from ml_collections import ConfigDict

from configs import phantom
from configs.gloria import base
from configs.prior.base import stage


def get_config() -> ConfigDict:
    """Returns a GLoRIA at the size of `configs/phantom.py`."""
    config = phantom.get_config()
    config.name = "phantom_gloria"
    config.objective = "gloria"
    towers = config.model
    model = ConfigDict(base.model("paper"))
    model.dtype = towers.dtype
    model.image.resnet = towers.image.resnet
    # One stage more than PRIOR's: regions are taken from the next to last, 6 x 6 of them.
    model.image.resnet.depths = (1, 1, 1, 1)
    model.image.upsample = None
    model.text = towers.text
    model.last_layers = 1
    # Dot products of fresh words and regions are several units: times the released 4, a softmax
    # over regions would be a choice of one, without a gradient for the others.
    model.attention_scale = 0.25
    model.caption_chunk = 8  # what stays in a CPU's cache is quicker
    config.model = model
    config.checkpoint.best_metric = "validation_total_loss"
    # A step costs twice one of PRIOR's first stage: 96 words look at 36 regions of 32 images.
    config.stages = ConfigDict(dict(pretrain=stage(length=1000, warmup=50, peak=3e-3, start=1e-5)))
    return config
