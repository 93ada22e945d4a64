"""Reads data sets that come in a table for each split: train.csv, dev.csv, test.csv."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from data_prep.kit import grouped_rows, labelled
from data_prep.kit.outcomes import Rejection
from data_prep.kit.plan import Reject, TableUse
from data_prep.kit.published_splits import Assignment, Members, Published
from data_prep.kit.tables import Table, TableRow
from prior_jax.data import schema

ROWS = "rows of the tables"
"""Name under which the rows of all tables are counted together."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitRows:
    """The rows of all tables, by image.

    Attributes:
      rows: id -> its rows, in the order of the tables.
      splits: id -> split of its table.
      tables: tables that were read.
      counted_as: name under which their rows are counted.
      names: split -> name of its table.
    """

    rows: Mapping[str, Sequence[TableRow]]
    splits: Mapping[str, str]
    tables: Sequence[Table]
    counted_as: str
    names: Mapping[str, str]

    def placed(self, name: str, detail: str) -> str:
        """Returns the detail of an image's problem behind the table and line of its first row."""
        return f"{self.names[self.splits[name]]}:{self.rows[name][0].line}: {detail}"

    @property
    def use(self) -> TableUse:
        """Returns the counts of all rows together, to be asked for when all cells are read."""
        notes = [note for table in self.tables for note in table.notes()]
        read = sum(table.read for table in self.tables)
        return TableUse(name=self.counted_as, read=read, notes=notes)


def grouped(
    tables: Mapping[str, Table],
    *,
    columns: Mapping[str, str],
    reject: Reject,
    counted_as: str = ROWS,
    named: Callable[[str], str] = str,
) -> SplitRows:
    """Reads the tables to their ends, as `grouped_rows.grouped` does.

    The rows of an image that another table has already are rejected as `duplicate_row`.

    Args:
      tables: split -> its table.
      columns: split -> name of the column with the image's id.
      reject: function that counts what is left out.
      counted_as: name under which the rows of the tables are counted.
      named: function from the text in the column to the image's id.

    Raises:
      DataError: if a table is damaged, or a spreadsheet has rounded its ids.
    """
    rows: dict[str, Sequence[TableRow]] = {}
    splits: dict[str, str] = {}
    for split, table in tables.items():
        counted = counted_together(reject, counted_as=counted_as)
        for name, found in grouped_rows.grouped(
            table, column=columns[split], reject=counted, named=named
        ).items():
            if name in rows:
                detail = f"{tables[splits[name]].name} has it too"
                left_out = {"rows": len(found), "table": counted_as}
                reject(Rejection(id=name, reason="duplicate_row", detail=detail, **left_out))
                continue
            rows[name], splits[name] = found, split
    read = list(tables.values())
    names = {split: table.name for split, table in tables.items()}
    return SplitRows(rows=rows, splits=splits, tables=read, counted_as=counted_as, names=names)


def counted_together(reject: Reject, *, counted_as: str = ROWS) -> Reject:
    """Returns a function that counts rows of any table under the name of all."""
    return lambda found: reject(dataclasses.replace(found, table=counted_as))


def members_of(splits: Sequence[str]) -> Members:
    """Returns split -> positions of its images, from the split of each image."""
    return {
        split: [place for place, name in enumerate(splits) if name == split]
        for split in schema.SPLITS
    }


def of_part(published: Published, places: Sequence[int]) -> Members:
    """Applies a rule to some of the images, such as those of train.csv.

    Args:
      published: split with a rule.
      places: positions of the images that the rule divides, in the order of their table.

    Returns:
      Split -> positions, in the order drawn.
    """
    if published.rule is None:  # a fault of the preparer
        raise TypeError("The split has no rule.")
    drawn = published.rule(len(places))
    return {split: [places[row] for row in rows] for split, rows in drawn.items()}


def with_validation(
    splits: Sequence[str], cases: Sequence[labelled.Case], settings: labelled.LabelledSettings
) -> Assignment:
    """Returns the data set's own split; where it has none to validate on, part of train becomes it.

    Patients of train are drawn into train and validate in the proportion of the first two of
    --split_fractions.

    Args:
      splits: split of each case.
      cases: all cases.
      settings: shares and seed of the drawing.
    """
    if "validate" in splits:
        return Assignment(members=members_of(splits))
    train, validate, _ = settings.fractions()
    share = validate / (train + validate or 1.0)
    drawn = [
        settings.drawn(case.patient, shares=(1.0 - share, share, 0.0)) if name == "train" else name
        for name, case in zip(splits, cases, strict=True)
    ]
    return Assignment(members=members_of(drawn))
