"""The findings that a phantom has drawn become regions of the set that is made of it."""

import json

import numpy as np
import pytest

from data_prep import drawn_regions, mimic_cxr
from data_prep.kit import begun, cli
from data_prep.phantom import hospital
from launch.start import prepare
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import regions
from prior_jax.errors import DataError
from tests.data_prep import label_sets
from tests.data_prep.test_phantom import settings

SIZE = 48


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A folder of a run with a phantom and no set."""
    folder = tmp_path_factory.mktemp("drawn")
    hospital.draw_phantom(folder / "data" / "raw", wanted(), workers=1)
    return folder


def wanted():
    return settings(
        studies=40, seed=5, size=SIZE, train=0.6, validate=0.2, test=0.2, zip_reports=False
    )


def made(workdir, out, *, findings):
    raw = workdir / "data" / "raw"
    paths = mimic_cxr.Paths(images_dir=str(raw), reports=str(raw / "reports"), findings=findings)
    options = cli.RunOptions(out=str(out), workers=1)
    return mimic_cxr.prepare(paths, mimic_cxr.Settings(short_side=SIZE), options)


def test_a_run_s_own_set_has_the_box_and_the_mask_of_every_drawn_finding(workdir):
    prepare._phantom_set(wanted(), workdir / "data")
    raw, out = workdir / "data" / "raw", workdir / "data" / "set"
    lines = (raw / drawn_regions.FINDINGS).read_text().splitlines()
    drawn = {line["dicom_id"]: line for line in map(json.loads, lines)}
    manifest = manifest_lib.load_manifest(out)
    assert manifest.regions and all(
        one.boxes == one.masks == one.regions for one in manifest.regions.values()
    )
    seen = 0
    every = [one for split in label_sets.records(out).values() for one in split.values()]
    for record in every:
        expected = [
            (place, one)
            for place, image in enumerate(record.image_ids)
            for one in drawn[image]["findings"]
            if one["box"] is not None
        ]
        assert record.region_labels == tuple(one["label"] for _, one in expected)
        assert record.region_images == tuple(place for place, _ in expected)
        for index, (place, one) in enumerate(expected):
            image = drawn[record.image_ids[place]]
            mask = drawn_regions.read_regions(raw / image["mask"])[one["bit"]]
            kept = regions.decoded_mask(record.region_masks[index], name="mask")
            np.testing.assert_array_equal(kept, mask)
            left, top, width, height = one["box"]
            box = (left, top, left + width, top + height)
            np.testing.assert_allclose(record.region_boxes[index], box)
            seen += 1
    assert seen == sum(one.regions for one in manifest.regions.values()) > 10


def test_a_run_whose_set_was_begun_without_regions_keeps_it_so(workdir, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "raw").symlink_to(workdir / "data" / "raw")
    made(workdir, data / "set", findings="")
    before = manifest_lib.load_manifest(data / "set")
    assert not before.regions and begun.inputs_there(data / "set") == before.inputs
    prepare._phantom_set(wanted(), data)
    after = manifest_lib.load_manifest(data / "set")
    assert after == before
    assert begun.inputs_there(tmp_path / "none") is None


def test_a_list_of_another_phantom_is_refused(workdir, tmp_path):
    other = tmp_path / "phantom"
    other.mkdir()
    (other / "findings.jsonl").write_text("")
    with pytest.raises(DataError, match=r"--findings: .* has no line of the image"):
        made(workdir, tmp_path / "set", findings=str(other / "findings.jsonl"))
    (other / "other.jsonl").write_text("[1]")
    with pytest.raises(DataError, match=r"--findings: .* no list of findings"):
        made(workdir, tmp_path / "other", findings=str(other / "other.jsonl"))
