"""The classifiers that the suite trains: of any encoder, on any set; not the protocol of any paper.

`configs/finetune/any_set.py:linear` trains a head on the frozen encoder, and
`configs/finetune/any_set.py:finetune` the head and the encoder. The task of
`configs/eval/finetune.py` fills in what belongs to the model and the set: encoder, images, classes,
labelled part, batch and steps.

The rates have the best macro AUROC on the validation split of the phantom at 1 %, as a mean over
the main job's encoder and a random one: for the head alone 1e-2 before 3e-2, with the encoder 1e-3
before 3e-4. A head at 3e-3 over an encoder at a tenth of it is level with 1e-3 for both: better for
the pre-trained encoder, and worse for the random one by as much.
"""

from ml_collections import ConfigDict

from configs.finetune import base
from prior_jax.errors import ConfigError

STAGES = {"linear": "frozen", "finetune": "finetune"}
"""Stage of the objective that each way of training runs."""
RATES = {"linear": 1e-2, "finetune": 1e-3}
"""Peak learning rate of each way of training."""


def get_config(way: str = "finetune") -> ConfigDict:
    """Returns the config of one way of training.

    Args:
      way: "linear" or "finetune".

    Raises:
      ConfigError: for another way.
    """
    if way not in STAGES:
        raise ConfigError.of_value("way", way, f"one of {', '.join(STAGES)}")
    # Neither guess at an uncertain label is right for every class.
    config = base.get_config(classes=base.COMPETITION, uncertain="ignore")
    config.name = f"any_set_{way}"
    config.model.head.kind = "layer_norm"  # the encoders' features differ in scale
    config.data.update(dict(batch_size=32, workers=0))  # few labels need no processes to load
    config.optimizer.decay_mask = "matrices"
    config.stage_unit = "steps"
    stage = base.stage(length=200, peak=RATES[way])
    config.stages = ConfigDict({STAGES[way]: {**stage, "schedule": "cosine"}})
    config.checkpoint.keep_last = 1
    config.log.update(dict(tensorboard=False, progress=False))
    return config
