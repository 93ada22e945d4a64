"""SigLIP at full size. Give the data: --config.data.path=DIR.

Values: arXiv:2303.15343, section 4 (beta2, learning rate and weight decay of its runs from
scratch). The paper's batch of 32k is more than a sixth of MIMIC-CXR; the batch size here is that of
PRIOR, the length that of CLIP, and the warm-up lasts one epoch.
"""

from ml_collections import ConfigDict

from configs.baselines import base, objectives
from configs.prior.base import stage


def get_config() -> ConfigDict:
    """Returns the config: AdamW, 32 epochs, attention pooling over the image."""
    pretrain = stage(length=32, warmup=1, peak=1e-3, start=0.0)
    pretrain["weight_decay"] = 1e-4
    config = base.get_config("siglip", model=objectives.siglip(), stage=pretrain, batch_size=588)
    config.model.image.pool = "attention"
    config.optimizer.beta2 = 0.95
    return config
