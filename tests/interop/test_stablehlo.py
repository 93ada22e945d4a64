import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import export

from prior_jax.errors import ExportError
from prior_jax.interop.export import stablehlo
from prior_jax.interop.export.stablehlo import export_towers
from prior_jax.interop.export.towers import towers
from tests.interop import tiny_towers

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "weights.md"
BATCHES = (1, 7)
_SLOW = pytest.mark.slow
# What the example of the docs is followed by: the same towers at other batches, and the proof
# that nothing but jax was there.
FOLLOWED_BY = f"""
for tower in ("image", "text"):
    program = jax_export.deserialize(bytearray(pathlib.Path(tower + ".stablehlo").read_bytes()))
    inputs = np.load(tower + ".npz")
    for rows in {BATCHES}:
        found = program.call(*(inputs[name][:rows] for name in inputs))
        np.savez(f"{{tower}}_{{rows}}.npz", **found)
import sys
assert not {{"prior_jax", "flax"}} & set(sys.modules)
"""


def example():
    """The first Python block of the docs' section."""
    section = DOCS.read_text().split("## StableHLO and ONNX")[1]
    return section.split("```python\n")[1].split("```")[0]


def run_elsewhere(folder, code):
    """Runs code in a new process that cannot see this project."""
    command = [sys.executable, "-I", "-W", "error", "-c", code]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=300)


# The release draws noise at inference.
@pytest.mark.parametrize("name", ["prior-paper", pytest.param("prior-release", marks=_SLOW)])
def test_a_fresh_process_needs_nothing_but_jax(name, tmp_path):
    objective, model = tiny_towers.made(name)
    inputs = tiny_towers.inputs(max(BATCHES))
    for tower, program in export_towers(objective, model, **tiny_towers.SIZES).items():
        (tmp_path / f"{tower}.stablehlo").write_bytes(program)
        np.savez(tmp_path / f"{tower}.npz", **inputs[tower])
    side = tiny_towers.SIZES["image_shape"][0]
    code = example()
    assert len(code.splitlines()) <= 15 and "2, 224, 224" in code
    run_elsewhere(tmp_path, code.replace("2, 224, 224", f"7, {side}, {side}") + FOLLOWED_BY)
    expected = tiny_towers.expected(objective, model, max(BATCHES))
    for tower, outputs in expected.items():
        for rows in BATCHES:
            with np.load(tmp_path / f"{tower}_{rows}.npz") as found:
                # A report's noise follows its place in the batch, not the batch's size.
                leading = {field: value[:rows] for field, value in outputs.items()}
                tiny_towers.assert_near(dict(found), leading, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny_towers.NAMES)
def test_every_objective_gives_what_it_gives_itself(name):
    objective, model = tiny_towers.made(name)
    programs = export_towers(objective, model, **tiny_towers.SIZES)
    expected = tiny_towers.expected(objective, model, 3)
    for tower, arrays in tiny_towers.inputs(3).items():
        program = export.deserialize(bytearray(programs[tower]))
        assert program.platforms == ("cpu", "cuda", "tpu")
        found = jax.tree.map(np.asarray, program.call(*arrays.values()))
        tiny_towers.assert_near(found, expected[tower], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scan_layers", [True, False])
def test_remat_and_bfloat16_leave_the_building_too(scan_layers):
    text = tiny_towers.made("clip")[0].config.text
    text = type(text)(**{**vars(text), "remat": "layer", "scan_layers": scan_layers})
    objective, model = tiny_towers.made("clip", text=text, dtype="bfloat16")
    programs = export_towers(objective, model, **tiny_towers.SIZES)
    exact = tiny_towers.expected(*tiny_towers.made("clip"), 3)
    for tower, arrays in tiny_towers.inputs(3).items():
        found = export.deserialize(bytearray(programs[tower])).call(*arrays.values())
        tiny_towers.assert_near(jax.tree.map(np.asarray, found), exact[tower], 0.05)


def test_sizes_that_are_no_sizes_are_refused_by_name():
    objective, model = tiny_towers.made("clip")
    for name, value in (("image_shape", (32, 32)), ("max_tokens", 0), ("max_sentences", -1)):
        with pytest.raises(ValueError, match=name):
            towers(objective, model, **{**tiny_towers.SIZES, name: value})


def test_a_program_too_large_for_one_file_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(stablehlo, "_MOST_WEIGHTS", 1000)
    with pytest.raises(ExportError, match="image tower"):
        export_towers(*tiny_towers.made("clip"), platforms=("cpu",), **tiny_towers.SIZES)
