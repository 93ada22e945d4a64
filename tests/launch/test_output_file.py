"""Files and folders of results are tried before anything is computed for them."""

import pathlib

import pytest

from launch.start import output_file
from prior_jax.errors import ConfigError


def test_a_folder_that_cannot_be_made_is_refused_and_one_that_can_is_not_made(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "below"):
        with pytest.raises(ConfigError, match="it is a file"):
            output_file.check_folder(folder, where="--out")
    with pytest.raises(ConfigError, match=r"nothing can be made in /proc "):
        output_file.check_folder(pathlib.Path("/proc/results"), where="--out")
    output_file.check_folder(tmp_path / "new" / "folder", where="--out")
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_keeps_its_content_and_one_that_cannot_be_written_is_refused(tmp_path):
    kept = tmp_path / "kept.json"
    kept.write_text("{}")
    output_file.check_file(kept, where="--json")
    assert kept.read_text() == "{}"
    output_file.check_file(tmp_path / "new" / "found.json", where="--json")
    assert not list((tmp_path / "new").iterdir())
    for path in (tmp_path, kept / "found.json"):
        with pytest.raises(ConfigError, match=r"^--json: .*cannot be written"):
            output_file.check_file(path, where="--json")
