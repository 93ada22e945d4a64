"""Boxes and masks of findings, from the pixels of a file to those of the stored image."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from prior_jax.data import regions, schema
from prior_jax.data.decode import ImageProblem
from prior_jax.data.manifest import RegionCounts

DrawMask = Callable[[int, int], np.ndarray]
"""Function from height and width of the file's image, in pixels, to a mask, bool[height, width].

It raises an `ImageProblem`, such as `mask_outside_image`, if there is no such mask.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageRegion:
    """A box or a mask, or both, in pixels of the file, before its EXIF orientation is applied.

    Attributes:
      label: name of the finding.
      phrase: phrase that describes the region, "" for none.
      box: x1, y1, x2, y2, see `prior_jax.data.regions`; None for none.
      mask: function that draws the mask, or None for none.
      may_be_empty: whether a mask without a pixel says that the finding is not there, so that there
        is no region; otherwise it is refused.
      drawn_on: height and width in pixels of the image that the box was drawn on, where that is
        known. A file of that image at another size moves the box along; None for the file itself.
    """

    label: str
    phrase: str = ""
    box: schema.Box | None = None
    mask: DrawMask | None = None
    may_be_empty: bool = False
    drawn_on: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredRegions:
    """Regions of a record; the attributes are the fields of a `schema.Record`, without "region_".

    `clipped` has the label of each box that reached over the edge of its image.
    """

    images: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    boxes: tuple[schema.Box, ...] = ()
    masks: tuple[bytes, ...] = ()
    clipped: tuple[str, ...] = ()

    def __add__(self, other: "StoredRegions") -> "StoredRegions":
        """Returns these regions and then the others."""
        names = [field.name for field in dataclasses.fields(self)]
        return StoredRegions(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def fields(self) -> dict[str, Any]:
        """Returns the fields of a record."""
        names = ("images", "labels", "phrases", "boxes", "masks")
        return {f"region_{name}": getattr(self, name) for name in names}


def stored_regions(
    found: Iterable[ImageRegion], *, image: int, place: regions.Transform
) -> StoredRegions:
    """Moves the regions of an image to the pixels of the stored image.

    A box that reaches over the edge of the image is cut off there. A mask so small that shrinking
    would leave nothing of it keeps the pixels that it falls into.

    Args:
      found: regions of the image, in pixels of the file.
      image: index of the image in the record.
      place: change from the pixels of the file to those of the stored image.

    Raises:
      ImageProblem: `box_without_area`, `box_outside_image` and `image_of_another_size`,
        `mask_of_another_size` and `empty_mask`, or what drawing a mask raises.
    """
    stored = StoredRegions()
    for region in found:
        box, mask, clipped = regions.NO_BOX, b"", ()
        if region.box is not None:
            box, over = _moved_box(region, place)
            clipped = (region.label,) * over
        if region.mask is not None:
            drawn = _drawn_mask(region.mask, place, label=region.label)
            if not drawn.any():
                if region.may_be_empty:
                    continue
                raise ImageProblem("empty_mask", f"The mask of {region.label} has no pixel.")
            mask = regions.encoded_mask(regions.kept_mask(drawn, place))
        stored += StoredRegions(
            images=(image,),
            labels=(region.label,),
            phrases=(region.phrase,),
            boxes=(box,),
            masks=(mask,),
            clipped=clipped,
        )
    return stored


def _moved_box(region: ImageRegion, place: regions.Transform) -> tuple[schema.Box, bool]:
    """Returns the box of the stored image, and whether it was cut off at the edge."""
    x1, y1, x2, y2 = box = _of_file(region, place.before)
    height, width = place.before
    said = f"The box of {region.label}, x {x1:g} to {x2:g} and y {y1:g} to {y2:g},"
    if not (x1 < x2 and y1 < y2):
        raise ImageProblem("box_without_area", f"{said} has no area.")
    (moved,) = regions.moved_boxes(np.array([box]), place)
    if np.isnan(moved).any():
        detail = f"{said} is outside of the image of {width}x{height} pixels."
        raise ImageProblem("box_outside_image", detail)
    a, b, c, d = moved.tolist()
    return (a, b, c, d), x1 < 0 or y1 < 0 or x2 > width or y2 > height


def _of_file(region: ImageRegion, size: tuple[int, int]) -> schema.Box:
    """Returns the box of a region in pixels of the file, whose height and width are `size`."""
    x1, y1, x2, y2 = region.box or regions.NO_BOX
    if region.drawn_on in (None, size):
        return x1, y1, x2, y2
    (height, width), (rows, columns) = size, region.drawn_on
    down, right = height / rows, width / columns
    # A side that was shrunk along with the other is off by its rounding alone.
    if abs(rows * right - height) > 1 and abs(columns * down - width) > 1:
        detail = f"The box of {region.label} was drawn on an image of {columns}x{rows} pixels"
        said = f"{detail}, and the file has {width}x{height}, which are other proportions."
        raise ImageProblem("image_of_another_size", said)
    return x1 * right, y1 * down, x2 * right, y2 * down


def _drawn_mask(draw: DrawMask, place: regions.Transform, *, label: str) -> np.ndarray:
    height, width = place.before
    mask = np.asarray(draw(height, width), bool)
    if mask.shape != place.before:
        detail = f"The mask of {label} has {mask.shape[1]}x{mask.shape[0]} pixels, and the image"
        raise ImageProblem("mask_of_another_size", f"{detail} {width}x{height}.")
    return mask


@dataclasses.dataclass
class RegionSums:
    """Counts of regions by label.

    Attributes:
      sums: label -> numbers of regions, boxes, masks, phrases and clipped boxes, as
        `RegionCounts` names them.
    """

    sums: dict[str, list[int]] = dataclasses.field(default_factory=dict)

    def add(self, record: schema.Record, *, clipped: Sequence[str] = ()) -> None:
        """Counts the regions of a record."""
        parts = (record.region_labels, record.region_boxes, record.region_masks)
        for label, box, mask, phrase in zip(*parts, record.region_phrases, strict=True):
            with_box = not np.isnan(box).any()
            self._add(label, (1, int(with_box), int(bool(mask)), int(bool(phrase)), 0))
        for label in clipped:
            self._add(label, (0, 0, 0, 0, 1))

    def _add(self, label: str, counts: Sequence[int]) -> None:
        before = self.sums.get(label, [0] * len(counts))
        self.sums[label] = [a + b for a, b in zip(before, counts, strict=True)]

    @classmethod
    def merged(cls, several: Iterable[Mapping[str, Sequence[int]]]) -> "RegionSums":
        """Returns the sums of several."""
        total = cls()
        for sums in several:
            for label, counts in sums.items():
                total._add(label, counts)
        return total

    def counts(self) -> dict[str, RegionCounts]:
        """Returns the counts of each label, sorted by label, for the manifest."""
        names = [field.name for field in dataclasses.fields(RegionCounts)]
        return {
            label: RegionCounts(**dict(zip(names, self.sums[label], strict=True)))
            for label in sorted(self.sums)
        }
