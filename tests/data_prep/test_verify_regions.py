"""Boxes and masks of a set are counted and checked; sets without them stay readable."""

import dataclasses
import json
import math

import numpy as np
import pytest

from data_prep import verify
from data_prep.kit import image_regions
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import reader, regions, schema
from prior_jax.errors import DataError
from tests import fixtures

SIZE = 48
MASK = regions.encoded_mask(np.eye(SIZE, dtype=bool))
SOUND = {
    "region_images": (0, 0),
    "region_labels": ("Effusion", "Mass"),
    "region_phrases": ("", "a mass"),
    "region_boxes": ((1.0, 2.0, 3.0, 48.0), regions.NO_BOX),
    "region_masks": (b"", MASK),
    "sex": "F",
    "age": 61.5,
}


def write(folder, *, counts=None, **fields):
    """Writes a set whose first record has regions, and a manifest that counts them."""
    records = [fixtures.draw_record(place, size=SIZE) for place in range(4)]
    records[0] = dataclasses.replace(records[0], **{**SOUND, **fields})
    fixtures.write_prepared(folder, records=records, size=SIZE)
    sums = image_regions.RegionSums()
    for record in records:
        sums.add(record)
    manifest = manifest_lib.load_manifest(folder)
    counted = sums.counts() if counts is None else counts
    manifest_lib.save_manifest(dataclasses.replace(manifest, regions=counted), folder)
    return records


def checked(folder):
    """Failures, less those of the fixture, which counts no rows and labels, and the leaks."""
    failures, leaks = verify.checked(verify.Settings(path=str(folder), sample=1.0))
    expected = ("rejected.jsonl", "Label ", "tables", "Tables")
    return [line for line in failures if not line.startswith(expected)], leaks


def failures(folder):
    return checked(folder)[0]


def test_regions_sex_and_age_come_back_as_written_and_are_sound(tmp_path):
    records = write(tmp_path)
    source = reader.RecordReader(tmp_path, "train")
    assert [source.read(place) for place in range(4)] == records
    assert math.isnan(source.read(1).age) and source.read(1).sex == ""
    counts = manifest_lib.load_manifest(tmp_path).regions
    assert counts["Mass"] == manifest_lib.RegionCounts(regions=1, boxes=0, masks=1, phrases=1)
    assert counts["Effusion"].boxes == 1
    assert not failures(tmp_path)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"region_boxes": ((1.0, 2.0, 3.0, 48.5), regions.NO_BOX)}, "is not within its image"),
        ({"region_boxes": ((3.0, 2.0, 3.0, 4.0), regions.NO_BOX)}, "is not within its image"),
        ({"region_boxes": ((-1.0, 2.0, 3.0, 4.0), regions.NO_BOX)}, "48x48 pixels"),
        ({"region_masks": (b"", regions.encoded_mask(np.eye(9)))}, "The mask has (9, 9) pixels"),
        ({"region_masks": (b"", b"PNG")}, "The mask cannot be read"),
        ({"counts": {}}, "Regions of Mass: The records have 1 regions, but the manifest counts 0."),
        (
            {"counts": {"A": manifest_lib.RegionCounts(regions=1, boxes=1, masks=0, phrases=0)}},
            "Regions of A: The records have 0 boxes, but the manifest counts 1.",
        ),
    ],
)
def test_wrong_regions_are_named(tmp_path, fields, expected):
    write(tmp_path, **fields)
    manifest = manifest_lib.MANIFEST_NAME
    content = json.loads((tmp_path / manifest).read_text())
    content["notes"] = []  # a manifest of this version
    (tmp_path / manifest).write_text(json.dumps(content))
    assert any(expected in line for line in failures(tmp_path))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"region_images": (0, 9)}, "region_images"),
        ({"region_images": (0, -1)}, "region_images"),
        ({"region_labels": ("A",)}, "region_labels"),
        ({"region_masks": (b"", b"")}, "neither a box nor a mask"),
        ({"sex": "X"}, "sex"),
    ],
)
def test_regions_that_do_not_fit_their_record_are_refused(fields, named):
    with pytest.raises(DataError, match=named):
        dataclasses.replace(fixtures.draw_record(0), **{**SOUND, **fields})


def test_a_set_of_the_first_version_is_read_and_sound(tmp_path, monkeypatch):
    everything = schema.features

    def first():
        import tensorflow_datasets as tfds

        kept = {k: v for k, v in everything().items() if k not in schema.ADDED_IN_1_1}
        return tfds.features.FeaturesDict(kept)

    to_example = schema.Record.to_example
    with monkeypatch.context() as patched:
        patched.setattr(schema, "features", first)
        patched.setattr(schema, "DATASET_VERSION", "1.0.0")
        patched.setattr(
            schema.Record,
            "to_example",
            lambda self: {
                name: value
                for name, value in to_example(self).items()
                if name not in schema.ADDED_IN_1_1
            },
        )
        fixtures.write_prepared(tmp_path, studies=3)
    source = reader.RecordReader(tmp_path, "train")
    assert source.read(1) == fixtures.draw_record(1)
    assert not failures(tmp_path)


def test_leaks_of_a_published_split_are_reported_and_no_failure(tmp_path):
    fixtures.write_prepared(tmp_path, studies=3, test=1)  # studies 2 and 3 are of one patient
    assert any("Patient p00001 is in" in line for line in failures(tmp_path))
    manifest = manifest_lib.load_manifest(tmp_path)
    published = dataclasses.replace(manifest, published_split="gloria")
    manifest_lib.save_manifest(published, tmp_path)
    assert checked(tmp_path) == ([], ["Patient p00001 is in train and test."])
