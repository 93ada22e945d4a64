"""Non-maximum suppression against the boxes that LoVT's and MGCA's code keeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.nn.nms import corners_of, non_maximum_suppression
from tests.golden import reader

pytestmark = pytest.mark.golden


@pytest.mark.parametrize("settings", ["lovt", "mgca", "custom"])
@pytest.mark.parametrize("case", ["one", "multi"])
def test_kept_boxes(golden_dir, case, settings):
    golden = reader.load(golden_dir, "downstream", "nms")
    predictions = jnp.asarray(golden[f"in/{case}/predictions"])
    scores = predictions[..., 4]
    classes = jnp.argmax(predictions[..., 5:], axis=-1)
    boxes = corners_of(predictions[..., :4])
    suppress = functools.partial(
        non_maximum_suppression,
        least_score=golden.scalar(f"in/config/conf_{settings}"),
        overlap=golden.scalar(f"in/config/nms_{settings}"),
        extra_pixel=True,
    )
    kept = np.asarray(jax.jit(suppress)(boxes, scores, classes))
    out = golden.prefix(f"out/{case}/{settings}/")
    # `index` names the first of rows with the same box and score, so that values are compared.
    start = 0
    for image, length in enumerate(out["lovt_code/lengths"]):
        part = slice(start, start + length)
        start += length
        found = np.flatnonzero(kept[image])
        rows = np.asarray(boxes)[image, found]
        rows = np.concatenate([rows[:, :2], rows[:, 2:] - rows[:, :2]], axis=1)
        ours = np.column_stack([rows, scores[image, found], classes[image, found]])
        names = ("boxes", "conf", "classes")
        theirs = np.column_stack([out[f"lovt_code/{name}"][part] for name in names])
        assert len(ours) == length
        np.testing.assert_allclose(sorted_rows(ours), sorted_rows(theirs), rtol=1e-5, atol=1e-4)


def sorted_rows(rows):
    """Rows in the order of class, score and box."""
    rows = np.asarray(rows, np.float64).reshape(-1, 6)
    return rows[np.lexsort(np.round(rows, 3).T[[3, 2, 1, 0, 4, 5]])]
