"""Draws a phantom hospital: chest radiographs and reports in the layout of MIMIC-CXR-JPG 2.0.0.

With --layout the images are written in the layout of another data set, without reports.

    python -m data_prep.phantom --out=DIR --studies=1000 --seed=0 --size=320 --workers=2

The layout is that of the real data set, so the same preparer reads both; the ground truth (masks,
boxes, sentences) is beside it in `phantom/`. See docs/phantom.md. A run that was stopped continues
when started again, and ends with the same bytes.
"""

import collections
import csv
import dataclasses
import functools
import gzip
import io
import json
import os
import pathlib
import shutil
import zipfile
from collections.abc import Iterable, Iterator

from absl import flags, logging

from data_prep.kit import cli
from data_prep.kit.set_differences import settings_differences
from data_prep.phantom import cases, layout_studies, layouts, studies
from data_prep.phantom.report_text import LABELS
from prior_jax.data.schema import write_atomically
from prior_jax.errors import DataError

_FLAGS = flags.FLAGS

# Studies in a part: a worker draws one part at a time, and a stopped run may redraw parts.
PART_STUDIES = 32

METADATA_COLUMNS = (
    "dicom_id",
    "subject_id",
    "study_id",
    "PerformedProcedureStepDescription",
    "ViewPosition",
    "Rows",
    "Columns",
    "StudyDate",
    "StudyTime",
    "ProcedureCodeSequence_CodeMeaning",
    "ViewCodeSequence_CodeMeaning",
    "PatientOrientationCodeSequence_CodeMeaning",
)
SPLIT_COLUMNS = ("dicom_id", "study_id", "subject_id", "split")
CHEXPERT_COLUMNS = ("subject_id", "study_id", *LABELS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that determine a phantom's bytes.

    Attributes:
      studies: number of studies, >= 1.
      seed: seed of all draws, >= 0.
      size: pixels of the shorter side of an image, >= 32.
      train: share of patients for training; `train`, `validate` and `test` add up to 1.
      validate: share of patients for validation.
      test: share of patients for testing.
      zip_reports: whether reports go into mimic-cxr-reports.zip instead of reports/.
      layout: "mimic", or one of `layouts.LAYOUTS`, which have no reports.
    """

    studies: int
    seed: int
    size: int
    train: float
    validate: float
    test: float
    zip_reports: bool
    layout: str = layouts.MIMIC

    def __post_init__(self):
        """Refuses invalid values."""
        for name, least in (("studies", 1), ("seed", 0), ("size", 32)):
            value = getattr(self, name)
            if value < least:
                raise DataError.of_value(f"--{name}", value, f"at least {least}")
        known = (layouts.MIMIC, *layouts.LAYOUTS)
        if self.layout not in known:
            raise DataError.of_value("--layout", self.layout, f"one of {', '.join(known)}")
        if self.zip_reports and self.layout != layouts.MIMIC:
            raise DataError(
                f"The layout {self.layout} has no reports.",
                "Leave --zip_reports out, or set --layout=mimic.",
                where="--zip_reports",
            )
        shares = (self.train, self.validate, self.test)
        if not (min(shares) >= 0 and abs(sum(shares) - 1) <= 1e-6):  # a NaN too
            raise DataError(
                f"The shares of the splits train, validate and test are {shares}.",
                "Change them so that none is negative and they add up to 1.",
                where="--train, --validate, --test",
            )

    @property
    def shares(self) -> cases.SplitShares:
        """Returns the shares of patients by split."""
        return cases.SplitShares(train=self.train, validate=self.validate, test=self.test)


def is_drawn(out: pathlib.Path) -> bool:
    """Returns whether a directory holds a whole phantom."""
    return (out / "phantom" / "manifest.json").exists()


def draw_phantom(out: pathlib.Path, settings: Settings, *, workers: int) -> dict[str, int]:
    """Draws a phantom into a directory, or continues one that was stopped.

    Args:
      out: directory, made if missing; if it holds a phantom, that must have the same settings.
      settings: settings of the phantom.
      workers: number of processes, >= 1; 1 draws in this process. The bytes do not depend on it.

    Returns:
      The numbers of studies, images and subjects, and of images by split.

    Raises:
      DataError: if `out` holds another phantom, or something else.
    """
    if workers < 1:
        raise DataError.of_value("--workers", workers, "at least 1")
    truth = out / "phantom"
    if is_drawn(out):
        manifest = json.loads((truth / "manifest.json").read_text())
        _refuse_other(out, manifest["settings"], settings)
        logging.info("%s is already complete", out)
        _clean_up(out, settings)
        return manifest["counts"]
    _claim(out, settings)
    parts = truth / "parts"
    parts.mkdir(exist_ok=True)
    names = [parts / f"{n:06d}.jsonl" for n in range(-(-settings.studies // PART_STUDIES))]
    due = [(n, name) for n, name in enumerate(names) if not name.exists()]
    draw = functools.partial(_draw_part, out=out, settings=settings)
    for done, (_, number) in enumerate(cli.parallel(draw, due, workers=workers), 1):
        logging.log_every_n_seconds(
            logging.INFO, "drew part %d (%d of %d due)", 10, number, done, len(due)
        )
    counts = _write_tables(out, names, settings)
    write_atomically(
        truth / "manifest.json",
        json.dumps({"settings": dataclasses.asdict(settings), "counts": counts}, indent=1).encode(),
    )
    _clean_up(out, settings)
    return counts


def _clean_up(out: pathlib.Path, settings: Settings) -> None:
    """Removes files that only an unfinished run needs; the manifest must exist already."""
    (out / "phantom" / "settings.json").unlink(missing_ok=True)
    leftovers = [out / "phantom" / "parts", *([out / "reports"] if settings.zip_reports else [])]
    for leftover in leftovers:
        if leftover.exists():
            shutil.rmtree(leftover)


def _claim(out: pathlib.Path, settings: Settings) -> None:
    """Marks `out` as being drawn with these settings; refuses a directory with other contents."""
    mark = out / "phantom" / "settings.json"
    if mark.exists():
        _refuse_other(out, json.loads(mark.read_text()), settings)
        return
    if out.exists() and any(path.name != "phantom" for path in out.iterdir()):
        raise DataError(
            f"{out} holds other files than those of a phantom.",
            "Choose a directory that is empty or does not exist, or that holds a phantom.",
            where="--out",
        )
    mark.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(mark, json.dumps(dataclasses.asdict(settings)).encode())


def _refuse_other(out: pathlib.Path, found: dict, settings: Settings) -> None:
    found = {"layout": layouts.MIMIC, **found}  # a phantom from before there were other layouts
    if found != dataclasses.asdict(settings):
        raise DataError(
            f"{out} holds a phantom of other settings: "
            f"{', '.join(settings_differences(found, dataclasses.asdict(settings)))}.",
            "Choose another directory, or give the settings of that phantom.",
            where="--out",
        )


def _draw_part(task: tuple[int, pathlib.Path], *, out: pathlib.Path, settings: Settings) -> int:
    """Draws the studies of one part; the part's file is written when all are on disk."""
    number, name = task
    first = number * PART_STUDIES
    lines = []
    for study in range(first, min(first + PART_STUDIES, settings.studies)):
        drawing = {"seed": settings.seed, "shares": settings.shares, "size": settings.size}
        if settings.layout == layouts.MIMIC:
            record = studies.write_study(out, number=study, **drawing)
        else:
            record = layout_studies.write_study(
                out, layout=settings.layout, number=study, **drawing
            )
        lines.append(json.dumps(record) + "\n")
    write_atomically(name, "".join(lines).encode())
    return number


def _records(parts: list[pathlib.Path]) -> Iterator[dict]:
    for part in parts:
        with part.open() as lines:
            yield from map(json.loads, lines)


def _write_tables(out: pathlib.Path, parts, settings: Settings) -> dict[str, int]:
    """Writes the tables from the parts, with one pass for each table to bound the memory."""
    if settings.layout == layouts.MIMIC:
        _write_mimic_tables(out, parts, settings)
    else:
        layout_studies.write_tables(out, lambda: _records(parts), layout=settings.layout)
    counts = collections.Counter()
    subjects = set()
    for record in _records(parts):
        if not record["images"]:  # a study that the layout has no room for
            continue
        counts["studies"] += 1
        counts["images"] += len(record["images"])
        counts[f"{record['truth']['split']}_images"] += len(record["images"])
        subjects.add(record["truth"]["subject_id"])
    return {**counts, "subjects": len(subjects)}


def _write_mimic_tables(out: pathlib.Path, parts, settings: Settings) -> None:
    tables = (("metadata", METADATA_COLUMNS), ("split", SPLIT_COLUMNS))
    for name, columns in tables:
        rows = (image[name] for record in _records(parts) for image in record["images"])
        _write_csv_gz(out / f"mimic-cxr-2.0.0-{name}.csv.gz", columns, rows)
    labelled = (r["chexpert"] for r in _records(parts) if r["chexpert"])
    _write_csv_gz(out / "mimic-cxr-2.0.0-chexpert.csv.gz", CHEXPERT_COLUMNS, labelled)
    images = (image["truth"] for record in _records(parts) for image in record["images"])
    _write_jsonl(out / "phantom" / "findings.jsonl", images)
    _write_jsonl(out / "phantom" / "studies.jsonl", (r["truth"] for r in _records(parts)))
    if settings.zip_reports:
        _zip_reports(out, parts)


def _write_csv_gz(path: pathlib.Path, columns, rows: Iterable[dict]) -> None:
    with path.open("wb") as raw:
        # The header holds neither name nor time, so that equal tables have equal bytes.
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
            with io.TextIOWrapper(packed, newline="") as text:
                writer = csv.DictWriter(text, columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


def _write_jsonl(path: pathlib.Path, rows: Iterable[dict]) -> None:
    with path.open("w") as text:
        text.writelines(json.dumps(row) + "\n" for row in rows)


def _zip_reports(out: pathlib.Path, parts) -> None:
    """Packs reports/files/... into a zip as members files/...."""
    with zipfile.ZipFile(out / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for record in _records(parts):
            member = zipfile.ZipInfo(record["truth"]["report"], (2020, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(member, (out / "reports" / member.filename).read_bytes())


def define_flags() -> None:
    """Defines the program's flags; called when the program is run, not when it is imported."""
    flags.DEFINE_string("out", None, "Directory to draw the phantom into.", required=True)
    flags.DEFINE_integer("studies", 1000, "Number of studies.")
    flags.DEFINE_integer("seed", 0, "Seed of all draws.")
    flags.DEFINE_integer("size", 320, "Pixels of an image's shorter side.")
    flags.DEFINE_integer("workers", os.cpu_count() or 1, "Number of processes that draw.")
    flags.DEFINE_float("train", 0.75, "Share of patients for training.")
    flags.DEFINE_float("validate", 0.1, "Share of patients for validation.")
    flags.DEFINE_float("test", 0.15, "Share of patients for testing.")
    known = ", ".join((layouts.MIMIC, *layouts.LAYOUTS))
    flags.DEFINE_string("layout", layouts.MIMIC, f"Layout of the files: {known}.")
    flags.DEFINE_bool("zip_reports", False, "Pack the reports into mimic-cxr-reports.zip.")


def main() -> None:
    """Draws the phantom that the flags describe and prints its numbers."""
    names = [field.name for field in dataclasses.fields(Settings)]
    settings = Settings(**{name: _FLAGS[name].value for name in names})
    counts = draw_phantom(pathlib.Path(_FLAGS.out), settings, workers=_FLAGS.workers)
    print(json.dumps(counts))
