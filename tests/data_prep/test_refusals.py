"""What a refused command says and leaves behind: one line, exit code 2, no folder of its own."""

import os
import pathlib
import subprocess
import sys

import pytest

from data_prep import manifest
from data_prep.kit import cli, finish
from prior_jax.errors import ConfigError, DataError
from tests.data_prep.test_manifest import prepare_table, table

ROOT = pathlib.Path(__file__).parents[2]
WRONG_FLAGS = {
    "unknown": ("manifest", ["--manifest=t.csv", "--out=o", "--patients=x"], "patients"),
    "absent": ("manifest", ["--out=o"], "--manifest"),
    "of a wrong value": ("manifest", ["--manifest=t.csv", "--out=o", "--workers=many"], "workers"),
    "unknown to the phantom": ("phantom", ["--out=o", "--patients=x"], "patients"),
    "absent for the sheet": ("phantom.contact_sheet", ["--out=o"], "--data"),
    "absent for verify": ("verify", [], "--path"),
}


@pytest.mark.parametrize("kind", WRONG_FLAGS)
def test_a_wrong_flag_is_one_line_and_exit_code_2(kind):
    program, arguments, named = WRONG_FLAGS[kind]
    command = [sys.executable, "-m", f"data_prep.{program}", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 2, ended.stderr
    assert len(ended.stderr.splitlines()) == 1 and named in ended.stderr


@pytest.mark.parametrize("there", ["", "new", "new/deep/set"])
def test_a_refused_command_removes_the_folders_that_it_made_and_no_other(tmp_path, there):
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    path = table(tmp_path, ("image", "text"), ("a.jpg", "Clear."))
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DataError, match="missing_image"):
        prepare_table(tmp_path, path, out="new/deep/set")
    assert sorted(tmp_path.rglob("*")) == sorted([*before, pathlib.Path(path)])


def test_images_that_are_all_missing_are_named_once_with_their_folder(tmp_path):
    path = table(tmp_path, ("image", "text"), ("a.jpg", "Clear."))
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"--images_dir") as error:
        prepare_table(tmp_path, path)
    assert str(error.value).count("a.jpg") == 1 and str(tmp_path / "a.jpg") in str(error.value)


def test_another_set_in_the_folder_is_told_apart_by_setting_and_input(tmp_path):
    path = table(tmp_path, ("image", "text"), ("a.jpg", "Clear."))
    prepare_table(tmp_path, path)
    with pytest.raises(ConfigError, match=r"--min_sentences is 1 there and 2 here.*--overwrite"):
        prepare_table(tmp_path, path, min_sentences=2)
    table(tmp_path, ("image", "text"), ("a.jpg", "Wet."))
    with pytest.raises(ConfigError, match=r"the content of rows\.csv has changed"):
        prepare_table(tmp_path, path)
    with pytest.raises(ConfigError, match=r"--kept_columns is .* there and source here"):
        prepare_table(tmp_path, path, kept_columns=("source",))


@pytest.mark.parametrize("flag", ["--out", "--manifest", "--images_dir"])
def test_names_that_are_too_long_are_refused(tmp_path, flag):
    path = table(tmp_path, ("image", "text"), ("a.jpg", "Clear."))
    given = {"--out": str(tmp_path / "out"), "--manifest": path, "--images_dir": str(tmp_path)}
    given[flag] = str(tmp_path / ("x" * 300))
    if flag == "--manifest":
        given[flag] += ".csv"
    with pytest.raises(ConfigError, match=rf"{flag}.*255 bytes"):
        manifest.prepare(
            manifest.Paths(manifest=given["--manifest"], images_dir=given["--images_dir"]),
            manifest.Settings(),
            cli.RunOptions(out=given["--out"], workers=1),
        )


def test_a_pipe_is_no_image(tmp_path):
    path = table(tmp_path, ("image", "text"), ("a.jpg", "Clear."), ("b.jpg", "Clear."))
    (tmp_path / "a.jpg").unlink()
    os.mkfifo(tmp_path / "a.jpg")
    assert prepare_table(tmp_path, path).rejected == {"unreadable_image": 1}


def test_the_summary_says_what_is_not_there(tmp_path):
    path = table(tmp_path, ("image", "labels"), ("a.jpg", "Edema"))
    text = finish.summary(prepare_table(tmp_path, path), out="out")
    for words in (
        "no text column",
        "no patient column ('patient_id'): each study counts as a patient",
        "splits are drawn by patient",
        "no study is in train or validate. Change --split_fractions or --split_seed",
    ):
        assert words in text
