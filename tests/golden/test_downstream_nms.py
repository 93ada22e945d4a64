"""Non-maximum suppression against the boxes that LoVT's and MGCA's code keeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.evaluate.nms import corners_of, non_maximum_suppression
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
    released = out["index_if_sort_were_stable"]
    start = 0
    for image, length in enumerate(out["lovt_code/lengths"]):
        expected = released[start : start + length]
        assert sorted(expected.tolist()) == np.flatnonzero(kept[image]).tolist()
        # The releases write class after class, each from the highest score on.
        found = np.flatnonzero(kept[image])
        order = np.lexsort((found, -np.asarray(scores)[image, found], classes[image, found]))
        np.testing.assert_array_equal(found[order], expected)
        rows = np.asarray(boxes)[image, found[order]]
        x1y1wh = np.concatenate([rows[:, :2], rows[:, 2:] - rows[:, :2]], axis=1)
        recorded = out["lovt_code/boxes"][start : start + length]
        if (out["index"][start : start + length] == expected).all():  # no exact tie was turned
            np.testing.assert_allclose(x1y1wh, recorded, rtol=1e-5, atol=1e-4)
        start += length
