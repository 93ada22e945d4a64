"""CLIP at full size. Give the data: --config.data.path=DIR.

Values: arXiv:2103.00020, tables 18 and 19 (RN50). The paper's batch of 32,768 is more than a sixth
of MIMIC-CXR; the batch size here is that of PRIOR, and the warm-up lasts one epoch.
"""

from ml_collections import ConfigDict

from configs.baselines import base, objectives
from configs.prior.base import stage


def get_config() -> ConfigDict:
    """Returns the config: AdamW, 32 epochs, attention pooling over the image."""
    pretrain = stage(length=32, warmup=1, peak=5e-4, start=0.0)
    pretrain["weight_decay"] = 0.2
    config = base.get_config("clip", model=objectives.clip(), stage=pretrain, batch_size=588)
    config.model.image.pool = "attention"
    config.model.image.pool_heads = 32
    return config
