"""Sizes of blocks of rows."""

import pytest

from prior_jax.evaluate.features import fitting


@pytest.mark.parametrize(("count", "found"), [(0, 1), (1, 1), (2, 2), (21, 32), (32, 32), (64, 64)])
def test_few_rows_make_small_blocks(count, found):
    assert fitting(64, count) == found


def test_a_block_is_never_larger_than_asked_for():
    assert [fitting(block, 33) for block in (1, 48, 64)] == [1, 48, 64]
    assert fitting(64, 5000) == 64
