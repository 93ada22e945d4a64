"""Checks a prepared set: counts, hashes, a sample of decoded images, and leaks between splits.

    python -m data_prep.verify --path=/data/prepared/mimic

Prints one line for each failure and exits with 1; if there is none, prints what was checked and
exits with 0.
"""

import collections
import dataclasses
import functools
import hashlib
import io
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import tqdm
from PIL import Image, ImageFile, UnidentifiedImageError

from data_prep import verify_leaks, verify_regions
from data_prep.kit import cli, finish, writer
from data_prep.kit.image_regions import RegionSums
from data_prep.kit.plan import UNLISTED
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema, stored_example
from prior_jax.errors import ConfigError, DataError

# Limit on lines: enough to see the problem, not one for each of 200,000 studies.
MOST_FAILURES = 50
_COUNTED = ("studies", "images", "subjects", "sentences")
_REQUIRED = {field.name for field in dataclasses.fields(schema.Record)} - schema.ADDED_IN_1_1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings for what is checked, and how thoroughly."""

    path: str = cli.setting("Directory of the prepared set.")
    sample: float = cli.setting(
        "Share of the studies whose images are decoded, 0 to 1; always the same studies.",
        default=0.02,
    )
    workers: int = cli.setting("Number of parallel processes.", default=1)

    def __post_init__(self):
        """Refuses an invalid share, and fewer than one worker."""
        if not 0 <= self.sample <= 1:
            raise ConfigError.of_value("--sample", self.sample, "a share from 0 to 1")
        if self.workers < 1:
            raise ConfigError.of_value("--workers", self.workers, "at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardReport:
    """The findings of the check of one shard.

    Attributes:
      sha256: sha256 of the file.
      counts: numbers of studies, images, sentences, decoded images, and of each text source.
      labels: label value -> number of studies with that value, for each label.
      subjects: ids of the patients.
      studies: digests of study ids.
      regions: label -> counts of its regions, see `image_regions.RegionSums`.
      images: digest of each stored image -> "study ..., image ..." that holds the image.
      failures: problems of the shard, one line each.
    """

    sha256: str
    counts: Mapping[str, int]
    labels: Sequence[Mapping[int, int]]
    subjects: frozenset[str]
    studies: np.ndarray
    regions: Mapping[str, Sequence[int]]
    images: Mapping[bytes, str]
    failures: tuple[str, ...]


def verify(settings: Settings) -> list[str]:
    """Returns one line for each failure; none if the set is sound.

    Raises:
      DataError: if there is no readable manifest to compare with.
    """
    return checked(settings)[0]


def checked(settings: Settings) -> tuple[list[str], list[str]]:
    """Returns the lines of `verify`, and a line for each leak of a published split.

    Raises:
      DataError: if there is no readable manifest to compare with.
    """
    root = pathlib.Path(settings.path)
    manifest = manifest_lib.load_manifest(root)
    failures = list(_metadata_failures(root, manifest))
    reports = {}
    present = [name for name in manifest.shards if (root / name).is_file()]
    failures += [
        f"{name}: The manifest lists this shard, but the file is missing."
        for name in manifest.shards
        if name not in present
    ]
    check = functools.partial(
        check_shard, root=root, labels=len(manifest.label_names), sample=settings.sample
    )
    with tqdm.tqdm(total=len(present), unit=" shards", desc="data_prep.verify") as bar:
        for name, report in cli.parallel(check, present, workers=settings.workers):
            reports[name] = report
            bar.update()
    for name in present:
        if reports[name].sha256 != manifest.shards[name]:
            failures.append(f"{name}: The sha256 of the shard differs from the manifest.")
        failures += reports[name].failures
    failures += _set_failures(root, manifest, reports)
    leaks = list(verify_leaks.leaks(verify_leaks.by_split(reports)))
    if manifest.published_split:
        return failures, leaks
    return failures + leaks, []


def _metadata_failures(root: pathlib.Path, manifest: manifest_lib.Manifest) -> Iterator[str]:
    """Yields the problems of the files beside the shards."""
    for name in ("features.json", "dataset_info.json"):
        if not (root / name).is_file():
            yield f"{name}: The file is missing."
    for path in sorted(root.glob("*.array_record-*")):
        if path.name not in manifest.shards:
            yield f"{path.name}: The manifest does not list this shard."
    listed = root / schema.REJECTED_NAME
    counts: collections.Counter[str] = collections.Counter()
    rows: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    try:
        with open(listed, encoding="utf-8") as lines:
            for line in lines:
                rejection = json.loads(line)
                counts[rejection["reason"]] += 1
                if "rows" in rejection:
                    rows[rejection["table"]][rejection["reason"]] += rejection["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"{listed.name}: The file cannot be read: {error}."
    for reason in sorted(counts.keys() | manifest.rejected.keys()):
        if counts[reason] != manifest.rejected.get(reason, 0):
            yield (
                f"{listed.name}: The file has {counts[reason]} lines of {reason}, but the manifest "
                f"counts {manifest.rejected.get(reason, 0)}."
            )
    for table, found in manifest.tables.items():
        yield from _row_failures(table, found, listed=rows[table])
    if (root / writer.PARTS).exists():
        yield f"{writer.PARTS}: The folder is left over from a run that did not end."


def _row_failures(
    table: str, found: manifest_lib.RowCounts, *, listed: Mapping[str, int]
) -> Iterator[str]:
    """Yields the tables whose rows do not add up."""
    rejected = sum(found.rejected.values())
    if found.read != found.kept + rejected:
        yield (
            f"{table}: {found.read} rows were read, but {found.kept} were kept and {rejected} "
            "rejected."
        )
    for reason in sorted(listed.keys() | found.rejected.keys()):
        if reason in UNLISTED:
            continue
        if listed.get(reason, 0) != found.rejected.get(reason, 0):
            yield (
                f"{table}: {schema.REJECTED_NAME} has {listed.get(reason, 0)} rows of {reason}, "
                f"but the manifest counts {found.rejected.get(reason, 0)}."
            )


def check_shard(name: str, *, root: pathlib.Path, labels: int, sample: float) -> ShardReport:
    """Reads every record of a shard and decodes a sample of its images."""
    from array_record.python import array_record_module

    counts: collections.Counter[str] = collections.Counter()
    said = [collections.Counter() for _ in range(labels)]
    subjects, studies, images, failures = set(), [], {}, []
    parse = stored_example.parser(_features(root))
    regions = RegionSums()
    try:
        reader = array_record_module.ArrayRecordReader(str(root / name))
        records = reader.read_all()
        reader.close()
    except (ValueError, RuntimeError, IndexError) as error:
        records = []
        failures.append(f"{name}: The shard is not a complete ArrayRecord: {error}.")
    for number, content in enumerate(records):
        try:
            record = schema.Record.from_example(parse(content))
            failures += [f"{name}: {text}" for text in _record_failures(record, labels=labels)]
            failures += [f"{name}: {text}" for text in verify_regions.record_failures(record)]
        except (DataError, KeyError, ValueError, TypeError) as error:
            failures.append(
                f"{name}: Record {number} cannot be read: {type(error).__name__}: {error}"
            )
            continue
        counts.update(studies=1, images=len(record.images), sentences=len(record.sentences))
        counts[record.text_source] += 1
        subjects.add(record.subject_id)
        regions.add(record)
        for label, value in zip(said, record.labels, strict=False):
            label[value] += 1
        for identity, image in zip(record.image_ids, record.images, strict=True):
            place = f"study {record.study_id}, image {identity}"
            images[hashlib.blake2b(image, digest_size=16).digest()] = place
        digest = hashlib.blake2b(record.study_id.encode(), digest_size=8).digest()
        studies.append(int.from_bytes(digest, "big"))
        if int.from_bytes(digest, "big") < sample * 2**64:
            counts["decoded"] += len(record.images)
            failures += [f"{name}: {text}" for text in _image_failures(record)]
    return ShardReport(
        sha256=cli.sha256_of(root / name),
        counts=counts,
        labels=said,
        subjects=frozenset(subjects),
        studies=np.asarray(studies, np.uint64),
        regions=regions.sums,
        images=images,
        failures=tuple(failures),
    )


def _features(root: pathlib.Path):
    """Returns the set's own features, or today's where its file is damaged, which is a failure."""
    try:
        return schema.features_of(root)
    except DataError:
        return schema.features()


def _record_failures(record: schema.Record, *, labels: int) -> Iterator[str]:
    if not record.study_id or not record.subject_id:
        yield f"Study {record.study_id!r}, or its patient, has no id."
    if len(record.labels) != labels:
        yield (
            f"Study {record.study_id} has {len(record.labels)} labels, but the manifest names "
            f"{labels}."
        )
    if any(not sentence.strip() for sentence in record.sentences):
        yield f"Study {record.study_id} has an empty sentence."
    if (record.text_source == schema.TEXT_NONE) != (not record.sentences):
        count = len(record.sentences)
        yield (
            f"Study {record.study_id} has the text source {record.text_source} and {count} "
            "sentences, which contradict each other."
        )


def _image_failures(record: schema.Record) -> Iterator[str]:
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    for identity, content in zip(record.image_ids, record.images, strict=True):
        try:
            with Image.open(io.BytesIO(content)) as image:
                image.load()
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            yield f"Image {identity} cannot be decoded: {str(error).split('<_io')[0]}"


def _set_failures(
    root: pathlib.Path, manifest: manifest_lib.Manifest, reports: Mapping[str, ShardReport]
) -> Iterator[str]:
    """Yields the problems of the set as a whole: counts, duplicates, leaking patients."""
    subjects = {}
    for split, found in verify_leaks.by_split(reports).items():
        subjects[split] = frozenset().union(*(report.subjects for report in found))
        counts = {name: sum(report.counts[name] for report in found) for name in _COUNTED}
        counts["subjects"] = len(subjects[split])
        expected = manifest.splits.get(split)
        for name in _COUNTED:
            listed = getattr(expected, name) if expected else 0
            if counts[name] != listed:
                yield (
                    f"{split}: There are {counts[name]} {name}, but the manifest counts {listed}."
                )
    for source in schema.TEXT_SOURCES:
        count = sum(report.counts[source] for report in reports.values())
        if count != manifest.text_sources.get(source, 0):
            listed = manifest.text_sources.get(source, 0)
            yield f"Text source {source}: {count} studies, but the manifest counts {listed}."
    if not uncounted(root):
        yield from _total_failures(manifest, reports.values())
    digests = [report.studies for report in reports.values()]
    every = np.concatenate(digests) if digests else np.zeros(0, np.uint64)
    if len(np.unique(every)) != len(every):
        repeated = len(every) - len(np.unique(every))
        yield f"{repeated} study ids are in more than one record."
    yield from _index_failures(root, manifest)


def uncounted(root: pathlib.Path) -> bool:
    """Tells whether a manifest lacks the fields that earlier versions did not write."""
    content = json.loads((root / manifest_lib.MANIFEST_NAME).read_text(encoding="utf-8"))
    return not content.keys() & {"tables", "labels", "notes"}


def _total_failures(
    manifest: manifest_lib.Manifest, reports: Iterable[ShardReport]
) -> Iterator[str]:
    """Yields the differences between the records' labels and rows and those of the manifest."""
    reports = list(reports)
    studies = sum(report.counts["studies"] for report in reports)
    if studies and not manifest.tables:
        yield f"tables: There are {studies} studies, but the manifest counts the rows of no table."
    for name in manifest.label_names:
        if name not in manifest.labels:
            yield f"Label {name}: The manifest does not count the label."
    for name, counts in manifest.labels.items():
        if name not in manifest.label_names:
            yield f"labels: The manifest counts {name!r}, which is not a label of the set."
            continue
        place = manifest.label_names.index(name)
        expected = (counts.positive, counts.negative, counts.uncertain, counts.not_mentioned)
        for value, listed in zip(schema.LABEL_VALUES, expected, strict=True):
            count = sum(report.labels[place][value] for report in reports)
            if count != listed:
                yield (
                    f"Label {name}: {count} studies have the value {value}, but the manifest "
                    f"counts {listed}."
                )
    yield from verify_regions.total_failures(manifest, [report.regions for report in reports])
    images = sum(report.counts["images"] for report in reports)
    for table, rows in manifest.tables.items():
        if rows.images not in (-1, images):
            yield (
                f"{table}: The records have {images} images, but the manifest counts {rows.images}."
            )


def _index_failures(root: pathlib.Path, manifest: manifest_lib.Manifest) -> Iterator[str]:
    """Yields the differences between TFDS's own metadata and the manifest."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(root)
        sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
        missing = _REQUIRED - set(builder.info.features.keys())
    except Exception as error:  # TFDS may raise anything on damaged metadata
        yield f"dataset_info.json or features.json: {type(error).__name__}: {error}"
        return
    for name in sorted(missing):
        yield f"features.json: The feature {name} is missing."
    for split, counts in manifest.splits.items():
        if sizes.get(split, 0) != counts.studies:
            yield (
                f"dataset_info.json: The file counts {sizes.get(split, 0)} studies in {split}, but "
                f"the manifest counts {counts.studies}."
            )


def main() -> int:
    """Runs the program on its flags."""
    settings = cli.from_flags(Settings)
    failures, leaks = checked(settings)
    for line in failures[:MOST_FAILURES]:
        print(" ".join(line.split()))
    if len(failures) > MOST_FAILURES:
        print(f"There are {len(failures) - MOST_FAILURES} more such lines.")
    if failures:
        return cli.EXIT_FAILED_CHECK
    manifest = manifest_lib.load_manifest(settings.path)
    print(f"sound: {len(manifest.shards)} shards. " + finish.summary(manifest, out=settings.path))
    for line in leaks[:MOST_FAILURES]:
        print(f"  Of the published split: {' '.join(line.split())}")
    if len(leaks) > MOST_FAILURES:
        print(f"  and {len(leaks) - MOST_FAILURES} more leaks of the published split")
    if uncounted(pathlib.Path(settings.path)):
        print("  An earlier version made the set; it has no counts of rows and labels to compare.")
    return 0


if __name__ == "__main__":
    cli.run(main, Settings)
