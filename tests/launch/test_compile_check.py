"""The full-size models fit a pod of TPU v5e, and their cost a chip does not grow with the pod.

Compiled for slices that are not there, by libtpu: pip install 'prior_jax[tpu]'. Minutes each.
"""

import functools
import json
import pathlib
import subprocess
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).parents[2]
MODELS = {"prior": "configs/prior/paper.py", "gloria": "configs/gloria/pod.py"}
CHIPS = (16, 256)
PAIRS = 128
SECONDS = 120
"""Of processors, to compile for the larger slice."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@functools.cache
def found(model, chips):
    """What the program says of a model's last stage on a slice."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "found.json"
        run = subprocess.run(
            [
                sys.executable, "-m", "launch.compile_check", f"--config={MODELS[model]}",
                f"--machine=configs/machines/v5e_{chips}.py", f"--pairs_per_chip={PAIRS}",
                f"--json={path}",
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr
        (report,) = json.loads(path.read_text())
    return report


@pytest.mark.parametrize("chips", CHIPS)
@pytest.mark.parametrize("model", MODELS)
def test_128_pairs_fit_a_chip_in_bfloat16(model, chips):
    report = found(model, chips)
    assert (report["compiled_for"], report["chips"]) == ("tpu", chips)
    assert report["dtype"] == "bfloat16"
    assert report["fits"] and report["memory_bytes"]["total"] < 16e9


@pytest.mark.parametrize("model", MODELS)
def test_a_pair_costs_a_chip_as_much_on_a_pod(model):
    few, many = (found(model, chips) for chips in CHIPS)
    assert many["flops"] == pytest.approx(few["flops"], rel=0.05)
    assert few["flops"] > 1e13


@pytest.mark.parametrize("chips", CHIPS)
@pytest.mark.parametrize("model", MODELS)
def test_what_crosses_the_network_is_told(model, chips):
    report = found(model, chips)
    kinds = {part["kind"] for part in report["collectives"]}
    assert {"all-reduce", "all-gather"} <= kinds
    assert report["collective_bytes"] == sum(part["bytes"] for part in report["collectives"]) > 1e8


@pytest.mark.parametrize("model", MODELS)
def test_a_pod_s_program_compiles_within_two_minutes_of_a_processor(model):
    assert found(model, CHIPS[-1])["compile_cpu_seconds"] <= SECONDS
