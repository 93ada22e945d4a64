"""The file of a segmentation model's counts and of some of its masks, beside its results."""

import dataclasses
import io
import os
import pathlib

import numpy as np

from prior_jax.data.array_file import read_arrays
from prior_jax.data.schema import write_atomically
from prior_jax.errors import DataError, first_line
from prior_jax.evaluate.box_file import choice_of
from prior_jax.evaluate.pictures import Choice, choose

SUFFIX = ".masks.npz"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownMasks:
    """True and predicted masks of one image, for the report.

    Attributes:
      choice: reason why the image is shown; `index` is its place among the N images.
      image: the model's image in grey, uint8[H, W].
      predicted: predicted masks of the classes, bool[H, W, K].
      truth: true masks, bool[H, W, K].
    """

    choice: Choice
    image: np.ndarray
    predicted: np.ndarray
    truth: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeptMasks:
    """The pixels of the masks of N images, counted, and the masks of some of them.

    Attributes:
      both: pixels in the predicted and in the true mask of each class, int64[N, K].
      predicted: pixels in the predicted mask, int64[N, K].
      truth: pixels in the true mask, int64[N, K].
      record: index of each image's record in its split, int32[N].
      ids: id of each image's study, N.
      size: height and width of the images in pixels.
      classes: names of the classes, K.
      shown: the best, the median and the worst images.
    """

    both: np.ndarray
    predicted: np.ndarray
    truth: np.ndarray
    record: np.ndarray
    ids: tuple[str, ...]
    size: tuple[int, int]
    classes: tuple[str, ...]
    shown: tuple[ShownMasks, ...] = ()

    @property
    def dice(self) -> np.ndarray:
        """Returns the Dice coefficient of each image and class, float64[N, K]; 1 for two empty."""
        either = self.predicted + self.truth
        return np.where(either > 0, 2 * self.both / np.maximum(either, 1), 1.0)

    @property
    def dice_of_image(self) -> np.ndarray:
        """Returns that of the pixels of all classes of each image, float64[N].

        It is NaN for an image without a true mask.
        """
        both, predicted, truth = (
            part.sum(axis=1) for part in (self.both, self.predicted, self.truth)
        )
        found = 2 * both / np.maximum(predicted + truth, 1)
        return np.where(truth > 0, found, np.nan)

    def chosen(self) -> list[Choice]:
        """Returns the best, the median and the worst images.

        Those that have a true mask are ranked by their Dice coefficient. After them come, one of
        each kind, those without one, of which the best has the fewest predicted pixels.
        """
        truth, predicted = self.truth.sum(axis=1), self.predicted.sum(axis=1)
        without = np.where(truth > 0, np.nan, -predicted.astype(np.float64))
        return [*choose(self.dice_of_image, truth), *choose(without, without, each=1)]


def save(path: pathlib.Path, kept: KeptMasks) -> None:
    """Writes the arrays, and replaces an older file atomically.

    They are the fields of `KeptMasks`, and of the images that are shown `shown_kind` str[S],
    `shown_place` int32[S, 3] (index, rank and number of ranks), `shown_image` uint8[S, H, W], and
    `shown_masks` uint8[2, S, P], the bits of the predicted and the true masks.
    """
    shown, shape = kept.shown, (*kept.size, len(kept.classes))
    masks = [[one.predicted for one in shown], [one.truth for one in shown]]
    bits = np.asarray(masks, bool).reshape(2, len(shown), int(np.prod(shape)))
    places = [(one.choice.index, one.choice.rank, one.choice.count) for one in shown]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        both=kept.both,
        predicted=kept.predicted,
        truth=kept.truth,
        record=np.asarray(kept.record, np.int32),
        ids=np.asarray(kept.ids, str),
        size=np.asarray(kept.size, np.int32),
        classes=np.asarray(kept.classes, str),
        shown_kind=np.asarray([one.choice.kind for one in shown], str),
        shown_place=np.asarray(places, np.int32).reshape(len(shown), 3),
        shown_image=np.asarray([one.image for one in shown], np.uint8).reshape(-1, *kept.size),
        shown_masks=np.packbits(bits, axis=2),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def load(path: os.PathLike[str] | str) -> KeptMasks:
    """Reads what `save` wrote.

    Raises:
      DataError: if the file is absent or damaged; the error names it.
    """
    try:
        found = read_arrays(path)
        height, width = (int(side) for side in found["size"])
        classes = tuple(str(one) for one in found["classes"])
        shape = (height, width, len(classes))
        bits = np.unpackbits(found["shown_masks"], axis=2, count=int(np.prod(shape)))
        predicted, truth = bits.astype(bool).reshape(2, -1, *shape)
        rows = zip(
            found["shown_kind"], found["shown_place"], found["shown_image"], predicted, truth,
            strict=True,
        )  # fmt: skip
        return KeptMasks(
            both=found["both"],
            predicted=found["predicted"],
            truth=found["truth"],
            record=found["record"],
            ids=tuple(str(one) for one in found["ids"]),
            size=(height, width),
            classes=classes,
            shown=tuple(
                ShownMasks(
                    choice=choice_of(kind, place),
                    image=image,
                    predicted=one,
                    truth=other,
                )
                for kind, place, image, one, other in rows
            ),
        )
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"The masks of the segmentation cannot be read ({first_line(error)}).",
            "Delete the file, and run launch.evaluate again for this task.",
            where=str(path),
        ) from error
