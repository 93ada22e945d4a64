"""The masks that the suite trains: of any encoder, on any set; not the protocol of any paper.

`configs/finetune/any_set_segmentation.py:frozen` trains the decoder on the frozen encoder, and
`configs/finetune/any_set_segmentation.py:finetune` the decoder and the encoder. The task of
`configs/eval/segmentation/any_set.py` fills in what belongs to the model and the set: encoder,
images, classes, labelled part, batch and steps. A smaller encoder leaves out the widest blocks.
"""

from ml_collections import ConfigDict

from configs.finetune import base, segmentation_base
from prior_jax.errors import ConfigError

RATES = {"frozen": 1e-3, "finetune": 1e-3}
"""Peak learning rate of each way of training, which is a stage of the objective."""


def get_config(way: str = "finetune") -> ConfigDict:
    """Returns the config of one way of training.

    Args:
      way: "frozen" or "finetune".

    Raises:
      ConfigError: for another way.
    """
    if way not in RATES:
        raise ConfigError.of_value("way", way, f"one of {', '.join(RATES)}")
    config = segmentation_base.get_config(classes=("Pneumothorax",))
    config.name = f"any_set_segmentation_{way}"
    # Few labels need no processes to load; small batches fit many steps into a suite on a laptop.
    config.data.update(dict(batch_size=8, workers=0))
    config.data.regions.convert = True
    segmentation_base.augment(config)
    config.optimizer.decay_mask = "matrices"
    config.stage_unit = "steps"
    config.stages = ConfigDict(
        {way: {**base.stage(length=200, peak=RATES[way]), "schedule": "cosine"}}
    )
    config.checkpoint.keep_last = 1
    config.log.update(dict(tensorboard=False, progress=False))
    return config
