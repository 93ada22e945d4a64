"""COVID Rural's preparer on files in its own layout, whole, odd and damaged."""

import zlib

import numpy as np
import pytest
from PIL import Image

from data_prep import covid_rural
from data_prep.kit import cli, mask_files
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import regions
from prior_jax.errors import ConfigError, DataError
from tests.data_prep import label_sets

SIZE = label_sets.SIZE
TRAIN = {"split_fractions": ("1", "0", "0")}


def name_of(patient, day=1):
    return f"COVID-19-AR-{patient}_{day:02d}-14-2012-XR"


def rectangle(x1=10, y1=20, x2=40, y2=60, *, size=SIZE):
    mask = np.zeros((size, size), np.uint8)
    mask[y1:y2, x1:x2] = 1
    return mask


def write_image(folder, name):
    """An image that is saved as colour although it is grey, as those of the data set are."""
    path = folder / "jpgs" / f"{name}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = label_sets.pixels(zlib.crc32(name.encode()))
    Image.fromarray(pixels).convert("RGB").save(path, quality=90)
    return path


def write_mask(folder, name, mask, **kwargs):
    path = folder / "pngs_masks" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    image.save(path, **kwargs)
    return path


def write(folder, patients):
    for patient in patients:
        write_image(folder, name_of(patient))
        write_mask(folder, name_of(patient), rectangle())
    return folder


def prepare(folder, *, lists="", **settings):
    return covid_rural.prepare(
        covid_rural.Paths(root=str(folder), split_lists=str(lists)),
        covid_rural.Settings(short_side=48, **settings),
        cli.RunOptions(out=str(folder / "out"), workers=1),
    )


def mask_of(record):
    (content,) = record.region_masks
    return regions.decoded_mask(content)


def test_masks_are_kept_and_patients_known(tmp_path):
    write(tmp_path, [16406505])
    write_image(tmp_path, name_of(16406505, 2))
    write_mask(tmp_path, name_of(16406505, 2), np.zeros((SIZE, SIZE), np.uint8))
    manifest = prepare(tmp_path, **TRAIN)
    found = label_sets.every(tmp_path / "out")
    one, two = (found[name_of(16406505, day)] for day in (1, 2))
    assert one.subject_id == two.subject_id == "COVID-19-AR-16406505"
    assert (one.labels, two.labels) == ((1,), (0,))
    np.testing.assert_array_equal(mask_of(one), rectangle()[::2, ::2] > 0)
    assert two.region_masks == ()
    assert manifest.tables["jpgs"].kept == 2
    assert manifest.regions == {
        "Lung Opacity": manifest_lib.RegionCounts(regions=1, boxes=0, masks=1, phrases=0)
    }
    label_sets.assert_sound(tmp_path / "out")


def test_a_mask_is_what_is_not_black_in_whatever_mode(tmp_path):
    whole = Image.fromarray(np.ones((SIZE, SIZE), np.uint8))
    palette = Image.fromarray(rectangle(), "P")
    palette.putpalette([0, 0, 0, 0, 0, 1])  # a blue so dark that its grey is 0
    swapped = Image.fromarray(1 - rectangle(), "P")
    swapped.putpalette([255, 255, 255, 0, 0, 0])  # the lesion has index 0
    kinds = {
        "one": Image.fromarray(rectangle()),
        "bits": Image.fromarray(rectangle() > 0),
        "grey": Image.fromarray(rectangle() * 255),
        "colour": Image.fromarray(rectangle() * 255).convert("RGB"),
        "alpha": Image.fromarray(rectangle() * 255).convert("RGBA"),
        "deep": Image.fromarray(rectangle().astype(np.uint16)),
        "palette": palette,
        "swapped": swapped,
        "whole": whole,
    }
    for name, image in kinds.items():
        write_image(tmp_path, name_of(name))
        write_mask(tmp_path, name_of(name), image)
    prepare(tmp_path, **TRAIN)
    found = label_sets.every(tmp_path / "out")
    assert len(found) == len(kinds)
    for name in kinds:
        mask = mask_of(found[name_of(name)])
        expected = rectangle()[::2, ::2] > 0 if name != "whole" else np.ones_like(mask)
        np.testing.assert_array_equal(mask, expected, err_msg=name)


def test_a_gif_that_is_full_stays_full(tmp_path):
    path = tmp_path / "full.gif"
    Image.fromarray(np.full((SIZE, SIZE), 255, np.uint8)).save(path)
    assert mask_files.read_mask(path).all()


def test_what_is_odd_is_right_or_refused_by_name_and_counted(tmp_path):
    names = ["good", "nomask", "cutmask", "textmask", "emptymask", "size", "cut", "text", "zero"]
    names += ["dir", "upright"]
    write(tmp_path, names)
    images, masks = tmp_path / "jpgs", tmp_path / "pngs_masks"
    (masks / f"{name_of('nomask')}.png").unlink()
    label_sets.truncate(masks / f"{name_of('cutmask')}.png")
    content = (masks / f"{name_of('cutmask')}.png").read_bytes()
    (masks / f"{name_of('cutmask')}.png").write_bytes(content[:70])
    (masks / f"{name_of('textmask')}.png").write_text("no mask")
    (masks / f"{name_of('emptymask')}.png").write_bytes(b"")
    write_mask(tmp_path, name_of("size"), rectangle(size=SIZE + 1))
    label_sets.truncate(images / f"{name_of('cut')}.jpg")
    (images / f"{name_of('text')}.jpg").write_text("no image")
    (images / f"{name_of('zero')}.jpg").write_bytes(b"")
    (images / f"{name_of('dir')}.jpg").unlink()
    (images / f"{name_of('dir')}.jpg").mkdir()
    turned = Image.new("L", (SIZE, SIZE))
    turned.putdata(label_sets.pixels(3).ravel().tolist())
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera's right side is up
    turned.save(images / f"{name_of('upright')}.jpg", exif=exif)
    (images / "notes.txt").write_text("x")
    write_mask(tmp_path, name_of("idle"), rectangle())
    manifest = prepare(tmp_path, **TRAIN)
    assert manifest.tables["jpgs"].read == 10
    assert manifest.tables["jpgs"].rejected == {
        "mask_of_another_size": 1,
        "missing_mask": 1,
        "truncated_image": 1,
        "undecodable_image": 1,
        "undecodable_mask": 3,
        "zero_byte_image": 1,
    }
    found = label_sets.every(tmp_path / "out")
    assert sorted(found) == sorted([name_of("good"), name_of("upright")])
    expected = np.rot90(rectangle(), -1)[::2, ::2] > 0
    ours = mask_of(found[name_of("upright")])
    assert (ours != expected).mean() < 0.02
    assert any("2 masks have no image" in note for note in manifest.notes)
    label_sets.assert_sound(tmp_path / "out")


def test_lovt_s_lists(tmp_path):
    write(tmp_path, [11, 12, 13, 14])
    lists = tmp_path / "lists"
    lists.mkdir()
    for split, patients in (("train", [13, 11]), ("validation", [12]), ("test", [14])):
        rows = [name_of(patient) for patient in patients]
        (lists / f"{split}.csv").write_text("\n".join(["ID", *rows]) + "\n")
    manifest = prepare(tmp_path, split="lovt", lists=lists)
    order = (tmp_path / "out" / "split_order.train.txt").read_text().split()
    assert order == [name_of(13), name_of(11)]
    (note,) = (note for note in manifest.notes if "lovt" in note)
    assert "133 / 44 / 44" in note
    label_sets.assert_sound(tmp_path / "out")


def test_wrong_folders_and_splits_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"--root.*jpgs"):
        prepare(tmp_path)
    write(tmp_path, [11])
    with pytest.raises(ConfigError, match=r"--split.*lovt"):
        prepare(tmp_path, split="mgca")
    (tmp_path / "jpgs" / f"{name_of(11)}.jpg").unlink()
    with pytest.raises(DataError, match=r"--root.* holds no image"):
        prepare(tmp_path)
