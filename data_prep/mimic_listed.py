"""Sets of listed images of MIMIC-CXR, such as MIMIC 5x200: a record an image, to evaluate on.

Source: MIMIC 5x200 of BenchX's release, preprocess/datasets, which names images and no labels.
"""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from data_prep import chexpert_table
from data_prep.kit import id_lists
from data_prep.kit.outcomes import Rejection
from data_prep.mimic_tables import Index
from prior_jax.data import schema

FINDINGS = tuple(chexpert_table.UNCERTAIN)
"""The five findings of a 5x200."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listed:
    """A list of images.

    Attributes:
      name: name of its file.
      lines: id without folders and suffix -> line on which it stands first.
      repeated: number of lines that name an image again.
    """

    name: str
    lines: Mapping[str, int]
    repeated: int = 0

    @classmethod
    def read(cls, path: pathlib.Path) -> "Listed":
        """Reads a list.

        Raises:
          DataError: if the list cannot be read, or has no id; the message names it.
        """
        found = id_lists.numbered_ids(path, flag="--only")
        lines: dict[str, int] = {}
        for line, name in found:
            lines.setdefault(id_lists.plain_id(name), line)
        return cls(name=path.name, lines=lines, repeated=len(found) - len(lines))

    def placed(self, found: Rejection) -> Rejection:
        """Returns a rejection; that of a listed image with the line of the list in its detail."""
        line = self.lines.get(found.id.rpartition("/")[2])
        if not line:
            return found
        detail = f"{self.name}:{line}: {found.detail or found.reason.replace('_', ' ')}"
        return dataclasses.replace(found, detail=detail)


def by_image(index: Index) -> Index:
    """Returns the index with each image as a study of its own, all of them in the split test."""
    sizes = np.diff(index.starts)
    count = len(index.dicoms)
    split = schema.SPLITS.index("test")
    # Studies of one split are sorted by patient, so that a patient stays in one shard.
    of_study = np.repeat(np.arange(len(sizes)), sizes)
    order = np.argsort(index.subjects[of_study], kind="stable")
    of_study = of_study[order]
    return dataclasses.replace(
        index,
        dicoms=index.dicoms[order],
        views=index.views[order],
        starts=np.arange(count + 1, dtype=np.int64),
        studies=index.studies[of_study],
        subjects=index.subjects[of_study],
        codes=np.full(count, split, np.int8),
        labels=index.labels[of_study],
    )


def notes(index: Index, *, listed: Listed) -> list[str]:
    """Returns sentences on the listed images: their number, their splits and their findings.

    Args:
      index: index of the listed images, by study.
      listed: list of the images.
    """
    sizes = np.diff(index.starts)
    count = len(index.dicoms)
    number = len(listed.lines)
    found = [f"Of {number:,} listed images {count:,} are chosen, of {_patients(index):,} patients."]
    if listed.repeated:
        found.append(f"{listed.name}: {listed.repeated:,} lines name an image again, kept once.")
    train = index.codes == schema.SPLITS.index("train")
    if train.any():
        found.append(
            f"Warning: {int(sizes[train].sum()):,} of them, of "
            f"{len(np.unique(index.subjects[train])):,} patients, stand in the training split of "
            "MIMIC-CXR: a model that was trained on it has seen them."
        )
    places = [index.label_names.index(name) for name in FINDINGS if name in index.label_names]
    if len(places) == len(FINDINGS):
        positive = index.labels[:, places] == schema.LABEL_POSITIVE
        alone = positive & (positive.sum(axis=1, keepdims=True) == 1)
        counts = (alone * sizes[:, None]).sum(axis=0)
        said = ", ".join(f"{int(n):,} {name}" for n, name in zip(counts, FINDINGS, strict=True))
        rest = count - int(counts.sum())
        found.append(f"One of the five findings alone: {said}; {rest:,} images have none or more.")
    return found


def _patients(index: Index) -> int:
    return len(np.unique(index.subjects))
