"""Boxes and masks of findings as the targets of detection and segmentation.

Each row of a batch has one image. Its findings are those of the record that lie on this image,
moved as the image was resized and augmented.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from prior_jax.data import regions
from prior_jax.data.schema import Record
from prior_jax.errors import ConfigError, DataError, check_choice, check_field
from prior_jax.near_names import check_classes, meant

Kind = Literal["boxes", "masks"]
TrainImages = Literal["all", "with_regions", "balanced"]
TestImages = Literal["all", "with_regions"]
_SAME = 0.501  # pixels, half of one and what float32 rounds


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionConfig:
    """What is read of the boxes and masks of a set; the section `config.data.regions`.

    Attributes:
      kind: what the objective learns, "boxes" or "masks".
      classes: names of the K classes, in the order of the last axis of the masks.
      any_of: labels of regions that all are the one class; () if each class is the label of its own
        name. LoVT and MGCA detect the eight findings of NIH's boxes as one class (quirk L17).
      convert: whether a region that has only a mask gives its bounding box, or one that has only a
        box gives a mask that fills the box (LoVT's and MGCA's segmentation of RSNA). A mask whose
        bounding box the class has on the image already, to half a pixel, gives no second one. If it
        is False, such a region is refused.
      train_images: images that are trained on: "all"; "with_regions", those with a finding of the
        classes; or "balanced", those and as many of the others, chosen at random (GLoRIA's and
        MGCA's SIIM).
      test_images: images that are validated and tested on, "all" or "with_regions". Choose
        "with_regions" where an image without a box may well have a finding, as of NIH.
    """

    kind: Kind
    classes: tuple[str, ...]
    any_of: tuple[str, ...]
    convert: bool
    train_images: TrainImages
    test_images: TestImages

    def __post_init__(self):
        """Refuses values that define no targets."""
        check_choice(self, "kind", get_args(Kind))
        check_choice(self, "train_images", get_args(TrainImages))
        check_choice(self, "test_images", get_args(TestImages))
        check_classes(self.classes, where="classes")
        one = not self.any_of or len(self.classes) == 1
        check_field(self, "any_of", one, f"() for {len(self.classes)} classes")

    @property
    def class_of(self) -> Mapping[str, int]:
        """Returns the index of the class by the label of a region."""
        if self.any_of:
            return dict.fromkeys(self.any_of, 0)
        return {name: index for index, name in enumerate(self.classes)}

    def check_labels(self, known: Mapping[str, object]) -> None:
        """Refuses a label that no region of the set has.

        Args:
          known: labels of the regions of the set.

        Raises:
          ConfigError: naming the labels that the set has.
        """
        absent = [name for name in self.class_of if name not in known]
        if not absent:
            return
        where = "config.data.regions.any_of" if self.any_of else "config.model.classes"
        if not known:
            raise ConfigError(
                "The set has neither boxes nor masks.",
                "Give a set that data_prep prepared with them.",
                where="config.data.path",
            )
        raise ConfigError(
            f"No region of the set is labelled {', '.join(map(repr, absent))}."
            + meant(absent[0], tuple(known)),
            f"Choose among {', '.join(sorted(known))}.{self._of_task(known)}",
            where=where,
        )

    def _of_task(self, known: Mapping[str, object]) -> str:
        """Returns the sentence on a model of one class that meets a set of other labels, or ""."""
        if len(self.classes) > 1:
            return ""
        return (
            " If a trained model is evaluated, name those that are its one class: "
            f'"--task.regions.any_of=({min(known)!r},)".'
        )


def findings_on(record: Record, image: int, config: RegionConfig) -> list[int]:
    """Returns the numbers of the record's regions that are of a class and lie on an image."""
    return [
        number
        for number, (place, label) in enumerate(
            zip(record.region_images, record.region_labels, strict=True)
        )
        if place == image and label in config.class_of
    ]


def usable_images(record: Record, config: RegionConfig) -> list[int]:
    """Returns the images of a study that a row may show: those with findings, if there are some."""
    every = range(len(record.images))
    return [image for image in every if findings_on(record, image, config)] or list(every)


def most_findings(record: Record, config: RegionConfig) -> int:
    """Returns the largest number of findings on one image of a study."""
    return max(len(findings_on(record, image, config)) for image in range(len(record.images)))


def row_targets(
    record: Record,
    image: int,
    transform: regions.Transform,
    *,
    config: RegionConfig,
    slots: int,
    name: str,
) -> dict[str, np.ndarray]:
    """Returns the targets of one row.

    Args:
      record: record of the study.
      image: index of the image of the row.
      transform: change from the stored image to the row's image.
      config: what is read.
      slots: number N of boxes that a row has room for.
      name: name of the record, for error messages.

    Returns:
      For masks `masks`, bool[H, W, K]; for boxes the fields of `types.Boxes` without their leading
      axis.

    Raises:
      DataError: if a mask is damaged, or not of its image's size.
      ConfigError: if a region has only what the config does not convert.
    """
    numbers = findings_on(record, image, config)
    if config.kind == "masks":
        found = np.zeros((*transform.after, len(config.classes)), bool)
        for number in numbers:
            mask = _mask(record, number, transform, config=config, name=name)
            found[..., config.class_of[record.region_labels[number]]] |= mask
        return {"masks": found}
    empty = no_targets(transform.after, config=config, slots=slots)
    if not numbers:
        return empty
    boxes = {n: _box(record, n, transform, config=config, name=name) for n in numbers}
    numbers = _without_repeats(record, boxes, config)
    moved = regions.moved_boxes(np.asarray([boxes[n] for n in numbers]), transform)
    for row, number in enumerate(numbers):
        if np.isfinite(moved[row]).all():
            empty["corners"][row] = moved[row]
            empty["classes"][row] = config.class_of[record.region_labels[number]]
            empty["real"][row] = True
    return empty


def no_targets(size: tuple[int, int], *, config: RegionConfig, slots: int) -> dict[str, np.ndarray]:
    """Returns the targets of a row without a finding; for the arguments see `row_targets`."""
    if config.kind == "masks":
        return {"masks": np.zeros((*size, len(config.classes)), bool)}
    return {
        "corners": np.zeros((slots, 4), np.float32),
        "classes": np.zeros(slots, np.int32),
        "real": np.zeros(slots, bool),
    }


def _mask(
    record: Record, number: int, transform: regions.Transform, *, config: RegionConfig, name: str
) -> np.ndarray:
    """Returns the mask of a region on the row's image, bool[H, W].

    Shrinking does not let a small mask vanish: the image would count as one without the finding.
    """
    if record.region_masks[number]:
        mask = _stored_mask(record, number, transform, name=name)
    else:
        _check_converts(record, number, config=config, name=name, has="box")
        height, width = transform.before
        box = np.asarray(record.region_boxes[number])
        mask = regions.mask_of_box(box, height=height, width=width)
    return regions.kept_mask(mask, transform)


def _stored_mask(
    record: Record, number: int, transform: regions.Transform, *, name: str
) -> np.ndarray:
    """Returns the mask that a region has, bool[H, W], of the size of the stored image."""
    where = f"{name}: mask {number}"
    mask = regions.decoded_mask(record.region_masks[number], name=where)
    if mask.shape != transform.before:
        (rows, columns), (height, width) = mask.shape, transform.before
        raise DataError(
            f"The mask has {columns}x{rows} pixels, and its image {width}x{height}.",
            "Prepare the set again.",
            where=where,
        )
    return mask


def _box(
    record: Record, number: int, transform: regions.Transform, *, config: RegionConfig, name: str
) -> tuple[float, float, float, float]:
    """Returns the box of a region in pixels of the stored image."""
    box = record.region_boxes[number]
    if not np.isnan(box).any():
        return box
    _check_converts(record, number, config=config, name=name, has="mask")
    return regions.box_of_mask(_stored_mask(record, number, transform, name=name))


def _without_repeats(
    record: Record, boxes: Mapping[int, tuple[float, float, float, float]], config: RegionConfig
) -> list[int]:
    """Returns the regions without those that give the box of a mask which the class has already.

    A set may have a box and a mask of one finding, each as a region. The edges of a mask are those
    of its box to half a pixel.
    """
    given = {number: not np.isnan(record.region_boxes[number]).any() for number in boxes}

    def repeats(number: int) -> bool:
        found = config.class_of[record.region_labels[number]]
        return any(
            given[other]
            and config.class_of[record.region_labels[other]] == found
            and np.allclose(boxes[other], boxes[number], rtol=0.0, atol=_SAME)
            for other in boxes
        )

    return [number for number in boxes if given[number] or not repeats(number)]


def _check_converts(
    record: Record, number: int, *, config: RegionConfig, name: str, has: str
) -> None:
    if not config.convert:
        raise ConfigError(
            f"Region {number} of {name}, {record.region_labels[number]!r}, has only a {has}, and "
            f"the objective learns {config.kind}.",
            "Set config.data.regions.convert=True, which makes one of the other.",
            where="config.data.regions.convert",
        )
