"""TBX11K: radiographs with boxes of tuberculosis -> a prepared set.

    python -m data_prep.tbx11k --root=TBX11K --split=official --out=prepared

The folder has imgs/ with the folders health, sick, tb and test, lists/ with the paths of the images
of each split, and annotations/json/ with the boxes in the form of COCO. The labels of the test
images are not given out, so that their list is not read.

The boxes in annotations/json are in pixels of the files, and are read. Those in annotations/xml are
not: by the notes of a public project, not checked against the files, they are in pixels of the
radiographs before they were shrunk to 512x512, which are not given out.

Source: TBX11K, 10.1109/CVPR42600.2020.00272, and its files.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_prep.kit import (
    cli,
    id_lists,
    labelled,
    preparer,
    published_splits,
    split_tables,
    strict_json,
)
from data_prep.kit.image_regions import ImageRegion
from data_prep.kit.outcomes import Rejection
from data_prep.kit.plan import Plan, Reject, RowProblem, TableUse
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.errors import DataError

PROGRAM = "data_prep.tbx11k"
TB, ACTIVE, LATENT = "Tuberculosis", "Active Tuberculosis", "Latent Tuberculosis"
SICK, HEALTHY = "Other Disease", "No Finding"
LABELS = (TB, ACTIVE, LATENT, SICK, HEALTHY)
BOXES = "boxes of the annotations"
_SPLITS = {"train": "train", "validate": "val"}
_OF_FOLDER = {"tb": TB, "sick": SICK, "health": HEALTHY}
# Name of a category -> finding of its boxes; of the third it is not known which of both it is.
_OF_CATEGORY = {
    "ActiveTuberculosis": ACTIVE,
    "ObsoletePulmonaryTuberculosis": LATENT,
    "PulmonaryTuberculosis": TB,
}

Box = tuple[str, float, float, float, float, float, float]
"""Finding, x1, y1, x2, y2 in pixels of the image that the annotations describe, and its height and
width in pixels, 0 where they say none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths(labelled.SplitPaths):
    """Where the raw data lies."""

    root: str = cli.setting("Folder TBX11K, with the folders imgs, lists and annotations.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(labelled.LabelledSettings):
    """What is kept, and how; recorded in the manifest."""

    def __post_init__(self):
        """Refuses invalid values."""
        super().__post_init__()
        self.refuse_encoding()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotations:
    """The content of a file of boxes.

    Attributes:
      rows: path of an image below imgs/ -> the rows of its boxes; "" for those of no image.
      categories: number of a category -> its name.
      sizes: path of an image -> its height and width in pixels, 0 where the file says none.
    """

    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    categories: Mapping[str, str]
    sizes: Mapping[str, tuple[float, float]]


def path_of(text: str) -> str:
    """Returns the path of an image below imgs/: tb/tb0003.png."""
    path = text.strip().replace("\\", "/")
    return path.removeprefix("./").removeprefix("imgs/")


def labels_of(path: str, boxes: Sequence[Box]) -> tuple[int, ...]:
    """Returns the labels of an image from its folder and its boxes.

    Active and latent tuberculosis are known by boxes alone: of an image of tuberculosis without a
    box neither is mentioned, and where a box does not say which of both it is, those that no other
    box is of are uncertain.

    Raises:
      RowProblem: `unknown_folder`, and `conflicting_labels` for a box on an image without
        tuberculosis.
    """
    label = _OF_FOLDER.get(path.partition("/")[0])
    if label is None:
        known = ", ".join(_OF_FOLDER)
        raise RowProblem("unknown_folder", f"{path!r} is in none of the folders {known}")
    found = {LABELS.index(name): int(name == label) for name in (TB, SICK, HEALTHY)}
    names = {box[0] for box in boxes}
    if names and label != TB:
        raise RowProblem("conflicting_labels", f"{path!r} has a box of {sorted(names)[0]}")
    for name in (ACTIVE, LATENT):
        otherwise = schema.LABEL_UNCERTAIN if TB in names else schema.LABEL_NEGATIVE
        if label == TB and not names:
            otherwise = schema.LABEL_NOT_MENTIONED
        found[LABELS.index(name)] = schema.LABEL_POSITIVE if name in names else otherwise
    return tuple(found[place] for place in range(len(LABELS)))


def annotations_of(path: pathlib.Path) -> Annotations:
    """Reads a file in the form of COCO.

    Raises:
      DataError: if the file is no such file; the message names the flag and the file.
    """
    try:
        content = strict_json.loads(path.read_bytes())
        images = _by_number(content["images"], name="file_name")
        categories = _by_number(content["categories"], name="name")
        sizes = {path_of(row["file_name"]): _size(row) for row in content["images"]}
        rows: dict[str, list[Mapping[str, Any]]] = {}
        for row in content["annotations"]:
            rows.setdefault(path_of(images.get(_number(row["image_id"]), "")), []).append(row)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no list of boxes in the form of COCO ({type(error).__name__}: {error}).",
            "Copy annotations/json of the data set again.",
            where="--root",
        ) from error
    return Annotations(rows=rows, categories=categories, sizes=sizes)


def _number(value: Any) -> str:
    """Returns a number by which rows refer to each other, the same for 7, 7.0 and "7"."""
    text = str(value).strip()
    return text.removesuffix(".0") if isinstance(value, float) else text


def _by_number(rows: Sequence[Mapping[str, Any]], *, name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in rows:
        number = _number(row["id"])
        if found.setdefault(number, row[name]) != row[name]:
            raise ValueError(f"{found[number]!r} and {row[name]!r} have the number {number}")
    return found


def _size(row: Mapping[str, Any]) -> tuple[float, float]:
    sides = (row.get("height"), row.get("width"))
    known = all(isinstance(side, int | float) and 0 < side < math.inf for side in sides)
    return (float(sides[0]), float(sides[1])) if known else (0.0, 0.0)


def _box(
    row: Mapping[str, Any], categories: Mapping[str, str], *, size: tuple[float, float]
) -> Box:
    """Returns a box; COCO writes x, y, width and height.

    Raises:
      RowProblem: `unknown_label`, `malformed_box`, and `crowd_box` for a box that COCO's own
        measures pass over, since it is around several findings.
    """
    category = categories.get(_number(row.get("category_id")))
    label = _OF_CATEGORY.get(category or "")
    if label is None:
        said = category if category else f"number {row.get('category_id')!r}"
        raise RowProblem("unknown_label", f"category {said} is none of {', '.join(_OF_CATEGORY)}")
    written = row.get("bbox")
    try:
        x, y, width, height = (float(side) for side in written or ())
    except (TypeError, ValueError):
        x = y = width = height = math.nan
    if not (all(map(math.isfinite, (x, y, width, height))) and width > 0 and height > 0):
        raise RowProblem("malformed_box", f"x, y, width and height of {label} are {written}")
    if row.get("iscrowd"):
        raise RowProblem("crowd_box", f"iscrowd of a box of {label} is {row['iscrowd']}")
    return label, x, y, x + width, y + height, *size


def regions_of(found: Sequence[Sequence[Any]]) -> list[ImageRegion]:
    """Returns the regions of boxes, which follow a file of another size than annotated."""
    boxes = labelled.boxes_of([box[:5] for box in found])
    sizes = [(int(height), int(width)) if height else None for *_, height, width in found]
    return [dataclasses.replace(box, drawn_on=size) for box, size in zip(boxes, sizes, strict=True)]


def _inputs(root: pathlib.Path) -> list[pathlib.Path]:
    """Returns the lists, and the files of boxes; a DataError names the flag if one is absent."""
    lists = [root / "lists" / f"TBX11K_{part}.txt" for part in _SPLITS.values()]
    boxes = [root / "annotations" / "json" / f"TBX11K_{part}.json" for part in _SPLITS.values()]
    return [cli.required_file(path, flag="--root") for path in (*lists, *boxes)]


def prepare(paths: Paths, settings: Settings, options: cli.RunOptions) -> manifest_lib.Manifest:
    """Prepares the set, or goes on with it, or finds it complete; returns its manifest."""
    root = preparer.folder(paths.root, flag="--root")
    preparer.folder(str(root / "imgs"), flag="--root")
    return preparer.prepare_set(
        functools.partial(_plan, paths, settings),
        options,
        program=PROGRAM,
        settings=settings,
        inputs=labelled.inputs(_inputs(root), lists=paths.split_lists, settings=settings),
    )


def _plan(paths: Paths, settings: Settings, directory: pathlib.Path, reject: Reject) -> Plan:
    root = pathlib.Path(paths.root)
    cases: list[labelled.Case] = []
    splits: list[str] = []
    seen: dict[str, str] = {}
    read, boxes_read, boxes_kept = 0, 0, 0
    for split, part in _SPLITS.items():
        listed = list(_paths(root / "lists" / f"TBX11K_{part}.txt"))
        own = [path for _, path in listed]
        found = annotations_of(root / "annotations" / "json" / f"TBX11K_{part}.json")
        boxes, broken = _boxes(found, listed=set(own), reject=reject)
        read += len(own)
        boxes_read += sum(map(len, found.rows.values()))
        boxes_kept += sum(map(len, boxes.values()))
        for line, path in listed:
            place = {"line": line, "table": f"TBX11K_{part}.txt"}
            if path in seen:
                detail = f"{place['table']}:{line}: {seen[path]} names it before"
                left_out = {"rows": 1, "table": split_tables.ROWS}
                reject(Rejection(id=path, reason="duplicate_row", detail=detail, **left_out))
                continue
            seen[path] = f"{place['table']}:{line}"
            case = _case(path, boxes=boxes.get(path, ()), broken=broken.get(path))
            cases.append(dataclasses.replace(case, **place))
            splits.append(split)
    return labelled.labelled_plan(
        cases,
        labelled.assigned(
            cases,
            data_set="tbx11k",
            settings=settings,
            lists=paths.split_lists,
            official=published_splits.Assignment(members=split_tables.members_of(splits)),
        ),
        directory=directory,
        reject=reject,
        images_dir=root / "imgs",
        images_flag="--root",
        settings=settings,
        label_names=LABELS,
        regions_of=regions_of,
        table=TableUse(name=split_tables.ROWS, read=read),
        other_tables=[TableUse(name=BOXES, read=boxes_read, kept=boxes_kept)],
    )


def _paths(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yields line and path of each image of a list."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8: {error}.", "Copy the list again.", where="--root"
        ) from error
    for number, line in enumerate(lines, 1):
        if found := path_of(line):
            yield number, found


def _boxes(
    found: Annotations, *, listed: set[str], reject: Reject
) -> tuple[dict[str, list[Box]], dict[str, RowProblem]]:
    """Returns image -> its boxes, and image -> what is wrong with one of them.

    All boxes of an image with a wrong one are rejected, and so are those of no listed image.
    """
    boxes: dict[str, list[Box]] = {}
    broken: dict[str, RowProblem] = {}
    for name, rows in found.rows.items():
        try:
            if name not in listed:
                said = f"no list names {name!r}" if name else "no image has its number"
                raise RowProblem("box_of_unknown_image", said)
            own = [_box(row, found.categories, size=found.sizes[name]) for row in rows]
            boxes[name] = list(dict.fromkeys(own))
            if repeated := len(own) - len(boxes[name]):
                left_out = {"rows": repeated, "table": BOXES}
                detail = "a box before it is the same"
                reject(Rejection(id=name, reason="duplicate_row", detail=detail, **left_out))
        except RowProblem as problem:
            broken[name] = problem
            left_out = {"rows": len(rows), "table": BOXES}
            reject(Rejection(id=name, reason=problem.reason, detail=problem.detail, **left_out))
    return boxes, broken


def _case(path: str, *, boxes: Sequence[Box], broken: RowProblem | None) -> labelled.Case:
    name = id_lists.plain_id(path)
    place = {"id": name, "path": path, "patient": name}
    try:
        if broken:
            raise RowProblem("box_left_out", f"one of its boxes: {broken.detail}")
        return labelled.Case(**place, labels=labels_of(path, boxes), regions=boxes)
    except RowProblem as problem:
        blank = (schema.LABEL_NOT_MENTIONED,) * len(LABELS)
        return labelled.Case(**place, labels=blank, problem=(problem.reason, problem.detail))


if __name__ == "__main__":
    preparer.run_program(prepare, Paths, Settings)
