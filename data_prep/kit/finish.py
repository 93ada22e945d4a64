"""Turns finished jobs into a set: places the shards, and writes TFDS's metadata and the manifest.

The manifest is written last.
"""

import collections
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_prep.kit import cli, encodings, similar_names, splits
from data_prep.kit.finished_jobs import placed_shards, shard_path
from data_prep.kit.image_regions import RegionSums
from data_prep.kit.images import PixelSums
from data_prep.kit.outcomes import Job, Part, Rejection, RejectionCounts
from data_prep.kit.plan import Plan, PlannedStudies, TableUse, read_image
from data_prep.kit.published_splits import SEEDED
from data_prep.kit.writer import SOURCES_NAME, SetWriter, abandon, remove_set
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.errors import DataError


def finish(
    writer: SetWriter, plan: Plan, parts: Mapping[str, Part], *, planned: RejectionCounts
) -> manifest_lib.Manifest:
    """Moves the shards to their places and writes the set's metadata and manifest.

    If this is killed at any moment, a later run continues from there.

    Args:
      writer: writer of the open set.
      plan: jobs, labels and tables of the set.
      parts: job name -> results of the job, for every job of the plan.
      planned: rejections from before any job ran.

    Raises:
      DataError: if no record was kept; the message counts the reasons, and the directory is left
        as it was.
    """
    jobs = plan.jobs
    rejections = _all_rejections(planned, parts)
    kept = {
        split: [job for job in jobs if job.split == split and parts[job.name].studies]
        for split in schema.SPLITS
    }
    if not any(kept.values()):
        for job in jobs:
            rejections.add_examples(writer.parts / f"{job.name}.rejected.jsonl")
        abandon(writer)
        raise nothing_kept(rejections, inputs=writer.inputs, plan=plan)
    tables = _row_counts(plan, parts, rejections)
    if (writer.out / manifest_lib.MANIFEST_NAME).exists():
        remove_set(writer.out)  # the set that --overwrite replaces, kept until now
    _join_lists(writer, jobs, kept)
    shards = _place_shards(writer, jobs, parts)
    schema.write_dataset_info(
        writer.out,
        shard_lengths={s: [parts[job.name].studies for job in kept[s]] for s in kept},
        shard_bytes={s: sum(parts[job.name].record_bytes for job in kept[s]) for s in kept},
    )
    manifest = _manifest(
        writer,
        plan,
        {split: [parts[job.name] for job in kept[split]] for split in kept},
        rejected=dict(sorted(rejections.reasons.items())),
        tables=tables,
        shards=shards,
    )
    _write_orders(writer.out, plan.split_order)
    manifest_lib.save_manifest(manifest, writer.out)
    shutil.rmtree(writer.parts)
    return manifest


def _all_rejections(planned: RejectionCounts, parts: Mapping[str, Part]) -> RejectionCounts:
    """Returns the rejections from before the jobs and those of the jobs, in one count."""
    found = RejectionCounts()
    found.merge(planned.reasons, planned.rows)
    for part in parts.values():
        found.merge(part.rejected, part.rows)
    return found


def nothing_kept(
    rejections: RejectionCounts, *, inputs: Mapping[str, str], plan: Plan
) -> DataError:
    """Returns the error for a set without a study, with the count of each reason and an example.

    Args:
      rejections: rejections of the whole set.
      inputs: table -> sha256 of its file.
      plan: plan of the set, for its notes and its folder of images.
    """
    counted = []
    for reason, count in sorted(rejections.reasons.items()):
        example = rejections.examples.get(reason)
        detail = f" (such as {_example(example, plan.images_dir)})" if example else ""
        counted.append(f"{count} {reason}{detail}")
    problem = "No study can be kept: the tables have no row."
    remedy = "Give tables with at least one row."
    if counted:
        problem = f"No study can be kept: rejected {', '.join(counted)}."
        remedy = "Correct the tables or the settings, so that at least one study can be kept."
        if plan.images_dir and set(rejections.reasons) <= {"missing_image", "no_usable_image"}:
            remedy = f"Set {plan.images_flag} to the folder that the images' paths start from."
    where = ", ".join(inputs) or "The data set"
    return DataError(" ".join((problem, *plan.notes)), remedy, where=where)


def _example(rejection: Rejection, images_dir: pathlib.Path | None) -> str:
    if rejection.reason == "missing_image" and images_dir:
        return str(images_dir.absolute() / rejection.detail)
    detail = rejection.detail[:240]
    return detail if detail.startswith(rejection.id) else f"{rejection.id}: {detail}"


def check_planned(plan: Plan, rejections: RejectionCounts) -> None:
    """Refuses a plan that has lost rows, before any image is opened.

    Args:
      plan: plan of the set; its images are checked only if its studies are `PlannedStudies`.
      rejections: rejections from the making of the plan.

    Raises:
      DataError: if rows of a table were neither planned nor rejected, or both, or if an image's
        patient has no id; the message names the table or the image.
    """
    if not isinstance(plan.process, PlannedStudies):
        return
    folder, planned = plan.process.directory, 0
    for offset in np.load(folder / "offsets.npy"):
        image = read_image(folder, int(offset))
        if not image.patient.strip():
            raise DataError(
                f"The patient of image {image.id!r} has no id.",
                "Correct the preparer: reject rows without a patient, or use the id of the study "
                "if each study is a patient of its own.",
            )
        planned += image.rows
    for table in (table for table in plan.tables if table.kept is None):
        rejected = collections.Counter(rejections.rows.get(table.name, {}))
        rejected.update(table.unused)
        if table.read != planned + sum(rejected.values()):
            raise _rows_lost(table, f"{planned} were planned", rejected)


def _rows_lost(table: TableUse, used: str, rejected: Mapping[str, int]) -> DataError:
    counts = ", ".join(f"{count} {reason}" for reason, count in rejected.items())
    return DataError(
        f"Of {table.read} rows read from {table.name}, {used} and {sum(rejected.values())} were "
        f"rejected{f' ({counts})' if counts else ''}, which does not add up.",
        "Correct the preparer: give each row to the planner, or reject it with rows=1 and the "
        "name of the table, once.",
    )


def _row_counts(
    plan: Plan, parts: Mapping[str, Part], rejections: RejectionCounts
) -> dict[str, manifest_lib.RowCounts]:
    """Returns the numbers of kept and left out rows of each table.

    Raises:
      DataError: if rows were lost, which only a fault of the preparer can cause.
    """
    in_records = sum(part.kept_rows for part in parts.values())
    found = {}
    for table in plan.tables:
        rejected = collections.Counter(rejections.rows.get(table.name, {}))
        rejected.update(table.unused)
        kept = in_records if table.kept is None else table.kept
        if table.read != kept + sum(rejected.values()):
            raise _rows_lost(table, f"{kept} are in records", rejected)
        found[table.name] = manifest_lib.RowCounts(
            read=table.read,
            kept=kept,
            rejected=dict(sorted(rejected.items())),
            images=-1 if table.kept is not None else sum(part.images for part in parts.values()),
        )
    return found


def _place_shards(
    writer: SetWriter, jobs: Sequence[Job], parts: Mapping[str, Part]
) -> dict[str, str]:
    """Renames finished shards to their TFDS names, and returns name -> sha256."""
    hashes = {}
    for job, name in placed_shards(jobs, parts).items():
        source = shard_path(writer.parts, job)
        if source.is_file():
            os.replace(source, writer.out / name)
        elif not (writer.out / name).is_file():
            raise DataError(
                "The file of a finished shard has been removed.",
                "Run the same command again, which prepares this shard again.",
                where=str(source),
            )
        hashes[name] = parts[job].sha256
    return hashes


def _join_lists(writer: SetWriter, jobs: Sequence[Job], kept: Mapping[str, Sequence[Job]]) -> None:
    """Joins the jobs' lists of what was left out, and of the sources of studies, if there are any.

    Args:
      writer: writer of the set.
      jobs: all jobs of the set.
      kept: split -> jobs with a record.
    """
    rejected = [writer.parts / f"{job.name}.rejected.jsonl" for job in jobs]
    _concatenate(writer.out / schema.REJECTED_NAME, [writer.plan_rejections, *rejected])
    sources = [writer.parts / f"{job.name}.sources.jsonl" for jobs in kept.values() for job in jobs]
    if any(path.stat().st_size for path in sources):
        _concatenate(writer.out / SOURCES_NAME, sources)


def _write_orders(out: pathlib.Path, orders: Mapping[str, Sequence[str]]) -> None:
    """Writes the ids of each split in the published order, which a paper's fraction depends on.

    `config.data.fraction.ids` reads the files.
    """
    for split, ids in orders.items():
        path = out / splits.order_name(split)
        schema.write_atomically(path, "".join(f"{name}\n" for name in ids).encode())


def _concatenate(target: pathlib.Path, sources: Sequence[pathlib.Path]) -> None:
    """Writes the concatenated sources in pieces, completely or not at all."""
    temporary = target.with_name(f".{target.name}.tmp")
    with open(temporary, "wb") as file:
        for source in sources:
            with open(source, "rb") as part:
                shutil.copyfileobj(part, file)
    os.replace(temporary, target)


def _manifest(
    writer: SetWriter,
    plan: Plan,
    parts: Mapping[str, Sequence[Part]],
    *,
    rejected: Mapping[str, int],
    tables: Mapping[str, manifest_lib.RowCounts],
    shards: Mapping[str, str],
) -> manifest_lib.Manifest:
    every = [part for split in parts.values() for part in split]
    # A set without training studies is described by the statistics of all its studies.
    pixels = sum((PixelSums(*part.pixels) for part in parts["train"] or every), start=PixelSums())
    mean, std = pixels.mean_and_std()
    found = RegionSums.merged(part.regions for part in every).counts()
    text_sources = collections.Counter()
    for part in every:
        text_sources.update(part.text_sources)
    counted = ("studies", "images", "subjects", "sentences")
    return manifest_lib.Manifest(
        format=manifest_lib.MANIFEST_FORMAT,
        program=writer.program,
        settings=dict(writer.settings),
        versions=dict(cli.versions()),
        label_names=tuple(plan.label_names),
        splits={
            split: manifest_lib.SplitCounts(
                **{name: sum(getattr(part, name) for part in parts[split]) for name in counted}
            )
            for split in parts
        },
        rejected=rejected,
        inputs=dict(writer.inputs),
        shards=dict(shards),
        image=manifest_lib.ImageStatistics(short_side=plan.short_side, mean=mean, std=std),
        text_sources=dict(sorted(text_sources.items())),
        tables=tables,
        labels=_label_counts(plan.label_names, every),
        notes=(
            *plan.notes,
            *(note for table in plan.tables for note in table.notes),
            *similar_names.notes((*plan.label_names, *found)),
        ),
        code=writer.code,
        regions=found,
        published_split=plan.published_split,
    )


def _label_counts(
    names: Sequence[str], parts: Sequence[Part]
) -> dict[str, manifest_lib.LabelCounts]:
    """Sums the label counts of all parts; the counts of a part are in the order of LABEL_VALUES."""
    sums = [
        [sum(column) for column in zip(*rows, strict=True)]
        for rows in zip(*(part.labels for part in parts), strict=True)
    ]
    return {
        name: manifest_lib.LabelCounts(
            positive=counts[0], negative=counts[1], uncertain=counts[2], not_mentioned=counts[3]
        )
        for name, counts in zip(names, sums, strict=True)
    }


def summary(manifest: manifest_lib.Manifest, *, out: str) -> str:
    """Returns lines on a set's contents, on what was left out, and on how the tables were read."""
    lines = [f"{out}:"]
    for split, counts in manifest.splits.items():
        lines.append(
            f"  {split:<9}{counts.studies:>8} studies{counts.images:>9} images"
            f"{counts.subjects:>8} patients{counts.sentences:>10} sentences"
        )
    for reason, count in manifest.rejected.items():
        lines.append(f"  rejected {count:>9}  {reason}")
    for name, rows in manifest.tables.items():
        left_out = "".join(f" + {count} {reason}" for reason, count in rows.rejected.items())
        lines.append(f"  {name}: {rows.read} rows read = {rows.kept} kept{left_out}")
    if manifest.labels:
        width = max(map(len, manifest.labels))
        lines.append(f"  {'label':<{width}} positive negative uncertain not mentioned")
    for name, counts in manifest.labels.items():
        lines.append(
            f"  {name:<{width}} {counts.positive:>8} {counts.negative:>8} {counts.uncertain:>9} "
            f"{counts.not_mentioned:>13}"
        )
    for name, found in manifest.regions.items():
        clipped = f", {found.clipped} of them cut off at the edge" if found.clipped else ""
        phrases = f", {found.phrases} phrases" if found.phrases else ""
        lines.append(
            f"  {found.regions} regions of {name}: {found.boxes} boxes{clipped}, "
            f"{found.masks} masks{phrases}"
        )
    lines += [f"  {note}" for note in manifest.notes]
    lines += [f"  Warning: {warning}" for warning in _warnings(manifest)]
    return "\n".join(lines)


def _warnings(manifest: manifest_lib.Manifest) -> Iterator[str]:
    """Yields what is probably wrong with a set, and what to do about it."""
    undecoded = manifest.rejected.get("report_not_decodable", 0)
    studies = sum(counts.studies for counts in manifest.splits.values())
    if "report_encoding" in manifest.settings and encodings.are_many(undecoded, of=studies):
        yield (
            f"{undecoded} reports are not in {manifest.settings['report_encoding']}, and the set "
            "holds only the others. Set --report_encoding to theirs, such as cp1252, and "
            "--overwrite."
        )
    resized = manifest.rejected.get("image_of_another_size", 0)
    side = manifest.settings.get("boxes_drawn_on")
    if resized and side:
        yield (
            f"{resized} images with boxes are no shrunk copies of images of {side:,} pixels on "
            "each side, on which the boxes were drawn, and are left out. If the boxes are in "
            "pixels of the files, as a phantom's are, set --boxes_drawn_on=0 and --overwrite."
        )
    empty = [split for split, counts in manifest.splits.items() if not counts.studies]
    if empty:
        remedy = _remedy_of_empty(manifest.settings)
        yield f"no study is in {' or '.join(empty)}. {remedy}"


def _remedy_of_empty(settings: Mapping[str, Any]) -> str:
    """Returns what to do about an empty split, with flags that the program has."""
    if settings.get("split", SEEDED) != SEEDED:
        return "The published split, as far as its images are there, holds none."
    if "split_fractions" not in settings:
        return "Give them studies where the data set names its splits."
    remedy = "Change --split_fractions or --split_seed"
    if "split_column" in settings:
        return f"{remedy}, or name the splits in a column (--split_column)."
    return f"{remedy}."
