"""Prepares data sets of images with labels, boxes and masks but without reports.

A preparer reads its tables into `Case`s, one an image, and hands them to `labelled_plan`; splits,
images, regions, counts and notes are done here. `data_prep/rsna.py` is the shortest example.
"""

import dataclasses
import filecmp
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from data_prep.kit import cli, folders, id_lists, preparer, published_splits, splits, values
from data_prep.kit.image_regions import ImageRegion
from data_prep.kit.labelled_studies import LabelledStudies, RegionsOf
from data_prep.kit.outcomes import Rejection
from data_prep.kit.plan import Plan, PlannedImage, PlannedStudies, Planner, Reject, TableUse
from data_prep.kit.published_splits import Assignment
from data_prep.kit.settings import StoreSettings
from prior_jax.data import schema
from prior_jax.errors import ConfigError, DataError

_PLACE = ("line", "table")
RESOURCE_FORK = "._"  # what macOS keeps beside a file, under the file's own suffix
NOT_LISTED = "in_no_split"
UNKNOWN = "listed_without_row"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitPaths:
    """Where lists of ids lie; the paths of a preparer begin with it."""

    split_lists: str = cli.setting(
        "Folder with the id lists of a published split that no rule makes: train.txt, val.txt, "
        "test.txt, or the same as .csv.",
        default="",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledSettings(StoreSettings):
    """The settings of a preparer of images without reports."""

    split: str = cli.setting(
        f"Split: one of {', '.join(published_splits.NAMES)}, as far as the data set has it. "
        "'seeded' draws patients by a hash.",
        default=published_splits.SEEDED,
    )
    split_fractions: tuple[str, ...] = cli.setting(
        "Shares of train, validate and test for --split=seeded. The first two also divide the "
        "training part of an official split that has no part to validate on.",
        default=("0.8", "0.1", "0.1"),
    )
    split_seed: int = cli.setting("Seed of the drawing of splits.", default=0)

    def __post_init__(self):
        """Refuses invalid values."""
        super().__post_init__()
        self.fractions()
        if self.split not in published_splits.NAMES:
            must_be = f"one of {', '.join(published_splits.NAMES)}"
            raise ConfigError.of_value("--split", self.split, must_be)

    def fractions(self) -> tuple[float, ...]:
        """Returns the shares as numbers; a ConfigError names the flag if they are none."""
        return splits.checked_fractions(self.split_fractions, flag="--split_fractions")

    def drawn(self, patient: str, *, shares: Sequence[float] | None = None) -> str:
        """Returns the split that is drawn for a patient: the same for all spellings of an id."""
        code = splits.drawn_split(
            values.comparable_id(patient),
            fractions=self.fractions() if shares is None else shares,
            seed=self.split_seed,
        )
        return schema.SPLITS[code]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """An image, and what its data set says of it. It becomes a record of its own.

    Attributes:
      id: id of the image, unique in the data set.
      path: path of its file, relative to the folder of the images.
      patient: id of the patient.
      labels: label states, one for each of the set's labels.
      sex: "F", "M" or "".
      age: age in years, None where unknown.
      view: "PA", "AP" or the like, "" where unknown.
      regions: boxes or masks on the image as JSON values, in the form that the `regions_of` of the
        preparer reads.
      rows: number of rows of the table of images.
      line: line of the table on which the first of them begins, for messages; 0 if not known.
      table: name of the file of that line, where the rows of several are counted together; "" for
        the table itself.
      problem: reason and detail for which the image is rejected, "" for none. It is planned all the
        same, since a rule that draws positions counts it.
    """

    id: str
    path: str
    patient: str
    labels: tuple[int, ...]
    sex: str = ""
    age: float | None = None
    view: str = ""
    regions: Sequence[Any] = ()
    rows: int = 1
    line: int = 0
    table: str = ""
    problem: tuple[str, str] | None = None

    def placed(self, detail: str, *, table: str) -> str:
        """Returns the detail of a problem behind the file and the line of the row."""
        return f"{self.table or table}:{self.line}: {detail}" if self.line else detail


def boxes_of(found: Sequence[Sequence[Any]]) -> list[ImageRegion]:
    """Returns the regions of a case that are lists [label, x1, y1, x2, y2]."""
    return [ImageRegion(label=label, box=(x1, y1, x2, y2)) for label, x1, y1, x2, y2 in found]


def assigned(
    cases: Sequence[Case],
    *,
    data_set: str,
    settings: LabelledSettings,
    lists: str = "",
    official: Assignment | None = None,
    key: Callable[[str], str] = id_lists.plain_id,
) -> Assignment:
    """Assigns cases to the splits that the settings name.

    Args:
      cases: cases in the order in which the paper's code has them: of the table, or sorted.
      data_set: name of the data set in `published_splits.PUBLISHED`.
      settings: name of the split, and how a seeded one is drawn.
      lists: value of --split_lists.
      official: the data set's own split, for `--split=official`.
      key: form of an id in which cases and lists are compared.

    Raises:
      ConfigError: if the data set has no such split, or lists are missing; the message names the
        flag.
      DataError: if the lists do not fit the table.
    """
    published = published_splits.checked_name(settings.split, data_set=data_set)
    if published is None:
        drawn = [settings.drawn(case.patient) for case in cases]
        members = {
            split: [place for place, name in enumerate(drawn) if name == split]
            for split in schema.SPLITS
        }
        return Assignment(members=members)
    if settings.split == published_splits.OFFICIAL and official is not None:
        found = official
    elif published.rule is not None:
        found = Assignment(members=published.rule(len(cases)))
    else:
        of_lists = id_lists.read_lists(lists)
        members, unknown = published_splits.by_lists(
            [case.id for case in cases], of_lists, key=key, overlapping=published.overlapping
        )
        found = Assignment(members=members, unknown=unknown)
    return described(found, cases, settings=settings, published=published)


def described(
    assignment: Assignment,
    cases: Sequence[Case],
    *,
    settings: LabelledSettings,
    published: published_splits.Published,
) -> Assignment:
    """Returns the assignment with notes on its sizes and on patients in two splits."""
    name, members = settings.split, assignment.members
    sizes = published_splits.size_notes(
        name,
        members,
        count=len(cases),
        sizes=published.sizes,
        rejected={place for place, case in enumerate(cases) if case.problem},
    )
    leaks = published_splits.leak_notes(name, members, [case.patient for case in cases])
    return dataclasses.replace(assignment, notes=(*sizes, *leaks))


def labelled_plan(
    cases: Sequence[Case],
    assignment: Assignment,
    *,
    directory: pathlib.Path,
    reject: Reject,
    images_dir: pathlib.Path,
    settings: StoreSettings,
    label_names: Sequence[str],
    table: TableUse,
    other_tables: Sequence[TableUse] = (),
    regions_of: RegionsOf = boxes_of,
    headers: bool = False,
    images_flag: str = "--images_dir",
    notes: Sequence[str] = (),
    is_listed: Callable[[Case], bool] = lambda case: True,
) -> Plan:
    """Plans a set of cases.

    Args:
      cases: cases that the tables name.
      assignment: splits of the cases, from `assigned`.
      directory: folder of the plan.
      reject: function that counts what is left out.
      images_dir: folder of the images.
      settings: settings of the preparer. Without a `split` among them nothing is published.
      label_names: names of the labels.
      table: table whose rows are the cases.
      other_tables: other tables that were read.
      regions_of: function that makes the regions of a case.
      headers: whether sex, age and view that the table does not give are read from DICOM headers.
      images_flag: flag that names the folder of the images, for messages.
      notes: sentences for the user.
      is_listed: whether the paper's code still has a case in its table when it draws a part of it;
        the order of the split leaves out the others.
    """
    for unknown, split in assignment.unknown:
        detail = f"the list of {split} names it, and no row does"
        reject(Rejection(id=unknown, reason=UNKNOWN, detail=detail))
    name = settings.split if isinstance(settings, LabelledSettings) else published_splits.SEEDED
    published = "" if name == published_splits.SEEDED else name
    with Planner(directory, reject=reject, table=table.name, keep_leaks=bool(published)) as planner:
        _add_cases(planner, cases, assignment, split=name)
        jobs = planner.finish(studies_per_shard=settings.studies_per_shard)
    make_record = LabelledStudies(
        images_dir=images_dir,
        settings=settings,
        table=table.name,
        regions_of=regions_of,
        headers=headers,
    )
    return Plan(
        jobs=jobs,
        process=PlannedStudies(directory=directory, make_record=make_record),
        label_names=tuple(label_names),
        tables=[table, *other_tables],
        short_side=settings.short_side,
        notes=(*notes, *assignment.notes),
        images_dir=images_dir,
        images_flag=images_flag,
        published_split=published,
        split_order=_order(cases, assignment, is_listed) if published else {},
    )


def _add_cases(
    planner: Planner, cases: Sequence[Case], assignment: Assignment, *, split: str
) -> None:
    """Plans an image for each split of a case, and rejects the cases that are in none.

    Args:
      planner: planner of the images.
      cases: cases that the tables name.
      assignment: splits of the cases.
      split: name of the published split, for messages.
    """
    where = assignment.of_position()
    for place, case in enumerate(cases):
        found = where.get(place, ())
        reason, detail = case.problem or (
            ("", "") if found else (NOT_LISTED, f"split {split!r} does not hold it")
        )
        if reason:
            row = {"rows": case.rows, "table": planner.table}
            said = case.placed(detail, table=planner.table)
            planner.reject(Rejection(id=case.id, reason=reason, detail=said, **row))
            continue
        for number, name in enumerate(found):
            planner.add(
                PlannedImage(
                    id=_name_in(case.id, name, found),
                    study=_name_in(case.id, name, found),
                    patient=case.patient,
                    split=schema.SPLITS.index(name),
                    rows=0 if number else case.rows,
                    line=0 if case.table else case.line,
                    data={n: v for n, v in dataclasses.asdict(case).items() if n not in _PLACE},
                )
            )


def _order(
    cases: Sequence[Case], assignment: Assignment, is_listed: Callable[[Case], bool]
) -> dict[str, list[str]]:
    """Returns split -> ids of its records in the order of the published split."""
    where = assignment.of_position()
    return {
        split: [
            _name_in(cases[place].id, split, where[place])
            for place in places
            if is_listed(cases[place])
        ]
        for split, places in assignment.members.items()
    }


def _name_in(name: str, split: str, found: Sequence[str]) -> str:
    """Returns the id of a record; an image in two splits has one for each of them."""
    return name if len(found) == 1 else f"{name}@{split}"


def found_images(
    folder: pathlib.Path, *, suffixes: Sequence[str], flag: str = ""
) -> dict[str, str]:
    """Searches a folder for images, however deep they lie.

    The files whose names macOS begins with "._" are no images and are passed over.

    Args:
      folder: folder of the images.
      suffixes: suffixes of the images, in lower case, e.g. (".dcm",).
      flag: flag that names the folder; with it, two files of one name and different content are
        refused. Without it the first in the order of paths counts.

    Returns:
      Name of each image without its suffix -> path relative to the folder. Of copies the first in
      the order of paths counts, and those in folders that are links come after the others.

    Raises:
      DataError: if two files of one name differ; the message names both.
    """
    found: dict[str, str] = {}
    for root, files in folders.walked(folder):
        for file in files:
            stem, suffix = os.path.splitext(file)
            if suffix.lower() in suffixes and not file.startswith(RESOURCE_FORK):
                path = os.path.relpath(os.path.join(root, file), folder)
                first = found.setdefault(stem, path)
                if flag and first != path and _differ(folder / first, folder / path):
                    raise DataError(
                        f"Two images in {folder} are named {stem}, {first} and {path}, and differ.",
                        "Name the folder that holds those of the data set alone, or move the "
                        "others out of it.",
                        where=flag,
                    )
    return found


def unnamed_notes(files: Mapping[str, str], names: Iterable[str], *, flag: str) -> list[str]:
    """Returns a sentence on the images that no row names, if there are any.

    Args:
      files: name of each image without its suffix -> path, from `found_images`.
      names: ids that the rows have.
      flag: flag that names the folder.
    """
    unnamed = sorted(files.keys() - set(names))
    if not unnamed:
        return []
    return [f"{flag}: no row names {len(unnamed):,} of the images, such as {files[unnamed[0]]}."]


def _differ(one: pathlib.Path, other: pathlib.Path) -> bool:
    return not filecmp.cmp(one, other, shallow=False)


def inputs(
    tables: Sequence[pathlib.Path], *, lists: str, settings: LabelledSettings, flag: str = ""
) -> dict[str, str]:
    """Returns name -> sha256 of the tables, and of the lists of the split if there are any.

    Args:
      tables: paths of the tables.
      lists: value of --split_lists.
      settings: settings of the preparer.
      flag: flag that names the tables or their folder, for messages.

    Raises:
      DataError: if a table is missing, or if two tables have the same name.
    """
    found = preparer.hashes(tables, flag=flag)
    if lists and settings.split != published_splits.SEEDED:
        for path in id_lists.found_lists(lists).values():
            found[f"split_lists/{path.name}"] = cli.sha256_of(path)
    return found
