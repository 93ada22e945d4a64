"""The base of the configs of segmentation: a U-Net on a ResNet-50 at 224 pixels.

Data, checkpoints and initial weights are those of `configs/finetune/base.py`. The set needs masks,
or boxes with `config.data.regions.convert`.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from configs.finetune import base

UNET = dict(
    kind="unet",
    channels=(256, 128, 64, 32, 16),  # segmentation_models_pytorch, its default
    auxiliary_weight=0.0,
    dropout=0.0,
)
"""The decoder of segmentation_models_pytorch."""


def get_config(*, classes: Sequence[str]) -> ConfigDict:
    """Returns a segmentation whose stages and batch are those of no paper.

    Args:
      classes: labels of the regions that are found, or one name for those of
        `config.data.regions.any_of`.
    """
    config = base.get_config(classes=classes)
    config.name = config.objective = "segmentation"
    config.model = ConfigDict(model(classes))
    config.data.regions = ConfigDict(
        dict(any_of=(), convert=False, train_images="all", test_images="all")
    )
    config.checkpoint.best_metric = "validation_dice"
    return config


def model(classes: Sequence[str]) -> dict:
    """Returns the model: a ResNet-50 under the U-Net of segmentation_models_pytorch."""
    return dict(
        dtype="bfloat16",
        image=base.model((), uncertain="ignore")["image"],
        decoder=dict(UNET),
        classes=tuple(classes),
        loss="mixed",
        encoder_rate=1.0,
        drifting_statistics=False,
    )


def augment(config: ConfigDict) -> None:
    """Scales and turns half of the training images and their masks, as GLoRIA and MGCA do."""
    config.data.augment.shift_scale_rotate = ConfigDict(
        dict(shift=0.0, scale=0.1, degrees=10.0, probability=0.5)
    )


def stop(config: ConfigDict, *, metric: str, patience: int, mode: str = "max") -> None:
    """Ends training when a number of the validation has not improved so many times."""
    config.early_stopping = ConfigDict(
        dict(metric=metric, patience=patience, mode=mode, min_delta=0.0)
    )
    config.checkpoint.best_metric = metric
    config.checkpoint.best_is = "highest" if mode == "max" else "lowest"
