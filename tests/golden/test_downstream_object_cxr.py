"""Boxes and masks of Object-CXR against those of LoVT's and MGCA's code."""

import numpy as np
import pytest
from scipy import ndimage

from data_prep import object_cxr
from tests.golden.reader import load

pytestmark = [pytest.mark.golden, pytest.mark.golden_full]


@pytest.fixture(scope="module")
def recorded(golden_dir):
    return load(golden_dir, "downstream", "boxes_preprocessing")


def of_annotations(recorded, name):
    """Annotation and its rows of the recorded boxes, for each annotation."""
    rows, lengths = (recorded[f"out/annotations/{name}/{part}"] for part in ("rows", "lengths"))
    parts = np.split(rows, np.cumsum(lengths)[:-1])
    return zip(recorded["in/annotations"].tolist(), parts, strict=True)


def test_boxes_equal_lovt_s_and_those_that_it_should_have_written(recorded):
    for text, expected in of_annotations(recorded, "lovt_xyhw"):
        shapes = object_cxr.shapes_of(text)
        released = [region.box for region in object_cxr.regions_of(shapes, geometry="lovt")]
        x, y, third, fourth = expected.reshape(-1, 4).T
        read = np.stack([x, y, x + third, y + fourth], axis=1)  # as its loader takes them
        np.testing.assert_array_equal(np.reshape(released, (-1, 4)), read)
        right = [region.box for region in object_cxr.regions_of(shapes)]
        meant = np.stack([x, y, x + fourth, y + third], axis=1)
        np.testing.assert_array_equal(np.reshape(right, (-1, 4)), meant)


def test_boxes_of_rectangles_and_ellipses_equal_mgca_s(recorded):
    for text, expected in of_annotations(recorded, "mgca_xywh"):
        for shape, (x, y, w, h) in zip(object_cxr.shapes_of(text), expected, strict=True):
            x1, y1, x2, y2 = object_cxr.box_of(shape)
            if shape[0] == object_cxr.POLYGON:  # MGCA's are too large (quirk M14)
                assert w >= x2 - x1 and h >= y2 - y1
            else:
                assert (x1, y1, x2, y2) == (x, y, x + w, y + h)


def test_masks_equal_lovt_s_but_for_the_pixels_of_a_polygon_s_outline(recorded):
    for place, text in enumerate(recorded["in/object/annotation"].tolist()):
        expected = recorded[f"out/object/lovt/mask{place}"] > 0
        found = np.zeros_like(expected)
        for region in object_cxr.regions_of(object_cxr.shapes_of(text), geometry="lovt"):
            assert region.mask is not None
            found |= region.mask(*expected.shape)
        # OpenCV fills whatever the outline touches; ours has pixels whose centres are inside.
        assert not (found & ~ndimage.binary_dilation(expected)).any()
        assert not (ndimage.binary_erosion(expected, iterations=2) & ~found).any()
        assert expected.any() == found.any()
