"""CheXpert 5x200: images with one finding alone, for zero-shot and retrieval -> a prepared set.

    python -m data_prep.chexpert_5x200 --root=CheXpert-v1.0-small --selection=list.json --out=set

The images are those of PRIOR's JSON, of a list of paths, or drawn by GLoRIA's or MGCA's rule. All
of them are the split "test", and their labels are the five findings.

Source: GLoRIA, ICCV 2021, sec. 4.1; PRIOR's release, the JSON of its zero-shot data; for the rules
chexpert_splits.py.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_prep import chexpert, chexpert_layout, chexpert_splits, chexpert_table
from data_prep.kit import cli, id_lists, labelled, preparer, strict_json
from data_prep.kit.outcomes import Rejection
from data_prep.kit.plan import Plan, Reject, RowProblem, TableUse
from data_prep.kit.published_splits import Assignment
from data_prep.kit.settings import StoreSettings
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.errors import ConfigError, DataError

PROGRAM = "data_prep.chexpert_5x200"
LABELS = tuple(chexpert_table.UNCERTAIN)
RULES = ("gloria", "mgca")
SELECTED = "selected images"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths:
    """Where the raw data lies."""

    root: str = cli.setting("Folder CheXpert-v1.0 or CheXpert-v1.0-small.")
    selection: str = cli.setting(
        "The images: PRIOR's .json, or a .txt or .csv of paths; if empty, --rule draws them.",
        default="",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(StoreSettings):
    """What is kept, and how; recorded in the manifest."""

    rule: str = cli.setting(
        f"Rule that draws the images where no selection is given: {' or '.join(RULES)}.",
        default="gloria",
    )
    seed: int = cli.setting(
        "Seed of GLoRIA's rule. 6 gives, with --as_released, the authors' own list from their "
        "table; PRIOR's five draws have 114514 to 114518. MGCA's rule is always drawn with 0.",
        default=chexpert_splits.GLORIA_SEED,
    )
    as_released: bool = cli.setting(
        "Draw as the releases do, which do not look at 'No Finding'.", default=False
    )
    count: int = cli.setting("Number of images of each finding.", default=200)

    def __post_init__(self):
        """Refuses invalid values."""
        super().__post_init__()
        if self.rule not in RULES:
            raise ConfigError.of_value("--rule", self.rule, " or ".join(RULES))
        self.check("count", self.count >= 1, "1 or more")
        self.check("seed", 0 <= self.seed < 2**32, "0 to 4294967295")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selected:
    """An image of a selection.

    Attributes:
      path: path from the folder of the split on, train/patient00001/study1/view1_frontal.jpg.
      finding: name of its finding, "" where the table of labels has to say it.
      line: line of the list, or place among the rows of PRIOR's JSON, from 1; 0 for a drawn image.
      table: name of the selection's file.
      problem: reason and detail for which it is left out, or None.
    """

    path: str
    finding: str = ""
    line: int = 0
    table: str = ""
    problem: tuple[str, str] | None = None


def prepare(paths: Paths, settings: Settings, options: cli.RunOptions) -> manifest_lib.Manifest:
    """Prepares the set, or goes on with it, or finds it complete; returns its manifest."""
    root = preparer.folder(paths.root, flag="--root")
    tables = []
    if paths.selection:
        tables.append(cli.required_file(pathlib.Path(paths.selection), flag="--selection"))
    if _has_tables(root) or not paths.selection:
        tables += chexpert.found_tables(root).values()
    return preparer.prepare_set(
        functools.partial(_plan, paths, settings),
        options,
        program=PROGRAM,
        settings=settings,
        inputs=preparer.hashes(tables),
    )


def _has_tables(root: pathlib.Path) -> bool:
    return (chexpert_layout.tables_folder(root) / chexpert_layout.TRAIN_TABLE).is_file()


def _plan(paths: Paths, settings: Settings, directory: pathlib.Path, reject: Reject) -> Plan:
    root = pathlib.Path(paths.root)
    known: dict[str, labelled.Case] = {}
    train: list[labelled.Case] = []
    if _has_tables(root):
        # Rows that are not selected are no rows of this set.
        cases, of_table, _ = chexpert.read_cases(
            root,
            lateral=True,
            encoding=settings.encoding,
            reject=lambda _: None,
            alone=not paths.selection,
        )
        known = {case.path: case for case in cases}
        train = [cases[place] for place in of_table["train"]]
    chosen = (
        read_selection(pathlib.Path(paths.selection))
        if paths.selection
        else _drawn(train, settings)
    )
    found: dict[str, labelled.Case] = {}
    for selected in chosen:
        case = _case(selected, known)
        if case.id in found:
            found[case.id], problem = _repeated(case, found[case.id])
            left_out = {"rows": 1, "table": SELECTED}
            detail = case.placed(problem.detail, table="")
            reject(Rejection(id=case.id, reason=problem.reason, detail=detail, **left_out))
            continue
        found[case.id] = case
    cases = list(found.values())
    return labelled.labelled_plan(
        chexpert_layout.placed(cases, root),
        Assignment(members={"test": range(len(cases))}),
        directory=directory,
        reject=reject,
        images_dir=root,
        images_flag="--root",
        settings=settings,
        label_names=LABELS,
        table=TableUse(name=SELECTED, read=len(chosen), notes=_notes(cases, settings)),
    )


def read_selection(path: pathlib.Path) -> list[Selected]:
    """Reads a selection: PRIOR's JSON, or a list of paths."""
    if path.suffix.lower() == ".json":
        return read_json(path)
    return [
        Selected(path=chexpert.within(name), line=line, table=path.name)
        for line, name in id_lists.numbered_ids(path, flag="--selection")
    ]


def read_json(path: pathlib.Path) -> list[Selected]:
    """Reads PRIOR's JSON: {row: {"image_path": "train/...", "label": [0, 1, 0, 0, 0]}}.

    A label that is not one 1 among four 0 becomes the problem of its image.

    Raises:
      DataError: if the file is no such object; the message names it, and the row if one is odd.
    """
    try:
        content = strict_json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError(f"it is a {type(content).__name__}")
        if not content:
            raise ValueError("it has no row")
        for key, row in content.items():
            if not isinstance(row, dict) or not {"image_path", "label"} <= row.keys():
                raise ValueError(f"row {key!r} has no image_path or no label")
    except ValueError as error:
        raise DataError(
            f"It is no JSON object of rows with image_path and label: {error}.",
            "Give PRIOR's JSON of CheXpert 5x200, or a .txt of paths.",
            where=str(path),
        ) from error
    return [
        dataclasses.replace(_of_json(row["image_path"], row["label"]), line=line, table=path.name)
        for line, row in enumerate(content.values(), 1)
    ]


def _of_json(name: Any, label: Any) -> Selected:
    if not isinstance(name, str):
        problem = ("unknown_path", f"its image_path is {str(name)[:60]}")
        return Selected(path=str(name), problem=problem)
    path = chexpert.within(name)
    expected = ["0"] * (len(LABELS) - 1) + ["1"]
    if not isinstance(label, list) or sorted(map(_digit, label)) != expected:
        detail = f"its label is {str(label)[:60]}, which is not one 1 among {len(LABELS) - 1} 0"
        return Selected(path=path, problem=("malformed_labels", detail))
    return Selected(path=path, finding=LABELS[[_digit(value) for value in label].index("1")])


def _digit(value: Any) -> str:
    return str(value).removesuffix(".0")


def _drawn(train: Sequence[labelled.Case], settings: Settings) -> list[Selected]:
    rows = chexpert_splits.draw_5x200(
        chexpert.label_array(train),
        names=chexpert.LABELS,
        frontal=np.array([case.view != "LATERAL" and case.problem is None for case in train]),
        paper=settings.rule,  # pyright: ignore[reportArgumentType]
        rng=np.random.RandomState(settings.seed),
        mode="release" if settings.as_released else "paper",
        count=settings.count,
    )
    return [Selected(path=train[row].path) for row in rows]


def _repeated(case: labelled.Case, earlier: labelled.Case) -> tuple[labelled.Case, RowProblem]:
    """Returns the earlier case of an image, and the problem of naming the image again."""
    if (case.labels, case.problem) == (earlier.labels, earlier.problem):
        return earlier, RowProblem("duplicate_row", f"entry {earlier.line} names it before")
    marked = dataclasses.replace(
        earlier, problem=(chexpert.CONFLICTING, f"entry {case.line} gives it another label")
    )
    detail = f"entry {earlier.line} gives it another label"
    return marked, RowProblem(chexpert.CONFLICTING, detail)


def _case(selected: Selected, known: Mapping[str, labelled.Case]) -> labelled.Case:
    """Returns the case of a selected image, with sex, age and view if there is a table."""
    try:
        patient = chexpert_table.patient_of(selected.path)
    except DataError as error:
        blank = (schema.LABEL_NOT_MENTIONED,) * len(LABELS)
        problem = selected.problem or ("unknown_path", str(error))
        return labelled.Case(
            line=selected.line,
            table=selected.table,
            id=selected.path,
            path=selected.path,
            patient=selected.path,
            labels=blank,
            problem=problem,
        )
    row = known.get(selected.path)
    base = row or labelled.Case(
        id=selected.path.rpartition(".")[0], path=selected.path, patient=patient, labels=()
    )
    problem = selected.problem or (row.problem if row else None)
    labels = tuple(int(name == selected.finding) for name in LABELS)
    if not selected.finding and not problem:
        if row is None:
            problem = ("listed_without_row", "no row of train.csv or valid.csv says its labels")
        else:
            of_row = dict(zip(chexpert.LABELS, row.labels, strict=True))
            labels = tuple(int(of_row[name] == schema.LABEL_POSITIVE) for name in LABELS)
            if sum(labels) != 1:
                said = ", ".join(name for name, there in zip(LABELS, labels, strict=True) if there)
                problem = ("not_one_finding", f"its row has {said or 'none of the five'}")
    place = {"line": selected.line, "table": selected.table} if selected.line else {}
    return dataclasses.replace(base, labels=labels, problem=problem, **place)


def _notes(cases: Sequence[labelled.Case], settings: Settings) -> list[str]:
    """Returns a sentence on the number of images and patients beside the published ones."""
    kept = [case for case in cases if case.problem is None]
    counts = [sum(case.labels[place] for case in kept) for place in range(len(LABELS))]
    patients = len({case.patient for case in kept})
    said = ", ".join(f"{count} {name}" for name, count in zip(LABELS, counts, strict=True))
    expected = [settings.count] * len(LABELS)
    begin = "" if counts == expected else f"Warning: {settings.count} of each are expected. "
    return [f"{begin}Selected are {len(kept)} images of {patients} patients: {said}."]


if __name__ == "__main__":
    preparer.run_program(prepare, Paths, Settings)
