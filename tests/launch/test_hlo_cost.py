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


# A product with one of 12 layers' weights, sliced in a fusion within the fusion of the product, as
# libtpu compiles a loop over layers.
NESTED = """HloModule nested

%inner (a: f32[12,16,16], i: s32[]) -> f32[16,16] {
  %a = f32[12,16,16] parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[1,16,16] dynamic-slice(%a, %i, %zero, %zero), dynamic_slice_sizes={1,16,16}
  ROOT %one = f32[16,16] bitcast(%slice)
}

%outer (weights: f32[12,16,16], index: s32[], x: f32[8,16]) -> f32[8,16] {
  %weights = f32[12,16,16] parameter(0)
  %index = s32[] parameter(1)
  %x = f32[8,16] parameter(2)
  %layer = f32[16,16] fusion(%weights, %index), kind=kLoop, calls=%inner
  ROOT %y = f32[8,16] dot(%x, %layer), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main (w: f32[12,16,16], n: s32[], v: f32[8,16]) -> f32[8,16] {
  %w = f32[12,16,16] parameter(0)
  %n = s32[] parameter(1)
  %v = f32[8,16] parameter(2)
  ROOT %out = f32[8,16] fusion(%w, %n, %v), kind=kOutput, calls=%outer
}
"""


def test_an_array_that_a_fusion_within_a_fusion_slices_counts_by_its_slice():
    found = hlo_cost.cost_of(hlo_text.read(NESTED), devices=1)
    assert found.memory == 4 * (16 * 16 + 1 + 8 * 16 + 8 * 16)


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
