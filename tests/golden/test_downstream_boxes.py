"""Images and boxes as LoVT's and MGCA's code hands them to a detector."""

import csv
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from data_prep import object_cxr
from prior_jax.data import fitting, levels, regions, resample
from prior_jax.data.image import ImageConfig, normalise, placed_input
from tests.golden.reader import assert_close, load

pytestmark = [pytest.mark.golden, pytest.mark.golden_full]

VALUE_RTOL = 1e-4
BOX_RTOL = 1e-5  # boxes are recorded in float32


@pytest.fixture(scope="module")
def recorded(golden_dir):
    return load(golden_dir, "downstream", "boxes_preprocessing")


def numbered(recorded, prefix):
    """Numbers of the arrays whose names are the prefix and a number."""
    found = itertools.takewhile(lambda n: f"{prefix}{n}" in recorded, itertools.count())
    return list(found)


def config_of(size, **chosen):
    return ImageConfig(size=size, channels=1, mean=None, std=None, **chosen)


def corners(rows):
    """x1, y1, x2, y2 of x, y, width, height."""
    rows = np.asarray(rows, np.float64).reshape(-1, 4)
    return np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], axis=1)


@pytest.mark.parametrize(("name", "fit"), [("lovt_pad", "pad_evenly"), ("lovt_resize", "stretch")])
def test_images_and_boxes_are_lovt_s(recorded, name, fit):
    size = recorded.scalar("in/config/lovt_image_size")
    mean, std = (recorded.scalar(f"in/config/lovt_pixel_{part}") for part in ("mean", "std"))
    cases = numbered(recorded, "in/transform/img")
    assert cases
    for case in cases:
        image = Image.fromarray(recorded[f"in/transform/img{case}"])
        shown, place = placed_input(image, config=config_of(size, fit=fit))
        np.testing.assert_array_equal(
            np.asarray(shown), recorded[f"out/transform/{name}/uint8_{case}"]
        )
        pixels = normalise(shown, mean=np.float32([mean]), std=np.float32([std]))
        scan = recorded[f"out/transform/{name}/scan{case}"]
        assert_close(pixels[..., 0], scan, rtol=VALUE_RTOL)
        moved = regions.moved_boxes(corners(recorded[f"in/transform/boxes{case}"]), place)
        expected = np.clip(corners(recorded[f"out/transform/{name}/boxes{case}"]), 0, size)
        np.testing.assert_allclose(moved, expected, rtol=BOX_RTOL, atol=1e-4)


def test_lovt_forgets_a_pixel_of_an_odd_gap(recorded):
    """Quirk L12: its padded image is no square, and a resize to one stretches it."""
    size = recorded.scalar("in/config/lovt_image_size")
    odd = 0
    for case in numbered(recorded, "in/transform/img"):
        image = Image.fromarray(recorded[f"in/transform/img{case}"])
        padded, place = fitting.placed_margins(image, fit="pad_evenly")
        assert list(padded.size) == recorded[f"out/transform/pad_only/size_wh{case}"].tolist()
        boxes = corners(recorded[f"in/transform/boxes{case}"])
        expected = corners(recorded[f"out/transform/pad_only/boxes{case}"])
        inside = np.clip(expected, 0, [*padded.size, *padded.size])
        np.testing.assert_allclose(regions.moved_boxes(boxes, place), inside, rtol=BOX_RTOL)
        square, _ = fitting.placed_margins(image, fit="pad")
        assert square.size == (max(image.size),) * 2
        gap = abs(image.width - image.height) % 2
        assert (padded.size != square.size) == bool(gap)
        odd += gap
        if not gap:  # there the two are one
            both = [fitting.resize(image, size=size, fit=fit) for fit in ("pad", "pad_evenly")]
            assert both[0].tobytes() == both[1].tobytes()
    assert odd


def test_equalisation_is_lovt_s_to_the_level(recorded):
    cases = numbered(recorded, "in/equalize/img")
    assert cases
    for case in cases:
        pixels = recorded[f"in/equalize/img{case}"]
        share = levels.shares(pixels)[pixels]
        np.testing.assert_allclose(share, recorded[f"out/equalize/float{case}"], rtol=1e-12)
        found = np.asarray(levels.equalized(Image.fromarray(pixels)))
        np.testing.assert_array_equal(found, recorded[f"out/equalize/uint8_{case}"])
        moments = [share.mean(), share.var()]
        np.testing.assert_allclose(moments, recorded[f"out/equalize/mean_var{case}"], rtol=1e-6)


def test_object_cxr_is_equalised_before_lovt_stores_it_as_jpeg(recorded):
    cases = numbered(recorded, "in/object/img")
    assert cases
    for case in cases:
        image = Image.fromarray(recorded[f"in/object/img{case}"])
        expected = recorded[f"out/object/lovt/equalized_uint8_{case}"]
        np.testing.assert_array_equal(np.asarray(levels.equalized(image)), expected)
        size = recorded.scalar("in/config/lovt_image_size")
        equal = placed_input(image, config=config_of(size, fit="pad_evenly", equalize=True))[0]
        stored = fitting.resize(Image.fromarray(expected), size=size, fit="pad_evenly")
        assert equal.tobytes() == stored.tobytes()


def rsna_boxes(recorded):
    """Image's id -> boxes x, y, width, height, as the table lists them."""
    found = {}
    for row in csv.DictReader(io.StringIO(str(recorded["in/rsna/labels_csv"]))):
        boxes = found.setdefault(row["patientId"], [])
        if int(row["Target"]):
            boxes.append([float(row[name]) for name in ("x", "y", "width", "height")])
    return found


def test_lovt_reads_rsna_as_it_is(recorded):
    """It neither inverts MONOCHROME1 nor stretches levels (quirk L16); every class is 0 (L17)."""
    boxes = rsna_boxes(recorded)
    order = recorded["out/rsna/lovt/order"].tolist()
    by_id = dict(zip(recorded["in/rsna/ids"].tolist(), itertools.count(), strict=False))
    assert set(order) == set(by_id) == set(boxes)
    for place, name in enumerate(order):
        stored = recorded[f"in/rsna/img{by_id[name]}"]
        np.testing.assert_array_equal(recorded[f"out/rsna/lovt/dataset_scan{place}"], stored)
        np.testing.assert_allclose(
            recorded[f"out/rsna/lovt/dataset_boxes{place}"], np.reshape(boxes[name], (-1, 4))
        )
        assert not recorded[f"out/rsna/lovt/dataset_classes{place}"].any()


def test_mgca_stretches_rsna_to_white_and_divides_its_labels_at_each_read(recorded):
    """Quirks M16, M25 and M26: the levels, the labels, and the resize without antialiasing."""
    size = recorded.scalar("in/config/mgca_image_size")
    boxes = rsna_boxes(recorded)
    ids = recorded["in/rsna/ids"].tolist()
    inverted = 0
    for place, name in enumerate(recorded["out/rsna/mgca/order"].tolist()):
        case = ids.index(name.removesuffix(".dcm"))
        pixels = recorded[f"in/rsna/img{case}"]
        white = np.asarray(levels.white_at_most(Image.fromarray(pixels)))
        assert white.max() == 255 > pixels.max()
        if str(recorded["in/rsna/photometric"][case]) == "MONOCHROME1":
            white, inverted = 255 - white, inverted + 1
        found = resample.linear(white, height=size, width=size)
        np.testing.assert_array_equal(found, recorded[f"out/rsna/mgca/dataset/uint8_{place}"])
        check_mgca_labels(
            recorded,
            f"out/rsna/mgca/dataset/labels{{}}{place}",
            pixels.shape,
            corners(boxes[ids[case]]),
            size=size,
        )
    assert inverted


def check_mgca_labels(recorded, name, shape, boxes, *, size):
    """The recorded shares are ours at the first read, and at the second divided again."""
    first, second = (recorded[name.format(read)] for read in ("", "_second_read"))
    real = first[:, 3] > 0
    place = fitting.resize_transform(shape, size=size, fit="stretch")
    moved = regions.moved_boxes(boxes, place) / size
    x1, y1, x2, y2 = moved.T
    ours = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=1)
    np.testing.assert_allclose(ours, first[real, 1:], rtol=BOX_RTOL)
    height, width = shape
    np.testing.assert_allclose(second[:, 1:], first[:, 1:] / [width, height, width, height])


def test_mgca_reads_object_cxr_with_boxes_of_its_own(recorded):
    size = recorded.scalar("in/config/mgca_image_size")
    lengths = recorded["out/object/mgca/boxes_xywh/lengths"]
    rows = np.split(recorded["out/object/mgca/boxes_xywh/rows"], np.cumsum(lengths)[:-1])
    for case, annotation in enumerate(recorded["in/object/annotation"].tolist()):
        pixels = recorded[f"in/object/img{case}"]
        found = resample.linear(pixels, height=size, width=size)
        np.testing.assert_array_equal(found, recorded[f"out/object/mgca/dataset/uint8_{case}"])
        boxes = corners(rows[case])
        boxes = boxes[boxes[:, 2] > boxes[:, 0]]
        # Boxes that reach beyond the image are cut off there by ours alone.
        height, width = pixels.shape
        within = (boxes >= 0).all(axis=1) & (boxes <= [width, height, width, height]).all(axis=1)
        if within.all():
            check_mgca_labels(
                recorded,
                f"out/object/mgca/dataset/labels{{}}{case}",
                pixels.shape,
                boxes,
                size=size,
            )
        shapes = object_cxr.shapes_of(annotation)
        own = [object_cxr.box_of(one) for one in shapes if one[0] != object_cxr.POLYGON]
        same = [row for row, one in zip(boxes, shapes, strict=True) if one[0] != object_cxr.POLYGON]
        np.testing.assert_array_equal(np.reshape(own, (-1, 4)), np.reshape(same, (-1, 4)))


def test_lovt_reads_the_boxes_of_object_cxr_with_exchanged_sides(recorded):
    for case, annotation in enumerate(recorded["in/object/annotation"].tolist()):
        shapes = object_cxr.shapes_of(annotation)
        found = [one.box for one in object_cxr.regions_of(shapes, geometry="lovt")]
        expected = corners(recorded[f"out/object/lovt/dataset_boxes{case}"])
        np.testing.assert_array_equal(np.reshape(found, (-1, 4)), expected)  # quirk L13
