"""A folder of images with a `.jsonl` or `.csv` manifest -> a prepared set of studies.

    python -m data_prep.manifest --manifest=images/manifest.jsonl --out=/data/prepared/mine

A row is an image, with a path, and whatever it has of text, split, patient, study, view and labels
(a list of what is positive, a mapping to 1, 0, -1 or blank, "A|B", or a column each with
--label_columns). Rows of one study become one record. A text with report headers gives its
findings and impression; any other text is taken as findings. Rows with labels and no text are kept
for evaluation, and with --label_sentences get sentences made from the labels, marked as such.
"""

import dataclasses
import functools
import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from data_prep.kit import cli, finish, sections, splits, writer
from data_prep.kit.images import ImageProblem, PixelSums, prepare_image
from data_prep.kit.label_sentences import label_sentences
from data_prep.kit.writer import Job, Kept, Rejection
from data_prep.manifest_index import build_index, read_row
from data_prep.manifest_rows import Columns, Row, RowProblem, label_vector
from prior_jax.data import schema, sentences
from prior_jax.errors import ConfigError, DataError

PROGRAM = "data_prep.manifest"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths:
    """Where the raw data lies."""

    manifest: str = cli.setting("The .jsonl or .csv file, a row an image.")
    images_dir: str = cli.setting(
        "What image paths are relative to; by default the manifest's folder.", default=""
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What is kept, and how; recorded in the manifest."""

    label_sentences: bool = cli.setting(
        "Give rows without text sentences made from their labels.", default=False
    )
    image_column: str = cli.setting("Path of the image.", default="image")
    text_column: str = cli.setting("Report or note.", default="text")
    split_column: str = cli.setting(
        "train, valid(ate), val, test; drawn by patient where a row has none.", default="split"
    )
    patient_column: str = cli.setting("Patient; by default the study.", default="patient_id")
    study_column: str = cli.setting("Study; by default each row is one.", default="study_id")
    id_column: str = cli.setting("Unique id; by default the image's path.", default="id")
    view_column: str = cli.setting("PA, AP and the like.", default="view")
    source_column: str = cli.setting("Data set a row comes from.", default="source")
    labels_columns: tuple[str, ...] = cli.setting(
        "Labels in one column; the first of these a row has.", default=("labels", "findings")
    )
    label_columns: tuple[str, ...] = cli.setting(
        "Labels in a column each, with 1, 0, -1 or blank; replaces --labels_columns.", default=()
    )
    exhaustive_sources: tuple[str, ...] = cli.setting(
        "Sources whose list of positive labels is complete, so that what it leaves out is "
        "negative; an empty name stands for rows without a source.",
        default=("", "NIH ChestX-ray14"),
    )
    kept_columns: tuple[str, ...] = cli.setting(
        "Columns to keep for each study in sources.jsonl.",
        default=("source", "licence", "license", "citation", "doi"),
    )
    min_sentences: int = cli.setting("Least number of sentences of a text.", default=1)
    splitter: str = cli.setting(sentences.SPLITTER_HELP, default="pysbd")
    split_fractions: tuple[str, ...] = cli.setting(
        "Shares of train, validate and test, for rows without a split.",
        default=("0.8", "0.1", "0.1"),
    )
    split_seed: int = cli.setting("Seed of that draw.", default=0)
    short_side: int = cli.setting(
        "Pixels of the stored images' shorter side; smaller images stay as they are.", default=256
    )
    jpeg_quality: int = cli.setting("Quality of the stored JPEGs, 1 to 100.", default=95)
    studies_per_shard: int = cli.setting("Studies in one shard, at most.", default=512)

    def __post_init__(self):
        """Refuses values no set can be made with."""
        checks = {
            "min_sentences": (self.min_sentences >= 0, "0 or more"),
            "splitter": (self.splitter in sentences.SPLITTERS, " or ".join(sentences.SPLITTERS)),
            "short_side": (self.short_side >= 32, "32 or more"),
            "jpeg_quality": (1 <= self.jpeg_quality <= 100, "1 to 100"),
            "studies_per_shard": (self.studies_per_shard >= 1, "1 or more"),
        }
        for name, (valid, accepted) in checks.items():
            if not valid:
                raise ConfigError(f"--{name}", received=getattr(self, name), accepted=accepted)
        self.fractions()

    def fractions(self) -> tuple[float, ...]:
        """Returns the shares of the splits as numbers."""
        return splits.checked_fractions(self.split_fractions, flag="--split_fractions")

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
        )


@functools.lru_cache(maxsize=2)
def _mapped(path: pathlib.Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Studies:
    """Does a job in a worker: prepares the studies of one shard.

    Attributes:
      directory: of the index.
      images: what image paths are relative to.
      label_names: the set's.
      seen: source -> labels its rows use.
      settings: the program's.
    """

    directory: pathlib.Path
    images: pathlib.Path
    label_names: tuple[str, ...]
    seen: Mapping[str, tuple[str, ...]]
    settings: Settings

    def __call__(self, job: Job) -> Iterator[Kept | Rejection]:
        """Yields the records and rejections of a job."""
        starts, offsets = (_mapped(self.directory / f"{n}.npy") for n in ("starts", "offsets"))
        for study in range(job.begin, job.end):
            places = range(int(starts[study]), int(starts[study + 1]))
            rows = [read_row(self.directory / "rows.jsonl", int(offsets[p])) for p in places]
            yield from self._study(rows)

    def _study(self, rows: Sequence[Row]) -> Iterator[Kept | Rejection]:
        name = rows[0].study
        try:
            labels = self._labels(rows)
            text = self._text(rows, labels)
        except RowProblem as problem:
            yield Rejection(id=name, reason=problem.reason, detail=problem.detail)
            return
        images, kept, pixels = [], [], PixelSums()
        for row in rows:
            try:
                prepared = self._image(row.image)
            except ImageProblem as problem:
                yield Rejection(id=row.id, reason=problem.reason, detail=problem.detail)
                continue
            images.append(prepared.encoded)
            kept.append(row)
            pixels += prepared.pixels
        if not images:
            if len(rows) > 1:
                yield Rejection(id=name, reason="no_usable_image", detail="each is listed")
            return
        record = schema.Record(
            study_id=name,
            subject_id=rows[0].patient,
            images=tuple(images),
            image_ids=tuple(row.id for row in kept),
            views=tuple(row.view for row in kept),
            labels=tuple(int(value) for value in labels),
            **text,
        )
        source = {"study_id": name, **rows[0].kept} if rows[0].kept else None
        yield Kept(record=record, pixels=pixels, source=source)

    def _labels(self, rows: Sequence[Row]) -> np.ndarray:
        """Returns int8[C], what the rows of a study say together."""
        exhaustive = frozenset(self.settings.exhaustive_sources)
        merged = np.full(len(self.label_names), schema.LABEL_NOT_MENTIONED, np.int8)
        for row in rows:
            values = label_vector(row, self.label_names, exhaustive=exhaustive, seen=self.seen)
            said = values != schema.LABEL_NOT_MENTIONED
            clash = said & (merged != schema.LABEL_NOT_MENTIONED) & (values != merged)
            if clash.any():
                names = [self.label_names[place] for place in np.flatnonzero(clash)]
                raise RowProblem("conflicting_labels", ", ".join(names))
            merged[said] = values[said]
        return merged

    def _text(self, rows: Sequence[Row], labels: np.ndarray) -> dict:
        """Returns the record's text fields."""
        texts = {row.text for row in rows if row.text.strip()}
        if len(texts) > 1:
            raise RowProblem("conflicting_text", f"{len(texts)} texts in one study")
        if texts:
            return self._report_text(texts.pop())
        if not (labels != schema.LABEL_NOT_MENTIONED).any():
            raise RowProblem("neither_text_nor_labels", rows[0].source)
        made: tuple[str, ...] = ()
        if self.settings.label_sentences:
            made = label_sentences(
                rows[0].study, names=self.label_names, values=labels.tolist(), view=rows[0].view
            )
        return {
            "impression": "",
            "findings": "",
            "sentences": made,
            "sentence_sections": (schema.SECTION_LABELS,) * len(made),
            "text_source": schema.TEXT_LABELS if made else schema.TEXT_NONE,
        }

    def _report_text(self, text: str) -> dict:
        # No id of MIMIC-CXR is meant, so its special studies are not looked up.
        found = sections.split_into_sections(text, "", mode="paper")
        if found is None:
            found = sections.ReportText(impression="", findings=text)
        splitter = sentences.SPLITTERS[self.settings.splitter]
        split = {
            schema.SECTION_IMPRESSION: splitter(found.impression),
            schema.SECTION_FINDINGS: splitter(found.findings),
        }
        count = sum(len(part) for part in split.values())
        if count < self.settings.min_sentences:
            raise RowProblem("too_few_sentences", f"{count}")
        return {
            "impression": found.impression,
            "findings": found.findings,
            "sentences": tuple(sentence for part in split.values() for sentence in part),
            "sentence_sections": tuple(code for code, part in split.items() for _ in part),
            "text_source": schema.TEXT_REPORT if count else schema.TEXT_NONE,
        }

    def _image(self, name: str):
        path = self.images / name
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise ImageProblem("missing_image", name) from error
        except (OSError, ValueError) as error:
            raise ImageProblem("unreadable_image", f"{name}: {error}") from error
        return prepare_image(
            content, short_side=self.settings.short_side, quality=self.settings.jpeg_quality
        )


def prepare(paths: Paths, settings: Settings, options: cli.RunOptions) -> schema.Manifest:
    """Prepares the set, or goes on with it, or finds it complete.

    Returns:
      Its manifest.

    Raises:
      ConfigError: for settings, or an output directory, that cannot be used.
      DataError: if the manifest is absent, of another kind or without rows.
    """
    path = cli.required_file(pathlib.Path(paths.manifest), flag="--manifest")
    images = pathlib.Path(paths.images_dir or path.parent)
    if not images.is_dir():
        raise DataError("--images_dir", received=str(images), accepted="a folder")
    inputs = {path.name: cli.sha256_of(path)}
    with writer.opened(
        options, program=PROGRAM, settings=dataclasses.asdict(settings), inputs=inputs
    ) as target:
        if target is None:
            return schema.load_manifest(options.out)
        return _write(target, path, images=images, settings=settings, workers=options.workers)


def _write(
    target: writer.SetWriter,
    path: pathlib.Path,
    *,
    images: pathlib.Path,
    settings: Settings,
    workers: int,
) -> schema.Manifest:
    """Builds the index, does the jobs and finishes the set."""
    counts: Counter[str] = Counter()
    directory = target.parts / "index"
    directory.mkdir(exist_ok=True)
    with open(target.plan_rejections, "w", encoding="utf-8") as lines:

        def reject(rejection: Rejection) -> None:
            counts[rejection.reason] += 1
            lines.write(rejection.line())

        index = build_index(
            path,
            columns=settings.columns(),
            fractions=settings.fractions(),
            seed=settings.split_seed,
            rows=directory / "rows.jsonl",
            reject=reject,
        )
    np.save(directory / "starts.npy", index.starts)
    np.save(directory / "offsets.npy", index.offsets)
    jobs = writer.shard_jobs(
        index.codes, index.subjects, studies_per_shard=settings.studies_per_shard
    )
    process = Studies(
        directory=directory,
        images=images,
        label_names=index.label_names,
        seen=index.seen,
        settings=settings,
    )
    parts = writer.run_jobs(target, jobs, process, workers=workers)
    return finish.finish(
        target,
        jobs,
        parts,
        label_names=index.label_names,
        short_side=settings.short_side,
        plan_rejected=counts,
    )


def main() -> None:
    """Runs the program on its flags and prints what was kept and left out."""
    options = cli.from_flags(cli.RunOptions)
    manifest = prepare(cli.from_flags(Paths), cli.from_flags(Settings), options)
    print(finish.summary(manifest, out=options.out))


if __name__ == "__main__":
    cli.run(main, Paths, Settings, cli.RunOptions)
