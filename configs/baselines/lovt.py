"""LoVT at full size. Give the data: --config.data.path=DIR.

`configs/baselines/lovt.py:improved` contrasts sentences with regions of the global batch.

Values: LoVT's release, configs/experiment/LoVT_100.yaml, which accumulates 16 batches of 32 in
each step before it applies the gradient; the contrast here is over all 512 pairs. Its rate falls to
0 in every epoch and rises again (`CosineAnnealingLR` of one epoch's steps); here it falls once.
"""

from ml_collections import ConfigDict

from configs.baselines import base, objectives
from configs.prior.base import stage


def get_config(form: str = "paper") -> ConfigDict:
    """Returns the config: AdamW, a cosine schedule over at most 100 epochs, early stopping.

    Args:
      form: "paper" or "improved"; see `base.in_form`.
    """
    pretrain = stage(length=100, warmup=0, peak=1e-4, start=1e-4)
    config = base.get_config("lovt", model=objectives.lovt(), stage=pretrain, batch_size=512)
    config.validate_every = 350  # about one epoch of MIMIC-CXR, so that patience counts epochs
    config.early_stopping = ConfigDict(
        dict(metric="validation_total_loss", patience=10, mode="min", min_delta=0.0)
    )
    return base.in_form(config, form)
