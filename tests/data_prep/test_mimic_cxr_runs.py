"""Runs of MIMIC-CXR's preparer that are killed, stopped, refused or repeated."""

import os
import signal
import subprocess
import time

import pytest

from prior_jax.data import manifest as manifest_lib
from prior_jax.errors import ConfigError
from tests.data_prep import hospital
from tests.data_prep.mimic_runs import ROOT, command, files_of, prepare


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


def test_reports_of_another_folder_are_another_set(tmp_path):
    root, out = tmp_path / "raw", tmp_path / "out"
    drawn = hospital.draw(root, studies=6)
    for name in ("same", "fewer", "mended"):
        for subject, study in drawn:
            text, _ = hospital.paths_of(root, subject, study)
            copy = tmp_path / name / text.relative_to(root / "files")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text.read_text())
    (tmp_path / "fewer" / copy.relative_to(tmp_path / "mended")).unlink()
    copy.write_text(text.read_text().replace("No acute", "An acute and new"))
    prepare(root, out)
    before = files_of(out)
    prepare(root, out, reports=tmp_path / "same")
    assert files_of(out) == before
    for name in ("fewer", "mended"):
        with pytest.raises(ConfigError, match=r"--out.*other settings or inputs.*reports"):
            prepare(root, out, reports=tmp_path / name)
    assert files_of(out) == before


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
