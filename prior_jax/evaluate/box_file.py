"""The file of a detector's boxes beside its results, from which pictures are drawn."""

import dataclasses
import io
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from prior_jax.data.array_file import read_arrays
from prior_jax.data.schema import write_atomically
from prior_jax.errors import DataError, first_line
from prior_jax.evaluate.detection import ImageBoxes
from prior_jax.evaluate.pictures import Choice

SUFFIX = ".boxes.npz"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownImage:
    """An image whose boxes the report shows.

    Attributes:
      choice: reason why the image is shown; `index` is its place among the N images.
      image: the model's image in grey, uint8[H, W].
    """

    choice: Choice
    image: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeptBoxes:
    """True and predicted boxes of N images.

    Attributes:
      images: boxes of each image, in pixels of the model's image.
      record: index of each image's record in its split, int32[N].
      ids: id of each image's study, N.
      size: height and width of the images in pixels.
      classes: names of the classes.
      threshold: least score of the boxes that are shown, from `box_choice.threshold_of`.
      shown: images that the report shows, from `box_choice.choose_images`.
    """

    images: tuple[ImageBoxes, ...]
    record: np.ndarray
    ids: tuple[str, ...]
    size: tuple[int, int]
    classes: tuple[str, ...]
    threshold: float = 0.0
    shown: tuple[ShownImage, ...] = ()


def save(path: pathlib.Path, kept: KeptBoxes) -> None:
    """Writes the boxes as flat arrays, and replaces an older file atomically.

    The arrays are `record` int32[N], `ids` str[N], `size` int32[2], `classes` str[K]; of the true
    boxes `truth` float32[T, 4], `truth_classes` int32[T] and `truth_counts` int32[N], how many of
    them each image has; of the predicted ones `boxes` float32[P, 4], `scores` float32[P],
    `box_classes` int32[P] and `box_counts` int32[N]; `threshold` float64[]; and of the S images
    that are shown `shown_kind` str[S], `shown_place` int32[S, 3] (index, rank and number of ranks)
    and `shown_image` uint8[S, H, W].
    """
    images, shown = kept.images, kept.shown
    places = [(one.choice.index, one.choice.rank, one.choice.count) for one in shown]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        record=np.asarray(kept.record, np.int32),
        ids=np.asarray(kept.ids, str),
        size=np.asarray(kept.size, np.int32),
        classes=np.asarray(kept.classes, str),
        truth=_joined([one.truth for one in images], np.float32, 4),
        truth_classes=_joined([one.truth_classes for one in images], np.int32),
        truth_counts=np.asarray([len(one.truth) for one in images], np.int32),
        boxes=_joined([one.boxes for one in images], np.float32, 4),
        scores=_joined([one.scores for one in images], np.float32),
        box_classes=_joined([one.classes for one in images], np.int32),
        box_counts=np.asarray([len(one.boxes) for one in images], np.int32),
        threshold=np.float64(kept.threshold),
        shown_kind=np.asarray([one.choice.kind for one in shown], str),
        shown_place=np.asarray(places, np.int32).reshape(len(shown), 3),
        shown_image=np.asarray([one.image for one in shown], np.uint8).reshape(-1, *kept.size),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def load(path: os.PathLike[str] | str) -> KeptBoxes:
    """Reads the boxes that `save` wrote.

    Raises:
      DataError: if the file is absent or damaged; the error names it.
    """
    try:
        found = read_arrays(path)
        truth = _cut(found, "truth_counts", "truth", "truth_classes")
        boxes = _cut(found, "box_counts", "boxes", "scores", "box_classes")
        height, width = (int(side) for side in found["size"])
        return KeptBoxes(
            images=tuple(
                ImageBoxes(truth=t[0], truth_classes=t[1], boxes=b[0], scores=b[1], classes=b[2])
                for t, b in zip(truth, boxes, strict=True)
            ),
            record=found["record"],
            ids=tuple(str(one) for one in found["ids"]),
            size=(height, width),
            classes=tuple(str(one) for one in found["classes"]),
            threshold=float(found["threshold"]),
            shown=tuple(
                ShownImage(choice=choice_of(kind, place), image=image)
                for kind, place, image in zip(
                    found["shown_kind"], found["shown_place"], found["shown_image"], strict=True
                )
            ),
        )
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"The boxes of the detector cannot be read ({first_line(error)}).",
            "Delete the file, and run launch.evaluate again for this task.",
            where=str(path),
        ) from error


def choice_of(kind: object, place: Sequence[int]) -> Choice:
    """Returns a choice from its kind and from its index, its rank and the number of ranks."""
    index, rank, count = (int(one) for one in place)
    return Choice(kind=str(kind), index=index, rank=rank, count=count)  # type: ignore[arg-type]


def _joined(parts: Sequence[np.ndarray], kind: type, *shape: int) -> np.ndarray:
    """Returns the rows of all images, also where there are none."""
    return np.concatenate([np.zeros((0, *shape)), *parts]).astype(kind)


def _cut(found: dict[str, np.ndarray], counts: str, *names: str) -> list[tuple[np.ndarray, ...]]:
    """Returns the rows of each image, of each of the arrays."""
    ends = np.cumsum(found[counts])[:-1] if len(found[counts]) else []
    return list(zip(*(np.split(found[name], ends) for name in names), strict=True))
