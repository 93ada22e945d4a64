"""The zip index against python's own zipfile, and damage."""

import random
import zipfile

import pytest

from data_prep.mimic_reports import ReportFolder, ReportProblem, ReportZip, index_zip
from prior_jax.errors import DataError


def write_zip(path, names, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for number, name in enumerate(names):
            archive.writestr(name, f"report {number} " * (number % 7))


def zip_of(path, tmp_path):
    index_zip(path, tmp_path / "index.npy")
    return ReportZip(path=path, index=tmp_path / "index.npy")


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_every_member_reads_as_zipfile_reads_it(tmp_path, compression):
    studies = random.Random(0).sample(range(50_000_000, 60_000_000), 60)
    names = [f"files/p10/p10000001/s{study}.txt" for study in studies]
    write_zip(tmp_path / "r.zip", ["files/", "files/index.html", *names], compression)
    reports = zip_of(tmp_path / "r.zip", tmp_path)
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        for study, name in zip(studies, names, strict=True):
            assert reports.read(subject=10_000_001, study=study) == archive.read(name)


def test_more_members_than_a_plain_zip_can_count(tmp_path):
    names = [f"p10/p1/s{study}.txt" for study in range(66_000)]
    write_zip(tmp_path / "r.zip", names, zipfile.ZIP_STORED)
    reports = zip_of(tmp_path / "r.zip", tmp_path)
    assert reports.read(subject=1, study=65_999) == b"report 65999 " * (65_999 % 7)


def test_missing_doubled_and_damaged_members_are_told(tmp_path):
    path = tmp_path / "r.zip"
    with pytest.warns(UserWarning, match="Duplicate name"):
        write_zip(path, ["p10/p1/s1.txt", "p10/p1/s2.txt", "p10/p1/s1.txt", "p10/p1/s13.txt"])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("copy/p10/p1/s2.txt", archive.read("p10/p1/s2.txt"))
    content = bytearray(path.read_bytes())
    place = content.index(b"s13.txt") + len(b"s13.txt") + 2
    content[place] ^= 0xFF
    path.write_bytes(bytes(content))
    assert index_zip(path, tmp_path / "index.npy") == [("s1", True), ("s2", False)]
    reports = ReportZip(path=path, index=tmp_path / "index.npy")
    assert reports.read(subject=1, study=1) == b""
    for study, reason in ((13, "corrupt_zip_member"), (4, "missing_report")):
        with pytest.raises(ReportProblem) as caught:
            reports.read(subject=1, study=study)
        assert caught.value.reason == reason


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_a_file_that_is_no_whole_zip_is_refused_by_name(tmp_path, cut):
    write_zip(tmp_path / "r.zip", [f"p10/p1/s{study}.txt" for study in range(20)])
    (tmp_path / "r.zip").write_bytes((tmp_path / "r.zip").read_bytes()[:cut])
    with pytest.raises(DataError, match=r"r\.zip"):
        index_zip(tmp_path / "r.zip", tmp_path / "index.npy")


def test_folder(tmp_path):
    (tmp_path / "p10" / "p10000001").mkdir(parents=True)
    (tmp_path / "p10" / "p10000001" / "s5.txt").write_bytes(b"x")
    (tmp_path / "p10" / "p10000001" / "s6.txt").mkdir()
    reports = ReportFolder(root=tmp_path)
    assert reports.read(subject=10_000_001, study=5) == b"x"
    for study, reason in ((6, "unreadable_report"), (7, "missing_report")):
        with pytest.raises(ReportProblem) as caught:
            reports.read(subject=10_000_001, study=study)
        assert caught.value.reason == reason
