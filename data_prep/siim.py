"""SIIM-ACR pneumothorax: radiographs with masks -> a prepared set.

    python -m data_prep.siim --rle=train-rle.csv --images_dir=dicom-images-train --out=prepared

Source: the competition's train-rle.csv; GLoRIA's release,
gloria/datasets/preprocess_datasets.py (preprocess_pneumothorax_data) and image_dataset.py
(PneumothoraxImageDataset).
"""

import collections
import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from data_prep.kit import (
    cli,
    grouped_rows,
    id_lists,
    labelled,
    preparer,
    published_splits,
    rle,
    values,
)
from data_prep.kit.image_regions import ImageRegion
from data_prep.kit.plan import Plan, Reject, TableUse
from data_prep.kit.rle import NO_MASK
from data_prep.kit.row_cells import cells_of, required_id
from data_prep.kit.splits import HELD_OUT, shuffled_splits
from data_prep.kit.tables import TableRow
from prior_jax.data import manifest as manifest_lib
from prior_jax.data.decode import ImageProblem
from prior_jax.errors import ConfigError, DataError

PROGRAM = "data_prep.siim"
LABELS = ("Pneumothorax",)
MALFORMED = "malformed_annotation"

_MASK = re.compile(r"\d+\s+\d+(?:\s+\d+\s+\d+)*", re.ASCII)

Draws = np.random.Generator | np.random.RandomState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotation:
    """One row; an image has one row for each of its masks, or a single row without a mask.

    Attributes:
      image_id: id of the image, which is also the name of its file.
      rle: run-length mask, see rle.py; "-1" for no mask.
    """

    image_id: str
    rle: str

    @property
    def target(self) -> int:
        """Returns 1 with a pneumothorax, else 0."""
        return int(self.rle != NO_MASK)


def annotations(rows: Iterable[Mapping[str, Any]]) -> list[Annotation]:
    """Reads the rows of either stage; the first stage has a space before the column and the "-1".

    The release looks for the space, so that every image of the second stage's table has a
    pneumothorax, and "-1" is read as a mask (quirk G46).

    Raises:
      DataError: if a column or image is missing, in which case the message names the row, or if a
        cell is not a mask or an image has rows with and without a mask, in which case it names the
        image.
    """
    found = []
    masked: dict[str, bool] = {}
    for place, row in enumerate(rows, 1):
        cells = cells_of(row, ("ImageId", "EncodedPixels"), place=place)
        image_id = required_id(cells, "ImageId", place=place)
        rle = _mask(cells["EncodedPixels"], image_id=image_id)
        if masked.setdefault(image_id, rle != NO_MASK) != (rle != NO_MASK):
            raise DataError(
                "The rows of the image have EncodedPixels with -1 and a mask, which contradict "
                "each other.",
                "Leave out the wrong row.",
                where=image_id,
            )
        found.append(Annotation(image_id=image_id, rle=rle))
    return found


def _mask(cell: Any, *, image_id: str) -> str:
    """Returns a mask as text, "-1" for no mask, which a data frame writes as -1.0."""
    text = "" if values.is_missing(cell) else str(cell).strip()
    if text in (NO_MASK, f"{NO_MASK}.0"):
        return NO_MASK
    if not _MASK.fullmatch(text):
        raise DataError(
            f"EncodedPixels is {str(cell)[:60]!r}, which is not a run-length mask.",
            'Write it as "offset length offset length ...", or as "-1" for no mask.',
            where=image_id,
        )
    return text


def drawn_splits(
    found: Sequence[Annotation], *, mode: Literal["paper", "release"]
) -> dict[str, np.ndarray]:
    """Draws the splits: 70 %, 15 % and 15 %.

    Args:
      found: all rows, in the table's order.
      mode: "paper" draws images; "release" draws rows, so that an image with several masks may be
        in several splits, with some of its masks in each (quirk G47).

    Returns:
      Split -> int64 positions in `found`, in the order drawn.
    """
    by_image = [annotation.image_id for annotation in found]
    by_row = [str(position) for position in range(len(found))]
    return shuffled_splits(by_row if mode == "release" else by_image, held_out=HELD_OUT, seed=0)


def balanced_images(found: Sequence[Annotation], *, rng: Draws) -> list[str]:
    """Chooses images of a split to train segmentation on: as many without a mask as with one.

    Args:
      found: rows of the split.
      rng: random generator that draws the images without a mask; the release uses a global
        `numpy.random.RandomState`.

    Returns:
      Ids of the images, each once, those with masks first.

    Raises:
      DataError: if fewer images are without a mask than with one.
    """
    positive = _unique(a.image_id for a in found if a.target)
    negative = _unique(a.image_id for a in found if not a.target)
    if len(negative) < len(positive):
        raise DataError(
            f"There are {len(negative)} images without a mask for {len(positive)} with one.",
            "Give at least as many images without a mask as with one.",
        )
    chosen = set(rng.choice(negative, size=len(positive), replace=False).tolist())
    return positive + [image_id for image_id in negative if image_id in chosen]


def part_of_images(images: Sequence[str], *, fraction: float, rng: Draws) -> list[str]:
    """Draws a fraction of some images, rounded down, and keeps their order."""
    size = int(len(images) * fraction)
    chosen = set(rng.choice(list(images), size=size, replace=False).tolist())
    return [image_id for image_id in images if image_id in chosen]


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths(labelled.SplitPaths):
    """Where the raw data lies."""

    rle: str = cli.setting("The table train-rle.csv or stage_2_train.csv, with a row a mask.")
    images_dir: str = cli.setting("Folder of the .dcm images, also of folders of them.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(labelled.LabelledSettings):
    """What is kept, and how; recorded in the manifest."""

    split_rows: bool = cli.setting(
        "Draw the rows of masks, as the releases of GLoRIA and MGCA do, and not the images: an "
        "image with several masks can then stand in two splits, with a part of them in each.",
        default=False,
    )

    def __post_init__(self):
        """Refuses rows for a split that draws none."""
        super().__post_init__()
        if self.split_rows and self.split not in ("gloria", "mgca"):
            raise ConfigError(
                f"Rows are drawn by the splits gloria and mgca, and --split is {self.split!r}.",
                "Give --split=gloria, or leave --split_rows out.",
                where="--split_rows",
            )


def prepare(paths: Paths, settings: Settings, options: cli.RunOptions) -> manifest_lib.Manifest:
    """Prepares the set, or goes on with it, or finds it complete; returns its manifest."""
    table = cli.required_file(pathlib.Path(paths.rle), flag="--rle")
    preparer.folder(paths.images_dir, flag="--images_dir")
    return preparer.prepare_set(
        functools.partial(_plan, paths, settings),
        options,
        program=PROGRAM,
        settings=settings,
        inputs=labelled.inputs([table], lists=paths.split_lists, settings=settings),
    )


def _plan(paths: Paths, settings: Settings, directory: pathlib.Path, reject: Reject) -> Plan:
    table = settings.table(pathlib.Path(paths.rle), flag="--rle", key="ImageId", single_lines=True)
    table.require([("--rle", name) for name in ("ImageId", "EncodedPixels")])
    images_dir = pathlib.Path(paths.images_dir)
    files = labelled.found_images(images_dir, suffixes=(".dcm", ".dicom"), flag="--images_dir")
    groups = grouped_rows.grouped(
        table,
        column="ImageId",
        reject=reject,
        keep_repeated=settings.split_rows,
        named=id_lists.plain_id,
    )
    if settings.split_rows:
        cases, assignment = _by_row(groups, files, settings)
    else:
        cases = [_case(name, rows, files) for name, rows in groups.items()]
        assignment = labelled.assigned(
            cases, data_set="siim", settings=settings, lists=paths.split_lists
        )
    return labelled.labelled_plan(
        cases,
        assignment,
        directory=directory,
        reject=reject,
        images_dir=images_dir,
        settings=settings,
        label_names=LABELS,
        table=TableUse(name=table.name, read=table.read, notes=table.notes()),
        regions_of=masks_of,
        headers=True,
        notes=labelled.unnamed_notes(files, groups, flag="--images_dir"),
    )


def _case(name: str, rows: Sequence[TableRow], files: Mapping[str, str]) -> labelled.Case:
    """Returns the case of an image, with its problem if its rows cannot be followed."""
    place = {"id": name, "path": files.get(name, f"{name}.dcm"), "patient": name}
    place["line"] = rows[0].line
    try:
        found = annotations([{**row.cells, "ImageId": name} for row in rows])
    except DataError as error:
        problem = (MALFORMED, str(error))
        return labelled.Case(**place, labels=(0,), rows=len(rows), problem=problem)
    masks = [annotation.rle for annotation in found if annotation.target]
    return labelled.Case(
        **place,
        labels=(int(bool(masks)),),
        regions=masks,
        rows=len(rows),
        problem=grouped_rows.problem_of(rows),
    )


def _by_row(
    groups: Mapping[str, Sequence[TableRow]], files: Mapping[str, str], settings: Settings
) -> tuple[list[labelled.Case], published_splits.Assignment]:
    """Draws rows (quirk G47): an image has a case for each split that one of its rows is in."""
    named = ((row.line, name, row) for name, found in groups.items() for row in found)
    rows = sorted(named, key=lambda entry: entry[0])
    parts: dict[tuple[str, str], list[TableRow]] = {}
    names: dict[str, list[str]] = {}
    for split, places in published_splits.thirds(len(rows)).items():
        for place in places:
            _, name, row = rows[place]
            parts.setdefault((split, name), []).append(row)
            names.setdefault(split, []).append(name)
    splits_of = collections.Counter(name for _, name in parts)
    cases, where = [], {}
    for (split, name), found in parts.items():
        case = _case(name, found, files)
        identity = f"{name}@{split}" if splits_of[name] > 1 else name
        where[split, name] = len(cases)
        cases.append(dataclasses.replace(case, id=identity))
    members = {split: [where[split, name] for name in found] for split, found in names.items()}
    return cases, labelled.described(
        published_splits.Assignment(members=members),
        cases,
        settings=settings,
        published=published_splits.PUBLISHED["siim"][settings.split],
    )


def masks_of(rles: Sequence[str]) -> list[ImageRegion]:
    """Returns a region for each run-length mask of an image."""
    return [ImageRegion(label=LABELS[0], mask=functools.partial(_drawn, text)) for text in rles]


def _drawn(text: str, height: int, width: int) -> np.ndarray:
    try:
        return rle.decode(text, height=height, width=width)
    except DataError as error:
        detail = (
            f"{error.problem} An offset is the distance from the end of the run before it, and not "
            "from the first pixel."
        )
        raise ImageProblem("mask_outside_image", detail) from error


if __name__ == "__main__":
    preparer.run_program(prepare, Paths, Settings)
