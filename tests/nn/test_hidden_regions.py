"""Copies of images with hidden regions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.nn.hidden_regions import (
    append_copies,
    draw_visible,
    hide,
    with_copies_first,
    without_copies,
)


@pytest.mark.parametrize("size", (24, 22))
def test_the_pixels_of_a_hidden_region_lie_about_its_centre(size):
    spacing, side = 4, -(-size // 4)
    image = jnp.ones((1, size, size, 2))
    for row, column in ((0, 0), (2, 3), (side - 1, side - 1)):
        visible = np.ones((1, side, side), bool)
        visible[0, row, column] = False
        found = np.asarray(hide(image, jnp.asarray(visible), spacing=spacing))[0]
        np.testing.assert_array_equal(found[..., 0], found[..., 1])
        pixels = np.arange(size)
        # The pixels nearest to i * spacing; those beyond the last region belong to it.
        near_row, near_column = (
            (pixels >= i * spacing - spacing // 2)
            & ((pixels < i * spacing + spacing // 2) | (i == side - 1))
            for i in (row, column)
        )
        expected = ~(near_row[:, None] & near_column[None])
        np.testing.assert_array_equal(found[..., 0], expected)


@pytest.mark.parametrize("side", (1, 2, 5))
def test_squares_of_regions_are_hidden_with_the_given_probability(side):
    visible = draw_visible(jax.random.key(0), images=300, grid=(12, 13), share=0.3, side=side)
    assert visible.shape == (300, 12, 13) and visible.dtype == bool
    assert np.mean(~np.asarray(visible)) == pytest.approx(0.3, abs=0.03)
    for row, column in ((0, 0), (side, 0), (12 // side * side - side, 13 // side * side - side)):
        square = np.asarray(visible)[:, row : row + side, column : column + side]
        np.testing.assert_array_equal(square, np.broadcast_to(square[:, :1, :1], square.shape))
    # Neighbouring squares are drawn on their own.
    assert np.any(np.asarray(visible)[:, 0, 0] != np.asarray(visible)[:, 0, side])


@pytest.mark.parametrize("every", (1, 2, 4))
def test_copies_are_appended_and_taken_out_again(every):
    rows = jnp.broadcast_to(jnp.arange(8.0)[:, None], (8, 3))
    copies = 100.0 + rows[::every]
    both = append_copies(rows, copies)
    assert both.shape == (8 + 8 // every, 3)
    np.testing.assert_array_equal(without_copies(both, groups=8 // every), rows)
    expected = np.array(rows)
    expected[::every] += 100.0
    np.testing.assert_array_equal(with_copies_first(both, groups=8 // every), expected)
