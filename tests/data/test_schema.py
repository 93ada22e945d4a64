"""The prepared set on disk: records survive it, manifests are read strictly."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest

from prior_jax.data import manifest as manifest_lib
from prior_jax.data import reader
from prior_jax.errors import DataError
from tests import fixtures

ROOT = pathlib.Path(__file__).parents[2]


def test_records_come_back_as_written(tmp_path):
    odd = dataclasses.replace(
        fixtures.draw_record(1),
        images=(b"\xff\xd8\x00", b"\x00\x00"),
        image_ids=("a", "b"),
        views=("PA", ""),
        findings="Café ≥ 5 mm\n\n line",
        impression="",
        labels=(),
    )
    records = [fixtures.draw_record(0), odd, fixtures.without_text(fixtures.draw_record(2))]
    fixtures.write_prepared(tmp_path, records=records, test=9)
    source = reader.RecordReader(tmp_path, "train")
    assert [source.read(i) for i in range(len(source))] == records
    other = reader.RecordReader(tmp_path, "test")
    assert [other.read(i).study_id for i in range(9)] == [f"s{20 + i:05d}" for i in range(9)]
    assert other.shard_of(6) == "prior_set-test.array_record-00000-of-00002"
    assert other.shard_of(7) == "prior_set-test.array_record-00001-of-00002"


def test_reading_needs_no_tensorflow(prepared):
    code = (
        "import sys; from prior_jax.data import reader;"
        f"reader.RecordReader({str(prepared)!r}, 'train').read(0);"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"images": ()}, "images"),
        ({"views": ("PA",) * 9}, "views"),
        ({"image_ids": ()}, "image_ids"),
        ({"sentence_sections": ()}, "sentence_sections"),
        ({"labels": (3,)}, "labels"),
        ({"text_source": "rumour"}, "text_source"),
    ],
)
def test_a_record_that_does_not_fit_together_is_refused(change, field):
    record = fixtures.draw_record(5)
    with pytest.raises(DataError, match=f"record 's00005'.{field}"):
        dataclasses.replace(record, **change)


def test_the_manifest_comes_back_as_written(prepared, tmp_path):
    manifest = manifest_lib.load_manifest(prepared)
    assert manifest.label_names == fixtures.LABEL_NAMES
    assert manifest.splits["train"].studies == 26
    manifest_lib.save_manifest(manifest, tmp_path)
    assert manifest_lib.load_manifest(tmp_path) == manifest
    assert [path.name for path in tmp_path.iterdir()] == [manifest_lib.MANIFEST_NAME]


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("format",), 2, "format"),
        (("program",), None, "program"),
        (("label_names",), "Edema", "label_names"),
        (("surprise",), 1, "surprise"),
        (("image", "std"), 0.0, "image"),
        (("image", "mean"), "gray", "image.mean"),
        (("splits", "train", "studies"), "many", "splits.train.studies"),
    ],
)
def test_a_wrong_manifest_is_refused_by_field(prepared, tmp_path, path, value, field):
    content = json.loads((prepared / manifest_lib.MANIFEST_NAME).read_text())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    if value is None:
        del place[path[-1]]
    (tmp_path / manifest_lib.MANIFEST_NAME).write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"{manifest_lib.MANIFEST_NAME}: {field}:"):
        manifest_lib.load_manifest(tmp_path)


def test_a_manifest_that_is_absent_or_no_json_is_refused(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path} is not a prepared set"):
        manifest_lib.load_manifest(tmp_path)
    (tmp_path / manifest_lib.MANIFEST_NAME).write_text('{"format": 1')
    with pytest.raises(DataError, match="not JSON"):
        manifest_lib.load_manifest(tmp_path)


def test_an_unknown_split_and_a_missing_shard_are_named(prepared, tmp_path):
    with pytest.raises(DataError, match=r"no records in the split 'test'.*train"):
        reader.RecordReader(prepared, "test")
    fixtures.write_prepared(tmp_path, studies=8)
    lost = tmp_path / "prior_set-train.array_record-00001-of-00002"
    lost.unlink()
    with pytest.raises(DataError, match=lost.name):
        reader.RecordReader(tmp_path, "train")


def test_a_set_whose_dataset_info_is_cut_or_absent_is_named(tmp_path):
    fixtures.write_prepared(tmp_path, studies=8)
    info = tmp_path / "dataset_info.json"
    for damage in (lambda: info.write_bytes(info.read_bytes()[:100]), info.unlink):
        damage()
        with pytest.raises(DataError, match=f"{tmp_path}: The folder is not a whole prepared set"):
            reader.RecordReader(tmp_path, "train")


def test_a_damaged_shard_is_named(tmp_path):
    fixtures.write_prepared(tmp_path, studies=8)
    shard = tmp_path / "prior_set-train.array_record-00000-of-00002"
    content = bytearray(shard.read_bytes())
    content[4000:4100] = bytes(byte ^ 255 for byte in content[4000:4100])
    shard.write_bytes(content)
    source = reader.RecordReader(tmp_path, "train")
    with pytest.raises(DataError, match=shard.name):
        for index in range(len(source)):
            source.read(index)
