"""The columns of a custom manifest: their roles, and unread columns that look like one of them."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from data_prep.kit import values
from data_prep.kit.tables import Table
from prior_jax.errors import DataError

ROLES = ("image", "text", "split", "patient", "study", "id", "view", "source", "sex", "age")
# A column "Sex" that is not read is told in a note; a column "Split" is an error.
_ONLY_TOLD = ("--sex_column", "--age_column", "--boxes_columns", "--mask_columns")
# Other names of a column, in letters and digits only, for tables without the default column.
# "findings" may also hold labels, so it counts as a report only if it holds prose.
_LIKELY = {
    "image": "path file filename filepath imagepath imagefile imagename imageindex imageid img "
    "images dicomid",
    "text": "report reports reporttext findings findingstext impression impressions caption "
    "captions",
    "split": "fold folds set partition subset phase splits datasplit",
    "patient": "patient patients patientno patientnumber subject subjects subjectid mrn",
    "study": "study studies studyuid studyinstanceuid exam examid accession accessionnumber",
    "labels": "label class classname findinglabels",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns.

    `labels` and `boxes` are tried in order, `masks` are the labels of masks by the column of their
    files, and `ignored` are never read.
    """

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
    sex: str = "sex"
    age: str = "age"
    boxes: tuple[str, ...] = ()
    masks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def flags(self) -> dict[str, tuple[str, ...]]:
        """Returns flag -> columns that the flag names and that are read."""
        single = {f"--{name}_column": (getattr(self, name),) for name in ROLES}
        return {
            **single,
            "--labels_columns": () if self.label_columns else self.labels,
            "--label_columns": self.label_columns,
            "--kept_columns": self.kept,
            "--boxes_columns": self.boxes,
            "--mask_columns": tuple(self.masks),
        }

    def present(self, table: Table) -> list[str]:
        """Returns the columns of a table without the ignored ones."""
        return [name for name in table.names if name not in self.ignored]


def require(table: Table, columns: Columns, *, given: Collection[str]) -> None:
    """Refuses columns that a flag names but that the table does not have.

    Args:
      table: table; if it is a `.jsonl`, all its rows must have been read.
      columns: names of the columns.
      given: flags that the user has given.

    Raises:
      DataError: if a column is missing; the message names the flag, the column, the columns found
        and the nearest name.
    """
    likely = _likely("image", columns.present(table))
    if columns.image not in table.names and likely:
        raise DataError(
            f"{table.path} has no column {columns.image!r}; its columns are {list(table.names)}.",
            f"Set --image_column={likely[0]!r} if that column holds the path of the image.",
            where="--image_column",
        )
    wanted = [("--image_column", columns.image)]
    for flag, names in columns.flags().items():
        if flag not in given or flag == "--image_column":
            continue
        if flag in ("--labels_columns", "--boxes_columns"):  # the first one that exists
            if names and not set(names) & set(table.names):
                wanted += [(flag, names[0])]
        else:
            wanted += [(flag, name) for name in names]
    wanted += [("--ignore_columns", name) for name in columns.ignored]
    table.require(wanted)


def refuse_passed_over(
    table: Table, columns: Columns, *, prose: Collection[str], labels: Sequence[str]
) -> None:
    """Refuses a table with an unread column that looks as if it should be read.

    If a column "Split" or "fold" were not read, all splits in it would be lost.

    Args:
      table: table; if it is a `.jsonl`, all its rows must have been read.
      columns: names of the columns.
      prose: columns whose cells are sentences.
      labels: columns that labels are read from.

    Raises:
      DataError: if there is such a column; the message names the flag and the column.
    """
    present = columns.present(table)
    used = {name for flag, names in columns.flags().items() for name in names}
    for flag, names in columns.flags().items():
        for name in names if flag not in _ONLY_TOLD else ():
            for column in present:
                if (
                    column not in used
                    and values.simplified(column) == values.simplified(name)
                    and not (flag == "--labels_columns" and column in prose)
                ):
                    raise _passed_over(table, flag, name, [column], given=names)
    unread = unread_columns(table, columns, labels=labels)
    for role in ("text", "split", "patient", "study"):
        name = getattr(columns, role)
        likely = _likely(role, unread)
        if role == "text":
            sections = [c for c in likely if values.simplified(c) == "findings" and c not in prose]
            likely = [column for column in likely if column not in sections]
        if name not in present and likely:
            raise _passed_over(table, f"--{role}_column", name, likely)
    likely = _likely("labels", unread)
    if likely and not labels:
        names = columns.labels
        raise _passed_over(table, "--labels_columns", names[0] if names else "labels", likely)


def unread_columns(table: Table, columns: Columns, *, labels: Sequence[str]) -> list[str]:
    """Returns the columns of a table that nothing is read from.

    Args:
      table: table that the columns belong to.
      columns: names of the columns.
      labels: columns that labels are read from.
    """
    read = {getattr(columns, role) for role in ROLES} | {*columns.kept, *labels, *columns.boxes}
    read |= set(columns.masks)
    return [name for name in columns.present(table) if name not in read]


def _likely(role: str, names: Sequence[str]) -> list[str]:
    known = _LIKELY[role].split()
    return [name for name in names if values.simplified(name) in known]


def _passed_over(
    table: Table, flag: str, name: str, found: Sequence[str], *, given: Sequence[str] = ()
) -> DataError:
    """Returns the error for columns that would not be read, with advice.

    Args:
      table: table that the columns belong to.
      flag: flag that would read the columns.
      name: column that the flag names now.
      found: columns that would not be read.
      given: all columns that the flag names now.
    """
    value = ",".join(found[0] if one == name else one for one in given) or found[0]
    return DataError(
        f"The flag names the column {name!r}, but {table.path} has "
        f"{' and '.join(map(repr, found))}, which would not be read.",
        f"Set {flag}={value!r} to read that column, rename it to {name!r} in the table, or set "
        f"--ignore_columns={','.join(found)!r} to leave it out.",
        where=flag,
    )


def told(unread: Sequence[str], columns: Columns, *, table: str) -> list[str]:
    """Returns sentences on unread columns that look like sex, age or boxes.

    Args:
      unread: columns that nothing is read from.
      columns: names of the columns.
      table: name of the table's file.
    """
    flags = columns.flags()
    return [
        f"{table}: {column!r} was not read; {flag}={column} reads it."
        for flag in _ONLY_TOLD
        for column in unread
        if values.simplified(column) in map(values.simplified, flags[flag])
    ]
