"""Reads the lists of ids by which papers publish their splits: train.txt, validation.csv, ...

The project carries no such list. The user downloads the paper's and names the folder by
`--split_lists`.
"""

import pathlib
from collections.abc import Mapping, Sequence

from data_prep.kit import tables, values
from prior_jax.data.schema import SPLITS
from prior_jax.errors import ConfigError, DataError

_STEMS: Mapping[str, str] = {
    name: split
    for split, names in {
        "train": ("train", "training", "train_list", "train_val_list"),
        "validate": ("validate", "validation", "valid", "val", "dev", "val_list", "valid_list"),
        "test": ("test", "testing", "test_list"),
    }.items()
    for name in names
}
_SUFFIXES = (".txt", ".csv", ".tsv")
_IMAGES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff")
# Columns that hold ids, as `values.simplified` writes them, the surest first.
_ID_COLUMNS = (
    *("id", "imageid", "dicomid", "patientid", "imageindex", "imagename", "image", "filename"),
    "path",
)


def plain_id(text: str) -> str:
    """Returns an id without folders in front of it and the suffix of an image behind it."""
    name = text.strip().replace("\\", "/").rpartition("/")[2]
    for suffix in _IMAGES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def found_lists(folder: str, *, flag: str = "--split_lists") -> dict[str, pathlib.Path]:
    """Finds the lists of a folder by their usual names.

    Args:
      folder: folder with lists named train, val, validation, test and the like, `.txt`, `.csv` or
        `.tsv`. Lists of a part of a split, such as train_10.txt, are passed over.
      flag: flag that names the folder, for messages.

    Returns:
      Split -> path of its list; a split without a list is absent.

    Raises:
      ConfigError: if there is no such folder, or no list in it, or two for one split; the message
        names the flag.
    """
    root = pathlib.Path(folder)
    if not folder or not root.is_dir():
        said = f"There is no folder {folder!r}." if folder else "It names no folder."
        raise ConfigError(
            said,
            "Download the id lists that the paper publishes, and name their folder.",
            where=flag,
        )
    found: dict[str, pathlib.Path] = {}
    for path in sorted(root.iterdir()):
        split = _STEMS.get(path.stem.lower())
        if split is None or path.suffix.lower() not in _SUFFIXES or not path.is_file():
            continue
        if split in found:
            raise ConfigError(
                f"{root} has two lists for {split}: {found[split].name} and {path.name}.",
                "Leave only one of them in the folder.",
                where=flag,
            )
        found[split] = path
    if not found:
        raise ConfigError(
            f"{root} has no list that is named train, val or test and ends with .txt or .csv.",
            "Name the folder of the lists, or rename the lists so.",
            where=flag,
        )
    return {split: found[split] for split in SPLITS if split in found}


def read_ids(path: pathlib.Path, *, flag: str = "--split_lists") -> list[str]:
    """Returns the ids of `numbered_ids`, without their lines."""
    return [name for _, name in numbered_ids(path, flag=flag)]


def numbered_ids(path: pathlib.Path, *, flag: str = "--split_lists") -> list[tuple[int, str]]:
    """Reads one list.

    Args:
      path: a `.txt` with an id at the beginning of each line, behind which labels may stand, or a
        `.csv` or `.tsv` with a header, whose ids are in a column named ID, Image Index and the
        like, or else in the first column.
      flag: flag that names the list or its folder, for messages.

    Returns:
      Line and id as it is written, in the order of the list, without blank lines.

    Raises:
      DataError: if the list is not UTF-8, has no id, or begins with an id where the names of its
        columns should stand; the message names it.
    """
    if path.suffix.lower() == ".txt":
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(
                f"It is not UTF-8: {error}.", "Save it as UTF-8.", where=str(path)
            ) from error
        # A comma or blank ends the id; labels and paths of other files may follow it.
        ids = [line.replace(",", " ").replace(";", " ").split() for line in lines]
        found = [(number, words[0]) for number, words in enumerate(ids, 1) if words]
    else:
        table = tables.Table(path, flag=flag)
        names = {values.simplified(name): name for name in reversed(table.names)}
        first = next(iter(table.names))
        column = next((names[key] for key in _ID_COLUMNS if key in names), first)
        rows = [(row.line, row.cells[column].strip()) for row in table.rows(reject=_refuse(path))]
        found = [(line, cell) for line, cell in rows if cell]
        if column == first and _is_id(first, like=[name for _, name in found[:1]]):
            raise DataError(
                f"Its first line should name its columns, and holds {first!r}, which is an id.",
                "Write a first line such as 'id', or save the list as .txt.",
                where=str(path),
            )
    if not found:
        raise DataError("It holds no id.", "Give the list as the paper has it.", where=str(path))
    return found


def _is_id(text: str, *, like: Sequence[str]) -> bool:
    """Tells whether a column's name is an id itself, by its form and that of the first id."""
    if plain_id(text) != text:
        return True
    forms = {tuple(letter.isalnum() for letter in name) for name in (text, *like)}
    return len(text) >= 8 and any(map(str.isdigit, text)) and len(like) == len(forms) == 1


def read_lists(folder: str, *, flag: str = "--split_lists") -> dict[str, list[str]]:
    """Reads all lists of a folder; errors are those of `found_lists` and `read_ids`."""
    return {split: read_ids(path) for split, path in found_lists(folder, flag=flag).items()}


def _refuse(path: pathlib.Path) -> tables.RejectRow:
    def refuse(line: int, reason: str, detail: str) -> None:
        raise DataError(
            f"Line {line} cannot be read: {detail}.",
            "Give the list as the paper has it.",
            where=str(path),
        )

    return refuse
