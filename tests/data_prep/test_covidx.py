"""COVIDx's preparer on files in its own layout, whole, odd and damaged."""

import zlib

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from data_prep import covidx
from data_prep.kit import cli, published_splits
from prior_jax.errors import ConfigError, DataError
from tests.data_prep import label_sets

TRAIN = {"split_fractions": ("1", "0", "0")}
FOLDERS = {"train": "train", "validation": "val", "test": "test"}


def write(folder, *, absent=(), **lists):
    """Lists by their names, and an image for each line."""
    folder.mkdir(exist_ok=True, parents=True)
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
        for line in lines:
            file = " ".join(line.split(" ")[1:-2])
            if file and file not in absent:
                part = FOLDERS[name]
                seed = zlib.crc32(f"{part}/{file}".encode())
                label_sets.write_png(folder / "images" / part / file, seed)
    (folder / "images").mkdir(exist_ok=True)
    return folder


def prepare(folder, *, validation="", **settings):
    return covidx.prepare(
        covidx.Paths(
            train_list=str(folder / "train.txt"),
            test_list=str(folder / "test.txt"),
            validation_list=str(folder / validation) if validation else "",
            images_dir=str(folder / "images"),
        ),
        covidx.Settings(short_side=48, **settings),
        cli.RunOptions(out=str(folder / "out"), workers=1),
    )


def test_three_classes_and_the_word_that_a_list_has_by_mistake(tmp_path):
    write(
        tmp_path,
        train=["3 a.png COVID-19 cohen", "3 b.png normal rsna", "7 c.png pneumonia rsna"],
        test=["COVID-1 COVID(1).png positive sirm"],
    )
    manifest = prepare(tmp_path, **TRAIN)
    found = label_sets.every(tmp_path / "out")
    assert {name: record.labels for name, record in found.items()} == {
        "train/a.png": (0, 0, 1),
        "train/b.png": (1, 0, 0),
        "train/c.png": (0, 1, 0),
        "test/COVID(1).png": (0, 0, 1),
    }
    assert found["train/a.png"].subject_id == found["train/b.png"].subject_id == "3"
    assert list(manifest.labels) == ["Normal", "Pneumonia", "COVID-19"]
    assert manifest.tables["rows of the tables"].kept == 4
    label_sets.assert_sound(tmp_path / "out")


def binary(tmp_path):
    return write(
        tmp_path,
        train=[f"p{place} x{place}.png positive ricord" for place in range(6)]
        + ["q CR.png negative bimcv"],
        validation=["r CR.png negative bimcv", "r y.png positive bimcv"],
        test=["p0 z.png negative bimcv", "s w.png positive ricord"],
    )


def test_cxr_4_has_two_classes_and_three_lists_whose_files_share_names(tmp_path):
    manifest = prepare(
        binary(tmp_path), validation="validation.txt", classes="binary", split="official"
    )
    found = label_sets.records(tmp_path / "out")
    assert {split: len(records) for split, records in found.items()} == {
        "train": 7,
        "validate": 2,
        "test": 2,
    }
    assert found["train"]["train/CR.png"].images != found["validate"]["val/CR.png"].images
    assert found["train"]["train/CR.png"].labels == (0,)
    assert found["train"]["train/x1.png"].labels == (1,)
    sizes, leaks = manifest.notes[-2:]
    assert "7 / 2 / 2" in sizes and "67,863 / 8,473 / 8,482" in sizes
    assert "1 patients stand in two splits" in leaks and "p0" in leaks
    label_sets.assert_sound(tmp_path / "out", leaks=True)


def test_benchx_loses_the_first_image_of_each_list(tmp_path):
    # Up to the first dot two of the names are one, which is all that BenchX keeps of them.
    write(
        tmp_path,
        train=["c lost.png negative x", "a CR.1.2.png positive x", "b CR.1.3.png negative x"],
        validation=["d CR.png negative x", "e CR.4.png negative x"],
        test=["f two.png positive x", "g three.jpg positive x"],
    )
    settings = {"classes": "binary", "split": "benchx", "validation": "validation.txt"}
    manifest = prepare(tmp_path, **settings)
    found = label_sets.records(tmp_path / "out")
    assert {split: sorted(records) for split, records in found.items()} == {
        "train": ["train/CR.1.2.png", "train/CR.1.3.png"],
        "validate": ["val/CR.4.png"],
        "test": ["test/three.jpg"],
    }
    assert manifest.rejected == {"in_no_split": 3}
    (note,) = (note for note in manifest.notes if "benchx" in note)
    assert "2 / 1 / 1" in note and "67,862 / 8,472 / 8,481" in note
    label_sets.assert_sound(tmp_path / "out")


def test_the_sizes_of_benchx_are_those_of_cxr_4_less_one_image_of_each_list():
    sizes = published_splits.PUBLISHED["covidx"]["benchx"].sizes
    assert sizes == tuple(size - 1 for size in covidx.CXR4_SIZES)
    assert sum(covidx.CXR4_SIZES) == 84_818  # as arXiv:2311.17677 counts


def test_mgca_divides_the_list_for_training_as_scikit_learn_does(tmp_path):
    train = [f"p{place} x{place:02d}.png normal rsna" for place in range(23)]
    train[7] = "p7 x07.png pox rsna"  # is left out, and keeps its place in the draw
    write(tmp_path, train=train, test=["t t.png normal rsna"])
    prepare(tmp_path, split="mgca")
    names = [f"train/x{place:02d}.png" for place in range(23)]
    expected, held = train_test_split(names, train_size=0.8, random_state=0)
    found = label_sets.records(tmp_path / "out")
    assert set(found["train"]) == set(expected) - {names[7]}
    assert set(found["validate"]) == set(held) - {names[7]}
    assert list(found["test"]) == ["test/t.png"]


def test_without_a_list_to_validate_on_a_part_of_the_patients_is_drawn(tmp_path):
    train = [f"p{place // 2} x{place:02d}.png normal rsna" for place in range(40)]
    write(tmp_path, train=train, test=["t t.png normal rsna"])
    prepare(tmp_path, split="official", split_fractions=("0.5", "0.5", "0"))
    found = label_sets.records(tmp_path / "out")
    patients = [{r.subject_id for r in found[split].values()} for split in ("train", "validate")]
    assert not patients[0] & patients[1] and min(map(len, patients)) >= 4
    assert list(found["test"]) == ["test/t.png"]


def test_what_is_odd_is_right_or_refused_by_name_and_counted(tmp_path):
    train = [
        "1 good.png normal rsna",
        "1 good.png normal rsna",
        "2 a name with  blanks.png COVID-19 sirm",
        "3 capitals.PNG Normal rsna",
        "4 pneumonia rsna",
        "5 unknown.png tuberculosis rsna",
        "6 negative.png negative rsna",
        "7 missing.png normal rsna",
        "8 cut.png normal rsna",
        "9 text.png normal rsna",
        "10 zero.png normal rsna",
        "11 tiny.png normal rsna",
        "12 picture.jpg normal rsna",
        "only",
        "",
        "   ",
    ]
    write(tmp_path, train=train, test=["13 good.png normal rsna"], absent=("missing.png",))
    images = tmp_path / "images" / "train"
    label_sets.truncate(images / "cut.png")
    (images / "text.png").write_text("no image")
    (images / "zero.png").write_bytes(b"")
    label_sets.write_png(images / "tiny.png", height=5, width=5)
    label_sets.write_png(images / "picture.png", 77)  # beside picture.jpg, which is named
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "train.txt").read_bytes())
    manifest = prepare(tmp_path, **TRAIN)
    counted = manifest.tables["rows of the tables"]
    assert counted.read == 15 and counted.kept == 5
    assert counted.rejected == {
        "absurd_image_size": 1,
        "duplicate_row": 1,
        "malformed_row": 2,
        "missing_image": 1,
        "truncated_image": 1,
        "undecodable_image": 1,
        "unknown_label": 2,
        "zero_byte_image": 1,
    }
    found = label_sets.every(tmp_path / "out")
    assert sorted(found) == [
        "test/good.png",
        "train/a name with  blanks.png",
        "train/capitals.PNG",
        "train/good.png",
        "train/picture.jpg",
    ]
    assert found["train/a name with  blanks.png"].labels == (0, 0, 1)
    label_sets.assert_sound(tmp_path / "out")


def test_images_of_all_splits_may_lie_in_one_folder(tmp_path):
    write(tmp_path, train=["1 a.png normal x"], test=["2 b.png normal x"])
    for part in ("train", "test"):
        for path in (tmp_path / "images" / part).iterdir():
            path.rename(tmp_path / "images" / path.name)
        (tmp_path / "images" / part).rmdir()
    prepare(tmp_path, **TRAIN)
    assert sorted(label_sets.every(tmp_path / "out")) == ["test/b.png", "train/a.png"]


def test_wrong_settings_and_lists_are_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="--classes"):
        covidx.Settings(classes="4")
    with pytest.raises(DataError, match="--train_list"):
        prepare(tmp_path)
    write(tmp_path, train=["1 a.png normal x"], test=["2 b.png normal x"])
    with pytest.raises(ConfigError, match=r"--split.*mgca"):
        prepare(tmp_path, split="lovt")
    with pytest.raises(DataError, match=r"negative.*--classes|--classes.*"):
        prepare(tmp_path, classes="binary")
    (tmp_path / "train.txt").write_bytes(np.arange(256, dtype=np.uint8).tobytes())
    with pytest.raises(DataError, match=r"--train_list: .*not UTF-8"):
        prepare(tmp_path)
