"""NIH ChestX-ray14's tables, boxes, lists and images as people have them: right, or refused."""

import math

import numpy as np
import pytest
from PIL import Image

from data_prep import nih
from data_prep.kit import cli
from prior_jax.errors import ConfigError, DataError
from tests.data_prep import label_sets
from tests.data_prep.odd_files import (
    Odd,
    append,
    both,
    check,
    content,
    damaged,
    edit,
    rows,
    table,
    tables,
    write_image,
)
from tests.data_prep.test_nih import BOX_HEADER, HEADER, row

ONE, TWO, SIX = "00000001_000", "00000002_000", "00000006_000"
EVERYTHING = (ONE, TWO, SIX)
ENTRIES, BOXES = "Data_Entry_2017_v2020.csv", "BBox_List_2017.csv"
IMAGE = f"images_002/images/{TWO}.png"


@pytest.fixture
def root(tmp_path):
    """Three images of 40 pixels a side, whose boxes were drawn on 1,024, and the NIH's lists."""
    base = tmp_path / "nih"
    base.mkdir()
    entries = [row(f"{ONE}.png", "Mass|Effusion"), row(f"{TWO}.png", age="414", sex="F")]
    entries.append(row(f"{SIX}.png", "Infiltration", view="AP"))
    (base / ENTRIES).write_text("\n".join([HEADER, *entries]) + "\n")
    boxes = [
        box(ONE, "Mass", (102.4, 204.8, 307.2, 102.4)),
        box(SIX, "Infiltrate", (0, 0, 512, 256)),
    ]
    (base / BOXES).write_text("\n".join([BOX_HEADER, *boxes]) + "\n")
    (base / "train_val_list.txt").write_text(f"{ONE}.png\n{TWO}.png\n")
    (base / "test_list.txt").write_text(f"{SIX}.png\n")
    for place, name in enumerate(EVERYTHING, 1):
        write_image(base / f"images_00{place}/images/{name}.png", place)
    return base


def box(name, label, sides):
    return f"{name}.png,{label},{','.join(map(str, sides))}"


def prepare(root, *, boxes=BOXES, lists=False, **settings):
    shares = {"split_fractions": ("1", "0", "0")}
    return nih.prepare(
        nih.Paths(
            labels=str(root / ENTRIES),
            boxes=boxes and str(root / boxes),
            images_dir=str(root),
            split_lists=str(root) if lists else "",
        ),
        nih.Settings(**{"short_side": 32, **shares, **settings}),
        cli.RunOptions(out=str(root / "out"), workers=1),
    )


def labels(*found):
    return tuple(int(name in found) for name in nih.LABELS)


def of_one(name, old, new, *, reason="", **fields):
    """A case of a change in the row of the first image, line 2."""
    wrong = {ONE: rf"{reason}.*{ENTRIES}:2: "} if reason else {}

    def change(root):
        header, first, *rest = (root / ENTRIES).read_text().splitlines()
        assert old in first
        changed = "\n".join([header, first.replace(old, new), *rest])
        (root / ENTRIES).write_text(f"{changed}\n")

    return Odd(name, change, rejected=wrong, records={} if reason else {ONE: fields})


def boxed(name, line, *, rejected=(), notes=(), **records):
    """A case of a row behind those of the boxes, which stand in lines 2 and 3."""
    return Odd(
        name,
        append(BOXES, line),
        rejected=dict(rejected),
        notes=notes,
        records={ONE: records} if records else {},
    )


def listed(name, change, **expected):
    settings = {"lists": True, "split": "official", **expected.pop("settings", {})}
    return Odd(name, change, settings=settings, **expected)


def smaller(root):
    """The copies of 224 pixels a side that are passed around."""
    Image.fromarray(label_sets.pixels(3, height=224, width=224)).save(
        root / f"images_001/images/{ONE}.png"
    )


def linked(root):
    """A folder of images that lies on another disk."""
    disk = root.parent / "disk"
    (root / "images_002").rename(disk)
    (root / "images_002").symlink_to(disk)


def oblong(root):
    Image.fromarray(label_sets.pixels(3, height=40, width=60)).save(
        root / f"images_001/images/{ONE}.png"
    )


MASS = f"{ONE}.png,Mass|Effusion,"
WRONG_BOX = {ONE: "box_left_out: .*one of its boxes"}
CASES = [
    *tables(ENTRIES, flag="--labels"),
    *damaged(IMAGE, name=TWO),
    Odd(
        "headers_of_2017",
        edit(ENTRIES, ("Patient Sex", "Patient Gender")),
        records={TWO: {"sex": "F"}},
    ),
    Odd(
        "rows_that_end_before_the_last_comma",
        content(ENTRIES, lambda b: b.replace(b"0.143,\n", b"0.143\n")),
        records={TWO: {"sex": "F"}},
    ),
    Odd(
        "no_column_of_ages",
        edit(ENTRIES, ("Patient Age", "Years")),
        records={ONE: {"age": math.nan}},
        notes=["no column 'Patient Age'"],
    ),
    Odd(
        "no_column_of_labels",
        edit(ENTRIES, ("Finding Labels", "Findings")),
        refused="--labels: .*Finding Labels",
    ),
    Odd(
        "index_of_a_data_frame",
        rows(ENTRIES, lambda line: f"Unnamed: 0,{line}"),
        records={ONE: {"sex": "M"}},
    ),
    of_one("age_of_414", ",58,M,", ",414,M,", age=math.nan),
    of_one("age_of_2017", ",58,M,", ",058Y,M,", age=58.0),
    of_one("age_in_months", ",58,M,", ",006M,M,", age=0.5),
    of_one("age_0", ",58,M,", ",0,M,", age=0.0),
    of_one("age_is_a_word", ",58,M,", ",old,M,", reason="malformed_row"),
    of_one("sex_is_another_word", ",58,M,", ",58,X,", reason="malformed_row"),
    of_one("view_in_small_letters", ",M,PA,", ",M,pa,", views=("PA",)),
    of_one(
        "labels_with_blanks", MASS, f"{ONE}.png,Mass | Effusion,", labels=labels("Mass", "Effusion")
    ),
    of_one("label_twice", MASS, f"{ONE}.png,Mass|Mass,", labels=labels("Mass")),
    of_one(
        "label_with_an_underline",
        MASS,
        f"{ONE}.png,Mass|Pleural_Thickening,",
        labels=labels("Mass", "Pleural Thickening"),
    ),
    of_one("label_of_another_set", MASS, f"{ONE}.png,Mass|Sarcoidosis,", reason="unknown_label"),
    of_one("label_ends_with_a_bar", MASS, f"{ONE}.png,Mass|,", reason="unknown_label"),
    of_one("labels_and_none", MASS, f"{ONE}.png,Mass|No Finding,", reason="conflicting_labels"),
    of_one("labels_blank", MASS, f"{ONE}.png,,", reason="incomplete_row"),
    Odd(
        "row_twice",
        append(ENTRIES, row(f"{ONE}.png", "Mass|Effusion")),
        rejected={f"{ENTRIES}:5": "duplicate_row: it repeats a row of"},
    ),
    Odd(
        "image_twice_with_other_labels",
        append(ENTRIES, row(f"{ONE}.png", "Mass")),
        rejected={ONE: "conflicting_rows: .*2 rows of one image differ"},
    ),
    Odd(
        "image_twice_in_two_spellings",
        append(ENTRIES, row(ONE, "Mass")),
        rejected={ONE: "conflicting_rows: .*2 rows"},
    ),
    Odd(
        "name_blank", append(ENTRIES, row("", "Mass")), rejected={f"{ENTRIES}:5": "incomplete_row"}
    ),
    Odd(
        "names_without_suffix",
        content(ENTRIES, lambda b: b.replace(b".png", b"")),
        records={ONE: {"region_labels": ("Mass",)}},
    ),
    Odd("names_with_folders", content(ENTRIES, lambda b: b.replace(b"\n0000", b"\nimages/0000"))),
    Odd(
        "suffix_in_capitals", lambda root: (root / IMAGE).rename((root / IMAGE).with_suffix(".PNG"))
    ),
    Odd("files_of_macos", lambda root: (root / IMAGE).with_name(f"._{TWO}.png").write_bytes(b"x")),
    Odd("images_in_one_folder", lambda root: (root / IMAGE).rename(root / f"{TWO}.png")),
    Odd("folder_of_images_is_a_link", linked),
    Odd("copies_of_224_pixels", smaller, records={ONE: {"region_boxes": ((3.2, 6.4, 12.8, 9.6),)}}),
    Odd("image_of_other_proportions", oblong, rejected={ONE: "image_of_another_size"}),
    Odd(
        "boxes_with_bom_and_crlf",
        content(BOXES, lambda b: b"\xef\xbb\xbf" + b.replace(b"\n", b"\r\n")),
        records={ONE: {"region_labels": ("Mass",)}},
    ),
    Odd(
        "boxes_saved_by_pandas",
        both(
            rows(BOXES, lambda line: line.removesuffix(",,,") + ",,,"),
            content(BOXES, lambda b: b.replace(b"h],,,", b"h],Unnamed: 6,Unnamed: 7,Unnamed: 8")),
        ),
        records={ONE: {"region_labels": ("Mass",)}},
    ),
    Odd(
        "boxes_with_one_comma_of_three",
        rows(BOXES, lambda line: line.removesuffix(",,") + ","),
        records={ONE: {"region_labels": ("Mass",)}},
    ),
    Odd(
        "boxes_with_a_cell_too_many",
        content(BOXES, lambda b: b.replace(b",102.4\n", b",102.4,,,,\n")),
        rejected={f"{BOXES}:2": "10 cells for 9 columns", ONE: "box_left_out"},
    ),
    Odd(
        "boxes_without_their_commas",
        content(BOXES, lambda b: b.replace(b",,,", b"")),
        records={ONE: {"region_labels": ("Mass",)}},
    ),
    Odd(
        "boxes_with_a_whole_header",
        edit(BOXES, ("Bbox [x,y,w,h]", '"Bbox [x,y,w,h]"')),
        refused=r"--boxes: .*no column 'Bbox \[x'",
    ),
    Odd("boxes_absent", lambda root: (root / BOXES).unlink(), refused="--boxes: .*does not exist"),
    Odd(
        "boxes_without_rows",
        content(BOXES, lambda b: b.split(b"\n")[0] + b"\n"),
        records={ONE: {"region_labels": ()}},
    ),
    Odd(
        "boxes_with_other_names",
        content(BOXES, lambda b: b.replace(b".png", b"")),
        records={ONE: {"region_labels": ("Mass",)}},
    ),
    boxed(
        "box_of_an_image_without_row",
        box("00000099_000", "Mass", (1, 2, 3, 4)),
        rejected={"00000099_000": "box_of_unknown_image: no row of the labels"}.items(),
    ),
    boxed(
        "box_twice",
        box(ONE, "Mass", (102.4, 204.8, 307.2, 102.4)),
        rejected={f"{BOXES}:4": "duplicate_row"}.items(),
        region_labels=("Mass",),
    ),
    boxed(
        "box_twice_in_other_numbers",
        box(ONE, "mass", ("102.40", "2.048e2", 307.2, 102.4)),
        region_labels=("Mass",),
    ),
    boxed("box_without_width", box(ONE, "Mass", (1, 2, 0, 4)), rejected=WRONG_BOX.items()),
    boxed("box_with_a_blank_side", box(ONE, "Mass", (1, 2, "", 4)), rejected=WRONG_BOX.items()),
    boxed("box_with_a_word", box(ONE, "Mass", (1, 2, "wide", 4)), rejected=WRONG_BOX.items()),
    boxed("box_of_infinite_width", box(ONE, "Mass", (1, 2, "inf", 4)), rejected=WRONG_BOX.items()),
    boxed("box_of_another_finding", box(ONE, "Bump", (1, 2, 3, 4)), rejected=WRONG_BOX.items()),
    boxed("box_of_no_finding", box(ONE, "No Finding", (1, 2, 3, 4)), rejected=WRONG_BOX.items()),
    boxed(
        "box_outside_of_the_image",
        box(ONE, "Mass", (1500, 2, 3, 4)),
        rejected={ONE: "box_outside_image"}.items(),
    ),
    boxed(
        "box_over_the_edge",
        box(TWO, "Nodule", (1000, 1000, 200, 200)),
        notes=[rf"1 images, such as {TWO}, have a box of a finding that their labels do not"],
    ),
    listed("official_lists", lambda root: None, settings={"split_fractions": ("0.5", "0.5", "0")}),
    listed(
        "list_with_crlf_and_bom",
        content("test_list.txt", lambda b: b"\xef\xbb\xbf" + b.replace(b"\n", b"\r\n")),
    ),
    listed(
        "list_with_an_image_twice",
        append("test_list.txt", f"{SIX}.png", "", SIX),
        notes=["2 / 0 / 1 images"],
    ),
    listed(
        "list_names_what_is_not_there",
        append("test_list.txt", "00000044_000.png"),
        rejected={"00000044_000.png": "listed_without_row: the list of test"},
    ),
    listed(
        "image_in_two_lists",
        append("test_list.txt", f"{ONE}.png"),
        refused=rf"--split_lists: '{ONE}.png' is in the list of train and in that of test",
    ),
    listed(
        "list_to_test_on_absent",
        lambda root: (root / "test_list.txt").unlink(),
        rejected={SIX: "in_no_split"},
    ),
    listed(
        "list_empty",
        content("test_list.txt", lambda _: b""),
        refused=r"test_list\.txt: It holds no id",
    ),
    listed(
        "two_lists_to_train_on",
        lambda root: (root / "train.txt").write_text("x"),
        refused="two lists for train",
    ),
    listed(
        "lists_of_another_set",
        both(
            *(content(f"{name}_list.txt", lambda b: b"abc\n") for name in ("test",)),
            content("train_val_list.txt", lambda _: b"def\n"),
        ),
        refused="No id of the lists",
    ),
]


@table(CASES)
def test_odd_files(odd, root):
    check(odd, root, prepare, everything=EVERYTHING)


def test_boxes_follow_a_shrunk_copy_or_are_in_pixels_of_the_files(root):
    prepare(root)
    found = label_sets.every(root / "out")
    np.testing.assert_allclose(found[ONE].region_boxes, [[3.2, 6.4, 12.8, 9.6]], rtol=1e-6)
    label_sets.assert_sound(root / "out")
    assert len(CASES) >= 30
    with pytest.raises(ConfigError, match="--boxes_drawn_on"):
        nih.Settings(boxes_drawn_on=-1)


def test_a_shrunk_copy_beside_the_images_is_refused_with_both(root):
    write_image(root / "resized" / f"{TWO}.png", 9)
    with pytest.raises(DataError, match=rf"--images_dir: .*{IMAGE} and resized/{TWO}\.png, and"):
        prepare(root)


def test_an_image_whose_only_box_cannot_be_read_is_left_out(root):
    path = root / BOXES
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], f"{ONE}.png,Mass,1", *lines[2:]]) + "\n")
    rejected = prepare(root).rejected
    assert rejected == {"malformed_row": 1, "box_left_out": 1}
    assert sorted(label_sets.every(root / "out")) == [TWO, SIX]
