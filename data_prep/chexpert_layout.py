"""Where the files of CheXpert lie: in one folder, or in the batches of the full download.

CheXpert-v1.0-small is one folder with train, valid and their tables. CheXpert-v1.0 comes as four
archives: "CheXpert-v1.0 batch 1 (validate & csv)" with the tables and the folder valid, and three
such as "CheXpert-v1.0 batch 2 (train 1)" with the folders of the patients and no folder train.

Source: the download of the full size, as public code that reads it names its folders.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from data_prep.kit import labelled

TRAIN_TABLE = "train.csv"
_TABLES, _TRAIN = "(validate & csv)", "(train "


def tables_folder(root: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the tables: the root, or the batch of the full download with them."""
    if (root / TRAIN_TABLE).is_file():
        return root
    batches = (path for path in _folders(root) if _TABLES in path.name)
    return next((path for path in batches if (path / TRAIN_TABLE).is_file()), root)


def placed(cases: Sequence[labelled.Case], root: pathlib.Path) -> list[labelled.Case]:
    """Returns the cases with the paths at which their files lie below the root.

    Args:
      cases: cases whose paths begin with the folder of the split, train/patient00001/...
      root: folder CheXpert-v1.0 or CheXpert-v1.0-small, or that of the batches.
    """
    bases: dict[str, Mapping[str, str]] = {}
    if not (root / "train").is_dir():
        bases["train"] = _patients(path for path in _folders(root) if _TRAIN in path.name)
    if not (root / "valid").is_dir():
        first = (path for path in _folders(root) if _TABLES in path.name)
        bases["valid"] = _patients(path / "valid" for path in first)
    if not any(bases.values()):
        return list(cases)
    found = []
    for case in cases:
        split, _, rest = case.path.partition("/")
        base = bases.get(split, {}).get(rest.partition("/")[0])
        folder = os.path.relpath(base, root) if base else split
        found.append(dataclasses.replace(case, path=f"{folder}/{rest}"))
    return found


def _folders(root: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())


def _patients(folders: Iterable[pathlib.Path]) -> dict[str, str]:
    """Returns patient -> the folder that holds the patient's folder."""
    found: dict[str, str] = {}
    for folder in folders:
        inside = folder / "train" if (folder / "train").is_dir() else folder
        for name in sorted(os.listdir(inside)) if inside.is_dir() else ():
            found.setdefault(name, str(inside))
    return found
