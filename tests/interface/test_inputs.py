import dataclasses
import pathlib
import re

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian

from prior_jax.data import fitting
from prior_jax.data import image as image_lib
from prior_jax.data.image import ImageConfig
from prior_jax.data.sentences import SPLITTERS
from prior_jax.errors import ConfigError, DataError
from prior_jax.interface import Model
from prior_jax.interface.inputs import checked_texts, listed, process_text
from tests.evaluate.fakes import FakeModel, FakeObjective
from tests.interface.conftest import IMAGE, TEXT

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (40, 48), dtype=np.uint8)


def write_dicom(path, pixels, *, photometric):
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PixelRepresentation = 1, 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
    file.PhotometricInterpretation = photometric
    file.PixelData = pixels.astype(np.uint16).tobytes()
    file.save_as(path, enforce_file_format=True)
    return path


def test_a_file_becomes_what_training_sees_of_it(whole, paths):
    found = whole.process_images(paths)
    assert found.names == tuple(map(str, paths))
    assert found.pixels.shape == (len(paths), IMAGE.size, IMAGE.size, 1)
    assert found.pixels.dtype == np.float32
    mean, std = np.float32([0.4]), np.float32([0.25])
    for pixels, path in zip(found.pixels, paths, strict=True):
        decoded = image_lib.decode(path.read_bytes(), channels=1, size=IMAGE.size, name="x")
        resized = fitting.resize(decoded, size=IMAGE.size)
        np.testing.assert_array_equal(pixels, image_lib.normalise(resized, mean=mean, std=std))


def test_an_array_is_its_png(whole, tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "gray.png")
    expected = whole.process_images(tmp_path / "gray.png").pixels
    shapes = [GRAY, GRAY[:, :, None], GRAY[None, :, :, None], np.repeat(GRAY[:, :, None], 3, 2)]
    for array in [*shapes, GRAY / 255, (GRAY / 255).astype(np.float32)]:
        found = whole.process_images(array)
        np.testing.assert_array_equal(found.pixels, expected)
        assert found.names == (0,)


def test_a_colour_model_reads_gray_and_coloured_images(tokenizer, tmp_path):
    config = ImageConfig(size=8, channels=3, mean=(0.5,) * 3, std=(0.5, 0.25, 0.5))
    model = Model(FakeObjective(), FakeModel(), tokenizer=tokenizer, image=config, text=TEXT)
    coloured = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    path = write_dicom(tmp_path / "one.dcm", GRAY * 16, photometric="MONOCHROME2")
    found = model.process_images([coloured, GRAY, path]).pixels
    assert found.shape == (3, 8, 8, 3)
    np.testing.assert_allclose(found[0] * [0.5, 0.25, 0.5] + 0.5, coloured / 255, atol=1e-6)
    for image in found[1:]:
        np.testing.assert_allclose(image[..., 1], 2 * image[..., 0], rtol=1e-5, atol=1e-6)


def test_dicom_is_stretched_and_bone_is_white(whole, tmp_path):
    stored = np.linspace(100, 4000, GRAY.size).reshape(GRAY.shape)
    eight = np.rint((np.rint(stored) - 100) / 3900 * 255).astype(np.uint8)
    for photometric, expected in (("MONOCHROME2", eight), ("MONOCHROME1", 255 - eight)):
        path = write_dicom(tmp_path / photometric, np.rint(stored), photometric=photometric)
        found, wanted = whole.process_images(path), whole.process_images(expected)
        np.testing.assert_allclose(found.pixels, wanted.pixels, atol=1.01 / 255 / 0.25)
        assert found.names == (str(path),)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 4, 5, 6, 1), np.uint8), "images[0]: The array is uint8[3, 4, 5, 6, 1],"),
        (np.zeros((4, 8, 2), np.uint8), "images[0]: The array is uint8[4, 8, 2],"),
        (np.zeros((8,), np.uint8), "images[0]: The array is uint8[8],"),
        (np.zeros((0, 8), np.uint8), "images[0]: The array is uint8[0, 8],"),
        (np.zeros((8, 8), np.uint16), "images[0]: The array is uint16[8, 8],"),
        (np.full((8, 8), 200.0), "images[0]: The array has floats from 200.0 to 200.0."),
        (np.full((8, 8), np.nan), "images[0]: The array has floats from nan to nan."),
        ([GRAY, 7], "images[1]: The image is of the type int."),
        ([], "images: There is no image."),
        ("absent.jpg", "absent.jpg: The file cannot be read (No such file or directory)."),
    ],
)
def test_bad_images_are_named(whole, image, message):
    with pytest.raises(DataError, match=re.escape(message)):
        whole.process_images(image)


@pytest.mark.parametrize("name", ["broken.jpg", "broken.dcm"])
def test_a_damaged_file_is_named(whole, tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xd8 no image")
    with pytest.raises(DataError, match=f"{name}: The image cannot be used"):
        whole.process_images(tmp_path / name)


def test_a_column_of_paths_is_several_images():
    assert listed(np.array(["a.jpg", "b.jpg"], dtype=object)) == ["a.jpg", "b.jpg"]


def test_an_array_of_one_path_or_text_is_that_one():
    for array in (np.array("a.jpg"), np.array("a.jpg", dtype=object)):
        assert listed(array) == ["a.jpg"]
    assert listed(np.array(pathlib.Path("a.jpg"))) == [pathlib.Path("a.jpg")]
    assert checked_texts(np.array("Clear.")) == ["Clear."]
    with pytest.raises(DataError, match=r"images: .*the type int"):
        listed(np.array(3))


def test_settings_without_statistics_are_refused(tokenizer):
    config = ImageConfig(size=8, channels=1, mean=None, std=None)
    with pytest.raises(ConfigError, match=r"image\.mean"):
        Model(FakeObjective(), FakeModel(), tokenizer=tokenizer, image=config, text=TEXT)


def test_a_report_is_split_and_its_tokens_own_their_sentences(whole, tokenizer):
    found = whole.process_text(["The heart is normal. No effusion.", "Lungs are clear."])
    assert found.tokens.shape == (2, 32) and found.sentence_mask.sum(axis=1).tolist() == [2, 1]
    first, second = tokenizer.encode_ids(["The heart is normal.", "No effusion."])
    ids = [tokenizer.cls_id, *first, *second, tokenizer.sep_id]
    assert found.tokens[0, found.token_mask[0]].tolist() == ids
    owner = [-1] + [0] * len(first) + [1] * len(second) + [-1]
    assert found.sentence_index[0, : len(owner)].tolist() == owner


def test_a_long_report_is_cut(whole):
    found = whole.process_text(" ".join(["The heart is normal in size."] * 40))
    assert found.tokens.shape == (1, TEXT.max_tokens)
    assert found.sentence_mask.sum() <= TEXT.max_sentences


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("", "texts[0]: The value is ''."),
        (["Clear.", 3], "texts[1]: The value is 3."),
        (["Clear.", None], "texts[1]: The value is None."),
        ([], "texts: There is no text."),
    ],
)
def test_bad_texts_are_named(whole, texts, message):
    with pytest.raises(DataError, match=re.escape(message)):
        whole.process_text(texts)


@pytest.mark.parametrize(
    "given", [None, 3, Image.fromarray(GRAY), b"png", {"image": GRAY}, {"a.png"}]
)
def test_what_is_neither_an_image_nor_a_list_is_refused_by_its_type(whole, given):
    with pytest.raises(DataError, match=f"the type {type(given).__name__}.*list") as caught:
        whole.process_images(given)
    assert caught.value.where == "images" and "np.asarray" in caught.value.remedy


REPORTS = {"s1": "No effusion.", "s2": "Edema."}


@pytest.mark.parametrize(
    "given",
    [None, 3, b"Clear.", REPORTS, set(REPORTS.values()), np.array(3), pd.DataFrame([REPORTS])],
)
def test_what_is_neither_a_text_nor_a_list_is_refused_by_its_type(whole, given):
    message = r"which is neither a text nor a list of texts\. Give .*list\(reports\.values\(\)\)"
    with pytest.raises(DataError, match=message) as caught:
        whole.process_text(given)
    assert caught.value.where == "texts"


def test_texts_in_an_order_are_a_list():
    texts = list(REPORTS.values())
    for given in (REPORTS.values(), tuple(texts), np.array(texts), pd.Series(texts), iter(texts)):
        assert checked_texts(given) == texts


def test_a_text_of_which_a_splitter_leaves_nothing_is_refused(tokenizer):
    settings = dataclasses.replace(TEXT, split=SPLITTERS["gloria_inference"])
    found = process_text("Clear lungs.", tokenizer=tokenizer, settings=settings)
    assert found.sentence_mask.sum() == 1
    with pytest.raises(DataError, match=r"texts\[1\]: .* gloria_inference leaves .*'Normal\.'"):
        process_text(["Clear lungs.", "Normal."], tokenizer=tokenizer, settings=settings)
