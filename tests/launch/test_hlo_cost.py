import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from launch.forecast import hlo_cost, hlo_text


def cost(function, *arguments, devices=1):
    text = jax.jit(function).lower(*arguments).compile().as_text()
    return hlo_cost.cost_of(hlo_text.read(text), devices=devices)


def test_a_product_in_a_loop_counts_as_often_as_it_runs():
    x, w = np.ones((8, 16), np.float32), np.ones((5, 16, 16), np.float32)

    def loop(x, w):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]

    assert cost(lambda x, w: x @ w[0], x, w).flops == 2 * 8 * 16 * 16
    assert cost(loop, x, w).flops == 5 * 2 * 8 * 16 * 16


def test_a_convolution_counts_the_taps_that_fall_on_the_image():
    image, kernel = np.ones((1, 8, 8, 3), np.float32), np.ones((3, 3, 3, 4), np.float32)

    def convolve(image, kernel):
        return jax.lax.conv_general_dilated(
            image, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    assert cost(convolve, image, kernel).flops == 2 * 6 * 6 * 4 * 3 * 3 * 3


@pytest.mark.multidevice
def test_the_sum_over_devices_is_one_all_reduce_of_the_array():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, P("data"))
    x = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=rows)
    found = cost(lambda x: jnp.sum(x, axis=0), x, devices=8)
    (one,) = found.collectives.values()
    assert (one.kind, one.group, one.count, one.bytes) == ("all-reduce", 8, 1, 32 * 4)
    assert one.sent == pytest.approx(2 * 7 / 8 * 32 * 4)
    assert found.collective_bytes == 32 * 4


@pytest.mark.slow
def test_the_debug_job_is_checked_for_simulated_devices(tmp_path):
    run = subprocess.run(
        [
            sys.executable, "-m", "launch.compile_check", "--config=configs/debug.py",
            "--machine=configs/machines/cpu.py", "--platform=cpu", "--pairs_per_chip=2",
            f"--json={tmp_path / 'found.json'}",
        ],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    (report,) = json.loads((tmp_path / "found.json").read_text())
    assert report["fits"] and "fits" in run.stdout
