"""Small prepared sets for tests: drawn images and templated reports, without any preparer."""

import dataclasses
import hashlib
import io
import pathlib

import numpy as np
from array_record.python import array_record_module
from PIL import Image, ImageDraw

from data_prep.kit import image_regions
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema

LABEL_NAMES = ("Effusion", "Cardiomegaly", "No Finding")
WORDS = (
    "the heart is normal in size lungs are clear no pleural effusion pneumothorax left right "
    "small large new stable opacity edema seen mild with without tube above carina base apex"
).split()
SHARD_RECORDS = 7  # few, so that small sets have several shards


def draw_image(rng: np.random.Generator, *, size: int = 48) -> bytes:
    """A gray gradient with a random ellipse, as JPEG."""
    ramp = np.linspace(0, int(rng.integers(80, 255)), size).astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(ramp, (size, size)).copy())
    x, y, r = (int(v) for v in rng.integers(4, size - 4, 3))
    ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=int(rng.integers(0, 255)))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=90)
    return content.getvalue()


def draw_record(index: int, *, seed: int = 0, size: int = 48) -> schema.Record:
    """Study number `index`: one to three images, one to eight sentences of varied length."""
    rng = np.random.default_rng((seed, index))
    images = int(rng.integers(1, 4))
    sentences = tuple(
        " ".join(rng.choice(WORDS, int(rng.integers(2, 12)))).capitalize() + "."
        for _ in range(int(rng.integers(1, 9)))
    )
    split = len(sentences) // 3
    return schema.Record(
        study_id=f"s{index:05d}",
        subject_id=f"p{index // 2:05d}",
        images=tuple(draw_image(rng, size=size) for _ in range(images)),
        image_ids=tuple(f"s{index:05d}_{i}" for i in range(images)),
        views=("PA",) * images,
        impression=" ".join(sentences[:split]),
        findings=" ".join(sentences[split:]),
        sentences=sentences,
        sentence_sections=(schema.SECTION_IMPRESSION,) * split
        + (schema.SECTION_FINDINGS,) * (len(sentences) - split),
        labels=tuple(int(v) for v in rng.choice(schema.LABEL_VALUES, len(LABEL_NAMES))),
        text_source=schema.TEXT_REPORT,
    )


def without_text(record: schema.Record) -> schema.Record:
    """The study with images and labels alone."""
    return dataclasses.replace(
        record,
        impression="",
        findings="",
        sentences=(),
        sentence_sections=(),
        text_source=schema.TEXT_NONE,
    )


def write_prepared(
    directory: str | pathlib.Path,
    *,
    studies: int = 20,
    validate: int = 0,
    test: int = 0,
    seed: int = 0,
    size: int = 48,
    records: list[schema.Record] | None = None,
) -> pathlib.Path:
    """Writes a prepared set and returns its directory.

    Args:
      directory: made if absent.
      studies: of split "train", drawn; ignored where `records` are given.
      validate: studies of split "validate".
      test: studies of split "test".
      seed: of everything drawn.
      size: pixels of either side of the images.
      records: split "train" as it is to be.
    """
    counts = {"train": studies, "validate": validate, "test": test}
    splits, start = {}, 0
    for split, count in counts.items():
        splits[split] = [draw_record(start + i, seed=seed, size=size) for i in range(count)]
        start += count
    if records is not None:
        splits["train"] = records
    return write_splits(directory, splits, size=size)


def write_splits(
    directory: str | pathlib.Path, splits: dict[str, list[schema.Record]], *, size: int = 48
) -> pathlib.Path:
    """Writes a prepared set with the splits as they are to be, and returns its directory."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    lengths, sizes, hashes = {}, {}, {}
    for split, content in splits.items():
        lengths[split], sizes[split] = _write_split(directory, split, content, hashes)
    schema.write_dataset_info(directory, shard_lengths=lengths, shard_bytes=sizes)
    manifest_lib.save_manifest(_manifest(splits, hashes, size=size), directory)
    return directory


def _write_split(directory, split, records, hashes):
    spec = schema.features()
    chunks = [records[i : i + SHARD_RECORDS] for i in range(0, len(records), SHARD_RECORDS)]
    size = 0
    for number, chunk in enumerate(chunks):
        path = directory / schema.shard_name(split, shard=number, shards=len(chunks))
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for record in chunk:
            content = schema.serialize(record, spec=spec)
            size += len(content)
            writer.write(content)
        writer.close()
        hashes[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return [len(chunk) for chunk in chunks], size


def _manifest(splits, hashes, *, size):
    everything = [record for records in splits.values() for record in records]
    sources = [record.text_source for record in everything]
    return manifest_lib.Manifest(
        format=manifest_lib.MANIFEST_FORMAT,
        program="tests.fixtures",
        settings={"size": size},
        versions={},
        label_names=LABEL_NAMES,
        splits={
            split: manifest_lib.SplitCounts(
                studies=len(records),
                images=sum(len(r.images) for r in records),
                subjects=len({r.subject_id for r in records}),
                sentences=sum(len(r.sentences) for r in records),
            )
            for split, records in splits.items()
        },
        rejected={},
        inputs={},
        shards=hashes,
        image=manifest_lib.ImageStatistics(short_side=size, mean=0.4, std=0.25),
        text_sources={source: sources.count(source) for source in set(sources)},
        regions=_regions(everything),
    )


def _regions(records):
    """Counts the regions of each label, as a preparer does."""
    found = image_regions.RegionSums()
    for record in records:
        found.add(record)
    return found.counts()


def write_vocabulary(path: str | pathlib.Path) -> pathlib.Path:
    """Writes a WordPiece `vocab.txt` that covers WORDS in pieces."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = [".", ",", *letters, *(f"##{c}" for c in letters), *sorted(set(WORDS))[::2]]
    path = pathlib.Path(path)
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]) + "\n")
    return path


def train_sentencepiece(
    path: str | pathlib.Path, *, vocab_size: int = 80, seed: int = 0
) -> pathlib.Path:
    """Trains a small sentencepiece model on WORDS, special tokens at ids 0 to 4."""
    import sentencepiece

    rng = np.random.default_rng(seed)
    lines = [" ".join(rng.choice(WORDS, 8)).capitalize() + "." for _ in range(400)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        pad_piece="[PAD]",
        unk_piece="[UNK]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        control_symbols=["[MASK]"],
        minloglevel=2,
    )
    path = pathlib.Path(path)
    path.write_bytes(model.getvalue())
    return path
