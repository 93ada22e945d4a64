"""Reads the masks of a phantom's findings, resized like the model's images."""

import json
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image

from data_prep import drawn_regions
from prior_jax.data import fitting
from prior_jax.data import image as image_lib
from prior_jax.errors import DataError

LUNGS = 7
"""Bit of the lungs; see docs/phantom.md."""
SIDES = ("right", "left")
_HALF = 128  # out of 255: a pixel belongs to a region that covers at least half of the pixel


def check_drawn(folder: pathlib.Path, *, field: str) -> pathlib.Path:
    """Returns the path of the list of findings of the phantom in a folder.

    Raises:
      DataError: if no phantom was drawn in the folder; the message names the field.
    """
    path = folder / drawn_regions.FINDINGS
    if not path.is_file():
        raise DataError(
            f"{folder} holds no phantom: phantom/findings.jsonl is missing.",
            "Give the folder that data_prep.phantom drew the images of the set into.",
            where=field,
        )
    return path


def is_drawn_set(path: str, *, drawn: pathlib.Path) -> bool:
    """Returns whether a prepared set is the one that a run made of the phantom that it drew.

    Args:
      path: folder of the prepared set.
      drawn: folder that the run draws a phantom into, if it draws one.
    """
    made = (drawn / drawn_regions.FINDINGS).is_file()
    return made and pathlib.Path(path).resolve() == (drawn.parent / "set").resolve()


class PhantomMasks:
    """The masks that `data_prep.phantom` wrote beside its images."""

    def __init__(self, folder: pathlib.Path, *, field: str):
        """Reads the list of findings.

        Args:
          folder: folder that the phantom was drawn into.
          field: field of the config that names the folder, for errors.

        Raises:
          DataError: if no phantom was drawn in the folder.
        """
        self._folder = folder
        with check_drawn(folder, field=field).open() as lines:
            self._images = {line["dicom_id"]: line for line in map(json.loads, lines)}

    def findings(
        self, image_id: str, *, size: int, fit: fitting.Fit = "stretch"
    ) -> Mapping[str, np.ndarray]:
        """Returns the masks of an image's findings.

        Args:
          image_id: dicom_id of the image.
          size: side of the model's image, in pixels.
          fit: how the model's image becomes a square.

        Returns:
          Label -> bool[size, size], the union of the label's findings; a label whose mask has no
          pixel is left out.

        Raises:
          DataError: if the phantom has no such image, or no mask of the image.
        """
        line = self._line(image_id)
        regions = self._regions(line)
        found: dict[str, np.ndarray] = {}
        for finding in line["findings"]:
            drawn = regions[finding["bit"]] | found.get(finding["label"], False)
            found[finding["label"]] = drawn
        small = {label: _resized(mask, size=size, fit=fit) for label, mask in found.items()}
        return {label: mask for label, mask in small.items() if mask.any()}

    def lung_centres(
        self, image_ids: Iterable[str], *, size: int
    ) -> dict[str, tuple[float, float]]:
        """Returns the mean centre of each lung.

        Args:
          image_ids: dicom_ids of the images to average over.
          size: side of the model's image, in pixels.

        Returns:
          Side of the patient, "right" or "left" -> (row, column) as shares of height and width: the
          mean over the images of the centroid of the lung pixels on that side of the centroid of
          both lungs. In a frontal image the patient's right is on the left.

        Raises:
          DataError: if the phantom lacks an image, or no image shows lungs.
        """
        found = []
        for image_id in image_ids:
            lungs = _resized(self._regions(self._line(image_id))[LUNGS], size=size)
            rows, columns = (np.nonzero(lungs)[axis] + 0.5 for axis in (0, 1))
            right = columns < columns.mean() if rows.size else np.zeros(0, bool)
            if right.any() and not right.all():
                sides = (right, ~right)
                found.append([(rows[side].mean(), columns[side].mean()) for side in sides])
        if not found:
            raise DataError(
                "No image of the training split has a mask of both lungs.",
                "Draw the phantom again, with more studies, with data_prep.phantom.",
                where=str(self._folder),
            )
        means = np.mean(found, axis=0) / size
        return {side: (float(y), float(x)) for side, (y, x) in zip(SIDES, means, strict=True)}

    def _line(self, image_id: str) -> Mapping:
        if image_id not in self._images:
            raise DataError(
                f"The phantom has no image {image_id!r}.",
                "Give the folder of the phantom that the prepared set was made from.",
                where=str(self._folder),
            )
        return self._images[image_id]

    def _regions(self, line: Mapping) -> Mapping[int, np.ndarray]:
        path = self._folder / (line["mask"] or "phantom/masks")
        if not path.is_file():
            raise DataError(
                f"Image {line['dicom_id']!r}, a {line['view']} view, has no mask.",
                "Prepare the set with frontal images alone (--views=PA,AP), and keep the folder "
                "phantom/masks of the phantom.",
                where=str(path),
            )
        return drawn_regions.read_regions(path)


def _resized(mask: np.ndarray, *, size: int, fit: fitting.Fit = "stretch") -> np.ndarray:
    """Returns the mask as bool[size, size], resized as `prior_jax.data.fitting` resizes images."""
    pixels = Image.fromarray(mask.astype(np.uint8) * np.uint8(image_lib.PIXEL_MAXIMUM))
    return np.asarray(fitting.resize(pixels, size=size, fit=fit)) >= _HALF
