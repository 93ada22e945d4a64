"""The masks of a drawn phantom, as the model sees its images."""

import json

import numpy as np
import pytest
from PIL import Image

from data_prep.phantom import hospital
from launch.evaluation.phantom_masks import PhantomMasks
from prior_jax.data import fitting
from prior_jax.errors import DataError

SIZE = 48


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    settings = hospital.Settings(
        studies=12, seed=1, size=64, train=0.5, validate=0.0, test=0.5, zip_reports=False
    )
    hospital.draw_phantom(folder, settings, workers=1)
    lines = (folder / "phantom" / "findings.jsonl").read_text().splitlines()
    return folder, [json.loads(line) for line in lines]


def masks_of(drawn):
    return PhantomMasks(drawn[0], field="task.masks")


def frontal(drawn):
    return [image for image in drawn[1] if image["mask"]]


def test_a_mask_lies_where_the_box_of_the_finding_says(drawn):
    seen = 0
    for image in frontal(drawn):
        found = masks_of(drawn).findings(image["dicom_id"], size=SIZE)
        assert set(found) <= {finding["label"] for finding in image["findings"]}
        for finding in image["findings"]:
            mask = found[finding["label"]]
            assert mask.shape == (SIZE, SIZE)
            left, top, width, height = finding["box"]
            scale = np.array([SIZE / image["rows"], SIZE / image["columns"]])
            inside = np.zeros_like(mask)
            y0, x0 = np.floor(np.array([top, left]) * scale).astype(int)
            y1, x1 = np.ceil(np.array([top + height, left + width]) * scale).astype(int)
            inside[y0:y1, x0:x1] = True
            alone = sum(other["label"] == finding["label"] for other in image["findings"]) == 1
            assert (mask & inside).any() and (not alone or not (mask & ~inside).any())
            seen += 1
    assert seen > 3


def test_masks_go_through_the_same_resize_as_images(drawn):
    """The lungs are where the resized image is: an image drawn as the mask gives the mask back."""
    folder, _ = drawn
    image = next(image for image in frontal(drawn) if image["findings"])
    with Image.open(folder / image["mask"]) as file:
        regions = np.asarray(file)
    label = image["findings"][0]["label"]
    own = np.zeros(regions.shape, bool)
    for finding in image["findings"]:
        if finding["label"] == label:
            own |= (regions >> finding["bit"]) & 1 > 0
    picture = fitting.resize(Image.fromarray(own.astype(np.uint8) * np.uint8(255)), size=SIZE)
    found = masks_of(drawn).findings(image["dicom_id"], size=SIZE)[label]
    np.testing.assert_array_equal(found, np.asarray(picture) > 127)


def test_the_lungs_of_the_patient_are_mirrored(drawn):
    ids = [image["dicom_id"] for image in frontal(drawn)]
    centres = masks_of(drawn).lung_centres(ids, size=SIZE)
    assert 0.15 < centres["right"][1] < 0.45 < 0.55 < centres["left"][1] < 0.85
    assert all(0.2 < row < 0.7 for row, _ in centres.values())


def test_what_is_missing_is_named(drawn, tmp_path):
    with pytest.raises(DataError, match=r"^task\.masks: .*phantom"):
        PhantomMasks(tmp_path, field="task.masks")
    with pytest.raises(DataError, match="no image 'x'"):
        masks_of(drawn).findings("x", size=SIZE)
    lateral = [image["dicom_id"] for image in drawn[1] if not image["mask"]]
    with pytest.raises(DataError, match=r"a (LATERAL|LL) view, has no mask.*frontal"):
        masks_of(drawn).findings(lateral[0], size=SIZE)
