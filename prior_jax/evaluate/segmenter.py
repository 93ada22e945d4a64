"""Measures a segmentation model: the masks that it finds on a split, in each paper's counting."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prior_jax.errors import DataError, check_field
from prior_jax.evaluate import bootstrap, segmentation, undefined
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import not_finite, to_host
from prior_jax.evaluate.mask_file import KeptMasks
from prior_jax.evaluate.mask_scores import counts
from prior_jax.evaluate.metrics import mean_of_defined
from prior_jax.evaluate.results import TaskResult
from prior_jax.near_names import check_classes, slug
from prior_jax.objectives.base import Segments
from prior_jax.objectives.segmentation import masks_of
from prior_jax.types import Batch

PIXELS = ("dice", "iou", "precision", "recall")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmenterConfig:
    """Settings of the measurement of a segmentation model.

    Attributes:
      threshold: probability above which a pixel is inside; 0.5 in every release.
      inclusive: whether a pixel at the threshold is inside too, as in LoVT's release.
      release_batch: batch size by which `mean_dice` weights images as GLoRIA's and MGCA's releases
        do, those of a smaller last batch more (quirk G64); None weights all images alike.
    """

    threshold: float
    inclusive: bool
    release_batch: int | None

    def __post_init__(self):
        """Refuses values that define no measurement."""
        check_field(self, "threshold", 0 < self.threshold < 1, "above 0 and below 1")
        some = self.release_batch is None or self.release_batch >= 1
        check_field(self, "release_batch", some, "None or at least 1")

    @property
    def rule(self) -> str:
        """Returns in words which pixels are inside."""
        compared = "at least" if self.inclusive else "above"
        return f"a pixel is inside where its probability is {compared} {self.threshold:g}"


def inside(objective: Segments, config: SegmenterConfig) -> Callable[[Any, jax.Array], jax.Array]:
    """Returns the function from a model and images to the predicted masks, bool[B, H, W, K]."""
    odds = jnp.float32(math.log(config.threshold / (1 - config.threshold)))

    def predicted(model: Any, image: jax.Array) -> jax.Array:
        found = objective.segment(model, image)
        return found >= odds if config.inclusive else found > odds

    return predicted


def count(
    encoder: Encoder,
    objective: Segments,
    batches: Iterable[Batch],
    *,
    ids: Callable[[int], str],
    config: SegmenterConfig,
) -> KeptMasks:
    """Counts the pixels of the masks of every image of a split.

    Args:
      encoder: encoder of the model.
      objective: objective of the model.
      batches: batches of one pass over the split, with masks; rows of weight 0 are dropped.
      ids: function from the index of a record to the id of its study.
      config: settings of the measurement.

    Raises:
      DataError: if no batch holds a real row, or a log-odds is not a number.
    """
    compiled, parts, size = encoder.compiled(_counting(objective, config)), [], (0, 0)
    for batch in batches:
        size = batch.image.shape[1], batch.image.shape[2]
        rows = compiled(batch.image, masks_of(batch)), batch.weight, batch.record
        (found, broken), weight, record = to_host(rows)
        real = weight > 0
        if broken[real].any():
            raise not_finite("The log-odds of the masks")
        parts.append([one[real] for one in (*found, record)])
    if not any(len(part[-1]) for part in parts):
        raise DataError(
            "The split contains no record, so that there is nothing to segment.",
            "Choose a split that has records with --task.split, or all of its images.",
        )
    both, first, second, records = (np.concatenate(one) for one in zip(*parts, strict=True))
    return KeptMasks(
        both=both.astype(np.int64),
        predicted=first.astype(np.int64),
        truth=second.astype(np.int64),
        record=records,
        ids=tuple(ids(int(one)) for one in records),
        size=size,
        classes=objective.classes,
    )


def _counting(objective: Segments, config: SegmenterConfig):
    """Returns the function from a model, images and true masks to the counts of each image.

    It also tells which images have log-odds that are not numbers, bool[B].
    """
    predicted = inside(objective, config)

    def run(model: Any, image: jax.Array, truth: jax.Array):
        found = counts(predicted(model, image), truth)
        return found, jnp.isnan(objective.segment(model, image)).any(axis=(1, 2, 3))

    return run


def of_classes(kept: KeptMasks, names: Sequence[str]) -> KeptMasks:
    """Returns the counts of some of the classes alone."""
    columns = [kept.classes.index(name) for name in names]
    return dataclasses.replace(
        kept,
        both=kept.both[:, columns],
        predicted=kept.predicted[:, columns],
        truth=kept.truth[:, columns],
        classes=tuple(names),
    )


def evaluate_segmenter(
    kept: KeptMasks,
    *,
    patients: np.ndarray,
    config: SegmenterConfig,
    resampling: bootstrap.BootstrapConfig,
) -> TaskResult:
    """Computes the metrics of a segmentation model.

    Args:
      kept: counts of N images, of the classes that are measured alone.
      patients: patient of each image, [N]; the bootstrap resamples patients.
      config: settings of the measurement.
      resampling: settings of the bootstrap intervals.

    Returns:
      `pixel_dice` of the pixels of all images together (LoVT), with `iou`, `precision` and
      `recall`; `mean_dice`, the mean over images, where two empty masks count 1 (GLoRIA, MGCA);
      `mdice` and `miou`, the means over lesion and background (BenchX). Each is the mean over the
      classes that have a value; with several classes also `<metric>_<class>`.

    Raises:
      ConfigError: if two classes have one name in the columns.
    """
    check_classes(kept.classes, where="task.classes")
    share = _shares(len(kept.record), config.release_batch)
    statistics = functools.partial(_of_all, kept.classes, _pixels(kept), share=share)
    metrics = bootstrap.intervals(statistics, groups=patients, config=resampling)
    return TaskResult(
        metrics=metrics,
        settings={
            "classes": list(kept.classes),
            "segmenter": dataclasses.asdict(config),
            "rule": config.rule,
            "size": list(kept.size),
            **images_of(kept),
            "patients": len(np.unique(patients)),
            "bootstrap": dataclasses.asdict(resampling),
            "undefined": {name: _reason(name) for name in undefined.without_value(metrics)},
        },
        kept=kept,
    )


def images_of(kept: KeptMasks) -> dict[str, Any]:
    """Returns the numbers of images, with and without a lesion, as JSON values."""
    lesion, answered = (part.any(axis=1) for part in (kept.truth, kept.predicted))

    def by_class(part: np.ndarray) -> dict[str, int]:
        return dict(zip(map(slug, kept.classes), (part > 0).sum(axis=0).tolist(), strict=True))

    return {
        "records": len(kept.record),
        "images_with_lesion": int(lesion.sum()),
        "images_without_lesion": int((~lesion).sum()),
        "images_with_prediction": int(answered.sum()),
        "lesions": by_class(kept.truth),
        "predictions": by_class(kept.predicted),
    }


def _pixels(kept: KeptMasks) -> list[segmentation.MaskCounts]:
    """Returns the counts of each class."""
    return [
        segmentation.MaskCounts(
            both=kept.both[:, index],
            predicted=kept.predicted[:, index],
            truth=kept.truth[:, index],
            pixels=np.full(len(kept.record), kept.size[0] * kept.size[1], np.int64),
        )
        for index in range(len(kept.classes))
    ]


def _of_all(
    names: Sequence[str],
    classes: Sequence[segmentation.MaskCounts],
    weights: np.ndarray,
    *,
    share: np.ndarray,
) -> dict[str, np.ndarray]:
    """Computes the means over the classes, and of several classes also the metrics of each."""
    rows = [_of_class(one, weights=weights, share=share) for one in classes]
    found = {
        name: mean_of_defined(np.stack([row[name] for row in rows], axis=-1)) for name in rows[0]
    }
    if len(rows) > 1:
        for label, row in zip(names, rows, strict=True):
            found |= {f"{name}_{slug(label)}": value for name, value in row.items()}
    return found


def _of_class(
    one: segmentation.MaskCounts, *, weights: np.ndarray, share: np.ndarray
) -> dict[str, np.ndarray]:
    pixels = segmentation.pixel_scores(one, weights=weights)
    return {
        "pixel_dice": pixels["dice"],
        "mean_dice": segmentation.image_dice(one, weights=weights * share[None, :]),
        **segmentation.with_background(one, weights=weights),
        **{name: pixels[name] for name in PIXELS[1:]},
    }


def _reason(name: str) -> str:
    """Returns why a metric has no value."""
    if name.startswith("precision"):
        return "no pixel is predicted"
    if name.startswith("recall"):
        return "no image has a true mask"
    return "no image has a true or a predicted mask"


def _shares(images: int, batch: int | None) -> np.ndarray:
    """Returns the weight of each image, one over the size of its batch, or 1."""
    if batch is None:
        return np.ones(images)
    starts = np.arange(images) // batch * batch
    return 1 / (np.minimum(starts + batch, images) - starts)
