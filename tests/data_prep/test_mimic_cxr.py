"""MIMIC-CXR's preparer on a tiny hospital, whole and damaged, undisturbed and killed."""

import collections
import csv
import gzip
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import zipfile

import pytest
import tensorflow_datasets as tfds

from data_prep import mimic_cxr, verify
from data_prep.kit import cli
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema
from prior_jax.errors import ConfigError, DataError
from tests.data_prep import hospital

ROOT = pathlib.Path(__file__).parents[2]


def prepare(root, out, *, workers=1, overwrite=False, reports="", **settings):
    return mimic_cxr.prepare(
        mimic_cxr.Paths(images_dir=str(root), reports=str(reports)),
        mimic_cxr.Settings(**{"short_side": 64, "studies_per_shard": 8, **settings}),
        cli.RunOptions(out=str(out), workers=workers, overwrite=overwrite),
    )


def files_of(out):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(pathlib.Path(out).iterdir())
    }


def rejected_of(out):
    lines = (pathlib.Path(out) / schema.REJECTED_NAME).read_text().splitlines()
    return [json.loads(line) for line in lines]


def edit_table(root, kind, change):
    path = root / f"mimic-cxr-2.0.0-{kind}.csv.gz"
    with gzip.open(path, "rt") as file:
        lines = file.read().splitlines()
    with gzip.open(path, "wt") as file:
        file.write("\n".join(change(lines)) + "\n")


def test_records_hold_what_the_hospital_holds(tmp_path):
    drawn = hospital.draw(tmp_path / "raw", studies=24)
    manifest = prepare(tmp_path / "raw", tmp_path / "out")
    assert manifest.splits["train"] == manifest_lib.SplitCounts(
        studies=20, images=20, subjects=10, sentences=100
    )
    assert manifest.rejected == {"wrong_view": 24}
    assert manifest.label_names == ("Atelectasis", "Edema", "No Finding")
    builder = tfds.builder_from_directory(tmp_path / "out")
    assert builder.info.splits["train"].num_bytes > 20 * 1000
    source = builder.as_data_source("train")
    records = {r.study_id: r for r in map(schema.Record.from_example, source)}
    assert len(records) == 20
    for number in (0, 1, 2, 3, 4, 5, 8, 13):
        subject, study = drawn[number]
        record = records[f"s{study}"]
        assert record.subject_id == f"p{subject}"
        assert record.image_ids == (hospital.dicom(study, "PA"),)
        assert record.views == ("PA",)
        assert record.labels == ((1, number % 2, -1) if number % 5 else (-2, -2, -2))
        assert record.sentence_sections == (0, 1, 1, 1, 1)
        assert record.sentences[0] == "No acute disease."
        assert record.sentences[1] == f"The lungs are clear number {number}."
        assert record.sentences[4] == "There is a 3 cm. nodule in the left lung."
    assert verify.verify(verify.Settings(path=str(tmp_path / "out"), sample=1.0)) == []


def test_layouts_give_the_same_records(tmp_path):
    """Reports in a folder or zipped, tables of 2.0.0 or 2.1.0."""
    shards = []
    for zipped, version in ((False, "2.0.0"), (True, "2.0.0"), (True, "2.1.0")):
        root = tmp_path / f"{zipped}{version}"
        hospital.draw(root, studies=12, zipped=zipped, version=version)
        shards.append(prepare(root, tmp_path / f"out{zipped}{version}").shards)
    assert shards[0] == shards[1] == shards[2]


def test_reports_are_found_or_asked_for(tmp_path):
    hospital.draw(tmp_path / "raw", studies=4, zipped=True)
    expected = prepare(tmp_path / "raw", tmp_path / "a").shards
    (tmp_path / "raw" / "reports").mkdir()
    archive = tmp_path / "raw" / "mimic-cxr-reports.zip"
    archive = archive.rename(tmp_path / "raw" / "reports" / archive.name)
    assert prepare(tmp_path / "raw", tmp_path / "b").shards == expected
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(archive.parent)
    archive.unlink()
    assert prepare(tmp_path / "raw", tmp_path / "c").shards == expected
    (archive.parent / "files").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="--reports"):
        prepare(tmp_path / "raw", tmp_path / "d")
    got = prepare(tmp_path / "raw", tmp_path / "d", reports=tmp_path / "elsewhere")
    assert got.shards == expected


def test_special_studies_are_read_by_hand_but_not_in_release_mode():
    content = (" x\n FINDINGS:  " + "Clear. " * 80).encode()
    special = {"study": "s50525523"}  # its findings stand at characters 201 to 349
    paper = mimic_cxr.read_report(content, settings=mimic_cxr.Settings(), **special)
    assert len(paper.findings) == 349 - 201
    release = mimic_cxr.read_report(
        content, settings=mimic_cxr.Settings(parser="release"), **special
    )
    assert len(release.sentences) == 80


def test_sentences_can_be_glorias_words():
    content = b"FINDINGS:  Normal.\n A 3.5 cm nodule. No change.\n"
    expected = {
        "pysbd": ("Normal.", "A 3.5 cm nodule.", "No change."),
        "gloria_paper": ("normal", "a 3.5 cm nodule", "no change"),
        "gloria_release": ("5 cm nodule", "no change"),
    }
    for splitter, sentences in expected.items():
        settings = mimic_cxr.Settings(splitter=splitter, min_sentences=1)
        found = mimic_cxr.read_report(content, study="1", settings=settings)
        assert found.sentences == sentences


def test_bytes_do_not_depend_on_workers(tmp_path):
    hospital.draw(tmp_path / "raw", studies=40)
    prepare(tmp_path / "raw", tmp_path / "one")
    prepare(tmp_path / "raw", tmp_path / "three", workers=3)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "three")


def test_another_setting_needs_another_directory_or_overwrite(tmp_path):
    hospital.draw(tmp_path / "raw", studies=12)
    prepare(tmp_path / "raw", tmp_path / "out")
    before = files_of(tmp_path / "out")
    prepare(tmp_path / "raw", tmp_path / "out")
    assert files_of(tmp_path / "out") == before
    with pytest.raises(ConfigError, match=r"--out.*other settings.*--overwrite"):
        prepare(tmp_path / "raw", tmp_path / "out", min_sentences=5)
    assert files_of(tmp_path / "out") == before
    prepare(tmp_path / "raw", tmp_path / "out", min_sentences=5, overwrite=True)
    prepare(tmp_path / "raw", tmp_path / "fresh", min_sentences=5)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "fresh")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"--out.*foreign.*empty"):
        prepare(tmp_path / "raw", tmp_path / "foreign", overwrite=True)


def test_changed_tables_are_noticed(tmp_path):
    hospital.draw(tmp_path / "raw", studies=12)
    prepare(tmp_path / "raw", tmp_path / "out")
    edit_table(tmp_path / "raw", "split", lambda lines: lines[:-2])
    with pytest.raises(ConfigError, match="other settings or inputs"):
        prepare(tmp_path / "raw", tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"views": ("LATERAL",)}, (12, 60)),
        ({"views": ("PA", "LATERAL")}, (24, 60)),
        ({"sections": ("findings",)}, (12, 48)),
        ({"sections": ("impression",), "min_sentences": 1}, (12, 12)),
        ({"parser": "release"}, (12, 60)),
    ],
)
def test_selection_flags(tmp_path, settings, kept):
    hospital.draw(tmp_path / "raw", studies=12)
    counts = prepare(tmp_path / "raw", tmp_path / "out", **settings).splits["train"]
    assert (counts.images, counts.sentences) == kept


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"min_sentences": -1}, "--min_sentences"),
        ({"sections": ("findigs",)}, "--sections"),
        ({"parser": "other"}, "--parser"),
        ({"splitter": "other"}, "--splitter"),
        ({"report_encoding": "utf-7777"}, "--report_encoding"),
        ({"jpeg_quality": 0}, "--jpeg_quality"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, name):
    with pytest.raises(ConfigError, match=name):
        mimic_cxr.Settings(**settings)


def test_missing_and_damaged_tables_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match="--images_dir"):
        prepare(tmp_path, tmp_path / "out")
    hospital.draw(tmp_path / "raw", studies=4)
    path = tmp_path / "raw" / "mimic-cxr-2.0.0-metadata.csv.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="metadata"):
        prepare(tmp_path / "raw", tmp_path / "out")
    path.unlink()
    with pytest.raises(DataError, match="metadata"):
        prepare(tmp_path / "raw", tmp_path / "out")


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


def command(root, out, *flags):
    return [
        sys.executable,
        *("-m", "data_prep.mimic_cxr", f"--images_dir={root}", f"--out={out}"),
        *("--short_side=64", "--studies_per_shard=4", "--workers=2", *flags),
    ]


def test_killed_at_any_moment_the_next_run_ends_with_the_same_bytes(tmp_path):
    hospital.draw(tmp_path / "raw", studies=160)
    prepare(tmp_path / "raw", tmp_path / "whole", studies_per_shard=4)
    killed = 0
    for finished in (6, 28):
        process = subprocess.Popen(
            command(tmp_path / "raw", tmp_path / "out"),
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        parts = tmp_path / "out" / ".parts"
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(parts.glob("t*.array_record"))) >= finished:
                break
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        assert not (tmp_path / "out" / manifest_lib.MANIFEST_NAME).exists()
    assert killed == 2
    (parts / "train-0000000.array_record.1.tmp").write_bytes(b"half a shard")
    assert len(list(parts.glob("train-*.json"))) >= 20  # work is kept, not done again
    prepare(tmp_path / "raw", tmp_path / "out", studies_per_shard=4, workers=2)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


@pytest.mark.parametrize(
    "moment", ["_place_shards", "write_dataset_info", "save_manifest", "rmtree"]
)
def test_stopped_while_finishing_the_next_run_ends_with_the_same_bytes(
    tmp_path, monkeypatch, moment
):
    hospital.draw(tmp_path / "raw", studies=24)
    prepare(tmp_path / "raw", tmp_path / "whole")
    from data_prep.kit import finish

    owners = {
        "_place_shards": finish,
        "write_dataset_info": finish.schema,
        "save_manifest": finish.manifest_lib,
        "rmtree": finish.shutil,
    }
    owner = owners[moment]
    original = getattr(owner, moment)

    def stopped(*args, **kwargs):
        if moment in ("_place_shards", "save_manifest"):
            original(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, moment, stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path / "raw", tmp_path / "out")
    prepare(tmp_path / "raw", tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_two_runs_at_once_are_refused(tmp_path):
    import fcntl

    hospital.draw(tmp_path / "raw", studies=4)
    (tmp_path / "out" / ".parts").mkdir(parents=True)
    with open(tmp_path / "out" / ".parts" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="Another process is writing"):
            prepare(tmp_path / "raw", tmp_path / "out")


def test_program_reports_a_user_error_in_one_line_and_helps(tmp_path):
    done = subprocess.run(
        command(tmp_path, tmp_path / "out"), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("--images_dir: ")
    done = subprocess.run(
        [*command(tmp_path, tmp_path / "out"), "--help"], cwd=ROOT, capture_output=True, text=True
    )
    for name in ("images_dir", "reports", "min_sentences", "workers", "overwrite", "views"):
        assert f"--{'[no]' if name == 'overwrite' else ''}{name}:" in done.stdout


def cells(change):
    """Makes a change of lines of one that takes and gives the header and each row as cells."""
    return lambda lines: [",".join(row) for row in change([line.split(",") for line in lines])]


def _index(rows):
    return [["", *rows[0]], *([str(place), *row] for place, row in enumerate(rows[1:]))]


def _ids(form):
    def change(rows):
        places = [place for place, name in enumerate(rows[0]) if name in ("subject_id", "study_id")]
        return [rows[0]] + [
            [form(cell) if place in places else cell for place, cell in enumerate(row)]
            for row in rows[1:]
        ]

    return change


def _values(old, new):
    return lambda rows: (
        [rows[0]]
        + [[*row[:2], *(new if cell == old else cell for cell in row[2:])] for row in rows[1:]]
    )


SAVED_AGAIN = {
    "an index in the labels": ("chexpert", _index),
    "an index in the metadata": ("metadata", _index),
    "an index in the splits": ("split", _index),
    "a named index": ("chexpert", lambda rows: [["Unnamed: 0", *rows[0]], *_index(rows)[1:]]),
    "decimal ids in the labels": ("chexpert", _ids(lambda cell: f"{cell}.0")),
    "decimal ids in the metadata": ("metadata", _ids(lambda cell: f"{cell}.0")),
    "ids with letters": ("metadata", lambda rows: [rows[0]] + [
        [row[0], f"p{row[1]}", f"s{row[2]}", *row[3:]] for row in rows[1:]]),
    "nan": ("chexpert", _values("", "nan")),
    "truth values": ("chexpert", _values("1.0", "True")),
    "blanks in the header": ("chexpert", lambda rows: [[f" {n}" for n in rows[0]], *rows[1:]]),
    "columns moved": ("metadata", lambda rows: [row[::-1] for row in rows]),
    "views in lower case": ("metadata", lambda rows: [rows[0]] + [
        [cell.lower() if place == 3 else cell for place, cell in enumerate(row)]
        for row in rows[1:]]),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAVED_AGAIN)
def test_a_table_saved_again_gives_the_same_set(tmp_path, kind):
    hospital.draw(tmp_path / "raw", studies=8)
    before = prepare(tmp_path / "raw", tmp_path / "before")
    table, change = SAVED_AGAIN[kind]
    edit_table(tmp_path / "raw", table, cells(change))
    after = prepare(tmp_path / "raw", tmp_path / "after")
    assert (after.shards, after.label_names) == (before.shards, before.label_names)
    assert after.labels == before.labels


USELESS = {
    "a column of text": lambda rows: [[*rows[0], "split"]] + [[*r, "train"] for r in rows[1:]],
    "ids of other studies": lambda rows: [rows[0]] + [[r[0], f"9{r[1]}", *r[2:]] for r in rows[1:]],
    "only two rows": lambda rows: rows[:3],
    "rounded ids": lambda rows: [rows[0]] + [[r[0], "5.00E+07", *r[2:]] for r in rows[1:]],
}


@pytest.mark.parametrize("kind", USELESS)
def test_a_label_table_that_is_not_of_these_studies_is_refused(tmp_path, kind):
    hospital.draw(tmp_path / "raw", studies=10)
    edit_table(tmp_path / "raw", "chexpert", cells(USELESS[kind]))
    with pytest.raises(DataError, match="--labels_table"):
        prepare(tmp_path / "raw", tmp_path / "out")
    assert prepare(tmp_path / "raw", tmp_path / "none", labels="none").label_names == ()


def test_rows_of_all_tables_add_up(tmp_path):
    hospital.draw(tmp_path / "raw", studies=12)
    edit_table(tmp_path / "raw", "metadata", lambda lines: [*lines, lines[1], "x,1"])
    edit_table(tmp_path / "raw", "split", lambda lines: [*lines[:-3], "other,5,1,train", lines[1]])
    edit_table(tmp_path / "raw", "chexpert", lambda lines: [*lines, "1,59999999,1.0,,", "1,s,x,,"])
    manifest = prepare(tmp_path / "raw", tmp_path / "out")
    assert len(manifest.tables) == 3
    for rows in manifest.tables.values():
        assert rows.read == rows.kept + sum(rows.rejected.values())
        assert len(rows.rejected) >= 2
    assert verify.verify(verify.Settings(path=str(tmp_path / "out"))) == []


def as_json_lines(path):
    """Writes a packed table again as .jsonl, and returns its path."""
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    out = path.with_name(f"{path.name.split('.csv')[0]}.jsonl")
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path.unlink()
    return str(out)


def test_every_table_may_be_json_lines(tmp_path):
    hospital.draw(tmp_path / "raw", studies=8)
    before = prepare(tmp_path / "raw", tmp_path / "before")
    kinds = {"metadata": "metadata", "split": "split", "labels": "chexpert"}
    given = {
        f"{flag}_table": as_json_lines(tmp_path / "raw" / f"mimic-cxr-2.0.0-{kind}.csv.gz")
        for flag, kind in kinds.items()
    }
    after = mimic_cxr.prepare(
        mimic_cxr.Paths(images_dir=str(tmp_path / "raw"), **given),
        mimic_cxr.Settings(short_side=64, studies_per_shard=8),
        cli.RunOptions(out=str(tmp_path / "after"), workers=1),
    )
    assert (after.shards, after.labels) == (before.shards, before.labels)


@pytest.mark.parametrize("labels", ["chexpert", "negbio"])
def test_labels_that_are_not_there_are_asked_for(tmp_path, labels):
    hospital.draw(tmp_path / "raw", studies=2)
    (tmp_path / "raw" / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    with pytest.raises(DataError, match=rf"--labels.*{labels}\.csv\.gz.*--labels=none"):
        prepare(tmp_path / "raw", tmp_path / "out", labels=labels)
    assert prepare(tmp_path / "raw", tmp_path / "out", labels="none").label_names == ()


@pytest.mark.parametrize(
    "name", ["old-metadata.csv", "mimic-cxr-2.1.0-metadata.csv.gz", "mimic-cxr-2.0.0-metadata.csv"]
)
def test_two_tables_that_could_be_meant_are_refused_by_name(tmp_path, name):
    hospital.draw(tmp_path / "raw", studies=2)
    (tmp_path / "raw" / name).write_bytes(b"")
    with pytest.raises(DataError, match=rf"--images_dir.*{name}.*--metadata_table"):
        prepare(tmp_path / "raw", tmp_path / "out")


NO_NUMBERS = ("1123_4567", "-51234567", "9" * 20, "\u0661\u0662", "1.5", "+7", "", "p", "1 2")


@pytest.mark.parametrize("column", ["subject_id", "study_id"])
def test_ids_that_are_no_numbers_are_counted(tmp_path, column):
    drawn = hospital.draw(tmp_path / "raw", studies=2 * len(NO_NUMBERS))

    def change(rows):
        place = rows[0].index(column)
        for row, written in zip(rows[1::4], NO_NUMBERS, strict=True):
            row[place] = written
        return rows

    edit_table(tmp_path / "raw", "metadata", cells(change))
    manifest = prepare(tmp_path / "raw", tmp_path / "out", labels="none")
    assert manifest.rejected["malformed_row"] == len(NO_NUMBERS)
    assert sum(c.studies for c in manifest.splits.values()) == len(drawn) - len(NO_NUMBERS)


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
