"""The phantom in other data sets' layouts, through their preparers: its own labels come back."""

import io
import json

import numpy as np
import pydicom
import pytest
from PIL import Image

from data_prep import chexpert, drawn_regions, nih, rsna, siim
from data_prep.kit import cli, rle
from data_prep.phantom import dicom_file, hospital, layouts, objects, studies
from prior_jax.data import regions, schema
from prior_jax.errors import DataError
from tests.data_prep import label_sets
from tests.data_prep.test_phantom import lines, settings, tree

SIZE, SHORT = 96, 48
SHARES = {"train": 0.5, "validate": 0.25, "test": 0.25}


def settings_of(layout):
    # Objects are small, and are drawn larger so that their masks can be compared.
    size = 2 * SIZE if layout == "object_cxr" else SIZE
    return settings(studies=40, seed=5, size=size, layout=layout, **SHARES)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """Draws a phantom in a layout, once."""
    drawn = {}

    def draw(layout):
        if layout not in drawn:
            out = tmp_path_factory.mktemp("phantom") / layout
            drawn[layout] = out, hospital.draw_phantom(out, settings_of(layout), workers=1)
        return drawn[layout]

    return draw


def truth_of(out, *, key):
    """Key of an image -> its line of the phantom's own findings."""
    return {key(line["path"]): line for line in lines(out / "phantom" / "findings.jsonl")}


def stem(path):
    return path.rpartition("/")[2].rpartition(".")[0]


def masks_of(out, line, *labels):
    """The masks of an image's findings of some labels, those without a pixel left out."""
    found = drawn_regions.read_regions(out / line["mask"])
    wanted = [found[one["bit"]] for one in line["findings"] if one["label"] in labels]
    return [mask for mask in wanted if mask.any()]


def run(module, paths, out, **chosen):
    module.prepare(
        module.Paths(**{name: str(path) for name, path in paths.items()}),
        module.Settings(**{"short_side": SHORT, **chosen}),
        cli.RunOptions(out=str(out), workers=1),
    )
    label_sets.assert_sound(out)
    return label_sets.records(out)


def shrunk(mask, size):
    """A mask made smaller by Pillow, more than half of a pixel covered."""
    image = Image.fromarray(np.asarray(mask, np.uint8) * 255).resize(size, Image.Resampling.BOX)
    return np.asarray(image) >= 128


def scale_of(record, line):
    """How much smaller the stored image is, for x1, y1, x2 and y2."""
    with Image.open(io.BytesIO(record.images[0])) as image:
        width, height = image.size
    assert min(width, height) in (SHORT, SIZE)
    return np.array([width / line["columns"], height / line["rows"]] * 2)


def assert_boxes(record, line, expected):
    """The boxes of a record are those of masks, in pixels of its image."""
    scale = scale_of(record, line)
    boxes = np.array([regions.box_of_mask(mask) for mask in expected]).reshape(-1, 4)
    found = np.array(record.region_boxes).reshape(-1, 4)
    assert len(found) == len(boxes)
    np.testing.assert_allclose(found, boxes * scale, atol=1e-3)


def test_chexpert(phantom, tmp_path):
    out, counts = phantom("chexpert")
    found = run(chexpert, {"root": out}, tmp_path / "set", split="official", lateral=True)
    truth = truth_of(out, key=lambda path: path.rpartition(".")[0])
    told = {line["study_id"]: line for line in lines(out / "phantom" / "studies.jsonl")}
    assert sum(map(len, found.values())) == counts["images"] == len(truth)
    for split, records in found.items():
        for name, record in records.items():
            line = truth[name]
            assert told[line["study_id"]]["split"] == split
            labels = dict(zip(chexpert.LABELS, record.labels, strict=True))
            kinds = {one["label"] for one in line["findings"]}
            sure = {one["label"] for one in line["findings"] if not one["hedged"]}
            for kind in layouts.cases.KINDS:
                assert labels[kind] == (1 if kind in sure else -1 if kind in kinds else 0)
            assert (labels["No Finding"] == schema.LABEL_POSITIVE) == (not kinds)
            assert (labels["Support Devices"] == 1) == bool(told[line["study_id"]]["devices"])
            lateral = line["view"] in ("LATERAL", "LL")
            assert record.views == (("LATERAL",) if lateral else (line["view"],))
            assert record.sex in "FM" and 20 <= record.age < 92
    assert {view for line in truth.values() for view in [line["view"]]} >= {"PA", "LATERAL"}


def test_rsna(phantom, tmp_path):
    out, counts = phantom("rsna")
    paths = {
        "labels": out / "stage_2_train_labels.csv",
        "images_dir": out / "stage_2_train_images",
    }
    found = run(rsna, paths, tmp_path / "set")
    truth = truth_of(out, key=stem)
    every = {name: record for records in found.values() for name, record in records.items()}
    assert every.keys() == truth.keys() and len(every) == counts["subjects"]
    for name, record in every.items():
        masks = masks_of(out, truth[name], "Consolidation")
        assert record.labels == (int(bool(masks)),)
        assert_boxes(record, truth[name], masks)
        assert record.views == (truth[name]["view"],) and record.sex and record.age >= 20
    assert any(record.region_boxes for record in every.values())


def test_siim(phantom, tmp_path):
    out, _ = phantom("siim")
    paths = {"rle": out / "train-rle.csv", "images_dir": out / "dicom-images-train"}
    found = run(siim, paths, tmp_path / "set")
    truth = truth_of(out, key=stem)
    every = {name: record for records in found.values() for name, record in records.items()}
    assert every.keys() == truth.keys()
    seen = 0
    for name, record in every.items():
        masks = masks_of(out, truth[name], "Pneumothorax")
        assert record.labels == (int(bool(masks)),) and len(record.region_masks) == len(masks)
        for content, mask in zip(record.region_masks, masks, strict=True):
            stored = regions.decoded_mask(content)
            expected = shrunk(mask, stored.shape[::-1])
            overlap = (stored & expected).sum() / (stored | expected).sum()
            assert overlap > 0.8 or abs(int(stored.sum()) - int(expected.sum())) <= 8
            seen += 1
    assert seen, "no image has a pneumothorax; draw more studies"
    assert (out / "train-rle.csv").read_text().startswith("ImageId, EncodedPixels\n")


def test_nih(phantom, tmp_path):
    out, counts = phantom("nih")
    paths = {
        "labels": out / "Data_Entry_2017_v2020.csv",
        "boxes": out / "BBox_List_2017.csv",
        "images_dir": out,
        "split_lists": out,
    }
    found = run(nih, paths, tmp_path / "set", split="official", boxes_drawn_on=0)
    truth = truth_of(out, key=stem)
    told = {line["study_id"]: line["split"] for line in lines(out / "phantom" / "studies.jsonl")}
    assert sum(map(len, found.values())) == counts["images"] == len(truth)
    boxed = 0
    for split, records in found.items():
        for name, record in records.items():
            line = truth[name]
            assert (told[line["study_id"]] == "test") == (split == "test")
            names = {nih_name(one) for one in line["findings"]} or {"No Finding"}
            positive = {n for n, v in zip(nih.LABELS, record.labels, strict=True) if v == 1}
            assert positive == names and set(record.labels) == {0, 1}
            masks = drawn_regions.read_regions(out / line["mask"])
            boxes = [
                (nih_name(one), masks[one["bit"]])
                for one in line["findings"]
                if nih_name(one) not in ("Consolidation", "Edema") and one["box"]
            ]
            assert list(record.region_labels) == [name for name, _ in boxes]
            assert_boxes(record, line, [mask for _, mask in boxes])
            boxed += len(boxes)
    assert boxed


def nih_name(one):
    if one["label"] == "Lung Lesion":
        return "Mass" if one["form"] == "mass" else "Nodule"
    return {"Pleural Effusion": "Effusion"}.get(one["label"], one["label"])


def test_object_cxr_s_annotations_are_the_shapes_on_the_images(phantom):
    out, counts = phantom("object_cxr")
    truth = truth_of(out, key=lambda path: path)
    shapes = set()
    for split in ("train", "dev"):
        header, *rows = (out / f"{split}.csv").read_text().splitlines()
        assert header == "image_name,annotation" and rows
        for row in rows:
            name, _, annotation = row.partition(",")
            line = truth[f"{split}/{name}"]
            shown = line.get("objects", [])
            assert len(shown) == len([part for part in annotation.split(";") if part])
            with Image.open(out / split / name) as image:
                pixels = np.asarray(image)
            assert pixels.shape == (line["rows"], line["columns"])
            for one, part in zip(shown, filter(None, annotation.split(";")), strict=True):
                shape, *numbers = map(int, part.split())
                points = tuple(zip(numbers[::2], numbers[1::2], strict=True))
                assert shape == one["shape"] and [list(p) for p in points] == one["points"]
                mask = objects.ForeignObject(shape=shape, points=points).mask(*pixels.shape)
                assert studies.box_of(mask) == one["box"]
                assert pixels[mask].mean() > 225, "an object is as bright as metal"
                shapes.add(shape)
    assert shapes == {objects.RECTANGLE, objects.ELLIPSE, objects.POLYGON}
    assert counts["images"] == counts["subjects"]


def test_object_cxr(phantom, tmp_path):
    object_cxr = pytest.importorskip("data_prep.object_cxr")
    out, counts = phantom("object_cxr")
    paths, chosen = {"tables": out, "images_dir": out}, {"split": "official", "short_side": SIZE}
    found = run(object_cxr, paths, tmp_path / "set", **chosen)
    every = {name: record for records in found.values() for name, record in records.items()}
    truth = truth_of(out, key=stem)
    assert len(every) == counts["images"]
    masks = 0
    for record in every.values():
        line = truth[stem(f"{record.image_ids[0]}.")]
        shown = line.get("objects", [])
        assert record.labels == (int(bool(shown)),)
        scale = scale_of(record, line)
        boxes = np.array([one["box"] for one in shown], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        stored = np.array(record.region_boxes).reshape(-1, 4)
        # Pillow draws a polygon's last pixel, whose number is the corner of the annotation.
        for one, box, expected in zip(shown, stored, boxes * scale, strict=True):
            whole = one["shape"] == objects.POLYGON
            np.testing.assert_allclose(box, expected, atol=0.51 if whole else 1e-3)
        for one, content in zip(shown, record.region_masks, strict=True):
            if not content:
                continue
            points = tuple(map(tuple, one["points"]))
            whole = objects.ForeignObject(shape=one["shape"], points=points)
            mask = regions.decoded_mask(content)
            expected = shrunk(whole.mask(line["rows"], line["columns"]), mask.shape[::-1])
            if expected.sum() >= 25:
                assert (mask & expected).sum() / (mask | expected).sum() > 0.6
                masks += 1
    assert masks


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_a_layout_has_the_same_bytes_again_and_continues(phantom, tmp_path, layout):
    of = settings_of(layout)
    out, _ = phantom(layout)
    again = tmp_path / "again"
    (again / "phantom").mkdir(parents=True)  # begun, and stopped before the first part
    (again / "phantom" / "settings.json").write_text(json.dumps(hospital.dataclasses.asdict(of)))
    hospital.draw_phantom(again, of, workers=1)
    assert tree(again) == tree(out)


def test_dicom_files_are_read_by_pydicom_without_a_warning(phantom):
    out, _ = phantom("rsna")
    path = min((out / "stage_2_train_images").glob("*.dcm"))
    file = pydicom.dcmread(path)
    assert file.PatientID == path.stem and file.pixel_array.shape == (file.Rows, file.Columns)
    assert min(file.Rows, file.Columns) == SIZE


def test_dicom_files_are_written_without_a_line_each(caplog, recwarn):
    pixels = np.zeros((4, 4), np.uint8)
    content = dicom_file.content_of(pixels, name="a", patient="p", sex="F", age=7, view="PA")
    assert not caplog.records and not recwarn.list
    assert pydicom.dcmread(io.BytesIO(content)).PatientAge == "7"


def test_runs_are_read_back_as_they_were_written():
    random = np.random.default_rng(3)
    for number in range(50):
        height, width = random.integers(1, 12, 2)
        mask = random.random((height, width)) < random.random()
        text = rle.encode(mask)
        assert text == label_sets.write_rle(mask)
        read = rle.decode(text, height=height, width=width, name=str(number))
        np.testing.assert_array_equal(read, mask)


def test_unknown_layouts_and_settings_that_do_not_fit_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"--layout.*chexpert"):
        settings(layout="vindr")
    with pytest.raises(DataError, match=r"--zip_reports.*siim"):
        settings(layout="siim", zip_reports=True)
    hospital.draw_phantom(tmp_path / "one", settings(studies=2, layout="nih"), workers=1)
    with pytest.raises(DataError, match="layout"):
        hospital.draw_phantom(tmp_path / "one", settings(studies=2), workers=1)


def test_a_phantom_from_before_there_were_layouts_is_still_known(tmp_path):
    hospital.draw_phantom(tmp_path, settings(studies=2), workers=1)
    path = tmp_path / "phantom" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["settings"]["layout"]
    path.write_text(json.dumps(manifest))
    assert hospital.draw_phantom(tmp_path, settings(studies=2), workers=1) == manifest["counts"]
