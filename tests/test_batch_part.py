"""The rows of a global batch that a process loads."""

import numpy as np
import pytest

from prior_jax.types import WHOLE_BATCH, BatchPart


def test_parts_make_up_the_batch():
    np.testing.assert_array_equal(WHOLE_BATCH.rows(6), np.arange(6))
    parts = [BatchPart(blocks=blocks, count=4).rows(8) for blocks in ((0, 3), (1,), (2,))]
    assert [part.tolist() for part in parts] == [[0, 1, 6, 7], [2, 3], [4, 5]]
    with pytest.raises(ValueError, match="8 rows cannot be cut into 3 equal blocks"):
        BatchPart(blocks=(0,), count=3).rows(8)
