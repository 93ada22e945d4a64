"""The phantom on disk: the layout of MIMIC-CXR-JPG, the same bytes however it was made."""

import csv
import dataclasses
import gzip
import hashlib
import json
import pathlib
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from data_prep import drawn_regions
from data_prep.phantom import contact_sheet, hospital, studies
from prior_jax.errors import DataError


def settings(**changes):
    values = dict(
        studies=70, seed=2, size=48, train=0.75, validate=0.1, test=0.15, zip_reports=False
    )
    return hospital.Settings(**{**values, **changes})


def tree(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def table(root, name):
    with gzip.open(root / f"mimic-cxr-2.0.0-{name}.csv.gz", "rt", newline="") as text:
        return list(csv.DictReader(text))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "hospital"
    counts = hospital.draw_phantom(out, settings(), workers=1)
    return out, counts


def test_tables_images_and_reports_join(drawn):
    out, counts = drawn
    metadata, split = table(out, "metadata"), table(out, "split")
    assert tuple(metadata[0]) == hospital.METADATA_COLUMNS
    assert [row["dicom_id"] for row in metadata] == [row["dicom_id"] for row in split]
    assert len({row["dicom_id"] for row in metadata}) == len(metadata) == counts["images"]
    for row in metadata:
        subject, study = row["subject_id"], row["study_id"]
        folder = f"files/p{subject[:2]}/p{subject}"
        with Image.open(out / folder / f"s{study}" / f"{row['dicom_id']}.jpg") as image:
            image.load()
            assert (image.mode, image.size) == ("L", (int(row["Columns"]), int(row["Rows"])))
        assert (out / "reports" / folder / f"s{study}.txt").read_text().strip()
        assert [len(group) for group in row["dicom_id"].split("-")] == [8] * 5
    assert {row["ViewPosition"] for row in metadata} == {"PA", "AP", "LATERAL", "LL"}
    assert len(list((out / "files").rglob("*.jpg"))) == len(metadata)


def test_no_patient_is_in_two_splits(drawn):
    out, _ = drawn
    splits = {}
    for row in table(out, "split"):
        splits.setdefault(row["subject_id"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "validate", "test"}


def test_chexpert_rows_are_those_of_the_texts(drawn):
    out, _ = drawn
    rows = {row["study_id"]: row for row in table(out, "chexpert")}
    assert tuple(next(iter(rows.values()))) == hospital.CHEXPERT_COLUMNS
    for study in lines(out / "phantom" / "studies.jsonl"):
        row = rows.get(str(study["study_id"]))
        assert (row is None) == (study["layout"] == "headless")
        if row:
            values = {key: float(row[key]) for key in hospital.LABELS if row[key]}
            assert values == study["labels"]
            assert {row[key] for key in hospital.LABELS} <= {"1.0", "0.0", "-1.0", ""}


def test_masks_and_boxes_are_those_of_the_findings(drawn):
    out, _ = drawn
    boxes = 0
    for image in lines(out / "phantom" / "findings.jsonl"):
        if image["view"] in ("LATERAL", "LL"):
            assert image["mask"] is None
            continue
        regions = drawn_regions.read_regions(out / image["mask"])
        assert regions[7].shape == (image["rows"], image["columns"])
        for finding in image["findings"]:
            mask = regions[finding["bit"]]
            x, y, width, height = finding["box"]
            assert mask[y : y + height, x : x + width].sum() == mask.sum() == finding["area"]
            assert mask[y].any() and mask[:, x].any()
            assert mask[y + height - 1].any() and mask[:, x + width - 1].any()
            boxes += 1
    assert boxes > 40


def test_box_of_known_masks():
    mask = np.zeros((5, 7), bool)
    assert studies.box_of(mask) is None
    mask[1:3, 2:6] = True
    assert studies.box_of(mask) == [2, 1, 4, 2]


def test_workers_do_not_change_the_bytes(drawn, tmp_path):
    out, counts = drawn
    assert hospital.draw_phantom(tmp_path / "two", settings(), workers=2) == counts
    assert tree(tmp_path / "two") == tree(out)


def test_a_stopped_run_goes_on_to_the_same_bytes(drawn, tmp_path, monkeypatch):
    out, _ = drawn
    write_study, written = studies.write_study, []

    def write_and_stop(root, **arguments):
        if len(written) == 45:
            raise KeyboardInterrupt
        written.append(arguments["number"])
        return write_study(root, **arguments)

    with monkeypatch.context() as patch:
        patch.setattr(studies, "write_study", write_and_stop)
        with pytest.raises(KeyboardInterrupt):
            hospital.draw_phantom(tmp_path, settings(), workers=1)
    # A kill may also cut a file of the unfinished part short.
    victim = max((tmp_path / "files").rglob("*.jpg"), key=lambda path: path.stat().st_mtime_ns)
    victim.write_bytes(victim.read_bytes()[:100])
    again = []
    monkeypatch.setattr(
        studies, "write_study", lambda root, **a: again.append(a) or write_study(root, **a)
    )
    hospital.draw_phantom(tmp_path, settings(), workers=1)
    assert [arguments["number"] for arguments in again] == list(range(32, 70))
    assert tree(tmp_path) == tree(out)


def test_a_killed_process_goes_on_to_the_same_bytes(tmp_path):
    flags = ["--studies=160", "--size=64", "--seed=4", "--workers=1"]
    command = [sys.executable, "-m", "data_prep.phantom", *flags]
    subprocess.run([*command, f"--out={tmp_path / 'whole'}"], check=True, capture_output=True)
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [*command, f"--out={out}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (out / "phantom" / "parts" / "000001.jsonl").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (out / "phantom" / "manifest.json").exists()
    subprocess.run([*command, f"--out={out}"], check=True, capture_output=True)
    assert tree(out) == tree(tmp_path / "whole")


def test_a_complete_phantom_is_left_alone_and_another_refused(drawn):
    out, counts = drawn
    before = tree(out)
    assert hospital.draw_phantom(out, settings(), workers=1) == counts
    with pytest.raises(DataError, match=r"--out.*other settings: --seed is 2 there and 3 here"):
        hospital.draw_phantom(out, settings(seed=3), workers=1)
    assert tree(out) == before


def test_foreign_directories_are_refused(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"--out: .*other files"):
        hospital.draw_phantom(tmp_path, settings(), workers=1)


def test_zipped_reports_are_those_of_the_folder(drawn, tmp_path):
    out, _ = drawn
    hospital.draw_phantom(tmp_path, settings(zip_reports=True), workers=1)
    assert not (tmp_path / "reports").exists()
    with zipfile.ZipFile(tmp_path / "mimic-cxr-reports.zip") as packed:
        zipped = {name: packed.read(name) for name in packed.namelist()}
    reports = out / "reports"
    assert zipped == {
        str(path.relative_to(reports)): path.read_bytes() for path in reports.rglob("*.txt")
    }


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"studies": 0}, "studies"),
        ({"seed": -1}, "seed"),
        ({"size": 16}, "size"),
        ({"train": 0.9}, "--train, --validate, --test"),
        ({"train": float("nan")}, "--train, --validate, --test"),
        ({"validate": -0.1, "train": 0.95}, "--train, --validate, --test"),
    ],
)
def test_bad_settings_are_refused_by_name(changes, field):
    with pytest.raises(DataError, match=field):
        settings(**changes)


def test_the_program_exits_with_one_line_on_bad_input(tmp_path):
    command = [sys.executable, "-m", "data_prep.phantom", f"--out={tmp_path}", "--studies=0"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.splitlines() == ["--studies: The value is 0. It must be at least 1."]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    command = [sys.executable, "-m", "data_prep.phantom", f"--out={tmp_path / 'file' / 'out'}"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1 and "Not a directory" in run.stderr


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="no disk that is always full")
def test_a_full_disk_is_one_line(tmp_path):
    (tmp_path / "mimic-cxr-2.0.0-metadata.csv.gz").symlink_to("/dev/full")
    truth = tmp_path / "phantom"
    truth.mkdir()
    (truth / "settings.json").write_text(json.dumps(dataclasses.asdict(settings(studies=1))))
    flags = [f"--{name}={value}" for name, value in dataclasses.asdict(settings(studies=1)).items()]
    command = [sys.executable, "-m", "data_prep.phantom", f"--out={tmp_path}", "--workers=1"]
    run = subprocess.run([*command, *flags], capture_output=True, text=True)
    assert run.returncode == 2, run.stderr
    assert run.stderr.splitlines()[-1].endswith("No space left on device")
    assert "Traceback" not in run.stderr


def test_a_sheet_shows_every_kind(drawn, tmp_path):
    out, _ = drawn
    plain, tinted = (
        np.asarray(contact_sheet.draw_sheet(out, tile=48, columns=2, masks=masks)).astype(int)
        for masks in (False, True)
    )
    assert plain.shape == (8 * 48, 2 * 48, 3)
    rows = [plain[48 * i : 48 * (i + 1)] for i in range(8)]
    assert min(row.std() for row in rows) > 10
    changed = (plain != tinted).any(axis=(1, 2))
    assert changed[: 7 * 48].any() and not changed[7 * 48 :].any()
    with pytest.raises(DataError, match=r"--data: .*no complete phantom"):
        contact_sheet.draw_sheet(tmp_path, tile=48, columns=2, masks=False)
