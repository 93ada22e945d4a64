"""GLoRIA's linear classification of CheXpert: frozen encoder, five classes, at 1, 10 or 100 %.

    python -m launch.train --config=configs/finetune/gloria_chexpert.py:1 --workdir=DIR \
        --config.data.path=SET --config.init.image.path=GLORIA \
        "--config.init.image.adapt=('drop_embedders',)"

GLoRIA tests its last weights (run.py), as `launch.evaluate` does with a run of `launch.train`.

Sources: [yaml] release, configs/chexpert_classification_config.yaml; [builder.py],
[image_dataset.py], [vision_model.py] release, gloria/... Differs: the release evaluates the middle
224 of the square's 256 pixels; here images are evaluated as a whole.
"""

from ml_collections import ConfigDict

from configs.finetune import base


def get_config(percent: str = "1") -> ConfigDict:
    """Returns the config for a percentage of the training images."""
    share = base.share_of(percent)
    # [image_dataset.py], uncertain labels.
    config = base.get_config(classes=base.COMPETITION, uncertain=base.UNCERTAIN)
    config.name = f"gloria_chexpert_{percent}"
    config.seed = 1  # release, run.py: the number of the split, plus 1
    config.model.upsample = 299  # [vision_model.py]: the pre-trained encoder enlarges (quirk G60)
    half = (0.5, 0.5, 0.5)  # [yaml], norm "half" (quirk G41)
    config.data.image.mean = config.data.image.std = half
    config.data.image.fit = "pad"  # [image_dataset.py], black margins
    config.data.augment.crop_from = 256  # [yaml], a random crop of 224; no flip, no rotation
    config.data.batch_size = 64  # [yaml]
    # [image_dataset.py]: a data frame's sample from a generator without a seed (quirk G43).
    config.data.fraction = base.fraction(share, rule="sample")
    config.stages = ConfigDict(dict(frozen=base.stage(length=50, peak=1e-4)))  # [yaml]
    config.stages.frozen.update(
        dict(
            schedule="plateau",  # [yaml]
            plateau=dict(
                metric="validation_total_loss",  # [yaml], monitor val_loss
                factor=0.5,  # [builder.py]
                patience=5,  # [builder.py]
                threshold=1e-4,  # torch's default
                min_learning_rate=0.0,  # torch's default
                every=3,  # [yaml], frequency 3 (quirk G69)
            ),
            weight_decay=1e-6,  # [yaml]
        )
    )
    config.optimizer.update(
        dict(
            beta1=0.5,  # [builder.py]
            beta2=0.999,  # [builder.py]
            decay="coupled",  # [builder.py], Adam's own
            decay_mask="all",  # [builder.py] (quirk G52)
        )
    )
    config.optimizer.clip_norm = 0.25  # [yaml]
    config.validate_every, config.validate_unit = 1, "epochs"
    stop(config)
    return config


def stop(config: ConfigDict) -> None:
    """Ends training when the validation loss has not improved ten times [yaml]."""
    config.early_stopping = ConfigDict(
        dict(metric="validation_total_loss", patience=10, mode="min", min_delta=0.0)
    )
    config.checkpoint.best_metric = "validation_total_loss"
    config.checkpoint.best_is = "lowest"
