"""A sound set passes; each kind of damage is named."""

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest

from data_prep import manifest, verify
from data_prep.kit import cli
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.data.reader import RecordReader
from prior_jax.errors import DataError
from tests.data_prep import hospital
from tests.data_prep.mimic_runs import ROOT


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    rows = []
    for number in range(24):
        (folder / f"{number}.jpg").write_bytes(hospital.jpeg(number))
        split = ("train", "train", "valid", "test")[number // 2 % 4]
        rows.append(
            {
                "id": f"i{number}",
                "image": f"{number}.jpg",
                "patient_id": f"p{number // 2}",
                "split": split,
                "text": "Clear. Normal.",
                "labels": {"A": number % 2},
            }
        )
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    manifest.prepare(
        manifest.Paths(manifest=str(folder / "rows.jsonl")),
        manifest.Settings(studies_per_shard=4),
        cli.RunOptions(out=str(folder / "out"), workers=1),
    )
    return folder / "out"


@pytest.fixture
def prepared(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "set")


def failures_of(path):
    return verify.verify(verify.Settings(path=str(path), sample=1.0))


def change_manifest(path, change):
    content = json.loads((path / manifest_lib.MANIFEST_NAME).read_text())
    change(content)
    (path / manifest_lib.MANIFEST_NAME).write_text(json.dumps(content))


def rewrite(path, change):
    """Rewrites the first training shard, record by record, and its hash in the manifest."""
    from array_record.python import array_record_module

    name = schema.shard_name("train", shard=0, shards=3)
    spec = schema.features()
    reader = array_record_module.ArrayRecordReader(str(path / name))
    records = [
        schema.Record.from_example(spec.deserialize_example_np(r)) for r in reader.read_all()
    ]
    reader.close()
    writer = array_record_module.ArrayRecordWriter(str(path / name), "group_size:1")
    for number, record in enumerate(records):
        writer.write(schema.serialize(change(number, record), spec=spec))
    writer.close()
    digest = cli.sha256_of(path / name)
    change_manifest(path, lambda content: content["shards"].update({name: digest}))


def test_a_sound_set_passes(prepared):
    assert failures_of(prepared) == []


def test_a_leaking_patient_is_named(prepared):
    rewrite(prepared, lambda n, record: dataclasses.replace(record, subject_id="p6"))
    assert "Patient p6 is in train and validate." in failures_of(prepared)


def test_a_patient_written_in_two_ways_leaks_all_the_same(prepared):
    rewrite(prepared, lambda n, record: dataclasses.replace(record, subject_id=" P6"))
    assert "Patient  P6 or p6 is in train and validate." in failures_of(prepared)


def test_an_image_in_two_splits_is_named_with_both_places(prepared):
    reader = RecordReader(prepared, "test")
    image = reader.read(0).images
    rewrite(prepared, lambda n, record: dataclasses.replace(record, images=image))
    (line,) = (line for line in failures_of(prepared) if "One image is in two splits" in line)
    assert "(train)" in line and f"study {reader.read(0).study_id}" in line


def test_an_image_that_does_not_decode_is_named(prepared):
    rewrite(
        prepared,
        lambda n, record: dataclasses.replace(
            record, images=tuple(image[: len(image) // 2] for image in record.images)
        ),
    )
    assert sum("cannot be decoded" in line for line in failures_of(prepared)) == 4
    assert verify.verify(verify.Settings(path=str(prepared), sample=0.0)) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"study_id": "i0"}, "study ids are in more than one record"),
        ({"labels": ()}, "0 labels, but the manifest names 1"),
        ({"sentences": ("Clear.", " "), "sentence_sections": (1, 1)}, "has an empty sentence"),
        ({"sentences": (), "sentence_sections": ()}, "text source report and 0 sentences"),
        ({"text_source": "none"}, "Text source report: "),
        ({"subject_id": ""}, "has no id"),
    ],
)
def test_wrong_records_are_named(prepared, change, expected):
    rewrite(prepared, lambda n, record: dataclasses.replace(record, **change))
    assert any(expected in line for line in failures_of(prepared))


def test_flipped_bytes_and_lost_shards_are_named(prepared):
    name = schema.shard_name("train", shard=1, shards=3)
    content = bytearray((prepared / name).read_bytes())
    content[-100] ^= 1
    (prepared / name).write_bytes(bytes(content))
    assert f"{name}: The sha256 of the shard differs from the manifest." in failures_of(prepared)
    (prepared / name).write_bytes(bytes(content[: len(content) // 2]))
    assert any(
        line.startswith(f"{name}: The shard is not a complete ArrayRecord")
        for line in failures_of(prepared)
    )
    (prepared / name).unlink()
    assert f"{name}: The manifest lists this shard, but the file is missing." in failures_of(
        prepared
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda c: c["splits"]["train"].update(studies=99),
            "train: There are 12 studies, but the manifest counts 99.",
        ),
        (
            lambda c: c["splits"]["test"].update(subjects=1),
            "test: There are 3 subjects, but the manifest counts 1",
        ),
        (
            lambda c: c["splits"]["train"].update(sentences=1),
            "train: There are 24 sentences, but the manifest counts 1",
        ),
        (
            lambda c: c["rejected"].update(zero_byte_image=3),
            "rejected.jsonl: The file has 0 lines of zero_byte",
        ),
        (
            lambda c: c["text_sources"].update(labels=3),
            "Text source labels: 0 studies, but the manifest counts 3",
        ),
        (lambda c: c["labels"]["A"].update(positive=1), "Label A: 12 studies have the value 1"),
        (
            lambda c: c["tables"]["rows.jsonl"].update(read=25),
            "rows.jsonl: 25 rows were read, but 24 were kept and 0 rejected.",
        ),
        (
            lambda c: c["tables"]["rows.jsonl"].update(read=26, rejected={"unknown_split": 2}),
            "rows.jsonl: rejected.jsonl has 0 rows of unknown_split, but the manifest counts 2.",
        ),
        (
            lambda c: c["tables"]["rows.jsonl"].update(images=7),
            "rows.jsonl: The records have 24 images, but the manifest counts 7.",
        ),
        (lambda c: c["tables"].clear(), "tables: There are 24 studies, but the manifest"),
        (lambda c: c["labels"].clear(), "Label A: The manifest does not count the label"),
        (lambda c: c.pop("tables"), "tables: There are 24 studies, but the manifest"),
    ],
)
def test_wrong_counts_are_named(prepared, change, expected):
    change_manifest(prepared, change)
    assert any(line.startswith(expected) for line in failures_of(prepared))


def test_a_set_of_an_earlier_version_is_sound_but_said_to_be_one(prepared):
    def earlier(content):
        for name in ("tables", "labels", "notes"):
            del content[name]

    change_manifest(prepared, earlier)
    assert failures_of(prepared) == []
    command = [sys.executable, "-m", "data_prep.verify", f"--path={prepared}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "An earlier version made the set" in done.stdout


def test_damaged_metadata_is_named(prepared):
    (prepared / "stray.array_record-00000-of-00001").write_bytes(b"")
    (prepared / "features.json").unlink()
    found = failures_of(prepared)
    assert "features.json: The file is missing." in found
    assert "stray.array_record-00000-of-00001: The manifest does not list this shard." in found
    (prepared / manifest_lib.MANIFEST_NAME).unlink()
    with pytest.raises(DataError, match=r"manifest\.json"):
        failures_of(prepared)


def test_program_exits_with_one_line_a_failure(prepared):
    command = [sys.executable, "-m", "data_prep.verify", f"--path={prepared}"]
    change_manifest(prepared, lambda content: content["splits"]["train"].update(studies=99))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "train: There are 12 studies, but the manifest counts 99."
