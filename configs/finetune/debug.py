"""A classifier of the phantom's findings in a minute: every part runs, but little is learnt."""

from ml_collections import ConfigDict

from configs import debug
from configs.finetune import base

CLASSES = ("Cardiomegaly", "Pleural Effusion", "Pneumothorax")


def get_config(percent: str = "100") -> ConfigDict:
    """Returns the debug job's set and encoder under a linear head.

    Args:
      percent: percentage of the patients to train on.
    """
    config, small = base.get_config(classes=CLASSES), debug.get_config()
    config.name = "finetune_debug"
    config.prepare.phantom = small.prepare.phantom
    config.model.dtype = "float32"
    config.model.image.resnet = small.model.image.resnet
    config.model.encoder_rate = 0.5
    config.data.image.update(dict(size=small.data.image.size, channels=1))
    config.data.update(dict(batch_size=small.data.batch_size, workers=0, threads=2))
    config.data.fraction = base.fraction(base.share_of(percent), rule="patients")
    config.stage_unit = "steps"
    config.stages = ConfigDict(
        dict(frozen=base.stage(length=8, peak=1e-2), finetune=base.stage(length=8, peak=1e-2))
    )
    config.checkpoint.every_steps = 4
    config.log.every_steps = 1
    config.validate_every = 8
    config.quick_compile = True
    return config
