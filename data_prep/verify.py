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

from data_prep.kit import cli, finish, values, writer
from data_prep.kit.plan import UNLISTED
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.errors import ConfigError, DataError

# Limit on lines: enough to see the problem, not one for each of 200,000 studies.
MOST_FAILURES = 50
_COUNTED = ("studies", "images", "subjects", "sentences")


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
            raise ConfigError("--sample", received=self.sample, accepted="0 to 1")
        if self.workers < 1:
            raise ConfigError("--workers", received=self.workers, accepted="at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardReport:
    """The findings of the check of one shard.

    Attributes:
      sha256: sha256 of the file.
      counts: numbers of studies, images, sentences, decoded images, and of each text source.
      labels: label value -> number of studies with that value, for each label.
      subjects: ids of the patients.
      studies: digests of study ids.
      images: digest of each stored image -> "study ..., image ..." that holds the image.
      failures: problems of the shard, one line each.
    """

    sha256: str
    counts: Mapping[str, int]
    labels: Sequence[Mapping[int, int]]
    subjects: frozenset[str]
    studies: np.ndarray
    images: Mapping[bytes, str]
    failures: tuple[str, ...]


def verify(settings: Settings) -> list[str]:
    """Returns one line for each failure; none if the set is sound.

    Raises:
      DataError: if there is no readable manifest to compare with.
    """
    root = pathlib.Path(settings.path)
    manifest = manifest_lib.load_manifest(root)
    failures = list(_metadata_failures(root, manifest))
    reports = {}
    present = [name for name in manifest.shards if (root / name).is_file()]
    failures += [
        f"{name}: no such shard, though the manifest lists it"
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
            failures.append(f"{name}: its sha256 differs from the manifest's")
        failures += reports[name].failures
    failures += _set_failures(root, manifest, reports)
    return failures


def _metadata_failures(root: pathlib.Path, manifest: manifest_lib.Manifest) -> Iterator[str]:
    """Yields the problems of the files beside the shards."""
    for name in ("features.json", "dataset_info.json"):
        if not (root / name).is_file():
            yield f"{name}: no such file"
    for path in sorted(root.glob("*.array_record-*")):
        if path.name not in manifest.shards:
            yield f"{path.name}: a shard the manifest does not list"
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
        yield f"{listed.name}: {error}"
    for reason in sorted(counts.keys() | manifest.rejected.keys()):
        if counts[reason] != manifest.rejected.get(reason, 0):
            yield (
                f"rejected: {counts[reason]} of {reason} in {listed.name}, "
                f"{manifest.rejected.get(reason, 0)} in the manifest"
            )
    for table, found in manifest.tables.items():
        yield from _row_failures(table, found, listed=rows[table])
    if (root / writer.PARTS).exists():
        yield f"{writer.PARTS}: left over from a run that did not end"


def _row_failures(
    table: str, found: manifest_lib.RowCounts, *, listed: Mapping[str, int]
) -> Iterator[str]:
    """Yields the tables whose rows do not add up."""
    rejected = sum(found.rejected.values())
    if found.read != found.kept + rejected:
        yield f"{table}: {found.read} rows read, but {found.kept} kept and {rejected} rejected"
    for reason in sorted(listed.keys() | found.rejected.keys()):
        if reason in UNLISTED:
            continue
        if listed.get(reason, 0) != found.rejected.get(reason, 0):
            yield (
                f"{table}: {listed.get(reason, 0)} rows of {reason} in {schema.REJECTED_NAME}, "
                f"{found.rejected.get(reason, 0)} in the manifest"
            )


def check_shard(name: str, *, root: pathlib.Path, labels: int, sample: float) -> ShardReport:
    """Reads every record of a shard and decodes a sample of its images."""
    from array_record.python import array_record_module

    counts: collections.Counter[str] = collections.Counter()
    said = [collections.Counter() for _ in range(labels)]
    subjects, studies, images, failures = set(), [], {}, []
    spec = schema.features()
    try:
        reader = array_record_module.ArrayRecordReader(str(root / name))
        records = reader.read_all()
        reader.close()
    except (ValueError, RuntimeError, IndexError) as error:
        records = []
        failures.append(f"{name}: not a whole ArrayRecord: {error}")
    for number, content in enumerate(records):
        try:
            record = _parsed(content, spec)
            failures += [f"{name}: {text}" for text in _record_failures(record, labels=labels)]
        except (DataError, KeyError, ValueError, TypeError) as error:
            failures.append(f"{name}: record {number}: {type(error).__name__}: {error}")
            continue
        counts.update(studies=1, images=len(record.images), sentences=len(record.sentences))
        counts[record.text_source] += 1
        subjects.add(record.subject_id)
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
        images=images,
        failures=tuple(failures),
    )


def _parsed(content: bytes, spec) -> schema.Record:
    """Returns a record, read as the training pipeline reads it."""
    example = spec.deserialize_example_np(content)
    missing = set(spec.keys()) - set(example)
    if missing:
        raise KeyError(f"features {sorted(missing)} are missing")
    return schema.Record.from_example(example)


def _record_failures(record: schema.Record, *, labels: int) -> Iterator[str]:
    if not record.study_id or not record.subject_id:
        yield f"study {record.study_id!r}: study or patient has no id"
    if len(record.labels) != labels:
        yield f"study {record.study_id}: {len(record.labels)} labels, the manifest names {labels}"
    if any(not sentence.strip() for sentence in record.sentences):
        yield f"study {record.study_id}: an empty sentence"
    if (record.text_source == schema.TEXT_NONE) != (not record.sentences):
        count = len(record.sentences)
        yield f"study {record.study_id}: text source {record.text_source}, {count} sentences"


def _image_failures(record: schema.Record) -> Iterator[str]:
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    for identity, content in zip(record.image_ids, record.images, strict=True):
        try:
            with Image.open(io.BytesIO(content)) as image:
                image.load()
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            yield f"image {identity} does not decode: {str(error).split('<_io')[0]}"


def _set_failures(
    root: pathlib.Path, manifest: manifest_lib.Manifest, reports: Mapping[str, ShardReport]
) -> Iterator[str]:
    """Yields the problems of the set as a whole: counts, duplicates, leaking patients."""
    of_split = {
        split: [
            report
            for name, report in reports.items()
            if name.startswith(f"{schema.DATASET_NAME}-{split}.")
        ]
        for split in schema.SPLITS
    }
    subjects = {}
    for split, found in of_split.items():
        subjects[split] = frozenset().union(*(report.subjects for report in found))
        counts = {name: sum(report.counts[name] for report in found) for name in _COUNTED}
        counts["subjects"] = len(subjects[split])
        expected = manifest.splits.get(split)
        for name in _COUNTED:
            listed = getattr(expected, name) if expected else 0
            if counts[name] != listed:
                yield f"{split}: {counts[name]} {name}, {listed} in the manifest"
    for source in schema.TEXT_SOURCES:
        count = sum(report.counts[source] for report in reports.values())
        if count != manifest.text_sources.get(source, 0):
            listed = manifest.text_sources.get(source, 0)
            yield f"text source {source}: {count} studies, {listed} in the manifest"
    yield from _leaks(of_split)
    if not uncounted(root):
        yield from _total_failures(manifest, reports.values())
    digests = [report.studies for report in reports.values()]
    every = np.concatenate(digests) if digests else np.zeros(0, np.uint64)
    if len(np.unique(every)) != len(every):
        yield f"{len(every) - len(np.unique(every))} study ids stand in more than one record"
    yield from _index_failures(root, manifest)


def _leaks(of_split: Mapping[str, Sequence[ShardReport]]) -> Iterator[str]:
    """Yields the patients and the images that are in more than one split."""
    patients: dict[str, dict[str, str]] = {}
    images: dict[bytes, dict[str, str]] = {}
    for split, found in of_split.items():
        for report in found:
            for subject in report.subjects:
                patients.setdefault(values.comparable_id(subject), {})[split] = subject
            for digest, place in report.images.items():
                images.setdefault(digest, {})[split] = place
    for places in sorted((found for found in patients.values() if len(found) > 1), key=str):
        written = " or ".join(sorted(set(places.values())))
        yield f"patient {written} is in {' and '.join(places)}"
    for places in sorted((found for found in images.values() if len(found) > 1), key=str):
        where = " and ".join(f"{place} ({split})" for split, place in places.items())
        yield f"one image stands in two splits: {where}; leave one of them out"


def uncounted(root: pathlib.Path) -> bool:
    """Whether a manifest lacks the fields of this version, empty or not, as earlier ones do."""
    content = json.loads((root / manifest_lib.MANIFEST_NAME).read_text(encoding="utf-8"))
    return not content.keys() & {"tables", "labels", "notes"}


def _total_failures(
    manifest: manifest_lib.Manifest, reports: Iterable[ShardReport]
) -> Iterator[str]:
    """Yields the differences between the records' labels and rows and those of the manifest."""
    reports = list(reports)
    studies = sum(report.counts["studies"] for report in reports)
    if studies and not manifest.tables:
        yield f"tables: the manifest counts the rows of none, though there are {studies} studies"
    for name in manifest.label_names:
        if name not in manifest.labels:
            yield f"label {name}: it is not counted in the manifest"
    for name, counts in manifest.labels.items():
        if name not in manifest.label_names:
            yield f"labels: {name!r} is counted, but is no label of the set"
            continue
        place = manifest.label_names.index(name)
        expected = (counts.positive, counts.negative, counts.uncertain, counts.not_mentioned)
        for value, listed in zip(schema.LABEL_VALUES, expected, strict=True):
            count = sum(report.labels[place][value] for report in reports)
            if count != listed:
                yield f"label {name}: {count} studies are {value}, {listed} in the manifest"
    images = sum(report.counts["images"] for report in reports)
    for table, rows in manifest.tables.items():
        if rows.images not in (-1, images):
            yield f"{table}: {images} images in the records, {rows.images} in the manifest"


def _index_failures(root: pathlib.Path, manifest: manifest_lib.Manifest) -> Iterator[str]:
    """Yields the differences between TFDS's own metadata and the manifest."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(root)
        sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
        missing = set(schema.features().keys()) - set(builder.info.features.keys())
    except Exception as error:  # TFDS may raise anything on damaged metadata
        yield f"dataset_info.json or features.json: {type(error).__name__}: {error}"
        return
    for name in sorted(missing):
        yield f"features.json: feature {name} is missing"
    for split, counts in manifest.splits.items():
        if sizes.get(split, 0) != counts.studies:
            yield f"dataset_info.json: {sizes.get(split, 0)} studies in {split}"


def main() -> int:
    """Runs the program on its flags."""
    settings = cli.from_flags(Settings)
    failures = verify(settings)
    for line in failures[:MOST_FAILURES]:
        print(" ".join(line.split()))
    if len(failures) > MOST_FAILURES:
        print(f"and {len(failures) - MOST_FAILURES} more")
    if failures:
        return cli.EXIT_FAILED_CHECK
    manifest = manifest_lib.load_manifest(settings.path)
    print(f"sound: {len(manifest.shards)} shards. " + finish.summary(manifest, out=settings.path))
    if uncounted(pathlib.Path(settings.path)):
        print("  An earlier version made it, without counts of rows and labels to compare.")
    return 0


if __name__ == "__main__":
    cli.run(main, Settings)
