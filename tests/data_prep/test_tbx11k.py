"""TBX11K's preparer on files in its own layout, whole, odd and damaged."""

import json
import zlib

import numpy as np
import pytest

from data_prep import tbx11k
from data_prep.kit import cli
from prior_jax.errors import DataError
from tests.data_prep import label_sets

TRAIN = {"split_fractions": ("1", "0", "0")}
CATEGORIES = ["ActiveTuberculosis", "ObsoletePulmonaryTuberculosis", "PulmonaryTuberculosis"]
ACTIVE, LATENT, EITHER = CATEGORIES


def coco(paths, boxes):
    """The content of a file of boxes, of pairs (path, category, box)."""
    number = {path: place for place, path in enumerate(paths)}
    names = list(dict.fromkeys([*CATEGORIES, *(category for _, category, _ in boxes)]))
    return {
        "images": [
            {"id": place, "file_name": path, "width": 96, "height": 96}
            for path, place in number.items()
        ],
        "categories": [{"id": place + 1, "name": name} for place, name in enumerate(names)],
        "annotations": [
            {"image_id": number.get(path, -1), "category_id": names.index(name) + 1, "bbox": box}
            for path, name, box in boxes
        ],
    }


def write(folder, *, train, val=("sick/s9000.png",), boxes=(), val_boxes=(), absent=()):
    annotations, lists = folder / "annotations" / "json", folder / "lists"
    annotations.mkdir(parents=True, exist_ok=True)
    lists.mkdir(exist_ok=True)
    (folder / "imgs").mkdir(exist_ok=True)
    for part, paths, found in (("train", train, boxes), ("val", val, val_boxes)):
        (lists / f"TBX11K_{part}.txt").write_text("\n".join(paths) + "\n")
        content = json.dumps(coco(list(dict.fromkeys(paths)), found))
        (annotations / f"TBX11K_{part}.json").write_text(content)
        for path in paths:
            if path and path not in absent:
                label_sets.write_png(folder / "imgs" / path, zlib.crc32(path.encode()))
    return folder


def prepare(folder, *, lists="", **settings):
    return tbx11k.prepare(
        tbx11k.Paths(root=str(folder), split_lists=str(lists)),
        tbx11k.Settings(short_side=48, **settings),
        cli.RunOptions(out=str(folder / "out"), workers=1),
    )


def labels(record):
    return dict(zip(tbx11k.LABELS, record.labels, strict=True))


def test_labels_come_from_folders_and_boxes_and_boxes_are_kept(tmp_path):
    train = ["health/h0001.png", "sick/s0001.png", *(f"tb/tb000{place}.png" for place in range(5))]
    write(
        tmp_path,
        train=train,
        boxes=[
            ("tb/tb0000.png", ACTIVE, [10, 20, 30, 40]),
            ("tb/tb0000.png", ACTIVE, [50.5, 60, 45.5, 36]),
            ("tb/tb0001.png", LATENT, [10, 20, 30, 40]),
            ("tb/tb0002.png", ACTIVE, [10, 20, 30, 40]),
            ("tb/tb0002.png", LATENT, [40, 20, 30, 40]),
            ("tb/tb0003.png", EITHER, [10, 20, 30, 40]),
        ],
    )
    manifest = prepare(tmp_path, **TRAIN)
    found = label_sets.every(tmp_path / "out")
    assert found["h0001"].labels == (0, 0, 0, 0, 1)
    assert found["s0001"].labels == (0, 0, 0, 1, 0)
    kinds = [labels(found[f"tb000{place}"]) for place in range(5)]
    assert all(kind["Tuberculosis"] == 1 and kind["No Finding"] == 0 for kind in kinds)
    expected = [(1, 0), (0, 1), (1, 1), (-1, -1), (-2, -2)]
    assert [
        (kind["Active Tuberculosis"], kind["Latent Tuberculosis"]) for kind in kinds
    ] == expected
    np.testing.assert_allclose(found["tb0000"].region_boxes, [[5, 10, 20, 30], [25.25, 30, 48, 48]])
    assert found["tb0002"].region_labels == ("Active Tuberculosis", "Latent Tuberculosis")
    assert found["tb0003"].region_labels == ("Tuberculosis",)
    assert manifest.tables["rows of the tables"].kept == 8
    assert manifest.tables["boxes of the annotations"].kept == 6
    label_sets.assert_sound(tmp_path / "out")


def test_what_is_odd_is_right_or_refused_by_name_and_counted(tmp_path):
    train = [
        "tb/tb0001.png",
        "imgs/tb/tb0002.png",
        "tb/tb0003.png",
        "tb/tb0004.png",
        "tb/tb0005.png",
        "tb/tb0006.png",
        "tb/tb0007.png",
        "health/h0001.png",
        "extra/da/x1.png",
        "sick/s0001.png",
        "sick/s0001.png",
        "sick/s0002.png",
        "sick/s0003.png",
        "sick/s0004.png",
        "",
    ]
    box = [10, 20, 30, 40]
    write(
        tmp_path,
        train=train,
        boxes=[
            ("tb/tb0001.png", ACTIVE, [80, 80, 30, 30]),
            ("imgs/tb/tb0002.png", ACTIVE, box),
            ("tb/tb0003.png", ACTIVE, [10, 20, 0, 40]),
            ("tb/tb0003.png", ACTIVE, box),
            ("tb/tb0004.png", "Bump", box),
            ("tb/tb0005.png", ACTIVE, [200, 20, 30, 40]),
            ("tb/tb0006.png", ACTIVE, [10, 20, 30]),
            ("tb/tb0007.png", ACTIVE, [10, "wide", 30, 40]),
            ("health/h0001.png", ACTIVE, box),
            ("tb/stranger.png", ACTIVE, box),
        ],
        val=["sick/s0001.png", "sick/s9000.png"],
        absent=("sick/s0002.png", "imgs/tb/tb0002.png"),
    )
    label_sets.write_png(tmp_path / "imgs" / "tb" / "tb0002.png", 2)
    label_sets.truncate(tmp_path / "imgs" / "sick" / "s0003.png")
    (tmp_path / "imgs" / "sick" / "s0004.png").write_text("no image")
    manifest = prepare(tmp_path, **TRAIN)
    counted = manifest.tables["rows of the tables"]
    assert counted.read == 16 and counted.kept == 4
    assert counted.rejected == {
        "box_left_out": 4,
        "box_outside_image": 1,
        "conflicting_labels": 1,
        "duplicate_row": 2,
        "missing_image": 1,
        "truncated_image": 1,
        "undecodable_image": 1,
        "unknown_folder": 1,
    }
    assert manifest.tables["boxes of the annotations"].rejected == {
        "box_of_unknown_image": 1,
        "malformed_box": 4,
        "unknown_label": 1,
    }
    found = label_sets.every(tmp_path / "out")
    assert sorted(found) == ["s0001", "s9000", "tb0001", "tb0002"]
    assert manifest.regions["Active Tuberculosis"].clipped == 1
    label_sets.assert_sound(tmp_path / "out")


def test_the_lists_are_the_official_split_without_a_test(tmp_path):
    write(tmp_path, train=["health/h1.png", "sick/s1.png"], val=["health/h2.png"])
    manifest = prepare(tmp_path, split="official")
    found = label_sets.records(tmp_path / "out")
    assert {split: sorted(records) for split, records in found.items()} == {
        "train": ["h1", "s1"],
        "validate": ["h2"],
    }
    (note,) = (note for note in manifest.notes if "official" in note)
    assert "6,600 / 1,800 / 0" in note


def test_benchx_s_lists_have_names_without_folders(tmp_path):
    write(tmp_path, train=["health/h1.png", "sick/s1.png"], val=["health/h2.png"])
    lists = tmp_path / "own"
    lists.mkdir()
    for name, ids in (("train", "h2\ns1\n"), ("val", "h1\n"), ("test", "tb0099\n")):
        (lists / f"{name}.txt").write_text(ids)
    manifest = prepare(tmp_path, split="benchx", lists=lists)
    assert (tmp_path / "out" / "split_order.train.txt").read_text() == "h2\ns1\n"
    assert manifest.rejected == {"listed_without_row": 1}
    (note,) = (note for note in manifest.notes if "benchx" in note)
    assert "5,879 / 1,260 / 1,260" in note


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"images": 3}', "\udcff", '{"images": [{}]}'])
def test_a_damaged_file_of_boxes_is_refused_by_name(tmp_path, content):
    write(tmp_path, train=["health/h1.png"])
    path = tmp_path / "annotations" / "json" / "TBX11K_train.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"--root: .*TBX11K_train\.json is no list of boxes"):
        prepare(tmp_path)


def test_absent_files_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"--root: .*imgs"):
        prepare(tmp_path)
    write(tmp_path, train=["health/h1.png"])
    (tmp_path / "lists" / "TBX11K_val.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"TBX11K_val\.txt is not UTF-8"):
        prepare(tmp_path)
    (tmp_path / "lists" / "TBX11K_val.txt").unlink()
    with pytest.raises(DataError, match=r"TBX11K_val\.txt"):
        prepare(tmp_path)
