"""RSNA's preparer on files in its own layout, whole, odd and damaged."""

import json
import subprocess
import sys

import numpy as np
import pytest

from data_prep import rsna
from data_prep.kit import cli
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.errors import ConfigError, DataError
from tests.data_prep import label_sets

HEADER = "patientId,x,y,width,height,Target"
BOX = "{name},10,20,30,40,1"


def write(folder, rows, *, images=(), **header):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "labels.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    (folder / "images").mkdir(exist_ok=True)
    for place, name in enumerate(images):
        label_sets.write_dicom(folder / "images" / f"{name}.dcm", place, **header)
    return folder


def prepare(folder, *, lists="", **settings):
    return rsna.prepare(
        rsna.Paths(
            labels=str(folder / "labels.csv"),
            images_dir=str(folder / "images"),
            split_lists=str(lists),
        ),
        rsna.Settings(short_side=48, **settings),
        cli.RunOptions(out=str(folder / "out"), workers=1),
    )


def test_boxes_sex_age_and_view_are_kept(tmp_path):
    write(
        tmp_path,
        [BOX.format(name="a"), "a,50.0,60,46,36,1", "b,,,,,0"],
        images=["a", "b"],
        sex="F",
        age="058Y",
        view="PA",
    )
    manifest = prepare(tmp_path, split_fractions=("1", "0", "0"))
    found = label_sets.every(tmp_path / "out")
    one, two = found["a"], found["b"]
    assert (one.labels, two.labels) == ((1,), (0,))
    assert (one.sex, one.age, one.views, one.subject_id) == ("F", 58.0, ("PA",), "a")
    assert one.region_labels == ("Pneumonia",) * 2 and two.region_boxes == ()
    # The images are half as large as the files.
    np.testing.assert_allclose(one.region_boxes, [[5, 10, 20, 30], [25, 30, 48, 48]])
    rows = manifest.tables["labels.csv"]
    assert (rows.read, rows.kept, rows.images, rows.rejected) == (3, 3, 2, {})
    assert manifest.regions == {
        "Pneumonia": manifest_lib.RegionCounts(regions=2, boxes=2, masks=0, phrases=0)
    }
    assert manifest.labels["Pneumonia"].positive == 1 and manifest.published_split == ""
    label_sets.assert_sound(tmp_path / "out")


def test_what_is_odd_is_right_or_refused_by_name_and_counted(tmp_path):
    names = ["good", "clip", "outside", "cut", "text", "half", "both", "again", "negative"]
    write(
        tmp_path,
        [
            BOX.format(name="good"),
            "clip,80,80,30,30,1",
            "outside,97,10,5,5,1",
            "cut,,,,,0",
            "text,,,,,0",
            "half,10,20,,40,1",
            "both,,,,,0",
            BOX.format(name="both"),
            BOX.format(name="again"),
            BOX.format(name="again"),
            "negative,10,20,-30,40,1",
            BOX.format(name="negative"),
            "zero,10,20,0,40,1",
            "target,,,,,2",
            "blank,,,,,",
            "boxed,10,20,30,40,0",
            ",10,20,30,40,1",
            "missing,,,,,0",
            "short,1,2",
            "left,-3,20,30,40,1",
            "odd,nan,20,30,40,1",
        ],
        images=names,
    )
    label_sets.truncate(tmp_path / "images" / "cut.dcm")
    (tmp_path / "images" / "text.dcm").write_text("no image")
    manifest = prepare(tmp_path, split_fractions=("1", "0", "0"))
    rows = manifest.tables["labels.csv"]
    assert rows.read == 21 and rows.kept == 3
    assert rows.rejected == {
        "box_outside_image": 1,
        "duplicate_row": 1,
        "incomplete_row": 1,
        "malformed_annotation": 11,
        "malformed_row": 1,
        "missing_image": 1,
        "undecodable_image": 2,
    }
    assert sorted(label_sets.every(tmp_path / "out")) == ["again", "clip", "good"]
    assert manifest.regions["Pneumonia"].clipped == 1
    (box,) = label_sets.every(tmp_path / "out")["clip"].region_boxes
    assert box == (40.0, 40.0, 48.0, 48.0)
    lines = (tmp_path / "out" / schema.REJECTED_NAME).read_text().splitlines()
    listed = {found["id"]: found for found in map(json.loads, lines)}
    assert "x 97 to 102" in listed["outside"]["detail"] and "96x96" in listed["outside"]["detail"]
    assert "negative" in listed["negative"]["detail"] and listed["negative"]["rows"] == 2
    label_sets.assert_sound(tmp_path / "out")


def published(tmp_path, count=20, **settings):
    names = [f"p{place:02d}" for place in range(count)]
    write(tmp_path, [f"{name},,,,,0" for name in names[::-1]], images=names)
    return names, prepare(tmp_path, **settings)


def test_gloria_s_split_is_that_of_the_sorted_patients_with_its_order_beside_it(tmp_path):
    names, manifest = published(tmp_path, split="gloria")
    order = np.random.RandomState(0).permutation(20)
    train = [names[row] for row in order[6:]]
    assert set(label_sets.records(tmp_path / "out")["train"]) == set(train)
    assert (tmp_path / "out" / "split_order.train.txt").read_text().split() == train
    assert manifest.published_split == "gloria"
    (note,) = (note for note in manifest.notes if "gloria" in note)
    assert "14 / 3 / 3" in note and "18,678 / 4,003 / 4,003" in note and "26,684" in note
    label_sets.assert_sound(tmp_path / "out")


def test_lists_say_the_split_and_unknown_ids_and_unlisted_rows_are_counted(tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train.csv").write_text("ID,boxes\np03,\np01.dcm,1;2\nstranger,\n")
    (lists / "validation.csv").write_text("ID\np02\n")
    (lists / "test.txt").write_text("images/p00.png 0 1\n\n")
    (lists / "train_10.txt").write_text("p04\n")
    _, manifest = published(tmp_path, 6, split="lovt", lists=lists)
    found = {s: list(r) for s, r in label_sets.records(tmp_path / "out").items()}
    assert {split: sorted(ids) for split, ids in found.items()} == {
        "train": ["p01", "p03"],
        "validate": ["p02"],
        "test": ["p00"],
    }
    assert (tmp_path / "out" / "split_order.train.txt").read_text() == "p03\np01\n"
    assert manifest.rejected == {"in_no_split": 2, "listed_without_row": 1}
    assert set(manifest.inputs) == {
        "labels.csv",
        *(f"split_lists/{name}" for name in ("train.csv", "validation.csv", "test.txt")),
    }
    label_sets.assert_sound(tmp_path / "out")


def test_bad_lists_and_splits_are_refused_by_name(tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    with pytest.raises(ConfigError, match="--split_lists"):
        published(tmp_path, 6, split="lovt", lists=lists)
    (lists / "train.txt").write_text("p00\np01\n")
    (lists / "test.txt").write_text("p01.png\n")
    with pytest.raises(DataError, match=r"p01.png.*train and in that of test"):
        published(tmp_path, 6, split="lovt", lists=lists)
    (lists / "train.txt").write_text("1898_train_0_\n")
    (lists / "test.txt").write_text("1_train_0_\n")
    with pytest.raises(DataError, match=r"1898_train_0_.*p00"):
        published(tmp_path, 6, split="benchx", lists=lists)
    (lists / "train.csv").write_text("ID\np00\n")
    with pytest.raises(ConfigError, match="two lists for train"):
        published(tmp_path, 6, split="mrm", lists=lists)
    with pytest.raises(ConfigError, match="official"):
        published(tmp_path, 6, split="official")
    with pytest.raises(ConfigError, match="--split"):
        rsna.Settings(split="mine")
    with pytest.raises(DataError, match="--split: 10674 images are to be held out of 6"):
        published(tmp_path, 6, split="mgca_detection")
    assert not (tmp_path / "out").exists()


def test_the_program_ends_in_one_line_for_bad_flags(tmp_path):
    command = [sys.executable, "-m", "data_prep.rsna", f"--out={tmp_path}/out"]
    flags = [f"--labels={tmp_path}/none.csv", f"--images_dir={tmp_path}"]
    ended = subprocess.run([*command, *flags], capture_output=True, text=True)
    assert ended.returncode == 2 and len(ended.stderr.splitlines()) == 1
    assert "--labels" in ended.stderr
