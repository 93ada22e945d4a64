r"""Masks of the findings of a prepared set; not the protocol of any paper.

    python -m launch.train --config=configs/finetune/segmentation.py:10 --workdir=DIR \
        --config.data.path=SET --config.init.image.path=RUN "--config.model.classes=('Edema',)"

The encoder is frozen for 5 epochs, while the decoder finds its place, and is fine-tuned for 45 at a
tenth of the decoder's rate.
"""

from ml_collections import ConfigDict

from configs.finetune import base, segmentation_base


def get_config(percent: str = "100") -> ConfigDict:
    """Returns the config for a percentage of the patients of the training split."""
    config = segmentation_base.get_config(classes=("Pneumothorax",))
    config.name = f"segmentation_{percent}"
    config.model.encoder_rate = 0.1
    config.data.batch_size = 16
    config.data.fraction = base.fraction(base.share_of(percent), rule="patients")
    segmentation_base.augment(config)
    config.validate_every, config.validate_unit = 1, "epochs"
    config.optimizer.decay_mask = "matrices"
    config.stages = ConfigDict(
        dict(
            frozen=base.stage(length=5, peak=1e-3),
            finetune=base.stage(length=45, peak=1e-3),
        )
    )
    config.stages.finetune.schedule = "cosine"
    return config
