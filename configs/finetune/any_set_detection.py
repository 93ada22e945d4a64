"""The detectors that the suite trains: of any encoder, on any set; not the protocol of any paper.

`configs/finetune/any_set_detection.py:frozen` trains the head on the frozen encoder, and
`configs/finetune/any_set_detection.py:finetune` the head and the encoder. The task of
`configs/eval/detection/any_set.py` fills in what belongs to the model and the set: encoder, images,
classes, labelled part, batch and steps.

Of the rates 3e-4, 1e-3 and 3e-3 of "finetune", 3e-3 has the best mAP on validation after 100 steps,
for boxes of lungs on 135 radiographs and a random encoder at 96 pixels; that of "frozen" follows it
without a trial of its own.
"""

from ml_collections import ConfigDict

from configs.finetune import base, detection_base
from prior_jax.errors import ConfigError

RATES = {"frozen": 3e-3, "finetune": 3e-3}
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
    config = detection_base.get_config(classes=("Pneumonia",))
    config.name = f"any_set_detection_{way}"
    # Few labels need no processes to load; small batches fit many steps into a suite on a laptop.
    config.data.update(dict(batch_size=8, workers=0))
    config.data.regions.convert = True
    config.optimizer.decay_mask = "matrices"
    config.stage_unit = "steps"
    config.stages = ConfigDict(
        {way: {**base.stage(length=200, peak=RATES[way]), "schedule": "cosine"}}
    )
    config.checkpoint.keep_last = 1
    config.log.update(dict(tensorboard=False, progress=False))
    return config
