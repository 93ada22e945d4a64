"""GLoRIA on the phantom, with the data and encoders of configs/phantom.py:paper.

python -m launch.train --config=configs/gloria/phantom.py --workdir=/tmp/gloria
"""

from ml_collections import ConfigDict

from configs import phantom
from configs.gloria import base
from configs.prior.base import stage


def get_config() -> ConfigDict:
    """Returns GLoRIA at the size of `configs/phantom.py:paper`."""
    config = phantom.get_config("paper")
    config.name = "phantom_gloria"
    config.objective = "gloria"
    towers = config.model
    model = ConfigDict(base.model("paper"))
    model.dtype = towers.dtype
    model.image.resnet = towers.image.resnet
    # With three stages the regions, from the last but one, are 12 x 12 and see half the image. With
    # a fourth stage they would be 6 x 6 and see the whole image, so that a word could find its
    # finding in any region.
    model.image.upsample = None
    model.text = towers.text
    model.last_layers = 1
    # Untrained words and unnormalised regions agree on the region with the longest vector, a corner
    # that shows nothing, and their softmax, almost one-hot, leaves no gradient to other regions.
    model.unit_text = model.unit_regions = True
    model.attention_scale = 10.0
    model.caption_chunk = 8  # of an evaluation; training on one CPU takes one image at a time
    config.model = model
    config.checkpoint.best_metric = "validation_total_loss"
    # A step costs twice a step of PRIOR's first stage: 96 words attend to 144 regions of 32 images.
    config.stages = ConfigDict(dict(pretrain=stage(length=800, warmup=50, peak=3e-3, start=1e-5)))
    return config
