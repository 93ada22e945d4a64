"""Models that find boxes: a trained one, or a new head on a pre-trained encoder."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from flax import nnx

from prior_jax.data.image import ImageConfig
from prior_jax.data.regions import Transform
from prior_jax.errors import ConfigError
from prior_jax.evaluate.found_boxes import image_boxes
from prior_jax.interface import inputs
from prior_jax.interface.image_model import (
    ImageModel,
    check_classes,
    check_source,
    in_blocks,
    on_encoder,
    open_encoder,
    open_image_model,
)
from prior_jax.interface.inputs import ImageSource, ProcessedImages
from prior_jax.interface.original import boxes_on_original
from prior_jax.losses.yolo import YoloLossConfig
from prior_jax.nn.resnet import ImageEncoderConfig, ResNetConfig
from prior_jax.nn.yolo_head import YoloConfig
from prior_jax.objectives.boxes import PostConfig
from prior_jax.objectives.detection import DetectionConfig, DetectionModel, DetectionObjective
from prior_jax.types import Boxes, Detections

KIND = "detection"
_BLOCK = 8
# Those of configs/finetune/detection_base.py, with anchors of YOLOv3.
_HEAD = YoloConfig(anchors="coco", anchor_size=None, width=None)
_LOSS = YoloLossConfig(
    matching="shape",
    cross_entropy="logits",
    ignore_above=0.5,
    position=2.5,
    negative=0.5,
    single_class=False,
)
_POST = PostConfig(
    conf_threshold=0.05, nms_threshold=0.4, most_boxes=None, clip=True, extra_pixel=False
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FoundBoxes:
    """Boxes on one image, from the highest score on.

    Attributes:
      corners: x1, y1, x2, y2 in pixels of the image as it was given, float32[M, 4]; the pixel in
        column c covers x from c to c + 1.
      scores: probability that there is an object, float32[M].
      classes: number of the most probable class, int32[M].
      names: name of that class, M.
    """

    corners: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    names: tuple[str, ...]


class Detector:
    """Images in, boxes of classes out, in the pixels of the images that are given.

    Attributes:
      module: module with the encoder and the head, to be trained further: a call
        `module(image, train=...)` on normalised images float32[B, H, W, C] gives the raw numbers of
        each scale, which `prior_jax.losses.yolo` and `prior_jax.nn.yolo_head.decode` take.
      classes: names of the classes; their numbers if the head is new.
      image: settings of the images: size, channels, how they become a square and, unless unknown,
        mean and std.
      post: rules by which boxes are chosen.
    """

    def __init__(self, module: nnx.Module, *, objective: DetectionObjective, image: ImageConfig):
        """Combines the parts; nothing is compiled before its first use.

        Args:
          module: module with the encoder and the head.
          objective: objective of the module, with the rules by which boxes are chosen.
          image: settings of the images.
        """
        self.module, self.image = module, image
        self.classes, self.post = objective.classes, objective.config.post
        # Flax gives the devices among the options of `jit` no types.
        self._detect = nnx.jit(objective.detect)  # pyright: ignore[reportUnknownMemberType]

    def process_images(self, images: ImageSource | Iterable[ImageSource]) -> ProcessedImages:
        """Reads, resizes and normalises images as evaluation does; see `Model.process_images`."""
        return inputs.process_images(images, config=self.image)

    def predict(
        self, images: ImageSource | Iterable[ImageSource] | ProcessedImages
    ) -> list[FoundBoxes]:
        """Finds boxes.

        Args:
          images: images of any sizes in any form that `process_images` takes, or processed ones.

        Returns:
          The boxes of each image, in pixels of the image as it was given (of a file those that it
          stores, before an EXIF orientation turns them) and cut off at its edges. A box that lies
          on the margins alone that made the image a square is left out.

        Raises:
          DataError: if an image cannot be read, or a score is not a number.
          ConfigError: if the mean and std of the images are unknown, or an image has more boxes
            than the rules have room for.
        """
        if not isinstance(images, ProcessedImages):
            images = self.process_images(images)
        rows = [
            one
            for found in in_blocks(self._detect, self.module, images.pixels, block=_BLOCK)
            for one in image_boxes(found, _no_boxes(found), np.ones(len(found.found)))
        ]
        return [
            self._found(np.asarray(one.boxes), one.scores, one.classes, place)
            for one, place in zip(rows, images.places, strict=True)
        ]

    def _found(
        self, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, place: Transform
    ) -> FoundBoxes:
        corners = boxes_on_original(boxes, place)
        kept = np.isfinite(corners).all(axis=1)
        numbers = classes[kept]
        return FoundBoxes(
            corners=corners[kept],
            scores=scores[kept],
            classes=numbers,
            names=tuple(self.classes[int(number)] for number in numbers),
        )


def _no_boxes(found: Detections) -> Boxes:
    """Returns the true boxes of images of which none are known."""
    rows = len(found.found)
    empty: Any = (
        np.zeros((rows, 0, 4), np.float32),
        np.zeros((rows, 0), np.int32),
        np.zeros((rows, 0), bool),
    )
    return Boxes(corners=empty[0], classes=empty[1], real=empty[2])


def load_detector(
    source: str | os.PathLike[str],
    num_classes: int | None = None,
    *,
    freeze_encoder: bool = True,
    seed: int = 0,
    step: int | None = None,
    head: YoloConfig | None = None,
    post: PostConfig | None = None,
) -> Detector:
    """Loads a trained detector, or puts a new head of YOLOv3 on a pre-trained image encoder.

    Args:
      source: folder of a run of `launch.train`, of any objective; or the folder
        `finetune/<result>/model` of a training of an evaluation task; or a folder of weights that
        `launch.import_weights` or `launch.export --format=nnx` wrote.
      num_classes: number of classes of the new head; None for the head that a run of the objective
        "detection" has trained.
      freeze_encoder: whether a new head leaves the encoder as it is, see `load_classifier`.
      seed: seed of the new head.
      step: step of the checkpoint; None is chosen as by `load_classifier`.
      head: shape and anchors of the new head; None for COCO's anchors and a quarter of the
        encoder's channels. A trained head has its own.
      post: rules by which boxes are chosen, such as the lowest score; None for those of the run's
        config, or for a new head those of `configs/finetune/detection.py`.

    Returns:
      The detector.

    Raises:
      DataError, ConfigError, CheckpointError, WeightsError: as `load` raises them; also if the
        source is not the folder of a model, or if `num_classes` is None and the source has no
        trained head; the message names the fine-tuned models in the folder.

    Source: the head is that of LoVT's and MGCA's releases, see `nn.yolo_head.YoloHead`.
    """
    folder = pathlib.Path(source)
    check_classes(num_classes)
    check_source(folder, num_classes, kind=KIND, head="head of boxes")
    if num_classes is None:
        _check_no_head(head)
        model = open_image_model(folder, step=step)
    else:
        encoder, image, _ = open_encoder(folder, step=step)
        config = _new_config(encoder.resnet.config, image, num_classes, head or _HEAD)
        model = _new_model(config, encoder, image, frozen=freeze_encoder, seed=seed)
    objective = cast(DetectionObjective, model.objective)
    if post is not None:
        objective = DetectionObjective(dataclasses.replace(objective.config, post=post))
    return Detector(model.module, objective=objective, image=model.image)


def _check_no_head(head: YoloConfig | None) -> None:
    """Refuses a shape for a head that is trained already."""
    if head is not None:
        raise ConfigError(
            "The trained head has a shape of its own.",
            "Leave it out, or give num_classes for a new head.",
            where="head",
        )


def _new_model(
    config: DetectionConfig, encoder: Any, image: ImageConfig, *, frozen: bool, seed: int
) -> ImageModel:
    """Puts a new head on an encoder."""
    module = on_encoder(
        lambda: DetectionModel(config, frozen=frozen, rngs=nnx.Rngs(seed)), encoder, head="head"
    )
    return ImageModel(objective=DetectionObjective(config), module=module, image=image)


def _new_config(
    resnet: ResNetConfig, image: ImageConfig, num_classes: int, head: YoloConfig
) -> DetectionConfig:
    """Returns the sizes of an encoder under a new head."""
    return DetectionConfig(
        dtype="float32",
        image=ImageEncoderConfig(
            resnet=dataclasses.replace(resnet, remat="none"),
            pool="mean",
            pool_heads=1,
            image_size=image.size,
        ),
        head=head,
        loss=_LOSS,
        post=_POST,
        classes=tuple(str(number) for number in range(num_classes)),
        encoder_rate=1.0,
        drifting_statistics=False,
    )
