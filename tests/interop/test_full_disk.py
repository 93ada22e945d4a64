"""Weights and exports on a disk that is full: one line that says so, and nothing is left there."""

import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from launch.export import export
from prior_jax.errors import ConfigError, WeightsError
from prior_jax.interop import weights_folder
from prior_jax.interop.weights_folder import save_weights
from prior_jax.storage_errors import OUT_OF_SPACE
from tests.interop import exports

ROOT = pathlib.Path(__file__).parents[2]
# Of a process that is not root, in a user namespace of its own.
ALONE = ["unshare", "--mount"] + ([] if os.getuid() == 0 else ["--user", "--map-root-user"])


@pytest.fixture(scope="module")
def weights():
    return exports.image_weights()


@pytest.fixture
def full(monkeypatch):
    """Lets the library of arrays fail as on a full disk, while a thread of its own writes on."""
    threads = []

    def save(path, tree):
        def write_on():
            time.sleep(0.2)
            late = pathlib.Path(f"{path}.orbax-checkpoint-tmp") / "d"
            late.mkdir(parents=True, exist_ok=True)
            (late / "late").write_bytes(b"late")

        threads.append(threading.Thread(target=write_on))
        threads[-1].start()
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write\n9 bytes: No space left on device")

    monkeypatch.setattr(weights_folder.ocp, "save", save)
    yield
    for thread in threads:
        thread.join()


def test_weights_are_refused_in_one_line_and_leave_nothing(tmp_path, weights, full):
    hook = sys.unraisablehook
    with pytest.raises(WeightsError, match=r"w: There is no space left on the device\. Free some"):
        save_weights(tmp_path / "w", weights)
    assert os.listdir(tmp_path) == [] and sys.unraisablehook is hook


def test_an_error_that_is_not_of_the_disk_is_told(tmp_path, weights, monkeypatch):
    def save(path, tree):
        raise TypeError("an array of objects\nsecond line")

    monkeypatch.setattr(weights_folder.ocp, "save", save)
    with pytest.raises(WeightsError, match=r"w: .*\(TypeError: an array of objects\)\. Choose"):
        save_weights(tmp_path / "w", weights)


def test_an_export_names_its_folder_and_not_the_temporary_one(tmp_path, weights, request):
    save_weights(tmp_path / "w", weights)
    request.getfixturevalue("full")
    with pytest.raises(ConfigError, match=r"--out: .* to /.*/e\. .* no space left on the device"):
        export(tmp_path / "w", tmp_path / "e", formats=("image_safetensors", "nnx"))
    assert os.listdir(tmp_path) == ["w"]


@pytest.mark.slow
def test_a_disk_that_is_really_full(tmp_path):
    """Many arrays, so that many writes are under way at the first that fails."""
    place = tmp_path / "disk"
    place.mkdir()
    code = f"""
import os, sys
import numpy as np
from data_prep.kit import cli
from prior_jax.interop.weights_folder import Weights, save_weights
from prior_jax.storage_errors import OUT_OF_SPACE

rng = np.random.default_rng(0)
arrays = {{f"a{{i}}/b": rng.normal(size=(100, 50)).astype(np.float32) for i in range(200)}}
weights = Weights(part="image", objective=None, model={{}}, data={{}}, origin={{}}, arrays=arrays)
code = cli.guarded(lambda: save_weights("{place}/w", weights), [""])
print(code, os.listdir("{place}"))
"""
    script = f"mount -t tmpfs -o size=2m tmpfs {place} && exec {sys.executable} -"
    done = subprocess.run(
        [*ALONE, "sh", "-c", script],
        input=code,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout == "2 []\n", done.stderr
    assert done.stderr == f"{place}/w: {' '.join(OUT_OF_SPACE)}\n"
