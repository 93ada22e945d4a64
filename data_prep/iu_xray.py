"""Prepares a set of studies from IU X-Ray, the chest radiographs and reports of Open-i.

    python -m data_prep.iu_xray --reports=ecgen-radiology --images_dir=NLMCXR_png --out=prepared

A report is an XML file; the images it names are PNG files. Its major MeSH headings are its positive
labels ("normal" is No Finding); other labels are not mentioned. Words that were removed from the
reports remain as "XXXX". The collection names no patients, so each report counts as a patient. It
does not say which images are lateral either: Kaggle's edition has a table that does.
"""

import dataclasses
import functools
import pathlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_prep.kit import cli, id_lists, preparer, values
from data_prep.kit.outcomes import Kept, Rejection
from data_prep.kit.plan import (
    OTHER_IMAGE,
    Plan,
    PlannedImage,
    PlannedStudies,
    Planner,
    Reject,
    TableUse,
    rejecting_rows,
)
from data_prep.kit.preparer import ImageFile
from data_prep.kit.settings import SetSettings
from data_prep.kit.tables import MALFORMED, Table
from data_prep.kit.text import TextProblem, sections_text
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.errors import DataError

PROGRAM = "data_prep.iu_xray"
IMAGES = "images named by reports"
PROJECTIONS = ("FRONTAL", "LATERAL")
_NO_LABEL = "no indexing"
# CXR1_1_IM-0001-3001 in Open-i is 1_IM-0001-3001.dcm.png in Kaggle's edition.
_IMAGE = re.compile(r"(?:CXR)?(\d+)(?:_\d+)?_(IM-.+)", re.ASCII | re.IGNORECASE)
_NO_VIEWS = (
    "Warning: lateral images are kept beside frontal ones, and no image has a view, since the "
    "reports do not say which are which. Kaggle's indiana_projections.csv does: give it as "
    "--projections."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths:
    """The paths of the raw data."""

    reports: str = cli.setting("Folder ecgen-radiology, with an .xml for each report.")
    images_dir: str = cli.setting("Folder of the .png images.")
    projections: str = cli.setting(
        "Table with the columns filename and projection (Frontal or Lateral), such as Kaggle's "
        "indiana_projections.csv; without it lateral images are kept like frontal ones.",
        default="",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(SetSettings):
    """The settings for what is kept, and in what form; recorded in the manifest."""

    lateral: bool = cli.setting(
        "Keep the images that --projections names lateral too.", default=False
    )

    def __post_init__(self):
        """Refuses invalid values."""
        super().__post_init__()
        self.refuse_encoding()


def image_key(name: str) -> str:
    """Returns the form in which the images of Open-i and of Kaggle's edition are compared."""
    plain = id_lists.plain_id(id_lists.plain_id(name))  # .dcm.png
    found = _IMAGE.fullmatch(plain)
    return f"{int(found[1])}_{found[2].upper()}" if found else plain


@dataclasses.dataclass(frozen=True, kw_only=True)
class Projections:
    """What a table says of the images' projections.

    Attributes:
      table: table that was read to the end.
      of_image: image, see `image_key` -> "FRONTAL" or "LATERAL"; "" if its rows differ.
      used: images that reports name and the table has.
    """

    table: Table
    of_image: Mapping[str, str]
    used: set[str] = dataclasses.field(default_factory=set)

    @classmethod
    def read(cls, path: pathlib.Path, *, reject: Reject) -> "Projections":
        """Reads a table.

        Args:
          path: path of the table.
          reject: function that is called with reason malformed_row, duplicate_row or
            conflicting_rows for each row that is left out.

        Raises:
          DataError: if the table cannot be read, or lacks a column; the message names the flag.
        """
        table = Table(path, flag="--projections", key="filename", single_lines=True)
        table.require([(table.flag, name) for name in ("filename", "projection")])
        of_image, lines = dict[str, str](), dict[str, int]()
        reject_row = rejecting_rows(table, reject)
        for row in table.rows(reject=reject_row):
            try:
                file, said = (
                    values.text_of(row.cells.get(name), field=name)
                    for name in ("filename", "projection")
                )
            except values.CellProblem as problem:
                reject_row(row.line, MALFORMED, problem.detail)
                continue
            key, view = image_key(file), said.upper()
            if not file or view not in PROJECTIONS:
                detail = f"filename is {file!r} and projection {said!r}, not Frontal or Lateral"
                reject_row(row.line, MALFORMED, detail)
            elif of_image.setdefault(key, view) != view:
                detail = f"rows of {file} differ in projection, so none of them is used"
                if of_image[key]:
                    reject_row(lines[key], "conflicting_rows", detail)
                reject_row(row.line, "conflicting_rows", detail)
                of_image[key] = ""
            elif key in lines:
                reject_row(row.line, "duplicate_row", f"line {lines[key]} has {file} before")
            else:
                lines[key] = row.line
        return cls(table=table, of_image=of_image)

    def of(self, image: str) -> str:
        """Returns the projection of an image of a report, "" if it is not known."""
        key = image_key(image)
        view = self.of_image.get(key, "")
        if view:
            self.used.add(key)
        return view

    def use(self) -> TableUse:
        """Returns the counts of the table."""
        others = sum(map(bool, self.of_image.values())) - len(self.used)
        return TableUse(
            name=self.table.name,
            read=self.table.read,
            kept=len(self.used),
            unused={OTHER_IMAGE: others} if others else {},
            notes=self.table.notes(),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Studies:
    """Makes the record of a report from the images that it names."""

    images_dir: pathlib.Path
    label_names: tuple[str, ...]
    settings: Settings

    def __call__(self, images: Sequence[PlannedImage]) -> Iterator[Kept | Rejection]:
        """Yields the record, or the rejection of the study."""
        study, report = images[0].study, images[0].data
        try:
            text = sections_text(
                impression=report["IMPRESSION"],
                findings=report["FINDINGS"],
                settings=self.settings.text(free_text=False),
            )
        except TextProblem as problem:
            yield preparer.rejected_study(images, problem, table=IMAGES)
            return
        said = schema.LABEL_NOT_MENTIONED, schema.LABEL_POSITIVE
        labels = tuple(said[name in report["labels"]] for name in self.label_names)
        yield from preparer.study_outcome(
            [
                ImageFile(
                    id=image.id,
                    path=self.images_dir / f"{image.id}.png",
                    view=image.data["view"],
                )
                for image in images
            ],
            stored=self.settings.stored(IMAGES),
            fields={"study_id": study, "subject_id": study, "labels": labels, **text.fields()},
        )


def read_report(path: pathlib.Path) -> tuple[str, list[str], Mapping[str, Any]]:
    """Returns (id, ids of its images, texts of its sections and its labels) of a report.

    Raises:
      ValueError: if the file is not a report of Open-i.
    """
    root = ElementTree.parse(path).getroot()
    identity = root.find("uId")
    if identity is None or not identity.get("id"):
        raise ValueError("the report has no uId")
    texts: dict[str, list[str]] = {}
    for part in root.iter("AbstractText"):
        label, text = part.get("Label", "").strip().upper(), "".join(part.itertext()).strip()
        texts.setdefault(label, []).append(text)
    headings = {"".join(part.itertext()).split("/")[0].strip() for part in root.iter("major")}
    labels = sorted("No Finding" if h == "normal" else h for h in headings - {"", _NO_LABEL})
    sections = {n: "\n\n".join(filter(None, texts.get(n, ()))) for n in ("FINDINGS", "IMPRESSION")}
    images = [image.get("id", "") for image in root.iter("parentImage")]
    return identity.get("id", ""), images, {**sections, "labels": labels}


def prepare(paths: Paths, settings: Settings, options: cli.RunOptions) -> manifest_lib.Manifest:
    """Prepares the set, continues an unfinished one, or returns a complete one.

    Returns:
      The manifest of the set.

    Raises:
      ConfigError: if the settings or the output directory cannot be used.
      DataError: if a folder or table is missing, no report is there, or no study can be kept.
    """
    reports = sorted(preparer.folder(paths.reports, flag="--reports").glob("*.xml"))
    if not reports:
        raise DataError(
            f"{paths.reports} has no .xml file.",
            "Give the folder ecgen-radiology, which holds an .xml file for each report.",
            where="--reports",
        )
    images = preparer.folder(paths.images_dir, flag="--images_dir")
    table = None
    if paths.projections:
        table = cli.required_file(pathlib.Path(paths.projections), flag="--projections")
    of_tables = preparer.hashes([table] if table else [])
    return preparer.prepare_set(
        functools.partial(_plan, reports, images, table, settings),
        options,
        program=PROGRAM,
        settings=settings,
        inputs={"reports": cli.sha256_of_all(reports), **of_tables},
    )


def _plan(
    reports: Sequence[pathlib.Path],
    images_dir: pathlib.Path,
    table: pathlib.Path | None,
    settings: Settings,
    directory: pathlib.Path,
    reject: Reject,
) -> Plan:
    """Reads every report, and plans the images that it names."""
    names, files, repeated = set[str](), dict[str, str](), 0
    projections = None if table is None else Projections.read(table, reject=reject)
    with Planner(directory, reject=reject, table=IMAGES) as planner:
        for path in reports:
            try:
                study, images, report = read_report(path)
            except (ElementTree.ParseError, ValueError, UnicodeError) as error:
                reject(Rejection(id=path.name, reason="malformed_report", detail=str(error)))
                continue
            left_out = functools.partial(Rejection, id=study, rows=len(images), table=IMAGES)
            if files.setdefault(study, path.name) != path.name:
                detail = f"{path.name} has the same uId as {files[study]}"
                reject(left_out(reason="duplicate_report", detail=detail))
                repeated += len(images)
                continue
            if not images:
                detail = f"{path.name} names no image"
                reject(left_out(reason="report_without_image", detail=detail))
            place = {"study": study, "patient": study, "split": settings.drawn_split(study)}
            for image in images:
                view, excluded = _view(image, projections, lateral=settings.lateral)
                data = {**report, "view": view}
                planner.add(PlannedImage(id=image, data=data, excluded=excluded, **place))
            names.update(report["labels"])
        jobs = planner.finish(studies_per_shard=settings.studies_per_shard)
    label_names = tuple(sorted(names))
    make_record = Studies(images_dir=images_dir, label_names=label_names, settings=settings)
    return Plan(
        jobs=jobs,
        process=PlannedStudies(directory=directory, make_record=make_record),
        label_names=label_names,
        tables=[
            TableUse(name=IMAGES, read=len(planner) + repeated),
            *([projections.use()] if projections else []),
        ],
        short_side=settings.short_side,
        notes=() if projections else (_NO_VIEWS,),
        images_dir=images_dir,
    )


def _view(
    image: str, projections: Projections | None, *, lateral: bool
) -> tuple[str, tuple[str, str] | None]:
    """Returns the view of an image, and the reason and detail for which it is left out, if any."""
    view = "" if projections is None else projections.of(image)
    if projections is None or view == "FRONTAL" or lateral:
        return view, None
    unknown = f"{projections.table.name} does not say that it is frontal"
    return view, ("wrong_view", "a lateral image" if view else unknown)


if __name__ == "__main__":
    preparer.run_program(prepare, Paths, Settings)
