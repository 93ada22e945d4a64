"""The labels of CheXpert Plus, and the images of CheXpert 5x200 that are left out of it."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from data_prep import chexpert, chexpert_5x200, chexpert_table
from data_prep.kit import strict_json, values
from data_prep.kit.outcomes import Rejection
from data_prep.kit.plan import OTHER_STUDY, Reject, RowProblem, TableUse
from data_prep.kit.tables import MALFORMED, Table
from prior_jax.data import schema
from prior_jax.errors import DataError

PATHS = ("path_to_image", "Path")
_BLANK = bytes([schema.LABEL_NOT_MENTIONED & 0xFF]) * len(chexpert.LABELS)


def plain_path(path: str) -> str:
    """Returns the path of an image from the folder of the split on, without its suffix."""
    name = chexpert.within(path)
    return name.rpartition(".")[0] or name


@dataclasses.dataclass(kw_only=True)
class Excluded:
    """Images that are left out, and what is known of their patients.

    Attributes:
      images: paths of the images, see `plain_path`.
      patients: ids of their patients.
      patients_too: whether all images of these patients are left out.
      found: images of the list that the table has.
      leaking: patients of the list that other images of the training split show.
      leaking_images: number of these images.
    """

    images: frozenset[str] = frozenset()
    patients: frozenset[str] = frozenset()
    patients_too: bool = False
    found: set[str] = dataclasses.field(default_factory=set)
    leaking: set[str] = dataclasses.field(default_factory=set)
    leaking_images: int = 0

    @classmethod
    def read(cls, path: str, *, patients_too: bool) -> Self:
        """Reads a list of images, "" for none.

        Raises:
          DataError: if it cannot be read, or holds a path without a patient; the message names it.
        """
        if not path:
            return cls()
        chosen = chexpert_5x200.read_selection(pathlib.Path(path))
        try:
            patients = frozenset(chexpert_table.patient_of(one.path) for one in chosen)
        except DataError as error:
            raise DataError(error.problem, error.remedy, where="--exclude_5x200") from error
        images = frozenset(plain_path(one.path) for one in chosen)
        return cls(images=images, patients=patients, patients_too=patients_too)

    def check(self, image: str, patient: str, *, split: str) -> None:
        """Refuses an image that is left out, and counts one of a patient of the list.

        Raises:
          RowProblem: `held_out_for_5x200` or `patient_of_5x200`.
        """
        if image in self.images:
            self.found.add(image)
            raise RowProblem(chexpert.HELD_OUT, "--exclude_5x200 names it")
        if patient not in self.patients:
            return
        if self.patients_too:
            raise RowProblem("patient_of_5x200", f"--exclude_5x200 names images of {patient}")
        if split == "train":
            self.leaking.add(patient)
            self.leaking_images += 1

    def notes(self) -> list[str]:
        """Returns sentences on the images that are left out, and on patients of theirs."""
        if not self.images:
            return []
        notes = [
            f"Of {len(self.images):,} images of {len(self.patients):,} patients to leave out, the "
            f"table has {len(self.found):,}."
        ]
        if self.leaking:
            notes.append(
                f"Warning: {len(self.leaking):,} patients of the 5x200 stand in the training split "
                f"with {self.leaking_images:,} other images; --exclude_patients leaves them out."
            )
        return notes


@dataclasses.dataclass(kw_only=True)
class Labels:
    """Labels of images, from a table of their own.

    Attributes:
      name: name of the table's file, "" without one.
      read: number of its rows.
      values: image, see `plain_path` -> its labels as bytes.
      used: images that were asked for and have labels.
      conflicting: images of which two rows say different labels.
    """

    name: str = ""
    count: int = 0
    values: dict[str, bytes] = dataclasses.field(default_factory=dict)
    used: set[str] = dataclasses.field(default_factory=set)
    conflicting: set[str] = dataclasses.field(default_factory=set)

    @classmethod
    def read(cls, path: str, *, encoding: str, reject: Reject) -> Self:
        """Reads a table of labels, "" for none.

        Args:
          path: a `.json` with an object in each line, as CheXpert Plus has it, or a table.
          encoding: encoding of a table; a `.json` is UTF-8.
          reject: function that counts a row that cannot be read: `malformed_row`,
            `incomplete_row`, `duplicate_row`, `conflicting_rows`.

        Raises:
          DataError: if the table cannot be read, or has no path or none of the labels.
        """
        if not path:
            return cls()
        place = pathlib.Path(path)
        labels = cls(name=place.name)
        for line, cells in _rows(place, labels, encoding=encoding, reject=reject):
            try:
                image, found = _labels(cells)
                if labels.values.get(image, found) != found:
                    labels.conflicting.add(image)
                    raise RowProblem(chexpert.CONFLICTING, f"a row before says others of {image}")
                if image in labels.values:
                    raise RowProblem("duplicate_row", f"{image} has labels in a row before")
            except (RowProblem, values.CellProblem) as problem:
                _reject(labels, line, problem, reject=reject)
                continue
            labels.values[image] = found
        return labels

    def of(self, image: str) -> list[int]:
        """Returns the labels of an image; none without a table, blank where it has no row.

        Raises:
          RowProblem: `conflicting_labels`, if two rows of the table say different ones.
        """
        if not self.name:
            return []
        if image in self.conflicting:
            raise RowProblem("conflicting_labels", f"rows of {self.name} differ in its labels")
        found = self.values.get(image)
        if found is not None:
            self.used.add(image)
        return [byte - 256 if byte > 127 else byte for byte in found or _BLANK]

    def uses(self) -> list[TableUse]:
        """Returns the counts of the table, if there is one."""
        if not self.name:
            return []
        unused = len(self.values) - len(self.used)
        others = {OTHER_STUDY: unused} if unused else {}
        return [TableUse(name=self.name, read=self.count, kept=len(self.used), unused=others)]


def _reject(labels: Labels, line: int, problem: Any, *, reject: Reject) -> None:
    reject(
        Rejection(
            id=f"{labels.name}:{line}",
            reason=getattr(problem, "reason", MALFORMED),
            detail=problem.detail,
            rows=1,
            table=labels.name,
        )
    )


def _labels(cells: Mapping[str, Any]) -> tuple[str, bytes]:
    path = next((cells[name] for name in PATHS if not values.is_missing(cells.get(name))), None)
    if path is None:
        raise RowProblem("incomplete_row", f"it has no {' or '.join(PATHS)}")
    found = [values.label_of(cells.get(name), field=name) for name in chexpert.LABELS]
    image = plain_path(values.text_of(path, field=PATHS[0]))
    return image, bytes(value & 0xFF for value in found)


def _rows(
    path: pathlib.Path, labels: Labels, *, encoding: str, reject: Reject
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields line and cells of each row, and counts the rows."""
    if path.suffix.lower() != ".json":
        table = Table(path, flag="--labels", key=PATHS[0], single_lines=True, encoding=encoding)

        def reject_row(line: int, reason: str, detail: str) -> None:
            _reject(labels, line, RowProblem(reason, detail), reject=reject)

        for row in table.rows(reject=reject_row):
            yield row.line, row.cells
        labels.count = table.read
        _require(list(table.names), path)
        return
    names: dict[str, None] = {}
    for line, text in enumerate(_lines(path), 1):
        if not text.strip():
            continue
        labels.count += 1
        try:
            cells = strict_json.loads(text)
            if not isinstance(cells, dict):
                raise ValueError("it is no object")
        except ValueError as error:
            problem = RowProblem(MALFORMED, f"the line is no JSON object: {error}"[:200])
            _reject(labels, line, problem, reject=reject)
            continue
        names.update(dict.fromkeys(cells))
        yield line, cells
    _require(list(names), path)


def _lines(path: pathlib.Path) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8.", "Save it as UTF-8.", where="--labels") from error


def _require(names: Sequence[str], path: pathlib.Path) -> None:
    if not set(PATHS) & set(names) or not set(chexpert.LABELS) & set(names):
        raise DataError(
            f"{path} has the columns {list(names)[:20]}, which lack a path or all of the labels.",
            "Give one of the files of chexbert_labels, with an object in each line, or CheXpert's "
            "train.csv.",
            where="--labels",
        )
