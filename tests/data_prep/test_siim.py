"""SIIM-ACR's preparer on files in its own layout, whole, odd and damaged."""

import json

import numpy as np
import pytest

from data_prep import siim
from data_prep.kit import cli
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import regions, schema
from prior_jax.errors import ConfigError, DataError
from tests.data_prep import label_sets

SIZE = label_sets.SIZE


def rectangle(x1, y1, x2, y2):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def write(folder, rows, *, images=(), header="ImageId, EncodedPixels"):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "rle.csv").write_text("\n".join([header, *rows]) + "\n")
    for place, name in enumerate(images):
        path = folder / "images" / f"study{place}" / f"series{place}" / f"{name}.dcm"
        label_sets.write_dicom(path, place, sex="M", age="30", view="AP")
    (folder / "images").mkdir(exist_ok=True)
    return folder


def prepare(folder, lists="", **settings):
    return siim.prepare(
        siim.Paths(
            rle=str(folder / "rle.csv"), images_dir=str(folder / "images"), split_lists=str(lists)
        ),
        siim.Settings(short_side=48, **settings),
        cli.RunOptions(out=str(folder / "out"), workers=1),
    )


def test_masks_are_kept_at_the_size_of_the_stored_image(tmp_path):
    first, second = rectangle(10, 20, 30, 60), rectangle(60, 2, 90, 8)
    rows = [f"a, {label_sets.write_rle(first)}", f"a, {label_sets.write_rle(second)}", "b, -1"]
    write(tmp_path, rows, images=["a", "b"])
    manifest = prepare(tmp_path, split_fractions=("1", "0", "0"))
    found = label_sets.every(tmp_path / "out")
    assert (found["a"].labels, found["b"].labels) == ((1,), (0,))
    assert found["a"].sex == "M" and found["a"].age == 30.0 and found["a"].views == ("AP",)
    masks = [regions.decoded_mask(content) for content in found["a"].region_masks]
    for mask, whole in zip(masks, (first, second), strict=True):
        np.testing.assert_array_equal(mask, whole[::2, ::2])
    assert found["a"].region_boxes == (regions.NO_BOX,) * 2
    assert found["b"].region_masks == ()
    assert manifest.regions == {
        "Pneumothorax": manifest_lib.RegionCounts(regions=2, boxes=0, masks=2, phrases=0)
    }
    rows = manifest.tables["rle.csv"]
    assert (rows.read, rows.kept, rows.images) == (3, 3, 2)
    label_sets.assert_sound(tmp_path / "out")


def test_what_is_odd_is_right_or_refused_by_name_and_counted(tmp_path):
    cells = SIZE * SIZE
    rows = [
        f"good, {label_sets.write_rle(rectangle(0, 0, SIZE, SIZE))}",
        "dot, 100 1",
        f"beyond, {cells - 2} 3",
        "far, 1 99999999999999999999999",
        "uneven, 1 2 3",
        "words, a b",
        "minus, 5 -2",
        "nothing, 0 0",
        "blank,",
        "both, -1",
        "both, 1 2",
        "twice, -1",
        "twice, -1",
        "float, -1.0",
        ", -1",
        "missing, -1",
        "cut, -1",
    ]
    names = [row.split(",")[0] for row in rows]
    images = [name for name in dict.fromkeys(names) if name not in ("", "missing")]
    write(tmp_path, rows, images=images)
    (cut,) = tmp_path.rglob("cut.dcm")
    label_sets.truncate(cut)
    manifest = prepare(tmp_path, split_fractions=("1", "0", "0"))
    assert manifest.tables["rle.csv"].rejected == {
        "duplicate_row": 1,
        "empty_mask": 1,
        "incomplete_row": 1,
        "malformed_annotation": 6,
        "mask_outside_image": 2,
        "missing_image": 1,
        "undecodable_image": 1,
    }
    found = label_sets.every(tmp_path / "out")
    assert sorted(found) == ["dot", "float", "good", "twice"]
    assert regions.decoded_mask(found["dot"].region_masks[0]).sum() == 1
    assert regions.decoded_mask(found["good"].region_masks[0]).all()
    lines = (tmp_path / "out" / schema.REJECTED_NAME).read_text().splitlines()
    listed = {entry["id"]: entry["detail"] for entry in map(json.loads, lines)}
    assert f"{cells + 1}" in listed["beyond"] and f"{cells}" in listed["beyond"]
    label_sets.assert_sound(tmp_path / "out")


def table(count=20):
    """Images of which every fourth has three masks, in rows that lie apart."""
    names = [f"i{place:02d}" for place in range(count)]
    extra = [name for name in names[::4] for _ in range(2)]
    masks = (f"{1 + place * 50} 20" for place in range(3 * count))
    rows = [f"{name}, {next(masks) if name in extra else '-1'}" for name in (*names, *extra)]
    return names, extra, rows


def test_images_are_split_by_default_and_rows_on_demand(tmp_path):
    names, extra, rows = table()
    write(tmp_path / "images_split", rows, images=names)
    manifest = prepare(tmp_path / "images_split", split="gloria")
    order = np.random.RandomState(0).permutation(len(names))
    found = label_sets.records(tmp_path / "images_split" / "out")
    assert set(found["train"]) == {names[row] for row in order[6:]}
    assert not any("stand in two splits" in note for note in manifest.notes)
    label_sets.assert_sound(tmp_path / "images_split" / "out")

    write(tmp_path / "rows_split", rows, images=names)
    manifest = prepare(tmp_path / "rows_split", split="gloria", split_rows=True)
    of_row = [*names, *extra]
    order = np.random.RandomState(0).permutation(len(of_row))
    held = -(-3 * len(of_row) // 10)
    expected = [of_row[row] for row in order[held:]]
    lines = (tmp_path / "rows_split" / "out" / "split_order.train.txt").read_text().split()
    assert [line.partition("@")[0] for line in lines] == expected
    found = label_sets.records(tmp_path / "rows_split" / "out")
    assert {name.partition("@")[0] for name in found["train"]} == set(expected)
    several = {name for records in found.values() for name in records if "@" in name}
    assert several, "the table was made so that some image has rows in two splits"
    # Each split has its own part of an image's masks, and together they are all of them.
    masks = sum(len(r.region_masks) for records in found.values() for r in records.values())
    assert masks == 3 * len(set(extra))
    (note,) = (note for note in manifest.notes if "stand in two splits" in note)
    assert f"{len({name.partition('@')[0] for name in several})} patients" in note
    label_sets.assert_sound(tmp_path / "rows_split" / "out", leaks=True)


def test_an_image_in_two_of_mrms_lists_has_a_record_in_each(tmp_path):
    write(tmp_path, ["a, -1", "b, 1 2", "c, -1"], images="abc")
    lists = {"train": "b\na\n", "val": "c\n", "test": "b\nc\n"}
    for name, text in lists.items():
        (tmp_path / f"{name}_list.txt").write_text(text)
    with pytest.raises(DataError, match="'b' is in the list of train and in that of test"):
        prepare(tmp_path, split="lovt", lists=tmp_path)
    manifest = prepare(tmp_path, split="mrm", lists=tmp_path)
    found = {split: sorted(of) for split, of in label_sets.records(tmp_path / "out").items()}
    assert found == {
        "train": ["a", "b@train"],
        "validate": ["c@validate"],
        "test": ["b@test", "c@test"],
    }
    assert (tmp_path / "out" / "split_order.train.txt").read_text() == "b@train\na\n"
    assert manifest.tables["rle.csv"].kept == 3
    (note,) = (note for note in manifest.notes if "stand in two splits" in note)
    assert "2 patients" in note and "b, c" in note
    label_sets.assert_sound(tmp_path / "out", leaks=True)


def test_both_stages_of_the_table_and_a_wrong_switch(tmp_path):
    write(tmp_path, ["a,-1"], images=["a"], header="ImageId,EncodedPixels")
    assert prepare(tmp_path, split_fractions=("1", "0", "0")).labels["Pneumothorax"].negative == 1
    with pytest.raises(ConfigError, match="--split_rows"):
        siim.Settings(split="lovt", split_rows=True)
