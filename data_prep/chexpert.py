"""CheXpert, full or small: radiographs with 14 labels, sex and age -> a prepared set.

    python -m data_prep.chexpert --root=CheXpert-v1.0-small --split=official --out=prepared

Source: CheXpert, arXiv:1901.07031; the splits of GLoRIA and MGCA are in chexpert_splits.py.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_prep import chexpert_layout, chexpert_splits, chexpert_table
from data_prep.kit import cli, labelled, preparer, published_splits, subgroups, values
from data_prep.kit.plan import Plan, Reject, RowProblem, TableUse, rejecting, rejecting_rows
from data_prep.kit.tables import Table
from data_prep.kit.used_cells import absent_note
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.errors import DataError

PROGRAM = "data_prep.chexpert"
LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
TABLES = {"train": chexpert_layout.TRAIN_TABLE, "validate": "valid.csv", "test": "test.csv"}
COLUMNS = {name: name for name in ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")}
ROWS = "rows of the tables"
FRONTAL = "frontal"
HELD_OUT = "held_out_for_5x200"
CONFLICTING = "conflicting_rows"
_WANTED = (*list(COLUMNS)[1:], *LABELS)
_SAID = ("labels", "sex", "age", "view", "problem")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths(labelled.SplitPaths):
    """Where the raw data lies."""

    root: str = cli.setting(
        "Folder CheXpert-v1.0 or CheXpert-v1.0-small, with train.csv and, if they are there, "
        "valid.csv and test.csv, and the folders of the images; or the folder of the unpacked "
        "batches of the full download."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(labelled.LabelledSettings):
    """What is kept, and how; recorded in the manifest."""

    lateral: bool = cli.setting("Keep lateral images too.", default=False)
    split_as_released: bool = cli.setting(
        "Draw the splits gloria and mgca as their code does, so that most images to validate on "
        "are trained on too.",
        default=False,
    )
    validation_images: int = cli.setting(
        "Number of images to validate on, for the splits gloria and mgca.",
        default=chexpert_splits.VALIDATION_IMAGES,
    )
    exclusive_images: int = cli.setting(
        "Number of images of each of five findings that the splits gloria and mgca hold out for "
        "the 5x200.",
        default=chexpert_splits.PER_TASK,
    )

    def __post_init__(self):
        """Refuses invalid values."""
        super().__post_init__()
        self.check("validation_images", self.validation_images >= 1, "1 or more")
        self.check("exclusive_images", self.exclusive_images >= 1, "1 or more")
        unseeded = self.split_seed == 0 or not self.split_as_released
        must_be = "0 with --split_as_released, which has the authors' seeds"
        self.check("split_seed", unseeded, must_be)


def within(path: str) -> str:
    """Returns the part of a table's path from the folder of the split on: train/patient00001/..."""
    parts = [part for part in path.strip().replace("\\", "/").split("/") if part not in ("", ".")]
    # The last such part: a folder above the data set may be called train too.
    for place in reversed(range(len(parts))):
        if parts[place] in ("train", "valid", "test"):
            return "/".join(parts[place:])
    return "/".join(parts)


def case_of(
    cells: Mapping[str, Any], *, lateral: bool, columns: Mapping[str, str] = COLUMNS
) -> labelled.Case:
    """Returns the case of a row; what is wrong with the row becomes the case's problem.

    Args:
      cells: Path, Sex, Age, Frontal/Lateral, AP/PA and the labels; all but Path may be absent, and
        labels that are absent are not mentioned.
      lateral: whether lateral images are kept.
      columns: names of the first five -> their names in this table.

    Raises:
      RowProblem: `incomplete_row` or `unknown_path`, if it is not known which image the row is of.
      CellProblem: if the path is no text.
    """
    path, sex, age, side, view = (columns[name] for name in COLUMNS)
    written = values.text_of(cells.get(path), field=path)
    if not written:
        raise RowProblem("incomplete_row", f"column {path!r} is blank")
    name = within(written)
    try:
        patient = chexpert_table.patient_of(name)
    except DataError as error:
        raise RowProblem("unknown_path", f"{error.problem} {error.remedy}") from error
    place = {"id": name.rpartition(".")[0] or name, "path": name, "patient": patient}
    try:
        frontal = is_frontal(cells.get(side), field=side, path=name)
        seen = values.text_of(cells.get(view), field=view).upper()
        case = labelled.Case(
            **place,
            labels=tuple(values.label_of(cells.get(label), field=label) for label in LABELS),
            sex=subgroups.sex_of(cells.get(sex), field=sex),
            age=subgroups.age_of(cells.get(age), field=age),
            view=seen if frontal else "LATERAL",
        )
    except values.CellProblem as problem:
        blank = (schema.LABEL_NOT_MENTIONED,) * len(LABELS)
        return labelled.Case(**place, labels=blank, problem=("malformed_row", problem.detail))
    if frontal or lateral:
        return case
    return dataclasses.replace(case, problem=("wrong_view", "a lateral image"))


def is_frontal(cell: Any, *, field: str, path: str) -> bool:
    """Returns whether an image is frontal, by its column or else by the name of its file.

    Raises:
      CellProblem: if the column holds another word than Frontal and Lateral.
    """
    word = values.text_of(cell, field=field)
    if word.casefold() in (FRONTAL, "lateral"):
        return word.casefold() == FRONTAL
    if word:
        raise values.CellProblem(f"column {field!r} holds {word!r}, which is no Frontal or Lateral")
    return FRONTAL in path.rpartition("/")[2].casefold()


def read_cases(
    root: pathlib.Path, *, lateral: bool, encoding: str, reject: Reject, alone: bool = False
) -> tuple[list[labelled.Case], dict[str, list[int]], TableUse]:
    """Reads all tables of the folder.

    Args:
      root: folder of the tables.
      lateral: whether lateral images are kept.
      encoding: encoding of the tables.
      reject: function that counts what is left out.
      alone: whether train.csv must have all 14 labels, since images with one finding alone are to
        be drawn from it.

    Returns:
      Cases in the order of the tables, split of the table -> positions of its cases, and the counts
      of all rows together.

    Raises:
      DataError: if a table lacks a column, or is damaged.
    """
    cases: list[labelled.Case] = []
    of_table: dict[str, list[int]] = {}
    seen: dict[str, int] = {}
    read, notes = 0, []
    for split, path in found_tables(root).items():
        table = Table(path, flag="--root", key="Path", single_lines=True, encoding=encoding)
        needed = LABELS if alone and split == "train" else chexpert_table.UNCERTAIN
        table.require([("--root", name) for name in ("Path", *needed)])
        of_table[split] = []
        for row in table.rows(reject=rejecting_rows(table, reject, counted_as=ROWS)):
            with rejecting(reject, id=f"{table.name}:{row.line}", table=ROWS):
                case = case_of(row.cells, lateral=lateral)
                case = dataclasses.replace(case, line=row.line, table=table.name)
                if case.id in seen:
                    cases[seen[case.id]], problem = _repeated(case, cases[seen[case.id]])
                    raise problem
                seen[case.id] = len(cases)
                of_table[split].append(len(cases))
                cases.append(case)
        read += table.read
        notes += [*table.notes(), *absent_note(table.name, table.names, wanted=_WANTED)]
    return cases, of_table, TableUse(name=ROWS, read=read, notes=notes)


def _repeated(case: labelled.Case, earlier: labelled.Case) -> tuple[labelled.Case, RowProblem]:
    """Returns the earlier case of an image, and the problem of a later row of the same image.

    Rows that say the same count once; of rows that differ none is kept.
    """
    before = f"{earlier.table}:{earlier.line}"
    if all(getattr(case, name) == getattr(earlier, name) for name in _SAID):
        return earlier, RowProblem("duplicate_row", f"{case.id} stands in {before} before")
    detail = f"{case.table}:{case.line} says other things of the image"
    marked = dataclasses.replace(earlier, problem=(CONFLICTING, detail))
    return marked, RowProblem(CONFLICTING, f"{before} says other things of {case.id}")


def found_tables(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns split -> path of each table of the folder.

    Raises:
      DataError: if there is no train.csv, naming the flag.
    """
    folder = chexpert_layout.tables_folder(root)
    cli.required_file(folder / TABLES["train"], flag="--root")
    paths = {split: folder / name for split, name in TABLES.items()}
    return {split: path for split, path in paths.items() if path.is_file()}


def label_array(cases: Sequence[labelled.Case]) -> np.ndarray:
    """Returns float64[N, 14]: labels as the tables have them, NaN for not mentioned."""
    labels = np.array([case.labels for case in cases], np.float64).reshape(-1, len(LABELS))
    return np.where(labels == schema.LABEL_NOT_MENTIONED, np.nan, labels)


def prepare(paths: Paths, settings: Settings, options: cli.RunOptions) -> manifest_lib.Manifest:
    """Prepares the set, or goes on with it, or finds it complete; returns its manifest."""
    root = preparer.folder(paths.root, flag="--root")
    tables = list(found_tables(root).values())
    return preparer.prepare_set(
        functools.partial(_plan, paths, settings),
        options,
        program=PROGRAM,
        settings=settings,
        inputs=labelled.inputs(tables, lists=paths.split_lists, settings=settings),
    )


def _plan(paths: Paths, settings: Settings, directory: pathlib.Path, reject: Reject) -> Plan:
    root = pathlib.Path(paths.root)
    by_paper = settings.split in ("gloria", "mgca")
    cases, of_table, table = read_cases(
        root,
        lateral=settings.lateral,
        encoding=settings.encoding,
        reject=reject,
        alone=by_paper,
    )
    official = published_splits.Assignment(members=of_table)
    if by_paper:
        cases, assignment = _by_paper(cases, of_table, settings)
    else:
        assignment = labelled.assigned(
            cases,
            data_set="chexpert",
            settings=settings,
            lists=paths.split_lists,
            official=official,
            key=lambda name: within(name).rpartition(".")[0] or within(name),
        )
    return labelled.labelled_plan(
        chexpert_layout.placed(cases, root),
        assignment,
        directory=directory,
        reject=reject,
        images_dir=root,
        images_flag="--root",
        settings=settings,
        label_names=LABELS,
        table=table,
        # MGCA leaves lateral images out before it draws 1 or 10 %, GLoRIA afterwards: release,
        # mgca/datasets/classification_dataset.py; release, gloria/datasets/image_dataset.py.
        is_listed=lambda case: settings.split != "mgca" or case.view != "LATERAL",
    )


def _by_paper(
    cases: Sequence[labelled.Case], of_table: Mapping[str, Sequence[int]], settings: Settings
) -> tuple[list[labelled.Case], published_splits.Assignment]:
    """Splits as GLoRIA or MGCA does: valid.csv is the test, the 5x200 are held out of training.

    Images that are rejected, such as lateral ones, are neither drawn nor counted; the authors' code
    draws from all rows.
    """
    drawn_from = {
        table: [
            place for place in places if settings.split_as_released or cases[place].problem is None
        ]
        for table, places in of_table.items()
    }
    train = [cases[place] for place in drawn_from["train"]]
    drawing = {
        "names": LABELS,
        "frontal": np.array([case.view != "LATERAL" and case.problem is None for case in train]),
        "paper": settings.split,
        "count": settings.validation_images,
        "per_task": settings.exclusive_images,
    }
    labels = label_array(train)
    if settings.split_as_released:
        held, kept, validate = chexpert_splits.released_splits(labels, **drawing)
    else:
        patients = [case.patient for case in train]
        held, kept, validate = chexpert_splits.parted_splits(
            labels, patients, seed=settings.split_seed, **drawing
        )
    rows = {"train": kept.tolist(), "validate": validate.tolist()}
    members = {split: [drawn_from["train"][row] for row in found] for split, found in rows.items()}
    members["test"] = drawn_from.get("validate", [])
    marked = list(cases)
    for row in held:
        place = drawn_from["train"][row]
        problem = (HELD_OUT, f"the split {settings.split!r} keeps it for the 5x200")
        marked[place] = dataclasses.replace(marked[place], problem=problem)
    assignment = published_splits.Assignment(members=members)
    return marked, labelled.described(
        assignment,
        marked,
        settings=settings,
        published=published_splits.PUBLISHED["chexpert"][settings.split],
    )


if __name__ == "__main__":
    preparer.run_program(prepare, Paths, Settings)
