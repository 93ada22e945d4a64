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
    # Three stages, so that regions, from the next to last, are 12 x 12 and see half the image;
    # those of a fourth stage's 6 x 6 see all of it, and a word may look anywhere for its finding.
    model.image.upsample = None
    model.text = towers.text
    model.last_layers = 1
    # Fresh words and regions of free length agree on the longest region, a corner that shows
    # nothing, and their softmax, a choice of one, leaves no gradient to the others.
    model.unit_text = model.unit_regions = True
    model.attention_scale = 10.0
    model.caption_chunk = 8  # what stays in a CPU's cache is quicker
    config.model = model
    config.checkpoint.best_metric = "validation_total_loss"
    # A step costs twice one of PRIOR's first stage: 96 words look at 144 regions of 32 images.
    config.stages = ConfigDict(dict(pretrain=stage(length=800, warmup=50, peak=3e-3, start=1e-5)))
    return config
