"""The boxes and masks of findings that `data_prep.phantom` lists and draws beside its images."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from data_prep.kit.image_regions import ImageRegion
from prior_jax.errors import DataError, first_line

FINDINGS = "phantom/findings.jsonl"
"""Path of the list of findings in the folder of a phantom."""
BITS = 8


def read_regions(path: pathlib.Path) -> dict[int, np.ndarray]:
    """Reads the masks of a file under phantom/masks: {bit: bool[H, W]}; bit 7 is the lungs."""
    with Image.open(path) as image:
        regions = np.asarray(image)
    return {bit: (regions >> bit) & 1 > 0 for bit in range(BITS)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawnRegions:
    """The findings of a phantom's images.

    Attributes:
      path: the file phantom/findings.jsonl; the masks lie in phantom/masks beside it.
    """

    path: pathlib.Path

    def of(self, image_id: str) -> Sequence[ImageRegion]:
        """Returns the findings of an image, each with its box and its mask.

        A finding that covers no pixel, and all findings of a lateral image, are left out: nothing
        is drawn of them.

        Raises:
          DataError: if the list has no such image; the message names the flag.
        """
        line = _lines(self.path).get(image_id)
        if line is None:
            raise DataError(
                f"{self.path} has no line of the image {image_id}.",
                "Give phantom/findings.jsonl of the phantom that the images are of.",
                where="--findings",
            )
        found = [one for one in line["findings"] if one.get("box") is not None]
        root = self.path.parent.parent
        return [_region(one, root / line["mask"]) for one in found if line["mask"]]


@functools.lru_cache(maxsize=1)
def _lines(path: pathlib.Path) -> Mapping[str, Any]:
    """Returns the lines of the list by the id of their image."""
    try:
        with path.open(encoding="utf-8") as lines:
            return {line["dicom_id"]: line for line in map(json.loads, lines)}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"The file is no list of findings ({first_line(error)}).",
            "Give phantom/findings.jsonl of a phantom.",
            where="--findings",
        ) from error


def _region(finding: Mapping[str, Any], mask: pathlib.Path) -> ImageRegion:
    """Returns the region of a finding, whose mask is read when it is drawn."""
    left, top, width, height = finding["box"]

    def drawn(rows: int, columns: int) -> np.ndarray:
        del rows, columns  # a mask of another size is refused where masks are moved
        return read_regions(mask)[finding["bit"]]

    box = (float(left), float(top), float(left + width), float(top + height))
    return ImageRegion(label=finding["label"], box=box, mask=drawn)
