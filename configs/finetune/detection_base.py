"""The base of the configs of detection: YOLOv3's head on a ResNet-50 at 224 pixels.

Data, checkpoints and initial weights are those of `configs/finetune/base.py`. The set needs boxes,
or masks with `config.data.regions.convert`.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.finetune import base


def get_config(*, classes: Sequence[str]) -> ConfigDict:
    """Returns a detector whose stages and batch are those of no paper.

    Args:
      classes: labels of the regions that are found, or one name for those of
        `config.data.regions.any_of`.
    """
    config = base.get_config(classes=classes)
    config.name = "detection"
    config.objective = "detection"
    config.model = ConfigDict(model(classes))
    config.data.regions = ConfigDict(
        dict(any_of=(), convert=False, train_images="all", test_images="all")
    )
    config.checkpoint.best_metric = "validation_map"
    return config


def model(classes: Sequence[str]) -> dict:
    """Returns the model: a ResNet-50 under the head, with the loss as it should be."""
    image = base.model((), uncertain="ignore")["image"]
    return dict(
        dtype="bfloat16",
        image=image,
        head=dict(
            anchors="coco",
            anchor_size=placeholder(int),  # that of anchors without a name
            width=placeholder(int),  # a quarter of the encoder's last map; 512 of a ResNet-50
        ),
        loss=dict(
            matching="shape",
            cross_entropy="logits",
            ignore_above=0.5,  # LoVT, src/models/downstream/detection.py; MGCA the same
            position=2.5,  # the same
            negative=0.5,  # the same
            single_class=False,
        ),
        post=dict(
            # Average precision counts the order of all boxes, of which a low threshold keeps more.
            conf_threshold=0.05,
            nms_threshold=0.4,
            most_boxes=placeholder(int),  # room for all
            clip=True,
            extra_pixel=False,
        ),
        classes=tuple(classes),
        encoder_rate=1.0,
        drifting_statistics=False,
    )


def repeat_release(config: ConfigDict) -> None:
    """Sets what the releases of LoVT and MGCA have in common and what is wrong with it."""
    config.model.loss.matching = "release"  # quirks L21 and L22
    config.model.loss.cross_entropy = "release"  # quirk L24
    config.model.post.extra_pixel = True  # quirk L21
    config.model.post.clip = False


def stop(config: ConfigDict, *, metric: str, patience: int) -> None:
    """Ends training when a number of the validation has not risen so many times."""
    config.early_stopping = ConfigDict(
        dict(metric=metric, patience=patience, mode="max", min_delta=0.0)
    )
    config.checkpoint.best_metric = metric
    config.checkpoint.best_is = "highest"
