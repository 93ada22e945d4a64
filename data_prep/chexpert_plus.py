"""CheXpert Plus: the radiographs of CheXpert with their reports -> a prepared set.

    python -m data_prep.chexpert_plus --table=df_chexpert_plus_240401.csv --images_dir=PNG \
        --exclude_5x200=list.json --out=prepared

A study keeps its frontal images and the findings and impression of its report. The table has a
copy of the report for each image, differently de-identified: that of the first image counts.
Images of CheXpert 5x200 can be left out, so that an encoder may be tested on them.

Source: CheXpert Plus, arXiv:2405.19538, and the files that Stanford publishes with it.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_prep import chexpert, chexpert_plus_copies, chexpert_plus_tables
from data_prep.kit import cli, preparer, published_splits, splits, values
from data_prep.kit.outcomes import Kept, Rejection
from data_prep.kit.plan import (
    Plan,
    PlannedImage,
    PlannedStudies,
    Planner,
    Reject,
    RowProblem,
    TableUse,
    rejecting,
    rejecting_rows,
)
from data_prep.kit.preparer import ImageFile
from data_prep.kit.settings import SetSettings
from data_prep.kit.text import TextProblem, sections_text
from data_prep.kit.used_cells import absent_note
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.errors import ConfigError

PROGRAM = "data_prep.chexpert_plus"
LABELS = chexpert.LABELS
SPLITS = (published_splits.OFFICIAL, published_splits.SEEDED)
TEXTS = ("section_impression", "section_findings")
_SUFFIXES = (".png", ".jpg", ".jpeg")
# The columns of CheXpert Plus under the names that CheXpert's own table has.
_CHEXPERT = {
    "Path": "path_to_image",
    "Sex": "sex",
    "Age": "age",
    "Frontal/Lateral": "frontal_lateral",
    "AP/PA": "ap_pa",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths:
    """Where the raw data lies."""

    table: str = cli.setting("The table df_chexpert_plus_240401.csv, with a row an image.")
    images_dir: str = cli.setting("Folder of the PNG or JPEG images, which holds train and valid.")
    labels: str = cli.setting(
        "Labels of the images, such as chexbert_labels/impression_fixed.json, or CheXpert's "
        "train.csv; without it the set has no labels.",
        default="",
    )
    exclude_5x200: str = cli.setting(
        "Images to leave out: PRIOR's .json of CheXpert 5x200, or a .txt or .csv of paths.",
        default="",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(SetSettings):
    """What is kept, and how; recorded in the manifest."""

    split: str = cli.setting(
        "official, which is the table's column, or seeded, which draws patients by a hash.",
        default=published_splits.OFFICIAL,
    )
    lateral: bool = cli.setting("Keep lateral images too.", default=False)
    exclude_patients: bool = cli.setting(
        "Leave out all images of the patients of --exclude_5x200, not only the listed ones.",
        default=False,
    )

    def __post_init__(self):
        """Refuses invalid values."""
        super().__post_init__()
        self.check("split", self.split in SPLITS, " or ".join(SPLITS))


def prepare(paths: Paths, settings: Settings, options: cli.RunOptions) -> manifest_lib.Manifest:
    """Prepares the set, or goes on with it, or finds it complete; returns its manifest."""
    tables = [cli.required_file(pathlib.Path(paths.table), flag="--table")]
    for name in ("labels", "exclude_5x200"):
        if getattr(paths, name):
            tables.append(cli.required_file(pathlib.Path(getattr(paths, name)), flag=f"--{name}"))
    if settings.exclude_patients and not paths.exclude_5x200:
        raise ConfigError(
            "Patients are to be left out, and no list of images names them.",
            "Give the list as --exclude_5x200.",
            where="--exclude_patients",
        )
    preparer.folder(paths.images_dir, flag="--images_dir")
    return preparer.prepare_set(
        functools.partial(_plan, paths, settings),
        options,
        program=PROGRAM,
        settings=settings,
        inputs=preparer.hashes(tables),
    )


def _plan(paths: Paths, settings: Settings, directory: pathlib.Path, reject: Reject) -> Plan:
    table = settings.table(pathlib.Path(paths.table), flag="--table", key="path_to_image")
    wanted = ["path_to_image", *TEXTS]
    wanted += ["split"] if settings.split == published_splits.OFFICIAL else []
    table.require([("--table", name) for name in wanted])
    excluded = chexpert_plus_tables.Excluded.read(
        paths.exclude_5x200, patients_too=settings.exclude_patients
    )
    labels = chexpert_plus_tables.Labels.read(
        paths.labels, encoding=settings.encoding, reject=reject
    )
    official = settings.split == published_splits.OFFICIAL
    with Planner(directory, reject=reject, table=table.name, keep_leaks=official) as planner:
        for row in table.rows(reject=rejecting_rows(table, reject)):
            with rejecting(reject, id=f"{table.name}:{row.line}", table=table.name):
                image = planned(row.cells, settings=settings, labels=labels)
                excluded.check(image.id, image.patient, split=schema.SPLITS[image.split])
                planner.add(dataclasses.replace(image, line=row.line))
        jobs = planner.finish(studies_per_shard=settings.studies_per_shard)
    images_dir = pathlib.Path(paths.images_dir)
    make_record = Studies(images_dir=images_dir, table=table.name, settings=settings)
    return Plan(
        jobs=jobs,
        process=PlannedStudies(directory=directory, make_record=make_record),
        label_names=LABELS if paths.labels else (),
        tables=[
            TableUse(
                name=table.name,
                read=table.read,
                notes=(
                    *table.notes(),
                    *absent_note(table.name, table.names, wanted=list(_CHEXPERT.values())[1:]),
                ),
            ),
            *labels.uses(),
        ],
        short_side=settings.short_side,
        notes=[*excluded.notes(), *chexpert_plus_copies.notes(directory)],
        images_dir=images_dir,
        published_split=settings.split if official else "",
    )


def planned(
    cells: Mapping[str, Any], *, settings: Settings, labels: chexpert_plus_tables.Labels
) -> PlannedImage:
    """Returns the image of a row.

    Raises:
      RowProblem: `incomplete_row`, `unknown_path`, `wrong_view`, `row_without_split`,
        `unknown_split`, or `malformed_row`.
      CellProblem: if a cell holds another kind of value than it should.
    """
    case = chexpert.case_of(cells, lateral=settings.lateral, columns=_CHEXPERT)
    if case.problem:
        raise RowProblem(*case.problem)
    if settings.split == published_splits.SEEDED:
        split = settings.drawn_split(case.patient)
    else:
        split = _split(values.text_of(cells.get("split"), field="split"))
    return PlannedImage(
        id=case.id,
        study=case.id.rpartition("/")[0],
        patient=case.patient,
        split=split,
        data={
            "path": case.path,
            "view": case.view,
            "sex": case.sex,
            "age": case.age,
            "labels": labels.of(case.id),
            "texts": [values.text_of(cells.get(name), field=name) for name in TEXTS],
            "report": _digest(values.text_of(cells.get("report"), field="report")),
        },
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _split(written: str) -> int:
    code = splits.split_code(written)
    if not written:
        raise RowProblem("row_without_split", "column 'split' is blank")
    if code is None:
        raise RowProblem("unknown_split", f"{written!r} is not one of {splits.KNOWN_NAMES}")
    return code


@dataclasses.dataclass(frozen=True, kw_only=True)
class Studies:
    """Makes the record of a study, in a worker process."""

    images_dir: pathlib.Path
    table: str
    settings: Settings

    def __call__(self, images: Sequence[PlannedImage]) -> Iterator[Kept | Rejection]:
        """Yields the record, or why there is none."""
        try:
            chexpert_plus_copies.differing(images)
            impression, findings = images[0].data["texts"]
            known = {"sex": _same(images, "sex", "conflicting_sex")}
            age = _same(images, "age", "conflicting_age")
            text = sections_text(
                impression=impression,
                findings=findings,
                settings=self.settings.text(free_text=False),
            )
        except (RowProblem, TextProblem) as problem:
            yield preparer.rejected_study(images, problem, table=self.table)
            return
        if age is not None:
            known["age"] = float(age)
        files = [
            ImageFile(
                id=image.id,
                path=found_image(self.images_dir, image.data["path"]),
                name=image.data["path"],
                view=image.data["view"],
                rows=image.rows,
            )
            for image in images
        ]
        yield from preparer.study_outcome(
            files,
            stored=self.settings.stored(self.table),
            fields={
                "study_id": images[0].study,
                "subject_id": images[0].patient,
                "labels": tuple(images[0].data["labels"]),
                **known,
                **text.fields(),
            },
        )


def _same(images: Sequence[PlannedImage], name: str, reason: str) -> Any:
    """Returns what all images of a study say, or raises a RowProblem."""
    first = images[0].data[name]
    if any(image.data[name] != first for image in images):
        raise RowProblem(reason, f"the rows of the study differ in {name}")
    return first


def found_image(folder: pathlib.Path, path: str) -> pathlib.Path:
    """Returns the path of an image: as written, or else with the suffix of another format."""
    written = folder / path
    others = (written.with_suffix(suffix) for suffix in _SUFFIXES)
    return next((place for place in (written, *others) if place.is_file()), written)


if __name__ == "__main__":
    preparer.run_program(prepare, Paths, Settings)
