"""TBX11K's lists, boxes and images as people have them: right, or refused by name.

The form of the file of boxes is that of the fixture of mlmed/torchxrayvision, pull request 180.
"""

import json

import numpy as np
import pytest
from PIL import Image

from data_prep import tbx11k
from data_prep.kit import cli
from tests.data_prep import label_sets
from tests.data_prep.odd_files import Odd, append, both, check, content, damaged, table
from tests.data_prep.odd_files import write_image as write

ONE, TWO, WELL, OTHER = "tb0001", "tb0002", "h0001", "s0001"
EVERYTHING = (ONE, TWO, WELL, OTHER)
PATHS = ("tb/tb0001.png", "tb/tb0002.png", "health/h0001.png")
TRAIN, VALID, BOXES = (
    "lists/TBX11K_train.txt",
    "lists/TBX11K_val.txt",
    "annotations/json/TBX11K_train.json",
)
ACTIVE, LATENT = "Active Tuberculosis", "Latent Tuberculosis"


def image(number, path):
    return {"id": number, "file_name": path, "width": 512, "height": 512, "license": 1}


def box(number, image_id, category_id, sides, **more):
    place = {"id": number, "image_id": image_id, "category_id": category_id, "bbox": list(sides)}
    return {**place, "iscrowd": 0, "area": 1.0, "width": 512, "height": 512, **more}


def coco(images, boxes):
    names = ("ActiveTuberculosis", "ObsoletePulmonaryTuberculosis", "PulmonaryTuberculosis")
    categories = [
        {"id": place, "name": name, "supercategory": "Tuberculosis"}
        for place, name in enumerate(names, 1)
    ]
    return {"categories": categories, "images": images, "annotations": boxes}


@pytest.fixture
def root(tmp_path):
    """Two images with a box each and two without, of 64 pixels a side instead of 512."""
    base = tmp_path / "TBX11K"
    for folder in ("lists", "annotations/json"):
        (base / folder).mkdir(parents=True)
    for place, path in enumerate((*PATHS, "sick/s0001.png")):
        label = label_sets.pixels(place, height=64, width=64)
        (base / "imgs" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(label).save(base / "imgs" / path)
    (base / TRAIN).write_text("".join(f"{path}\n" for path in PATHS))
    (base / VALID).write_text("sick/s0001.png\n")
    images = [image(number, path) for number, path in enumerate(PATHS, 1)]
    boxes = [box(1, 1, 1, (64, 128, 256, 64)), box(2, 2, 2, (0, 0, 128, 128))]
    (base / BOXES).write_text(json.dumps(coco(images, boxes)))
    other = coco([image(1, "sick/s0001.png")], [])
    (base / BOXES.replace("train", "val")).write_text(json.dumps(other))
    return base


def prepare(root, *, lists="", **settings):
    return tbx11k.prepare(
        tbx11k.Paths(root=str(root), split_lists=lists and str(root / lists)),
        tbx11k.Settings(**{"short_side": 32, "split": "official", **settings}),
        cli.RunOptions(out=str(root / "out"), workers=1),
    )


def of_json(name, change, **expected):
    """A case of a change of the file of boxes, as a dict or as bytes."""

    def write_json(content):
        changed = change(json.loads(content))
        return changed if isinstance(changed, bytes) else json.dumps(changed).encode()

    return Odd(name, content(BOXES, write_json), **expected)


def boxed(name, *sides, reason="", image_id=1, category=1, records=None, **more):
    """A case of a third box, which is wrong if there is a reason."""

    def change(found):
        found["annotations"].append(box(3, image_id, category, sides, **more))
        return found

    wrong = {ONE: rf"box_left_out: TBX11K_train\.txt:1: .*{reason}", PATHS[0]: reason}
    return of_json(name, change, rejected=wrong if reason else {}, records=records or {})


def renamed(name, new):
    """A case in which each value of a key is another one."""

    def change(found):
        for rows in found.values():
            for row in rows:
                for key in name:
                    if key in row:
                        row[key] = new(row[key])
        return found

    return change


def without(key):
    return lambda found: {name: value for name, value in found.items() if name != key}


def spoilt(key, value):
    return lambda found: {**found, key: value(found[key])}


BROKEN = r"--root: .*TBX11K_train\.json is no list of boxes in the form of COCO"
BOXED = {ONE: {"region_labels": (ACTIVE,), "region_boxes": ((4.0, 8.0, 20.0, 12.0),)}}
RAW = {"region_boxes": ((2.0, 4.0, 10.0, 6.0),)}
CASES = [
    *damaged("imgs/health/h0001.png", name=WELL),
    Odd(
        "list_with_bom_and_crlf",
        content(TRAIN, lambda b: b"\xef\xbb\xbf" + b.replace(b"\n", b"\r\n")),
        records=BOXED,
    ),
    Odd(
        "list_with_blank_lines",
        content(TRAIN, lambda b: b"\n" + b.replace(b"\n", b"\n \n")),
        records=BOXED,
    ),
    Odd(
        "list_with_imgs_in_front",
        content(TRAIN, lambda b: b.replace(b"tb/", b"./imgs/tb/")),
        records=BOXED,
    ),
    Odd("list_with_windows_paths", content(TRAIN, lambda b: b.replace(b"/", b"\\")), records=BOXED),
    Odd(
        "list_in_utf16",
        content(TRAIN, lambda b: b.decode().encode("utf-16")),
        refused=r"TBX11K_train\.txt is not UTF-8",
    ),
    Odd(
        "list_absent", lambda root: (root / TRAIN).unlink(), refused=r"--root: .*TBX11K_train\.txt"
    ),
    Odd(
        "lists_empty", both(*(content(path, lambda _: b"") for path in (TRAIN, VALID))), refused="."
    ),
    Odd(
        "image_twice_in_a_list",
        append(TRAIN, PATHS[2]),
        rejected={
            PATHS[2]: r"duplicate_row: TBX11K_train\.txt:4: TBX11K_train\.txt:3 names it before"
        },
    ),
    Odd(
        "image_in_two_lists",
        append(VALID, PATHS[2]),
        rejected={
            PATHS[2]: r"duplicate_row: TBX11K_val\.txt:2: TBX11K_train\.txt:3 names it before"
        },
    ),
    Odd(
        "image_of_another_folder",
        append(TRAIN, "extra/da/x1.png"),
        rejected={"x1": r"unknown_folder: TBX11K_train\.txt:4"},
    ),
    Odd(
        "image_without_a_folder", append(TRAIN, "tb0009.png"), rejected={"tb0009": "unknown_folder"}
    ),
    Odd(
        "labels_behind_the_path",
        append(TRAIN, "sick/s0009.png 1"),
        rejected={"s0009.png 1": "missing_image"},
    ),
    Odd(
        "one_name_in_two_folders",
        both(append(TRAIN, "sick/h0001.png"), lambda root: write(root / "imgs/sick/h0001.png", 9)),
        rejected={WELL: "conflicting_rows"},
    ),
    Odd(
        "files_of_macos",
        lambda root: (root / "imgs/tb/._tb0001.png").write_bytes(b"x"),
        records=BOXED,
    ),
    Odd(
        "folder_within_the_folder",
        lambda root: (root / "imgs").rename(root / "annotations/imgs"),
        refused="--root: .*imgs",
    ),
    of_json("numbers_as_text", renamed(("image_id", "category_id"), str), records=BOXED),
    of_json("numbers_as_fractions", renamed(("image_id", "category_id"), float), records=BOXED),
    of_json(
        "json_with_bom", lambda found: b"\xef\xbb\xbf" + json.dumps(found).encode(), records=BOXED
    ),
    of_json("json_cut", lambda found: json.dumps(found).encode()[:-30], refused=BROKEN),
    of_json("json_empty", lambda _: b"", refused=BROKEN),
    of_json(
        "json_with_a_key_twice",
        lambda found: json.dumps(found).encode()[:-1] + b', "images": []}',
        refused=rf"{BROKEN}.*the key 'images' stands twice",
    ),
    of_json("json_without_boxes", without("annotations"), refused=rf"{BROKEN}.*annotations"),
    of_json("json_without_categories", without("categories"), refused=rf"{BROKEN}.*categories"),
    of_json(
        "json_with_a_box_that_is_none",
        spoilt("annotations", lambda rows: [*rows, None]),
        refused=BROKEN,
    ),
    of_json(
        "one_number_of_two_images",
        spoilt("images", lambda rows: [*rows, image(1, "tb/x.png")]),
        refused=rf"{BROKEN}.*'tb/tb0001.png' and 'tb/x.png' have the number 1",
    ),
    of_json(
        "one_number_of_two_categories",
        spoilt("categories", lambda rows: [*rows, {"id": 1, "name": "tb"}]),
        refused=rf"{BROKEN}.*'ActiveTuberculosis' and 'tb' have the number 1",
    ),
    of_json(
        "no_boxes",
        spoilt("annotations", lambda _: []),
        records={ONE: {"region_boxes": (), "labels": (1, -2, -2, 0, 0)}},
    ),
    of_json(
        "one_category_for_all",
        spoilt(
            "categories",
            lambda _: [  # as detectors are trained
                {"id": number, "name": "tb"} for number in (1, 2, 3)
            ],
        ),
        rejected={
            ONE: "box_left_out",
            TWO: "box_left_out",
            PATHS[0]: "unknown_label",
            PATHS[1]: "unknown_label",
        },
    ),
    of_json(
        "sizes_are_not_said",
        lambda found: {
            **found,
            "images": [{"id": row["id"], "file_name": row["file_name"]} for row in found["images"]],
        },
        rejected={ONE: "box_outside_image"},
    ),
    of_json(
        "boxes_in_pixels_of_the_files",
        lambda found: {
            **found,
            "images": [{**row, "width": 1024, "height": 1024} for row in found["images"]],
        },
        records={ONE: RAW},
    ),
    of_json(
        "sizes_of_other_proportions",
        lambda found: {**found, "images": [{**row, "width": 300} for row in found["images"]]},
        rejected={ONE: "image_of_another_size", TWO: "image_of_another_size"},
    ),
    of_json("no_licence_of_images", renamed(("license",), lambda _: None), records=BOXED),
    boxed(
        "box_over_the_edge", 400, 400, 200, 200, records={ONE: {"region_labels": (ACTIVE, ACTIVE)}}
    ),
    boxed(
        "box_of_another_kind", 0, 0, 64, 64, category=2, records={ONE: {"labels": (1, 1, 1, 0, 0)}}
    ),
    boxed(
        "box_that_says_neither",
        0,
        0,
        64,
        64,
        category=3,
        records={ONE: {"labels": (1, 1, -1, 0, 0)}},
    ),
    boxed("box_without_area", 0, 0, 0, 64, reason="malformed_box|are"),
    boxed("box_of_three_sides", 0, 0, 64, reason="malformed_box|are"),
    boxed("box_with_a_word", 0, 0, "wide", 64, reason="malformed_box|are"),
    boxed("box_with_nan", 0, 0, float("nan"), 64, reason="malformed_box|are"),
    boxed("box_around_a_crowd", 0, 0, 64, 64, iscrowd=1, reason="crowd"),
    boxed("box_of_an_unknown_category", 0, 0, 64, 64, category=9, reason="unknown_label|number 9"),
    of_json(
        "box_of_an_unknown_image",
        spoilt("annotations", lambda rows: [*rows, box(3, 77, 1, (0, 0, 9, 9))]),
        rejected={"": "box_of_unknown_image: no image has its number"},
    ),
    of_json(
        "box_of_an_image_that_is_not_listed",
        lambda found: {
            **found,
            "images": [*found["images"], image(9, "tb/x.png")],
            "annotations": [*found["annotations"], box(3, 9, 1, (0, 0, 9, 9))],
        },
        rejected={"tb/x.png": "box_of_unknown_image: no list names"},
    ),
    of_json(
        "box_of_a_healthy_image",
        spoilt("annotations", lambda rows: [*rows, box(3, 3, 1, (0, 0, 9, 9))]),
        rejected={WELL: r"conflicting_labels: TBX11K_train\.txt:3"},
    ),
]


@table(CASES)
def test_odd_files(odd, root):
    check(odd, root, prepare, everything=EVERYTHING)


def test_a_box_that_stands_twice_is_kept_once(root):
    again = box(3, 1, 1, (64, 128, 256, 64))
    of_json("", spoilt("annotations", lambda rows: [*rows, again])).change(root)
    manifest = prepare(root)
    assert manifest.tables["boxes of the annotations"].rejected == {"duplicate_row": 1}
    found = label_sets.every(root / "out")
    np.testing.assert_allclose(found[ONE].region_boxes, [[4, 8, 20, 12]], rtol=1e-6)
    assert len(CASES) >= 30
    label_sets.assert_sound(root / "out")
