"""Makes the record of an image with labels, boxes or masks but without a report."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from data_prep.kit import dicom_header, preparer
from data_prep.kit.image_regions import ImageRegion
from data_prep.kit.outcomes import Kept, Rejection
from data_prep.kit.plan import PlannedImage
from data_prep.kit.preparer import ImageFile
from data_prep.kit.settings import StoreSettings
from prior_jax.data import schema

TEXTLESS: Mapping[str, Any] = {
    "impression": "",
    "findings": "",
    "sentences": (),
    "sentence_sections": (),
    "text_source": schema.TEXT_NONE,
}
"""Fields of a record without a report."""

RegionsOf = Callable[[Any], Sequence[ImageRegion]]
"""Picklable function from the `regions` of a case to the regions of its image."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledStudies:
    """Makes the record of a case, in a worker process."""

    images_dir: pathlib.Path
    settings: StoreSettings
    table: str
    regions_of: RegionsOf
    headers: bool = False

    def __call__(self, images: Sequence[PlannedImage]) -> Iterator[Kept | Rejection]:
        """Yields the record, or why there is none."""
        (image,) = images
        case = dict(image.data)
        if self.headers:
            header = dicom_header.read(self.images_dir / case["path"])
            case.update({name: case[name] or header[name] for name in header})
        file = ImageFile(
            id=case["id"],
            path=self.images_dir / case["path"],
            name=case["path"],
            view=case["view"],
            reject_as=image.id,
            rows=image.rows,
            regions=self.regions_of(case["regions"]),
        )
        known = {} if case["age"] is None else {"age": float(case["age"])}
        yield from preparer.study_outcome(
            [file],
            stored=self.settings.stored(self.table),
            fields={
                "study_id": image.study,
                "subject_id": image.patient,
                "labels": tuple(case["labels"]),
                "sex": case["sex"],
                **known,
                **TEXTLESS,
            },
        )
