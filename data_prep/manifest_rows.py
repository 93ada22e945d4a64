"""Reads the rows of a custom manifest: the roles of its columns, and the values of each row."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from data_prep import manifest_boxes, manifest_columns, manifest_masks
from data_prep.kit import label_lists, splits, subgroups, values
from data_prep.kit.ids import IdColumn
from data_prep.kit.plan import PlannedImage, RowProblem
from data_prep.kit.tables import Table, TableRow
from data_prep.manifest_columns import Columns
from prior_jax.errors import DataError

# Number of rows that decide whether a column that could hold labels holds prose.
_SAMPLE = 1000
_PROSE_SHARE = 0.1
# A column of labels has few names and many rows; more names than this, and than rows, are no
# labels. A column "findings" that no flag names may hold labels or prose; there two names suffice.
_MOST_NAMES = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One image of a custom manifest.

    Attributes:
      image: path of the image, as written.
      text: report, "" if there is none.
      view: view, "" if it is not given.
      source: data set that the row comes from, "" if it is not given.
      labels: label -> schema.LABEL_*, for the labels that the row gives.
      listed: whether the labels came as a list of positive ones.
      kept: licence, citation and the like.
      sex: "F", "M" or "".
      age: age in years, None where unknown.
      boxes: boxes of findings, None if the row says nothing about them; see `manifest_boxes`.
      masks: label and path of each mask, None if the row names none; see `manifest_masks`.
    """

    image: str
    text: str
    view: str
    source: str
    labels: Mapping[str, int]
    listed: bool
    kept: Mapping[str, Any]
    sex: str = ""
    age: float | None = None
    boxes: Sequence[manifest_boxes.Found] | None = None
    masks: Sequence[manifest_masks.Found] | None = None

    @property
    def says_regions(self) -> bool:
        """Returns whether the row says where findings are, or that there are none."""
        return self.boxes is not None or self.masks is not None


class RowReader:
    """A reader that turns the rows of a table into planned images and collects label names."""

    def __init__(
        self,
        table: Table,
        columns: Columns,
        *,
        given: frozenset[str],
        drawn_split: Callable[[str], int],
        separators: Mapping[str, str],
        regions_only: bool = False,
    ):
        """Prepares to read the table.

        Args:
          table: table to read.
          columns: names of the table's columns.
          given: flags that the user has given; the columns that they name must exist.
          drawn_split: function that draws the split of a patient whose rows name none.
          separators: column of labels -> separators that occur in its cells.
          regions_only: whether rows that say nothing about boxes and masks are rejected.
        """
        self.table, self.columns, self._separators = table, columns, separators
        self._given, self._drawn_split, self._regions_only = given, drawn_split, regions_only
        self._ids = {
            name: IdColumn(table, flag=f"--{name}_column", name=getattr(columns, name))
            for name in ("id", "study", "patient")
        }
        self._not_labels: tuple[str, ...] = ()
        self._prose: set[str] = set()
        self.seen: dict[str, set[str]] = {}
        self._split_texts: Counter[str] = Counter()
        self._labelled = 0
        self._without_split = 0
        self._label_columns: set[str] = set()

    def with_roles(self, rows: Iterable[TableRow]) -> Iterator[TableRow]:
        """Yields the rows, after deciding from the first rows which columns hold labels.

        Raises:
          DataError: if a column that the user has named for labels holds prose, or if an unread
            column looks as if it should be read.
        """
        ignored = frozenset(self.columns.ignored)
        if ignored:
            rows = (
                TableRow(row.line, {n: c for n, c in row.cells.items() if n not in ignored})
                for row in rows
            )
        rows = iter(rows)
        first = list(itertools.islice(rows, _SAMPLE))
        self._prose = {name for name in self.table.names if self._is_prose(name, first)}
        taken = self._text_columns()
        refused = []
        for name in self.columns.labels:
            if name in taken:
                refused.append(name)
            elif name in self._prose:
                if "--labels_columns" in self._given:
                    raise DataError(
                        f"The cells of column {name!r} in {self.table.path} are sentences, not "
                        "names of labels.",
                        f"Name a column of labels, or set --text_column={name} to read the "
                        "sentences as reports.",
                        where="--labels_columns",
                    )
                refused.append(name)
        self._not_labels = tuple(refused)
        if self.table.delimiter is not None:  # the columns of a .jsonl are known only at its end
            self._refuse_passed_over()
        yield from itertools.chain(first, rows)

    def image(self, row: TableRow) -> tuple[PlannedImage, Row]:
        """Reads one row.

        Raises:
          RowProblem: row_without_image, row_without_regions, unknown_split, malformed_labels,
            malformed_boxes, malformed_masks or malformed_row.
        """
        try:
            return self._image(row)
        except values.CellProblem as problem:
            raise RowProblem("malformed_row", problem.detail) from problem

    def finish(self) -> None:
        """Makes the checks that are possible only when all rows have been read.

        Raises:
          DataError: if a column that a flag names is in no row, if an unread column looks as if it
            should be read, if a spreadsheet has rounded ids, or if labels are unlikely to be names.
        """
        if self.table.names:  # there are no names if no row can be read
            manifest_columns.require(self.table, self.columns, given=self._given)
            self._refuse_passed_over()
        for column in self._ids.values():
            column.check()
        self._check_names()

    def _check_names(self) -> None:
        """Refuses labels that are unlikely to be names."""
        written = sorted(set().union(*self.seen.values()))
        if not self.columns.label_columns and label_lists.are_numbers(written):
            columns = ",".join(self._labels_read())
            raise DataError(
                f"The labels of {self.table.path} are called {written[:4]}, which are values and "
                "not names of labels.",
                f"Set --label_columns={columns} to read each of these columns as the label of its "
                "own name, with values 1, 0, -1, True or False.",
                where="--labels_columns",
            )
        names = len(self._split_texts)
        sure = "--labels_columns" in self._given or "findings" not in self._label_columns
        if names >= self._labelled and names > (_MOST_NAMES if sure else 1):
            raise DataError(
                f"There are {names} different label names in {self._labelled} rows of "
                f"{self.table.path}, such as {next(iter(self._split_texts))!r}; these are hardly "
                "names of labels.",
                "Set --text_column if the column holds phrases of reports, or --labels_columns to "
                "a column of labels.",
                where="--labels_columns",
            )

    def notes(self) -> list[str]:
        """Returns sentences on the use of each column, and on the columns that were not read."""
        columns, there, table = self.columns, self.columns.present(self.table), self.table.name
        roles = {role: getattr(columns, role) for role in manifest_columns.ROLES}
        labels = self._labels_read()
        taken = [f"{role} from {name!r}" for role, name in roles.items() if name in there]
        taken.append(f"labels from {', '.join(map(repr, labels))}" if labels else "no labels")
        taken += [f"boxes from {name!r}" for name in columns.boxes if name in there]
        taken += [f"masks of {label!r} from {name!r}" for name, label in columns.masks.items()]
        notes = [f"{table}: read {', '.join(taken)}."]
        if columns.text not in there:
            notes.append(f"{table}: no text column ({columns.text!r}).")
        if columns.patient not in there:
            notes.append(
                f"{table}: no patient column ({columns.patient!r}): each study counts as a patient."
            )
        if columns.split not in there:
            notes.append(
                f"{table}: no split column ({columns.split!r}): splits are drawn by patient."
            )
        elif self._without_split:
            notes.append(
                f"{table}: {self._without_split} rows name no split: splits are drawn for those of "
                "them whose patient has none in another row."
            )
        for name in self._not_labels:
            if name in there and name not in self._text_columns():
                notes.append(
                    f"{table}: {name!r} holds prose and was not read as labels; "
                    f"--text_column={name} reads it as the report."
                )
        for name, marks in self._separators.items():
            if name in labels and len(marks) > 1:
                others = " and ".join(map(repr, marks[1:]))
                notes.append(
                    f"{table}: labels in {name!r} are separated by {marks[0]!r}; {others} in them "
                    "are part of their names."
                )
        unread = manifest_columns.unread_columns(self.table, columns, labels=labels)
        unread = [name for name in unread if name not in self._not_labels]
        if unread:
            notes.append(f"{table}: not read: {', '.join(map(repr, unread))}.")
            notes += manifest_columns.told(unread, columns, table=table)
        if columns.ignored:
            ignored = ", ".join(map(repr, columns.ignored))
            notes.append(f"{table}: not read, by --ignore_columns: {ignored}.")
        notes += self.table.notes(unread=False)
        return notes

    def _labels_read(self) -> tuple[str, ...]:
        """Returns the columns that labels are read from."""
        there = self.columns.present(self.table)
        return self.columns.label_columns or tuple(
            name for name in self.columns.labels if name in there and name not in self._not_labels
        )

    def _refuse_passed_over(self) -> None:
        manifest_columns.refuse_passed_over(
            self.table, self.columns, prose=self._prose, labels=self._labels_read()
        )

    def _text_columns(self) -> set[str]:
        flags = self.columns.flags()
        return {name for flag, names in flags.items() if "label" not in flag for name in names}

    def _is_prose(self, name: str, rows: Sequence[TableRow]) -> bool:
        cells = [row.cells.get(name) for row in rows]
        texts = [cell for cell in cells if isinstance(cell, str) and not values.is_missing(cell)]
        prose = sum(any(map(values.is_prose, self._parts(name, text))) for text in texts)
        return prose > _PROSE_SHARE * len(texts)

    def _parts(self, column: str, text: str) -> list[str]:
        try:
            found = label_lists.names_in(text, separators=self._separators.get(column, ""))
        except RowProblem:  # prose such as "[Name] was seen again."
            return [text]
        return [part for part in found if isinstance(part, str)]

    def _image(self, row: TableRow) -> tuple[PlannedImage, Row]:
        cells, columns = row.cells, self.columns

        def text(name: str) -> str:
            column = getattr(columns, name)
            return values.text_of(cells.get(column), field=column)

        image = text("image")
        if not image:
            raise RowProblem("row_without_image", f"column {columns.image!r} is blank")
        identity = self._ids["id"].read(row) or image
        study = self._ids["study"].read(row) or identity
        named = self._ids["patient"].read(row)
        patient, split = named or study, self._split(text("split"))
        labels, listed = self._labels(cells)
        found = Row(
            image=image,
            text=text("text"),
            view=text("view"),
            source=text("source"),
            labels=labels,
            listed=listed,
            kept={
                name: values.without_nan(cells[name])
                for name in columns.kept
                if not values.is_missing(cells.get(name))
            },
            sex=subgroups.sex_of(cells.get(columns.sex), field=columns.sex),
            age=subgroups.age_of(cells.get(columns.age), field=columns.age),
            boxes=self._boxes(cells),
            masks=manifest_masks.masks_in(cells, columns.masks),
        )
        if self._regions_only and not found.says_regions:
            raise RowProblem("row_without_regions", "it has no cell of boxes and names no mask")
        planned = PlannedImage(
            id=identity,
            study=study,
            patient=patient,
            split=self._drawn_split(patient) if split is None else split,
            patient_given=bool(named),
            split_given=split is not None,
            line=row.line,
            data=dataclasses.asdict(found),
        )
        self._without_split += split is None
        self.seen.setdefault(found.source, set()).update(labels)
        return planned, found

    def _split(self, written: str) -> int | None:
        code = splits.split_code(written)
        if code is None and written:
            raise RowProblem("unknown_split", f"{written!r} is not one of {splits.KNOWN_NAMES}")
        return code

    def _boxes(self, cells: Mapping[str, Any]) -> list[manifest_boxes.Found] | None:
        """Returns the boxes of the first column of boxes that says something.

        Raises:
          RowProblem: `malformed_boxes`, also if that column says that there is no box and another
            one has some.
        """
        found = ((name, manifest_boxes.boxes_in(cells.get(name))) for name in self.columns.boxes)
        said = ((name, boxes) for name, boxes in found if boxes is not None)
        first, boxes = next(said, ("", None))
        if boxes is not None and not boxes:
            for name, others in said:
                if others:
                    detail = f"column {first!r} says that there is no box, and {name!r} has"
                    raise RowProblem("malformed_boxes", f"{detail} {len(others)}")
        return boxes

    def _labels(self, cells: Mapping[str, Any]) -> tuple[dict[str, int], bool]:
        """Returns (labels, whether they came as a list of positives)."""
        columns = self.columns
        try:
            if columns.label_columns:
                named = ((name, cells.get(name)) for name in columns.label_columns)
                return {name: values.label_of(cell, field=name) for name, cell in named}, False
            for column in columns.labels:
                cell = cells.get(column)
                if column in self._not_labels or values.is_missing(cell):
                    continue
                value = cell
                if isinstance(cell, str):
                    value = label_lists.names_in(cell, separators=self._separators.get(column, ""))
                labels, listed = label_lists.labels_of(value)
                if not labels:  # an empty list says nothing
                    continue
                self._label_columns.add(column)
                if listed and isinstance(cell, str):
                    self._split_texts.update(labels)
                    self._labelled += 1
                return labels, listed
        except values.CellProblem as problem:
            raise RowProblem("malformed_labels", problem.detail) from problem
        return {}, True
