"""Reads the rows of a custom manifest: which column is what, and what each row says."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_prep.kit import splits, values
from data_prep.kit.ids import IdColumn
from data_prep.kit.plan import PlannedImage, RowProblem
from data_prep.kit.tables import Table, TableRow
from prior_jax.data.schema import LABEL_NEGATIVE, LABEL_NOT_MENTIONED, LABEL_POSITIVE
from prior_jax.errors import DataError

LIST_SEPARATORS = ("|", ";", ",")
# So many rows decide whether a column that could hold labels holds prose.
_SAMPLE = 1000
_PROSE_SHARE = 0.1
# A list of labels has few names and many rows; more names than this, and than rows, are no labels.
# A column "findings" that no flag names may hold either: there, two names are enough.
_MOST_NAMES = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns; those of `labels` are tried in order."""

    image: str
    text: str
    split: str
    patient: str
    study: str
    id: str
    view: str
    source: str
    labels: tuple[str, ...]
    label_columns: tuple[str, ...]
    kept: tuple[str, ...]

    def flags(self) -> dict[str, tuple[str, ...]]:
        """Returns flag -> the columns that it names."""
        names = ("image", "text", "split", "patient", "study", "id", "view", "source")
        single = {f"--{name}_column": (getattr(self, name),) for name in names}
        return {
            **single,
            "--labels_columns": self.labels,
            "--label_columns": self.label_columns,
            "--kept_columns": self.kept,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One image of a custom manifest.

    Attributes:
      image: path of the image, as written.
      text: report, "" where there is none.
      view: view, "" where not given.
      source: data set the row comes from, "" where not given.
      labels: label -> schema.LABEL_*, as far as the row says.
      listed: whether the labels came as a list of what is positive.
      kept: licence, citation and the like.
    """

    image: str
    text: str
    view: str
    source: str
    labels: Mapping[str, int]
    listed: bool
    kept: Mapping[str, Any]


class RowReader:
    """Turns the rows of a table into planned images, and remembers which labels they name."""

    def __init__(
        self,
        table: Table,
        columns: Columns,
        *,
        given: frozenset[str],
        drawn_split: Callable[[str], int],
    ):
        """Prepares to read.

        Args:
          table: the table.
          columns: names of its columns.
          given: flags that the user has given; a column that one of them names has to be there.
          drawn_split: draws the split of a patient whose rows name none.
        """
        self.table, self.columns = table, columns
        self._given, self._drawn_split = given, drawn_split
        self._ids = {
            name: IdColumn(table, flag=f"--{name}_column", name=getattr(columns, name))
            for name in ("id", "study", "patient")
        }
        self._used = {name for names in columns.flags().values() for name in names}
        self._not_labels: tuple[str, ...] = ()
        self.seen: dict[str, set[str]] = {}
        self._split_texts: Counter[str] = Counter()
        self._labelled = 0
        self._label_columns: set[str] = set()

    def check_header(self) -> None:
        """Refuses columns that a flag names and that the table does not have.

        Raises:
          DataError: naming the flag, the column, the columns found and the nearest name.
        """
        wanted = [("--image_column", self.columns.image)]
        for flag, names in self.columns.flags().items():
            if flag not in self._given or flag == "--image_column":
                continue
            if flag == "--labels_columns":  # the first of them that is there
                if not set(names) & set(self.table.names):
                    wanted += [(flag, names[0])]
            else:
                wanted += [(flag, name) for name in names]
        self.table.require(wanted)
        self._refuse_near_names()

    def _refuse_near_names(self) -> None:
        """Refuses a column that is read by default, where the table has it in another spelling.

        A column "Split" that is not read would be thrown away with every split in it.
        """
        for flag, names in self.columns.flags().items():
            if "label" in flag or flag == "--kept_columns" or names[0] in self.table.names:
                continue
            plain = values.simplified(names[0])
            for column in self.table.names:
                if values.simplified(column) == plain and column not in self._used:
                    raise DataError(
                        flag,
                        received=f"{names[0]!r}, where {self.table.path} has {column!r}",
                        accepted=f"{flag}={column!r} to read that column, or a table without it",
                    )

    def with_roles(self, rows: Iterable[TableRow]) -> Iterator[TableRow]:
        """Yields the rows, after deciding from the first ones which columns hold labels.

        Raises:
          DataError: if a column that the user has named for labels holds prose.
        """
        rows = iter(rows)
        first = list(itertools.islice(rows, _SAMPLE))
        taken = self._text_columns()
        refused = []
        for name in self.columns.labels:
            if name in taken:
                refused.append(name)
            elif self._is_prose(name, first):
                if "--labels_columns" in self._given:
                    raise DataError(
                        "--labels_columns",
                        received=f"{name!r}, whose cells in {self.table.path} are sentences",
                        accepted="a column of label names; give prose as --text_column",
                    )
                refused.append(name)
        self._not_labels = tuple(refused)
        yield from itertools.chain(first, rows)

    def image(self, row: TableRow) -> tuple[PlannedImage, Row]:
        """Reads one row.

        Raises:
          RowProblem: row_without_image, unknown_split, malformed_labels or malformed_row.
        """
        try:
            return self._image(row)
        except values.CellProblem as problem:
            raise RowProblem("malformed_row", problem.detail) from problem

    def finish(self) -> None:
        """Checks what can only be known when all rows have been read.

        Raises:
          DataError: for a column that a flag names and that no row has, ids that a spreadsheet has
            rounded, or labels that are hardly names.
        """
        if self.table.names:  # without one row that can be read there are none
            self.check_header()
        for column in self._ids.values():
            column.check()
        names = len(self._split_texts)
        sure = "--labels_columns" in self._given or "findings" not in self._label_columns
        if names >= self._labelled and names > (_MOST_NAMES if sure else 1):
            raise DataError(
                "--labels_columns",
                received=f"{names} different label names in {self._labelled} rows of "
                f"{self.table.path}, such as {next(iter(self._split_texts))!r}",
                accepted="a column of label names; give phrases of reports as --text_column, and a "
                "column of labels that is to be read all the same as --labels_columns",
            )

    def notes(self) -> list[str]:
        """Returns sentences that say which column was taken for what, and which were not read."""
        columns, there = self.columns, self.table.names
        roles = {
            "image": columns.image,
            "text": columns.text,
            "split": columns.split,
            "patient": columns.patient,
            "study": columns.study,
            "id": columns.id,
            "view": columns.view,
            "source": columns.source,
        }
        labels = columns.label_columns or tuple(
            name for name in columns.labels if name in there and name not in self._not_labels
        )
        taken = [f"{role} from {name!r}" for role, name in roles.items() if name in there]
        taken.append(f"labels from {', '.join(map(repr, labels))}" if labels else "no labels")
        notes = [f"{self.table.name}: read {', '.join(taken)}."]
        for name in self._not_labels:
            if name in there and name not in self._text_columns():
                notes.append(
                    f"{self.table.name}: {name!r} holds prose and was not read as labels; "
                    f"--text_column={name} reads it as the report."
                )
        used = {*roles.values(), *labels, *columns.kept}
        unread = [name for name in there if name not in used and name not in self._not_labels]
        if unread:
            notes.append(f"{self.table.name}: not read: {', '.join(map(repr, unread))}.")
        notes += self.table.notes()
        return notes

    def _text_columns(self) -> set[str]:
        flags = self.columns.flags()
        return {name for flag, names in flags.items() if "label" not in flag for name in names}

    def _is_prose(self, name: str, rows: Sequence[TableRow]) -> bool:
        cells = [row.cells.get(name) for row in rows]
        texts = [cell for cell in cells if isinstance(cell, str) and not values.is_missing(cell)]
        prose = sum(any(values.is_prose(part) for part in _parts(text)) for text in texts)
        return prose > _PROSE_SHARE * len(texts)

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
        patient = self._ids["patient"].read(row) or study
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
        )
        planned = PlannedImage(
            id=identity,
            study=study,
            patient=patient,
            split=self._split(text("split"), patient),
            data=dataclasses.asdict(found),
        )
        self.seen.setdefault(found.source, set()).update(labels)
        return planned, found

    def _split(self, written: str, patient: str) -> int:
        code = splits.split_code(written)
        if code is not None:
            return code
        if written:
            raise RowProblem("unknown_split", f"{written!r} is none of {splits.KNOWN_NAMES}")
        return self._drawn_split(patient)

    def _labels(self, cells: Mapping[str, Any]) -> tuple[dict[str, int], bool]:
        """Returns (labels, whether they came as a list of positives)."""
        columns = self.columns
        try:
            if columns.label_columns:
                named = ((name, cells.get(name)) for name in columns.label_columns)
                return {name: values.label_of(cell, field=name) for name, cell in named}, False
            names = (name for name in columns.labels if name not in self._not_labels)
            column = next((name for name in names if name in cells), None)
            cell = cells[column] if column else None
            if isinstance(cell, Mapping):
                return _unique(
                    (str(name).strip(), values.label_of(entry, field=str(name)))
                    for name, entry in cell.items()
                ), False
        except values.CellProblem as problem:
            raise RowProblem("malformed_labels", problem.detail) from problem
        if values.is_missing(cell):
            return {}, True
        if isinstance(cell, str):
            cell = _parts(cell)
            self._split_texts.update(part for part in cell if part)
            self._labelled += 1
            self._label_columns.update([column] if column else ())
        if not isinstance(cell, list) or not all(isinstance(name, str) for name in cell):
            raise RowProblem("malformed_labels", f"{cell!r} is no list of names"[:200])
        named = [name.strip() for name in cell if not values.is_missing(name)]
        return dict.fromkeys(named, LABEL_POSITIVE), True


def _parts(text: str) -> list[str]:
    """Returns the names in a text such as "A|B"."""
    mark = next((mark for mark in LIST_SEPARATORS if mark in text), LIST_SEPARATORS[0])
    return [part.strip() for part in text.split(mark)]


def _unique(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, value in pairs:
        if not name or found.get(name, value) != value:
            raise RowProblem("malformed_labels", f"label {name!r} has no name or two values")
        found[name] = value
    return found


def label_vector(
    row: Row, names: Sequence[str], *, exhaustive: frozenset[str], seen: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """Returns int8[C], the row's labels in the set's order.

    Args:
      row: the row.
      names: the C label names of the set.
      exhaustive: sources whose lists name everything that is positive: what such a list does not
        name, of the labels its source uses, is negative. Of other sources, and of an empty list,
        it is not mentioned.
      seen: source -> labels its rows use.
    """
    found = dict(row.labels)
    if row.listed and row.labels and row.source in exhaustive:
        found = dict.fromkeys(seen[row.source], LABEL_NEGATIVE) | found
    return np.asarray([found.get(name, LABEL_NOT_MENTIONED) for name in names], np.int8)
