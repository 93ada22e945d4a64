"""The preparer that CONTRIBUTING.md writes out is a preparer."""

import importlib.util
import pathlib
import re
import sys

import pytest

from data_prep import verify
from data_prep.kit import cli
from prior_jax.data import reader
from prior_jax.errors import DataError
from tests.data_prep import hospital

ROOT = pathlib.Path(__file__).parents[2]
HEADER = "Case,Patient,File,Report,Pneumonia,Fracture\n"


@pytest.fixture
def teaching(tmp_path, monkeypatch):
    """The module of the guide."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    guide = text[text.index("## Adding a data set") :]
    (tmp_path / "teaching.py").write_text(re.search(r"```python\n(.*?)```", guide, re.S)[1])
    spec = importlib.util.spec_from_file_location("teaching", tmp_path / "teaching.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "teaching", module)
    spec.loader.exec_module(module)
    return module


def prepare(module, folder, rows):
    (folder / "cases.csv").write_text(HEADER + rows)
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(hospital.jpeg(number))
    return module.prepare(
        module.Paths(root=str(folder)),
        module.Settings(short_side=64),
        cli.RunOptions(out=str(folder / "out"), workers=1),
    )


def test_the_example_prepares_a_set_in_which_every_row_is_counted(teaching, tmp_path):
    rows = (
        'c1,p1,0.jpg,"Large, wet lungs.\nNo effusion.",1,\n'
        'c1,p1,1.jpg,"Large, wet lungs.\nNo effusion.",1,\n'
        "c2,p2,absent.jpg,Clear.,0,0\n"
        "c3,,2.jpg,Clear.,0,0\n"
        "c4,p4,3.jpg,Clear.,often,0\n"
        "c5,p5\n"
        "c6,p6,2.jpg,,0,0\n"
    )
    manifest = prepare(teaching, tmp_path, rows)
    assert verify.verify(verify.Settings(path=str(tmp_path / "out"), sample=1.0)) == []
    (split,) = (name for name, counts in manifest.splits.items() if counts.studies)
    record = reader.RecordReader(tmp_path / "out", split).read(0)
    assert record.study_id == "c1" and record.image_ids == ("0.jpg", "1.jpg")
    assert record.labels == (1, -2) and record.sentences == ("Large, wet lungs.", "No effusion.")
    (counts,) = manifest.tables.values()
    assert counts.read == 7 and counts.kept == 2
    assert counts.rejected == {
        "incomplete_row": 1,
        "malformed_row": 2,
        "missing_image": 1,
        "no_section": 1,
    }


def test_the_example_refuses_a_table_that_is_not_its_own(teaching, tmp_path):
    (tmp_path / "cases.csv").write_text("case,patient,file\n")
    with pytest.raises(DataError, match=r"--root: received 'Case'.*did you mean 'case'"):
        teaching.prepare(
            teaching.Paths(root=str(tmp_path)),
            teaching.Settings(),
            cli.RunOptions(out=str(tmp_path / "out"), workers=1),
        )
