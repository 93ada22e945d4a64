"""Prepares a set of studies from a folder of images and a table that describes them.

    python -m data_prep.manifest --manifest=images/manifest.jsonl --out=/data/prepared/mine

The table is a `.jsonl`, `.csv` or `.tsv`. Each row is an image with a path, and optionally with a
text, split, patient, study, view, sex, age, boxes and masks of findings, and labels (a list of the
positive ones, a mapping to 1, 0, -1 or blank, "A|B", or one column for each label with
--label_columns). The rows of one study become one record. A text with report headers gives its
findings and impression; any other text counts as findings. Rows with labels but without text are
kept for evaluation, and with --label_sentences get sentences made from the labels, marked as such.
At its end the program prints the use of every column and the number of rows that were kept or left
out, with reasons.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_prep import manifest_boxes, manifest_columns, manifest_masks
from data_prep.kit import cli, label_lists, preparer
from data_prep.kit.label_sentences import label_sentences
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
from data_prep.kit.text import TextProblem, study_text
from data_prep.manifest_columns import Columns
from data_prep.manifest_rows import Row, RowReader
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema

PROGRAM = "data_prep.manifest"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths:
    """The paths of the raw data."""

    manifest: str = cli.setting("The .jsonl, .csv or .tsv file with one row for each image.")
    images_dir: str = cli.setting(
        "Folder that image paths are relative to; by default the manifest's folder.", default=""
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(SetSettings):
    """The settings for what is kept, and in what form; recorded in the manifest."""

    label_sentences: bool = cli.setting(
        "Make sentences from the labels for rows without text.", default=False
    )
    image_column: str = cli.setting("Column with the path of the image.", default="image")
    text_column: str = cli.setting("Column with the report or note.", default="text")
    split_column: str = cli.setting(
        "Column with train, valid(ate), val or test; a missing split is drawn by patient.",
        default="split",
    )
    patient_column: str = cli.setting(
        "Column with the patient; by default the study.", default="patient_id"
    )
    study_column: str = cli.setting(
        "Column with the study; by default each row is a study.", default="study_id"
    )
    id_column: str = cli.setting(
        "Column with a unique id; by default the image's path.", default="id"
    )
    view_column: str = cli.setting("Column with the view, PA, AP and the like.", default="view")
    source_column: str = cli.setting(
        "Column with the data set that a row comes from.", default="source"
    )
    sex_column: str = cli.setting("Column with the sex: F, M, female, male.", default="sex")
    age_column: str = cli.setting(
        "Column with the age in years, or as DICOM writes it: 058Y, 011M.", default="age"
    )
    boxes_columns: tuple[str, ...] = cli.setting(
        "Columns that may hold boxes of findings; the first one that a row has is read.",
        default=("boxes", "finding_boxes"),
    )
    mask_columns: tuple[str, ...] = cli.setting(
        "Columns with the path of a mask's file, each with the label of its masks: "
        "lung_mask=Lung,heart_mask=Heart. Paths are relative like those of images.",
        default=(),
    )
    regions_only: bool = cli.setting(
        "Keep only rows with a cell of boxes or a mask.", default=False
    )
    labels_columns: tuple[str, ...] = cli.setting(
        "Columns that may hold all labels; the first one that a row has is read.",
        default=("labels", "findings"),
    )
    label_columns: tuple[str, ...] = cli.setting(
        "Columns with one label each, as 1, 0, -1 or blank; replaces --labels_columns.", default=()
    )
    exhaustive_sources: tuple[str, ...] = cli.setting(
        "Sources whose list of positive labels is complete, so that labels not in the list are "
        "negative; an empty name means rows without a source.",
        default=("", "NIH ChestX-ray14"),
    )
    kept_columns: tuple[str, ...] = cli.setting(
        "Columns to keep for each study in sources.jsonl.",
        default=("source", "licence", "license", "citation", "doi"),
    )
    ignore_columns: tuple[str, ...] = cli.setting(
        "Columns that are not read, whatever their names.", default=()
    )

    def __post_init__(self):
        """Refuses invalid values."""
        super().__post_init__()
        names = set(self.label_columns) - {self.image_column, self.text_column}
        must_be = "different columns, none of them that of the image or of the text"
        self.check("label_columns", len(names) == len(self.label_columns), must_be)
        named = {self.image_column, *self.label_columns, *self._masks()} & set(self.ignore_columns)
        self.check("ignore_columns", not named, "columns that no other flag names")

    def _masks(self) -> dict[str, str]:
        """Returns column -> label of the columns of masks."""
        found = manifest_masks.label_by_column(self.mask_columns)
        must_be = "different columns with the label of each, such as lung_mask=Lung"
        self.check("mask_columns", len(found) == len(self.mask_columns), must_be)
        return found

    def columns(self) -> Columns:
        """Returns the names of the columns."""
        return Columns(
            image=self.image_column,
            text=self.text_column,
            split=self.split_column,
            patient=self.patient_column,
            study=self.study_column,
            id=self.id_column,
            view=self.view_column,
            source=self.source_column,
            labels=self.labels_columns,
            label_columns=self.label_columns,
            kept=self.kept_columns,
            sex=self.sex_column,
            age=self.age_column,
            boxes=self.boxes_columns,
            masks=self._masks(),
            ignored=self.ignore_columns,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Studies:
    """Makes the record of a study from its rows.

    Attributes:
      images: folder that image paths are relative to.
      label_names: names of the set's labels, in the set's order.
      seen: source -> labels that the source's rows use.
      table: name of the manifest's file.
      settings: settings of the program.
    """

    images: pathlib.Path
    label_names: tuple[str, ...]
    seen: Mapping[str, tuple[str, ...]]
    table: str
    settings: Settings

    def __call__(self, planned: Sequence[PlannedImage]) -> Iterator[Kept | Rejection]:
        """Yields the record, or the rejection of the study."""
        name, rows = planned[0].study, [Row(**image.data) for image in planned]
        try:
            labels = self._labels(rows)
            text = self._text(name, rows, labels)
            known = _subgroups(rows)
        except (RowProblem, TextProblem) as problem:
            yield preparer.rejected_study(planned, problem, table=self.table)
            return
        files = [
            ImageFile(
                id=image.id,
                path=self.images / row.image,
                name=row.image,
                view=row.view,
                regions=[
                    *manifest_boxes.regions_of(row.boxes or ()),
                    *manifest_masks.regions_of(
                        row.masks or (), folder=self.images, image=row.image
                    ),
                ],
            )
            for image, row in zip(planned, rows, strict=True)
        ]
        yield from preparer.study_outcome(
            files,
            stored=self.settings.stored(self.table),
            fields={
                "study_id": name,
                "subject_id": planned[0].patient,
                "labels": tuple(int(value) for value in labels),
                **text,
                **known,
            },
            source={"study_id": name, **kept} if (kept := _kept(rows)) else None,
        )

    def _labels(self, rows: Sequence[Row]) -> np.ndarray:
        """Returns the labels of a study from all its rows, int8[C]."""
        return label_lists.study_labels(
            [(row.labels, row.listed, row.source) for row in rows],
            self.label_names,
            exhaustive=frozenset(self.settings.exhaustive_sources),
            seen=self.seen,
        )

    def _text(self, name: str, rows: Sequence[Row], labels: np.ndarray) -> dict:
        """Returns the record's text fields."""
        texts = {row.text for row in rows if row.text.strip()}
        if len(texts) > 1:
            detail = f"the rows of the study have {len(texts)} different texts"
            raise RowProblem("conflicting_text", detail)
        if texts:
            return study_text(
                texts.pop(), study="", settings=self.settings.text(free_text=True)
            ).fields()
        if (
            not any(row.says_regions for row in rows)
            and not (labels != schema.LABEL_NOT_MENTIONED).any()
        ):
            detail = f"the rows, of source {rows[0].source!r}, have neither a text nor labels"
            raise RowProblem("neither_text_nor_labels", detail)
        made: tuple[str, ...] = ()
        if self.settings.label_sentences:
            made = label_sentences(
                name, names=self.label_names, values=labels.tolist(), view=rows[0].view
            )
        return {
            "impression": "",
            "findings": "",
            "sentences": made,
            "sentence_sections": (schema.SECTION_LABELS,) * len(made),
            "text_source": schema.TEXT_LABELS if made else schema.TEXT_NONE,
        }


def _kept(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns a study's values in the columns to keep; a list if the rows differ."""
    found: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.kept.items():
            values = found.setdefault(name, [])
            if value not in values:
                values.append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _subgroups(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns sex and age of a study, as far as its rows know them.

    Raises:
      RowProblem: `conflicting_sex` or `conflicting_age`, if two rows differ.
    """
    known: dict[str, Any] = {}
    for name in ("sex", "age"):
        found = {getattr(row, name) for row in rows} - {"", None}
        if len(found) > 1:
            said = ", ".join(map(str, sorted(found)))
            raise RowProblem(f"conflicting_{name}", f"the rows of the study have {name} {said}")
        if found:
            known[name] = found.pop()
    return known


def prepare(
    paths: Paths,
    settings: Settings,
    options: cli.RunOptions,
    *,
    given: frozenset[str] = frozenset(),
) -> manifest_lib.Manifest:
    """Prepares the set, continues an unfinished one, or returns a complete one.

    Args:
      paths: paths of the table and the images.
      settings: columns, splits and sizes of the set.
      options: directory of the set, and number of processes that write it.
      given: flags that the user has given, "--text_column" and the like; the columns that they
        name must be in the table. A flag that differs from its default counts as given.

    Returns:
      The manifest of the set.

    Raises:
      ConfigError: if the settings or the output directory cannot be used.
      DataError: if the table is missing, cannot be read, or has no row that can be kept.
    """
    path = cli.required_file(pathlib.Path(paths.manifest), flag="--manifest")
    images = preparer.folder(paths.images_dir or str(path.parent), flag="--images_dir")
    differing = {
        f"--{field.name}"
        for field in dataclasses.fields(Settings)
        if getattr(settings, field.name) != field.default
    }

    def make_plan(directory: pathlib.Path, reject: Reject) -> Plan:
        return _plan(
            path,
            images=images,
            settings=settings,
            given=given | differing,
            directory=directory,
            reject=reject,
        )

    return preparer.prepare_set(
        make_plan,
        options,
        program=PROGRAM,
        settings=settings,
        inputs={path.name: cli.sha256_of(path)},
    )


def _plan(
    path: pathlib.Path,
    *,
    images: pathlib.Path,
    settings: Settings,
    given: frozenset[str],
    directory: pathlib.Path,
    reject: Reject,
) -> Plan:
    """Reads every row and groups the rows into studies."""
    table = settings.table(path, flag="--manifest", key=settings.image_column)
    columns = settings.columns()
    if table.delimiter is not None:
        manifest_columns.require(table, columns, given=given)
    reader = RowReader(
        table,
        columns,
        given=given,
        drawn_split=settings.drawn_split,
        regions_only=settings.regions_only,
        separators=_separators(path, settings),
    )
    with Planner(directory, reject=reject, table=table.name) as planner:
        for row in reader.with_roles(table.rows(reject=rejecting_rows(table, reject))):
            with rejecting(reject, id=f"{table.name}:{row.line}", table=table.name):
                planned, _ = reader.image(row)
                planner.add(planned)
        reader.finish()
        jobs = planner.finish(studies_per_shard=settings.studies_per_shard)
    names = settings.label_columns or tuple(sorted(set().union(*reader.seen.values())))
    return Plan(
        jobs=jobs,
        process=PlannedStudies(
            directory=directory,
            make_record=Studies(
                images=images,
                label_names=names,
                seen={source: tuple(sorted(labels)) for source, labels in reader.seen.items()},
                table=table.name,
                settings=settings,
            ),
        ),
        label_names=names,
        tables=[TableUse(name=table.name, read=table.read)],
        short_side=settings.short_side,
        notes=reader.notes(),
        images_dir=images,
    )


def _separators(path: pathlib.Path, settings: Settings) -> dict[str, str]:
    """Reads the table once to find label separators, since one cell may decide for its column."""
    table = settings.table(path, flag="--manifest", key=settings.image_column)
    if settings.label_columns:
        return {}
    if table.delimiter is not None and not set(settings.labels_columns) & set(table.names):
        return {}
    rows = table.rows(reject=lambda *_: None)  # rows are rejected in the main pass over the table
    return label_lists.found_separators(rows, settings.labels_columns)


def _prepare_as_given(
    paths: Paths, settings: Settings, options: cli.RunOptions
) -> manifest_lib.Manifest:
    return prepare(paths, settings, options, given=cli.given_flags(Settings))


if __name__ == "__main__":
    preparer.run_program(_prepare_as_given, Paths, Settings)
