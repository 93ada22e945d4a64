"""Prepares a set of studies from MIMIC-CXR-JPG 2.0.0 or 2.1.0 and its reports.

    python -m data_prep.mimic_cxr --images_dir=/data/mimic-cxr-jpg \
        --reports=/data/mimic-cxr-reports.zip --out=/data/prepared/mimic

A study keeps all its images of the chosen views, decoded strictly once, shrunk and stored as grey
JPEG, and the findings and impression of its report, split into sentences. Everything that is left
out is counted by reason in manifest.json and listed in rejected.jsonl. After a crash, the same
command continues where it stopped; the output depends neither on --workers nor on interruptions.
"""

import codecs
import dataclasses
import functools
import itertools
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from data_prep import drawn_regions, mimic_listed, mimic_tables
from data_prep.kit import cli, folders, preparer, shards
from data_prep.kit.outcomes import Job, Kept, Rejection
from data_prep.kit.plan import Plan, Reject
from data_prep.kit.preparer import ImageFile
from data_prep.kit.settings import StoredImages, StoreSettings
from data_prep.kit.text import StudyText, TextProblem, TextSettings, decoded_report, study_text
from data_prep.mimic_reports import (
    ReportFolder,
    ReportProblem,
    Reports,
    ReportZip,
    folder_digest,
    index_zip,
)
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import sentences
from prior_jax.errors import DataError

PROGRAM = "data_prep.mimic_cxr"
_NO_ROW = "the metadata table has no row for the file"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths:
    """The paths of the raw data."""

    images_dir: str = cli.setting(
        "Root of MIMIC-CXR-JPG: the folder that holds files/p10 ... p19 and the .csv.gz tables."
    )
    reports: str = cli.setting(
        "mimic-cxr-reports.zip, or the folder of unpacked reports; by default looked for in "
        "images_dir and images_dir/reports.",
        default="",
    )
    only: str = cli.setting(
        "List of dicom ids, .txt or .csv, such as MIMIC 5x200's: these images alone are kept, each "
        "as a record of its own, and all of them in the split test.",
        default="",
    )
    findings: str = cli.setting(
        "phantom/findings.jsonl of a phantom: the boxes and masks of the findings that it lists "
        "become regions of the set. MIMIC-CXR itself has none.",
        default="",
    )
    metadata_table: str = cli.setting(
        "Metadata table, if not mimic-cxr-*-metadata.csv.gz in images_dir.", default=""
    )
    split_table: str = cli.setting(
        "Split table, if not mimic-cxr-*-split.csv.gz in images_dir.", default=""
    )
    labels_table: str = cli.setting(
        "Label table, if not mimic-cxr-*-{chexpert,negbio}.csv.gz in images_dir.", default=""
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(StoreSettings):
    """What is kept of each study, and in what form; the manifest of the set records it."""

    views: tuple[str, ...] = cli.setting("ViewPosition values to keep.", default=("PA", "AP"))
    sections: tuple[str, ...] = cli.setting(
        "Report sections to keep; a study needs at least one of them.",
        default=("findings", "impression"),
    )
    min_sentences: int = cli.setting(
        "Least number of sentences of a study (PRIOR's own choice is 4).", default=4
    )
    parser: str = cli.setting(
        "paper, or release for the authors' parser with its faults.", default="paper"
    )
    splitter: str = cli.setting(sentences.SPLITTER_HELP, default="pysbd")
    labels: str = cli.setting("chexpert, negbio or none.", default="chexpert")
    report_encoding: str = cli.setting(
        "Encoding of the reports; one that does not decode is rejected.", default="utf-8"
    )
    scan_files: bool = cli.setting(
        "List image files that no table row names (reads every folder once).", default=True
    )

    def __post_init__(self):
        """Refuses invalid values."""
        super().__post_init__()
        self.check("views", bool(self.views), "at least one view")
        labels = ("chexpert", "negbio", "none")
        self.check("labels", self.labels in labels, " or ".join(labels))
        encoding = _is_encoding(self.report_encoding)
        self.check("report_encoding", encoding, "the name of a codec that Python knows")
        self.text()

    def text(self) -> TextSettings:
        """Returns the settings for reading reports."""
        return TextSettings(
            parser=self.parser,
            splitter=self.splitter,
            sections=self.sections,
            min_sentences=self.min_sentences,
            free_text=False,
        )


def _is_encoding(name: str) -> bool:
    try:
        codecs.lookup(name)
    except LookupError:
        return False
    return True


def read_report(content: bytes, *, study: str, settings: Settings) -> StudyText:
    """Turns the bytes of a report into its chosen sections and sentences.

    Raises:
      TextProblem: report_not_decodable, empty_report, no_section or too_few_sentences.
    """
    report = decoded_report(content, encoding=settings.report_encoding)
    return study_text(report, study=study, settings=settings.text())


@functools.lru_cache(maxsize=1)
def _loaded_index(directory: pathlib.Path, written: int) -> mimic_tables.Index:
    """Memory-maps the index."""
    del written  # part of the cache key: the folder may hold another index later
    return mimic_tables.Index.load(directory)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Studies:
    """Does a job in a worker: reads, checks and prepares the studies of one shard.

    Attributes:
      files: folder `files` of the images.
      reports: source of the reports.
      index: directory of the saved index.
      stored: storage of the images.
      settings: settings of the program.
      listed: list of the images, each of which is a record of its own, named by its id; None for
        records of whole studies.
      drawn: findings of a phantom's images; None for images without regions.
    """

    files: pathlib.Path
    reports: Reports
    index: pathlib.Path
    stored: StoredImages
    settings: Settings
    listed: mimic_listed.Listed | None = None
    drawn: drawn_regions.DrawnRegions | None = None

    def __call__(self, job: Job) -> Iterator[Kept | Rejection]:
        """Yields the records and rejections of a job."""
        index = _loaded_index(self.index, (self.index / "studies.npy").stat().st_mtime_ns)
        if job.split is None:
            yield from self._scan(job.argument, index)
            return
        for place in range(job.begin, job.end):
            for found in self._study(place, index):
                told = self.listed is not None and isinstance(found, Rejection)
                yield self.listed.placed(found) if told else found

    def _study(self, place: int, index: mimic_tables.Index) -> Iterator[Kept | Rejection]:
        subject, study = int(index.subjects[place]), int(index.studies[place])
        name = f"s{study}"
        try:
            content = self.reports.read(subject=subject, study=study)
            report = read_report(content, study=name, settings=self.settings)
        except (ReportProblem, TextProblem) as problem:
            dicom = index.dicoms[int(index.starts[place])].decode()
            yield Rejection(
                id=f"{name}/{dicom}" if self.listed else name,
                reason=problem.reason,
                detail=problem.detail,
                rows=int(index.starts[place + 1] - index.starts[place]),
                table=self.stored.table,
            )
            return
        folder = self.files / f"p{str(subject)[:2]}" / f"p{subject}" / name
        study_id = index.dicoms[int(index.starts[place])].decode() if self.listed else name
        files = []
        for row in range(int(index.starts[place]), int(index.starts[place + 1])):
            dicom = index.dicoms[row].decode()
            path = folder / f"{dicom}.jpg"
            files.append(
                ImageFile(
                    id=dicom,
                    path=path,
                    name=str(path.relative_to(self.files)),
                    view=index.view_names[index.views[row]],
                    reject_as=f"{name}/{dicom}",
                    regions=() if self.drawn is None else self.drawn.of(dicom),
                )
            )
        yield from preparer.study_outcome(
            files,
            stored=self.stored,
            fields={
                "study_id": study_id,
                "subject_id": f"p{subject}",
                "labels": tuple(int(value) for value in index.labels[place]),
                **report.fields(),
            },
        )

    def _scan(self, folder: str, index: mimic_tables.Index) -> Iterator[Rejection]:
        """Yields the image files of one folder p10 ... p19 that no metadata row names."""
        for base, names in folders.walked(self.files / folder):
            for name in names:
                stem, suffix = os.path.splitext(name)
                if suffix.lower() not in (".jpg", ".jpeg"):
                    continue
                identity = np.bytes_(stem.encode("utf-8", "surrogateescape"))
                place = int(np.searchsorted(index.known, identity))
                if place == len(index.known) or index.known[place] != identity:
                    path = os.path.relpath(os.path.join(base, name), self.files)
                    yield Rejection(id=path, reason="file_without_row", detail=_NO_ROW)


def prepare(paths: Paths, settings: Settings, options: cli.RunOptions) -> manifest_lib.Manifest:
    """Prepares the set, continues an unfinished one, or returns a complete one.

    Returns:
      The manifest of the set.

    Raises:
      ConfigError: if the settings or the output directory cannot be used.
      DataError: if tables, images or reports are missing.
    """
    root = pathlib.Path(paths.images_dir)
    files = root / "files"
    if not files.is_dir():
        raise DataError(
            f"{root} has no folder files.",
            "Give the root of MIMIC-CXR-JPG, which holds files/p10 to files/p19 and the tables.",
            where="--images_dir",
        )
    tables = mimic_tables.find_tables(
        root,
        overrides={
            "metadata": paths.metadata_table,
            "split": paths.split_table,
            "labels": paths.labels_table,
        },
        labels=settings.labels,
        encoding=settings.encoding,
    )
    source = _report_source(paths)
    only = cli.required_file(pathlib.Path(paths.only), flag="--only") if paths.only else None
    findings = None
    if paths.findings:
        findings = cli.required_file(pathlib.Path(paths.findings), flag="--findings")
    used = [tables.metadata, tables.split, *([tables.labels] if tables.labels else [])]
    of_folder = {} if source.is_file() else {"reports": folder_digest(source)}
    if source.is_file():
        used.append(source)
    if only is not None:
        used.append(only)
    if findings is not None:
        used.append(findings)
    return preparer.prepare_set(
        functools.partial(_plan, tables, source, files, settings, only, findings),
        options,
        program=PROGRAM,
        settings=settings,
        inputs={**preparer.hashes(used), **of_folder},
    )


def _plan(
    tables: mimic_tables.Tables,
    source: pathlib.Path,
    files: pathlib.Path,
    settings: Settings,
    only: pathlib.Path | None,
    findings: pathlib.Path | None,
    directory: pathlib.Path,
    reject: Reject,
) -> Plan:
    """Joins the tables, and indexes the reports."""
    listed = None if only is None else mimic_listed.Listed.read(only)
    index, uses = mimic_tables.build_index(
        tables,
        views=[view.upper() for view in settings.views],
        reject=reject if listed is None else lambda found: reject(listed.placed(found)),
        only=None if listed is None else list(listed.lines),
    )
    notes: list[str] = []
    if listed is not None:
        notes = mimic_listed.notes(index, listed=listed)
        index = mimic_listed.by_image(index)
    index.save(directory)
    reports = _opened_reports(source, directory=directory, reject=reject)
    jobs = shards.shard_jobs(
        index.codes, index.subjects, studies_per_shard=settings.studies_per_shard
    )
    if settings.scan_files:
        jobs += _scan_jobs(files)
    return Plan(
        jobs=jobs,
        process=Studies(
            files=files,
            reports=reports,
            index=directory,
            stored=settings.stored(tables.metadata.name),
            settings=settings,
            listed=listed,
            drawn=None if findings is None else drawn_regions.DrawnRegions(path=findings),
        ),
        label_names=index.label_names,
        tables=uses,
        short_side=settings.short_side,
        notes=notes,
    )


def _opened_reports(source: pathlib.Path, *, directory: pathlib.Path, reject: Reject) -> Reports:
    """Returns the reports of a folder, or of a zip, whose index is written into `directory`."""
    if not source.is_file():
        return ReportFolder(root=source)
    reports = ReportZip(path=source, index=directory / "reports.npy")
    for study, differs in index_zip(source, reports.index):
        detail = f"{source.name} holds the report more than once"
        detail += ", with different texts, of which the first is used" if differs else ""
        reject(Rejection(id=study, reason="duplicate_report", detail=detail))
    return reports


def _scan_jobs(files: pathlib.Path) -> list[Job]:
    """Returns a job for each folder p10 ... p19 that searches it for files without a row."""
    names = sorted(path.name for path in files.iterdir() if path.is_dir())
    return [Job(name=f"scan-{name}", split=None, begin=0, end=0, argument=name) for name in names]


def _report_source(paths: Paths) -> pathlib.Path:
    """Returns the zip of reports, or the folder that holds p10 ... p19."""
    given = pathlib.Path(paths.reports or paths.images_dir)
    if given.is_file():
        return given
    for folder in (given, given / "reports"):
        packed = folder / "mimic-cxr-reports.zip"
        if packed.is_file():
            return packed
        for candidate in (folder / "files", folder):
            if _holds_reports(candidate):
                return candidate
    raise DataError(
        f"No reports were found in {given}.",
        "Give mimic-cxr-reports.zip, or a folder of reports such as p10/p10000032/s50414267.txt.",
        where="--reports",
    )


def _holds_reports(folder: pathlib.Path) -> bool:
    """Tells whether one of the first patients has a report; a full search would take minutes."""
    groups = sorted(folder.glob("p1[0-9]"))
    patients = [p for group in groups for p in itertools.islice(group.glob("p1*"), 100)]
    return any(next(patient.glob("s*.txt"), None) for patient in patients)


if __name__ == "__main__":
    preparer.run_program(prepare, Paths, Settings)
