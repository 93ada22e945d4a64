"""Reads the tables of MIMIC-CXR-JPG into compact arrays on disk, by image and by study.

The tables are streamed; while they are joined, each image takes about 200 bytes of memory. The
workers memory-map the resulting arrays, so that they share them.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from data_prep.kit import cli, splits
from data_prep.kit.outcomes import Rejection
from data_prep.kit.plan import NOT_CHOSEN, Reject, TableUse
from data_prep.mimic_images import (
    NO_SPLIT,
    Images,
    listed_images,
    open_table,
    read_images,
    with_splits,
)
from data_prep.mimic_labels import CONFLICTING, study_labels
from prior_jax.errors import DataError

_NO_IMAGE = "the study has no image of a chosen view that could be kept"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tables:
    """Paths of the tables, and their encoding; `labels` is None for a set without labels."""

    metadata: pathlib.Path
    split: pathlib.Path
    labels: pathlib.Path | None
    encoding: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """The chosen images, grouped into studies sorted by split, patient and study.

    Attributes:
      dicoms: S48[I], ids of the kept images, sorted within a study.
      views: int8[I], index into `view_names`.
      starts: int64[N + 1], first image of each study.
      studies: int64[N].
      subjects: int64[N].
      codes: int8[N], index into schema.SPLITS.
      labels: int8[N, C].
      known: S48[M], sorted ids of every image of the metadata table, kept or not.
      view_names: names of the views in `views`.
      label_names: names of the columns of `labels`.
    """

    dicoms: np.ndarray
    views: np.ndarray
    starts: np.ndarray
    studies: np.ndarray
    subjects: np.ndarray
    codes: np.ndarray
    labels: np.ndarray
    known: np.ndarray
    view_names: tuple[str, ...]
    label_names: tuple[str, ...]

    def save(self, directory: pathlib.Path) -> None:
        """Writes one `.npy` for each array."""
        directory.mkdir(exist_ok=True)
        for field in dataclasses.fields(self):
            np.save(directory / f"{field.name}.npy", np.asarray(getattr(self, field.name), None))

    @classmethod
    def load(cls, directory: pathlib.Path) -> "Index":
        """Memory-maps the arrays that `save` wrote; nothing is read before it is used."""
        values = {
            field.name: np.load(directory / f"{field.name}.npy", mmap_mode="r")
            for field in dataclasses.fields(cls)
        }
        for name in ("view_names", "label_names"):
            values[name] = tuple(str(value) for value in values[name])
        return cls(**values)


def build_index(
    tables: Tables,
    *,
    views: Sequence[str],
    reject: Reject,
    only: Sequence[str] | None = None,
) -> tuple[Index, list[TableUse]]:
    """Joins the tables, chooses the images, and passes each row that is left out to `reject`.

    Args:
      tables: paths of the tables.
      views: ViewPosition values to keep, in upper case.
      reject: function that is called with reason duplicate_row, conflicting_rows, malformed_row,
        row_without_split, unknown_split, split_row_without_metadata, wrong_view,
        study_in_two_patients, patient_in_two_splits or study_without_image.
      only: ids of the images to keep, None for all. The rows of the others are only counted, and an
        id without a row is passed to `reject` as listed_without_row.

    Returns:
      The chosen images, and the numbers of rows of each table that were read and used.

    Raises:
      DataError: if a table cannot be read, or if the label table belongs to other studies.
    """
    metadata = open_table(tables.metadata, flag="--metadata_table", encoding=tables.encoding)
    images = read_images(metadata, reject=reject)
    images, split_use = with_splits(images, tables.split, encoding=tables.encoding, reject=reject)
    known, unlisted = images.dicoms, 0
    if only is not None:
        listed = listed_images(images.dicoms, only, reject=reject)
        unlisted = int(np.sum(~listed))
        images = images.at(listed)
    images = images.at(_usable(images, views=views, reject=reject))
    index, label_uses = _by_study(images, tables, known=known, reject=reject)
    return index, [
        TableUse(
            name=metadata.name,
            read=metadata.read,
            unused={NOT_CHOSEN: unlisted} if unlisted else {},
            notes=metadata.notes(),
        ),
        split_use,
        *label_uses,
    ]


def _usable(images: Images, *, views: Sequence[str], reject: Reject) -> np.ndarray:
    """Returns bool[I], which images have a split and a chosen view and contradict no others.

    The others are rejected, and so is each study that is left without an image.
    """
    sound = ~images.conflicting()
    for place in np.flatnonzero(~sound):
        reject(images.rejection(place, CONFLICTING, images.conflicts[images.dicoms[place]]))
    in_split = sound & (images.codes != NO_SPLIT)
    images.reject(sound & ~in_split, "row_without_split", reject=reject)
    wanted = np.isin(images.views, [i for i, name in enumerate(images.view_names) if name in views])
    for place in np.flatnonzero(in_split & ~wanted):
        shown = f"the view is {images.view_names[images.views[place]] or 'blank'}"
        reject(images.rejection(place, "wrong_view", shown))
    _, of_study = np.unique(images.studies, return_inverse=True)
    mixed = np.zeros(len(of_study), bool)
    mixed[sound] = splits.subjects_in_two_splits(of_study[sound], images.subjects[sound])
    keep = in_split & wanted
    images.reject(keep & mixed, "study_in_two_patients", reject=reject)
    keep &= ~mixed
    leaking = np.zeros(len(keep), bool)
    leaking[in_split] = splits.subjects_in_two_splits(
        images.subjects[in_split], images.codes[in_split]
    )
    images.reject(keep & leaking, "patient_in_two_splits", reject=reject)
    keep &= ~leaking
    for study in np.setdiff1d(images.studies, images.studies[keep]):
        reject(Rejection(id=f"s{study}", reason="study_without_image", detail=_NO_IMAGE))
    return keep


def _by_study(
    images: Images, tables: Tables, *, known: np.ndarray, reject: Reject
) -> tuple[Index, list[TableUse]]:
    """Groups the chosen images by study, and reads the labels of the studies."""
    images = images.at(np.lexsort((images.dicoms, images.studies, images.subjects, images.codes)))
    changes = images.studies[1:] != images.studies[:-1]
    first = np.flatnonzero(np.r_[True, changes]) if len(images.studies) else np.zeros(0, np.int64)
    studies = images.studies[first]
    label_names, labels, uses = study_labels(
        tables.labels, studies, encoding=tables.encoding, reject=reject
    )
    index = Index(
        dicoms=images.dicoms,
        views=images.views,
        starts=np.r_[first, len(images.dicoms)].astype(np.int64),
        studies=studies,
        subjects=images.subjects[first],
        codes=images.codes[first],
        labels=labels,
        known=known,
        view_names=images.view_names,
        label_names=label_names,
    )
    return index, uses


def find_tables(
    root: pathlib.Path, *, overrides: Mapping[str, str], labels: str, encoding: str
) -> Tables:
    """Finds the tables of a download of version 2.0.0 or 2.1.0, packed or not.

    Args:
      root: folder of the tables.
      overrides: "metadata", "split" or "labels" -> path that the user has given, or "".
      labels: "chexpert", "negbio" or "none".
      encoding: encoding of the tables.

    Raises:
      ConfigError: if a path is too long.
      DataError: if a table is missing, or if the folder has two tables of one kind.
    """

    def find(kind: str, name: str) -> pathlib.Path | None:
        if overrides[kind]:
            return cli.required_file(pathlib.Path(overrides[kind]), flag=f"--{kind}_table")
        found = sorted({*root.glob(f"mimic-cxr-*-{name}.csv.gz"), *root.glob(f"*-{name}.csv")})
        if len(found) > 1:
            raise DataError(
                f"{root} has several {name} tables: {' and '.join(path.name for path in found)}.",
                f"Name one of them with --{kind}_table, or leave only one in the folder.",
                where="--images_dir",
            )
        return found[0] if found else None

    metadata, split = find("metadata", "metadata"), find("split", "split")
    if metadata is None or split is None:
        raise DataError(
            f"{root} lacks the metadata table or the split table; it holds "
            f"{', '.join(sorted(path.name for path in root.iterdir())[:8])}.",
            "Put mimic-cxr-2.0.0-metadata.csv.gz and mimic-cxr-2.0.0-split.csv.gz into the folder, "
            "or name them with --metadata_table and --split_table.",
            where="--images_dir",
        )
    label_table = None if labels == "none" else find("labels", labels)
    if label_table is None and labels != "none":
        raise DataError(
            f"{root} has no label table mimic-cxr-*-{labels}.csv.gz.",
            "Put the table into the folder, name it with --labels_table, or set --labels=none to "
            "prepare the set without labels.",
            where="--labels",
        )
    return Tables(metadata=metadata, split=split, labels=label_table, encoding=encoding)
