"""Compares the rows of a data set: fills in missing patients and splits, finds contradictions."""

import itertools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_prep.kit import splits, values
from data_prep.kit.outcomes import Rejection
from data_prep.kit.planned import ROWS, PlannedArrays, PlannedImage, read_image
from prior_jax.data import schema

_MOST_DETAIL = 400


def inherit(
    images: PlannedArrays,
    directory: pathlib.Path,
    *,
    patient_given: np.ndarray,
    split_given: np.ndarray,
) -> None:
    """Fills in missing patients and splits from other rows of the same study or patient.

    An image whose row names no patient takes the patient that another image of its study names.
    An image whose row names no split takes the split that another image of its patient names, so
    that a patient's split is drawn only if none of the patient's rows names a split.

    Args:
      images: images of the plan; their patients, splits and offsets are changed.
      directory: folder of the plan, into which changed images are written anew.
      patient_given: bool[N], whether the row names the patient.
      split_given: bool[N], whether the row names the split.
    """
    if patient_given.all() and split_given.all():
        return
    own = np.arange(len(images.ids))
    relative = _first_with(patient_given, groups=images.studies)
    heirs = ~patient_given & (relative >= 0)
    images.patients[heirs] = images.patients[relative[heirs]]
    named = _first_with(split_given, groups=images.patients)
    # The split that was drawn for the patient's own id, not for the id of a study.
    drawn = np.where(heirs, _first_with(~heirs, groups=images.patients), own)
    codes = np.where(split_given, images.codes, images.codes[np.where(named >= 0, named, drawn)])
    changed = heirs | (codes != images.codes)
    images.codes = codes
    with open(directory / ROWS, "r+b") as file:

        def line_at(place: Any) -> dict[str, Any]:
            file.seek(int(images.offsets[place]))
            return json.loads(file.readline())

        for place in np.flatnonzero(changed):
            image = line_at(place)
            if heirs[place]:
                image["patient"] = line_at(relative[place])["patient"]
            image["split"] = int(codes[place])
            images.offsets[place] = file.seek(0, 2)
            file.write(json.dumps(image).encode() + b"\n")


def _first_with(chosen: np.ndarray, *, groups: np.ndarray) -> np.ndarray:
    """Returns int[N]: for each row, the first chosen row of its group, or -1 if there is none."""
    _, group = np.unique(groups, return_inverse=True)
    first = np.full(group.max(initial=-1) + 1, -1)
    backwards = np.flatnonzero(chosen)[::-1]
    first[group[backwards]] = backwards  # if a group has several, the last one written stays
    return first[group]


def consistent(
    images: PlannedArrays,
    *,
    directory: pathlib.Path,
    reject: Callable[[Rejection], None],
    table: str,
    keep_leaks: bool = False,
    excluded: np.ndarray | None = None,
) -> np.ndarray:
    """Rejects the images that contradict others, or are excluded, and returns the rest's indices.

    Args:
      images: images of the plan.
      directory: folder of the plan.
      reject: function that is called for each image that is left out.
      table: name of the table whose rows the images are.
      keep_leaks: whether patients may stand in two splits.
      excluded: bool[N], whether the preparer excludes the image; its row is compared first. None
        if none is excluded.
    """
    if not len(images.ids):
        return np.zeros(0, np.int64)

    def refuse(place: int, reason: str, detail: str = "") -> None:
        image = read_image(directory, int(images.offsets[place]))
        split = schema.SPLITS[image.split]
        detail = detail or f"patient {image.patient}, study {image.study}, {split}"
        detail += f"; line {image.line}" if image.line else ""
        reject(Rejection(id=image.id, reason=reason, detail=detail, rows=image.rows, table=table))

    alone = np.ones(len(images.ids), bool)
    for place, reason, detail in _repeated_rows(images, directory):
        alone[place] = False
        refuse(place, reason, detail)
    _, of_patient = np.unique(images.patients, return_inverse=True)
    mixed = splits.subjects_in_two_splits(images.studies, of_patient)
    leaking = splits.subjects_in_two_splits(images.patients, images.codes)
    if keep_leaks:
        leaking[:] = False
    for place in np.flatnonzero(alone & mixed):
        refuse(int(place), "study_in_two_patients")
    for place in np.flatnonzero(alone & ~mixed & leaking):
        refuse(int(place), "patient_in_two_splits")
    keep = alone & ~mixed & ~leaking
    for place in np.flatnonzero(keep & excluded) if excluded is not None else ():
        image = read_image(directory, int(images.offsets[place]))
        refuse(int(place), *(image.excluded or ("", "")))
        keep[place] = False
    return np.flatnonzero(keep)


def _repeated_rows(
    images: PlannedArrays, directory: pathlib.Path
) -> Iterator[tuple[int, str, str]]:
    """Yields index, reason and detail of each row to reject because another has the same id.

    Of equal rows the first is kept; of rows that differ, none.
    """
    for places in _repeated(images.ids):
        found = [read_image(directory, int(images.offsets[place])) for place in places]
        difference, first = _difference(found), found[0].line
        repeats = f"it repeats the row of line {first}" if first else ""
        for place in places if difference else places[1:]:
            if difference:
                yield place, "conflicting_rows", difference
            else:
                yield place, "duplicate_row", repeats


def _repeated(ids: np.ndarray) -> Iterator[list[int]]:
    """Yields the indices of each id that occurs more than once, in order."""
    _, group, counts = np.unique(ids, return_inverse=True, return_counts=True)
    places = np.flatnonzero(counts[group] > 1)
    places = places[np.argsort(group[places], kind="stable")]
    for _, members in itertools.groupby(places.tolist(), key=group.__getitem__):
        yield list(members)


def _difference(images: Sequence[PlannedImage]) -> str:
    """Returns a description of how the rows of one id differ, "" if they are equal."""
    said = [_said(image) for image in images]
    fields = [name for name in said[0] if any(row.get(name) != said[0].get(name) for row in said)]
    if not fields:
        return ""
    told = []
    for name in fields:
        different = dict.fromkeys(json.dumps(row.get(name), ensure_ascii=False) for row in said)
        told.append(f"{name} ({' and '.join(different)})")
    text = f"{len(images)} rows of one image differ in {', '.join(told)}"
    rest = "; an image has one row, so none of them is kept"
    return (text if len(text) <= _MOST_DETAIL else f"{text[:_MOST_DETAIL]} ...") + rest


def _said(image: PlannedImage) -> Mapping[str, Any]:
    patient = values.comparable_id(image.patient)
    said = {"study": image.study, "patient": patient, "split": image.split}
    return {**said, "excluded": image.excluded, **image.data}
