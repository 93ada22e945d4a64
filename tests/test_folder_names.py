"""Programs in folders of unusual names: each works there, or refuses before it computes anything.

Checkpoints in such folders are tested beside the checkpoints, in tests/train/test_checkpoint.py.
"""

import sys

import numpy as np
import pytest

import prior_jax
from data_prep import manifest, verify
from data_prep.kit import cli
from launch.export import export
from prior_jax.data.reader import RecordReader
from prior_jax.errors import ConfigError, PriorJaxError
from prior_jax.interop.weights_folder import load_weights, save_weights
from tests import folder_names
from tests.data_prep import hospital
from tests.end_to_end import runs
from tests.interop import exports

# Preparation reads and writes no arrays through orbax, so that patterns are names to it.
PREPARED = (*folder_names.GOOD, *(n for n in folder_names.UNREADABLE if "\udce4" not in n))


@pytest.fixture(scope="module")
def weights():
    """A small image encoder's."""
    return exports.image_weights()


def prepare(folder):
    """Prepares two studies, with the table, its images and the set all in `folder`."""
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        (folder / f"{name}.jpg").write_bytes(hospital.jpeg(ord(name)))
    table = folder / "rows.csv"
    rows = ("id,patient_id,split,image,text", "a,1,train,a.jpg,Edema.", "b,2,train,b.jpg,Clear.")
    table.write_text("\n".join(rows))
    return manifest.prepare(
        manifest.Paths(manifest=str(table)),
        manifest.Settings(short_side=32),
        cli.RunOptions(out=str(folder / "set"), workers=1),
    )


@pytest.mark.parametrize("name", PREPARED)
def test_a_set_is_prepared_verified_and_read(tmp_path, name):
    prepare(tmp_path / name)
    directory = tmp_path / name / "set"
    assert verify.verify(verify.Settings(path=str(directory), sample=1.0)) == []
    reader = RecordReader(directory, "train")
    assert {reader.read(index).study_id for index in range(len(reader))} == {"a", "b"}


def test_a_set_in_a_folder_that_is_not_utf8_is_refused_without_a_trace(tmp_path):
    folder = tmp_path / "x\udce4"
    with pytest.raises(PriorJaxError, match="UTF-8"):
        prepare(folder)
    assert not (folder / "set").exists()


@pytest.mark.parametrize("name", folder_names.GOOD)
def test_weights_are_written_exported_and_loaded(tmp_path, weights, name):
    folder = tmp_path / name
    save_weights(folder / "weights", weights)
    export(folder / "weights", folder / "exported", formats=("image_safetensors", "nnx"))
    found = load_weights(folder / "exported" / "nnx")
    assert found.arrays.keys() == weights.arrays.keys()
    assert all(np.array_equal(found.arrays[path], weights.arrays[path]) for path in found.arrays)


@pytest.mark.parametrize("name", folder_names.UNREADABLE)
def test_weights_are_not_written_where_they_could_not_be_read(tmp_path, weights, name):
    good, odd = tmp_path / "good", tmp_path / name
    save_weights(good, weights)
    for write in (
        lambda: save_weights(odd / "weights", weights),
        lambda: export(good, odd / "exported", formats=("nnx",)),
    ):
        with pytest.raises(ConfigError, match="could not be read again"):
            write()
    assert not odd.exists()


def test_a_weights_folder_and_an_export_may_have_the_longest_name(tmp_path, weights):
    longest, longer = "x" * 255, "\u00fc" * 128
    save_weights(tmp_path / longest, weights)
    out = tmp_path / "out" / longest
    export(tmp_path / longest, out, formats=("image_safetensors",))
    assert (out / "model.safetensors").is_file()
    for write in (
        lambda: save_weights(tmp_path / longer, weights),
        lambda: export(tmp_path / longest, tmp_path / longer, formats=("nnx",)),
    ):
        with pytest.raises(ConfigError, match=r"has 256 bytes.*at most 255"):
            write()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in folder_names.GOOD if n not in ("..x", "a:b")], ids=lambda name: name[:12]
)
def test_a_run_its_evaluation_and_its_export_in_one_folder(tmp_path, name):
    """The debug job from nothing, then each program that reads the run."""
    folder = tmp_path / name
    commands = (
        ["launch.train", "--config=configs/debug.py", f"--workdir={folder}/run"],
        ["launch.evaluate", f"--workdir={folder}/run", "--task=configs/eval/retrieval.py"],
        ["launch.export", f"--workdir={folder}/run", f"--out={folder}/out", "--format=nnx"],
    )
    for command in commands:
        code, output = runs.finish(runs.Running([sys.executable, "-m", *command]))
        assert code == 0, output
    assert (folder / "run" / "report" / "index.html").is_file()
    assert (folder / "run" / "eval" / "retrieval.json").is_file()
    assert prior_jax.load(folder / "run").text == prior_jax.load(folder / "out").text
