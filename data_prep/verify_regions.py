"""Checks the boxes and masks of a prepared set, for `data_prep.verify`."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from PIL import Image, UnidentifiedImageError

from data_prep.kit.image_regions import RegionSums
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import regions as regions_lib
from prior_jax.data import schema
from prior_jax.errors import DataError


def record_failures(record: schema.Record) -> Iterator[str]:
    """Yields the boxes that leave their image, and the masks that are not of its size."""
    sizes = {}
    for place in sorted(set(record.region_images)):
        try:
            with Image.open(io.BytesIO(record.images[place])) as image:
                sizes[place] = image.size
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            detail = str(error).split("<_io")[0]
            yield f"Study {record.study_id}: Image {place} has regions and cannot be read: {detail}"
    rows = zip(record.region_images, record.region_boxes, record.region_masks, strict=True)
    for number, (place, box, mask) in enumerate(rows):
        if place not in sizes:
            continue
        said = f"Study {record.study_id}: Region {number}, {record.region_labels[number]!r}"
        width, height = sizes[place]
        x1, y1, x2, y2 = box
        nothing = np.isnan(box).all()
        if not nothing and not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            yield f"{said}: The box {box} is not within its image of {width}x{height} pixels."
        try:
            shape = regions_lib.decoded_mask(mask).shape if mask else (height, width)
        except DataError as error:
            yield f"{said}: {error}"
            continue
        if shape != (height, width):
            yield f"{said}: The mask has {shape[::-1]} pixels, but its image {(width, height)}."


def total_failures(
    manifest: manifest_lib.Manifest, counted: Iterable[Mapping[str, Sequence[int]]]
) -> Iterator[str]:
    """Yields the differences between the records' regions and the counts of the manifest."""
    found = RegionSums.merged(counted).counts()
    none = manifest_lib.RegionCounts(regions=0, boxes=0, masks=0, phrases=0)
    for label in sorted(found.keys() | manifest.regions.keys()):
        present, listed = found.get(label, none), manifest.regions.get(label, none)
        for name in ("regions", "boxes", "masks", "phrases"):
            if getattr(present, name) != getattr(listed, name):
                yield (
                    f"Regions of {label}: The records have {getattr(present, name)} {name}, but "
                    f"the manifest counts {getattr(listed, name)}."
                )
        if listed.clipped > listed.boxes:
            yield f"Regions of {label}: The manifest has more boxes cut off than boxes."
