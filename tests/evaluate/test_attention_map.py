import jax
import numpy as np
import pytest

from prior_jax.evaluate.attention_map import spread


def test_a_patch_lies_on_the_pixel_it_is_centred_on_and_the_map_is_bilinear_between():
    found = spread(np.array([[0.0, 1.0], [2.0, 3.0]]), shape=(8, 4), spacing=2)
    assert found.shape == (8, 4)
    assert found[0, 0] == 0 and found[0, 2] == 1 and found[2, 0] == 2 and found[2, 2] == 3
    assert found[1, 1] == pytest.approx(1.5)
    # Beyond the last centre nothing changes.
    assert found[7, 3] == 3


def test_the_centres_are_those_of_strided_convolutions_padded_as_torch_does():
    def convolve(x):
        for size in (7, 3):  # a stem and a stage, of stride 2 each
            kernel = np.ones((size, size, 1, 1), np.float32)
            x = jax.lax.conv_general_dilated(
                x, kernel, (2, 2), [(size // 2, size // 2)] * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )  # fmt: skip
        return x[0, 4, 2, 0]

    seen = np.asarray(jax.grad(convolve)(np.zeros((1, 32, 32, 1), np.float32)))[0, :, :, 0]
    centre = [np.average(np.arange(32), weights=seen.sum(axis=axis)) for axis in (1, 0)]
    assert centre == pytest.approx([16, 8])
    one = np.zeros((8, 8))
    one[4, 2] = 1
    drawn = spread(one, shape=(32, 32), spacing=4)
    assert np.unravel_index(np.argmax(drawn), drawn.shape) == (16, 8)
