"""Measures a detector: the boxes that it finds on a split, counted in each paper's way."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from prior_jax.errors import check_choice
from prior_jax.evaluate import bootstrap, coco_library, detection_columns, found_boxes, froc
from prior_jax.evaluate.bootstrap import Interval
from prior_jax.evaluate.box_file import KeptBoxes, ShownImage
from prior_jax.evaluate.detection import ImageBoxes
from prior_jax.evaluate.results import TaskResult

Counter = Literal["own", "faster_coco_eval"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Settings of the measurement of a detector.

    Attributes:
      froc: whether the sensitivity at given numbers of false positives per image is measured too,
        by which Object-CXR is scored.
      coco: program that counts the columns `coco_ap`, `coco_ap50` and `coco_ap75`: "own", or
        "faster_coco_eval", the package of that name (`pip install -e '.[coco]'`). The intervals are
        those of our counting, which gives the same numbers.
    """

    froc: bool
    coco: Counter

    def __post_init__(self):
        """Refuses a program that is not known."""
        check_choice(self, "coco", get_args(Counter))


def evaluate_detector(
    found: found_boxes.Found,
    *,
    classes: Sequence[str],
    ids: Sequence[str],
    patients: np.ndarray,
    config: DetectorConfig,
    resampling: bootstrap.BootstrapConfig,
    threshold: float = 0.0,
    shown: Sequence[ShownImage] = (),
) -> TaskResult:
    """Counts the boxes of a detector.

    Args:
      found: boxes of N images, of the classes that are measured alone.
      classes: names of these classes.
      ids: id of the study of each image, N.
      patients: patient of each image, [N]; the bootstrap resamples patients.
      config: settings of the measurement.
      resampling: settings of the bootstrap intervals.
      threshold: least score of the boxes that are shown over images; no column depends on it.
      shown: images that the report shows.

    Returns:
      The columns of `detection_columns`, each with an interval; `settings` says how many images
      have boxes and how many boxes are found, and `kept` holds all boxes.
    """
    images = found.images
    metrics = _columns(images, classes, groups=patients, config=config, resampling=resampling)
    values = {name: one.value for name, one in metrics.items()}
    return TaskResult(
        metrics=metrics,
        settings={
            "classes": list(classes),
            "detector": dataclasses.asdict(config),
            **({"froc_rates": list(froc.RATES)} if config.froc else {}),
            **counts_of(images, classes=classes),
            "bootstrap": dataclasses.asdict(resampling),
            "undefined": detection_columns.reasons(values, images),
        },
        kept=KeptBoxes(
            images=images,
            record=found.record,
            ids=tuple(ids),
            size=found.size,
            classes=tuple(classes),
            threshold=threshold,
            shown=tuple(shown),
        ),
    )


def counts_of(images: Sequence[ImageBoxes], *, classes: Sequence[str]) -> dict[str, Any]:
    """Returns the numbers of images and boxes, as JSON values for a results file."""
    true = np.concatenate([one.truth_classes for one in images])
    kept = np.concatenate([one.classes for one in images])

    def by_class(numbers: np.ndarray) -> dict[str, int]:
        return {name: int((numbers == index).sum()) for index, name in enumerate(classes)}

    boxed = np.asarray([len(one.truth) > 0 for one in images])
    answered = np.asarray([len(one.boxes) > 0 for one in images])
    return {
        "records": len(images),
        "images_with_boxes": int(boxed.sum()),
        "images_without_boxes": int((~boxed).sum()),
        "images_with_predictions": int(answered.sum()),
        "images_with_both": int((boxed & answered).sum()),
        "boxes": by_class(true),
        "predictions": by_class(kept),
        "most_predictions_of_an_image": max(len(one.boxes) for one in images),
    }


def _columns(
    images: Sequence[ImageBoxes], classes: Sequence[str], *, groups, config, resampling
) -> dict[str, Interval]:
    """Computes the columns, with intervals; the chosen program counts those of COCO."""
    statistics = detection_columns.statistics_of(images, classes=classes, sensitivity=config.froc)
    metrics = bootstrap.intervals(statistics, groups=groups, config=resampling)
    if config.coco == "own":
        return metrics
    found = coco_library.precision_of(images, classes=len(classes))
    return {
        name: dataclasses.replace(one, value=found[name]) if name in found else one
        for name, one in metrics.items()
    }
