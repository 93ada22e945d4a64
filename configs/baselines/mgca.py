"""MGCA at full size. Give the data: --config.data.path=DIR.

`configs/baselines/mgca.py:improved` contrasts words with regions of the global batch.

Values: MGCA's release, mgca/models/mgca/mgca_module.py, and arXiv:2210.06044, section 4.1; [data]
release, mgca/datasets/utils.py and pretrain_dataset.py; [transforms] release,
mgca/datasets/transforms.py, DataTransforms. Images are fitted and cropped as MGCA's, and normalised
as those of the other baselines. Differs: the release validates on the middle 224 of the square's
256 pixels; here images are validated on as a whole.
"""

from ml_collections import ConfigDict

from configs.baselines import base, objectives
from configs.prior.base import stage


def get_config(form: str = "paper") -> ConfigDict:
    """Returns the config: AdamW, at most 50 epochs of which 20 are warm-up, early stopping.

    Args:
      form: "paper" or "improved"; see `base.in_form`.
    """
    pretrain = stage(length=50, warmup=20, peak=2e-5, start=1e-8)
    pretrain["learning_rate_end"] = 1e-8
    pretrain["weight_decay"] = 0.05
    config = base.get_config("mgca", model=objectives.mgca(), stage=pretrain, batch_size=144)
    # mgca_module.py, EarlyStopping, which waits for five validations of an epoch each
    config.validate_every, config.validate_unit = 1, "epochs"
    config.early_stopping = ConfigDict(
        dict(metric="validation_total_loss", patience=5, mode="min", min_delta=0.0)
    )
    config.data.image.fit = "pad"  # [data], black margins
    # [data], imsize; [transforms], a random crop of 224, neither rotated nor flipped.
    config.data.augment.update(dict(crop_from=256, rotation_degrees=0.0, flip_probability=0.0))
    return base.in_form(config, form)
