"""Sizes of blocks of rows."""

import pytest

from prior_jax.evaluate.features import fitting


@pytest.mark.parametrize(
    ("block", "count", "found"),
    [(64, 21, 32), (64, 32, 32), (64, 64, 64), (64, 65, 64), (64, 5000, 64), (48, 33, 48)]
    + [(64, 1, 1), (64, 2, 2), (1, 9, 1), (64, 0, 1)],
)
def test_few_rows_make_small_blocks(block, count, found):
    assert fitting(block, count) == found
