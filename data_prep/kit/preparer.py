"""Turns a plan into a prepared set, in the same way for every preparer."""

import contextlib
import dataclasses
import os
import pathlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from data_prep.kit import cli, finish, source, writer
from data_prep.kit import plan as planner
from data_prep.kit.image_regions import ImageRegion, StoredRegions, stored_regions
from data_prep.kit.images import PixelSums
from data_prep.kit.outcomes import Kept, Rejection, RejectionCounts
from data_prep.kit.plan import Plan, PlannedImage, Reject
from data_prep.kit.settings import StoredImages
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.data.decode import ImageProblem
from prior_jax.errors import DataError, InputProblem

MakePlan = Callable[[pathlib.Path, Reject], Plan]
"""Function from a folder for the workers' inputs, and from `reject`, to the plan."""


def prepare_set(
    make_plan: MakePlan,
    options: cli.RunOptions,
    *,
    program: str,
    settings: Any,
    inputs: Mapping[str, str],
) -> manifest_lib.Manifest:
    """Plans and writes a set, continues an unfinished one, or returns a complete one.

    Args:
      make_plan: function that reads the tables; called once, before any image is opened.
      options: directory of the set, and number of processes that write it.
      program: name of the preparer, e.g. "data_prep.manifest".
      settings: dataclass of the flags that change what is written; it must be defined in the
        preparer's own module.
      inputs: table -> sha256 of its file.

    Returns:
      The manifest of the set.

    Raises:
      ConfigError: if the output directory cannot be used, or holds a set that an earlier version
        of the program wrote.
      DataError: if no study can be kept, in which case the message counts the reasons, or if the
        plan loses rows or contains invalid images.
    """
    with writer.opened(
        options,
        program=program,
        settings=dataclasses.asdict(settings),
        inputs=inputs,
        code=source.code_hash(type(settings).__module__),
    ) as target:
        if target is None:
            return manifest_lib.load_manifest(options.out)
        plan, rejected = _planned(make_plan, target)
        parts = writer.run_jobs(
            target, plan.jobs, plan.process, label_names=plan.label_names, workers=options.workers
        )
        return finish.finish(target, plan, parts, planned=rejected)


def _planned(make_plan: MakePlan, target: writer.SetWriter) -> tuple[Plan, RejectionCounts]:
    """Makes the plan of a set, checks it, and writes and counts the rejections of its rows."""
    counts = RejectionCounts()
    with (
        writer.refusing(target),
        open(target.plan_rejections, "w", encoding="utf-8") as lines,
    ):

        def reject(rejection: Rejection) -> None:
            counts.add(rejection)
            lines.write(rejection.line())

        with _explaining_images():
            plan = make_plan(target.parts / "index", reject)
        finish.check_planned(plan, counts)
        if not any(job.split for job in plan.jobs):
            raise finish.nothing_kept(counts, inputs=target.inputs, plan=plan)
    return plan, counts


@contextlib.contextmanager
def _explaining_images() -> Iterator[None]:
    """Explains which values a planned image may have if the planner cannot write one."""
    try:
        yield
    except (TypeError, OverflowError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        if not any((f.filename, f.name) == (planner.__file__, "add") for f in frames):
            raise
        raise DataError(
            f"Planner.add cannot write an image: {error}.",
            "Correct the preparer: ids are texts; the split is a number, from settings.drawn_split "
            "or splits.split_code; data consists of JSON values: texts, numbers, True, False, "
            "None, lists and mappings.",
        ) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFile:
    """An image of a study.

    Attributes:
      id: id of the image in the record.
      path: path of the image's file.
      name: name of the image in messages; by default the name of the file.
      view: "PA", "AP" and the like, "" if the view is not known.
      reject_as: id in `rejected.jsonl` if the image cannot be used; by default `id`.
      rows: number of rows of the table for the image.
      regions: boxes and masks on the image, in pixels of the file.
    """

    id: str
    path: pathlib.Path
    name: str = ""
    view: str = ""
    reject_as: str = ""
    rows: int = 1
    regions: Sequence[ImageRegion] = ()

    def rejection(self, problem: ImageProblem, *, table: str) -> Rejection:
        """Returns the rejection of the image, with its rows of the table."""
        return Rejection(
            id=self.reject_as or self.id,
            reason=problem.reason,
            detail=problem.detail,
            rows=self.rows,
            table=table,
        )


_OF_IMAGES = frozenset(("images", "image_ids", "views")) | {
    f"region_{name}" for name in ("images", "labels", "phrases", "boxes", "masks")
}
_OPTIONAL = frozenset(("sex", "age"))


def study_outcome(
    files: Sequence[ImageFile],
    *,
    stored: StoredImages,
    fields: Mapping[str, Any],
    source: Mapping[str, Any] | None = None,
) -> Iterator[Kept | Rejection]:
    """Yields the record of a study, and a rejection for each image that cannot be used.

    Args:
      files: images of the study.
      stored: size and quality of the stored images, and their table.
      fields: other fields of the record: all but `images`, `image_ids`, `views` and those of
        regions; `sex` and `age` may be left out.
      source: licence, citation and the like, for `sources.jsonl`.

    Raises:
      DataError: if the fields are not those of a record, which is a fault of the preparer.
    """
    _check_fields(fields)
    good: list[tuple[ImageFile, bytes]] = []
    pixels, found = PixelSums(), StoredRegions()
    for file in files:
        try:
            prepared = stored.read(file.path, name=file.name or file.path.name)
            found += stored_regions(file.regions, image=len(good), place=prepared.place)
        except ImageProblem as problem:
            yield file.rejection(problem, table=stored.table)
            continue
        good.append((file, prepared.encoded))
        pixels += prepared.pixels
    if not good:
        if len(files) > 1 or (files[0].reject_as or files[0].id) != fields["study_id"]:
            detail = "each image of the study is listed with a reason of its own"
            yield Rejection(id=fields["study_id"], reason="no_usable_image", detail=detail)
        return
    record = schema.Record(
        images=tuple(encoded for _, encoded in good),
        image_ids=tuple(file.id for file, _ in good),
        views=tuple(file.view for file, _ in good),
        **found.fields(),
        **fields,
    )
    rows = sum(file.rows for file, _ in good)
    yield Kept(record=record, pixels=pixels, source=source, rows=rows, clipped=found.clipped)


def _check_fields(fields: Mapping[str, Any]) -> None:
    """Refuses a study with other fields than those of a record, images and regions left aside."""
    wanted = {field.name for field in dataclasses.fields(schema.Record)} - _OF_IMAGES
    if wanted - _OPTIONAL != fields.keys() - _OPTIONAL:
        raise DataError(
            f"The fields of study {fields.get('study_id')!r} are {', '.join(fields)}.",
            f"Correct the preparer: the fields must be {', '.join(sorted(wanted))}.",
        )


def rejected_study(
    images: Sequence[PlannedImage], problem: InputProblem, *, table: str
) -> Rejection:
    """Returns the rejection of a whole study, with all rows of its images."""
    return Rejection(
        id=images[0].study,
        reason=problem.reason,
        detail=problem.detail,
        rows=sum(image.rows for image in images),
        table=table,
    )


def run_program(
    prepare: Callable[[Any, Any, cli.RunOptions], manifest_lib.Manifest],
    paths: type,
    settings: type,
) -> None:
    """Runs a preparer as a program: parses flags, prepares the set and prints a summary.

    Args:
      prepare: function that makes the set from the paths, the settings and the options.
      paths: dataclass of the flags for the paths of the raw data.
      settings: dataclass of the flags for what is kept, and in what form.
    """

    def main() -> None:
        options = cli.from_flags(cli.RunOptions)
        before = _stamp(options.out)
        manifest = prepare(cli.from_flags(paths), cli.from_flags(settings), options)
        print(finish.summary(manifest, out=options.out))
        if before is not None and before == _stamp(options.out):
            print(f"{options.out}: The set was complete already; nothing was done.")

    cli.run(main, paths, settings, cli.RunOptions)


def _stamp(out: str) -> tuple[int, int] | None:
    """Returns a stamp that changes with the manifest of a directory, None without a manifest."""
    try:
        found = os.stat(pathlib.Path(out) / manifest_lib.MANIFEST_NAME)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def hashes(paths: Sequence[pathlib.Path], *, flag: str = "") -> dict[str, str]:
    """Returns file name -> sha256 of each table.

    Args:
      paths: paths of the tables.
      flag: flag that names the tables or their folder, for messages; "" names the path instead.

    Raises:
      DataError: if a table is missing or is a folder, or if two tables have the same name, since
        rows are counted by table name.
    """
    names = [path.name for path in paths]
    for path in paths:
        cli.refuse_long_name(path, flag=flag)
        if not path.is_file():
            raise DataError(
                f"{path} does not exist, or is not a file.",
                "Put the table there, or name the place where it lies.",
                where=flag,
            )
        if names.count(path.name) > 1:
            raise DataError(
                f"Two tables are named {path.name}.",
                "Rename one of them: rows are counted by the names of the files.",
                where=str(path),
            )
    return {path.name: cli.sha256_of(path) for path in paths}


def folder(path: str, *, flag: str) -> pathlib.Path:
    """Returns the path of a folder, or raises a DataError that names the flag."""
    found = pathlib.Path(path)
    cli.refuse_long_name(found, flag=flag)
    if not found.is_dir():
        problem = f"{found} does not exist, or is not a folder."
        raise DataError(problem, "Give the path of an existing folder.", where=flag)
    return found
