"""ConVIRT at full size. Give the data: --config.data.path=DIR.

Values: arXiv:2010.00747, section 3 and appendix; values that the paper does not give are those of
LoVT's release for ConVIRT (configs/experiment/ConVIRT_100.yaml).
"""

from ml_collections import ConfigDict

from configs.baselines import base, objectives
from configs.prior.base import stage


def get_config() -> ConfigDict:
    """Returns the config: Adam, learning rate halved on a plateau, one sentence of each report."""
    pretrain = stage(length=200, warmup=0, peak=1e-4, start=1e-4)
    pretrain["schedule"] = "plateau"
    pretrain["plateau"] = dict(
        metric="validation_total_loss",
        factor=0.5,
        patience=12,
        threshold=1e-4,  # torch's default
        min_learning_rate=0.0,
    )
    config = base.get_config("convirt", model=objectives.convirt(), stage=pretrain, batch_size=32)
    config.optimizer.decay = "coupled"  # Adam
    config.validate_every = 5000  # about one epoch of MIMIC-CXR, so that patience counts epochs
    config.data.caption = "sentence"
    config.data.shuffle_sentences = False
    return config
