"""Tiny trained models of images as folders of weights, for the tests of the interface."""

import dataclasses
import json

import numpy as np
from flax import nnx

from prior_jax.interop.weights_folder import Weights, save_weights
from prior_jax.losses.yolo import YoloLossConfig
from prior_jax.nn.classification_head import HeadConfig
from prior_jax.nn.resnet import ImageEncoderConfig, ResNetConfig
from prior_jax.nn.yolo_head import YoloConfig
from prior_jax.objectives.boxes import PostConfig
from prior_jax.objectives.classification import ClassificationConfig, ClassificationObjective
from prior_jax.objectives.detection import DetectionConfig, DetectionObjective
from prior_jax.objectives.segmentation import SegmentationObjective
from tests.interop.calm import calmed
from tests.interop.exports import arrays_of
from tests.nn.small import filled

MEAN, STD = 0.4, 0.25
OBJECTIVES = {
    "classification": ClassificationObjective,
    "detection": DetectionObjective,
    "segmentation": SegmentationObjective,
}
CLASSES = ("Mass", "Edema")


def encoder_config(*, side=32, depths=(1, 1, 1), pool="mean"):
    resnet = ResNetConfig(
        depths=depths, width=4, in_channels=1, block="basic", stem_pool=False, remat="none"
    )
    return ImageEncoderConfig(resnet=resnet, pool=pool, pool_heads=1, image_size=side)


def detection_config(**changes):
    fields = dict(
        dtype="float32",
        image=encoder_config(),
        head=YoloConfig(anchors="coco", anchor_size=None, width=8),
        loss=YoloLossConfig(
            matching="shape",
            cross_entropy="logits",
            ignore_above=0.5,
            position=2.5,
            negative=0.5,
            single_class=False,
        ),
        post=PostConfig(
            conf_threshold=0.2, nms_threshold=0.4, most_boxes=None, clip=True, extra_pixel=False
        ),
        classes=CLASSES,
        encoder_rate=1.0,
        drifting_statistics=False,
    )
    return DetectionConfig(**(fields | changes))


def classification_config(**changes):
    fields = dict(
        dtype="float32",
        image=encoder_config(),
        upsample=None,
        head=HeadConfig(kind="linear", hidden=None, dropout=0.0),
        classes=CLASSES,
        loss="binary",
        uncertain="ignore",
        not_mentioned="negative",
        encoder_rate=1.0,
        layer_decay=None,
        drifting_statistics=False,
    )
    return ClassificationConfig(**(fields | changes))


def weights_of(kind, config, *, fit="stretch"):
    """Weights of a whole model of an objective, its arrays filled."""
    objective = OBJECTIVES[kind](config)
    module = filled(lambda: objective.init(nnx.Rngs(0)))
    model = json.loads(json.dumps(dataclasses.asdict(config)))
    side = model["image"].pop("image_size")
    channels = model["image"]["resnet"].pop("in_channels")
    image = {
        "size": side,
        "channels": channels,
        "mean": [MEAN] * channels,
        "std": [STD] * channels,
        "fit": fit,
    }
    return calmed(
        Weights(
            part="model",
            objective=kind,
            model=model,
            data={"image": image},
            origin={"source": "tests", "licence": "none"},
            arrays=arrays_of(module),
        )
    )


def saved(folder, kind, config, **options):
    save_weights(folder, weights_of(kind, config, **options))
    return folder


def radiographs():
    """Grey images of different shapes with a bright rectangle, and its edges x1, y1, x2, y2."""
    images, boxes = [], []
    for height, width, box in ((90, 60, (10, 30, 40, 70)), (64, 128, (70, 10, 110, 40))):
        image = np.full((height, width), 20, np.uint8)
        image[box[1] : box[3], box[0] : box[2]] = 240
        images.append(image)
        boxes.append(box)
    return images, boxes
