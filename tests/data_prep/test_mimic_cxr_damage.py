"""Damaged images, reports and rows of MIMIC-CXR are counted, and stop nothing."""

import collections
import os
import zipfile

import pytest

from data_prep import verify
from prior_jax.errors import DataError
from tests.data_prep import hospital
from tests.data_prep.mimic_runs import (
    edit_table,
    prepare,
    rejected_of,
)


def damage(root, drawn):
    """Does five of each of ten kinds of damage, each to a study of its own.

    Returns:
      Counter of the reasons they must be counted under.
    """
    victims = iter(drawn)
    reasons = collections.Counter()
    kinds = {
        "truncated_image": lambda text, image: image.write_bytes(image.read_bytes()[:-150]),
        "zero_byte_image": lambda text, image: image.write_bytes(b""),
        "undecodable_image": lambda text, image: image.write_bytes(b"<html>not found</html>"),
        "absurd_image_size": lambda text, image: image.write_bytes(
            hospital.jpeg(0, size=(900, 40))
        ),
        "missing_image": lambda text, image: image.unlink(),
        "missing_report": lambda text, image: text.unlink(),
        "empty_report": lambda text, image: text.write_text(" \n"),
        "report_not_decodable": lambda text, image: text.write_bytes(b"FINDINGS: 37\xb0C."),
        "no_section": lambda text, image: text.write_text(" x\n INDICATION:  Cough.\n"),
        "too_few_sentences": lambda text, image: text.write_text(" x\n FINDINGS:  Clear.\n"),
    }
    for reason, change in kinds.items():
        for _ in range(5):
            subject, study = next(victims)
            change(*hospital.paths_of(root, subject, study))
            reasons[reason] += 1
            if reason.endswith("image") or reason == "absurd_image_size":
                reasons["no_usable_image"] += 1
    return reasons


def test_fifty_damaged_inputs_of_ten_kinds_are_counted_and_stop_nothing(tmp_path):
    root = tmp_path / "raw"
    drawn = hospital.draw(root, studies=60)
    reasons = damage(root, drawn[:50])
    manifest = prepare(root, tmp_path / "out")
    assert sum(counts.studies for counts in manifest.splits.values()) == 10
    assert manifest.rejected == {**reasons, "wrong_view": 60}
    listed = collections.Counter(line["reason"] for line in rejected_of(tmp_path / "out"))
    assert listed == manifest.rejected
    kept = {f"s{study}" for _, study in drawn[50:]}
    assert not kept & {
        line["id"].split("/")[0]
        for line in rejected_of(tmp_path / "out")
        if line["reason"] != "wrong_view"
    }
    assert verify.verify(verify.Settings(path=str(tmp_path / "out"), sample=1.0)) == []


def test_damaged_rows_and_stray_files_are_counted(tmp_path):
    root = tmp_path / "raw"
    drawn = hospital.draw(root, studies=40, zipped=True)
    names = [hospital.dicom(study, "PA") for _, study in drawn]
    leaking = drawn[38][0]

    def metadata(lines):
        return [*lines, lines[1], "short,row", f"../../etc,{drawn[0][0]},{drawn[0][1]},PA,1,1"]

    def split(lines):
        kept = [line for line in lines if not line.startswith(names[3])]
        kept = [line.replace("train", "holdout") if names[5] in line else line for line in kept]
        return [
            line.replace(line.rsplit(",", 1)[1], "train") if names[38] in line else line
            for line in [*kept, "0-0,1,2,train"]
        ]

    edit_table(root, "metadata", metadata)
    edit_table(root, "split", split)
    edit_table(root, "chexpert", lambda lines: [*lines, lines[1], f"1,{drawn[0][1]},x,,"])
    _, image = hospital.paths_of(root, *drawn[7])
    (image.parent / "stray.jpg").write_bytes(hospital.jpeg(1))
    archive = (root / "mimic-cxr-reports.zip").read_bytes()
    marker = f"s{drawn[9][1]}.txt".encode()
    place = archive.index(marker) + len(marker) + 9
    (root / "mimic-cxr-reports.zip").write_bytes(
        archive[:place] + bytes([archive[place] ^ 0xFF]) + archive[place + 1 :]
    )
    manifest = prepare(root, tmp_path / "out")
    expected = {
        "duplicate_row": 2,
        "malformed_row": 3,
        "row_without_split": 2,
        "unknown_split": 1,
        "split_row_without_metadata": 1,
        "file_without_row": 1,
        "corrupt_zip_member": 1,
    }
    assert {name: manifest.rejected.get(name, 0) for name in expected} == expected
    assert manifest.rejected["patient_in_two_splits"] == sum(s == leaking for s, _ in drawn)
    lines = rejected_of(tmp_path / "out")
    assert collections.Counter(line["reason"] for line in lines) == manifest.rejected
    assert verify.verify(verify.Settings(path=str(tmp_path / "out"))) == []


def test_a_hospital_without_one_usable_study_says_why(tmp_path):
    drawn = hospital.draw(tmp_path / "raw", studies=4)
    for subject, study in drawn:
        hospital.paths_of(tmp_path / "raw", subject, study)[0].write_text("")
    with pytest.raises(DataError, match=r"No study can be kept.*4 empty_report"):
        prepare(tmp_path / "raw", tmp_path / "out")


def test_a_file_name_that_is_not_utf_8_is_listed(tmp_path):
    drawn = hospital.draw(tmp_path / "raw", studies=2)
    _, image = hospital.paths_of(tmp_path / "raw", *drawn[0])
    name = os.path.join(os.fsencode(image.parent), b"copie_\xe9.jpg")
    with open(name, "wb") as file:
        file.write(hospital.jpeg(0))
    manifest = prepare(tmp_path / "raw", tmp_path / "out")
    assert manifest.rejected["file_without_row"] == 1
    assert any(line["id"].endswith("copie_\\udce9.jpg") for line in rejected_of(tmp_path / "out"))
    assert verify.verify(verify.Settings(path=str(tmp_path / "out"))) == []


def test_reports_of_another_patient_are_not_read_from_folder_or_zip(tmp_path):
    reasons = []
    for zipped in (False, True):
        root = tmp_path / f"{zipped}"
        drawn = hospital.draw(root, studies=4, zipped=zipped)
        subject, study = drawn[3]
        if zipped:
            archive = root / "mimic-cxr-reports.zip"
            with zipfile.ZipFile(archive) as old:
                texts = {name: old.read(name) for name in old.namelist()}
            with zipfile.ZipFile(archive, "w") as new:
                for name, text in texts.items():
                    new.writestr(name.replace(f"p{subject}/s{study}.", f"p19/s{study}."), text)
        else:
            text, _ = hospital.paths_of(root, subject, study)
            (root / "files" / "p19" / "p19").mkdir(parents=True)
            text.rename(root / "files" / "p19" / "p19" / text.name)
        reasons.append(prepare(root, tmp_path / f"out{zipped}").rejected)
    assert reasons[0] == reasons[1] and reasons[0]["missing_report"] == 1
