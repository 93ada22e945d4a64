"""Object-CXR: radiographs with outlines of foreign objects -> a prepared set.

    python -m data_prep.object_cxr --tables=object-CXR --images_dir=object-CXR --out=prepared

An annotation is a list of shapes, separated by ";": "0 x1 y1 x2 y2" is a rectangle, "1 x1 y1 x2 y2"
an ellipse within a rectangle, and "2 x y x y ..." a polygon.

Source: the challenge's train.csv and dev.csv; LoVT's release,
src/data/datasets/object_cxr/object_cxr_dataset.py; MGCA's, mgca/preprocess/object_cxr.py; BenchX's,
preprocess/datasets/Object-CXR/preprocess_object_cxr.py.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping, Sequence

from data_prep.kit import (
    cli,
    grouped_rows,
    id_lists,
    labelled,
    preparer,
    published_splits,
    shapes,
    split_tables,
    values,
)
from data_prep.kit.image_regions import ImageRegion
from data_prep.kit.plan import Plan, Reject
from data_prep.kit.tables import TableRow
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.errors import ConfigError, DataError

PROGRAM = "data_prep.object_cxr"
LABELS = ("Foreign Object",)
MALFORMED = "malformed_annotation"
TABLES = {"train": "train.csv", "validate": "dev.csv", "test": "test.csv"}
RECTANGLE, ELLIPSE, POLYGON = 0, 1, 2
SHAPES, LOVT, BENCHX = "shapes", "lovt", "benchx"
GEOMETRIES = (SHAPES, LOVT, BENCHX)
_NAMES = ("image_name", "image_path")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths(labelled.SplitPaths):
    """Where the raw data lies."""

    tables: str = cli.setting("Folder of train.csv, dev.csv and, if it is there, test.csv.")
    images_dir: str = cli.setting("Folder of the .jpg images, also of folders of them.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(labelled.LabelledSettings):
    """What is kept, and how; recorded in the manifest."""

    geometry: str = cli.setting(
        "What boxes and masks are made of the shapes: 'shapes' follows them; 'benchx' fills "
        "ellipses as rectangles; 'lovt' does so too, exchanges width and height of boxes, and x "
        "and y of polygons.",
        default=SHAPES,
    )

    def __post_init__(self):
        """Refuses invalid values."""
        super().__post_init__()
        if self.geometry not in GEOMETRIES:
            raise ConfigError.of_value(
                "--geometry", self.geometry, f"one of {', '.join(GEOMETRIES)}"
            )


def shapes_of(annotation: str) -> list[list[float]]:
    """Returns the shapes of an annotation: [0 or 1, x1, y1, x2, y2] or [2, x, y, x, y, ...].

    Raises:
      DataError: if a part of the text is no such shape, or repeats another; the message has the
        part.
    """
    parts = [part.strip() for part in annotation.strip().rstrip(";").split(";")]
    found = [_shape(part) for part in parts] if annotation.strip() else []
    outlines = [_outline(shape) for shape in found]
    for place, outline in enumerate(outlines):
        if outline in outlines[:place]:
            raise DataError(
                f"The shape {parts[place][:60]!r} stands twice.",
                "Leave one of them out: two shapes are two objects.",
            )
    return found


def _shape(text: str) -> list[float]:
    kind, *numbers = map(values.number_of, text.split() or ["nan"])
    right = {RECTANGLE: len(numbers) == 4, ELLIPSE: len(numbers) == 4}
    right[POLYGON] = len(numbers) >= 6 and len(numbers) % 2 == 0
    if not right.get(int(kind) if kind in right else -1) or not all(map(math.isfinite, numbers)):
        raise DataError(
            f"A shape is {text[:60]!r}.",
            "Write a rectangle as 0 and an ellipse as 1 with x1 y1 x2 y2, and a polygon as 2 with "
            "x and y of three corners or more.",
        )
    return [int(kind), *numbers]


def _outline(shape: Sequence[float]) -> tuple[int, object]:
    """Returns the kind of a shape and what is the same in whichever order its corners stand."""
    if shape[0] != POLYGON:
        return int(shape[0]), box_of(shape)
    corners = list(zip(shape[1::2], shape[2::2], strict=True))
    lines = zip(corners, [*corners[1:], corners[0]], strict=True)
    return POLYGON, frozenset(frozenset(line) for line in lines if line[0] != line[1])


def box_of(shape: Sequence[float]) -> schema.Box:
    """Returns x1, y1, x2, y2 of the smallest box around a shape, in pixels.

    MGCA's release centres the box of a polygon on a point inside of it, so that it is larger than
    the polygon (quirk M14).
    """
    x, y = shape[1::2], shape[2::2]
    return min(x), min(y), max(x), max(y)


def regions_of(found: Sequence[Sequence[float]], *, geometry: str = SHAPES) -> list[ImageRegion]:
    """Returns a region for each shape.

    Args:
      found: shapes, as `shapes_of` returns them.
      geometry: "shapes": a rectangle has a box, the other shapes a box and a mask. "benchx": the
        mask of an ellipse is its rectangle (quirk B28). "lovt": as "benchx", and each box has the
        height of the shape for its width and the width for its height, and the mask of a polygon
        has x and y exchanged (quirk L13); the rectangle then has its own mask, as LoVT writes it.
    """
    return [_region(shape, geometry) for shape in found]


def _region(shape: Sequence[float], geometry: str) -> ImageRegion:
    kind, box = int(shape[0]), box_of(shape)
    points = list(zip(shape[1::2], shape[2::2], strict=True))
    if geometry == LOVT:
        points = [(y, x) for x, y in points]
    if kind == POLYGON:
        mask = functools.partial(shapes.polygon_mask, points)
    elif kind == ELLIPSE and geometry == SHAPES:
        mask = functools.partial(shapes.ellipse_mask, box)
    else:
        mask = functools.partial(shapes.rectangle_mask, box)
    if geometry == LOVT:
        x1, y1, x2, y2 = box
        box = (x1, y1, x1 + (y2 - y1), y1 + (x2 - x1))
    elif kind == RECTANGLE:
        mask = None
    x1, y1, x2, y2 = box
    with_area = x1 < x2 and y1 < y2  # a box without area is refused before its mask is drawn
    return ImageRegion(label=LABELS[0], box=box, mask=mask if with_area else None)


def found_tables(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns split -> path of each table of the folder.

    Raises:
      DataError: if there is no train.csv, naming the flag.
    """
    cli.required_file(folder / TABLES["train"], flag="--tables")
    paths = {split: folder / name for split, name in TABLES.items()}
    return {split: path for split, path in paths.items() if path.is_file()}


def prepare(paths: Paths, settings: Settings, options: cli.RunOptions) -> manifest_lib.Manifest:
    """Prepares the set, or goes on with it, or finds it complete; returns its manifest."""
    tables = found_tables(preparer.folder(paths.tables, flag="--tables"))
    preparer.folder(paths.images_dir, flag="--images_dir")
    return preparer.prepare_set(
        functools.partial(_plan, paths, settings),
        options,
        program=PROGRAM,
        settings=settings,
        inputs=labelled.inputs(list(tables.values()), lists=paths.split_lists, settings=settings),
    )


def _plan(paths: Paths, settings: Settings, directory: pathlib.Path, reject: Reject) -> Plan:
    tables, columns = {}, {}
    for split, path in found_tables(pathlib.Path(paths.tables)).items():
        opened = settings.table(path, flag="--tables", key=_NAMES[0], single_lines=True)
        # The table of the test images names them by their paths.
        columns[split] = next((name for name in _NAMES if name in opened.names), _NAMES[0])
        tables[split] = settings.table(path, flag="--tables", key=columns[split], single_lines=True)
        tables[split].require([("--tables", columns[split]), ("--tables", "annotation")])
    found = split_tables.grouped(tables, columns=columns, reject=reject, named=id_lists.plain_id)
    images_dir = pathlib.Path(paths.images_dir)
    files = labelled.found_images(
        images_dir, suffixes=(".jpg", ".jpeg", ".png"), flag="--images_dir"
    )
    cases = [_case(name, rows, files, found=found) for name, rows in found.rows.items()]
    splits = list(found.splits.values())
    return labelled.labelled_plan(
        cases,
        _assigned(cases, splits, paths=paths, settings=settings),
        directory=directory,
        reject=reject,
        images_dir=images_dir,
        settings=settings,
        label_names=LABELS,
        table=found.use,
        regions_of=functools.partial(regions_of, geometry=settings.geometry),
        notes=labelled.unnamed_notes(files, [case.id for case in cases], flag="--images_dir"),
    )


def _case(
    name: str,
    rows: Sequence[TableRow],
    files: Mapping[str, str],
    *,
    found: split_tables.SplitRows,
) -> labelled.Case:
    place = {"id": name, "path": files.get(name, f"{name}.jpg"), "patient": name}
    place["rows"] = len(rows)
    try:
        if len(rows) > 1:
            detail = found.placed(name, f"{len(rows)} rows of one image differ")
            return labelled.Case(**place, labels=(0,), problem=("conflicting_rows", detail))
        own = shapes_of(values.text_of(rows[0].cells["annotation"], field="annotation"))
        return labelled.Case(
            **place,
            labels=(int(bool(own)),),
            regions=own,
            problem=grouped_rows.problem_of(rows),
        )
    except (DataError, values.CellProblem) as problem:
        said = found.placed(name, str(problem))
        return labelled.Case(**place, labels=(0,), problem=(MALFORMED, said))


def _assigned(
    cases: Sequence[labelled.Case],
    splits: Sequence[str],
    *,
    paths: Paths,
    settings: Settings,
) -> published_splits.Assignment:
    """Assigns the cases; MGCA divides train.csv, and tests on dev.csv."""
    if settings.split != "mgca":
        return labelled.assigned(
            cases,
            data_set="object_cxr",
            settings=settings,
            lists=paths.split_lists,
            official=published_splits.Assignment(members=split_tables.members_of(splits)),
        )
    published = published_splits.PUBLISHED["object_cxr"]["mgca"]
    of_table = split_tables.members_of(splits)
    members = split_tables.of_part(published, of_table["train"])
    members["test"] = of_table["validate"]
    assignment = published_splits.Assignment(members=members)
    return labelled.described(assignment, cases, settings=settings, published=published)


if __name__ == "__main__":
    preparer.run_program(prepare, Paths, Settings)
