"""VinDr-CXR's preparer on files in its own layout, whole, odd and damaged."""

import zlib

import numpy as np
import pytest

from data_prep import vindr
from data_prep.kit import cli
from prior_jax.errors import ConfigError, DataError
from tests.data_prep import label_sets

LABELS = [label for label in vindr.LABELS if label != "Other disease"]
BOX_HEADER = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max"
TRAIN = {"split_fractions": ("1", "0", "0")}


def said(name, reader, *positive):
    """A row of a reader, who sees these findings."""
    positive = positive or ("No finding",)
    cells = [str(int(label in positive)) for label in LABELS]
    return ",".join([name, reader, *cells, str(int("Other diseases" in positive))])


def readers(name, *several):
    return [said(name, f"R{place}", *found) for place, found in enumerate(several)]


def write(folder, labels, *, boxes=(), test=(), test_boxes=(), absent=()):
    folder.mkdir(exist_ok=True, parents=True)
    header = ",".join(["image_id", "rad_id", *LABELS, "Other diseases"])
    tables = {
        "image_labels_train": [header, *labels],
        "annotations_train": [BOX_HEADER, *boxes],
    }
    if test:
        tables["image_labels_test"] = [
            # The consensus has no reader, and another name for its last disease.
            header.replace("rad_id,", "").replace("diseases", "disease"),
            *test,
        ]
        tables["annotations_test"] = [BOX_HEADER.replace("rad_id,", ""), *test_boxes]
    for name, rows in tables.items():
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
    for part, rows in (("train", labels), ("test", test)):
        for name in dict.fromkeys(row.partition(",")[0] for row in rows):
            if name and name not in absent:
                seed = zlib.crc32(name.encode())
                label_sets.write_dicom(folder / part / f"{name}.dicom", seed, sex="F", age="061Y")
    return folder


def prepare(folder, *, lists="", **settings):
    return vindr.prepare(
        vindr.Paths(tables=str(folder), images_dir=str(folder), split_lists=str(lists)),
        vindr.Settings(short_side=48, **settings),
        cli.RunOptions(out=str(folder / "out"), workers=1),
    )


def positive(record):
    return {n for n, value in zip(vindr.LABELS, record.labels, strict=True) if value == 1}


def two_opinions(tmp_path):
    labels = [
        *readers("a", ["Cardiomegaly", "Edema"], ["Cardiomegaly"], ["Cardiomegaly", "COPD"]),
        *readers("b", [], [], ["Atelectasis"]),
        *readers("c", ["Atelectasis"], ["Other diseases"], []),
    ]
    boxes = [
        "a,R0,Cardiomegaly,20,20,60,60",
        "a,R1,Cardiomegaly,22,18,64,60",
        "a,R2,Cardiomegaly,18,22,62,66",
        "a,R0,Edema,70,10,90,30",
        "a,R2,COPD,,,,",
        "b,R0,No finding,,,,",
        "b,R2,Atelectasis,2,2,12,12",
        "c,R0,Atelectasis,4,4,12,12",
    ]
    return write(tmp_path, labels, boxes=boxes)


def test_a_finding_is_positive_for_most_readers_and_its_boxes_are_fused(tmp_path):
    manifest = prepare(two_opinions(tmp_path), **TRAIN)
    found = label_sets.every(tmp_path / "out")
    assert [positive(found[name]) for name in "abc"] == [{"Cardiomegaly"}, {"No finding"}, set()]
    assert found["a"].region_labels == ("Cardiomegaly",)
    np.testing.assert_allclose(found["a"].region_boxes, [[10, 10, 31, 31]])
    assert found["b"].region_labels == ()
    assert (found["a"].sex, found["a"].age) == ("F", 61.0)
    assert manifest.tables["rows of the tables"].kept == 9
    assert manifest.tables["rows of the boxes"].kept == 8
    label_sets.assert_sound(tmp_path / "out")


def test_a_finding_of_any_reader_is_positive_on_demand(tmp_path):
    prepare(two_opinions(tmp_path), label_rule="any", **TRAIN)
    found = label_sets.every(tmp_path / "out")
    assert positive(found["a"]) == {"Cardiomegaly", "Edema", "COPD"}
    assert positive(found["b"]) == {"Atelectasis"}
    assert positive(found["c"]) == {"Atelectasis", "Other disease"}
    assert found["a"].region_labels == ("Cardiomegaly", "Edema")
    np.testing.assert_allclose(found["b"].region_boxes, [[1, 1, 6, 6]])


def test_boxes_are_kept_apart_by_the_limit(tmp_path):
    prepare(two_opinions(tmp_path), fusion_iou=0.95, **TRAIN)
    assert len(label_sets.every(tmp_path / "out")["a"].region_boxes) == 3


def test_what_is_odd_is_right_or_refused_by_name_and_counted(tmp_path):
    sick = ["Edema"]
    good = readers("good", sick, sick, [])
    labels = [
        *good,
        good[0],
        *readers("clip", sick, sick, sick),
        *readers("outside", sick, sick, sick),
        *readers("flat", sick),
        *readers("text", sick),
        *readers("blankbox", sick),
        *readers("other", sick),
        said("twice", "R1", "Edema"),
        said("twice", "R1", "COPD"),
        said("value", "R1", "Edema").replace(",1", ",2"),
        said("unsure", "R1", "Edema").replace(",1", ",-1"),
        said("", "R1", "Edema"),
        "short,R1,0",
        *readers("missing", sick),
        *readers("cut", sick),
        *readers("unread", sick),
        said("holes", "R1", "Edema").replace(",0", ","),
    ]
    boxes = [
        "good,R0,Edema,10,20,30,40",
        "good,R0,Edema,10,20,30,40",
        "clip,R0,edema ,80,80,120,110",
        "outside,R0,Edema,200,80,220,110",
        "flat,R0,Edema,30,20,30,40",
        "text,R0,Edema,ten,20,30,40",
        "blankbox,R0,Edema,,,,",
        "other,R0,Sarcoidosis,10,20,30,40",
        "stranger,R0,Edema,10,20,30,40",
    ]
    write(tmp_path, labels, boxes=boxes, absent=("missing",))
    label_sets.truncate(tmp_path / "train" / "cut.dicom")
    (tmp_path / "train" / "unread.dicom").write_text("no image")
    manifest = prepare(tmp_path, **TRAIN)
    counted = manifest.tables["rows of the tables"]
    assert counted.rejected == {
        "box_left_out": 4,
        "box_outside_image": 3,
        "conflicting_rows": 2,
        "duplicate_row": 1,
        "incomplete_row": 1,
        "malformed_row": 3,
        "missing_image": 1,
        "undecodable_image": 2,
    }
    assert manifest.tables["rows of the boxes"].rejected == {
        "box_of_unknown_image": 1,
        "duplicate_row": 1,
        "malformed_box": 3,
        "unknown_label": 1,
    }
    found = label_sets.every(tmp_path / "out")
    assert sorted(found) == ["clip", "good", "holes"]
    assert manifest.regions["Edema"].clipped == 1
    assert set(found["holes"].labels) == {1, -2}
    label_sets.assert_sound(tmp_path / "out")


def with_test(tmp_path):
    labels = [row for place in range(20) for row in readers(f"i{place:02d}", ["Edema"])]
    test = [said(f"t{place}", "", "Edema").replace(",,", ",", 1) for place in range(3)]
    return write(tmp_path, labels, test=test, test_boxes=["t0,Edema,10,20,30,40"])


def test_the_official_split_is_that_of_the_tables_with_a_part_to_validate_on(tmp_path):
    manifest = prepare(with_test(tmp_path), split="official", split_fractions=("0.5", "0.5", "0"))
    found = label_sets.records(tmp_path / "out")
    assert sorted(found["test"]) == ["t0", "t1", "t2"] and found["test"]["t0"].region_boxes
    assert len(found["train"]) + len(found["validate"]) == 20 and len(found["validate"]) > 3
    assert manifest.published_split == "official"
    label_sets.assert_sound(tmp_path / "out")


def test_benchx_s_lists(tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text("i03\ni01\n")
    (lists / "val.txt").write_text("i02\n")
    (lists / "test.txt").write_text("t1\n")
    manifest = prepare(with_test(tmp_path), split="benchx", lists=lists)
    assert (tmp_path / "out" / "split_order.train.txt").read_text() == "i03\ni01\n"
    (note,) = (note for note in manifest.notes if "benchx" in note)
    assert "12,000 / 3,000 / 3,000" in note


def test_wrong_settings_and_tables_are_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="--label_rule"):
        vindr.Settings(label_rule="most")
    with pytest.raises(ConfigError, match="fusion_iou"):
        vindr.Settings(fusion_iou=0.0)
    with pytest.raises(DataError, match=r"--tables.*image_labels_train\.csv"):
        prepare(tmp_path)
    write(tmp_path, readers("a", []))
    (tmp_path / "annotations_train.csv").write_text("image_id,label\n")
    with pytest.raises(DataError, match=r"--tables.*class_name"):
        prepare(tmp_path)
