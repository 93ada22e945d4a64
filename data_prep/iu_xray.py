"""Prepares a set of studies from IU X-Ray, the chest radiographs and reports of Open-i.

    python -m data_prep.iu_xray --reports=ecgen-radiology --images_dir=NLMCXR_png --out=prepared

A report is an XML file; the images it names are PNG files. Its major MeSH headings are its positive
labels ("normal" is No Finding); other labels are not mentioned. Words that were removed from the
reports remain as "XXXX". The collection names no patients, so each report counts as a patient.
"""

import dataclasses
import functools
import pathlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_prep.kit import cli, preparer
from data_prep.kit.outcomes import Kept, Rejection
from data_prep.kit.plan import Plan, PlannedImage, PlannedStudies, Planner, Reject, TableUse
from data_prep.kit.preparer import ImageFile
from data_prep.kit.settings import SetSettings
from data_prep.kit.text import TextProblem, sections_text
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.errors import DataError

PROGRAM = "data_prep.iu_xray"
IMAGES = "images named by reports"
_NO_LABEL = "no indexing"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths:
    """The paths of the raw data."""

    reports: str = cli.setting("Folder ecgen-radiology, with an .xml for each report.")
    images_dir: str = cli.setting("Folder of the .png images.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(SetSettings):
    """The settings for what is kept, and in what form; recorded in the manifest."""

    def __post_init__(self):
        """Refuses invalid values."""
        super().__post_init__()
        self.refuse_encoding()


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
            [ImageFile(id=image.id, path=self.images_dir / f"{image.id}.png") for image in images],
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
      DataError: if a folder is missing, has no report, or no study can be kept.
    """
    reports = sorted(preparer.folder(paths.reports, flag="--reports").glob("*.xml"))
    if not reports:
        raise DataError(
            f"{paths.reports} has no .xml file.",
            "Give the folder ecgen-radiology, which holds an .xml file for each report.",
            where="--reports",
        )
    images = preparer.folder(paths.images_dir, flag="--images_dir")
    return preparer.prepare_set(
        functools.partial(_plan, reports, images, settings),
        options,
        program=PROGRAM,
        settings=settings,
        inputs={"reports": cli.sha256_of_all(reports)},
    )


def _plan(
    reports: Sequence[pathlib.Path],
    images_dir: pathlib.Path,
    settings: Settings,
    directory: pathlib.Path,
    reject: Reject,
) -> Plan:
    """Reads every report, and plans the images that it names."""
    names, files, repeated = set[str](), dict[str, str](), 0
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
                planner.add(PlannedImage(id=image, data=report, **place))
            names.update(report["labels"])
        jobs = planner.finish(studies_per_shard=settings.studies_per_shard)
    label_names = tuple(sorted(names))
    make_record = Studies(images_dir=images_dir, label_names=label_names, settings=settings)
    return Plan(
        jobs=jobs,
        process=PlannedStudies(directory=directory, make_record=make_record),
        label_names=label_names,
        tables=[TableUse(name=IMAGES, read=len(planner) + repeated)],
        short_side=settings.short_side,
        images_dir=images_dir,
    )


if __name__ == "__main__":
    preparer.run_program(prepare, Paths, Settings)
