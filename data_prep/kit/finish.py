"""Turns finished jobs into a set: shards in place, TFDS's metadata, and the manifest last."""

import collections
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence

from data_prep.kit import cli
from data_prep.kit.images import PixelSums
from data_prep.kit.writer import SOURCES_NAME, Job, Part, SetWriter, shard_path
from prior_jax.data import schema
from prior_jax.errors import DataError


def finish(
    writer: SetWriter,
    jobs: Sequence[Job],
    parts: Mapping[str, Part],
    *,
    label_names: Sequence[str],
    short_side: int,
    plan_rejected: Mapping[str, int],
) -> schema.Manifest:
    """Puts the shards in place and writes the set's metadata and manifest.

    Killed at any moment, a later run takes up where it stopped.

    Raises:
      DataError: if not one record was kept; `rejected.jsonl` tells why.
    """
    rejected = collections.Counter(plan_rejected)
    for part in parts.values():
        rejected.update(part.rejected)
    _concatenate(
        writer.out / schema.REJECTED_NAME,
        [
            writer.plan_rejections,
            *(writer.parts / f"{job.name}.rejected.jsonl" for job in jobs),
        ],
    )
    kept = {
        split: [job for job in jobs if job.split == split and parts[job.name].studies]
        for split in schema.SPLITS
    }
    if not any(kept.values()):
        raise DataError(
            f"{writer.out}: every study was rejected",
            received=dict(sorted(rejected.items())),
            accepted=f"at least one study; {schema.REJECTED_NAME} lists each reason",
        )
    sources = [writer.parts / f"{job.name}.sources.jsonl" for jobs in kept.values() for job in jobs]
    if any(path.stat().st_size for path in sources):
        _concatenate(writer.out / SOURCES_NAME, sources)
    shards = _place_shards(writer, kept, parts)
    schema.write_dataset_info(
        writer.out,
        shard_lengths={s: [parts[job.name].studies for job in kept[s]] for s in kept},
        shard_bytes={s: sum(parts[job.name].record_bytes for job in kept[s]) for s in kept},
    )
    manifest = _manifest(
        writer,
        {split: [parts[job.name] for job in kept[split]] for split in kept},
        label_names=label_names,
        short_side=short_side,
        rejected=dict(sorted(rejected.items())),
        shards=shards,
    )
    schema.save_manifest(manifest, writer.out)
    shutil.rmtree(writer.parts)
    return manifest


def _place_shards(
    writer: SetWriter, kept: Mapping[str, Sequence[Job]], parts: Mapping[str, Part]
) -> dict[str, str]:
    """Renames finished shards to their TFDS names; returns name -> sha256."""
    hashes = {}
    for split, jobs in kept.items():
        for index, job in enumerate(jobs):
            name = schema.shard_name(split, shard=index, shards=len(jobs))
            source = shard_path(writer, job)
            if source.is_file():
                os.replace(source, writer.out / name)
            elif not (writer.out / name).is_file():
                raise DataError(str(source), received="no such file", accepted="a finished shard")
            hashes[name] = parts[job.name].sha256
    return hashes


def _concatenate(target: pathlib.Path, sources: Sequence[pathlib.Path]) -> None:
    """Writes the sources one behind the other, in pieces, whole or not at all."""
    temporary = target.with_name(f".{target.name}.tmp")
    with open(temporary, "wb") as file:
        for source in sources:
            with open(source, "rb") as part:
                shutil.copyfileobj(part, file)
    os.replace(temporary, target)


def _manifest(
    writer: SetWriter,
    parts: Mapping[str, Sequence[Part]],
    *,
    label_names: Sequence[str],
    short_side: int,
    rejected: Mapping[str, int],
    shards: Mapping[str, str],
) -> schema.Manifest:
    every = [part for split in parts.values() for part in split]
    # A set without training studies is described by all it has.
    pixels = sum((PixelSums(*part.pixels) for part in parts["train"] or every), start=PixelSums())
    mean, std = pixels.mean_and_std()
    text_sources = collections.Counter()
    for part in every:
        text_sources.update(part.text_sources)
    counted = ("studies", "images", "subjects", "sentences")
    return schema.Manifest(
        format=schema.MANIFEST_FORMAT,
        program=writer.program,
        settings=dict(writer.settings),
        versions=dict(cli.versions()),
        label_names=tuple(label_names),
        splits={
            split: schema.SplitCounts(
                **{name: sum(getattr(part, name) for part in parts[split]) for name in counted}
            )
            for split in parts
        },
        rejected=rejected,
        inputs=dict(writer.inputs),
        shards=dict(shards),
        image=schema.ImageStatistics(short_side=short_side, mean=mean, std=std),
        text_sources=dict(sorted(text_sources.items())),
    )


def summary(manifest: schema.Manifest, *, out: str) -> str:
    """Returns, in a few lines, what a set holds and what was left out."""
    lines = [f"{out}:"]
    for split, counts in manifest.splits.items():
        lines.append(
            f"  {split:<9}{counts.studies:>8} studies{counts.images:>9} images"
            f"{counts.subjects:>8} patients{counts.sentences:>10} sentences"
        )
    for reason, count in manifest.rejected.items():
        lines.append(f"  rejected {count:>9}  {reason}")
    return "\n".join(lines)
