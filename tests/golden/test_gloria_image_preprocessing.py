"""GLoRIA's images against what the authors' code made of the same pixels."""

import re

import numpy as np
import pytest

from prior_jax.data import dicom, dicom_file, gloria_image
from tests.golden.reader import assert_close, load

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def recorded(golden_dir):
    return load(golden_dir, "gloria", "image_preprocessing")


def test_images_fitted_to_a_square_equal_the_release(recorded):
    names = [re.fullmatch(r"out/resize(\d+)(?:_upscale)?/(\w+)", name) for name in recorded]
    found = [name for name in names if name]
    assert found
    for name in found:
        fitted = gloria_image.fit(recorded[f"in/{name[2]}"], size=int(name[1]))
        np.testing.assert_array_equal(fitted, recorded[name[0]], name[0])


def test_masks_fitted_to_a_square_equal_the_release(recorded):
    (name,) = (name for name in recorded if name.startswith("out/mask_resize"))
    size = int(name.removeprefix("out/mask_resize"))
    assert_close(gloria_image.fit(recorded["in/mask"], size=size), recorded[name], rtol=1e-6)


def test_the_input_of_the_encoder_equals_the_release(recorded):
    expected = recorded.prefix("out/process_img/")
    _, channels, crop, _ = expected["shape"].tolist()
    got = gloria_image.encoder_input(recorded["in/process_img/png_gray"], crop=crop)
    assert got.shape == (crop, crop, channels) and got.dtype == np.float32
    np.testing.assert_array_equal(got, np.repeat(got[:, :, :1], channels, axis=2))
    # Recorded are evenly spaced rows, despite the name.
    rows = expected["channel0_first_rows"]
    np.testing.assert_allclose(got[:: crop // len(rows), :, 0], rows, rtol=0, atol=2e-7)
    gray = np.rint((got[:, :, 0] + 1) / 2 * 255).astype(np.uint8)
    np.testing.assert_array_equal(gray, expected["channel0_uint8"])


def test_sixteen_bits_and_inverted_gray_equal_the_release(recorded):
    pixels = recorded["in/dicom/pixel_array"]
    for photometric in recorded.prefix("out/dicom/"):
        image = dicom_file.Radiograph(pixels=pixels, photometric=photometric)
        gray = dicom.eight_bit_as_released(image)
        np.testing.assert_array_equal(gray, recorded[f"out/dicom/{photometric}"])
    names = [
        re.fullmatch(r"out/dicom_pneumonia_resized(\d+)_(\w+)_every(\d+)", name)
        for name in recorded
    ]
    for name in filter(None, names):
        image = dicom_file.Radiograph(pixels=pixels, photometric=name[2])
        fitted = gloria_image.fit(dicom.eight_bit_as_released(image), size=int(name[1]))
        np.testing.assert_array_equal(fitted[:: int(name[3]), :: int(name[3])], recorded[name[0]])


def test_a_sample_for_segmentation_equals_the_release(recorded):
    expected = recorded["out/seg/image"]
    size = expected.shape[-1]
    image, mask = gloria_image.segmentation_sample(
        recorded["in/seg/img"], recorded["in/seg/mask"], size=size, mode="release"
    )
    assert_close(image.transpose(2, 0, 1), expected, rtol=1e-6)
    assert_close(mask, recorded["out/seg/mask"], rtol=1e-6)
    assert_close(mask, recorded["out/seg/mask_after_resize_img"], rtol=1e-6)
